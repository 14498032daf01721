"""The bucket, one class for each use: clips and images; request files; reports; manifests with the clips' digests.

Each method raises `BucketError` if S3 refuses or does not answer. All URLs are presigned here.

By default boto3 presigns for the global host, in some regions with the old signature version, and adds checksum headers
that the uploader would have to repeat. So `S3_CONFIG` sets SigV4 and the bucket's regional virtual host, and `host` is
the only signed header, because the headers of Runware's PUT are not documented.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import ClientError

from rushes.adapters.aws import aws_errors, error_code
from rushes.domain.media import HEAD_BYTES, Head, ProbeResult, container, extension
from rushes.errors import BucketError

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

S3_CONFIG = Config(
    signature_version="s3v4",
    s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    connect_timeout=2,
    read_timeout=4,
    retries={"mode": "standard", "total_max_attempts": 2},
)
# Links set the type, because an upload may lack it, and a browser then saves a video instead of playing it.
_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "webm": "video/webm", "json": "application/json"}
_MAX_LINK_SECONDS = 7 * 24 * 3600  # SigV4's limit
_CHUNK = 64 * 1024  # bytes of a request file in memory at a time
_PIECE = 1024 * 1024  # bytes of a copy in memory at a time
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # bytes, far above a request and the facts of a clip
_EMPTY = {"InvalidRange", "416"}  # S3's codes for a range of an empty object
# S3's codes for a version that was deleted, expired or never existed, and for a delete marker.
_NOT_FOUND = {"NoSuchKey", "NoSuchVersion", "404", "405", "MethodNotAllowed"}
# S3's codes for an object that does not exist or cannot be read: forbidden, archived, or encrypted with a foreign key.
_UNREADABLE = {
    "403",
    "404",
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidObjectState",
    "InvalidRequest",
    "KMS.DisabledException",
    "NoSuchBucket",
    "NoSuchKey",
}


class S3Bucket:
    """Our bucket: clips and input images."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._name

    def upload_link(self, key: str, seconds: int) -> str:
        """A URL for a PUT of the object. It expires earlier if the signer's session does."""
        return self._link("put_object", self._name, key, seconds)

    def image_link(self, bucket: str, key: str, seconds: int) -> str:
        """A URL for a GET of an object in any bucket of our region that this service may read."""
        return self._link("get_object", bucket, key, seconds)

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Writes an object unless its key exists."""
        put = partial(self._client.put_object, Bucket=self._name, Key=key, Body=content, ContentType=content_type)
        with aws_errors(BucketError):
            try:
                put(IfNoneMatch="*")  # or every repeat would add a version, at a cost
            except ClientError as error:
                match error_code(error):
                    case "PreconditionFailed" | "412":
                        return
                    case "ConditionalRequestConflict" | "409":  # another process is writing it and may still fail
                        put()
                    case _:
                        raise

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        """Reads the first bytes of an object in any bucket; None if it does not exist or may not be read."""
        with aws_errors(BucketError):
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{length - 1}")
                return Head(_size(answer), answer["Body"].read(length))
            except ClientError as error:
                if error_code(error) in _UNREADABLE:
                    return None
                if error_code(error) in _EMPTY:
                    return Head(0, b"")
                raise

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str:
        """A URL for a GET of an object, of this version or the newest. It expires earlier if the signer's session does.

        If the `container` differs from the key's extension, the video is served with its real type and extension.
        """
        ending = extension(key, container)
        file_name = None if key.endswith(f".{ending}") else f"{key.rpartition('/')[2].rpartition('.')[0]}.{ending}"
        parameters = {
            "VersionId": version,
            "ResponseContentType": _TYPES.get(ending),
            "ResponseContentDisposition": f'inline; filename="{file_name}"' if file_name else None,
        }
        present = {name: value for name, value in parameters.items() if value}
        return self._link("get_object", self._name, key, seconds, present)

    @property
    def origin(self) -> str:
        """The scheme and host of every link, for a page's Content-Security-Policy."""
        url = urlsplit(self.download_link("videos/", 1))
        return f"{url.scheme}://{url.netloc}"

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None:
        """Reads the first bytes of an object, of this version or the newest; None if there is none."""
        of_version: Any = {"VersionId": version} if version else {}
        with aws_errors(BucketError):
            try:
                head_range = f"bytes=0-{HEAD_BYTES - 1}"
                answer = self._client.get_object(Bucket=self._name, Key=key, Range=head_range, **of_version)
            except ClientError as error:
                match error_code(error):
                    case "NoSuchKey" | "NoSuchVersion" | "404":
                        return None
                    case code if code in _EMPTY:
                        return ProbeResult(version="", size=0, etag="", container=None)
                raise
            head = answer["Body"].read(HEAD_BYTES)
        return ProbeResult(
            version=answer.get("VersionId", "null"),
            size=_size(answer),
            etag=answer["ETag"].strip('"'),
            container=container(head, _size(answer)),
        )

    def _link(
        self, operation: str, bucket: str, key: str, seconds: int, more: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        with aws_errors(BucketError):
            return self._client.generate_presigned_url(
                operation, Params={"Bucket": bucket, "Key": key, **more}, ExpiresIn=_allowed_lifetime(seconds)
            )


class StoredRequestFile(NamedTuple):
    """One object version. `metadata` is the user's; `hidden_metadata` counts the entries that S3 cannot return."""

    encoding: str
    metadata: Mapping[str, str]
    hidden_metadata: int
    body: "StreamingBody"

    def chunks(self) -> Iterator[bytes]:
        """The object's bytes; can be read once. Raises `BucketError` if they end early."""
        try:
            with aws_errors(BucketError):
                yield from self.body.iter_chunks(_CHUNK)
        except OSError as error:
            raise BucketError(type(error).__name__) from None
        finally:
            self.body.close()


class ObjectVersion(NamedTuple):
    """One object version without its bytes. `put_at` is in milliseconds."""

    version: str
    etag: str
    size: int
    put_at: int
    metadata: Mapping[str, str]


class S3RequestFiles:
    """The request files of one bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def open(self, key: str, version: str) -> StoredRequestFile | None:
        """An object version; None if it does not exist."""
        answer = _if_exists(self._client.get_object, Bucket=self._name, Key=key, VersionId=version)
        return answer and StoredRequestFile(
            encoding=answer.get("ContentEncoding", ""),
            metadata=answer["Metadata"],
            hidden_metadata=answer.get("MissingMeta", 0),
            body=answer["Body"],
        )

    def head(self, key: str, version: str) -> ObjectVersion | None:
        """An object version without its bytes; None if it does not exist."""
        answer = _if_exists(self._client.head_object, Bucket=self._name, Key=key, VersionId=version)
        return answer and ObjectVersion(
            version=version,
            etag=answer["ETag"],
            size=answer["ContentLength"],
            put_at=int(answer["LastModified"].timestamp() * 1000),
            metadata=answer["Metadata"],
        )

    def before(self, key: str, version: str) -> str | None:
        """The version that this one replaced; None if there was none, or the object was deleted before."""
        answer = _if_exists(
            self._client.list_object_versions,
            Bucket=self._name,
            Prefix=key,
            KeyMarker=key,
            VersionIdMarker=version,
            MaxKeys=1,  # the next in the list is the version before, or another key's
        )
        found = answer.get("Versions", []) if answer else []
        return next((each["VersionId"] for each in found if each["Key"] == key), None)


class S3Reports:
    """The reports of one bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def put(self, key: str, content: bytes) -> None:
        """Writes a report; overwrites an existing one."""
        with aws_errors(BucketError):
            self._client.put_object(Bucket=self._name, Key=key, Body=content, ContentType="application/json")


class S3Manifests:
    """The manifests beside clips' copies, and the digests of the copies."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def manifest(self, key: str) -> bytes | None:
        """The manifest at a key; None if there is none."""
        answer = _if_exists(self._client.get_object, Bucket=self._name, Key=key)
        if not answer:
            return None
        with aws_errors(BucketError):
            content: bytes = answer["Body"].read(_MAX_MANIFEST_BYTES)
        return content

    def put_manifest(self, key: str, content: bytes) -> None:
        """Writes a manifest; overwrites an existing one."""
        with aws_errors(BucketError):
            self._client.put_object(Bucket=self._name, Key=key, Body=content, ContentType="application/json")

    def has(self, object_key: str, version: str) -> bool:
        """True if the object version exists."""
        found = _if_exists(self._client.head_object, Bucket=self._name, Key=object_key, VersionId=version)
        return found is not None

    def digest(self, object_key: str, version: str) -> str | None:
        """The hexadecimal SHA-256 of an object version, read as a stream; None if it does not exist."""
        answer = _if_exists(self._client.get_object, Bucket=self._name, Key=object_key, VersionId=version)
        if not answer:
            return None
        sha256 = hashlib.sha256()
        with aws_errors(BucketError):
            # The client raises if fewer bytes arrive than `Content-Length`.
            for piece in answer["Body"].iter_chunks(_PIECE):
                sha256.update(piece)
        return sha256.hexdigest()


def _if_exists(call: Callable[..., Any], **arguments: Any) -> Any:
    """S3's response; None if the object or version does not exist."""
    with aws_errors(BucketError):
        try:
            return call(**arguments)
        except ClientError as error:
            if error_code(error) in _NOT_FOUND:
                return None
            raise


def _size(answer: "GetObjectOutputTypeDef") -> int:
    """The size of the whole object in bytes, from the response to a read of a range."""
    _, _, total = answer.get("ContentRange", "").partition("/")
    return int(total) if total.isdigit() else answer["ContentLength"]


def _allowed_lifetime(seconds: int) -> int:
    return max(1, min(seconds, _MAX_LINK_SECONDS))

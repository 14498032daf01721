"""The bucket, by user: links, the probe and callers' images; request files and reports; copies and manifests.

Each method raises `BucketError` when S3 refuses or does not answer. The one place where a URL is presigned.

Left to itself boto3 presigns against the global host, in some regions with the old signature scheme, and adds checksum
headers that the uploader would have to repeat. So the client made here says: SigV4, the bucket's regional virtual
host, and no header signed but `host`, since nobody knows which headers Runware's PUT carries.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
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
# Whoever uploads may say nothing of the type, and a browser will not play what it is told to save.
_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "webm": "video/webm", "json": "application/json"}
_MAX_LINK_SECONDS = 7 * 24 * 3600  # seconds: what SigV4 allows
_CHUNK = 64 * 1024  # bytes of a request file in memory at a time
_PIECE = 1024 * 1024  # bytes of a copy in memory at a time
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # bytes, far above what a record and its request can be
_EMPTY = {"InvalidRange", "416"}  # how S3 answers a range of an empty object
# S3's codes for a version that was deleted, one that expired, one that never was, and a delete marker.
_GONE = {"NoSuchKey", "NoSuchVersion", "404", "405", "MethodNotAllowed"}
# S3's codes for an object that is not there, or that is not for us to read: it is archived, or under a key of others.
_OUT_OF_REACH = {
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
    """Our bucket: clips, and the images that they begin with."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    def upload_link(self, key: str, seconds: int) -> str:
        """A URL that takes a PUT of the object; it dies with the signer's session if that ends sooner."""
        return self._link("put_object", self._name, key, seconds)

    def image_link(self, bucket: str, key: str, seconds: int) -> str:
        """A URL that gives an object of any bucket in our region, as far as we may read it, to whoever has the URL."""
        return self._link("get_object", bucket, key, seconds)

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Puts an object, unless there is one under its key."""
        put = partial(self._client.put_object, Bucket=self._name, Key=key, Body=content, ContentType=content_type)
        with aws_errors(BucketError):
            try:
                put(IfNoneMatch="*")  # or every repeat would add a version, which is paid for
            except ClientError as error:
                match error_code(error):
                    case "PreconditionFailed" | "412":
                        return
                    case "ConditionalRequestConflict" | "409":  # somebody else is putting it, and may yet fail
                        put()
                    case _:
                        raise

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        """Reads the first bytes of an object of any bucket; None if it is not there or not for us to read."""
        with aws_errors(BucketError):
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{length - 1}")
                return Head(_size(answer), answer["Body"].read(length))
            except ClientError as error:
                if error_code(error) in _OUT_OF_REACH:
                    return None
                if error_code(error) in _EMPTY:
                    return Head(0, b"")
                raise

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str:
        """A URL that gives an object of `videos/`: the version named, else the newest. Dies as an upload link does.

        A video of another `container` than its key promises is served as what it is, under a file name of that kind.
        """
        ending = extension(key, container)
        named_after = None if key.endswith(f".{ending}") else f"{key.rpartition('/')[2].rpartition('.')[0]}.{ending}"
        more = {
            "VersionId": version,
            "ResponseContentType": _TYPES.get(ending),
            "ResponseContentDisposition": f'inline; filename="{named_after}"' if named_after else None,
        }
        named = {name: value for name, value in more.items() if value}
        return self._link("get_object", self._name, key, seconds, named)

    @property
    def origin(self) -> str:
        """Scheme and host of every link, as a page's policy has to name them."""
        url = urlsplit(self.download_link("videos/", 1))
        return f"{url.scheme}://{url.netloc}"

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None:
        """Reads the first bytes of an object, of the version named or the newest; None if there is none."""
        named: Any = {"VersionId": version} if version else {}
        with aws_errors(BucketError):
            try:
                answer = self._client.get_object(Bucket=self._name, Key=key, Range=f"bytes=0-{HEAD_BYTES - 1}", **named)
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
                operation, Params={"Bucket": bucket, "Key": key, **more}, ExpiresIn=_valid(seconds)
            )


@dataclass(frozen=True, slots=True)
class StoredRequestFile:
    """One version of an object. `metadata` is the user's; `hidden_metadata` counts what S3 cannot show of it."""

    encoding: str
    metadata: Mapping[str, str]
    hidden_metadata: int
    body: "StreamingBody"

    def chunks(self) -> Iterator[bytes]:
        """The object's bytes, once. Raises `BucketError` when they end too early."""
        try:
            with aws_errors(BucketError):
                yield from self.body.iter_chunks(_CHUNK)
        except OSError as error:
            raise BucketError(type(error).__name__) from None
        finally:
            self.body.close()


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object without its bytes. `put_at` is in milliseconds."""

    version: str
    etag: str
    size: int
    put_at: int
    metadata: Mapping[str, str]


class S3RequestFiles:
    """The drops of one bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def open(self, key: str, version: str) -> StoredRequestFile | None:
        """This version of an object; None if it is gone."""
        answer = _unless_gone(self._client.get_object, Bucket=self._name, Key=key, VersionId=version)
        return answer and StoredRequestFile(
            encoding=answer.get("ContentEncoding", ""),
            metadata=answer["Metadata"],
            hidden_metadata=answer.get("MissingMeta", 0),
            body=answer["Body"],
        )

    def head(self, key: str, version: str) -> ObjectVersion | None:
        """This version without its bytes; None if it is gone."""
        answer = _unless_gone(self._client.head_object, Bucket=self._name, Key=key, VersionId=version)
        return answer and ObjectVersion(
            version=version,
            etag=answer["ETag"],
            size=answer["ContentLength"],
            put_at=int(answer["LastModified"].timestamp() * 1000),
            metadata=answer["Metadata"],
        )

    def before(self, key: str, version: str) -> str | None:
        """The version that this one replaced; None if there was none, or the object had been deleted."""
        answer = _unless_gone(
            self._client.list_object_versions,
            Bucket=self._name,
            Prefix=key,
            KeyMarker=key,
            VersionIdMarker=version,
            MaxKeys=1,  # what follows a version in the list is the one before it, unless another key begins
        )
        found = answer.get("Versions", []) if answer else []
        return next((each["VersionId"] for each in found if each["Key"] == key), None)


class S3Reports:
    """The reports of one bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def put(self, key: str, content: bytes) -> None:
        """Writes a report, over the same one if need be."""
        with aws_errors(BucketError):
            self._client.put_object(Bucket=self._name, Key=key, Body=content, ContentType="application/json")


class S3Manifests:
    """Pinned copies, read for their digest, and the manifests beside them."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def manifest(self, key: str) -> bytes | None:
        """The manifest under a key, None if there is none."""
        answer = _unless_gone(self._client.get_object, Bucket=self._name, Key=key)
        if not answer:
            return None
        with aws_errors(BucketError):
            content: bytes = answer["Body"].read(_MAX_MANIFEST_BYTES)
        return content

    def put_manifest(self, key: str, content: bytes) -> None:
        """Writes a manifest over the one that is there."""
        with aws_errors(BucketError):
            self._client.put_object(Bucket=self._name, Key=key, Body=content, ContentType="application/json")

    def has(self, object_key: str, version: str) -> bool:
        """Whether a version of an object is still there."""
        found = _unless_gone(self._client.head_object, Bucket=self._name, Key=object_key, VersionId=version)
        return found is not None

    def digest(self, object_key: str, version: str) -> str | None:
        """The SHA-256 of a version of an object, read as a stream; None if it is there no more."""
        answer = _unless_gone(self._client.get_object, Bucket=self._name, Key=object_key, VersionId=version)
        if not answer:
            return None
        sha256 = hashlib.sha256()
        with aws_errors(BucketError):
            # The client compares what came with the length that was announced.
            for piece in answer["Body"].iter_chunks(_PIECE):
                sha256.update(piece)
        return sha256.hexdigest()


def _unless_gone(call: Callable[..., Any], **arguments: Any) -> Any:
    """S3's answer; None if there is no such version."""
    with aws_errors(BucketError):
        try:
            return call(**arguments)
        except ClientError as error:
            if error_code(error) in _GONE:
                return None
            raise


def _size(answer: "GetObjectOutputTypeDef") -> int:
    """How large the whole object is, of which a part was read."""
    _, _, total = answer.get("ContentRange", "").partition("/")
    return int(total) if total.isdigit() else answer["ContentLength"]


def _valid(seconds: int) -> int:
    return max(1, min(seconds, _MAX_LINK_SECONDS))

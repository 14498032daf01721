"""The bucket: presigned links, the probe, and callers' images, some of them in buckets of their own.

The one place where a URL is presigned.

Left to itself boto3 presigns against the global host, in some regions with the old signature scheme, and adds checksum
headers that the uploader would have to repeat. So the client made here says: SigV4, the bucket's regional virtual
host, and no header signed but `host`, since nobody knows which headers Runware's PUT carries.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rushes.domain.media import HEAD_BYTES, Head, Probed, container, extension
from rushes.errors import BucketError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

CONFIG = Config(
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
_LONGEST_LINK = 7 * 24 * 3600  # seconds: what SigV4 allows
_EMPTY = {"InvalidRange", "416"}  # how S3 answers a range of an empty object
# What S3 says of an object that is not there, or that is not for us to read: it is archived, or under a key of others.
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


class Bucket:
    """Our bucket: clips, and the images that they begin with."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    def upload_link(self, key: str, seconds: int) -> str:
        """A URL that takes a PUT of the object; it dies with the signer's session if that ends sooner.

        Raises `BucketError` if it cannot be signed.
        """
        return self._link("put_object", self._name, key, seconds)

    def image_link(self, bucket: str, key: str, seconds: int) -> str:
        """A URL that gives an object of any bucket in our region, as far as we may read it, to whoever has the URL.

        Raises `BucketError` if it cannot be signed.
        """
        return self._link("get_object", bucket, key, seconds)

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Puts an object, unless there is one under its key. Raises `BucketError` if S3 does not take it."""
        put = partial(self._client.put_object, Bucket=self._name, Key=key, Body=content, ContentType=content_type)
        with _bucket_errors():
            try:
                put(IfNoneMatch="*")  # or every repeat would add a version, which is paid for
            except ClientError as error:
                match _code(error):
                    case "PreconditionFailed" | "412":
                        return
                    case "ConditionalRequestConflict" | "409":  # somebody else is putting it, and may yet fail
                        put()
                    case _:
                        raise

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        """Reads the first bytes of an object of any bucket; None if it is not there or not for us to read.

        Raises `BucketError` when S3 cannot say.
        """
        with _bucket_errors():
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{length - 1}")
                return Head(_size(answer), answer["Body"].read(length))
            except ClientError as error:
                if _code(error) in _OUT_OF_REACH:
                    return None
                if _code(error) in _EMPTY:
                    return Head(0, b"")
                raise

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str:
        """A URL that gives an object of `videos/`: the version named, else the newest. Dies as an upload link does.

        A video of another `container` than its key promises is served as what it is, under a file name of that kind.
        Raises `BucketError` if it cannot be signed.
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
        """Scheme and host of every link, as a page's policy has to name them. Raises `BucketError` as the links do."""
        url = urlsplit(self.download_link("videos/", 1))
        return f"{url.scheme}://{url.netloc}"

    def probe(self, key: str, version: str | None = None) -> Probed | None:
        """Reads the first bytes of an object, of the version named or the newest; None if there is none.

        Raises `BucketError` when S3 cannot say.
        """
        named: Any = {"VersionId": version} if version else {}
        with _bucket_errors():
            try:
                answer = self._client.get_object(Bucket=self._name, Key=key, Range=f"bytes=0-{HEAD_BYTES - 1}", **named)
            except ClientError as error:
                match _code(error):
                    case "NoSuchKey" | "NoSuchVersion" | "404":
                        return None
                    case code if code in _EMPTY:
                        return Probed(version="", size=0, etag="", container=None)
                raise
            head = answer["Body"].read(HEAD_BYTES)
        return Probed(
            version=answer.get("VersionId", "null"),
            size=_size(answer),
            etag=answer["ETag"].strip('"'),
            container=container(head, _size(answer)),
        )

    def _link(
        self, operation: str, bucket: str, key: str, seconds: int, more: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        with _bucket_errors():
            return self._client.generate_presigned_url(
                operation, Params={"Bucket": bucket, "Key": key, **more}, ExpiresIn=_valid(seconds)
            )


@contextmanager
def _bucket_errors() -> Iterator[None]:
    """Inside, what goes wrong with S3 is a `BucketError`."""
    try:
        yield
    except ClientError as error:
        raise BucketError(_code(error)) from None
    except BotoCoreError as error:
        raise BucketError(type(error).__name__) from None


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def _size(answer: "GetObjectOutputTypeDef") -> int:
    """How large the whole object is, of which a part was read."""
    _, _, total = answer.get("ContentRange", "").partition("/")
    return int(total) if total.isdigit() else answer["ContentLength"]


def _valid(seconds: int) -> int:
    return max(1, min(seconds, _LONGEST_LINK))

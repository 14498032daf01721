"""The bucket: presigned links and the probe. The one place where a URL is presigned.

Left to itself boto3 presigns against the global host, in some regions with the old signature scheme, and adds checksum
headers that the uploader would have to repeat. So the client made here says: SigV4, the bucket's regional virtual
host, and no header signed but `host`, since nobody knows which headers Runware's PUT carries.
"""

from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rushes.errors import BucketError
from rushes.media import Probed, container

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CONFIG = Config(
    signature_version="s3v4",
    s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    connect_timeout=2,
    read_timeout=4,
    retries={"mode": "standard", "total_max_attempts": 2},
)
_HEAD_BYTES = 64
_LONGEST_LINK = 7 * 24 * 3600  # seconds: what SigV4 allows


class Bucket:
    """One bucket's clips."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def upload_link(self, key: str, seconds: int) -> str:
        """A URL that takes a PUT of the object; it dies with the signer's session if that ends sooner.

        Raises `BucketError` if it cannot be signed.
        """
        try:
            return self._client.generate_presigned_url(
                "put_object", Params={"Bucket": self._name, "Key": key}, ExpiresIn=_valid(seconds)
            )
        except BotoCoreError as error:
            raise BucketError(type(error).__name__) from None

    def probe(self, key: str) -> Probed | None:
        """Reads the first bytes of an object; None if there is none. Raises `BucketError` when S3 cannot say."""
        try:
            answer = self._client.get_object(Bucket=self._name, Key=key, Range=f"bytes=0-{_HEAD_BYTES - 1}")
        except ClientError as error:
            match error.response["Error"]["Code"]:
                case "NoSuchKey" | "404":
                    return None
                case "InvalidRange" | "416":  # how S3 answers a range of an empty object
                    return Probed(version="", size=0, etag="", container=None)
            raise BucketError(error.response["Error"]["Code"]) from None
        except BotoCoreError as error:
            raise BucketError(type(error).__name__) from None
        head = answer["Body"].read(_HEAD_BYTES)
        _, _, total = answer.get("ContentRange", "").partition("/")
        return Probed(
            version=answer.get("VersionId", "null"),
            size=int(total) if total.isdigit() else answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            container=container(head),
        )


def _valid(seconds: int) -> int:
    return max(1, min(seconds, _LONGEST_LINK))

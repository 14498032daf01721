"""The bucket as `announce` sees it: pinned copies, read for their digest, and the manifests beside them."""

import hashlib
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rushes.errors import BucketError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_PIECE = 1024 * 1024  # bytes in memory at a time
_LONGEST_MANIFEST = 4 * 1024 * 1024  # far above what a record and its request can be
# What S3 says of a version that was deleted, one that expired, and one that never was.
_GONE = {"NoSuchKey", "NoSuchVersion", "404", "405", "MethodNotAllowed"}


class Manifests:
    """One bucket's copies and manifests. Everything raises `BucketError` when S3 cannot say or do."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client, self._bucket = client, bucket

    def manifest(self, key: str) -> bytes | None:
        """The manifest under a key, None if there is none."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            return answer["Body"].read(_LONGEST_MANIFEST)
        except (ClientError, BotoCoreError) as error:
            _unless_gone(error)
            return None

    def put_manifest(self, key: str, content: bytes) -> None:
        """Writes a manifest over the one that is there."""
        kept: Any = {"Bucket": self._bucket, "Key": key, "Body": content, "ContentType": "application/json"}
        try:
            self._client.put_object(**kept)
        except (ClientError, BotoCoreError) as error:
            raise BucketError(_why(error)) from None

    def has(self, object_key: str, version: str) -> bool:
        """Whether a version of an object is still there."""
        try:
            self._client.head_object(Bucket=self._bucket, Key=object_key, VersionId=version)
        except (ClientError, BotoCoreError) as error:
            _unless_gone(error)
            return False
        return True

    def digest(self, object_key: str, version: str) -> str | None:
        """The SHA-256 of a version of an object, read as a stream; None if it is there no more."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=object_key, VersionId=version)
            sha256 = hashlib.sha256()
            # The client compares what came with the length that was announced.
            for piece in answer["Body"].iter_chunks(_PIECE):
                sha256.update(piece)
        except (ClientError, BotoCoreError) as error:
            _unless_gone(error)
            return None
        return sha256.hexdigest()


def _unless_gone(error: ClientError | BotoCoreError) -> None:
    if _why(error) not in _GONE:
        raise BucketError(_why(error)) from None


def _why(error: ClientError | BotoCoreError) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__

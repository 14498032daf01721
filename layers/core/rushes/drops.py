"""What callers drop under `requests/`, read as a stream, and the reports that answer it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rushes.errors import BucketError

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client

_CHUNK = 64 * 1024  # bytes
_GONE = ("NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "404", "405")  # the last are a delete marker's


@dataclass(frozen=True, slots=True)
class StoredDrop:
    """One version of an object. `metadata` is the user's; `hidden_metadata` counts what S3 cannot show of it."""

    encoding: str
    metadata: Mapping[str, str]
    hidden_metadata: int
    body: "StreamingBody"

    def chunks(self) -> Iterator[bytes]:
        """The object's bytes, once. Raises `BucketError` when they end too early."""
        try:
            yield from self.body.iter_chunks(_CHUNK)
        except (BotoCoreError, OSError) as error:
            raise BucketError(type(error).__name__) from None
        finally:
            self.body.close()


@dataclass(frozen=True, slots=True)
class StoredPut:
    """One version of an object without its bytes. `put_at` is in milliseconds."""

    version: str
    etag: str
    size: int
    put_at: int
    metadata: Mapping[str, str]


class Drops:
    """The drops of one bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def open(self, key: str, version: str) -> StoredDrop | None:
        """This version of an object; None if it is gone. Raises `BucketError` when S3 cannot say."""
        answer = _asked(self._client.get_object, Bucket=self._name, Key=key, VersionId=version)
        return answer and StoredDrop(
            encoding=answer.get("ContentEncoding", ""),
            metadata=answer["Metadata"],
            hidden_metadata=answer.get("MissingMeta", 0),
            body=answer["Body"],
        )

    def head(self, key: str, version: str) -> StoredPut | None:
        """This version without its bytes; None if it is gone. Raises `BucketError` when S3 cannot say."""
        answer = _asked(self._client.head_object, Bucket=self._name, Key=key, VersionId=version)
        return answer and StoredPut(
            version=version,
            etag=answer["ETag"],
            size=answer["ContentLength"],
            put_at=int(answer["LastModified"].timestamp() * 1000),
            metadata=answer["Metadata"],
        )

    def before(self, key: str, version: str) -> str | None:
        """The version that this one replaced; None if there was none, or the object had been deleted."""
        answer = _asked(
            self._client.list_object_versions,
            Bucket=self._name,
            Prefix=key,
            KeyMarker=key,
            VersionIdMarker=version,
            MaxKeys=1,  # what follows a version in the list is the one before it, unless another key begins
        )
        found = answer.get("Versions", []) if answer else []
        return next((each["VersionId"] for each in found if each["Key"] == key), None)


class Reports:
    """The reports of one bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        self._client, self._name = client, name

    def put(self, key: str, content: bytes) -> None:
        """Writes a report, over the same one if need be; raises `BucketError`."""
        try:
            self._client.put_object(Bucket=self._name, Key=key, Body=content, ContentType="application/json")
        except ClientError as error:
            raise BucketError(error.response["Error"]["Code"]) from None
        except BotoCoreError as error:
            raise BucketError(type(error).__name__) from None


def _asked(call: Callable[..., Any], **arguments: Any) -> Any:
    """S3's answer; None if there is no such version. Raises `BucketError` when S3 cannot say."""
    try:
        return call(**arguments)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _GONE:
            return None
        raise BucketError(code) from None
    except BotoCoreError as error:
        raise BucketError(type(error).__name__) from None

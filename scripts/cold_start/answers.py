"""AWS inside the measured process: replaces botocore's HTTP, so that only the function is measured.

Answers with bytes, as AWS does, from the data of `Answers`. Imports only modules that the functions load anyway.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore import httpsession
from botocore.awsrequest import AWSResponse

_VIDEO = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x28mdat" + bytes(32)


class _Raw(io.BytesIO):
    """A body as botocore reads it from urllib3."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


class Answers:
    """`items` are the table's, in DynamoDB's JSON; `secrets` are texts by ARN."""

    def __init__(self, items: list[dict[str, Any]], secrets: Mapping[str, str]) -> None:
        self._items = {_key(item): item for item in items}
        self._secrets = secrets

    def install(self) -> None:
        """Redirects every botocore client of this process to this object."""
        setattr(httpsession.URLLib3Session, "send", lambda _, request: self._send(request))  # noqa: B010

    def _send(self, request: Any) -> AWSResponse:
        target = request.headers.get("X-Amz-Target")
        if target is None:
            return _object(request)
        operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
        # An operation that is not listed is a write, and gets an empty answer.
        answer = self._operations.get(operation, lambda _: {})(json.loads(request.body))
        content = json.dumps(answer).encode()
        headers = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "R" * 52}
        return _response(request, 200, headers, content)

    @property
    def _operations(self) -> Mapping[str, Callable[[Any], dict[str, Any]]]:
        return {
            "GetItem": self._get_item,
            "BatchGetItem": self._batch_get_item,
            "Query": self._query,
            "GetSecretValue": lambda asked: {"SecretString": self._secrets[asked["SecretId"]]},
            "SendMessage": lambda _: {"MessageId": "1"},
            "SendMessageBatch": lambda asked: {
                "Successful": [{"Id": entry["Id"], "MessageId": "1"} for entry in asked["Entries"]]
            },
            "PutEvents": lambda asked: {"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in asked["Entries"]]},
        }

    def _get_item(self, asked: Any) -> dict[str, Any]:
        item = self._items.get(_key(asked["Key"]))
        return {"Item": item} if item else {}

    def _batch_get_item(self, asked: Any) -> dict[str, Any]:
        found = {
            table: [self._items[_key(key)] for key in wanted["Keys"] if _key(key) in self._items]
            for table, wanted in asked["RequestItems"].items()
        }
        return {"Responses": found}

    def _query(self, asked: Any) -> dict[str, Any]:
        """The clips of one task. An index of callers returns all requests; the index `due` returns nothing."""
        wanted = [value.get("S") for value in asked["ExpressionAttributeValues"].values()]
        index = asked.get("IndexName")
        found = [
            item
            for (pk, sk), item in self._items.items()
            if (sk == "request" and index and index != "due") or (pk in wanted and sk.startswith("clip#"))
        ]
        return {"Items": found, "Count": len(found)}


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _object(request: Any) -> AWSResponse:
    """S3: every object exists and is a video, except manifests, which do not exist."""
    if request.method != "PUT" and urlsplit(request.url).path.endswith(".json"):
        return _response(request, 404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
    headers = {"ETag": '"etag"', "x-amz-version-id": "v1", "Content-Length": "0"}
    if request.method != "GET":
        return _response(request, 200, headers, b"")
    headers |= {"Content-Length": str(len(_VIDEO)), "Content-Range": f"bytes 0-{len(_VIDEO) - 1}/15000000"}
    return _response(request, 206, headers, _VIDEO)


def _response(request: Any, status: int, headers: Any, content: bytes) -> AWSResponse:
    return AWSResponse(request.url, status, headers, _Raw(content))

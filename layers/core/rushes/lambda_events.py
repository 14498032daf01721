"""Lambda's events: batches of a queue or a stream, and API Gateway's requests and responses.

The records of a batch are processed one by one, and the response lists the failed ones for a retry. Powertools does
the same (`utilities.batch`), but loads asyncio and the event classes of all services, a sixth of a cold start.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from rushes.errors import BatchError, RushesError

Record = Mapping[str, Any]


def message_id(record: Record) -> str:
    """Returns the identifier of a queue's record."""
    return str(record["messageId"])


def sequence_number(record: Record) -> str:
    """Returns the identifier of a stream's record."""
    return str(record["dynamodb"]["SequenceNumber"])


def process_batch(
    event: Mapping[str, Any],
    work: Callable[[Record], None],
    identify: Callable[[Record], str],
    *,
    all_may_fail: bool = False,
) -> Any:
    """Returns the response to the event source, with the records for which `work` raised an exception.

    Raises `BatchError` if all records failed, so that the invocation counts as an error, unless `all_may_fail`.
    """
    failed, types = [], set()
    for record in event["Records"]:
        try:
            work(record)
        except Exception as error:  # of any type: the other records must still be processed
            failed.append(record)
            types.add(type(error).__name__)
    if failed and len(failed) == len(event["Records"]) and not all_may_fail:
        raise BatchError(f"all {len(failed)} records failed: {', '.join(sorted(types))}")
    return {"batchItemFailures": [{"itemIdentifier": identify(record)} for record in failed]}


def header(event: Mapping[str, Any], name: str) -> str | None:
    """Returns a header by its name in lower case, or None. Only `sam local` passes names in other cases."""
    headers: Mapping[str, str] = event.get("headers") or {}
    return next((value for given, value in headers.items() if given.lower() == name), None)


def body_of(event: Mapping[str, Any]) -> bytes:
    """Returns the body of an API Gateway request, in bytes."""
    body: str = event.get("body") or ""
    # A text body is passed on unchanged. It cannot contain a lone surrogate, but one must not raise either.
    return b64decode(body) if event.get("isBase64Encoded") else body.encode(errors="surrogatepass")


def http_response(
    status: int, content_type: str, body: str, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Returns a response for API Gateway."""
    return {"statusCode": status, "headers": {"Content-Type": content_type, **(headers or {})}, "body": body}


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns a response with JSON in ASCII, so that any text of a request can be sent back."""
    return http_response(status, "application/json", json.dumps(body), headers)


def error_text(error: Exception) -> str:
    """Returns an error for the log. A foreign error's text may contain secrets, so only its type is returned."""
    return f"{type(error).__name__}: {error}" if isinstance(error, RushesError) else type(error).__name__

"""Lambda's events: batches of a queue or a stream, and API Gateway's requests and responses.

Each record of a batch is worked on by itself, and those that failed are named to come again. Powertools does the same
(`utilities.batch`), but loads asyncio and the event classes of every service, a sixth of a cold start.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from rushes.errors import BatchError, RushesError

Record = Mapping[str, Any]


def message_id(record: Record) -> str:
    """What a queue knows a record by."""
    return str(record["messageId"])


def sequence_number(record: Record) -> str:
    """What a table's stream knows a record by."""
    return str(record["dynamodb"]["SequenceNumber"])


def work_on(
    event: Mapping[str, Any],
    work: Callable[[Record], None],
    identify: Callable[[Record], str],
    *,
    all_may_fail: bool = False,
) -> Any:
    """The answer to the event source: the records whose work raised anything.

    Raises `BatchError` if all of them did, so that the function is seen to fail, unless that may well be.
    """
    failed, error_text = [], set()
    for record in event["Records"]:
        try:
            work(record)
        except Exception as error:  # whatever it is, the other records are not to blame
            failed.append(record)
            error_text.add(type(error).__name__)
    if failed and len(failed) == len(event["Records"]) and not all_may_fail:
        raise BatchError(f"all {len(failed)} records failed: {', '.join(sorted(error_text))}")
    return {"batchItemFailures": [{"itemIdentifier": identify(record)} for record in failed]}


def header(event: Mapping[str, Any], name: str) -> str | None:
    """A header by its name in lower case: so API Gateway writes them; `sam local` keeps them as they were sent."""
    headers: Mapping[str, str] = event.get("headers") or {}
    return next((value for sent, value in headers.items() if sent.lower() == name), None)


def body_of(event: Mapping[str, Any]) -> bytes:
    """The bytes that were sent to API Gateway."""
    body: str = event.get("body") or ""
    # API Gateway hands over text as it is; a lone surrogate cannot come that way, but must not raise either.
    return b64decode(body) if event.get("isBase64Encoded") else body.encode(errors="surrogatepass")


def http_response(
    status: int, content_type: str, body: str, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A response for API Gateway."""
    return {"statusCode": status, "headers": {"Content-Type": content_type, **(headers or {})}, "body": body}


def json_response(status: int, body: object) -> dict[str, Any]:
    """A response of JSON in ASCII, so that text of a request is sent back whatever it holds."""
    return http_response(status, "application/json", json.dumps(body))


def error_text(error: Exception) -> str:
    """An error for the log. The text of an error that is not ours may hold anything, so only its type is given."""
    return f"{type(error).__name__}: {error}" if isinstance(error, RushesError) else type(error).__name__

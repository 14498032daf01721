"""What the functions' entry points share: the clock, the clients of AWS, and what an HTTP event holds."""

import time
from base64 import b64decode
from collections.abc import Mapping
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.session import Session


def clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def aws_config(tries: int = 2) -> Config:
    """Short timeouts and few tries: a webhook has about five seconds in all, and a caller waits as well.

    The table's client tries once: `Store` has its own patience, and the two would multiply.
    """
    return Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": tries})


def aws_client(service: str, config: Config) -> Any:
    """A client of AWS, all of one session, which reads botocore's data once.

    They are botocore's own: what boto3 adds to them nobody here uses, and a cold start would wait for its import.
    """
    return _session().create_client(service, config=config)


@cache
def _session() -> Session:
    return Session()


def header(event: Mapping[str, Any], name: str) -> str | None:
    """A header by its name in lower case: so API Gateway writes them; `sam local` keeps them as they were sent."""
    headers: Mapping[str, str] = event.get("headers") or {}
    return next((value for sent, value in headers.items() if sent.lower() == name), None)


def body_of(event: Mapping[str, Any]) -> bytes:
    """The bytes that were sent to API Gateway."""
    body: str = event.get("body") or ""
    # API Gateway hands over text as it is; a lone surrogate cannot come that way, but must not raise either.
    return b64decode(body) if event.get("isBase64Encoded") else body.encode(errors="surrogatepass")

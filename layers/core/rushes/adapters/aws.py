"""What the functions' entry points share: the clock, the clients of AWS, and what an HTTP event holds."""

import time
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.session import Session


def clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def aws_config(tries: int = 2) -> Config:
    """Short timeouts and few tries: a webhook has about five seconds in all, and a caller waits as well.

    The table's client tries once: `DynamoDbTable` has its own retries, and the two would multiply.
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

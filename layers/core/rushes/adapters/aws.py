"""The clock, AWS clients, and the translation of their errors into ours."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session


def clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def aws_config(tries: int = 2) -> Config:
    """Short timeouts and few attempts: a webhook has about five seconds in all, and a caller waits, too."""
    return Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": tries})


def table_config() -> Config:
    """One attempt, because `DynamoDbTable` has its own retries and the two would multiply; no validation of parameters.

    The values come from `attribute_values` and are validated by DynamoDB anyway; botocore's validation would take a
    twentieth of a webhook's time.
    """
    return aws_config(tries=1).merge(Config(parameter_validation=False))


def aws_client(service: str, config: Config) -> Any:
    """A client of an AWS service. All clients share one session, which reads botocore's data once.

    They are botocore's clients: the additions of boto3 are not used, and its import would slow down cold starts.
    """
    return _session().create_client(service, config=config)


@cache
def _session() -> Session:
    return Session()


@contextmanager
def aws_errors(translated: Callable[[str], Exception]) -> Iterator[None]:
    """Within the context, an error of AWS or of the connection is raised as `translated(code)`.

    Only the code is kept, because AWS's messages repeat names, keys and links.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise translated(error_code(error)) from None


def error_code(error: ClientError | BotoCoreError) -> str:
    """AWS's error code; the exception's type if there was no response."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__

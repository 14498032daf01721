"""DynamoDB's `ClientRequestToken`, which moto ignores: a repeated transaction changes nothing.

From the developer guide ("Idempotency"): "If the original TransactWriteItems call was successful, the subsequent
TransactWriteItems calls with the same client token return successfully without making any changes." "A client token is
valid for 10 minutes after the request that uses it finishes." "If you repeat a request with the same client token
within the 10-minute idempotency window but change some other request parameter, DynamoDB returns an
IdempotentParameterMismatch exception." From the API reference, of `TransactionInProgressException`: "The transaction
with the given request token is already in progress."

A cancelled transaction was not successful, so its repeat is a new try. That its parameters count, too, is the stricter
reading of the third sentence.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

VALIDITY = 600.0  # seconds


class Repeat(Enum):
    """The relation of a transaction to the earlier ones with its token."""

    NONE = auto()
    """It is new, or a new try of a cancelled one, and now in progress."""

    DONE = auto()
    IN_PROGRESS = auto()
    OTHER_PARAMETERS = auto()


@dataclass
class _Use:
    request: Mapping[str, Any]
    finished_at: float | None = None
    successful: bool = False


class RequestTokens:
    """The tokens of the last ten minutes. Times are in Unix seconds."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}
        self._lock = threading.Lock()

    def begin(self, request: Mapping[str, Any], now: float) -> Repeat:
        """Note a transaction as begun, unless its token does not allow that."""
        token = request["ClientRequestToken"]
        with self._lock:
            self._expire(now)
            use = self._uses.get(token)
            if use is None:
                self._uses[token] = _Use(request)
                return Repeat.NONE
            if use.request != request:
                return Repeat.OTHER_PARAMETERS
            if use.finished_at is None:
                return Repeat.IN_PROGRESS
            if use.successful:
                return Repeat.DONE
            use.finished_at = None
            return Repeat.NONE

    def finish(self, request: Mapping[str, Any], now: float, *, successful: bool) -> None:
        """Note the end of a transaction that has begun."""
        with self._lock:
            use = self._uses[request["ClientRequestToken"]]
            use.finished_at, use.successful = now, successful

    def _expire(self, now: float) -> None:
        for token, use in list(self._uses.items()):
            if use.finished_at is not None and now >= use.finished_at + VALIDITY:
                del self._uses[token]

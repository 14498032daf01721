"""DynamoDB on this machine: moto's, one request at a time, and with the conflicts, tokens and lags of an `AwsBehavior`.

The behaviors are in `transaction_conflicts`, `request_tokens` and `read_lag`; here they are applied to requests. With
all of them off, a request is passed on unread.
"""

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rushes_local.aws.behavior import AS_MOTO, AwsBehavior, Chance
from rushes_local.aws.error_response import AwsError
from rushes_local.aws.read_lag import PastItems, lagging_tables
from rushes_local.aws.request_tokens import Repeat, RequestTokens
from rushes_local.aws.transaction_conflicts import (
    HeldItems,
    ItemKey,
    Reason,
    cancellation,
    condition_reason,
    item_key,
    transaction_keys,
)
from rushes_local.lambda_runtime import ACCOUNT_ID, REGION

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SINGLE_WRITES = ("PutItem", "UpdateItem", "DeleteItem")
_TRANSACTIONS = ("TransactWriteItems", "TransactGetItems")

_REFUSALS = {
    Repeat.IN_PROGRESS: ("TransactionInProgressException", "The transaction is in progress"),
    Repeat.OTHER_PARAMETERS: ("IdempotentParameterMismatchException", "The token was used with other parameters"),
}


class DynamoDb:
    """Answers DynamoDB's requests by moto."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        # moto applies the writes of a transaction one by one and restores the old items when one fails, so that a write
        # of another thread meanwhile would be lost, or partly visible. So DynamoDB and its stream, which must not
        # contain undone writes, answer one request at a time.
        self.lock = threading.Lock()
        self._clock, self._sleep = clock, sleep
        self.behave(AS_MOTO, Chance(0))

    def behave(self, behavior: AwsBehavior, chance: Chance) -> None:
        """Apply a behavior from the next request on. Former writes and tokens are forgotten."""
        self._behavior, self._chance = behavior, chance
        self._held, self._tokens, self._past = HeldItems(), RequestTokens(), PastItems()

    def catch_up(self) -> None:
        """Make all writes up to now visible to every read."""
        with self.lock:
            self._past.clear()

    def answer(
        self,
        application: "WSGIApplication",
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
    ) -> Iterable[bytes]:
        """The response to a request. Raises AwsError."""
        behavior = self._behavior
        if not (behavior.hold_seconds or behavior.lag_seconds or behavior.honors_tokens):
            with self.lock:
                return list(application(environ, start_response))
        operation, request = environ["HTTP_X_AMZ_TARGET"].partition(".")[2], _read(environ)
        if operation == "TransactWriteItems" and behavior.honors_tokens and "ClientRequestToken" in request:
            return self._answer_once(application, environ, start_response, request)
        return self._answer(application, environ, start_response, operation, request)

    def _answer_once(
        self,
        application: "WSGIApplication",
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        request: Mapping[str, Any],
    ) -> Iterable[bytes]:
        """The response to a transaction with a token: that of moto, or of a repeat."""
        tokens = self._tokens  # the same at the end, also after `behave`
        repeat = tokens.begin(request, self._clock())
        if repeat is not Repeat.NONE:
            self._chance.count("transaction repeated")
        if repeat in _REFUSALS:
            code, text = _REFUSALS[repeat]
            raise AwsError(code, 400, text)
        if repeat is Repeat.DONE:
            start_response("200 OK", [("content-type", "application/x-amz-json-1.0"), ("content-length", "2")])
            return [b"{}"]
        statuses = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            statuses.append(status)
            return start_response(status, headers, exc_info)

        try:
            return self._answer(application, environ, start, "TransactWriteItems", request)
        finally:
            tokens.finish(request, self._clock(), successful=any(each.startswith("200") for each in statuses))

    def _answer(
        self,
        application: "WSGIApplication",
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        operation: str,
        request: Mapping[str, Any],
    ) -> Iterable[bytes]:
        with self._without_conflict(operation, request), self.lock, self._lagging(operation, request):
            return list(application(environ, start_response))

    @contextlib.contextmanager
    def _without_conflict(self, operation: str, request: Mapping[str, Any]) -> Iterator[None]:
        """Within the context, the request holds its items if it is a transaction. Raises AwsError for a conflict."""
        if not self._behavior.hold_seconds or operation not in (*_SINGLE_WRITES, *_TRANSACTIONS):
            yield
            return
        held = self._held
        if operation in _SINGLE_WRITES:
            if any(held.conflicts([item_key(request, _key_names)])):
                self._chance.count("write in conflict")
                raise AwsError("TransactionConflictException", 400, "Transaction is ongoing for the item")
            yield
            return
        keys = transaction_keys(request, _key_names)
        writes = operation == "TransactWriteItems"
        conflicts = held.hold(keys) if writes else held.conflicts(keys)
        if any(conflicts):
            self._chance.count("transaction in conflict")
            others = self._condition_reasons(request) if writes else None
            raise AwsError("TransactionCanceledException", 400, "", fields=cancellation(conflicts, others))
        if writes:
            with _releasing(held, keys):
                self._sleep(self._behavior.hold_seconds)
                yield
        else:
            yield

    def _condition_reasons(self, request: Mapping[str, Any]) -> list[Reason]:
        """The reasons of a transaction's items by their conditions alone."""
        actions = [action for item in request["TransactItems"] for action in item.values()]
        with self.lock:
            return [condition_reason(_backend(), action, _key_names) for action in actions]

    @contextlib.contextmanager
    def _lagging(self, operation: str, request: Mapping[str, Any]) -> Iterator[None]:
        """Within the context, the tables have a past state if the request may read one; a write is remembered."""
        lag, now = self._behavior.lag_seconds, self._clock()
        if not lag:
            yield
            return
        backend = _backend()
        self._past.record(backend, operation, request, now, lag)
        with self._past.visible(backend, lagging_tables(operation, request), lambda: now - self._chance.below(lag)):
            self._chance.counts["read lagged"] += self._past.is_shown
            yield


@contextlib.contextmanager
def _releasing(held: HeldItems, keys: Sequence[ItemKey]) -> Iterator[None]:
    try:
        yield
    finally:
        held.release(keys)


def _read(environ: "WSGIEnvironment") -> Mapping[str, Any]:
    """The request, which can be read again afterwards."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    request: Mapping[str, Any] = json.loads(body)
    return request


def _backend() -> Any:
    from moto.dynamodb.models import dynamodb_backends  # not at the top: the import takes a second or two

    return dynamodb_backends[ACCOUNT_ID][REGION]


def _key_names(table: str) -> Sequence[str]:
    found = _backend().tables.get(table)
    return found.table_key_attrs if found else ()

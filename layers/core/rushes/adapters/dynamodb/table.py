"""The table for the deployed functions: calls, conditions and retries. The format of items is in `items`.

Guarantees: `record` writes a task, its clips and their money in one transaction. `save` replaces a clip only if its
version is still the one that was read, and adds the difference of the clip's amount to the budgets in the same
transaction. Contention is retried a limited number of times; then `StaleError` or `BusyError` is raised. If the
response to a save was lost, its repeat is recognised by a token in the item.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from rushes.adapters.dynamodb import items
from rushes.adapters.dynamodb.items import Item
from rushes.domain.budget import Costs, OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.task import Existing, Page, Recorded, Task, TaskWithClips
from rushes.errors import BusyError, StaleError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_MAX_KEYS = 100  # in one BatchGetItem
_MAX_ATTEMPTS = 7
_FAILED = "ConditionalCheckFailed"
_FIRST_PAUSE = 0.02  # seconds; doubles, with full jitter, to about one second for all attempts
_BUSY = {
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ThrottlingError",
    "ThrottlingException",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "InternalServerError",
    "ServiceUnavailable",
}


class DynamoDbTable:
    """Tasks, clips, budgets and API keys in one DynamoDB table."""

    def __init__(self, client: "DynamoDBClient", table: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._table, self._sleep = client, table, sleep

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation]
    ) -> Recorded | Existing | OverBudget:
        """Writes the task, its clips and their reservations; an existing task takes precedence over a full budget.

        Raises `BusyError`.
        """
        writes: list[Any] = [self._put_new(items.task_item(task))]
        writes += [self._put_new({**items.clip_item(clip), **items.lasting_attributes(task, clip)}) for clip in clips]
        writes += [self._reserve(reservation) for reservation in reservations]
        token = str(uuid.uuid4())  # the same for all attempts, so that a repeat of a successful one succeeds
        try:
            self._retried(
                lambda: self._client.transact_write_items(TransactItems=writes, ClientRequestToken=token),
                partial(_is_final, own=1 + len(clips)),
            )
        except ClientError as error:
            reasons = _cancellation_reasons(error)
            failed = [reason.get("Code") == _FAILED for reason in reasons]
            if failed and failed[0]:
                return Existing(items.read_task(items.from_attributes(reasons[0]["Item"])))
            if failed and failed[1]:  # the request has expired, but not its clips
                return Existing(items.read_task(items.from_attributes(reasons[1]["Item"])))
            for reservation, reason, refused in zip(
                reservations, reasons[-len(reservations) :], failed[-len(reservations) :], strict=True
            ):
                if refused:
                    budgeted = items.from_attributes(reason.get("Item", {})).get("counted", 0)
                    return OverBudget(reservation.scope, reservation.limit, budgeted)
            raise
        return Recorded()

    def save(self, before: Clip, after: Clip) -> Clip:
        """Replaces `before` by `after` and returns the saved clip; raises `StaleError` if the version has changed.

        The condition also fails for a retry after a lost response; that case is recognised by the token in the item.
        """
        saved, token = replace(after, version=before.version + 1), uuid.uuid4().hex
        update = self._update(before, saved, token)
        difference = after.budgeted - before.budgeted
        try:
            if not difference:
                self._retried(lambda: self._client.update_item(**update))
            else:
                # Only if needed, because the budget item of all callers is contended by the saves of all clips.
                changes = [self._add(scope, after.month, difference) for scope in after.scopes]
                writes: list[Any] = [{"Update": update}, *changes]
                self._retried(lambda: self._client.transact_write_items(TransactItems=writes))
        except ClientError as error:  # a failed condition; other errors end as BusyError
            if _existing_item(error).get(items.save_token_name(saved)) != token:
                raise StaleError from None
        return saved

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        """One clip, by a consistent read."""
        answer = self._retried(
            lambda: self._client.get_item(
                TableName=self._table, Key=items.clip_key(caller, task_uuid, index), ConsistentRead=True
            )
        )
        return items.read_clip(items.from_attributes(answer["Item"])) if "Item" in answer else None

    def clips(self, caller: str, task_uuid: str) -> list[Clip]:
        """All clips of a task in their order, by a consistent read."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk AND begins_with(sk, :clip)",
            ExpressionAttributeValues={":pk": {"S": items.task_pk(caller, task_uuid)}, ":clip": {"S": "clip#"}},
            ConsistentRead=True,
        )
        return sorted(
            (items.read_clip(items.from_attributes(item)) for page in pages for item in page["Items"]),
            key=lambda clip: clip.index,
        )

    def task(self, caller: str, task_uuid: str) -> Task | None:
        """A caller's task, without its clips."""
        key = {"pk": {"S": items.task_pk(caller, task_uuid)}, "sk": {"S": "request"}}
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        return items.read_task(items.from_attributes(answer["Item"])) if "Item" in answer else None

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None:
        """A caller's task with its fingerprint, by which a repeat is found, also after its request has expired."""
        key = items.clip_key(caller, task_uuid, 0)
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        return items.read_task(items.from_attributes(answer["Item"])) if "Item" in answer else None

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        """A caller's task with its clips, by a consistent read, also after its request has expired."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": items.task_pk(caller, task_uuid)}},
            ConsistentRead=True,
        )
        return items.task_with_clips([items.from_attributes(item) for page in pages for item in page["Items"]])

    def page(self, caller: str, limit: int, *, after: str | None = None, day: str = "") -> Page:
        """A caller's newest tasks after the position `after`, of one day (`yyyy-mm-dd`) or all. Eventually consistent.

        Raises `UnreadableError` for a position that cannot be in such a list. Any other position only selects among
        this caller's own tasks.
        """
        start = items.task_start_key(caller, after, day) if after is not None else None
        answer = self._retried(lambda: self._recent(caller, limit, day, start))
        keys = [{name: item[name] for name in ("pk", "sk")} for item in answer["Items"]]
        requests = [item for item in self._get_items(keys) if "request" in item]
        clips = self._get_items(
            [items.clip_key(caller, item["taskUUID"], index) for item in requests for index in range(item["clips"])]
        )
        members: dict[str, list[Item]] = {item["taskUUID"]: [item] for item in requests}
        for item in clips:
            members[item["taskUUID"]].append(item)
        found = [each for each in map(items.task_with_clips, members.values()) if each]
        end = items.from_attributes(answer.get("LastEvaluatedKey", {})).get("createdAt")
        return Page(tuple(sorted(found, key=lambda each: each.position, reverse=True)), end)

    def costs(self, caller: str, since: int, until: int, limit: int, after: str | None = None) -> Costs:
        """The costs of a caller's clips after `after`, newest first. Eventually consistent.

        `since` and `until` are in milliseconds, both included. A page may be short. Raises `UnreadableError` for a
        position that cannot be in such a list.
        """
        start: Any = (
            {"ExclusiveStartKey": items.cost_start_key(caller, after, since, until)} if after is not None else {}
        )
        answer = self._retried(
            lambda: self._client.query(
                TableName=self._table,
                IndexName="costs",
                KeyConditionExpression="clipCaller = :caller AND createdAtMs BETWEEN :since AND :until",
                ExpressionAttributeValues=items.to_attributes({":caller": caller, ":since": since, ":until": until}),
                ScanIndexForward=False,
                Limit=limit,
                **start,
            )
        )
        last = items.from_attributes(answer.get("LastEvaluatedKey", {}))
        end = "#".join((str(last["createdAtMs"]), *map(str, items.clip_name(last)[1:]))) if last else None
        return Costs(tuple(items.read_cost(items.from_attributes(item)) for item in answer["Items"]), end)

    def due(self, now: int, limit: int) -> list[tuple[str, str, int]]:
        """The keys of due clips, oldest first: caller, task and clip. Eventually consistent.

        Due are open clips and those whose budgets are not current.
        """
        found: list[Item] = []
        for shard in range(items.SHARDS):
            answer = self._retried(partial(self._due_in, str(shard), now, limit))
            found += [items.from_attributes(item) for item in answer["Items"]]
        found.sort(key=lambda item: int(item["nextCheckAt"]))
        return [items.clip_name(item) for item in found[:limit]]

    def postpone(self, name: tuple[str, str, int], now: int, until: int) -> None:
        """Sets the next check of a clip that is due at `now`, without reading or changing anything else of it."""
        with suppress(ClientError):  # the failed condition: the clip is not due any more
            self._retried(
                lambda: self._client.update_item(
                    TableName=self._table,
                    Key=items.clip_key(*name),
                    UpdateExpression="SET nextCheckAt = :until",
                    ConditionExpression="nextCheckAt <= :now",
                    ExpressionAttributeValues=items.to_attributes({":now": now, ":until": until}),
                )
            )

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        """A scope's sum and the limit at its last reservation, in micro-dollars; 0 and None before the first."""
        key = items.budget_key(scope, month)
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        item = items.from_attributes(answer.get("Item", {}))
        return item.get("counted", 0), item.get("limit")

    def caller(self, key_hash: str) -> Caller | None:
        """The caller of an API key; None if the key is unknown or revoked."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.api_key(key_hash), ConsistentRead=True)
        )
        item = items.from_attributes(answer.get("Item", {}))
        return self.caller_named(item["keyCaller"]) if item and "revokedAt" not in item else None

    def caller_named(self, name: str) -> Caller | None:
        """A caller by its name; None unless an operator has made it."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.caller_key(name), ConsistentRead=True)
        )
        item = items.from_attributes(answer.get("Item", {}))
        return items.read_caller(name, item) if item else None

    def _pages(self, operation: str, **arguments: Any) -> Iterator[Any]:
        """All pages of a query or scan, each with retries."""
        call = getattr(self._client, operation)
        start: dict[str, Any] = {}
        while True:
            answer = self._retried(partial(call, TableName=self._table, **arguments, **start))
            yield answer
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _due_in(self, shard: str, now: int, limit: int) -> Any:
        return self._client.query(
            TableName=self._table,
            IndexName="due",
            KeyConditionExpression="dueShard = :shard AND nextCheckAt <= :now",
            ExpressionAttributeValues=items.to_attributes({":shard": shard, ":now": now}),
            Limit=limit,
        )

    def _recent(self, caller: str, limit: int, day: str, start: Item | None) -> Any:
        paging: Any = {"ExclusiveStartKey": start} if start else {}
        of_day = " AND begins_with(createdAt, :day)" if day else ""
        return self._client.query(
            TableName=self._table,
            IndexName="recent",
            KeyConditionExpression=f"caller = :caller{of_day}",
            ExpressionAttributeValues=items.to_attributes({":caller": caller, **({":day": day} if day else {})}),
            ScanIndexForward=False,
            Limit=limit,
            **paging,
        )

    def _get_items(self, keys: Sequence[Item]) -> list[Item]:
        """The existing items with these keys, in no particular order."""
        found: list[Item] = []
        for first in range(0, len(keys), _MAX_KEYS):
            found += self._get_batch(list(keys[first : first + _MAX_KEYS]))
        return found

    def _get_batch(self, keys: list[Item]) -> list[Item]:
        """The items of at most 100 keys. Unprocessed keys are requested again until several calls return nothing."""
        found: list[Item] = []
        empty_calls = 0
        while keys:
            requested: Any = {self._table: {"Keys": keys}}
            answer: Any = self._retried(partial(self._client.batch_get_item, RequestItems=requested))
            found += [items.from_attributes(item) for item in answer["Responses"].get(self._table, [])]
            left: list[Item] = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])
            empty_calls = empty_calls + 1 if len(left) == len(keys) else 0
            if empty_calls == _MAX_ATTEMPTS:
                raise BusyError("the table left all keys unprocessed")
            if left:
                self._pause(empty_calls)
            keys = left
        return found

    def _put_new(self, item: Item) -> Item:
        return {
            "Put": {
                "TableName": self._table,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(pk)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def _reserve(self, reservation: Reservation) -> Item:
        room = reservation.limit - reservation.amount
        has_room = "attribute_not_exists(#counted) OR #counted <= :room" if room >= 0 else "#counted < :zero"
        return {
            "Update": {
                "TableName": self._table,
                "Key": items.budget_key(reservation.scope, reservation.month),
                "UpdateExpression": "SET #limit = :limit, #counted = if_not_exists(#counted, :zero) + :amount",
                "ConditionExpression": has_room,
                "ExpressionAttributeNames": {"#limit": "limit", "#counted": "counted"},
                "ExpressionAttributeValues": items.to_attributes(
                    {
                        ":limit": reservation.limit,
                        ":amount": reservation.amount,
                        ":zero": 0,
                        **({":room": room} if room >= 0 else {}),
                    }
                ),
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def _add(self, scope: str, month: str, difference: int) -> Item:
        """A correction of a budget after new facts: unconditional, because the cost has already been incurred."""
        return {
            "Update": {
                "TableName": self._table,
                "Key": items.budget_key(scope, month),
                "UpdateExpression": "ADD #counted :difference",
                "ExpressionAttributeNames": {"#counted": "counted"},
                "ExpressionAttributeValues": items.to_attributes({":difference": difference}),
            }
        }

    def _update(self, before: Clip, after: Clip, token: str) -> Item:
        values = {**items.changing_attributes(after), items.save_token_name(after): token}
        present = {name: value for name, value in values.items() if value is not None}
        absent = [name for name, value in values.items() if value is None]
        names = {f"#{name}": name for name in values} | {"#version": "version"}
        sets = ", ".join(f"#{name} = :{name}" for name in present)
        removes = f" REMOVE {', '.join(f'#{name}' for name in absent)}" if absent else ""
        return {
            "TableName": self._table,
            "Key": items.clip_key(before.caller, before.task_uuid, before.index),
            "UpdateExpression": f"SET {sets}{removes}",
            "ConditionExpression": "#version = :before",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": items.to_attributes(
                {":before": before.version, **{f":{name}": value for name, value in present.items()}}
            ),
        }

    def _retried(self, call: Callable[[], T], is_final: Callable[[ClientError], bool] | None = None) -> T:
        """Calls with retries after contention or throttling. Raises the `ClientError` of a failed condition."""
        lost = False
        for attempt in range(_MAX_ATTEMPTS):
            try:
                return call()
            except ClientError as error:
                if (is_final or is_condition)(error):
                    raise
                lost |= _is_possibly_written(error)
                if not _is_busy(error):
                    raise BusyError(error.response["Error"]["Code"], possibly_written=lost) from None
            except (BotoConnectionError, HTTPClientError) as error:
                lost |= not isinstance(error, EndpointConnectionError | ConnectTimeoutError)
                if attempt:  # each attempt may take seconds
                    raise BusyError(type(error).__name__, possibly_written=lost) from None
            if attempt + 1 < _MAX_ATTEMPTS:
                self._pause(attempt)
        raise BusyError("the table stayed contended", possibly_written=lost)

    def _pause(self, attempt: int) -> None:
        # The system's generator: processes restored from one snapshot share the state of Python's own, and would repeat
        # their conflicts after equal pauses.
        self._sleep(SystemRandom().uniform(0, _FIRST_PAUSE * 2**attempt))


def is_condition(error: ClientError) -> bool:
    codes = {reason.get("Code") for reason in _cancellation_reasons(error)}
    return _FAILED in codes or error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def _is_final(error: ClientError, own: int) -> bool:
    """True if a failed condition decides `record`. The first `own` writes are the task's, the others its budgets'.

    A full budget does not decide while an item of the task is in another transaction: that one may be recording the
    same task, and then the result is `Existing`.
    """
    codes = [reason.get("Code", "None") for reason in _cancellation_reasons(error)]
    return _FAILED in codes[:own] or (_FAILED in codes[own:] and set(codes[:own]) == {"None"})


def _is_busy(error: ClientError) -> bool:
    codes = {reason.get("Code", "None") for reason in _cancellation_reasons(error)} - {"None", _FAILED}
    return codes <= _BUSY if codes else error.response["Error"]["Code"] in _BUSY


def _is_possibly_written(error: ClientError) -> bool:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or error.response["Error"]["Code"] == "TransactionInProgressException"


def _existing_item(error: ClientError) -> Item:
    """The stored item for which the condition of a save failed."""
    response: Mapping[str, Any] = error.response
    (first, *_) = [*_cancellation_reasons(error), response]
    return items.from_attributes(first.get("Item", {}))


def _cancellation_reasons(error: ClientError) -> Sequence[Mapping[str, Any]]:
    return error.response.get("CancellationReasons", [])

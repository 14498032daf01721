"""The table as the deployed functions use it: its calls, conditions and retries. `items` has names and shapes.

What it promises: `record` writes a task, its clips and their money together or not at all; `save` writes a clip only
over the version it was read at, and moves the budgets by exactly what the clip's worth changed, in the same
transaction. Contention is retried here, within bounds; what remains is `StaleError` or `BusyError`. A save whose answer
was lost is recognised when it is repeated, by a token in the item.
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

_MAX_KEYS = 100  # of one BatchGetItem
_ATTEMPTS = 7
_FAILED = "ConditionalCheckFailed"
_FIRST_PAUSE = 0.02  # seconds; doubles, with full jitter, so that all attempts together stay near one second
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
        """Writes the intent to buy and sets its money aside; an existing task wins over a budget that is too small."""
        writes: list[Any] = [self._put_new(items.task_item(task))]
        writes += [self._put_new({**items.clip_item(clip), **items.lasting_attributes(task, clip)}) for clip in clips]
        writes += [self._reserve(reservation) for reservation in reservations]
        token = str(uuid.uuid4())  # one for all attempts: a repeat of one that did succeed succeeds again
        try:
            self._retried(
                lambda: self._client.transact_write_items(TransactItems=writes, ClientRequestToken=token),
                partial(_is_final, own=1 + len(clips)),
            )
        except ClientError as error:
            reasons = _reasons(error)
            failed = [reason.get("Code") == _FAILED for reason in reasons]
            if failed and failed[0]:
                return Existing(items.read_task(items.from_attributes(reasons[0]["Item"])))
            if failed and failed[1]:  # the request has expired; its clips have not
                return Existing(items.read_task(items.from_attributes(reasons[1]["Item"])))
            for reservation, reason, refused in zip(
                reservations, reasons[-len(reservations) :], failed[-len(reservations) :], strict=True
            ):
                if refused:
                    counted = items.from_attributes(reason.get("Item", {})).get("counted", 0)
                    return OverBudget(reservation.scope, reservation.limit, counted)
            raise
        return Recorded()

    def save(self, before: Clip, after: Clip) -> Clip:
        """Writes `after` over `before` and returns it as saved; raises `StaleError` if the table has moved on.

        A condition also fails on a repeat of one's own write whose answer was lost: then the item holds its token.
        """
        saved, token = replace(after, version=before.version + 1), uuid.uuid4().hex
        update = self._update(before, saved, token)
        difference = after.budgeted - before.budgeted
        try:
            if not difference:
                self._retried(lambda: self._client.update_item(**update))
            else:
                # Only then: every write to the item of all callers contends with every other clip's.
                moves = [self._add(scope, after.month, difference) for scope in after.scopes]
                writes: list[Any] = [{"Update": update}, *moves]
                self._retried(lambda: self._client.transact_write_items(TransactItems=writes))
        except ClientError as error:  # what the retries let through is a condition that failed
            if _found_instead(error).get(items.save_token_name(saved)) != token:
                raise StaleError from None
        return saved

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        """One clip, as of now."""
        answer = self._retried(
            lambda: self._client.get_item(
                TableName=self._table, Key=items.clip_key(caller, task_uuid, index), ConsistentRead=True
            )
        )
        return items.read_clip(items.from_attributes(answer["Item"])) if "Item" in answer else None

    def clips(self, caller: str, task_uuid: str) -> list[Clip]:
        """All clips of a task in their order, as of now."""
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
        """A caller's task as far as it tells a repeat from a conflict: also once its request has expired."""
        key = items.clip_key(caller, task_uuid, 0)
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        return items.read_task(items.from_attributes(answer["Item"])) if "Item" in answer else None

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        """A caller's task with its clips, as of now; also one whose request has expired."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": items.task_pk(caller, task_uuid)}},
            ConsistentRead=True,
        )
        return items.task_with_clips([items.from_attributes(item) for page in pages for item in page["Items"]])

    def page(self, caller: str, most: int, *, after: str | None = None, day: str = "") -> Page:
        """A caller's newest tasks, of one day (`yyyy-mm-dd`) or any, from the position `after` on; may lag behind.

        Raises `UnreadableError` for a position that cannot be in such a list. Whatever it is, it is taken for one in
        this caller's own.
        """
        start = items.task_start_key(caller, after, day) if after is not None else None
        answer = self._retried(lambda: self._recent(caller, most, day, start))
        keys = [{name: item[name] for name in ("pk", "sk")} for item in answer["Items"]]
        requests = [item for item in self._several(keys) if "request" in item]
        clips = self._several(
            [items.clip_key(caller, item["taskUUID"], index) for item in requests for index in range(item["clips"])]
        )
        members: dict[str, list[Item]] = {item["taskUUID"]: [item] for item in requests}
        for item in clips:
            members[item["taskUUID"]].append(item)
        found = [each for each in map(items.task_with_clips, members.values()) if each]
        end = items.from_attributes(answer.get("LastEvaluatedKey", {})).get("createdAt")
        return Page(tuple(sorted(found, key=lambda each: each.position, reverse=True)), end)

    def costs(self, caller: str, since: int, until: int, most: int, after: str | None = None) -> Costs:
        """What a caller's clips of these milliseconds, both included, count: newest first, from `after` on; may lag.

        A page may end early. Raises `UnreadableError` for a position that cannot be in such a list.
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
                Limit=most,
                **start,
            )
        )
        last = items.from_attributes(answer.get("LastEvaluatedKey", {}))
        end = "#".join((str(last["createdAtMs"]), *map(str, items.clip_name(last)[1:]))) if last else None
        return Costs(tuple(items.read_cost(items.from_attributes(item)) for item in answer["Items"]), end)

    def due(self, now: int, most: int) -> list[tuple[str, str, int]]:
        """The clips whose next look is due, oldest first: caller, task and clip. The index may lag behind.

        These are the open ones, and those whose money is to follow.
        """
        found: list[Item] = []
        for shard in range(items.SHARDS):
            answer = self._retried(partial(self._due_in, str(shard), now, most))
            found += [items.from_attributes(item) for item in answer["Items"]]
        found.sort(key=lambda item: int(item["nextCheckAt"]))
        return [items.clip_name(item) for item in found[:most]]

    def postpone(self, name: tuple[str, str, int], now: int, until: int) -> None:
        """Moves a clip in the index that is due at `now`, without reading it or touching anything else of it."""
        with suppress(ClientError):  # what the retries let through is that another version has moved it
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
        """A scope's month: its sum and the limit of its last reservation, in micro-dollars; 0 and None before any."""
        key = items.budget_key(scope, month)
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        item = items.from_attributes(answer.get("Item", {}))
        return item.get("counted", 0), item.get("limit")

    def caller(self, key_hash: str) -> Caller | None:
        """The caller of an API key, None if it is unknown or revoked."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.api_key(key_hash), ConsistentRead=True)
        )
        item = items.from_attributes(answer.get("Item", {}))
        return self.caller_named(item["keyCaller"]) if item and "revokedAt" not in item else None

    def caller_named(self, name: str) -> Caller | None:
        """A caller that an operator has made, None for any other."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.caller_key(name), ConsistentRead=True)
        )
        item = items.from_attributes(answer.get("Item", {}))
        return items.read_caller(name, item) if item else None

    def _pages(self, operation: str, **arguments: Any) -> Iterator[Any]:
        """A query or scan to its end, each page with the table's patience."""
        call = getattr(self._client, operation)
        start: dict[str, Any] = {}
        while True:
            answer = self._retried(partial(call, TableName=self._table, **arguments, **start))
            yield answer
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _due_in(self, shard: str, now: int, most: int) -> Any:
        return self._client.query(
            TableName=self._table,
            IndexName="due",
            KeyConditionExpression="dueShard = :shard AND nextCheckAt <= :now",
            ExpressionAttributeValues=items.to_attributes({":shard": shard, ":now": now}),
            Limit=most,
        )

    def _recent(self, caller: str, most: int, day: str, start: Item | None) -> Any:
        more: Any = {"ExclusiveStartKey": start} if start else {}
        of_day = " AND begins_with(createdAt, :day)" if day else ""
        return self._client.query(
            TableName=self._table,
            IndexName="recent",
            KeyConditionExpression=f"caller = :caller{of_day}",
            ExpressionAttributeValues=items.to_attributes({":caller": caller, **({":day": day} if day else {})}),
            ScanIndexForward=False,
            Limit=most,
            **more,
        )

    def _several(self, keys: Sequence[Item]) -> list[Item]:
        """The items under these keys, in no order; those that are gone are left out."""
        found: list[Item] = []
        for first in range(0, len(keys), _MAX_KEYS):
            found += self._batch(list(keys[first : first + _MAX_KEYS]))
        return found

    def _batch(self, keys: list[Item]) -> list[Item]:
        """What one call leaves unprocessed is asked for again, as long as each call brings something."""
        found: list[Item] = []
        fruitless = 0
        while keys:
            wanted: Any = {self._table: {"Keys": keys}}
            answer: Any = self._retried(partial(self._client.batch_get_item, RequestItems=wanted))
            found += [items.from_attributes(item) for item in answer["Responses"].get(self._table, [])]
            left: list[Item] = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])
            fruitless = fruitless + 1 if len(left) == len(keys) else 0
            if fruitless == _ATTEMPTS:
                raise BusyError("the table gives no more items")
            if left:
                self._pause(fruitless)
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
        """A correction from facts: unconditional, because what has happened has happened."""
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
        """Repeats what contention or throttling turned away. Conditions that failed are the caller's to judge."""
        lost = False
        for attempt in range(_ATTEMPTS):
            try:
                return call()
            except ClientError as error:
                if (is_final or is_condition)(error):
                    raise
                lost |= _may_have_taken_effect(error)
                if not _is_busy(error):
                    raise BusyError(error.response["Error"]["Code"], possibly_written=lost) from None
            except (BotoConnectionError, HTTPClientError) as error:
                lost |= not isinstance(error, EndpointConnectionError | ConnectTimeoutError)
                if attempt:  # each of these may have taken seconds already
                    raise BusyError(type(error).__name__, possibly_written=lost) from None
            if attempt + 1 < _ATTEMPTS:
                self._pause(attempt)
        raise BusyError("the table stayed contended", possibly_written=lost)

    def _pause(self, attempt: int) -> None:
        # The system's: processes restored from one snapshot share the state of Python's own generator, and would wait
        # alike and meet again.
        self._sleep(SystemRandom().uniform(0, _FIRST_PAUSE * 2**attempt))


def is_condition(error: ClientError) -> bool:
    codes = {reason.get("Code") for reason in _reasons(error)}
    return _FAILED in codes or error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def _is_final(error: ClientError, own: int) -> bool:
    """Whether a condition of `record` has decided; the first `own` writes are of the task itself, the others of money.

    A budget's refusal decides nothing while an item of the task is in another transaction: that may be recording the
    same task, and then the answer is that it exists.
    """
    codes = [reason.get("Code", "None") for reason in _reasons(error)]
    return _FAILED in codes[:own] or (_FAILED in codes[own:] and set(codes[:own]) == {"None"})


def _is_busy(error: ClientError) -> bool:
    codes = {reason.get("Code", "None") for reason in _reasons(error)} - {"None", _FAILED}
    return codes <= _BUSY if codes else error.response["Error"]["Code"] in _BUSY


def _may_have_taken_effect(error: ClientError) -> bool:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or error.response["Error"]["Code"] == "TransactionInProgressException"


def _found_instead(error: ClientError) -> Item:
    """The clip's item that made the condition of a save fail."""
    response: Mapping[str, Any] = error.response
    (first, *_) = [*_reasons(error), response]
    return items.from_attributes(first.get("Item", {}))


def _reasons(error: ClientError) -> Sequence[Mapping[str, Any]]:
    return error.response.get("CancellationReasons", [])

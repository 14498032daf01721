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
from itertools import chain, count
from random import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from rushes.adapters.dynamodb import items
from rushes.adapters.dynamodb.items import Item
from rushes.domain.budget import (
    SHARES,
    Balance,
    Booking,
    Costs,
    OverBudget,
    Reservation,
    Share,
    plan_correction,
    plan_reservation,
    share_of,
    total,
)
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.task import Existing, Page, Recorded, Task, TaskWithClips
from rushes.errors import BusyError, StaleError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_MAX_KEYS = 100  # of one BatchGetItem
_ATTEMPTS = 7
_PLANS = 20  # of where in the budgets an amount goes: each failure means that another write succeeded
_FAILED = "ConditionalCheckFailed"
_CONFLICT = "TransactionConflict"
_FIRST_PAUSE = 0.02  # seconds; doubles, with full jitter, so that all attempts together stay near one second
# The system's: processes restored from one snapshot share the state of Python's own generator, and would wait alike and
# meet again.
_RANDOM = SystemRandom()
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

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._table, self._sleep, self._clock = client, table, sleep, clock

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation], *, patience: float = 0
    ) -> Recorded | Existing | OverBudget:
        """Writes the intent to buy and sets its money aside; an existing task wins over a budget that is too small.

        Contention is retried for `patience` seconds, and beyond them as often as for other calls.
        """
        until = self._clock() + patience
        own: list[Any] = [self._put_new(items.task_item(task))]
        own += [self._put_new({**items.clip_item(clip), **items.lasting_attributes(task, clip)}) for clip in clips]
        share = share_of(task.task_uuid)
        plans: dict[str, Booking | Balance] = {each.scope: Booking(share) for each in reservations}
        for attempt in self._attempts(until):
            money = {each.scope: self._reserve(each, plans[each.scope]) for each in reservations}
            try:
                in_the_way = self._transact(own, money)
            except ClientError as error:
                # Of the request's item or, if that has expired, of the first clip's.
                found = next(reason["Item"] for reason in _reasons(error) if reason.get("Code") == _FAILED)
                return Existing(items.read_task(items.from_attributes(found)))
            if not in_the_way:
                return Recorded()
            for reservation in reservations:
                code = in_the_way.get(reservation.scope)
                if code == _FAILED or (code and isinstance(plans[reservation.scope], Balance)):
                    plan = self._plan(reservation, share)
                    if isinstance(plan, OverBudget):
                        return plan
                    plans[reservation.scope] = plan
                elif code:
                    plans[reservation.scope] = Booking(_RANDOM.randrange(SHARES))
            if _FAILED not in in_the_way.values():
                self._pause(attempt)
        raise BusyError("the budgets stayed contended")

    def save(self, before: Clip, after: Clip) -> Clip:
        """Writes `after` over `before` and returns it as saved; raises `StaleError` if the table has moved on.

        A condition also fails on a repeat of one's own write whose answer was lost: then the item holds its token.
        """
        saved, token = replace(after, version=before.version + 1), uuid.uuid4().hex
        update = self._update(before, saved, token)
        difference = after.budgeted - before.budgeted
        try:
            if difference:
                self._save_with_money(update, after, difference)
            else:
                # A budget's share contends with other clips', so it is written only if it changes.
                self._retried(lambda: self._client.update_item(**update))
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
        shares = self._shares(scope, month)
        return total(shares), next((share.limit for share in shares if share), None)

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

    def _transact(self, own: Sequence[Item], money: Mapping[str, list[Item]]) -> Mapping[str, str]:
        """Writes all or nothing. Returns, by scope, why its shares could not be written; empty if all is written.

        Raises `ClientError` if a condition of the `own` items failed.
        """
        token = str(uuid.uuid4())  # one for all attempts: a repeat of one that did succeed succeeds again
        writes: list[Any] = [*own, *chain(*money.values())]
        try:
            self._retried(
                lambda: self._client.transact_write_items(TransactItems=writes, ClientRequestToken=token),
                partial(_is_final, own=len(own)),
            )
        except ClientError as error:
            codes = [reason.get("Code", "None") for reason in _reasons(error)]
            if _FAILED in codes[: len(own)] or not codes:
                raise
            scopes = chain(*([scope] * len(each) for scope, each in money.items()))
            by_scope = sorted(zip(scopes, codes[len(own) :], strict=True), key=lambda each: each[1] == _FAILED)
            return {scope: code for scope, code in by_scope if code != "None"}
        return {}

    def _save_with_money(self, update: Item, after: Clip, difference: int) -> None:
        share = share_of(after.task_uuid)
        plans: dict[str, Booking | Balance] = dict.fromkeys(after.scopes, Booking(share))
        for attempt in self._attempts():
            money = {scope: self._correct(scope, after.month, difference, plan) for scope, plan in plans.items()}
            in_the_way = self._transact([{"Update": update}], money)
            if not in_the_way:
                return
            for scope in in_the_way:
                plans[scope] = plan_correction(self._shares(scope, after.month), share, difference, uuid.uuid4().hex)
            if _FAILED not in in_the_way.values():
                self._pause(attempt)
        raise BusyError("the budgets stayed contended")

    def _attempts(self, until: float = 0) -> Iterator[int]:
        """Numbers of attempts: so many as for any call, and more until a time, if there is one."""
        for attempt in count():
            if attempt >= _ATTEMPTS and (not until or self._clock() >= until):
                return
            yield min(attempt, _ATTEMPTS - 2)

    def _plan(self, reservation: Reservation, own: int) -> Booking | Balance | OverBudget:
        """Refused only by two equal readings in a row: one alone may have met a share before a change and the next
        after it."""
        seen = None
        for _ in range(_PLANS):
            shares = self._shares(reservation.scope, reservation.month)
            plan = plan_reservation(shares, own, reservation.amount, reservation.limit, uuid.uuid4().hex)
            if plan is not None:
                return plan
            if shares == seen:
                return OverBudget(reservation.scope, reservation.limit, total(shares))
            seen = shares
        raise BusyError("the budget changes again and again")

    def _shares(self, scope: str, month: str) -> list[Share | None]:
        """A budget's shares by number, None for those that are not there yet."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk AND begins_with(sk, :month)",
            ExpressionAttributeValues=items.to_attributes({":pk": f"budget#{scope}", ":month": f"{month}#"}),
            ConsistentRead=True,
        )
        found = dict(items.read_share(items.from_attributes(item)) for page in pages for item in page["Items"])
        return [found.get(number) for number in range(SHARES)]

    def _reserve(self, reservation: Reservation, plan: Booking | Balance) -> list[Item]:
        scope, month = reservation.scope, reservation.month
        if isinstance(plan, Balance):
            return self._balance(scope, month, plan)
        return [
            self._share(
                scope,
                month,
                plan.share,
                "SET #room = #room - :amount, #counted = #counted + :amount",
                "#limit = :limit AND #room >= :amount",
                {"amount": reservation.amount, "limit": reservation.limit},
            )
        ]

    def _correct(self, scope: str, month: str, difference: int, plan: Booking | Balance) -> list[Item]:
        if isinstance(plan, Balance):
            return self._balance(scope, month, plan)
        update, condition = "SET #room = #room - :difference, #counted = #counted + :difference", "#room >= :difference"
        if plan.beyond:
            update, condition = "ADD #counted :difference", "attribute_not_exists(#room)"
        return [self._share(scope, month, plan.share, update, condition, {"difference": difference})]

    def _balance(self, scope: str, month: str, plan: Balance) -> list[Item]:
        """Rooms change only with an amount or the balance, so these two tell whether a share is as it was read."""
        writes = []
        for number, (before, after) in enumerate(zip(plan.before, plan.after, strict=True)):
            values: dict[str, Any] = {"after": after.counted, "next": after.balance}
            update = "SET #counted = :after, #balance = :next"
            for name, value in (("limit", after.limit), ("room", after.room)):
                if value is not None:
                    update += f", #{name} = :{name}"
                    values[name] = value
            if after.room is None:
                update += " REMOVE #room"
            condition = "attribute_not_exists(#counted)"
            if before:
                condition = "#counted = :before AND attribute_not_exists(#balance)"
                values["before"] = before.counted
                if before.balance:
                    condition, values["balance"] = "#counted = :before AND #balance = :balance", before.balance
            writes.append(self._share(scope, month, number, update, condition, values))
        return writes

    def _share(
        self, scope: str, month: str, share: int, update: str, condition: str, values: Mapping[str, Any]
    ) -> Item:
        names = ("counted", "room", "limit", "balance")
        return {
            "Update": {
                "TableName": self._table,
                "Key": items.budget_key(scope, month, share),
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {f"#{name}": name for name in names if f"#{name}" in update + condition},
                "ExpressionAttributeValues": items.to_attributes({f":{name}": value for name, value in values.items()}),
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

    def _retried(self, call: Callable[[], T], is_final: Callable[[ClientError, bool], bool] | None = None) -> T:
        """Repeats what contention or throttling turned away. Conditions that failed are the caller's to judge."""
        lost = False
        for attempt in range(_ATTEMPTS):
            try:
                return call()
            except ClientError as error:
                if is_final(error, lost) if is_final else is_condition(error):
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
        self._sleep(_RANDOM.uniform(0, _FIRST_PAUSE * 2**attempt))


def is_condition(error: ClientError) -> bool:
    codes = {reason.get("Code") for reason in _reasons(error)}
    return _FAILED in codes or error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def _is_final(error: ClientError, lost: bool, own: int) -> bool:
    """True if a transaction's caller has to judge: by the first `own` items, or by the money if those are not held.

    A budget decides nothing while an item of the task is in another transaction: that may be recording the same task,
    and then the answer is that it exists. Nor does a conflict after a lost answer: the lost attempt may have written.
    """
    codes = [reason.get("Code", "None") for reason in _reasons(error)]
    if _FAILED in codes[:own]:
        return True
    others = set(codes[own:]) - {"None"}
    is_money = bool(others) and set(codes[:own]) == {"None"} and others <= {_FAILED, _CONFLICT}
    return is_money and (_FAILED in others or not lost)


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

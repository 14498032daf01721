"""The table for the deployed functions: calls, conditions and retries. The format of items is in `items`.

Guarantees: `record` writes a task, its clips and their money in one transaction. `save` replaces a clip only if its
version is still the one that was read, and adds the difference of the clip's amount to the budgets in the same
transaction; `fall_over` also writes the next model's clip in it. Contention is retried a limited number of times; then
`StaleError` or `BusyError` is raised. If the response to a save was lost, its repeat is recognised by a token in the
item.
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
    limit_of,
    plan_correction,
    plan_reservation,
    share_of,
    total,
)
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.delivery import Attempt
from rushes.domain.task import Existing, Page, Recorded, Task, TaskWithClips
from rushes.errors import BusyError, StaleError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_MAX_KEYS = 100  # in one BatchGetItem
_MAX_ATTEMPTS = 7
_MAX_READINGS = 20  # of a budget that changes: each change is the success of another write
_FAILED = "ConditionalCheckFailed"
_CONFLICT = "TransactionConflict"
_FIRST_PAUSE = 0.02  # seconds; doubles, with full jitter, to about one second for all attempts
# The system's generator: processes restored from one snapshot share the state of Python's own, and would repeat their
# conflicts after equal pauses.
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
        """Writes the task, its clips and their reservations; an existing task takes precedence over a full budget.

        Conflicts with other purchases, throttling and server errors are retried for `patience` seconds, or as often as
        those of other calls. Raises `BusyError`.
        """
        until = self._clock() + patience
        own: list[Any] = [self._put_new(items.task_item(task))]
        own += [self._put_new({**items.clip_item(clip), **items.lasting_attributes(task, clip)}) for clip in clips]
        share = share_of(task.task_uuid)
        plans: dict[str, Booking | Balance] = {each.scope: Booking(share) for each in reservations}
        for attempt in self._attempts(until):
            money = {
                each.scope: self._move(each.scope, each.month, plans[each.scope], each.amount, each.limit)
                for each in reservations
            }
            try:
                obstacles = self._transact(own, money, until)
            except ClientError as error:
                # The request's item or, if that has expired, the first clip's.
                found = next(reason["Item"] for reason in _cancellation_reasons(error) if reason.get("Code") == _FAILED)
                return Existing(items.read_task(items.from_attributes(found)))
            if not obstacles:
                return Recorded()
            if _FAILED not in obstacles.values():
                # Not the next try of the same share, but the first one of another: so the pauses stay short.
                self._pause(min(attempt, 2))
                share = _RANDOM.randrange(SHARES)
            for reservation in reservations:
                code, plan = obstacles.get(reservation.scope), plans[reservation.scope]
                if code == _FAILED or (code and isinstance(plan, Balance)):
                    planned = self._plan(reservation, share)
                    if isinstance(planned, OverBudget):
                        return planned
                    plans[reservation.scope] = planned
                elif isinstance(plan, Booking) and _FAILED not in obstacles.values():
                    # The same number in all budgets, which doubles the chance that all these shares are free.
                    plans[reservation.scope] = Booking(share)
        raise BusyError("the budgets stayed contended")

    def save(self, before: Clip, after: Clip) -> Clip:
        """Replaces `before` by `after` and returns the saved clip; raises `StaleError` if the version has changed.

        It also raises `StaleError` over another clip of the same task and index: a request whose `record` had no
        answer does not know whether its own clips were written or those of an earlier request.
        The condition also fails for a retry after a lost response; that case is recognised by the token in the item.
        """
        saved, token = replace(after, version=before.version + 1), uuid.uuid4().hex
        update = self._update(before, saved, token)
        difference = after.budgeted - before.budgeted
        try:
            if difference:
                self._write_with_money([{"Update": update}], after, difference)
            else:
                # Without the budgets, whose items are contended by the saves of other clips.
                self._retried(lambda: self._client.update_item(**update))
        except ClientError as error:  # a failed condition; other errors end as BusyError
            if _existing_item(error).get(items.save_token_name(saved)) != token:
                raise StaleError from None
        return saved

    def fall_over(self, before: Clip, closed: Clip, successor: Clip, task: Task | None) -> Clip:
        """Replaces `before` by `closed` and writes the next model's clip, with the difference of their amounts.

        All in one transaction. Returns the closed clip as saved; raises `StaleError` if the version has changed or the
        next clip exists, and `BusyError`.
        """
        saved, token = replace(closed, version=before.version + 1), uuid.uuid4().hex
        own: list[Any] = [
            {"Update": self._update(before, saved, token)},
            self._put_new(items.successor_item(task, successor)),
        ]
        try:
            self._write_with_money(own, closed, closed.budgeted + successor.budgeted - before.budgeted)
        except ClientError as error:
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

    def page(self, caller: str, limit: int, *, after: str | None = None, day: str = "", prefix: str = "") -> Page:
        """A caller's newest tasks after the position `after`, of one day (`yyyy-mm-dd`) or all. Eventually consistent.

        With `prefix` only the tasks whose UUID begins with it, from as many index entries as one query reads (1 MB,
        some thousands): such a page may be empty and still have an end. A new task is left out until all its clips can
        be read. Raises `UnreadableError` for a position that cannot be in such a list. Any other position only selects
        among this caller's own tasks.
        """
        start = items.task_start_key(caller, after, day) if after is not None else None
        answer = self._retried(lambda: self._recent(caller, limit, day, prefix, start))
        listed = answer["Items"][:limit]
        last = answer.get("LastEvaluatedKey", {}) if len(answer["Items"]) <= limit else listed[-1]
        keys = [{name: item[name] for name in ("pk", "sk")} for item in listed]
        requests = [item for item in self._get_items(keys) if "request" in item]
        clips = self._get_items([key for item in requests for key in items.clip_keys(item)])
        members: dict[str, list[Item]] = {item["taskUUID"]: [item] for item in requests}
        for item in clips:
            members[item["taskUUID"]].append(item)
        tasks = [each for each in map(items.task_with_clips, members.values()) if each]
        found = [each for each in tasks if each.is_complete]
        end = items.from_attributes(last).get("createdAt")
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

    def attempts(self, caller: str, task_uuid: str) -> list[Attempt]:
        """All recorded attempts at the deliveries of a task, oldest first."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues=items.to_attributes({":pk": items.attempts_pk(caller, task_uuid)}),
            ConsistentRead=True,
        )
        found = [items.read_attempt(items.from_attributes(item)) for page in pages for item in page["Items"]]
        return sorted(found, key=lambda each: (each.at, each.delivery))

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
        shares = self._shares(scope, month)
        return total(shares), limit_of(shares)

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

    def _recent(self, caller: str, limit: int, day: str, prefix: str, start: Item | None) -> Any:
        paging: Any = {"ExclusiveStartKey": start} if start else {}
        of_day = " AND begins_with(createdAt, :day)" if day else ""
        values = {":caller": caller, **({":day": day} if day else {})}
        if prefix:
            # The limit would count the entries that are read, not those that are found.
            paging["FilterExpression"] = "begins_with(pk, :prefix)"
            values[":prefix"] = items.task_pk(caller, prefix)
        else:
            paging["Limit"] = limit
        return self._client.query(
            TableName=self._table,
            IndexName="recent",
            KeyConditionExpression=f"caller = :caller{of_day}",
            ExpressionAttributeValues=items.to_attributes(values),
            ScanIndexForward=False,
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

    def _transact(self, own: Sequence[Item], money: Mapping[str, list[Item]], until: float = 0) -> Mapping[str, str]:
        """Writes all items or none. Returns the code of the obstacle for each scope, empty if all items are written.

        Raises `ClientError` if a condition of an `own` item failed.
        """
        token = str(uuid.uuid4())  # the same for all attempts, so that a repeat of a successful one succeeds
        writes: list[Any] = [*own, *chain(*money.values())]
        try:
            self._retried(
                lambda: self._client.transact_write_items(TransactItems=writes, ClientRequestToken=token),
                partial(_is_final, own=len(own)),
                until,
            )
        except ClientError as error:
            codes = [reason.get("Code", "None") for reason in _cancellation_reasons(error)]
            if _FAILED in codes[: len(own)] or not codes:
                raise
            scopes = chain(*([scope] * len(each) for scope, each in money.items()))
            by_scope = sorted(zip(scopes, codes[len(own) :], strict=True), key=lambda each: each[1] == _FAILED)
            return {scope: code for scope, code in by_scope if code != "None"}
        return {}

    def _write_with_money(self, own: Sequence[Item], after: Clip, difference: int) -> None:
        """Writes the clip's items and, if it is not 0, the difference of its amount in one transaction."""
        share = share_of(after.task_uuid)
        plans: dict[str, Booking | Balance] = dict.fromkeys(after.scopes if difference else (), Booking(share))
        for attempt in self._attempts():
            money = {scope: self._move(scope, after.month, plan, difference) for scope, plan in plans.items()}
            obstacles = self._transact(own, money)
            if not obstacles:
                return
            for scope in obstacles:
                plans[scope] = plan_correction(self._shares(scope, after.month), share, difference, uuid.uuid4().hex)
            if _FAILED not in obstacles.values():
                self._pause(attempt)
        raise BusyError("the budgets stayed contended")

    def _attempts(self, until: float = 0) -> Iterator[int]:
        """The numbers of attempts: as many as for other calls, and more before the time `until`."""
        for attempt in count():
            if attempt >= _MAX_ATTEMPTS and self._clock() >= until:
                return
            yield attempt

    def _plan(self, reservation: Reservation, own: int) -> Booking | Balance | OverBudget:
        """The next write of a reservation; a refusal needs two equal readings, since one is not a snapshot."""
        seen = None
        for _ in range(_MAX_READINGS):
            shares = self._shares(reservation.scope, reservation.month)
            plan = plan_reservation(shares, own, reservation.amount, reservation.limit, uuid.uuid4().hex)
            if plan is not None:
                return plan
            if shares == seen:
                return OverBudget(reservation.scope, reservation.limit, total(shares))
            seen = shares
        raise BusyError("the budget was changed concurrently again and again")

    def _shares(self, scope: str, month: str) -> list[Share | None]:
        """A budget's shares by number; None for a share that does not exist yet."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk AND begins_with(sk, :month)",
            ExpressionAttributeValues=items.to_attributes({":pk": f"budget#{scope}", ":month": f"{month}#"}),
            ConsistentRead=True,
        )
        found = dict(items.read_share(items.from_attributes(item)) for page in pages for item in page["Items"])
        return [found.get(number) for number in range(SHARES)]

    def _move(
        self, scope: str, month: str, plan: Booking | Balance, amount: int, limit: int | None = None
    ) -> list[Item]:
        """The writes that add `amount` to a budget by this plan; with `limit`, only to rooms under this limit."""
        if isinstance(plan, Balance):
            return self._balance(scope, month, plan)
        update, condition = "SET #room = #room - :amount, #counted = #counted + :amount", "#room >= :amount"
        values = {"amount": amount}
        if plan.beyond:
            update, condition = "ADD #counted :amount", "attribute_not_exists(#room)"
        elif limit is not None:
            condition, values["limit"] = f"#limit = :limit AND {condition}", limit
        return [self._share(scope, month, plan.share, update, condition, values)]

    def _balance(self, scope: str, month: str, plan: Balance) -> list[Item]:
        """Writes all shares. Amount and balance change with every write of a share, so the condition compares these."""
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
            "ConditionExpression": "#version = :before AND clipUUID = :clipUUID",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": items.to_attributes(
                {
                    ":before": before.version,
                    ":clipUUID": before.clip_uuid,
                    **{f":{name}": value for name, value in present.items()},
                }
            ),
        }

    def _retried(
        self, call: Callable[[], T], is_final: Callable[[ClientError, bool], bool] | None = None, until: float = 0
    ) -> T:
        """Calls with retries after contention, throttling or a server error, at least until the time `until`.

        Raises the `ClientError` of a failed condition.
        """
        lost = False
        for attempt in self._attempts(until):
            if attempt:
                self._pause(attempt - 1)
            try:
                return call()
            except ClientError as error:
                if is_final(error, lost) if is_final else is_condition(error):
                    raise
                lost |= _is_possibly_written(error)
                if not _is_busy(error):
                    raise BusyError(error.response["Error"]["Code"], possibly_written=lost) from None
            except (BotoConnectionError, HTTPClientError) as error:
                lost |= not isinstance(error, EndpointConnectionError | ConnectTimeoutError)
                if attempt:  # each attempt may take seconds
                    raise BusyError(type(error).__name__, possibly_written=lost) from None
        raise BusyError("the table stayed contended", possibly_written=lost)

    def _pause(self, attempt: int) -> None:
        self._sleep(_RANDOM.uniform(0, _FIRST_PAUSE * 2 ** min(attempt, _MAX_ATTEMPTS - 2)))


def is_condition(error: ClientError) -> bool:
    codes = {reason.get("Code") for reason in _cancellation_reasons(error)}
    return _FAILED in codes or error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def _is_final(error: ClientError, lost: bool, own: int) -> bool:
    """True if a transaction is not repeated as it is: the first `own` writes are the task's, the others its budgets'.

    A budget does not decide while an item of the task is in another transaction: that one may be recording the same
    task, and then the result is `Existing`. Nor does a conflict after a lost response, which may have written.
    """
    codes = [reason.get("Code", "None") for reason in _cancellation_reasons(error)]
    if _FAILED in codes[:own]:
        return True
    others = set(codes[own:]) - {"None"}
    is_money = bool(others) and set(codes[:own]) == {"None"} and others <= {_FAILED, _CONFLICT}
    return is_money and (_FAILED in others or not lost)


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

"""The table. The only module that knows attribute names, key shapes and conditions.

What it promises: `record` writes a task, its clips and their money together or not at all; `save` writes a clip only
over the version it was read at, and moves the budgets by exactly what the clip's worth changed, in the same
transaction. Contention is retried here, within bounds; what remains is `StaleError` or `BusyError`. A save whose answer
was lost is recognised when it is repeated, by a token in the item.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from rushes.adapters.dynamodb import attribute_values
from rushes.domain.budget import Cost, Costs, OverBudget, Reservation
from rushes.domain.caller import ApiKey, Caller
from rushes.domain.clip import Claim, Clip, Facts, Known, Lease
from rushes.domain.formats import iso
from rushes.domain.task import Existing, Found, Page, Recorded, Task
from rushes.errors import BusyError, StaleError, UnreadableClipError, UnreadableError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")
Item = dict[str, Any]

_SHARDS = 8  # of the index of open clips: how far writes to it spread
_REVIEW_SHARD = "review"
_MOST_KEYS = 100  # of one BatchGetItem
_POSITION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z#[0-9a-f-]{36}")
_COST_POSITION = re.compile(r"(\d{13})#([0-9a-f-]{36})#(\d{1,2})")
_ATTEMPTS = 7
# Reading an item as a clip fails in these ways when it is none, whatever else the table may hold one day.
_NO_CLIP = (AttributeError, KeyError, TypeError, ValueError, ArithmeticError)
_TOKENS = 4  # kept of a clip's last saves: by so many others a save may be followed and is still recognised
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


@dataclass(slots=True)
class Census:
    """All that the table holds, as it was while it was read. For people who check it; no function reads it all.

    `tombstones` are tasks of which a first clip would still tell a repeat from a conflict. API keys lie twice: `keys`
    are found by hash, `listed` beside their caller. `strange` are the keys of items that nobody can make sense of.
    """

    tasks: list[Task] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    budgets: dict[tuple[str, str], int] = field(default_factory=dict)
    callers: dict[str, Caller] = field(default_factory=dict)
    keys: dict[str, tuple[str, ApiKey]] = field(default_factory=dict)
    listed: dict[str, tuple[str, ApiKey]] = field(default_factory=dict)
    tombstones: set[tuple[str, str]] = field(default_factory=set)
    strange: list[str] = field(default_factory=list)


class Store:
    """Tasks, clips, budgets and API keys in one DynamoDB table."""

    def __init__(self, client: "DynamoDBClient", table: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._table, self._sleep = client, table, sleep

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation]
    ) -> Recorded | Existing | OverBudget:
        """Writes the intent to buy and sets its money aside; an existing task wins over a budget that is too small."""
        writes: list[Any] = [self._put_new(_task_item(task))]
        writes += [self._put_new({**_clip_item(clip), **_beside_the_money(task, clip)}) for clip in clips]
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
                return Existing(_task(_plain(reasons[0]["Item"])))
            if failed and failed[1]:  # the request has expired; its clips have not
                return Existing(_task(_plain(reasons[1]["Item"])))
            for reservation, reason, refused in zip(
                reservations, reasons[-len(reservations) :], failed[-len(reservations) :], strict=True
            ):
                if refused:
                    counted = _plain(reason.get("Item", {})).get("counted", 0)
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
            if _found_instead(error).get(_token_name(saved)) != token:
                raise StaleError from None
        return saved

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        """One clip, as of now."""
        answer = self._retried(
            lambda: self._client.get_item(
                TableName=self._table, Key=_clip_key(caller, task_uuid, index), ConsistentRead=True
            )
        )
        return _clip(_plain(answer["Item"])) if "Item" in answer else None

    def clips(self, caller: str, task_uuid: str) -> list[Clip]:
        """All clips of a task in their order, as of now."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk AND begins_with(sk, :clip)",
            ExpressionAttributeValues={":pk": {"S": _task_pk(caller, task_uuid)}, ":clip": {"S": "clip#"}},
            ConsistentRead=True,
        )
        return sorted((_clip(_plain(item)) for page in pages for item in page["Items"]), key=lambda clip: clip.index)

    def task(self, caller: str, task_uuid: str) -> Task | None:
        """A caller's task, without its clips."""
        key = {"pk": {"S": _task_pk(caller, task_uuid)}, "sk": {"S": "request"}}
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        return _task(_plain(answer["Item"])) if "Item" in answer else None

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None:
        """A caller's task as far as it tells a repeat from a conflict: also once its request has expired."""
        key = _clip_key(caller, task_uuid, 0)
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        return _task(_plain(answer["Item"])) if "Item" in answer else None

    def get_task_with_clips(self, caller: str, task_uuid: str) -> Found | None:
        """A caller's task with its clips, as of now; also one whose request has expired."""
        pages = self._pages(
            "query",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": _task_pk(caller, task_uuid)}},
            ConsistentRead=True,
        )
        return _found([_plain(item) for page in pages for item in page["Items"]])

    def page(self, caller: str, most: int, *, after: str | None = None, day: str = "") -> Page:
        """A caller's newest tasks, of one day (`yyyy-mm-dd`) or any, from the position `after` on; may lag behind.

        Raises `UnreadableError` for a position that cannot be in such a list. Whatever it is, it is taken for one in
        this caller's own.
        """
        start = _start_key(caller, after, day) if after is not None else None
        answer = self._retried(lambda: self._recent(caller, most, day, start))
        keys = [{name: item[name] for name in ("pk", "sk")} for item in answer["Items"]]
        requests = [item for item in self._several(keys) if "request" in item]
        clips = self._several(
            [_clip_key(caller, item["taskUUID"], index) for item in requests for index in range(item["clips"])]
        )
        members: dict[str, list[Item]] = {item["taskUUID"]: [item] for item in requests}
        for item in clips:
            members[item["taskUUID"]].append(item)
        found = [each for each in map(_found, members.values()) if each]
        end = _plain(answer.get("LastEvaluatedKey", {})).get("createdAt")
        return Page(tuple(sorted(found, key=lambda each: each.position, reverse=True)), end)

    def costs(self, caller: str, since: int, until: int, most: int, after: str | None = None) -> Costs:
        """What a caller's clips of these milliseconds, both included, count: newest first, from `after` on; may lag.

        A page may end early. Raises `UnreadableError` for a position that cannot be in such a list.
        """
        start: Any = {"ExclusiveStartKey": _cost_key(caller, after, since, until)} if after is not None else {}
        answer = self._retried(
            lambda: self._client.query(
                TableName=self._table,
                IndexName="costs",
                KeyConditionExpression="clipCaller = :caller AND createdAtMs BETWEEN :since AND :until",
                ExpressionAttributeValues=_wire({":caller": caller, ":since": since, ":until": until}),
                ScanIndexForward=False,
                Limit=most,
                **start,
            )
        )
        last = _plain(answer.get("LastEvaluatedKey", {}))
        end = "#".join((str(last["createdAtMs"]), *map(str, _named(last)[1:]))) if last else None
        return Costs(tuple(_cost(_plain(item)) for item in answer["Items"]), end)

    def all_costs(self, since: int, until: int) -> Iterator[Cost]:
        """What every caller's clips of these milliseconds count, in no order. Reads the whole index."""
        pages = self._pages(
            "scan",
            IndexName="costs",
            FilterExpression="createdAtMs BETWEEN :since AND :until",
            ExpressionAttributeValues=_wire({":since": since, ":until": until}),
        )
        return (_cost(_plain(item)) for page in pages for item in page["Items"])

    def due(self, now: int, most: int) -> list[tuple[str, str, int]]:
        """The clips whose next look is due, oldest first: caller, task and clip. The index may lag behind.

        These are the open ones, and those whose money is to follow.
        """
        found: list[Item] = []
        for shard in range(_SHARDS):
            answer = self._retried(partial(self._due_in, str(shard), now, most))
            found += [_plain(item) for item in answer["Items"]]
        found.sort(key=lambda item: int(item["nextCheckAt"]))
        return [_named(item) for item in found[:most]]

    def postpone(self, name: tuple[str, str, int], now: int, until: int) -> None:
        """Moves a clip in the index that is due at `now`, without reading it or touching anything else of it."""
        with suppress(ClientError):  # what the retries let through is that another version has moved it
            self._retried(
                lambda: self._client.update_item(
                    TableName=self._table,
                    Key=_clip_key(*name),
                    UpdateExpression="SET nextCheckAt = :until",
                    ConditionExpression="nextCheckAt <= :now",
                    ExpressionAttributeValues=_wire({":now": now, ":until": until}),
                )
            )

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        """A scope's month: its sum and the limit of its last reservation, in micro-dollars; 0 and None before any."""
        key = _budget_key(scope, month)
        answer = self._retried(lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        item = _plain(answer.get("Item", {}))
        return item.get("counted", 0), item.get("limit")

    def caller(self, key_hash: str) -> Caller | None:
        """The caller of an API key, None if it is unknown or revoked."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=_api_key(key_hash), ConsistentRead=True)
        )
        item = _plain(answer.get("Item", {}))
        return self.caller_named(item["keyCaller"]) if item and "revokedAt" not in item else None

    def caller_named(self, name: str) -> Caller | None:
        """A caller that an operator has made, None for any other."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=_caller_key(name), ConsistentRead=True)
        )
        item = _plain(answer.get("Item", {}))
        return _caller(name, item) if item else None

    def set_caller(self, caller: Caller) -> None:
        """Sets what a caller may spend in a month, whichever door it comes in by, and where its images may lie.

        Makes the caller if need be. One that is disabled stays so.
        """
        self._client.update_item(
            TableName=self._table,
            Key=_caller_key(caller.name),
            UpdateExpression="SET monthlyLimit = :limit, imageSources = :sources",
            ExpressionAttributeValues=_wire({":limit": caller.monthly_limit, ":sources": list(caller.image_sources)}),
        )

    def disable_caller(self, name: str, disabled: bool = True) -> bool:
        """Closes every door of a caller, or opens them again; False if no operator has made it."""
        change: dict[str, Any] = {"UpdateExpression": "REMOVE disabled"}
        if disabled:
            change = {"UpdateExpression": "SET disabled = :yes", "ExpressionAttributeValues": _wire({":yes": True})}
        try:
            self._retried(
                lambda: self._client.update_item(
                    TableName=self._table,
                    Key=_caller_key(name),
                    ConditionExpression="attribute_exists(pk)",
                    **change,
                )
            )
        except ClientError as error:
            if _is_condition(error):
                return False
            raise
        return True

    def all_callers(self) -> list[Caller]:
        """Every caller that an operator has made, by name. Reads the whole table."""
        pages = self._pages(
            "scan", FilterExpression="sk = :caller", ExpressionAttributeValues=_wire({":caller": "caller"})
        )
        items = [_plain(item) for page in pages for item in page["Items"]]
        return sorted((_caller(item["pk"].removeprefix("caller#"), item) for item in items), key=lambda each: each.name)

    def add_key(self, key_hash: str, caller: Caller, name: str, now: int) -> None:
        """Makes an API key of a caller known, after `set_caller`. `name` is by what people tell keys apart."""
        self.set_caller(caller)
        # Neither `caller` nor `createdAt`: those would list the key among the caller's recent tasks.
        item = _wire({"keyCaller": caller.name, "name": name, "madeAt": now})
        keys = (_api_key(key_hash), _owned_key(caller.name, key_hash))
        writes: list[Any] = [{"Put": {"TableName": self._table, "Item": {**key, **item}}} for key in keys]
        self._retried(lambda: self._client.transact_write_items(TransactItems=writes))

    def keys(self, caller: str) -> list[ApiKey]:
        """A caller's API keys, oldest first, the revoked ones among them."""
        answer = self._retried(
            lambda: self._client.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :key)",
                ExpressionAttributeValues=_wire({":pk": f"caller#{caller}", ":key": "key#"}),
                ConsistentRead=True,
            )
        )
        return sorted((_key(_plain(item)) for item in answer["Items"]), key=lambda key: (key.made_at, key.key_hash))

    def revoke_key(self, key_hash: str, now: int) -> bool:
        """Makes an API key useless, for ever; whoever remembers it does so for a minute. False if there is none.

        A key that was revoked before stays revoked since then.
        """
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=_api_key(key_hash), ConsistentRead=True)
        )
        if "Item" not in answer:
            return False
        keys = (_api_key(key_hash), _owned_key(_plain(answer["Item"])["keyCaller"], key_hash))
        writes: list[Any] = [self._revoke(key, now) for key in keys]
        self._retried(lambda: self._client.transact_write_items(TransactItems=writes))
        return True

    def in_review(self) -> list[tuple[str, str, int]]:
        """The clips that wait for a person, the longest waiting first: caller, task and clip. The index may lag."""
        pages = self._pages("query", IndexName="due", **_of_shard(_REVIEW_SHARD))
        return [_named(_plain(item)) for page in pages for item in page["Items"]]

    def census(self) -> Census:
        """Reads the whole table, page after page: nothing that a function should do."""
        found = Census()
        for page in self._pages("scan", ConsistentRead=True):
            for item in page["Items"]:
                _enter(found, _plain(item))
        return found

    def all_keys(self) -> list[tuple[str, ApiKey]]:
        """Every caller's API keys, each with its caller's name, by name and age. Reads the whole table."""
        pages = self._pages("scan", FilterExpression="sk = :key", ExpressionAttributeValues=_wire({":key": "key"}))
        items = [_plain(item) for page in pages for item in page["Items"]]
        found = [(str(item["keyCaller"]), _key(item)) for item in items]
        return sorted(found, key=lambda each: (each[0], each[1].made_at, each[1].key_hash))

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

    def forget(self, caller: str, task_uuid: str) -> None:
        """Empties what the caller wrote; what is left still tells a repeat from a conflict, and holds the money."""
        for clip in self.clips(caller, task_uuid):
            key = _clip_key(caller, task_uuid, clip.index)
            self._retried(
                partial(self._client.update_item, TableName=self._table, Key=key, UpdateExpression="REMOVE tags")
            )
        with suppress(ClientError):  # what the retries let through is that the request is not there: it has expired
            self._retried(
                lambda: self._client.update_item(
                    TableName=self._table,
                    Key={"pk": {"S": _task_pk(caller, task_uuid)}, "sk": {"S": "request"}},
                    UpdateExpression="SET #request = :nothing",
                    ConditionExpression="attribute_exists(pk)",
                    ExpressionAttributeNames={"#request": "request"},
                    ExpressionAttributeValues={":nothing": {"S": "{}"}},
                )
            )

    def _due_in(self, shard: str, now: int, most: int) -> Any:
        return self._client.query(
            TableName=self._table,
            IndexName="due",
            KeyConditionExpression="dueShard = :shard AND nextCheckAt <= :now",
            ExpressionAttributeValues=_wire({":shard": shard, ":now": now}),
            Limit=most,
        )

    def _recent(self, caller: str, most: int, day: str, start: Item | None) -> Any:
        more: Any = {"ExclusiveStartKey": start} if start else {}
        of_day = " AND begins_with(createdAt, :day)" if day else ""
        return self._client.query(
            TableName=self._table,
            IndexName="recent",
            KeyConditionExpression=f"caller = :caller{of_day}",
            ExpressionAttributeValues=_wire({":caller": caller, **({":day": day} if day else {})}),
            ScanIndexForward=False,
            Limit=most,
            **more,
        )

    def _several(self, keys: Sequence[Item]) -> list[Item]:
        """The items under these keys, in no order; those that are gone are left out."""
        found: list[Item] = []
        for first in range(0, len(keys), _MOST_KEYS):
            found += self._batch(list(keys[first : first + _MOST_KEYS]))
        return found

    def _batch(self, keys: list[Item]) -> list[Item]:
        """What one call leaves unprocessed is asked for again, as long as each call brings something."""
        found: list[Item] = []
        fruitless = 0
        while keys:
            wanted: Any = {self._table: {"Keys": keys}}
            answer: Any = self._retried(partial(self._client.batch_get_item, RequestItems=wanted))
            found += [_plain(item) for item in answer["Responses"].get(self._table, [])]
            left: list[Item] = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])
            fruitless = fruitless + 1 if len(left) == len(keys) else 0
            if fruitless == _ATTEMPTS:
                raise BusyError("the table gives no more items")
            if left:
                self._pause(fruitless)
            keys = left
        return found

    def _revoke(self, key: Item, now: int) -> Item:
        return {
            "Update": {
                "TableName": self._table,
                "Key": key,
                "UpdateExpression": "SET revokedAt = if_not_exists(revokedAt, :now)",
                "ExpressionAttributeValues": _wire({":now": now}),
            }
        }

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
                "Key": _budget_key(reservation.scope, reservation.month),
                "UpdateExpression": "SET #limit = :limit, #counted = if_not_exists(#counted, :zero) + :amount",
                "ConditionExpression": has_room,
                "ExpressionAttributeNames": {"#limit": "limit", "#counted": "counted"},
                "ExpressionAttributeValues": _wire(
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
                "Key": _budget_key(scope, month),
                "UpdateExpression": "ADD #counted :difference",
                "ExpressionAttributeNames": {"#counted": "counted"},
                "ExpressionAttributeValues": _wire({":difference": difference}),
            }
        }

    def _update(self, before: Clip, after: Clip, token: str) -> Item:
        values = {**_changing(after), _token_name(after): token}
        present = {name: value for name, value in values.items() if value is not None}
        absent = [name for name, value in values.items() if value is None]
        names = {f"#{name}": name for name in values} | {"#version": "version"}
        sets = ", ".join(f"#{name} = :{name}" for name in present)
        removes = f" REMOVE {', '.join(f'#{name}' for name in absent)}" if absent else ""
        return {
            "TableName": self._table,
            "Key": _clip_key(before.caller, before.task_uuid, before.index),
            "UpdateExpression": f"SET {sets}{removes}",
            "ConditionExpression": "#version = :before",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": _wire(
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
                if (is_final or _is_condition)(error):
                    raise
                lost |= _may_have_taken_effect(error)
                if not _is_busy(error):
                    raise BusyError(error.response["Error"]["Code"], maybe_written=lost) from None
            except (BotoConnectionError, HTTPClientError) as error:
                lost |= not isinstance(error, EndpointConnectionError | ConnectTimeoutError)
                if attempt:  # each of these may have taken seconds already
                    raise BusyError(type(error).__name__, maybe_written=lost) from None
            if attempt + 1 < _ATTEMPTS:
                self._pause(attempt)
        raise BusyError("the table stayed contended", maybe_written=lost)

    def _pause(self, attempt: int) -> None:
        # The system's: processes restored from one snapshot share the state of Python's own generator, and would wait
        # alike and meet again.
        self._sleep(SystemRandom().uniform(0, _FIRST_PAUSE * 2**attempt))


def clip_of_image(image: Mapping[str, Any]) -> Clip:
    """A clip from an image of its item in the table's stream; raises `UnreadableError` if that is no clip."""
    try:
        return _read_clip(_plain(image))
    except _NO_CLIP:
        raise UnreadableError("the image is not a clip's") from None


def _is_condition(error: ClientError) -> bool:
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
    return _plain(first.get("Item", {}))


def _token_name(saved: Clip) -> str:
    """The attribute that holds the token of the save that wrote this version."""
    return f"save{saved.version % _TOKENS}"


def _reasons(error: ClientError) -> Sequence[Mapping[str, Any]]:
    return error.response.get("CancellationReasons", [])


def _task_pk(caller: str, task_uuid: str) -> str:
    return f"task#{caller}#{task_uuid}"


def _named(key: Item) -> tuple[str, str, int]:
    _, caller, task_uuid = key["pk"].split("#")
    return caller, task_uuid, int(key["sk"].removeprefix("clip#"))


def _of_shard(shard: str) -> dict[str, Any]:
    return {"KeyConditionExpression": "dueShard = :shard", "ExpressionAttributeValues": _wire({":shard": shard})}


def _enter(census: Census, item: Item) -> None:
    """Puts an item where it belongs, or its key among the strange ones."""
    kind, _, name = item["pk"].partition("#")
    try:
        match kind, item["sk"]:
            case "task", "request":
                census.tasks.append(_task(item))
            case "task", _:
                _enter_clip(census, item)
            case "budget", month:
                census.budgets[name, month] = item.get("counted", 0)
            case "caller", "caller":
                census.callers[name] = _caller(name, item)
            case "caller" | "key", _:
                key = _key(item)
                (census.keys if kind == "key" else census.listed)[key.key_hash] = (item["keyCaller"], key)
            case _:
                raise ValueError(kind)
    except (KeyError, ValueError, TypeError, AttributeError, UnreadableClipError):
        census.strange.append(f"{item['pk']} {item['sk']}")


def _enter_clip(census: Census, item: Item) -> None:
    census.clips.append(_clip(item))
    if "fingerprint" in item:
        census.tombstones.add((item["clipCaller"], item["taskUUID"]))


def _clip_key(caller: str, task_uuid: str, index: int) -> Item:
    return {"pk": {"S": _task_pk(caller, task_uuid)}, "sk": {"S": f"clip#{index}"}}


def _budget_key(scope: str, month: str) -> Item:
    return {"pk": {"S": f"budget#{scope}"}, "sk": {"S": month}}


def _caller_key(name: str) -> Item:
    return {"pk": {"S": f"caller#{name}"}, "sk": {"S": "caller"}}


def _caller(name: str, item: Item) -> Caller:
    return Caller(name, item["monthlyLimit"], tuple(item["imageSources"]), item.get("disabled", False))


def _api_key(key_hash: str) -> Item:
    return {"pk": {"S": f"key#{key_hash}"}, "sk": {"S": "key"}}


def _owned_key(caller: str, key_hash: str) -> Item:
    """Where the same key lies beside its caller, so that keys can be listed and revoked by name."""
    return {"pk": {"S": f"caller#{caller}"}, "sk": {"S": f"key#{key_hash}"}}


def _key(item: Item) -> ApiKey:
    """An API key, from either of its items."""
    lies = item["sk"] if item["sk"].startswith("key#") else item["pk"]
    return ApiKey(lies.removeprefix("key#"), item["name"], item["madeAt"], item.get("revokedAt"))


def _start_key(caller: str, position: str, day: str) -> Item:
    """What DynamoDB wants to hear of the item after which a page begins; the item need not exist."""
    if not _POSITION.fullmatch(position) or not position.startswith(day):
        raise UnreadableError("The cursor does not belong to this list.")
    _, _, task_uuid = position.partition("#")
    pk, sk = _task_pk(caller, task_uuid), "request"
    return _wire({"caller": caller, "createdAt": position, "pk": pk, "sk": sk})


def _found(items: Sequence[Item]) -> Found | None:
    """The task that these items make up; None if there is none."""
    clips = sorted((_clip(item) for item in items if "clipUUID" in item), key=lambda clip: clip.index)
    # Its own item comes first; once that has expired, its first clip's knows enough.
    known = [item for item in items if "request" in item] or [item for item in items if "fingerprint" in item]
    if not known or not clips:
        return None
    task = _task(known[0])
    return Found(task, tuple(clips), _sortable(task.created_at, task.task_uuid))


def _cost_key(caller: str, position: str, since: int, until: int) -> Item:
    """What DynamoDB wants to hear of the clip after which a page of costs begins; it need not exist."""
    match = _COST_POSITION.fullmatch(position)
    if not match or not since <= int(match[1]) <= until:  # DynamoDB refuses a beginning outside of what is asked for
        raise UnreadableError("The cursor does not belong to this list.")
    return {**_wire({"clipCaller": caller, "createdAtMs": int(match[1])}), **_clip_key(caller, match[2], int(match[3]))}


def _cost(item: Item) -> Cost:
    _, task_uuid, index = _named(item)
    tags = json.loads(item.get("tags", "{}"))
    made, counted = item["createdAtMs"], item["counted"]
    return Cost(item["clipCaller"], task_uuid, index, made, counted, item.get("model", ""), tags)


def _task_item(task: Task) -> Item:
    return _wire(
        {
            "pk": _task_pk(task.caller, task.task_uuid),
            "sk": "request",
            "caller": task.caller,
            "taskUUID": task.task_uuid,
            "createdAt": _sortable(task.created_at, task.task_uuid),
            "createdAtMs": task.created_at,
            # As text: DynamoDB's numbers are not JSON's, and nothing is ever looked up inside.
            "request": json.dumps(task.request, ensure_ascii=False),
            "fingerprint": task.fingerprint,
            "clips": task.clips,
            **({"expiresAt": task.expires_at // 1000} if task.expires_at is not None else {}),
        }
    )


def _beside_the_money(task: Task, clip: Clip) -> Item:
    """What outlives the request: what costs are summed by and, in the first clip's item, what tells repeats apart."""
    tombstone = {"fingerprint": task.fingerprint, "clips": task.clips} if clip.index == 0 else {}
    tags = task.request.get("tags")
    tagged = {"tags": json.dumps(tags, ensure_ascii=False)} if tags else {}
    return _wire({**tombstone, "model": task.request.get("model", ""), **tagged})


def _task(item: Item) -> Task:
    """A task from its own item, or from its first clip's once the request has expired."""
    return Task(
        caller=item.get("caller") or item["clipCaller"],
        task_uuid=item["taskUUID"],
        request=json.loads(item.get("request", "{}")),
        fingerprint=item["fingerprint"],
        clips=item["clips"],
        created_at=item["createdAtMs"],
        expires_at=item["expiresAt"] * 1000 if "expiresAt" in item else None,
    )


def _sortable(created_at: int, task_uuid: str) -> str:
    """Creation time first, so that the index sorts by it; the UUID keeps two tasks of one millisecond apart."""
    return f"{iso(created_at)}#{task_uuid}"


def _clip_item(clip: Clip) -> Item:
    changing = {name: value for name, value in _changing(clip).items() if value is not None}
    return _wire(
        {
            "pk": _task_pk(clip.caller, clip.task_uuid),
            "sk": f"clip#{clip.index}",
            "clipCaller": clip.caller,  # not `caller`: that would list every clip among the recent tasks
            "taskUUID": clip.task_uuid,
            "clip": clip.index,
            "clipUUID": clip.clip_uuid,
            "objectKey": clip.object_key,
            "estimate": clip.estimate,
            "month": clip.month,
            "createdAtMs": clip.created_at,
            **changing,
        }
    )


def _changing(clip: Clip) -> dict[str, Any]:
    """The attributes that a save writes; None removes one."""
    lease = clip.lease
    return {
        "facts": {_fact_name(*name): _known_value(known) for name, known in clip.facts.items()},
        "maybeSentAt": clip.maybe_sent_at,
        "maybeSentTo": clip.maybe_sent_to or None,
        "lease": asdict(lease) if lease else None,
        "dueShard": _shard(clip) if clip.next_check_at is not None else None,
        "nextCheckAt": clip.next_check_at,
        "counted": clip.budgeted,
        "version": clip.version,
    }


def _shard(clip: Clip) -> str:
    # While its money is to follow, a clip in review is looked at as others are.
    is_in_review = clip.decision is not None and clip.decision.needs_review and not clip.open and clip.settled
    return _REVIEW_SHARD if is_in_review else str(int(clip.clip_uuid[:8], 16) % _SHARDS)


def _clip(item: Item) -> Clip:
    """A clip from its item; raises `UnreadableClipError` for what another version, or a person, has made of it."""
    try:
        return _read_clip(item)
    except _NO_CLIP as error:
        raise UnreadableClipError(type(error).__name__) from None


def _read_clip(item: Item) -> Clip:
    lease = item.get("lease")
    return Clip(
        caller=item["clipCaller"],
        task_uuid=item["taskUUID"],
        index=item["clip"],
        clip_uuid=item["clipUUID"],
        object_key=item["objectKey"],
        estimate=item["estimate"],
        month=item["month"],
        created_at=item["createdAtMs"],
        facts=_facts(item["facts"]),
        maybe_sent_at=item.get("maybeSentAt"),
        maybe_sent_to=item.get("maybeSentTo", ""),
        lease=Lease(lease["holder"], lease["since"], lease["until"], lease.get("account", "")) if lease else None,
        next_check_at=item.get("nextCheckAt"),
        budgeted=item["counted"],
        version=item["version"],
    )


def _fact_name(kind: str, key: str) -> str:
    return f"{kind}:{key}" if key else str(kind)


def _known_value(known: Known) -> dict[str, Any]:
    """What an earlier version can read as well, and beside it who said what, if that is more than one."""
    seen = {str(witness): at for witness, at in known.seen.items()}
    fields = dict(known.fields)
    claims = {source: {"at": claim.at, "fields": dict(claim.fields)} for source, claim in known.claims.items()}
    return {"seen": seen, **({"fields": fields} if fields else {}), **({"claims": claims} if len(claims) > 1 else {})}


def _facts(values: Mapping[str, Any]) -> Facts:
    """Facts as they are stored, also those of kinds and witnesses that only a later version knows.

    What does not have a fact's shape cannot be kept by a save, so it is not read.
    """
    facts = {}
    for name, value in values.items():
        kind, _, key = name.partition(":")
        if not value["seen"] or value.keys() - {"seen", "fields", "claims"}:
            raise ValueError(name)
        facts[kind, key] = _known(value)
    return facts


def _known(value: Mapping[str, Any]) -> Known:
    if "claims" in value:
        return Known({source: Claim(claim["at"], claim["fields"]) for source, claim in value["claims"].items()})
    return Known.of_all(value["seen"], value.get("fields", {}))


def _wire(values: Mapping[str, Any]) -> Item:
    return {name: attribute_values.wire(value) for name, value in values.items()}


def _plain(item: Mapping[str, Any]) -> Item:
    return {name: attribute_values.plain(value) for name, value in item.items()}

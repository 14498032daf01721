"""Reads that lag: a read that is not strongly consistent may return the state of some time ago.

In moto every read is current. From DynamoDB's developer guide ("DynamoDB read consistency"): "When issuing eventually
consistent reads to a DynamoDB table or an index, the responses may not reflect the results of a recently completed
write operation." "All reads from GSIs and streams are eventually consistent." "The read will never present a view to
the item from a write which did not ultimately succeed." From the API reference (`GetItem`): "Although a strongly
consistent read might take more time than an eventually consistent read, it always returns the last updated value."

Each item has its own lag in each read, so that a read may show a part of a transaction. By the page "DynamoDB
transactions" of the developer guide, their changes reach indexes gradually, and only `TransactGetItems` shows all of
them or none.
"""

import contextlib
import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Request = Mapping[str, Any]

_WRITES = {"PutItem", "UpdateItem", "DeleteItem"}


@dataclass(frozen=True)
class _Change:
    at: float
    table: str
    partition: Any
    range_key: Any
    before: Any
    """moto's item before the change; None if there was none."""


class PastItems:
    """The items before the changes of the last seconds. Needs DynamoDB's lock around each method."""

    def __init__(self) -> None:
        self._changes: deque[_Change] = deque()
        self.is_shown = False
        """True within `visible` if a table there differs from its current state."""

    def clear(self) -> None:
        """Make every later read current, as after a time without writes."""
        self._changes.clear()

    def record(self, backend: Any, operation: str, request: Request, now: float, lag: float) -> None:
        """Remember the items that a request is about to write; forget those of changes before the longest lag."""
        while self._changes and self._changes[0].at < now - lag:
            self._changes.popleft()
        for write in written(operation, request):
            table = backend.tables.get(write["TableName"])
            key = write.get("Key") or write["Item"]
            if table and set(table.table_key_attrs) <= key.keys():
                partition, range_key = backend.get_keys_value(table, key)
                before = copy.deepcopy(table.get_item(partition, range_key))
                self._changes.append(_Change(now, table.name, partition, range_key, before))

    @contextlib.contextmanager
    def visible(self, backend: Any, tables: Iterable[str], choose_time: Callable[[], float]) -> Iterator[None]:
        """Within the context these tables have a past state, each item that of a time of its own."""
        current = {name: backend.tables[name] for name in tables if name in backend.tables}
        for name, table in current.items():
            backend.tables[name] = self._past(table, choose_time)
        try:
            yield
        finally:
            self.is_shown = False
            backend.tables.update(current)

    def _past(self, table: Any, choose_time: Callable[[], float]) -> Any:
        past = copy.copy(table)
        past.items = copy.copy(table.items)
        times: dict[tuple[Any, Any], float] = {}
        copied: set[Any] = set()
        for change in reversed(self._changes):
            name = change.partition, change.range_key
            if change.table != table.name:
                continue
            if name not in times:
                times[name] = choose_time()
            if change.at <= times[name]:
                continue
            self.is_shown = True
            items, key = past.items, change.partition
            if table.has_range_key:
                if change.partition not in copied:
                    past.items[change.partition] = copy.copy(past.items.get(change.partition, {}))
                    copied.add(change.partition)
                items, key = past.items[change.partition], change.range_key
            if change.before is None:
                items.pop(key, None)
            else:
                items[key] = change.before
        return past


def written(operation: str, request: Request) -> list[Request]:
    """The writes of a request, each with the name of its table and an item or its key."""
    if operation == "TransactWriteItems":
        return [
            action for item in request["TransactItems"] for kind, action in item.items() if kind != "ConditionCheck"
        ]
    if operation == "BatchWriteItem":
        return [
            {"TableName": table, **action}
            for table, writes in request["RequestItems"].items()
            for write in writes
            for action in write.values()
        ]
    return [request] if operation in _WRITES else []


def lagging_tables(operation: str, request: Request) -> list[str]:
    """The tables that a request reads without strong consistency. An index is always read so."""
    if operation == "BatchGetItem":
        return [table for table, keys in request["RequestItems"].items() if not keys.get("ConsistentRead")]
    is_read = operation in ("GetItem", "Query", "Scan")
    is_lagging = is_read and (request.get("IndexName") or not request.get("ConsistentRead"))
    return [request["TableName"]] if is_lagging else []

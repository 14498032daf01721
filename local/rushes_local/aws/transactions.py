"""moto's DynamoDB transactions, undone item by item.

Hides a change to moto: it keeps a way back by copying the whole table, its stream included, once for each item of the
transaction. With a few hundred clips that takes a third of a second of every purchase. Here only the items that a
transaction names are remembered. To be used under a lock, as moto's own way has to be.
"""

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

Transact = Callable[[Any, list[dict[str, Any]]], None]


def undo_by_item() -> None:
    """Change moto's transactions for this process; a second call changes nothing. Imports moto."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table

    if not hasattr(Table, "__deepcopy__"):
        # So that what moto puts back after a failure is the table itself. It copies tables for backups, too, which
        # nothing here makes.
        Table.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]
        DynamoDBBackend.transact_write_items = _undoing(DynamoDBBackend.transact_write_items)  # type: ignore[method-assign,assignment]


def _undoing(transact: Transact) -> Transact:
    @wraps(transact)
    def transact_write_items(backend: Any, transact_items: list[dict[str, Any]]) -> None:
        undo = [_remember(backend, write) for item in transact_items for write in item.values()]
        try:
            transact(backend, transact_items)
        except Exception:
            for put_back in undo:
                put_back()
            raise

    return transact_write_items


def _remember(backend: Any, write: dict[str, Any]) -> Callable[[], None]:
    """How to put back what one write of a transaction may change: its item, and the end of the stream."""
    table = backend.get_table(write["TableName"])
    hash_key, range_key = backend.get_keys_value(table, write.get("Key") or write["Item"])
    before = copy.deepcopy(table.get_item(hash_key, range_key))
    stream = table.stream_shard.items if table.stream_shard else []
    length = len(stream)

    def put_back() -> None:
        items, key = (table.items[hash_key], range_key) if table.has_range_key else (table.items, hash_key)
        if before is None:
            items.pop(key, None)
        else:
            items[key] = before
        del stream[length:]

    return put_back

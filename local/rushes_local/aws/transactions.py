"""A faster rollback of moto's DynamoDB transactions, item by item.

For its rollback, moto copies the whole table with its stream once for each item of a transaction: a third of a second
in every purchase with a few hundred clips. Here only the transaction's items are copied. Needs a lock around
transactions, as does moto's own rollback.
"""

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

Transact = Callable[[Any, list[dict[str, Any]]], None]


def roll_back_by_item() -> None:
    """Change moto's transactions for this process; a second call changes nothing. Imports moto."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table

    if not hasattr(Table, "__deepcopy__"):
        # With it, moto's own rollback restores the table itself. moto also copies tables for backups, which are not
        # used here.
        Table.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]
        DynamoDBBackend.transact_write_items = _with_rollback(DynamoDBBackend.transact_write_items)  # type: ignore[method-assign,assignment]


def _with_rollback(transact: Transact) -> Transact:
    @wraps(transact)
    def transact_write_items(backend: Any, transact_items: list[dict[str, Any]]) -> None:
        rollback = [_prepare_rollback(backend, write) for item in transact_items for write in item.values()]
        try:
            transact(backend, transact_items)
        except Exception:
            for restore in rollback:
                restore()
            raise

    return transact_write_items


def _prepare_rollback(backend: Any, write: dict[str, Any]) -> Callable[[], None]:
    """A function that undoes one write of a transaction: it restores the item, and shortens the stream."""
    table = backend.get_table(write["TableName"])
    hash_key, range_key = backend.get_keys_value(table, write.get("Key") or write["Item"])
    before = copy.deepcopy(table.get_item(hash_key, range_key))
    stream = table.stream_shard.items if table.stream_shard else []
    length = len(stream)

    def restore() -> None:
        items, key = (table.items[hash_key], range_key) if table.has_range_key else (table.items, hash_key)
        if before is None:
            items.pop(key, None)
        else:
            items[key] = before
        del stream[length:]

    return restore

"""Corrections of moto's DynamoDB stream: one record for each write that changes an item, and a limit on iterators.

In moto, an update that creates its item writes two records, the first for an item with only its key. A write that
changes nothing writes one record, while DynamoDB writes none. And moto keeps every iterator: a poller gets several a
second, so that a long-running stack would fill the memory. `transactions` removes the records of failed transactions.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

# As many as a poller gets in the quarter of an hour after which an iterator of DynamoDB expires.
_MAX_ITERATORS = 5000


def correct_streams() -> None:
    """Change moto's streams for this process; a second call changes nothing. Imports moto."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import StreamShard
    from moto.dynamodbstreams.models import DynamoDBStreamsBackend

    if hasattr(StreamShard.add, "__wrapped__"):
        return
    StreamShard.add = _if_changed(StreamShard.add)  # type: ignore[method-assign,assignment]
    DynamoDBBackend.update_item = _recorded_once(DynamoDBBackend.update_item)  # type: ignore[method-assign]
    DynamoDBStreamsBackend.get_records = _limiting_iterators(DynamoDBStreamsBackend.get_records)  # type: ignore[method-assign]


def _if_changed(add: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    @wraps(add)
    def add_if_changed(shard: Any, old: Any, new: Any) -> None:
        if old is None or new is None or old.to_json() != new.to_json():
            add(shard, old, new)

    return add_if_changed


def _recorded_once(update: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(update)
    def update_item(backend: Any, table_name: str, key: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        shard = backend.get_table(table_name).stream_shard
        before = len(shard.items) if shard else 0
        item = update(backend, table_name, key, *arguments, **options)
        if shard and len(shard.items) == before + 2:
            # The second record replaces the first, with its sequence number, because numbers are counted by the length.
            last = shard.items.pop()
            last.record["dynamodb"]["SequenceNumber"] = shard.items[before].record["dynamodb"]["SequenceNumber"]
            shard.items[before] = last
        return item

    return update_item


def _limiting_iterators(get_records: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(get_records)
    def get_records_and_limit(backend: Any, *arguments: Any, **options: Any) -> Any:
        answer = get_records(backend, *arguments, **options)
        while len(backend.shard_iterators) > _MAX_ITERATORS:
            del backend.shard_iterators[next(iter(backend.shard_iterators))]
        return answer

    return get_records_and_limit

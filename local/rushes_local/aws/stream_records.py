"""moto's DynamoDB stream, mended: one record for each write that changes something, and iterators that do not pile up.

Hides three liberties of moto's. An update that creates its item leaves two records, the first of an item that holds
nothing but its key. A write that changes nothing leaves one, where DynamoDB leaves none. And every iterator that was
ever handed out is kept: a poller takes several a second, so a stack that stays up would fill the memory. What a failed
transaction wrote is taken out of the stream by `transactions`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

# As many as a poller takes in DynamoDB's quarter of an hour, after which an iterator is worthless there.
_MAX_ITERATORS = 5000


def mend_streams() -> None:
    """Change moto's streams for this process; a second call changes nothing. Imports moto."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import StreamShard
    from moto.dynamodbstreams.models import DynamoDBStreamsBackend

    if hasattr(StreamShard.add, "__wrapped__"):
        return
    StreamShard.add = _if_changed(StreamShard.add)  # type: ignore[method-assign,assignment]
    DynamoDBBackend.update_item = _recorded_once(DynamoDBBackend.update_item)  # type: ignore[method-assign]
    DynamoDBStreamsBackend.get_records = _forgetting(DynamoDBStreamsBackend.get_records)  # type: ignore[method-assign]


def _if_changed(add: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    @wraps(add)
    def add_if_changed(shard: Any, old: Any, new: Any) -> None:
        if old is None or new is None or old.to_json() != new.to_json():
            add(shard, old, new)

    return add_if_changed


def _recorded_once(update: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(update)
    def update_item(backend: Any, table_name: str, key: dict[str, Any], *given: Any, **named: Any) -> Any:
        shard = backend.get_table(table_name).stream_shard
        before = len(shard.items) if shard else 0
        item = update(backend, table_name, key, *given, **named)
        if shard and len(shard.items) == before + 2:
            # Sequence numbers are counted by the length: the second record takes the first one's place.
            last = shard.items.pop()
            last.record["dynamodb"]["SequenceNumber"] = shard.items[before].record["dynamodb"]["SequenceNumber"]
            shard.items[before] = last
        return item

    return update_item


def _forgetting(get_records: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(get_records)
    def get_records_and_forget(backend: Any, *given: Any, **named: Any) -> Any:
        answer = get_records(backend, *given, **named)
        while len(backend.shard_iterators) > _MAX_ITERATORS:
            del backend.shard_iterators[next(iter(backend.shard_iterators))]
        return answer

    return get_records_and_forget

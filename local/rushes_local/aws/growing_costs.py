"""Reduces costs of moto that grow with its data, and with which a file of a thousand lines would take too long.

For each request, moto lists the folder of its services and every method of the responding class. For each message that
a queue delivers, it goes through all messages for the retention period, and reads the clock four times for each of
them, through dates. To query one partition, it sorts the whole table, and unwraps both values in each comparison. In
each attribute of each item in a response of DynamoDB or its stream, nested ones too, it looks for eleven kinds of
value: several milliseconds for a clip.
"""

import copy
import time
from collections.abc import Callable
from functools import cache, wraps
from inspect import signature
from typing import Any


def reduce_costs() -> None:
    """Change moto for this process; a second call changes nothing. Imports moto."""
    from moto import backends
    from moto.core import responses, utils
    from moto.core.serialize import BaseJSONSerializer
    from moto.dynamodb.models.table import Table
    from moto.sqs import models as queues
    from moto.sqs.models import SQSBackend

    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    responses.method_names_from_class = cache(utils.method_names_from_class)  # type: ignore[attr-defined]
    # Queues keep messages for days, longer than any local stack runs.
    SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]
    queues.unix_time_millis = lambda: time.time() * 1000  # type: ignore[attr-defined,assignment,misc]
    if not hasattr(BaseJSONSerializer._serialize_type_structure, "__wrapped__"):
        serialize = BaseJSONSerializer._serialize_type_structure
        BaseJSONSerializer._serialize_type_structure = _pass_values(serialize)  # type: ignore[method-assign]
    if not hasattr(Table.query, "__wrapped__"):
        Table.query = _in_one_partition(Table.query)  # type: ignore[method-assign]
        Table.all_items = _all_items  # type: ignore[method-assign,assignment]
        Table.sorted_items = _sorted_items  # type: ignore[method-assign,assignment]


def _pass_values(serialize: Callable[..., None]) -> Callable[..., None]:
    """A serializer that does not convert DynamoDB's values, which moto stores in the format of the response."""

    @wraps(serialize)
    def serialize_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and key and _is_serialized(value):
            serializer._default_serialize(serialized, value, shape, key)
        else:
            serialize(serializer, serialized, value, shape, key)

    return serialize_structure


def _is_serialized(value: Any) -> bool:
    """True if a value consists of texts, numbers, booleans and nulls only. Bytes still need their encoding."""
    if type(value) is not dict or len(value) != 1:
        return False
    ((kind, content),) = value.items()
    match kind:
        case "S" | "N":
            return type(content) is str
        case "BOOL" | "NULL":
            return type(content) is bool
        case "M":
            return type(content) is dict and all(map(_is_serialized, content.values()))
        case "L":
            return type(content) is list and all(map(_is_serialized, content))
    return False


def _all_items(table: Any) -> list[Any]:
    """Every item, sorted by its keys; each is unwrapped once."""
    found = [item for part in table.items.values() for item in (part.values() if table.range_key_attr else (part,))]
    names = [name for name in (table.hash_key_attr, table.range_key_attr) if name]
    return sorted(found, key=lambda item: [item.attrs[name].cast_value for name in names])


def _sorted_items(table: Any, hashes: list[str], ranges: list[str | None], items: list[Any]) -> list[Any]:
    """These items, sorted by an index; each is unwrapped once."""
    names = table._generate_attr_to_sort_by(hashes, ranges)
    items.sort(key=lambda item: [item.attrs[name].cast_value for name in names])
    return items


def _in_one_partition(query: Callable[..., Any]) -> Callable[..., Any]:
    """A query that reads only the items of its hash key, unless it uses an index."""
    parameters = signature(query)

    @wraps(query)
    def query_partition(table: Any, *arguments: Any, **options: Any) -> Any:
        bound = parameters.bind(table, *arguments, **options).arguments
        hash_key = bound["hash_key"]
        if bound.get("index_name") is None and hash_key in table.items:
            whole, table = table, copy.copy(table)
            table.items = {hash_key: whole.items[hash_key]}
        return query(table, *arguments, **options)

    return query_partition

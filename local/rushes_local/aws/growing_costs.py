"""Costs of moto that grow with what it holds and answers, cut: a file of a thousand lines is not feasible with them.

moto lists the folder of its services for each request, and every method of the class that answers it. It counts all
messages of a queue for each message that it gives out, to apply the retention period, and reads the clock four times
for every one of them, through dates. It sorts a whole table to query one partition, and unwraps both values for each
comparison. It looks for eleven kinds of value in each attribute of each item that DynamoDB or its stream answers,
nested ones too: several milliseconds for a clip.
"""

import copy
import time
from collections.abc import Callable
from functools import cache, wraps
from inspect import signature
from typing import Any


def cut_short() -> None:
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
    # Queues keep messages for days, and no stack lives so long.
    SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]
    queues.unix_time_millis = lambda: time.time() * 1000  # type: ignore[attr-defined,assignment,misc]
    if not hasattr(BaseJSONSerializer._serialize_type_structure, "__wrapped__"):
        serialize = BaseJSONSerializer._serialize_type_structure
        BaseJSONSerializer._serialize_type_structure = _as_they_are(serialize)  # type: ignore[method-assign]
    if not hasattr(Table.query, "__wrapped__"):
        Table.query = _in_one_partition(Table.query)  # type: ignore[method-assign]
        Table.all_items = _all_items  # type: ignore[method-assign,assignment]
        Table.sorted_items = _sorted_items  # type: ignore[method-assign,assignment]


def _as_they_are(serialize: Callable[..., None]) -> Callable[..., None]:
    """A serializer that leaves DynamoDB's values as moto holds them: they are in the form of the answer."""

    @wraps(serialize)
    def look(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and key and _is_answer(value):
            serializer._default_serialize(serialized, value, shape, key)
        else:
            serialize(serializer, serialized, value, shape, key)

    return look


def _is_answer(value: Any) -> bool:
    """Whether a value is made of texts, numbers, truth values and nulls alone. Bytes have yet to be encoded."""
    if type(value) is not dict or len(value) != 1:
        return False
    ((kind, held),) = value.items()
    match kind:
        case "S" | "N":
            return type(held) is str
        case "BOOL" | "NULL":
            return type(held) is bool
        case "M":
            return type(held) is dict and all(map(_is_answer, held.values()))
        case "L":
            return type(held) is list and all(map(_is_answer, held))
    return False


def _all_items(table: Any) -> list[Any]:
    """Every item in the order of its keys, each unwrapped once."""
    found = [item for part in table.items.values() for item in (part.values() if table.range_key_attr else (part,))]
    names = [name for name in (table.hash_key_attr, table.range_key_attr) if name]
    return sorted(found, key=lambda item: [item.attrs[name].cast_value for name in names])


def _sorted_items(table: Any, hashes: list[str], ranges: list[str | None], items: list[Any]) -> list[Any]:
    """These items in the order of an index, each unwrapped once."""
    names = table._generate_attr_to_sort_by(hashes, ranges)
    items.sort(key=lambda item: [item.attrs[name].cast_value for name in names])
    return items


def _in_one_partition(query: Callable[..., Any]) -> Callable[..., Any]:
    """A query that looks at the items of its hash key only, unless it goes through an index."""
    given = signature(query)

    @wraps(query)
    def look(table: Any, *arguments: Any, **named: Any) -> Any:
        bound = given.bind(table, *arguments, **named).arguments
        hash_key = bound["hash_key"]
        if bound.get("index_name") is None and hash_key in table.items:
            whole, table = table, copy.copy(table)
            table.items = {hash_key: whole.items[hash_key]}
        return query(table, *arguments, **named)

    return look

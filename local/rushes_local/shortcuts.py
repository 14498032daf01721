"""Detours of moto that grow with everything it holds, cut short.

Hides seven changes to moto: it lists the folder of its services for each request, a fifth of what a request takes, and
looks through all members of a service's class for the method to call; for each message that it gives out it counts all
messages of the queue, to learn how long that keeps them, and for each that it takes in it looks four times at the clock
for every one, by way of dates; to query one partition of a table it sorts the whole table; where it has to sort, it
unwraps both values for each comparison; and to show some attributes of an item it copies the whole item once for each.
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
    from moto.core import responses
    from moto.dynamodb.models.dynamo_type import Item
    from moto.dynamodb.models.table import Table
    from moto.sqs import models as queues
    from moto.sqs.models import SQSBackend

    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    if not hasattr(responses.method_names_from_class, "cache_info"):  # type: ignore[attr-defined]
        responses.method_names_from_class = cache(responses.method_names_from_class)  # type: ignore[attr-defined]
    # Queues keep messages for days, and no stack lives so long.
    SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]
    queues.unix_time_millis = lambda: time.time() * 1000  # type: ignore[attr-defined,assignment,misc]
    if not hasattr(Table.query, "__wrapped__"):
        Table.query = _in_one_partition(Table.query)  # type: ignore[method-assign]
        Table.all_items = _all_items  # type: ignore[method-assign,assignment]
        Table.sorted_items = _sorted_items  # type: ignore[method-assign,assignment]
        Item.project = _attributes_of(Item.project)  # type: ignore[method-assign]


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


def _attributes_of(project: Callable[..., Any]) -> Callable[..., Any]:
    """Whole attributes are shared with the item they are shown of; paths into one go moto's way."""

    @wraps(project)
    def show(item: Any, paths: list[list[str]]) -> Any:
        names = {path[0] for path in paths if len(path) == 1 and "[" not in path[0]}
        if len(names) < len(paths):
            return project(item, paths)
        shown = type(item)(item.hash_key, item.range_key, {})
        for name in names & item.attrs.keys():
            dict.__setitem__(shown.attrs, name, item.attrs[name])  # moto's own weighs all that is there each time
        return shown

    return show


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

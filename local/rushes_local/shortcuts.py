"""Detours of moto that grow with everything it holds, cut short.

Hides three changes to moto: it lists the folder of its services for each request, a fifth of what a request takes; for
each message that it gives out it counts all messages of the queue, to learn how long that keeps them; and to query one
partition of a table it sorts the whole table.
"""

import copy
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any


def cut_short() -> None:
    """Change moto for this process; a second call changes nothing. Imports moto."""
    from moto import backends
    from moto.dynamodb.models.table import Table
    from moto.sqs.models import SQSBackend

    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    # Queues keep messages for days, and no stack lives so long.
    SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]
    if not hasattr(Table.query, "__wrapped__"):
        Table.query = _in_one_partition(Table.query)  # type: ignore[method-assign]


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

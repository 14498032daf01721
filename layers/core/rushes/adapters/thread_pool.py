"""Concurrent work on several items. Behind a protocol, so that a simulation can replace it by sequential work."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rushes.runware.wire import MAX_AT_ONCE

T = TypeVar("T")
R = TypeVar("R")


def concurrent_map(work: Callable[[T], R], items: Iterable[T], /) -> list[R]:
    """Implements `ConcurrentMap` with a few threads; a single item needs none."""
    items = list(items)
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(MAX_AT_ONCE) as threads:
        return list(threads.map(work, items))

"""Doing one thing to many items side by side. A port, so that a simulation can do it one after another."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rushes.runware.wire import MAX_AT_ONCE

T = TypeVar("T")
R = TypeVar("R")


def concurrent_map(work: Callable[[T], R], items: Iterable[T], /) -> list[R]:
    """`SideBySide` with a few threads; one item alone needs none."""
    items = list(items)
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(MAX_AT_ONCE) as threads:
        return list(threads.map(work, items))

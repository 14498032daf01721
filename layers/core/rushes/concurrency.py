"""Doing one thing to many items side by side. A port, so that a simulation can do it one after another."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Runware advises a low, steady concurrency, and every clip's work is mostly waiting for it.
MOST_AT_ONCE = 8


class SideBySide(Protocol):
    """Like `map`, but complete when it returns; the results are in the items' order."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], /) -> list[R]: ...


def side_by_side(work: Callable[[T], R], items: Iterable[T], /) -> list[R]:
    """`SideBySide` with a few threads; one item alone needs none."""
    items = list(items)
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
        return list(threads.map(work, items))

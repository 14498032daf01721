"""Doing one thing to many items side by side. A port, so that a simulation can do it one after another."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from rushes.services.ports import MAX_AT_ONCE, R, T


def concurrent_map(work: Callable[[T], R], items: Iterable[T], /) -> list[R]:
    """`SideBySide` with a few threads; one item alone needs none."""
    items = list(items)
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(MAX_AT_ONCE) as threads:
        return list(threads.map(work, items))

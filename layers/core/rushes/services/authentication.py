"""Finds the caller of an API key. A key is stored only as its SHA-256; it has 256 random bits, so a fast hash is safe.

The caller of a file or an event has no key and is found by name. `Callers` caches each key and each name for a
minute. A refusal by name is final for an order, so it is never based on the cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from rushes.domain.caller import KEY_PREFIX, Caller, hash_key
from rushes.runware.wire import wire_error

if TYPE_CHECKING:
    from rushes.services.ports import CallerTable

_CACHE_TTL = 60_000  # milliseconds: a revoked key stops working within this time
_MAX_CACHED = 1000
NOT_ALLOWED = wire_error(
    "callerNotAllowed",
    "This caller is disabled, or no operator has made it. Nothing was bought; the operator can change that.",
)


class Callers:
    """Finds callers, with a cache of a minute for each key and each name. `clock` gives milliseconds.

    `default_limit` is the monthly limit of a caller that no operator has made, in micro-dollars; None refuses it.
    """

    def __init__(self, keys: CallerTable, clock: Callable[[], int], default_limit: int | None = None) -> None:
        self._keys, self._clock, self._default_limit = keys, clock, default_limit
        self._cache: OrderedDict[tuple[str, str], tuple[int, Caller | None]] = OrderedDict()

    def of(self, authorization: str | None) -> Caller | None:
        """The caller of an `Authorization` header; None if the key is missing or unknown, or the caller disabled."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.startswith(KEY_PREFIX) or len(key) > 100 or not key.isascii():
            return None
        key_hash = hash_key(key)
        found = self._cached(("key", key_hash), lambda: self._keys.caller(key_hash))
        return None if found is None or found.disabled else found

    def by_name(self, name: str, *, signing: bool = False) -> Caller | None:
        """The caller of this name; None if it may not order. A refusal is read from the table, never from the cache.

        With `signing`, the lack of a secret for webhooks is read from the table, too.
        """
        found = self._by_name(name)
        if found is None or (signing and not found.signs_webhooks):
            found = self._by_name(name, fresh=True)
        return found

    def _by_name(self, name: str, *, fresh: bool = False) -> Caller | None:
        found = self._cached(("name", name), lambda: self._keys.caller_named(name), fresh=fresh)
        if found is None and self._default_limit is not None:
            return Caller(name, self._default_limit)
        return None if found is None or found.disabled else found

    def _cached(self, key: tuple[str, str], read: Callable[[], Caller | None], *, fresh: bool = False) -> Caller | None:
        now = self._clock()
        found = self._cache.get(key)
        if fresh or found is None or now - found[0] > _CACHE_TTL:
            found = (now, read())
            self._cache[key] = found
            self._cache.move_to_end(key)
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        return found[1]

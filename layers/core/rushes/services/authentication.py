"""API keys to callers. A key is stored only as its SHA-256; it has 256 random bits, so no slow hash is needed.

A caller that comes in by another door than a key (a prefix of the bucket, the event bus) is found by name. `Callers`
reads each key and each name at most once a minute; a refusal by name is final for an order, so that is read afresh.
"""

from collections import OrderedDict
from collections.abc import Callable

from rushes.domain.caller import KEY_PREFIX, Caller, hash_key
from rushes.runware.wire import wire_error
from rushes.services.ports import CallerTable

_KEPT = 60_000  # milliseconds: a revoked key stops working within this time
_MAX_KEPT = 1000
NOT_ALLOWED = wire_error(
    "callerNotAllowed",
    "This caller is disabled, or no operator has made it. Nothing was bought; the operator can change that.",
)


class Callers:
    """Finds callers, reading each key and each name at most once a minute. `clock` gives milliseconds.

    `default_limit` is what a caller may spend in a month that no operator has made, in micro-dollars. None refuses it.
    """

    def __init__(self, keys: CallerTable, clock: Callable[[], int], default_limit: int | None = None) -> None:
        self._keys, self._clock, self._default_limit = keys, clock, default_limit
        self._known: OrderedDict[tuple[str, str], tuple[int, Caller | None]] = OrderedDict()

    def of(self, authorization: str | None) -> Caller | None:
        """The caller behind an `Authorization` header; None if there is none, or it is disabled."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.startswith(KEY_PREFIX) or len(key) > 100 or not key.isascii():
            return None
        key_hash = hash_key(key)
        found = self._remembered(("key", key_hash), lambda: self._keys.caller(key_hash))
        return None if found is None or found.disabled else found

    def named(self, name: str) -> Caller | None:
        """The caller of this name; None if it may order nothing. Only an order that is let in may rest on memory."""
        return self._named(name) or self._named(name, fresh=True)

    def _named(self, name: str, *, fresh: bool = False) -> Caller | None:
        found = self._remembered(("name", name), lambda: self._keys.caller_named(name), fresh=fresh)
        if found is None and self._default_limit is not None:
            return Caller(name, self._default_limit)
        return None if found is None or found.disabled else found

    def _remembered(
        self, what: tuple[str, str], read: Callable[[], Caller | None], *, fresh: bool = False
    ) -> Caller | None:
        now = self._clock()
        found = self._known.get(what)
        if fresh or found is None or now - found[0] > _KEPT:
            found = (now, read())
            self._known[what] = found
            self._known.move_to_end(what)
            if len(self._known) > _MAX_KEPT:
                self._known.popitem(last=False)
        return found[1]

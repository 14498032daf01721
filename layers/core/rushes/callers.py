"""API keys to callers. A key is stored only as its SHA-256; it has 256 random bits, so no slow hash is needed.

One read per key and minute: `Callers` keeps what it found, and also what it did not find.
"""

import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_KEPT = 60_000  # milliseconds: a revoked key stops working within this time
_MOST_KEPT = 1000
_PREFIX = "rushes_"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `monthly_limit` is in micro-dollars."""

    name: str
    monthly_limit: int


class Keys(Protocol):
    """Where keys are kept."""

    def caller(self, key_hash: str) -> Caller | None: ...


class Callers:
    """Finds the caller of a key, reading each key at most once a minute. `clock` gives milliseconds."""

    def __init__(self, keys: Keys, clock: Callable[[], int]) -> None:
        self._keys, self._clock = keys, clock
        self._known: OrderedDict[str, tuple[int, Caller | None]] = OrderedDict()

    def of(self, authorization: str | None, *, fresh: bool = False) -> Caller | None:
        """The caller behind an `Authorization` header, or None. `fresh` reads the key even if it is remembered."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.startswith(_PREFIX) or len(key) > 100 or not key.isascii():
            return None
        key_hash = hash_key(key)
        now = self._clock()
        found = self._known.get(key_hash)
        if fresh or found is None or now - found[0] > _KEPT:
            found = (now, self._keys.caller(key_hash))
            self._known[key_hash] = found
            self._known.move_to_end(key_hash)
            if len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return found[1]


def new_key() -> str:
    """A fresh API key. It is shown once and never stored."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """What is stored of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(text: str) -> bool:
    """Whether `text` can name a caller: it becomes part of object keys and callback paths."""
    return _NAME.fullmatch(text) is not None and text != "all"

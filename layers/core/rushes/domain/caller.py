"""Callers and their API keys: the types, the form of a name, and how a key is made and hashed.

A key is stored only as its SHA-256; it has 256 random bits, so no slow hash is needed. `services.authentication` finds
the caller of a key.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

KEY_PREFIX = "rushes_"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `monthly_limit` is in micro-dollars; `image_sources` are `bucket/prefix` texts of `s3://` images.

    For a `disabled` one every door is closed; its clips under way are seen through.
    """

    name: str
    monthly_limit: int
    image_sources: tuple[str, ...] = ()
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a caller's key, for people: its hash, the name it was given, and since when it is no use."""

    key_hash: str
    name: str
    made_at: int
    revoked_at: int | None


def new_key() -> str:
    """A fresh API key. It is shown once and never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """What is stored of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(text: str) -> bool:
    """Whether `text` can name a caller: it becomes part of object keys and callback paths."""
    return _NAME.fullmatch(text) is not None and text != "all"

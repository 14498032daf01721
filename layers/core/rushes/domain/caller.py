"""Callers and their API keys: the types, the form of a name, and how a key is made and hashed.

A key is stored only as its SHA-256; it has 256 random bits, so no slow hash is needed. `services.authentication` finds
the caller of a key.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

KEY_PREFIX = "rushes_"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Caller(NamedTuple):
    """A user of the API. `monthly_limit` is in micro-dollars; `image_sources` are allowed `bucket/prefix` texts.

    All requests of a `disabled` caller are refused; its open clips are still completed. `webhook_url` is the receiver
    of tasks that name none; `signs_webhooks` is True if the caller has a secret for deliveries.
    """

    name: str
    monthly_limit: int
    image_sources: tuple[str, ...] = ()
    disabled: bool = False
    webhook_url: str = ""
    signs_webhooks: bool = False


class ApiKey(NamedTuple):
    """The record of an API key, for operators. `revoked_at` is None while the key is valid; times in milliseconds."""

    key_hash: str
    name: str
    made_at: int
    revoked_at: int | None


def new_key() -> str:
    """Returns a new random API key. It is shown once and never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Returns the SHA-256 of an API key in hexadecimal, which is stored in its place."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(text: str) -> bool:
    """True if `text` is a valid caller name, safe in object keys and callback paths."""
    return _NAME.fullmatch(text) is not None and text != "all"

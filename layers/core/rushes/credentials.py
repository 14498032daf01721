"""Secrets, fetched when first needed and kept for a while. The only place that reads Secrets Manager.

A value never appears in a message or a log line. Fetching again is bounded in time, so that forged callbacks, each
signed by "maybe a new key", cannot run up a bill.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rushes.errors import MissingSecretError

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

T = TypeVar("T")

_KEPT = 300_000  # milliseconds: how long a change of the Runware key may go unnoticed
_NOT_SOONER = 60_000  # milliseconds between two fetches, however many signatures look unknown


class Secret:
    """One secret's text, cached. `clock` gives milliseconds."""

    def __init__(self, client: "SecretsManagerClient", arn: str, clock: Callable[[], int]) -> None:
        self._client, self._arn, self._clock = client, arn, clock
        self._value: str | None = None
        self._fetched_at = self._tried_at = 0

    def value(self) -> str:
        """The text; raises `MissingSecretError` while nobody has put one there."""
        if self._value is None or self._clock() - self._fetched_at > _KEPT:
            return self._fetch()
        return self._value

    def renew(self) -> bool:
        """Fetches again unless that was done just now; True if the text changed."""
        before = self._value
        if self._value is None or self._clock() - self._tried_at > _NOT_SOONER:
            self._fetch()
        return self._value != before

    def _fetch(self) -> str:
        self._tried_at = self._clock()  # a failure counts: forged calls must not hammer what is down already
        try:
            text = self._client.get_secret_value(SecretId=self._arn)["SecretString"].strip()
        except (self._client.exceptions.ResourceNotFoundException, KeyError):
            text = ""
        if not text:
            raise MissingSecretError("the secret has no value yet")
        self._value, self._fetched_at = text, self._clock()
        return text


def runware_key(secret: Secret) -> str:
    """The provider's API key; raises `MissingSecretError` if it could not be sent as a header."""
    return _usable(secret, _header_text)


def webhook_keys(secret: Secret) -> list[str]:
    """The keys that sign and verify callback tokens, newest first: the current one, then the previous one if any."""
    return _usable(secret, _key_pair)


def _usable(secret: Secret, read: Callable[[str], T]) -> T:
    """What the text means. A text that means nothing may have been corrected meanwhile: worth one bounded look."""
    try:
        return read(secret.value())
    except MissingSecretError:
        if not secret.renew():
            raise
        return read(secret.value())


def _header_text(key: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise MissingSecretError("the Runware key holds characters that no key has")
    return key


def _key_pair(text: str) -> list[str]:
    try:
        pair = json.loads(text)
        keys = [key for key in (pair["current"], pair.get("previous")) if key]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MissingSecretError("the webhook secret is not {current, previous}") from None
    if not keys or not all(isinstance(key, str) for key in keys):
        raise MissingSecretError("the webhook secret holds no key")
    return keys

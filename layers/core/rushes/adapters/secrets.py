"""Secrets, fetched at the first use and cached. The only module that reads Secrets Manager.

A value never appears in a message or a log line. The frequency of fetches is limited, because the unknown signature of
each forged callback would cause one, even while Secrets Manager is down and the last value is used.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rushes.adapters.aws import aws_errors
from rushes.errors import MissingSecretError, SecretsError

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

T = TypeVar("T")

_CACHE_TTL = 300_000  # milliseconds after which a change of the Runware key is noticed
_MIN_INTERVAL = 60_000  # milliseconds between two fetches, for any number of unknown signatures
_MIN_INTERVAL_WITHOUT_VALUE = 5_000  # milliseconds: shorter, because the service may just be being configured
_MAX_STALE = 3_600_000  # milliseconds for which a value is used if it cannot be fetched again


class SecretsManagerSecret:
    """One secret's text, cached. `clock` gives milliseconds; `on_failure` gets the reason of each failed fetch."""

    def __init__(
        self,
        client: "SecretsManagerClient",
        arn: str,
        clock: Callable[[], int],
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self._arn, self._clock, self._on_failure = client, arn, clock, on_failure
        self._value: str | None = None
        self._fetched_at = self._attempted_at = 0
        self._failure: MissingSecretError | SecretsError | None = None

    def value(self) -> str:
        """The text, which may be up to an hour old while Secrets Manager does not answer.

        Raises `MissingSecretError` if the secret is not set, and `SecretsError` if it cannot be fetched.
        """
        age = self._clock() - self._fetched_at
        if self._value is None or age > _CACHE_TTL:
            self._fetch()
        if self._value is None or (self._failure and not self._is_usable(self._failure, age)):
            failure = self._failure or SecretsError("no answer")
            # A new exception, because each raise of the same one would extend its traceback.
            raise type(failure)(*failure.args)
        return self._value

    def refresh(self) -> bool:
        """Fetches the text again unless it was fetched a moment ago; returns True if it changed."""
        before = self._value
        self._fetch(refresh=True)
        return self._value != before

    def _is_usable(self, failure: MissingSecretError | SecretsError, age: int) -> bool:
        """True if the last value may be used after a failed fetch; that of a removed secret only while it is cached."""
        return age <= _CACHE_TTL or (isinstance(failure, SecretsError) and age <= _MAX_STALE)

    def _fetch(self, *, refresh: bool = False) -> None:
        """Fetches the text, with a minimum interval, so that forged calls do not overload Secrets Manager.

        The interval does not apply to a secret that is not set yet, because it may be set at any moment.
        """
        interval = _MIN_INTERVAL if self._value is not None else _MIN_INTERVAL_WITHOUT_VALUE
        is_limited = refresh or isinstance(self._failure, SecretsError) or (self._failure and self._value is not None)
        if is_limited and self._clock() - self._attempted_at <= interval:
            return
        self._attempted_at = self._clock()
        self._failure = None
        try:
            text = self._text()
        except SecretsError as error:
            self._failure = SecretsError(*error.args)
            self._on_failure(str(error))
            return
        if text:
            self._value, self._fetched_at = text, self._clock()
        else:
            self._failure = MissingSecretError("the secret has no value yet")

    def _text(self) -> str:
        """The current text, empty if it is not set; raises `SecretsError`."""
        with aws_errors(SecretsError):
            try:
                return self._client.get_secret_value(SecretId=self._arn)["SecretString"].strip()
            except (self._client.exceptions.ResourceNotFoundException, KeyError):
                return ""


def runware_key(secret: SecretsManagerSecret) -> str:
    """Runware's API key; raises `MissingSecretError` if it cannot be sent as a header."""
    return _read(secret, _header_text)


def webhook_keys(secret: SecretsManagerSecret) -> list[str]:
    """The keys that sign and verify callback tokens, newest first: the current one, then the previous one if any."""
    return _read(secret, _key_pair)


def _read(secret: SecretsManagerSecret, read: Callable[[str], T]) -> T:
    """The parsed text. An invalid text may have been corrected meanwhile, so it is fetched again once."""
    try:
        return read(secret.value())
    except MissingSecretError:
        if not secret.refresh():
            raise
        return read(secret.value())


def _header_text(key: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise MissingSecretError("the Runware key has characters other than printable ASCII without spaces")
    return key


def _key_pair(text: str) -> list[str]:
    try:
        pair = json.loads(text)
        keys = [key for key in (pair["current"], pair.get("previous")) if key]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MissingSecretError("the webhook secret is not JSON with current and previous") from None
    if not keys or not all(isinstance(key, str) for key in keys):
        raise MissingSecretError("the webhook secret has no key")
    return keys

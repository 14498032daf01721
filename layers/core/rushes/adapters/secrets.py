"""Secrets, fetched when first needed and kept for a while. The only place that reads Secrets Manager.

A value never appears in a message or a log line. Fetching again is bounded in time, so that forged callbacks, each
signed by "maybe a new key", cannot run up a bill, nor while Secrets Manager is down and the last value is used.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rushes.adapters.aws import aws_errors
from rushes.errors import MissingSecretError, SecretsError

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

T = TypeVar("T")

_KEPT = 300_000  # milliseconds: how long a change of the Runware key may go unnoticed
_NOT_SOONER = 60_000  # milliseconds between two fetches, however many signatures look unknown
_NOT_SOONER_AT_FIRST = (
    5_000  # the same while there is no value at all: a service is waited for that was just configured
)
_STILL_GOOD = 3_600_000  # milliseconds for which a value is used that cannot be fetched again


class SecretsManagerSecret:
    """One secret's text, cached. `clock` gives milliseconds; `unanswered` is told why a fetch failed."""

    def __init__(
        self,
        client: "SecretsManagerClient",
        arn: str,
        clock: Callable[[], int],
        unanswered: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self._arn, self._clock, self._unanswered = client, arn, clock, unanswered
        self._value: str | None = None
        self._fetched_at = self._tried_at = 0
        self._failure: MissingSecretError | SecretsError | None = None

    def value(self) -> str:
        """The text, which may be an hour old while Secrets Manager does not answer.

        Raises `MissingSecretError` while nobody has put one there, and `SecretsError` if it cannot be had.
        """
        age = self._clock() - self._fetched_at
        if self._value is None or age > _KEPT:
            self._fetch()
        if self._value is None or (self._failure and not self._outlasts(self._failure, age)):
            failure = self._failure or SecretsError("no answer")
            raise type(failure)(*failure.args)  # a new one: the same would carry the traces of all that came before
        return self._value

    def renew(self) -> bool:
        """Fetches again unless that was done just now; True if the text changed."""
        before = self._value
        self._fetch(anew=True)
        return self._value != before

    def _outlasts(self, failure: MissingSecretError | SecretsError, age: int) -> bool:
        """Whether the last value is still used. One that has been taken away is not."""
        return age <= _KEPT or (isinstance(failure, SecretsError) and age <= _STILL_GOOD)

    def _fetch(self, *, anew: bool = False) -> None:
        """Asks for the text, but not again and again: forged calls must not hammer what is down already.

        That there is no value yet may be about to change, and is an answer: it is asked for each time.
        """
        pause = _NOT_SOONER if self._value is not None else _NOT_SOONER_AT_FIRST
        is_settled = anew or isinstance(self._failure, SecretsError) or (self._failure and self._value is not None)
        if is_settled and self._clock() - self._tried_at <= pause:
            return
        self._tried_at = self._clock()
        self._failure = None
        try:
            text = self._text()
        except SecretsError as error:
            self._failure = SecretsError(*error.args)
            self._unanswered(str(error))
            return
        if text:
            self._value, self._fetched_at = text, self._clock()
        else:
            self._failure = MissingSecretError("the secret has no value yet")

    def _text(self) -> str:
        """The text as it is now, empty while there is none; raises `SecretsError`."""
        with aws_errors(SecretsError):
            try:
                return self._client.get_secret_value(SecretId=self._arn)["SecretString"].strip()
            except (self._client.exceptions.ResourceNotFoundException, KeyError):
                return ""


def runware_key(secret: SecretsManagerSecret) -> str:
    """The provider's API key; raises `MissingSecretError` if it could not be sent as a header."""
    return _usable(secret, _header_text)


def webhook_keys(secret: SecretsManagerSecret) -> list[str]:
    """The keys that sign and verify callback tokens, newest first: the current one, then the previous one if any."""
    return _usable(secret, _key_pair)


def _usable(secret: SecretsManagerSecret, read: Callable[[str], T]) -> T:
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

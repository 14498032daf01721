"""A delivery: the POST of one outcome of a clip to its caller's receiver, with its message, schedule and signature.

The same delivery may be sent several times, always under the same id, until the receiver accepts it or the schedule
ends. The signature is that of Standard Webhooks (https://www.standardwebhooks.com). Pure; times are in milliseconds.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from rushes.domain.caller import is_name
from rushes.domain.formats import UUID4
from rushes.errors import UnreadableError

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32
# The pauses between attempts as multiples of the first: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h.
_PAUSES = (1, 60, 360, 1440, 3600, 7200, 7200)
MAX_ATTEMPTS = len(_PAUSES) + 1
_GONE = 410
_MAX_WAIT = 600_000  # milliseconds; with the jitter, a queue's longest delay
_MAX_DOUBLINGS = 20


class Delivery(NamedTuple):
    """One attempt at a delivery, as a message of the queue.

    `delivery_id` is the id of the clip's event, and the `webhook-id` of every attempt. `run` is 0, or the time of the
    replay that this attempt belongs to. `attempt` counts from 1. An attempt is not made before `due_at`. `waits` is the
    number of times that the message has found all of the caller's slots taken.
    """

    caller: str
    task_uuid: str
    clip: int
    delivery_id: str
    run: int = 0
    attempt: int = 1
    due_at: int = 0
    waits: int = 0

    @property
    def text(self) -> str:
        """The body of the message, in JSON."""
        return json.dumps(self._asdict(), separators=(",", ":"))


class AttemptOutcome(StrEnum):
    """The outcome of an attempt. Only `RETRY` is followed by another one."""

    DELIVERED = "delivered"
    RETRY = "retry"
    GONE = "gone"  # the receiver answered 410
    FAILED = "failed"  # the last attempt of the schedule failed
    DROPPED = "dropped"  # nothing was sent, since the clip was erased


class Reply(NamedTuple):
    """The receiver's response to one attempt, or the reason why there is none.

    `status` is None without a response, and `failure` is empty after a complete one. `excerpt` has the first characters
    of the body, without secrets. `duration` and `retry_after` are in milliseconds.
    """

    status: int | None
    duration: int
    excerpt: str = ""
    retry_after: int | None = None
    failure: str = ""

    @property
    def accepted(self) -> bool:
        """True if the receiver has accepted the delivery."""
        return self.status is not None and 200 <= self.status < 300 and not self.failure


class Attempt(NamedTuple):
    """The record of an attempt. `receiver` is the origin of its URL; `next_at` is None if no attempt follows."""

    delivery: Delivery
    at: int
    receiver: str
    reply: Reply
    outcome: AttemptOutcome
    next_at: int | None = None

    @property
    def next(self) -> Delivery | None:
        """The attempt that follows, or None."""
        if self.next_at is None:
            return None
        return self.delivery._replace(attempt=self.delivery.attempt + 1, due_at=self.next_at, waits=0)


class SigningSecret(NamedTuple):
    """A caller's secret, as text with its prefix. `ends_at` is None until the secret is rotated."""

    text: str
    made_at: int
    ends_at: int | None = None


def read(text: str) -> Delivery:
    """Returns the delivery in a message; raises `UnreadableError` for one that this service would not send."""
    try:
        delivery = Delivery(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise UnreadableError("The message must be a delivery.") from None
    numbers = (delivery.clip, delivery.run, delivery.attempt, delivery.due_at, delivery.waits)
    if (
        all(type(number) is int and number >= 0 for number in numbers)
        and 1 <= delivery.attempt <= MAX_ATTEMPTS
        and all(isinstance(each, str) for each in (delivery.caller, delivery.task_uuid, delivery.delivery_id))
        and is_name(delivery.caller)
        and UUID4.fullmatch(delivery.task_uuid)
    ):
        return delivery
    raise UnreadableError("The message must be a delivery.")


def judge(delivery: Delivery, at: int, receiver: str, reply: Reply, now: int, first_pause: int) -> Attempt:
    """Returns the record of an attempt that began `at` and ended `now`, with the time of the next one, if any.

    A receiver may prolong the pause with Retry-After, up to the longest pause of the schedule.
    """
    if reply.accepted:
        return Attempt(delivery, at, receiver, reply, AttemptOutcome.DELIVERED)
    if reply.status == _GONE:
        return Attempt(delivery, at, receiver, reply, AttemptOutcome.GONE)
    if delivery.attempt >= MAX_ATTEMPTS:
        return Attempt(delivery, at, receiver, reply, AttemptOutcome.FAILED)
    pause = _PAUSES[delivery.attempt - 1] * first_pause
    longest = max(_PAUSES) * first_pause
    pause = max(pause, min(reply.retry_after or 0, longest))
    return Attempt(delivery, at, receiver, reply, AttemptOutcome.RETRY, now + pause)


def drop(delivery: Delivery, at: int, receiver: str, reason: str) -> Attempt:
    """Returns the record of a delivery that ends without being sent, for this reason."""
    return Attempt(delivery, at, receiver, Reply(None, 0, failure=reason), AttemptOutcome.DROPPED)


def wait(delivery: Delivery, first_pause: int, jitter: float) -> tuple[Delivery, int]:
    """Returns the message that waits for a slot, and its delay in milliseconds; `jitter` is from 0 to 1.

    The delay doubles each time: the backlog of a receiver that hangs soon costs hardly any invocations.
    """
    delay = min(_MAX_WAIT, first_pause * 2 ** min(delivery.waits, _MAX_DOUBLINGS)) * (0.5 + jitter)
    return delivery._replace(waits=delivery.waits + 1), round(delay)


def new_secret() -> str:
    """Returns a new random secret, in the format of Standard Webhooks."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def valid_secrets(stored: Iterable[SigningSecret], now: int) -> list[SigningSecret]:
    """Returns the secrets with which a delivery is signed now, newest first."""
    valid = (secret for secret in stored if secret.ends_at is None or secret.ends_at > now)
    return sorted(valid, key=lambda secret: secret.made_at, reverse=True)


def sign(keys: Sequence[SigningSecret], delivery_id: str, timestamp: int, body: bytes) -> str:
    """Returns the value of `webhook-signature`: one signature for each secret. `timestamp` is in Unix seconds."""
    content = f"{delivery_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_signature(key.text, content)}" for key in keys)


def _signature(secret: str, content: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise UnreadableError("The stored signing secret is not in base64.") from None
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()

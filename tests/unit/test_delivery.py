"""Deliveries: the message, the schedule of attempts, the signature, and the allowed addresses of receivers."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from rushes.domain.delivery import (
    MAX_ATTEMPTS,
    AttemptOutcome,
    Delivery,
    Reply,
    SigningSecret,
    judge,
    new_secret,
    read,
    sign,
    valid_secrets,
    wait,
)
from rushes.domain.receiver_url import is_allowed_address, origin, url_fault
from rushes.errors import UnreadableError
from tests.fakes.builders import START, TASK_UUID

DELIVERY = Delivery("ann", TASK_UUID, 0, "f460da6a-5c97-5da3-8417-1fedd5b23ee8")
PAUSE = 5000
FAILURE = Reply(500, 10)


def attempted(delivery: Delivery, reply: Reply, now: int = START) -> Any:
    return judge(delivery, now - 10, "https://hooks.example", reply, now, PAUSE)


def test_a_receiver_that_never_answers_is_tried_for_a_day() -> None:
    """Attempts at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h; then the delivery has failed."""
    pauses, delivery = [], DELIVERY
    while True:
        attempt = attempted(delivery, Reply(None, 15_000, failure="timeout"))
        if attempt.next is None:
            break
        pauses.append(attempt.next_at - START)
        delivery = attempt.next
    assert [pause // 1000 for pause in pauses] == [5, 300, 1800, 7200, 18_000, 36_000, 36_000]
    assert (attempt.outcome, delivery.attempt) == (AttemptOutcome.FAILED, MAX_ATTEMPTS)
    assert delivery.delivery_id == DELIVERY.delivery_id


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(200, 1), AttemptOutcome.DELIVERED),
        (Reply(204, 1), AttemptOutcome.DELIVERED),
        (Reply(299, 1), AttemptOutcome.DELIVERED),
        (Reply(410, 1), AttemptOutcome.GONE),
        (Reply(200, 1, failure="RemoteProtocolError"), AttemptOutcome.RETRY),
        (Reply(199, 1), AttemptOutcome.RETRY),
        (Reply(302, 1), AttemptOutcome.RETRY),
        (Reply(400, 1), AttemptOutcome.RETRY),
        (Reply(429, 1), AttemptOutcome.RETRY),
        (Reply(None, 1, failure="connection failed"), AttemptOutcome.RETRY),
    ],
)
def test_only_a_complete_2xx_is_success(reply: Reply, outcome: AttemptOutcome) -> None:
    """2xx ends the delivery, 410 as well; everything else is followed by another attempt."""
    attempt = attempted(DELIVERY, reply)
    assert attempt.outcome == outcome
    assert (attempt.next is not None) == (outcome == AttemptOutcome.RETRY)


@pytest.mark.parametrize(("asked", "pause"), [(None, 5000), (1000, 5000), (60_000, 60_000), (10**12, 36_000_000)])
def test_retry_after_prolongs_the_pause_within_limits(asked: int | None, pause: int) -> None:
    """A receiver can prolong the pause up to the longest of the schedule, but not shorten it."""
    assert attempted(DELIVERY, Reply(429, 1, retry_after=asked)).next_at == START + pause


def test_a_message_that_waits_comes_back_ever_later() -> None:
    """The delay for a slot doubles up to SQS's limit, is spread by the jitter, and does not count as an attempt."""
    delays, delivery = [], DELIVERY
    for _ in range(9):
        delivery, delay = wait(delivery, PAUSE, 0.5)
        delays.append(delay // 1000)
    assert delays == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert (wait(DELIVERY, PAUSE, 0.0)[1], wait(delivery, PAUSE, 1.0)[1]) == (2500, 900_000)
    assert (delivery.attempt, delivery.waits) == (1, 9)
    assert attempted(delivery, FAILURE).next.waits == 0
    assert wait(delivery._replace(waits=10**9), PAUSE, 0.5)[1] == 600_000


def test_a_message_is_read_as_written() -> None:
    """The body of a message has the whole delivery."""
    delivery = DELIVERY._replace(run=START, attempt=3, due_at=START + 1)
    assert read(delivery.text) == delivery


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 0},
        {"attempt": 9},
        {"attempt": "1"},
        {"attempt": True},
        {"clip": -1},
        {"due_at": 1.5},
        {"waits": -1},
        {"caller": "all"},
        {"caller": ["ann"]},
        {"task_uuid": "../x"},
        {"delivery_id": None},
        {"more": 1},
    ],
)
def test_other_messages_are_refused(change: dict[str, Any]) -> None:
    """A message that this service would not send is unreadable."""
    with pytest.raises(UnreadableError):
        read(json.dumps({**DELIVERY._asdict(), **change}))
    for text in ("", "[]", "{}", "[" * 100_000):
        with pytest.raises(UnreadableError):
            read(text)


@given(st.binary())
def test_a_signature_verifies_by_standard_webhooks(body: bytes) -> None:
    """The reference library accepts the signature of each valid secret, and of no other."""
    now = datetime.now(UTC).timestamp()
    old, new, other = (SigningSecret(new_secret(), made_at) for made_at in (1, 2, 3))
    headers = {
        "webhook-id": DELIVERY.delivery_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": sign([new, old], DELIVERY.delivery_id, int(now), body),
    }
    text = json.dumps(body.hex()).encode()
    headers["webhook-signature"] = sign([new, old], DELIVERY.delivery_id, int(now), text)
    for secret in (old, new):
        assert Webhook(secret.text).verify(text, headers) == body.hex()
    with pytest.raises(Exception, match="matching signature"):
        Webhook(other.text).verify(text, headers)


def test_a_rotated_secret_signs_until_its_end() -> None:
    """The newest secret is first; one whose time has ended signs nothing."""
    first = SigningSecret("a", 1, ends_at=START)
    second = SigningSecret("b", 2)
    assert valid_secrets([first, second], START - 1) == [second, first]
    assert valid_secrets([first, second], START) == [second]


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
        "hooks.example",
    ],
)
def test_private_and_reserved_addresses_are_refused(address: str) -> None:
    """Private, loopback, link-local, multicast, reserved, IPv4-mapped and translated addresses are never used."""
    assert not is_allowed_address(address, loopback=False)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    """A public unicast address is allowed."""
    assert is_allowed_address(address, loopback=False)


def test_loopback_is_allowed_where_it_is_set() -> None:
    """The local stack's setting adds loopback addresses and nothing else."""
    assert is_allowed_address("127.0.0.1", loopback=True)
    assert is_allowed_address("::1", loopback=True)
    assert not is_allowed_address("10.0.0.1", loopback=True)
    assert url_fault("http://localhost:8000/x", loopback=True) is None
    assert url_fault("http://hooks.example/x", loopback=True) == "must begin with https://"


def test_an_origin_has_no_token() -> None:
    """The part of a URL that is recorded has neither path nor query."""
    assert origin("https://hooks.example:8443/a?token=b") == "https://hooks.example:8443"

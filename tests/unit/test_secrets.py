"""Secrets: fetched late, kept for a while, renewed within bounds, and never shown."""

from contextlib import suppress
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from rushes.adapters.secrets import SecretsManagerSecret, runware_key, webhook_keys
from rushes.errors import MissingSecretError, SecretsError
from tests.fakes.telemetry import FakeClock


class Client:
    """Secrets Manager with one secret."""

    class exceptions:
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, text: str | None) -> None:
        self.answer: dict[str, str] = {} if text is None else {"SecretString": text}
        self.fetches = 0
        self.gone = False
        self.down: Exception | None = None

    def get_secret_value(self, SecretId: str) -> dict[str, str]:
        assert SecretId == "arn"
        self.fetches += 1
        if self.gone:
            raise self.exceptions.ResourceNotFoundException
        if self.down:
            raise self.down
        return self.answer


def secret(text: str | None, noted: list[str] | None = None) -> tuple[SecretsManagerSecret, Client, FakeClock]:
    client, clock = Client(text), FakeClock()
    return (
        SecretsManagerSecret(cast(Any, client), "arn", clock, (noted if noted is not None else []).append),
        client,
        clock,
    )


def test_a_secret_is_fetched_when_first_needed_and_kept() -> None:
    """Nothing is fetched before the first use, nor again within five minutes, and a change is seen after them."""
    kept, client, clock = secret("one\n")
    assert client.fetches == 0
    assert (kept.value(), kept.value()) == ("one", "one")
    clock.now += 300_000
    client.answer["SecretString"] = "two"
    assert (kept.value(), client.fetches) == ("one", 1)
    clock.now += 1
    assert (kept.value(), client.fetches) == ("two", 2)


def test_renewing_is_bounded_and_tells_of_a_change() -> None:
    """However many unknown signatures come, a secret is fetched at most once a minute."""
    kept, client, clock = secret("one")
    kept.value()
    client.answer["SecretString"] = "two"
    assert [kept.refresh() for _ in range(5)] == [False] * 5
    clock.now += 60_001
    assert [kept.refresh(), kept.refresh()] == [True, False]
    assert (client.fetches, kept.value()) == (2, "two")
    clock.now += 60_001
    assert kept.refresh() is False
    assert client.fetches == 3


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_secret_without_a_value_is_said_so(text: str | None) -> None:
    """A deployed service that nobody configured says exactly that, and looks again the next time."""
    kept, client, _ = secret(text)
    for _ in range(2):
        with pytest.raises(MissingSecretError):
            kept.value()
    client.answer["SecretString"] = "now"
    assert kept.value() == "now"


def test_a_secret_that_is_gone_is_missing() -> None:
    """A secret without any version is one without a value."""
    kept, client, _ = secret("x")
    client.gone = True
    with pytest.raises(MissingSecretError):
        kept.value()


@pytest.mark.parametrize("key", ["sk 1", "sk\n1", "schlüssel", "sk\x00"])
def test_a_key_that_is_no_header_is_refused_without_showing_it(key: str) -> None:
    """What could not be sent as a header is no key, and the message does not repeat it."""
    with pytest.raises(MissingSecretError) as raised:
        runware_key(secret(key)[0])
    assert key not in str(raised.value)


def test_the_runware_key_is_the_bare_text() -> None:
    """The key is used as it is, without the white space around it."""
    assert runware_key(secret(" sk-1\n")[0]) == "sk-1"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('{"current": "a", "previous": "b"}', ["a", "b"]),
        ('{"current": "a", "previous": ""}', ["a"]),
        ('{"current": "a"}', ["a"]),
        ('{"current": "a", "previous": null}', ["a"]),
    ],
)
def test_webhook_keys_are_newest_first(text: str, keys: list[str]) -> None:
    """The current key signs; a previous one, if any, still verifies."""
    assert webhook_keys(secret(text)[0]) == keys


@pytest.mark.parametrize(
    "text", ["a", "5", "[]", '"a"', "{}", '{"previous": "b"}', '{"current": ""}', '{"current": 5}', "null", "[1]"]
)
def test_a_webhook_secret_of_another_shape_is_missing(text: str) -> None:
    """A secret that holds no key never means that no key is needed."""
    with pytest.raises(MissingSecretError):
        webhook_keys(secret(text)[0])


def test_renewing_is_bounded_even_while_it_fails() -> None:
    """Forged calls do not hammer a secret that cannot be had just now."""
    kept, client, clock = secret("one")
    kept.value()
    clock.now += 60_001
    client.gone = True
    for _ in range(5):
        assert kept.refresh() is False
    assert client.fetches == 2


DOWN = [
    ClientError({"Error": {"Code": "ServiceUnavailable"}}, "GetSecretValue"),
    EndpointConnectionError(endpoint_url=""),
]


@pytest.mark.parametrize("down", DOWN, ids=lambda down: type(down).__name__)
def test_the_last_value_is_used_for_an_hour(down: Exception) -> None:
    """While Secrets Manager is down buying goes on, each try is noted, and an hour later it ends."""
    noted: list[str] = []
    kept, client, clock = secret("one", noted)
    assert kept.value() == "one"
    began, client.down = clock.now, down
    while clock.now - began < 3_600_000:
        assert kept.value() == "one"
        clock.now += 1_000
    assert kept.value() == "one"
    assert 50 < len(noted) == client.fetches - 1 < 60
    assert set(noted) <= {"ServiceUnavailable", "EndpointConnectionError"}
    clock.now += 1
    with pytest.raises(SecretsError):
        kept.value()
    client.down, client.answer["SecretString"] = None, "two"
    clock.now += 60_000
    assert kept.value() == "two"


@pytest.mark.parametrize("text", ["one", None])
@pytest.mark.parametrize("age", [0, 300_001, 3_600_001])
def test_forged_calls_fetch_no_more_while_it_is_down(text: str | None, age: int) -> None:
    """Six thousand calls in a minute, each with a look at the value and one for a new key, are a few fetches."""
    kept, client, clock = secret(text)
    with suppress(MissingSecretError):
        kept.value()
    clock.now += age
    client.down = DOWN[0]
    before = client.fetches
    for _ in range(6_000):
        clock.now += 10
        with suppress(MissingSecretError, SecretsError):
            kept.value()
        kept.refresh()
    assert client.fetches - before <= 12


def test_a_value_that_was_taken_away_is_not_used_on() -> None:
    """A secret that answers that it is empty is not down."""
    kept, client, clock = secret("one")
    kept.value()
    clock.now += 300_001
    client.answer["SecretString"] = ""
    with pytest.raises(MissingSecretError):
        kept.value()


def test_a_corrected_key_is_seen_within_a_minute() -> None:
    """A key that could not be used is not believed for as long as a good one."""
    kept, client, clock = secret("a key with blanks")
    with pytest.raises(MissingSecretError):
        runware_key(kept)
    client.answer["SecretString"] = "good"
    clock.now += 60_001
    assert runware_key(kept) == "good"

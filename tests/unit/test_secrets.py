"""Secrets: fetched at the first use, cached, refreshed within bounds, and never shown."""

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


def secret(text: str | None, logged: list[str] | None = None) -> tuple[SecretsManagerSecret, Client, FakeClock]:
    client, clock = Client(text), FakeClock()
    return (
        SecretsManagerSecret(cast(Any, client), "arn", clock, (logged if logged is not None else []).append),
        client,
        clock,
    )


def test_a_secret_is_fetched_at_the_first_use_and_cached() -> None:
    """Nothing is fetched before the first use, nor again within five minutes; a change is visible after them."""
    cached, client, clock = secret("one\n")
    assert client.fetches == 0
    assert (cached.value(), cached.value()) == ("one", "one")
    clock.now += 300_000
    client.answer["SecretString"] = "two"
    assert (cached.value(), client.fetches) == ("one", 1)
    clock.now += 1
    assert (cached.value(), client.fetches) == ("two", 2)


def test_refreshing_is_bounded_and_returns_true_for_a_change() -> None:
    """A secret is fetched at most once a minute, however many unknown signatures come."""
    cached, client, clock = secret("one")
    cached.value()
    client.answer["SecretString"] = "two"
    assert [cached.refresh() for _ in range(5)] == [False] * 5
    clock.now += 60_001
    assert [cached.refresh(), cached.refresh()] == [True, False]
    assert (client.fetches, cached.value()) == (2, "two")
    clock.now += 60_001
    assert cached.refresh() is False
    assert client.fetches == 3


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_secret_without_a_value_has_its_own_error(text: str | None) -> None:
    """Without a value the error is explicit, and the secret is fetched again at the next use."""
    cached, client, _ = secret(text)
    for _ in range(2):
        with pytest.raises(MissingSecretError):
            cached.value()
    client.answer["SecretString"] = "now"
    assert cached.value() == "now"


def test_a_secret_without_a_version_is_missing() -> None:
    """A secret without any version has no value."""
    cached, client, _ = secret("x")
    client.gone = True
    with pytest.raises(MissingSecretError):
        cached.value()


@pytest.mark.parametrize("key", ["sk 1", "sk\n1", "schlüssel", "sk\x00"])
def test_a_key_that_fits_no_header_is_refused_without_showing_it(key: str) -> None:
    """A text that cannot be sent as a header is no key, and the message does not repeat it."""
    with pytest.raises(MissingSecretError) as raised:
        runware_key(secret(key)[0])
    assert key not in str(raised.value)


def test_the_runware_key_is_the_bare_text() -> None:
    """The key is the text without surrounding white space."""
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
    """A secret without a key never means that no key is needed."""
    with pytest.raises(MissingSecretError):
        webhook_keys(secret(text)[0])


def test_refreshing_is_bounded_even_while_it_fails() -> None:
    """Forged webhooks cause few fetches of a secret that is unavailable."""
    cached, client, clock = secret("one")
    cached.value()
    clock.now += 60_001
    client.gone = True
    for _ in range(5):
        assert cached.refresh() is False
    assert client.fetches == 2


DOWN = [
    ClientError({"Error": {"Code": "ServiceUnavailable"}}, "GetSecretValue"),
    EndpointConnectionError(endpoint_url=""),
]


@pytest.mark.parametrize("down", DOWN, ids=lambda down: type(down).__name__)
def test_the_last_value_is_used_for_an_hour(down: Exception) -> None:
    """While Secrets Manager is unavailable the last value is used for an hour, and each failure is logged."""
    logged: list[str] = []
    cached, client, clock = secret("one", logged)
    assert cached.value() == "one"
    began, client.down = clock.now, down
    while clock.now - began < 3_600_000:
        assert cached.value() == "one"
        clock.now += 1_000
    assert cached.value() == "one"
    assert 50 < len(logged) == client.fetches - 1 < 60
    assert set(logged) <= {"ServiceUnavailable", "EndpointConnectionError"}
    clock.now += 1
    with pytest.raises(SecretsError):
        cached.value()
    client.down, client.answer["SecretString"] = None, "two"
    clock.now += 60_000
    assert cached.value() == "two"


@pytest.mark.parametrize("text", ["one", None])
@pytest.mark.parametrize("age", [0, 300_001, 3_600_001])
def test_forged_webhooks_cause_few_fetches_while_it_is_down(text: str | None, age: int) -> None:
    """Six thousand calls in a minute, each with a read and a refresh, cause a few fetches."""
    cached, client, clock = secret(text)
    with suppress(MissingSecretError):
        cached.value()
    clock.now += age
    client.down = DOWN[0]
    before = client.fetches
    for _ in range(6_000):
        clock.now += 10
        with suppress(MissingSecretError, SecretsError):
            cached.value()
        cached.refresh()
    assert client.fetches - before <= 12


def test_a_removed_value_is_not_used_any_longer() -> None:
    """An empty secret is an answer, not an outage."""
    cached, client, clock = secret("one")
    cached.value()
    clock.now += 300_001
    client.answer["SecretString"] = ""
    with pytest.raises(MissingSecretError):
        cached.value()


def test_a_corrected_key_is_used_within_a_minute() -> None:
    """An invalid key is cached for a shorter time than a valid one."""
    cached, client, clock = secret("a key with blanks")
    with pytest.raises(MissingSecretError):
        runware_key(cached)
    client.answer["SecretString"] = "good"
    clock.now += 60_001
    assert runware_key(cached) == "good"

"""API keys to callers, with one read per key and minute."""

import pytest

from rushes.domain.caller import Caller, hash_key, is_name, new_key
from rushes.services.authentication import Callers
from tests.fakes.telemetry import FakeClock

KEY = "rushes_abc"
ANN = Caller("ann", 5)


class Keys:
    """Counts its reads."""

    def __init__(self) -> None:
        self.by_hash = {hash_key(KEY): ANN}
        self.by_name = {"ann": ANN}
        self.reads = 0

    def caller(self, key_hash: str) -> Caller | None:
        self.reads += 1
        return self.by_hash.get(key_hash)

    def caller_named(self, name: str) -> Caller | None:
        self.reads += 1
        return self.by_name.get(name)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def callers(keys: Keys, clock: FakeClock) -> Callers:
    return Callers(keys, clock, default_limit=7)


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}"])
def test_a_key_identifies_its_caller(callers: Callers, header: str) -> None:
    """The case of the scheme does not matter."""
    assert callers.of(header) == ANN


@pytest.mark.parametrize(
    "header",
    [None, "", KEY, "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer  {KEY}", "Bearer abc", "Bearer rushes_" + "a" * 100],
)
def test_a_malformed_key_is_not_looked_up(callers: Callers, keys: Keys, header: str | None) -> None:
    """Malformed headers cost no read."""
    assert callers.of(header) is None
    assert keys.reads == 0


@pytest.mark.parametrize(("key", "found"), [(KEY, ANN), ("rushes_unknown", None)])
def test_a_lookup_is_cached_for_a_minute(
    callers: Callers, keys: Keys, clock: FakeClock, key: str, found: Caller | None
) -> None:
    """An existing and a missing key are each read once a minute."""
    for elapsed, reads in ((0, 1), (60_000, 1), (1, 2)):
        clock.now += elapsed
        assert callers.of(f"Bearer {key}") == found
        assert keys.reads == reads


def test_a_revoked_key_stops_within_a_minute(callers: Callers, keys: Keys, clock: FakeClock) -> None:
    """A cached key expires after a minute."""
    assert callers.of(f"Bearer {KEY}") == ANN
    keys.by_hash.clear()
    assert callers.of(f"Bearer {KEY}") == ANN
    clock.now += 60_001
    assert callers.of(f"Bearer {KEY}") is None


def test_the_cache_is_bounded(callers: Callers, keys: Keys) -> None:
    """A flood of invented keys evicts the oldest entries."""
    for number in range(1001):
        callers.of(f"Bearer rushes_{number}")
    assert keys.reads == 1001
    callers.of("Bearer rushes_1000")
    assert keys.reads == 1001
    callers.of("Bearer rushes_0")
    assert keys.reads == 1002


def test_keys_are_long_random_and_stored_as_a_hash() -> None:
    """A new key is unique and fits into a header, and its hash does not contain it."""
    one, other = new_key(), new_key()
    assert one != other
    assert len(one) >= 50
    assert one.isascii()
    assert one not in hash_key(one)
    assert len(hash_key(one)) == 64


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("ann", True),
        ("a", True),
        ("film-2", True),
        ("0a", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("all", False),
        ("Ann", False),
        ("-a", False),
        ("a/b", False),
        ("a#b", False),
        ("a.b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_a_callers_name_fits_into_keys_and_paths(name: str, good: bool) -> None:
    """Names are safe in object keys and callback paths, and none is the scope of all callers."""
    assert is_name(name) is good


def test_an_unknown_name_has_the_default_limit(callers: Callers, keys: Keys, clock: FakeClock) -> None:
    """Orders without a key find their caller by name, with one read a minute."""
    for elapsed, reads in ((0, 2), (60_000, 2), (1, 4)):
        clock.now += elapsed
        assert callers.by_name("ann") == ANN
        assert callers.by_name("nobody") == Caller("nobody", 7)
        assert keys.reads == reads


def test_a_missing_secret_for_webhooks_is_never_a_cached_one(callers: Callers, keys: Keys) -> None:
    """An order by name is refused for good, so a secret that was created within the minute counts."""
    assert callers.by_name("ann") == ANN
    keys.by_name["ann"] = signing = ANN._replace(signs_webhooks=True)
    assert callers.by_name("ann") == ANN
    assert callers.by_name("ann", signing=True) == signing
    reads = keys.reads
    assert callers.by_name("ann", signing=True) == signing
    assert keys.reads == reads


def test_a_name_is_not_mistaken_for_a_keys_hash(callers: Callers, keys: Keys) -> None:
    """A caller whose name is the hash of another caller's key is still its own caller."""
    assert callers.of(f"Bearer {KEY}") == ANN
    assert callers.by_name(hash_key(KEY)) == Caller(hash_key(KEY), 7)


def test_an_unknown_name_is_refused_without_a_default(keys: Keys, clock: FakeClock) -> None:
    """Such a caller may not order; once an operator has made it, it may at once."""
    callers = Callers(keys, clock)
    assert callers.by_name("bob") is None
    keys.by_name["bob"] = Caller("bob", 3)
    assert callers.by_name("bob") == Caller("bob", 3)


def test_a_disabled_caller_is_refused_by_key_and_by_name(callers: Callers, keys: Keys, clock: FakeClock) -> None:
    """A disabled caller is refused within a minute, whether or not unknown callers may order."""
    assert callers.of(f"Bearer {KEY}") == callers.by_name("ann") == ANN
    keys.by_name["ann"] = keys.by_hash[hash_key(KEY)] = Caller("ann", 5, disabled=True)
    clock.now += 60_001
    assert callers.of(f"Bearer {KEY}") is callers.by_name("ann") is None
    keys.by_name["ann"] = ANN
    assert callers.by_name("ann") == ANN

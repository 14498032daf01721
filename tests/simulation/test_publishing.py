"""Nothing that became of a clip goes untold, wherever `publish` is stopped; and the simulation would notice."""

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import combinations, islice
from typing import Any

import pytest

from rushes.domain.clip import Clip, Kind
from rushes.errors import BusError
from rushes.services import publish
from tests.fakes.simulated import Switches
from tests.simulation.enumeration import ADVERSE, ONE_AT_A_TIME, SKEWS, TELLING
from tests.simulation.history import History, Setting, live
from tests.simulation.publishing import Telling, verdict
from tests.simulation.world import Schedule

Patch = pytest.MonkeyPatch


# Two uploads of one clip, found by functions whose clocks differ: the copy that was learned of first may change.
PINNED_ANEW = [Setting(switches=Switches(upload="twice"), skews=skews) for skews in SKEWS]


@cache
def histories() -> tuple[History, ...]:
    """Lived under every manner of Runware, for the fates of a submission that differ most; each kind of stream once."""
    settings = [
        Setting(clips=2),
        Setting(clips=2, fates=("no", "well")),
        Setting(when_ambiguous="review", fates=("lost",)),
        *PINNED_ANEW,
        *(Setting(switches=switches, fates=(fate,)) for switches in (*ONE_AT_A_TIME, *ADVERSE) for fate in TELLING),
    ]
    return tuple({kind_of_stream(lived): lived for lived in map(live, reversed(settings))}.values())


def kind_of_stream(lived: History) -> str:
    """What its changes are, without times and names."""
    return str([(new.index, sorted(str(kind) for kind, _ in new.facts)) for _, new in lived.table.changes])


def tellings() -> Iterator[Telling]:
    """Every kind of stream, undisturbed and with every single stop and failure; with pairs of them for two clips."""
    for lived in reversed(histories()):  # the richest first
        yield Telling(lived)
        for number in range(1, Telling(lived).go_on().world.effects + 1):
            yield Telling(lived, Schedule(before=frozenset({number})))
            yield Telling(lived, Schedule(after=frozenset({number})))
            yield Telling(lived, trouble={number: "before"})
            yield Telling(lived, trouble={number: "after"})
    for lived in histories()[-1:]:
        for first, second in combinations(range(1, Telling(lived).go_on().world.effects + 7), 2):
            yield Telling(lived, Schedule(after=frozenset({first, second})))
            yield Telling(lived, Schedule(after=frozenset({first})), trouble={second: "after"})
            yield Telling(lived, Schedule(before=frozenset({second})), trouble={first: "before"})


def first_broken() -> list[str]:
    return next((faults for telling in tellings() if (faults := verdict(telling.go_on()))), [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.batch)])
def test_every_stop_of_publish_ends_with_everything_told(every: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each end of a clip reaches who listens, repeats under the same id, and each stored one has its manifest first."""
    explored, told, kinds = 0, 0, set()
    for telling in islice(tellings(), 0, None, every):
        assert verdict(telling.go_on()) == []
        explored, told = explored + 1, told + len(telling.told)
        kinds |= {name for name, _ in telling.told}
    with capsys.disabled():
        print(f"\nstreams told: {explored}, events: {told}")
    assert explored >= 3000 / every
    assert kinds == {"Clip Stored", "Clip Failed", "Clip Needs Review"}


def event_before_manifest(patch: Patch) -> None:
    """Whoever listens is told, and then the manifest is written."""
    original = publish.PublishService._put_manifest
    owed: list[Callable[[], Any]] = []

    def promise(self: Any, clip: Clip, request: Any) -> str | None:
        owed.append(lambda: original(self, clip, request))
        return publish.manifest_key(clip) if clip.copy else None

    changed = publish.PublishService.publish_change

    def tell_first(self: Any, before: Clip | None, after: Clip) -> None:
        owed.clear()
        changed(self, before, after)
        for lay in owed:
            lay()

    patch.setattr(publish.PublishService, "_put_manifest", promise)
    patch.setattr(publish.PublishService, "publish_change", tell_first)


def success_before_the_event(patch: Patch) -> None:
    """What the bus did not take is called done."""
    original = publish.PublishService.publish_change

    def changed(self: Any, before: Clip | None, after: Clip) -> None:
        with suppress(BusError):
            original(self, before, after)

    patch.setattr(publish.PublishService, "publish_change", changed)


def no_manifest_after_the_first(patch: Patch) -> None:
    """What becomes known of a stored clip is not written any more."""
    original = publish.PublishService.publish_change

    def changed(self: Any, before: Clip | None, after: Clip) -> None:
        if publish.event_of(after) != publish.event_of(before):
            original(self, before, after)

    patch.setattr(publish.PublishService, "publish_change", changed)


def manifests_are_turned_back(patch: Patch) -> None:
    """A repeat of something older writes over what is newer."""
    read = publish._read
    patch.setattr(publish, "_read", lambda content: {**read(content), "revision": 0} if read(content) else {})


def another_id_for_a_repeat(patch: Patch) -> None:
    """Nobody can tell a repeat from something new."""
    patch.setattr(publish, "event_id", lambda *_: str(uuid.UUID(int=random.getrandbits(128))))


def failures_are_told_in_doubt(patch: Patch) -> None:
    """A failure is told before the last look at it, which may find that it was none."""
    original = publish.event_of

    def event_of(clip: Clip | None) -> Any:
        doubted = clip is not None and clip.decisive == Kind.FAILED
        return publish.ClipEvent(publish.EventType.FAILED, "failed") if doubted else original(clip)

    patch.setattr(publish, "event_of", event_of)


def any_copy_is_the_same(patch: Patch) -> None:
    """What is known of one version of the object is believed of another."""
    read = publish._read
    current: list[str] = []
    original = publish.PublishService._put_manifest

    def lay(self: Any, clip: Clip, request: Any) -> str | None:
        current[:] = [clip.copy[0]] if clip.copy else []
        return original(self, clip, request)

    patch.setattr(publish.PublishService, "_put_manifest", lay)
    patch.setattr(publish, "_read", lambda content: {**read(content), "versionId": current[0]} if read(content) else {})


@pytest.mark.parametrize(
    "mutant",
    [
        any_copy_is_the_same,
        event_before_manifest,
        success_before_the_event,
        no_manifest_after_the_first,
        manifests_are_turned_back,
        another_id_for_a_repeat,
        failures_are_told_in_doubt,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_each_planted_fault_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A fault in the way of telling breaks a promise under at least one schedule."""
    mutant(monkeypatch)
    assert first_broken(), f"{mutant.__doc__} Nobody noticed."

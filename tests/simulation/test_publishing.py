"""Each final status of a clip is published wherever `publish` is stopped, and planted faults are detected."""

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import combinations, islice
from types import SimpleNamespace
from typing import Any

import pytest

from rushes.domain.clip import Clip, Kind, Status
from rushes.errors import BusError
from rushes.services import publish
from tests.fakes.simulated import Switches
from tests.simulation.enumeration import (
    ADVERSE,
    CHAIN_SWITCHES,
    CHAINS,
    KEY_FATES,
    LATE_SUCCESS,
    ONE_AT_A_TIME,
    SKEWS,
)
from tests.simulation.history import History, Setting, run_history
from tests.simulation.publishing import StreamReplay, verdict
from tests.simulation.world import Schedule

Patch = pytest.MonkeyPatch


# Two uploads of one clip, found by functions with different clocks: the pinned copy may change.
REPINNED = [Setting(switches=Switches(upload="twice"), skews=skews) for skews in SKEWS]


@cache
def histories() -> tuple[History, ...]:
    """Histories under every behaviour of Runware and the contrasting outcomes, one for each kind of stream."""
    settings = [
        Setting(clips=2),
        Setting(clips=2, fates=("no", "well")),
        Setting(when_ambiguous="review", fates=("lost",)),
        *REPINNED,
        *(Setting(switches=switches, fates=("no",), fallback=CHAINS[0]) for switches in CHAIN_SWITCHES[:3]),
        *(Setting(switches=switches, fallback=CHAINS[1]) for switches in (*CHAIN_SWITCHES[1:3], LATE_SUCCESS)),
        *(Setting(switches=switches, fates=(fate,)) for switches in (*ONE_AT_A_TIME, *ADVERSE) for fate in KEY_FATES),
    ]
    return tuple({kind_of_stream(history): history for history in map(run_history, reversed(settings))}.values())


def kind_of_stream(history: History) -> str:
    """The facts of a stream's changes, without times and keys."""
    return str([(new.index, sorted(str(kind) for kind, _ in new.facts)) for _, new in history.table.changes])


def replays() -> Iterator[StreamReplay]:
    """Every kind of stream, undisturbed and with every single stop and failure; for two clips also with pairs."""
    for history in reversed(histories()):  # the richest first
        yield StreamReplay(history)
        for number in range(1, StreamReplay(history).run().world.effects + 1):
            yield StreamReplay(history, Schedule(before=frozenset({number})))
            yield StreamReplay(history, Schedule(after=frozenset({number})))
            yield StreamReplay(history, failures={number: "before"})
            yield StreamReplay(history, failures={number: "after"})
    for history in histories()[-1:]:
        for first, second in combinations(range(1, StreamReplay(history).run().world.effects + 7), 2):
            yield StreamReplay(history, Schedule(after=frozenset({first, second})))
            yield StreamReplay(history, Schedule(after=frozenset({first})), failures={second: "after"})
            yield StreamReplay(history, Schedule(before=frozenset({second})), failures={first: "before"})


def first_broken() -> list[str]:
    return next((faults for replay in replays() if (faults := verdict(replay.run()))), [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.batch)])
def test_every_stop_of_publish_ends_with_every_event_published(every: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each end of a clip is published, repeats have the same id, and a manifest is written before its event."""
    explored, published, kinds = 0, 0, set()
    for replay in islice(replays(), 0, None, every):
        assert verdict(replay.run()) == []
        explored, published = explored + 1, published + len(replay.published)
        kinds |= {name for name, _ in replay.published}
    with capsys.disabled():
        print(f"\nstreams replayed: {explored}, events: {published}")
    assert explored >= 3000 / every
    assert kinds == {"Clip Stored", "Clip Failed", "Clip Needs Review"}


def event_before_manifest(patch: Patch) -> None:
    """The event is published before the manifest is written."""
    publish_change = publish.PublishService.publish_change

    def publish_first(self: Any, before: Clip | None, after: Clip) -> None:
        store, delayed = self.manifests, list[tuple[str, bytes]]()
        self.manifests = SimpleNamespace(
            manifest=store.manifest,
            has=store.has,
            digest=store.digest,
            put_manifest=lambda *manifest: delayed.append(manifest),
        )
        try:
            publish_change(self, before, after)
        finally:
            self.manifests = store
        for manifest in delayed:
            store.put_manifest(*manifest)

    patch.setattr(publish.PublishService, "publish_change", publish_first)


def success_before_the_event(patch: Patch) -> None:
    """A change that the bus did not accept counts as done."""
    original = publish.PublishService.publish_change

    def publish_change(self: Any, before: Clip | None, after: Clip) -> None:
        with suppress(BusError):
            original(self, before, after)

    patch.setattr(publish.PublishService, "publish_change", publish_change)


def no_manifest_after_the_first(patch: Patch) -> None:
    """Later facts of a stored clip are not written to its manifest."""
    original = publish.PublishService.publish_change

    def publish_change(self: Any, before: Clip | None, after: Clip) -> None:
        if publish.event_of(after) != publish.event_of(before):
            original(self, before, after)

    patch.setattr(publish.PublishService, "publish_change", publish_change)


def manifests_go_back(patch: Patch) -> None:
    """A repeat of an older change overwrites a newer manifest."""
    read = publish._read
    patch.setattr(publish, "_read", lambda content: {**read(content), "revision": 0} if read(content) else {})


def another_id_for_a_repeat(patch: Patch) -> None:
    """A repeat has another event id than the first delivery."""
    patch.setattr(publish, "event_id", lambda *_: str(uuid.UUID(int=random.getrandbits(128))))


def open_failures_are_published(patch: Patch) -> None:
    """A failure is published before the last look, which may find a success."""
    original = publish.event_of

    def event_of(clip: Clip | None) -> Any:
        doubted = clip is not None and clip.decisive == Kind.FAILED
        return publish.ClipEvent(publish.EventType.FAILED, "failed") if doubted else original(clip)

    patch.setattr(publish, "event_of", event_of)


def any_copy_is_the_same(patch: Patch) -> None:
    """The digest of one object version is used for another."""
    read = publish._read
    current: list[str] = []
    original = publish.PublishService._due_manifest

    def due_manifest(self: Any, clip: Clip) -> tuple[str, str]:
        current[:] = [clip.copy[0]] if clip.copy else []
        return original(self, clip)

    patch.setattr(publish.PublishService, "_due_manifest", due_manifest)
    patch.setattr(publish, "_read", lambda content: {**read(content), "versionId": current[0]} if read(content) else {})


def superseded_failures_are_published(patch: Patch) -> None:
    """The end of a clip is published although the next model's clip follows."""
    original = publish.event_of

    def event_of(clip: Clip | None) -> Any:
        if clip is None or not clip.is_superseded or clip.status != Status.FAILED:
            return original(clip)
        return publish.ClipEvent(publish.EventType.FAILED, str(clip.decisive))

    patch.setattr(publish, "event_of", event_of)


@pytest.mark.parametrize(
    "mutant",
    [
        any_copy_is_the_same,
        event_before_manifest,
        success_before_the_event,
        no_manifest_after_the_first,
        manifests_go_back,
        another_id_for_a_repeat,
        open_failures_are_published,
        superseded_failures_are_published,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_each_planted_fault_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A fault in `publish` breaks a promise under at least one schedule."""
    mutant(monkeypatch)
    assert first_broken(), f"{mutant.__doc__} Not detected."

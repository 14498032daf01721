"""`publish` on the stream of a finished history, stopped before and after each of its effects.

`publish` changes nothing that the rest of the service reads. So a history runs once, and its stream is replayed under
every schedule. The replay delivers as Lambda does: batch by batch, again from the first change that failed, the
whole batch if the function was stopped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rushes.domain.clip import Clip, Kind, Status
from rushes.domain.delivery import Delivery
from rushes.errors import BucketError, BusError, QueueError, RushesError
from rushes.services.publish import PublishService, delivery_id_of
from tests.fakes.telemetry import FakeTelemetry
from tests.simulation.history import History
from tests.simulation.world import FailurePoint, Schedule, Stopped, World

T = TypeVar("T")

MAX_DELIVERIES = 40


@dataclass(slots=True)
class StreamReplay:
    """A history's stream, with the bus and the bucket that `publish` writes to.

    `failures` are effects that fail, by number: before they take place, or after, when only the answer is lost.
    """

    history: History
    schedule: Schedule = field(default_factory=Schedule)
    failures: Mapping[int, FailurePoint] = field(default_factory=dict)
    batch: int = 4  # so that some changes of a clip share a batch and others do not
    world: World = field(init=False)
    manifests: dict[str, bytes] = field(default_factory=dict)
    published: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)  # the ids of deliveries
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(self.schedule)

    def run(self) -> "StreamReplay":
        """Delivers the whole stream, until every change is published."""
        changes = list(self.history.table.changes)
        use_case = PublishService(
            tasks=self, manifests=self, bus=self, deliveries=self, telemetry=FakeTelemetry(), bucket="clips"
        )
        for start in range(0, len(changes), self.batch):
            batch = changes[start : start + self.batch]
            for _ in range(MAX_DELIVERIES):
                batch = self._deliver(use_case, batch)
                if not batch:
                    break
            else:
                self.violations.append("lost: a change was not published in forty deliveries")
        return self

    def _deliver(self, use_case: PublishService, batch: list[tuple[Clip, Clip]]) -> list[tuple[Clip, Clip]]:
        """One invocation; returns the changes to deliver again. Those after a failed change are tried, too."""
        failed: list[int] = []
        try:
            for number, (before, after) in enumerate(batch):
                try:
                    use_case.publish_change(before, after)
                except RushesError:
                    failed.append(number)
        except Stopped:
            return batch
        return batch[failed[0] :] if failed else []

    def _effect(self, name: str, act: Callable[[], T], error: type[RushesError]) -> T:
        return self.world.failing_effect(name, act, self.failures, error)

    def task(self, caller: str, task_uuid: str) -> Any:
        """The task, with a receiver."""
        found = self._effect("task", lambda: self.history.table.tasks.get((caller, task_uuid)), BucketError)
        return found and found._replace(webhook_url="https://hooks.example/")

    def clip(self, caller: str, task_uuid: str, index: int) -> Any:
        return self._effect("clip", lambda: self.history.table.rows.get((caller, task_uuid, index)), BucketError)

    def send(self, delivery: Delivery, delay: int = 0) -> None:
        self._effect("send", lambda: self.queued.add(delivery.delivery_id), QueueError)

    def manifest(self, key: str) -> bytes | None:
        return self._effect("manifest", lambda: self.manifests.get(key), BucketError)

    def put_manifest(self, key: str, content: bytes) -> None:
        self._effect("put manifest", lambda: self._write_manifest(key, content), BucketError)

    def has(self, object_key: str, version: str) -> bool:
        return self._effect("has", lambda: self.copy(object_key, version) is not None, BucketError)

    def digest(self, object_key: str, version: str) -> str | None:
        def sha256() -> str | None:
            content = self.copy(object_key, version)
            return None if content is None else hashlib.sha256(content).hexdigest()

        return self._effect("digest", sha256, BucketError)

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None:
        self._effect("publish", lambda: self._receive(detail_type, dict(detail)), BusError)

    def copy(self, object_key: str, version: str) -> bytes | None:
        """The content of an object version in the history's bucket, or None."""
        versions = self.history.bucket.objects.get(object_key, [])
        return versions[int(version) - 1] if int(version) <= len(versions) else None

    def _write_manifest(self, key: str, content: bytes) -> None:
        old, new = (json.loads(text)["revision"] for text in (self.manifests.get(key, content), content))
        if new < old:
            self.violations.append(f"a manifest went back from revision {old} to {new}")
        self.manifests[key] = content

    def _receive(self, detail_type: str, detail: dict[str, Any]) -> None:
        if detail["status"] == "stored":
            manifest = json.loads(self.manifests.get(detail.get("manifestKey", ""), b"{}"))
            is_newer = manifest.get("revision", 0) > detail["revision"]
            if manifest.get("versionId") != detail["versionId"] and not is_newer:
                self.violations.append("published before its manifest existed")
        self.published.append((detail_type, detail))


def verdict(replay: StreamReplay) -> list[str]:
    """Every broken promise as a sentence; empty if all were kept."""
    broken = list(replay.violations)
    for clip in replay.history.table.rows.values():
        broken += [f"clip {clip.index}: {fault}" for fault in _faults(clip, replay)]
    certain = {delivery_id for _, new in replay.history.table.changes if (delivery_id := delivery_id_of(new))}
    if replay.queued != certain:
        broken.append(f"deliveries of {len(replay.queued)} outcomes were queued, and {len(certain)} are certain")
    ids: dict[str, dict[str, Any]] = {}
    for _, detail in replay.published:
        if ids.setdefault(detail["id"], detail) != detail:
            broken.append("two different events have one id")
    return broken


def _faults(clip: Clip, replay: StreamReplay) -> Iterator[str]:
    """The published events match the record: all of them, the last with the final status, once but for repeats."""
    events = [(name, detail) for name, detail in replay.published if detail["clipUUID"] == clip.clip_uuid]
    states = [_expected_event(new) for _, new in replay.history.table.changes if new.clip_uuid == clip.clip_uuid]
    expected = {state for state in states if state}
    ids = {detail["id"]: (name, detail.get("reason") or detail.get("versionId")) for name, detail in events}
    if Counter(ids.values()) != Counter(expected):
        yield f"published {sorted(map(str, ids.values()))}, and the record has {sorted(map(str, expected))}"
    if events and max(events, key=lambda event: event[1]["revision"])[0] != (_expected_event(clip) or ("nothing",))[0]:
        yield f"is {clip.status}, and the last event is another one"
    if clip.status == Status.STORED:
        yield from _manifest_faults(clip, replay)


def _expected_event(clip: Clip) -> tuple[str, str | None] | None:
    """The event for a clip's state, and its copy or reason; None while the clip is under way."""
    if clip.is_superseded:
        return ("Clip Needs Review", "superseded") if clip.status == Status.REVIEW else None
    match clip.status:
        case Status.STORED:
            return "Clip Stored", clip.copy[0] if clip.copy else None
        case Status.FAILED if not clip.open:
            return "Clip Failed", None
        case Status.REVIEW:
            return "Clip Needs Review", "unproven" if clip.decisive == Kind.UNPROVEN else "unsaved"
    return None


def _manifest_faults(clip: Clip, replay: StreamReplay) -> Iterator[str]:
    assert clip.copy is not None
    version, _ = clip.copy
    manifest = replay.manifests.get(clip.object_key.rpartition(".")[0] + ".json")
    if manifest is None:
        yield "stored without a manifest"
        return
    content, copy = json.loads(manifest), replay.copy(clip.object_key, version)
    assert copy is not None
    if (content["revision"], content["versionId"]) != (clip.version, version):
        yield f"its manifest is of revision {content['revision']}, not {clip.version}"
    if content["sha256"] != hashlib.sha256(copy).hexdigest():
        yield "its manifest has the wrong digest"

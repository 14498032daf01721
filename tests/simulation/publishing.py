"""`publish` on the stream of a history that has been lived, stopped before and after each of its effects.

What it does touches nothing that the rest of the service reads, so a history is lived once, and its stream told again
under every schedule. The stream is passed on as Lambda does it: batch by batch, again and again from the first change
that failed, the whole batch if the function was stopped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rushes.domain.clip import Clip, Kind, Status
from rushes.errors import BucketError, BusError, RushesError
from rushes.services.publish import PublishService
from tests.fakes.telemetry import FakeTelemetry
from tests.simulation.history import History
from tests.simulation.world import Schedule, Stopped, World

T = TypeVar("T")
Trouble = Literal["before", "after"]

MAX_DELIVERIES = 40


@dataclass(slots=True)
class Telling:
    """A lived history's stream, and who hears of it.

    `trouble` makes an effect fail, by its number: before it has taken place, or after, when only the answer is lost.
    """

    lived: History
    schedule: Schedule = field(default_factory=Schedule)
    trouble: Mapping[int, Trouble] = field(default_factory=dict)
    batch: int = 4  # some of a clip's changes come together, and some apart
    world: World = field(init=False)
    manifests: dict[str, bytes] = field(default_factory=dict)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    improper: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(self.schedule)

    def go_on(self) -> "Telling":
        """Passes the whole stream on, until every change of it has been told."""
        changes = list(self.lived.table.changes)
        use_case = PublishService(tasks=self, manifests=self, bus=self, telemetry=FakeTelemetry(), bucket="clips")
        for start in range(0, len(changes), self.batch):
            batch = changes[start : start + self.batch]
            for _ in range(MAX_DELIVERIES):
                batch = self._deliver(use_case, batch)
                if not batch:
                    break
            else:
                self.improper.append("lost: a change could not be told in forty deliveries")
        return self

    def _deliver(self, use_case: PublishService, batch: list[tuple[Clip, Clip]]) -> list[tuple[Clip, Clip]]:
        """One invocation; returns what has to come again. A change that fails does not stop those after it."""
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
        trouble = self.trouble.get(self.world.effects + 1)

        def troubled() -> T:
            if trouble == "before":
                raise error("made to fail")
            result = act()
            if trouble == "after":
                raise error("the answer was lost")
            return result

        return self.world.effect(name, troubled)

    def task(self, caller: str, task_uuid: str) -> Any:
        return self._effect("task", lambda: self.lived.table.tasks.get((caller, task_uuid)), BucketError)

    def manifest(self, key: str) -> bytes | None:
        return self._effect("manifest", lambda: self.manifests.get(key), BucketError)

    def put_manifest(self, key: str, content: bytes) -> None:
        self._effect("keep manifest", lambda: self._keep(key, content), BucketError)

    def has(self, object_key: str, version: str) -> bool:
        return self._effect("has", lambda: self.copy(object_key, version) is not None, BucketError)

    def digest(self, object_key: str, version: str) -> str | None:
        def sha256() -> str | None:
            content = self.copy(object_key, version)
            return None if content is None else hashlib.sha256(content).hexdigest()

        return self._effect("digest", sha256, BucketError)

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None:
        self._effect("tell", lambda: self._hear(detail_type, dict(detail)), BusError)

    def copy(self, object_key: str, version: str) -> bytes | None:
        """What lies in the lived history's bucket."""
        versions = self.lived.bucket.objects.get(object_key, [])
        return versions[int(version) - 1] if int(version) <= len(versions) else None

    def _keep(self, key: str, content: bytes) -> None:
        old, new = (json.loads(text)["revision"] for text in (self.manifests.get(key, content), content))
        if new < old:
            self.improper.append(f"a manifest was turned back from revision {old} to {new}")
        self.manifests[key] = content

    def _hear(self, detail_type: str, detail: dict[str, Any]) -> None:
        if detail["status"] == "stored":
            laid = json.loads(self.manifests.get(detail.get("manifestKey", ""), b"{}"))
            is_newer = laid.get("revision", 0) > detail["revision"]
            if laid.get("versionId") != detail["versionId"] and not is_newer:
                self.improper.append("told before its manifest was there")
        self.told.append((detail_type, detail))


def verdict(telling: Telling) -> list[str]:
    """Every broken promise, in words; empty if all were kept."""
    broken = list(telling.improper)
    for clip in telling.lived.table.rows.values():
        broken += [f"clip {clip.index}: {fault}" for fault in _faults(clip, telling)]
    ids: dict[str, dict[str, Any]] = {}
    for _, detail in telling.told:
        if ids.setdefault(detail["id"], detail) != detail:
            broken.append("two different things were told under one id")
    return broken


def _faults(clip: Clip, telling: Telling) -> Iterator[str]:
    """What is told is what the record says: all of it, in the end the truth, and once but for repeats."""
    about = [(name, detail) for name, detail in telling.told if detail["clipUUID"] == clip.clip_uuid]
    states = [_ended(new) for _, new in telling.lived.table.changes if new.clip_uuid == clip.clip_uuid]
    expected = {state for state in states if state}
    ids = {detail["id"]: (name, detail.get("reason") or detail.get("versionId")) for name, detail in about}
    if Counter(ids.values()) != Counter(expected):
        yield f"told {sorted(map(str, ids.values()))}, and the record went through {sorted(map(str, expected))}"
    if about and max(about, key=lambda event: event[1]["revision"])[0] != (_ended(clip) or ("nothing",))[0]:
        yield f"is {clip.status}, and the last that was told is something else"
    if clip.status == Status.STORED:
        yield from _manifest_faults(clip, telling)


def _ended(clip: Clip) -> tuple[str, str | None] | None:
    """What a listener should know of a clip, and of which copy or why; None while it is under way."""
    match clip.status:
        case Status.STORED:
            return "Clip Stored", clip.copy[0] if clip.copy else None
        case Status.FAILED if not clip.open:
            return "Clip Failed", None
        case Status.REVIEW:
            return "Clip Needs Review", "unproven" if clip.decisive == Kind.UNPROVEN else "unsaved"
    return None


def _manifest_faults(clip: Clip, telling: Telling) -> Iterator[str]:
    assert clip.copy is not None
    version, _ = clip.copy
    laid = telling.manifests.get(clip.object_key.rpartition(".")[0] + ".json")
    if laid is None:
        yield "stored without a manifest"
        return
    content, copy = json.loads(laid), telling.copy(clip.object_key, version)
    assert copy is not None
    if (content["revision"], content["versionId"]) != (clip.version, version):
        yield f"its manifest is of revision {content['revision']}, not {clip.version}"
    if content["sha256"] != hashlib.sha256(copy).hexdigest():
        yield "its manifest has the digest of something else"

"""What is told of a clip, when, and what the manifest beside it holds: rules on clips, without a stream."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.clip import Clip, Fact, FactSource, Kind, Status, refresh_derived
from rushes.domain.task import Task
from rushes.errors import BucketError, BusError
from rushes.services.publish import ClipEvent, EventType, PublishService, event_id, event_of
from tests.fakes.builders import MP4, START, TASK_UUID, TIMES, clip, fact, request
from tests.fakes.telemetry import FakeTelemetry

Json = dict[str, Any]

ACCEPTED = fact(Kind.ACCEPTED, "acknowledged", source=FactSource.SUBMISSION)
RENDERED = fact(Kind.RENDERED, "video-1", START + 1000, FactSource.WEBHOOK, seed=7, cost=924_000, NSFWContent=False)
STORED = fact(Kind.STORED, "v1", START + 2000, FactSource.BUCKET, size=len(MP4), etag="e", container="mp4")
FAILED = fact(Kind.FAILED, "timeoutProvider", START + 1000, category="timeout", message="It failed.", error="{}")
LAST_LOOK = fact(Kind.LAST_LOOK, at=START + 900_000, source=FactSource.CLOCK)
UNPROVEN = fact(Kind.UNPROVEN, "nobody knows", START + 7_200_000, FactSource.CLOCK)
UNSAVED = fact(Kind.UNSAVED, "no copy", START + 9_000_000, FactSource.CLOCK)
REFUSED = fact(Kind.REFUSED, "invalidModel", source=FactSource.SUBMISSION, category="validation", message="no")
DIGEST = hashlib.sha256(MP4).hexdigest()


@dataclass
class Shelf:
    """Copies by key and version, manifests by key; counts what is read. `down` makes S3 unable to say."""

    copies: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    digests: int = 0
    writes: int = 0
    down: bool = False

    def manifest(self, key: str) -> bytes | None:
        if self.down:
            raise BucketError("SlowDown")
        return self.manifests.get(key)

    def put_manifest(self, key: str, content: bytes) -> None:
        self.writes += 1
        self.manifests[key] = content

    def has(self, object_key: str, version: str) -> bool:
        return (object_key, version) in self.copies

    def digest(self, object_key: str, version: str) -> str | None:
        self.digests += 1
        content = self.copies.get((object_key, version))
        return None if content is None else hashlib.sha256(content).hexdigest()


@dataclass
class World:
    """The use case on fakes: one task, one shelf, and whoever listens."""

    task_request: Json | None = field(default_factory=lambda: request(tags={"project": "lighthouse"}))
    shelf: Shelf = field(default_factory=Shelf)
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    deaf: bool = False

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None:
        if self.deaf:
            raise BusError("InternalException")
        self.told.append((detail_type, detail))

    def task(self, caller: str, task_uuid: str) -> Task | None:
        if self.task_request is None:
            return None
        return Task(
            caller=caller,
            task_uuid=task_uuid,
            request=self.task_request,
            fingerprint="f",
            clips=1,
            created_at=START,
        )

    def publish_change(self, before: Clip | None, after: Clip) -> None:
        PublishService(
            tasks=self, manifests=self.shelf, bus=self, telemetry=self.telemetry, bucket="clips"
        ).publish_change(before, after)

    def manifest(self, of: Clip) -> Json:
        content: Json = json.loads(self.shelf.manifests[of.object_key.removesuffix(".mp4") + ".json"])
        return content


@pytest.fixture
def told() -> World:
    """A world in which the copy lies in the bucket."""
    world = World()
    world.shelf.copies[clip().object_key, "v1"] = MP4
    return world


def saved(*facts: Fact, version: int = 2, **changes: Any) -> Clip:
    """A clip that knows these facts, as it is saved."""
    return refresh_derived(clip(*facts, version=version, **changes), START + 10_000_000, TIMES)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([], None),
        ([ACCEPTED], None),
        ([ACCEPTED, RENDERED], None),
        ([ACCEPTED, STORED], ClipEvent(EventType.STORED, "v1")),
        ([RENDERED, STORED], ClipEvent(EventType.STORED, "v1")),
        ([ACCEPTED, FAILED], None),
        ([ACCEPTED, FAILED, LAST_LOOK], ClipEvent(EventType.FAILED, "failed")),
        ([FAILED, LAST_LOOK, RENDERED], None),
        ([FAILED, LAST_LOOK, RENDERED, STORED], ClipEvent(EventType.STORED, "v1")),
        ([REFUSED], ClipEvent(EventType.FAILED, "refused")),
        ([REFUSED, ACCEPTED], None),
        ([UNPROVEN], ClipEvent(EventType.NEEDS_REVIEW, "unproven")),
        ([ACCEPTED, RENDERED, UNSAVED], ClipEvent(EventType.NEEDS_REVIEW, "unsaved")),
        ([UNPROVEN, UNSAVED, STORED], ClipEvent(EventType.STORED, "v1")),
    ],
)
def test_what_is_told_follows_from_the_facts(facts: list[Fact], expected: ClipEvent | None) -> None:
    """Stored, failed beyond doubt, or waiting for people: nothing else is news."""
    assert event_of(clip(*facts)) == expected


def test_a_clip_that_is_stored_is_told_with_its_manifest(told: World) -> None:
    """The event names the pinned version and the manifest, which has the same and the digest of the very bytes."""
    after = saved(ACCEPTED, RENDERED, STORED, version=3)
    told.publish_change(saved(ACCEPTED), after)
    ((detail_type, detail),) = told.told
    assert detail_type == "Clip Stored"
    assert detail == {
        "id": event_id(after, ClipEvent(EventType.STORED, "v1")),
        "revision": 3,
        "caller": "ann",
        "taskUUID": TASK_UUID,
        "clip": 0,
        "clipUUID": after.clip_uuid,
        "status": "stored",
        "bucket": "clips",
        "objectKey": after.object_key,
        "versionId": "v1",
        "container": "mp4",
        "manifestKey": after.object_key.removesuffix(".mp4") + ".json",
        "videoUUID": "video-1",
        "seed": 7,
        "NSFWContent": False,
        "cost": 0.924,
        "tags": {"project": "lighthouse"},
    }
    assert told.manifest(after) == {
        "taskUUID": TASK_UUID,
        "clip": 0,
        "clipUUID": after.clip_uuid,
        "caller": "ann",
        "status": "stored",
        "revision": 3,
        "request": told.task_request,
        "videoUUID": "video-1",
        "seed": 7,
        "NSFWContent": False,
        "cost": 0.924,
        "bucket": "clips",
        "objectKey": after.object_key,
        "versionId": "v1",
        "size": len(MP4),
        "sha256": DIGEST,
        "container": "mp4",
        "createdAt": "2026-09-21T14:13:20.000Z",
        "storedAt": "2026-09-21T14:13:22.000Z",
        "timeline": [
            {
                "at": "2026-09-21T14:13:20.000Z",
                "fact": "accepted",
                "key": "acknowledged",
                "source": "submission",
            },
            {
                "at": "2026-09-21T14:13:21.000Z",
                "fact": "rendered",
                "key": "video-1",
                "source": "webhook",
                "fields": {"NSFWContent": False, "cost": 0.924, "seed": 7},
            },
            {
                "at": "2026-09-21T14:13:22.000Z",
                "fact": "stored",
                "key": "v1",
                "source": "bucket",
                "fields": {"container": "mp4", "etag": "e", "size": len(MP4)},
            },
        ],
    }


def test_a_failure_is_told_with_its_reason_and_no_secret(told: World) -> None:
    """The provider's words come along without what could be used to act as us; nothing is laid into the bucket."""
    words = "No answer from https://hooks.example/webhooks/x?token=abc"
    told.publish_change(
        saved(ACCEPTED), saved(fact(Kind.FAILED, "timeoutProvider", message=words, category="timeout"), LAST_LOOK)
    )
    ((detail_type, detail),) = told.told
    assert (detail_type, detail["status"], detail["cost"]) == ("Clip Failed", "failed", 0.0)
    assert detail["error"] == {
        "code": "timeoutProvider",
        "category": "timeout",
        "message": "No answer from https://hooks.example/webhooks/x?[removed]",
    }
    assert not told.shelf.manifests


@pytest.mark.parametrize(("facts", "reason"), [([UNPROVEN], "unproven"), ([RENDERED, UNSAVED], "unsaved")])
def test_a_clip_in_review_is_told_with_what_is_missing(facts: list[Fact], reason: str, told: World) -> None:
    """Whoever listens learns which of the two cases it is, and what it may have cost."""
    told.publish_change(saved(ACCEPTED), saved(*facts))
    ((detail_type, detail),) = told.told
    assert (detail_type, detail["reason"], detail["cost"]) == ("Clip Needs Review", reason, 0.924)


def test_a_change_without_news_tells_nothing(told: World) -> None:
    """What is under way, and what was told before, asks nobody and reaches nobody."""
    told.publish_change(None, saved(ACCEPTED))
    told.publish_change(saved(ACCEPTED), saved(ACCEPTED, RENDERED))
    assert (told.told, told.shelf.manifests, told.shelf.digests) == ([], {}, 0)


def test_late_truth_is_told_again(told: World) -> None:
    """A failure that turns out to have been stored is told as both, under two ids."""
    failed = saved(ACCEPTED, FAILED, LAST_LOOK)
    told.publish_change(saved(ACCEPTED, FAILED), failed)
    rendered = saved(ACCEPTED, FAILED, LAST_LOOK, RENDERED, version=3)
    told.publish_change(failed, rendered)
    told.publish_change(rendered, saved(ACCEPTED, FAILED, LAST_LOOK, RENDERED, STORED, version=4))
    assert [name for name, _ in told.told] == ["Clip Failed", "Clip Stored"]
    assert len({detail["id"] for _, detail in told.told}) == 2


def test_another_reason_for_review_is_news(told: World) -> None:
    """A clip that waited since nobody knew of it, and now waits for a copy, is told again under an id of its own."""
    told.publish_change(saved(UNPROVEN), saved(UNPROVEN, RENDERED, UNSAVED, version=3))
    ((_, detail),) = told.told
    assert detail["reason"] == "unsaved"
    assert detail["id"] != event_id(saved(UNPROVEN), ClipEvent(EventType.NEEDS_REVIEW, "unproven"))


def test_a_cost_that_comes_later_rewrites_the_manifest_alone(told: World) -> None:
    """The digest is taken from the manifest that is there, no megabyte is read again, and nobody is told twice."""
    first = saved(ACCEPTED, STORED, version=3)
    told.publish_change(saved(ACCEPTED), first)
    assert "cost" not in told.manifest(first)
    told.publish_change(first, saved(ACCEPTED, STORED, RENDERED, version=4))
    assert (told.manifest(first)["cost"], told.manifest(first)["sha256"]) == (0.924, DIGEST)
    assert (told.shelf.digests, len(told.told)) == (1, 1)


def test_a_second_render_is_in_the_manifest(told: World) -> None:
    """Both renders were paid, so the cost is of both; the clip is the one that was learned of first."""
    second = fact(Kind.RENDERED, "a-video-2", START + 5000, cost=900_000)
    after = saved(RENDERED, STORED, second)
    told.publish_change(None, after)
    assert (told.manifest(after)["cost"], told.manifest(after)["videoUUID"]) == (1.824, "video-1")
    assert [each["key"] for each in told.manifest(after)["timeline"] if each["fact"] == "rendered"] == [
        "video-1",
        "a-video-2",
    ]


def test_a_repeat_changes_nothing(told: World) -> None:
    """The same change once more: no byte is written, and the event has the same id and the same words."""
    before, after = saved(ACCEPTED), saved(ACCEPTED, RENDERED, STORED, version=3)
    told.publish_change(before, after)
    manifests = dict(told.shelf.manifests)
    told.task_request = None  # expired meanwhile
    told.publish_change(before, after)
    assert told.shelf.manifests == manifests
    assert (told.shelf.writes, told.shelf.digests) == (1, 1)
    assert told.told[0][1]["id"] == told.told[1][1]["id"]


def test_an_older_change_does_not_turn_the_manifest_back(told: World) -> None:
    """What comes again after something newer leaves the newer manifest as it is."""
    older, newer = saved(ACCEPTED, STORED, version=3), saved(ACCEPTED, STORED, RENDERED, version=4)
    told.publish_change(saved(ACCEPTED), older)
    told.publish_change(older, newer)
    told.publish_change(saved(ACCEPTED), older)
    assert told.manifest(newer)["revision"] == 4


def test_an_older_change_brings_no_older_copy_back(told: World) -> None:
    """Nor does a change at which another copy was the clip's: a later revision has pinned the one learned of first."""
    second = fact(Kind.STORED, "v2", START + 3000, FactSource.BUCKET, size=len(MP4), etag="e", container="mp4")
    older, newer = saved(ACCEPTED, second, version=3), saved(ACCEPTED, second, STORED, version=4)
    told.shelf.copies |= {(older.object_key, "v1"): MP4, (older.object_key, "v2"): MP4 + b"another"}
    told.publish_change(saved(ACCEPTED), older)
    told.publish_change(older, newer)
    told.publish_change(saved(ACCEPTED), older)
    assert (told.manifest(newer)["revision"], told.manifest(newer)["versionId"]) == (4, "v1")
    assert told.manifest(newer)["sha256"] == DIGEST  # of these bytes, not of the copy that was described before


@pytest.mark.parametrize("written_before", [False, True])
def test_no_manifest_comes_back_without_its_copy(written_before: bool, told: World) -> None:
    """Where the copy was erased or has expired none is written, and the event names none."""
    before = saved(ACCEPTED, STORED, version=3)
    if written_before:
        told.publish_change(saved(ACCEPTED), before)
    writes = told.shelf.writes
    told.shelf.copies.clear()
    told.publish_change(saved(ACCEPTED), saved(ACCEPTED, STORED, RENDERED, version=4))
    assert told.shelf.writes == writes
    assert "manifestKey" not in told.told[-1][1]


@pytest.mark.parametrize("content", [b"", b"garbled", b"[]", b"{}", b'{"revision": "9", "sha256": 1}'])
def test_what_is_no_manifest_is_written_over(content: bytes, told: World) -> None:
    """Something else in the manifest's place is not believed."""
    after = saved(RENDERED, STORED)
    told.shelf.manifests[after.object_key.removesuffix(".mp4") + ".json"] = content
    told.publish_change(None, after)
    assert told.manifest(after)["sha256"] == DIGEST


def test_a_request_that_is_gone_leaves_an_empty_one(told: World) -> None:
    """An expired or forgotten request is empty in the manifest and gives the event no tags."""
    told.task_request = None
    after = saved(RENDERED, STORED)
    told.publish_change(None, after)
    assert told.manifest(after)["request"] == {}
    assert told.told[0][1]["tags"] == {}


def test_the_manifest_is_there_before_the_event(told: World) -> None:
    """Whoever is told finds it: when S3 is away nobody is told, and when the bus is, the manifest stands already."""
    after = saved(RENDERED, STORED)
    told.shelf.down = True
    with pytest.raises(BucketError):
        told.publish_change(None, after)
    assert not told.told
    told.shelf.down, told.deaf = False, True
    with pytest.raises(BusError):
        told.publish_change(None, after)
    assert told.manifest(after)["sha256"] == DIGEST


@given(st.permutations([ACCEPTED, FAILED, LAST_LOOK, RENDERED, STORED, UNPROVEN, UNSAVED]))
def test_the_last_word_is_told_in_any_order_of_facts(facts: list[Fact]) -> None:
    """However the facts come in, what was told last is what is true at the end, and each thing was told once."""
    world = World()
    world.shelf.copies[clip().object_key, "v1"] = MP4
    before = saved(version=1)
    for number in range(1, len(facts) + 1):
        after = saved(*facts[:number], version=number + 1)
        world.publish_change(before, after)
        before = after
    assert before.status == Status.STORED
    assert world.told[-1][0] == "Clip Stored"
    assert world.manifest(before)["revision"] == before.version
    assert [name for name, _ in world.told].count("Clip Stored") == 1

"""The events about a clip, their time, and the manifest beside it: rules on clips, without a stream."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.clip import Clip, Fact, FactSource, Kind, Status, refresh_derived
from rushes.domain.delivery import Delivery
from rushes.domain.formats import iso
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
ERASED = fact(Kind.ERASED, at=START + 9_500_000, source=FactSource.OPERATOR)
DIGEST = hashlib.sha256(MP4).hexdigest()


@dataclass
class Manifests:
    """Copies by key and version, manifests by key; counts reads and writes. `down` makes S3 unavailable."""

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
class Publisher:
    """The use case on fakes, with one task; keeps the published events."""

    task_request: Json | None = field(default_factory=lambda: request(tags={"project": "lighthouse"}))
    manifest_store: Manifests = field(default_factory=Manifests)
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    bus_down: bool = False
    current: Clip | None = None  # the clip in the table
    webhook_url: str = ""
    deliveries: list[Delivery] = field(default_factory=list)

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None:
        if self.bus_down:
            raise BusError("InternalException")
        self.events.append((detail_type, detail))

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
            webhook_url=self.webhook_url,
        )

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        return self.current

    def send(self, delivery: Delivery, delay: int = 0) -> None:
        assert delay == 0
        self.deliveries.append(delivery)

    def publish_change(self, before: Clip | None, after: Clip) -> None:
        PublishService(
            tasks=self,
            manifests=self.manifest_store,
            bus=self,
            deliveries=self,
            telemetry=self.telemetry,
            bucket="clips",
        ).publish_change(before, after)

    def manifest(self, of: Clip) -> Json:
        content: Json = json.loads(self.manifest_store.manifests[of.object_key.removesuffix(".mp4") + ".json"])
        return content


@pytest.fixture
def publisher() -> Publisher:
    """A publisher whose copy is in the bucket."""
    publisher = Publisher()
    publisher.manifest_store.copies[clip().object_key, "v1"] = MP4
    return publisher


def saved(*facts: Fact, version: int = 2, **changes: Any) -> Clip:
    """A clip with these facts, as it is saved."""
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
        *(([*facts, ERASED], ClipEvent(EventType.ERASED, "")) for facts in ([RENDERED, STORED], [REFUSED], [UNPROVEN])),
    ],
)
def test_the_event_follows_from_the_facts(facts: list[Fact], expected: ClipEvent | None) -> None:
    """Only stored, certainly failed and reviewed clips have an event."""
    assert event_of(clip(*facts)) == expected


@pytest.mark.parametrize(
    ("before", "after", "queued"),
    [
        ([ACCEPTED], [ACCEPTED, RENDERED, STORED], True),
        ([ACCEPTED], [ACCEPTED, STORED], False),  # the render's details may still come
        ([ACCEPTED, STORED], [ACCEPTED, RENDERED, STORED], True),
        ([ACCEPTED, RENDERED, STORED], [ACCEPTED, RENDERED, STORED, ACCEPTED], False),
        ([ACCEPTED], [ACCEPTED, FAILED], False),
        ([ACCEPTED, FAILED], [ACCEPTED, FAILED, LAST_LOOK], True),
        ([ACCEPTED], [UNPROVEN], False),
        ([], [REFUSED], True),
    ],
)
def test_a_certain_outcome_is_queued_for_its_receiver(
    publisher: Publisher, before: list[Fact], after: list[Fact], queued: bool
) -> None:
    """The change that makes an outcome certain queues one delivery under the event's id; without a receiver none."""
    change = saved(*before), saved(*after, version=3)
    publisher.publish_change(*change)
    assert publisher.deliveries == []
    publisher.webhook_url = "https://hooks.example/"
    publisher.publish_change(*change)
    event = event_of(change[1])
    expected = [Delivery("ann", TASK_UUID, 0, event_id(change[1], event))] if event and queued else []
    assert publisher.deliveries == expected


def test_the_manifest_has_no_receiver(publisher: Publisher) -> None:
    """A receiver's URL may hold a token, and others than the caller read the manifest."""
    publisher.task_request = request(webhookURL="https://hooks.example/?token=sesame")
    after = saved(ACCEPTED, RENDERED, STORED, version=3)
    publisher.publish_change(saved(ACCEPTED), after)
    assert "sesame" not in str(publisher.manifest(after)) + str(publisher.events)


def test_a_stored_clip_is_published_with_its_manifest(publisher: Publisher) -> None:
    """The event has the pinned version and the manifest's key; the manifest has the same version and its digest."""
    after = saved(ACCEPTED, RENDERED, STORED, version=3)
    publisher.publish_change(saved(ACCEPTED), after)
    ((detail_type, detail),) = publisher.events
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
        "seedText": "7",
        "NSFWContent": False,
        "cost": 0.924,
        "tags": {"project": "lighthouse"},
    }
    assert publisher.manifest(after) == {
        "taskUUID": TASK_UUID,
        "clip": 0,
        "clipUUID": after.clip_uuid,
        "caller": "ann",
        "status": "stored",
        "revision": 3,
        "request": publisher.task_request,
        "videoUUID": "video-1",
        "seed": 7,
        "seedText": "7",
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
                "fields": {"NSFWContent": False, "cost": 0.924, "seed": 7, "seedText": "7"},
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


def test_a_failure_is_published_with_its_reason_and_no_secret(publisher: Publisher) -> None:
    """The event has the provider's message without the callback's query, and no manifest is written."""
    words = "No answer from https://hooks.example/webhooks/x?token=abc"
    publisher.publish_change(
        saved(ACCEPTED), saved(fact(Kind.FAILED, "timeoutProvider", message=words, category="timeout"), LAST_LOOK)
    )
    ((detail_type, detail),) = publisher.events
    assert (detail_type, detail["status"], detail["cost"]) == ("Clip Failed", "failed", 0.0)
    assert detail["error"] == {
        "code": "timeoutProvider",
        "category": "timeout",
        "message": "No answer from https://hooks.example/webhooks/x?[removed]",
    }
    assert not publisher.manifest_store.manifests


@pytest.mark.parametrize(("facts", "reason"), [([UNPROVEN], "unproven"), ([RENDERED, UNSAVED], "unsaved")])
def test_a_clip_in_review_is_published_with_its_reason(facts: list[Fact], reason: str, publisher: Publisher) -> None:
    """The event has the reason for the review and the possible cost."""
    publisher.publish_change(saved(ACCEPTED), saved(*facts))
    ((detail_type, detail),) = publisher.events
    assert (detail_type, detail["reason"], detail["cost"]) == ("Clip Needs Review", reason, 0.924)


def test_a_change_without_an_event_publishes_nothing(publisher: Publisher) -> None:
    """A change of a clip that is under way publishes and reads nothing."""
    publisher.publish_change(None, saved(ACCEPTED))
    publisher.publish_change(saved(ACCEPTED), saved(ACCEPTED, RENDERED))
    assert (publisher.events, publisher.manifest_store.manifests, publisher.manifest_store.digests) == ([], {}, 0)


def test_a_late_copy_is_published_after_a_failure(publisher: Publisher) -> None:
    """A failed clip that was stored after all has both events, under two ids."""
    failed = saved(ACCEPTED, FAILED, LAST_LOOK)
    publisher.publish_change(saved(ACCEPTED, FAILED), failed)
    rendered = saved(ACCEPTED, FAILED, LAST_LOOK, RENDERED, version=3)
    publisher.publish_change(failed, rendered)
    publisher.publish_change(rendered, saved(ACCEPTED, FAILED, LAST_LOOK, RENDERED, STORED, version=4))
    assert [name for name, _ in publisher.events] == ["Clip Failed", "Clip Stored"]
    assert len({detail["id"] for _, detail in publisher.events}) == 2


def test_another_reason_for_review_is_published(publisher: Publisher) -> None:
    """A clip whose review has a new reason is published again under another id."""
    publisher.publish_change(saved(UNPROVEN), saved(UNPROVEN, RENDERED, UNSAVED, version=3))
    ((_, detail),) = publisher.events
    assert detail["reason"] == "unsaved"
    assert detail["id"] != event_id(saved(UNPROVEN), ClipEvent(EventType.NEEDS_REVIEW, "unproven"))


def test_a_cost_that_comes_later_rewrites_the_manifest_alone(publisher: Publisher) -> None:
    """The digest is taken from the old manifest, no copy is read again, and no event is published twice."""
    first = saved(ACCEPTED, STORED, version=3)
    publisher.publish_change(saved(ACCEPTED), first)
    assert "cost" not in publisher.manifest(first)
    publisher.publish_change(first, saved(ACCEPTED, STORED, RENDERED, version=4))
    assert (publisher.manifest(first)["cost"], publisher.manifest(first)["sha256"]) == (0.924, DIGEST)
    assert (publisher.manifest_store.digests, len(publisher.events)) == (1, 1)


def test_a_second_render_is_in_the_manifest(publisher: Publisher) -> None:
    """Both renders were paid, so the cost is of both; the `videoUUID` is that of the first one."""
    second = fact(Kind.RENDERED, "a-video-2", START + 5000, cost=900_000)
    after = saved(RENDERED, STORED, second)
    publisher.publish_change(None, after)
    assert (publisher.manifest(after)["cost"], publisher.manifest(after)["videoUUID"]) == (1.824, "video-1")
    assert [each["key"] for each in publisher.manifest(after)["timeline"] if each["fact"] == "rendered"] == [
        "video-1",
        "a-video-2",
    ]


def test_a_repeated_change_changes_nothing(publisher: Publisher) -> None:
    """The same change again writes nothing, and its event has the same id."""
    before, after = saved(ACCEPTED), saved(ACCEPTED, RENDERED, STORED, version=3)
    publisher.publish_change(before, after)
    manifests = dict(publisher.manifest_store.manifests)
    publisher.task_request = None  # expired meanwhile
    publisher.publish_change(before, after)
    assert publisher.manifest_store.manifests == manifests
    assert (publisher.manifest_store.writes, publisher.manifest_store.digests) == (1, 1)
    assert publisher.events[0][1]["id"] == publisher.events[1][1]["id"]


def test_an_older_change_leaves_the_newer_manifest(publisher: Publisher) -> None:
    """A redelivered change leaves a newer manifest as it is."""
    older, newer = saved(ACCEPTED, STORED, version=3), saved(ACCEPTED, STORED, RENDERED, version=4)
    publisher.publish_change(saved(ACCEPTED), older)
    publisher.publish_change(older, newer)
    publisher.publish_change(saved(ACCEPTED), older)
    assert publisher.manifest(newer)["revision"] == 4


def test_an_older_change_leaves_the_newer_pinned_copy(publisher: Publisher) -> None:
    """A redelivered change with another pinned copy leaves the copy of the later revision."""
    second = fact(Kind.STORED, "v2", START + 3000, FactSource.BUCKET, size=len(MP4), etag="e", container="mp4")
    older, newer = saved(ACCEPTED, second, version=3), saved(ACCEPTED, second, STORED, version=4)
    publisher.manifest_store.copies |= {(older.object_key, "v1"): MP4, (older.object_key, "v2"): MP4 + b"another"}
    publisher.publish_change(saved(ACCEPTED), older)
    publisher.publish_change(older, newer)
    publisher.publish_change(saved(ACCEPTED), older)
    assert (publisher.manifest(newer)["revision"], publisher.manifest(newer)["versionId"]) == (4, "v1")
    assert publisher.manifest(newer)["sha256"] == DIGEST  # of these bytes, not of the copy that was described before


@pytest.mark.parametrize("written_before", [False, True])
def test_nothing_is_published_of_a_deleted_copy(written_before: bool, publisher: Publisher) -> None:
    """A late repeat of a change, after the copy was erased or has expired, writes, publishes and delivers nothing."""
    before = saved(ACCEPTED, STORED, version=3)
    if written_before:
        publisher.publish_change(saved(ACCEPTED), before)
    publisher.webhook_url = "https://hooks.example/a"
    writes, events, deliveries = publisher.manifest_store.writes, len(publisher.events), list(publisher.deliveries)
    publisher.manifest_store.copies.clear()
    publisher.publish_change(saved(ACCEPTED), saved(ACCEPTED, STORED, RENDERED, version=4))
    assert publisher.manifest_store.writes == writes
    assert (len(publisher.events), publisher.deliveries) == (events, deliveries)


@pytest.mark.parametrize("content", [b"", b"garbled", b"[]", b"{}", b'{"revision": "9", "sha256": 1}'])
def test_an_invalid_manifest_is_overwritten(content: bytes, publisher: Publisher) -> None:
    """Other content under the manifest's key is not used."""
    after = saved(RENDERED, STORED)
    publisher.manifest_store.manifests[after.object_key.removesuffix(".mp4") + ".json"] = content
    publisher.publish_change(None, after)
    assert publisher.manifest(after)["sha256"] == DIGEST


def test_an_expired_request_is_empty_in_the_manifest(publisher: Publisher) -> None:
    """An expired or erased request is empty in the manifest and gives the event no tags."""
    publisher.task_request = None
    after = saved(RENDERED, STORED)
    publisher.publish_change(None, after)
    assert publisher.manifest(after)["request"] == {}
    assert publisher.events[0][1]["tags"] == {}


def test_the_manifest_is_there_before_the_event(publisher: Publisher) -> None:
    """Without S3 no event is published; without the bus the manifest is already there."""
    after = saved(RENDERED, STORED)
    publisher.manifest_store.down = True
    with pytest.raises(BucketError):
        publisher.publish_change(None, after)
    assert not publisher.events
    publisher.manifest_store.down, publisher.bus_down = False, True
    with pytest.raises(BusError):
        publisher.publish_change(None, after)
    assert publisher.manifest(after)["sha256"] == DIGEST


@given(st.permutations([ACCEPTED, FAILED, LAST_LOOK, RENDERED, STORED, UNPROVEN, UNSAVED]))
def test_the_last_event_is_true_in_any_order_of_facts(facts: list[Fact]) -> None:
    """In any order of facts the last event has the final status, and no event is published twice."""
    publisher = Publisher()
    publisher.manifest_store.copies[clip().object_key, "v1"] = MP4
    before = saved(version=1)
    for number in range(1, len(facts) + 1):
        after = saved(*facts[:number], version=number + 1)
        publisher.publish_change(before, after)
        before = after
    assert before.status == Status.STORED
    assert publisher.events[-1][0] == "Clip Stored"
    assert publisher.manifest(before)["revision"] == before.version
    assert [name for name, _ in publisher.events].count("Clip Stored") == 1


def test_an_erasure_is_an_event_with_its_time_and_names_alone(publisher: Publisher) -> None:
    """One event, the same for a repeat; neither a manifest nor a delivery."""
    publisher.webhook_url = "https://hooks.example/"
    before, after = saved(RENDERED, STORED, version=3), saved(RENDERED, STORED, ERASED, version=4)
    publisher.current = after
    publisher.publish_change(before, after)
    publisher.publish_change(before, after)
    publisher.publish_change(after, saved(RENDERED, STORED, ERASED, fact(Kind.ACCEPTED, "late"), version=5))
    first, second = publisher.events
    assert first == second
    assert first == (
        "Clip Erased",
        {
            "id": event_id(after, ClipEvent(EventType.ERASED, "")),
            "revision": 4,
            "caller": "ann",
            "taskUUID": TASK_UUID,
            "clip": 0,
            "clipUUID": after.clip_uuid,
            "status": "erased",
            "erasedAt": iso(ERASED.at),
        },
    )
    assert (publisher.manifest_store.writes, publisher.deliveries) == (0, [])


@pytest.mark.parametrize("facts", [[RENDERED, STORED], [FAILED, LAST_LOOK], [UNPROVEN]])
def test_a_change_before_the_erasure_is_not_published_after_it(facts: list[Fact], publisher: Publisher) -> None:
    """A late or repeated record of the stream writes, publishes and delivers nothing about an erased clip."""
    publisher.webhook_url = "https://hooks.example/"
    older = saved(*facts, version=3)
    publisher.manifest_store.copies[older.object_key, "v1"] = MP4  # the erasure has not reached it yet
    publisher.current = saved(*facts, ERASED, version=4)
    publisher.publish_change(saved(ACCEPTED), older)
    assert (publisher.events, publisher.deliveries, publisher.manifest_store.writes) == ([], [], 0)


def test_an_erasure_during_the_digest_stops_the_manifest(publisher: Publisher) -> None:
    """The table is asked after the copy was read, which may take long."""
    after = saved(RENDERED, STORED, version=3)
    digest = publisher.manifest_store.digest

    def slowly(object_key: str, version: str) -> str | None:
        publisher.current = saved(RENDERED, STORED, ERASED, version=4)
        return digest(object_key, version)

    publisher.manifest_store.digest = slowly  # type: ignore[method-assign]
    publisher.publish_change(saved(ACCEPTED), after)
    assert (publisher.events, publisher.manifest_store.writes) == ([], 0)

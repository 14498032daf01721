"""One attempt at a delivery: its effects in their order, and what a crash between them leaves behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from rushes.domain.clip import Clip, FactSource, Kind, refresh_derived
from rushes.domain.delivery import AttemptOutcome, Delivery, Reply, SigningSecret, new_secret
from rushes.domain.task import Task
from rushes.errors import QueueError
from rushes.services.deliver import DeliverService
from rushes.services.metric import Metric
from rushes.services.publish import delivery_id_of
from tests.fakes.builders import MP4, START, TASK_UUID, TIMES, clip, fact, request
from tests.fakes.deliveries import FakeDeliveriesTable, FakeDeliveryQueue
from tests.fakes.use_cases import FakeBucket, UseCases

URL = "https://hooks.example/runware?token=sesame-sesame-sesame"
RENDERED = fact(Kind.RENDERED, "video-1", START + 1000, FactSource.WEBHOOK, seed=7, cost=924_000)
STORED = fact(Kind.STORED, "v1", START + 2000, FactSource.BUCKET, size=len(MP4), etag="e", container="mp4")
FAILED = fact(Kind.FAILED, "timeoutProvider", START + 1000, category="timeout", message="It failed.", error="{}")
LAST_LOOK = fact(Kind.LAST_LOOK, at=START + 900_000, source=FactSource.CLOCK)


@dataclass
class World:
    """The use case on fakes: one task, a receiver with scripted replies, table and queue."""

    replies: list[Reply] = field(default_factory=list)
    received: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    table: FakeDeliveriesTable = field(default_factory=FakeDeliveriesTable)
    queue: FakeDeliveryQueue = field(default_factory=FakeDeliveryQueue)

    def __post_init__(self) -> None:
        self.fakes = UseCases(table=self.table)
        self.table.secrets["ann"] = [SigningSecret(new_secret(), START)]
        self.save(RENDERED, STORED)
        self.task = Task("ann", TASK_UUID, request(webhookURL=URL), "f", 1, START, webhook_url=URL)

    @property
    def task(self) -> Task:
        return self.table.tasks["ann", TASK_UUID]

    @task.setter
    def task(self, task: Task) -> None:
        self.table.tasks["ann", TASK_UUID] = task

    def save(self, *facts: Any) -> Clip:
        """Puts the clip with these facts into the table."""
        return self.table.put(refresh_derived(clip(*facts, version=8), START + 10_000_000, TIMES))

    @property
    def delivery(self) -> Delivery:
        delivery_id = delivery_id_of(self.fakes.row())
        assert delivery_id
        return Delivery("ann", TASK_UUID, 0, delivery_id)

    def run(self, delivery: Delivery | None = None) -> None:
        """One invocation with this message, by default the clip's first."""
        DeliverService(
            table=self.table,
            queue=self.queue,
            receivers=self,
            query_service=self.fakes.query_service,
            telemetry=self.fakes.telemetry,
            bucket=FakeBucket.name,
            first_pause=5000,
            lease=25_000,
            retention=30 * 86_400_000,
            concurrency=2,
            clock=self.fakes.clock,
            jitter=lambda: 0.5,
        ).attempt(delivery or self.delivery, "holder")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        for secret in self.table.secrets.get("ann", []):
            # The library's check of the time uses the real clock, so the signature is compared with its own.
            sent_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
            expected = Webhook(secret.text).sign(headers["webhook-id"], sent_at, body.decode())
            assert expected in headers["webhook-signature"].split()
        self.received.append((url, headers, json.loads(body)))
        return self.replies.pop(0) if self.replies else Reply(200, 5)


@pytest.fixture
def world() -> World:
    return World()


def test_a_stored_clip_is_delivered_in_runwares_format(world: World) -> None:
    """The body is Runware's bare item with a link to the caller's copy; our own fields are under `rushes`."""
    world.run()
    ((url, headers, body),) = world.received
    assert url == URL
    assert headers.keys() == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    assert headers["webhook-id"] == world.delivery.delivery_id
    assert body == {
        "taskType": "videoInference",
        "taskUUID": TASK_UUID,
        "status": "success",
        "videoUUID": "video-1",
        "seed": 7,
        "videoURL": f"https://bucket.example/{world.fakes.row().object_key}?versionId=v1&X-Amz-Expires=3600",
        "rushes": {
            "status": "stored",
            "clip": 0,
            "bucket": "clips",
            "objectKey": world.fakes.row().object_key,
            "versionId": "v1",
            "revision": 8,
        },
    }
    (attempt,) = world.table.recorded.values()
    assert (attempt.outcome, attempt.receiver) == (AttemptOutcome.DELIVERED, "https://hooks.example")
    assert (world.queue.messages, world.table.slots) == ([], {})
    assert world.fakes.telemetry.counted[Metric.WEBHOOKS_DELIVERED] == 1


def test_a_failed_clip_is_delivered_as_errors(world: World) -> None:
    """A failure after its last look is delivered in Runware's error shape, without a link."""
    world.save(FAILED, LAST_LOOK)
    world.run()
    ((_, _, body),) = world.received
    assert body["errors"][0] | {"message": ""} == {
        "code": "timeoutProvider",
        "message": "",
        "status": "error",
        "taskType": "videoInference",
        "taskUUID": TASK_UUID,
    }
    assert body["rushes"]["status"] == "failed"
    assert "versionId" not in body["rushes"]


def test_no_url_is_logged_or_recorded(world: World) -> None:
    """Neither the receiver's URL nor the clip's link is in the log or in the record of the attempt."""
    world.replies = [Reply(500, 5)]
    world.run()
    (attempt,) = world.table.recorded.values()
    assert "sesame" not in repr(attempt) + repr(world.fakes.telemetry.logs)
    assert "bucket.example" not in repr(attempt) + repr(world.fakes.telemetry.logs)


def test_a_failed_attempt_is_recorded_before_the_next_is_queued(world: World) -> None:
    """If the queue fails, the message comes again, and the recorded attempt is not repeated."""
    world.replies, world.queue.down = [Reply(503, 5)], True
    with pytest.raises(QueueError):
        world.run()
    assert world.table.slots == {}
    world.queue.down = False
    world.fakes.clock.now += 2000
    world.run()
    assert len(world.received) == 1
    ((queued, delay),) = world.queue.messages
    assert (queued.attempt, queued.due_at, delay) == (2, START + 5000, 3000)


def test_a_repeated_message_does_not_repeat_a_delivery(world: World) -> None:
    """A message that comes again after a success sends nothing."""
    world.run()
    world.run()
    assert (len(world.received), world.queue.messages) == (1, [])


def test_an_early_message_is_queued_again(world: World) -> None:
    """A message that is received before its time waits for the rest of it."""
    later = world.delivery._replace(attempt=2, due_at=START + 7_200_000)
    world.run(later)
    assert (world.received, world.queue.messages) == ([], [(later, 7_200_000)])


@pytest.mark.parametrize("gone", ["task", "receiver", "outcome", "clip"])
def test_an_obsolete_delivery_is_dropped(world: World, gone: str) -> None:
    """A task that expired, a removed receiver and an outcome that a later one has replaced are not sent."""
    delivery = world.delivery
    match gone:
        case "task":
            del world.table.tasks["ann", TASK_UUID]
        case "receiver":
            world.task = world.task._replace(webhook_url="")
        case "outcome":
            world.save(RENDERED, replace(STORED, key="v0", at=START + 1500))
        case "clip":
            world.table.rows.clear()
    world.run(delivery)
    assert (world.received, world.queue.messages, world.table.recorded) == ([], [], {})


@pytest.mark.parametrize("request_left", [True, False])
def test_a_delivery_of_an_erased_clip_is_dropped_on_the_record(world: World, request_left: bool) -> None:
    """A delivery that was queued before the erasure is not sent; its record has the reason, also after a repeat."""
    delivery = world.delivery._replace(attempt=5)
    world.save(RENDERED, STORED, fact(Kind.ERASED, at=START + 5000, source=FactSource.OPERATOR))
    if not request_left:
        world.task = world.task._replace(request={}, webhook_url="")
    world.run(delivery)
    world.run(delivery)
    (attempt,) = world.table.recorded.values()
    assert (attempt.outcome, attempt.reply.failure) == (AttemptOutcome.DROPPED, "the clip was erased")
    assert attempt.receiver == ("https://hooks.example" if request_left else "")
    assert (world.received, world.queue.messages, attempt.next) == ([], [], None)
    assert not world.fakes.telemetry.counted


def test_a_caller_has_a_limited_number_of_attempts_at_once(world: World) -> None:
    """While all of a caller's slots are taken, its message waits and counts as no attempt."""
    world.table.slots = {("ann", number): ("another", START + 1) for number in (0, 1)}
    world.run()
    assert (world.received, world.table.recorded) == ([], {})
    ((queued, delay),) = world.queue.messages
    assert (queued, delay) == (world.delivery._replace(waits=1), 5000)


def test_a_missing_secret_is_a_failed_attempt(world: World) -> None:
    """Without a valid secret nothing is sent unsigned; the attempt is on the record and tried again."""
    world.table.secrets.clear()
    world.run()
    (attempt,) = world.table.recorded.values()
    assert (world.received, attempt.reply.failure, attempt.outcome) == ([], "no signing secret", AttemptOutcome.RETRY)


def test_an_outage_of_half_an_hour_is_counted(world: World) -> None:
    """From the fourth failure on, half an hour after the first, the alarm's metric is counted; the last is final."""
    for number in range(1, 9):
        world.replies = [Reply(500, 5)]
        world.run(world.delivery._replace(attempt=number))
        assert world.fakes.telemetry.counted[Metric.WEBHOOKS_FAILING] == max(0, number - 3)
    assert world.fakes.telemetry.counted[Metric.WEBHOOKS_UNDELIVERED] == 1
    assert len(world.queue.messages) == 7

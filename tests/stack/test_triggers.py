"""Schedules, queues and the stream as event sources: with fakes, and with the real functions when sources fail."""

import hashlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.domain.clip import Clip, Fact, FactSource, Kind, Status, merge
from rushes_local.event_sources import (
    Source,
    Stream,
    Triggers,
    next_tick,
    processed_messages,
    queue_event,
    records_to_retry,
    schedule_event,
    stream_event,
)
from rushes_local.lambda_runtime import Outcome
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import Stack, StackError
from tests.event_listener import Listener

ROOT = Path(__file__).parents[2]

# A separate stack cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")
CALLER = "ada"
PATIENCE = 15.0
# For a stack fifty times as fast as deployed. The timeouts are longer, because the machine is not that fast.
FAST = {
    "HTTP_TIMEOUT_SECONDS": 25,
    "FUNCTION_TIMEOUT_SECONDS": 300,
    "LEASE_SECONDS": 350,
    "RESEND_WINDOW_SECONDS": 400,
    "USUAL_RENDER_SECONDS": 5,
    "RESCUE_AFTER_SECONDS": 25,
}
SCHEDULE_ONLY = {"schedule": True, "queues": False, "streams": False}
MESSAGES_ONLY = {"schedule": False, "queues": True, "streams": True}


class Watched:
    """A running stack that waits without polling: conditions are checked after each log line."""

    def __init__(self, options: Mapping[str, bool]) -> None:
        self._logged = threading.Condition()
        self.stack = Stack(
            ROOT,
            time_scale=0.02,
            timings=FAST,
            parameters={"WhenAmbiguous": "review"},  # under `resend` the first poll waits until no resend can come
            emulator_options={"small": True},
            sink=self._notify,
            **options,  # type: ignore[arg-type]  # the switches of event sources
        )

    def _notify(self, _name: str, _line: str) -> None:
        with self._logged:
            self._logged.notify_all()

    def order(self, prompt: str, refused: bool = False) -> str:
        """Order one clip; returns the task's UUID. `refused` allows a refusal."""
        task_uuid = str(uuid.uuid4())
        task = {
            "taskType": "videoInference",
            "taskUUID": task_uuid,
            "model": "klingai:5@3",
            "positivePrompt": prompt,
            "width": 1920,
            "height": 1080,
            "duration": 5,
        }
        headers = {"Authorization": f"Bearer {self.stack.create_key(CALLER)}"}
        answer = httpx.post(f"{self.stack.url}/v1", json=[task], headers=headers, timeout=30, trust_env=False)
        assert refused or answer.json() == {"data": [{"taskType": "videoInference", "taskUUID": task_uuid}]}
        return task_uuid

    def clip(self, task_uuid: str) -> Clip:
        (clip,) = self.stack.store.clips(CALLER, task_uuid)
        return clip

    def wait(self, task_uuid: str, condition: Callable[[Clip], bool]) -> Clip:
        """Wait until the task's clip meets the condition, at most PATIENCE seconds; returns the clip."""
        self.wait_until(lambda: condition(self.clip(task_uuid)))
        return self.clip(task_uuid)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._logged:
            assert self._logged.wait_for(condition, PATIENCE), [str(clip) for clip in self.clips()]

    def clips(self) -> list[Clip]:
        """All clips."""
        items = self.stack.client("dynamodb").scan(TableName=self.stack.table_name)["Items"]
        return [clip_of_image(item) for item in items if item["sk"]["S"].startswith("clip#")]


@pytest.fixture(scope="module")
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A stack with the event sources of the test's parameter."""
    watched = Watched(request.param)
    with watched.stack:
        yield watched


def complete(clip: Clip) -> bool:
    return clip.status == Status.STORED and not clip.open


def test_an_interval_that_no_function_has_is_refused() -> None:
    """A misspelled interval is an error that names it."""
    with pytest.raises(StackError, match="no function has USUAL_RENDER"):
        Stack(ROOT, timings={"USUAL_RENDER": 5}).__enter__()


LOSSES: dict[str, dict[str, Any]] = {
    "webhook": {"webhook_copies": 0},
    "upload": {"upload": "never"},
    "both": {"webhook_copies": 0, "upload": "never"},
    "kind": {"result_format": "WEBM"},
    "kind and upload": {"result_format": "WEBM", "upload": "never"},
}


@pytest.mark.parametrize("watched", [SCHEDULE_ONLY], indirect=True, ids=["schedule"])
@pytest.mark.parametrize("lost", LOSSES)
def test_the_schedule_finds_what_was_lost(watched: Watched, lost: str) -> None:
    """With a lost webhook or upload, or a render of another format, the clip ends stored and is bought once."""
    stack, switches = watched.stack, LOSSES[lost]
    stack.emulator.faults.next_submissions.append(OneShot(lost, **switches))
    clip = watched.wait(watched.order(f"without the {lost}"), complete)

    (render,) = clip.of(Kind.RENDERED).values()
    assert (FactSource.POLL if "webhook_copies" in switches else FactSource.WEBHOOK) in render.seen
    assert clip.copy is not None
    version, copy = clip.copy
    assert copy.fields.get("rescued", False) == ("upload" in switches)
    assert copy.fields["container"] == ("webm" if "result_format" in switches else "mp4")
    assert stack.client("s3").head_object(Bucket=stack.bucket_name, Key=clip.object_key)["VersionId"] == version
    assert [charge.task_uuid for charge in stack.emulator.ledger()].count(clip.clip_uuid) == 1
    stack.check()


@pytest.mark.parametrize("watched", [SCHEDULE_ONLY], indirect=True, ids=["schedule"])
def test_a_stack_can_be_timed(watched: Watched) -> None:
    """Intervals are replaced before they are scaled, including the functions' own timeouts."""
    function = watched.stack.functions["reconcile"].function
    assert function.environment["USUAL_RENDER_SECONDS"] == "0.1"
    assert function.environment["DEADLINE_SECONDS"] == "144"
    assert function.environment["FUNCTION_TIMEOUT_SECONDS"] == "6"
    assert function.timeout_seconds == 6
    assert function.environment["RESCUE_ORIGINS"] == watched.stack.emulator_url


@pytest.mark.parametrize("watched", [MESSAGES_ONLY], indirect=True, ids=["messages"])
def test_an_upload_event_is_enough(watched: Watched) -> None:
    """Without webhook, sweeps and polls, the event of the object's creation marks the clip as stored."""
    stack = watched.stack
    stack.emulator.faults.webhook_copies, stack.emulator.faults.poll_status = 0, 503
    clip = watched.wait(watched.order("only the upload"), lambda clip: clip.status == Status.STORED)

    assert {kind for kind, _ in clip.facts} == {Kind.ACCEPTED, Kind.STORED}
    assert clip.copy is not None
    version, copy = clip.copy
    assert copy.seen.keys() == {FactSource.BUCKET}
    assert stack.client("s3").head_object(Bucket=stack.bucket_name, Key=clip.object_key)["VersionId"] == version


@pytest.mark.parametrize("watched", [MESSAGES_ONLY], indirect=True, ids=["messages"])
def test_every_final_status_is_published(watched: Watched) -> None:
    """The stream publishes an event for a stored clip, with its manifest, for a failed one, and for one in review."""
    stack, listener = watched.stack, Listener(watched.stack)
    stack.emulator.faults.replace({})
    stored = watched.wait(watched.order("to be stored"), lambda clip: clip.status == Status.STORED)
    stack.emulator.faults.next_submissions.append(OneShot(submit_status=400, submit_code="invalidPositivePrompt"))
    refused = watched.clip(watched.order("to be refused", refused=True))
    unproven = watched.wait(watched.order("to need review"), lambda clip: clip.status == Status.STORED)
    fact = Fact(kind=Kind.UNPROVEN, key="no evidence", at=1, source=FactSource.CLOCK)
    stack.store.save(unproven, merge(replace(unproven, facts={}), fact))

    def published() -> set[tuple[str, str]]:
        return {(event["detail"]["clipUUID"], event["detail-type"]) for event in listener.listen()}

    expected = {
        (stored.clip_uuid, "Clip Stored"),
        (refused.clip_uuid, "Clip Failed"),
        (unproven.clip_uuid, "Clip Needs Review"),
    }
    watched.wait_until(lambda: expected <= published())
    (event,) = listener.about(stored.clip_uuid)
    s3, bucket = stack.client("s3"), stack.bucket_name
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=event["detail"]["manifestKey"])["Body"].read())
    copy = s3.get_object(Bucket=bucket, Key=manifest["objectKey"], VersionId=manifest["versionId"])["Body"].read()
    assert manifest["sha256"] == hashlib.sha256(copy).hexdigest()


@pytest.mark.parametrize("watched", [MESSAGES_ONLY], indirect=True, ids=["messages"])
def test_the_queues_times_are_scaled(watched: Watched) -> None:
    """Delays and visibility timeouts are scaled like all other times, to whole seconds, as SQS requires."""
    sqs = watched.stack.client("sqs")
    attributes = {
        url.partition("-")[2].partition("-")[0]: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        for url in sqs.list_queues()["QueueUrls"]
    }
    uploads = attributes["UploadsQueue"]["Attributes"]
    assert (uploads["DelaySeconds"], uploads["VisibilityTimeout"]) == ("0", "6")


class Fake:
    """A function that records its events and returns the outcomes of `answer`."""

    def __init__(self, answer: Callable[[Mapping[str, Any]], Outcome]) -> None:
        self._answer = answer
        self._changed = threading.Condition()
        self.events: list[Mapping[str, Any]] = []

    def invoke(self, event: Mapping[str, Any], *, timeout: float | None = None) -> Outcome:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()
        return self._answer(event)

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), self.events


@pytest.fixture
def triggers() -> Iterator[Triggers]:
    """Triggers that are stopped after the test."""
    triggers = Triggers(print)
    yield triggers
    triggers.stop()
    triggers.join()


def make_queues(sqs: Any) -> tuple[str, str, str]:
    """A queue with a visibility timeout of one second and two receives; its URL and ARN, and its dead-letter queue."""
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    attributes = {"VisibilityTimeout": "1", "RedrivePolicy": redrive}
    url = sqs.create_queue(QueueName="toys", Attributes=attributes)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return url, arn, dead


@pytest.mark.parametrize("watched", [MESSAGES_ONLY], indirect=True, ids=["messages"])
def test_failed_messages_are_retried_and_dead_lettered(watched: Watched, triggers: Triggers) -> None:
    """A message that the function reports as failed is retried, then goes to the dead-letter queue, alone."""
    sqs = watched.stack.client("sqs")
    url, arn, dead = make_queues(sqs)
    for body in ("good", "bad", "better"):
        sqs.send_message(QueueUrl=url, MessageBody=body)

    def bodies() -> Counter[str]:
        return Counter(record["body"] for event in toy.events for record in event["Records"])

    def refuse(event: Mapping[str, Any]) -> Outcome:
        bad = [{"itemIdentifier": each["messageId"]} for each in event["Records"] if each["body"] == "bad"]
        return Outcome("ok", {"batchItemFailures": bad})

    toy = Fake(refuse)
    triggers.poll(sqs, Source(url, arn, 10, partial=True, max_concurrency=2), toy)
    toy.wait(lambda: bodies() == {"good": 1, "bad": 2, "better": 1})
    (letter,) = sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=5)["Messages"]
    assert letter["Body"] == "bad"
    assert bodies() == {"good": 1, "bad": 2, "better": 1}
    (record,) = toy.events[-1]["Records"]
    example = json.loads((ROOT / "events" / "object-created.json").read_text())["Records"][0]
    assert record.keys() == example.keys()
    assert record["attributes"].keys() == example["attributes"].keys()
    assert (record["attributes"]["ApproximateReceiveCount"], record["eventSourceARN"]) == ("2", arn)


class FailingQueue:
    """A queue that first fails a number of times, and then has one message."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.deleted: list[str] = []

    def receive_message(self, **_: Any) -> dict[str, Any]:
        self._failures -= 1
        if self._failures >= 0:
            raise ClientError({"Error": {"Code": "InternalError", "Message": "unavailable"}}, "ReceiveMessage")
        message = {"MessageId": "1", "ReceiptHandle": "handle", "Body": "x", "MD5OfBody": "y", "Attributes": {}}
        return {} if self.deleted else {"Messages": [message]}

    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> None:
        self.deleted += [entry["ReceiptHandle"] for entry in Entries]


def test_an_unavailable_queue_is_polled_again(triggers: Triggers) -> None:
    """The poller continues after errors of SQS, until it has received and deleted the message."""
    queue, function = FailingQueue(failures=2), Fake(lambda _: Outcome("ok", None))
    triggers.poll(queue, Source("url", "arn", 10, partial=True, max_concurrency=2), function)
    function.wait(lambda: len(function.events) == 1)
    triggers.stop()
    triggers.join()
    assert queue.deleted == ["handle"]


class EndlessQueue:
    """A queue that always has another message. `most` is the highest number of received, undeleted messages."""

    def __init__(self) -> None:
        self._received = self.most = 0
        self._deleted: list[str] = []

    def receive_message(self, **_: Any) -> dict[str, Any]:
        self._received += 1
        self.most = max(self.most, self._received - len(self._deleted))
        name = str(self._received)
        return {
            "Messages": [{"MessageId": name, "ReceiptHandle": name, "Body": "x", "MD5OfBody": "y", "Attributes": {}}]
        }

    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> None:
        self._deleted += [entry["ReceiptHandle"] for entry in Entries]


@pytest.mark.parametrize("most", [2, 5])
def test_as_many_batches_run_at_once_as_the_source_allows(most: int, triggers: Triggers) -> None:
    """As many invocations as allowed run at once, repeatedly, and no further message is received meanwhile."""
    queue, meeting = EndlessQueue(), threading.Barrier(most)

    def meet(_: Mapping[str, Any]) -> Outcome:
        with suppress(threading.BrokenBarrierError):
            meeting.wait(PATIENCE)
        return Outcome("ok", None)

    function = Fake(meet)
    triggers.poll(queue, Source("url", "arn", 1, partial=True, max_concurrency=most), function)
    function.wait(lambda: len(function.events) >= 10 * most)
    assert not meeting.broken
    assert queue.most == most
    triggers.stop()
    meeting.abort()


MESSAGES = [{"MessageId": "1"}, {"MessageId": "2"}]


def failures(*identifiers: Any) -> Outcome:
    return Outcome("ok", {"batchItemFailures": [{"itemIdentifier": each} for each in identifiers]})


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (failures(), []),
        (failures("2"), ["2"]),
        (failures("1", "2"), ["1", "2"]),
        (failures("3"), ["1", "2"]),
        (failures(""), ["1", "2"]),
        (failures(None), ["1", "2"]),
        (Outcome("ok", {"batchItemFailures": [{"id": "1"}]}), ["1", "2"]),
        (Outcome("ok", {"batchItemFailures": None}), []),
        (Outcome("ok", {}), []),
        (Outcome("ok", None), []),
        (Outcome("error", {"errorMessage": "x"}), ["1", "2"]),
        (Outcome("timeout", {"errorMessage": "x"}), ["1", "2"]),
    ],
)
def test_a_batch_response_is_read_as_by_lambda(outcome: Outcome, kept: list[str]) -> None:
    """Reported messages are retried, all messages after an invalid or failed response, and the others are deleted."""
    finished = [message["MessageId"] for message in processed_messages(MESSAGES, outcome, partial=True)]
    assert finished == [each["MessageId"] for each in MESSAGES if each["MessageId"] not in kept]


def test_without_partial_responses_a_whole_batch_is_processed() -> None:
    """Reports of failures are ignored unless the function is declared to report them."""
    assert processed_messages(MESSAGES, failures("1"), partial=False) == MESSAGES


def record(number: str) -> dict[str, Any]:
    """The record of one change with this sequence number, as from DynamoDB's client."""
    change = {"SequenceNumber": number, "ApproximateCreationDateTime": datetime(2026, 11, 24, tzinfo=UTC)}
    return {"eventID": number, "eventName": "MODIFY", "eventSource": "aws:dynamodb", "dynamodb": change}


class Shard:
    """A stream of records, which first fails a number of times; also its dead-letter queue."""

    def __init__(self, numbers: Sequence[str], failures: int = 0) -> None:
        self._records = [record(number) for number in numbers]
        self._failures = failures
        self._changed = threading.Condition()
        self.letters: list[dict[str, Any]] = []

    def describe_stream(self, **_: Any) -> dict[str, Any]:
        return {"StreamDescription": {"Shards": [{"ShardId": "shard"}]}}

    def get_shard_iterator(self, **_: Any) -> dict[str, str]:
        return {"ShardIterator": "0"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:
        self._failures -= 1
        if self._failures >= 0:
            raise ClientError({"Error": {"Code": "InternalServerError", "Message": "unavailable"}}, "GetRecords")
        start = int(ShardIterator)
        found = self._records[start : start + Limit]
        return {"Records": found, "NextShardIterator": str(start + len(found))}

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:
        with self._changed:
            self.letters.append(json.loads(MessageBody))
            self._changed.notify_all()


def numbers(event: Mapping[str, Any]) -> str:
    """The sequence numbers of an event's records, one letter each."""
    return "".join(each["dynamodb"]["SequenceNumber"] for each in event["Records"])


def stream(retries: int = 1, **changes: Any) -> Stream:
    values = {"batch_size": 4, "partial": True, "bisect": True, "failures_url": "dead", **changes}
    return Stream("stream", retries=retries, **values)


def test_an_unavailable_stream_is_read_again(triggers: Triggers) -> None:
    """The poller continues after errors of the stream; the wanted records come in order, in batches."""
    shard, function = Shard("abcdef", failures=2), Fake(lambda _: Outcome("ok", {"batchItemFailures": []}))
    wanted = stream(wanted=lambda each: each["eventID"] != "b")
    triggers.follow(shard, shard, wanted, function)
    function.wait(lambda: len(function.events) == 2)
    assert [numbers(event) for event in function.events] == ["acd", "ef"]


def test_a_batch_that_is_processed_again() -> None:
    """Where Lambda repeats a batch, the function gets the same records once more, and then the next ones."""
    repeats = iter([True])
    triggers = Triggers(print, lambda: next(repeats, False))
    shard, function = Shard("abcdef"), Fake(lambda _: Outcome("ok", {"batchItemFailures": []}))
    triggers.follow(shard, shard, stream(), function)
    function.wait(lambda: len(function.events) == 3)
    triggers.stop()
    triggers.join()
    assert [numbers(event) for event in function.events] == ["abcd", "abcd", "ef"]


def test_a_failing_record_is_dead_lettered_alone(triggers: Triggers) -> None:
    """A record that always fails is isolated, retried as often as allowed, and goes to the dead-letter queue alone."""

    def refuse(event: Mapping[str, Any]) -> Outcome:
        failed = [{"itemIdentifier": "b"}] if "b" in numbers(event) else []
        return Outcome("ok", {"batchItemFailures": failed})

    shard, function = Shard("abcde"), Fake(refuse)
    triggers.follow(shard, shard, stream(retries=1), function)
    function.wait(lambda: bool(function.events) and "e" in numbers(function.events[-1]))
    # The batch from the first failure, then its halves: the failing record and its retry, then the later records.
    assert [numbers(event) for event in function.events] == ["abcd", "bcd", "b", "b", "cd", "e"]
    (letter,) = shard.letters
    assert letter["DDBStreamBatchInfo"] == {
        "streamArn": "stream",
        "startSequenceNumber": "b",
        "endSequenceNumber": "b",
        "batchSize": 1,
    }


@pytest.mark.parametrize("kind", ["error", "timeout", "crashed"])
def test_a_batch_that_failed_as_a_whole_is_halved(kind: Any, triggers: Triggers) -> None:
    """After a failed invocation, the function gets the same records in smaller batches, in order."""
    answers = iter([Outcome(kind, {"errorMessage": "x"})])
    shard, function = Shard("abcd"), Fake(lambda _: next(answers, Outcome("ok", {})))
    triggers.follow(shard, shard, stream(), function)
    function.wait(lambda: len(function.events) == 3)
    assert [numbers(event) for event in function.events] == ["abcd", "ab", "cd"]
    assert shard.letters == []


@pytest.mark.parametrize(
    ("outcome", "rest"),
    [
        (failures(), ""),
        (failures("b"), "bc"),
        (failures("c", "b"), "bc"),
        (failures("a"), "abc"),
        (failures("z"), "abc"),
        (failures(""), "abc"),
        (failures(None), "abc"),
        (Outcome("ok", {"batchItemFailures": [{"id": "b"}]}), "abc"),
        (Outcome("ok", {"batchItemFailures": None}), ""),
        (Outcome("ok", None), ""),
        (Outcome("error", {"errorMessage": "x"}), "abc"),
    ],
)
def test_a_stream_is_retried_from_the_first_failure_on(outcome: Outcome, rest: str) -> None:
    """To keep the order, all records after a failed one are retried, too."""
    records = [record(place) for place in "abc"]
    assert numbers({"Records": records_to_retry(records, outcome, partial=True)}) == rest


def test_without_partial_responses_a_stream_continues() -> None:
    """Reports of failures are ignored unless the function is declared to report them."""
    assert records_to_retry([record("a")], failures("a"), partial=False) == []


def test_the_streams_event_is_lambdas() -> None:
    """The event has the fields of the example in events/, with the time as a number."""
    (example,) = json.loads((ROOT / "events" / "clip-changed.json").read_text())["Records"]
    (made,) = stream_event([{**record("1"), "eventVersion": "1.1", "awsRegion": "here"}], "arn")["Records"]
    assert made.keys() == example.keys()
    assert made["dynamodb"].keys() <= example["dynamodb"].keys()
    assert made["dynamodb"]["ApproximateCreationDateTime"] == 1795478400.0


@pytest.mark.parametrize(("now", "following"), [(10.0, 11.0), (10.4, 11.0), (11.0, 11.0), (12.5, 13.0), (9.9, 11.0)])
def test_ticks_that_were_missed_are_skipped(now: float, following: float) -> None:
    """The tick after second 10 is the first that has not passed, at a multiple of the interval."""
    assert next_tick(10.0, now, 1.0) == following


def test_a_schedule_waits_for_its_function(triggers: Triggers) -> None:
    """Invocations do not overlap, and `join` waits for the last one and leaves no thread."""
    release, before = threading.Event(), set(threading.enumerate())

    def hang(_: Mapping[str, Any]) -> Outcome:
        release.wait(PATIENCE)
        return Outcome("crashed", {"errorMessage": "stopped"})

    slow, quick = Fake(hang), Fake(lambda _: Outcome("ok", {}))
    triggers.schedule("slow", 0.0, slow)
    triggers.schedule("quick", 0.0, quick)
    # The intervals are equal: after three ticks of the quick one, the slow one would have been due again.
    quick.wait(lambda: len(quick.events) >= 3)
    assert len(slow.events) == 1
    triggers.stop()
    release.set()
    triggers.join()
    assert set(threading.enumerate()) <= before
    assert len(slow.events) == 1


def test_the_schedules_event_is_eventbridges() -> None:
    """The event has the fields of the example in events/, at the time given."""
    example = json.loads((ROOT / "events" / "schedule.json").read_text())
    event = schedule_event("rushes-reconcile", 1795425600.7)
    assert event.keys() == example.keys()
    assert {**event, "id": "", "region": "", "resources": []} == {**example, "id": "", "region": "", "resources": []}
    assert event["resources"] == ["arn:aws:events:us-east-1:123456789012:rule/rushes-reconcile"]


def test_message_attributes_are_in_lambdas_spelling() -> None:
    """In Lambda's events, the fields of a message's attributes begin with a lower-case letter."""
    message = {
        "MessageId": "1",
        "ReceiptHandle": "handle",
        "Body": "x",
        "MD5OfBody": "y",
        "Attributes": {},
        "MessageAttributes": {"kind": {"StringValue": "toy", "DataType": "String"}},
    }
    (record,) = queue_event([message], "arn")["Records"]
    assert record["messageAttributes"] == {"kind": {"stringValue": "toy", "dataType": "String"}}

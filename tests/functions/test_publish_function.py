"""The table's stream through `publish`: the events, the manifests, and the records that are retried."""

import hashlib
import importlib
import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.domain.clip import Clip, Kind, Lease, Status, merge_all, refresh_derived
from rushes.errors import UnreadableError
from rushes_cli.operator import erase
from rushes_cli.operator.review import clock
from rushes_local.lambda_runtime import Outcome
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import Stack
from tests.change_stream import ChangeStream
from tests.conftest import ROOT, Json, User, client, order
from tests.event_listener import Listener
from tests.fakes.builders import TIMES, fact
from tests.functions.conftest import InProcess

SCHEMAS = ROOT / "docs" / "events"
LONG_AFTER = 100 * 24 * 3_600_000  # milliseconds: longer ago than any deadline


class ClipStream(ChangeStream):
    """The stream's records of clips."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack, lambda key: key[1].startswith("clip#"))

    def read(self) -> list[Json]:
        """The changes of clips since the last call, filtered as in the template."""
        return [record for record in super().read() if record["eventName"] == "MODIFY"]

    def deliver(self, records: list[Json] | None = None) -> Outcome:
        """Delivers changes to the deployed function; by default those since the last call."""
        found = self.read() if records is None else records
        return self._stack.functions["publish"].invoke({"Records": found})


@cache
def bus_listener(stack: Stack) -> Listener:
    return Listener(stack)


@pytest.fixture
def listener(stack: Stack) -> Listener:
    """A listener on the bus, without the events before the test."""
    connected = bus_listener(stack)
    connected.listen()
    connected.received.clear()
    return connected


@pytest.fixture
def stream(stack: Stack) -> ClipStream:
    return ClipStream(stack)


def finished(user: User, **switches: Any) -> Clip:
    """A clip that was bought and finished under these switches."""
    if switches:
        user.stack.emulator.faults.next_submissions.append(OneShot(**switches))
    clip = user.buy(tags={"project": "lighthouse"})
    user.stack.emulator.finish_all()
    assert user.stack.emulator.idle(20)
    return user.now(clip)


def add_facts(user: User, clip: Clip, *facts: Any) -> Clip:
    """Saves the clip with more facts, as another function would."""
    return user.stack.store.save(clip, refresh_derived(merge_all(clip, facts), clip.created_at + LONG_AFTER, TIMES))


def manifest(stack: Stack, clip: Clip) -> tuple[str, bytes]:
    """The version and content of a clip's manifest."""
    key = clip.object_key.rpartition(".")[0] + ".json"
    answer = client(stack, "s3").get_object(Bucket=stack.bucket_name, Key=key)
    return answer["VersionId"], answer["Body"].read()


def check_schema(event: Json) -> None:
    """Checks an event against its schema, which must name each property."""
    name = event["detail-type"].lower().replace(" ", "-")
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(event["detail"])
    assert event["detail"].keys() <= schema["properties"].keys()
    assert event["source"] == "rushes"


def test_a_stored_clip_has_event_and_manifest(stack: Stack, user: User, stream: ClipStream, listener: Listener) -> None:
    """The event fits its schema, and the manifest beside the clip has the digest of the stored bytes."""
    clip = finished(user)
    assert clip.status == Status.STORED
    assert stream.deliver() == Outcome("ok", {"batchItemFailures": []})
    (event,) = listener.about(clip.clip_uuid)
    check_schema(event)
    assert event["detail-type"] == "Clip Stored"
    assert event["detail"]["tags"] == {"project": "lighthouse"}
    _, content = manifest(stack, clip)
    stored = json.loads(content)
    location = {"Bucket": stored["bucket"], "Key": stored["objectKey"], "VersionId": stored["versionId"]}
    video = client(stack, "s3").get_object(**location)["Body"].read()
    assert (stored["sha256"], stored["size"]) == (hashlib.sha256(video).hexdigest(), len(video))
    assert stored["request"]["positivePrompt"] == "a lighthouse at dusk"
    assert event["detail"]["manifestKey"] == clip.object_key.rpartition(".")[0] + ".json"


def test_a_refused_clip_is_published_as_failed(user: User, stream: ClipStream, listener: Listener) -> None:
    """Runware's refusal of the only attempt is final; the event has its code."""
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=400, submit_code="invalidPositivePrompt"))
    task = order()
    user.post(task)
    (clip,) = user.clips(task)
    stream.deliver()
    (event,) = listener.about(clip.clip_uuid)
    check_schema(event)
    assert (event["detail-type"], event["detail"]["error"]["code"]) == ("Clip Failed", "invalidPositivePrompt")


def test_a_failure_is_published_after_the_last_look(user: User, stream: ClipStream, listener: Listener) -> None:
    """A failed render is not published until the last look has found nothing."""
    clip = finished(user, failure="providerError")
    assert (clip.status, clip.open) == (Status.FAILED, True)
    stream.deliver()
    assert listener.about(clip.clip_uuid) == []
    add_facts(user, clip, fact(Kind.LAST_LOOK, at=clip.created_at + LONG_AFTER))
    stream.deliver()
    (event,) = listener.about(clip.clip_uuid)
    check_schema(event)
    assert (event["detail-type"], event["detail"]["cost"]) == ("Clip Failed", 0)


def test_a_clip_in_review_is_published(user: User, stream: ClipStream, listener: Listener) -> None:
    """A clip without proof of its purchase is published with that reason."""
    clip = add_facts(user, user.buy(), fact(Kind.UNPROVEN, "no proof"))
    stream.deliver()
    (event,) = listener.about(clip.clip_uuid)
    check_schema(event)
    assert (event["detail-type"], event["detail"]["reason"]) == ("Clip Needs Review", "unproven")


def test_a_repeat_of_the_stream_changes_nothing(
    stack: Stack, user: User, stream: ClipStream, listener: Listener
) -> None:
    """Repeated and older records leave the manifest's version unchanged and are published under the same id."""
    clip = finished(user)
    records = stream.read()
    stream.deliver(records)
    stored = manifest(stack, clip)
    stream.deliver(records)
    stream.deliver(records[-1:])
    assert manifest(stack, clip) == stored
    assert {event["detail"]["id"] for event in listener.about(clip.clip_uuid)} == {listener.received[0]["detail"]["id"]}


def test_a_later_cost_is_in_the_manifest(stack: Stack, user: User, stream: ClipStream, listener: Listener) -> None:
    """A later fact of a stored clip is written to its manifest without another event."""
    clip = finished(user, result_cost=False)
    stream.deliver()
    assert "cost" not in json.loads(manifest(stack, clip)[1])
    ((video_uuid, _),) = clip.of(Kind.RENDERED).items()
    add_facts(user, clip, fact(Kind.RENDERED, video_uuid, at=clip.created_at + LONG_AFTER, cost=900_000))
    stream.deliver()
    assert json.loads(manifest(stack, clip)[1])["cost"] == 0.9
    assert len(listener.about(clip.clip_uuid)) == 1


def test_an_unreadable_record_fails_alone(user: User, stream: ClipStream, listener: Listener) -> None:
    """An unreadable record fails by its sequence number, and the other clips are published."""
    clip = finished(user)
    records = stream.read()
    poison = json.loads(json.dumps(records[0]))
    poison["dynamodb"] |= {"NewImage": {"facts": {"S": "garbled"}}, "SequenceNumber": "111"}
    assert stream.deliver([poison, *records]) == Outcome("ok", {"batchItemFailures": [{"itemIdentifier": "111"}]})
    assert len(listener.about(clip.clip_uuid)) == 1
    assert stream.deliver([poison]).kind == "error"


@pytest.mark.parametrize("image", [{}, {"NULL": 1}, {"facts": {"M": {}}}, {"version": {"N": "x"}}, {"a": {"ZZ": "?"}}])
def test_an_invalid_image_is_unreadable(image: Json) -> None:
    """Every invalid image raises `UnreadableError`."""
    with pytest.raises(UnreadableError):
        clip_of_image(image)


def test_an_image_is_the_clip_that_was_saved(user: User, stream: ClipStream) -> None:
    """The stream's image and the table's item are read as the same clip."""
    clip = finished(user)
    leased = user.stack.store.save(clip, replace(clip, lease=Lease("me", 1, 2), possibly_sent_at=5))
    assert clip_of_image(stream.read()[-1]["dynamodb"]["NewImage"]) == leased


def test_an_erased_clip_gets_no_manifest_back(stack: Stack, user: User, stream: ClipStream, listener: Listener) -> None:
    """The erasure is published; after it, repeats of earlier records write and publish nothing."""
    clip = finished(user)
    records = stream.read()
    stream.deliver(records)
    erase.forget(stack.store, client(stack, "s3"), stack.bucket_name, clip.caller, clip.task_uuid, clock())
    assert stream.deliver().payload == {"batchItemFailures": []}
    assert stream.deliver(records).payload == {"batchItemFailures": []}
    under = clip.object_key.rpartition(".")[0]
    assert "Contents" not in client(stack, "s3").list_objects_v2(Bucket=stack.bucket_name, Prefix=under)
    published = [event["detail-type"] for event in listener.about(clip.clip_uuid)]
    assert published == ["Clip Stored", "Clip Erased"]
    check_schema(listener.about(clip.clip_uuid)[-1])


def test_an_event_that_the_bus_rejects_is_retried(
    user: User, stream: ClipStream, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 200 answer with a failed entry counts as a failure."""
    finished(user)
    records = stream.read()
    app = wired(in_process)
    rejecting = SimpleNamespace(
        put_events=lambda **_: {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
    )
    monkeypatch.setattr(app.wiring().publish_service.bus, "_client", rejecting)
    failed = app.handler({"Records": records}, context(50_000))["batchItemFailures"]
    assert failed == [{"itemIdentifier": records[-1]["dynamodb"]["SequenceNumber"]}]


def test_records_without_time_are_retried(user: User, stream: ClipStream, in_process: InProcess) -> None:
    """Near its end the function starts no further record, so that a timeout does not fail the whole batch."""
    finished(user)
    records = stream.read()
    app, left = wired(in_process), iter([50_000, 1000])
    answer = app.handler({"Records": records}, SimpleNamespace(get_remaining_time_in_millis=lambda: next(left)))
    assert answer == {"batchItemFailures": [{"itemIdentifier": records[-1]["dynamodb"]["SequenceNumber"]}]}


def context(milliseconds: int) -> SimpleNamespace:
    return SimpleNamespace(get_remaining_time_in_millis=lambda: milliseconds)


def wired(in_process: InProcess) -> Any:
    """The handler's module, wired in this process."""
    in_process("publish")
    return importlib.import_module("functions.publish.app")

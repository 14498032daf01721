"""The table's stream through `publish`, fed by hand: what is told, what is laid into the bucket, what comes again."""

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
from rushes_local.event_sources import stream_event
from rushes_local.lambda_runtime import Outcome
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import Stack
from tests.conftest import ROOT, Json, User, client, order
from tests.event_listener import Listener
from tests.fakes.builders import TIMES, fact
from tests.functions.conftest import InProcess

SCHEMAS = ROOT / "docs" / "events"
MOVED = 100 * 24 * 3_600_000  # milliseconds: longer ago than any deadline


class Stream:
    """What the stream has to say since this was made, as Lambda would pass it on."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = client(stack, "dynamodbstreams")
        self.arn = client(stack, "dynamodb").describe_table(TableName=stack.table_name)["Table"]["LatestStreamArn"]
        (shard,) = self._client.describe_stream(StreamArn=self.arn)["StreamDescription"]["Shards"]
        where = {"StreamArn": self.arn, "ShardId": shard["ShardId"], "ShardIteratorType": "LATEST"}
        self._place = self._client.get_shard_iterator(**where)["ShardIterator"]

    def read(self) -> list[Json]:
        """The changes of clips since the last time, as the template's filter lets them through."""
        answer = self._client.get_records(ShardIterator=self._place)
        self._place = answer["NextShardIterator"]
        records: list[Json] = stream_event(answer["Records"], self.arn)["Records"]
        return [
            record
            for record in records
            if record["eventName"] == "MODIFY" and record["dynamodb"]["Keys"]["sk"]["S"].startswith("clip#")
        ]

    def announce(self, records: list[Json] | None = None) -> Outcome:
        """Passes changes on to the deployed function; by default those since the last time."""
        found = self.read() if records is None else records
        return self._stack.functions["publish"].invoke({"Records": found})


@cache
def listener(stack: Stack) -> Listener:
    return Listener(stack)


@pytest.fixture
def heard(stack: Stack) -> Listener:
    """Who listens on the bus; what was told before the test is forgotten."""
    found = listener(stack)
    found.listen()
    found.received.clear()
    return found


@pytest.fixture
def stream(stack: Stack) -> Stream:
    return Stream(stack)


def ended(user: User, **switches: Any) -> Clip:
    """A clip that was bought, and treated by Runware like this."""
    if switches:
        user.stack.emulator.faults.next_submissions.append(OneShot(**switches))
    clip = user.buy(tags={"project": "lighthouse"})
    user.stack.emulator.finish_all()
    assert user.stack.emulator.idle(20)
    return user.now(clip)


def known(user: User, clip: Clip, *facts: Any) -> Clip:
    """The clip, saved with facts that somebody else has learned."""
    return user.stack.store.save(clip, refresh_derived(merge_all(clip, facts), clip.created_at + MOVED, TIMES))


def manifest(stack: Stack, clip: Clip) -> tuple[str, bytes]:
    """Version and content of a clip's manifest."""
    key = clip.object_key.rpartition(".")[0] + ".json"
    answer = client(stack, "s3").get_object(Bucket=stack.bucket_name, Key=key)
    return answer["VersionId"], answer["Body"].read()


def fits(event: Json) -> None:
    """Holds an event against its schema; a property that no schema names is one that nobody was told of."""
    name = event["detail-type"].lower().replace(" ", "-")
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(event["detail"])
    assert event["detail"].keys() <= schema["properties"].keys()
    assert event["source"] == "rushes"


def test_a_stored_clip_is_told_and_has_its_manifest(stack: Stack, user: User, stream: Stream, heard: Listener) -> None:
    """The event fits its schema, and the manifest beside the clip has the digest of the very bytes."""
    clip = ended(user)
    assert clip.status == Status.STORED
    assert stream.announce() == Outcome("ok", {"batchItemFailures": []})
    (event,) = heard.about(clip.clip_uuid)
    fits(event)
    assert event["detail-type"] == "Clip Stored"
    assert event["detail"]["tags"] == {"project": "lighthouse"}
    _, content = manifest(stack, clip)
    laid = json.loads(content)
    where = {"Bucket": laid["bucket"], "Key": laid["objectKey"], "VersionId": laid["versionId"]}
    video = client(stack, "s3").get_object(**where)["Body"].read()
    assert (laid["sha256"], laid["size"]) == (hashlib.sha256(video).hexdigest(), len(video))
    assert laid["request"]["positivePrompt"] == "a lighthouse at dusk"
    assert event["detail"]["manifestKey"] == clip.object_key.rpartition(".")[0] + ".json"


def test_a_refused_clip_is_told_as_failed(user: User, stream: Stream, heard: Listener) -> None:
    """Runware's no is final for the only attempt there was; its code comes along."""
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=400, submit_code="invalidPositivePrompt"))
    task = order()
    user.post(task)
    (clip,) = user.clips(task)
    stream.announce()
    (event,) = heard.about(clip.clip_uuid)
    fits(event)
    assert (event["detail-type"], event["detail"]["error"]["code"]) == ("Clip Failed", "invalidPositivePrompt")


def test_a_failure_is_told_once_it_is_certain(user: User, stream: Stream, heard: Listener) -> None:
    """A failed render is no news until the last look has found nothing."""
    clip = ended(user, failure="providerError")
    assert (clip.status, clip.open) == (Status.FAILED, True)
    stream.announce()
    assert heard.about(clip.clip_uuid) == []
    known(user, clip, fact(Kind.LAST_LOOK, at=clip.created_at + MOVED))
    stream.announce()
    (event,) = heard.about(clip.clip_uuid)
    fits(event)
    assert (event["detail-type"], event["detail"]["cost"]) == ("Clip Failed", 0)


def test_a_clip_in_review_is_told(user: User, stream: Stream, heard: Listener) -> None:
    """Nobody knows whether it was bought: whoever listens is told just that."""
    clip = known(user, user.buy(), fact(Kind.UNPROVEN, "nobody knows"))
    stream.announce()
    (event,) = heard.about(clip.clip_uuid)
    fits(event)
    assert (event["detail-type"], event["detail"]["reason"]) == ("Clip Needs Review", "unproven")


def test_a_repeat_of_the_stream_changes_nothing(stack: Stack, user: User, stream: Stream, heard: Listener) -> None:
    """The same records again, and the older ones alone, leave the manifest's very version, and tell under one id."""
    clip = ended(user)
    records = stream.read()
    stream.announce(records)
    laid = manifest(stack, clip)
    stream.announce(records)
    stream.announce(records[-1:])
    assert manifest(stack, clip) == laid
    assert {event["detail"]["id"] for event in heard.about(clip.clip_uuid)} == {heard.received[0]["detail"]["id"]}


def test_a_cost_that_comes_later_is_in_the_manifest(stack: Stack, user: User, stream: Stream, heard: Listener) -> None:
    """What becomes known of a stored clip is written into its manifest, and is no news."""
    clip = ended(user, result_cost=False)
    stream.announce()
    assert "cost" not in json.loads(manifest(stack, clip)[1])
    ((video_uuid, _),) = clip.of(Kind.RENDERED).items()
    known(user, clip, fact(Kind.RENDERED, video_uuid, at=clip.created_at + MOVED, cost=900_000))
    stream.announce()
    assert json.loads(manifest(stack, clip)[1])["cost"] == 0.9
    assert len(heard.about(clip.clip_uuid)) == 1


def test_a_record_that_nobody_can_read_takes_no_other_along(user: User, stream: Stream, heard: Listener) -> None:
    """It is reported as failed by its place in the stream, and the clips before and after it are told."""
    clip = ended(user)
    records = stream.read()
    poison = json.loads(json.dumps(records[0]))
    poison["dynamodb"] |= {"NewImage": {"facts": {"S": "garbled"}}, "SequenceNumber": "111"}
    assert stream.announce([poison, *records]) == Outcome("ok", {"batchItemFailures": [{"itemIdentifier": "111"}]})
    assert len(heard.about(clip.clip_uuid)) == 1
    assert stream.announce([poison]).kind == "error"


@pytest.mark.parametrize("image", [{}, {"NULL": 1}, {"facts": {"M": {}}}, {"version": {"N": "x"}}, {"a": {"ZZ": "?"}}])
def test_any_image_that_is_no_clip_is_refused(image: Json) -> None:
    """Whatever lies in the image, one kind of error comes of it."""
    with pytest.raises(UnreadableError):
        clip_of_image(image)


def test_an_image_is_the_clip_that_was_saved(user: User, stream: Stream) -> None:
    """The stream's image and the table's item are read as the same clip."""
    clip = ended(user)
    leased = user.stack.store.save(clip, replace(clip, lease=Lease("me", 1, 2), possibly_sent_at=5))
    assert clip_of_image(stream.read()[-1]["dynamodb"]["NewImage"]) == leased


def test_an_erased_clip_gets_no_manifest_back(stack: Stack, user: User, stream: Stream, heard: Listener) -> None:
    """The stream's record of the erasure itself, and repeats of what was before it, write nothing."""
    clip = ended(user)
    records = stream.read()
    stream.announce(records)
    erase.forget(stack.store, client(stack, "s3"), stack.bucket_name, clip.caller, clip.task_uuid)
    assert stream.announce().payload == {"batchItemFailures": []}
    assert stream.announce(records).payload == {"batchItemFailures": []}
    under = clip.object_key.rpartition(".")[0]
    assert "Contents" not in client(stack, "s3").list_objects_v2(Bucket=stack.bucket_name, Prefix=under)
    assert "manifestKey" not in heard.about(clip.clip_uuid)[-1]["detail"]


def test_what_the_bus_did_not_take_comes_again(
    user: User, stream: Stream, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that is answered 200 and names a failed entry is a failure."""
    ended(user)
    records = stream.read()
    app = wired(in_process)
    rejecting = SimpleNamespace(
        put_events=lambda **_: {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
    )
    monkeypatch.setattr(app.wiring().publish_service.bus, "_client", rejecting)
    failed = app.handler({"Records": records}, context(50_000))["batchItemFailures"]
    assert failed == [{"itemIdentifier": records[-1]["dynamodb"]["SequenceNumber"]}]


def test_what_there_is_no_time_for_comes_again(user: User, stream: Stream, in_process: InProcess) -> None:
    """Near its end the function begins nothing more, so that the timeout does not take the whole batch."""
    ended(user)
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

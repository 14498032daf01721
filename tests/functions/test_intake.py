"""What is dropped and told, through the real rules and queues into the inbox, and from there to Runware."""

import hashlib
import json
from typing import Any

import pytest

from rushes.domain.caller import Caller
from rushes.domain.clip import Status
from rushes_local.event_sources import queue_event
from rushes_local.lambda_runtime import Outcome
from rushes_local.stack import STACK_NAME, Stack
from tests.conftest import PATIENCE, Json, client, http, order, submissions, whole_table
from tests.unit.pictures import picture

CALLER = "ada"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


class Doors:
    """The stack's queues, bucket and bus, and the functions behind them, invoked by hand."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.s3, self.sqs = stack, client(stack, "s3"), client(stack, "sqs")
        for name in (CALLER, "events"):
            stack.store.set_caller(Caller(name, 2 * 924_000))
        for name in ("RequestsQueue", "Inbox"):
            while self.take(name):
                pass

    def url(self, queue: str) -> str:
        cloudformation = client(self.stack, "cloudformation")
        found = cloudformation.describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=queue)
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def take(self, queue: str, most: int = 10) -> list[Json]:
        """The messages that a queue gives out, which are gone from it then."""
        url = self.url(queue)
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=most, MessageSystemAttributeNames=["All"])
        found: list[Json] = answer.get("Messages", [])
        for message in found:
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def invoke(self, function: str, messages: list[Json]) -> Outcome:
        return self.stack.functions[function].invoke(queue_event(messages, "arn:aws:sqs:us-east-1:123456789012:q"))

    def put(self, name: str, content: bytes, **more: Any) -> str:
        """Drops an object and returns the report's key."""
        key = f"requests/{CALLER}/{name}"
        version = self.s3.put_object(Bucket=self.stack.bucket_name, Key=key, Body=content, **more)["VersionId"]
        return f"reports/{CALLER}/{name}.{version}.json"

    def read(self, key: str) -> Any:
        return json.loads(self.s3.get_object(Bucket=self.stack.bucket_name, Key=key)["Body"].read())

    def taken_in(self) -> list[Json]:
        """Lets intake take what waits for it, and returns what it sent to the inbox."""
        messages = self.take("RequestsQueue")
        assert len(messages) == 1
        assert self.invoke("intake", messages).payload == {"batchItemFailures": []}
        return self.take("Inbox")


@pytest.fixture
def doors(stack: Stack) -> Doors:
    """Empty queues, and a caller with money for two clips."""
    return Doors(stack)


def test_a_dropped_file_is_bought(doors: Doors, stack: Stack) -> None:
    """The bucket's event goes through rule and queue; good lines are bought, once; money and poison come back alone."""
    lines = [order(taskUUID=...), "{", order(), order()]
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode()
    report = doors.put("a b+ü/%41.jsonl", content)
    messages = doors.taken_in()
    assert [line["line"] for line in doors.read(report)["lines"] if line.get("accepted")] == [1, 3, 4]
    assert len(messages) == 3

    poison = {**messages[0], "MessageId": "poison", "Body": "{"}
    batch = [messages[0], poison, *messages[1:]]
    outcome = doors.invoke("submit", batch)
    failed = [failure["itemIdentifier"] for failure in outcome.payload["batchItemFailures"]]
    assert failed == ["poison", messages[2]["MessageId"]]
    assert doors.invoke("submit", batch).payload == outcome.payload
    # Alone it is not an error of the function either: that alarm is for other things than a used up budget.
    assert doors.invoke("submit", [messages[2]]).payload == {
        "batchItemFailures": [{"itemIdentifier": messages[2]["MessageId"]}]
    }
    tasks = [json.loads(message["Body"])["task"]["taskUUID"] for message in messages]
    clips = [clip for task_uuid in tasks for clip in stack.store.clips(CALLER, task_uuid)]
    assert [clip.status for clip in clips] == [Status.RUNNING] * 2
    assert [task["taskUUID"] for task in submissions(stack)] == [clip.clip_uuid for clip in clips]

    stack.emulator.finish(clips[0].clip_uuid)
    assert stack.emulator.idle(PATIENCE)
    (stored,) = stack.store.clips(CALLER, tasks[0])
    assert stored.status is Status.STORED


def test_a_refusal_on_the_way_is_put_beside_the_report(doors: Doors) -> None:
    """Another request under a UUID that was used already is done with, and told where its file's report is."""
    task = order()
    doors.put("a.json", json.dumps(task).encode())
    assert doors.invoke("submit", doors.taken_in()).payload == {"batchItemFailures": []}
    report = doors.put("b.json", json.dumps({**task, "positivePrompt": "another"}).encode())
    assert doors.invoke("submit", [doors.taken_in()[-1]]).payload == {"batchItemFailures": []}
    refusal = doors.read(f"{report.removesuffix('.json')}.{task['taskUUID']}.json")
    assert [error["code"] for error in refusal["errors"]] == ["conflictTaskUUID"]
    assert doors.read(report)["accepted"] == 1


def test_a_request_on_the_bus_is_taken_in(doors: Doors, stack: Stack) -> None:
    """An event of that type on our bus, whoever sent it, is a task of the bus's caller; a bad one has a report."""
    for detail in (order(), order(duration=7)):
        entry = {"Source": "a.pipeline", "DetailType": "Video Requested", "Detail": json.dumps(detail)}
        client(stack, "events").put_events(Entries=[{**entry, "EventBusName": STACK_NAME}])
    good, bad = doors.take("RequestsQueue")
    for message in (good, bad):
        assert doors.invoke("intake", [message]).payload == {"batchItemFailures": []}
    (message,) = doors.take("Inbox")
    event = json.loads(good["Body"])["event"]["id"]
    body = json.loads(message["Body"])
    assert (body["caller"], body["report"]) == ("events", f"reports/events/{event}")
    report = doors.read(f"reports/events/{json.loads(bad['Body'])['event']['id']}.json")
    assert [error["code"] for error in report["lines"][0]["errors"]] == ["unsupportedDuration"]


def test_an_encoded_file_is_reported(doors: Doors) -> None:
    """S3 tells the header of the version that was dropped."""
    report = doors.put("a.jsonl", b"{}", ContentEncoding="gzip")
    assert doors.taken_in() == []
    assert "Content-Encoding" in doors.read(report)["errors"][0]["message"]


def test_an_image_is_kept_and_sent_as_a_link(doors: Doors, stack: Stack) -> None:
    """A dropped image becomes the first frame: kept in its caller's folder, and given to Runware by a link."""
    report = doors.put("scene.jpg", picture(), Metadata={"prompt": "a lighthouse"})
    messages = doors.taken_in()
    task = json.loads(messages[0]["Body"])["task"]
    digest = hashlib.sha256(picture()).hexdigest()
    key = f"inputs/{CALLER}/{digest}.png"
    assert task["inputs"] == {"frameImages": [f"s3://{stack.bucket_name}/{key}"]}
    assert doors.read(report)["accepted"] == 1
    assert doors.invoke("submit", messages).payload == {"batchItemFailures": []}
    (sent,) = submissions(stack)
    (image,) = sent["inputs"]["frameImages"]
    assert http().get(image).content == picture()


def test_an_image_that_runware_would_refuse_is_reported(doors: Doors) -> None:
    """A picture that is too small is a fault of its drop."""
    report = doors.put("small.png", picture(20, 20), Metadata={"prompt": "a lighthouse"})
    assert doors.taken_in() == []
    assert doors.read(report)["lines"][0]["errors"]


def test_metadata_is_read_with_the_image(doors: Doors) -> None:
    """An image's metadata arrives by its lower-case names, and what is wrong with it is reported."""
    report = doors.put("a.png", PNG, Metadata={"Prompt": "=?utf-8?q?a_D=C3=A4mmerung?=", "Duration": "7"})
    assert doors.taken_in() == []
    (line,) = doors.read(report)["lines"]
    assert [error["parameter"] for error in line["errors"]][:1] == ["duration"]


def test_a_file_that_is_gone_is_done_with(doors: Doors, stack: Stack, logged: list[str]) -> None:
    """A version deleted before it was read, whatever was put since, is a line in the log."""
    report = doors.put("gone.json", json.dumps(order()).encode())
    version = report.removesuffix(".json").rpartition(".")[2]
    key = f"requests/{CALLER}/gone.json"
    doors.s3.delete_object(Bucket=stack.bucket_name, Key=key, VersionId=version)
    assert doors.taken_in() == []
    assert any("request file was deleted" in line for line in logged)


def message_of(body: str) -> Json:
    return {"MessageId": "1", "ReceiptHandle": "h", "Body": body, "MD5OfBody": "", "Attributes": {}}


@pytest.mark.parametrize(
    "body", ["[]", '{"detail-type": "Object Deleted", "detail": {}}', '{"caller": "A", "event": {}}']
)
def test_what_no_rule_sends_goes_aside(body: str, doors: Doors) -> None:
    """A message of another shape fails, so that it ends in the dead-letter queue: the rules are not as they were."""
    assert doors.invoke("intake", [message_of(body)]).kind == "error"


@pytest.mark.parametrize(
    "body", ["{", "[" * 100_000, '{"source": "rushes", "detail-type": "Clip Stored", "detail": {}}']
)
def test_what_can_never_be_read_is_done_with(body: str, doors: Doors) -> None:
    """What is no JSON now is none the next time, and an event of the service's own orders nothing: it is done."""
    assert doors.invoke("intake", [message_of(body)]).payload == {"batchItemFailures": []}


def test_a_key_that_is_no_text_is_reported(doors: Doors) -> None:
    """Half of a character in a key, which S3 would never have, has a report under a name of its own."""
    detail = {"object": {"key": f"requests/{CALLER}/\ud800.json", "version-id": "v"}}
    body = json.dumps({"detail-type": "Object Created", "detail": detail})
    assert doors.invoke("intake", [message_of(body)]).payload == {"batchItemFailures": []}
    name = hashlib.sha256(b"\xed\xa0\x80.json").hexdigest()
    assert doors.read(f"reports/{CALLER}/{name}.v.json")["errors"]


@pytest.mark.parametrize(
    "event",
    [{"detail": 5}, {"id": 5, "detail": order()}, {}, {"id": "a\ud800", "detail": {"\ud800": 1}}, {"id": "../x"}],
    ids=["no object", "no id", "nothing", "surrogates", "dots"],
)
def test_an_event_that_is_no_order_is_answered_once(event: Json, doors: Doors, stack: Stack) -> None:
    """Whatever is wrong with an event, it is taken or reported in its caller's folder, and does not come back."""
    before = whole_table(stack)
    body = json.dumps({"caller": "events", "event": {"detail-type": "Video Requested", **event}})
    assert doors.invoke("intake", [message_of(body)]).payload == {"batchItemFailures": []}
    assert whole_table(stack) == before


def test_a_redelivered_event_keeps_its_caller(doors: Doors, stack: Stack) -> None:
    """The caller is the one of the rule when the event matched: no setting of a function can give it another."""
    entry = {"Source": "a", "DetailType": "Video Requested", "Detail": json.dumps(order()), "EventBusName": STACK_NAME}
    client(stack, "events").put_events(Entries=[entry])
    (message,) = doors.take("RequestsQueue")
    assert json.loads(message["Body"])["caller"] == "events"
    for _ in range(2):
        assert doors.invoke("intake", [message]).payload == {"batchItemFailures": []}
    assert [json.loads(sent["Body"])["caller"] for sent in doors.take("Inbox")] == ["events"] * 2
    assert not [
        name for each in stack.functions.values() for name in each.function.environment if "EVENTS_CALLER" in name
    ]


def test_a_file_that_is_put_twice_is_bought_once(doors: Doors) -> None:
    """As when a client gets no answer and puts it again: another version, taken for a repeat in either order."""
    content = json.dumps(order(taskUUID=...)).encode()
    first, second = (doors.put("twice.json", content) for _ in range(2))
    messages = doors.take("RequestsQueue")
    assert len(messages) == 2
    for message in reversed(messages):
        assert doors.invoke("intake", [message]).payload == {"batchItemFailures": []}
    (sent,) = doors.take("Inbox")
    (line,) = doors.read(first)["lines"]
    assert json.loads(sent["Body"])["task"]["taskUUID"] == line["taskUUID"]
    (error,) = doors.read(second)["errors"]
    assert (error["code"], error["repeatOf"]) == ("repeatedFile", doors.read(first)["versionId"])


def test_a_file_that_is_put_again_on_purpose_is_another_order(doors: Doors, stack: Stack) -> None:
    """After other content, after a deletion, or with the word for it in the metadata."""
    content = json.dumps(order(taskUUID=...)).encode()
    doors.put("again.json", content)
    doors.put("again.json", content, Metadata={"again": "2"})
    doors.put("again.json", content + b" ")
    doors.put("again.json", content)
    doors.s3.delete_object(Bucket=stack.bucket_name, Key=f"requests/{CALLER}/again.json")
    doors.put("again.json", content)
    doors.put("again.jsonl", content)
    messages = doors.take("RequestsQueue")
    assert len(messages) == 6
    for message in messages:
        assert doors.invoke("intake", [message]).payload == {"batchItemFailures": []}
    assert len(doors.take("Inbox")) == 6


def test_a_caller_that_no_operator_made_may_spend_nothing(doors: Doors, stack: Stack) -> None:
    """Its file is answered by a report, and so is an order of a caller that was disabled on the way."""
    put = doors.s3.put_object(
        Bucket=stack.bucket_name, Key="requests/alice-2/a.jsonl", Body=b"\n".join([json.dumps(order()).encode()] * 3)
    )
    assert doors.taken_in() == []
    report = doors.read(f"reports/alice-2/a.jsonl.{put['VersionId']}.json")
    assert [error["code"] for error in report["errors"]] == ["callerNotAllowed"]

    task = order()
    message = {"caller": "alice-2", "task": task, "report": "reports/alice-2/b.json.v"}
    before = whole_table(stack)
    assert doors.invoke("submit", [message_of(json.dumps(message))]).payload == {"batchItemFailures": []}
    refusal = doors.read(f"reports/alice-2/b.json.v.{task['taskUUID']}.json")
    assert [error["code"] for error in refusal["errors"]] == ["callerNotAllowed"]
    assert whole_table(stack) == before


def test_a_queue_that_refuses_fails_the_file(doors: Doors, stack: Stack) -> None:
    """When the inbox does not take the messages, the file comes again and no report says that it was accepted."""
    report = doors.put("a.json", json.dumps(order()).encode())
    messages, before = doors.take("RequestsQueue"), whole_table(stack)
    stack.aws.faults.fail("other", "ThrottlingException")
    assert doors.invoke("intake", messages).kind == "error"
    stack.aws.faults.clear()
    assert "Contents" not in doors.s3.list_objects_v2(Bucket=stack.bucket_name, Prefix=report)
    assert whole_table(stack) == before

"""Request files and events through the real rules and queues into the inbox, and from there to Runware."""

import hashlib
import json
from typing import Any

import pytest

from rushes.domain.caller import Caller
from rushes.domain.clip import Status
from rushes_local.event_sources import queue_event
from rushes_local.lambda_runtime import Outcome
from rushes_local.stack import STACK_NAME, Stack
from tests.conftest import PATIENCE, Json, client, http, order, submissions, whole_bucket, whole_table
from tests.object_keys import OBJECT_NAMES, longest
from tests.unit.pictures import picture

CALLER = "ada"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


class Inputs:
    """The stack's queues, bucket and bus, and the functions behind them, invoked by the test."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.s3, self.sqs = stack, client(stack, "s3"), client(stack, "sqs")
        for name in (CALLER, "events"):
            stack.store.set_caller(Caller(name, 2 * 924_000))
        for name in ("RequestsQueue", "Inbox"):
            while self.receive(name):
                pass

    def url(self, queue: str) -> str:
        cloudformation = client(self.stack, "cloudformation")
        found = cloudformation.describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=queue)
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def receive(self, queue: str, limit: int = 10) -> list[Json]:
        """Receives messages from a queue and deletes them."""
        url = self.url(queue)
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=limit, MessageSystemAttributeNames=["All"])
        found: list[Json] = answer.get("Messages", [])
        for message in found:
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def invoke(self, function: str, messages: list[Json]) -> Outcome:
        return self.stack.functions[function].invoke(queue_event(messages, "arn:aws:sqs:us-east-1:123456789012:q"))

    def put(self, name: str, content: bytes, **more: Any) -> str:
        """Puts a request file and returns its report's key."""
        key = f"requests/{CALLER}/{name}"
        version = self.s3.put_object(Bucket=self.stack.bucket_name, Key=key, Body=content, **more)["VersionId"]
        return f"reports/{CALLER}/{name}.{version}.json"

    def read(self, key: str) -> Any:
        return json.loads(self.s3.get_object(Bucket=self.stack.bucket_name, Key=key)["Body"].read())

    def import_all(self) -> list[Json]:
        """Runs intake on all waiting messages and returns its messages to the inbox."""
        while messages := self.receive("RequestsQueue"):
            assert self.invoke("intake", messages).payload == {"batchItemFailures": []}
        return [message for messages in iter(lambda: self.receive("Inbox"), []) for message in messages]

    def import_one(self) -> list[Json]:
        """Runs intake on the waiting message and returns its messages to the inbox."""
        messages = self.receive("RequestsQueue")
        assert len(messages) == 1
        assert self.invoke("intake", messages).payload == {"batchItemFailures": []}
        return self.receive("Inbox")


@pytest.fixture
def inputs(stack: Stack) -> Inputs:
    """Empty queues, and a caller with money for two clips."""
    return Inputs(stack)


def test_a_request_file_is_bought(inputs: Inputs, stack: Stack) -> None:
    """Valid lines are bought once; only the order beyond the budget and the invalid message are retried."""
    lines = [order(taskUUID=...), "{", order(), order()]
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode()
    report = inputs.put("a b+ü/%41.jsonl", content)
    messages = inputs.import_one()
    assert [line["line"] for line in inputs.read(report)["lines"] if line.get("accepted")] == [1, 3, 4]
    assert len(messages) == 3

    poison = {**messages[0], "MessageId": "poison", "Body": "{"}
    batch = [messages[0], poison, *messages[1:]]
    outcome = inputs.invoke("submit", batch)
    failed = [failure["itemIdentifier"] for failure in outcome.payload["batchItemFailures"]]
    assert failed == ["poison", messages[2]["MessageId"]]
    assert inputs.invoke("submit", batch).payload == outcome.payload
    # Not an error of the function even alone: a used-up budget must not raise that alarm.
    assert inputs.invoke("submit", [messages[2]]).payload == {
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


def test_names_of_files(inputs: Inputs, stack: Stack) -> None:
    """The event, the report and the version before of a file are found under its name, without any encoding."""
    task = json.dumps(order(taskUUID=...)).encode()
    reports = {name: inputs.put(f"{name}.json", task) for name in OBJECT_NAMES.values()}
    imported = [json.loads(message["Body"])["report"] for message in inputs.import_all()]
    assert sorted(imported) == sorted(report.removesuffix(".json") for report in reports.values())
    stored = whole_bucket(stack)
    for name, report in reports.items():
        content = inputs.read(report)
        assert content["object"] == f"s3://{stack.bucket_name}/requests/{CALLER}/{name}.json"
        assert (f"requests/{CALLER}/{name}.json", content["versionId"]) in stored

    reports = {name: inputs.put(f"{name}.json", task) for name in OBJECT_NAMES.values()}
    assert inputs.import_all() == []
    for report in reports.values():
        assert [error["code"] for error in inputs.read(report)["errors"]] == ["repeatedFile"]


def test_the_longest_name(inputs: Inputs, stack: Stack) -> None:
    """A file whose key has 1,024 bytes is imported; its report has the hash of its name."""
    key = longest(f"requests/{CALLER}/a%20b.json")
    client(stack, "s3").put_object(Bucket=stack.bucket_name, Key=key, Body=json.dumps(order(taskUUID=...)).encode())
    (message,) = inputs.import_one()
    report = json.loads(message["Body"])["report"]
    name = hashlib.sha256(key.removeprefix(f"requests/{CALLER}/").encode()).hexdigest()
    assert report.startswith(f"reports/{CALLER}/{name}.")
    assert inputs.read(f"{report}.json")["object"] == f"s3://{stack.bucket_name}/{key}"


def test_a_refusal_after_the_import_is_put_beside_the_report(inputs: Inputs) -> None:
    """A conflict of a UUID is not retried, and its refusal is written beside the file's report."""
    task = order()
    inputs.put("a.json", json.dumps(task).encode())
    assert inputs.invoke("submit", inputs.import_one()).payload == {"batchItemFailures": []}
    report = inputs.put("b.json", json.dumps({**task, "positivePrompt": "another"}).encode())
    assert inputs.invoke("submit", [inputs.import_one()[-1]]).payload == {"batchItemFailures": []}
    refusal = inputs.read(f"{report.removesuffix('.json')}.{task['taskUUID']}.json")
    assert [error["code"] for error in refusal["errors"]] == ["conflictTaskUUID"]
    assert inputs.read(report)["accepted"] == 1


def test_a_request_on_the_bus_is_imported(inputs: Inputs, stack: Stack) -> None:
    """A `Video Requested` event of any source is a task of the bus's caller; an invalid one gets a report."""
    for detail in (order(), order(duration=7)):
        entry = {"Source": "a.pipeline", "DetailType": "Video Requested", "Detail": json.dumps(detail)}
        client(stack, "events").put_events(Entries=[{**entry, "EventBusName": STACK_NAME}])
    good, bad = inputs.receive("RequestsQueue")
    for message in (good, bad):
        assert inputs.invoke("intake", [message]).payload == {"batchItemFailures": []}
    (message,) = inputs.receive("Inbox")
    event = json.loads(good["Body"])["event"]["id"]
    body = json.loads(message["Body"])
    assert (body["caller"], body["report"]) == ("events", f"reports/events/{event}")
    report = inputs.read(f"reports/events/{json.loads(bad['Body'])['event']['id']}.json")
    assert [error["code"] for error in report["lines"][0]["errors"]] == ["unsupportedDuration"]


def test_an_encoded_file_is_reported(inputs: Inputs) -> None:
    """The Content-Encoding of the file's own version is refused in its report."""
    report = inputs.put("a.jsonl", b"{}", ContentEncoding="gzip")
    assert inputs.import_one() == []
    assert "Content-Encoding" in inputs.read(report)["errors"][0]["message"]


def test_an_image_is_stored_and_sent_as_a_link(inputs: Inputs, stack: Stack) -> None:
    """An image file becomes the first frame: stored in its caller's folder and sent to Runware as a link."""
    report = inputs.put("scene.jpg", picture(), Metadata={"prompt": "a lighthouse"})
    messages = inputs.import_one()
    task = json.loads(messages[0]["Body"])["task"]
    digest = hashlib.sha256(picture()).hexdigest()
    key = f"inputs/{CALLER}/{digest}.png"
    assert task["inputs"] == {"frameImages": [f"s3://{stack.bucket_name}/{key}"]}
    assert inputs.read(report)["accepted"] == 1
    assert inputs.invoke("submit", messages).payload == {"batchItemFailures": []}
    (sent,) = submissions(stack)
    (image,) = sent["inputs"]["frameImages"]
    assert http().get(image).content == picture()


def test_an_image_that_runware_would_refuse_is_reported(inputs: Inputs) -> None:
    """An image below the minimum size is refused in its report."""
    report = inputs.put("small.png", picture(20, 20), Metadata={"prompt": "a lighthouse"})
    assert inputs.import_one() == []
    assert inputs.read(report)["lines"][0]["errors"]


def test_metadata_is_read_with_the_image(inputs: Inputs) -> None:
    """Faults in an image's metadata are reported under the lower-case names."""
    report = inputs.put("a.png", PNG, Metadata={"Prompt": "=?utf-8?q?a_D=C3=A4mmerung?=", "Duration": "7"})
    assert inputs.import_one() == []
    (line,) = inputs.read(report)["lines"]
    assert [error["parameter"] for error in line["errors"]][:1] == ["duration"]


def test_a_deleted_file_is_not_retried(inputs: Inputs, stack: Stack, logged: list[str]) -> None:
    """A version that was deleted before its import is logged and not retried."""
    report = inputs.put("gone.json", json.dumps(order()).encode())
    version = report.removesuffix(".json").rpartition(".")[2]
    key = f"requests/{CALLER}/gone.json"
    inputs.s3.delete_object(Bucket=stack.bucket_name, Key=key, VersionId=version)
    assert inputs.import_one() == []
    assert any("request file was deleted" in line for line in logged)


def message_of(body: str) -> Json:
    return {"MessageId": "1", "ReceiptHandle": "h", "Body": body, "MD5OfBody": "", "Attributes": {}}


@pytest.mark.parametrize(
    "body", ["[]", '{"detail-type": "Object Deleted", "detail": {}}', '{"caller": "A", "event": {}}']
)
def test_an_unexpected_message_is_retried(body: str, inputs: Inputs) -> None:
    """A message in a shape that no rule sends fails, so that it ends in the dead-letter queue."""
    assert inputs.invoke("intake", [message_of(body)]).kind == "error"


@pytest.mark.parametrize(
    "body", ["{", "[" * 100_000, '{"source": "rushes", "detail-type": "Clip Stored", "detail": {}}']
)
def test_an_unreadable_message_is_not_retried(body: str, inputs: Inputs) -> None:
    """A message that is not JSON, or an event of the service itself, is dropped."""
    assert inputs.invoke("intake", [message_of(body)]).payload == {"batchItemFailures": []}


def test_a_key_with_a_lone_surrogate_is_reported(inputs: Inputs) -> None:
    """A key with half a character, which S3 never sends, gets a report under a hashed name."""
    detail = {"object": {"key": f"requests/{CALLER}/\ud800.json", "version-id": "v"}}
    body = json.dumps({"detail-type": "Object Created", "detail": detail})
    assert inputs.invoke("intake", [message_of(body)]).payload == {"batchItemFailures": []}
    name = hashlib.sha256(b"\xed\xa0\x80.json").hexdigest()
    assert inputs.read(f"reports/{CALLER}/{name}.v.json")["errors"]


@pytest.mark.parametrize(
    "event",
    [{"detail": 5}, {"id": 5, "detail": order()}, {}, {"id": "a\ud800", "detail": {"\ud800": 1}}, {"id": "../x"}],
    ids=["no object", "no id", "nothing", "surrogates", "dots"],
)
def test_an_invalid_event_is_not_retried(event: Json, inputs: Inputs, stack: Stack) -> None:
    """An invalid event is imported or reported in its caller's folder, and is not retried."""
    before = whole_table(stack)
    body = json.dumps({"caller": "events", "event": {"detail-type": "Video Requested", **event}})
    assert inputs.invoke("intake", [message_of(body)]).payload == {"batchItemFailures": []}
    assert whole_table(stack) == before


def test_a_redelivered_event_keeps_its_caller(inputs: Inputs, stack: Stack) -> None:
    """The caller comes from the rule that matched the event, not from a function's settings."""
    entry = {"Source": "a", "DetailType": "Video Requested", "Detail": json.dumps(order()), "EventBusName": STACK_NAME}
    client(stack, "events").put_events(Entries=[entry])
    (message,) = inputs.receive("RequestsQueue")
    assert json.loads(message["Body"])["caller"] == "events"
    for _ in range(2):
        assert inputs.invoke("intake", [message]).payload == {"batchItemFailures": []}
    assert [json.loads(sent["Body"])["caller"] for sent in inputs.receive("Inbox")] == ["events"] * 2
    assert not [
        name for each in stack.functions.values() for name in each.function.environment if "EVENTS_CALLER" in name
    ]


def test_a_file_that_is_put_twice_is_bought_once(inputs: Inputs) -> None:
    """A second version with the same content counts as a repeat, in either order of import."""
    content = json.dumps(order(taskUUID=...)).encode()
    first, second = (inputs.put("twice.json", content) for _ in range(2))
    messages = inputs.receive("RequestsQueue")
    assert len(messages) == 2
    for message in reversed(messages):
        assert inputs.invoke("intake", [message]).payload == {"batchItemFailures": []}
    (sent,) = inputs.receive("Inbox")
    (line,) = inputs.read(first)["lines"]
    assert json.loads(sent["Body"])["task"]["taskUUID"] == line["taskUUID"]
    (error,) = inputs.read(second)["errors"]
    assert (error["code"], error["repeatOf"]) == ("repeatedFile", inputs.read(first)["versionId"])


def test_a_file_that_is_put_again_on_purpose_is_another_order(inputs: Inputs, stack: Stack) -> None:
    """The same content is another order after other content, after a deletion, or with the `again` metadata."""
    content = json.dumps(order(taskUUID=...)).encode()
    inputs.put("again.json", content)
    inputs.put("again.json", content, Metadata={"again": "2"})
    inputs.put("again.json", content + b" ")
    inputs.put("again.json", content)
    inputs.s3.delete_object(Bucket=stack.bucket_name, Key=f"requests/{CALLER}/again.json")
    inputs.put("again.json", content)
    inputs.put("again.jsonl", content)
    messages = inputs.receive("RequestsQueue")
    assert len(messages) == 6
    for message in messages:
        assert inputs.invoke("intake", [message]).payload == {"batchItemFailures": []}
    assert len(inputs.receive("Inbox")) == 6


def test_an_unknown_caller_may_spend_nothing(inputs: Inputs, stack: Stack) -> None:
    """A file of an unknown caller, or an order of one disabled after the import, is answered by a report."""
    put = inputs.s3.put_object(
        Bucket=stack.bucket_name, Key="requests/alice-2/a.jsonl", Body=b"\n".join([json.dumps(order()).encode()] * 3)
    )
    assert inputs.import_one() == []
    report = inputs.read(f"reports/alice-2/a.jsonl.{put['VersionId']}.json")
    assert [error["code"] for error in report["errors"]] == ["callerNotAllowed"]

    task = order()
    message = {"caller": "alice-2", "task": task, "report": "reports/alice-2/b.json.v"}
    before = whole_table(stack)
    assert inputs.invoke("submit", [message_of(json.dumps(message))]).payload == {"batchItemFailures": []}
    refusal = inputs.read(f"reports/alice-2/b.json.v.{task['taskUUID']}.json")
    assert [error["code"] for error in refusal["errors"]] == ["callerNotAllowed"]
    assert whole_table(stack) == before


def test_a_queue_that_refuses_fails_the_file(inputs: Inputs, stack: Stack) -> None:
    """If the inbox rejects the messages, the file is retried and has no report."""
    report = inputs.put("a.json", json.dumps(order()).encode())
    messages, before = inputs.receive("RequestsQueue"), whole_table(stack)
    stack.aws.faults.fail("other", "ThrottlingException")
    assert inputs.invoke("intake", messages).kind == "error"
    stack.aws.faults.clear()
    assert "Contents" not in inputs.s3.list_objects_v2(Bucket=stack.bucket_name, Prefix=report)
    assert whole_table(stack) == before

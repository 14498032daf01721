"""Every file of events/ is sent to the built functions in Lambda containers.

One event for each function goes through `sam local invoke`, the others through `sam local start-lambda`. Image and
runtime are the same, but `invoke` makes both for every event.
"""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rushes.domain import webhook_token
from rushes.domain.caller import Caller, hash_key
from rushes.domain.clip import Clip, FactSource, Kind, Status
from rushes_local.stack import Stack
from tests.event_listener import Listener
from tests.sam.conftest import Answer

pytestmark = [pytest.mark.sam, pytest.mark.timeout(600)]

EVENTS = Path(__file__).resolve().parents[2] / "events"
# The names in the files of events/; its README lists them.
CALLER, KEY = "alice", "rushes_example-key-of-the-events-folder"
TASK, CLIP = "4f0c8a52-7d1e-4b53-9a06-2c8e5d1f7b90", "b7c1d2e3-5a64-4f08-8e19-3d2f6a7b8c90"

Invoke = Callable[[str, dict[str, Any]], Answer]


def load(name: str, **replacements: str) -> dict[str, Any]:
    """An event with some of its texts replaced."""
    text = (EVENTS / f"{name}.json").read_text()
    for old, new in {TASK: replacements.get("task"), CLIP: replacements.get("clip")}.items():
        text = text.replace(old, new or old)
    event: dict[str, Any] = json.loads(text.replace("PLACEHOLDER", replacements.get("token", "PLACEHOLDER")))
    return event


@pytest.fixture(scope="module", autouse=True)
def alice(running: Stack) -> None:
    """Adds the caller of the events, with the key in them."""
    running.store.add_key(hash_key(KEY), Caller(CALLER, 1_000_000_000), "the events' caller", int(time.time() * 1000))


@pytest.fixture
def bought(stack: Stack, invoke: Invoke) -> Clip:
    """A newly bought clip under its own task."""
    task = str(uuid.uuid4())
    assert invoke("SubmitFunction", load("submit-valid", task=task)).status == 200
    return recorded(stack, task)


def recorded(stack: Stack, task: str) -> Clip:
    clip = stack.store.clip(CALLER, task, 0)
    assert clip is not None
    return clip


def callback(name: str, clip: Clip, stack: Stack) -> dict[str, Any]:
    """A webhook's event about this clip, with a valid token."""
    # In the stack a secret has its logical ID as its name.
    secret = stack.client("secretsmanager").get_secret_value(SecretId="WebhookSecret")["SecretString"]
    subject = webhook_token.subject(CALLER, clip.task_uuid, clip.index)
    token = webhook_token.sign(subject, [json.loads(secret)["current"]], int(time.time() * 1000))
    return load(name, task=clip.task_uuid, clip=clip.clip_uuid, token=token)


def whole_table(stack: Stack) -> list[dict[str, Any]]:
    """All items of the table, sorted by key."""
    items = stack.client("dynamodb").scan(TableName=stack.table_name, ConsistentRead=True)["Items"]
    return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def orders(stack: Stack, clip_uuid: str | None = None) -> list[dict[str, Any]]:
    """The tasks that Runware was asked to render, or only that of one clip."""
    tasks = [each.task for each in stack.emulator.requests() if each.task.get("taskType") == "videoInference"]
    return [task for task in tasks if clip_uuid in (None, task["taskUUID"])]


def test_a_valid_submission_is_recorded_and_bought(invoke_anew: Invoke, stack: Stack) -> None:
    """The container records the order and buys the clip from Runware with its upload link and callback."""
    task = str(uuid.uuid4())
    answer = invoke_anew("SubmitFunction", load("submit-valid", task=task))
    assert (answer.status, answer.body) == (200, {"data": [{"taskType": "videoInference", "taskUUID": task}]})
    clip = recorded(stack, task)
    assert clip.status is Status.RUNNING
    (order,) = orders(stack, clip.clip_uuid)
    assert order["webhookURL"].startswith(f"{stack.url}/webhooks/runware/{CALLER}/{task}/0?token=")
    assert order["uploadEndpoint"].startswith(stack.aws_url)


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("submit-invalid-*.json")))
def test_an_invalid_submission_is_refused(name: str, invoke: Invoke, stack: Stack) -> None:
    """A refusal has its errors, records nothing and buys nothing."""
    before, asked = whole_table(stack), len(orders(stack))
    answer = invoke("SubmitFunction", load(name))
    assert answer.status == 400
    assert answer.body["errors"]
    assert all(error["code"] and error["message"] for error in answer.body["errors"])
    assert whole_table(stack) == before
    assert len(orders(stack)) == asked


@pytest.mark.parametrize("name", ["webhook-success-enveloped", "webhook-success-flat"])
def test_a_result_is_recorded(name: str, bought: Clip, invoke: Invoke, stack: Stack) -> None:
    """A finished clip is recorded as rendered, from either form of the webhook."""
    assert invoke("WebhookFunction", callback(name, bought, stack)).status == 200
    assert recorded(stack, bought.task_uuid).status is Status.RENDERED


def test_a_failure_is_recorded(bought: Clip, invoke_anew: Invoke, stack: Stack) -> None:
    """A failed render is recorded as failed."""
    assert invoke_anew("WebhookFunction", callback("webhook-failure", bought, stack)).status == 200
    assert recorded(stack, bought.task_uuid).status is Status.FAILED


def test_a_forged_webhook_changes_nothing(bought: Clip, invoke: Invoke, stack: Stack) -> None:
    """A webhook with an invalid token gets a 401 and changes nothing in the table."""
    before = whole_table(stack)
    answer = invoke("WebhookFunction", load("webhook-forged", task=bought.task_uuid, clip=bought.clip_uuid))
    assert answer.status == 401
    assert whole_table(stack) == before


def test_the_sweep_finds_a_render_without_webhook(bought: Clip, invoke_anew: Invoke, stack: Stack) -> None:
    """A sweep polls Runware about a due clip and records the render."""
    stack.emulator.faults.webhook_copies = 0
    stack.emulator.faults.upload = "never"
    stack.emulator.finish(bought.clip_uuid)
    assert stack.emulator.idle(60)
    current = recorded(stack, bought.task_uuid)
    stack.store.save(current, replace(current, next_check_at=1))
    assert invoke_anew("ReconcileFunction", load("schedule")).payload["taken"] >= 1
    assert recorded(stack, bought.task_uuid).status is Status.RENDERED


def test_an_upload_is_recorded(bought: Clip, invoke: Invoke, stack: Stack) -> None:
    """S3's event about an object makes the clip stored before any webhook."""
    video = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x48mdat" + bytes(64)
    put = stack.client("s3").put_object(Bucket=stack.bucket_name, Key=bought.object_key, Body=video)
    event = load("object-created")
    message = json.loads(event["Records"][0]["body"])
    message["detail"]["object"] |= {"key": bought.object_key, "version-id": put["VersionId"]}
    event["Records"][0]["body"] = json.dumps(message)
    assert invoke("ReconcileFunction", event).payload == {"batchItemFailures": []}
    assert recorded(stack, bought.task_uuid).status is Status.STORED


def test_a_stored_clip_is_published(bought: Clip, invoke_anew: Invoke, stack: Stack) -> None:
    """The stream's record of a stored clip leads to an event on the bus and a manifest beside the clip."""
    listener = Listener(stack)
    put = stack.client("s3").put_object(Bucket=stack.bucket_name, Key=bought.object_key, Body=b"a video")
    event = load("clip-changed", task=bought.task_uuid, clip=bought.clip_uuid)
    image = event["Records"][0]["dynamodb"]["NewImage"]
    facts = image["facts"]["M"]
    facts[f"stored:{put['VersionId']}"] = facts.pop(next(name for name in facts if name.startswith("stored:")))
    image["objectKey"] = {"S": bought.object_key}
    assert invoke_anew("PublishFunction", event).payload == {"batchItemFailures": []}
    (published,) = listener.about(bought.clip_uuid)
    assert published["detail-type"] == "Clip Stored"
    where = {"Bucket": stack.bucket_name, "Key": published["detail"]["manifestKey"]}
    assert json.loads(stack.client("s3").get_object(**where)["Body"].read())["versionId"] == put["VersionId"]


def test_a_request_file_is_imported(invoke_anew: Invoke, stack: Stack) -> None:
    """A request file's valid line is sent to the inbox, and a report about both lines is written."""
    key, report = "requests/alice/campaign/lines.jsonl", "reports/alice/campaign/lines.jsonl"
    lines = f'{{"taskUUID": "{uuid.uuid4()}", "model": "klingai:5@3", "positivePrompt": "a lighthouse"}}\n{{'
    put = stack.client("s3").put_object(Bucket=stack.bucket_name, Key=key, Body=lines.encode())
    event = load("request-dropped")
    message = json.loads(event["Records"][0]["body"])
    message["detail"]["object"]["version-id"] = put["VersionId"]
    event["Records"][0]["body"] = json.dumps(message)
    assert invoke_anew("IntakeFunction", event).payload == {"batchItemFailures": []}
    answer = stack.client("s3").get_object(Bucket=stack.bucket_name, Key=f"{report}.{put['VersionId']}.json")
    content = json.loads(answer["Body"].read())
    assert (content["accepted"], content["refused"]) == (1, 1)


def test_a_request_event_is_imported(invoke: Invoke) -> None:
    """A request event from the bus is processed without a failure."""
    assert invoke("IntakeFunction", load("video-requested")).payload == {"batchItemFailures": []}


def test_a_message_of_the_inbox_is_bought(invoke: Invoke, stack: Stack) -> None:
    """A message's task is bought for the caller in the message."""
    task = str(uuid.uuid4())
    assert invoke("SubmitFunction", load("inbox-message", task=task)).payload == {"batchItemFailures": []}
    assert len(orders(stack, recorded(stack, task).clip_uuid)) == 1


def test_a_whole_task_through_the_apis(stack: Stack) -> None:
    """A task is ordered over HTTP, rendered, uploaded and reported by webhook with containers behind both APIs, and
    ends stored."""
    task = str(uuid.uuid4())
    order = load("submit-valid", task=task)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    response = httpx.post(f"{stack.url}/v1", content=order["body"], headers=headers, timeout=60, trust_env=False)
    assert (response.status_code, response.json()) == (
        200,
        {"data": [{"taskType": "videoInference", "taskUUID": task}]},
    )
    stack.emulator.finish(recorded(stack, task).clip_uuid)
    assert stack.emulator.idle(60)
    clip = recorded(stack, task)
    assert clip.status is Status.STORED
    (rendered,) = clip.of(Kind.RENDERED).values()
    assert set(rendered.seen) == {FactSource.WEBHOOK}


def test_a_callers_tasks_can_be_read(bought: Clip, invoke_anew: Invoke, invoke: Invoke, stack: Stack) -> None:
    """Tasks, one task, costs and budget are returned for a valid key, and nothing without one."""
    listed = invoke_anew("TasksFunction", load("tasks-list"))
    assert listed.status == 200
    assert listed.body["tasks"][0]["taskUUID"] == bought.task_uuid
    one = invoke("TasksFunction", load("tasks-one", task=bought.task_uuid))
    assert (one.status, one.body["clips"][0]["clipUUID"]) == (200, bought.clip_uuid)
    costs = invoke("TasksFunction", load("tasks-costs"))
    assert costs.body["costs"][0]["taskUUID"] == bought.task_uuid
    budget = invoke("TasksFunction", load("tasks-budget"))
    assert (budget.status, budget.body["month"]) == (200, bought.month)
    assert invoke("TasksFunction", load("tasks-no-key")).status == 401


def test_an_obsolete_delivery_is_dropped(bought: Clip, invoke: Invoke) -> None:
    """The function of deliveries starts in its package, with its layer and settings."""
    assert invoke("DeliverFunction", load("delivery", task=bought.task_uuid)).payload == {"batchItemFailures": []}


def test_the_page_is_served(invoke: Invoke) -> None:
    """The package contains the page beside its handler."""
    payload = invoke("TasksFunction", load("tasks-page")).payload
    assert payload["statusCode"] == 200
    assert payload["body"].startswith("<!doctype html>")


def test_a_poll_is_answered(bought: Clip, invoke: Invoke) -> None:
    """`getResponse` is answered from the record."""
    answer = invoke("SubmitFunction", load("poll", task=bought.task_uuid))
    about = {"taskType": "videoInference", "taskUUID": bought.task_uuid}
    assert (answer.status, answer.body) == (200, {"data": [{**about, "status": "processing"}]})


def test_every_event_is_sent_by_one_of_these_tests() -> None:
    """Every file in events/ is sent by a test of this module."""
    webhooks = {"webhook-success-enveloped", "webhook-success-flat", "webhook-failure", "webhook-forged"}
    names = {path.stem for path in EVENTS.glob("*.json") if not path.stem.startswith("submit-invalid-")}
    tasks = {"tasks-list", "tasks-one", "tasks-costs", "tasks-budget", "tasks-no-key", "tasks-page"}
    messages = {"object-created", "request-dropped", "video-requested", "inbox-message", "delivery"}
    assert names == webhooks | tasks | messages | {"submit-valid", "poll", "schedule", "clip-changed"}

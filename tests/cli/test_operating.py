"""Operators' verbs on the local stack: rotating the webhook key, erasing a task, and publishing it again."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from functions.webhook import app as webhook
from rushes.adapters.dynamodb.admin import AdminTable
from rushes.adapters.secrets import SecretsManagerSecret, webhook_keys
from rushes.domain.clip import Clip, Status
from rushes.errors import BusyError
from rushes.services.purchase import callback_url
from rushes_cli.exits import Exit
from rushes_cli.operator import erase
from rushes_cli.operator.review import clock
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import STACK_NAME, Stack
from tests.cli.conftest import CommandResult, Run
from tests.conftest import PATIENCE, User, order, submissions, whole_bucket, whole_table
from tests.event_listener import Listener
from tests.unit.pictures import data_uri, picture

Json = dict[str, Any]
Rotate = Callable[[], str]
"""Rotates the webhook key and returns the output."""

Forget = Callable[[Json, User], CommandResult]
"""Erases a user's task."""

pytestmark = pytest.mark.usefixtures("account")

PROMPT = "Ada's own secret garden at dusk"


@pytest.fixture(autouse=True)
def restored_keys(stack: Stack) -> Iterator[None]:
    """Restores the webhook keys after each test, because the stack's functions cache them for minutes."""
    client, arn = stack.client("secretsmanager"), secret_arn(stack)
    before = client.get_secret_value(SecretId=arn)["SecretString"]
    yield
    client.put_secret_value(SecretId=arn, SecretString=before)


@dataclass
class Webhook:
    """The deployed webhook function, run in this process, with a clock set by the test."""

    stack: Stack
    # A minute ahead, so that no link signed by the stack is from this clock's future.
    now: int = field(default_factory=lambda: time.time_ns() // 1_000_000 + 60_000)

    def call(self, url: str) -> int:
        """The status of a callback to this URL; its body reports progress, which changes nothing."""
        parts = urlsplit(url)
        caller, task_uuid, index = parts.path.split("/")[-3:]
        clip = self.stack.store.clip(caller, task_uuid, int(index))
        assert clip is not None
        body = {"data": [{"taskType": "videoInference", "taskUUID": clip.clip_uuid, "status": "processing"}]}
        event = {
            "pathParameters": {"caller": caller, "taskUUID": task_uuid, "clip": index},
            "queryStringParameters": {"token": parse_qs(parts.query)["token"][0]},
            "body": json.dumps(body),
        }
        answer: Json = webhook.handler(event, None)  # type: ignore[arg-type]  # it does not use its context
        return int(answer["statusCode"])

    def cold(self) -> "Webhook":
        """The same function with empty caches."""
        webhook.wiring.cache_clear()
        return self


@pytest.fixture
def function(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """The webhook function with the deployed settings and a fixed clock."""
    function = Webhook(stack).cold()
    for name, value in stack.functions["webhook"].function.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    monkeypatch.setattr(sys.modules[webhook.wiring.__module__], "clock", lambda: function.now)
    yield function
    webhook.wiring.cache_clear()


def secret_arn(stack: Stack) -> str:
    return stack.functions["webhook"].function.environment["WEBHOOK_SECRET"]


def keys(stack: Stack) -> list[str]:
    """The current webhook keys, newest first."""
    return webhook_keys(SecretsManagerSecret(stack.client("secretsmanager"), secret_arn(stack), lambda: 0))


@pytest.fixture
def rotate(run: Run) -> Rotate:
    """Runs `rushes rotate`, which has to succeed."""

    def rotate() -> str:
        result = run("rotate", "--stack", STACK_NAME)
        assert result.status == 0, result.err
        return result.out + result.err

    return rotate


def newly_signed(stack: Stack, clip: Clip, now: int) -> str:
    """A callback URL, signed with the current keys."""
    return callback_url(stack.url, clip, keys(stack), now)


def test_a_rotation_keeps_the_previous_key(stack: Stack, rotate: Rotate) -> None:
    """The current key becomes the previous one, the new key is long and random, and no key is printed."""
    (first, *_) = keys(stack)
    output = rotate()
    second, previous = keys(stack)
    output += rotate()
    third, _ = keys(stack)
    assert previous == first
    assert len({first, second, third}) == 3
    assert len(second) >= 43
    assert STACK_NAME in output
    assert not any(key in output for key in (first, second, third))


def test_no_webhook_in_flight_is_lost(stack: Stack, user: User, rotate: Rotate) -> None:
    """A clip bought before a rotation is still reported by webhook after it, and becomes stored."""
    clip = user.buy()
    rotate()
    assert stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)
    assert user.now(clip).status == Status.STORED


def test_links_outlive_one_rotation(stack: Stack, user: User, function: Webhook, rotate: Rotate) -> None:
    """A link is accepted after one rotation, by a warm function and by a cold one."""
    url = user.callback(user.buy())
    assert function.call(url) == 200
    rotate()
    assert function.call(url) == 200
    assert function.cold().call(url) == 200


def test_links_do_not_outlive_two_rotations(stack: Stack, user: User, function: Webhook, rotate: Rotate) -> None:
    """After two rotations an older link is refused, so that a leaked key is useless."""
    url = user.callback(user.buy())
    rotate()
    rotate()
    assert function.cold().call(url) == 401


def test_a_new_key_is_accepted_within_a_minute(stack: Stack, user: User, function: Webhook, rotate: Rotate) -> None:
    """A warm function refuses links of a newer key for at most a minute."""
    clip = user.buy()
    assert function.call(user.callback(clip)) == 200
    rotate()
    url = newly_signed(stack, clip, function.now)
    assert function.call(url) == 401
    function.now += 60_001
    assert function.call(url) == 200


def test_forged_calls_fetch_the_keys_once_a_minute(stack: Stack, user: User, function: Webhook) -> None:
    """Any number of forged callbacks fetches the keys at most once a minute."""
    url = user.callback(user.buy())
    # Not B: the last two bits of the last character are ignored.
    forged = f"{url[:-1]}{'A' if url[-1] != 'A' else 'E'}"
    fetches: Counter[str] = Counter()
    stack.aws.observer = lambda access: fetches.update([access.operation])
    try:
        for _ in range(3):
            assert {function.call(forged) for _ in range(30)} == {401}
            function.now += 60_001
    finally:
        stack.aws.observer = None
    assert fetches["GetSecretValue"] == 3


def finished(user: User, task: Json, **switches: Any) -> Clip:
    """Orders a task, lets Runware finish it, and returns its first clip."""
    emulator = user.stack.emulator
    if switches:
        emulator.faults.next_submissions.append(OneShot(**switches))
    user.post(task)
    emulator.finish_all()
    assert emulator.idle(PATIENCE)
    return user.clips(task)[0]


@pytest.fixture
def forget(run: Run) -> Forget:
    """Runs `rushes forget` for a user's task."""
    return lambda task, user: run("forget", "--yes", user.name, task["taskUUID"].upper(), "--stack", STACK_NAME)


def put(stack: Stack, key: str) -> None:
    stack.client("s3").put_object(Bucket=stack.bucket_name, Key=key, Body=b"something")


def findings(run: Run, user: User) -> list[tuple[str, str, str]]:
    """The findings of `rushes check` about a user: flaw, subject and detail."""
    found = run("check", "--stack", STACK_NAME, "--json").json["findings"]
    return [tuple(each.values()) for each in found if user.name in each["subject"]]


def in_table(stack: Stack, text: str) -> bool:
    """Returns True if the text is anywhere in the table."""
    return text in json.dumps(whole_table(stack))


def test_a_tasks_content_is_erased(stack: Stack, user: User, forget: Forget) -> None:
    """The clips in every version, their manifests, the task's inputs, its prompt and the copy's URL are erased."""
    task = order(positivePrompt=PROMPT, numberResults=2, inputs={"frameImages": [data_uri(picture())]})
    other = order(inputs={"frameImages": [data_uri(picture(500))]})
    clip, kept = finished(user, task), finished(user, other)
    (image,) = stack.store.task(user.name, other["taskUUID"]).request["inputs"]["frameImages"]
    put(stack, clip.object_key)
    put(stack, clip.object_key.replace(".mp4", ".json"))
    put(stack, f"inputs/{user.name}/{clip.task_uuid}-0.png")
    stack.client("s3").delete_object(Bucket=stack.bucket_name, Key=clip.object_key)
    put(stack, f"inputs/{user.name}/of-no-task.png")
    assert in_table(stack, PROMPT)
    assert clip.status == Status.STORED

    result = forget(task, user)
    assert result.out.splitlines() == [
        *(f"clip {each.index}: erased, {each.object_key}" for each in user.clips(task)),
        f"The task {task['taskUUID']} was erased; 7 object versions were deleted. Its cost stays recorded.",
    ]
    left = {key for key, _ in whole_bucket(stack) if f"/{user.name}/" in key}
    others_image = image.removeprefix(f"s3://{stack.bucket_name}/")
    assert left == {kept.object_key, f"inputs/{user.name}/of-no-task.png", others_image}
    markers = stack.client("s3").list_object_versions(Bucket=stack.bucket_name, Prefix=clip.object_key)
    assert markers.get("DeleteMarkers", []) == []
    assert not in_table(stack, PROMPT)
    assert not any("videoURL" in record.fields for each in user.clips(task) for record in each.facts.values())


def test_a_tombstone_buys_nothing(stack: Stack, user: User, forget: Forget) -> None:
    """After an erasure a repeat gets its former answer, another request is a conflict, and the money stays counted."""
    task = order(positivePrompt=PROMPT)
    clip = finished(user, task)
    answer, money, bought = user.post(task), user.counted(clip), len(submissions(stack))
    forget(task, user)
    assert user.now(clip).clip_uuid == clip.clip_uuid
    assert user.now(clip).budgeted == clip.budgeted > 0
    assert user.post(task).json() == answer.json()
    conflict = user.post({**task, "positivePrompt": "another one"})
    assert [error["code"] for error in conflict.json()["errors"]] == ["conflictTaskUUID"]
    assert (user.counted(clip), len(submissions(stack))) == (money, bought)


def test_a_refusals_message_is_erased(stack: Stack, user: User, forget: Forget) -> None:
    """Runware's message, which may quote the prompt, is erased; a repeat is still refused with the same code."""
    task = order(positivePrompt=PROMPT)
    clip = finished(user, task, submit_status=400, submit_code="invalidProviderContent")
    (record,) = clip.facts.values()
    message = str(record.fields["message"])
    assert in_table(stack, message)
    forget(task, user)
    assert not in_table(stack, message)
    repeated = user.post(task)
    assert repeated.status_code == 400
    assert [error["code"] for error in repeated.json()["errors"]] == ["invalidProviderContent"]


def test_a_repeated_erasure_finds_nothing(stack: Stack, user: User, forget: Forget) -> None:
    """An erasure can be repeated and then deletes nothing more."""
    task = order(positivePrompt=PROMPT)
    finished(user, task)
    forget(task, user)
    (before,) = user.clips(task)
    s3 = stack.client("s3")
    assert erase.forget(stack.store, s3, stack.bucket_name, user.name, task["taskUUID"], clock()).deleted == 0
    assert user.clips(task) == [before]


def test_no_clip_is_stored_after_its_object_was_deleted(
    stack: Stack, user: User, monkeypatch: pytest.MonkeyPatch, forget: Forget
) -> None:
    """The clips are recorded as erased before the first object is deleted."""
    task = order(numberResults=2)
    clip = finished(user, task)
    deleting: list[list[Status]] = []

    def stop(*_: object) -> int:
        deleting.append([each.status for each in user.clips(task)])
        raise erase.ErasureError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(erase, "delete_versions", stop)
        assert forget(task, user).status == 1
    assert deleting == [[Status.ERASED, Status.ERASED]]
    assert clip.object_key in {key for key, _ in whole_bucket(stack)}


def test_an_upload_after_the_erasure_is_found_and_deleted(stack: Stack, user: User, forget: Forget, run: Run) -> None:
    """A late object is never shown; the check reports it, and a second erasure deletes it."""
    task = order(positivePrompt=PROMPT)
    clip = finished(user, task)
    forget(task, user)
    put(stack, clip.object_key)
    assert user.now(clip).status == Status.ERASED
    ((flaw, subject, _),) = findings(run, user)
    assert (flaw, subject) == ("notErased", clip.object_key)
    forget(task, user)
    assert findings(run, user) == []
    answer = user.poll(task["taskUUID"])
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "taskErased")


def test_an_interrupted_erasure_is_completed(
    stack: Stack, user: User, monkeypatch: pytest.MonkeyPatch, forget: Forget, run: Run
) -> None:
    """A second run completes an interrupted erasure, and the check reports it until then."""
    task = order(positivePrompt=PROMPT)
    clip = finished(user, task)

    def fail(*_: object) -> None:
        raise BusyError

    with monkeypatch.context() as patch:
        patch.setattr(AdminTable, "forget", fail)
        assert forget(task, user).status == Exit.UNAVAILABLE
    assert in_table(stack, PROMPT)
    assert findings(run, user) == [("halfErased", f"{user.name}/{task['taskUUID']}", "left: the request")]
    forget(task, user)
    assert findings(run, user) == []
    assert not in_table(stack, PROMPT)
    assert clip.object_key not in {key for key, _ in whole_bucket(stack)}


def test_a_task_with_an_open_clip_is_not_erased(stack: Stack, user: User, forget: Forget) -> None:
    """A task with an open clip is refused with the clip's index, and nothing changes."""
    task = order(positivePrompt=PROMPT)
    user.post(task)
    before = whole_table(stack), whole_bucket(stack)
    result = forget(task, user)
    assert (result.status, result.err) == (1, "rushes: The task has open clips (0); nothing was erased.\n")
    assert (whole_table(stack), whole_bucket(stack)) == before


@pytest.mark.parametrize("target", [lambda task, user: (order(), user), lambda task, user: (task, User(user.stack))])
def test_an_unknown_task_is_not_erased(
    target: Callable[[Json, User], tuple[Json, User]], stack: Stack, user: User, forget: Forget
) -> None:
    """The erasure of an unknown task, or of one under another caller's name, deletes nothing."""
    task = order(positivePrompt=PROMPT)
    finished(user, task)
    before = whole_bucket(stack)
    result = forget(*target(task, user))
    assert result.status == 1
    assert "has no task" in result.err
    assert in_table(stack, PROMPT)
    assert whole_bucket(stack) == before


def test_operators_name_tasks_by_their_first_characters(stack: Stack, user: User, run: Run) -> None:
    """A caller's task is found by the beginning of its UUID; an ambiguous one is refused with the tasks."""
    uuids = ["3fa85f64-5717-4562-a000-000000000000", "3fa85f64-5717-4562-b000-000000000000"]
    for uuid in uuids:
        finished(user, order(taskUUID=uuid))
    result = run("publish", user.name, "3fa8", "--stack", STACK_NAME)
    assert result.status == 2
    assert all(uuid in result.err for uuid in uuids)
    result = run("forget", "--yes", user.name, "3FA85F64-5717-4562-A", "--stack", STACK_NAME, "--json")
    assert result.json["taskUUID"] == uuids[0]
    published = run("publish", user.name, "3fa85f64-5717-4562-b", "--stack", STACK_NAME, "--json")
    assert published.json["taskUUID"] == uuids[1]
    assert "begins with 4fa8" in run("forget", "--yes", user.name, "4fa8", "--stack", STACK_NAME).err
    decided = run("review", "give-up", user.name, "3fa85f6457174562b", "0", "--stack", STACK_NAME)
    assert "not in review" in decided.err


def test_missing_events_are_published_again(stack: Stack, user: User, run: Run) -> None:
    """`rushes publish` publishes an event for each clip's current state and writes missing manifests."""
    task = order(numberResults=2)
    clip, listener = finished(user, task), Listener(stack)
    result = run("publish", user.name, task["taskUUID"].upper(), "--stack", STACK_NAME)
    published = [event["detail-type"] for each in user.clips(task) for event in listener.about(each.clip_uuid)]
    assert published == ["Clip Stored", "Clip Stored"]
    assert clip.object_key.replace(".mp4", ".json") in {key for key, _ in whole_bucket(stack)}
    assert result.out.splitlines() == [f"Clip {n} is stored: published as Clip Stored." for n in (0, 1)]
    result = run("publish", "nobody", task["taskUUID"], "--stack", STACK_NAME)
    assert result.status == 1
    assert "has no task" in result.err

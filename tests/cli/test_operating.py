"""What an operator's verbs do, done to the local stack: the webhook key rotated, a task erased, or told once more."""

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
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import STACK_NAME, Stack
from tests.cli.conftest import Ran, Run
from tests.conftest import PATIENCE, User, order, submissions, whole_bucket, whole_table
from tests.event_listener import Listener
from tests.unit.pictures import data_uri, picture

Json = dict[str, Any]
Rotate = Callable[[], str]
"""Rotates the webhook key; gives what was shown."""

Forget = Callable[[Json, User], Ran]
"""Erases a user's task."""

pytestmark = pytest.mark.usefixtures("account")

PROMPT = "Ada's own secret garden at dusk"


@pytest.fixture(autouse=True)
def same_keys_for_all(stack: Stack) -> Iterator[None]:
    """After each test the keys are what they were: the stack's functions keep them for minutes."""
    client, arn = stack.client("secretsmanager"), secret_arn(stack)
    before = client.get_secret_value(SecretId=arn)["SecretString"]
    yield
    client.put_secret_value(SecretId=arn, SecretString=before)


@dataclass
class Webhook:
    """The real webhook function in this process, at a time of the test's choice."""

    stack: Stack
    # A minute ahead: what the stack signs meanwhile must not be of its future.
    now: int = field(default_factory=lambda: time.time_ns() // 1_000_000 + 60_000)

    def call(self, url: str) -> int:
        """The status that a callback to this URL gets; its body reports progress, which changes nothing."""
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
        answer: Json = webhook.handler(event, None)  # type: ignore[arg-type]  # it does not look at its context
        return int(answer["statusCode"])

    def cold(self) -> "Webhook":
        """The same, having forgotten everything."""
        webhook.wiring.cache_clear()
        return self


@pytest.fixture
def function(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """The webhook function as deployed, but with a clock that stands still."""
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
    """The webhook keys as they are now, newest first."""
    return webhook_keys(SecretsManagerSecret(stack.client("secretsmanager"), secret_arn(stack), lambda: 0))


@pytest.fixture
def rotate(run: Run) -> Rotate:
    """`rushes rotate`, which has to succeed."""

    def rotate() -> str:
        ran = run("rotate", "--stack", STACK_NAME)
        assert ran.status == 0, ran.err
        return ran.out + ran.err

    return rotate


def newly_signed(stack: Stack, clip: Clip, now: int) -> str:
    """A callback URL as a function signs it that has just fetched the keys."""
    return callback_url(stack.url, clip, keys(stack), now)


def test_rotating_keeps_the_key_before(stack: Stack, rotate: Rotate) -> None:
    """The current key becomes the previous one, the new one is long and random, and neither is shown."""
    (first, *_) = keys(stack)
    shown = rotate()
    second, previous = keys(stack)
    shown += rotate()
    third, _ = keys(stack)
    assert previous == first
    assert len({first, second, third}) == 3
    assert len(second) >= 43
    assert STACK_NAME in shown
    assert not any(key in shown for key in (first, second, third))


def test_no_webhook_in_flight_is_lost(stack: Stack, user: User, rotate: Rotate) -> None:
    """A clip ordered before a rotation is reported after it through the functions as they run, and ends stored."""
    clip = user.buy()
    rotate()
    assert stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)
    assert user.now(clip).status == Status.STORED


def test_links_outlive_one_rotation(stack: Stack, user: User, function: Webhook, rotate: Rotate) -> None:
    """A link signed before a rotation is accepted after it, also by a function that only knows the new keys."""
    url = user.callback(user.buy())
    assert function.call(url) == 200
    rotate()
    assert function.call(url) == 200
    assert function.cold().call(url) == 200


def test_links_do_not_outlive_two_rotations(stack: Stack, user: User, function: Webhook, rotate: Rotate) -> None:
    """After two rotations an older link is refused: that is how a key that leaked is made worthless."""
    url = user.callback(user.buy())
    rotate()
    rotate()
    assert function.cold().call(url) == 401


def test_a_new_key_is_known_within_a_minute(stack: Stack, user: User, function: Webhook, rotate: Rotate) -> None:
    """A warm function that has just fetched the keys may refuse a newer one's links for a minute, and not longer."""
    clip = user.buy()
    assert function.call(user.callback(clip)) == 200
    rotate()
    url = newly_signed(stack, clip, function.now)
    assert function.call(url) == 401
    function.now += 60_001
    assert function.call(url) == 200


def test_forged_calls_cannot_run_up_a_bill(stack: Stack, user: User, function: Webhook) -> None:
    """However many forged callbacks come, the keys are fetched once, and at most once a minute again."""
    url = user.callback(user.buy())
    # Not B: two bits of the last character count for nothing.
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
    """`rushes forget`."""
    return lambda task, user: run("forget", user.name, task["taskUUID"].upper(), "--stack", STACK_NAME)


def put(stack: Stack, key: str) -> None:
    stack.client("s3").put_object(Bucket=stack.bucket_name, Key=key, Body=b"something")


def is_told(stack: Stack, text: str) -> bool:
    """Whether the text is anywhere in the table."""
    return text in json.dumps(whole_table(stack))


def test_what_a_task_was_about_is_gone(stack: Stack, user: User, forget: Forget) -> None:
    """Every version of the clips, their manifests, the task's inputs, its prompt and the copy's address are erased."""
    task = order(positivePrompt=PROMPT, numberResults=2, inputs={"frameImages": [data_uri(picture())]})
    other = order(inputs={"frameImages": [data_uri(picture(500))]})
    clip, kept = finished(user, task), finished(user, other)
    (image,) = stack.store.task(user.name, other["taskUUID"]).request["inputs"]["frameImages"]
    put(stack, clip.object_key)
    put(stack, clip.object_key.replace(".mp4", ".json"))
    put(stack, f"inputs/{user.name}/{clip.task_uuid}-0.png")
    stack.client("s3").delete_object(Bucket=stack.bucket_name, Key=clip.object_key)
    put(stack, f"inputs/{user.name}/of-no-task.png")
    assert is_told(stack, PROMPT)
    assert clip.status == Status.STORED

    forget(task, user)
    left = {key for key, _ in whole_bucket(stack) if f"/{user.name}/" in key}
    others_image = image.removeprefix(f"s3://{stack.bucket_name}/")
    assert left == {kept.object_key, f"inputs/{user.name}/of-no-task.png", others_image}
    markers = stack.client("s3").list_object_versions(Bucket=stack.bucket_name, Prefix=clip.object_key)
    assert markers.get("DeleteMarkers", []) == []
    assert not is_told(stack, PROMPT)
    assert not any("videoURL" in known.fields for each in user.clips(task) for known in each.facts.values())


def test_a_tombstone_buys_nothing(stack: Stack, user: User, forget: Forget) -> None:
    """The same request is answered as before, another is a conflict; nothing is sent, and the money stays counted."""
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


def test_a_refusal_is_forgotten_in_its_words(stack: Stack, user: User, forget: Forget) -> None:
    """Runware's message, which may repeat the prompt, goes; a repeat still hears that it was refused, and the code."""
    task = order(positivePrompt=PROMPT)
    clip = finished(user, task, submit_status=400, submit_code="invalidProviderContent")
    (known,) = clip.facts.values()
    message = str(known.fields["message"])
    assert is_told(stack, message)
    forget(task, user)
    assert not is_told(stack, message)
    repeated = user.post(task)
    assert repeated.status_code == 400
    assert [error["code"] for error in repeated.json()["errors"]] == ["invalidProviderContent"]


def test_forgetting_twice_is_forgetting(stack: Stack, user: User, forget: Forget) -> None:
    """An erasure can be repeated, as after one that was interrupted, and finds nothing more."""
    task = order(positivePrompt=PROMPT)
    finished(user, task)
    forget(task, user)
    s3 = stack.client("s3")
    assert erase.forget(stack.store, s3, stack.bucket_name, user.name, task["taskUUID"]) == 0


def test_an_interrupted_erasure_is_completed(
    stack: Stack, user: User, monkeypatch: pytest.MonkeyPatch, forget: Forget
) -> None:
    """An erasure that stopped half-way is completed by doing it again."""
    task = order(positivePrompt=PROMPT)
    clip = finished(user, task)

    def fail(*_: object) -> None:
        raise BusyError

    with monkeypatch.context() as patch:
        patch.setattr(AdminTable, "forget", fail)
        assert forget(task, user).status == Exit.UNAVAILABLE
    assert is_told(stack, PROMPT)
    forget(task, user)
    assert not is_told(stack, PROMPT)
    assert clip.object_key not in {key for key, _ in whole_bucket(stack)}


def test_what_is_under_way_is_not_erased(stack: Stack, user: User, forget: Forget) -> None:
    """A task with an open clip is refused in a sentence that names the clip, and nothing of it changes."""
    task = order(positivePrompt=PROMPT)
    user.post(task)
    before = whole_table(stack), whole_bucket(stack)
    ran = forget(task, user)
    assert (ran.status, ran.err) == (1, "rushes: The task has open clips (0); nothing was erased.\n")
    assert (whole_table(stack), whole_bucket(stack)) == before


@pytest.mark.parametrize("named", [lambda task, user: (order(), user), lambda task, user: (task, User(user.stack))])
def test_what_is_not_there_is_not_erased(
    named: Callable[[Json, User], tuple[Json, User]], stack: Stack, user: User, forget: Forget
) -> None:
    """Neither an unknown task nor another caller's is erased by mistake."""
    task = order(positivePrompt=PROMPT)
    finished(user, task)
    before = whole_bucket(stack)
    ran = forget(*named(task, user))
    assert ran.status == 1
    assert "has no task" in ran.err
    assert is_told(stack, PROMPT)
    assert whole_bucket(stack) == before


def test_what_was_not_told_is_told_again(stack: Stack, user: User, run: Run) -> None:
    """The verb tells what is true of each clip of a task now, and lays the manifests that are missing."""
    task = order(numberResults=2)
    clip, listener = finished(user, task), Listener(stack)
    ran = run("publish", user.name, task["taskUUID"].upper(), "--stack", STACK_NAME)
    told = [event["detail-type"] for each in user.clips(task) for event in listener.about(each.clip_uuid)]
    assert told == ["Clip Stored", "Clip Stored"]
    assert clip.object_key.replace(".mp4", ".json") in {key for key, _ in whole_bucket(stack)}
    assert ran.out.splitlines() == [f"Clip {n} is stored: published as Clip Stored." for n in (0, 1)]
    ran = run("publish", "nobody", task["taskUUID"], "--stack", STACK_NAME)
    assert ran.status == 1
    assert "has no task" in ran.err

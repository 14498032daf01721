"""The main job on the whole stack: orders become clips, bought once, within budget, without secrets in the log."""

import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import av
import httpx
import pytest

from rushes.domain.budget import ALL_CALLERS
from rushes.domain.clip import Clip, Kind, Status
from rushes.domain.task import Task, task_status
from rushes_local.runware.emulator import Charge
from rushes_local.stack import Stack
from tests.chaos.run import wait_until
from tests.conftest import PATIENCE, ROOT, Json, User, http, order, submissions, whole_table
from tests.secret_patterns import leaks

T = TypeVar("T")

PRICE = 924_000
EXAMPLES = sorted(Path(ROOT, "tests/contract/documented").glob("*.json"))
DOCUMENTED_REQUESTS = Path(ROOT, "tests/contract/documented_requests.json")


def at_once(number: int, act: Callable[[int], T]) -> list[T]:
    """The results of `number` threads that begin at the same moment."""
    ready = threading.Barrier(number, timeout=PATIENCE)

    def begin(index: int) -> T:
        ready.wait()
        return act(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(begin, range(number)))


def finish_all(stack: Stack) -> None:
    """Finish all of Runware's tasks, and wait until every upload and webhook is sent."""
    assert stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)


def charges(stack: Stack, *clips: Clip) -> list[Charge]:
    """Runware's charges for these clips."""
    clip_uuids = {clip.clip_uuid for clip in clips}
    return [charge for charge in stack.emulator.ledger() if charge.task_uuid in clip_uuids]


def download(stack: Stack, clip: Clip) -> bytes:
    """The bytes of a stored clip's pinned version."""
    assert clip.copy is not None
    version, copy = clip.copy
    answer = stack.client("s3").get_object(Bucket=stack.bucket_name, Key=clip.object_key, VersionId=version)
    content: bytes = answer["Body"].read()
    assert len(content) == copy.fields["size"]
    return content


def seed(clip: Clip) -> Any:
    (render,) = clip.of(Kind.RENDERED).values()
    return render.fields["seed"]


# ----------------------------------------------------------------------------------------------------------------------
# Clips
# ----------------------------------------------------------------------------------------------------------------------


def test_the_documented_examples(stack: Stack) -> None:
    """The five unchanged examples of the model's page end as stored, playable clips at their price."""
    tasks = [json.loads(path.read_text())["request"] for path in EXAMPLES]
    assert len(tasks) == 5
    user = User(stack)
    answer = user.post(*tasks)
    assert answer.json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]} for task in tasks]}
    finish_all(stack)
    for task in tasks:
        (clip,) = user.clips(task)
        assert (clip.status, clip.open) == (Status.STORED, False)
        assert task_status([clip]) == Status.SUCCEEDED
        assert [render.fields["cost"] for render in clip.of(Kind.RENDERED).values()] == [PRICE]
        assert [charge.micro_dollars for charge in charges(stack, clip)] == [PRICE] == [clip.budgeted]
        assert_plays(download(stack, clip), 1920, 1080, 5)
        recorded = stack.store.task(user.name, task["taskUUID"])
        assert isinstance(recorded, Task)
        assert recorded.request == task
    assert user.counted(clip) == 5 * PRICE == sum(charge.micro_dollars for charge in stack.emulator.ledger())


def test_the_documented_requests_of_other_models(stack: Stack) -> None:
    """Each one ends as a stored, playable clip at its model's price, in the record and in the ledger."""
    documented = [each for each in json.loads(DOCUMENTED_REQUESTS.read_text()) if each["cost"]]
    tasks = [each["request"] for each in documented]
    user = User(stack)
    assert [item["taskUUID"] for item in user.post(*tasks).json()["data"]] == [task["taskUUID"] for task in tasks]
    finish_all(stack)
    costs = [round(each["cost"] * 1_000_000) for each in documented]
    for task, cost in zip(tasks, costs, strict=True):
        (clip,) = user.clips(task)
        assert (clip.status, clip.budgeted) == (Status.STORED, cost)
        assert [charge.micro_dollars for charge in charges(stack, clip)] == [cost]
        assert_plays(download(stack, clip), task["width"], task["height"], task["duration"])
    assert user.counted(clip) == sum(costs)


def assert_plays(content: bytes, width: int, height: int, seconds: int) -> None:
    """Decode every frame of a video, and check its dimensions and duration."""
    with av.open(io.BytesIO(content), "r") as video:
        (stream,) = video.streams.video
        stream.thread_type = "AUTO"
        assert (stream.width, stream.height) == (width, height)
        frames, last = 0, None
        for frame in video.decode(stream):
            assert (frame.width, frame.height) == (width, height)
            frames, last = frames + 1, frame
        assert last is not None
        assert stream.average_rate is not None
        assert frames / float(stream.average_rate) == pytest.approx(seconds, abs=0.1)
        assert last.time == pytest.approx(seconds - 1 / float(stream.average_rate), abs=0.1)


def test_four_results(stack: Stack) -> None:
    """A task with four results has four objects, four charges and four seeds."""
    user, task = User(stack), order(numberResults=4)
    assert user.post(task).json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    finish_all(stack)
    clips = user.clips(task)
    assert [clip.status for clip in clips] == [Status.STORED] * 4
    assert [clip.index for clip in clips] == [0, 1, 2, 3]
    assert len({clip.object_key for clip in clips}) == 4
    assert len({seed(clip) for clip in clips}) == 4
    assert len({clip.clip_uuid for clip in clips}) == 4
    assert Counter(charge.task_uuid for charge in charges(stack, *clips)) == {clip.clip_uuid: 1 for clip in clips}
    versions = {(clip.object_key, clip.copy[0]) for clip in clips if clip.copy}
    listed = stack.client("s3").list_object_versions(Bucket=stack.bucket_name, Prefix=f"videos/{user.name}/")
    assert {(found["Key"], found["VersionId"]) for found in listed["Versions"]} == versions
    assert user.counted(clips[0]) == 4 * PRICE


# ----------------------------------------------------------------------------------------------------------------------
# Concurrent requests
# ----------------------------------------------------------------------------------------------------------------------


def webhook_of(stack: Stack, user: User, task: Json) -> tuple[Clip, str, Json]:
    """An uploaded clip before its webhook; returns the clip, its callback URL and the webhook's body."""
    assert user.post(task).status_code == 200
    (clip,) = user.clips(task)
    stack.emulator.faults.webhook_copies = 0
    finish_all(stack)
    headers = {"Authorization": "Bearer emulator-key"}
    poll = [{"taskType": "getResponse", "taskUUID": clip.clip_uuid}]
    answer = http().post(f"{stack.emulator_url}/v1", json=poll, headers=headers)
    return user.now(clip), user.callback(clip), answer.json()


@pytest.mark.parametrize("copies", [2, 8])
def test_one_webhook_delivered_at_once(stack: Stack, copies: int) -> None:
    """Concurrent deliveries of one webhook all get a 200 and leave one result."""
    user = User(stack)
    for _ in range(3):
        clip, url, body = webhook_of(stack, user, order())
        assert clip.status == Status.RUNNING
        before = stack.store.budget(ALL_CALLERS, clip.month)
        body["data"][0]["cost"] = 0.9  # so that the budgets change, too
        answers = at_once(copies, lambda _, url=url, body=body: http().post(url, json=body))  # type: ignore[misc]
        assert [answer.status_code for answer in answers] == [200] * copies
        now = user.now(clip)
        assert now.status == Status.STORED
        assert len(now.of(Kind.RENDERED)) == len(now.of(Kind.STORED)) == 1
        assert now.budgeted == 900_000
        # One request wrote the facts; the others wrote nothing, or only an earlier time of the same facts.
        assert clip.version < now.version <= clip.version + copies
        assert stack.store.budget(ALL_CALLERS, clip.month)[0] == before[0] - PRICE + 900_000
    assert user.counted(clip) == 3 * 900_000


def test_a_failure_and_a_success_at_once(stack: Stack) -> None:
    """Concurrent reports of a failure and a success of one clip are both recorded, and the success decides."""
    user = User(stack)
    for _ in range(6):  # so that some of them overlap, and the second one must retry its write
        clip, url, success = webhook_of(stack, user, order())
        failure = {"errors": [{"code": "taskFailed", "message": "no", "status": "error", "taskUUID": clip.clip_uuid}]}
        answers = at_once(2, lambda index, url=url, bodies=(success, failure): http().post(url, json=bodies[index]))  # type: ignore[misc]
        assert [answer.status_code for answer in answers] == [200, 200]
        now = user.now(clip)
        assert now.status == Status.STORED
        assert now.has(Kind.FAILED)
    assert user.counted(clip) == 6 * PRICE


def test_one_request_sent_at_once(stack: Stack) -> None:
    """A request sent twice at the same moment is accepted twice and bought once."""
    user = User(stack)
    for _ in range(5):
        task = order()
        accepted = {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
        answers = at_once(2, lambda _, task=task: user.post(task))  # type: ignore[misc]
        assert [(answer.status_code, answer.json()) for answer in answers] == [(200, accepted)] * 2
        (clip,) = user.clips(task)
        assert len(user.sent(clip)) == 1
    assert len(submissions(stack)) == 5
    assert user.counted(clip) == 5 * PRICE


def test_two_requests_under_one_uuid_at_once(stack: Stack) -> None:
    """Of two different requests under one UUID at the same moment, one is bought and the other is a conflict."""
    user, task = User(stack), order()
    tasks = [task, {**task, "positivePrompt": "a harbour at dawn"}]
    answers = at_once(2, lambda index: user.post(tasks[index]))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    (refused,) = [answer.json()["errors"] for answer in answers if answer.status_code == 400]
    assert [error["code"] for error in refused] == ["conflictTaskUUID"]
    assert len(submissions(stack)) == len(user.clips(task)) == 1
    assert user.counted(user.clips(task)[0]) == PRICE


def budget_answers(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    """The number of answers by status and code of the first error."""
    return Counter(
        (answer.status_code, answer.json().get("errors", [{"code": "none"}])[0]["code"]) for answer in answers
    )


def test_five_tasks_on_a_budget_of_two(stack: Stack) -> None:
    """Of five concurrent tasks on a budget of two clips, two are bought, as in the ledger, and three get a 402."""
    for _ in range(2):
        user = User(stack, limit_usd=2 * 0.924)
        tasks = [order() for _ in range(5)]
        answers = at_once(5, lambda index, user=user, tasks=tasks: user.post(tasks[index]))  # type: ignore[misc]
        assert budget_answers(answers) == {(200, "none"): 2, (402, "budgetExceeded"): 3}
        finish_all(stack)
        clips = [clip for task in tasks for clip in user.clips(task)]
        assert [clip.status for clip in clips] == [Status.STORED] * 2
        assert [charge.micro_dollars for charge in charges(stack, *clips)] == [PRICE] * 2
        assert user.counted(clips[0]) == 2 * PRICE
        accepted = {task["taskUUID"] for task, answer in zip(tasks, answers, strict=True) if answer.is_success}
        assert {clip.task_uuid for clip in clips} == accepted
    assert len(stack.emulator.ledger()) == 4


def test_budgets_equal_the_ledger(stack: Stack) -> None:
    """After concurrent valid, invalid and repeated tasks of several callers, the budgets equal the ledger."""
    users = [User(stack), User(stack)]
    tasks = [order(numberResults=2), order(), order(duration=7), order()]
    before = counted_of_all(stack)
    at_once(8, lambda index: users[index % 2].post(*tasks))
    finish_all(stack)
    for user in users:
        clips = [clip for task in tasks for clip in user.clips(task)]
        assert [clip.status for clip in clips] == [Status.STORED] * 4
        assert user.counted(clips[0]) == 4 * PRICE == sum(charge.micro_dollars for charge in charges(stack, *clips))
    assert (
        counted_of_all(stack) - before == sum(charge.micro_dollars for charge in stack.emulator.ledger()) == 8 * PRICE
    )


def counted_of_all(stack: Stack) -> int:
    """The sum of the budgets of all callers in all months, in micro-dollars."""
    items = [item for item in whole_table(stack) if item["pk"]["S"] == f"budget#{ALL_CALLERS}"]
    return sum(int(item["counted"]["N"]) for item in items)


# ----------------------------------------------------------------------------------------------------------------------
# Secrets in the log
# ----------------------------------------------------------------------------------------------------------------------


def test_nothing_secret_is_logged(stack: Stack, logged: list[str]) -> None:
    """Requests and webhooks of every kind write log lines, without any key, token or signature.

    At its end, the test session checks all of its log lines in the same way.
    """
    user = User(stack)
    clip, url, body = webhook_of(stack, user, order())
    echo = {"errors": [{"code": "taskFailed", "taskUUID": clip.clip_uuid, "message": json.dumps(user.sent(clip))}]}
    for content in (b"junk", json.dumps(echo).encode(), json.dumps(body).encode()):
        http().post(url, content=content)
    http().post(url[:-1], json=body)
    user.send(b"junk")
    user.post(order(), Authorization="Bearer rushes_" + "A" * 43)
    stack.emulator.faults.submit_status = 401
    user.post(order())
    kinds = (
        '"POST /v1"',
        "clip status changed",
        "request failed",
        "webhook unreadable",
        "AccountRefused",
        "WebhooksRejected",
    )

    def missing() -> list[str]:
        text = "\n".join(logged)
        return [kind for kind in kinds if kind not in text]

    wait_until(lambda: not missing(), PATIENCE)  # a function's lines go through a pipe, after its response
    assert missing() == []
    assert leaks(logged) == []


def test_a_secret_in_the_log_is_found(stack: Stack) -> None:
    """A line with a real token, link, key or credential of this stack is found, and a redacted one is not."""
    user = User(stack)
    clip = user.buy()
    sent, token = user.sent(clip)[0], user.callback(clip).rpartition("=")[2]
    for line in (token, sent["webhookURL"], sent["uploadEndpoint"], user.key, str(user.headers), "emulator-key"):
        assert leaks([f'submit\t{{"message": "{line}"}}']) != []
    assert leaks(["token=[removed] X-Amz-Signature=[removed] Bearer [removed]", clip.clip_uuid, "a.b"]) == []

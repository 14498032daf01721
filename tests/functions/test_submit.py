"""`POST /v1` through the gateway: authentication, validation, purchases, and the answers to callers."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from functions.submit import app
from rushes.adapters.dynamodb.items import budget_key
from rushes.domain.budget import ALL_CALLERS, SHARES
from rushes.domain.caller import hash_key
from rushes.domain.clip import Clip, Kind, Status
from rushes.domain.inbox_message import Message
from rushes.errors import RushesError
from rushes_local.event_sources import processed_messages, queue_event
from rushes_local.lambda_runtime import Outcome
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import EMULATOR_KEY, Stack
from tests.conftest import PATIENCE, Json, User, client, http, is_about, order, submissions, whole_table
from tests.functions.conftest import InProcess

PRICE = 924_000


def errors(answer: httpx.Response) -> list[Json]:
    """The errors of an envelope without data."""
    body = answer.json()
    assert body["data"] == []
    assert body["errors"]
    for error in body["errors"]:
        assert error["code"]
        assert error["message"]
    found: list[Json] = body["errors"]
    return found


def parameters_of(error: Json) -> set[str]:
    """The parameters that an error names."""
    parameter = error["parameter"]
    return {parameter} if isinstance(parameter, str) else set(parameter)


@contextmanager
def nothing_happens(stack: Stack) -> Iterator[None]:
    """Checks that nothing is recorded and no request reaches Runware inside the block."""
    table, requests = whole_table(stack), stack.emulator.requests()
    yield
    assert whole_table(stack) == table
    assert stack.emulator.requests() == requests
    assert stack.emulator.ledger() == []


# ----------------------------------------------------------------------------------------------------------------------
# Authentication
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer rushes_" + "A" * 43,
        "Bearer emulator-key",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer {shorter}",
    ],
)
def test_without_a_key(user: User, authorization: str) -> None:
    """Without a valid key every request is answered 401, without the reason."""
    header = authorization.format(key=user.key, shorter=user.key[:-1])
    with nothing_happens(user.stack):
        answer = user.post(order(), Authorization=header)
    assert answer.status_code == 401
    (error,) = errors(answer)
    assert (error["code"], error["parameter"], error["taskType"]) == ("invalidApiKey", "apiKey", "authentication")


def test_a_revoked_key(user: User) -> None:
    """A key that was revoked before its first use is refused."""
    assert user.stack.store.revoke_key(hash_key(user.key), 1)
    with nothing_happens(user.stack):
        assert user.post(order()).status_code == 401


def test_a_key_in_any_case_of_its_scheme(user: User) -> None:
    """The authorization scheme is case-insensitive, as in any HTTP header."""
    assert user.post(order(), Authorization=f"bearer {user.key}").status_code == 200


def post_with_body_key(user: User, *tasks: Any, key: str | None = None, **headers: str) -> httpx.Response:
    """`POST /v1` with the key in the body instead of the header."""
    login = {"taskType": "authentication", "apiKey": key or user.key}
    return http().post(f"{user.stack.url}/v1", content=json.dumps([login, *tasks]).encode(), headers=headers)


def test_the_key_in_the_body(user: User) -> None:
    """A key in an authentication task works as in the header, and is neither returned nor stored."""
    task = order()
    answers = [
        post_with_body_key(user, task, **{"X-Runware-Dry-Run": "1"}),
        post_with_body_key(user, task),
        user.post(task),
        post_with_body_key(user),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[0].json()["data"][0]["dryRun"] is True
    assert answers[1].json() == answers[2].json()
    assert answers[1].json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    assert answers[3].json() == {"data": []}
    assert len(submissions(user.stack)) == 1
    stored = json.dumps([whole_table(user.stack), [each.task for each in user.stack.emulator.requests()]], default=str)
    assert user.key not in stored + "".join(answer.text for answer in answers)


@pytest.mark.parametrize("key", ["rushes_" + "A" * 43, "emulator-key", "Bearer", " "])
def test_a_wrong_key_in_the_body(user: User, key: str) -> None:
    """An unknown key in the body is answered as in the header, and is not repeated."""
    with nothing_happens(user.stack):
        answer = post_with_body_key(user, order(), key=key)
    assert answer.status_code == 401
    assert [error["code"] for error in errors(answer)] == ["invalidApiKey"]
    assert "AAAA" not in answer.text


def test_a_key_in_header_and_body(user: User) -> None:
    """Two valid keys in one request are refused, since the caller who pays would be ambiguous."""
    with nothing_happens(user.stack):
        answer = post_with_body_key(user, order(), Authorization=f"Bearer {user.key}")
    assert answer.status_code == 400
    (error,) = errors(answer)
    assert (error["code"], error["parameter"]) == ("invalidRequest", "body")
    assert user.key not in answer.text


@pytest.mark.parametrize("body", [b"", b"[", b"[" * 100_000, b"\xef\xbb\xbf[]", json.dumps([order()]).encode()])
def test_a_body_without_a_key(user: User, body: bytes) -> None:
    """A request without a key is answered 401, whatever its body."""
    assert http().post(f"{user.stack.url}/v1", content=body).status_code == 401


# ----------------------------------------------------------------------------------------------------------------------
# Validation
# ----------------------------------------------------------------------------------------------------------------------

UUID_V1 = "f47ac10b-58cc-1372-8567-0e02b2c3d479"


def text(task: Json) -> bytes:
    return json.dumps([task]).encode()


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b'[{"taskType": "videoInference",',
    "an empty array": b"[]",
    "21 tasks": json.dumps([order() for _ in range(21)]).encode(),
    "a bare string": b'"videoInference"',
    "a number": b"5",
    "null": b"null",
    "bad UTF-8": b'[{"taskType": "\xff\xfe"}]',
    "UTF-16": json.dumps([order()]).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps([order()]).encode(),
    "1e400": text(order()).replace(b'"klingai:5@3"', b'"klingai:5@3", "CFGScale": 1e400'),
    "a lone surrogate": rb'[{"taskType": "videoInference", "positivePrompt": "\ud800 film"}]',
    "NaN": text(order()).replace(b'"klingai:5@3"', b'"klingai:5@3", "CFGScale": NaN'),
    "Infinity": text(order()).replace(b'"klingai:5@3"', b'"klingai:5@3", "duration": -Infinity'),
    "deep nesting": b"[" * 100_000 + b"]" * 100_000,
    "deep nesting of objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a body of 6 MB": text(order(positivePrompt="x" * 6_000_000)),
    "a number of 5000 digits": b'[{"taskType": "videoInference", "ttl": ' + b"9" * 5000 + b"}]",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_cannot_be_read(user: User, body: bytes) -> None:
    """A body that is not an array of tasks is refused as a whole, with an error about the body."""
    with nothing_happens(user.stack):
        answer = user.send(body)
    assert answer.status_code == 400
    assert [error["parameter"] for error in errors(answer)] == ["body"]


def test_a_body_beyond_the_payload_limit(user: User) -> None:
    """A body beyond Lambda's payload limit is refused before it reaches a function."""
    with nothing_happens(user.stack):
        answer = user.send(text(order(positivePrompt="x" * 6_300_000)))
    assert answer.status_code == 413


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream", "image/png"])
def test_any_content_type(user: User, content_type: str) -> None:
    """A valid body is bought under any Content-Type, encoded by the gateway or not."""
    assert user.send(text(order(positivePrompt="Grüße vom Leuchtturm")), **{"Content-Type": content_type}).json() == {
        "data": [{"taskType": "videoInference", "taskUUID": submitted(user)}]
    }


def submitted(user: User) -> str:
    """The caller's UUID of the only task sent to Runware."""
    (sent,) = submissions(user.stack)
    return str(sent["webhookURL"].split("/")[-2])


TASKS: dict[str, tuple[Any, str]] = {
    "no task": (5, "body"),
    "a task that is null": (None, "body"),
    "an array in the array": ([order()], "body"),
    "no type": (order(taskType=...), "taskType"),
    "another type": (order(taskType="imageInference"), "taskType"),
    "a type that is a number": (order(taskType=5), "taskType"),
    "a poll without a UUID": ({"taskType": "getResponse"}, "taskUUID"),
    "a poll about no UUID": ({"taskType": "getResponse", "taskUUID": "a film"}, "taskUUID"),
    "a poll with more": (
        {"taskType": "getResponse", "taskUUID": str(uuid.uuid4()), "numberResults": 2},
        "numberResults",
    ),
    "no UUID": (order(taskUUID=...), "taskUUID"),
    "a UUID v1": (order(taskUUID=UUID_V1), "taskUUID"),
    "a UUID without dashes": (order(taskUUID=uuid.uuid4().hex), "taskUUID"),
    "a UUID in braces": (order(taskUUID=f"{{{uuid.uuid4()}}}"), "taskUUID"),
    "a UUID that is a number": (order(taskUUID=7), "taskUUID"),
    "a UUID with a line break": (order(taskUUID=f"{uuid.uuid4()}\n"), "taskUUID"),
    "no model": (order(model=...), "model"),
    "another model": (order(model="klingai:5@2"), "model"),
    "no prompt": (order(positivePrompt=...), "positivePrompt"),
    "a prompt of 1 character": (order(positivePrompt="x"), "positivePrompt"),
    "a prompt of 2501 characters": (order(positivePrompt="x" * 2501), "positivePrompt"),
    "a negative prompt of 2501 characters": (order(negativePrompt="x" * 2501), "negativePrompt"),
    "a prompt of blanks": (order(positivePrompt="  \u200b"), "positivePrompt"),
    "a prompt with a NUL": (order(positivePrompt="a\0b"), "positivePrompt"),
    "a ttl of a lifetime": (order(ttl=10**31), "ttl"),
    "a format in small letters": (order(outputFormat="mp4"), "outputFormat"),
    "an image in the older form": (order(frameImages=[{"inputImage": "x", "frame": "first"}]), "frameImages"),
    "a tag that no filter can name": (order(tags={"a:b": "c"}), "tags"),
    "a prompt that is null": (order(positivePrompt=None), "positivePrompt"),
    "width without height": (order(width=1920), "height"),
    "another size": (order(width=1280, height=720), "width"),
    "a size as strings": (order(width="1920", height="1080"), "width"),
    "true for a width": (order(width=True, height=1080), "width"),
    "another duration": (order(duration=7), "duration"),
    "a duration as a string": (order(duration="5"), "duration"),
    "true for a duration": (order(duration=True), "duration"),
    "a duration of null": (order(duration=None), "duration"),
    "a guidance between the steps": (order(CFGScale=0.575), "CFGScale"),
    "a guidance above 1": (order(CFGScale=1.01), "CFGScale"),
    "another output type": (order(outputType="base64Data"), "outputType"),
    "another format": (order(outputFormat="AVI"), "outputFormat"),
    "a quality of 100": (order(outputQuality=100), "outputQuality"),
    "a quality that is no integer": (order(outputQuality=95.5), "outputQuality"),
    "five results": (order(numberResults=5), "numberResults"),
    "no results": (order(numberResults=0), "numberResults"),
    "synchronous delivery": (order(deliveryMethod="sync"), "deliveryMethod"),
    "a safety that is no object": (order(safety=True), "safety"),
    "a strange safety mode": (order(safety={"mode": "strict"}), "safety.mode"),
    "a string for a safety check": (order(safety={"checkContent": "yes"}), "safety.checkContent"),
    "a strange safety key": (order(safety={"level": 3}), "safety.level"),
    "a ttl of 59 seconds": (order(ttl=59), "ttl"),
    "1 for includeCost": (order(includeCost=1), "includeCost"),
    "two frames": (order(inputs={"frameImages": [str(uuid.uuid4()), str(uuid.uuid4())]}), "inputs.frameImages"),
    "the last frame": (
        order(inputs={"frameImages": [{"image": str(uuid.uuid4()), "frame": "last"}]}),
        "inputs.frameImages.frame",
    ),
    "an image that is none": (order(inputs={"frameImages": ["a film"]}), "inputs.frameImages"),
    "a strange input": (order(inputs={"audio": "x"}), "inputs.audio"),
    "an unknown parameter": (order(fps=24), "fps"),
    "a webhook of one's own": (order(webhookURL="https://example.com/hook"), "webhookURL"),
    "an upload of one's own": (order(uploadEndpoint="https://example.com/put"), "uploadEndpoint"),
    "a destination that leads out": (order(destination="../secrets"), "destination"),
    "a destination with an empty part": (order(destination="a//b"), "destination"),
    "tags that are a list": (order(tags=["a"]), "tags"),
    "a tag that is a number": (order(tags={"a": 1}), "tags"),
    "a task of 400 KB": (order(tags={"a": "x" * 400_000}), "body"),
}


@pytest.mark.parametrize(("task", "parameter"), TASKS.values(), ids=TASKS)
def test_a_bad_task(user: User, task: Any, parameter: str) -> None:
    """A bad task is refused with an error that names the parameter; nothing is recorded and nothing is bought."""
    with nothing_happens(user.stack):
        answer = user.post(task)
    assert answer.status_code == 400
    assert {name for error in errors(answer) for name in parameters_of(error)} >= {parameter}


def test_another_type_is_refused_clearly(user: User) -> None:
    """The refusal of another task type has the allowed types and the task's UUID."""
    task_uuid = str(uuid.uuid4())
    with nothing_happens(user.stack):
        answer = user.post({"taskType": "imageInference", "taskUUID": task_uuid})
    assert answer.status_code == 400
    (error,) = errors(answer)
    assert (error["code"], error["taskUUID"]) == ("unsupportedTaskType", task_uuid)
    assert error["allowedValues"] == ["videoInference", "getResponse"]


def test_all_faults_at_once(user: User) -> None:
    """One answer has every fault of every task."""
    with nothing_happens(user.stack):
        answer = user.post(order(duration=7, CFGScale="0.5", fps=24), order(positivePrompt="x"))
    assert answer.status_code == 400
    assert {name for error in errors(answer) for name in parameters_of(error)} == {
        "duration",
        "CFGScale",
        "fps",
        "positivePrompt",
    }


def test_one_uuid_twice_in_an_array(user: User) -> None:
    """Two tasks with one UUID, in any case of letters, are both refused, and a third one is bought."""
    one, other = order(), order()
    twin = {**one, "taskUUID": one["taskUUID"].upper()}
    answer = user.post(one, twin, other)
    assert [item["taskUUID"] for item in answer.json()["data"]] == [other["taskUUID"]]
    (error,) = answer.json()["errors"]
    assert (error["code"], error["parameter"], error["taskUUID"]) == ("duplicateTaskUUID", "taskUUID", one["taskUUID"])
    assert user.clips(one) == []
    assert len(submissions(user.stack)) == 1


def test_too_many_clips(user: User) -> None:
    """Twenty-one clips in one request are all refused, however they are spread over tasks."""
    with nothing_happens(user.stack):
        answer = user.post(*(order(numberResults=4) for _ in range(5)), order())
    assert answer.status_code == 400
    assert {error["parameter"] for error in errors(answer)} == {"numberResults"}
    assert len(errors(answer)) == 6


# ----------------------------------------------------------------------------------------------------------------------
# Purchases
# ----------------------------------------------------------------------------------------------------------------------


def test_accepted(user: User) -> None:
    """A valid task is acknowledged as by Runware, recorded as running, counted, and sent once and unchanged."""
    task = order(CFGScale=0.57, duration=10, tags={"shot": "7"}, destination="film/one")
    answer = user.post(task)
    assert answer.status_code == 200
    assert answer.json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    (clip,) = user.clips(task)
    assert clip.status == Status.RUNNING
    assert clip.lease is None
    assert clip.object_key == f"videos/{user.name}/film/one/{task['taskUUID']}-0.mp4"
    assert user.counted(clip) == clip.budgeted == clip.estimate == 2 * PRICE
    (sent,) = user.sent(clip)
    ours = {"taskUUID", "tags", "destination"}
    added = {"deliveryMethod": "async", "numberResults": 1, "includeCost": True, "taskUUID": clip.clip_uuid}
    links = {name: sent[name] for name in ("webhookURL", "uploadEndpoint")}
    assert sent == {name: value for name, value in task.items() if name not in ours} | added | links
    assert is_about(sent["webhookURL"], clip)
    assert sent["webhookURL"].startswith(f"{user.stack.url}/webhooks/runware/")
    assert clip.object_key in sent["uploadEndpoint"]
    assert clip.clip_uuid != task["taskUUID"]


def test_a_bare_object(user: User) -> None:
    """A task without an array around it counts as an array of one."""
    task = order()
    assert user.send(json.dumps(task).encode()).json()["data"][0]["taskUUID"] == task["taskUUID"]
    assert len(user.clips(task)) == 1


def test_capitals_are_normalised(user: User) -> None:
    """A UUID in capitals is the same UUID: acknowledged in lower case, and not bought again."""
    task = order()
    in_capitals = {**task, "taskUUID": task["taskUUID"].upper()}
    assert user.post(in_capitals).json()["data"] == [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]
    assert user.post(task).status_code == 200
    assert len(submissions(user.stack)) == 1


def test_one_bad_task_leaves_the_others(user: User) -> None:
    """In an array the valid tasks are bought and the bad one's errors have its UUID, in one answer of 200."""
    good, bad, other = order(), order(duration=7), order()
    answer = user.post(good, bad, other)
    assert answer.status_code == 200
    assert [item["taskUUID"] for item in answer.json()["data"]] == [good["taskUUID"], other["taskUUID"]]
    assert [error["taskUUID"] for error in answer.json()["errors"]] == [bad["taskUUID"]]
    assert [len(user.clips(task)) for task in (good, bad, other)] == [1, 0, 1]
    assert len(submissions(user.stack)) == 2


def test_a_repeat(user: User) -> None:
    """A repeated request, in any JSON formatting, is acknowledged again and buys nothing."""
    task = order(duration=5, CFGScale=0.5)
    first = user.post(task).json()
    (clip,) = user.clips(task)
    assert len(user.sent(clip)) == len(submissions(user.stack)) == 1
    rewritten = {name: task[name] for name in reversed(task)} | {"duration": 5.0}
    with nothing_happens(user.stack):
        assert user.post(task).json() == user.send(json.dumps([rewritten], indent=2).encode()).json() == first


@pytest.mark.parametrize(
    "change", [{"duration": 10}, {"positivePrompt": "a harbour"}, {"numberResults": 2}, {"tags": {}}]
)
def test_another_request_under_the_uuid(user: User, change: Json) -> None:
    """Another request under a recorded UUID is refused as a conflict and changes nothing."""
    task = order()
    user.post(task)
    with nothing_happens(user.stack):
        answer = user.post({**task, **change})
    assert answer.status_code == 400
    (error,) = errors(answer)
    assert (error["code"], error["parameter"]) == ("conflictTaskUUID", "taskUUID")
    assert error["taskUUID"] == task["taskUUID"]


def test_another_callers_uuid(user: User) -> None:
    """Two callers may use one UUID for two independent tasks."""
    task, other = order(), User(user.stack)
    assert user.post(task).json() == other.post(task).json()
    (first,), (second,) = user.clips(task), other.clips(task)
    assert first.clip_uuid != second.clip_uuid
    assert first.object_key != second.object_key
    assert len(submissions(user.stack)) == 2


@pytest.mark.parametrize(
    ("changes", "container", "price"),
    [
        ({"width": 1080, "height": 1080, "outputFormat": "WEBM"}, "webm", PRICE),
        ({"width": 1080, "height": 1920, "outputFormat": "MOV", "duration": 10}, "mov", 2 * PRICE),
    ],
    ids=["square WEBM", "upright MOV of ten seconds"],
)
def test_other_shapes(user: User, changes: Json, container: str, price: int) -> None:
    """Other sizes, containers and lengths have their own suffix and price."""
    clip = user.buy(**changes)
    assert user.stack.emulator.finish_all()
    assert user.stack.emulator.idle(PATIENCE)
    clip = user.now(clip)
    assert clip.status == Status.STORED
    assert clip.object_key.endswith(f"-0.{container}")
    assert clip.copy is not None
    assert clip.copy[1].fields["container"] == container
    assert [charge.micro_dollars for charge in user.stack.emulator.ledger()] == [price] == [user.counted(clip)]


def test_a_ttl(user: User) -> None:
    """A short ttl is accepted and extended for Runware, since a rescue may need Runware's copy."""
    (sent,) = user.sent(user.buy(ttl=60))
    assert sent["ttl"] == 21_600
    (sent,) = user.sent(user.buy(ttl=90_000))
    assert sent["ttl"] == 90_000


@pytest.mark.parametrize("value", ["true", "0", "", "yes", "1,1"])
def test_a_dry_run_that_is_misspelt_is_no_purchase(user: User, value: str) -> None:
    """Any other value of the dry-run header is refused, so that a typing error does not buy."""
    with nothing_happens(user.stack):
        answer = user.post(order(), **{"X-Runware-Dry-Run": value})
    assert answer.status_code == 400
    assert [error["code"] for error in errors(answer)] == ["invalidDryRun"]


def test_a_dry_run(user: User) -> None:
    """A dry run returns prices and faults; nothing is recorded, counted or sent."""
    four, long, bad = order(numberResults=4), order(duration=10), order(duration=7)
    with nothing_happens(user.stack):
        answer = user.post(four, long, bad, **{"X-Runware-Dry-Run": "1"})
    assert answer.status_code == 200
    assert {item["taskUUID"]: item["cost"] for item in answer.json()["data"]} == {
        four["taskUUID"]: 3.696,
        long["taskUUID"]: 1.848,
    }
    assert [error["taskUUID"] for error in answer.json()["errors"]] == [bad["taskUUID"]]
    assert user.post(four).status_code == 200


# ----------------------------------------------------------------------------------------------------------------------
# Runware's answers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 403])
def test_runware_refuses_the_account(user: User, status: int) -> None:
    """A refusal of the service's account is a 503, on repeats too; the money is released."""
    task = order()
    user.stack.emulator.faults.submit_status = status
    for _ in range(2):
        answer = user.post(task)
        assert answer.status_code == 503
        (error,) = errors(answer)
        assert (error["code"], error["taskUUID"]) == ("providerAccountRefused", task["taskUUID"])
        user.stack.emulator.faults.submit_status = 0
    (clip,) = user.clips(task)
    assert clip.status == Status.FAILED
    assert user.counted(clip) == 0
    assert len(submissions(user.stack)) == 1


def test_the_circuit_breaker_applies_only_to_the_inbox(in_process: InProcess) -> None:
    """An order over HTTP goes straight to Runware; one from the inbox goes through the breaker."""
    in_process("submit")
    wired = app.wiring()
    assert wired.submit_service.purchase_service.runware is wired.parts.runware
    assert wired.inbox_service.submit_service.purchase_service.runware is wired.inbox_service.breaker


def test_runware_refuses_the_request(user: User) -> None:
    """Runware's refusal reaches the caller unchanged, under the caller's UUID, on repeats too."""
    task = order()
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=400, submit_code="invalidModel"))
    answers = [user.post(task) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [400, 400]
    (error,), again = errors(answers[0]), errors(answers[1])
    assert (error["code"], error["taskUUID"]) == ("invalidModel", task["taskUUID"])
    assert again == [error]
    (clip,) = user.clips(task)
    assert clip.clip_uuid not in answers[0].text
    assert (clip.status, user.counted(clip)) == (Status.FAILED, 0)
    assert len(submissions(user.stack)) == 1


def test_some_clips_are_refused(user: User) -> None:
    """A task with at least one accepted clip is accepted without errors, on repeats too."""
    task = order(numberResults=3)
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=400, submit_code="invalidModel"))
    answers = [user.post(task).json() for _ in range(2)]
    assert answers == [{"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}] * 2
    clips = user.clips(task)
    assert sorted(clip.status for clip in clips) == [Status.FAILED, Status.RUNNING, Status.RUNNING]
    assert user.counted(clips[0]) == 2 * PRICE


@pytest.mark.parametrize(
    "fault",
    [
        {"submit_status": 500},
        {"submit_status": 503, "submit_accepts": True},
        {"submit_status": 429, "submit_bare": True},
        {"submit_cut": "before"},
        {"submit_cut": "after"},
        {"submit_garbage": True},
        {"submit_empty": True},
    ],
    ids=lambda fault: " ".join(map(str, fault.values())),
)
def test_an_ambiguous_answer(user: User, fault: Json) -> None:
    """After an ambiguous answer the caller gets an acknowledgement, and the clip is recorded as possibly sent."""
    task = order()
    user.stack.emulator.faults.next_submissions.append(OneShot(**fault))
    assert user.post(task).json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    (clip,) = user.clips(task)
    assert clip.status == Status.PENDING
    assert clip.possibly_sent_at is not None
    assert user.counted(clip) == PRICE
    assert user.post(task).status_code == 200
    assert len(user.sent(clip)) == 1, "a caller's repeat must not send the clip again"


def test_a_definite_temporary_refusal(user: User) -> None:
    """A 429 with an envelope proves that nothing was accepted: pending, and not possibly sent."""
    task = order()
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=429))
    assert user.post(task).status_code == 200
    (clip,) = user.clips(task)
    assert (clip.status, clip.possibly_sent_at) == (Status.PENDING, None)


def test_the_webhook_is_faster_than_the_answer(user: User) -> None:
    """A webhook before the acknowledgement finds its clip, and the facts of both are kept."""
    user.stack.emulator.faults.next_submissions.append(OneShot(webhook_before_answer=True))
    clip = user.buy()
    assert user.stack.emulator.idle(PATIENCE)
    now = user.now(clip)
    assert now.status == Status.STORED
    assert now.has(Kind.ACCEPTED)
    assert now.has(Kind.RENDERED)


def test_no_runware_key_yet(user: User, in_process: InProcess) -> None:
    """Before the operator has set Runware's key, a task is answered 503 and not recorded."""
    secrets = user.stack.client("secretsmanager")
    empty = secrets.create_secret(Name=f"empty-{user.name}")["ARN"]
    submit = in_process("submit", RUNWARE_SECRET=empty)
    for value in (None, "  "):
        if value is not None:
            secrets.put_secret_value(SecretId=empty, SecretString=value)
        with nothing_happens(user.stack):
            status, body = submit("POST /v1", user.headers, json.dumps([order()]))
        assert (status, body["errors"][0]["code"]) == (503, "serviceNotConfigured")
    secrets.put_secret_value(SecretId=empty, SecretString=f" {EMULATOR_KEY}\n")
    status, body = submit("POST /v1", user.headers, json.dumps([order()]))
    assert (status, len(body["data"])) == (200, 1)


@pytest.mark.parametrize(("name", "value"), [("RUNWARE_SECRET", " "), ("WEBHOOK_SECRET", "{}")])
def test_orders_of_the_inbox_wait_for_the_secrets(user: User, in_process: InProcess, name: str, value: str) -> None:
    """Without its secrets a function leaves all messages in the queue: a refusal would delete them."""
    secrets = user.stack.client("secretsmanager")
    broken = secrets.create_secret(Name=f"{name}-{user.name}", SecretString=value)["ARN"]
    in_process("submit", **{name: broken})
    body = Message(user.name, order(), f"reports/{user.name}/a.json.v1").text
    about = {"ReceiptHandle": "r", "Body": body, "MD5OfBody": "", "Attributes": {}}
    messages = [{"MessageId": str(number), **about} for number in range(2)]
    event = queue_event(messages, "arn:aws:sqs:us-east-1:123456789012:inbox")
    context: Any = SimpleNamespace(aws_request_id="in-process", get_remaining_time_in_millis=lambda: 25_000)
    with nothing_happens(user.stack):
        try:
            outcome = Outcome("ok", app.handler(event, context))
        except RushesError as error:
            outcome = Outcome("error", {"errorType": type(error).__name__})
    assert processed_messages(messages, outcome, partial=True) == []


@pytest.mark.parametrize("after", [False, True], ids=["before it took effect", "after it took effect"])
def test_the_table_is_unavailable(user: User, in_process: InProcess, after: bool) -> None:
    """While the table is unavailable a task is answered 503; a later repeat is accepted and never sent twice."""
    submit, task = in_process("submit"), order()
    submit("POST /v1", user.headers, json.dumps([order()]))  # so that the caller is cached
    user.stack.aws.faults.fail("dynamodb", "InternalServerError", after=after)
    status, body = submit("POST /v1", user.headers, json.dumps([task]))
    user.stack.aws.faults.clear()
    (error,) = body["errors"]
    assert (status, error["code"], error["taskUUID"]) == (503, "serviceUnavailable", task["taskUUID"])
    assert len(submissions(user.stack)) == 1
    assert user.post(task).status_code == 200
    (clip,) = user.clips(task)
    # A recorded clip waits until its lease expires; one that was not recorded is bought now.
    assert len(user.sent(clip)) == (0 if after else 1)
    assert user.counted(clip) == 2 * PRICE


# ----------------------------------------------------------------------------------------------------------------------
# Money
# ----------------------------------------------------------------------------------------------------------------------


def test_over_the_callers_budget(stack: Stack) -> None:
    """A task beyond the caller's limit by any amount is refused with 402, and a smaller one that fits is bought."""
    user = User(stack, limit_usd=3 * 0.924)
    user.buy(numberResults=2)
    task = order(numberResults=2)
    answer = user.post(task)
    assert answer.status_code == 402
    (error,) = errors(answer)
    assert (error["code"], error["taskUUID"]) == ("budgetExceeded", task["taskUUID"])
    assert user.clips(task) == []
    last = user.buy()
    assert user.counted(last) == 3 * PRICE
    assert user.post(order()).status_code == 402
    assert len(submissions(stack)) == 3


def test_a_repeat_over_budget(stack: Stack) -> None:
    """A repeat is acknowledged although the budget has no room for it a second time."""
    user, task = User(stack, limit_usd=0.924), order()
    assert user.post(task).status_code == 200
    assert user.post(task).status_code == 200
    assert user.post(order()).status_code == 402


def test_over_the_budget_of_all_callers(user: User) -> None:
    """The limit of all callers together applies, and the answer does not disclose its figures."""
    clip = user.buy()
    set_counted(user.stack, clip, 1_000_000_000 - PRICE + 1)
    answer = user.post(order())
    assert answer.status_code == 402
    (error,) = errors(answer)
    assert error["code"] == "budgetExceeded"
    assert "1000" not in error["message"]
    set_counted(user.stack, clip, 1_000_000_000 - PRICE)
    assert user.post(order()).status_code == 200
    set_counted(user.stack, clip, 0)


def set_counted(stack: Stack, clip: Clip, micro_dollars: int) -> None:
    """Sets the month's sum of all callers, without rooms, as if facts had exceeded it."""
    difference = micro_dollars - stack.store.budget(ALL_CALLERS, clip.month)[0]
    for share in range(SHARES):
        client(stack, "dynamodb").update_item(
            TableName=stack.table_name,
            Key=budget_key(ALL_CALLERS, clip.month, share),
            UpdateExpression="SET balance = :balance ADD counted :difference REMOVE room",
            ExpressionAttributeValues={
                ":balance": {"S": "test"},
                ":difference": {"N": str(0 if share else difference)},
            },
        )

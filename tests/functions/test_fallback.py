"""A task with fallback through the functions: the next model's clip, and late news about the one before."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from functions.reconcile import app
from rushes.domain.clip import SLOTS, Clip, Kind, Status
from rushes.runware import models
from rushes_local.runware.emulator import OneShot
from tests.conftest import PATIENCE, Json, User, http, order, submissions
from tests.functions.conftest import InProcess

FIRST, NEXT = "klingai:6@1", models.DEFAULT  # the second is dearer: 0.35 and 0.924 dollars for five seconds


def post(in_process: InProcess, user: User, task: Json) -> Json:
    """`POST /v1` in this process."""
    status, body = in_process("submit")("POST /v1", user.headers, json.dumps([task]))
    assert status == 200, body
    assert isinstance(body, dict)
    return body


def sweep(in_process: InProcess, user: User, *clips: Clip) -> None:
    """Makes these clips due, and runs `reconcile` in this process."""
    in_process("reconcile")
    for clip in clips:
        current = user.now(clip)
        user.stack.store.save(current, replace(current, next_check_at=1))
    context: Any = SimpleNamespace(aws_request_id="in-process", get_remaining_time_in_millis=lambda: 50_000)
    app.handler({}, context)


def test_the_next_model_is_bought_after_a_refusal(user: User, in_process: InProcess) -> None:
    """The order is accepted, the next model's clip bought and stored, and each view has the slot's chain."""
    task = order(model=FIRST, fallback=[NEXT], tags={"project": "lighthouse"})
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=400))
    assert post(in_process, user, task) == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    (first,) = user.clips(task)
    assert (first.status, first.open, user.counted(first)) == (Status.RUNNING, True, 924_000)

    sweep(in_process, user, first)
    first, second = user.clips(task)
    assert (first.status, first.open, first.budgeted) == (Status.FAILED, False, 0)
    assert (second.index, second.clip_uuid) == (SLOTS, first.chain and first.chain.rest[0].clip_uuid)
    assert user.counted(first) == 924_000
    if second.status == Status.PENDING:  # the index had not listed it yet
        sweep(in_process, user, second)
    sent = submissions(user.stack)
    assert [each["model"] for each in sent] == [FIRST, NEXT]
    assert len({each["uploadEndpoint"].partition("?")[0] for each in sent}) == 2
    assert not any({"fallback", "tags"} & each.keys() for each in sent)

    assert user.stack.emulator.finish_all()
    assert user.stack.emulator.idle(PATIENCE)
    second = user.now(second)
    assert (second.status, user.counted(second)) == (Status.STORED, 924_000)
    body = user.get(f"/tasks/{task['taskUUID']}").json()
    (slot,) = body["clips"]
    assert (body["status"], body["cost"], slot["clip"], slot["model"]) == ("succeeded", 0.924, 0, NEXT)
    assert [(each["model"], each["status"]) for each in slot["chain"]] == [(FIRST, "failed")]
    (listed,) = user.get("/tasks").json()["tasks"]
    assert listed["clips"][0]["clipUUID"] == second.clip_uuid
    costs = {(line["model"], line["cost"]) for line in user.get("/costs").json()["costs"]}
    assert costs == {(FIRST, 0.0), (NEXT, 0.924)}
    assert post(in_process, user, task)["data"] == [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]
    assert len(submissions(user.stack)) == 2


def test_late_news_about_a_superseded_clip(user: User, in_process: InProcess) -> None:
    """A render of a clip that had been closed as refused is booked, stored under its own key and in review."""
    task = order(model=FIRST, fallback=[NEXT])
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=400))
    post(in_process, user, task)
    sweep(in_process, user, *user.clips(task))
    first, _ = user.clips(task)
    item = {"taskType": "videoInference", "taskUUID": first.clip_uuid, "videoUUID": "late", "cost": 0.9}
    answer = http().post(user.callback(first), content=json.dumps({"data": [item]}).encode())
    assert (answer.status_code, answer.json()) == (200, {"message": "review"})
    first, second = user.clips(task)
    assert (first.status, first.open, first.has(Kind.SUPERSEDED)) == (Status.REVIEW, True, True)
    assert user.counted(first) == 900_000 + second.budgeted
    (slot,) = user.get(f"/tasks/{task['taskUUID']}").json()["clips"]
    assert [(each["status"], each["cost"]) for each in slot["chain"]] == [("review", 0.9)]

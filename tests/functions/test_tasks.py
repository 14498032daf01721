"""Reading through the gateway: callers see all of their own tasks and none of another's."""

import re
import uuid

import httpx
import pytest

from rushes.domain.caller import Caller, hash_key
from rushes.domain.clip import Kind, merge_all
from rushes.runware import models
from rushes_cli.operator import erase
from rushes_local.stack import Stack
from tests.conftest import PATIENCE, Json, User, client, http, order, whole_table
from tests.fakes.builders import fact
from tests.functions.conftest import InProcess

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def settle(stack: Stack) -> None:
    """Lets Runware finish everything, and waits for all uploads and webhooks."""
    assert stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)


def body_of(answer: httpx.Response) -> Json:
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def uuids_of(answer: httpx.Response) -> list[str]:
    """The UUIDs of a page's tasks."""
    return [task["taskUUID"] for task in body_of(answer)["tasks"]]


def download(link: str) -> bytes:
    """The content behind a link, without any credentials."""
    answer = http().get(link)
    assert answer.status_code == 200, answer.text
    return answer.content


# ----------------------------------------------------------------------------------------------------------------------
# One task
# ----------------------------------------------------------------------------------------------------------------------


def test_a_stored_task(user: User) -> None:
    """A stored clip has its details, its timeline, and a link to the pinned version."""
    task = order(numberResults=2, tags={"project": "lighthouse"}, safety={"checkContent": True})
    user.post(task)
    settle(user.stack)
    body = body_of(user.get(f"/tasks/{task['taskUUID'].upper()}"))
    assert (body["taskUUID"], body["status"], body["cost"]) == (task["taskUUID"], "succeeded", 1.848)
    assert body["request"] == task
    assert TIME.fullmatch(body["createdAt"])
    for clip, recorded in zip(body["clips"], user.clips(task), strict=True):
        assert recorded.copy is not None
        version, record = recorded.copy
        (video_uuid,) = recorded.of(Kind.RENDERED)
        assert (clip["clip"], clip["status"], clip["open"]) == (recorded.index, "stored", False)
        assert (clip["clipUUID"], clip["objectKey"]) == (recorded.clip_uuid, recorded.object_key)
        assert (clip["videoUUID"], clip["versionId"], clip["size"]) == (video_uuid, version, record.fields["size"])
        assert (clip["cost"], clip["NSFWContent"]) == (0.924, False)
        assert isinstance(clip["seed"], int)
        assert len(download(clip["videoURL"])) == clip["size"]
        assert f"{recorded.object_key.removesuffix('.mp4')}.json?" in clip["manifestURL"]
        assert {entry["fact"] for entry in clip["timeline"]} == {"accepted", "rendered", "stored"}
        assert [entry["at"] for entry in clip["timeline"]] == sorted(entry["at"] for entry in clip["timeline"])
        assert clip["updatedAt"] == clip["timeline"][-1]["at"]
        assert not {"nextCheckAt", "error", "possiblySentAt"} & clip.keys()


def test_a_running_task(user: User) -> None:
    """A clip that renders is running and open, without links and with the time of its next check."""
    clip = user.buy()
    body = body_of(user.get(f"/tasks/{clip.task_uuid}"))
    (item,) = body["clips"]
    assert (body["status"], item["status"], item["open"]) == ("running", "running", True)
    assert TIME.fullmatch(item["nextCheckAt"])
    assert not {"videoURL", "manifestURL", "videoUUID", "error"} & item.keys()


def test_a_failed_task_has_its_error(user: User) -> None:
    """A failed clip has Runware's own code and message."""
    user.stack.emulator.faults.failure = "invalidProviderContent"
    clip = user.buy()
    settle(user.stack)
    body = body_of(user.get(f"/tasks/{clip.task_uuid}"))
    (item,) = body["clips"]
    assert (body["status"], item["status"], item["error"]["code"]) == ("failed", "failed", "invalidProviderContent")
    assert item["error"]["message"]


def test_a_task_in_review_warns_against_resubmission(user: User) -> None:
    """A clip in review has an error in both formats that warns against buying it again."""
    clip = user.buy()
    user.stack.store.save(clip, merge_all(clip, [fact(Kind.UNPROVEN)]))
    body = body_of(user.get(f"/tasks/{clip.task_uuid}"))
    assert (body["status"], body["clips"][0]["error"]["code"]) == ("review", "purchaseUnproven")
    answer = user.poll(clip.task_uuid)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["code"], error["status"]) == (200, "purchaseUnproven", "error")
    assert "not submit it again" in error["message"]


@pytest.mark.parametrize("path", ["{uuid}", "{uuid}x", "a", "all", "%23", "%00", "%22", "{uuid}%0a", "%f0%9f%8e%ac"])
def test_no_such_task(user: User, path: str) -> None:
    """A path that names no task of the caller is answered with the same 404."""
    answer = user.get(f"/tasks/{path.format(uuid=uuid.uuid4())}")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "taskNotFound"


def test_a_task_without_its_request_has_expired(user: User) -> None:
    """It has no request and no links; a poll reports it as expired."""
    clip = user.buy()
    settle(user.stack)
    user.stack.store.forget(user.name, clip.task_uuid)
    body = body_of(user.get(f"/tasks/{clip.task_uuid}"))
    assert (body["status"], body["request"]) == ("succeeded", {})
    assert "videoURL" not in body["clips"][0]
    answer = user.poll(clip.task_uuid)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "taskExpired")


def test_an_erased_task_keeps_its_record(user: User) -> None:
    """It has the time of its erasure and its cost, but no request and no links; a poll reports the erasure."""
    clip = user.buy()
    settle(user.stack)
    cost = body_of(user.get(f"/tasks/{clip.task_uuid}"))["cost"]
    erase.forget(user.stack.store, client(user.stack, "s3"), user.stack.bucket_name, user.name, clip.task_uuid, 1000)
    body = body_of(user.get(f"/tasks/{clip.task_uuid}"))
    assert (body["status"], body["request"], body["cost"]) == ("erased", {}, cost)
    (view,) = body["clips"]
    assert (view["status"], view["open"], view["erasedAt"]) == ("erased", False, "1970-01-01T00:00:01.000Z")
    assert not view.keys() & {"videoURL", "error", "versionId"}
    assert uuids_of(user.get("/tasks", status="erased")) == [clip.task_uuid]
    answer = user.poll(clip.task_uuid)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "taskErased")


# ----------------------------------------------------------------------------------------------------------------------
# Many tasks
# ----------------------------------------------------------------------------------------------------------------------


def test_pages_cover_everything_once(user: User) -> None:
    """Pages are newest first and have each task once; the last one has no cursor."""
    bought = []
    for _ in range(3):
        tasks = [order(), order()]
        user.post(*tasks)
        bought.append({task["taskUUID"] for task in tasks})
    seen, parameters = [], {"limit": "2"}
    for _ in range(4):
        page = body_of(user.get("/tasks", **parameters))
        seen.append({task["taskUUID"] for task in page["tasks"]})
        if "cursor" not in page:
            break
        parameters["cursor"] = page["cursor"]
    assert [part for part in seen if part] == bought[::-1]
    assert "timeline" not in body_of(user.get("/tasks"))["tasks"][0]["clips"][0]


def test_filters(user: User) -> None:
    """Status, day and tag select the matching tasks."""
    failed = user.buy(tags={"project": "a:b,c"})
    user.stack.store.save(failed, merge_all(failed, [fact(Kind.FAILED, "taskFailed")]))
    running = user.buy(tags={"project": "other"})
    today = body_of(user.get("/tasks"))["tasks"][0]["createdAt"][:10]
    assert uuids_of(user.get("/tasks", day=today)) == [running.task_uuid, failed.task_uuid]
    assert uuids_of(user.get("/tasks", day="2020-02-29")) == []
    assert uuids_of(user.get("/tasks", tag="project:a:b,c")) == [failed.task_uuid]
    assert uuids_of(user.get("/tasks", status="failed")) == [failed.task_uuid]
    assert uuids_of(user.get("/tasks", status="running", tag="project:other")) == [running.task_uuid]
    assert uuids_of(user.get("/tasks", status="succeeded")) == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("limit", "0", "invalidLimit"),
        ("limit", "101", "invalidLimit"),
        ("limit", "ten", "invalidLimit"),
        ("limit", "²", "invalidLimit"),
        ("limit", "", "invalidLimit"),
        ("status", "pending", "invalidStatus"),
        ("day", "2026-02-30", "invalidDay"),
        ("day", "20260228", "invalidDay"),
        ("day", "2026-W01-1", "invalidDay"),
        ("tag", "project", "invalidTag"),
        ("tag", ":x", "invalidTag"),
        ("prefix", "abc", "invalidPrefix"),
        ("cursor", "", "invalidCursor"),
        ("cursor", "AAAA", "invalidCursor"),
        ("cursor", "ä", "invalidCursor"),
        ("cursor", "x" * 1000, "invalidCursor"),
        ("page", "2", "unsupportedParameter"),
    ],
)
def test_a_bad_parameter(user: User, name: str, value: str, code: str) -> None:
    """An invalid parameter is refused by name, not ignored."""
    answer = user.get("/tasks", **{name: value})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["code"], error["parameter"]) == (code, name)


# ----------------------------------------------------------------------------------------------------------------------
# Callers
# ----------------------------------------------------------------------------------------------------------------------


def without(answer: httpx.Response, task_uuid: str) -> tuple[int, str]:
    return answer.status_code, answer.text.replace(task_uuid, "…")


def test_callers_see_only_their_own_tasks(user: User) -> None:
    """Another caller's UUID is answered like an unknown one, byte for byte; another's cursor is refused."""
    other = User(user.stack)
    clips = [other.buy() for _ in range(2)]
    unknown, secret = str(uuid.uuid4()), clips[0].task_uuid
    assert without(user.get(f"/tasks/{secret}"), secret) == without(user.get(f"/tasks/{unknown}"), unknown)
    assert without(user.poll(secret), secret) == without(user.poll(unknown), unknown)
    assert user.poll(secret).status_code == 404
    assert uuids_of(user.get("/tasks")) == []
    cursor = body_of(other.get("/tasks", limit="1"))["cursor"]
    assert user.get("/tasks", cursor=cursor).status_code == 400


def test_a_budget_has_only_the_callers_clips(user: User) -> None:
    """The spent and remaining amounts count the caller's own clips only."""
    User(user.stack).buy()
    month = user.buy(duration=10).month
    assert body_of(user.get("/budget")) == {"month": month, "spent": 1.848, "limit": 50.0, "left": 48.152}


def test_the_models_are_those_of_the_catalog(user: User) -> None:
    """A caller sees what can be ordered, and at which prices."""
    listed = body_of(user.get("/models"))["models"]
    assert [model["air"] for model in listed] == list(models.identifiers())
    assert next(each for each in listed if each["air"] == models.DEFAULT) == models.content(models.DEFAULT)


@pytest.mark.parametrize("path", ["/tasks", "/budget", "/models", "/tasks/x"])
@pytest.mark.parametrize("authorization", ["", "Bearer rushes_" + "A" * 43, "Bearer emulator-key"])
def test_without_a_key(user: User, path: str, authorization: str) -> None:
    """Without a valid key every path is answered 401, whether or not the task exists."""
    answer = http().get(f"{user.stack.url}{path}", headers={"Authorization": authorization})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, "invalidApiKey")


@pytest.mark.parametrize(("function", "route"), [("tasks", "GET /budget"), ("submit", "POST /v1")])
def test_a_revoked_key_is_refused_after_a_minute(user: User, in_process: InProcess, function: str, route: str) -> None:
    """A process accepts a cached key for a minute after its revocation; the caller's other keys stay valid."""
    now = [1_790_000_000_000]
    invoke = in_process(function, clock=lambda: now[0])

    def ask(key: str) -> int:
        poll = '[{"taskType": "getResponse", "taskUUID": "00000000-0000-4000-8000-000000000000"}]'
        status, _ = invoke(route, {"authorization": f"Bearer {key}"}, poll)
        return {404: 200}.get(status, status)

    second = user.stack.create_key(user.name)
    assert ask(user.key) == ask(second) == 200
    assert user.stack.store.revoke_key(hash_key(user.key), now[0])
    now[0] += 60_000
    assert ask(user.key) == 200
    now[0] += 1
    assert ask(user.key) == 401
    assert ask(second) == 200


def test_reading_writes_nothing(user: User) -> None:
    """No read request changes the table."""
    clip = user.buy()
    before = whole_table(user.stack)
    for path in ("/tasks", f"/tasks/{clip.task_uuid}", "/budget"):
        body_of(user.get(path))
    assert user.poll(clip.task_uuid).status_code == 200
    assert whole_table(user.stack) == before


def test_an_unavailable_table(user: User) -> None:
    """While the table is unavailable the answer is a 503 that asks for a retry."""
    user.get("/budget")
    user.stack.aws.faults.fail("dynamodb", "ProvisionedThroughputExceededException")
    answer = user.get("/budget")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "serviceUnavailable")


# ----------------------------------------------------------------------------------------------------------------------
# getResponse
# ----------------------------------------------------------------------------------------------------------------------


def test_a_poll_is_cumulative(user: User) -> None:
    """A poll has every stored clip so far, and one processing item until all are stored."""
    task = order(numberResults=2, includeCost=True, safety={"checkContent": True})
    user.post(task)
    first, _ = user.clips(task)
    about = {"taskType": "videoInference", "taskUUID": task["taskUUID"]}
    assert body_of(user.poll(task["taskUUID"])) == {"data": [{**about, "status": "processing"}]}
    user.stack.emulator.finish(first.clip_uuid)
    assert user.stack.emulator.idle(PATIENCE)
    done, waiting = body_of(user.poll(task["taskUUID"]))["data"]
    assert waiting == {**about, "status": "processing"}
    settle(user.stack)
    again, other = body_of(user.poll(task["taskUUID"]))["data"]
    assert {**again, "videoURL": ""} == {**done, "videoURL": ""}
    assert again.keys() == other.keys() == {
        "taskType", "taskUUID", "status", "videoUUID", "videoURL", "seed", "NSFWContent", "cost",
    }  # fmt: skip
    assert (other["status"], other["cost"]) == ("success", 0.924)
    assert again["videoUUID"] != other["videoUUID"]


def test_cost_is_included_only_on_request(user: User) -> None:
    """As at Runware, a result has a cost only if the task requested it."""
    clip = user.buy()
    settle(user.stack)
    (item,) = body_of(user.poll(clip.task_uuid))["data"]
    assert "cost" not in item


def test_polls_and_orders_in_one_array(user: User) -> None:
    """Polls and orders in one array are answered separately; an unknown UUID fails alone."""
    clip, task, unknown = user.buy(), order(), str(uuid.uuid4())
    answer = user.post(*({"taskType": "getResponse", "taskUUID": each} for each in (clip.task_uuid, unknown)), task)
    assert answer.status_code == 200
    body = answer.json()
    assert {item["taskUUID"]: item.get("status") for item in body["data"]} == {
        clip.task_uuid: "processing",
        task["taskUUID"]: None,
    }
    assert [(error["code"], error["taskUUID"]) for error in body["errors"]] == [("taskNotFound", unknown)]


def test_one_uuid_ordered_and_polled(user: User) -> None:
    """An order and a poll of one UUID in one array are refused, since their answers could contradict each other."""
    task = order()
    answer = user.post(task, {"taskType": "getResponse", "taskUUID": task["taskUUID"]})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "duplicateTaskUUID")
    assert user.clips(task) == []


def test_failures_wait_until_all_is_decided(user: User) -> None:
    """A failed clip is not reported while another one renders, since the official client would give up the task."""
    task = order(numberResults=2)
    user.post(task)
    first, second = user.clips(task)
    closed = [fact(Kind.FAILED, "taskFailed", message="no"), fact(Kind.LAST_LOOK)]
    user.stack.store.save(first, merge_all(first, closed))
    assert body_of(user.poll(task["taskUUID"])).keys() == {"data"}
    user.stack.emulator.finish(second.clip_uuid)
    assert user.stack.emulator.idle(PATIENCE)
    body = body_of(user.poll(task["taskUUID"]))
    assert [item["status"] for item in body["data"]] == ["success"]
    assert [(error["code"], error["message"], error["status"]) for error in body["errors"]] == [
        ("taskFailed", "no", "error")
    ]


# ----------------------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------------------


def test_the_page_is_served_with_a_strict_policy(user: User) -> None:
    """The page is served without a key, and its policy allows only itself and this service's clips."""
    answer = http().get(f"{user.stack.url}/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    clip = user.buy()
    settle(user.stack)
    link = body_of(user.get(f"/tasks/{clip.task_uuid}"))["clips"][0]["videoURL"]
    assert link.startswith(f"{policy['media-src']}/")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_answers_with_links_are_not_cached(user: User) -> None:
    """Answers with links have `no-store`, since they are for their caller alone."""
    assert user.get("/tasks").headers["cache-control"] == "no-store"


def test_a_lowered_limit(user: User) -> None:
    """The budget has the caller's current limit, also when the caller has spent more."""
    user.buy(duration=10)
    lower = User(user.stack)
    lower.buy(duration=10)
    user.stack.store.set_caller(Caller(lower.name, 1_000_000))
    body = body_of(lower.get("/budget"))
    assert (body["limit"], body["left"]) == (1.0, 0.0)

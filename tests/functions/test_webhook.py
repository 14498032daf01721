"""`POST /webhooks/…` through the gateway: the token, every shape of body, and errors while saving."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from rushes.domain import webhook_token
from rushes.domain.clip import Clip, FactSource, Kind, Status
from rushes_local.stack import Stack
from tests.conftest import Json, User, client, http, whole_bucket, whole_table
from tests.functions.conftest import InProcess

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x01\xfcmdat" + bytes(500)
WEEK = 7 * 24 * 3600
MINUTE = 60_000  # milliseconds


def call(url: str, body: object, method: str = "POST") -> httpx.Response:
    """Sends a request as Runware's webhook client does; bytes are sent unchanged."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    return http().request(method, url, content=content, headers=headers)


def result(clip: Clip, **changes: Any) -> Json:
    """The item of a finished clip; a field with the value Ellipsis is left out."""
    item = {
        "taskType": "videoInference",
        "taskUUID": clip.clip_uuid,
        "videoUUID": "365dbe1a-04d4-4674-a393-2afff044fb30",
        "videoURL": "https://vm.runware.ai/video/1.mp4",
        "seed": 169984304,
        "cost": 0.924,
        **changes,
    }
    return {name: value for name, value in item.items() if value is not ...}


def failure(clip: Clip, code: str = "timeoutProvider", **changes: Any) -> Json:
    """The item of a failed clip."""
    item = {
        "code": code,
        "message": "It failed.",
        "status": "error",
        "taskUUID": clip.clip_uuid,
        "taskType": "videoInference",
        **changes,
    }
    return {name: value for name, value in item.items() if value is not ...}


def token_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


def keys(stack: Stack) -> list[str]:
    """The current signing key."""
    arn = stack.functions["webhook"].function.environment["WEBHOOK_SECRET"]
    pair = json.loads(client(stack, "secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    return [pair["current"]]


def upload(user: User, clip: Clip, content: bytes = MP4) -> str:
    """Uploads as Runware does before its webhook; returns the version."""
    answer = http().put(user.sent(clip)[0]["uploadEndpoint"], content=content)
    assert answer.status_code == 200
    return answer.headers["x-amz-version-id"]


# ----------------------------------------------------------------------------------------------------------------------
# The token
# ----------------------------------------------------------------------------------------------------------------------

Forgery = Callable[[User, Clip, str], str]


def signed(user: User, clip: Clip, seconds: int, subject: str | None = None, key: str | None = None) -> str:
    """A token signed this many seconds ago with the service's key, or another."""
    subject_text = webhook_token.subject(clip.caller, clip.task_uuid, clip.index) if subject is None else subject
    moment = (int(time.time()) - seconds) * 1000
    return webhook_token.sign(subject_text, [key] if key else keys(user.stack), moment)


def changed_token(token: str) -> str:
    """The token with one character in its middle changed."""
    middle = len(token) // 2
    return token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]


FORGERIES: dict[str, Forgery] = {
    "none": lambda user, clip, url: url.partition("?")[0],
    "empty": lambda user, clip, url: url.partition("=")[0] + "=",
    "under another name": lambda user, clip, url: url.replace("token=", "Token="),
    "wrong": lambda user, clip, url: url.replace(token_of(url), "wrong"),
    "very long": lambda user, clip, url: url + "A" * 3000,
    "not ASCII": lambda user, clip, url: url.partition("=")[0] + "=%C3%BC%FF.%00",
    "one character changed": lambda user, clip, url: url.replace(token_of(url), changed_token(token_of(url))),
    "its last character missing": lambda user, clip, url: url[:-1],
    "its first character missing": lambda user, clip, url: url.replace(token_of(url), token_of(url)[1:]),
    "its signature missing": lambda user, clip, url: url.rpartition(".")[0],
    "twice": lambda user, clip, url: f"{url}&token={token_of(url)}",
    "of another task": lambda user, clip, url: url.replace(token_of(url), token_of(user.callback(user.buy()))),
    "of another clip": lambda user, clip, url: url.replace("/0?", "/1?"),
    "of another caller": lambda user, clip, url: url.replace(clip.caller, "somebody-else"),
    "of a caller that starts alike": lambda user, clip, url: url.replace(f"{clip.caller}/", f"{clip.caller}x/"),
    "of this clip, written otherwise": lambda user, clip, url: url.replace("/0?", "/00?"),
    "expired": lambda user, clip, url: url.replace(token_of(url), signed(user, clip, WEEK + 5)),
    "of the future": lambda user, clip, url: url.replace(token_of(url), signed(user, clip, -3600)),
    "of an unknown key": lambda user, clip, url: url.replace(token_of(url), signed(user, clip, 0, key="k" * 64)),
    "of an empty key": lambda user, clip, url: url.replace(token_of(url), signed(user, clip, 0, key=" ")),
    "for nothing": lambda user, clip, url: url.replace(token_of(url), signed(user, clip, 0, subject="")),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_token_that_is_not_this_clips(user: User, forge: Forgery) -> None:
    """Every invalid token is answered with the same 401, and no item and no object changes."""
    clip = user.buy(numberResults=2)
    url = forge(user, clip, user.callback(clip))
    assert url != user.callback(clip)
    table, bucket = whole_table(user.stack), whole_bucket(user.stack)
    for body in ({"data": [result(clip)]}, {"errors": [failure(clip)]}, b"junk"):
        answer = call(url, body)
        assert (answer.status_code, answer.json()) == (401, {"message": "invalid token"})
    assert (whole_table(user.stack), whole_bucket(user.stack)) == (table, bucket)


def test_the_forgeries_fail_only_by_their_token(user: User) -> None:
    """The same calls succeed with a valid token, also with one that is nearly a week old."""
    clip = user.buy()
    url = user.callback(clip)
    assert call(url.replace(token_of(url), signed(user, clip, WEEK - 60)), result(clip)).status_code == 200
    assert user.now(clip).status == Status.RENDERED


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method(user: User, method: str) -> None:
    """Only POST is accepted."""
    clip = user.buy()
    table = whole_table(user.stack)
    assert call(user.callback(clip), {"data": [result(clip)]}, method).status_code == 404
    assert whole_table(user.stack) == table


def test_an_api_key_is_no_token(user: User) -> None:
    """An API key does not replace a token."""
    clip = user.buy()
    url = user.callback(clip).partition("?")[0]
    assert http().post(url, json=result(clip), headers=user.headers).status_code == 401


def test_a_forged_call_reads_nothing(user: User, in_process: InProcess) -> None:
    """A forged call is the same 401 while the table is unavailable, so it does not reach the table."""
    webhook = in_process("webhook")
    user.stack.aws.faults.fail("dynamodb", "InternalServerError")
    path = {"caller": user.name, "taskUUID": str(uuid.uuid4()), "clip": "0"}
    assert webhook("POST /webhooks/x", {}, "{}", path, "wrong.token.x") == (401, {"message": "invalid token"})


class ManualClock:
    """Milliseconds, moved by the test."""

    def __init__(self) -> None:
        self.now = int(time.time() * 1000)

    def __call__(self) -> int:
        return self.now


def test_keys_are_rotated(user: User, in_process: InProcess) -> None:
    """After a rotation the previous key stays valid; the new one becomes valid within a minute."""
    secrets = client(user.stack, "secretsmanager")

    def rotate(current: str, previous: str) -> None:
        pair = json.dumps({"current": current, "previous": previous})
        secrets.put_secret_value(SecretId=arn, SecretString=pair)

    clip, clock = user.buy(), ManualClock()
    path = {"caller": clip.caller, "taskUUID": clip.task_uuid, "clip": "0"}
    body = json.dumps(result(clip))
    arn = secrets.create_secret(Name=f"rotating-{user.name}", SecretString='{"current": "old", "previous": ""}')["ARN"]
    webhook = in_process("webhook", clock, WEBHOOK_SECRET=arn)

    def status(key: str) -> int:
        token = webhook_token.sign(webhook_token.subject(clip.caller, clip.task_uuid, 0), [key], clock.now)
        answered: int = webhook("POST /webhooks/x", {}, body, path, token)[0]
        return answered

    assert (status("old"), status("new")) == (200, 401)
    rotate("new", "old")
    clock.now += MINUTE - 1000
    assert (status("old"), status("new")) == (200, 401), "an unknown key must not cause a fetch before a minute is over"
    clock.now += 2000
    assert (status("new"), status("old"), status("unknown")) == (200, 200, 401)
    rotate("newer", "new")
    clock.now += MINUTE - 1000
    assert (status("newer"), status("unknown")) == (401, 401)
    clock.now += 2000
    assert (status("unknown"), status("newer"), status("new"), status("old")) == (401, 200, 200, 401)


# ----------------------------------------------------------------------------------------------------------------------
# The body
# ----------------------------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[Clip], Any]] = {
    "enveloped": lambda clip: {"data": [result(clip)]},
    "flat": lambda clip: result(clip),
    "a bare array": lambda clip: [result(clip)],
    "both keys": lambda clip: {"data": [result(clip)], "errors": []},
    "with a status": lambda clip: {"data": [result(clip, status="success")]},
    "a UUID in capitals": lambda clip: result(clip, taskUUID=clip.clip_uuid.upper()),
    "data that is one object": lambda clip: {"data": result(clip)},
    "among others": lambda clip: {"data": [result(clip, taskUUID=str(uuid.uuid4()), seed=1), result(clip)]},
    "with unknown fields": lambda clip: {"data": [result(clip, more={"deep": [1]})], "webhook": 1},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_result_in_any_shape(user: User, shape: Callable[[Clip], Any]) -> None:
    """A finished clip is understood in every observed shape, with all of its fields."""
    clip = user.buy()
    assert call(user.callback(clip), shape(clip)).status_code == 200
    now = user.now(clip)
    assert now.status == Status.RENDERED
    ((video_uuid, record),) = now.of(Kind.RENDERED).items()
    assert video_uuid == result(clip)["videoUUID"]
    assert record.seen.keys() == {FactSource.WEBHOOK}
    assert dict(record.fields) == {"videoURL": result(clip)["videoURL"], "seed": 169984304, "cost": 924_000}


FAILURES: dict[str, Callable[[Clip], Any]] = {
    "enveloped": lambda clip: {"errors": [failure(clip)]},
    "both keys": lambda clip: {"data": [], "errors": [failure(clip)]},
    "singular": lambda clip: {"error": failure(clip)},
    "singular, a list": lambda clip: {"error": [failure(clip)]},
    "flat": lambda clip: failure(clip),
    "a bare array": lambda clip: [failure(clip)],
    "in data": lambda clip: {"data": [failure(clip)]},
    "nested in data": lambda clip: {
        "data": [
            {
                "taskType": "videoInference",
                "taskUUID": clip.clip_uuid,
                "status": "error",
                "error": {"code": "timeoutProvider", "message": "It failed."},
            }
        ]
    },
    "without a UUID": lambda clip: {"errors": [failure(clip, taskUUID=...)]},
}


@pytest.mark.parametrize("shape", FAILURES.values(), ids=FAILURES)
def test_a_failure_in_any_shape(user: User, shape: Callable[[Clip], Any]) -> None:
    """A failed clip is understood in every shape; its money stays reserved until the last look."""
    clip = user.buy()
    assert call(user.callback(clip), shape(clip)).status_code == 200
    now = user.now(clip)
    assert now.status == Status.FAILED
    ((code, record),) = now.of(Kind.FAILED).items()
    assert (code, record.fields["category"], record.fields["message"]) == ("timeoutProvider", "timeout", "It failed.")
    assert user.counted(clip) == now.estimate
    assert now.open


def test_the_copy_is_found(user: User) -> None:
    """If the upload came first, the webhook stores the clip with the object's version and closes it."""
    clip = user.buy()
    version = upload(user, clip)
    answer = call(user.callback(clip), {"data": [result(clip)]})
    assert (answer.status_code, answer.json()) == (200, {"message": "stored"})
    now = user.now(clip)
    assert now.status == Status.STORED
    assert now.copy is not None
    assert now.copy[0] == version
    assert now.copy[1].fields["size"] == len(MP4)
    assert now.next_check_at is None


@pytest.mark.parametrize("content", [b"", b"<html>not a video</html>"], ids=["empty", "garbage"])
def test_an_upload_that_is_no_video(user: User, content: bytes) -> None:
    """An empty or foreign object is no copy: the clip is rendered and will be checked again."""
    clip = user.buy()
    upload(user, clip, content)
    assert call(user.callback(clip), result(clip)).status_code == 200
    now = user.now(clip)
    assert now.status == Status.RENDERED
    assert now.next_check_at is not None


def test_s3_is_unavailable(user: User) -> None:
    """While S3 is unavailable the webhook is saved as rendered; a later check finds the copy."""
    clip = user.buy()
    upload(user, clip)
    user.stack.aws.faults.fail("s3", "SlowDown")
    assert call(user.callback(clip), result(clip)).status_code == 200
    assert user.now(clip).status == Status.RENDERED


@pytest.mark.parametrize("cost", [0.9, 1.848])
def test_the_cost_is_counted(user: User, cost: float) -> None:
    """The budget follows the reported cost, to the micro-dollar, up or down."""
    clip = user.buy()
    assert call(user.callback(clip), result(clip, cost=cost)).status_code == 200
    assert user.counted(clip) == user.now(clip).budgeted == round(cost * 1_000_000)


@pytest.mark.parametrize("cost", [..., 0, -1, "0.9", True, 1e9], ids=str)
def test_an_implausible_cost(user: User, cost: Any) -> None:
    """Without a plausible cost the estimate stays in the budget."""
    clip = user.buy()
    assert call(user.callback(clip), result(clip, cost=cost)).status_code == 200
    assert user.counted(clip) == clip.estimate


def test_inline_data_is_not_recorded(user: User) -> None:
    """Base64 in a result never reaches the table."""
    clip = user.buy()
    data = "A" * 300_000
    assert call(user.callback(clip), result(clip, videoURL=..., videoBase64Data=data)).status_code == 200
    assert user.now(clip).status == Status.RENDERED
    assert max(len(json.dumps(item)) for item in whole_table(user.stack) if clip.task_uuid in item["pk"]["S"]) < 5_000


def test_a_flagged_clip(user: User) -> None:
    """A flagged clip is stored, since it was paid for, and the flag is recorded."""
    clip = user.buy()
    upload(user, clip)
    call(user.callback(clip), result(clip, NSFWContent=True))
    now = user.now(clip)
    assert now.status == Status.STORED
    assert [record.fields["NSFWContent"] for record in now.of(Kind.RENDERED).values()] == [True]


@pytest.mark.parametrize("shape", [lambda item: {"data": [item]}, lambda item: item], ids=["enveloped", "flat"])
def test_progress(user: User, shape: Callable[[Json], Any]) -> None:
    """A progress call is answered 2xx and changes nothing."""
    clip = user.buy()
    table = whole_table(user.stack)
    item = {"taskType": "videoInference", "taskUUID": clip.clip_uuid, "status": "processing", "progress": 40}
    assert call(user.callback(clip), shape(item)).status_code == 200
    assert whole_table(user.stack) == table


JUNK: dict[str, Any] = {
    "nothing": b"",
    "not JSON": b"junk",
    "HTML": b"<html></html>",
    "bad UTF-8": b'{"data": "\xff"}',
    "NaN": b'{"data": [{"taskUUID": "x", "cost": NaN}]}',
    "deep nesting": b"[" * 100_000 + b"]" * 100_000,
    "null": None,
    "a string": "done",
    "a number": 5,
    "an empty object": {},
    "an empty array": [],
    "another envelope": {"result": "ok"},
    "no items": {"data": []},
    "items that are none": {"data": ["x", 5, None]},
    "another clip's": {"data": [{"taskType": "videoInference", "taskUUID": str(uuid.uuid4()), "videoUUID": "v"}]},
    "another clip's error": {"errors": [{"code": "taskFailed", "taskUUID": str(uuid.uuid4())}]},
}


@pytest.mark.parametrize("body", JUNK.values(), ids=JUNK)
def test_junk_under_a_valid_token(user: User, body: Any) -> None:
    """A body without an item for this clip is 400, and changes nothing."""
    clip = user.buy()
    table = whole_table(user.stack)
    assert call(user.callback(clip), body).status_code == 400
    assert whole_table(user.stack) == table


def test_the_callers_uuid_is_not_the_clips(user: User) -> None:
    """A clip is identified by its clipUUID, not by its taskUUID."""
    clip = user.buy()
    assert call(user.callback(clip), result(clip, taskUUID=clip.task_uuid)).status_code == 400
    assert user.now(clip) == clip


def test_a_clip_that_is_not_recorded(user: User) -> None:
    """A valid token for an unrecorded clip is 404, and no clip is created."""
    clip = user.buy()
    unknown = clip.task_uuid[:-1] + ("0" if clip.task_uuid[-1] != "0" else "1")
    table = whole_table(user.stack)
    token = signed(user, clip, 0, webhook_token.subject(clip.caller, unknown, 0))
    url = f"{user.stack.url}/webhooks/runware/{clip.caller}/{unknown}/0?token={token}"
    assert call(url, result(clip)).status_code == 404
    assert whole_table(user.stack) == table


# ----------------------------------------------------------------------------------------------------------------------
# Repeated, late, and out of order
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "rendered"])
def test_a_repeat(user: User, stored: bool) -> None:
    """A repeated webhook, in any shape, is 200 and does not write the item."""
    clip = user.buy()
    if stored:
        upload(user, clip)
    bodies = [shape(clip) for shape in SHAPES.values()]
    assert call(user.callback(clip), bodies[0]).status_code == 200
    table = whole_table(user.stack)
    assert [call(user.callback(clip), body).status_code for body in bodies] == [200] * len(bodies)
    assert whole_table(user.stack) == table


def test_a_repeat_finds_the_copy(user: User) -> None:
    """A repeat that finds a late upload stores the clip."""
    clip = user.buy()
    call(user.callback(clip), result(clip))
    upload(user, clip)
    assert call(user.callback(clip), result(clip)).json() == {"message": "stored"}
    assert user.now(clip).status == Status.STORED


@pytest.mark.parametrize("failure_first", [True, False])
def test_failure_and_success_in_any_order(user: User, failure_first: bool) -> None:
    """A failure and a success end in the same facts in either order: rendered, with the cost counted."""
    clip = user.buy()
    bodies = [failure(clip), result(clip, cost=0.9)]
    for body in bodies if failure_first else reversed(bodies):
        assert call(user.callback(clip), body).status_code == 200
    now = user.now(clip)
    assert now.status == Status.RENDERED
    assert now.has(Kind.FAILED)
    assert user.counted(clip) == 900_000


def test_two_renders(user: User) -> None:
    """Two different renders of one clip are both counted, since both were paid."""
    clip = user.buy()
    call(user.callback(clip), result(clip))
    call(user.callback(clip), result(clip, videoUUID=str(uuid.uuid4()), cost=0.5))
    assert len(user.now(clip).of(Kind.RENDERED)) == 2
    assert user.counted(clip) == 924_000 + 500_000


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("uploadFailed", Status.RENDERED),
        ("mediaStorageFileCouldNotBeMoved", Status.RENDERED),
        ("webhookTimeout", Status.RUNNING),
    ],
)
def test_an_error_of_delivery(user: User, code: str, status: Status) -> None:
    """A delivery error proves a purchase, and an upload error also a render; neither is a failure."""
    clip = user.buy()
    assert call(user.callback(clip), {"errors": [failure(clip, code)]}).status_code == 200
    assert user.now(clip).status == status


# ----------------------------------------------------------------------------------------------------------------------
# Errors
# ----------------------------------------------------------------------------------------------------------------------


def test_the_table_is_unavailable(user: User) -> None:
    """A webhook that cannot be saved is 503; Runware's retry is saved once the table is back."""
    clip = user.buy()
    user.stack.aws.faults.fail("dynamodb", "InternalServerError")
    answer = call(user.callback(clip), result(clip))
    assert (answer.status_code, answer.json()) == (503, {"message": "not saved; send it again"})
    user.stack.aws.faults.clear()
    assert user.now(clip) == clip
    assert call(user.callback(clip), result(clip)).status_code == 200
    assert user.now(clip).status == Status.RENDERED


def test_a_passing_table_error(user: User) -> None:
    """A short failure of the table is not visible to Runware."""
    clip = user.buy()
    user.stack.aws.faults.fail("dynamodb", "InternalServerError", times=3)
    assert call(user.callback(clip), result(clip)).status_code == 200


def test_saved_though_the_answer_was_lost(user: User) -> None:
    """A save whose answers are all lost is recognized and counted once."""
    clip = user.buy()
    user.stack.aws.faults.fail("dynamodb", "InternalServerError", times=5, after=True)
    assert call(user.callback(clip), result(clip, cost=0.9)).status_code == 200
    user.stack.aws.faults.clear()
    now = user.now(clip)
    assert (now.status, now.version) == (Status.RENDERED, clip.version + 1)
    assert user.counted(clip) == 900_000


def test_no_secret_is_recorded(user: User) -> None:
    """An error that repeats our links is recorded and logged without their tokens and signatures."""
    clip = user.buy()
    sent = user.sent(clip)[0]
    message = f"PUT {sent['uploadEndpoint']} failed, so did POST {sent['webhookURL']}; Authorization: Bearer abcdef"
    echo = failure(clip, "taskFailed", message=message, responseContent=message)
    assert call(user.callback(clip), {"errors": [echo]}).status_code == 200
    stored_items = json.dumps([item for item in whole_table(user.stack) if clip.task_uuid in item["pk"]["S"]])
    assert "failed, so did POST" in stored_items
    for secret in (token_of(sent["webhookURL"]), "X-Amz-Signature=", "abcdef"):
        assert secret not in stored_items

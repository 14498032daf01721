"""Every switch of the emulator has its effect, and only while it is on."""

import base64
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import rushes_local.runware
from rushes.domain.media import HEAD_BYTES, container
from rushes_local.runware.emulator import OneShot
from rushes_local.runware.faults import Switches, UnknownSwitchError
from rushes_local.runware.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import EmulatorService


def codes(answer: httpx.Response) -> list[str]:
    return [error["code"] for error in answer.json()["errors"]]


def charged(service: "EmulatorService") -> int:
    service.settle()
    return len(service.emulator.ledger())


# Submissions


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "validationFailed"),
        (401, "invalidApiKey"),
        (402, "insufficientCredits"),
        (403, "insufficientPermissions"),
        (408, "requestTimeout"),
        (429, "rateLimitExceeded"),
        (500, "internalServerError"),
        (503, "serviceUnavailable"),
        (504, "providerGatewayTimeout"),
    ],
)
@pytest.mark.parametrize("accepts", [False, True])
def test_an_injected_status(service: "EmulatorService", status: int, code: str, accepts: bool) -> None:
    """submit_status gives that answer, in an envelope or bare; with submit_accepts the task is still bought."""
    service.emulator.faults.submit_status = status
    service.emulator.faults.submit_accepts = accepts
    answer = service.post(service.task())
    assert (answer.status_code, codes(answer)) == (status, [code])
    service.emulator.faults.submit_bare = True
    bare = service.post(service.task())
    assert (bare.status_code, bare.headers["Content-Type"]) == (status, "text/html")
    assert charged(service) == (2 if accepts else 0)


def test_an_injected_code(service: "EmulatorService") -> None:
    """submit_code goes with submit_status, and each task gets an error of its own."""
    service.emulator.faults.submit_status = 400
    service.emulator.faults.submit_code = "invalidValueUploadFailed"
    task = service.task()
    answer = service.post(task, service.task())
    assert codes(answer) == ["invalidValueUploadFailed"] * 2
    assert answer.json()["errors"][0]["taskUUID"] == task["taskUUID"]
    assert service.poll(task).status_code == 200


@pytest.mark.parametrize(("cut", "bought"), [("before", 0), ("after", 1)])
def test_a_cut_connection(service: "EmulatorService", cut: Any, bought: int) -> None:
    """submit_cut ends the request without an answer, before or after the task was accepted."""
    service.emulator.faults.submit_cut = cut
    with pytest.raises(httpx.RemoteProtocolError):
        service.post(service.task())
    assert charged(service) == bought


def test_a_late_request(service: "EmulatorService") -> None:
    """submit_late_seconds cuts the connection at once and buys the task, unknown until then, that much later."""
    service.emulator.faults.next_submissions.append(OneShot(submit_late_seconds=0.2))
    task = service.task()
    with pytest.raises(httpx.RemoteProtocolError):
        service.post(task)
    assert service.poll(task).json() == {"data": []}
    assert charged(service) == 1
    assert service.poll(task).json()["data"][0]["status"] == "success"


def test_unreadable_empty_and_slow_answers(service: "EmulatorService") -> None:
    """submit_garbage, submit_empty and submit_seconds change the answer alone: the task is bought."""
    service.emulator.faults.next_submissions += [
        OneShot(submit_garbage=True),
        OneShot(submit_empty=True),
        OneShot(submit_seconds=0.1),
    ]
    with pytest.raises(json.JSONDecodeError):
        service.post(service.task()).json()
    assert service.post(service.task()).json() == {"data": []}
    began = time.monotonic()
    assert service.post(service.task()).status_code == 200
    assert time.monotonic() - began >= 0.1
    assert charged(service) == 3


def test_a_conflict_may_be_a_409(service: "EmulatorService") -> None:
    """conflict_status is the status of a refused repeat."""
    task = service.run()
    service.emulator.faults.conflict_status = 409
    assert service.post(task).status_code == 409


@pytest.mark.parametrize("switch", ["refuses_running", "refuses_finished"])
def test_a_uuid_may_be_bought_again(stepped: "EmulatorService", switch: str) -> None:
    """Each switch allows a second purchase of a UUID in one state of its task only."""
    setattr(stepped.emulator.faults, switch, False)
    task = stepped.task()
    stepped.post(task)
    assert (stepped.post(task).status_code == 200) is (switch == "refuses_running")
    stepped.emulator.finish_all()
    stepped.settle()
    assert (stepped.post(task).status_code == 200) is (switch == "refuses_finished")
    stepped.emulator.finish_all()
    assert charged(stepped) == 2


# Polls


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_polls_may_fail(service: "EmulatorService", status: int) -> None:
    """poll_status fails every getResponse, bare on request; submissions and details are unaffected."""
    task = service.run()
    service.emulator.faults.poll_status = status
    assert service.poll(task).status_code == status
    assert service.poll(task).json()["errors"]
    service.emulator.faults.poll_bare = True
    assert service.poll(task).headers["Content-Type"] == "text/html"
    assert service.details(task).status_code == 200
    assert service.post(service.task()).status_code == 200


def test_polls_may_omit_a_running_task(stepped: "EmulatorService") -> None:
    """Without finds_running a task is unknown until it is finished."""
    stepped.emulator.faults.finds_running = False
    task = stepped.task()
    stepped.post(task)
    assert stepped.poll(task).json() == {"data": []}
    stepped.emulator.finish_all()
    stepped.settle()
    assert stepped.poll(task).json()["data"]


def test_polls_may_forget_a_finished_task(start: "Callable[..., EmulatorService]") -> None:
    """After finds_finished_seconds a finished task is unknown; unknown_uuid chooses the answer."""
    now = [1_000.0]
    service = start(clock=lambda: now[0])
    task = service.run()
    service.emulator.faults.finds_finished_seconds = 60
    now[0] += 60
    assert service.poll(task).json()["data"]
    now[0] += 1
    assert service.poll(task).json() == {"data": []}
    service.emulator.faults.unknown_uuid = "taskNotFound"
    assert codes(service.poll(task)) == ["taskNotFound"]
    assert codes(service.details(service.task())) == ["taskNotFound"]


def test_details_may_be_missing_or_fail(service: "EmulatorService") -> None:
    """Without finds_details the task type does not exist; details_status fails that type only."""
    task = service.run()
    service.emulator.faults.finds_details = False
    assert codes(service.details(task)) == ["unsupportedTaskType"]
    service.emulator.faults.details_status = 500
    assert service.details(task).status_code == 500
    assert service.poll(task).status_code == 200


# The render and its result


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", ["timeoutProvider", "invalidProviderContent"])
def test_a_failed_render(service: "EmulatorService", code: str, status: Any) -> None:
    """failure reaches webhook and poll, with the provider's text on moderation; nothing is charged or uploaded."""
    service.emulator.faults.failure = code
    service.emulator.faults.poll_failure_status = status
    task = service.run(numberResults=2)
    answer = service.poll(task)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, answer.json()["data"]) == (status, [])
    assert (error["code"], error["status"], error["taskUUID"]) == (code, "error", task["taskUUID"])
    assert ("responseContent" in error) is (code == "invalidProviderContent")
    assert service.receiver.calls == [{"errors": [error]}]
    assert (service.receiver.puts, charged(service)) == ([], 0)


def test_a_failure_among_successes_is_a_200(service: "EmulatorService") -> None:
    """A poll with at least one result is a 200 even where lone failures are a 400."""
    service.emulator.faults.poll_failure_status = 400
    service.emulator.faults.next_submissions.append(OneShot(failure="taskFailed"))
    failed, done = service.run(), service.run()
    polls = [{"taskType": "getResponse", "taskUUID": task["taskUUID"]} for task in (failed, done)]
    answer = service.post(*polls)
    assert (answer.status_code, codes(answer)) == (200, ["taskFailed"])


def test_failures_inside_data(service: "EmulatorService") -> None:
    """poll_failure_shape puts the error item into data, flat or nested."""
    service.emulator.faults.failure = "taskFailed"
    task = service.run()
    service.emulator.faults.poll_failure_shape = "flat"
    (flat,) = service.poll(task).json()["data"]
    service.emulator.faults.poll_failure_shape = "nested"
    (nested,) = service.poll(task).json()["data"]
    assert (flat["status"], flat["code"]) == ("error", "taskFailed")
    assert (nested["status"], nested["error"]["code"]) == ("error", "taskFailed")


@pytest.mark.parametrize("reordered", [False, True])
def test_failure_then_success(service: "EmulatorService", reordered: bool) -> None:
    """With recovers_seconds a failed task succeeds and is charged later; reordered, the success is sent first."""
    service.emulator.faults.failure = "timeoutProvider"
    service.emulator.faults.recovers_seconds = 0.2
    service.emulator.faults.webhook_reordered = reordered
    task = service.task()
    service.post(task)
    deadline = time.monotonic() + 5
    while "errors" not in service.poll(task).json():
        assert time.monotonic() < deadline
    assert charged(service) == 1
    assert service.poll(task).json()["data"][0]["status"] == "success"
    sent = ["data" if "data" in call else "errors" for call in service.receiver.calls]
    assert sent == (["data", "errors"] if reordered else ["errors", "data"])
    assert len(service.receiver.puts) == 1


@pytest.mark.parametrize(
    ("switch", "value", "field", "expected"),
    [
        ("result_url", False, "videoURL", None),
        ("result_cost", False, "cost", None),
        ("result_nsfw", True, "NSFWContent", True),
        ("price_percent", 150, "cost", 1.386),
    ],
)
def test_a_changed_result(service: "EmulatorService", switch: str, value: Any, field: str, expected: Any) -> None:
    """Each switch changes its one field, in the poll and in the webhook."""
    setattr(service.emulator.faults, switch, value)
    task = service.run()
    assert service.poll(task).json()["data"][0].get(field) == expected
    assert service.receiver.calls[0]["data"][0].get(field) == expected


@pytest.mark.parametrize("field", ["videoBase64Data", "videoDataURI"])
def test_a_result_with_its_bytes(service: "EmulatorService", field: Any) -> None:
    """result_base64 puts the whole video into the item."""
    service.emulator.faults.result_base64 = field
    task = service.run(outputFormat="MOV")
    head, _, text = service.poll(task).json()["data"][0][field].rpartition(",")
    assert head == ("data:video/quicktime;base64" if field == "videoDataURI" else "")
    assert base64.b64decode(text) == service.receiver.puts[0].body


def test_downloads_may_be_empty_or_fail(service: "EmulatorService") -> None:
    """video_url_empty_reads makes the first downloads empty, video_url_status fails them all."""
    service.emulator.faults.video_url_empty_reads = 1
    url = service.poll(service.run()).json()["data"][0]["videoURL"]
    first, second = service.client.get(url), service.client.get(url)
    assert (first.status_code, first.content) == (200, b"")
    assert second.content == service.receiver.puts[0].body
    service.emulator.faults.video_url_status = 403
    assert service.client.get(url).status_code == 403


# The upload


def test_an_upload_is_raw_bytes_with_a_length_and_no_type(service: "EmulatorService") -> None:
    """The PUT comes first and carries the video, Content-Length and no Content-Type; the webhook follows."""
    service.run()
    put, call = service.receiver.arrivals
    assert (put.method, put.path, put.content_type, put.content_length) == ("PUT", "/put", None, str(len(put.body)))
    assert (call.method, call.path, call.content_type) == ("POST", "/hook", "application/json")


@pytest.mark.parametrize("seconds", [0.0, 0.2])
@pytest.mark.parametrize(("upload", "order"), [("before", "PUT POST"), ("after", "POST PUT"), ("never", "POST")])
def test_the_order_of_upload_and_webhook(service: "EmulatorService", upload: Any, order: str, seconds: float) -> None:
    """upload decides the order of PUT and webhook, whatever upload_seconds and webhook_seconds are."""
    service.emulator.faults.upload = upload
    service.emulator.faults.upload_seconds = seconds
    service.emulator.faults.webhook_seconds = 0.2 - seconds
    began = time.monotonic()
    task = service.run()
    assert [arrival.method for arrival in service.receiver.arrivals] == order.split()
    assert time.monotonic() - began >= (0 if (upload, seconds) == ("never", 0.2) else 0.2)
    assert service.poll(task).json()["data"][0]["status"] == "success"


@pytest.mark.parametrize(("content", "size"), [("garbage", 1000), ("empty", 0)])
def test_other_bytes_are_uploaded(service: "EmulatorService", content: Any, size: int) -> None:
    """upload_content changes the bytes of the PUT, upload_content_type adds the header; videoURL stays right."""
    service.emulator.faults.upload_content = content
    service.emulator.faults.upload_content_type = "video/mp4"
    task = service.run()
    (put,) = service.receiver.puts
    assert (len(put.body), put.content_type) == (size, "video/mp4")
    assert b"ftyp" in service.client.get(service.poll(task).json()["data"][0]["videoURL"]).content


@pytest.mark.parametrize("rendered", ["MP4", "WEBM"])
def test_another_format_is_rendered(service: "EmulatorService", rendered: str) -> None:
    """result_format changes the format of the upload, of the address and of its content."""
    service.emulator.faults.result_format = rendered
    url = service.poll(service.run(outputFormat="MOV")).json()["data"][0]["videoURL"]
    (put,) = service.receiver.puts
    content = service.client.get(url).content
    assert url.endswith(f".{rendered.lower()}")
    assert put.body == content
    assert container(content[:HEAD_BYTES], len(content)) == rendered.lower()


@pytest.mark.parametrize("switched", [True, False], ids=["by switch", "by a 403"])
@pytest.mark.parametrize(("reporting", "results", "errors"), [("no", 1, 0), ("beside", 1, 1), ("instead", 0, 1)])
def test_a_failed_upload(service: "EmulatorService", reporting: Any, results: int, errors: int, switched: bool) -> None:
    """A failed PUT is not repeated; the webhook is still sent, and polls report it as the switch chooses."""
    service.emulator.faults.upload_fails = switched
    service.emulator.faults.reports_delivery_failure = reporting
    service.receiver.statuses = [] if switched else [403]
    body = service.poll(service.run()).json()
    assert (len(body["data"]), [error["code"] for error in body.get("errors", [])]) == (
        results,
        ["uploadFailed"] * errors,
    )
    assert len(service.receiver.puts) == (0 if switched else 1)
    assert len(service.receiver.calls) == 1


# Webhooks


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("status", [302, 400, 500])
def test_a_webhook_is_repeated_within_bounds(service: "EmulatorService", status: int, retries: int) -> None:
    """Without a 2xx the call is repeated webhook_retries times, the same each time, and then dropped."""
    service.emulator.faults.webhook_retries = retries
    service.emulator.faults.reports_delivery_failure = "beside"
    service.receiver.statuses = [status] * 20
    task = service.run(uploadEndpoint=...)
    assert len(service.receiver.calls) == 1 + retries
    assert all(call == service.receiver.calls[0] for call in service.receiver.calls)
    assert codes(service.poll(task)) == ["webhookTimeout"]


def test_a_webhook_that_got_through_is_not_repeated(service: "EmulatorService") -> None:
    """A 2xx ends the retries."""
    service.receiver.statuses = [200, 500, 503, 204]
    service.run()
    assert len(service.receiver.calls) == 3


def test_an_unreachable_receiver_is_tried_again(start: "Callable[..., EmulatorService]") -> None:
    """A connection error counts as no 2xx and does not end the worker."""
    attempts: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        attempts.append(request.method)
        raise httpx.ConnectError("refused")

    service = start(http=httpx.Client(transport=httpx.MockTransport(refuse)))
    service.emulator.faults.webhook_retries = 2
    service.run()
    service.run()
    assert attempts.count("POST") == 6
    assert attempts.count("PUT") == 2


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_copies_of_a_webhook(service: "EmulatorService", copies: int) -> None:
    """webhook_copies is the number of times that each call is sent, zero included."""
    service.emulator.faults.webhook_copies = copies
    service.run()
    assert len(service.receiver.calls) == copies


def test_webhooks_in_reverse(service: "EmulatorService") -> None:
    """webhook_reordered delays the calls of a task and sends the last one first."""
    service.emulator.faults.webhook_reordered = True
    task = service.run(numberResults=4)
    sent = [call["data"][0]["videoUUID"] for call in service.receiver.calls]
    assert sorted(sent) == sorted(item["videoUUID"] for item in service.poll(task).json()["data"])
    assert len(sent) == 4


def test_a_webhook_before_the_acknowledgement(stepped: "EmulatorService") -> None:
    """webhook_before_answer sends the webhook during the submission, even when stepped."""
    stepped.emulator.faults.webhook_before_answer = True
    stepped.post(stepped.task())
    assert len(stepped.receiver.calls) == 1


@pytest.mark.parametrize(
    ("shape", "success", "failure"),
    [
        ("envelope", ["data"], ["errors"]),
        ("full", ["data", "errors"], ["data", "errors"]),
        ("flat", None, None),
        ("array", None, None),
        ("singular", ["data"], ["error"]),
    ],
)
def test_shapes_of_a_webhook(service: "EmulatorService", shape: Any, success: Any, failure: Any) -> None:
    """webhook_shape changes the envelope and never the item."""
    service.emulator.faults.webhook_shape = shape
    service.emulator.faults.next_submissions += [OneShot(), OneShot(failure="taskFailed")]
    service.run()
    service.run()
    for call, keys, mark in zip(service.receiver.calls, (success, failure), ("videoUUID", "code"), strict=True):
        if keys is None:
            (item,) = call if shape == "array" else [call]
        else:
            assert sorted(call) == keys
            content = call["error" if "error" in call else keys[-1] if mark == "code" else "data"]
            (item,) = content if isinstance(content, list) else [content]
        assert mark in item


def test_failures_may_be_silent(service: "EmulatorService") -> None:
    """Without webhook_on_failure only a poll reports a failure, and a later success is still sent."""
    service.emulator.faults.failure = "taskFailed"
    service.emulator.faults.webhook_on_failure = False
    task = service.run()
    assert service.receiver.calls == []
    assert codes(service.poll(task)) == ["taskFailed"]
    service.emulator.faults.recovers_seconds = 0
    for reordered in (False, True):
        service.emulator.faults.webhook_reordered = reordered
        service.run()
    assert ["data" in call for call in service.receiver.calls] == [True, True]


def test_progress_may_be_sent(stepped: "EmulatorService") -> None:
    """webhook_progress sends status processing when a task is accepted."""
    stepped.emulator.faults.webhook_progress = True
    stepped.post(stepped.task(), stepped.task(webhookURL=...))
    stepped.settle()
    assert [call["data"][0]["status"] for call in stepped.receiver.calls] == ["processing"]


# Steering


def test_a_one_shot_waits_for_its_submission_and_is_used_up(service: "EmulatorService") -> None:
    """A one-shot applies once, to the first submission that contains its text, for that task's lifetime."""
    service.emulator.faults.webhook_copies = 2
    service.emulator.faults.next_submissions.append(OneShot(match="harbour", webhook_copies=0, upload="never"))
    service.run()
    assert (len(service.receiver.calls), len(service.receiver.puts)) == (2, 1)
    service.run(positivePrompt="A quiet harbour")
    assert (len(service.receiver.calls), len(service.receiver.puts)) == (2, 1)
    service.run(positivePrompt="A quiet harbour")
    assert (len(service.receiver.calls), len(service.receiver.puts)) == (4, 2)


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("uplaod", "never"),
        ("upload", "sometimes"),
        ("submit_status", 200),
        ("webhook_copies", "2"),
        ("submit_seconds", -1),
    ],
)
def test_an_invalid_switch_is_refused(service: "EmulatorService", switch: str, value: Any) -> None:
    """Unknown names and impossible values are refused by every interface, with a list of the valid names."""
    with pytest.raises(ValueError, match=switch):
        setattr(service.emulator.faults, switch, value)
    with pytest.raises(UnknownSwitchError, match="webhook_shape"):
        OneShot(**{switch: value})
    for body in ({switch: value}, {"next_submissions": [{switch: value}]}):
        answer = service.client.put("/_emulator/faults", json=body)
        assert answer.status_code == 400
        assert "webhook_shape" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"next_submissions": 5}', b'{"next_submissions": [5]}'])
def test_an_invalid_body_is_refused(service: "EmulatorService", body: bytes) -> None:
    """A body that is not a setting of switches is a 400 and changes nothing."""
    service.emulator.faults.upload = "never"
    assert service.client.put("/_emulator/faults", content=body).status_code == 400
    assert service.emulator.faults.upload == "never"


def test_switches_over_http(service: "EmulatorService") -> None:
    """PUT sets the given switches and resets all others; GET returns all of them."""
    service.client.put("/_emulator/faults", json={"upload": "never", "finds_finished_seconds": 5})
    current = service.client.put(
        "/_emulator/faults", json={"webhook_copies": 0, "next_submissions": [{"match": "x", "failure": "taskFailed"}]}
    ).json()
    assert current == service.client.get("/_emulator/faults").json()
    assert current.pop("next_submissions") == [{"match": "x", "failure": "taskFailed"}]
    assert current == {**Switches().model_dump(), "webhook_copies": 0}


def test_the_control_routes(stepped: "EmulatorService") -> None:
    """Tasks can be read, finished and removed over HTTP, and the ledger can be read."""
    one, two = stepped.task(), stepped.task(duration=10)
    stepped.post(one, two)
    client = stepped.client
    assert [task["status"] for task in client.get("/_emulator/tasks").json()] == ["processing"] * 2
    assert client.post("/_emulator/finish", json={"taskUUID": one["taskUUID"]}).json() == {"released": True}
    stepped.settle()
    assert [task["status"] for task in client.get("/_emulator/tasks").json()] == ["success", "processing"]
    assert client.get("/_emulator/ledger").json()["microDollars"] == 924_000
    assert client.post("/_emulator/finish").json() == {"released": True}
    stepped.settle()
    bill = client.get("/_emulator/ledger").json()
    assert bill["microDollars"] == 2_772_000
    assert [charge["task_uuid"] for charge in bill["charges"]] == [one["taskUUID"], two["taskUUID"]]
    stepped.emulator.faults.upload = "never"
    client.post("/_emulator/reset")
    assert client.get("/_emulator/tasks").json() == []
    assert client.get("/_emulator/ledger").json() == {"microDollars": 0, "charges": []}
    assert (stepped.emulator.faults.upload, stepped.emulator.requests()) == ("before", [])
    assert client.post("/_emulator/finish", content=b"x").status_code == 400


def test_a_reset_stops_retries(service: "EmulatorService") -> None:
    """After a reset no retry of an earlier webhook arrives."""
    service.emulator.faults.webhook_seconds = 60
    service.post(service.task())
    assert not service.emulator.idle(0.2)
    service.emulator.reset()
    assert service.emulator.idle(0)
    assert service.receiver.calls == []


def test_draining_drops_later_steps() -> None:
    """Work that is running while the workers are drained ends and cannot queue another step."""
    workers = Workers({"lane": 1})
    running, go = threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        running.set()
        go.wait(5)
        done.append("first")
        workers.at("lane", 0, lambda: done.append("second"))

    workers.at("lane", 0, first)
    assert running.wait(5)
    threading.Timer(0.1, go.set).start()
    assert workers.drain(5)
    assert workers.idle(5)
    workers.at("lane", 0, lambda: done.append("third"))
    assert workers.idle(5)
    assert done == ["first", "third"]
    workers.close(5)


def test_requests_are_recorded_unchanged(service: "EmulatorService") -> None:
    """Every received task object can be read, polls and refused ones included."""
    bad = service.task(duration=3)
    service.post(bad)
    service.poll(bad)
    assert [received.task["taskType"] for received in service.emulator.requests()] == ["videoInference", "getResponse"]
    assert service.emulator.requests()[0].task == bad


def test_images_on_this_machine_may_be_accepted_unseen(stepped: "EmulatorService") -> None:
    """With fetches_images off, an image URL on this machine is accepted without being fetched."""
    images = {"inputs": {"frameImages": ["http://127.0.0.1/no-image"]}}
    assert stepped.post(stepped.task(**images)).status_code == 400
    stepped.emulator.faults.fetches_images = False
    assert stepped.post(stepped.task(**images)).status_code == 200


def test_every_switch_is_documented_and_tested() -> None:
    """The readme has a row for each switch, and this file has the name of each."""
    readme = (Path(rushes_local.runware.__file__).parent / "README.md").read_text()
    tests = Path(__file__).read_text()
    for name, switch in Switches.model_fields.items():
        assert f"| `{name}` |" in readme, name
        assert name in tests, name
        assert switch.description

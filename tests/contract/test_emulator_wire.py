"""The emulated Runware as a client sees it: envelopes, statuses, acknowledgements, polls, money."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.contract.conftest import EmulatorService, Json

PRICE = 924_000


def codes(body: "Json") -> list[str]:
    return [error["code"] for error in body["errors"]]


def test_an_acknowledgement_holds_type_and_uuid_and_nothing_else(service: "EmulatorService") -> None:
    """The official client takes other fields for a result, and any `errors` key for a failure."""
    task = service.task()
    answer = service.post(task)
    assert answer.status_code == 200
    assert answer.json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}


def test_a_documented_request_is_answered_like_the_documented_response(
    service: "EmulatorService", documented: "Json"
) -> None:
    """Each example of the model's page is accepted unchanged and ends in an item with its fields and its cost."""
    request = {**documented["request"], "includeCost": True}
    assert service.post(documented["request"]).json() == {
        "data": [{"taskType": "videoInference", "taskUUID": request["taskUUID"]}]
    }
    service.settle()
    service.emulator.reset()
    service.post(request)
    service.settle()
    (item,) = service.poll(request).json()["data"]
    expected = documented["response"]
    assert item.pop("status") == "success"
    assert item.keys() == expected.keys()
    assert [type(value) for value in item.values()] == [type(value) for value in expected.values()]
    assert item["cost"] == expected["cost"]
    assert item["taskUUID"] == expected["taskUUID"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff[]",
        b"[]",
        b"[NaN]",
        b'["ping"]',
        b"null",
        b'{"taskType":"ping"}',
        b'[{"taskType":"ping","x":Infinity}]',
        b"[" * 100_000,
        b"[" + b"1" * 5000 + b"]",
    ],
    ids=lambda body: body[:12].decode(errors="replace"),
)
def test_anything_but_an_array_of_objects_is_refused(service: "EmulatorService", body: bytes) -> None:
    """A body that is not a JSON array of objects is a 400 with an envelope; so is a bare object."""
    answer = service.client.post("/v1", content=body)
    assert answer.status_code == 400
    assert codes(answer.json()) == ["validationFailed"]
    assert service.emulator.requests() == []


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic emulator-key", "Bearer", "Bearer "])
def test_a_wrong_key_is_refused(service: "EmulatorService", header: str | None) -> None:
    """Without a valid key nothing is read or bought, and the error is about the key, not about a task."""
    service.client.headers.pop("Authorization")
    headers = {} if header is None else {"Authorization": header}
    answer = service.post(service.task(), headers=headers)
    assert answer.status_code == 401
    assert codes(answer.json()) == ["invalidApiKey"]
    assert "taskUUID" not in answer.json()["errors"][0]
    service.settle()
    assert service.emulator.ledger() == []


def test_the_key_may_come_as_the_first_task(service: "EmulatorService") -> None:
    """In-body authentication works, has an item of its own in data, and is refused with a wrong key."""
    service.client.headers.pop("Authorization")
    task = service.task()
    login = {"taskType": "authentication", "apiKey": "emulator-key"}
    assert [item["taskType"] for item in service.post(login, task).json()["data"]] == [
        "authentication",
        "videoInference",
    ]
    assert service.post(login).json() == {"data": []}
    assert service.post({**login, "apiKey": "x"}, service.task()).status_code == 401
    assert service.post(login, service.task(duration=6)).status_code == 400


def test_one_bad_task_leaves_the_others_bought(service: "EmulatorService") -> None:
    """A mixed request is a 200 with both keys; a request with errors alone is a 400."""
    good, bad = service.task(), service.task(duration=7)
    mixed = service.post(bad, good)
    assert mixed.status_code == 200
    assert [item["taskUUID"] for item in mixed.json()["data"]] == [good["taskUUID"]]
    (error,) = mixed.json()["errors"]
    assert (error["taskUUID"], error["taskType"]) == (bad["taskUUID"], "videoInference")
    assert (error["code"], error["parameter"], error["allowedValues"]) == ("unsupportedDuration", "duration", [5, 10])
    alone = service.post(bad)
    assert (alone.status_code, alone.json()["data"]) == (400, [])


def test_a_uuid_twice_in_one_request_buys_nothing(service: "EmulatorService") -> None:
    """Two tasks with one UUID, in any case of letters, are both refused; the third task is accepted."""
    twice, other = service.task(), service.task()
    shouting = {**twice, "taskUUID": twice["taskUUID"].upper()}
    answer = service.post(twice, other, shouting).json()
    assert codes(answer) == ["duplicateTaskUUID"] * 2
    assert [item["taskUUID"] for item in answer["data"]] == [other["taskUUID"]]


def test_a_repeated_uuid_is_a_conflict_and_buys_nothing(service: "EmulatorService") -> None:
    """A repeated UUID is refused, during its render and afterwards, and charged once."""
    task = service.run()
    again = service.post(task)
    assert (again.status_code, codes(again.json())) == (400, ["conflictTaskUUID"])
    service.settle()
    assert len(service.emulator.ledger()) == 1
    assert len(service.receiver.calls) == 1


def test_a_running_task_is_processing(stepped: "EmulatorService") -> None:
    """A task is processing until it finishes, and finishes once."""
    task = stepped.task()
    stepped.post(task)
    running = {"taskType": "videoInference", "taskUUID": task["taskUUID"], "status": "processing"}
    assert stepped.poll(task).json() == {"data": [running]}
    assert stepped.emulator.ledger() == []
    assert stepped.emulator.finish(task["taskUUID"].upper())
    assert not stepped.emulator.finish(task["taskUUID"])
    stepped.settle()
    assert stepped.poll(task).json()["data"][0]["status"] == "success"


def test_a_timed_task_takes_its_time(start: Any) -> None:
    """With render_seconds a task is first processing and then done."""
    service: EmulatorService = start(render_seconds=0.3)
    task = service.task()
    service.post(task)
    assert service.poll(task).json()["data"][0]["status"] == "processing"
    service.settle()
    assert service.poll(task).json()["data"][0]["status"] == "success"


def test_results_are_cumulative_and_each_has_its_own_identity(service: "EmulatorService") -> None:
    """Four results have four items in every poll, and four charges, seeds, videos, uploads and webhooks."""
    task = service.run(numberResults=4)
    for _ in range(2):
        items = service.poll(task).json()["data"]
        assert [len({item[name] for item in items}) for name in ("videoUUID", "videoURL", "seed")] == [4, 4, 4]
        assert {item["cost"] for item in items} == {0.924}
    assert {charge.video_uuid for charge in service.emulator.ledger()} == {item["videoUUID"] for item in items}
    assert (len(service.receiver.puts), len(service.receiver.calls)) == (4, 4)
    assert {item["videoUUID"] for call in service.receiver.calls for item in call["data"]} == {
        item["videoUUID"] for item in items
    }


def test_many_tasks_may_be_polled_at_once(service: "EmulatorService") -> None:
    """One request may poll several tasks; unknown ones are absent from the answer."""
    one, two = service.run(), service.run()
    polls = [{"taskType": "getResponse", "taskUUID": task["taskUUID"]} for task in (one, service.task(), two)]
    answer = service.post(*polls).json()
    assert [item["taskUUID"] for item in answer["data"]] == [one["taskUUID"], two["taskUUID"]]
    assert "errors" not in answer
    assert service.poll(service.task()).json() == {"data": []}


@pytest.mark.parametrize(("duration", "price"), [(..., PRICE), (5, PRICE), (5.0, PRICE), (10, 2 * PRICE)])
def test_the_ledger_holds_the_listed_price(service: "EmulatorService", duration: Any, price: int) -> None:
    """A second costs 184,800 micro-dollars, with or without includeCost."""
    task = service.run(duration=duration)
    silent = service.run(duration=duration, includeCost=...)
    assert [charge.micro_dollars for charge in service.emulator.ledger()] == [price, price]
    assert service.poll(task).json()["data"][0]["cost"] == price / 1_000_000
    assert "cost" not in service.poll(silent).json()["data"][0]


@pytest.mark.parametrize(
    ("safety", "flagged"),
    [({"checkContent": True}, True), ({"mode": "fast"}, True), ({"checkContent": True, "mode": "none"}, False)],
)
def test_the_flag_is_present_after_a_content_check(service: "EmulatorService", safety: "Json", flagged: bool) -> None:
    """NSFWContent is present after a requested check; if mode and checkContent disagree, mode applies."""
    task = service.run(safety=safety)
    assert ("NSFWContent" in service.poll(task).json()["data"][0]) is flagged


def test_a_dry_run_prices_and_buys_nothing(service: "EmulatorService") -> None:
    """The dry-run header validates and prices; the UUID stays unused."""
    task = service.task(numberResults=2, duration=10)
    dry = {"X-Runware-Dry-Run": "1"}
    assert service.post(task, headers=dry).json()["data"][0]["cost"] == 3.696
    assert service.post(service.task(ttl=1), headers=dry).status_code == 400
    service.settle()
    assert service.emulator.ledger() == []
    assert service.post(task).status_code == 200


def test_details_show_the_request_and_the_last_answer(service: "EmulatorService") -> None:
    """getTaskDetails repeats the request; after a refused repeat, the refusal is the last answer."""
    task = service.run()
    (details,) = service.details(task).json()["data"]
    assert details["request"] == [task]
    assert details["response"]["data"][0]["videoUUID"] == service.emulator.ledger()[0].video_uuid
    service.post(task)
    assert codes(service.details(task).json()["data"][0]["response"]) == ["conflictTaskUUID"]
    assert service.details(service.task()).json() == {"data": []}


def test_ping_and_account(service: "EmulatorService") -> None:
    """Ping is answered, the account has masked keys and the amount spent; other task types are refused."""
    service.run()
    assert service.post({"taskType": "ping"}).json() == {"data": [{"taskType": "ping", "pong": True}]}
    account = {"taskType": "accountManagement", "operation": "getDetails"}
    (details,) = service.post(account).json()["data"]
    assert details["balance"] == 999.076
    assert "emulator-key" not in str(details)
    assert codes(service.post({**account, "operation": "destroy"}).json()) == ["invalidOperation"]
    kinds: list[Any] = ["imageInference", None, ["ping"], {}]
    for kind in kinds:
        assert codes(service.post({"taskType": kind, "taskUUID": kind}).json()) == ["unsupportedTaskType"]
    assert codes(service.post({"taskType": "getResponse", "taskUUID": "x"}).json()) == ["invalidTaskUUID"]


def test_the_video_can_be_fetched_whole_and_in_part(service: "EmulatorService") -> None:
    """videoURL serves the uploaded bytes with their length, answers ranges, and other names are a 404."""
    task = service.run()
    url = service.poll(task).json()["data"][0]["videoURL"]
    whole = service.client.get(url)
    assert whole.content == service.receiver.puts[0].body
    assert whole.headers["Content-Type"] == "video/mp4"
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    part = service.client.get(url, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["Content-Range"] == f"bytes 4-7/{len(whole.content)}"
    assert service.client.get(url.replace(".mp4", ".mov")).status_code == 404
    assert service.client.get(url.replace("/vi/", "/vi/x")).status_code == 404


def test_a_video_lives_as_long_as_its_ttl(start: Any) -> None:
    """After ttl seconds of the emulator's clock the videoURL is a 404; without a ttl it stays."""
    now = [1_000.0]
    service: EmulatorService = start(clock=lambda: now[0])
    urls = [service.poll(service.run(ttl=ttl)).json()["data"][0]["videoURL"] for ttl in (60, ...)]
    now[0] += 60
    assert [service.client.get(url).status_code for url in urls] == [200, 200]
    now[0] += 1
    assert [service.client.get(url).status_code for url in urls] == [404, 200]


def test_unknown_paths_and_methods_are_refused(service: "EmulatorService") -> None:
    """Only the documented endpoint accepts tasks."""
    assert service.client.get("/v1").status_code == 405
    assert service.client.post("/v2", json=[]).status_code == 404

"""The faults of a request body as its sender reads them, and the limits, each at its edge."""

import json
from typing import Any

import pytest

from rushes.domain.formats import canonical
from rushes.errors import UnreadableError
from rushes.services.request_validation import Poll, WireResponse, bearer_in, parse, validate
from tests.fakes.builders import TASK_UUID, request, uuid4

Json = dict[str, Any]
POLL = {"taskType": "getResponse", "taskUUID": TASK_UUID}
SERVED = {"type": "string", "allowedValues": ["videoInference", "getResponse"]}


def faults(*tasks: object) -> list[Json]:
    """The errors of these tasks, all of which are the sender's."""
    answer = WireResponse()
    validate(tasks, answer)
    assert {status for status, _ in answer.errors} <= {400}
    return [error for _, error in answer.errors]


def pairs(number: int) -> bytes:
    """So many texts, each with a name: the most that so many quotation marks can hold."""
    return json.dumps({str(name): "" for name in range(number)}).encode()


def error(code: str, message: str, parameter: str, **more: Any) -> Json:
    return {"code": code, "message": message, "parameter": parameter, **more}


FAULTS: dict[str, tuple[object, list[Json]]] = {
    "no object": (5, [error("invalidTask", "Every task must be an object.", "body", type="object")]),
    "another type": (
        {"taskType": "imageInference", "taskUUID": TASK_UUID.upper()},
        [
            error("unsupportedTaskType", "This task type is not supported here.", "taskType", **SERVED)
            | {"taskUUID": TASK_UUID}
        ],
    ),
    "another type without a name": (
        {"taskType": "imageInference", "taskUUID": "u" * 37},
        [error("unsupportedTaskType", "This task type is not supported here.", "taskType", **SERVED)],
    ),
    "a key elsewhere": (
        {"taskType": "authentication", "apiKey": "k", "taskUUID": "u" * 36},
        [
            error(
                "unsupportedTaskType",
                "An authentication task is accepted only by POST /v1, once and before all others.",
                "taskType",
                **SERVED,
            )
            | {"taskUUID": "u" * 36}
        ],
    ),
    "a poll without a name": (
        {"taskType": "getResponse"},
        [error("missingTaskUUID", "taskUUID is required.", "taskUUID", type="string", taskType="getResponse")],
    ),
    **{
        f"a poll of {name!r}": (
            {**POLL, "taskUUID": name},
            [
                error(
                    "invalidTaskUUID",
                    "taskUUID must be a UUID v4 of 36 characters.",
                    "taskUUID",
                    type="string",
                    taskType="getResponse",
                )
            ],
        )
        for name in (5, "", TASK_UUID + "0", TASK_UUID.replace("-4", "-1"))
    },
    "a poll with more": (
        {**POLL, "taskUUID": TASK_UUID.upper(), "b" * 101: 1, "a": 2},
        [
            error(
                "unsupportedParameter",
                f"{name} is not a parameter of getResponse, which has only taskType and taskUUID.",
                name,
            )
            | {"taskType": "getResponse", "taskUUID": TASK_UUID}
            for name in ("a", "b" * 100)
        ],
    ),
}


@pytest.mark.parametrize(("task", "told"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_in_full(task: object, told: list[Json]) -> None:
    """Code, message and parameter, what is allowed, and the task's own name, as far as it is one."""
    assert faults(task) == told


def test_a_poll_names_its_task_in_any_case() -> None:
    """Capitals in a UUID make no other one."""
    assert validate([{**POLL, "taskUUID": TASK_UUID.upper()}], WireResponse()) == [Poll(TASK_UUID)]


def test_a_poll_has_fifty_faults_at_most() -> None:
    """An answer stays small, whatever was sent."""
    assert len(faults({**POLL, **{f"p{number}": 0 for number in range(60)}})) == 50


def test_two_tasks_of_one_name_are_one_fault_beside_the_others() -> None:
    """It is told once, names the task, and takes no other task's fault away."""
    other = {"taskType": "imageInference", "taskUUID": uuid4(1)}
    first, twice = faults(request(), other, request(positivePrompt="another"))
    assert first["taskUUID"] == uuid4(1)
    assert twice == error(
        "duplicateTaskUUID",
        "Several tasks of this request have the same taskUUID. None of them was bought.",
        "taskUUID",
        type="string",
        taskUUID=TASK_UUID,
        taskType="videoInference",
    )


def test_too_many_clips_are_a_fault_of_each_order() -> None:
    """Every order is told so, beside the other faults, and polls are answered all the same."""
    answer = WireResponse()
    orders = [request(taskUUID=uuid4(number), numberResults=4) for number in range(6)]
    assert validate([{}, *orders, POLL], answer) == [Poll(TASK_UUID)]
    too_many = [told for status, told in answer.errors if status == 400 and told["code"] == "valueTooLarge"]
    assert len(answer.errors) > len(too_many)
    assert too_many == [
        error(
            "valueTooLarge", "One request may order at most 20 clips in all.", "numberResults", type="integer", max=20
        )
        | {"taskUUID": uuid4(number), "taskType": "videoInference"}
        for number in range(6)
    ]


@pytest.mark.parametrize("over", [0, 1])
def test_a_task_may_be_as_large_as_an_item_holds(over: int) -> None:
    """To the byte, as it is recorded."""
    task = request(tags={"a": ""})
    task["tags"] = {"a": "x" * (350_000 + over - len(canonical(task).encode()))}
    too_large = error(
        "valueTooLarge", "A task must not be larger than 350000 bytes without its inline images.", "body", max=350_000
    ) | {"taskUUID": TASK_UUID, "taskType": "videoInference"}
    assert (too_large in faults(task)) is bool(over)


@pytest.mark.parametrize(
    ("largest", "beyond", "words"),
    [
        (b"[" * 20 + b"1" + b"]" * 20, b"[" * 21 + b"1" + b"]" * 21, "20 levels"),
        (b'[{"a":[0' + b",0" * 1997 + b"]}]", b'[{"a":[0' + b",0" * 1998 + b"]}]", "2000 values"),
        (b'["' + b'\\"[,{' * 9000 + b'","\\\\","' + b"," * 3000 + b'"]', b"[" + b'"",' * 2000 + b'""]', "2000 values"),
        (pairs(2000), pairs(2001), "2000 values"),
        (b"[{}]".ljust(5_242_880), b"[{}]".ljust(5_242_881), "5242880 bytes"),
    ],
    ids=["levels", "values", "texts", "pairs", "bytes"],
)
def test_a_body_is_read_up_to_its_limits(largest: bytes, beyond: bytes, words: str) -> None:
    """Marks inside of texts are no values; one level or one value more is refused, and the message has the limit."""
    assert parse(largest) in (json.loads(largest), [json.loads(largest)])
    with pytest.raises(UnreadableError, match=words):
        parse(beyond)


def test_a_key_is_looked_for_in_four_kilobytes() -> None:
    """White space before it counts, and so does every byte up to its end."""
    login = json.dumps({"taskType": "authentication", "apiKey": "k"}).encode()
    assert bearer_in(login.rjust(4096)) == "Bearer k"
    assert bearer_in(login.rjust(4097)) is None

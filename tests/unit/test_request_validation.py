"""The faults of a request body as its sender reads them, and every limit at its edge."""

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
    """The errors of these tasks, all of which must be the sender's."""
    answer = WireResponse()
    validate(tasks, answer)
    assert {status for status, _ in answer.errors} <= {400}
    return [error for _, error in answer.errors]


def texts_by_name(number: int) -> bytes:
    """An object of so many texts, each with a name: the most values for its quotation marks."""
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


@pytest.mark.parametrize(("task", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_complete(task: object, expected: list[Json]) -> None:
    """A fault has code, message, parameter and allowed values, and the task's UUID and type if they are valid."""
    assert faults(task) == expected


def test_a_poll_names_its_task_in_any_case() -> None:
    """A poll finds its task also by its UUID in capitals."""
    assert validate([{**POLL, "taskUUID": TASK_UUID.upper()}], WireResponse()) == [Poll(TASK_UUID)]


def test_a_poll_has_fifty_faults_at_most() -> None:
    """The answer stays small, whatever was sent."""
    assert len(faults({**POLL, **{f"p{number}": 0 for number in range(60)}})) == 50


def test_two_tasks_under_one_uuid_are_one_fault() -> None:
    """The fault is listed once with its task, and faults of other tasks stay."""
    other = {"taskType": "imageInference", "taskUUID": uuid4(1)}
    first, duplicate = faults(request(), other, request(positivePrompt="another"))
    assert first["taskUUID"] == uuid4(1)
    assert duplicate == error(
        "duplicateTaskUUID",
        "Several tasks of this request have the same taskUUID. None of them was bought.",
        "taskUUID",
        type="string",
        taskUUID=TASK_UUID,
        taskType="videoInference",
    )


def test_too_many_clips_are_a_fault_of_each_order() -> None:
    """Every order has this fault, beside other faults, and polls are answered all the same."""
    answer = WireResponse()
    orders = [request(taskUUID=uuid4(number), numberResults=4) for number in range(6)]
    assert validate([{}, *orders, POLL], answer) == [Poll(TASK_UUID)]
    too_many = [error for status, error in answer.errors if status == 400 and error["code"] == "valueTooLarge"]
    assert len(answer.errors) > len(too_many)
    assert too_many == [
        error(
            "valueTooLarge", "One request may order at most 20 clips in all.", "numberResults", type="integer", max=20
        )
        | {"taskUUID": uuid4(number), "taskType": "videoInference"}
        for number in range(6)
    ]


@pytest.mark.parametrize("over", [0, 1])
def test_a_task_may_be_as_large_as_its_item(over: int) -> None:
    """A task of exactly the largest size is accepted, measured as it is recorded."""
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
        (texts_by_name(2000), texts_by_name(2001), "2000 values"),
        (b"[{}]".ljust(5_242_880), b"[{}]".ljust(5_242_881), "5242880 bytes"),
    ],
    ids=["levels", "values", "texts", "pairs", "bytes"],
)
def test_a_body_is_read_up_to_its_limits(largest: bytes, beyond: bytes, words: str) -> None:
    """Marks inside texts do not count; one level or value too many is refused with the limit in the message."""
    assert parse(largest) in (json.loads(largest), [json.loads(largest)])
    with pytest.raises(UnreadableError, match=words):
        parse(beyond)


def test_a_key_is_read_from_the_first_four_kilobytes() -> None:
    """White space before it counts, and so does every byte up to its end."""
    login = json.dumps({"taskType": "authentication", "apiKey": "k"}).encode()
    assert bearer_in(login.rjust(4096)) == "Bearer k"
    assert bearer_in(login.rjust(4097)) is None

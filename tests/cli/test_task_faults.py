"""`task_faults`: refusals by line, with the allowed values."""

from typing import Any

import pytest

from rushes_cli import task_faults

TASK = {"width": 10, "height": 20, "duration": 7, "CFGScale": 0.575, "numberResults": 5, "positivePrompt": "a"}


def error(parameter: object, **limits: Any) -> dict[str, Any]:
    return {"code": "invalid", "message": "Wrong.", "parameter": parameter, **limits}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (error("duration", allowedValues=[5, 10]), "duration 7: 5 or 10"),
        (error("numberResults", min=1, max=4), "numberResults 5: 1 to 4"),
        (error("numberResults", max=4), "numberResults 5: at most 4"),
        (error("numberResults", min=6), "numberResults 5: at least 6"),
        (error(["width", "height"], allowedValues=["1x1", "2x2", "3x3"]), "width, height 10x20: 1x1, 2x2 or 3x3"),
        (error("CFGScale", min=0, max=1), "invalid (CFGScale): Wrong."),  # of the multiplier, not of the limits
        (error("numberResults", max=20), "invalid (numberResults): Wrong."),  # of all tasks together
        (error("positivePrompt", min=2, max=2500), "invalid (positivePrompt): Wrong."),  # of its length
        (error("safety.mode", allowedValues=["none"]), "invalid (safety.mode): Wrong."),
        (error("duration", min="x", max=[]), "invalid (duration): Wrong."),
        ({}, "error: no message"),
    ],
)
def test_a_refusal_has_the_allowed_values(given: dict[str, Any], text: str) -> None:
    """A value outside its limits is shown with them; another fault with the error's code and message."""
    assert task_faults.reason(given, TASK) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([7], "line 7"), ([2, 1, 2], "lines 1 and 2"), ([4, 2, *range(18, 201)], "lines 2, 4 and 18 to 200")],
)
def test_numbers_are_ranges(numbers: list[int], text: str) -> None:
    """Numbers are sorted, each once, and three or more in a row are a range."""
    assert task_faults.places("line", numbers) == text


def test_refusals_without_a_place_follow_the_others() -> None:
    """An error of no line has its taskUUID, and none is left out."""
    refused = [({"taskUUID": "u"}, "a"), ({}, "b"), ({"line": 2}, "c"), ({"task": 1}, "c")]
    assert task_faults.grouped(refused) == ["task 1: c", "line 2: c", "u a", "b"]


def test_refusals_by_the_budget_are_one_group() -> None:
    """The amounts in their messages differ from task to task, the reason does not; other amounts keep lines apart."""
    budget = [({"code": "budgetExceeded", "line": n}, f"needs ${n}.924, of $0.100") for n in (3, 4, 5)]
    assert task_faults.grouped(budget) == ["lines 3 to 5: needs $3.924, of $0.100"]
    assert len(task_faults.grouped(({**error, "code": "other"}, text) for error, text in budget)) == 3


def test_a_taskuuid_that_the_service_does_not_repeat_is_a_fault() -> None:
    """Its error from the service would have no place in the file."""
    tasks = [{"taskUUID": each} for each in (5, "x" * 37, "x" * 36)]
    assert {position: fault["code"] for position, fault in task_faults.uuid_faults(tasks).items()} == {
        0: "invalidTaskUUID",
        1: "invalidTaskUUID",
    }

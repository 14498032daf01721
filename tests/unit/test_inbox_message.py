"""Messages of the inbox, there and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.inbox_message import Message, read
from rushes.errors import UnreadableError
from tests.fakes.builders import TASK_UUID, request

REPORT = "reports/ann/a.jsonl.v1"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda members: st.lists(members) | st.dictionaries(st.text(), members),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_a_message_is_read_as_it_was_written(task: dict[str, Any]) -> None:
    """Whatever a task holds, it comes out as it went in, over a text that SQS takes."""
    message = Message("ann", {**task, "taskUUID": TASK_UUID}, REPORT)
    assert message.text.isascii()
    assert message.text.isprintable()
    assert read(message.text) == message


def test_a_refusal_lies_beside_its_report() -> None:
    """Its name is that of the report with the task's UUID, in small letters."""
    message = Message("ann", request(taskUUID=TASK_UUID.upper()), REPORT)
    assert message.refusal == f"{REPORT}.{TASK_UUID}.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"caller": "Ann"},
        {"caller": "all"},
        {"caller": "an/n"},
        {"caller": 5},
        {"task": None},
        {"task": {}},
        {"task": {"taskUUID": 5}},
        {"task": {"taskUUID": "../../etc"}},
        {"report": "reports/bob/a.jsonl.v1"},
        {"report": "reports/ann/../bob/x"},
        {"report": "videos/ann/x"},
        {"report": 5},
        {"report": ...},
    ],
)
def test_what_intake_would_not_send_is_no_message(changes: dict[str, Any]) -> None:
    """A message of another shape, or one that would write among another caller's reports, is not read."""
    content = {"caller": "ann", "task": request(), "report": REPORT, **changes}
    text = json.dumps({name: value for name, value in content.items() if value is not ...})
    with pytest.raises(UnreadableError):
        read(text)


@pytest.mark.parametrize("text", ["", "x", "null", "[]", "5", "[" * 100_000, '"text"'])
def test_what_is_no_json_object_is_no_message(text: str) -> None:
    """Poison is an error of its own kind, whatever it is made of."""
    with pytest.raises(UnreadableError):
        read(text)

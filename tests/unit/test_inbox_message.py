"""Messages of the inbox, written and read."""

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
    """Any task is read as it was written, from a text that SQS accepts."""
    message = Message("ann", {**task, "taskUUID": TASK_UUID}, REPORT)
    assert message.text.isascii()
    assert message.text.isprintable()
    assert read(message.text) == message


def test_a_refusal_is_beside_its_report() -> None:
    """A refusal's key is the report's with the task's UUID, in lower case."""
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
def test_other_objects_are_no_message(changes: dict[str, Any]) -> None:
    """A message of another shape, or with a report in another caller's folder, is not read."""
    content = {"caller": "ann", "task": request(), "report": REPORT, **changes}
    text = json.dumps({name: value for name, value in content.items() if value is not ...})
    with pytest.raises(UnreadableError):
        read(text)


@pytest.mark.parametrize("text", ["", "x", "null", "[]", "5", "[" * 100_000, '"text"'])
def test_other_texts_are_no_message(text: str) -> None:
    """Any unreadable text raises the same error."""
    with pytest.raises(UnreadableError):
        read(text)

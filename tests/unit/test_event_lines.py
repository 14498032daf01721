"""The lines of `rushes dev`: one per event, from log lines and the table."""

import json
from typing import Any

import pytest

from rushes.domain.clip import Clip, Kind
from rushes.domain.task import Task, TaskWithClips
from rushes_local.event_lines import EventLines
from tests.fakes.builders import START, TASK_UUID, clip, fact, uuid4


class FakeTable:
    """A table with one task of caller ann."""

    def __init__(self, *clips: Clip, prompt: str = "a lighthouse") -> None:
        task = Task("ann", TASK_UUID, {"positivePrompt": prompt}, "", len(clips), START)
        self.found = TaskWithClips(task, clips, "")

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        return self.found if (caller, task_uuid) == ("ann", TASK_UUID) else None


def changed(status: str, index: int = 0, **fields: Any) -> str:
    line = {"message": "clip status changed", "status": status, "caller": "ann", "taskUUID": TASK_UUID, "clip": index}
    return json.dumps({"level": "INFO", **line, **fields})


@pytest.fixture
def lines() -> EventLines:
    return EventLines()


def test_a_task_from_order_to_cost(lines: EventLines) -> None:
    """A task with two clips has one line for its order, and each stored clip adds its cost to the sum."""
    clips = [clip(), clip(index=1, clip_uuid=uuid4(2))]
    for line in (changed("running"), changed("running", 1), changed("stored"), changed("stored", 1)):
        lines.add("submit", line)
    table = FakeTable(*clips, prompt="a lighthouse\x1b[31m " + "x" * 200)
    printed = "\n".join(lines.read(table)).splitlines()
    assert [line.split()[0] for line in printed] == [
        "ordered", "running", "running", "stored", "cost", "stored", "cost",
    ]  # fmt: skip
    assert printed[0].startswith("ordered  e613fb01  2 clips, $1.848, by ann: a lighthouse\ufffd[31m xxx")
    assert len(printed[0]) < 120
    assert printed[-1] == "cost     $0.924, $1.848 since the start"
    assert list(lines.read(table)) == []


def test_a_failure_has_its_reason(lines: EventLines) -> None:
    """The reason of a failed clip is on its line."""
    lines.add("webhook", changed("failed"))
    failed = FakeTable(clip(fact(Kind.FAILED, "noFaces", message="No faces.")))
    assert list(lines.read(failed))[-1] == "failed   e613fb01  No faces."


def test_other_log_lines(lines: EventLines) -> None:
    """Of all other lines only warnings and errors are printed."""
    others = ["text", "[1]", "{}", json.dumps({"level": "INFO", "message": "x"}), changed("stored", caller="bob")]
    for line in [*others, json.dumps({"level": "WARNING", "message": "webhook not saved", "reason": "busy"})]:
        lines.add("webhook", line)
    assert list(lines.read(FakeTable())) == ["warning  webhook: webhook not saved: busy"]

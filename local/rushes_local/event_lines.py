"""One line for people per event of the local stack, from the functions' logs and the table.

Hides the format of the log lines, and the events that make several of them. Log lines arrive in threads that must not
wait; the table is read by the reader of the events.
"""

import json
import queue
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

from rushes.domain.clip import Clip, Kind, Status
from rushes.domain.failure import failure_reason
from rushes.domain.task import TaskWithClips
from rushes_cli.output import money, plain, shorten

_PROMPT = 60  # characters
_WORDS = {Status.RUNNING: "running", Status.STORED: "stored", Status.FAILED: "failed", Status.REVIEW: "review"}


class Table(Protocol):
    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        """The task; None if it is absent."""


class EventLines:
    """Collects the log lines of a stack; `read` returns a line for each event since the last call."""

    def __init__(self) -> None:
        self._found: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._ordered: set[str] = set()
        self._spent = 0

    def add(self, name: str, line: str) -> None:
        """Take a log line. Thread-safe."""
        found = _parse(line)
        if found and (found.get("message") == "clip status changed" or found.get("level") in ("WARNING", "ERROR")):
            self._found.put((name, found))

    def read(self, table: Table) -> Iterator[str]:
        """The lines since the last call."""
        while True:
            try:
                name, found = self._found.get_nowait()
            except queue.Empty:
                return
            if found.get("message") == "clip status changed":
                yield from self._changed(table, found)
            else:
                reason = f": {found['reason']}" if found.get("reason") else ""
                yield _line("warning", f"{name}: {found.get('message')}{reason}")

    def _changed(self, table: Table, found: dict[str, Any]) -> Iterator[str]:
        task_uuid, index = str(found["taskUUID"]), found["clip"]
        whole = table.get_task_with_clips(str(found["caller"]), task_uuid)
        if whole is None:
            return
        task, clips = whole.task, whole.clips
        name = task_uuid[:8] + (f"-{index}" if len(clips) > 1 else "")
        if task_uuid not in self._ordered:
            self._ordered.add(task_uuid)
            prompt = shorten(plain(str(task.request.get("positivePrompt", ""))), _PROMPT)
            count = f"{len(clips)} clips" if len(clips) > 1 else "1 clip"
            price = money(sum(clip.budgeted for clip in clips))
            yield _line("ordered", f"{task_uuid[:8]}  {count}, {price}, by {task.caller}: {prompt}")
        status = Status(found["status"])
        if (word := _WORDS.get(status)) is None:
            return
        clip = next((each for each in clips if each.index == index), None)
        yield _line(word, f"{name}{self._details(clip, status)}")

    def _details(self, clip: Clip | None, status: Status) -> str:
        if clip is None:
            return ""
        if status is Status.STORED:
            self._spent += clip.budgeted
            return (
                f"  {clip.object_key}\n{_line('cost', f'{money(clip.budgeted)}, {money(self._spent)} since the start')}"
            )
        reasons = [*clip.of(Kind.REFUSED).values(), *clip.of(Kind.FAILED).values()] if status is Status.FAILED else []
        return f"  {plain(failure_reason(reasons[0].fields))}" if reasons else ""


def _line(word: str, text: str) -> str:
    return f"{word:<8} {text}"


def _parse(line: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None

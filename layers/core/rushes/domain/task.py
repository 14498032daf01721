"""A task is one request of a caller, recorded with its clips.

The types that the table takes and returns for tasks are here, and the one rule by which a task's status follows from
its clips'. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rushes.domain.clip import Clip, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a caller asked for: the request as sent, and the fingerprint that tells a repeat from a conflict.

    `expires_at` is when the table may drop the request; what is left then has none and still knows the fingerprint.
    """

    caller: str
    task_uuid: str
    request: Mapping[str, Any]
    fingerprint: str
    clips: int
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class TaskWithClips:
    """A recorded task with its clips. `position` is where it stands among its caller's tasks."""

    task: Task
    clips: tuple[Clip, ...]
    position: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a caller's tasks, newest first. The next page begins after the position `end`; None: there is none."""

    found: tuple[TaskWithClips, ...]
    end: str | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The task, its clips and their money are in the table."""


@dataclass(frozen=True, slots=True)
class Existing:
    """The caller has a task under this UUID already; nothing was written."""

    task: Task


def task_status(clips: Iterable[Clip]) -> Status:
    """Where a whole task stands."""
    members = list(clips)
    states = {clip.status for clip in members}
    if states & {Status.PENDING, Status.RUNNING, Status.RENDERED}:
        return Status.RUNNING
    if Status.REVIEW in states:
        return Status.REVIEW
    if states == {Status.STORED}:
        return Status.SUCCEEDED
    return Status.FAILED if states == {Status.FAILED} else Status.PARTIAL

"""A task is one request of a caller, recorded with its clips.

It has the types by which tasks are written to the table and read from it, and the rule that derives a task's status
from its clips. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rushes.domain.clip import Clip, Status


class Task(NamedTuple):
    """A caller's request as sent, and the fingerprint that separates a repeat from a conflict.

    `expires_at` is the time from which the table may delete the request, in milliseconds. The tombstone that remains
    has none, but still the fingerprint. `webhook_url` is the caller's receiver of the outcomes; empty means none.
    """

    caller: str
    task_uuid: str
    request: Mapping[str, Any]
    fingerprint: str
    clips: int
    created_at: int
    expires_at: int | None = None
    webhook_url: str = ""


class TaskWithClips(NamedTuple):
    """A recorded task with its clips. `position` is its place in the list of its caller's tasks."""

    task: Task
    clips: tuple[Clip, ...]
    position: str


class Page(NamedTuple):
    """A page of a caller's tasks, newest first. The next page begins after the position `end`; None ends the list."""

    found: tuple[TaskWithClips, ...]
    end: str | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The task, its clips and their reservations are in the table."""


class Existing(NamedTuple):
    """The caller already has a task under this UUID; nothing was written."""

    task: Task


def task_status(clips: Iterable[Clip]) -> Status:
    """Returns the status of a task, derived from its clips."""
    members = list(clips)
    states = {clip.status for clip in members}
    if Status.ERASED in states:  # the task is erased as a whole, clip by clip
        return Status.ERASED
    if states & {Status.PENDING, Status.RUNNING, Status.RENDERED}:
        return Status.RUNNING
    if Status.REVIEW in states:
        return Status.REVIEW
    if states == {Status.STORED}:
        return Status.SUCCEEDED
    return Status.FAILED if states == {Status.FAILED} else Status.PARTIAL

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

    @property
    def current(self) -> list[Clip]:
        """The clip of each slot: see `current_clips`."""
        return current_clips(self.clips)

    @property
    def is_complete(self) -> bool:
        """True if the clip of each slot was read; reads that are not consistent may lack a new one."""
        current = self.current
        return len(current) == self.task.clips and not any(clip.is_superseded for clip in current)


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


def current_clips(clips: Iterable[Clip]) -> list[Clip]:
    """Returns the clip of each slot in order: the last one of its chain, whose outcome is the slot's."""
    latest: dict[int, Clip] = {}
    for clip in sorted(clips, key=lambda clip: clip.index):
        latest[clip.slot] = clip
    return [latest[slot] for slot in sorted(latest)]


def task_status(clips: Iterable[Clip]) -> Status:
    """Returns the status of a task, derived from the clip of each slot.

    A superseded clip counts only if it waits for an operator. It is a slot's last one only while its successor, of the
    same transaction, cannot be read yet.
    """
    members = list(clips)
    if any(clip.status == Status.ERASED for clip in members):  # the task is erased as a whole, clip by clip
        return Status.ERASED
    states = {Status.RUNNING if clip.is_superseded else clip.status for clip in current_clips(members)}
    states |= {Status.REVIEW for clip in members if clip.is_superseded and clip.status == Status.REVIEW}
    if states & {Status.PENDING, Status.RUNNING, Status.RENDERED}:
        return Status.RUNNING
    if Status.REVIEW in states:
        return Status.REVIEW
    if states == {Status.STORED}:
        return Status.SUCCEEDED
    return Status.FAILED if states == {Status.FAILED} else Status.PARTIAL

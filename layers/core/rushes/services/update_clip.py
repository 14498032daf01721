"""The only way in which facts get into the table: read-modify-write with optimistic locking.

The facts of every source are saved here, so a repeated or late fact is an ordinary outcome: the clip does not change,
and nothing is written. Metrics about money are counted here, from the difference between the saved clip and the one
before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rushes.domain.clip import (
    Clip,
    Kind,
    Status,
    defer_budget,
    has_implausible_cost,
    has_too_many_facts,
    refresh_derived,
)
from rushes.domain.timings import Timings
from rushes.errors import BusyError, StaleError
from rushes.services.metric import Metric

if TYPE_CHECKING:
    from rushes.services.ports import ClipTable, Telemetry

_MAX_ATTEMPTS = 20  # each conflict is a save by another process, and a clip never has this many writers at once


def update_clip(
    clips: ClipTable,
    clip: Clip,
    change: Callable[[Clip], Clip],
    *,
    now: int,
    times: Timings,
    telemetry: Telemetry,
) -> Clip:
    """Returns the clip with `change` applied and saved. `change` must be pure: after a conflict it is applied again.

    Raises `BusyError` if the save failed or its result was lost.
    """
    for _ in range(_MAX_ATTEMPTS):
        changed = change(clip)
        if changed == clip:
            return clip
        try:
            saved = save(clips, clip, changed, now=now, times=times)
        except StaleError:
            current = clips.clip(clip.caller, clip.task_uuid, clip.index)
            if current is None:
                raise BusyError("the clip does not exist any more") from None
            clip = current
            continue
        except BusyError as error:
            if error.possibly_written:  # if it was, a repeat changes nothing and would not count it
                _alarm(clip, refresh_derived(changed, now, times), telemetry)
                report_overruns(clips, clip, refresh_derived(changed, now, times), telemetry)
            raise
        _report(clip, saved, telemetry)
        report_overruns(clips, clip, saved, telemetry)
        return saved
    raise BusyError("the clip was changed concurrently again and again")


def save(clips: ClipTable, before: Clip, after: Clip, *, now: int, times: Timings) -> Clip:
    """Returns the changed clip as saved, together with its budgets or, while those are contended, without them.

    A month's budget is one item for all clips; a clip's item is contended only by its own sources. So the facts are
    saved even if the budgets cannot be, and the next check of the clip corrects the budgets.
    """
    refreshed = refresh_derived(after, now, times)
    try:
        return clips.save(before, refreshed)
    except BusyError as error:
        if error.possibly_written or refreshed.budgeted == before.budgeted:
            raise  # a second write could conflict with the first and take it for another process's
    return clips.save(before, defer_budget(after, now, times))


def _report(before: Clip, after: Clip, telemetry: Telemetry) -> None:
    for metric, holds in _MILESTONES.items():
        if holds(after) and not holds(before):
            telemetry.count(metric)
    _alarm(before, after, telemetry)
    if before.status != after.status:
        telemetry.log(
            "clip status changed",
            status=after.status,
            caller=after.caller,
            taskUUID=after.task_uuid,
            clip=after.index,
            clipUUID=after.clip_uuid,
        )


def _alarm(before: Clip, after: Clip, telemetry: Telemetry) -> None:
    """Counts the metrics that have alarms: at least once."""
    for metric, holds in _ALARMS.items():
        if holds(after) and not holds(before):
            telemetry.count(metric)


def report_overruns(clips: ClipTable, before: Clip, after: Clip, telemetry: Telemetry) -> None:
    """Counts and logs a budget above its limit, since a clip may cost more than was reserved for it."""
    if after.budgeted <= before.budgeted:
        return
    for scope in after.scopes:
        try:
            budgeted, limit = clips.budget(scope, after.month)
        except BusyError:
            continue  # the facts are saved; only this report is lost
        if limit is not None and budgeted > limit:
            telemetry.count(Metric.BUDGET_EXCEEDED)
            telemetry.log("budget exceeded", warn=True, scope=scope, budgeted=budgeted, limit=limit)


def _was_uploaded_after_erasure(clip: Clip) -> bool:
    return clip.erased_at is not None and any(copy.at > clip.erased_at for copy in clip.of(Kind.STORED).values())


_MILESTONES: dict[Metric, Callable[[Clip], bool]] = {
    Metric.CLIPS_BOUGHT: lambda clip: clip.decisive not in (None, Kind.REFUSED, Kind.UNPROVEN),
    Metric.CLIPS_STORED: lambda clip: clip.status == Status.STORED,
    Metric.CLIPS_IN_REVIEW: lambda clip: clip.status == Status.REVIEW,
    Metric.AMBIGUOUS_PURCHASES: lambda clip: clip.possibly_sent_at is not None,
}
_ALARMS: dict[Metric, Callable[[Clip], bool]] = {
    Metric.SECOND_RENDERS: lambda clip: len(clip.of(Kind.RENDERED)) > 1,
    Metric.OVERWRITTEN_CLIPS: lambda clip: len(clip.of(Kind.STORED)) > 1 or _was_uploaded_after_erasure(clip),
    Metric.IMPLAUSIBLE_COST: has_implausible_cost,
    Metric.TOO_MANY_FACTS: has_too_many_facts,
}

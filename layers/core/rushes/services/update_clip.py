"""The one way in which anything learned gets into the table: read, change, save, and again if somebody was faster.

Every witness ends here, so a repeat or a late fact is an ordinary outcome: the change makes no difference, and nothing
is written. Metrics that mean money are counted here, from what the saved change really changed.
"""

from collections.abc import Callable

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
from rushes.services.ports import ClipTable, Metric, Telemetry

_TRIES = 20  # every lost race means that somebody else's change was saved, so this many are never lost in earnest


def update_clip(
    clips: ClipTable,
    clip: Clip,
    change: Callable[[Clip], Clip],
    *,
    now: int,
    times: Timings,
    telemetry: Telemetry,
) -> Clip:
    """The clip with `change` applied and saved. `change` must be pure: it runs again on whatever was saved meanwhile.

    Raises `BusyError` when it could not be saved, as far as is known.
    """
    for _ in range(_TRIES):
        changed = change(clip)
        if changed == clip:
            return clip
        try:
            saved = save(clips, clip, changed, now=now, times=times)
        except StaleError:
            current = clips.clip(clip.caller, clip.task_uuid, clip.index)
            if current is None:
                raise BusyError("the clip is gone") from None
            clip = current
            continue
        except BusyError as error:
            if error.possibly_written:  # then nothing is left to save the next time, and it would never be counted
                _alarm(clip, refresh_derived(changed, now, times), telemetry)
                report_overruns(clips, clip, refresh_derived(changed, now, times), telemetry)
            raise
        _report(clip, saved, telemetry)
        report_overruns(clips, clip, saved, telemetry)
        return saved
    raise BusyError("the clip was changed by others again and again")


def save(clips: ClipTable, before: Clip, after: Clip, *, now: int, times: Timings) -> Clip:
    """The changed clip as saved, with its money; while the budgets stay contended, without.

    A month's budget is one item for all clips, a clip's own is contended by its sources alone. So what is known for
    certain is saved whatever becomes of the budgets, and the next look at the clip moves the difference.
    """
    settled = refresh_derived(after, now, times)
    try:
        return clips.save(before, settled)
    except BusyError as error:
        if error.possibly_written or settled.budgeted == before.budgeted:
            raise  # a second write would meet the first one, and take it for another process's
    return clips.save(before, defer_budget(after, now, times))


def _report(before: Clip, after: Clip, telemetry: Telemetry) -> None:
    for metric, true_of in _MILESTONES.items():
        if true_of(after) and not true_of(before):
            telemetry.count(metric)
    _alarm(before, after, telemetry)
    if before.status != after.status:
        telemetry.log(
            "clip is " + after.status,
            caller=after.caller,
            taskUUID=after.task_uuid,
            clip=after.index,
            clipUUID=after.clip_uuid,
        )


def _alarm(before: Clip, after: Clip, telemetry: Telemetry) -> None:
    """Counts what an operator has to know of: rather twice than never."""
    for metric, true_of in _ALARMS.items():
        if true_of(after) and not true_of(before):
            telemetry.count(metric)


def report_overruns(clips: ClipTable, before: Clip, after: Clip, telemetry: Telemetry) -> None:
    """Facts may cost more than was set aside: then an operator has to know, even though nothing more is bought."""
    if after.budgeted <= before.budgeted:
        return
    for scope in after.scopes:
        try:
            counted, limit = clips.budget(scope, after.month)
        except BusyError:
            continue  # what was learned is saved, and that is what matters
        if limit is not None and counted > limit:
            telemetry.count(Metric.BUDGET_EXCEEDED)
            telemetry.log("a budget is exceeded", warn=True, scope=scope, counted=counted, limit=limit)


_MILESTONES: dict[Metric, Callable[[Clip], bool]] = {
    Metric.CLIPS_BOUGHT: lambda clip: clip.decisive not in (None, Kind.REFUSED, Kind.UNPROVEN),
    Metric.CLIPS_STORED: lambda clip: clip.status == Status.STORED,
    Metric.CLIPS_IN_REVIEW: lambda clip: clip.status == Status.REVIEW,
    Metric.AMBIGUOUS_PURCHASES: lambda clip: clip.possibly_sent_at is not None,
}
_ALARMS: dict[Metric, Callable[[Clip], bool]] = {
    Metric.SECOND_RENDERS: lambda clip: len(clip.of(Kind.RENDERED)) > 1,
    Metric.OVERWRITTEN_CLIPS: lambda clip: len(clip.of(Kind.STORED)) > 1,
    Metric.IMPLAUSIBLE_COST: has_implausible_cost,
    Metric.TOO_MANY_FACTS: has_too_many_facts,
}

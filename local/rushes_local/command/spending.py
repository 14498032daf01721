"""`cost`: what was spent, by day, tag or model, from the tasks themselves."""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from rushes_local.command.options import AsJson, Profile, Tag, filters, session
from rushes_local.command.outcomes import UsageError
from rushes_local.command.service import Filters, Service
from rushes_local.command.shown import micros, moment, money

Json = dict[str, Any]


class By(StrEnum):
    """What costs are summed over."""

    DAY = "day"
    TAG = "tag"
    MODEL = "model"
    STATUS = "status"


@dataclass(slots=True)
class Sum:
    """What one group comes to. `cost` is in micro-dollars."""

    tasks: int = 0
    clips: int = 0
    stored: int = 0
    cost: int = 0


def cost(
    by: Annotated[By, typer.Option(help="What to sum over.")] = By.DAY,
    name: Annotated[
        str | None, typer.Option("--tag-name", help="With --by tag: which tag's values.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="From this day (UTC).", show_default="the first of the month")
    ] = None,
    until: Annotated[str | None, typer.Option(help="To this day, inclusive.", show_default="today")] = None,
    tag: Tag = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Sum up what your tasks cost, this month or between two days, and say what is left of the month's limit.

    The sums are of what counts against the budget: Runware's reported costs, or the estimate until there is one. A task
    with several tags counts under each of them, so only the total is the total.

    --json prints {"by", "since", "until", "groups": [{"name", "tasks", "clips", "stored", "cost": dollars}], "total":
    {…}, "budget": {"month", "spent", "limit", "left"}}.
    """
    today = datetime.now(UTC).date()
    first = _day(since) if since else today.replace(day=1)
    last = _day(until) if until else today
    if first > last:
        raise UsageError("--since is later than --until")
    with session(profile, as_json=as_json) as (screen, service):
        groups: dict[str, Sum] = {}
        total = Sum()
        for task in _between(service, first, last, filters(tag=tag)):
            _add(total, task)
            for group in _groups(task, by, name):
                _add(groups.setdefault(group, Sum()), task)
        ordered = sorted(groups.items()) if by is By.DAY else sorted(groups.items(), key=lambda item: -item[1].cost)
        budget = service.budget()
        screen.give(
            {
                "by": by,
                "since": str(first),
                "until": str(last),
                "groups": [{"name": group, **_shown(found)} for group, found in ordered],
                "total": _shown(total),
                "budget": budget,
            }
        )
        if as_json:
            return
        head = (str(by), "tasks", "clips", "stored", "cost")
        if as_csv:
            _write_csv(head, ordered)
            return
        screen.table(head, [_row(group, found) for group, found in [*ordered, ("total", total)]])
        if budget:
            spent, limit, left = (money(micros(budget.get(part))) for part in ("spent", "limit", "left"))
            screen.note(f"{budget.get('month')}: {spent} of {limit} spent, {left} left")


def _between(service: Service, first: date, last: date, narrowed: Filters) -> Iterator[Json]:
    """The tasks ordered on these days. A single day is asked for by name; else newest first, until too old."""
    on = {**narrowed, "day": str(first)} if first == last else dict(narrowed)
    end = datetime.combine(last + timedelta(days=1), datetime.min.time(), UTC)
    begin = datetime.combine(first, datetime.min.time(), UTC)
    for task in service.tasks(on):
        at = moment(task.get("createdAt"))
        if at is None or at >= end:
            continue
        if at < begin:
            return
        yield task


def _groups(task: Mapping[str, Any], by: By, name: str | None) -> Iterable[str]:
    request = task.get("request") or {}
    match by:
        case By.DAY:
            return [str(task.get("createdAt", ""))[:10]]
        case By.MODEL:
            return [str(request.get("model", "(no longer kept)"))]
        case By.STATUS:
            return [str(task.get("status"))]
    tags = request.get("tags") or {}
    if name:
        return [str(tags.get(name, "(none)"))]
    return [f"{key}={value}" for key, value in tags.items()] or ["(none)"]


def _add(found: Sum, task: Mapping[str, Any]) -> None:
    clips = task.get("clips", [])
    found.tasks += 1
    found.clips += len(clips)
    found.stored += sum(clip.get("status") == "stored" for clip in clips)
    found.cost += micros(task.get("cost"))


def _shown(found: Sum) -> Json:
    return {"tasks": found.tasks, "clips": found.clips, "stored": found.stored, "cost": found.cost / 1_000_000}


def _row(group: str, found: Sum) -> tuple[str, ...]:
    return group, str(found.tasks), str(found.clips), str(found.stored), money(found.cost)


def _write_csv(head: Iterable[str], groups: Iterable[tuple[str, Sum]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    for group, found in groups:
        cost = f"{found.cost / 1_000_000:.6f}"
        writer.writerow([_harmless(group), found.tasks, found.clips, found.stored, cost])


def _harmless(text: str) -> str:
    """A tag's value that a spreadsheet would take for a formula is made text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a day; write it as 2026-11-24") from None

"""`cost`: sums of the clips' counted amounts by day, tag, model or caller."""

import csv
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from rushes_cli.exits import UsageError
from rushes_cli.extras import require_operator
from rushes_cli.options import AsJson, Profile, Stack, Tag, filters, session
from rushes_cli.output import Screen, micros, money

Json = dict[str, Any]


class By(StrEnum):
    """The grouping of the costs."""

    DAY = "day"
    TAG = "tag"
    MODEL = "model"
    CALLER = "caller"


@dataclass(slots=True)
class Sum:
    """The totals of one group. `cost` is in micro-dollars."""

    tasks: set[str] = field(default_factory=set)
    clips: int = 0
    cost: int = 0

    def add(self, line: Json) -> None:
        """Adds one clip."""
        self.tasks.add(str(line.get("taskUUID")))
        self.clips += 1
        self.cost += micros(line.get("cost"))

    def as_json(self) -> Json:
        """The JSON object of `--json`, with the cost in dollars."""
        return {"tasks": len(self.tasks), "clips": self.clips, "cost": self.cost / 1_000_000}

    def row(self, name: str) -> tuple[str, ...]:
        """The row of the table."""
        return name, str(len(self.tasks)), str(self.clips), money(self.cost)


def cost(
    by: Annotated[By, typer.Option(help="The grouping; caller is for operators.")] = By.DAY,
    name: Annotated[
        str | None,
        typer.Option("--tag-name", help="With --by tag: group by the values of this tag.", show_default=False),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="The first day (UTC), such as 2026-11-01.", show_default="the first of the month")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The last day (UTC), inclusive.", show_default="today")] = None,
    tag: Tag = None,
    stack: Stack = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Sum up the cost of your clips, this month or between two days, and show the rest of this month's limit.

    The sums are of the amounts that count against the budget: the cost that Runware reported, or the estimate until
    there is one. A task with several tags counts in each of their groups, so the groups can exceed the total.

    Your key gives access to your own clips. --by caller sums up the clips of all callers; it needs AWS credentials and
    --stack instead of a key. The running local stack needs neither.

    --json prints {"by", "since", "until", "groups": [{"name", "tasks", "clips", "cost": dollars}], "total": {…},
    "budget": {"month", "spent", "limit", "left"}}; "budget" is null with --by caller.
    """
    today = datetime.now(UTC).date()
    first = _day(since) if since else today.replace(day=1)
    last = _day(until) if until else today
    if first > last:
        raise UsageError("--since must not be later than --until")
    if stack and by is not By.CALLER:
        raise UsageError("--stack requires --by caller; other groupings use the service and your key")
    if name and by is not By.TAG:
        raise UsageError("--tag-name requires --by tag")
    tag_name, _, tag_value = (filters(tag=tag)["tag"] or "").partition(":")
    lines, budget = _all_callers(stack, first, last) if by is By.CALLER else _own(profile, first, last)
    groups: dict[str, Sum] = {}
    total = Sum()
    for line in lines:
        if tag_name and (line.get("tags") or {}).get(tag_name) != tag_value:
            continue
        total.add(line)
        for group in _groups(line, by, name):
            groups.setdefault(group, Sum()).add(line)
    ordered = sorted(groups.items()) if by is By.DAY else sorted(groups.items(), key=lambda item: -item[1].cost)
    screen = Screen(as_json)
    screen.print_json(
        {
            "by": by,
            "since": str(first),
            "until": str(last),
            "groups": [{"name": group, **found.as_json()} for group, found in ordered],
            "total": total.as_json(),
            "budget": budget,
        }
    )
    if as_json:
        return
    head = (str(by), "tasks", "clips", "cost")
    if as_csv:
        _write_csv(head, ordered)
        return
    screen.table(head, [found.row(group) for group, found in [*ordered, ("total", total)]])
    if budget:
        spent, limit, left = (money(micros(budget.get(part))) for part in ("spent", "limit", "left"))
        screen.info(f"{budget.get('month')}: {spent} of {limit} spent, {left} left")


def _own(profile: str | None, first: date, last: date) -> tuple[list[Json], Json | None]:
    """The counted amounts of the caller's clips, and its budget."""
    with session(profile, as_json=False) as (_, service):
        return list(service.costs(str(first), str(last))), service.budget()


def _all_callers(stack: str | None, first: date, last: date) -> tuple[list[Json], None]:
    require_operator("cost --by caller")
    from rushes_cli.operator.all_costs import costs_of_all

    return costs_of_all(stack, str(first), str(last)), None


def _groups(line: Mapping[str, Any], by: By, name: str | None) -> Iterable[str]:
    match by:
        case By.DAY:
            return [str(line.get("createdAt", ""))[:10]]
        case By.MODEL | By.CALLER:
            return [str(line.get(by, "(not recorded)"))]
    tags = line.get("tags") or {}
    if name:
        return [str(tags.get(name, "(none)"))]
    return [f"{key}={value}" for key, value in tags.items()] or ["(none)"]


def _write_csv(head: Iterable[str], groups: Iterable[tuple[str, Sum]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    for group, found in groups:
        cost = f"{found.cost / 1_000_000:.6f}"
        writer.writerow([_escape_formula(group), len(found.tasks), found.clips, cost])


def _escape_formula(text: str) -> str:
    """The text with a quote in front if a spreadsheet would read it as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a day; the format is YYYY-MM-DD, such as 2026-11-24") from None

"""The types of the budgets: reservations before a purchase, their refusal, and the costs of clips afterwards.

A budget is a sum for one scope (a caller, or all callers together) and one month in UTC. Amounts are integer
micro-dollars. A clip's share of it is `clip.billable_amount`. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

ALL_CALLERS = "all"  # the scope of all callers' clips


@dataclass(frozen=True, slots=True)
class Cost:
    """One clip's amount in its caller's budget, in micro-dollars, with the fields by which costs are summed.

    A forgotten task has no tags. `model` is empty for clips that were recorded before this field existed.
    """

    caller: str
    task_uuid: str
    index: int
    created_at: int
    budgeted: int
    model: str
    tags: Mapping[str, str]


class Costs(NamedTuple):
    """A page of a caller's costs, newest first. The next page begins after the position `end`; None ends the list."""

    found: tuple[Cost, ...]
    end: str | None


class Reservation(NamedTuple):
    """An amount to be added to one scope's month, only if the sum stays within `limit`.

    On success the month's item records `limit`, for reports only; each reservation brings the limit that applies.
    """

    scope: str
    month: str
    amount: int
    limit: int


class OverBudget(NamedTuple):
    """The reservation would exceed the scope's limit for the month; nothing was written."""

    scope: str
    limit: int
    budgeted: int


def month_of(at: int) -> str:
    """The month in UTC, as `2026-11`, whose budgets contain an order of this time in milliseconds."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m")

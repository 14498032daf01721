"""The types of the budgets: reservations before a purchase, their refusal, and the costs of clips afterwards.

A budget is a sum for one scope (a caller, or all callers together) and one month in UTC. Amounts are integer
micro-dollars. A clip's own share of it is `clip.billable_amount`. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

ALL_CALLERS = "all"  # the budget scope that holds every caller's clips


@dataclass(frozen=True, slots=True)
class Cost:
    """What one clip counts against its caller's budget, in micro-dollars, and what it can be summed by.

    Tags go when a task is forgotten. `model` is empty for clips that were ordered before it was kept beside the money.
    """

    caller: str
    task_uuid: str
    index: int
    created_at: int
    budgeted: int
    model: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Costs:
    """What some of a caller's clips count, newest first. The next page begins after the position `end`, if any."""

    found: tuple[Cost, ...]
    end: str | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money to be set aside in one scope's month, only if the sum stays within `limit`.

    On success the month's item records `limit`, for reports; what decides is the limit of each reservation.
    """

    scope: str
    month: str
    amount: int
    limit: int


@dataclass(frozen=True, slots=True)
class OverBudget:
    """The scope's month cannot hold the amount; nothing was written."""

    scope: str
    limit: int
    budgeted: int


def month_of(at: int) -> str:
    """The month (UTC) whose budgets hold what is ordered at this time."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m")

"""The budgets: reservations before a purchase, their refusal, and the costs of clips afterwards.

A budget is a sum for one scope (a caller, or all callers together) and one month in UTC. Amounts are integer
micro-dollars. A clip's amount in it is `clip.billable_amount`. Pure.

Concurrent purchases would contend for one item per budget, so each budget is spread over shares, and a purchase writes
one of them. A share has a booked amount and room for reservations:

    sum of `counted` + sum of `room` = `limit`, and no `room` is negative

A reservation takes room from one share under the condition that it has enough, so no schedule exceeds the limit. If
it has not, all shares are read: another share has enough room (`Booking`), or all rooms are redistributed (`Balance`),
or the limit is reached and the reservation is refused. Facts may cost more than all rooms hold; then no share has room,
and the next reservation is compared with the sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

ALL_CALLERS = "all"  # the scope of all callers' clips
SHARES = 16  # per budget


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


class Share(NamedTuple):
    """One share of a budget. `balance` identifies the write that distributed the rooms of all shares under `limit`.

    `room` is None before the first reservation of a month, and after facts that cost more than all rooms.
    """

    counted: int = 0
    room: int | None = None
    limit: int | None = None
    balance: str = ""


class Booking(NamedTuple):
    """A write to one share: within its room, or, if no share has room, `beyond` the limit."""

    share: int
    beyond: bool = False


class Balance(NamedTuple):
    """A write to all shares, on the condition that they are unchanged since they were read (None: absent)."""

    before: Sequence[Share | None]
    after: Sequence[Share]


def share_of(task_uuid: str) -> int:
    """The number of the share for a task's clips, unless only another one has enough room."""
    return int(task_uuid[-8:], 16) % SHARES


def plan_reservation(
    shares: Sequence[Share | None], own: int, amount: int, limit: int, balance: str
) -> Booking | Balance | None:
    """The write that reserves `amount` under `limit`, preferably in the share `own`; None if the limit is reached."""
    counted = total(shares)
    if counted + amount > limit:
        return None
    if all(share and share.limit == limit for share in shares) and (booking := _with_room(shares, own, amount)):
        return booking
    return _balance(shares, own, amount, limit, limit - counted - amount, balance)


def plan_correction(shares: Sequence[Share | None], own: int, difference: int, balance: str) -> Booking | Balance:
    """The write that corrects a budget after new facts, over its limit if need be: the cost is incurred already."""
    rooms = [share.room for share in shares if share and share.room is not None]
    if not rooms:
        return Booking(own, beyond=True)
    if booking := _with_room(shares, own, difference):
        return booking
    left = sum(rooms) - difference
    return _balance(shares, own, difference, limit_of(shares), left if left >= 0 else None, balance)


def total(shares: Sequence[Share | None]) -> int:
    """The budget's sum."""
    return sum(share.counted for share in shares if share)


def limit_of(shares: Sequence[Share | None]) -> int | None:
    """The limit at the budget's last reservation; None before the first."""
    return next((share.limit for share in shares if share), None)


def _with_room(shares: Sequence[Share | None], own: int, amount: int) -> Booking | None:
    rooms = [share.room if share and share.room is not None else -1 for share in shares]
    share = own if rooms[own] >= amount else max(range(SHARES), key=rooms.__getitem__)
    return Booking(share) if rooms[share] >= max(amount, 0) else None


def _balance(
    shares: Sequence[Share | None], own: int, amount: int, limit: int | None, left: int | None, balance: str
) -> Balance:
    """Distributes `left` over as many shares as can each take `amount` once more; None removes all rooms."""
    room = None if left is None else 0
    after = [(share or Share())._replace(limit=limit, room=room, balance=balance) for share in shares]
    if left is not None:
        parts = max(1, min(SHARES, left // max(amount, 1)))
        for part in range(parts):
            number = (own + part) % SHARES
            after[number] = after[number]._replace(room=left // parts + (part < left % parts))
    after[own] = after[own]._replace(counted=after[own].counted + amount)
    return Balance(tuple(shares), tuple(after))


def month_of(at: int) -> str:
    """The month in UTC, as `2026-11`, whose budgets contain an order of this time in milliseconds."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m")

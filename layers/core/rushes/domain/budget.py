"""The budgets: reservations before a purchase, their refusal, and the costs of clips afterwards.

A budget is a sum for one scope (a caller, or all callers together) and one month in UTC. Amounts are integer
micro-dollars. A clip's amount in it is `clip.billable_amount`. Pure.

Purchases side by side would contend for one item per budget, so a budget is spread over shares, and a purchase writes
one of them. Each share has an amount, and room for reservations; together all amounts and rooms are the limit:

    sum of `counted` + sum of `room` = `limit`, and no `room` is below zero

A reservation takes from one share's room under the condition that it suffices, so no schedule can exceed the limit. If
it does not suffice, all shares are read: another one may have the room, or all rooms are set anew (`Balance`), or
there is none left and the reservation is refused. Facts may cost more than all rooms hold. Then the shares lose their
rooms, and the next reservation is held against the sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

ALL_CALLERS = "all"  # the budget scope that holds every caller's clips
SHARES = 16  # of a budget


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


@dataclass(frozen=True, slots=True)
class Share:
    """One share of a budget. `balance` identifies the write that set the rooms of all shares under `limit`.

    `room` is None before the first reservation of a month, and after facts have cost more than there was room for.
    """

    counted: int = 0
    room: int | None = None
    limit: int | None = None
    balance: str = ""


@dataclass(frozen=True, slots=True)
class Booking:
    """An amount goes to one share: within its room, or `beyond` all rooms, which no share has then."""

    share: int
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Balance:
    """All shares are written at once, on condition that they still are as they were read (None: absent)."""

    before: Sequence[Share | None]
    after: Sequence[Share]


def share_of(task_uuid: str) -> int:
    """The share in which a task's clips are booked, unless another one has the room."""
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
    """The write that corrects a budget by facts, over its limit if need be: what has happened has happened."""
    rooms = [share.room for share in shares if share and share.room is not None]
    if not rooms:
        return Booking(own, beyond=True)
    if booking := _with_room(shares, own, difference):
        return booking
    limit = next((share.limit for share in shares if share), None)
    left = sum(rooms) - difference
    return _balance(shares, own, difference, limit, left if left >= 0 else None, balance)


def total(shares: Sequence[Share | None]) -> int:
    """The budget's sum."""
    return sum(share.counted for share in shares if share)


def _with_room(shares: Sequence[Share | None], own: int, amount: int) -> Booking | None:
    rooms = [share.room if share and share.room is not None else -1 for share in shares]
    share = own if rooms[own] >= amount else max(range(SHARES), key=rooms.__getitem__)
    return Booking(share) if rooms[share] >= max(amount, 0) else None


def _balance(
    shares: Sequence[Share | None], own: int, amount: int, limit: int | None, left: int | None, balance: str
) -> Balance:
    """`left` is spread over as many shares as can each hold `amount` once more; None takes every share's room."""
    after = [
        replace(share or Share(), limit=limit, room=None if left is None else 0, balance=balance) for share in shares
    ]
    if left is not None:
        parts = max(1, min(SHARES, left // max(amount, 1)))
        for part in range(parts):
            number = (own + part) % SHARES
            after[number] = replace(after[number], room=left // parts + (part < left % parts))
    after[own] = replace(after[own], counted=after[own].counted + amount)
    return Balance(tuple(shares), tuple(after))


def month_of(at: int) -> str:
    """The month (UTC) whose budgets hold what is ordered at this time."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m")

"""A budget's shares: no order of purchases and corrections exceeds the limit or refuses an amount that fits.

The plans are pure. Here they run against shares in memory, under the table's conditions, in every order of the effects
of concurrent processes; reading the shares is one effect for each share, as in DynamoDB.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from rushes.domain import budget
from rushes.domain.budget import Balance, Booking, Share, plan_correction, plan_reservation, share_of, total
from tests.fakes.builders import uuid4

Process = Iterator[None]


@dataclass
class Shares:
    """One budget's shares under the table's conditions, with the sum after each write."""

    items: list[Share | None] = field(default_factory=lambda: [None] * budget.SHARES)
    sums: list[int] = field(default_factory=lambda: [0])
    balances: Iterator[int] = field(default_factory=count)
    refused: list[bool] = field(default_factory=list)  # for each finished reservation, in order
    beyond: bool = False  # facts have exceeded the room

    def write(self, plan: Booking | Balance, amount: int, limit: int | None) -> bool:
        """Writes a plan; returns False if a condition failed. `limit` is None for corrections."""
        if isinstance(plan, Balance):
            if not all(_is_as_read(*each) for each in zip(plan.before, self.items, strict=True)):
                return False
            self.items = list(plan.after)
        else:
            share = self.items[plan.share] or Share()
            if not (share.room is None if plan.beyond else self.has_room(share, amount, limit)):
                return False
            room = None if share.room is None else share.room - amount
            self.items[plan.share] = share._replace(counted=share.counted + amount, room=room)
        self.sums.append(total(self.items))
        self.check(limit)
        return True

    def has_room(self, share: Share, amount: int, limit: int | None) -> bool:
        """The condition of a booking."""
        return share.room is not None and share.room >= amount and limit in (None, share.limit)

    def check(self, limit: int | None) -> None:
        """Asserts that the rooms are valid and the sum is within the limit."""
        rooms = [share.room for share in self.items if share and share.room is not None]
        if rooms:
            assert len(rooms) == budget.SHARES
            assert min(rooms) >= 0
            (shared,) = {share.limit for share in self.items if share}
            assert total(self.items) + sum(rooms) == shared
        if limit is not None:
            assert total(self.items) <= limit

    def read(self) -> Generator[None, None, list[Share | None]]:
        """Reads share by share; returns the list."""
        found: list[Share | None] = []
        for number in range(budget.SHARES):
            found.append(self.items[number])
            yield
        return found

    def reserve(self, own: int, amount: int, limit: int) -> Process:
        """The table's reservation: one share first, then a plan."""
        plan: Booking | Balance | None = Booking(own)
        while True:
            yield
            if self.write(plan, amount, limit):
                self.refused.append(False)
                return
            previous = None
            while True:
                start_index = len(self.sums) - 1
                shares = yield from self.read()
                plan = plan_reservation(shares, own, amount, limit, str(next(self.balances)))
                if plan is not None:
                    break
                if shares == previous:
                    assert max(self.sums[start_index:]) + amount > limit, "refused although there was room"
                    self.refused.append(True)
                    return
                previous = shares

    def correct(self, own: int, difference: int) -> Process:
        """A correction by facts."""
        plan: Booking | Balance = Booking(own)
        while True:
            yield
            if self.write(plan, difference, None):
                return
            shares = yield from self.read()
            plan = plan_correction(shares, own, difference, str(next(self.balances)))


def _is_as_read(before: Share | None, now: Share | None) -> bool:
    if before is None or now is None:
        return before is now
    return (before.counted, before.balance) == (now.counted, now.balance)


def every_order(start: Callable[[], tuple[Shares, Sequence[Process]]], max_runs: int = 200_000) -> Iterator[Shares]:
    """Yields the shares after every order of the processes' effects, each from a new start."""
    stack: list[tuple[int, ...]] = [()]
    runs = 0
    while stack:
        prefix = stack.pop()
        shares, processes = start()
        running = dict(enumerate(processes))
        steps = list(prefix)
        for chosen in prefix:
            _step(running, chosen)
        while running:
            first, *others = sorted(running)
            stack += [(*steps, other) for other in others]
            steps.append(first)
            _step(running, first)
        runs += 1
        assert runs < max_runs
        yield shares


def _step(running: dict[int, Process], chosen: int) -> None:
    try:
        next(running[chosen])
    except StopIteration:
        del running[chosen]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shares, so that every order can be tried; the tests of the plans themselves use all."""
    monkeypatch.setattr(budget, "SHARES", 2)


orders = pytest.mark.usefixtures("few")


def run(*processes: Process) -> None:
    """Runs one process after another."""
    for process in processes:
        for _ in process:
            pass


def balanced(limit: int, *counted: int) -> Shares:
    """Shares after these reservations, each in the share of its place."""
    shares = Shares()
    run(*(shares.reserve(own, amount, limit) for own, amount in enumerate(counted)))
    shares.refused.clear()
    return shares


@orders
@pytest.mark.parametrize("limit", [0, 9, 10, 19, 20, 29, 30, 100])
def test_purchases_at_once_fill_the_limit_exactly(limit: int) -> None:
    """Of two purchases in a new month as many succeed as fit, in every order of their effects."""
    for shares in every_order(lambda: _two(Shares(), limit)):
        assert shares.refused.count(False) == min(2, limit // 10)
        assert total(shares.items) == 10 * min(2, limit // 10)


def _two(shares: Shares, limit: int) -> tuple[Shares, list[Process]]:
    return shares, [shares.reserve(own, 10, limit) for own in (0, 1)]


@orders
@pytest.mark.parametrize("limit", [20, 25, 29, 30, 39, 40, 41])
def test_purchases_at_once_near_the_limit(limit: int) -> None:
    """Room that is split between shares is found: a purchase is refused only if it does not fit."""
    for shares in every_order(lambda: _two(balanced(limit, 5, 15), limit)):
        fitting = (limit - 20) // 10
        assert shares.refused.count(False) == min(2, fitting)


@orders
@pytest.mark.parametrize("difference", [-10, -3, 3, 10, 40])
@pytest.mark.parametrize("limit", [20, 25, 30, 45])
def test_a_purchase_beside_a_correction(limit: int, difference: int) -> None:
    """A correction always succeeds; the purchase is checked against the sum before or after it."""

    def start() -> tuple[Shares, list[Process]]:
        shares = balanced(limit, 10, 10)
        return shares, [shares.reserve(0, 10, limit), shares.correct(1, difference)]

    for shares in every_order(start):
        bought = 10 * shares.refused.count(False)
        assert total(shares.items) == 20 + difference + bought
        if bought:
            assert min(20, 20 + difference) + 10 <= limit
        else:
            assert max(20, 20 + difference) + 10 > limit


@orders
@pytest.mark.parametrize("lowered", [15, 29, 30])
def test_two_limits_at_once(lowered: int) -> None:
    """While a changed limit is not yet in all shares, each purchase is checked against its own limit."""

    def start() -> tuple[Shares, list[Process]]:
        shares = balanced(100, 10, 10)
        return shares, [shares.reserve(0, 10, lowered), shares.reserve(1, 10, 100)]

    for shares in every_order(start):
        assert total(shares.items) - 20 == 10 * shares.refused.count(False)


class WithoutCondition(Shares):
    """A planted fault: a booking takes room that does not exist."""

    def has_room(self, share: Share, amount: int, limit: int | None) -> bool:
        del amount
        return share.room is not None and limit in (None, share.limit)


@orders
def test_a_room_below_zero_is_caught() -> None:
    """The check of every write detects a share with negative room."""
    with pytest.raises(AssertionError):
        for _ in every_order(lambda: _two(WithoutCondition(), 15)):
            pass


@orders
def test_nothing_is_bought_while_facts_exceed_the_limit() -> None:
    """A refund in one share gives no room until the sum is within the limit."""
    shares = balanced(20, 10, 10)
    run(shares.correct(0, 5), shares.correct(1, -4))
    run(shares.reserve(1, 1, 20))
    assert shares.refused == [True]
    run(shares.correct(1, -6), shares.reserve(0, 5, 20))
    assert shares.refused == [True, False]
    assert total(shares.items) == 20


def test_room_is_spread_over_as_many_shares_as_can_use_it() -> None:
    """Much room is spread over all shares; room for two clips goes to two shares."""
    plan = plan_reservation([None] * 16, 3, 10, 1_000_000, "b")
    assert isinstance(plan, Balance)
    rooms = [share.room or 0 for share in plan.after]
    assert (sum(rooms), max(rooms) - min(rooms)) == (999_990, 1)
    few = plan_reservation([None] * 16, 3, 10, 35, "b")
    assert isinstance(few, Balance)
    assert [share.room for share in few.after] == [0, 0, 0, 13, 12, *[0] * 11]
    assert few.after[3].counted == 10


def test_another_share_with_room_is_used() -> None:
    """A purchase whose own share is full uses the share with the most room; no room is moved."""
    rooms = [Share(0, room, 100, "b") for room in (5, 20, 75, *[0] * 13)]
    assert plan_reservation(rooms, 0, 10, 100, "c") == Booking(2)
    assert plan_reservation(rooms, 1, 10, 100, "c") == Booking(1)
    assert plan_correction(rooms, 0, 10, "c") == Booking(2)
    assert plan_correction(rooms, 0, -10, "c") == Booking(0)


def test_the_share_follows_from_the_task() -> None:
    """A task has the same share in every try, and tasks are spread over all shares."""
    assert {share_of(uuid4(number)) for number in range(64)} == set(range(16))

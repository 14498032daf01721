"""Facts are saved while the budgets are contended, a sweep moves the money, and a lost answer leaves no lease."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest

from rushes.domain.budget import month_of
from rushes.domain.clip import Clip, Fact, Kind, merge_all
from rushes.errors import BusyError, ProviderError
from rushes.services.metric import Metric
from rushes.services.reconcile import ReconcileService
from rushes.services.update_clip import update_clip
from tests.fakes.builders import MONTH, PRICE, START, TIMES, clip, fact, request
from tests.fakes.table import FakeTable
from tests.fakes.use_cases import UseCases, sequential_map


class Swept(FakeTable):
    """A table with the index of due clips."""

    def due(self, now: int, limit: int) -> list[tuple[str, str, int]]:
        due = [(row.next_check_at, key) for key, row in self.rows.items() if row.next_check_at is not None]
        return [key for at, key in sorted(due) if at <= now][:limit]

    def task(self, caller: str, task_uuid: str) -> Any:
        return self.tasks.get((caller, task_uuid))


class SilentRunware:
    """A Runware that answers no lookup."""

    def poll(self, task_uuids: Sequence[str], key: str) -> NoReturn:
        raise ProviderError("no answer")

    def details(self, task_uuid: str, key: str) -> NoReturn:
        raise ProviderError("no answer")


@pytest.fixture
def world() -> UseCases:
    """The fakes, with a table that can be swept."""
    return UseCases(table=Swept())


def sweep(world: UseCases) -> int:
    """Runs one sweep; returns the number of its clips."""
    reconcile_service = ReconcileService(
        table=world.table,  # type: ignore[arg-type]
        bucket=world.bucket,  # type: ignore[arg-type]
        provider=SilentRunware(),
        rescuer=None,  # type: ignore[arg-type]
        purchase_service=world.purchase_service,
        telemetry=world.telemetry,
        times=TIMES,
        when_ambiguous="review",
        clock=world.clock,
        concurrent_map=sequential_map,
    )
    return reconcile_service.sweep(world.buyer())


def update(world: UseCases, before: Clip, *facts: Fact) -> Clip:
    """Merges the facts into the clip and saves it."""
    change = lambda current: merge_all(current, facts)  # noqa: E731
    return update_clip(world.table, before, change, now=world.clock(), times=TIMES, telemetry=world.telemetry)


def budget_sums(world: UseCases) -> set[int]:
    """The sums of the month's two budgets; one value, if they agree."""
    return {world.table.budgets[scope, MONTH][0] for scope in ("all", "ann")}


def reserved(world: UseCases, limit: int = 9 * PRICE) -> None:
    world.table.budgets = {("all", MONTH): (PRICE, limit), ("ann", MONTH): (PRICE, limit)}


CASES = {
    "refused": ([], [fact(Kind.REFUSED)], 0),
    "failed for good": ([fact(Kind.FAILED)], [fact(Kind.LAST_LOOK)], 0),
    "cheaper": ([fact(Kind.ACCEPTED)], [fact(Kind.RENDERED, "v", cost=5)], 5),
    "dearer": ([fact(Kind.STORED, "1")], [fact(Kind.RENDERED, "v", cost=PRICE + 1)], PRICE + 1),
    "a second render": (
        [fact(Kind.STORED, "1"), fact(Kind.RENDERED, "v", cost=PRICE)],
        [fact(Kind.RENDERED, "w")],
        2 * PRICE,
    ),
    "in review": ([fact(Kind.RENDERED, "v", cost=PRICE), fact(Kind.UNSAVED)], [fact(Kind.RENDERED, "w")], 2 * PRICE),
}


@pytest.mark.parametrize(("recorded", "added", "amount"), CASES.values(), ids=CASES)
def test_the_money_follows(world: UseCases, recorded: list[Fact], added: list[Fact], amount: int) -> None:
    """The facts are recorded at once, and the difference is moved once, when the budgets can be written."""
    reserved(world)
    before = world.table.put(clip(*recorded))
    world.table.contended = True
    after = update(world, before, *added)
    assert after == world.row()
    assert (after.facts, after.budgeted, after.budget_is_current) == (clip(*recorded, *added).facts, PRICE, False)
    assert after.next_check_at == START + TIMES.check
    assert budget_sums(world) == {PRICE}
    for _ in range(3):  # while the contention lasts, the clip stays due and its budgets unchanged
        world.clock.now += TIMES.check
        assert sweep(world) == 1
        assert not world.row().budget_is_current
        assert world.row().next_check_at == world.clock.now + TIMES.check
    world.table.contended = False
    world.clock.now += TIMES.check
    sweep(world)
    assert (world.row().budgeted, world.row().budget_is_current) == (amount, True)
    assert budget_sums(world) == {amount}
    sweep(world)
    assert budget_sums(world) == {amount}


def test_a_closed_clip_leaves_the_index_with_its_money(world: UseCases) -> None:
    """A closed clip whose money was moved is not looked at again."""
    reserved(world)
    world.table.contended = True
    update(world, world.table.put(clip()), fact(Kind.REFUSED))
    world.table.contended = False
    world.clock.now += TIMES.check
    assert sweep(world) == 1
    assert world.row().next_check_at is None
    world.clock.now += 10**9
    assert sweep(world) == 0


def test_an_overrun_is_reported_when_its_money_moves(world: UseCases) -> None:
    """The alarm rings when a sweep moves the sum past the limit; the milestone was counted once, with the fact."""
    reserved(world, limit=PRICE)
    world.table.contended = True
    before = world.table.put(clip(fact(Kind.STORED, "1"), fact(Kind.RENDERED, "v", cost=PRICE)))
    update(world, before, fact(Kind.RENDERED, "w"))
    assert world.telemetry.counted == {Metric.SECOND_RENDERS: 1}
    world.table.contended = False
    world.clock.now += TIMES.check
    sweep(world)
    assert world.telemetry.counted == {Metric.SECOND_RENDERS: 1, Metric.BUDGET_EXCEEDED: 2}


def test_a_later_fact_moves_outstanding_money(world: UseCases) -> None:
    """A later fact moves all outstanding money, and no sweep moves it again."""
    reserved(world)
    world.table.contended = True
    after = update(world, world.table.put(clip()), fact(Kind.RENDERED, "v", cost=1))
    world.table.contended = False
    update(world, after, fact(Kind.RENDERED, "w", cost=2))
    assert (world.row().budgeted, budget_sums(world)) == (3, {3})


def test_a_change_without_money_is_not_retried(world: UseCases) -> None:
    """The second try is for contended budgets alone; without money to move it would only repeat the first."""
    before = world.table.put(clip())
    world.table.busy = {"save"}
    tries: list[int] = []
    world.table.before_save = lambda: tries.append(1)
    with pytest.raises(BusyError):
        update(world, before, fact(Kind.ACCEPTED))
    assert tries == [1]
    world.table.busy = set()
    assert update(world, before, fact(Kind.ACCEPTED)).budget_is_current


@pytest.mark.usefixtures("ahead_of_utc")
def test_a_month_is_in_utc_in_any_time_zone() -> None:
    """The last millisecond of a month belongs to it, and the next one to the next month, also across years."""
    new_year = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert (month_of(new_year - 1), month_of(new_year)) == ("2026-12", "2027-01")


@pytest.mark.parametrize("answer_lost", [True, False])
def test_a_lease_whose_answer_was_lost_is_no_attempt(world: UseCases, answer_lost: bool) -> None:
    """If the answer to writing a lease is lost nothing is sent, and the clip does not need review."""
    clock, table = world.clock, world.table
    world.submit_service.submit([request()], world.call())
    row = world.row()
    table.put(replace(row, facts={}, lease=None, next_check_at=clock.now))
    world.runware.sent.clear()
    genuine = table.save

    def save(before: Clip, after: Clip) -> Clip:
        saved = genuine(before, after)
        if answer_lost and after.lease:
            raise BusyError("the answer was lost", possibly_written=True)
        return saved

    table.save = save  # type: ignore[method-assign]
    sweep(world)
    assert len(world.runware.sent) == (not answer_lost)
    if answer_lost:
        assert (world.row().lease, world.row().possibly_sent_at, world.row().decisive) == (None, None, None)
        assert world.row().next_check_at is not None

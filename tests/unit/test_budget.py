"""Facts are saved though the budgets are contended, and a sweep moves the money; a lost answer leaves no lease."""

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
from tests.fakes.use_cases import UseCases, one_after_another


class Swept(FakeTable):
    """A table with the index of what is due."""

    def due(self, now: int, most: int) -> list[tuple[str, str, int]]:
        due = [(row.next_check_at, key) for key, row in self.rows.items() if row.next_check_at is not None]
        return [key for at, key in sorted(due) if at <= now][:most]

    def task(self, caller: str, task_uuid: str) -> Any:
        return self.tasks.get((caller, task_uuid))


class Deaf:
    """A Runware that answers no question."""

    def poll(self, task_uuids: Sequence[str], key: str) -> NoReturn:
        raise ProviderError("deaf")

    def details(self, task_uuid: str, key: str) -> NoReturn:
        raise ProviderError("deaf")


@pytest.fixture
def world() -> UseCases:
    """The fakes, with a table that can be swept."""
    return UseCases(table=Swept())


def sweep(world: UseCases) -> int:
    """One sweep, from now on."""
    reconcile_service = ReconcileService(
        table=world.table,  # type: ignore[arg-type]
        bucket=world.bucket,  # type: ignore[arg-type]
        provider=Deaf(),
        rescuer=None,  # type: ignore[arg-type]
        purchase_service=world.purchase_service,
        telemetry=world.telemetry,
        times=TIMES,
        when_ambiguous="review",
        clock=world.clock,
        concurrent_map=one_after_another,
    )
    return reconcile_service.sweep(world.buyer())


def learned(world: UseCases, before: Clip, *facts: Fact) -> Clip:
    """What comes of learning these facts about a clip."""
    change = lambda current: merge_all(current, facts)  # noqa: E731
    return update_clip(world.table, before, change, now=world.clock(), times=TIMES, telemetry=world.telemetry)


def counted(world: UseCases) -> set[int]:
    """What the two budgets of the clip's month hold; one value, if they agree."""
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


@pytest.mark.parametrize(("known", "news", "worth"), CASES.values(), ids=CASES)
def test_the_money_follows(world: UseCases, known: list[Fact], news: list[Fact], worth: int) -> None:
    """The facts are on record at once, the difference is moved once when the budgets can be written, and never lost."""
    reserved(world)
    before = world.table.put(clip(*known))
    world.table.contended = True
    after = learned(world, before, *news)
    assert after == world.row()
    assert (after.facts, after.budgeted, after.budget_is_current) == (clip(*known, *news).facts, PRICE, False)
    assert after.next_check_at == START + TIMES.check
    assert counted(world) == {PRICE}
    for _ in range(3):  # for as long as it lasts, the clip stays due and its budgets as they are
        world.clock.now += TIMES.check
        assert sweep(world) == 1
        assert not world.row().budget_is_current
        assert world.row().next_check_at == world.clock.now + TIMES.check
    world.table.contended = False
    world.clock.now += TIMES.check
    sweep(world)
    assert (world.row().budgeted, world.row().budget_is_current) == (worth, True)
    assert counted(world) == {worth}
    sweep(world)
    assert counted(world) == {worth}


def test_a_closed_clip_leaves_the_index_with_its_money(world: UseCases) -> None:
    """Once settled, a closed clip is looked at no more."""
    reserved(world)
    world.table.contended = True
    learned(world, world.table.put(clip()), fact(Kind.REFUSED))
    world.table.contended = False
    world.clock.now += TIMES.check
    assert sweep(world) == 1
    assert world.row().next_check_at is None
    world.clock.now += 10**9
    assert sweep(world) == 0


def test_an_overrun_is_reported_when_its_money_moves(world: UseCases) -> None:
    """The alarm rings though the sum passes the limit in a sweep; the milestone was counted with the fact, once."""
    reserved(world, limit=PRICE)
    world.table.contended = True
    before = world.table.put(clip(fact(Kind.STORED, "1"), fact(Kind.RENDERED, "v", cost=PRICE)))
    learned(world, before, fact(Kind.RENDERED, "w"))
    assert world.telemetry.counted == {Metric.SECOND_RENDERS: 1}
    world.table.contended = False
    world.clock.now += TIMES.check
    sweep(world)
    assert world.telemetry.counted == {Metric.SECOND_RENDERS: 1, Metric.BUDGET_EXCEEDED: 2}


def test_more_facts_take_the_money_along(world: UseCases) -> None:
    """A later fact moves all that is outstanding, and no sweep moves it again."""
    reserved(world)
    world.table.contended = True
    after = learned(world, world.table.put(clip()), fact(Kind.RENDERED, "v", cost=1))
    world.table.contended = False
    learned(world, after, fact(Kind.RENDERED, "w", cost=2))
    assert (world.row().budgeted, counted(world)) == (3, {3})


def test_what_moves_no_money_is_busy(world: UseCases) -> None:
    """The second try is for contended budgets alone: where no money moves it would only repeat the first."""
    before = world.table.put(clip())
    world.table.busy = {"save"}
    tries: list[int] = []
    world.table.before_save = lambda: tries.append(1)
    with pytest.raises(BusyError):
        learned(world, before, fact(Kind.ACCEPTED))
    assert tries == [1]
    world.table.busy = set()
    assert learned(world, before, fact(Kind.ACCEPTED)).budget_is_current


@pytest.mark.usefixtures("ahead_of_utc")
def test_a_month_is_one_in_utc_wherever_the_process_runs() -> None:
    """The last millisecond of a month counts in it, the next one in the next, in the same year or another."""
    new_year = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert (month_of(new_year - 1), month_of(new_year)) == ("2026-12", "2027-01")


@pytest.mark.parametrize("unheard", [True, False])
def test_a_lease_of_ones_own_is_no_attempt(world: UseCases, unheard: bool) -> None:
    """Where the answer to taking a lease is lost for good nothing is sent, and the clip is not parked for it."""
    clock, table = world.clock, world.table
    world.submit_service.submit([request()], world.call())
    row = world.row()
    table.put(replace(row, facts={}, lease=None, next_check_at=clock.now))
    world.runware.sent.clear()
    genuine = table.save

    def save(before: Clip, after: Clip) -> Clip:
        saved = genuine(before, after)
        if unheard and after.lease:
            raise BusyError("unheard", possibly_written=True)
        return saved

    table.save = save  # type: ignore[method-assign]
    sweep(world)
    assert len(world.runware.sent) == (not unheard)
    if unheard:
        assert (world.row().lease, world.row().possibly_sent_at, world.row().decisive) == (None, None, None)
        assert world.row().next_check_at is not None

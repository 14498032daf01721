"""Read, change, save, with retries after lost races; and the metrics of a change."""

from collections.abc import Callable

import pytest

from rushes.domain.clip import Clip, Fact, Kind, Status, mark_possibly_sent, merge
from rushes.errors import BusyError
from rushes.services.metric import Metric
from rushes.services.update_clip import update_clip
from tests.fakes.builders import CLIP_UUID, MONTH, PRICE, START, TASK_UUID, TIMES, clip, fact
from tests.fakes.use_cases import UseCases


def update(world: UseCases, before: Clip, *facts: Fact) -> Clip:
    """Merges the facts into the clip and saves it."""

    def change(current: Clip) -> Clip:
        for fact_to_add in facts:
            current = merge(current, fact_to_add)
        return current

    return update_clip(world.table, before, change, now=world.clock(), times=TIMES, telemetry=world.telemetry)


def test_facts_are_saved_with_all_derived_values(world: UseCases) -> None:
    """Status, money and the next check are updated with the facts, in one save."""
    world.table.budgets = {("all", "2026-09"): (PRICE, PRICE), ("ann", "2026-09"): (PRICE, PRICE)}
    after = update(world, world.table.put(clip(next_check_at=5)), fact(Kind.REFUSED))
    assert after == world.row()
    assert (after.budgeted, after.next_check_at, after.version) == (0, None, 2)
    assert [budgeted for budgeted, _ in world.table.budgets.values()] == [0, 0]


def test_a_recorded_fact_is_not_saved_again(world: UseCases) -> None:
    """A repeat writes nothing, however long ago the clip was saved."""
    before = world.table.put(clip(fact(Kind.ACCEPTED)))
    world.clock.now += 10**9
    assert update(world, before, fact(Kind.ACCEPTED)) is before
    assert world.table.saves == 0
    assert not world.telemetry.counted


def test_after_a_lost_race_the_change_is_made_again(world: UseCases) -> None:
    """A concurrent save is never overwritten: the change is made again on the saved clip."""
    before = world.table.put(clip())
    won = clip(fact(Kind.RENDERED, "v"), version=2)

    def save_first() -> None:
        world.table.before_save = lambda: None
        world.table.put(won)

    world.table.before_save = save_first
    after = update(world, before, fact(Kind.STORED, "1"))
    assert {kind for kind, _ in after.facts} == {Kind.RENDERED, Kind.STORED}
    assert (after.version, world.table.saves) == (3, 1)


def test_a_race_with_the_same_fact_ends_without_a_save(world: UseCases) -> None:
    """If the other process added the same fact nothing is saved, and nothing is counted twice."""
    before = world.table.put(clip())
    won = clip(fact(Kind.ACCEPTED), version=2)
    world.table.before_save = lambda: world.table.save_concurrently(won)
    assert update(world, before, fact(Kind.ACCEPTED)).version == 2
    assert world.table.saves == 0
    assert not world.telemetry.counted


def test_losing_every_race_is_busy(world: UseCases) -> None:
    """The number of retries is bounded, and the final error means that nothing was saved."""
    before = world.table.put(clip())
    versions = iter(range(2, 1000))
    world.table.before_save = lambda: world.table.save_concurrently(clip(version=next(versions)))
    with pytest.raises(BusyError, match=r"^the clip was changed concurrently again and again$"):
        update(world, before, fact(Kind.ACCEPTED))
    assert world.table.saves == 0


def test_a_missing_clip_is_busy(world: UseCases) -> None:
    """A clip that was deleted meanwhile is not created again."""
    with pytest.raises(BusyError, match=r"^the clip does not exist any more$"):
        update(world, clip(), fact(Kind.ACCEPTED))
    assert world.table.rows == {}


@pytest.mark.parametrize(
    ("recorded", "added", "metric"),
    [
        ([], [fact(Kind.ACCEPTED)], Metric.CLIPS_BOUGHT),
        ([], [fact(Kind.STORED, "1")], Metric.CLIPS_STORED),
        ([fact(Kind.ACCEPTED)], [fact(Kind.UNPROVEN)], Metric.CLIPS_IN_REVIEW),
        ([fact(Kind.RENDERED, "v")], [fact(Kind.UNSAVED)], Metric.CLIPS_IN_REVIEW),
        ([fact(Kind.RENDERED, "v")], [fact(Kind.RENDERED, "w")], Metric.SECOND_RENDERS),
        ([fact(Kind.STORED, "1")], [fact(Kind.STORED, "2")], Metric.OVERWRITTEN_CLIPS),
        (
            [fact(Kind.REFUSED, "code"), fact(Kind.ERASED)],
            [fact(Kind.STORED, "1", START + 1)],
            Metric.OVERWRITTEN_CLIPS,
        ),
        ([fact(Kind.ACCEPTED)], [fact(Kind.RENDERED, "v", cost=10 * PRICE + 1)], Metric.IMPLAUSIBLE_COST),
        ([fact(Kind.ACCEPTED)], [fact(Kind.REFUSED, str(number)) for number in range(4)], Metric.TOO_MANY_FACTS),
    ],
)
def test_milestones_are_counted_once(world: UseCases, recorded: list[Fact], added: list[Fact], metric: Metric) -> None:
    """A milestone is counted when it becomes true, not again by a repeat or by other facts."""
    after = update(world, world.table.put(clip(*recorded)), *added)
    after = update(world, after, *added)
    update(world, after, fact(Kind.ATTEMPTED, "something else"))
    assert world.telemetry.counted[metric] == 1


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.UNPROVEN, Kind.ATTEMPTED])
def test_only_a_purchase_is_counted_as_bought(world: UseCases, kind: Kind) -> None:
    """Only proof of a purchase counts as one."""
    update(world, world.table.put(clip()), fact(kind))
    assert not world.telemetry.counted[Metric.CLIPS_BOUGHT]


def test_an_ambiguous_purchase_is_counted(world: UseCases) -> None:
    """An ambiguous attempt is counted when it is first recorded."""
    change: Callable[[Clip], Clip] = lambda current: mark_possibly_sent(current, START)  # noqa: E731
    before = world.table.put(clip())
    update_clip(world.table, before, change, now=START, times=TIMES, telemetry=world.telemetry)
    assert world.telemetry.counted == {Metric.AMBIGUOUS_PURCHASES: 1}


def test_a_new_status_is_logged_with_the_clips_identifiers(world: UseCases) -> None:
    """A change of status is logged with the clip's identifiers, and nothing is logged without one."""
    after = update(world, world.table.put(clip()), fact(Kind.ACCEPTED))
    identifiers = {"caller": "ann", "taskUUID": TASK_UUID, "clip": 0, "clipUUID": CLIP_UUID}
    logged = [("clip status changed", False, {**identifiers, "status": Status.RUNNING})]
    assert world.telemetry.logs == logged
    update(world, after, fact(Kind.ACCEPTED, "again"))
    assert world.telemetry.logs == logged


def test_a_budget_exceeded_by_facts_is_reported(world: UseCases) -> None:
    """Runware may charge more than was reserved; if the sum passes the limit then, an alarm rings."""
    before = world.table.put(clip(budgeted=PRICE))
    world.table.budgets = {("all", MONTH): (PRICE, PRICE), ("ann", MONTH): (PRICE, 2 * PRICE)}
    update(world, before, fact(Kind.RENDERED, "v", cost=PRICE + 1))
    assert world.telemetry.counted[Metric.BUDGET_EXCEEDED] == 1
    details = {"scope": "all", "budgeted": PRICE + 1, "limit": PRICE}
    assert world.telemetry.logs[-1] == ("budget exceeded", True, details)


def test_a_budget_at_its_limit_is_not_exceeded(world: UseCases) -> None:
    """A sum equal to its limit is not reported."""
    world.table.budgets = {("all", MONTH): (PRICE, PRICE + 1), ("ann", MONTH): (PRICE, PRICE + 1)}
    update(world, world.table.put(clip(budgeted=PRICE)), fact(Kind.RENDERED, "v", cost=PRICE + 1))
    assert not world.telemetry.counted[Metric.BUDGET_EXCEEDED]


def test_an_exceeded_budget_is_reported_once(world: UseCases) -> None:
    """Only an addition to the sum rings the alarm, or every later fact would."""
    world.table.budgets = {("all", MONTH): (2 * PRICE, PRICE), ("ann", MONTH): (2 * PRICE, PRICE)}
    update(world, world.table.put(clip(budgeted=PRICE)), fact(Kind.ACCEPTED))
    assert not world.telemetry.counted[Metric.BUDGET_EXCEEDED]


@pytest.mark.parametrize("unreadable", ["all", "ann"])
def test_one_budget_that_cannot_be_read_hides_no_other(world: UseCases, unreadable: str) -> None:
    """If both budgets are exceeded and one cannot be read, the other is reported, and the facts are saved."""
    before = world.table.put(clip(budgeted=PRICE))
    world.table.budgets = {("all", MONTH): (PRICE, PRICE), ("ann", MONTH): (PRICE, PRICE)}
    world.table.busy = {f"budget of {unreadable}"}
    assert update(world, before, fact(Kind.RENDERED, "v", cost=PRICE + 1)) == world.row()
    assert world.telemetry.counted[Metric.BUDGET_EXCEEDED] == 1
    (details,) = [details for message, _, details in world.telemetry.logs if message == "budget exceeded"]
    assert details["scope"] == ({"all", "ann"} - {unreadable}).pop()


def test_an_alarm_is_counted_though_the_saves_answer_is_lost(world: UseCases) -> None:
    """A save that may have taken effect adds nothing at its retry, so metrics are counted at once, perhaps twice."""
    world.table.budgets = {("all", MONTH): (PRICE, PRICE), ("ann", MONTH): (PRICE, PRICE)}
    before = world.table.put(clip(fact(Kind.RENDERED, "v")))
    world.table.lost_answers = {"save"}
    with pytest.raises(BusyError):
        update(world, before, fact(Kind.RENDERED, "w"))
    world.table.lost_answers = set()
    update(world, world.row(), fact(Kind.RENDERED, "w"))
    assert world.table.saves == 1
    assert world.telemetry.counted[Metric.SECOND_RENDERS] == 1
    assert world.telemetry.counted[Metric.BUDGET_EXCEEDED] == 2

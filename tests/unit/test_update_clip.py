"""Read, change, save, and again if somebody was faster; and what is counted on the way."""

from collections.abc import Callable

import pytest

from rushes.domain.clip import Clip, Fact, Kind, Status, mark_possibly_sent, merge
from rushes.errors import BusyError
from rushes.services.metric import Metric
from rushes.services.update_clip import update_clip
from tests.fakes.builders import CLIP_UUID, MONTH, PRICE, START, TASK_UUID, TIMES, clip, fact
from tests.fakes.use_cases import UseCases


def learned(world: UseCases, before: Clip, *facts: Fact) -> Clip:
    """What comes of learning these facts about a clip."""

    def change(current: Clip) -> Clip:
        for news in facts:
            current = merge(current, news)
        return current

    return update_clip(world.table, before, change, now=world.clock(), times=TIMES, telemetry=world.telemetry)


def test_what_is_learned_is_saved_with_all_that_follows(world: UseCases) -> None:
    """Status, money and the next check are brought up to date with the facts, in one save."""
    world.table.budgets = {("all", "2026-09"): (PRICE, PRICE), ("ann", "2026-09"): (PRICE, PRICE)}
    after = learned(world, world.table.put(clip(next_check_at=5)), fact(Kind.REFUSED))
    assert after == world.row()
    assert (after.budgeted, after.next_check_at, after.version) == (0, None, 2)
    assert [counted for counted, _ in world.table.budgets.values()] == [0, 0]


def test_what_is_known_already_is_not_saved(world: UseCases) -> None:
    """A repeat writes nothing, however long ago the clip was saved."""
    before = world.table.put(clip(fact(Kind.ACCEPTED)))
    world.clock.now += 10**9
    assert learned(world, before, fact(Kind.ACCEPTED)) is before
    assert world.table.saves == 0
    assert not world.telemetry.counted


def test_a_lost_race_is_run_again_on_what_won(world: UseCases) -> None:
    """Somebody else's save is never overwritten: the change is made again on the clip as it is now."""
    before = world.table.put(clip())
    won = clip(fact(Kind.RENDERED, "v"), version=2)

    def somebody_is_faster() -> None:
        world.table.before_save = lambda: None
        world.table.put(won)

    world.table.before_save = somebody_is_faster
    after = learned(world, before, fact(Kind.STORED, "1"))
    assert {kind for kind, _ in after.facts} == {Kind.RENDERED, Kind.STORED}
    assert (after.version, world.table.saves) == (3, 1)


def test_a_race_that_taught_the_same_ends_without_a_save(world: UseCases) -> None:
    """If the faster one learned the same, there is nothing left to save, and nothing is counted twice."""
    before = world.table.put(clip())
    won = clip(fact(Kind.ACCEPTED), version=2)
    world.table.before_save = lambda: world.table.race(won)
    assert learned(world, before, fact(Kind.ACCEPTED)).version == 2
    assert world.table.saves == 0
    assert not world.telemetry.counted


def test_losing_for_ever_is_busy(world: UseCases) -> None:
    """The races that are run are bounded, and the last answer is that nothing was saved."""
    before = world.table.put(clip())
    versions = iter(range(2, 1000))
    world.table.before_save = lambda: world.table.race(clip(version=next(versions)))
    with pytest.raises(BusyError, match=r"^the clip was changed concurrently again and again$"):
        learned(world, before, fact(Kind.ACCEPTED))
    assert world.table.saves == 0


def test_a_clip_that_is_gone_is_busy(world: UseCases) -> None:
    """A clip that vanished under our hands is not made up again."""
    with pytest.raises(BusyError, match=r"^the clip does not exist any more$"):
        learned(world, clip(), fact(Kind.ACCEPTED))
    assert world.table.rows == {}


@pytest.mark.parametrize(
    ("known", "news", "metric"),
    [
        ([], [fact(Kind.ACCEPTED)], Metric.CLIPS_BOUGHT),
        ([], [fact(Kind.STORED, "1")], Metric.CLIPS_STORED),
        ([fact(Kind.ACCEPTED)], [fact(Kind.UNPROVEN)], Metric.CLIPS_IN_REVIEW),
        ([fact(Kind.RENDERED, "v")], [fact(Kind.UNSAVED)], Metric.CLIPS_IN_REVIEW),
        ([fact(Kind.RENDERED, "v")], [fact(Kind.RENDERED, "w")], Metric.SECOND_RENDERS),
        ([fact(Kind.STORED, "1")], [fact(Kind.STORED, "2")], Metric.OVERWRITTEN_CLIPS),
        ([fact(Kind.ACCEPTED)], [fact(Kind.RENDERED, "v", cost=10 * PRICE + 1)], Metric.IMPLAUSIBLE_COST),
        ([fact(Kind.ACCEPTED)], [fact(Kind.REFUSED, str(number)) for number in range(4)], Metric.TOO_MANY_FACTS),
    ],
)
def test_milestones_are_counted_once(world: UseCases, known: list[Fact], news: list[Fact], metric: Metric) -> None:
    """What means money or an alarm is counted when it becomes true, not again by a repeat or by other news."""
    after = learned(world, world.table.put(clip(*known)), *news)
    after = learned(world, after, *news)
    learned(world, after, fact(Kind.ATTEMPTED, "something else"))
    assert world.telemetry.counted[metric] == 1


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.UNPROVEN, Kind.ATTEMPTED])
def test_what_was_not_bought_is_not_counted_as_bought(world: UseCases, kind: Kind) -> None:
    """Only proof of a purchase counts as one."""
    learned(world, world.table.put(clip()), fact(kind))
    assert not world.telemetry.counted[Metric.CLIPS_BOUGHT]


def test_a_doubtful_purchase_is_counted(world: UseCases) -> None:
    """An ambiguous attempt is counted when it is first recorded."""
    change: Callable[[Clip], Clip] = lambda current: mark_possibly_sent(current, START)  # noqa: E731
    before = world.table.put(clip())
    update_clip(world.table, before, change, now=START, times=TIMES, telemetry=world.telemetry)
    assert world.telemetry.counted == {Metric.AMBIGUOUS_PURCHASES: 1}


def test_a_new_status_is_noted_with_the_clips_names(world: UseCases) -> None:
    """The log tells which clip came where, and stays silent while it stays there."""
    after = learned(world, world.table.put(clip()), fact(Kind.ACCEPTED))
    names = {"caller": "ann", "taskUUID": TASK_UUID, "clip": 0, "clipUUID": CLIP_UUID}
    noted = [("clip status changed", False, {**names, "status": Status.RUNNING})]
    assert world.telemetry.notes == noted
    learned(world, after, fact(Kind.ACCEPTED, "again"))
    assert world.telemetry.notes == noted


def test_a_budget_that_facts_overran_is_reported(world: UseCases) -> None:
    """Runware may charge more than was set aside; the sum then passes the limit, and somebody hears of it."""
    before = world.table.put(clip(budgeted=PRICE))
    world.table.budgets = {("all", MONTH): (PRICE, PRICE), ("ann", MONTH): (PRICE, 2 * PRICE)}
    learned(world, before, fact(Kind.RENDERED, "v", cost=PRICE + 1))
    assert world.telemetry.counted[Metric.BUDGET_EXCEEDED] == 1
    details = {"scope": "all", "budgeted": PRICE + 1, "limit": PRICE}
    assert world.telemetry.notes[-1] == ("budget exceeded", True, details)


def test_a_budget_that_is_used_up_to_its_limit_is_not_overrun(world: UseCases) -> None:
    """To the micro-dollar."""
    world.table.budgets = {("all", MONTH): (PRICE, PRICE + 1), ("ann", MONTH): (PRICE, PRICE + 1)}
    learned(world, world.table.put(clip(budgeted=PRICE)), fact(Kind.RENDERED, "v", cost=PRICE + 1))
    assert not world.telemetry.counted[Metric.BUDGET_EXCEEDED]


def test_a_budget_that_was_overrun_before_is_reported_once(world: UseCases) -> None:
    """Only what adds to the sum rings the alarm, or every later fact would."""
    world.table.budgets = {("all", MONTH): (2 * PRICE, PRICE), ("ann", MONTH): (2 * PRICE, PRICE)}
    learned(world, world.table.put(clip(budgeted=PRICE)), fact(Kind.ACCEPTED))
    assert not world.telemetry.counted[Metric.BUDGET_EXCEEDED]


@pytest.mark.parametrize("unreadable", ["all", "ann"])
def test_one_budget_that_cannot_be_read_hides_no_other(world: UseCases, unreadable: str) -> None:
    """Where both are overrun and one is away, the other is reported, and what was learned is saved."""
    before = world.table.put(clip(budgeted=PRICE))
    world.table.budgets = {("all", MONTH): (PRICE, PRICE), ("ann", MONTH): (PRICE, PRICE)}
    world.table.busy = {f"budget of {unreadable}"}
    assert learned(world, before, fact(Kind.RENDERED, "v", cost=PRICE + 1)) == world.row()
    assert world.telemetry.counted[Metric.BUDGET_EXCEEDED] == 1
    (note,) = [details for message, _, details in world.telemetry.notes if message == "budget exceeded"]
    assert note["scope"] == ({"all", "ann"} - {unreadable}).pop()


def test_an_alarm_is_counted_though_the_saves_answer_is_lost(world: UseCases) -> None:
    """What may have been saved is no news the next time: so it is counted now, rather twice than never."""
    world.table.budgets = {("all", MONTH): (PRICE, PRICE), ("ann", MONTH): (PRICE, PRICE)}
    before = world.table.put(clip(fact(Kind.RENDERED, "v")))
    world.table.unheard = {"save"}
    with pytest.raises(BusyError):
        learned(world, before, fact(Kind.RENDERED, "w"))
    world.table.unheard = set()
    learned(world, world.row(), fact(Kind.RENDERED, "w"))
    assert world.table.saves == 1
    assert world.telemetry.counted[Metric.SECOND_RENDERS] == 1
    assert world.telemetry.counted[Metric.BUDGET_EXCEEDED] == 2

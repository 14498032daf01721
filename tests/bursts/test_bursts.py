"""Concurrent purchases under DynamoDB's conflicts are all recorded, in time, and the budgets have their sum."""

import pytest

from tests.bursts.model import BurstResult, run
from tests.fakes.builders import PRICE

# The model resets moto, whose state a running stack shares.
pytestmark = pytest.mark.usefixtures("no_shared_stack")
HOLD = 0.02  # seconds, at the upper end of a transaction's duration
LIMIT = 100_000 * PRICE


def assert_within_goals(result: BurstResult) -> None:
    """No request is answered 503, and 99 of 100 are answered within three seconds."""
    assert (result.busy, result.refused) == (0, 0)
    assert result.percentile(99) < 3


def test_twenty_tasks_at_once() -> None:
    """Twenty tasks in the first second of a month, before its budgets exist, are all recorded in time."""
    assert_within_goals(run([0.0] * 20, 1, HOLD, limit=LIMIT, patience=6, first=True))


@pytest.mark.batch
@pytest.mark.timeout(600)
def test_a_burst_beyond_the_limit() -> None:
    """As many purchases as fit are recorded, and the others are refused rather than answered 503."""
    result = run([0.0] * 40, 1, HOLD, limit=25 * PRICE, patience=6)
    assert (result.busy, result.refused) == (0, 15)


@pytest.mark.batch
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("arrivals", "tasks"),
    [([0.0] * 200, 1), ([number / 200 for number in range(400)], 1), ([0.0] * 40, 20)],
    ids=["200 at once", "200 a second", "40 requests of 20"],
)
def test_the_goals(arrivals: list[float], tasks: int) -> None:
    """The largest bursts meet the goals; a request of 20 tasks may take twenty times as long."""
    result = run(arrivals, tasks, HOLD, limit=LIMIT, patience=6)
    assert (result.busy, result.refused) == (0, 0)
    assert result.percentile(99) < 3 * tasks

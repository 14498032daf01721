"""Budgets across the end of a month: an amount is corrected in the month of its reservation."""

from datetime import UTC, datetime

import pytest

from rushes.domain.budget import ALL_CALLERS
from tests.fakes.simulated import Switches
from tests.simulation.history import CALLER, History, Setting, request, verdict

BEFORE_MIDNIGHT = int(datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC).timestamp() * 1000)
PRICE = 924_000


@pytest.mark.parametrize(
    ("switches", "fates", "november"),
    [
        (Switches(), ("well",), PRICE),
        (Switches(), ("no",), 0),
        (Switches(render_fails="timeoutProvider"), ("well",), 0),
        (Switches(webhook="lost", upload="never"), ("cut after",), PRICE),
        (Switches(), ("lost", "lost", "lost", "lost"), PRICE),  # uncertain: the money stays reserved
    ],
    ids=["stored", "refused", "failed", "rescued", "in review"],
)
def test_facts_of_december_correct_november(switches: Switches, fates: tuple[str, ...], november: int) -> None:
    """A clip ordered ten seconds before midnight counts in its own month, whenever its facts are recorded."""
    history = History(Setting(switches=switches, fates=fates))
    history.world.now = BEFORE_MIDNIGHT
    history.submit(request(1))
    history.world.move_to(BEFORE_MIDNIGHT + 20_000)
    history.advance()
    for scope in (ALL_CALLERS, CALLER.name):
        assert history.table.budget(scope, "2026-11")[0] == november
        assert (scope, "2026-12") not in history.table.budgets
    assert not verdict(history)


def test_december_starts_with_a_budget_of_its_own() -> None:
    """A full month does not block purchases in the next one."""
    history = History(Setting(limit=PRICE))
    history.world.now = BEFORE_MIDNIGHT
    assert history.submit(request(1)).status == 200  # type: ignore[union-attr]
    assert history.submit(request(2)).status == 402  # type: ignore[union-attr]
    history.world.move_to(BEFORE_MIDNIGHT + 20_000)
    assert history.submit(request(2)).status == 200  # type: ignore[union-attr]
    history.advance()
    held = {month: amount for (scope, month), (amount, _) in history.table.budgets.items() if scope == ALL_CALLERS}
    assert held == {"2026-11": PRICE, "2026-12": PRICE}
    assert history.runware.ledger() == 2 * PRICE

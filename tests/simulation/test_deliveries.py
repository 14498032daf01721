"""Each certain outcome reaches its receiver wherever `deliver` is stopped, and planted faults are detected."""

from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import Any

import pytest

from rushes.domain.delivery import Delivery
from rushes.services import deliver, publish
from tests.simulation.deliveries import DeliveryReplay, replays, verdict
from tests.simulation.history import History
from tests.simulation.test_publishing import histories

Patch = pytest.MonkeyPatch
_HISTORIES = 12


@cache
def delivered() -> tuple[History, ...]:
    """The histories with at least one delivery, those whose outcome changes first."""

    def outcomes(history: History) -> int:
        return len({publish.delivery_id_of(after) for _, after in history.table.changes} - {None})

    found = [history for history in histories() if outcomes(history)]
    return tuple(sorted(found, key=outcomes, reverse=True)[:_HISTORIES])


def first_broken() -> list[str]:
    return next((faults for replay in replays(delivered()) if (faults := verdict(replay.run()))), [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.batch)])
def test_every_stop_of_deliver_ends_with_every_outcome_delivered(
    every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each outcome is accepted by the receiver, none before it is certain or after it was replaced, and every attempt
    is on the record."""
    explored, requests = 0, 0
    for replay in islice(replays(delivered()), 0, None, every):
        assert verdict(replay.run()) == []
        explored, requests = explored + 1, requests + len(replay.requests)
    with capsys.disabled():
        print(f"\ndeliveries replayed: {explored}, requests: {requests}")
    assert explored >= 10_000 / every


def test_outcomes_replace_each_other_under_way() -> None:
    """There are histories in which a delivery is under way while the outcome changes."""
    runs = [DeliveryReplay(history, fates=("refused",), steps=1).run() for history in delivered()]
    assert any(len({delivery_id for delivery_id, _ in run.requests}) > len(run.table.rows) for run in runs)


def records_are_not_read(patch: Patch) -> None:
    """A repeated message repeats its attempt."""
    original = deliver.DeliverService.attempt

    def attempt(self: Any, delivery: Delivery, holder: str) -> None:
        recorded, self.table.recorded = self.table.recorded, {}
        try:
            original(self, delivery, holder)
        finally:
            self.table.recorded = {**recorded, **self.table.recorded}

    patch.setattr(deliver.DeliverService, "attempt", attempt)


def replaced_outcomes_are_sent(patch: Patch) -> None:
    """An attempt is made although the outcome has changed since it was queued."""
    original = deliver.DeliverService.attempt

    def attempt(self: Any, delivery: Delivery, holder: str) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(deliver, "delivery_id_of", lambda _: delivery.delivery_id)
            original(self, delivery, holder)

    patch.setattr(deliver.DeliverService, "attempt", attempt)


def the_next_attempt_is_forgotten(patch: Patch) -> None:
    """A message that comes again after its record queues no next attempt."""
    original = deliver.DeliverService.attempt

    def attempt(self: Any, delivery: Delivery, holder: str) -> None:
        if not self.table.attempt(delivery):
            original(self, delivery, holder)

    patch.setattr(deliver.DeliverService, "attempt", attempt)


def slots_are_not_freed(patch: Patch) -> None:
    """A slot is kept after its attempt."""
    from tests.simulation.deliveries import _Table

    patch.setattr(_Table, "free_slot", lambda *_: None)


@pytest.mark.parametrize(
    "mutant",
    [
        records_are_not_read,
        replaced_outcomes_are_sent,
        the_next_attempt_is_forgotten,
        slots_are_not_freed,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_each_planted_fault_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A fault in `deliver` breaks a promise under at least one schedule."""
    mutant(monkeypatch)
    assert first_broken(), f"{mutant.__doc__} Not detected."

"""Stops orders of the inbox while Runware refuses the account."""

from collections.abc import Callable, Mapping
from typing import Any

from rushes.runware.facts import is_account_trouble
from rushes.runware.outcome import Outcome
from rushes.services.ports import RunwareOrders

_PAUSE = 60_000  # milliseconds


class CircuitBreaker:
    """Runware, and whether it has just refused our account. `clock` gives milliseconds.

    An order that is recorded then has until its deadline, one that stays in the queue has days: so while Runware
    refuses us, only one order a minute goes through, to see whether it still does.
    """

    def __init__(self, seller: RunwareOrders, clock: Callable[[], int]) -> None:
        self._seller, self._clock = seller, clock
        self._shut_until = 0

    @property
    def is_open(self) -> bool:
        return self._clock() < self._shut_until

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """What the seller says."""
        outcome = self._seller.submit(task, key)
        self._shut_until = self._clock() + _PAUSE if is_account_trouble(outcome) else 0
        return outcome

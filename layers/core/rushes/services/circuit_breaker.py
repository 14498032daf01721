"""Holds the inbox's orders back while Runware refuses the account.

It hides the pause and its end. It stands in the inbox's way alone: a caller of `POST /v1` waits for an answer, and
gets Runware's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rushes.runware.facts import is_account_refusal
from rushes.runware.outcome import Outcome
from rushes.services.ports import RunwareOrders

_PAUSE = 60_000  # milliseconds


class CircuitBreaker:
    """Runware's orders, with a pause after each that it refused because of our account. `clock` gives milliseconds.

    A recorded order has until its deadline, a message in the queue has days: so during a pause messages stay there.
    After it one order goes through, and a further refusal begins the next pause.
    """

    def __init__(self, runware: RunwareOrders, clock: Callable[[], int]) -> None:
        self._runware, self._clock = runware, clock
        self._open_until = 0

    @property
    def is_open(self) -> bool:
        """Whether orders are to be held back now."""
        return self._clock() < self._open_until

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """Sends an order and returns its outcome, also during a pause."""
        outcome = self._runware.submit(task, key)
        self._open_until = self._clock() + _PAUSE if is_account_refusal(outcome) else 0
        return outcome

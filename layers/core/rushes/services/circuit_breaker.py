"""Pauses the inbox's orders while Runware refuses the account.

It hides the length of the pause and its end. It applies only to the inbox: a caller of `POST /v1` waits for an answer
and gets Runware's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rushes.runware.facts import is_account_refusal
from rushes.runware.outcome import Outcome

if TYPE_CHECKING:
    from rushes.services.ports import RunwareOrders

_PAUSE = 60_000  # milliseconds


class CircuitBreaker:
    """Sends orders to Runware and opens for a minute after each refusal of the account. `clock` gives milliseconds.

    Messages stay in the queue during a pause, since they can wait there for days, and a recorded order only until its
    deadline. After the pause one refused order starts the next.
    """

    def __init__(self, runware: RunwareOrders, clock: Callable[[], int]) -> None:
        self._runware, self._clock = runware, clock
        self._open_until = 0

    @property
    def is_open(self) -> bool:
        """True during a pause."""
        return self._clock() < self._open_until

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """Sends an order, even during a pause, and returns its outcome."""
        outcome = self._runware.submit(task, key)
        self._open_until = self._clock() + _PAUSE if is_account_refusal(outcome) else 0
        return outcome

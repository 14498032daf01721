"""The use case behind the inbox: one message, one task, bought as `POST /v1` buys it.

Nobody waits for an answer. What can be served later raises, and the message comes back until its queue sets it aside;
what never can is told in a report beside that of its file; everything else is in the record.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rushes.buying import is_account_trouble
from rushes.callers import NOT_ALLOWED, Callers
from rushes.errors import PostponedError
from rushes.messages import Message
from rushes.observability import Metric, Telemetry
from rushes.purchasing import Buyer, Seller
from rushes.runware.outcomes import Outcome
from rushes.runware.wire import WireError
from rushes.submitting import BUSY, OVER_BUDGET, Request, Submitting

_LATER = (BUSY["code"], OVER_BUDGET)
_PAUSE = 60_000  # milliseconds


class Reports(Protocol):
    """Where reports are put."""

    def put(self, key: str, content: bytes) -> None: ...


class Gate:
    """Runware, and whether it has just refused our account. `clock` gives milliseconds.

    An order that is recorded then has until its deadline, one that stays in the queue has days: so while Runware
    refuses us, only one order a minute goes through, to see whether it still does.
    """

    def __init__(self, seller: Seller, clock: Callable[[], int]) -> None:
        self._seller, self._clock = seller, clock
        self._shut_until = 0

    @property
    def shut(self) -> bool:
        return self._clock() < self._shut_until

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """What the seller says."""
        outcome = self._seller.submit(task, key)
        self._shut_until = self._clock() + _PAUSE if is_account_trouble(outcome) else 0
        return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """The use case with its adapters. `gate` is what `submitting` buys through. `clock` gives milliseconds."""

    submitting: Submitting
    gate: Gate
    callers: Callers
    reports: Reports
    telemetry: Telemetry
    clock: Callable[[], int]

    def take(self, message: Message, buyer: Buyer) -> None:
        """Buys one task of the inbox, once however often it comes; raises `PostponedError` if it has to come again.

        With too little time left to send, nothing is recorded either: what is recorded and not sent is bought by the
        sweep, and the inbox would no longer bound how many purchases are under way.
        """
        times = self.submitting.times
        if self.clock() + times.http + times.to_finish > buyer.ends_at:
            raise PostponedError("no time is left")
        if self.gate.shut:
            raise PostponedError("Runware refuses us")
        caller = self.callers.named(message.caller)
        if caller is None:
            self._refuse(message, [NOT_ALLOWED])
            return
        request = Request(caller=caller, buyer=buyer)
        answer = self.submitting.submit([message.task], request)
        errors = [error for _, error in answer.errors]
        later = [error["code"] for error in errors if error["code"] in _LATER]
        if later:
            raise PostponedError(later[0])
        if errors:
            self._refuse(message, errors)

    def _refuse(self, message: Message, errors: Sequence[WireError]) -> None:
        self.telemetry.count(Metric.TASKS_REFUSED)
        content = {"taskUUID": message.task["taskUUID"].lower(), "errors": errors}
        self.reports.put(message.refusal, json.dumps(content, indent=1).encode())

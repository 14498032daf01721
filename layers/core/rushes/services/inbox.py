"""The use case behind the inbox: one message, one task, bought as `POST /v1` buys it.

No caller waits for an answer. A task that can be served later raises, and its message comes back until the queue sets
it aside; a task that never can gets a report beside that of its file; everything else is in the record.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rushes.domain.inbox_message import Message
from rushes.errors import PostponedError
from rushes.runware.wire import WireError
from rushes.services.authentication import NOT_ALLOWED, Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.ports import Metric, ReportStore, Telemetry
from rushes.services.purchase import Buyer
from rushes.services.submit import BUSY, OVER_BUDGET, Request, SubmitService

_LATER = (BUSY["code"], OVER_BUDGET)


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxService:
    """The use case with its adapters. `submitting` buys through the `breaker`. `clock` gives milliseconds."""

    submit_service: SubmitService
    breaker: CircuitBreaker
    callers: Callers
    reports: ReportStore
    telemetry: Telemetry
    clock: Callable[[], int]

    def take(self, message: Message, buyer: Buyer) -> None:
        """Buys one task of the inbox, once however often it comes; raises `PostponedError` if it has to come again.

        With too little time left to send, nothing is recorded either: what is recorded and not sent is bought by the
        sweep, and the inbox would no longer bound how many purchases are under way.
        """
        times = self.submit_service.times
        if self.clock() + times.http + times.to_finish > buyer.ends_at:
            raise PostponedError("no time is left")
        if self.breaker.is_open:
            raise PostponedError("Runware refuses us")
        caller = self.callers.named(message.caller)
        if caller is None:
            self._refuse(message, [NOT_ALLOWED])
            return
        request = Request(caller=caller, buyer=buyer)
        answer = self.submit_service.submit([message.task], request)
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

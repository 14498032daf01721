"""The use case behind the inbox: each message is one task, bought in the same way as by `POST /v1`.

No caller waits for an answer. If a task can be bought later, the service raises, and the queue delivers the message
again until it moves to the dead-letter queue. An invalid task gets a report beside that of its file. Every other result
is in the task's record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rushes.domain.inbox_message import Message
from rushes.errors import PostponedError
from rushes.runware.wire import WireError
from rushes.services.authentication import NOT_ALLOWED, Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.metric import Metric
from rushes.services.purchase import Buyer
from rushes.services.submit import BUSY, OVER_BUDGET, Request, SubmitService

if TYPE_CHECKING:
    from rushes.services.ports import ReportStore, Telemetry

_RETRYABLE = (BUSY["code"], OVER_BUDGET)


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class InboxService:
    """The use case with its adapters. `submit_service` buys through `breaker`. `clock` gives milliseconds."""

    submit_service: SubmitService
    breaker: CircuitBreaker
    callers: Callers
    reports: ReportStore
    telemetry: Telemetry
    clock: Callable[[], int]

    def buy(self, message: Message, buyer: Buyer) -> None:
        """Buys the task of one message; repeats of it buy nothing. Raises `PostponedError` if it has to be redelivered.

        A task is not recorded without time to send it: the sweep would buy it, outside the inbox's concurrency limit.
        """
        times = self.submit_service.times
        if self.clock() + times.http + times.to_finish > buyer.ends_at:
            raise PostponedError("no time is left")
        if self.breaker.is_open:
            raise PostponedError("Runware refuses the account")
        caller = self.callers.by_name(message.caller, signing="webhookURL" in message.task)
        if caller is None:
            self._refuse(message, [NOT_ALLOWED])
            return
        request = Request(caller=caller, buyer=buyer)
        answer = self.submit_service.submit([message.task], request)
        errors = [error for _, error in answer.errors]
        retryable = [error["code"] for error in errors if error["code"] in _RETRYABLE]
        if retryable:
            raise PostponedError(retryable[0])
        if errors:
            self._refuse(message, errors)

    def _refuse(self, message: Message, errors: Sequence[WireError]) -> None:
        self.telemetry.count(Metric.TASKS_REFUSED)
        content = {"taskUUID": message.task["taskUUID"].lower(), "errors": errors}
        self.reports.put(message.refusal, json.dumps(content, indent=1).encode())

"""The use case behind `deliver`: one attempt to POST the outcome of a clip to its caller's receiver.

A message of the queue is one attempt. Its record is written before the next attempt is queued and before the message is
deleted, so a crash repeats an attempt, but never loses a delivery. The body is built from the clip as it is now: an
outcome that a later one has replaced is not sent any more, since the later one has a delivery of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rushes.domain.clip import Clip
from rushes.domain.delivery import Attempt, AttemptOutcome, Delivery, Reply, drop, judge, sign, valid_secrets, wait
from rushes.domain.receiver_url import origin
from rushes.domain.task import Task
from rushes.domain.views import Json
from rushes.services.metric import Metric
from rushes.services.publish import delivery_id_of
from rushes.services.queries import QueryService

if TYPE_CHECKING:
    from rushes.services.ports import DeliveryQueue, DeliveryTable, Receivers, Telemetry

_NO_SECRET = Reply(None, 0, failure="no signing secret")
_NO_OUTAGE = (AttemptOutcome.DELIVERED, AttemptOutcome.DROPPED)
_LATE_ATTEMPT = 4  # from this attempt on, about half an hour after the first, a failure counts as an outage


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class DeliverService:
    """The use case with its adapters. `clock` gives milliseconds.

    `first_pause`, `lease` and `retention` (of records) are in milliseconds. At most `concurrency` attempts of one
    caller are made at once, so that a receiver that hangs does not delay the deliveries of other callers. `jitter`
    gives a random number from 0 to 1.
    """

    table: DeliveryTable
    queue: DeliveryQueue
    receivers: Receivers
    query_service: QueryService
    telemetry: Telemetry
    bucket: str
    first_pause: int
    lease: int
    retention: int
    concurrency: int
    clock: Callable[[], int]
    jitter: Callable[[], float]

    def attempt(self, delivery: Delivery, holder: str) -> None:
        """Makes one attempt and queues the next, if there has to be one. `holder` identifies this invocation.

        Raises `BusyError`, `BucketError` or `QueueError`; the message then has to be received again.
        """
        now = self.clock()
        if now < delivery.due_at:
            self.queue.send(delivery, delivery.due_at - now)
            return
        if recorded := self.table.attempt(delivery):
            self._queue_next(recorded)
            return
        task = self.table.task(delivery.caller, delivery.task_uuid)
        clip = self.table.clip(delivery.caller, delivery.task_uuid, delivery.clip)
        if clip and clip.erased_at:
            receiver = origin(task.webhook_url) if task and task.webhook_url else ""
            self._record(drop(delivery, now, receiver, "the clip was erased"))
            return
        if not task or not task.webhook_url or not clip or delivery_id_of(clip) != delivery.delivery_id:
            self.telemetry.log("delivery is obsolete", **_names(delivery))
            return
        slot = self.table.take_slot(delivery.caller, self.concurrency, holder, now, now + self.lease)
        if slot is None:
            self.queue.send(*wait(delivery, self.first_pause, self.jitter()))
            return
        try:
            attempt = self._send(delivery, task, clip)
        finally:
            self.table.free_slot(delivery.caller, slot, holder)
        self._record(attempt)
        self._queue_next(attempt)

    def _send(self, delivery: Delivery, task: Task, clip: Clip) -> Attempt:
        at = self.clock()
        secrets = valid_secrets(self.table.signing_secrets(delivery.caller), at)
        reply = _NO_SECRET
        if secrets:
            body = json.dumps(self._body(task, clip), ensure_ascii=False).encode()
            headers = {
                "webhook-id": delivery.delivery_id,
                "webhook-timestamp": str(at // 1000),
                "webhook-signature": sign(secrets, delivery.delivery_id, at // 1000, body),
            }
            reply = self.receivers.post(task.webhook_url, headers, body)
        return judge(delivery, at, origin(task.webhook_url), reply, self.clock(), self.first_pause)

    def _body(self, task: Task, clip: Clip) -> Json:
        """The outcome in Runware's format, with our own fields under `rushes`."""
        data, errors = self.query_service.outcome(task, clip)
        outcome: dict[str, Any] = data[0] if data else {"errors": errors}
        ours = {"status": str(clip.status), "clip": clip.slot, "objectKey": clip.object_key, "revision": clip.version}
        if clip.chain:
            ours["model"] = clip.chain.model
        if clip.copy:
            ours |= {"bucket": self.bucket, "versionId": clip.copy[0]}
        return {**outcome, "rushes": ours}

    def _record(self, attempt: Attempt) -> None:
        self.table.put_attempt(attempt, attempt.at + self.retention)
        self._report(attempt)

    def _queue_next(self, attempt: Attempt) -> None:
        if attempt.next:
            self.queue.send(attempt.next, attempt.next.due_at - self.clock())

    def _report(self, attempt: Attempt) -> None:
        """Logs and counts one attempt, without its URL."""
        delivery, reply = attempt.delivery, attempt.reply
        match attempt.outcome:
            case AttemptOutcome.DELIVERED:
                self.telemetry.count(Metric.WEBHOOKS_DELIVERED)
            case AttemptOutcome.GONE | AttemptOutcome.FAILED:
                self.telemetry.count(Metric.WEBHOOKS_UNDELIVERED)
        if attempt.outcome not in _NO_OUTAGE and delivery.attempt >= _LATE_ATTEMPT:
            self.telemetry.count(Metric.WEBHOOKS_FAILING)
        self.telemetry.log(
            "delivery attempted",
            warn=attempt.outcome not in _NO_OUTAGE,
            outcome=str(attempt.outcome),
            attempt=delivery.attempt,
            httpStatus=reply.status,
            failure=reply.failure,
            milliseconds=reply.duration,
            **_names(delivery),
        )


def _names(delivery: Delivery) -> dict[str, Any]:
    return {
        "caller": delivery.caller,
        "taskUUID": delivery.task_uuid,
        "clip": delivery.clip,
        "deliveryId": delivery.delivery_id,
    }

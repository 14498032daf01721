"""The use case behind `POST /v1`: validates tasks, records the intent, buys each clip and answers polls.

The sequence is the guarantee. A task's images are stored where Runware can fetch them before the task is recorded. The
task, its clips and their money are in the table before the first byte goes to Runware, and a clip is sent only under a
lease that outlives the sender (`config.Timings`). Once a task is recorded it is answered as accepted, whatever fails
later, because the service completes it from then on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rushes.domain.budget import ALL_CALLERS, OverBudget, Reservation, month_of
from rushes.domain.caller import Caller
from rushes.domain.clip import SLOTS, Chain, Clip, FallbackModel, Lease, billable_amount, next_check
from rushes.domain.formats import canonical, dollars
from rushes.domain.task import Existing, Recorded, Task
from rushes.domain.timings import Timings
from rushes.errors import BucketError, BusyError
from rushes.runware import facts
from rushes.runware.request import Order
from rushes.runware.wire import MAX_AT_ONCE, WireError, wire_error
from rushes.services import input_images
from rushes.services.input_images import ReadOnlyImageStore
from rushes.services.metric import Metric
from rushes.services.purchase import Buyer, PurchaseService
from rushes.services.queries import QueryService
from rushes.services.request_validation import Poll, WireResponse, of_task, refusal_of, validate

if TYPE_CHECKING:
    from rushes.services.ports import ConcurrentMap, ImageStore, TaskTable, Telemetry

OVER_BUDGET = "budgetExceeded"


class Request(NamedTuple):
    """One call: its caller, and the buyer that acts for it."""

    caller: Caller
    buyer: Buyer


# The result of `_store_images`: the request to record, the recorded task, or errors with HTTP statuses.
_ImageOutcome: TypeAlias = Mapping[str, Any] | Existing | list[tuple[int, WireError]]
# A recorded clip and the request of its task.
_LeasedClip: TypeAlias = tuple[Clip, Mapping[str, Any]]


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class SubmitService:
    """The use case with its adapters. `clock` gives milliseconds."""

    table: TaskTable
    inputs: ImageStore
    query_service: QueryService
    purchase_service: PurchaseService
    telemetry: Telemetry
    times: Timings
    monthly_limit: int
    retention: int | None  # milliseconds; None: requests are kept permanently
    clock: Callable[[], int]
    new_uuid: Callable[[], str]
    concurrent_map: ConcurrentMap
    loopback: bool = False  # webhooks to receivers on the same machine are allowed
    gone_models: bool = False  # models that Runware has removed may be ordered

    def submit(self, tasks: Sequence[object], request: Request) -> WireResponse:
        """Buys the clips of each valid order and answers each valid poll; an invalid task does not affect the others.

        Returns items and errors in Runware's format, each error with its HTTP status.
        """
        answer = WireResponse()
        valid = validate(tasks, answer, loopback=self.loopback)
        orders = [each for each in valid if isinstance(each, Order)]
        leaving = sum(order.model.air in answer.leaving for order in orders)
        if leaving:
            self.telemetry.count(Metric.LEAVING_MODEL_ORDERED, leaving)
        image_outcomes = self.concurrent_map(lambda order: self._store_images(order, request), orders)
        to_send: list[_LeasedClip] = []
        to_give_back: list[Clip] = []
        recorded: list[Order] = []
        slowest = 0
        # Not concurrently: all orders write to the same two budgets and would only contend.
        for order, image_outcome in zip(orders, image_outcomes, strict=True):
            began = self.clock()
            in_time = self._has_time_to_send(len(to_send) + order.clips, request.buyer, slowest)
            if in_time or isinstance(image_outcome, Existing | list):
                leased = self._record(order, image_outcome, request, answer, to_give_back)
                to_send += leased
                if leased:
                    recorded.append(order)
                slowest = max(slowest, self.clock() - began)
            else:
                answer.errors.append((503, of_task(order.task_uuid, BUSY)))
        sent = self.concurrent_map(lambda leased: self.purchase_service.attempt(*leased, request.buyer)[0], to_send)
        self.concurrent_map(lambda clip: self.purchase_service.give_back(clip, request.buyer), to_give_back)
        for order in recorded:
            clips = [clip for clip in sent if clip.task_uuid == order.task_uuid]
            _acknowledge(order.task_uuid, clips, answer)
        for each in valid:
            if isinstance(each, Poll):
                self._poll(each.task_uuid, request.caller, answer)
        return answer

    def _has_time_to_send(self, clips: int, buyer: Buyer, to_record: int = 0) -> bool:
        """True if the first clips can be sent in time and all other leases given back, even if Runware is slow.

        A lease that is left when the function is ended makes its clip possibly sent. `to_record` is in milliseconds.
        """
        rounds = -(-clips // MAX_AT_ONCE)
        needed = to_record + self.times.http + (rounds - 1) * self.times.to_finish
        return self.clock() + needed <= buyer.ends_at

    def _store_images(self, order: Order, request: Request) -> _ImageOutcome:
        """Returns the request with stored images; the recorded task of a repeat; or errors with HTTP statuses.

        A repeat is found before its images are read from S3, because S3 may be unavailable and the images deleted.
        """
        refusal = refusal_of(order, request.caller, gone_models=self.gone_models)
        if not refusal and not input_images.needs_storing(order.request):
            return order.request
        try:
            if recorded := self.table.get_tombstone(request.caller.name, order.task_uuid):
                return Existing(recorded)
            if refusal:
                return [(400, refusal)]
            if not self._has_time_to_send(order.clips, request.buyer):
                raise BusyError("no time is left to send the order")
            stored = input_images.store_images(order.request, request.caller, self.inputs)
        except (BucketError, BusyError) as error:
            self.telemetry.log("images could not be stored", warn=True, reason=str(error), taskUUID=order.task_uuid)
            return [(503, BUSY)]
        return [(400, fault) for fault in stored] if isinstance(stored, list) else stored

    def _poll(self, task_uuid: str, caller: Caller, answer: WireResponse) -> None:
        try:
            data, errors = self.query_service.poll(caller.name, task_uuid)
        except (BusyError, BucketError):
            data, errors = [], [(503, of_task(task_uuid, BUSY))]
        answer.data += data
        answer.errors += errors

    def _record(
        self,
        order: Order,
        image_outcome: _ImageOutcome,
        request: Request,
        answer: WireResponse,
        to_give_back: list[Clip],
    ) -> list[_LeasedClip]:
        """Records an order and returns its clips, leased to this call; otherwise adds the reason to the answer.

        Clips that were possibly recorded are not sent; they are added to `to_give_back`.
        """
        if isinstance(image_outcome, list):
            answer.errors += [(status, of_task(order.task_uuid, error)) for status, error in image_outcome]
            return []
        now = self.clock()
        content = order.request if isinstance(image_outcome, Existing) else image_outcome
        task = _task(order, content, request.caller, now, self._expiry(now, order))
        clips = [self._clip(order, task, index, request.buyer) for index in range(order.clips)]
        try:
            repeat = image_outcome if isinstance(image_outcome, Existing) else None
            outcome = repeat or self._reserve_and_record(task, clips, order.reserved * order.clips, request)
            match outcome:
                case Recorded():
                    return [(clip, content) for clip in clips]
                case Existing(recorded) if recorded.fingerprint == task.fingerprint:
                    answer.repeated.append(order.task_uuid)
                    _acknowledge(order.task_uuid, self.table.clips(task.caller, task.task_uuid), answer)
                case Existing():
                    answer.errors.append((400, of_task(order.task_uuid, _CONFLICT)))
                case OverBudget():
                    self.telemetry.count(Metric.BUDGET_REFUSED)
                    answer.errors.append((402, of_task(order.task_uuid, _over_budget(outcome, order))))
        except BusyError as error:
            if error.possibly_written:  # leases left behind would count as attempts
                to_give_back += clips
            answer.errors.append((503, of_task(order.task_uuid, BUSY)))
        return []

    def _reserve_and_record(
        self, task: Task, clips: Sequence[Clip], amount: int, request: Request
    ) -> Recorded | Existing | OverBudget:
        """Reserves the money within the service's and the caller's monthly limit and writes the records."""
        limits = {ALL_CALLERS: self.monthly_limit, request.caller.name: request.caller.monthly_limit}
        reservations = [Reservation(scope, clips[0].month, amount, limit) for scope, limit in limits.items()]
        # A quarter of the remaining time, in seconds: the rest is for other tasks of the request, and for the sending.
        patience = (request.buyer.ends_at - self.clock()) / 4 / 1000
        return self.table.record(task, clips, reservations, patience=patience)

    def _expiry(self, now: int, order: Order) -> int | None:
        """The expiry in milliseconds; None if requests are kept permanently.

        Retention begins when no clip can be open any more: sends, rescues and download links need the request.
        """
        longest_open = self.times.longest_open * (1 + len(order.chain))
        return None if self.retention is None else now + longest_open + self.retention

    def _clip(self, order: Order, task: Task, index: int, buyer: Buyer) -> Clip:
        now = task.created_at
        clip = Clip(
            caller=task.caller,
            task_uuid=task.task_uuid,
            index=index,
            clip_uuid=self.new_uuid(),
            object_key=_object_key(task, order, index),
            estimate=order.price,
            month=month_of(now),
            created_at=now,
            chain=self._chain(order, task, index) if order.chain else None,
            lease=Lease(buyer.holder, now, now + self.times.lease, buyer.credentials.account),
        )
        return replace(clip, budgeted=billable_amount(clip), next_check_at=next_check(clip, now, self.times))

    def _chain(self, order: Order, task: Task, index: int) -> Chain:
        """The plan of a clip's fallback; the UUIDs of its clips are chosen now, so that none can be recorded twice."""
        rest = tuple(
            FallbackModel(
                later.model.air, self.new_uuid(), _object_key(task, later, index + SLOTS * member), later.price
            )
            for member, later in enumerate(order.chain, 1)
        )
        return Chain(order.model.air, rest, order.request.get("fallbackOnModeration", False))


def price(
    tasks: Sequence[object],
    caller: Caller,
    inputs: ImageStore,
    *,
    loopback: bool = False,
    gone_models: bool = False,
) -> WireResponse:
    """A dry run: the price of each task in dollars. Nothing is recorded, stored or bought."""
    answer = WireResponse()
    for each in validate(tasks, answer, loopback=loopback):
        if isinstance(each, Poll):
            answer.data.append({"taskType": "getResponse", "taskUUID": each.task_uuid, "dryRun": True, "cost": 0.0})
            continue
        if refusal := refusal_of(each, caller, gone_models=gone_models):
            answer.errors.append((400, of_task(each.task_uuid, refusal)))
            continue
        try:
            checked = input_images.store_images(each.request, caller, ReadOnlyImageStore(inputs))
        except BucketError:
            answer.errors.append((503, of_task(each.task_uuid, BUSY)))
            continue
        if isinstance(checked, list):
            answer.errors += [(400, of_task(each.task_uuid, fault)) for fault in checked]
            continue
        cost = dollars(each.reserved * each.clips)
        answer.data.append({"taskType": "videoInference", "taskUUID": each.task_uuid, "dryRun": True, "cost": cost})
    return answer


def _acknowledge(task_uuid: str, clips: Sequence[Clip], answer: WireResponse) -> None:
    """Answers a recorded task as accepted, unless Runware refused all of its clips."""
    refusals = facts.refusals(clips)
    answer.errors += [(status, of_task(task_uuid, error)) for status, error in refusals]
    if not refusals:
        answer.data.append({"taskType": "videoInference", "taskUUID": task_uuid})


def _task(order: Order, content: Mapping[str, Any], caller: Caller, now: int, expires_at: int | None) -> Task:
    """The task to record; its fingerprint is of the request as the caller sent it."""
    # Without the UUID, which is the key and may differ in case.
    fingerprinted = {name: value for name, value in order.request.items() if name != "taskUUID"}
    return Task(
        caller=caller.name,
        task_uuid=order.task_uuid,
        request=content,
        fingerprint=hashlib.sha256(canonical(fingerprinted).encode()).hexdigest(),
        clips=order.clips,
        created_at=now,
        expires_at=expires_at,
        webhook_url=order.webhook_url or (caller.webhook_url if caller.signs_webhooks else ""),
    )


def _object_key(task: Task, order: Order, index: int) -> str:
    folder = order.destination or datetime.fromtimestamp(task.created_at / 1000, UTC).strftime("%Y/%m/%d")
    return f"videos/{task.caller}/{folder}/{task.task_uuid}-{index}.{order.extension}"


def _over_budget(refusal: OverBudget, order: Order) -> WireError:
    needed = f"this task needs ${dollars(order.reserved * order.clips):.3f}"
    if refusal.scope == ALL_CALLERS:
        message = f"The service's limit for this month is reached: {needed}. Nothing was bought."
    else:
        left = dollars(max(0, refusal.limit - refusal.budgeted))
        limit = dollars(refusal.limit)
        message = f"Your limit of ${limit:.2f} for this month has ${left:.3f} left, {needed}. Nothing was bought."
    return wire_error(OVER_BUDGET, message, "numberResults")


_CONFLICT = wire_error(
    "conflictTaskUUID",
    "This taskUUID belongs to another request of yours. Nothing was bought; use a new UUID for a new task.",
    "taskUUID",
    type="string",
)
BUSY = wire_error(
    "serviceUnavailable",
    "The service is busy. Send the same request under the same taskUUID again; it cannot be bought twice.",
)

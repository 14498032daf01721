"""The use case behind `POST /v1`: validate, record the intent, buy each clip, learn what came of it; tell on request.

The order is the promise. A task's images are where Runware can fetch them before the task is recorded. The task, its
clips and their money are in the table before the first byte goes to Runware, and a clip is sent only under a lease that
outlives the sender (`config.Timings`). Whatever happens after the record is written, the caller hears that the task is
accepted, since from then on the service sees it through.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from rushes.domain.budget import ALL_CALLERS, OverBudget, Reservation, month_of
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, Lease, next_check
from rushes.domain.formats import canonical, dollars
from rushes.domain.task import Existing, Recorded, Task
from rushes.domain.timings import Timings
from rushes.errors import BucketError, BusyError
from rushes.runware import facts
from rushes.runware.request import Order
from rushes.runware.wire import WireError, wire_error
from rushes.services import input_images
from rushes.services.input_images import ReadOnlyImageStore
from rushes.services.ports import MAX_AT_ONCE, ConcurrentMap, ImageStore, Metric, TaskTable, Telemetry
from rushes.services.purchase import Buyer, PurchaseService
from rushes.services.queries import QueryService
from rushes.services.request_validation import Poll, WireResponse, of_task, validate

OVER_BUDGET = "budgetExceeded"


@dataclass(frozen=True, slots=True)
class Request:
    """One call: its caller, and the buyer that acts for it."""

    caller: Caller
    buyer: Buyer


# What became of an order's images: see `_take_in`.
_ImageOutcome: TypeAlias = Mapping[str, Any] | Existing | list[tuple[int, WireError]]
# A clip to send, and the request to send for it.
_Send: TypeAlias = tuple[Clip, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitService:
    """The use case with its adapters. `clock` gives milliseconds."""

    table: TaskTable
    inputs: ImageStore
    query_service: QueryService
    purchase_service: PurchaseService
    telemetry: Telemetry
    times: Timings
    monthly_limit: int
    retention: int | None  # milliseconds; None: the table keeps requests for ever
    clock: Callable[[], int]
    new_uuid: Callable[[], str]
    concurrent_map: ConcurrentMap

    def submit(self, tasks: Sequence[object], request: Request) -> WireResponse:
        """Buys or tells what every valid task of a request asks for; a bad one leaves the others bought."""
        answer = WireResponse()
        valid = validate(tasks, answer)
        orders = [each for each in valid if isinstance(each, Order)]
        taken = self.concurrent_map(lambda order: self._store_images(order, request), orders)
        sends: list[_Send] = []
        unsent: list[Clip] = []
        bought: list[tuple[Order, list[_Send]]] = []
        slowest = 0
        # One after another: all of them write to the same two budgets, and would only contend with each other.
        for order, found in zip(orders, taken, strict=True):
            began = self.clock()
            in_time = self._has_time(len(sends) + order.clips, request.buyer, slowest)
            if in_time or isinstance(found, Existing | list):
                mine = self._record(order, found, request, answer, unsent)
                sends += mine
                bought.append((order, mine))
                slowest = max(slowest, self.clock() - began)
            else:
                answer.errors.append((503, of_task(order.task_uuid, BUSY)))
        sent = self.concurrent_map(lambda send: self.purchase_service.attempt(*send, request.buyer)[0], sends)
        self.concurrent_map(lambda clip: self.purchase_service.give_back(clip, request.buyer), unsent)
        for order, mine in bought:
            if mine:
                clips = [clip for clip in sent if clip.task_uuid == order.task_uuid]
                _acknowledge(order.task_uuid, clips, answer)
        for each in valid:
            if isinstance(each, Poll):
                self._tell(each.task_uuid, request.caller, answer)
        return answer

    def _has_time(self, clips: int, buyer: Buyer, to_record: int = 0) -> bool:
        """Whether the first clips can be sent in time, and all other leases given back, however slow Runware is.

        What is recorded when the function is ended, with its lease, counts as maybe sent.
        """
        rounds = -(-clips // MAX_AT_ONCE)
        needed = to_record + self.times.http + (rounds - 1) * self.times.to_finish
        return self.clock() + needed <= buyer.ends_at

    def _store_images(self, order: Order, request: Request) -> _ImageOutcome:
        """What is recorded and sent of an order; or its task, if that is known; or why neither, with HTTP statuses.

        A repeat is found before S3 is asked about its images: that may be away, and they may be gone.
        """
        if not input_images.needs_storing(order.request):
            return order.request
        try:
            if known := self.table.get_tombstone(request.caller.name, order.task_uuid):
                return Existing(known)
            if not self._has_time(order.clips, request.buyer):
                raise BusyError("no time is left to send what would be recorded")
            taken = input_images.store_images(order.request, request.caller, self.inputs)
        except (BucketError, BusyError) as error:
            self.telemetry.log("images not taken in", warn=True, reason=str(error), taskUUID=order.task_uuid)
            return [(503, BUSY)]
        return [(400, fault) for fault in taken] if isinstance(taken, list) else taken

    def _tell(self, task_uuid: str, caller: Caller, answer: WireResponse) -> None:
        try:
            data, errors = self.query_service.poll(caller.name, task_uuid)
        except (BusyError, BucketError):
            data, errors = [], [(503, of_task(task_uuid, BUSY))]
        answer.data += data
        answer.errors += errors

    def _record(
        self, order: Order, taken: _ImageOutcome, request: Request, answer: WireResponse, unsent: list[Clip]
    ) -> list[_Send]:
        """The clips that are now this call's to send; otherwise the answer already says why there are none.

        Clips that may be recorded, and are not to be sent since it is unknown, are added to the `unsent`.
        """
        if isinstance(taken, list):
            answer.errors += [(status, of_task(order.task_uuid, error)) for status, error in taken]
            return []
        now = self.clock()
        content = order.request if isinstance(taken, Existing) else taken
        task = _task(order, content, request.caller.name, now, self._expiry(now))
        clips = [self._clip(order, task, index, request.buyer) for index in range(order.clips)]
        try:
            repeat = taken if isinstance(taken, Existing) else None
            outcome = repeat or self._reserve_and_record(task, clips, order.price * order.clips, request)
            match outcome:
                case Recorded():
                    return [(clip, content) for clip in clips]
                case Existing(known) if known.fingerprint == task.fingerprint:
                    _acknowledge(order.task_uuid, self.table.clips(task.caller, task.task_uuid), answer)
                case Existing():
                    answer.errors.append((400, of_task(order.task_uuid, _CONFLICT)))
                case OverBudget():
                    self.telemetry.count(Metric.BUDGET_REFUSED)
                    answer.errors.append((402, of_task(order.task_uuid, _over_budget(outcome, order))))
        except BusyError as error:
            if error.possibly_written:  # their leases, left behind, would count as attempts
                unsent += clips
            answer.errors.append((503, of_task(order.task_uuid, BUSY)))
        return []

    def _reserve_and_record(
        self, task: Task, clips: Sequence[Clip], amount: int, request: Request
    ) -> Recorded | Existing | OverBudget:
        """Reserves within everybody's limit and the caller's own, as this process knows them."""
        limits = {ALL_CALLERS: self.monthly_limit, request.caller.name: request.caller.monthly_limit}
        month = clips[0].month
        return self.table.record(
            task, clips, [Reservation(scope, month, amount, limit) for scope, limit in limits.items()]
        )

    def _expiry(self, now: int) -> int | None:
        """Retention begins when no clip can be open any more: sending and copying a clip need its request, and so does
        the link to it."""
        return None if self.retention is None else now + self.times.longest_open + self.retention

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
            lease=Lease(buyer.holder, now, now + self.times.lease, buyer.credentials.account),
            budgeted=order.price,
        )
        return replace(clip, next_check_at=next_check(clip, now, self.times))


def price(tasks: Sequence[object], caller: Caller, inputs: ImageStore) -> WireResponse:
    """A dry run: what the tasks would cost, in dollars, with nothing recorded, nothing kept and nothing bought."""
    answer = WireResponse()
    for each in validate(tasks, answer):
        if isinstance(each, Poll):
            answer.data.append({"taskType": "getResponse", "taskUUID": each.task_uuid, "dryRun": True, "cost": 0.0})
            continue
        try:
            taken = input_images.store_images(each.request, caller, ReadOnlyImageStore(inputs))
        except BucketError:
            answer.errors.append((503, of_task(each.task_uuid, BUSY)))
            continue
        if isinstance(taken, list):
            answer.errors += [(400, of_task(each.task_uuid, fault)) for fault in taken]
            continue
        cost = dollars(each.price * each.clips)
        answer.data.append({"taskType": "videoInference", "taskUUID": each.task_uuid, "dryRun": True, "cost": cost})
    return answer


def _acknowledge(task_uuid: str, clips: Sequence[Clip], answer: WireResponse) -> None:
    """What a caller hears of a recorded task: accepted, unless Runware refused every clip of it."""
    refusals = facts.refusals(clips)
    answer.errors += [(status, of_task(task_uuid, error)) for status, error in refusals]
    if not refusals:
        answer.data.append({"taskType": "videoInference", "taskUUID": task_uuid})


def _task(order: Order, content: Mapping[str, Any], caller: str, now: int, expires_at: int | None) -> Task:
    """The task as recorded; its fingerprint is of the request as it was sent."""
    # The UUID is the key already, and its letters' case is no difference.
    fingerprinted = {name: value for name, value in order.request.items() if name != "taskUUID"}
    return Task(
        caller=caller,
        task_uuid=order.task_uuid,
        request=content,
        fingerprint=hashlib.sha256(canonical(fingerprinted).encode()).hexdigest(),
        clips=order.clips,
        created_at=now,
        expires_at=expires_at,
    )


def _object_key(task: Task, order: Order, index: int) -> str:
    folder = order.destination or datetime.fromtimestamp(task.created_at / 1000, UTC).strftime("%Y/%m/%d")
    return f"videos/{task.caller}/{folder}/{task.task_uuid}-{index}.{order.extension}"


def _over_budget(refusal: OverBudget, order: Order) -> WireError:
    needed = f"this task needs ${dollars(order.price * order.clips):.3f}"
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

"""The use case behind `POST /v1`: validate, record the intent, buy each clip, learn what came of it; tell on request.

The order is the promise. A task's images are where Runware can fetch them before the task is recorded. The task, its
clips and their money are in the table before the first byte goes to Runware, and a clip is sent only under a lease that
outlives the sender (`config.Timings`). Whatever happens after the record is written, the caller hears that the task is
accepted, since from then on the service sees it through.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

from rushes import buying, images
from rushes.callers import Caller
from rushes.clip import (
    EVERYBODY,
    Clip,
    Existing,
    Lease,
    OverBudget,
    Recorded,
    Reservation,
    Task,
    canonical,
    month_of,
    next_check,
)
from rushes.concurrency import MOST_AT_ONCE, SideBySide
from rushes.config import Timings
from rushes.errors import BucketError, BusyError, UnreadableError
from rushes.images import Inputs, OnlyLooking
from rushes.learning import Clips
from rushes.lines import refuse_foreign
from rushes.observability import Metric, Telemetry
from rushes.outside import dollars
from rushes.purchasing import Buyer, Purchasing
from rushes.reading import Reading
from rushes.runware.models import Order, check
from rushes.runware.wire import UUID4, WireError, wire_error

MOST_TASKS = 20
MOST_CLIPS = 20
OVER_BUDGET = "budgetExceeded"
LARGEST_BODY = 5 * 1024 * 1024  # bytes
# Bytes of JSON, images not counted: what is recorded of them is an address. The table's items end at 400 KB.
_LARGEST_TASK = 350_000
_MOST_FAULTS = 50
_LARGEST_AUTHENTICATION = 4096  # bytes, white space before it included
_DEEPEST = 20  # levels of nesting; a valid request has five
_MOST_MEMBERS = 2000  # of a request, numbers in arrays and empty arrays among them; parsing a million takes seconds


class Table(Clips, Protocol):
    """What submitting needs of the table."""

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation]
    ) -> Recorded | Existing | OverBudget: ...

    def known(self, caller: str, task_uuid: str) -> Task | None: ...

    def clips(self, caller: str, task_uuid: str) -> list[Clip]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """One call: its caller, and the buyer that acts for it."""

    caller: Caller
    buyer: Buyer


@dataclass(frozen=True, slots=True)
class Poll:
    """A valid `getResponse`: what became of the task."""

    task_uuid: str


@dataclass(slots=True)
class Answer:
    """Runware's envelope in the making: items of `data`, and errors with the HTTP status each calls for."""

    data: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[int, WireError]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """200 as soon as anything was accepted or told; else the errors' common status, or 400."""
        statuses = {status for status, _ in self.errors}
        if self.data or not statuses or 200 in statuses:
            return 200
        return statuses.pop() if len(statuses) == 1 else 400

    @property
    def body(self) -> dict[str, Any]:
        """No `errors` key unless there are errors: the official client reads its mere presence as a failure."""
        errors = {"errors": [error for _, error in self.errors]} if self.errors else {}
        return {"data": self.data, **errors}


# What became of an order's images: see `_take_in`.
_Taken: TypeAlias = Mapping[str, Any] | Existing | list[tuple[int, WireError]]
# A clip to send, and the request to send for it.
_Send: TypeAlias = tuple[Clip, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitting:
    """The use case with its adapters. `clock` gives milliseconds."""

    table: Table
    inputs: Inputs
    reading: Reading
    purchasing: Purchasing
    telemetry: Telemetry
    times: Timings
    monthly_limit: int
    retention: int | None  # milliseconds; None: the table keeps requests for ever
    clock: Callable[[], int]
    new_uuid: Callable[[], str]
    side_by_side: SideBySide

    def submit(self, tasks: Sequence[object], request: Request) -> Answer:
        """Buys or tells what every valid task of a request asks for; a bad one leaves the others bought."""
        answer = Answer()
        valid = validate(tasks, answer)
        orders = [each for each in valid if isinstance(each, Order)]
        taken = self.side_by_side(lambda order: self._take_in(order, request), orders)
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
                answer.errors.append((503, _of_task(order.task_uuid, BUSY)))
        sent = self.side_by_side(lambda send: self.purchasing.attempt(*send, request.buyer)[0], sends)
        self.side_by_side(lambda clip: self.purchasing.give_back(clip, request.buyer), unsent)
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
        rounds = -(-clips // MOST_AT_ONCE)
        needed = to_record + self.times.http + (rounds - 1) * self.times.to_finish
        return self.clock() + needed <= buyer.ends_at

    def _take_in(self, order: Order, request: Request) -> _Taken:
        """What is recorded and sent of an order; or its task, if that is known; or why neither, with HTTP statuses.

        A repeat is found before S3 is asked about its images: that may be away, and they may be gone.
        """
        if not images.has_to_be_taken_in(order.request):
            return order.request
        try:
            if known := self.table.known(request.caller.name, order.task_uuid):
                return Existing(known)
            if not self._has_time(order.clips, request.buyer):
                raise BusyError("no time is left to send what would be recorded")
            taken = images.take_in(order.request, request.caller, self.inputs)
        except (BucketError, BusyError) as error:
            self.telemetry.note("images not taken in", warn=True, why=str(error), taskUUID=order.task_uuid)
            return [(503, BUSY)]
        return [(400, fault) for fault in taken] if isinstance(taken, list) else taken

    def _tell(self, task_uuid: str, caller: Caller, answer: Answer) -> None:
        try:
            data, errors = self.reading.poll(caller.name, task_uuid)
        except (BusyError, BucketError):
            data, errors = [], [(503, _of_task(task_uuid, BUSY))]
        answer.data += data
        answer.errors += errors

    def _record(self, order: Order, taken: _Taken, request: Request, answer: Answer, unsent: list[Clip]) -> list[_Send]:
        """The clips that are now this call's to send; otherwise the answer already says why there are none.

        Clips that may be recorded, and are not to be sent since it is unknown, are added to the `unsent`.
        """
        if isinstance(taken, list):
            answer.errors += [(status, _of_task(order.task_uuid, error)) for status, error in taken]
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
                    answer.errors.append((400, _of_task(order.task_uuid, _CONFLICT)))
                case OverBudget():
                    self.telemetry.count(Metric.BUDGET_REFUSED)
                    answer.errors.append((402, _of_task(order.task_uuid, _over_budget(outcome, order))))
        except BusyError as error:
            if error.maybe_written:  # their leases, left behind, would count as attempts
                unsent += clips
            answer.errors.append((503, _of_task(order.task_uuid, BUSY)))
        return []

    def _reserve_and_record(
        self, task: Task, clips: Sequence[Clip], amount: int, request: Request
    ) -> Recorded | Existing | OverBudget:
        """Reserves within everybody's limit and the caller's own, as this process knows them."""
        limits = {EVERYBODY: self.monthly_limit, request.caller.name: request.caller.monthly_limit}
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
            counted=order.price,
        )
        return replace(clip, next_check_at=next_check(clip, now, self.times))


def parse(body: bytes, called: str = "body") -> list[object]:
    """The tasks of a request body; a bare object counts as an array of one. Raises `UnreadableError`.

    Whoever got the bytes from elsewhere says what they are `called`.
    """
    if len(body) > LARGEST_BODY:
        raise UnreadableError(f"The {called} must not be larger than {LARGEST_BODY} bytes.")
    if _members_at_most(body) > _MOST_MEMBERS:
        raise UnreadableError(f"The {called} must not hold more than {_MOST_MEMBERS} values.")
    tasks = _decoded(body, called)
    if isinstance(tasks, dict):
        return [tasks]
    if not isinstance(tasks, list):
        raise UnreadableError(f"The {called} must be an array of tasks.")
    if not tasks or len(tasks) > MOST_TASKS + _is_authentication(tasks[0]):
        raise UnreadableError(f"The array must hold 1 to {MOST_TASKS} tasks.")
    return tasks


def bearer_in(body: bytes) -> str | None:
    """The key of an `authentication` task at the beginning of a body, as an `Authorization` header; else None.

    Reads the first task alone and little of the body, because its sender is not known yet.
    """
    head = body[:_LARGEST_AUTHENTICATION].decode(errors="replace").lstrip()
    try:
        first, _ = json.JSONDecoder().raw_decode(head.removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return None
    match first:
        case {"taskType": "authentication", "apiKey": str(key)}:
            return f"Bearer {key}"
    return None


def without_authentication(tasks: list[object], *, mixed: bool) -> list[object]:
    """The tasks after an `authentication` task that comes first, if one does.

    Raises `UnreadableError` if it is `mixed` with a key in the header: which of two keys is meant must not be guessed.
    """
    if not _is_authentication(tasks[0]):
        return tasks
    if mixed:
        raise UnreadableError("The body must not hold an authentication task beside the Authorization header.")
    return tasks[1:]


def _is_authentication(task: object) -> bool:
    return isinstance(task, dict) and task.get("taskType") == "authentication"


def _decoded(body: bytes, called: str) -> object:
    """The JSON value of a body; raises `UnreadableError` naming what is wrong, since the sender cannot see it."""

    def refuse_constant(name: str) -> None:
        raise UnreadableError(f"The {called} must be JSON, without {name}.")

    refuse_foreign(body[:8], called)
    try:
        value: object = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
        if _depth(value) > _DEEPEST:
            raise RecursionError
        canonical(value).encode()  # raises for infinite numbers and lone surrogates
    except UnicodeError:
        raise UnreadableError(f"The {called} must be JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"The {called} must be JSON; unexpected at character {error.pos + 1}.") from None
    except RecursionError:
        raise UnreadableError(f"The {called} must be JSON, not nested more than {_DEEPEST} levels deep.") from None
    except ValueError:
        raise UnreadableError(f"The {called} must hold no number beyond 1.8e308, such as 1e400.") from None
    return value


def validate(tasks: Sequence[object], answer: Answer) -> list[Order | Poll]:
    """The orders and polls among the tasks; the faults of the others go into the answer.

    No UUID may stand twice, not even to be bought and asked for: what is said of it could contradict itself.
    """
    valid: list[Order | Poll] = []
    named = Counter(uuid_of(task) for task in tasks)
    for task in tasks:
        checked = _check(task)
        if isinstance(checked, list):
            answer.errors += [(400, error) for error in checked]
        elif named[checked.task_uuid] == 1:
            valid.append(checked)
    answer.errors += [(400, twice(uuid)) for uuid, times in named.items() if uuid and times > 1]
    orders = [each for each in valid if isinstance(each, Order)]
    if sum(order.clips for order in orders) > MOST_CLIPS:
        answer.errors += [(400, _of_task(order.task_uuid, _TOO_MANY)) for order in orders]
        return [each for each in valid if isinstance(each, Poll)]
    return valid


def twice(task_uuid: str) -> WireError:
    """What is said of each of several tasks under one UUID."""
    return _of_task(task_uuid, _TWICE)


def price(tasks: Sequence[object], caller: Caller, inputs: Inputs) -> Answer:
    """A dry run: what the tasks would cost, in dollars, with nothing recorded, nothing kept and nothing bought."""
    answer = Answer()
    for each in validate(tasks, answer):
        if isinstance(each, Poll):
            answer.data.append({"taskType": "getResponse", "taskUUID": each.task_uuid, "dryRun": True, "cost": 0.0})
            continue
        try:
            taken = images.take_in(each.request, caller, OnlyLooking(inputs))
        except BucketError:
            answer.errors.append((503, _of_task(each.task_uuid, BUSY)))
            continue
        if isinstance(taken, list):
            answer.errors += [(400, _of_task(each.task_uuid, fault)) for fault in taken]
            continue
        cost = dollars(each.price * each.clips)
        answer.data.append({"taskType": "videoInference", "taskUUID": each.task_uuid, "dryRun": True, "cost": cost})
    return answer


def _check(task: object) -> Order | Poll | list[WireError]:
    if not isinstance(task, dict):
        return [wire_error("invalidTask", "Every task must be an object.", "body", type="object")]
    task_type, task_uuid = task.get("taskType"), uuid_of(task)
    named = {"taskUUID": task_uuid} if task_uuid else {}
    if task_type == "getResponse":
        return _check_poll(task) or Poll(task["taskUUID"].lower())
    if _is_authentication(task):
        return [{**_MISPLACED, **named}]
    if isinstance(task_type, str) and task_type != "videoInference":
        return [{**_UNSUPPORTED_TYPE, **named}]
    if len(canonical(task).encode()) - sum(map(len, images.images_of(task))) > _LARGEST_TASK:
        return [{**_TOO_LARGE, **named, "taskType": "videoInference"}]
    checked = check(task)
    if isinstance(checked, Order):
        return checked
    return [{**fault, **named, "taskType": "videoInference"} for fault in checked]


def _check_poll(task: dict[str, Any]) -> list[WireError]:
    """The faults of a `getResponse`."""
    task_uuid, about = task.get("taskUUID"), {"taskType": "getResponse"}
    if isinstance(task_uuid, str) and UUID4.fullmatch(task_uuid.lower()):
        about["taskUUID"] = task_uuid.lower()
        faults = []
    elif task_uuid is None:
        faults = [wire_error("missingTaskUUID", "taskUUID is required.", "taskUUID", type="string", **about)]
    else:
        message = "taskUUID must be a UUID v4 of 36 characters."
        faults = [wire_error("invalidTaskUUID", message, "taskUUID", type="string", **about)]
    for name in sorted(task.keys() - {"taskType", "taskUUID"})[:_MOST_FAULTS]:
        named = name[:100]
        faults.append(wire_error("unsupportedParameter", f"{named} is not a parameter of getResponse.", named, **about))
    return faults


def uuid_of(task: object) -> str | None:
    """The UUID under which a task was sent, valid or not, as far as it is short enough to be repeated."""
    task_uuid = task.get("taskUUID") if isinstance(task, dict) else None
    return task_uuid.lower() if isinstance(task_uuid, str) and len(task_uuid) <= 36 else None


def _acknowledge(task_uuid: str, clips: Sequence[Clip], answer: Answer) -> None:
    """What a caller hears of a recorded task: accepted, unless Runware refused every clip of it."""
    refusals = buying.refusals(clips)
    answer.errors += [(status, _of_task(task_uuid, error)) for status, error in refusals]
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


def _of_task(task_uuid: str, error: WireError) -> WireError:
    return {**error, "taskUUID": task_uuid, "taskType": "videoInference"}


def _over_budget(refusal: OverBudget, order: Order) -> WireError:
    needed = f"this task needs ${dollars(order.price * order.clips):.3f}"
    if refusal.scope == EVERYBODY:
        message = f"The service's limit for this month is reached: {needed}. Nothing was bought."
    else:
        left = dollars(max(0, refusal.limit - refusal.counted))
        limit = dollars(refusal.limit)
        message = f"Your limit of ${limit:.2f} for this month has ${left:.3f} left, {needed}. Nothing was bought."
    return wire_error(OVER_BUDGET, message, "numberResults")


def _members_at_most(body: bytes) -> int:
    """How many values a JSON text can hold, counted in a fraction of the time that parsing them takes."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 4 * _MOST_MEMBERS:  # each value has at most two texts, its name and itself
        return text.count(b'"')
    outside = b"".join(text.split(b'"')[::2])
    return sum(outside.count(mark) for mark in (b",", b"[", b"{"))


def _depth(value: object) -> int:
    """How many arrays and objects lie inside each other; without recursion, since this is what guards against it."""
    depth, level = 0, [value]
    while level := [member for outer in level for member in _members(outer)]:
        depth += 1
    return depth


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


_CONFLICT = wire_error(
    "conflictTaskUUID",
    "This taskUUID belongs to another request of yours. Nothing was bought; use a new UUID for a new task.",
    "taskUUID",
    type="string",
)
_TWICE = wire_error(
    "duplicateTaskUUID",
    "Several tasks of this request have the same taskUUID. None of them was bought.",
    "taskUUID",
    type="string",
)
_TOO_MANY = wire_error(
    "valueTooLarge",
    f"One request may ask for {MOST_CLIPS} clips in all.",
    "numberResults",
    type="integer",
    max=MOST_CLIPS,
)
_TOO_LARGE = wire_error(
    "valueTooLarge",
    f"A task must not be larger than {_LARGEST_TASK} bytes, inline images not counted.",
    "body",
    max=_LARGEST_TASK,
)
_UNSUPPORTED_TYPE = wire_error(
    "unsupportedTaskType",
    "This task type is not served here.",
    "taskType",
    type="string",
    allowedValues=["videoInference", "getResponse"],
)
_MISPLACED = wire_error(
    "unsupportedTaskType",
    "An authentication task is taken on POST /v1 alone, once and before all others.",
    "taskType",
    type="string",
    allowedValues=["videoInference", "getResponse"],
)
BUSY = wire_error(
    "serviceUnavailable",
    "The service is busy. Send the same request under the same taskUUID again; it cannot be bought twice.",
)

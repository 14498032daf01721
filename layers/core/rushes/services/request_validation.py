"""Turns a request body into orders and polls, or into the errors of each task.

It hides the limits of a body (size, nesting and number of values, checked before or during the parse), the place of an
`authentication` task, and the rules that concern several tasks together. The rules of a single order are in
`runware.request`. Pure.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rushes.domain.caller import Caller
from rushes.domain.formats import UUID4, canonical
from rushes.domain.jsonl import reject_foreign_encoding
from rushes.errors import UnreadableError
from rushes.runware.models import ModelStatus
from rushes.runware.request import Order, check_chain
from rushes.runware.wire import WireError, wire_error
from rushes.services import input_images

WARNING_HEADER = "Rushes-Warning"
REPEATED_HEADER = "Rushes-Repeated"
MAX_TASKS = 20
MAX_CLIPS = 20
MAX_BODY_BYTES = 5 * 1024 * 1024  # bytes
# Bytes of JSON without images, of which only addresses are recorded. An item of the table is limited to 400 KB.
_MAX_TASK_BYTES = 350_000
_MAX_ERRORS = 50
_MAX_AUTHENTICATION_BYTES = 4096  # bytes, including leading white space
_MAX_DEPTH = 20  # levels; a valid request has five
_MAX_MEMBERS = 2000  # values of a body, including empty arrays; a million would take seconds to parse


class Poll(NamedTuple):
    """A valid `getResponse` task."""

    task_uuid: str


@dataclass(slots=True)
class WireResponse:
    """A response under construction: items of `data`, and errors with their HTTP statuses."""

    data: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[int, WireError]] = field(default_factory=list)
    leaving: dict[str, ModelStatus] = field(default_factory=dict)  # ordered models that will end, by identifier
    repeated: list[str] = field(default_factory=list)  # taskUUIDs of orders that had been recorded before

    @property
    def status(self) -> int:
        """200 if there is any data; otherwise the common status of the errors, or 400."""
        statuses = {status for status, _ in self.errors}
        if self.data or not statuses or 200 in statuses:
            return 200
        return statuses.pop() if len(statuses) == 1 else 400

    @property
    def headers(self) -> dict[str, str]:
        """Warns of models that will end, and names the orders that were not bought again; {} without any of them."""
        warnings = [
            f"{air} ends{f' on {status.date}' if status.date else ''}; successor {status.successor}"
            for air, status in sorted(self.leaving.items())
        ]
        found = {WARNING_HEADER: ", ".join(warnings), REPEATED_HEADER: ", ".join(self.repeated)}
        return {name: value for name, value in found.items() if value}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body. Without errors there is no `errors` key, which the official client takes for a failure."""
        errors = {"errors": [error for _, error in self.errors]} if self.errors else {}
        return {"data": self.data, **errors}


def parse(body: bytes, called: str = "body") -> list[object]:
    """The tasks of a request body; a bare object counts as an array of one. Raises `UnreadableError`.

    `called` is the name of the bytes in error messages, such as "line" or "file".
    """
    if len(body) > MAX_BODY_BYTES:
        raise UnreadableError(f"The {called} must not be larger than {MAX_BODY_BYTES} bytes.")
    if _members_at_most(body) > _MAX_MEMBERS:
        raise UnreadableError(f"The {called} must not hold more than {_MAX_MEMBERS} values.")
    tasks = _decoded(body, called)
    if isinstance(tasks, dict):
        return [tasks]
    if not isinstance(tasks, list):
        raise UnreadableError(f"The {called} must be an array of tasks.")
    if not tasks or len(tasks) > MAX_TASKS + _is_authentication(tasks[0]):
        raise UnreadableError(f"The array must hold 1 to {MAX_TASKS} tasks.")
    return tasks


def bearer_in(body: bytes) -> str | None:
    """The `Authorization` header for the key of an `authentication` task at the beginning of a body; None without one.

    Only the first task and a small part of the body are parsed, because the sender is not authenticated yet.
    """
    head = body[:_MAX_AUTHENTICATION_BYTES].decode(errors="replace").lstrip()
    try:
        first, _ = json.JSONDecoder().raw_decode(head.removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return None
    match first:
        case {"taskType": "authentication", "apiKey": str(key)}:
            return f"Bearer {key}"
    return None


def without_authentication(tasks: list[object], *, mixed: bool) -> list[object]:
    """The tasks without a leading `authentication` task.

    Raises `UnreadableError` if the request has both that task and a key in the header (`mixed`), because the choice
    between two keys must not be guessed.
    """
    if not _is_authentication(tasks[0]):
        return tasks
    if mixed:
        raise UnreadableError("The body must not hold an authentication task beside the Authorization header.")
    return tasks[1:]


def _is_authentication(task: object) -> bool:
    return isinstance(task, dict) and task.get("taskType") == "authentication"


def _decoded(body: bytes, called: str) -> object:
    """The JSON value of a body; raises `UnreadableError`, whose message names the error and its position."""

    def refuse_constant(name: str) -> None:
        raise UnreadableError(f"The {called} must be JSON, without {name}.")

    reject_foreign_encoding(body, called)
    try:
        value: object = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
        if _depth(value) > _MAX_DEPTH:
            raise RecursionError
        canonical(value).encode()  # raises for infinite numbers and lone surrogates
    except UnicodeError:
        raise UnreadableError(f"The {called} must be JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"The {called} must be JSON; unexpected at character {error.pos + 1}.") from None
    except RecursionError:
        raise UnreadableError(f"The {called} must be JSON, not nested more than {_MAX_DEPTH} levels deep.") from None
    except ValueError:
        raise UnreadableError(f"The {called} must hold no number beyond 1.8e308, such as 1e400.") from None
    return value


def validate(tasks: Sequence[object], answer: WireResponse, *, loopback: bool = False) -> list[Order | Poll]:
    """Returns the valid orders and polls, and adds the errors of the other tasks to the answer.

    A UUID may occur only once, even in an order and a poll: the two answers could contradict each other. `loopback`
    allows webhooks to receivers on the same machine.
    """
    valid: list[Order | Poll] = []
    uuid_counts = Counter(uuid_of(task) for task in tasks)
    for task in tasks:
        checked = _check(task, loopback)
        if isinstance(checked, list):
            answer.errors += [(400, error) for error in checked]
        elif uuid_counts[checked.task_uuid] == 1:
            valid.append(checked)
            for order in (checked, *checked.chain) if isinstance(checked, Order) else ():
                if order.model.status.state == "leaving":
                    answer.leaving[order.model.air] = order.model.status
    answer.errors += [(400, duplicate_error(uuid)) for uuid, count in uuid_counts.items() if uuid and count > 1]
    orders = [each for each in valid if isinstance(each, Order)]
    if sum(order.clips for order in orders) > MAX_CLIPS:
        answer.errors += [(400, of_task(order.task_uuid, _TOO_MANY)) for order in orders]
        return [each for each in valid if isinstance(each, Poll)]
    return valid


def refusal_of(order: Order, caller: Caller, *, gone_models: bool) -> WireError | None:
    """The error of a valid order that is refused as long as it was not recorded before; None if it may be bought.

    Refused are a receiver without a secret to sign with, and a model that Runware has removed, unless `gone_models`.
    """
    if order.webhook_url and not caller.signs_webhooks:
        return _NO_SECRET
    for each in (order, *order.chain):
        status = each.model.status
        if status.state == "gone" and not gone_models:
            message = f"{each.model.air} is no longer sold by Runware; its successor is {status.successor}."
            parameter = "model" if each is order else "fallback"
            return wire_error("modelGone", message, parameter, type="string", allowedValues=[status.successor])
    return None


def duplicate_error(task_uuid: str) -> WireError:
    """The error of each of several tasks with one UUID."""
    return of_task(task_uuid, _DUPLICATE)


def _check(task: object, loopback: bool) -> Order | Poll | list[WireError]:
    if not isinstance(task, dict):
        return [wire_error("invalidTask", "Every task must be an object.", "body", type="object")]
    task_type, task_uuid = task.get("taskType"), uuid_of(task)
    task_name = {"taskUUID": task_uuid} if task_uuid else {}
    if task_type == "getResponse":
        return _check_poll(task) or Poll(task["taskUUID"].lower())
    if _is_authentication(task):
        return [{**_MISPLACED, **task_name}]
    if isinstance(task_type, str) and task_type != "videoInference":
        return [{**_UNSUPPORTED_TYPE, **task_name}]
    if len(canonical(task).encode()) - sum(map(len, input_images.images_of(task))) > _MAX_TASK_BYTES:
        return [{**_TOO_LARGE, **task_name, "taskType": "videoInference"}]
    checked = check_chain(task, loopback=loopback)
    if isinstance(checked, Order):
        return checked
    return [{**error, **task_name, "taskType": "videoInference"} for error in checked]


def _check_poll(task: dict[str, Any]) -> list[WireError]:
    """The errors of a `getResponse` task."""
    task_uuid, about = task.get("taskUUID"), {"taskType": "getResponse"}
    if isinstance(task_uuid, str) and UUID4.fullmatch(task_uuid.lower()):
        about["taskUUID"] = task_uuid.lower()
        errors = []
    elif task_uuid is None:
        errors = [wire_error("missingTaskUUID", "taskUUID is required.", "taskUUID", type="string", **about)]
    else:
        message = "taskUUID must be a UUID v4 of 36 characters."
        errors = [wire_error("invalidTaskUUID", message, "taskUUID", type="string", **about)]
    for name in sorted(task.keys() - {"taskType", "taskUUID"})[:_MAX_ERRORS]:
        short = name[:100]
        message = f"{short} is not a parameter of getResponse, which has only taskType and taskUUID."
        errors.append(wire_error("unsupportedParameter", message, short, **about))
    return errors


def uuid_of(task: object) -> str | None:
    """The `taskUUID` of a task in lower case, valid or not; None if it is missing or too long to be echoed."""
    task_uuid = task.get("taskUUID") if isinstance(task, dict) else None
    return task_uuid.lower() if isinstance(task_uuid, str) and len(task_uuid) <= 36 else None


def of_task(task_uuid: str, error: WireError) -> WireError:
    return {**error, "taskUUID": task_uuid, "taskType": "videoInference"}


def _members_at_most(body: bytes) -> int:
    """An upper bound for the number of values in a JSON text, in a fraction of the time of a parse."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 4 * _MAX_MEMBERS:  # each value has at most two strings, its name and itself
        return text.count(b'"')
    outside = b"".join(text.split(b'"')[::2])
    return sum(outside.count(mark) for mark in (b",", b"[", b"{"))


def _depth(value: object) -> int:
    """The number of nested arrays and objects; without recursion, because this check protects against deep input."""
    depth, level = 0, [value]
    while level := [member for outer in level for member in _members(outer)]:
        depth += 1
    return depth


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


_NO_SECRET = wire_error(
    "missingWebhookSecret",
    "Webhooks are signed, and you have no secret for them yet. Nothing was bought; the operator creates one with "
    "rushes webhooks secret create, which takes effect within a minute.",
    "webhookURL",
    type="string",
)


_DUPLICATE = wire_error(
    "duplicateTaskUUID",
    "Several tasks of this request have the same taskUUID. None of them was bought.",
    "taskUUID",
    type="string",
)


_TOO_MANY = wire_error(
    "valueTooLarge",
    f"One request may order at most {MAX_CLIPS} clips in all.",
    "numberResults",
    type="integer",
    max=MAX_CLIPS,
)


_TOO_LARGE = wire_error(
    "valueTooLarge",
    f"A task must not be larger than {_MAX_TASK_BYTES} bytes without its inline images.",
    "body",
    max=_MAX_TASK_BYTES,
)


_UNSUPPORTED_TYPE = wire_error(
    "unsupportedTaskType",
    "This task type is not supported here.",
    "taskType",
    type="string",
    allowedValues=["videoInference", "getResponse"],
)


_MISPLACED = wire_error(
    "unsupportedTaskType",
    "An authentication task is accepted only by POST /v1, once and before all others.",
    "taskType",
    type="string",
    allowedValues=["videoInference", "getResponse"],
)

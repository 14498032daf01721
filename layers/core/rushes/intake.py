"""The use case of the ways in by event: what is dropped under `requests/` or told on the bus becomes inbox messages.

Events come more than once, and the function may stop anywhere. So nothing here is remembered: a drop is one version of
an object, which never changes; a task that came without a UUID gets one that follows from where it stands; and messages
and reports are the same each time. Whoever reads the messages recognises a task by its UUID, so repeats buy nothing.

A drop is read twice. The first reading finds what is wrong with it as a whole, and UUIDs that stand in it more than
once; only then does the second send anything. The report comes last: what it calls accepted is in the inbox.
"""

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from rushes.callers import Caller, is_name
from rushes.captions import task_of
from rushes.clip import canonical
from rushes.concurrency import SideBySide
from rushes.errors import UnreadableError
from rushes.images import images_of
from rushes.lines import Limits, Line, refuse_foreign, split, whole
from rushes.messages import LARGEST_MESSAGE, Message
from rushes.observability import Metric, Telemetry
from rushes.runware.wire import WireError, wire_error
from rushes.submitting import LARGEST_BODY, Answer, Poll, parse, twice, uuid_of, validate

LIMITS = Limits(size=256 * 1024 * 1024, lines=10_000, line=LARGEST_BODY)
LARGEST_IMAGE = 20 * 1024 * 1024  # bytes
MOST_LISTED = 1000  # refused lines whose reasons stand in a report
MOST_ERRORS = 10  # of a line
_BLOCK_LINES, _BLOCK_BYTES = 50, 4 * 1024 * 1024  # what is in memory at a time
_PREFIX = "requests/"
_KINDS = ("json", "jsonl", "png", "jpg", "jpeg", "webp")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_KEY = 1024  # bytes
_ENDING = len(f".{uuid.UUID(int=0)}.json")  # the longest that is put behind a report's stem

TakeIn = Callable[[Mapping[str, Any], Caller], Mapping[str, Any] | list[WireError]]
"""Keeps the inline images of a valid task in the bucket: the task with their addresses, or what is wrong with them."""


class Drop(Protocol):
    """One version of an object, read once."""

    @property
    def encoding(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def hidden_metadata(self) -> int: ...

    def chunks(self) -> Iterator[bytes]: ...


class Drops(Protocol):
    """Where drops are read."""

    def open(self, key: str, version: str) -> Drop | None: ...


class Reports(Protocol):
    """Where reports are put."""

    def put(self, key: str, content: bytes) -> None: ...


class Inbox(Protocol):
    """Where messages are sent; returns when all of them are there."""

    def send(self, texts: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where tasks come from: who pays for them, what their UUIDs follow from, and the stem of their reports' keys."""

    caller: str
    names: tuple[str, ...]
    report: str

    def uuid_at(self, line: int) -> str:
        """The UUID of a task that came without one: a v4 by its shape, and the same each time."""
        digest = hashlib.sha256(canonical([*self.names, line]).encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


@dataclass(frozen=True, slots=True)
class Place:
    """A drop by its key and version."""

    key: str
    version: str
    kind: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of a drop as it was read, or what is wrong with its line; `size` is that of the line in bytes."""

    line: int
    task: object = None
    errors: Sequence[WireError] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an entry: a message, or errors."""

    line: int
    task_uuid: str | None
    message: Message | None = None
    errors: Sequence[WireError] = ()


@dataclass(slots=True)
class Report:
    """What a caller reads about a drop. It follows from the drop alone, so that a repeat writes the same bytes."""

    about: Mapping[str, str]
    accepted: int = 0
    refused: int = 0
    errors: list[WireError] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Counts a line, and lists it unless too many were refused."""
        named = {"taskUUID": verdict.task_uuid} if verdict.task_uuid else {}
        if verdict.message:
            self.accepted += 1
            self.lines.append({"line": verdict.line, **named, "accepted": True})
            return
        self.refused += 1
        if self.refused <= MOST_LISTED:
            self.lines.append({"line": verdict.line, **named, "errors": list(verdict.errors[:MOST_ERRORS])})

    @property
    def content(self) -> bytes:
        """The report as it is put into the bucket."""
        unlisted = max(0, self.refused - MOST_LISTED)
        content = {
            **self.about,
            "accepted": self.accepted,
            "refused": self.refused,
            **({"refusedUnlisted": unlisted} if unlisted else {}),
            **({"errors": self.errors} if self.errors else {}),
            "lines": self.lines,
        }
        return json.dumps(content, indent=1).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The use case with its adapters. `events_caller` is who pays for what is asked for on the bus."""

    bucket: str
    drops: Drops
    inbox: Inbox
    reports: Reports
    take_in: TakeIn
    telemetry: Telemetry
    events_caller: str
    side_by_side: SideBySide
    limits: Limits = LIMITS

    def dropped(self, key: str, version: str) -> None:
        """Takes one version of an object under `requests/`: what is valid goes to the inbox, and a report is put."""
        place = place_of(self.bucket, key, version)
        if isinstance(place, str):
            self.telemetry.note("an object that is no request", warn=True, key=key, why=place)
            return
        report = Report({"object": f"s3://{self.bucket}/{key}", "versionId": version})
        try:
            self._take(place, report)
        except _GoneError:
            self.telemetry.note("a request that is gone", warn=True, key=key)
            return
        except UnreadableError as error:
            report.errors.append(wire_error("invalidFile", str(error)))
            self.telemetry.count(Metric.TASKS_REFUSED)
        self.reports.put(f"{place.origin.report}.json", report.content)
        self.telemetry.note("taken in", key=key, accepted=report.accepted, refused=report.refused)

    def requested(self, event_id: str, detail: object) -> None:
        """Takes the task of an event; a report is put only if it is refused."""
        origin = origin_of_event(self.events_caller, event_id)
        report = Report({"event": event_id})
        self._send([_entry(1, json.dumps(detail).encode(), "detail", origin)], origin, Counter(), report)
        if report.refused:
            self.reports.put(f"{origin.report}.json", report.content)
        self.telemetry.note("taken in", event=event_id, accepted=report.accepted, refused=report.refused)

    def _take(self, place: Place, report: Report) -> None:
        named: Counter[str] = Counter()
        if place.kind == "jsonl":
            named.update(task_uuid for entry in self._entries(place) if (task_uuid := uuid_of(entry.task)))
        taken = 0
        for block in _blocks(self._entries(place)):
            self._send(block, place.origin, named, report)
            taken += len(block)
        if not taken:
            raise UnreadableError("The file holds no task.")

    def _entries(self, place: Place) -> Iterator[Entry]:
        """The tasks of a drop, one after another; raises `UnreadableError` if it cannot be taken as a whole."""
        drop = self.drops.open(place.key, place.version)
        if drop is None:
            raise _GoneError
        if drop.encoding not in ("", "identity", "aws-chunked"):
            raise UnreadableError("The file must not have a Content-Encoding.")
        match place.kind:
            case "jsonl":
                for line in split(drop.chunks(), self.limits):
                    yield _entry_of_line(line, place.origin, self.limits)
            case "json":
                content = whole(drop.chunks(), self.limits.line, "file")
                refuse_foreign(content)
                entry = _entry(1, content, "file", place.origin)
                if entry.errors:
                    raise UnreadableError(entry.errors[0]["message"])
                yield entry
            case _:
                if drop.hidden_metadata:
                    raise UnreadableError("The image has metadata that S3 cannot show; encode it as RFC 2047 says.")
                yield _entry_of_image(drop, place)

    def _send(self, block: Sequence[Entry], origin: Origin, named: Mapping[str, int], report: Report) -> None:
        verdicts = self.side_by_side(partial(self._judge, origin=origin, named=named), block)
        messages = [verdict.message.text for verdict in verdicts if verdict.message]
        self.inbox.send(messages)
        self.telemetry.count(Metric.TASKS_TAKEN_IN, len(messages))
        self.telemetry.count(Metric.TASKS_REFUSED, len(verdicts) - len(messages))
        for verdict in verdicts:
            report.add(verdict)

    def _judge(self, entry: Entry, *, origin: Origin, named: Mapping[str, int]) -> Verdict:
        """The rules of `POST /v1` for one task, and those that only files have."""
        task, task_uuid = entry.task, uuid_of(entry.task)
        if entry.errors:
            return Verdict(entry.line, task_uuid, errors=entry.errors)
        if task_uuid and named.get(task_uuid, 0) > 1:
            return Verdict(entry.line, task_uuid, errors=[twice(task_uuid)])
        answer = Answer()
        valid = validate([task], answer)
        if not valid:
            return Verdict(entry.line, task_uuid, errors=[error for _, error in answer.errors])
        order = valid[0]
        if isinstance(order, Poll):
            return Verdict(entry.line, task_uuid, errors=[_NO_ORDER])
        kept = order.request
        if _holds_image(kept):
            taken = self.take_in(kept, Caller(origin.caller, 0))
            if isinstance(taken, list):
                return Verdict(entry.line, task_uuid, errors=taken)
            kept = taken
        message = Message(origin.caller, kept, origin.report)
        if len(message.text) > LARGEST_MESSAGE:
            return Verdict(entry.line, task_uuid, errors=[_TOO_LARGE])
        return Verdict(entry.line, task_uuid, message)


class _GoneError(Exception):
    """The drop was deleted before it was read."""


def place_of(bucket: str, key: str, version: str) -> Place | str:
    """What an object's key says of it, or why it is no request."""
    caller, _, rest = key.removeprefix(_PREFIX).partition("/")
    _, dot, ending = rest.rpartition(".")
    kind = dot and ending.lower()
    if not key.startswith(_PREFIX) or not is_name(caller):
        return "its folder is not a caller's name"
    if not rest or rest.endswith("/"):
        return "it is a folder"
    # Clients disagree on what such a key means, so the object that is read might be another one.
    if {"", ".", ".."} & set(rest.split("/")):
        return "a part of its name is empty or made of dots"
    if _CONTROL.search(rest):
        return "its name holds a control character"
    if kind not in _KINDS:
        return "its name ends with nothing that is known here"
    report = f"reports/{caller}/{rest}.{version}"
    if len(report.encode()) + _ENDING > _LONGEST_KEY:
        report = f"reports/{caller}/{hashlib.sha256(rest.encode()).hexdigest()}.{version}"
    return Place(key, version, kind, Origin(caller, (bucket, key, version), report))


def origin_of_event(caller: str, event_id: str) -> Origin:
    """Where the task of an event on the bus comes from."""
    return Origin(caller, ("event", event_id), f"reports/{caller}/{event_id}")


def _entry_of_line(line: Line, origin: Origin, limits: Limits) -> Entry:
    if line.content is None:
        message = f"The line must not be longer than {limits.line} bytes."
        return Entry(line.number, errors=[wire_error("invalidTask", message)])
    return _entry(line.number, line.content, "line", origin)


def _entry(number: int, content: bytes, called: str, origin: Origin) -> Entry:
    """One task as JSON, alone or in an array; what it leaves out is filled in."""
    try:
        tasks = parse(content, called)
        if len(tasks) != 1:
            raise UnreadableError(f"The {called} must hold one task; a .jsonl file takes one on each line.")
    except UnreadableError as error:
        return Entry(number, errors=[wire_error("invalidTask", str(error))])
    return Entry(number, _completed(tasks[0], number, origin), size=len(content))


def _entry_of_image(drop: Drop, place: Place) -> Entry:
    image = whole(drop.chunks(), LARGEST_IMAGE, "image")
    task = task_of(drop.metadata, image)
    if isinstance(task, list):
        return Entry(1, errors=task)
    return Entry(1, _completed(task, 1, place.origin), size=len(image))


def _completed(task: object, number: int, origin: Origin) -> object:
    """There is only one type of task for files and events, and a UUID that follows from the place."""
    if not isinstance(task, dict):
        return task
    return {"taskType": "videoInference", "taskUUID": origin.uuid_at(number), **task}


def _holds_image(task: Mapping[str, Any]) -> bool:
    """Whether an image may stand in the task itself. One that is named by an address is for `submit` to judge.

    Which buckets a caller may name is written in the table, which `intake` cannot read.
    """
    return any(not image.startswith("s3://") for image in images_of(task))


def _blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries in groups that fit into memory."""
    block: list[Entry] = []
    size = 0
    for entry in entries:
        block.append(entry)
        size += entry.size
        if len(block) == _BLOCK_LINES or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


_NO_ORDER = wire_error(
    "unsupportedTaskType",
    "Files and events order clips; what became of them is told by POST /v1.",
    "taskType",
    type="string",
    allowedValues=["videoInference"],
)
_TOO_LARGE = wire_error(
    "valueTooLarge", f"A task must not be larger than {LARGEST_MESSAGE} bytes.", max=LARGEST_MESSAGE
)

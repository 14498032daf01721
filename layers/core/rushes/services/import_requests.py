"""The use case behind `intake`: turns request files under `requests/` and events on the bus into inbox messages.

Events are delivered at least once, and the function may be killed at any point. So it keeps no state and is idempotent:
a request file is one object version, which is immutable; a task in a file without a UUID gets one that is derived from
its place; repeats produce the same messages and the same report. `submit` recognises a task by its UUID, so repeats buy
nothing.

A client may also repeat a `PUT` or `PutEvents` whose response was lost, and each repeat is a new version or event. So
an event must have a taskUUID, and a version with the same content as the one before it is refused with a report.

A request file is read twice. The first pass finds errors of the whole file and repeated UUIDs, before the second pass
sends the first message. The report is written last, when all accepted tasks are in the inbox.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from rushes.domain.caller import Caller, is_name
from rushes.domain.formats import canonical
from rushes.domain.inbox_message import MAX_MESSAGE_BYTES, Message
from rushes.domain.jsonl import Limits, Line, read_whole, reject_foreign_encoding, split
from rushes.errors import BucketError, UnreadableError
from rushes.runware.wire import WireError, wire_error
from rushes.services.authentication import NOT_ALLOWED
from rushes.services.image_metadata import AGAIN, task_of
from rushes.services.input_images import images_of
from rushes.services.metric import Metric
from rushes.services.request_validation import (
    MAX_BODY_BYTES,
    Poll,
    WireResponse,
    duplicate_error,
    of_task,
    parse,
    refusal_of,
    uuid_of,
    validate,
)

if TYPE_CHECKING:
    from rushes.services.ports import (
        ConcurrentMap,
        InboxQueue,
        ReportStore,
        RequestFile,
        RequestFileStore,
        RequestFileVersion,
        Telemetry,
    )

LIMITS = Limits(size=256 * 1024 * 1024, lines=10_000, line=MAX_BODY_BYTES)
MAX_IMAGE_BYTES = 20 * 1024 * 1024  # bytes
MAX_LISTED = 1000  # refused lines that a report lists
MAX_ERRORS = 10  # of a line
_BLOCK_LINES, _BLOCK_BYTES = 50, 4 * 1024 * 1024  # limits of the tasks in memory at a time
_REPEAT_WINDOW = 3_600_000  # milliseconds within which the same content counts as a client's retry
_PREFIX = "requests/"
_KINDS = {"json": "json", "jsonl": "jsonl", "ndjson": "jsonl"} | dict.fromkeys(("png", "jpg", "jpeg", "webp"), "image")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_KEY_BYTES = 1024  # bytes
_MAX_EVENT_ID_LENGTH = 64
_MAX_SUFFIX_BYTES = len(f".{uuid.UUID(int=0)}.json")  # bytes after the stem of a report's key

StoreImages = Callable[[Mapping[str, Any], Caller], Mapping[str, Any] | list[WireError]]
"""Stores the inline images of a valid task in the bucket; returns the task with their addresses, or their errors."""


class Origin(NamedTuple):
    """The origin of tasks: the caller, the names from which UUIDs are derived, and the stem of the reports' keys.

    Without `names` each task must have its own UUID.
    """

    caller: str
    names: tuple[str, ...]
    report: str

    def uuid_at(self, line: int) -> str:
        """The derived UUID of a task without one: always the same for a line, in the format of a UUID v4."""
        digest = hashlib.sha256(canonical([*self.names, line]).encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


class RequestLocation(NamedTuple):
    """A request file by its key and version. `fault` is the reason, if its key is invalid."""

    key: str
    version: str
    kind: str
    origin: Origin
    fault: str = ""


class Entry(NamedTuple):
    """One task as read from a request file, or the errors of its line. `size` is the line's, in bytes."""

    line: int
    task: object = None
    errors: Sequence[WireError] = ()
    size: int = 0


class LineResult(NamedTuple):
    """The result for one line: a message, or errors."""

    line: int
    task_uuid: str | None
    message: Message | None = None
    errors: Sequence[WireError] = ()


@dataclass(slots=True)
class ImportReport:
    """The report to a caller. It depends only on the caller and the request, so a repeat writes the same bytes."""

    about: Mapping[str, str]
    accepted: int = 0
    refused: int = 0
    errors: list[WireError] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, result: LineResult) -> None:
        """Counts a line and lists it. Refused lines beyond `MAX_LISTED` are only counted."""
        task_name = {"taskUUID": result.task_uuid} if result.task_uuid else {}
        if result.message:
            self.accepted += 1
            self.lines.append({"line": result.line, **task_name, "accepted": True})
            return
        self.refused += 1
        if self.refused <= MAX_LISTED:
            self.lines.append({"line": result.line, **task_name, "errors": list(result.errors[:MAX_ERRORS])})

    @property
    def content(self) -> bytes:
        """The report as JSON."""
        unlisted = max(0, self.refused - MAX_LISTED)
        content = {
            **self.about,
            "accepted": self.accepted,
            "refused": self.refused,
            **({"refusedUnlisted": unlisted} if unlisted else {}),
            **({"errors": self.errors} if self.errors else {}),
            "lines": self.lines,
        }
        return json.dumps(content, indent=1).encode()


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class ImportService:
    """The use case with its adapters. `clock` gives milliseconds.

    `caller_named` returns the caller of a folder or an event; None if it may not order.
    """

    bucket: str
    request_files: RequestFileStore
    inbox: InboxQueue
    reports: ReportStore
    store_images: StoreImages
    caller_named: Callable[[str], Caller | None]
    telemetry: Telemetry
    concurrent_map: ConcurrentMap
    clock: Callable[[], int]
    limits: Limits = LIMITS
    loopback: bool = False  # webhooks to receivers on the same machine are allowed
    gone_models: bool = False  # models that Runware has removed may be ordered

    def import_file(self, key: str, version: str, ends_at: int) -> None:
        """Imports one version of an object under `requests/`: sends valid tasks to the inbox and writes a report.

        Tasks that are not read by `ends_at`, in milliseconds, are reported as not imported.
        """
        location = locate_request_file(self.bucket, key, version)
        if isinstance(location, str):
            self.telemetry.log("object is not a request file", warn=True, key=key, reason=location)
            self.telemetry.count(Metric.TASKS_REFUSED)
            return
        report = ImportReport({"object": f"s3://{self.bucket}/{key}", "versionId": version})
        try:
            self._import(location, report, ends_at)
        except _DeletedError:
            self.telemetry.log("request file was deleted", warn=True, key=key)
            return
        except UnreadableError as error:
            self._refuse(report, wire_error("invalidFile", str(error)))
        except _RefusedError as refused:
            self._refuse(report, refused.error)
        self.reports.put(f"{location.origin.report}.json", report.content)
        self.telemetry.log("request imported", key=key, accepted=report.accepted, refused=report.refused)

    def import_event(self, caller: str, event: Mapping[str, Any]) -> None:
        """Imports the task of an event for this caller; writes a report only if the task is refused."""
        origin, event_id = origin_of_event(caller, event), event.get("id")
        report = ImportReport({"event": event_id} if isinstance(event_id, str) else {})
        if found := self.caller_named(caller):
            entry = _entry(1, json.dumps(event.get("detail")).encode(), "detail", origin)
            if isinstance(entry.task, dict) and "taskUUID" not in entry.task:
                entry = Entry(1, errors=[_NO_UUID])
            self._send([entry], origin, found, Counter(), report)
        else:
            self._refuse(report, NOT_ALLOWED)
        if report.refused or report.errors:
            self.reports.put(f"{origin.report}.json", report.content)
        self.telemetry.log("request imported", event=origin.report, accepted=report.accepted, refused=report.refused)

    def _refuse(self, report: ImportReport, error: WireError) -> None:
        report.errors.append(error)
        self.telemetry.count(Metric.TASKS_REFUSED)

    def _import(self, location: RequestLocation, report: ImportReport, ends_at: int) -> None:
        if location.fault:
            raise UnreadableError(location.fault)
        if (caller := self.caller_named(location.origin.caller)) is None:
            raise _RefusedError(NOT_ALLOWED)
        if before := self._repeated_version(location):
            raise _RefusedError({**_REPEATED, "repeatOf": before})
        uuid_counts: Counter[str] = Counter()
        if location.kind == "jsonl":
            entries = self._in_time(self._entries(location), ends_at, report)
            uuid_counts.update(task_uuid for entry in entries if (task_uuid := uuid_of(entry.task)))
        count = 0
        for block in _blocks(self._in_time(self._entries(location), ends_at, report)):
            self._send(block, location.origin, caller, uuid_counts, report)
            count += len(block)
        if not count:
            raise UnreadableError("The file holds no task.")

    def _repeated_version(self, location: RequestLocation) -> str | None:
        """The version before this one, if it has the same content: a client without a response has sent it again."""
        if (this := self.request_files.head(location.key, location.version)) is None:
            raise _DeletedError
        if (found := self.request_files.before(location.key, location.version)) is None:
            return None
        if (before := self.request_files.head(location.key, found)) is None:
            raise BucketError("the version before this one was deleted meanwhile")
        if abs(this.put_at - before.put_at) > _REPEAT_WINDOW or _order_metadata(this, location.kind) != _order_metadata(
            before, location.kind
        ):
            return None
        # Under a KMS key, versions with the same bytes have different ETags.
        if this.size != before.size or (
            this.etag != before.etag and self._digest(location, this) != self._digest(location, before)
        ):
            return None
        return before.version

    def _digest(self, location: RequestLocation, put: RequestFileVersion) -> bytes:
        file = self.request_files.open(location.key, put.version)
        if file is None:
            raise BucketError("a version was deleted meanwhile")
        digest = hashlib.sha256()
        for chunk in file.chunks():
            digest.update(chunk)
        return digest.digest()

    def _in_time(self, entries: Iterable[Entry], ends_at: int, report: ImportReport) -> Iterator[Entry]:
        """The entries, until the time is up; then raises `_RefusedError`."""
        for entry in entries:
            if self.clock() > ends_at:
                raise _RefusedError(_too_late(report.accepted + report.refused))
            yield entry

    def _entries(self, location: RequestLocation) -> Iterator[Entry]:
        """The tasks of a request file, one by one; raises `UnreadableError` if the whole file is invalid."""
        file = self.request_files.open(location.key, location.version)
        if file is None:
            raise _DeletedError
        if file.encoding not in ("", "identity", "aws-chunked"):
            raise UnreadableError("The file must not have a Content-Encoding.")
        match location.kind:
            case "jsonl":
                for line in split(file.chunks(), self.limits):
                    yield _entry_of_line(line, location.origin, self.limits)
            case "json":
                content = read_whole(file.chunks(), self.limits.line, "file")
                reject_foreign_encoding(content)
                entry = _entry(1, content, "file", location.origin)
                if entry.errors:
                    raise UnreadableError(entry.errors[0]["message"])
                yield entry
            case _:
                if file.hidden_metadata:
                    raise UnreadableError("The image has metadata that S3 does not return; encode it as in RFC 2047.")
                yield _entry_of_image(file, location)

    def _send(
        self,
        block: Sequence[Entry],
        origin: Origin,
        caller: Caller,
        uuid_counts: Mapping[str, int],
        report: ImportReport,
    ) -> None:
        check = partial(self._validate, origin=origin, caller=caller, uuid_counts=uuid_counts)
        results = self.concurrent_map(check, block)
        messages = [result.message.text for result in results if result.message]
        self.inbox.send(messages)
        self.telemetry.count(Metric.TASKS_IMPORTED, len(messages))
        self.telemetry.count(Metric.TASKS_REFUSED, len(results) - len(messages))
        for result in results:
            report.add(result)

    def _validate(self, entry: Entry, *, origin: Origin, caller: Caller, uuid_counts: Mapping[str, int]) -> LineResult:
        """Applies the rules of `POST /v1` and those for files and events to one task; returns its message or errors."""
        task, task_uuid = entry.task, uuid_of(entry.task)
        if entry.errors:
            return LineResult(entry.line, task_uuid, errors=entry.errors)
        if task_uuid and uuid_counts.get(task_uuid, 0) > 1:
            return LineResult(entry.line, task_uuid, errors=[duplicate_error(task_uuid)])
        answer = WireResponse()
        valid = validate([task], answer, loopback=self.loopback)
        if not valid:
            return LineResult(entry.line, task_uuid, errors=[error for _, error in answer.errors])
        order = valid[0]
        if isinstance(order, Poll):
            return LineResult(entry.line, task_uuid, errors=[_NO_ORDER])
        if refusal := refusal_of(order, caller, gone_models=self.gone_models):
            return LineResult(entry.line, task_uuid, errors=[of_task(order.task_uuid, refusal)])
        request = order.request
        if _has_inline_image(request):
            stored = self.store_images(request, Caller(origin.caller, 0))
            if isinstance(stored, list):
                return LineResult(entry.line, task_uuid, errors=stored)
            request = stored
        message = Message(origin.caller, request, origin.report)
        if len(message.text) > MAX_MESSAGE_BYTES:
            return LineResult(entry.line, task_uuid, errors=[_TOO_LARGE])
        return LineResult(entry.line, task_uuid, message)


class _DeletedError(Exception):
    """The request file was deleted before it was read."""


class _RefusedError(Exception):
    """The request file, or the rest of it, is refused with this error."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error["code"])
        self.error = error


def locate_request_file(bucket: str, key: str, version: str) -> RequestLocation | str:
    """The request file at this key, with a fault if the key is invalid; or the reason why no report can be written."""
    folder, slash, rest = key.removeprefix(_PREFIX).partition("/")
    if not (key.startswith(_PREFIX) and slash and _FOLDER.fullmatch(folder)):
        return "the key is not in a caller's folder"
    if not rest or rest.endswith("/"):
        return "the key is a folder"
    kind = _KINDS.get(rest.rpartition(".")[2].lower() if "." in rest else "", "")
    report = f"reports/{folder}/{_safe_name(rest)}.{_safe_name(version)}"
    if len(report.encode()) + _MAX_SUFFIX_BYTES > _MAX_KEY_BYTES:
        report = f"reports/{folder}/{_hash(rest)}.{_safe_name(version)}"
    origin = Origin(folder, (bucket, key, version), report)
    return RequestLocation(key, version, kind, origin, _fault(folder, rest, kind))


def origin_of_event(caller: str, event: Mapping[str, Any]) -> Origin:
    """The origin of an event's task. The event's id is used only in the report's key."""
    event_id = event.get("id")
    name = event_id if isinstance(event_id, str) and event_id else json.dumps(event, sort_keys=True)
    safe = _hash(name) if "/" in name or len(name) > _MAX_EVENT_ID_LENGTH else _safe_name(name)
    return Origin(caller, (), f"reports/{caller}/{safe}")


def _fault(folder: str, rest: str, kind: str) -> str:
    """The reason why a file's key is invalid; empty if it is valid."""
    if not is_name(folder):
        return "The folder must be a caller's name: lower-case letters, digits and hyphens, and not `all`."
    if not _is_safe(rest):
        # Clients normalise such a key differently, so another object might be read.
        return "The file's name must not have an empty part, a part `.` or `..`, or a control character."
    if not kind:
        return f"The file's name must end with one of .{', .'.join(_KINDS)}."
    return ""


def _safe_name(name: str) -> str:
    """The name, or its hash if a client could resolve the name to another folder."""
    return name if _is_safe(name) else _hash(name)


def _is_safe(name: str) -> bool:
    return not ({"", ".", ".."} & set(name.split("/")) or _UNSAFE.search(name))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def _order_metadata(put: RequestFileVersion, kind: str) -> Mapping[str, str]:
    """The metadata that distinguishes two orders with the same bytes: all of an image's, otherwise only `again`."""
    metadata = {name.lower(): value for name, value in put.metadata.items()}
    return metadata if kind == "image" else {AGAIN: metadata[AGAIN]} if AGAIN in metadata else {}


def _entry_of_line(line: Line, origin: Origin, limits: Limits) -> Entry:
    if line.content is None:
        message = f"The line must not be longer than {limits.line} bytes."
        return Entry(line.number, errors=[wire_error("invalidTask", message)])
    return _entry(line.number, line.content, "line", origin)


def _entry(number: int, content: bytes, called: str, origin: Origin) -> Entry:
    """One task as JSON, alone or in an array, with its missing `taskType` and `taskUUID` filled in."""
    try:
        tasks = parse(content, called)
        if len(tasks) != 1:
            raise UnreadableError(f"The {called} must hold one task; a .jsonl file takes one on each line.")
    except UnreadableError as error:
        return Entry(number, errors=[wire_error("invalidTask", str(error))])
    return Entry(number, _with_defaults(tasks[0], number, origin), size=len(content))


def _entry_of_image(file: RequestFile, location: RequestLocation) -> Entry:
    image = read_whole(file.chunks(), MAX_IMAGE_BYTES, "image")
    task = task_of(file.metadata, image)
    if isinstance(task, list):
        return Entry(1, errors=task)
    return Entry(1, _with_defaults(task, 1, location.origin), size=len(image))


def _with_defaults(task: object, number: int, origin: Origin) -> object:
    """The task with a missing `taskType` filled in and, in a file, a missing `taskUUID` derived."""
    if not isinstance(task, dict):
        return task
    derived = {"taskUUID": origin.uuid_at(number)} if origin.names else {}
    return {"taskType": "videoInference", **derived, **task}


def _has_inline_image(task: Mapping[str, Any]) -> bool:
    """True if the task may have an inline image, which is stored here. `submit` checks images by address.

    The function `intake` has no permission to read callers' other buckets.
    """
    return any(not image.startswith("s3://") for image in images_of(task))


def _blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries in blocks of limited size, so that a file never has to fit into memory."""
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


def _too_late(lines: int) -> WireError:
    message = f"The file takes too long: only its first {lines} tasks were imported. Upload the rest as a new file."
    return wire_error("fileTooSlow", message)


_REPEATED = wire_error(
    "repeatedFile",
    "The version before this one has the same content and is less than an hour older, as after a client's retry. "
    f"Nothing of this version was imported. To order the same again, set the metadata {AGAIN} to another value.",
)
_NO_UUID = wire_error(
    "missingTaskUUID",
    "An event must have a taskUUID, because a client's retry of an event has another event id.",
    "taskUUID",
    type="string",
)
_NO_ORDER = wire_error(
    "unsupportedTaskType",
    "Files and events accept orders only. Send getResponse to POST /v1.",
    "taskType",
    type="string",
    allowedValues=["videoInference"],
)
_TOO_LARGE = wire_error(
    "valueTooLarge", f"A task must not be larger than {MAX_MESSAGE_BYTES} bytes.", max=MAX_MESSAGE_BYTES
)

"""The use case of the ways in by event: files under `requests/` and events on the bus become messages of the inbox.

Events come more than once, and the function may stop anywhere. So nothing here is remembered: a drop is one version of
an object, which never changes; a file's task without a UUID gets one that follows from its place; and messages and
reports are the same each time. `submit` recognises a task by its UUID, so repeats buy nothing.

A client may repeat a `PUT` or `PutEvents` whose answer was lost, and each repeat is another version or event. So an
event has to name its task's UUID, and a version that repeats the one before it is reported and not taken in.

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
from typing import Any

from rushes.domain.caller import Caller, is_name
from rushes.domain.formats import canonical
from rushes.domain.inbox_message import MAX_MESSAGE_BYTES, Message
from rushes.domain.jsonl import Limits, Line, read_whole, reject_foreign_encoding, split
from rushes.errors import BucketError, UnreadableError
from rushes.runware.wire import WireError, wire_error
from rushes.services.authentication import NOT_ALLOWED
from rushes.services.image_metadata import AGAIN, task_of
from rushes.services.input_images import images_of
from rushes.services.ports import (
    ConcurrentMap,
    InboxQueue,
    Metric,
    ReportStore,
    RequestFile,
    RequestFileStore,
    RequestFileVersion,
    Telemetry,
)
from rushes.services.request_validation import (
    MAX_BODY_BYTES,
    Poll,
    WireResponse,
    duplicate_error,
    parse,
    uuid_of,
    validate,
)

LIMITS = Limits(size=256 * 1024 * 1024, lines=10_000, line=MAX_BODY_BYTES)
MAX_IMAGE_BYTES = 20 * 1024 * 1024  # bytes
MAX_LISTED = 1000  # refused lines whose reasons stand in a report
MAX_ERRORS = 10  # of a line
_BLOCK_LINES, _BLOCK_BYTES = 50, 4 * 1024 * 1024  # what is in memory at a time
_REPEAT = 3_600_000  # milliseconds within which the same file again is a client's repeat
_PREFIX = "requests/"
_KINDS = {"json": "json", "jsonl": "jsonl", "ndjson": "jsonl"} | dict.fromkeys(("png", "jpg", "jpeg", "webp"), "image")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_KEY_BYTES = 1024  # bytes
_MAX_EVENT_ID_LENGTH = 64
_ENDING = len(f".{uuid.UUID(int=0)}.json")  # the longest that is put behind a report's stem

StoreImages = Callable[[Mapping[str, Any], Caller], Mapping[str, Any] | list[WireError]]
"""Keeps the inline images of a valid task in the bucket: the task with their addresses, or what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where tasks come from: who pays for them, what their UUIDs follow from, and the stem of their reports' keys.

    Without `names` a task has to bring its own UUID.
    """

    caller: str
    names: tuple[str, ...]
    report: str

    def uuid_at(self, line: int) -> str:
        """The UUID of a task that came without one: a v4 by its shape, and the same each time."""
        digest = hashlib.sha256(canonical([*self.names, line]).encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


@dataclass(frozen=True, slots=True)
class RequestLocation:
    """A drop by its key and version. `fault`: the reason why it can only be reported."""

    key: str
    version: str
    kind: str
    origin: Origin
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of a drop as it was read, or what is wrong with its line; `size` is that of the line in bytes."""

    line: int
    task: object = None
    errors: Sequence[WireError] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class LineResult:
    """What becomes of an entry: a message, or errors."""

    line: int
    task_uuid: str | None
    message: Message | None = None
    errors: Sequence[WireError] = ()


@dataclass(slots=True)
class ImportReport:
    """What a caller reads about a drop. It follows from the drop alone, so that a repeat writes the same bytes."""

    about: Mapping[str, str]
    accepted: int = 0
    refused: int = 0
    errors: list[WireError] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, verdict: LineResult) -> None:
        """Counts a line, and lists it unless too many were refused."""
        named = {"taskUUID": verdict.task_uuid} if verdict.task_uuid else {}
        if verdict.message:
            self.accepted += 1
            self.lines.append({"line": verdict.line, **named, "accepted": True})
            return
        self.refused += 1
        if self.refused <= MAX_LISTED:
            self.lines.append({"line": verdict.line, **named, "errors": list(verdict.errors[:MAX_ERRORS])})

    @property
    def content(self) -> bytes:
        """The report as it is put into the bucket."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportService:
    """The use case with its adapters. `may_order` is false for a caller that may spend nothing. `clock` gives
    milliseconds.
    """

    bucket: str
    request_files: RequestFileStore
    inbox: InboxQueue
    reports: ReportStore
    store_images: StoreImages
    may_order: Callable[[str], bool]
    telemetry: Telemetry
    concurrent_map: ConcurrentMap
    clock: Callable[[], int]
    limits: Limits = LIMITS

    def import_file(self, key: str, version: str, ends_at: int) -> None:
        """Takes one version of an object under `requests/`: valid tasks go to the inbox, and a report is put.

        What is not read at `ends_at`, in milliseconds, is reported as not taken in.
        """
        place = locate_request_file(self.bucket, key, version)
        if isinstance(place, str):
            self.telemetry.log("an object that is no request", warn=True, key=key, reason=place)
            self.telemetry.count(Metric.TASKS_REFUSED)
            return
        report = ImportReport({"object": f"s3://{self.bucket}/{key}", "versionId": version})
        try:
            self._take(place, report, ends_at)
        except _GoneError:
            self.telemetry.log("a request that is gone", warn=True, key=key)
            return
        except UnreadableError as error:
            self._refuse(report, wire_error("invalidFile", str(error)))
        except _RefusedError as refused:
            self._refuse(report, refused.error)
        self.reports.put(f"{place.origin.report}.json", report.content)
        self.telemetry.log("taken in", key=key, accepted=report.accepted, refused=report.refused)

    def import_event(self, caller: str, event: Mapping[str, Any]) -> None:
        """Takes the task of an event for this caller; a report is put only if it is refused."""
        origin, event_id = origin_of_event(caller, event), event.get("id")
        report = ImportReport({"event": event_id} if isinstance(event_id, str) else {})
        if self.may_order(caller):
            entry = _entry(1, json.dumps(event.get("detail")).encode(), "detail", origin)
            if isinstance(entry.task, dict) and "taskUUID" not in entry.task:
                entry = Entry(1, errors=[_NO_UUID])
            self._send([entry], origin, Counter(), report)
        else:
            self._refuse(report, NOT_ALLOWED)
        if report.refused or report.errors:
            self.reports.put(f"{origin.report}.json", report.content)
        self.telemetry.log("taken in", event=origin.report, accepted=report.accepted, refused=report.refused)

    def _refuse(self, report: ImportReport, error: WireError) -> None:
        report.errors.append(error)
        self.telemetry.count(Metric.TASKS_REFUSED)

    def _take(self, place: RequestLocation, report: ImportReport, ends_at: int) -> None:
        if place.fault:
            raise UnreadableError(place.fault)
        if not self.may_order(place.origin.caller):
            raise _RefusedError(NOT_ALLOWED)
        if before := self._repeated(place):
            raise _RefusedError({**_REPEATED, "repeatOf": before})
        named: Counter[str] = Counter()
        if place.kind == "jsonl":
            entries = self._in_time(self._entries(place), ends_at, report)
            named.update(task_uuid for entry in entries if (task_uuid := uuid_of(entry.task)))
        taken = 0
        for block in _blocks(self._in_time(self._entries(place), ends_at, report)):
            self._send(block, place.origin, named, report)
            taken += len(block)
        if not taken:
            raise UnreadableError("The file holds no task.")

    def _repeated(self, place: RequestLocation) -> str | None:
        """The version before this one, if it is the same order: a client that got no answer has put it again."""
        if (this := self.request_files.head(place.key, place.version)) is None:
            raise _GoneError
        if (found := self.request_files.before(place.key, place.version)) is None:
            return None
        if (before := self.request_files.head(place.key, found)) is None:
            raise BucketError("the version before is going")
        if abs(this.put_at - before.put_at) > _REPEAT or _asked(this, place.kind) != _asked(before, place.kind):
            return None
        # Under a KMS key each version has an ETag of its own, whatever its bytes are.
        if this.size != before.size or (
            this.etag != before.etag and self._digest(place, this) != self._digest(place, before)
        ):
            return None
        return before.version

    def _digest(self, place: RequestLocation, put: RequestFileVersion) -> bytes:
        drop = self.request_files.open(place.key, put.version)
        if drop is None:
            raise BucketError("a version is going")
        digest = hashlib.sha256()
        for chunk in drop.chunks():
            digest.update(chunk)
        return digest.digest()

    def _in_time(self, entries: Iterable[Entry], ends_at: int, report: ImportReport) -> Iterator[Entry]:
        """The entries, as long as there is time to take them in."""
        for entry in entries:
            if self.clock() > ends_at:
                raise _RefusedError(_too_late(report.accepted + report.refused))
            yield entry

    def _entries(self, place: RequestLocation) -> Iterator[Entry]:
        """The tasks of a drop, one after another; raises `UnreadableError` if it cannot be taken as a whole."""
        drop = self.request_files.open(place.key, place.version)
        if drop is None:
            raise _GoneError
        if drop.encoding not in ("", "identity", "aws-chunked"):
            raise UnreadableError("The file must not have a Content-Encoding.")
        match place.kind:
            case "jsonl":
                for line in split(drop.chunks(), self.limits):
                    yield _entry_of_line(line, place.origin, self.limits)
            case "json":
                content = read_whole(drop.chunks(), self.limits.line, "file")
                reject_foreign_encoding(content)
                entry = _entry(1, content, "file", place.origin)
                if entry.errors:
                    raise UnreadableError(entry.errors[0]["message"])
                yield entry
            case _:
                if drop.hidden_metadata:
                    raise UnreadableError("The image has metadata that S3 cannot show; encode it as RFC 2047 says.")
                yield _entry_of_image(drop, place)

    def _send(self, block: Sequence[Entry], origin: Origin, named: Mapping[str, int], report: ImportReport) -> None:
        verdicts = self.concurrent_map(partial(self._judge, origin=origin, named=named), block)
        messages = [verdict.message.text for verdict in verdicts if verdict.message]
        self.inbox.send(messages)
        self.telemetry.count(Metric.TASKS_IMPORTED, len(messages))
        self.telemetry.count(Metric.TASKS_REFUSED, len(verdicts) - len(messages))
        for verdict in verdicts:
            report.add(verdict)

    def _judge(self, entry: Entry, *, origin: Origin, named: Mapping[str, int]) -> LineResult:
        """The rules of `POST /v1` for one task, and those that only files have."""
        task, task_uuid = entry.task, uuid_of(entry.task)
        if entry.errors:
            return LineResult(entry.line, task_uuid, errors=entry.errors)
        if task_uuid and named.get(task_uuid, 0) > 1:
            return LineResult(entry.line, task_uuid, errors=[duplicate_error(task_uuid)])
        answer = WireResponse()
        valid = validate([task], answer)
        if not valid:
            return LineResult(entry.line, task_uuid, errors=[error for _, error in answer.errors])
        order = valid[0]
        if isinstance(order, Poll):
            return LineResult(entry.line, task_uuid, errors=[_NO_ORDER])
        kept = order.request
        if _holds_image(kept):
            taken = self.store_images(kept, Caller(origin.caller, 0))
            if isinstance(taken, list):
                return LineResult(entry.line, task_uuid, errors=taken)
            kept = taken
        message = Message(origin.caller, kept, origin.report)
        if len(message.text) > MAX_MESSAGE_BYTES:
            return LineResult(entry.line, task_uuid, errors=[_TOO_LARGE])
        return LineResult(entry.line, task_uuid, message)


class _GoneError(Exception):
    """The drop was deleted before it was read."""


class _RefusedError(Exception):
    """Nothing more of the drop is taken in, for this reason."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error["code"])
        self.error = error


def locate_request_file(bucket: str, key: str, version: str) -> RequestLocation | str:
    """A drop by its key, with a fault if it cannot be taken; or the reason why there is no caller to report to."""
    folder, slash, rest = key.removeprefix(_PREFIX).partition("/")
    if not (key.startswith(_PREFIX) and slash and _FOLDER.fullmatch(folder)):
        return "it lies in no caller's folder"
    if not rest or rest.endswith("/"):
        return "it is a folder"
    kind = _KINDS.get(rest.rpartition(".")[2].lower() if "." in rest else "", "")
    report = f"reports/{folder}/{_safe(rest)}.{_safe(version)}"
    if len(report.encode()) + _ENDING > _MAX_KEY_BYTES:
        report = f"reports/{folder}/{_hashed(rest)}.{_safe(version)}"
    origin = Origin(folder, (bucket, key, version), report)
    return RequestLocation(key, version, kind, origin, _fault(folder, rest, kind))


def origin_of_event(caller: str, event: Mapping[str, Any]) -> Origin:
    """Where the task of an event on the bus comes from. Its id only names the report."""
    event_id = event.get("id")
    name = event_id if isinstance(event_id, str) and event_id else json.dumps(event, sort_keys=True)
    named = _hashed(name) if "/" in name or len(name) > _MAX_EVENT_ID_LENGTH else _safe(name)
    return Origin(caller, (), f"reports/{caller}/{named}")


def _fault(folder: str, rest: str, kind: str) -> str:
    """The reason why a file cannot be taken, by its key alone."""
    if not is_name(folder):
        return "The folder is no caller's: it must be named by lower-case letters, digits and hyphens, and not all."
    if not _is_safe(rest):
        # Clients disagree on the meaning of such a key, so the object that is read might be another one.
        return "A part of the file's name is empty or made of dots, or it holds a control character."
    if not kind:
        return f"The file's name must end with one of .{', .'.join(_KINDS)}."
    return ""


def _safe(name: str) -> str:
    """The name itself where it stays in its folder for every client, else its hash."""
    return name if _is_safe(name) else _hashed(name)


def _is_safe(name: str) -> bool:
    return not ({"", ".", ".."} & set(name.split("/")) or _UNSAFE.search(name))


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def _asked(put: RequestFileVersion, kind: str) -> Mapping[str, str]:
    """The part of the metadata that makes it another order: of an image all, else the word that asks for one."""
    metadata = {name.lower(): value for name, value in put.metadata.items()}
    return metadata if kind == "image" else {AGAIN: metadata[AGAIN]} if AGAIN in metadata else {}


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


def _entry_of_image(drop: RequestFile, place: RequestLocation) -> Entry:
    image = read_whole(drop.chunks(), MAX_IMAGE_BYTES, "image")
    task = task_of(drop.metadata, image)
    if isinstance(task, list):
        return Entry(1, errors=task)
    return Entry(1, _completed(task, 1, place.origin), size=len(image))


def _completed(task: object, number: int, origin: Origin) -> object:
    """There is only one type of task for files and events, and for files a UUID that follows from the place."""
    if not isinstance(task, dict):
        return task
    derived = {"taskUUID": origin.uuid_at(number)} if origin.names else {}
    return {"taskType": "videoInference", **derived, **task}


def _holds_image(task: Mapping[str, Any]) -> bool:
    """Whether an image may stand in the task itself. One that is named by an address is for `submit` to judge.

    `intake` may read none of the other buckets that a caller may name.
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


def _too_late(lines: int) -> WireError:
    message = (
        f"The file takes too long: nothing after its first {lines} tasks was taken in. Drop the rest as a new file."
    )
    return wire_error("fileTooSlow", message)


_REPEATED = wire_error(
    "repeatedFile",
    "The version before has the same content and is less than an hour older, as when a client sends a file twice. "
    f"Nothing was taken in of this one. To order the same once more, give it the metadata {AGAIN} with another value.",
)
_NO_UUID = wire_error(
    "missingTaskUUID",
    "An event must bring a taskUUID: clients repeat events, and each repeat has another id.",
    "taskUUID",
    type="string",
)
_NO_ORDER = wire_error(
    "unsupportedTaskType",
    "Files and events order clips; what became of them is told by POST /v1.",
    "taskType",
    type="string",
    allowedValues=["videoInference"],
)
_TOO_LARGE = wire_error(
    "valueTooLarge", f"A task must not be larger than {MAX_MESSAGE_BYTES} bytes.", max=MAX_MESSAGE_BYTES
)

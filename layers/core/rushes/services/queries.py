"""The use cases behind `GET /tasks`, `/costs`, `/budget` and `getResponse`: what a caller may see of its own tasks.

Everything is read under the caller's own name, so another's task is not refused but not there. Facts are turned inside
out here: money into dollars, times into ISO 8601, a pinned version into a link that dies soon.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from rushes.domain.budget import month_of
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, Kind, Status
from rushes.domain.failure import failure_reason, is_account_failure
from rushes.domain.formats import UUID4, dollars, iso
from rushes.domain.task import Task, TaskWithClips, task_status
from rushes.domain.timings import Timings
from rushes.domain.views import Json, manifest_key, render, timeline
from rushes.errors import UnreadableError
from rushes.runware import facts
from rushes.runware.wire import WireError, wire_error
from rushes.services.ports import ClipObjects, TaskQueries

MAX_TASKS = 100
USUAL_TASKS = 20
MAX_COSTS = 1000
TASK_STATUSES = (Status.RUNNING, Status.REVIEW, Status.SUCCEEDED, Status.FAILED, Status.PARTIAL)
_LINK = 3_600_000  # milliseconds; the bucket's policy refuses links that are older than the deadline, whatever they say
_MAX_PAGE_BYTES = 4 * 1024 * 1024  # bytes of JSON; Lambda's answers end at 6 MB
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MARK_BYTES = 6
_ONE_DAY = 86_400_000  # milliseconds


@dataclass(frozen=True, slots=True)
class Query:
    """Which of its tasks a caller wants to see. `after` is a position in its list; `tag` is a name and a value."""

    limit: int = USUAL_TASKS
    after: str | None = None
    status: str | None = None
    day: str = ""
    tag: tuple[str, str] | None = None

    def wants(self, found: TaskWithClips) -> bool:
        """Whether a task passes the filters that the list itself does not know."""
        if self.status and task_status(found.clips) != self.status:
            return False
        tags = found.task.request.get("tags") or {}
        return self.tag is None or tags.get(self.tag[0]) == self.tag[1]


@dataclass(frozen=True, slots=True)
class CostsQuery:
    """Of which days (`yyyy-mm-dd`, both included) a caller wants to see what its clips count."""

    since: str
    until: str
    limit: int = MAX_COSTS
    after: str | None = None

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last of its milliseconds."""
        return _midnight(self.since), _midnight(self.until) + _ONE_DAY - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryService:
    """The use cases with their adapters. `clock` gives milliseconds."""

    table: TaskQueries
    links: ClipObjects
    times: Timings
    clock: Callable[[], int]

    def tasks(self, caller: Caller, parameters: Mapping[str, str]) -> Json | list[WireError]:
        """A page of a caller's tasks, newest first, or the faults of what was asked.

        The filters apply within the page, and a page ends before it outgrows an answer: it may be short, even empty,
        and still have a cursor.
        """
        query = read_query(parameters, caller.name)
        if not isinstance(query, Query):
            return query
        try:
            page = self.table.page(caller.name, query.limit, after=query.after, day=query.day)
        except UnreadableError as error:
            return [wire_error("invalidCursor", str(error), "cursor", type="string")]
        shown: list[Json] = []
        end, room = page.end, _MAX_PAGE_BYTES
        for found in page.found:
            if not query.wants(found):
                continue
            told = self._told(found)
            room -= len(json.dumps(told, ensure_ascii=False).encode())
            shown.append(told)
            if room < 0 and found is not page.found[-1]:
                end = found.position
                break
        return {"tasks": shown, **({"cursor": cursor(caller.name, end)} if end else {})}

    def task(self, caller: Caller, task_uuid: str) -> Json | None:
        """One of a caller's tasks with the timeline of each clip; None if it has none under this UUID."""
        found = self._found(caller.name, task_uuid)
        return self._told(found, whole=True) if found else None

    def costs(self, caller: Caller, parameters: Mapping[str, str]) -> Json | list[WireError]:
        """What a caller's clips of some days count, newest first, or the faults of what was asked.

        A line a clip, without its facts: what to sum them by is up to the caller. A page may be short and still have a
        cursor.
        """
        query = read_costs_query(parameters, caller.name, iso(self.clock())[: len("yyyy-mm-dd")])
        if not isinstance(query, CostsQuery):
            return query
        try:
            page = self.table.costs(caller.name, *query.span, query.limit, query.after)
        except UnreadableError as error:
            return [wire_error("invalidCursor", str(error), "cursor", type="string")]
        lines = [
            {
                "taskUUID": cost.task_uuid,
                "clip": cost.index,
                "createdAt": iso(cost.created_at),
                "cost": dollars(cost.budgeted),
                **({"model": cost.model} if cost.model else {}),
                **({"tags": dict(cost.tags)} if cost.tags else {}),
            }
            for cost in page.found
        ]
        return {"costs": lines, **({"cursor": cursor(caller.name, page.end)} if page.end else {})}

    def budget(self, caller: Caller) -> Json:
        """What a caller has spent this month, in dollars, and what is left of its own limit.

        There is another limit for all callers together, which is nobody's to see.
        """
        month = month_of(self.clock())
        spent, _ = self.table.budget(caller.name, month)
        return {
            "month": month,
            "spent": dollars(spent),
            "limit": dollars(caller.monthly_limit),
            "left": dollars(max(0, caller.monthly_limit - spent)),
        }

    def poll(self, caller: str, task_uuid: str) -> tuple[list[Json], list[tuple[int, WireError]]]:
        """What `getResponse` says of a task: items of `data`, and errors with the HTTP status each calls for.

        Cumulative: every stored clip is told again each time, always under the same `videoUUID`, since that is how
        the official client tells them apart. While any clip is open there are no errors, because that client
        takes the first one for the end of the whole task; and a failure is open until the last look at it.
        """
        found = self._found(caller, task_uuid)
        if found is None:
            return [], [(404, not_found(task_uuid))]
        task, about = found.task, {"taskType": "videoInference", "taskUUID": found.task.task_uuid}
        if not task.request:
            return [], [(404, {**_GONE, **about})]
        data = [{**about, "status": "success", **self._result(task, clip)} for clip in found.clips if is_visible(clip)]
        if any(clip.open for clip in found.clips):
            return [*data, {**about, "status": "processing"}], []
        errors = [{**fault, "status": "error", **about} for clip in found.clips for fault in _faults(clip)]
        return data, [(200, error) for error in errors]

    def _found(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        """Nothing but a UUID becomes part of a key."""
        name = task_uuid.lower()
        return self.table.get_task_with_clips(caller, name) if UUID4.fullmatch(name) else None

    def _told(self, found: TaskWithClips, *, whole: bool = False) -> Json:
        task, clips = found.task, found.clips
        return {
            "taskUUID": task.task_uuid,
            "status": task_status(clips),
            "createdAt": iso(task.created_at),
            "request": dict(task.request),
            "cost": dollars(sum(clip.budgeted for clip in clips)),
            "clips": [self._clip(task, clip, whole) for clip in clips],
        }

    def _clip(self, task: Task, clip: Clip, whole: bool) -> Json:
        fault = next(_faults(clip), None)
        newest = max((at for known in clip.facts.values() for at in known.seen.values()), default=None)
        optional = {
            "updatedAt": _iso(newest),
            "nextCheckAt": _iso(clip.next_check_at if clip.open else None),
            **render(clip),
            **self._copy(task, clip),
            "error": {"code": fault["code"], "message": fault["message"]} if fault else None,
            "possiblySentAt": _iso(clip.possibly_sent_at) if whole else None,
            "timeline": timeline(clip) if whole else None,
        }
        return {
            "clip": clip.index,
            "status": clip.status,
            "open": clip.open,
            "cost": dollars(clip.budgeted),
            "objectKey": clip.object_key,
            "clipUUID": clip.clip_uuid,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _copy(self, task: Task, clip: Clip) -> Json:
        """The pinned version and links to it. Once the request is gone the objects are, too, or soon will be."""
        if clip.copy is None:
            return {}
        version, known = clip.copy
        container = known.fields.get("container")
        pinned = {"size": known.fields.get("size"), "container": container, "versionId": version}
        if not task.request:
            return pinned
        seconds = self._lifetime(task)
        return pinned | {
            "videoURL": self.links.download_link(clip.object_key, seconds, version, str(container or "")),
            "manifestURL": self.links.download_link(manifest_key(clip), seconds),
        }

    def _result(self, task: Task, clip: Clip) -> Json:
        """A stored clip as Runware tells it. Without a render's details our own UUID stands for the video's."""
        known = {"videoUUID": clip.clip_uuid, **render(clip)}
        cost = {"cost": dollars(clip.budgeted)} if task.request.get("includeCost") is True else {}
        return {**known, "videoURL": self._copy(task, clip)["videoURL"], **cost}

    def _lifetime(self, task: Task) -> int:
        """Of a link, in seconds. The caller's own `ttl` makes it shorter."""
        most = min(_LINK, self.times.deadline) // 1000
        ttl = task.request.get("ttl")
        return max(1, min(most, ttl) if isinstance(ttl, int) else most)


def read_query(parameters: Mapping[str, str], caller: str) -> Query | list[WireError]:
    """What `GET /tasks` is asked for, or all of its faults."""
    values, faults = _read(parameters, caller, _OF_TASKS)
    return faults or Query(**values)


def read_costs_query(parameters: Mapping[str, str], caller: str, today: str) -> CostsQuery | list[WireError]:
    """What `GET /costs` is asked for, or all of its faults: this month's until `today`, unless it says otherwise."""
    values, faults = _read(parameters, caller, _OF_COSTS)
    query = CostsQuery(**{"since": f"{today[: len('yyyy-mm')]}-01", "until": today, **values})
    if not faults and query.until < query.since:
        # The usual beginning is the month's, whatever the end.
        faults.append(wire_error("invalidUntil", f"until must not be before {query.since}.", "until", type="string"))
    return faults or query


def _read(parameters: Mapping[str, str], caller: str, known: "_Parameters") -> tuple[Json, list[WireError]]:
    """The values that parameters have, by the fields they are for, and what is wrong with the others."""
    values: Json = {}
    faults = []
    for name, text in parameters.items():
        if name not in known:
            message = f"{name[:100]} is not a parameter here; there are {', '.join(known)}."
            faults.append(wire_error("unsupportedParameter", message, name[:100]))
            continue
        try:
            field, value = known[name](text, caller)
            values[field] = value
        except UnreadableError as error:
            code = f"invalid{name[:1].upper()}{name[1:]}"
            faults.append(wire_error(code, str(error), name, type="integer" if name == "limit" else "string"))
    return values, faults


def cursor(caller: str, position: str) -> str:
    """A position in a caller's list as an opaque text.

    The mark keeps nothing secret: it tells a cursor that was cut, altered or handed out to somebody else.
    """
    return base64.urlsafe_b64encode(_mark(caller, position) + position.encode()).decode().rstrip("=")


def position_of(text: str, caller: str) -> str:
    """The position behind a cursor of this caller; raises `UnreadableError` for any other text."""
    try:
        if not text.isascii() or len(text) > 200:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = raw[_MARK_BYTES:].decode()
        if raw[:_MARK_BYTES] != _mark(caller, position):
            raise ValueError
    except (ValueError, binascii.Error):
        raise UnreadableError("The cursor is not one that this list gave out.") from None
    return position


def not_found(task_uuid: str) -> WireError:
    """The one answer for a task that is unknown, somebody else's, or no UUID at all."""
    named = {"taskUUID": task_uuid.lower()} if UUID4.fullmatch(task_uuid.lower()) else {}
    return wire_error("taskNotFound", "You have no task under this UUID.", "taskUUID", **named)


def is_visible(clip: Clip) -> bool:
    """Whether a poll may give this clip out: it is stored, and what it is called will not change any more."""
    return clip.status == Status.STORED and not clip.open


def _faults(clip: Clip) -> Iterator[WireError]:
    """Why a clip is not stored, or nothing. Texts of the provider's were scrubbed when they were learned."""
    match clip.decisive:
        case Kind.REFUSED:
            yield from (error for _, error in facts.refusals([clip]))
        case Kind.FAILED | Kind.GIVEN_UP:
            code, known = min(clip.of(Kind.FAILED).items(), key=lambda item: (item[1].at, item[0]))
            error = {} if is_account_failure(known.fields) else json.loads(str(known.fields.get("error", "{}")))
            yield error | {"code": code, "message": failure_reason(known.fields)}
        case Kind.UNPROVEN:
            yield dict(_UNPROVEN)
        case Kind.UNSAVED:
            yield dict(_UNSAVED)


def _iso(at: int | None) -> str | None:
    return None if at is None else iso(at)


def _mark(caller: str, position: str) -> bytes:
    return hashlib.sha256(f"{caller} {position}".encode()).digest()[:_MARK_BYTES]


def _limit(most: int) -> "_Parameter":
    def read(text: str, _: str) -> tuple[str, int]:
        if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= most):
            raise UnreadableError(f"limit must be a whole number from 1 to {most}.")
        return "limit", int(text)

    return read


def _status(text: str, _: str) -> tuple[str, str]:
    if text not in TASK_STATUSES:
        raise UnreadableError(f"status must be one of {', '.join(TASK_STATUSES)}.")
    return "status", text


def _day(name: str) -> "_Parameter":
    def read(text: str, _: str) -> tuple[str, str]:
        try:
            if not _DAY.fullmatch(text):
                raise ValueError
            date.fromisoformat(text)
        except ValueError:
            raise UnreadableError(f"{name} must be a day (UTC) as yyyy-mm-dd.") from None
        return name, text

    return read


def _midnight(day: str) -> int:
    """When a day begins, in milliseconds."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def _tag(text: str, _: str) -> tuple[str, tuple[str, str]]:
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise UnreadableError("tag must be name:value.")
    return "tag", (name, value)


def _cursor(text: str, caller: str) -> tuple[str, str]:
    return "after", position_of(text, caller)


_Parameter = Callable[[str, str], tuple[str, Any]]
_Parameters = Mapping[str, _Parameter]
_OF_TASKS: _Parameters = {
    "limit": _limit(MAX_TASKS),
    "cursor": _cursor,
    "status": _status,
    "day": _day("day"),
    "tag": _tag,
}
_OF_COSTS: _Parameters = {
    "since": _day("since"),
    "until": _day("until"),
    "limit": _limit(MAX_COSTS),
    "cursor": _cursor,
}
_UNPROVEN = wire_error(
    "purchaseUnproven",
    "It could not be proven in time what became of this clip, which may have been bought. Do not submit it again: a "
    "person looks into it, and it is told here if it turns up.",
)
_UNSAVED = wire_error(
    "clipNotSaved",
    "This clip was bought and rendered, and its video could not be brought into the bucket. Do not submit it again: a "
    "person looks into it.",
)
_GONE = wire_error("taskExpired", "This task's request and clips are no longer kept.", "taskUUID")

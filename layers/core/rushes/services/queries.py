"""The use cases behind `GET /tasks`, `/costs`, `/budget` and `getResponse`: a caller's view of its own tasks.

Everything is read under the caller's own name, so another caller's task is not found. The views have money in dollars,
times in ISO 8601, and short-lived links to the pinned object versions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from rushes.domain.budget import ALL_CALLERS, month_of
from rushes.domain.caller import Caller
from rushes.domain.clip import SLOTS, Clip, Kind, Status
from rushes.domain.failure import failure_reason, is_account_failure
from rushes.domain.formats import UUID4, dollars, iso
from rushes.domain.task import Task, TaskWithClips, task_status
from rushes.domain.timings import Timings
from rushes.domain.views import SEED_TEXT, Json, attempt_view, manifest_key, render, timeline
from rushes.errors import UnreadableError
from rushes.runware import facts
from rushes.runware import models as catalog
from rushes.runware.wire import WireError, wire_error

if TYPE_CHECKING:
    from rushes.services.ports import ClipObjects, TaskQueries

MAX_TASKS = 100
USUAL_TASKS = 20
MAX_COSTS = 1000
MIN_PREFIX = 4  # characters of a taskUUID
TASK_STATUSES = (Status.RUNNING, Status.REVIEW, Status.SUCCEEDED, Status.FAILED, Status.PARTIAL, Status.ERASED)
_LINK_LIFETIME = 3_600_000  # milliseconds; the bucket's policy refuses links that are older than the deadline
_MAX_PAGE_BYTES = 4 * 1024 * 1024  # bytes of JSON; Lambda's responses are limited to 6 MB
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_TAG_SEPARATOR = re.compile(r"[:=]")
_MAX_SEARCH = 200  # characters
_CHECKSUM_BYTES = 6
_ANY_UUID = "00000000-0000-4000-8000-000000000000"
_ONE_DAY = 86_400_000  # milliseconds


class Query(NamedTuple):
    """The parameters of `GET /tasks`.

    `after` is a position in the caller's list; `tag` is a name and a value; `prefix` is the beginning of a taskUUID;
    `prompt` is a text to search for, in its folded form.
    """

    limit: int = USUAL_TASKS
    after: str | None = None
    status: str | None = None
    day: str = ""
    tag: tuple[str, str] | None = None
    prefix: str = ""
    prompt: str = ""

    @property
    def is_filtered(self) -> bool:
        """True if a page may lack some of the tasks that were read for it."""
        return bool(self.status or self.tag or self.prompt)

    def matches(self, found: TaskWithClips) -> bool:
        """True if a task passes the filters by status, tag and prompt, which the table does not apply."""
        if self.status and task_status(found.clips) != self.status:
            return False
        if self.prompt and self.prompt not in folded(str(found.task.request.get("positivePrompt", ""))):
            return False
        tags = found.task.request.get("tags") or {}
        return self.tag is None or tags.get(self.tag[0]) == self.tag[1]


class CostsQuery(NamedTuple):
    """The parameters of `GET /costs`: the first and the last day (`yyyy-mm-dd`, UTC), both included."""

    since: str
    until: str
    limit: int = MAX_COSTS
    after: str | None = None

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last millisecond of these days."""
        return _midnight(self.since), _midnight(self.until) + _ONE_DAY - 1


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class QueryService:
    """The use cases with their adapters. `clock` gives milliseconds.

    `monthly_limit` is that of all callers together, in micro-dollars; only `budget` needs it.
    """

    table: TaskQueries
    links: ClipObjects
    times: Timings
    clock: Callable[[], int]
    monthly_limit: int | None = None

    def tasks(self, caller: Caller, parameters: Mapping[str, str]) -> Json | list[WireError]:
        """A page of a caller's tasks, newest first, or the errors of the parameters.

        The filters apply within a page, and a page is limited in bytes: so it may be short or even empty and still have
        a cursor. With a filter, `searched` is the number of tasks that were read for the page.
        """
        query = read_query(parameters, caller.name)
        if not isinstance(query, Query):
            return query
        try:
            page = self.table.page(caller.name, query.limit, after=query.after, day=query.day, prefix=query.prefix)
        except UnreadableError as error:
            return [wire_error("invalidCursor", str(error), "cursor", type="string")]
        views: list[Json] = []
        end, bytes_left = page.end, _MAX_PAGE_BYTES
        searched = len(page.found)
        for number, found in enumerate(page.found, 1):
            if not query.matches(found):
                continue
            view = self._task_view(found)
            bytes_left -= len(json.dumps(view, ensure_ascii=False).encode())
            views.append(view)
            if bytes_left < 0 and found is not page.found[-1]:
                end, searched = found.position, number
                break
        return {
            "tasks": views,
            **({"searched": searched} if query.is_filtered else {}),
            **({"cursor": cursor(caller.name, end)} if end else {}),
        }

    def task(self, caller: Caller, task_uuid: str) -> Json | None:
        """One of a caller's tasks with the timeline of each clip; None if the caller has no task with this UUID.

        A task that has or had a receiver has the attempts at its deliveries, oldest first.
        """
        found = self._find(caller.name, task_uuid)
        if found is None:
            return None
        view = self._task_view(found, with_timeline=True)
        if found.task.webhook_url or task_status(found.clips) == Status.ERASED:  # an erasure removes the receiver
            attempts = self.table.attempts(caller.name, found.task.task_uuid)
            view["webhooks"] = [attempt_view(attempt) for attempt in attempts]
        return view

    def costs(self, caller: Caller, parameters: Mapping[str, str]) -> Json | list[WireError]:
        """A page of the costs of a caller's clips in dollars, newest first, or the errors of the parameters.

        Each clip has one line with its model and tags, by which the caller can sum. A page may be short and still have
        a cursor.
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
                "clip": cost.index % SLOTS,
                "createdAt": iso(cost.created_at),
                "cost": dollars(cost.budgeted),
                **({"model": cost.model} if cost.model else {}),
                **({"tags": dict(cost.tags)} if cost.tags else {}),
            }
            for cost in page.found
        ]
        return {"costs": lines, **({"cursor": cursor(caller.name, page.end)} if page.end else {})}

    def budget(self, caller: Caller) -> Json:
        """A caller's spending and limit of this month, and the amount that it may still spend, in dollars.

        That amount is the smaller rest of two limits: the caller's, and the one of all callers together, which itself
        is not included, because callers may not see it.
        """
        month = month_of(self.clock())
        spent, _ = self.table.budget(caller.name, month)
        left = caller.monthly_limit - spent
        if self.monthly_limit is not None:
            left = min(left, self.monthly_limit - self.table.budget(ALL_CALLERS, month)[0])
        return {
            "month": month,
            "spent": dollars(spent),
            "limit": dollars(caller.monthly_limit),
            "left": dollars(max(0, left)),
        }

    def poll(self, caller: str, task_uuid: str) -> tuple[list[Json], list[tuple[int, WireError]]]:
        """The response to `getResponse` for a task: items of `data`, and errors with their HTTP statuses.

        The response is cumulative: it has every stored clip each time, always with the same `videoUUID`, by which the
        official client distinguishes clips. While any clip is open there are no errors, because that client takes the
        first error for the end of the whole task. A failed clip is open until its last look.
        """
        found = self._find(caller, task_uuid)
        if found is None:
            return [], [(404, not_found(task_uuid))]
        task, about = found.task, {"taskType": "videoInference", "taskUUID": found.task.task_uuid}
        if task_status(found.clips) == Status.ERASED:
            return [], [(404, {**_ERASED, **about})]
        if not task.request:
            return [], [(404, {**_EXPIRED, **about})]
        outcomes = [self.outcome(task, clip) for clip in found.current]
        data = [item for items, _ in outcomes for item in items]
        if any(clip.open or clip.is_superseded for clip in found.current):
            return [*data, {**about, "status": "processing"}], []
        return data, [(200, error) for _, errors in outcomes for error in errors]

    def outcome(self, task: Task, clip: Clip) -> tuple[list[Json], list[WireError]]:
        """A clip's item of `data` if it is stored, and its errors if it is not, in Runware's format."""
        about = {"taskType": "videoInference", "taskUUID": task.task_uuid}
        data = [{**about, "status": "success", **self._result(task, clip)}] if is_visible(clip) else []
        return data, [{**error, "status": "error", **about} for error in _clip_errors(clip)]

    def _find(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        """The caller's task. Only a valid UUID becomes part of a table key."""
        name = task_uuid.lower()
        return self.table.get_task_with_clips(caller, name) if UUID4.fullmatch(name) else None

    def _task_view(self, found: TaskWithClips, *, with_timeline: bool = False) -> Json:
        task, clips = found.task, found.clips
        status = task_status(clips)
        erased_at = max(clip.erased_at or 0 for clip in clips)
        return {
            "taskUUID": task.task_uuid,
            "status": status,
            **({"erasedAt": iso(erased_at)} if status == Status.ERASED else {}),
            "createdAt": iso(task.created_at),
            "request": dict(task.request),
            "cost": dollars(sum(clip.budgeted for clip in clips)),
            "clips": [self._slot_view(found, clip, with_timeline) for clip in found.current],
        }

    def _slot_view(self, found: TaskWithClips, clip: Clip, with_timeline: bool) -> Json:
        """The view of a slot's clip, with those of the superseded clips before it as its `chain`."""
        earlier = [each for each in found.clips if each.slot == clip.slot and each is not clip]
        view = self._clip_view(found.task, clip, with_timeline)
        return view | (
            {"chain": [self._clip_view(found.task, each, with_timeline) for each in earlier]} if earlier else {}
        )

    def _clip_view(self, task: Task, clip: Clip, with_timeline: bool) -> Json:
        # While the next model's clip may follow, a failed clip is running.
        has_error = not clip.erased_at and clip.status != Status.RUNNING
        error = next(_clip_errors(clip), None) if has_error else None
        newest = max((at for record in clip.facts.values() for at in record.seen.values()), default=None)
        optional = {
            "updatedAt": _iso(newest),
            "erasedAt": _iso(clip.erased_at),
            "nextCheckAt": _iso(clip.next_check_at if clip.open else None),
            **render(clip),
            **self._copy_view(task, clip),
            "error": {"code": error["code"], "message": error["message"]} if error else None,
            "possiblySentAt": _iso(clip.possibly_sent_at) if with_timeline else None,
            "timeline": timeline(clip) if with_timeline else None,
        }
        return {
            "clip": clip.slot,
            **({"model": clip.chain.model} if clip.chain else {}),
            "status": clip.status,
            "open": clip.open,
            "cost": dollars(clip.budgeted),
            "objectKey": clip.object_key,
            "clipUUID": clip.clip_uuid,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _copy_view(self, task: Task, clip: Clip) -> Json:
        """The pinned object version, with links to it while the request exists: the objects expire with the request."""
        if clip.copy is None:
            return {}
        version, record = clip.copy
        container = record.fields.get("container")
        pinned = {"size": record.fields.get("size"), "container": container, "versionId": version}
        if not task.request:
            return pinned
        seconds = self._link_seconds(task)
        return pinned | {
            "videoURL": self.links.download_link(clip.object_key, seconds, version, str(container or "")),
            "manifestURL": self.links.download_link(manifest_key(clip), seconds),
        }

    def _result(self, task: Task, clip: Clip) -> Json:
        """A stored clip in Runware's format. Without the render's details, the clipUUID stands for the `videoUUID`."""
        details = {"videoUUID": clip.clip_uuid, **render(clip)}
        details.pop(SEED_TEXT, None)  # not in Runware's format
        cost = {"cost": dollars(clip.budgeted)} if task.request.get("includeCost") is True else {}
        return {**details, "videoURL": self._copy_view(task, clip)["videoURL"], **cost}

    def _link_seconds(self, task: Task) -> int:
        """The lifetime of a link in seconds; the caller's own `ttl` shortens it."""
        longest = min(_LINK_LIFETIME, self.times.deadline) // 1000
        ttl = task.request.get("ttl")
        return max(1, min(longest, ttl) if isinstance(ttl, int) else longest)


def read_query(parameters: Mapping[str, str], caller: str) -> Query | list[WireError]:
    """The query of `GET /tasks`, or all errors of its parameters."""
    values, errors = _read(parameters, caller, _TASKS_PARAMETERS)
    return errors or Query(**values)


def read_costs_query(parameters: Mapping[str, str], caller: str, today: str) -> CostsQuery | list[WireError]:
    """The query of `GET /costs`, or all errors of its parameters. The default is this month until `today`."""
    values, errors = _read(parameters, caller, _COSTS_PARAMETERS)
    query = CostsQuery(**{"since": f"{today[: len('yyyy-mm')]}-01", "until": today, **values})
    if not errors and query.until < query.since:
        # Also if only `until` is given: `since` defaults to this month's first day.
        errors.append(wire_error("invalidUntil", f"until must not be before {query.since}.", "until", type="string"))
    return errors or query


def _read(parameters: Mapping[str, str], caller: str, readers: _Parameters) -> tuple[Json, list[WireError]]:
    """The values of the valid parameters by field name, and the errors of the others."""
    values: Json = {}
    errors = []
    for name, text in parameters.items():
        if name not in readers:
            message = f"{name[:100]} is not a parameter here; the parameters are {', '.join(readers)}."
            errors.append(wire_error("unsupportedParameter", message, name[:100]))
            continue
        try:
            field, value = readers[name](text, caller)
            values[field] = value
        except UnreadableError as error:
            code = f"invalid{name[:1].upper()}{name[1:]}"
            errors.append(wire_error(code, str(error), name, type="integer" if name == "limit" else "string"))
    return values, errors


def cursor(caller: str, position: str) -> str:
    """A position in a caller's list as an opaque text.

    The checksum protects no secret: it detects a cursor that was cut, altered or made for another caller.
    """
    return base64.urlsafe_b64encode(_checksum(caller, position) + position.encode()).decode().rstrip("=")


def position_of(text: str, caller: str) -> str:
    """The position in a cursor of this caller; raises `UnreadableError` for any other text."""
    try:
        if not text.isascii() or len(text) > 200:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = raw[_CHECKSUM_BYTES:].decode()
        if raw[:_CHECKSUM_BYTES] != _checksum(caller, position):
            raise ValueError
    except (ValueError, binascii.Error):
        raise UnreadableError("cursor must be one from the previous page of this list.") from None
    return position


def models() -> Json:
    """The files of the catalog: what can be ordered, and at which prices."""
    return {"models": [catalog.content(air) for air in catalog.identifiers()]}


def not_found(task_uuid: str) -> WireError:
    """The error for a task that does not exist, belongs to another caller, or has an invalid UUID."""
    task_name = {"taskUUID": task_uuid.lower()} if UUID4.fullmatch(task_uuid.lower()) else {}
    return wire_error("taskNotFound", "You have no task with this UUID.", "taskUUID", **task_name)


def is_visible(clip: Clip) -> bool:
    """True if a poll may return this clip: it is stored, and its `videoUUID` is final."""
    return clip.status == Status.STORED and not clip.open


def _clip_errors(clip: Clip) -> Iterator[WireError]:
    """The reasons why a clip is not stored; none if it is. Secrets were removed from Runware's texts on arrival."""
    if clip.erased_at:
        yield dict(_ERASED)
        return
    match clip.decisive:
        case Kind.REFUSED:
            yield from (error for _, error in facts.refusal_responses([clip]))
        case Kind.FAILED | Kind.GIVEN_UP:
            code, record = min(clip.of(Kind.FAILED).items(), key=lambda item: (item[1].at, item[0]))
            error = {} if is_account_failure(record.fields) else json.loads(str(record.fields.get("error", "{}")))
            yield error | {"code": code, "message": failure_reason(record.fields)}
        case Kind.UNPROVEN:
            yield dict(_UNPROVEN)
        case Kind.UNSAVED:
            yield dict(_UNSAVED)


def _iso(at: int | None) -> str | None:
    return None if at is None else iso(at)


def _checksum(caller: str, position: str) -> bytes:
    return hashlib.sha256(f"{caller} {position}".encode()).digest()[:_CHECKSUM_BYTES]


def _limit(maximum: int) -> _Parameter:
    def read(text: str, _: str) -> tuple[str, int]:
        if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= maximum):
            raise UnreadableError(f"limit must be a whole number from 1 to {maximum}.")
        return "limit", int(text)

    return read


def _status(text: str, _: str) -> tuple[str, str]:
    if text not in TASK_STATUSES:
        raise UnreadableError(f"status must be one of {', '.join(TASK_STATUSES)}.")
    return "status", text


def _day(name: str) -> _Parameter:
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
    """The beginning of a day (UTC), in milliseconds since the epoch."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def _tag(text: str, _: str) -> tuple[str, tuple[str, str]]:
    name, *value = _TAG_SEPARATOR.split(text, maxsplit=1)  # names have neither sign
    if not (name and value):
        raise UnreadableError("tag must be name:value or name=value.")
    return "tag", (name, value[0])


def _prompt(text: str, _: str) -> tuple[str, str]:
    if not folded(text) or len(text) > _MAX_SEARCH:
        raise UnreadableError(f"prompt must be a text of 1 to {_MAX_SEARCH} characters that is not blank.")
    return "prompt", folded(text)


def folded(text: str) -> str:
    """A text for a search that ignores case, composition of characters and runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _prefix(text: str, _: str) -> tuple[str, str]:
    prefix = text.lower()
    if len(prefix) < MIN_PREFIX or not UUID4.fullmatch(prefix + _ANY_UUID[len(prefix) :]):
        raise UnreadableError(f"prefix must be the first {MIN_PREFIX} or more characters of a taskUUID.")
    return "prefix", prefix


def _cursor(text: str, caller: str) -> tuple[str, str]:
    return "after", position_of(text, caller)


_Parameter = Callable[[str, str], tuple[str, Any]]
_Parameters = Mapping[str, _Parameter]
_TASKS_PARAMETERS: _Parameters = {
    "limit": _limit(MAX_TASKS),
    "cursor": _cursor,
    "status": _status,
    "day": _day("day"),
    "tag": _tag,
    "prompt": _prompt,
    "prefix": _prefix,
}
_COSTS_PARAMETERS: _Parameters = {
    "since": _day("since"),
    "until": _day("until"),
    "limit": _limit(MAX_COSTS),
    "cursor": _cursor,
}
_UNPROVEN = wire_error(
    "purchaseUnproven",
    "This clip may have been bought, but that could not be proven by the deadline. Do not submit it again: an operator "
    "decides about it, and a poll returns it if it is found.",
)
_UNSAVED = wire_error(
    "clipNotSaved",
    "This clip was bought and rendered, but its video could not be stored in the bucket. Do not submit it again: an "
    "operator decides about it.",
)
_ERASED = wire_error("taskErased", "This task was erased: its request and clips were deleted.", "taskUUID")
_EXPIRED = wire_error("taskExpired", "This task's request and clips are no longer kept.", "taskUUID")

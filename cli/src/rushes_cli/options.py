"""Options that several verbs share, and functions that parse them."""

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Annotated, Any

import typer

from rushes_cli import completing, profiles
from rushes_cli.api_client import ApiClient, Filters
from rushes_cli.exits import CommandError, UsageError
from rushes_cli.output import Screen, parse_time, plain, prompt_of, shorten
from rushes_cli.task_files import split_tag

Json = dict[str, Any]

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", "-p", help="The profile of the configuration to use; local is the local stack.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Confirmed = Annotated[bool, typer.Option("--yes", "-y", help="Do it without a confirmation.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Buy without a confirmation.")]
Stack = Annotated[
    str | None,
    typer.Option("--stack", "-s", help="The name of the deployed stack.", show_default=False),
]
TASK_HELP = "taskUUID, or its first characters, at least four, if no other task has them"
TaskUUID = Annotated[
    str,
    typer.Argument(
        metavar="TASK", help=f"The task's {TASK_HELP}.", show_default=False, autocompletion=completing.recent_tasks
    ),
]
Status = Annotated[
    str | None,
    typer.Option(
        help="Only tasks with this status: running, review, succeeded, failed, partial or erased.",
        autocompletion=completing.statuses,
    ),
]
Day = Annotated[str | None, typer.Option(help="Only tasks ordered on this day (UTC), such as 2026-11-24.")]
Since = Annotated[
    str | None,
    typer.Option(help="Only tasks ordered since this day or time (UTC), such as 2026-11-24 or 2026-11-24T18:30."),
]
Tag = Annotated[str | None, typer.Option(help="Only tasks with this tag, as name=value or name:value.")]

_MIN_PREFIX = 4  # characters, as in the service
WHOLE = 36  # characters of a taskUUID
MAX_CANDIDATES = 5  # of an ambiguous prefix, in its error


@contextmanager
def session(profile: str | None, *, as_json: bool) -> Iterator[tuple[Screen, ApiClient]]:
    """The screen and a client for the chosen service, which is closed at the end."""
    screen = Screen(as_json)
    service = ApiClient(profiles.choose(profile, os.environ, screen.warn), screen.warn)
    try:
        yield screen, service
    finally:
        service.close()


def task_uuid(text: str) -> str:
    """A taskUUID in lower case with hyphens. Raises `UsageError` if the text is not a UUID."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is not a taskUUID: it has to be a UUID") from None


def task_name(text: str) -> str:
    """A whole taskUUID or its first characters, in lower case with hyphens. Raises `UsageError` for other text."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{{_MIN_PREFIX},31}}", digits):
        raise UsageError(f"{text!r} is not a taskUUID, nor the first {_MIN_PREFIX} or more characters of one")
    groups = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(group for group in groups if group)


def whole_uuid(service: ApiClient, name: str) -> str:
    """The taskUUID that this name (see `task_name`) means to the service; a whole UUID needs no request.

    Raises `CommandError` if no task, and `UsageError` if several tasks begin with it.
    """
    if len(name) == WHOLE:
        return name
    found = service.tasks({"prefix": name}, MAX_CANDIDATES + 1)
    return only_candidate(name, [(str(task["taskUUID"]), prompt_of(task)) for task in found])


def only_candidate(name: str, candidates: Sequence[tuple[str, str]]) -> str:
    """The taskUUID of the only candidate, each of which has a UUID and a prompt. Raises as `whole_uuid`."""
    if not candidates:
        raise CommandError(f"There is no task whose taskUUID begins with {name}.")
    if len(candidates) > 1:
        listed = [f"  {each}  {shorten(plain(prompt), 40)}" for each, prompt in candidates[:MAX_CANDIDATES]]
        listed += ["  …"] if len(candidates) > MAX_CANDIDATES else []
        head = f"several taskUUIDs begin with {name}; use more characters of one of them:"
        raise UsageError("\n".join((head, *listed)))
    return candidates[0][0]


def require_task(service: ApiClient, text: str) -> Json:
    """The task with this name, with its clips' timelines. Raises `UsageError` or `CommandError` if there is not one."""
    return service.require_task(whole_uuid(service, task_name(text)))


def newest(service: ApiClient, filters: Filters, since: str | None, limit: int | None) -> Iterator[Json]:
    """The matching tasks, newest first, at most `limit`. The list of the service is read no further than `since`."""
    if since is None:
        return service.tasks(filters, limit)
    start = _time(since)
    recent = takewhile(lambda task: (parse_time(task.get("createdAt")) or start) >= start, service.tasks(filters))
    return islice(recent, limit)


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError("--since must be a day or a time (UTC), such as 2026-11-24 or 2026-11-24T18:30") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def filters(status: str | None = None, day: str | None = None, tag: str | None = None) -> Filters:
    """The query parameters for a list of tasks. Raises `UsageError` for an invalid value."""
    if status is not None and status not in completing.STATUSES:
        raise UsageError(f"--status must be one of {', '.join(completing.STATUSES)}")
    return {"status": status, "day": day, "tag": None if tag is None else ":".join(split_tag(tag))}

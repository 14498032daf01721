"""Options that several verbs share, and functions that parse them."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from rushes_cli import profiles
from rushes_cli.api_client import ApiClient, Filters
from rushes_cli.exits import UsageError
from rushes_cli.output import Screen
from rushes_cli.task_files import split_tag

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", "-p", help="The profile of the configuration to use; local is the local stack.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Buy without a confirmation.")]
Stack = Annotated[
    str | None,
    typer.Option("--stack", "-s", help="The name of the deployed stack.", show_default=False),
]
TaskUUID = Annotated[str, typer.Argument(metavar="TASK", help="The task's taskUUID.", show_default=False)]
Status = Annotated[
    str | None, typer.Option(help="Only tasks with this status: running, review, succeeded, failed or partial.")
]
Day = Annotated[str | None, typer.Option(help="Only tasks ordered on this day (UTC), such as 2026-11-24.")]
Tag = Annotated[str | None, typer.Option(help="Only tasks with this tag, as name=value or name:value.")]

STATUSES = ("running", "review", "succeeded", "failed", "partial")


@contextmanager
def session(profile: str | None, *, as_json: bool) -> Iterator[tuple[Screen, ApiClient]]:
    """The screen and a client for the chosen service, which is closed at the end."""
    screen = Screen(as_json)
    service = ApiClient(profiles.choose(profile, os.environ, screen.warn))
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


def filters(status: str | None = None, day: str | None = None, tag: str | None = None) -> Filters:
    """The query parameters for a list of tasks. Raises `UsageError` for an invalid value."""
    if status is not None and status not in STATUSES:
        raise UsageError(f"--status must be one of {', '.join(STATUSES)}")
    return {"status": status, "day": day, "tag": None if tag is None else ":".join(split_tag(tag))}

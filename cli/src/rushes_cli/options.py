"""Options that several verbs share, and what they lead to."""

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

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", "-p", help="Which service: a profile of the configuration, or local.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Buy without asking.")]
Stack = Annotated[
    str | None,
    typer.Option("--stack", "-s", help="The deployed stack; its outputs name table and bucket.", show_default=False),
]
TaskUUID = Annotated[str, typer.Argument(metavar="TASK", help="The task's taskUUID.", show_default=False)]
Status = Annotated[str | None, typer.Option(help="Only running, review, succeeded, failed or partial ones.")]
Day = Annotated[str | None, typer.Option(help="Only those ordered on this day (UTC), as 2026-11-24.")]
Tag = Annotated[str | None, typer.Option(help="Only those with this tag, as name=value.")]

STATUSES = ("running", "review", "succeeded", "failed", "partial")


@contextmanager
def session(profile: str | None, *, as_json: bool) -> Iterator[tuple[Screen, ApiClient]]:
    """What is written to, and the service that is meant."""
    screen = Screen(as_json)
    service = ApiClient(profiles.choose(profile, os.environ, screen.warn))
    try:
        yield screen, service
    finally:
        service.close()


def task_uuid(text: str) -> str:
    """A taskUUID as typed, in the service's spelling."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is not a taskUUID") from None


def filters(status: str | None = None, day: str | None = None, tag: str | None = None) -> Filters:
    """What narrows a list of tasks, as the service wants to be asked."""
    if status is not None and status not in STATUSES:
        raise UsageError(f"--status is one of {', '.join(STATUSES)}")
    name, separator, value = (tag or "").partition("=")
    if tag is not None and not (name and separator):
        raise UsageError("--tag is written as name=value")
    if ":" in name:  # the service would read another tag: it splits at the first colon
        raise UsageError("no tag's name holds a colon; --tag is written as name=value")
    return {"status": status, "day": day, "tag": f"{name}:{value}" if tag else None}

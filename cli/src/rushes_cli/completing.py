"""The shell's completion of values: statuses, and the taskUUIDs of recent tasks.

A completion must never disturb the line that is being typed: on any fault it offers nothing.
"""

import os
from contextlib import suppress

import typer

from rushes_cli import profiles
from rushes_cli.api_client import http_client
from rushes_cli.output import plain, prompt_of, short_id, shorten

_TIMEOUT = 2.0  # seconds
_MAX_TASKS = 50
STATUSES = ("running", "review", "succeeded", "failed", "partial", "erased")


def statuses(incomplete: str) -> list[str]:
    """The statuses of tasks that begin with this text."""
    return [status for status in STATUSES if status.startswith(incomplete)]


def recent_tasks(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The short taskUUIDs of recent tasks that begin with this text, each with its prompt; empty on any fault."""
    with suppress(Exception):
        target = profiles.choose(context.params.get("profile"), os.environ, lambda _: None)
        headers = {"Authorization": f"Bearer {target.api_key}"}
        with http_client(target, [target.url], base_url=target.url, headers=headers, timeout=_TIMEOUT) as http:
            tasks = http.get("/tasks", params={"limit": _MAX_TASKS}).json()["tasks"]
        uuids = [(short_id(task["taskUUID"]), shorten(plain(prompt_of(task)), 40)) for task in tasks]
        return [(uuid, prompt) for uuid, prompt in uuids if uuid.startswith(incomplete.lower())]
    return []

"""`watch`: shows tasks until every clip has a final status.

All state is in the service: a new watch continues an interrupted one, and a lost connection is retried.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from rushes_cli import completing
from rushes_cli.api_client import ApiClient
from rushes_cli.exits import CommandError, Exit, UnavailableError
from rushes_cli.options import TASK_HELP, AsJson, Profile, Tag, filters, session, task_name, whole_uuid
from rushes_cli.output import (
    TASK_COLUMNS,
    Screen,
    duration,
    micros,
    money,
    plain,
    task_row,
    terminal_table,
)

Json = dict[str, Any]

_FINAL = ("succeeded", "failed", "partial", "review", "erased")
_CONCURRENCY = 8  # simultaneous requests
_PAUSE = 1.0  # seconds between polls; grows while nothing changes
_MAX_PAUSE = 5.0
_MAX_ROWS = 25  # of the live table


def watch(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK",
            help=f"Each task's {TASK_HELP}. Without one, all running tasks.",
            show_default=False,
            autocompletion=completing.recent_tasks,
        ),
    ] = None,
    tag: Tag = None,
    timeout: Annotated[float, typer.Option(min=0, help="The maximum time to watch, in seconds.")] = 3600.0,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Watch tasks until every clip has a final status; without a TASK, all running tasks.

    Ending it is safe: start it again to continue. Lost connections are retried.

    A terminal shows a live table; other outputs get one line per change. --json prints a task as the service returns
    it, one per line, whenever its status or that of a clip changes.

    Ends with 0 if all tasks succeeded, 1 if a clip failed, is in review or was erased, 3 on a timeout.
    """
    with session(profile, as_json=as_json) as (screen, service):
        task_uuids = [whole_uuid(service, name) for name in map(task_name, tasks or [])]
        if not task_uuids:
            running = service.tasks(filters("running", tag=tag))
            task_uuids = [str(task["taskUUID"]) for task in running]
        if not task_uuids:
            screen.info("No running tasks.")
            return
        follow(screen, service, task_uuids, timeout)


def follow(screen: Screen, service: ApiClient, task_uuids: Sequence[str], timeout: float) -> None:
    """Shows these tasks until all have a final status. Raises `Exit` or `CommandError` unless all succeeded."""
    progress = TaskProgress(service, task_uuids)
    try:
        _follow(screen, progress, time.monotonic() + timeout)
    except KeyboardInterrupt:
        screen.info("The orders go on. `rushes watch` continues to watch them.")
        raise
    if not progress.is_over:
        raise CommandError(
            f"Timeout: {len(progress.open)} of {len(task_uuids)} tasks are still in progress. `rushes watch` continues "
            "to watch them.",
            Exit.TIMED_OUT,
        )
    others = [uuid for uuid, task in progress.latest.items() if task.get("status") != "succeeded"]
    if others:
        screen.info(f"The reasons: rushes explain {screen.id(others[0])}{' …' if len(others) > 1 else ''}")
        raise typer.Exit(Exit.FAILED)


def _follow(screen: Screen, progress: "TaskProgress", deadline: float) -> None:
    """Shows the tasks until all have a final status, or until the deadline."""
    with Live(console=screen.out, auto_refresh=True, refresh_per_second=4) if screen.is_live else _NoDisplay() as live:
        pause = _PAUSE
        while True:
            changed = progress.poll()
            if not screen.is_live:
                for task in changed:
                    _print_change(screen, task)
                if progress.is_new_problem:
                    screen.warn(f"{progress.problem} Retrying.")
            live.update(_live_table(progress))
            if progress.is_over or time.monotonic() >= deadline:
                break
            pause = _PAUSE if changed else min(pause * 1.2, _MAX_PAUSE)
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))


class TaskProgress:
    """The latest state of some tasks, and the problem of the last poll, if any."""

    def __init__(self, service: ApiClient, task_uuids: Sequence[str]) -> None:
        self._service = service
        self._uuids = list(dict.fromkeys(task_uuids))
        self.latest: dict[str, Json] = {}
        self.problem = ""
        self.is_new_problem = False
        self.started = time.monotonic()

    @property
    def open(self) -> list[str]:
        """The taskUUIDs without a final status."""
        return [each for each in self._uuids if self.latest.get(each, {}).get("status") not in _FINAL]

    @property
    def is_over(self) -> bool:
        """True if every task has a final status."""
        return not self.open

    def poll(self) -> list[Json]:
        """Reads every task without a final status; returns the tasks that changed."""
        before, self.problem = self.problem, ""
        with ThreadPoolExecutor(_CONCURRENCY) as executor:
            found = [task for task in executor.map(self._read, self.open) if task is not None]
        self.is_new_problem = bool(self.problem) and not before
        changed = [task for task in found if _state(task) != _state(self.latest.get(str(task["taskUUID"]), {}))]
        self.latest |= {str(task["taskUUID"]): task for task in found}
        return changed

    def _read(self, task_uuid: str) -> Json | None:
        try:
            return self._service.require_task(task_uuid)
        except UnavailableError as error:
            self.problem = str(error)
            return None


class _NoDisplay:
    """Replaces the live table without a terminal."""

    def __enter__(self) -> "_NoDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: object) -> None:
        pass


def _state(task: Json) -> tuple[object, ...]:
    return task.get("status"), *(clip.get("status") for clip in task.get("clips", []))


def _print_change(screen: Screen, task: Json) -> None:
    if screen.as_json:
        screen.print_json(task)
        return
    clips = " ".join(str(clip.get("status")) for clip in task.get("clips", []))
    screen.row((str(task["taskUUID"]), str(task.get("status")), clips, money(micros(task.get("cost")))))


def _live_table(progress: TaskProgress) -> Group:
    tasks = [progress.latest[each] for each in progress.latest]
    # Tasks in progress come first, so that a long list is cut after them.
    tasks.sort(key=lambda task: task.get("status") in _FINAL)
    clips = [clip for task in tasks for clip in task.get("clips", [])]
    stored = sum(clip.get("status") == "stored" for clip in clips)
    spent = money(sum(micros(task.get("cost")) for task in tasks))
    elapsed = duration(time.monotonic() - progress.started)
    footer = f"{stored} of {len(clips)} clips stored, {spent}, watched for {elapsed}"
    more = [Text(f"and {len(tasks) - _MAX_ROWS} more", "dim")] if len(tasks) > _MAX_ROWS else []
    problem = [Text(plain(progress.problem), "yellow")] if progress.problem else []
    table = terminal_table(TASK_COLUMNS, map(task_row, tasks[:_MAX_ROWS]))
    return Group(table, *more, Text(footer, "dim"), *problem)

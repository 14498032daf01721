"""`watch`: many tasks, live, until every clip is decided.

Everything that is known lies with the service, so a watch that was ended is taken up by starting another one, and one
that loses its connection goes on when the service answers again.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from rushes_cli.api_client import ApiClient
from rushes_cli.exits import CommandError, Exit, UnavailableError
from rushes_cli.options import AsJson, Profile, Tag, filters, session, task_uuid
from rushes_cli.output import Screen, age, clip_counts, drawn, micros, money, plain, prompt_of, short, span

Json = dict[str, Any]

_DECIDED = ("succeeded", "failed", "partial", "review")
_TOGETHER = 8  # questions at once
_PAUSE = 1.0  # seconds between looks; grows with the time that nothing has happened
_MAX_PAUSE = 5.0
_MAX_DETAILS_BYTES = 25  # rows of the live table; a screen ends somewhere


def watch(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", help="Their taskUUIDs; otherwise all that run now.", show_default=False),
    ] = None,
    tag: Tag = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to stay at most.")] = 3600.0,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Watch tasks until every clip is decided; without a TASK, all that are running.

    Nothing is lost by ending it: start it again and it takes up where things are then. It outlasts lost connections.

    On a terminal a table is kept up to date; elsewhere there is one line for each change. --json prints each task as
    the service tells it, one a line, whenever its status or that of a clip changes.

    Ends with 0 when all tasks succeeded, 1 when a clip failed or is in review, 3 when the time ran out.
    """
    with session(profile, as_json=as_json) as (screen, service):
        wanted = [task_uuid(each) for each in tasks or []]
        if not wanted:
            running = service.tasks(filters("running", tag=tag))
            wanted = [str(task["taskUUID"]) for task in running]
        if not wanted:
            screen.note("Nothing is running.")
            return
        follow(screen, service, wanted, timeout)


def follow(screen: Screen, service: ApiClient, task_uuids: Sequence[str], timeout: float) -> None:
    """Shows these tasks until all are decided; ends the command with what came of them if that is not success."""
    progress = TaskProgress(service, task_uuids)
    deadline = time.monotonic() + timeout
    with Live(console=screen.out, auto_refresh=True, refresh_per_second=4) if screen.is_live else _Nothing() as live:
        pause = _PAUSE
        while True:
            changed = progress.look()
            if not screen.is_live:
                for task in changed:
                    _tell(screen, task)
                if progress.news_of_trouble:
                    screen.warn(f"{progress.trouble} Trying again.")
            live.update(_picture(progress, screen.out.width))
            if progress.is_over or time.monotonic() >= deadline:
                break
            pause = _PAUSE if changed else min(pause * 1.2, _MAX_PAUSE)
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
    if not progress.is_over:
        raise CommandError(
            f"{len(progress.open)} of {len(task_uuids)} tasks are still on their way; watch again to go on.",
            Exit.TIMED_OUT,
        )
    if any(task.get("status") != "succeeded" for task in progress.seen.values()):
        raise typer.Exit(Exit.FAILED)


class TaskProgress:
    """What is known of some tasks, and what changed at the last look."""

    def __init__(self, service: ApiClient, task_uuids: Sequence[str]) -> None:
        self._service = service
        self._uuids = list(dict.fromkeys(task_uuids))
        self.seen: dict[str, Json] = {}
        self.trouble = ""
        self.news_of_trouble = False
        self.began = time.monotonic()

    @property
    def open(self) -> list[str]:
        """The tasks that are not decided yet."""
        return [each for each in self._uuids if self.seen.get(each, {}).get("status") not in _DECIDED]

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not self.open

    def look(self) -> list[Json]:
        """Asks about every task that is not decided; returns those of which something changed."""
        before, self.trouble = self.trouble, ""
        with ThreadPoolExecutor(_TOGETHER) as executor:
            found = [task for task in executor.map(self._ask, self.open) if task is not None]
        self.news_of_trouble = bool(self.trouble) and not before
        changed = [task for task in found if _state(task) != _state(self.seen.get(str(task["taskUUID"]), {}))]
        self.seen |= {str(task["taskUUID"]): task for task in found}
        return changed

    def _ask(self, task_uuid: str) -> Json | None:
        try:
            return self._service.known(task_uuid)
        except UnavailableError as error:
            self.trouble = str(error)
            return None


class _Nothing:
    """Stands in for the live table where there is no terminal."""

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: object) -> None:
        pass


def _state(task: Json) -> tuple[object, ...]:
    return task.get("status"), *(clip.get("status") for clip in task.get("clips", []))


def _tell(screen: Screen, task: Json) -> None:
    if screen.as_json:
        screen.out.file.write(json.dumps(task, ensure_ascii=False) + "\n")
        screen.out.file.flush()
        return
    clips = " ".join(str(clip.get("status")) for clip in task.get("clips", []))
    screen.row((str(task["taskUUID"]), str(task.get("status")), clips, money(micros(task.get("cost")))))


def _picture(progress: TaskProgress, width: int) -> Group:
    tasks = [progress.seen[each] for each in progress.seen]
    # What is still on its way comes first; a long list is cut where it is of least interest.
    tasks.sort(key=lambda task: task.get("status") in _DECIDED)
    rows = [
        (
            str(task["taskUUID"]),
            str(task.get("status")),
            clip_counts(task),
            money(micros(task.get("cost"))),
            age(task.get("createdAt")),
            short(plain(prompt_of(task)), 60),
        )
        for task in tasks[:_MAX_DETAILS_BYTES]
    ]
    clips = [clip for task in tasks for clip in task.get("clips", [])]
    stored = sum(clip.get("status") == "stored" for clip in clips)
    spent = money(sum(micros(task.get("cost")) for task in tasks))
    foot = f"{stored} of {len(clips)} clips stored, {spent}, watched for {span(time.monotonic() - progress.began)}"
    more = [Text(f"and {len(tasks) - _MAX_DETAILS_BYTES} more", "dim")] if len(tasks) > _MAX_DETAILS_BYTES else []
    trouble = [Text(plain(progress.trouble), "yellow")] if progress.trouble else []
    table = drawn(("task", "status", "clips", "cost", "age", "prompt"), rows, width)
    return Group(table, *more, Text(foot, "dim"), *trouble)

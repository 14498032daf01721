"""`list` and `show`: a caller's tasks, from the service."""

from typing import Annotated, Any

import typer

from rushes_cli.options import (
    AsJson,
    Day,
    Profile,
    Since,
    Status,
    Tag,
    TaskUUID,
    filters,
    newest,
    require_task,
    session,
)
from rushes_cli.output import Screen, micros, money, prompt_of, shorten

Json = dict[str, Any]

_SEPARATE = {"taskType", "taskUUID", "positivePrompt", "inputs"}  # shown elsewhere, or not at all


def list_tasks(
    status: Status = None,
    day: Day = None,
    since: Since = None,
    tag: Tag = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The maximum number of tasks.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="List all tasks, without a limit.")] = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """List your tasks, newest first.

    A terminal shows the beginning of each taskUUID, by which every verb finds the task. Other outputs get tab-separated
    lines with a header, the whole prompt and taskUUID, and the time of the order.

    --json prints {"tasks": [task]}, each as `show --json` prints it, but without the timelines.
    """
    with session(profile, as_json=as_json) as (screen, service):
        tasks = list(newest(service, filters(status, day, tag), since, None if every else limit))
        screen.print_json({"tasks": tasks})
        if not tasks:
            screen.info("No matching tasks.")
            return
        screen.tasks(tasks)


def show(task: TaskUUID, as_json: AsJson = False, profile: Profile = None) -> None:
    """Show one task: its request, and the status, cost and object key of each clip.

    --json prints the task as the service returns it: {"taskUUID", "status", "createdAt", "request", "cost", "clips":
    [{"clip", "status", "open", "cost", "objectKey", "clipUUID", "timeline", …}]}.
    """
    with session(profile, as_json=as_json) as (screen, service):
        found = require_task(service, task)
        screen.print_json(found)
        _describe(screen, found)


def _describe(screen: Screen, task: Json) -> None:
    request = task.get("request") or {}
    screen.print(prompt_of(task), "bold")
    screen.print(f"{screen.id(task['taskUUID'])}  {task['status']}  {money(micros(task.get('cost')))}")
    screen.print()
    details = {
        "task": str(task["taskUUID"]),
        "ordered": screen.time_of(task.get("createdAt")),
        **({"erased": screen.time_of(task["erasedAt"])} if task.get("erasedAt") else {}),
        **{name: _value(request[name]) for name in sorted(request.keys() - _SEPARATE)},
    }
    if request.get("inputs"):
        inputs = _value(request["inputs"])
        details["inputs"] = shorten(inputs, 100) if screen.out.is_terminal else inputs
    width = max(map(len, details))
    for name, value in details.items():
        screen.print(f"{name:<{width}}  {value}")
    screen.print()
    screen.table(
        ("clip", "status", "cost", "size", "seed", "object"),
        [
            (
                str(clip["clip"]),
                f"{clip['status']}{' NSFW' if clip.get('NSFWContent') else ''}",
                money(micros(clip.get("cost"))),
                screen.size(clip.get("size")),
                str(clip.get("seed", "-")),
                str(clip.get("objectKey", "-")),
            )
            for clip in task.get("clips", [])
        ],
    )
    for clip in task.get("clips", []):
        error = clip.get("error")
        if error:
            screen.print(f"clip {clip['clip']}: {error.get('code')}: {error.get('message')}", "red")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_value(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)

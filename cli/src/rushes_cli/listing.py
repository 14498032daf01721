"""`list` and `show`: what there is, as the service tells it."""

from typing import Annotated, Any

import typer

from rushes_cli.options import AsJson, Day, Profile, Status, Tag, TaskUUID, filters, session, task_uuid
from rushes_cli.output import Screen, age, clip_counts, clock, micros, money, plain, prompt_of, short, size

Json = dict[str, Any]

_APART = {"taskType", "taskUUID", "positivePrompt", "inputs"}  # said in other words, or not at all


def list_tasks(
    status: Status = None,
    day: Day = None,
    tag: Tag = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """List your tasks, newest first.

    --json prints {"tasks": [task]}, each as `show --json` prints it, but without the timelines.
    """
    with session(profile, as_json=as_json) as (screen, service):
        tasks = list(service.tasks(filters(status, day, tag), None if every else limit))
        screen.give({"tasks": tasks})
        if not tasks:
            screen.note("There are no such tasks.")
            return
        screen.table(
            ("task", "status", "clips", "cost", "age", "prompt"),
            [
                (
                    str(task["taskUUID"]),
                    str(task["status"]),
                    clip_counts(task),
                    money(micros(task.get("cost"))),
                    age(task.get("createdAt")),
                    short(plain(prompt_of(task)), 60),
                )
                for task in tasks
            ],
        )


def show(task: TaskUUID, as_json: AsJson = False, profile: Profile = None) -> None:
    """Show one task: what was asked for, where each clip stands, what it cost, where it lies.

    --json prints the task as the service tells it: {"taskUUID", "status", "createdAt", "request", "cost", "clips":
    [{"clip", "status", "open", "cost", "objectKey", "clipUUID", "timeline", …}]}.
    """
    with session(profile, as_json=as_json) as (screen, service):
        found = service.known(task_uuid(task))
        screen.give(found)
        _describe(screen, found)


def _describe(screen: Screen, task: Json) -> None:
    request = task.get("request") or {}
    screen.say(f"{task['taskUUID']}  {task['status']}  {money(micros(task.get('cost')))}", "bold")
    about = {
        "ordered": f"{clock(task.get('createdAt'))} ({age(task.get('createdAt'))} ago)",
        "prompt": prompt_of(task),
        **{name: _value(request[name]) for name in sorted(request.keys() - _APART)},
    }
    if request.get("inputs"):
        about["inputs"] = short(_value(request["inputs"]), 100)
    widest = max(map(len, about))
    for name, value in about.items():
        screen.say(f"{name:<{widest}}  {value}")
    screen.say()
    screen.table(
        ("clip", "status", "cost", "size", "seed", "object"),
        [
            (
                str(clip["clip"]),
                f"{clip['status']}{' NSFW' if clip.get('NSFWContent') else ''}",
                money(micros(clip.get("cost"))),
                size(clip.get("size")),
                str(clip.get("seed", "-")),
                str(clip.get("objectKey", "-")),
            )
            for clip in task.get("clips", [])
        ],
    )
    for clip in task.get("clips", []):
        error = clip.get("error")
        if error:
            screen.say(f"clip {clip['clip']}: {error.get('code')}: {error.get('message')}", "red")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_value(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)

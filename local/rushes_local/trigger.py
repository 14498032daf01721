"""`trigger`: what Runware might do, done on purpose to the local stack.

The callbacks are those that Runware was given: the emulator tells the address with its token for every clip. So the
real webhook function judges them, and a forged one is refused by the same check as any other.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import httpx
import typer

from rushes_cli import local_stack
from rushes_cli.api_client import ApiClient
from rushes_cli.exits import CommandError, NotAllowedError, UnavailableError, UsageError
from rushes_cli.options import AsJson, session, task_uuid
from rushes_cli.output import Screen
from rushes_cli.profiles import LOCAL

Json = dict[str, Any]

trigger = typer.Typer(no_args_is_help=True, help="Do to the local stack what Runware might do.")

_TIMEOUT = 15.0

# Faults of the emulator under names that say what happens; every switch works by its own name too.
FAULTS: Mapping[str, tuple[str, Json]] = {
    "webhook-lost": ("no webhook is ever called", {"webhook_copies": 0}),
    "webhook-twice": ("every webhook is called twice", {"webhook_copies": 2}),
    "webhook-late": ("webhooks come half a minute late", {"webhook_seconds": 30.0}),
    "webhook-early": ("the webhook comes before the acknowledgement", {"webhook_before_answer": True}),
    "upload-lost": ("nothing is uploaded", {"upload": "never"}),
    "upload-late": (
        "the upload comes after the webhook, half a minute late",
        {"upload": "after", "upload_seconds": 30.0},
    ),
    "upload-garbage": ("what is uploaded is no video", {"upload_content": "garbage"}),
    "upload-empty": ("what is uploaded is empty", {"upload_content": "empty"}),
    "answer-lost": ("orders are accepted, and the connection is cut before the answer", {"submit_cut": "after"}),
    "order-lost": ("the connection is cut before an order is accepted", {"submit_cut": "before"}),
    "busy": ("orders are answered 429", {"submit_status": 429}),
    "down": ("orders and polls are answered 503", {"submit_status": 503, "poll_status": 503}),
    "no-credit": ("orders are answered 402", {"submit_status": 402}),
    "moderated": ("renders are refused by moderation", {"failure": "invalidProviderContent"}),
    "flagged": ("results are flagged NSFW", {"result_nsfw": True}),
    "no-cost": ("results carry no cost", {"result_cost": False}),
    "deaf": (
        "no webhook, no upload, and polls err: only time passes",
        {"webhook_copies": 0, "upload": "never", "poll_status": 503},
    ),
}


class Callback(StrEnum):
    """The canned webhooks."""

    SUCCESS = "success"
    FAILURE = "failure"
    PROCESSING = "processing"
    DUPLICATE = "duplicate"
    LATE = "late"
    FORGED = "forged"


_MEANINGS = {
    Callback.SUCCESS: "Let a render finish that waits (`rushes dev --stepped`): upload and webhook, as from Runware.",
    Callback.FAILURE: "Report a failure of the clip's render.",
    Callback.PROCESSING: "Report progress, which changes nothing.",
    Callback.DUPLICATE: "Report a finished clip's success twice more, which changes nothing.",
    Callback.LATE: "Report a failure of a clip that has succeeded long ago, which changes nothing that counts.",
    Callback.FORGED: "Report a success with a token that is not the clip's, which is refused.",
}

Task = Annotated[
    str | None,
    typer.Argument(metavar="TASK", help="Whose clip; otherwise the newest that fits.", show_default=False),
]
Number = Annotated[int, typer.Option("--clip", min=0, help="Which clip of it.")]


def _verb(kind: Callback) -> None:
    def send(task: Task = None, clip: Number = 0, as_json: AsJson = False) -> None:
        _send(kind, task, clip, as_json=as_json)

    send.__doc__ = (
        f"{_MEANINGS[kind]}\n\n"
        '--json prints {"webhook", "taskUUID", "clip", "answers": [HTTP status], "before", "after": clip status}.'
    )
    trigger.command(kind.value)(send)


for _kind in Callback:
    _verb(_kind)


@trigger.command()
def fault(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="A fault of `rushes trigger faults`, or switch=value.", show_default=False),
    ],
    once: Annotated[bool, typer.Option("--once", help="For the next order only, and the tasks it starts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the emulated Runware misbehave, beside what it does already, until `rushes trigger heal`.

    --json prints every switch with its value, and "next_submissions".
    """
    wanted: Json = {}
    for name in names:
        wanted |= _switches(name)
    with _emulator() as http:
        now = _answered(http.get("/_emulator/faults"))
        changed = {**now, "next_submissions": [*now["next_submissions"], wanted]} if once else {**now, **wanted}
        answer = _answered(http.put("/_emulator/faults", json=changed))
    screen = Screen(as_json)
    screen.print_json(answer)
    screen.print("For the next order:" if once else "From now on:")
    for name, value in wanted.items():
        screen.print(f"  {name} = {value}")


@trigger.command()
def heal(as_json: AsJson = False) -> None:
    """Let the emulated Runware behave again.

    --json prints every switch with its value, and "next_submissions".
    """
    with _emulator() as http:
        answer = _answered(http.put("/_emulator/faults", json={}))
    screen = Screen(as_json)
    screen.print_json(answer)
    screen.print("Runware behaves.")


@trigger.command()
def faults(as_json: AsJson = False) -> None:
    """List the faults by name, and every switch of the emulated Runware.

    --json prints {"faults": {name: {"meaning", "switches"}}, "switches": {name: {"meaning", "default"}}}.
    """
    from rushes_local.runware.faults import Switches

    switches = {
        name: {"meaning": about.description, "default": about.default} for name, about in Switches.model_fields.items()
    }
    screen = Screen(as_json)
    named = {name: {"meaning": meaning, "switches": over} for name, (meaning, over) in FAULTS.items()}
    screen.print_json({"faults": named, "switches": switches})
    screen.table(("fault", "what happens"), [(name, meaning) for name, (meaning, _) in FAULTS.items()])
    screen.print()
    screen.table(
        ("switch", "default", "what it does"),
        [(name, str(about["default"]), str(about["meaning"])) for name, about in switches.items()],
    )


def _send(kind: Callback, task: str | None, clip: int, *, as_json: bool) -> None:
    with session(LOCAL, as_json=as_json) as (screen, service), _emulator() as http:
        known = _answered(http.get("/_emulator/tasks"))
        uuid, before, run = _chosen(service, known, kind, task, clip)
        if kind is Callback.SUCCESS and run["status"] == "processing":
            answers = [_finish(http, run)]
        else:
            answers = [_call(http, run, kind, body) for body in _bodies(kind, run)]
        after = _clip(service.require_task(uuid), clip)
        screen.print_json(
            {
                "webhook": kind,
                "taskUUID": uuid,
                "clip": clip,
                "answers": answers,
                "before": before["status"],
                "after": after["status"],
            }
        )
        screen.print(
            f"{kind} for {uuid}-{clip}: answered {', '.join(map(str, answers))}; "
            f"the clip was {before['status']} and is {after['status']}."
        )
        refused = any(answer >= 400 for answer in answers)
        if refused is not (kind is Callback.FORGED):
            raise CommandError("That is not how it should have been answered.")


def _chosen(
    service: ApiClient, known: Sequence[Json], kind: Callback, task: str | None, number: int
) -> tuple[str, Json, Json]:
    """A task of the caller's, its clip, and the emulator's run of that clip, fit for this webhook."""
    runs = {str(run["taskUUID"]).lower(): run for run in known}
    tasks = [service.require_task(task_uuid(task))] if task else service.tasks({}, 100)
    for each in tasks:
        clip = next((clip for clip in each.get("clips", []) if clip.get("clip") == number), None)
        run = runs.get(str(clip["clipUUID"]).lower()) if clip else None
        if clip and run and (task or _fits(kind, run)):
            if not _fits(kind, run):
                raise CommandError(f"Clip {number} does not fit: Runware has it as {run['status']}.")
            return str(each["taskUUID"]), clip, run
    raise CommandError("There is no clip that fits: order one with `rushes submit`.")


def _fits(kind: Callback, run: Mapping[str, Any]) -> bool:
    match kind:
        case Callback.DUPLICATE | Callback.LATE:
            return bool(run["results"])
        case Callback.PROCESSING | Callback.FAILURE:
            return bool(run["status"] == "processing")
    return True


def _bodies(kind: Callback, run: Mapping[str, Any]) -> list[Json]:
    about = {"taskType": "videoInference", "taskUUID": run["taskUUID"]}
    error = {**about, "code": "timeoutProvider", "message": "The provider did not finish in time (triggered)."}
    match kind:
        case Callback.SUCCESS | Callback.DUPLICATE:
            said = {"data": [{**result, "status": "success"} for result in run["results"]]}
            return [said] if kind is Callback.SUCCESS else [said, said]
        case Callback.FAILURE | Callback.LATE:
            return [{"data": [], "errors": [error]}]
        case Callback.PROCESSING:
            return [{"data": [{**about, "status": "processing"}]}]
    return [{"data": [{**about, "status": "success", "videoUUID": "forged", "videoURL": "http://127.0.0.1/forged"}]}]


def forged(url: str) -> str:
    """A callback's address with a signature that is certainly another one."""
    # The first character: two bits of the last one count for nothing, so that another letter may be the same signature.
    start, dot, signature = url.rpartition(".")
    return start + dot + ("B" if signature[0] == "A" else "A") + signature[1:]


def _call(http: httpx.Client, run: Mapping[str, Any], kind: Callback, body: Json) -> int:
    url = str(run["task"]["webhookURL"])
    if kind is Callback.FORGED:
        url = forged(url)
    try:
        return http.post(url, json=body).status_code
    except httpx.TransportError:
        raise UnavailableError("The webhook did not answer.") from None


def _finish(http: httpx.Client, run: Mapping[str, Any]) -> int:
    if not _answered(http.post("/_emulator/finish", json={"taskUUID": run["taskUUID"]}))["released"]:
        raise CommandError(
            "Runware renders it by itself here, and is about to finish. With `rushes dev --stepped` it waits for this."
        )
    return 200


def _switches(name: str) -> Json:
    """A fault by name, or one switch with a value in JSON."""
    if name in FAULTS:
        return FAULTS[name][1]
    switch, separator, text = name.partition("=")
    if not separator:
        raise UsageError(f"there is no fault {name}: `rushes trigger faults` lists them")
    try:
        return {switch: json.loads(text)}
    except ValueError:
        return {switch: text}


@contextmanager
def _emulator() -> Iterator[httpx.Client]:
    found = local_stack.find(os.environ)
    if found is None:
        raise NotAllowedError("No local stack is running: start one with `rushes dev`.")
    if not found.emulator_url:
        raise NotAllowedError("This local stack buys from Runware itself, which takes no orders to misbehave.")
    try:
        with httpx.Client(base_url=found.emulator_url, timeout=_TIMEOUT, trust_env=False) as http:
            yield http
    except httpx.TransportError:
        raise UnavailableError("The local stack does not answer. Is it about to end?") from None


def _answered(response: httpx.Response) -> Any:
    if response.status_code != 200:
        raise UsageError(str(response.json().get("error", response.status_code)))
    return response.json()


def _clip(task: Mapping[str, Any], number: int) -> Json:
    return next(clip for clip in task["clips"] if clip["clip"] == number)

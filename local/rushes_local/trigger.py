"""`rushes trigger`: sends webhooks to the local stack, and sets the emulator's faults.

The webhooks go to the callback URLs, with their tokens, that the emulator received with the orders. So the real webhook
function checks them, and refuses a forged one as it would in production.
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
from rushes_cli.options import AsJson, require_task, session
from rushes_cli.output import Screen
from rushes_cli.profiles import LOCAL

Json = dict[str, Any]

trigger = typer.Typer(no_args_is_help=True, help="Play Runware: send webhooks to the local stack, and inject faults.")

_TIMEOUT = 15.0

# Named sets of the emulator's switches, each with its description.
FAULTS: Mapping[str, tuple[str, Json]] = {
    "webhook-lost": ("no webhook is sent", {"webhook_copies": 0}),
    "webhook-twice": ("every webhook is sent twice", {"webhook_copies": 2}),
    "webhook-late": ("webhooks are half a minute late", {"webhook_seconds": 30.0}),
    "webhook-early": ("the webhook arrives before the acknowledgement", {"webhook_before_answer": True}),
    "upload-lost": ("nothing is uploaded", {"upload": "never"}),
    "upload-late": (
        "the upload follows the webhook, half a minute late",
        {"upload": "after", "upload_seconds": 30.0},
    ),
    "upload-garbage": ("the uploaded file is not a video", {"upload_content": "garbage"}),
    "upload-empty": ("the uploaded file is empty", {"upload_content": "empty"}),
    "answer-lost": ("orders are accepted, and the connection is cut before the answer", {"submit_cut": "after"}),
    "order-lost": ("the connection is cut before an order is accepted", {"submit_cut": "before"}),
    "busy": ("orders get status 429", {"submit_status": 429}),
    "down": ("orders and polls get status 503", {"submit_status": 503, "poll_status": 503}),
    "no-credit": ("orders get status 402", {"submit_status": 402}),
    "moderated": ("renders are refused by moderation", {"failure": "invalidProviderContent"}),
    "flagged": ("results are flagged NSFW", {"result_nsfw": True}),
    "no-cost": ("results have no cost", {"result_cost": False}),
    "deaf": (
        "no webhook, no upload, and polls get status 503",
        {"webhook_copies": 0, "upload": "never", "poll_status": 503},
    ),
}


class Callback(StrEnum):
    """The webhooks that can be sent."""

    SUCCESS = "success"
    FAILURE = "failure"
    PROCESSING = "processing"
    DUPLICATE = "duplicate"
    LATE = "late"
    FORGED = "forged"


_HELP = {
    Callback.SUCCESS: "Finish a render that waits (`rushes dev --stepped`): Runware uploads it and sends the webhook.",
    Callback.FAILURE: "Report a failure of a running clip.",
    Callback.PROCESSING: "Report progress of a running clip, which changes nothing.",
    Callback.DUPLICATE: "Report the success of a finished clip twice more, which changes nothing.",
    Callback.LATE: "Report a failure of a finished clip, which does not change its status.",
    Callback.FORGED: "Report a success with a forged token, which is refused.",
}

Task = Annotated[
    str | None,
    typer.Argument(metavar="TASK", help="The clip's task. Default: the newest suitable one.", show_default=False),
]
Number = Annotated[int, typer.Option("--clip", min=0, help="The clip's number within the task.")]


def _verb(kind: Callback) -> None:
    def send(task: Task = None, clip: Number = 0, as_json: AsJson = False) -> None:
        _send(kind, task, clip, as_json=as_json)

    send.__doc__ = (
        f"{_HELP[kind]}\n\n"
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
    once: Annotated[bool, typer.Option("--once", help="For the next order and its tasks only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Inject faults into the emulated Runware, in addition to those in effect, until `rushes trigger heal`.

    --json prints every switch with its value, and "next_submissions".
    """
    added: Json = {}
    for name in names:
        added |= _switches(name)
    with _emulator() as http:
        current = _read_json(http.get("/_emulator/faults"))
        one_shots = current["next_submissions"]
        changed = {**current, "next_submissions": [*one_shots, added]} if once else {**current, **added}
        answer = _read_json(http.put("/_emulator/faults", json=changed))
    screen = Screen(as_json)
    screen.print_json(answer)
    once_text = "For one submission to Runware, the next that comes; it may be a repeat:"
    screen.print(once_text if once else "Until `rushes trigger heal`:")
    for name, value in added.items():
        screen.print(f"  {name} = {value}")


@trigger.command()
def heal(as_json: AsJson = False) -> None:
    """Remove every fault of the emulated Runware.

    --json prints every switch with its value, and "next_submissions".
    """
    with _emulator() as http:
        answer = _read_json(http.put("/_emulator/faults", json={}))
    screen = Screen(as_json)
    screen.print_json(answer)
    screen.print("All faults are removed.")


@trigger.command()
def faults(as_json: AsJson = False) -> None:
    """List the named faults and every switch of the emulated Runware.

    --json prints {"faults": {name: {"meaning", "switches"}}, "switches": {name: {"meaning", "default"}}}.
    """
    from rushes_local.runware.faults import Switches

    switches = {
        name: {"meaning": field.description, "default": field.default} for name, field in Switches.model_fields.items()
    }
    screen = Screen(as_json)
    by_name = {name: {"meaning": meaning, "switches": values} for name, (meaning, values) in FAULTS.items()}
    screen.print_json({"faults": by_name, "switches": switches})
    screen.table(("fault", "effect"), [(name, meaning) for name, (meaning, _) in FAULTS.items()])
    screen.print()
    screen.table(
        ("switch", "default", "effect"),
        [(name, str(switch["default"]), str(switch["meaning"])) for name, switch in switches.items()],
    )


def _send(kind: Callback, task: str | None, clip: int, *, as_json: bool) -> None:
    with session(LOCAL, as_json=as_json) as (screen, service), _emulator() as http:
        runs = _read_json(http.get("/_emulator/tasks"))
        uuid, before, run = _choose_clip(service, runs, kind, task, clip)
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
            f"{kind} for clip {uuid}-{clip}: status {', '.join(map(str, answers))}; "
            f"the clip was {before['status']} and is now {after['status']}."
        )
        refused = any(answer >= 400 for answer in answers)
        if refused is not (kind is Callback.FORGED):
            expected = "401" if kind is Callback.FORGED else "200"
            raise CommandError(
                f"Unexpected status: a {kind} webhook should get {expected}. See the log of `rushes dev`."
            )


def _choose_clip(
    service: ApiClient, known_runs: Sequence[Json], kind: Callback, task: str | None, number: int
) -> tuple[str, Json, Json]:
    """The UUID of a task of the caller, its clip, and the emulator's run of that clip, suitable for this webhook."""
    runs = {str(run["taskUUID"]).lower(): run for run in known_runs}
    tasks = [require_task(service, task)] if task else service.tasks({}, 100)
    for each in tasks:
        clip = next((clip for clip in each.get("clips", []) if clip.get("clip") == number), None)
        run = runs.get(str(clip["clipUUID"]).lower()) if clip else None
        if clip and run and (task or _suits(kind, run)):
            if not _suits(kind, run):
                wanted = "a running" if kind in (Callback.PROCESSING, Callback.FAILURE) else "a finished"
                raise CommandError(f"{kind} needs {wanted} clip, and Runware has clip {number} as {run['status']}.")
            return str(each["taskUUID"]), clip, run
    raise CommandError("There is no suitable clip: order one with `rushes submit`.")


def _suits(kind: Callback, run: Mapping[str, Any]) -> bool:
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
            success = {"data": [{**result, "status": "success"} for result in run["results"]]}
            return [success] if kind is Callback.SUCCESS else [success, success]
        case Callback.FAILURE | Callback.LATE:
            return [{"data": [], "errors": [error]}]
        case Callback.PROCESSING:
            return [{"data": [{**about, "status": "processing"}]}]
    return [{"data": [{**about, "status": "success", "videoUUID": "forged", "videoURL": "http://127.0.0.1/forged"}]}]


def forged(url: str) -> str:
    """A callback URL with a different signature."""
    # The first character is changed: two bits of the last one are unused, so that another letter may mean the same.
    start, dot, signature = url.rpartition(".")
    return start + dot + ("B" if signature[0] == "A" else "A") + signature[1:]


def _call(http: httpx.Client, run: Mapping[str, Any], kind: Callback, body: Json) -> int:
    url = str(run["task"]["webhookURL"])
    if kind is Callback.FORGED:
        url = forged(url)
    try:
        return http.post(url, json=body).status_code
    except httpx.TransportError:
        raise UnavailableError("The webhook did not answer: see the log of `rushes dev`.") from None


def _finish(http: httpx.Client, run: Mapping[str, Any]) -> int:
    if not _read_json(http.post("/_emulator/finish", json={"taskUUID": run["taskUUID"]}))["released"]:
        raise CommandError(
            "The render finishes without this, in some seconds. To make renders wait, start `rushes dev --stepped`."
        )
    return 200


def _switches(name: str) -> Json:
    """The switches of a fault by name, or one switch with its value in JSON."""
    if name in FAULTS:
        return FAULTS[name][1]
    switch, separator, text = name.partition("=")
    if not separator:
        raise UsageError(f"there is no fault {name}: `rushes trigger faults` lists all")
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
        raise NotAllowedError("This local stack buys from Runware itself: unset RUNWARE_API_KEY to use the emulator.")
    try:
        with httpx.Client(base_url=found.emulator_url, timeout=_TIMEOUT, trust_env=False) as http:
            yield http
    except httpx.TransportError:
        raise UnavailableError("The local stack does not answer: restart `rushes dev` if it has ended.") from None


def _read_json(response: httpx.Response) -> Any:
    if response.status_code != 200:
        raise UsageError(str(response.json().get("error", response.status_code)))
    return response.json()


def _clip(task: Mapping[str, Any], number: int) -> Json:
    return next(clip for clip in task["clips"] if clip["clip"] == number)

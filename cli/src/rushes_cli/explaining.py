"""`explain`: a clip's facts as sentences, with times and sources, and the next step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from rushes_cli.exits import UsageError
from rushes_cli.options import AsJson, Profile, TaskUUID, require_task, session
from rushes_cli.output import micros, money, prompt_of, size, utc_time

Json = dict[str, Any]

_SOURCES = {
    "submission": "response to the order",
    "webhook": "webhook",
    "poll": "poll of Runware",
    "bucket": "bucket",
    "clock": "timeout",
    "operator": "operator",
}

# The causes of attempts without an answer, by the names of the HTTP client's errors.
_CAUSES = {
    "RemoteProtocolError": "the connection was closed before the answer",
    "ReadError": "the connection failed before the answer",
    "ReadTimeout": "no answer arrived in time",
    "WriteError": "the connection failed while the order was sent",
    "WriteTimeout": "the order could not be sent in time",
    "ConnectError": "no connection was possible",
    "ConnectTimeout": "no connection was possible in time",
}
_SENTENCES = {
    "refused": "Runware refused the order: {reason}. Nothing was bought. Source: {source}.",
    "failed": "Failed: {reason}. Source: {source}.",
    "unproven": "Needs review: {reason}. It cannot be determined if the clip was bought.",
    "unsaved": "Needs review: {reason}.",
    "undelivered": "Rendered, but Runware could not upload it: {reason}. Source: {source}.",
    "asked": "An operator requested another check of the bucket and Runware.",
    "answered": "The requested check is complete: {reason}.",
    "givenUp": "Given up by an operator: {reason}.",
    "erased": "Erased by an operator: the clip, its manifest and the request were deleted. Its cost stays recorded.",
    "lastLook": "The bucket and Runware were checked a last time. The status is final.",
    "superseded": "Certainly not bought: the clip of the next model, {model}, was recorded in its place.",
    "fallback": "Recorded in the place of the clip of {model}, which ended with {code}.",
    "detailsUnknown": "The render's seed and cost are no longer available; the estimate is counted.",
}


def explain(
    task: TaskUUID,
    clip: Annotated[int | None, typer.Option(min=0, help="Only the clip with this number.", show_default=False)] = None,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Explain a task: the facts about each clip, with times and sources, and the next step.

    --json prints {"taskUUID", "clips": [{"clip", "status", "story": [{"at", "text"}], "next"}]}.
    """
    with session(profile, as_json=as_json) as (screen, service):
        found = require_task(service, task)
        clips = [each for each in found.get("clips", []) if clip is None or each.get("clip") == clip]
        if not clips:
            raise UsageError(f"the task has no clip {clip}")
        explained = [
            {"clip": each["clip"], "status": each["status"], "story": list(story(found, each)), "next": next_step(each)}
            for each in clips
        ]
        screen.print_json({"taskUUID": found["taskUUID"], "clips": explained})
        screen.print(prompt_of(found), "bold")
        screen.print(screen.id(found["taskUUID"]))
        screen.print()
        for each in explained:
            screen.print(f"clip {each['clip']}: {each['status']}", "bold")
            for step in each["story"]:
                screen.print(f"  {utc_time(step['at'])}  {step['text']}")
            screen.print(f"  Next: {each['next']}")
            screen.print()


def story(task: Mapping[str, Any], clip: Mapping[str, Any]) -> Iterator[Json]:
    """The steps of a clip as `at` and `text`, in the order in which they were recorded.

    With fallback, the steps of each model's clip follow each other, and begin with the model.
    """
    steps = []
    for each in [*clip.get("chain", []), clip]:
        facts = [fact for fact in each.get("timeline", []) if isinstance(fact, dict)]
        for number, fact in enumerate(facts):
            text = _resend(fact, facts[:number]) + describe_fact(fact)
            steps.append({"at": fact.get("at"), "text": f"{each['model']}: {text}" if "model" in each else text})
    recorded = "The order was recorded and its estimate reserved. Nothing was sent yet."
    steps.insert(0, {"at": task.get("createdAt"), "text": recorded})
    if clip.get("possiblySentAt"):
        uncertain = "The order may have reached Runware; no response arrived."
        steps.append({"at": clip["possiblySentAt"], "text": uncertain})
    yield from sorted(steps, key=lambda step: str(step["at"]))


def _resend(fact: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> str:
    """The sentence before the answer to a repeated attempt; empty for another fact."""
    attempts = [str(each.get("key", "")) for each in earlier if each.get("fact") == "attempted"]
    if not attempts or (fact.get("fact"), fact.get("source")) != ("accepted", "submission"):
        return ""
    if any(attempt.startswith("ambiguous") for attempt in attempts):
        return "Sent again under the same UUID, after the bucket and Runware had confirmed its absence. "
    return "Sent again under the same UUID. "


def _describe_attempt(key: str) -> str:
    outcome, _, cause = key.partition(": ")
    cause = _CAUSES.get(cause, cause)
    match outcome:
        case "never arrived":
            return f"An attempt to buy did not take effect: {cause}. It is repeated."
        case "refused":
            return f"Runware refused an attempt to buy: {cause}."
    return f"The outcome of an attempt to buy is unknown: {cause or key}."


def describe_fact(fact: Mapping[str, Any]) -> str:
    """One fact of a timeline as a sentence."""
    key, fields = str(fact.get("key", "")), fact.get("fields") or {}
    source = _SOURCES.get(str(fact.get("source")), str(fact.get("source")))
    reason = str(fields.get("message") or fields.get("reason") or key).rstrip(".")
    match fact.get("fact"):
        case "rendered":
            cost = f" for {money(micros(fields['cost']))}" if "cost" in fields else ""
            seed = f", seed {fields['seed']}" if "seed" in fields else ""
            return f"Rendered{cost} as video {key}{seed}. Source: {source}."
        case "stored":
            action = "Downloaded from Runware and stored" if fields.get("rescued") else "Stored"
            return f"{action} in the bucket as version {key}, {size(fields.get('size'))}. Source: {source}."
        case "attempted":
            return _describe_attempt(reason)
        case "accepted":
            detail = f" ({key})" if key else ""
            return f"Runware has the order{detail}. Source: {source}."
    template = _SENTENCES.get(str(fact.get("fact")), f"{fact.get('fact')}: {{reason}}. Source: {{source}}.")
    values = {"reason": reason, "source": source, "model": fields.get("model"), "code": fields.get("code")}
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", str(value))
    return template


def next_step(clip: Mapping[str, Any]) -> str:
    """The next step for a clip as a sentence."""
    at = utc_time(clip.get("nextCheckAt"))
    match clip.get("status"), bool(clip.get("open")):
        case "pending", _ if clip.get("possiblySentAt"):
            return (
                f"the bucket and Runware are checked at {at}. If neither has the clip and the resend window is open, "
                "it is sent again under the same UUID; otherwise it needs review at the deadline."
            )
        case "pending", _:
            return f"the clip is sent to Runware; if it is still pending at {at}, it is checked then."
        case "running", _:
            return _next_of_running(clip, at)
        case "rendered", _:
            return f"Runware uploads it. Without an upload, the service downloads it; the next check is at {at}."
        case "stored", True:
            return f"the clip is ready; its seed and cost are requested at {at}."
        case ("stored" | "erased") as status, False:
            erased = f"none; the clip was erased at {utc_time(clip.get('erasedAt'))}. Its cost stays recorded."
            return erased if status == "erased" else "none; the clip is ready."
        case "failed", True:
            return f"the bucket and Runware are checked once more at {at}; until then its money stays reserved."
        case "failed", False:
            return "none. `rushes retry` orders it again."
        case "review", check_requested:
            first = f"the bucket and Runware are checked at {at}; then " if check_requested else ""
            return (
                f"{first}an operator decides, with `rushes review`. It is not bought again automatically; its caller "
                "can order it again with `rushes retry --accept-second-charge`."
            )
    return f"the next check is at {at}." if clip.get("open") else "none."


def _next_of_running(clip: Mapping[str, Any], at: str) -> str:
    """With fallback, a clip that was refused or failed is still running: its slot is."""
    facts = (fact for fact in clip.get("timeline", []) if isinstance(fact, dict))
    if "model" in clip and any(fact.get("fact") in ("refused", "failed") for fact in facts):
        return f"the next model's clip is recorded once the failure is certain; the next check is at {at}."
    return f"Runware renders it and calls the webhook. Without a webhook, Runware is polled at {at}."

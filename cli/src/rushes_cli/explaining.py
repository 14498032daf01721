"""`explain`: a clip's facts in words: what happened, when, through whom, and what will happen next."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from rushes_cli.exits import UsageError
from rushes_cli.options import AsJson, Profile, TaskUUID, session, task_uuid
from rushes_cli.output import clock, micros, money, size

Json = dict[str, Any]

_THROUGH = {
    "submission": "in the answer to the order",
    "webhook": "through its webhook",
    "poll": "when it was asked",
    "bucket": "through the bucket",
    "clock": "as time passed",
    "operator": "through an operator",
}

_WORDS = {
    "refused": "Runware refused the order {through}: {said}. Nothing was bought.",
    "attempted": "An attempt proved nothing: {said}.",
    "failed": "Failed, as was learned {through}: {said}.",
    "unproven": "Parked for a person: {said}. Whether it was bought cannot be proven.",
    "unsaved": "Parked for a person: {said}.",
    "undelivered": "Rendered, but Runware could not upload it, as was learned {through}: {said}.",
    "asked": "An operator wants bucket and Runware to be asked once more.",
    "answered": "They were asked once more: {said}.",
    "givenUp": "Given up by an operator: {said}.",
    "lastLook": "Bucket and Runware were asked a last time; what is known now stands.",
    "detailsUnknown": "Nobody can tell the render's seed and cost any more; the estimate counts.",
}


def explain(
    task: TaskUUID,
    clip: Annotated[int | None, typer.Option(min=0, help="Only this clip.", show_default=False)] = None,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Tell a task's story: what was learned about each clip, when and through whom, and what happens next.

    --json prints {"taskUUID", "clips": [{"clip", "status", "story": [{"at", "text"}], "next"}]}.
    """
    with session(profile, as_json=as_json) as (screen, service):
        found = service.known(task_uuid(task))
        clips = [each for each in found.get("clips", []) if clip is None or each.get("clip") == clip]
        if not clips:
            raise UsageError(f"the task has no clip {clip}")
        told = [
            {"clip": each["clip"], "status": each["status"], "story": list(story(found, each)), "next": outlook(each)}
            for each in clips
        ]
        screen.give({"taskUUID": found["taskUUID"], "clips": told})
        for each in told:
            screen.say(f"{found['taskUUID']}, clip {each['clip']}: {each['status']}", "bold")
            for step in each["story"]:
                screen.say(f"  {clock(step['at'])}  {step['text']}")
            screen.say(f"  Next: {each['next']}")
            screen.say()


def story(task: Mapping[str, Any], clip: Mapping[str, Any]) -> Iterator[Json]:
    """The steps of a clip in the order in which they were learned, as `at` and `text`."""
    told = [
        {"at": fact.get("at"), "text": sentence(fact)} for fact in clip.get("timeline", []) if isinstance(fact, dict)
    ]
    told.insert(
        0, {"at": task.get("createdAt"), "text": "Recorded, and the money for it set aside, before anything was sent."}
    )
    if clip.get("possiblySentAt"):
        doubt = "From here on the order may have reached Runware without anybody hearing the answer."
        told.append({"at": clip["possiblySentAt"], "text": doubt})
    yield from sorted(told, key=lambda step: str(step["at"]))


def sentence(fact: Mapping[str, Any]) -> str:
    """One fact in words."""
    key, fields = str(fact.get("key", "")), fact.get("fields") or {}
    through = _THROUGH.get(str(fact.get("source")), f"through {fact.get('witness')}")
    said = str(fields.get("message") or fields.get("reason") or key).rstrip(".")
    match fact.get("fact"):
        case "rendered":
            cost = f" for {money(micros(fields['cost']))}" if "cost" in fields else ""
            seed = f", seed {fields['seed']}" if "seed" in fields else ""
            return f"Rendered{cost}, as was learned {through} (video {key}{seed})."
        case "stored":
            how = "fetched from Runware and stored" if fields.get("rescued") else "stored"
            return f"In the bucket: {how} as version {key}, {size(fields.get('size'))}, as was learned {through}."
        case "accepted":
            how = f" ({key})" if key else ""
            return f"Runware has the order, as was learned {through}{how}."
    words = _WORDS.get(str(fact.get("fact")), f"{fact.get('fact')}: {{said}}, {{through}}.")
    return words.replace("{said}", said).replace("{through}", through)


def outlook(clip: Mapping[str, Any]) -> str:
    """What happens next with a clip."""
    at = clock(clip.get("nextCheckAt"))
    match clip.get("status"), bool(clip.get("open")):
        case "pending", _ if clip.get("possiblySentAt"):
            return (
                f"at {at} bucket and Runware are asked about it. Only if all deny it, and soon enough, is it sent "
                "again under the same UUID; otherwise it is parked for a person at the deadline."
            )
        case "pending", _:
            return f"it is sent to Runware; if it is still waiting at {at}, it is looked at then."
        case "running", _:
            return f"Runware renders it and calls the webhook. Should that be lost, Runware is asked at {at}."
        case "rendered", _:
            return f"Runware uploads it. Should that fail, the copy is fetched; the next look is at {at}."
        case "stored", True:
            return f"it is there to be used. Its seed and cost are asked for at {at}."
        case "stored", False:
            return "nothing; it is there to be used."
        case "failed", True:
            return f"bucket and Runware are asked once more at {at}; until then its money stays set aside."
        case "failed", False:
            return "nothing. `rushes retry` orders it again."
        case "review", is_asked_about:
            first = f"bucket and Runware are asked at {at}, for an operator; then " if is_asked_about else ""
            return (
                f"{first}a person decides; nobody buys it again by itself. An operator sees it with `rushes review`, "
                "its caller can order it again with `rushes retry --accept-second-charge`."
            )
    return f"it is looked at again at {at}." if clip.get("open") else "nothing."

"""The rules of buying, without I/O: what is sent for a clip, and what an attempt's outcome makes of it.

`submit` and `reconcile` both buy, and both end here, so that an outcome means the same whoever sent.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rushes import webhook_token
from rushes.clip import Clip, Fact, Kind, Scalar, Witness, canonical, maybe_sent, merge, release
from rushes.outside import about_our_account, reason
from rushes.runware.answers import Problem
from rushes.runware.errors import ABOUT_ACCOUNTS, ACCOUNT_TROUBLE
from rushes.runware.outcomes import Accepted, Ambiguous, NeverArrived, Outcome, Refused
from rushes.runware.wire import OURS, WireError


def callback_url(base: str, clip: Clip, keys: Sequence[str], now: int) -> str:
    """Where Runware reports this clip, with a token for this clip alone."""
    subject = webhook_token.subject(clip.caller, clip.task_uuid, clip.index)
    return f"{base}/webhooks/runware/{subject}?token={webhook_token.sign(subject, keys, now)}"


def on_the_wire(
    request: Mapping[str, Any], clip: Clip, *, callback: str, upload_link: str, least_ttl: int
) -> dict[str, Any]:
    """The one task that buys this clip: the caller's request, with what the service itself decides.

    `ttl` shortens how long Runware keeps its copy, and a rescue needs that copy: never below `least_ttl` seconds.
    """
    task = {name: value for name, value in request.items() if name not in OURS}
    if "ttl" in task:
        task["ttl"] = max(task["ttl"], least_ttl)
    return task | {
        "taskUUID": clip.clip_uuid,
        "deliveryMethod": "async",
        "numberResults": 1,
        "includeCost": True,
        "webhookURL": callback,
        "uploadEndpoint": upload_link,
    }


def conclude(
    clip: Clip, outcome: Outcome, *, holder: str, account: str, sent_at: int, now: int, patient: bool = False
) -> Clip:
    """The clip after `holder`'s attempt, sent at `sent_at` into `account`, ended with `outcome`.

    A "no" closes the clip only if it answers the only attempt there was. After an ambiguous one it proves nothing
    about that earlier attempt, and is kept as evidence; so is, for a `patient` buyer, trouble with our own account.
    """
    clip = release(clip, holder)
    match outcome:
        case Accepted(how):
            return merge(clip, Fact(kind=Kind.ACCEPTED, key=how, at=now, witness=Witness.SUBMISSION))
        case Refused() if clip.maybe_sent_at is None and not (patient and is_account_trouble(outcome)):
            return merge(clip, _refusal(outcome, now))
        case Refused(_, problem):
            return _evidence(clip, f"refused: {problem.code}", now)
        case NeverArrived(why):
            return _evidence(clip, f"never arrived: {why}", now)
        case Ambiguous(why):
            return _evidence(maybe_sent(clip, sent_at, account), f"ambiguous: {why}", now)


def is_account_trouble(outcome: Outcome) -> bool:
    """Whether Runware refused us rather than the clip: a wrong key, no money, no permission."""
    return isinstance(outcome, Refused) and (
        outcome.status in ACCOUNT_TROUBLE or outcome.problem.category in ABOUT_ACCOUNTS
    )


def refusals(clips: Iterable[Clip]) -> list[tuple[int, WireError]]:
    """Why every one of these clips was refused, as HTTP status and error object; empty if any of them was not.

    Account trouble is the operator's and answers 503, whatever Runware's own status: a caller who reads 401 would
    look for the fault in its own key.
    """
    members = list(clips)
    if not members or any(clip.decisive != Kind.REFUSED for clip in members):
        return []
    facts = {key: known for clip in members for key, known in clip.of(Kind.REFUSED).items()}
    return [_shown(code, known.fields) for code, known in sorted(facts.items())]


def evidence(problem: Problem, **more: Scalar) -> dict[str, Scalar]:
    """The fields of a refusal or failure. Of our account's trouble the provider's words are left to the log."""
    fields = {**more, "category": str(problem.category)}
    if about_our_account(fields):
        return {**fields, "message": reason(fields)}
    return {**fields, "message": problem.message, "error": canonical(dict(problem.wire))}


def _refusal(outcome: Refused, now: int) -> Fact:
    fields = evidence(outcome.problem, httpStatus=outcome.status)
    return Fact(kind=Kind.REFUSED, key=outcome.problem.code, at=now, witness=Witness.SUBMISSION, fields=fields)


def _evidence(clip: Clip, text: str, now: int) -> Clip:
    return merge(clip, Fact(kind=Kind.ATTEMPTED, key=text, at=now, witness=Witness.SUBMISSION))


def _shown(code: str, fields: Mapping[str, Scalar]) -> tuple[int, WireError]:
    if about_our_account(fields):
        message = f"Runware refused this service's own account ({code}). Nothing was bought; the operator has to act."
        return 503, {"code": "providerRefusesUs", "message": message}
    error: WireError = json.loads(str(fields["error"]))
    return 400, error

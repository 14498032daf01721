"""Translates Runware's answers into facts of a clip: outcomes of attempts, webhooks, polls and task details.

Every source of facts ends here, so an answer means the same for each use case. It hides which words of the provider's
prove a purchase, a render or nothing at all, and which may be repeated to a caller. Pure.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeGuard

from rushes.domain.clip import Clip, Fact, Kind, Scalar, Witness, mark_possibly_sent, merge, release
from rushes.domain.failure import ABOUT_ACCOUNTS, ACCOUNT_TROUBLE, Category, about_our_account, reason
from rushes.domain.formats import canonical
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome, Refused
from rushes.runware.response import Envelope, Problem, Result
from rushes.runware.wire import WireError

_KNOWS_THE_CLIP = {Category.CONFLICT, Category.DELIVERY}
_NOT_ABOUT_A_RENDER = {Category.NOT_FOUND, Category.AUTH}


def conclude(clip: Clip, outcome: Outcome, *, holder: str, account: str, sent_at: int, now: int, patient: bool) -> Clip:
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
            return _evidence(mark_possibly_sent(clip, sent_at, account), f"ambiguous: {why}", now)


def is_account_trouble(outcome: Outcome) -> TypeGuard[Refused]:
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


def webhook_facts(said: Envelope, now: int) -> Iterator[Fact]:
    """What a webhook proves. Progress proves nothing that the record lacks; any error proves at least the purchase."""
    for result in said.results:
        if result.video_uuid:
            yield _rendered(result, result.video_uuid, Witness.WEBHOOK, now)
        elif result.video_url or result.data:
            yield _nameless(result, Witness.WEBHOOK, now)
    for problem in said.problems:
        if problem.category in _KNOWS_THE_CLIP | _NOT_ABOUT_A_RENDER:
            yield _known(problem, Witness.WEBHOOK, now)
        else:
            yield _failed(problem, Witness.WEBHOOK, now)


def poll_facts(said: Envelope, now: int) -> Iterator[Fact]:
    """What a poll's answer proves about the clip. Errors of the poll itself prove nothing.

    Nor does an error that names no task: many clips are asked about at a time, and it would be about each of them.
    """
    for result in said.results:
        if result.video_uuid:
            yield _rendered(result, result.video_uuid, Witness.POLL, now)
        elif result.video_url or result.data:
            yield _nameless(result, Witness.POLL, now)
        else:
            yield _accepted("known", Witness.POLL, now)
    for problem in said.problems:
        if problem.of_asking:
            continue
        if problem.category in _KNOWS_THE_CLIP:
            yield _known(problem, Witness.POLL, now)
        elif problem.category not in _NOT_ABOUT_A_RENDER:
            yield _failed(problem, Witness.POLL, now)


def details_facts(said: Envelope, clip_uuid: str, now: int) -> Iterator[Fact]:
    """What a task's details prove: that the task was executed, and what the results inside its last response do.

    Errors in there prove nothing more: the last response may be the one to a refused duplicate.
    """
    for details in said.results:
        yield _accepted("details", Witness.POLL, now)
        if details.response:
            inner = details.response.about(clip_uuid)
            yield from poll_facts(Envelope(inner.results, ()), now)
            for problem in inner.problems:
                if problem.category in _KNOWS_THE_CLIP:
                    yield _known(problem, Witness.POLL, now)


def _rendered(result: Result, video_uuid: str, witness: Witness, now: int) -> Fact:
    known: dict[str, Scalar | None] = {
        "videoURL": result.video_url,
        "seed": result.seed,
        "NSFWContent": result.nsfw,
        "cost": result.cost,
    }
    fields = {name: value for name, value in known.items() if value is not None}
    return Fact(kind=Kind.RENDERED, key=video_uuid, at=now, witness=witness, fields=fields)


def _nameless(result: Result, witness: Witness, now: int) -> Fact:
    """A result that cannot be told from another one: no render, but its address is kept for people."""
    fields = {"videoURL": result.video_url} if result.video_url else {}
    return Fact(kind=Kind.ACCEPTED, key="result without videoUUID", at=now, witness=witness, fields=fields)


def _accepted(how: str, witness: Witness, now: int) -> Fact:
    return Fact(kind=Kind.ACCEPTED, key=how, at=now, witness=witness)


def _known(problem: Problem, witness: Witness, now: int) -> Fact:
    """Trouble that Runware can only have with a task of its own; with an upload, only if there was a render."""
    if problem.category == Category.DELIVERY and not problem.code.startswith("webhook"):
        return Fact(kind=Kind.UNDELIVERED, key=problem.code, at=now, witness=witness)
    return _accepted(problem.code, witness, now)


def _failed(problem: Problem, witness: Witness, now: int) -> Fact:
    return Fact(kind=Kind.FAILED, key=problem.code, at=now, witness=witness, fields=evidence(problem))

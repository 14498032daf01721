"""Translates Runware's responses into facts of a clip: outcomes of attempts, webhooks, polls and task details.

All use cases share this module, so a response means the same in each. It hides which parts of a response prove a
purchase, a render or nothing, and which ones a caller may see. Pure.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeGuard

from rushes.domain.clip import Clip, Fact, FactSource, Kind, Scalar, mark_possibly_sent, merge, release
from rushes.domain.failure import ACCOUNT_CATEGORIES, ACCOUNT_STATUSES, Category, failure_reason, is_account_failure
from rushes.domain.formats import canonical
from rushes.domain.task import current_clips
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome, Refused
from rushes.runware.response import Envelope, Problem, Result
from rushes.runware.wire import WireError

_PROVES_PURCHASE = {Category.CONFLICT, Category.DELIVERY}
_NOT_ABOUT_A_RENDER = {Category.NOT_FOUND, Category.AUTH}


def apply_outcome(
    clip: Clip, outcome: Outcome, *, holder: str, account: str, sent_at: int, now: int, unattended: bool
) -> Clip:
    """Returns the clip with the outcome of `holder`'s attempt, sent at `sent_at` into `account`, and without its lease.

    A refusal closes the clip only if no earlier attempt is ambiguous. Otherwise it is kept as evidence, since it proves
    nothing about the earlier attempt. An `unattended` buyer also keeps a refusal of our own account as evidence, so
    that the clip is retried later.
    """
    clip = release(clip, holder)
    match outcome:
        case Accepted(how):
            return merge(clip, Fact(kind=Kind.ACCEPTED, key=how, at=now, source=FactSource.SUBMISSION))
        case Refused() if clip.possibly_sent_at is None and not (unattended and is_account_refusal(outcome)):
            return merge(clip, _refusal(outcome, now))
        case Refused(_, problem):
            return _evidence(clip, f"refused: {problem.code}", now)
        case NeverArrived(reason):
            return _evidence(clip, f"never arrived: {reason}", now)
        case Ambiguous(reason):
            return _evidence(mark_possibly_sent(clip, sent_at, account), f"ambiguous: {reason}", now)


def is_account_refusal(outcome: Outcome) -> TypeGuard[Refused]:
    """True if Runware refused our account and not the clip: an invalid key, no money, no permission."""
    return isinstance(outcome, Refused) and (
        outcome.status in ACCOUNT_STATUSES or outcome.problem.category in ACCOUNT_CATEGORIES
    )


def refusals(clips: Iterable[Clip]) -> list[tuple[int, WireError]]:
    """Returns the HTTP statuses and error objects of refused clips; empty unless all slots were refused in the end.

    An account problem is the operator's and gives 503, whatever Runware's own status: a caller with a 401 would look
    for the fault in its own key.
    """
    members = current_clips(clips)
    if not members or any(clip.decisive != Kind.REFUSED or clip.open or clip.is_superseded for clip in members):
        return []
    return refusal_responses(members)


def refusal_responses(clips: Iterable[Clip]) -> list[tuple[int, WireError]]:
    """Returns the HTTP status and error object of each different refusal of these clips."""
    facts = {key: record for clip in clips for key, record in clip.of(Kind.REFUSED).items()}
    return [_refusal_response(code, record.fields) for code, record in sorted(facts.items())]


def evidence(problem: Problem, **more: Scalar) -> dict[str, Scalar]:
    """Returns the fields of a refusal or failure. For an account problem the provider's text is left to the log."""
    fields = {**more, "category": str(problem.category)}
    if is_account_failure(fields):
        return {**fields, "message": failure_reason(fields)}
    return {**fields, "message": problem.message, "error": canonical(dict(problem.wire))}


def _refusal(outcome: Refused, now: int) -> Fact:
    fields = evidence(outcome.problem, httpStatus=outcome.status)
    return Fact(kind=Kind.REFUSED, key=outcome.problem.code, at=now, source=FactSource.SUBMISSION, fields=fields)


def _evidence(clip: Clip, text: str, now: int) -> Clip:
    return merge(clip, Fact(kind=Kind.ATTEMPTED, key=text, at=now, source=FactSource.SUBMISSION))


def _refusal_response(code: str, fields: Mapping[str, Scalar]) -> tuple[int, WireError]:
    if is_account_failure(fields):
        message = f"Runware refused this service's own account ({code}). Nothing was bought; the operator has to act."
        return 503, {"code": "providerAccountRefused", "message": message}
    error: WireError = json.loads(str(fields["error"]))
    return 400, error


def webhook_facts(envelope: Envelope, now: int) -> Iterator[Fact]:
    """Yields the facts that a webhook proves. Progress adds none; any error proves at least the purchase."""
    for result in envelope.results:
        if result.video_uuid:
            yield _rendered(result, result.video_uuid, FactSource.WEBHOOK, now)
        elif result.video_url or result.data:
            yield _unidentified_result(result, FactSource.WEBHOOK, now)
    for problem in envelope.problems:
        if problem.category in _PROVES_PURCHASE | _NOT_ABOUT_A_RENDER:
            yield _proven_purchase(problem, FactSource.WEBHOOK, now)
        else:
            yield _failed(problem, FactSource.WEBHOOK, now)


def poll_facts(envelope: Envelope, now: int) -> Iterator[Fact]:
    """Yields the facts that the response to a poll proves. Errors of the poll itself prove nothing.

    Nor does an error without a task: a poll covers many clips, and the error would count for each of them.
    """
    for result in envelope.results:
        if result.video_uuid:
            yield _rendered(result, result.video_uuid, FactSource.POLL, now)
        elif result.video_url or result.data:
            yield _unidentified_result(result, FactSource.POLL, now)
        else:
            yield _accepted("known", FactSource.POLL, now)
    for problem in envelope.problems:
        if problem.about_lookup:
            continue
        if problem.category in _PROVES_PURCHASE:
            yield _proven_purchase(problem, FactSource.POLL, now)
        elif problem.category not in _NOT_ABOUT_A_RENDER:
            yield _failed(problem, FactSource.POLL, now)


def details_facts(envelope: Envelope, clip_uuid: str, now: int) -> Iterator[Fact]:
    """Yields the facts that a task's details prove: its execution, and the results inside its last response.

    Errors inside it prove no failure: the last response may be the one to a refused duplicate.
    """
    for details in envelope.results:
        yield _accepted("details", FactSource.POLL, now)
        if details.response:
            inner = details.response.about(clip_uuid)
            yield from poll_facts(Envelope(inner.results, ()), now)
            for problem in inner.problems:
                if problem.category in _PROVES_PURCHASE:
                    yield _proven_purchase(problem, FactSource.POLL, now)


def _rendered(result: Result, video_uuid: str, source: FactSource, now: int) -> Fact:
    optional: dict[str, Scalar | None] = {
        "videoURL": result.video_url,
        "seed": result.seed,
        "NSFWContent": result.nsfw,
        "cost": result.cost,
    }
    fields = {name: value for name, value in optional.items() if value is not None}
    return Fact(kind=Kind.RENDERED, key=video_uuid, at=now, source=source, fields=fields)


def _unidentified_result(result: Result, source: FactSource, now: int) -> Fact:
    """A result without a videoUUID cannot be identified: it is no render, but its URL is kept for people."""
    fields = {"videoURL": result.video_url} if result.video_url else {}
    return Fact(kind=Kind.ACCEPTED, key="result without videoUUID", at=now, source=source, fields=fields)


def _accepted(how: str, source: FactSource, now: int) -> Fact:
    return Fact(kind=Kind.ACCEPTED, key=how, at=now, source=source)


def _proven_purchase(problem: Problem, source: FactSource, now: int) -> Fact:
    """The fact of an error that only an accepted task can have, or, if it is about the upload, only a render."""
    if problem.category == Category.DELIVERY and not problem.code.startswith("webhook"):
        return Fact(kind=Kind.UNDELIVERED, key=problem.code, at=now, source=source)
    return _accepted(problem.code, source, now)


def _failed(problem: Problem, source: FactSource, now: int) -> Fact:
    return Fact(kind=Kind.FAILED, key=problem.code, at=now, source=source, fields=evidence(problem))

"""The use case behind the webhook, and what any report of Runware's means: items in, facts out.

A report is only ever about one clip: items that name another are left alone. Facts are merged, so a webhook that comes
twice, late, or after a poll has told the same, changes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rushes.buying import evidence
from rushes.clip import Clip, Fact, Kind, Scalar, Witness, merge_all
from rushes.config import Timings
from rushes.errors import BucketError, UnknownClipError, UnreadableError
from rushes.learning import Clips, learn
from rushes.media import Probed, stored_fact
from rushes.observability import Telemetry
from rushes.redaction import Redactor
from rushes.runware.answers import Envelope, Problem, Result, read
from rushes.runware.errors import Category

_KNOWS_THE_CLIP = {Category.CONFLICT, Category.DELIVERY}
_NOT_ABOUT_A_RENDER = {Category.NOT_FOUND, Category.AUTH}


class Copies(Protocol):
    """Where clips' bytes are."""

    def probe(self, key: str) -> Probed | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """The use case with its adapters. `clock` gives milliseconds."""

    clips: Clips
    copies: Copies
    telemetry: Telemetry
    times: Timings
    clock: Callable[[], int]

    def receive(self, body: bytes, caller: str, task_uuid: str, index: int, token: str = "") -> Clip:
        """Learns what a webhook body says about this clip, and returns the clip as it is now.

        `token` is the one that it came with, which nobody else may read.

        Raises `UnreadableError` for a body that says nothing about it, `UnknownClipError` if there is no such clip,
        and `BusyError` if what was learned could not be saved.
        """
        envelope = read(body, Redactor([token]))
        clip = self.clips.clip(caller, task_uuid, index)
        if clip is None:
            raise UnknownClipError
        said = envelope.about(clip.clip_uuid)
        if not (said.results or said.problems):
            raise UnreadableError("the body says nothing about this clip")
        now = self.clock()
        facts = list(webhook_facts(said, now))
        if any(fact.kind == Kind.RENDERED for fact in facts) and not clip.has(Kind.STORED):
            facts += self._copy(clip, now)
        return learn(
            self.clips,
            clip,
            lambda current: merge_all(current, facts),
            now=now,
            times=self.times,
            telemetry=self.telemetry,
        )

    def _copy(self, clip: Clip, now: int) -> list[Fact]:
        """The copy in the bucket, if it is there yet. The webhook counts even if the bucket cannot say."""
        try:
            copy = stored_fact(self.copies.probe(clip.object_key), clip.object_key, now)
        except BucketError as error:
            self.telemetry.note("the bucket could not be asked", warn=True, why=str(error), clipUUID=clip.clip_uuid)
            return []
        return [copy] if copy else []


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

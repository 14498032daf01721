"""The use case behind the webhook, and what any report of Runware's means: items in, facts out.

A report is only ever about one clip: items that name another are left alone. Facts are merged, so a webhook that comes
twice, late, or after a poll has told the same, changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rushes.domain.clip import Clip, Fact, Kind, merge_all
from rushes.domain.media import stored_fact
from rushes.domain.redaction import Redactor
from rushes.domain.timings import Timings
from rushes.errors import BucketError, UnknownClipError, UnreadableError
from rushes.runware.facts import webhook_facts
from rushes.runware.response import read
from rushes.services.ports import ClipObjects, ClipTable, Telemetry
from rushes.services.update_clip import update_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookService:
    """The use case with its adapters. `clock` gives milliseconds."""

    clips: ClipTable
    copies: ClipObjects
    telemetry: Telemetry
    times: Timings
    clock: Callable[[], int]

    def receive(self, body: bytes, caller: str, task_uuid: str, index: int, token: str) -> Clip:
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
        return update_clip(
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
            self.telemetry.log("the bucket could not be asked", warn=True, reason=str(error), clipUUID=clip.clip_uuid)
            return []
        return [copy] if copy else []

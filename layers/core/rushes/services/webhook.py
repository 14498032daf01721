"""The use case behind the webhook: turns Runware's callback about one clip into facts.

Items about other clips are ignored. Facts are merged, so a webhook that is repeated, late, or preceded by a poll with
the same result changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rushes.domain.clip import Clip, Fact, Kind, merge_all
from rushes.domain.media import stored_fact
from rushes.domain.redaction import Redactor
from rushes.domain.timings import Timings
from rushes.errors import BucketError, UnknownClipError, UnreadableError
from rushes.runware.facts import webhook_facts
from rushes.runware.response import read
from rushes.services.update_clip import update_clip

if TYPE_CHECKING:
    from rushes.services.ports import ClipObjects, ClipTable, Telemetry


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class WebhookService:
    """The use case with its adapters. `clock` gives milliseconds."""

    clips: ClipTable
    copies: ClipObjects
    telemetry: Telemetry
    times: Timings
    clock: Callable[[], int]

    def receive(self, body: bytes, caller: str, task_uuid: str, index: int, token: str) -> Clip:
        """Saves the facts in a webhook's body about this clip, and returns the clip.

        `token` is the one in the webhook's URL; it is removed from the stored texts.

        Raises `UnreadableError` for a body without an item for this clip, `UnknownClipError` if there is no such clip,
        and `BusyError` if the facts could not be saved.
        """
        envelope = read(body, Redactor([token]))
        clip = self.clips.clip(caller, task_uuid, index)
        if clip is None:
            raise UnknownClipError
        about_clip = envelope.about(clip.clip_uuid)
        if not (about_clip.results or about_clip.problems):
            raise UnreadableError("the body has no item for this clip")
        now = self.clock()
        facts = list(webhook_facts(about_clip, now))
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
        """The fact of the copy in the bucket, if there is one. The webhook is saved even if S3 is unavailable."""
        try:
            copy = stored_fact(self.copies.probe(clip.object_key), clip.object_key, now)
        except BucketError as error:
            self.telemetry.log(
                "copy in the bucket could not be probed", warn=True, reason=str(error), clipUUID=clip.clip_uuid
            )
            return []
        return [copy] if copy else []

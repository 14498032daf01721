"""Clips in review, and an operator's decisions about them, which are facts with the source `operator`.

Decisions are merged like all facts: the money is updated, and a later fact of a higher rank still outranks them.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rushes.adapters.dynamodb.admin import AdminTable
from rushes.adapters.s3 import S3Bucket
from rushes.domain import formats
from rushes.domain.clip import Clip, Fact, FactSource, Kind, Scalar, Status, merge, merge_all
from rushes.domain.formats import canonical
from rushes.domain.media import HEAD_BYTES, container, stored_fact
from rushes.domain.timings import Timings
from rushes.services.metric import Metric
from rushes.services.ports import Telemetry
from rushes.services.update_clip import update_clip
from rushes_cli.output import iso

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_SECOND = 1000

# A save here ends a clip or schedules its next check, after `http`. The other times have no effect.
TIMES = Timings(
    http=10 * _SECOND,
    function=25 * _SECOND,
    lease=60 * _SECOND,
    resend_window=120 * _SECOND,
    deadline=7200 * _SECOND,
    last_look=900 * _SECOND,
    copy_deadline=7200 * _SECOND,
    usual_render=180 * _SECOND,
    rescue_after=60 * _SECOND,
)


class DecisionError(ValueError):
    """No decision was recorded. The text is the reason, for users."""


class NoTelemetry:
    """Telemetry for a command: drops metrics, which are for functions, and log messages."""

    def count(self, metric: Metric, amount: int = 1) -> None:
        """Counts nothing."""

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        """Logs nothing."""


def in_review(store: AdminTable) -> list[Clip]:
    """The clips in review, the longest waiting first."""
    found = [store.clip(*name) for name in store.in_review()]
    return [clip for clip in found if clip is not None and clip.status == Status.REVIEW]


def one(store: AdminTable, caller: str, task_uuid: str, index: int) -> Clip:
    """One clip in review. Raises `DecisionError` if it does not exist or is not in review."""
    clip = store.clip(caller, task_uuid, index)
    if clip is None:
        raise DecisionError(f"{caller} has no clip {task_uuid}-{index}; nothing was decided.")
    if clip.status != Status.REVIEW:
        raise DecisionError(f"The clip is {clip.status}, not in review; nothing was decided.")
    return clip


def ask(store: AdminTable, clip: Clip, now: int) -> Clip:
    """Schedules a check of the bucket and Runware for the next sweep; returns the saved clip."""
    asked = Fact(kind=Kind.ASKED, key=formats.iso(now), at=now, source=FactSource.OPERATOR)
    return _save(
        store, clip, lambda current: merge(current, asked) if current.status == Status.REVIEW else current, now
    )


def give_up(store: AdminTable, clip: Clip, reason: str, now: int) -> Clip:
    """Ends the clip as failed, for this reason; returns the saved clip. Only a render's cost stays counted."""
    error = canonical({"code": "givenUp", "message": reason})
    fields: dict[str, Scalar] = {"category": "operator", "message": reason, "error": error}
    facts = [
        Fact(kind=Kind.FAILED, key="givenUp", at=now, source=FactSource.OPERATOR, fields=fields),
        Fact(kind=Kind.LAST_LOOK, at=now, source=FactSource.OPERATOR),
    ]
    ended = Fact(kind=Kind.GIVEN_UP, at=now, source=FactSource.OPERATOR, fields={"message": reason})

    def decide(current: Clip) -> Clip:
        if current.status != Status.REVIEW:
            return current  # another fact has ended the review
        changed = merge_all(current, facts)
        # A render outranks a failure, so a rendered clip without a copy needs a fact of its own.
        return merge(changed, ended) if changed.status == Status.REVIEW else changed

    return _save(store, clip, decide, now)


def mark_stored(store: AdminTable, s3: "S3Client", bucket: str, clip: Clip, file: Path | None, now: int) -> Clip:
    """Records the clip as stored, after uploading `file` if given; returns the saved clip.

    Raises `DecisionError` if the object or the file is not a video, `BucketError` if S3 is unavailable.
    """
    if file is not None:
        _upload(s3, bucket, clip, file)
    copy = stored_fact(S3Bucket(s3, bucket).probe(clip.object_key), clip.object_key, now)
    if copy is None:
        raise DecisionError(f"{clip.object_key} is missing from the bucket, or not a video; nothing was decided.")
    decision = Fact(kind=copy.kind, key=copy.key, at=now, source=FactSource.OPERATOR)
    return _save(store, clip, lambda current: merge_all(current, [copy, decision]), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFact:
    """A fact from one source. In the record of a later version its kind may not be in `Kind`."""

    kind: str
    key: str
    at: int
    source: str
    fields: Mapping[str, Scalar]


def seen_facts(clip: Clip) -> list[SeenFact]:
    """A clip's facts, one entry per source, in the order in which they were recorded."""
    entries = [
        SeenFact(kind=kind, key=key, at=at, source=source, fields=record.fields)
        for (kind, key), record in clip.facts.items()
        for source, at in record.seen.items()
    ]
    return sorted(entries, key=lambda fact: (fact.at, fact.kind, fact.key, fact.source))


def clip_record(clip: Clip) -> dict[str, Any]:
    """A clip from the table as JSON, similar to the API's: an operator has no caller's key."""
    return {
        "caller": clip.caller,
        "taskUUID": clip.task_uuid,
        "clip": clip.index,
        "status": str(clip.status),
        "open": clip.open,
        "cost": clip.budgeted / 1_000_000,
        "objectKey": clip.object_key,
        "clipUUID": clip.clip_uuid,
        "possiblySentAt": iso(clip.possibly_sent_at),
        "nextCheckAt": iso(clip.next_check_at),
        "timeline": [
            {
                "at": iso(fact.at),
                "fact": str(fact.kind),
                "key": fact.key,
                "source": str(fact.source),
                "fields": {
                    name: value / 1_000_000 if name == "cost" and isinstance(value, int) else value
                    for name, value in fact.fields.items()
                    if name not in ("videoURL", "error")
                },
            }
            for fact in seen_facts(clip)
        ],
    }


def clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _upload(s3: "S3Client", bucket: str, clip: Clip, file: Path) -> None:
    with file.open("rb") as content:
        if container(content.read(HEAD_BYTES), file.stat().st_size) is None:
            raise DecisionError(f"{file} is not an MP4, MOV or WEBM file; nothing was uploaded.")
        content.seek(0)
        s3.upload_fileobj(content, bucket, clip.object_key)


def _save(store: AdminTable, clip: Clip, change: Callable[[Clip], Clip], now: int) -> Clip:
    telemetry: Telemetry = NoTelemetry()
    return update_clip(store, clip, change, now=now, times=TIMES, telemetry=telemetry)

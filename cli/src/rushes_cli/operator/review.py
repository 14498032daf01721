"""Clips in review, and how a person decides about them: with facts whose witness is the operator.

What is decided goes the way of everything that is learned, so the money follows and late truth still outranks it.
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
from rushes.services.ports import Metric, Telemetry
from rushes.services.update_clip import update_clip
from rushes_cli.output import iso

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_SECOND = 1000

# A save here ends a clip, or lets it be looked at: `http` is the pause until then. None of the other times plays a
# part.
_TIMES = Timings(
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
    """Nothing was decided. The text says why, and is meant for people."""


class NoTelemetry:
    """Telemetry for a command: metrics are the functions', and what happened is printed by whoever asked for it."""

    def count(self, metric: Metric, amount: int = 1) -> None:
        """Counts nothing."""

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        """Notes nothing."""


def in_review(store: AdminTable) -> list[Clip]:
    """The clips that wait for a person, the longest waiting first."""
    found = [store.clip(*name) for name in store.in_review()]
    return [clip for clip in found if clip is not None and clip.status == Status.REVIEW]


def one(store: AdminTable, caller: str, task_uuid: str, index: int) -> Clip:
    """One clip in review. Raises `DecisionError` if it is not there, or not in review."""
    clip = store.clip(caller, task_uuid, index)
    if clip is None:
        raise DecisionError(f"{caller} has no clip {task_uuid}-{index}; nothing was decided.")
    if clip.status != Status.REVIEW:
        raise DecisionError(f"The clip is {clip.status}, not in review; nothing was decided.")
    return clip


def ask(store: AdminTable, clip: Clip, now: int) -> Clip:
    """The clip, with the next sweep due to ask bucket and Runware about it alone."""
    asked = Fact(kind=Kind.ASKED, key=formats.iso(now), at=now, source=FactSource.OPERATOR)
    return _learned(
        store, clip, lambda current: merge(current, asked) if current.status == Status.REVIEW else current, now
    )


def give_up(store: AdminTable, clip: Clip, reason: str, now: int) -> Clip:
    """The clip as failed, for the reason given. What was paid for a render stays counted, anything else is released."""
    error = canonical({"code": "givenUp", "message": reason})
    fields: dict[str, Scalar] = {"category": "operator", "message": reason, "error": error}
    facts = [
        Fact(kind=Kind.FAILED, key="givenUp", at=now, source=FactSource.OPERATOR, fields=fields),
        Fact(kind=Kind.LAST_LOOK, at=now, source=FactSource.OPERATOR),
    ]
    ended = Fact(kind=Kind.GIVEN_UP, at=now, source=FactSource.OPERATOR, fields={"message": reason})

    def decide(current: Clip) -> Clip:
        if current.status != Status.REVIEW:
            return current  # the truth was faster
        changed = merge_all(current, facts)
        # A render outranks a failure, and a rendered clip without a copy is not one that failed at Runware.
        return merge(changed, ended) if changed.status == Status.REVIEW else changed

    return _learned(store, clip, decide, now)


def keep(store: AdminTable, s3: "S3Client", bucket: str, clip: Clip, file: Path | None, now: int) -> Clip:
    """The clip as stored, if its object is in the bucket; `file` is put there first.

    Raises `DecisionError` if the object, or the file, is no video, and `BucketError` if S3 cannot say.
    """
    if file is not None:
        _put(s3, bucket, clip, file)
    copy = stored_fact(S3Bucket(s3, bucket).probe(clip.object_key), clip.object_key, now)
    if copy is None:
        raise DecisionError(f"{clip.object_key} in the bucket is no video; nothing was decided.")
    by_hand = Fact(kind=copy.kind, key=copy.key, at=now, source=FactSource.OPERATOR)
    return _learned(store, clip, lambda current: merge_all(current, [copy, by_hand]), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFact:
    """A fact as one witness saw it. Of a later version's record it may be of a kind that is not in `Kind`."""

    kind: str
    key: str
    at: int
    source: str
    fields: Mapping[str, Scalar]


def seen_facts(clip: Clip) -> list[SeenFact]:
    """All that is known of a clip, one entry a witness, in the order in which it was learned."""
    known = [
        SeenFact(kind=kind, key=key, at=at, source=source, fields=about.fields)
        for (kind, key), about in clip.facts.items()
        for source, at in about.seen.items()
    ]
    return sorted(known, key=lambda fact: (fact.at, fact.kind, fact.key, fact.source))


def clip_record(clip: Clip) -> dict[str, Any]:
    """A clip as the service tells it, read from the table: an operator has no caller's key."""
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


def _put(s3: "S3Client", bucket: str, clip: Clip, file: Path) -> None:
    with file.open("rb") as content:
        if container(content.read(HEAD_BYTES), file.stat().st_size) is None:
            raise DecisionError(f"{file} is no MP4, MOV or WEBM; nothing was put into the bucket.")
        content.seek(0)
        s3.upload_fileobj(content, bucket, clip.object_key)


def _learned(store: AdminTable, clip: Clip, change: Callable[[Clip], Clip], now: int) -> Clip:
    telemetry: Telemetry = NoTelemetry()
    return update_clip(store, clip, change, now=now, times=_TIMES, telemetry=telemetry)

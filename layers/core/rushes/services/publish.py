"""The use case behind `announce`: what became of a clip is told on the event bus, and a manifest laid beside its copy.

Fed with every change of a clip, as the clip was before and as it is after. Nothing of what was told is remembered: a
change whose announcement is not the one of before is told. So a repeat tells the same again, under the same id, and
whoever stops half-way is simply fed the change once more. The manifest is written before its event, so that whoever is
told finds it.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rushes.domain.clip import Clip, Kind, Known, Status, believed_cost
from rushes.domain.failure import reason
from rushes.domain.formats import dollars, iso
from rushes.domain.views import Json, manifest_key, render, timeline
from rushes.services.ports import EventPublisher, ManifestStore, TaskQueries, Telemetry


class News(StrEnum):
    """What is told of a clip: the detail types of our events."""

    STORED = "Clip Stored"
    FAILED = "Clip Failed"
    NEEDS_REVIEW = "Clip Needs Review"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What there is to tell of a clip. `about` tells two of one kind apart: the pinned version, or why it ended so."""

    news: News
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcing:
    """The use case with its adapters. `bucket` is the name of the shelf, for those who are told."""

    tasks: TaskQueries
    shelf: ManifestStore
    bus: EventPublisher
    telemetry: Telemetry
    bucket: str

    def changed(self, before: Clip | None, after: Clip) -> None:
        """Tells what this change of a clip means to others, if anything.

        Raises `BusyError`, `BucketError` or `BusError` when it could not; then it has to be told again.
        """
        news = announced(after)
        if news is None:
            return
        task = self.tasks.task(after.caller, after.task_uuid)
        request = task.request if task else {}
        laid = self._lay_manifest(after, request)
        if news != announced(before):
            self.bus.tell(news.news, detail(after, news, request, self.bucket, laid))
            self.telemetry.note(
                "told: " + news.news,
                caller=after.caller,
                taskUUID=after.task_uuid,
                clip=after.index,
                clipUUID=after.clip_uuid,
            )

    def _lay_manifest(self, clip: Clip, request: Mapping[str, Any]) -> str | None:
        """Writes the manifest beside the copy and returns its key; None if there is no copy, or no more.

        One that describes this revision of the clip, or a later one, stands: a repeat must not turn it back.
        """
        if clip.copy is None:
            return None
        key, (version, copy) = manifest_key(clip), clip.copy
        known = _read(self.shelf.manifest(key))
        same_clip = known.get("clipUUID") == clip.clip_uuid
        if same_clip and known["revision"] >= clip.version:
            return key
        same_copy = same_clip and known.get("versionId") == version
        if same_copy:
            # Nobody reads megabytes for what is known. But where the copy was erased, its manifest must not come back.
            sha256 = known["sha256"] if self.shelf.has(clip.object_key, version) else None
        else:
            sha256 = self.shelf.digest(clip.object_key, version)
        if sha256 is None:
            self.telemetry.note("a copy is gone", warn=True, key=clip.object_key, clipUUID=clip.clip_uuid)
            return None
        self.shelf.keep_manifest(key, manifest(clip, version, copy, sha256, request, self.bucket))
        return key


def announced(clip: Clip | None) -> Announcement | None:
    """What others should know of a clip as it is; None while it is under way, as is a failure that is still doubted."""
    if clip is None:
        return None
    if clip.copy:
        return Announcement(News.STORED, clip.copy[0])
    match clip.status:
        case Status.FAILED if not clip.open:
            return Announcement(News.FAILED, str(clip.decisive))
        case Status.REVIEW:
            return Announcement(News.NEEDS_REVIEW, str(clip.decisive))
    return None


def event_id(clip: Clip, news: Announcement) -> str:
    """The same for the same announcement, however often it is made, and no other's."""
    return str(uuid.uuid5(uuid.UUID(clip.clip_uuid), f"{news.news}/{news.about}"))


def detail(
    clip: Clip, news: Announcement, request: Mapping[str, Any], bucket: str, laid: str | None
) -> Mapping[str, Any]:
    """The event's detail, as docs/events has its schema: no links and no tokens, whoever listens."""
    told: Json = {
        "id": event_id(clip, news),
        "revision": clip.version,
        "caller": clip.caller,
        "taskUUID": clip.task_uuid,
        "clip": clip.index,
        "clipUUID": clip.clip_uuid,
        "status": str(clip.status),
        "bucket": bucket,
        "objectKey": clip.object_key,
        **render(clip),
        "cost": dollars(clip.counted),
        "tags": dict(request.get("tags") or {}),
    }
    match news.news:
        case News.STORED:
            told["versionId"] = news.about
            known = clip.of(Kind.STORED)[news.about].fields
            if "container" in known:
                told["container"] = known["container"]
            if laid:
                told["manifestKey"] = laid
        case News.FAILED:
            told["error"] = _error(clip, Kind(news.about))
        case News.NEEDS_REVIEW:
            told["why"] = news.about
    return told


def manifest(clip: Clip, version: str, copy: Known, sha256: str, request: Mapping[str, Any], bucket: str) -> bytes:
    """All that is known of a stored clip, as a JSON document. `version` is that of its `copy`."""
    believed = [believed_cost(known, clip.estimate) for known in clip.of(Kind.RENDERED).values()]
    costs = [cost for cost in believed if cost is not None]
    content: Json = {
        "taskUUID": clip.task_uuid,
        "clip": clip.index,
        "clipUUID": clip.clip_uuid,
        "caller": clip.caller,
        "status": str(clip.status),
        "revision": clip.version,
        "request": request,
        **render(clip),
        **({"cost": dollars(sum(costs))} if costs else {}),
        "bucket": bucket,
        "objectKey": clip.object_key,
        "versionId": version,
        "size": copy.fields.get("size"),
        "sha256": sha256,
        "container": copy.fields.get("container"),
        "createdAt": iso(clip.created_at),
        "storedAt": iso(copy.at),
        "timeline": timeline(clip),
    }
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _read(content: bytes | None) -> Mapping[str, Any]:
    """A manifest of ours; empty if there is none, or something else in its place."""
    try:
        known = json.loads(content or b"{}")
    except ValueError:
        return {}
    fits = isinstance(known, dict) and isinstance(known.get("revision"), int) and isinstance(known.get("sha256"), str)
    return known if fits else {}


def _error(clip: Clip, kind: Kind) -> Json:
    """Why a clip failed, in the provider's words: the first that were heard of the kind that decides."""
    code, known = min(clip.of(kind).items(), key=lambda item: (item[1].at, item[0]))
    return {
        "code": code,
        "category": str(known.fields.get("category", "unknown")),
        "message": reason(known.fields),
    }

"""Publishes a clip's end: an event on the bus, and a manifest beside its copy. The use case behind `publish`.

It gets every change of a clip, as the clip was before and as it is after, and publishes a change whose event is another
than the one before. It keeps no record of its own: a repeated change publishes the same event under the same id, so a
process that stopped half-way is given the change again. The manifest is written before its event, for the listeners.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rushes.domain.clip import Clip, FactRecord, Kind, Status, plausible_cost
from rushes.domain.failure import failure_reason
from rushes.domain.formats import dollars, iso
from rushes.domain.views import Json, manifest_key, render, timeline
from rushes.services.ports import EventPublisher, ManifestStore, TaskQueries, Telemetry


class EventType(StrEnum):
    """The detail types of our events."""

    STORED = "Clip Stored"
    FAILED = "Clip Failed"
    NEEDS_REVIEW = "Clip Needs Review"


@dataclass(frozen=True, slots=True)
class ClipEvent:
    """The event due for a clip. `about` distinguishes two of one type: the pinned version, or the reason."""

    event_type: EventType
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishService:
    """The use case with its adapters. `bucket` is the name of the clips' bucket, for the listeners."""

    tasks: TaskQueries
    manifests: ManifestStore
    bus: EventPublisher
    telemetry: Telemetry
    bucket: str

    def publish_change(self, before: Clip | None, after: Clip) -> None:
        """Publishes the event of this change, if there is one, and its manifest.

        Raises `BusyError`, `BucketError` or `BusError` when it could not; then the change has to come again.
        """
        event = event_of(after)
        if event is None:
            return
        task = self.tasks.task(after.caller, after.task_uuid)
        request = task.request if task else {}
        manifest_at = self._put_manifest(after, request)
        if event != event_of(before):
            self.bus.publish(event.event_type, detail(after, event, request, self.bucket, manifest_at))
            self.telemetry.log(
                "published: " + event.event_type,
                caller=after.caller,
                taskUUID=after.task_uuid,
                clip=after.index,
                clipUUID=after.clip_uuid,
            )

    def _put_manifest(self, clip: Clip, request: Mapping[str, Any]) -> str | None:
        """Writes the manifest beside the copy and returns its key; None if there is no copy, or no more.

        One that describes this revision of the clip, or a later one, stands: a repeat must not turn it back.
        """
        if clip.copy is None:
            return None
        key, (version, copy) = manifest_key(clip), clip.copy
        known = _read(self.manifests.manifest(key))
        same_clip = known.get("clipUUID") == clip.clip_uuid
        if same_clip and known["revision"] >= clip.version:
            return key
        same_copy = same_clip and known.get("versionId") == version
        if same_copy:
            # Nobody reads megabytes for what is known. But where the copy was erased, its manifest must not come back.
            sha256 = known["sha256"] if self.manifests.has(clip.object_key, version) else None
        else:
            sha256 = self.manifests.digest(clip.object_key, version)
        if sha256 is None:
            self.telemetry.log("a copy is gone", warn=True, key=clip.object_key, clipUUID=clip.clip_uuid)
            return None
        self.manifests.put_manifest(key, manifest(clip, version, copy, sha256, request, self.bucket))
        return key


def event_of(clip: Clip | None) -> ClipEvent | None:
    """What others should know of a clip as it is; None while it is under way, as is a failure that is still doubted."""
    if clip is None:
        return None
    if clip.copy:
        return ClipEvent(EventType.STORED, clip.copy[0])
    match clip.status:
        case Status.FAILED if not clip.open:
            return ClipEvent(EventType.FAILED, str(clip.decisive))
        case Status.REVIEW:
            return ClipEvent(EventType.NEEDS_REVIEW, str(clip.decisive))
    return None


def event_id(clip: Clip, event: ClipEvent) -> str:
    """The same for the same announcement, however often it is made, and no other's."""
    return str(uuid.uuid5(uuid.UUID(clip.clip_uuid), f"{event.event_type}/{event.about}"))


def detail(
    clip: Clip, event: ClipEvent, request: Mapping[str, Any], bucket: str, manifest_at: str | None
) -> Mapping[str, Any]:
    """The event's detail, as docs/events has its schema: no links and no tokens, whoever listens."""
    content: Json = {
        "id": event_id(clip, event),
        "revision": clip.version,
        "caller": clip.caller,
        "taskUUID": clip.task_uuid,
        "clip": clip.index,
        "clipUUID": clip.clip_uuid,
        "status": str(clip.status),
        "bucket": bucket,
        "objectKey": clip.object_key,
        **render(clip),
        "cost": dollars(clip.budgeted),
        "tags": dict(request.get("tags") or {}),
    }
    match event.event_type:
        case EventType.STORED:
            content["versionId"] = event.about
            known = clip.of(Kind.STORED)[event.about].fields
            if "container" in known:
                content["container"] = known["container"]
            if manifest_at:
                content["manifestKey"] = manifest_at
        case EventType.FAILED:
            content["error"] = _error(clip, Kind(event.about))
        case EventType.NEEDS_REVIEW:
            content["reason"] = event.about
    return content


def manifest(clip: Clip, version: str, copy: FactRecord, sha256: str, request: Mapping[str, Any], bucket: str) -> bytes:
    """All that is known of a stored clip, as a JSON document. `version` is that of its `copy`."""
    believed = [plausible_cost(known, clip.estimate) for known in clip.of(Kind.RENDERED).values()]
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
        "message": failure_reason(known.fields),
    }

"""The use case behind `publish`: an event on the bus for each clip's end, and a manifest beside its copy.

The input is every change of a clip, as the clip before and after; a change is published if its event differs from the
one before. No state is kept: a repeated change publishes the same event with the same id, so a change can be retried
after a crash. The manifest is written before the event, so that subscribers can read it. After an erasure nothing is
written or published but the erasure, also for earlier changes that are delivered late or again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from rushes.domain.clip import Clip, Kind, Status, plausible_cost
from rushes.domain.delivery import Delivery
from rushes.domain.failure import failure_reason
from rushes.domain.formats import dollars, iso
from rushes.domain.views import Json, chain, manifest_key, render, timeline

if TYPE_CHECKING:
    from rushes.services.ports import DeliveryQueue, EventPublisher, ManifestStore, TaskQueries, Telemetry


_SUPERSEDED = "superseded"  # the reason of the review of a clip that was bought after its successor was recorded


class EventType(StrEnum):
    """The detail types of the service's events."""

    STORED = "Clip Stored"
    FAILED = "Clip Failed"
    NEEDS_REVIEW = "Clip Needs Review"
    ERASED = "Clip Erased"


class ClipEvent(NamedTuple):
    """The event for a clip's state. `about` distinguishes events of one type: the object version, or the reason."""

    event_type: EventType
    about: str


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class PublishService:
    """The use case with its adapters. `bucket` is the name of the clips' bucket, for the events."""

    tasks: TaskQueries
    manifests: ManifestStore
    bus: EventPublisher
    deliveries: DeliveryQueue
    telemetry: Telemetry
    bucket: str

    def publish_change(self, before: Clip | None, after: Clip) -> None:
        """Writes the manifest of this change, publishes its event and queues its delivery, as far as there are any.

        Raises `BusyError`, `BucketError`, `BusError` or `QueueError`; the change then has to be retried.
        """
        event = event_of(after)
        if event is None:
            return
        task = self.tasks.task(after.caller, after.task_uuid)
        # Without the receiver, whose URL may have a token: others than the caller read the manifest.
        request = {name: value for name, value in task.request.items() if name != "webhookURL"} if task else {}
        manifest_at, sha256 = self._due_manifest(after)
        if self._was_erased_since(after):  # asked last, because a digest may take long
            return
        if event.event_type == EventType.STORED and not manifest_at:
            return  # a late repeat of a change: the copy was deleted since, and is never published again
        if sha256:
            self.manifests.put_manifest(manifest_at, manifest(after, sha256, request, self.bucket))
        if event != event_of(before):
            self.bus.publish(event.event_type, detail(after, event, request, self.bucket, manifest_at))
            self.telemetry.log(
                "event published",
                detailType=event.event_type,
                caller=after.caller,
                taskUUID=after.task_uuid,
                clip=after.index,
                clipUUID=after.clip_uuid,
            )
        delivery_id = delivery_id_of(after)
        if task and task.webhook_url and delivery_id and delivery_id != delivery_id_of(before):
            self.deliveries.send(Delivery(after.caller, after.task_uuid, after.index, delivery_id))

    def _was_erased_since(self, clip: Clip) -> bool:
        """True if the clip was erased after this change. The erasure is a change of its own, with its own event."""
        current = None if clip.erased_at else self.tasks.clip(clip.caller, clip.task_uuid, clip.index)
        if current is None or current.erased_at is None:
            return False
        self.telemetry.log("clip was erased", caller=clip.caller, clipUUID=clip.clip_uuid, revision=clip.version)
        return True

    def _due_manifest(self, clip: Clip) -> tuple[str, str]:
        """The key of the manifest, empty if there is no copy or it was erased, and the digest for a new manifest.

        The digest is empty for a manifest of this revision or a later one, which is kept: a repeated change never
        restores an old one.
        """
        if clip.copy is None:
            return "", ""
        key, (version, _) = manifest_key(clip), clip.copy
        existing = _read(self.manifests.manifest(key))
        same_clip = existing.get("clipUUID") == clip.clip_uuid
        if same_clip and existing["revision"] >= clip.version:
            return key, ""
        same_copy = same_clip and existing.get("versionId") == version
        if same_copy:
            # The digest is reused instead of reading the copy again. An erased copy gets no new manifest.
            sha256 = existing["sha256"] if self.manifests.has(clip.object_key, version) else None
        else:
            sha256 = self.manifests.digest(clip.object_key, version)
        if sha256 is None:
            self.telemetry.log("copy no longer exists", warn=True, key=clip.object_key, clipUUID=clip.clip_uuid)
            return "", ""
        return key, sha256


def event_of(clip: Clip | None) -> ClipEvent | None:
    """The event for a clip's present state; None before its end, which for a failed clip is after its last look.

    The outcome of a superseded clip is its successor's. If it was bought after all, only the review is published.
    """
    if clip is None:
        return None
    if clip.is_superseded:
        return ClipEvent(EventType.NEEDS_REVIEW, _SUPERSEDED) if clip.status == Status.REVIEW else None
    if clip.copy:
        return ClipEvent(EventType.STORED, clip.copy[0])
    match clip.status:
        case Status.FAILED if not clip.open:
            return ClipEvent(EventType.FAILED, str(clip.decisive))
        case Status.REVIEW:
            return ClipEvent(EventType.NEEDS_REVIEW, str(clip.decisive))
        case Status.ERASED:
            return ClipEvent(EventType.ERASED, "")
    return None


def event_id(clip: Clip, event: ClipEvent) -> str:
    """The event's id: unique, and always the same for the same event."""
    return str(uuid.uuid5(uuid.UUID(clip.clip_uuid), f"{event.event_type}/{event.about}"))


def delivery_id_of(clip: Clip | None) -> str | None:
    """The id of the delivery for a clip's present state: that of its event, once the outcome is certain.

    A stored clip's outcome is certain once its render's details are recorded or lost; a clip in review has none, and
    that of an erased clip is not sent any more.
    """
    event = event_of(clip)
    if clip is None or event is None or event.event_type in (EventType.NEEDS_REVIEW, EventType.ERASED) or clip.open:
        return None
    return event_id(clip, event)


def detail(
    clip: Clip, event: ClipEvent, request: Mapping[str, Any], bucket: str, manifest_at: str
) -> Mapping[str, Any]:
    """The event's detail, by its schema in docs/events. It has no links or tokens, because any subscriber reads it."""
    names: Json = {
        "id": event_id(clip, event),
        "revision": clip.version,
        "caller": clip.caller,
        "taskUUID": clip.task_uuid,
        "clip": clip.slot,
        "clipUUID": clip.clip_uuid,
        "status": str(clip.status),
    }
    if clip.erased_at:
        return {**names, "erasedAt": iso(clip.erased_at)}
    content: Json = {
        **names,
        **chain(clip),
        "bucket": bucket,
        "objectKey": clip.object_key,
        **render(clip),
        "cost": dollars(clip.budgeted),
        "tags": dict(request.get("tags") or {}),
    }
    match event.event_type:
        case EventType.STORED:
            content["versionId"] = event.about
            fields = clip.of(Kind.STORED)[event.about].fields
            if "container" in fields:
                content["container"] = fields["container"]
            if manifest_at:
                content["manifestKey"] = manifest_at
        case EventType.FAILED:
            content["error"] = _error(clip, Kind(event.about))
        case EventType.NEEDS_REVIEW:
            content["reason"] = event.about
    return content


def manifest(clip: Clip, sha256: str, request: Mapping[str, Any], bucket: str) -> bytes:
    """The manifest of a stored clip: a JSON document of its facts and request."""
    if clip.copy is None:
        raise ValueError("the clip is not stored")
    version, copy = clip.copy
    plausible = [plausible_cost(render, clip.estimate) for render in clip.of(Kind.RENDERED).values()]
    costs = [cost for cost in plausible if cost is not None]
    content: Json = {
        "taskUUID": clip.task_uuid,
        "clip": clip.slot,
        "clipUUID": clip.clip_uuid,
        **chain(clip),
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
    """A manifest's content; empty if there is none, or the object is not a manifest."""
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        return {}
    valid = isinstance(value, dict) and isinstance(value.get("revision"), int) and isinstance(value.get("sha256"), str)
    return value if valid else {}


def _error(clip: Clip, kind: Kind) -> Json:
    """The error of a failed clip: the earliest of its decisive facts."""
    code, record = min(clip.of(kind).items(), key=lambda item: (item[1].at, item[0]))
    return {
        "code": code,
        "category": str(record.fields.get("category", "unknown")),
        "message": failure_reason(record.fields),
    }

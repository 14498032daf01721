"""Erasure of one task: its request, its objects and the provider's texts are deleted.

The clips are first recorded as erased, which removes the texts and ends everything that is published of them; then the
objects and the request are deleted. A tombstone stays, so that the task is not bought again: the taskUUID and
fingerprint, and the clips with their UUIDs, times and money. An interrupted erasure is completed by repeating it.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from rushes.adapters.dynamodb.admin import AdminTable
from rushes.domain.clip import Clip, Fact, FactSource, Kind, merge
from rushes.services.input_images import folder, images_of
from rushes.services.update_clip import update_clip
from rushes_cli.operator.review import TIMES, NoTelemetry

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef


class ErasureError(ValueError):
    """The task was not erased. The text is the reason, for users."""


class Erasure(NamedTuple):
    """The erased clips, and the number of deleted object versions."""

    clips: tuple[Clip, ...]
    deleted: int


def forget(store: AdminTable, s3: "S3Client", bucket: str, caller: str, task_uuid: str, now: int) -> Erasure:
    """Erases a task without open clips. `now` is in milliseconds.

    Raises `ErasureError` if there is no such task or a clip is open, `BusyError` to be repeated.
    """
    clips = store.clips(caller, task_uuid)
    if not clips:
        raise ErasureError(f"{caller} has no task {task_uuid}; nothing was erased.")
    unfinished = [str(clip.index) for clip in clips if clip.open]
    if unfinished:
        raise ErasureError(f"The task has open clips ({', '.join(unfinished)}); nothing was erased.")
    erased = Fact(kind=Kind.ERASED, at=now, source=FactSource.OPERATOR)

    def record(clip: Clip) -> Clip:
        if clip.open:  # opened by a late fact
            raise ErasureError(f"Clip {clip.index} is open again; repeat the command later.")
        return merge(clip, erased)

    saved = [update_clip(store, clip, record, now=now, times=TIMES, telemetry=NoTelemetry()) for clip in clips]
    # The key without its suffix, so that the clip's manifest is deleted, too.
    prefixes = [clip.object_key.rpartition(".")[0] + "." for clip in clips] + [f"inputs/{caller}/{task_uuid}"]
    prefixes += _stored_images(store, bucket, caller, task_uuid)
    deleted = sum(delete_versions(s3, bucket, prefix) for prefix in prefixes)
    store.forget(caller, task_uuid)
    return Erasure(tuple(saved), deleted)


def _stored_images(store: AdminTable, bucket: str, caller: str, task_uuid: str) -> list[str]:
    """The keys of images that were inline in the request. Their names are hashes, unlike those of the caller's own."""
    task = store.task(caller, task_uuid)
    pattern = re.compile(rf"s3://{re.escape(bucket)}/({re.escape(folder(caller))}[0-9a-f]{{64}}\.[a-z]+)")
    found = [pattern.fullmatch(image) for image in images_of(task.request)] if task else []
    return [match[1] for match in found if match]


def delete_versions(s3: "S3Client", bucket: str, prefix: str) -> int:
    """Deletes all object versions and delete markers under a prefix; returns their number."""
    count = 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        versions: list[ObjectIdentifierTypeDef] = [
            {"Key": each["Key"], "VersionId": each["VersionId"]} for each in found
        ]
        if not versions:
            continue
        failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True}).get("Errors", [])
        if failed:
            raise ErasureError(f"S3 could not delete every object ({failed[0].get('Code')}); repeat the command.")
        count += len(versions)
    return count

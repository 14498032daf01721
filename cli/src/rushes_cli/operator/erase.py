"""Erasure of one task: what its caller wrote and was given goes, what keeps it from being bought again stays.

A tombstone is left: the task's UUID and fingerprint, and its clips with their UUIDs, times and money. Whatever stops an
erasure half-way, doing it again completes it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rushes.adapters.dynamodb.admin import AdminTable
from rushes.domain.clip import Clip, FactRecord, Scalar
from rushes.domain.formats import canonical
from rushes.services.input_images import folder, images_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

_ERASED = "Erased."


class ErasureError(ValueError):
    """The task was not erased. The text says why, and is meant for people."""


def forget(store: AdminTable, s3: "S3Client", bucket: str, caller: str, task_uuid: str) -> int:
    """Erases a task of which no clip is open; returns how many object versions were deleted.

    Raises `ErasureError` if it is not known or still open, and `StaleError` or `BusyError` if it has to be done again.
    """
    clips = store.clips(caller, task_uuid)
    if not clips:
        raise ErasureError(f"{caller} has no task {task_uuid}; nothing was erased.")
    unfinished = [str(clip.index) for clip in clips if clip.open]
    if unfinished:
        raise ErasureError(f"Clip {', '.join(unfinished)} of the task is not finished; nothing was erased.")
    # By the stem of its key, so that the manifest beside a clip goes with it.
    prefixes = [clip.object_key.rpartition(".")[0] + "." for clip in clips] + [f"inputs/{caller}/{task_uuid}"]
    prefixes += _kept_images(store, bucket, caller, task_uuid)
    deleted = sum(_delete(s3, bucket, prefix) for prefix in prefixes)
    for clip in clips:
        store.save(clip, _without_words(clip))
    store.forget(caller, task_uuid)
    return deleted


def _kept_images(store: AdminTable, bucket: str, caller: str, task_uuid: str) -> list[str]:
    """The keys of what was in the request itself: their names are hashes, which those of the caller's own are not."""
    task = store.task(caller, task_uuid)
    kept = re.compile(rf"s3://{re.escape(bucket)}/({re.escape(folder(caller))}[0-9a-f]{{64}}\.[a-z]+)")
    found = [kept.fullmatch(image) for image in images_of(task.request)] if task else []
    return [match[1] for match in found if match]


def _delete(s3: "S3Client", bucket: str, prefix: str) -> int:
    """Deletes every version of every object under a prefix, and the markers of those that were deleted before."""
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
            raise ErasureError(f"S3 would not delete everything ({failed[0].get('Code')}); do it again.")
        count += len(versions)
    return count


def _without_words(clip: Clip) -> Clip:
    """The clip without the provider's words, which may repeat the prompt, and without the address of its copy."""
    facts = {
        (kind, key): FactRecord(
            {source: replace(claim, fields=dict(_kept(key, claim.fields))) for source, claim in known.claims.items()}
        )
        for (kind, key), known in clip.facts.items()
    }
    return replace(clip, facts=facts)


def _kept(key: str, fields: Mapping[str, Scalar]) -> Iterator[tuple[str, Scalar]]:
    for name, value in fields.items():
        match name:
            case "videoURL":
                continue
            case "message":
                yield name, _ERASED
            case "error":  # a repeat of a refused request is still answered with it
                yield name, canonical({"code": key, "message": _ERASED})
            case _:
                yield name, value

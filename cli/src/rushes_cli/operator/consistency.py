"""Consistency checks of the table and the bucket.

A finding is a flaw that the service does not repair by itself. Work in progress is not a finding: open clips, recent
uploads, a manifest that is still to be written. The service keeps running during a check, so the check runs twice if it
finds flaws and reports only those found both times.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rushes.adapters.dynamodb.admin import AdminTable, TableSnapshot
from rushes.domain.clip import Clip, Kind, Status, billable_amount
from rushes.domain.media import HEAD_BYTES, container, same_kind
from rushes.domain.task import Task, current_clips
from rushes.domain.views import manifest_key

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PREFIX = "videos/"
_CONCURRENCY = 8  # simultaneous S3 requests
_MAX_MANIFEST_BYTES = 5_000_000
_OVERDUE_MS = 3_600_000  # an hour; a sweep runs every minute
_CHUNK = 1024 * 1024


class Flaw(StrEnum):
    """The kinds of findings."""

    MISSING = "missing"
    HIDDEN = "hidden"
    EMPTY = "empty"
    WRONG_SIZE = "wrongSize"
    WRONG_CONTAINER = "wrongContainer"
    OVERWRITTEN = "overwritten"
    ORPHANED = "orphaned"
    UNRECORDED = "unrecorded"
    NOT_ERASED = "notErased"
    HALF_ERASED = "halfErased"
    MANIFEST_MISSING = "manifestMissing"
    MANIFEST_UNREADABLE = "manifestUnreadable"
    MANIFEST_DIFFERS = "manifestDiffers"
    HASH_DIFFERS = "hashDiffers"
    BUDGET_DIFFERS = "budgetDiffers"
    AMOUNT_DIFFERS = "amountDiffers"
    REQUEST_MISSING = "requestMissing"
    CLIPS_MISSING = "clipsMissing"
    UNSCHEDULED = "unscheduled"
    OVERDUE = "overdue"
    KEY_DIFFERS = "keyDiffers"
    KEY_WITHOUT_CALLER = "keyWithoutCaller"
    UNRECOGNIZED = "unrecognized"


MEANINGS: Mapping[Flaw, str] = {
    Flaw.MISSING: "the object version of a stored clip is not in the bucket",
    Flaw.HIDDEN: "the object version of a stored clip is hidden by a delete marker",
    Flaw.EMPTY: "the object of a stored clip is empty",
    Flaw.WRONG_SIZE: "the object of a stored clip does not have the recorded size",
    Flaw.WRONG_CONTAINER: "the object of a stored clip is not a video, or not of the recorded format",
    Flaw.OVERWRITTEN: "the object of a stored clip has a version newer than the recorded one",
    Flaw.ORPHANED: "an object belongs to no clip",
    Flaw.UNRECORDED: "a video is under a clip's key, but the clip is not recorded as stored",
    Flaw.NOT_ERASED: "an object of an erased clip is in the bucket; give `rushes forget` again",
    Flaw.HALF_ERASED: "an erasure was interrupted, so some clips or the request are left; give `rushes forget` again",
    Flaw.MANIFEST_MISSING: "a stored clip has no manifest",
    Flaw.MANIFEST_UNREADABLE: "a manifest is not valid JSON, or has no SHA-256",
    Flaw.MANIFEST_DIFFERS: "a manifest has another clip, version or size than the record",
    Flaw.HASH_DIFFERS: "the SHA-256 of a stored clip differs from the manifest's (only with --deep)",
    Flaw.BUDGET_DIFFERS: "the sum of a month's budget differs from the sum of its clips",
    Flaw.AMOUNT_DIFFERS: "the counted amount of a clip differs from the amount that follows from its facts",
    Flaw.REQUEST_MISSING: "a task has clips but neither a request nor a tombstone, so a repeat would not be recognized",
    Flaw.CLIPS_MISSING: "a task has fewer clips than were ordered",
    Flaw.UNSCHEDULED: "an open clip has no next check, so no sweep will find it",
    Flaw.OVERDUE: "an open clip's next check is an hour overdue",
    Flaw.KEY_DIFFERS: "an API key and its entry in the caller's list differ",
    Flaw.KEY_WITHOUT_CALLER: "an active API key has no caller with a limit, so it is refused",
    Flaw.UNRECOGNIZED: "an item cannot be read, perhaps of a later version; its money and objects are findings, too",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One finding: its kind, the clip, object, task, budget or key, and the details."""

    flaw: Flaw
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The options of a check. Times are in milliseconds.

    `retention` is the retention of objects, None if unlimited. `grace` is the time allowed for a manifest after its
    clip is stored. `deep` compares SHA-256 digests.
    """

    now: int
    retention: int | None = None
    grace: int = 900_000
    deep: bool = False


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """One version of an object, or a delete marker (`size` None)."""

    version: str
    size: int | None
    modified: int


@dataclass(slots=True)
class BucketListing:
    """The object versions of each key, the newest first, and access to their content."""

    s3: "S3Client"
    name: str
    objects: dict[str, list[ListedVersion]] = field(default_factory=dict)

    def list(self) -> None:
        """Lists all object versions under `videos/`."""
        self.objects.clear()
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=PREFIX):
            found = chain(
                ((each, each.get("Size", 0)) for each in page.get("Versions", [])),
                ((each, None) for each in page.get("DeleteMarkers", [])),
            )
            for each, size in found:
                modified = round(each["LastModified"].timestamp() * 1000)
                versions = self.objects.setdefault(each["Key"], [])
                version = ListedVersion(each["VersionId"], size, modified)
                versions.insert(0, version) if each.get("IsLatest") else versions.append(version)

    def read(self, key: str, version: str | None, length: int) -> bytes:
        """The first `length` bytes of an object version, or of the latest one."""
        of = {"VersionId": version} if version else {}
        try:
            response = self.s3.get_object(Bucket=self.name, Key=key, Range=f"bytes=0-{length - 1}", **of)  # type: ignore[arg-type]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("InvalidRange", "416"):  # an empty object
                return b""
            raise
        return response["Body"].read(length)

    def sha256(self, key: str, version: str) -> str:
        """The SHA-256 of one object version in hexadecimal."""
        body = self.s3.get_object(Bucket=self.name, Key=key, VersionId=version)["Body"]
        digest = hashlib.sha256()
        for piece in body.iter_chunks(_CHUNK):
            digest.update(piece)
        return digest.hexdigest()


def check(store: AdminTable, s3: "S3Client", bucket: str, options: CheckOptions) -> list[Finding]:
    """All findings, in the order of `Flaw`."""
    found = _check_once(store, BucketListing(s3, bucket), options)
    if found:
        found &= _check_once(store, BucketListing(s3, bucket), options)
    order = list(Flaw)
    return sorted(found, key=lambda finding: (order.index(finding.flaw), finding))


def _check_once(store: AdminTable, bucket: BucketListing, options: CheckOptions) -> set[Finding]:
    snapshot = store.snapshot()
    bucket.list()  # after the table: an object stored in between belongs to a clip that was open
    records = _Records(snapshot)
    return {
        *(
            Finding(Flaw.UNRECOGNIZED, key, "not a task, clip, budget, caller or API key")
            for key in snapshot.unrecognized_keys
        ),
        *_of_tasks(records),
        *_of_money(snapshot, options),
        *_of_clips(snapshot.clips, options),
        *_of_keys(snapshot),
        *_of_objects(records, bucket),
        *_of_copies(records, bucket, options),
    }


class _Records:
    """The snapshot, indexed by task and by object key."""

    def __init__(self, snapshot: TableSnapshot) -> None:
        self.tasks: dict[tuple[str, str], Task] = {(task.caller, task.task_uuid): task for task in snapshot.tasks}
        self.tombstones = snapshot.tombstones
        self.of_task: dict[tuple[str, str], list[Clip]] = defaultdict(list)
        for clip in snapshot.clips:
            self.of_task[clip.caller, clip.task_uuid].append(clip)
        self.by_key = {clip.object_key: clip for clip in snapshot.clips}
        self.by_manifest = {manifest_key(clip): clip for clip in snapshot.clips}

    def may_be_deleted(self, clip: Clip, options: CheckOptions) -> bool:
        """True if the retention may have deleted the clip's objects."""
        if (clip.caller, clip.task_uuid) not in self.tasks:
            return True
        return options.retention is not None and options.now - _stored_at(clip) >= options.retention


def name(clip: Clip) -> str:
    """A clip's name in findings."""
    return f"{clip.caller}/{clip.task_uuid}-{clip.index}"


def _of_tasks(records: _Records) -> Iterator[Finding]:
    for (caller, task_uuid), clips in records.of_task.items():
        subject = f"{caller}/{task_uuid}"
        if (caller, task_uuid) not in records.tasks and (caller, task_uuid) not in records.tombstones:
            yield Finding(Flaw.REQUEST_MISSING, subject, "the table has neither the request nor its tombstone")
        task = records.tasks.get((caller, task_uuid))
        erased = [clip for clip in clips if clip.erased_at]
        if erased and (len(erased) < len(clips) or (task and task.request)):
            left = ", ".join(f"clip {clip.index}" for clip in clips if not clip.erased_at) or "the request"
            yield Finding(Flaw.HALF_ERASED, subject, f"left: {left}")
        elif task and not task.request and not erased:
            yield Finding(Flaw.HALF_ERASED, subject, "the request was erased, but no clip")
        current = current_clips(clips)
        if task and len(current) != task.clips:
            yield Finding(Flaw.CLIPS_MISSING, subject, f"{len(current)} of {task.clips} clips are in the table")
        for clip in current:
            if clip.is_superseded:
                yield Finding(Flaw.CLIPS_MISSING, name(clip), "it is superseded by a clip that is not in the table")
    for (caller, task_uuid), task in records.tasks.items():
        if (caller, task_uuid) not in records.of_task:
            yield Finding(Flaw.CLIPS_MISSING, f"{caller}/{task_uuid}", f"0 of {task.clips} clips are in the table")


def _of_money(snapshot: TableSnapshot, options: CheckOptions) -> Iterator[Finding]:
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for clip in snapshot.clips:
        for scope in clip.scopes:
            sums[scope, clip.month] += clip.budgeted
        due = clip.next_check_at is not None and clip.next_check_at >= options.now - _OVERDUE_MS
        if not clip.budget_is_current and not due:  # the next check of a due clip corrects its amount
            yield Finding(
                Flaw.AMOUNT_DIFFERS,
                name(clip),
                f"counted {_dollars(clip.budgeted)}, by its facts {_dollars(billable_amount(clip))}",
            )
    for scope, month in sums.keys() | snapshot.budgets.keys():
        recorded, summed = snapshot.budgets.get((scope, month), 0), sums.get((scope, month), 0)
        if recorded != summed:
            detail = f"the budget has {_dollars(recorded)}, its clips {_dollars(summed)}"
            yield Finding(Flaw.BUDGET_DIFFERS, f"{scope} {month}", detail)


def _of_clips(clips: Iterable[Clip], options: CheckOptions) -> Iterator[Finding]:
    for clip in clips:
        is_indexed = clip.open or clip.status == Status.REVIEW
        if is_indexed and clip.next_check_at is None:
            yield Finding(Flaw.UNSCHEDULED, name(clip), f"{clip.status}, without a next check")
        elif clip.open and clip.next_check_at is not None and clip.next_check_at < options.now - _OVERDUE_MS:
            yield Finding(Flaw.OVERDUE, name(clip), f"{clip.status}, due at {clip.next_check_at}")


def _of_keys(snapshot: TableSnapshot) -> Iterator[Finding]:
    for key_hash in snapshot.keys.keys() | snapshot.listed.keys():
        found, listed = snapshot.keys.get(key_hash), snapshot.listed.get(key_hash)
        caller, key = found or listed or ("", None)
        subject = f"{caller} {key_hash[:12]}"
        if found != listed:
            detail = "only in the caller's list" if found is None else "not in the caller's list"
            yield Finding(Flaw.KEY_DIFFERS, subject, "the fields differ" if found and listed else detail)
        elif key and key.revoked_at is None and caller not in snapshot.callers:
            yield Finding(Flaw.KEY_WITHOUT_CALLER, subject, "the caller has no limit")


def _of_objects(records: _Records, bucket: BucketListing) -> Iterator[Finding]:
    """Objects that should not be in the bucket, or should be recorded."""
    for key, versions in bucket.objects.items():
        if all(version.size is None for version in versions):
            continue  # delete markers only
        clip, manifest_of = records.by_key.get(key), records.by_manifest.get(key)
        owner = clip or manifest_of
        if owner is None:
            yield Finding(Flaw.ORPHANED, key, "no clip has this key")
        elif owner.erased_at:
            yield Finding(Flaw.NOT_ERASED, key, f"{name(owner)} was erased")
        elif clip is not None and clip.copy is None and not clip.open:
            # An upload that is not a video was rejected; it stays as evidence.
            if container(bucket.read(key, None, HEAD_BYTES), versions[0].size):
                yield Finding(Flaw.UNRECORDED, key, f"{name(clip)} is {clip.status}")
        elif manifest_of is not None and manifest_of.copy is None and not manifest_of.open:
            yield Finding(Flaw.ORPHANED, key, f"a manifest of {name(manifest_of)}, which is {manifest_of.status}")


def _of_copies(records: _Records, bucket: BucketListing, options: CheckOptions) -> Iterator[Finding]:
    """Checks every stored clip's object and manifest."""
    stored = [clip for clip in records.by_key.values() if clip.copy is not None and not clip.erased_at]

    def check_copy(clip: Clip) -> list[Finding]:
        may_be_deleted = records.may_be_deleted(clip, options)
        return list(_of_copy(clip, bucket, options, may_be_deleted=may_be_deleted))

    with ThreadPoolExecutor(_CONCURRENCY) as executor:
        for found in executor.map(check_copy, stored):
            yield from found


def _of_copy(clip: Clip, bucket: BucketListing, options: CheckOptions, *, may_be_deleted: bool) -> Iterator[Finding]:
    version, claim = clip.copy or ("", None)
    versions = bucket.objects.get(clip.object_key, [])
    pinned = next((each for each in versions if each.version == version and each.size is not None), None)
    if pinned is None:
        if not may_be_deleted:
            yield Finding(Flaw.MISSING, name(clip), f"version {version} of {clip.object_key}")
        return
    yield from _of_versions(clip, versions, version)
    size = claim.fields.get("size") if claim else None
    if pinned.size == 0:
        yield Finding(Flaw.EMPTY, name(clip), clip.object_key)
        return
    if isinstance(size, int) and pinned.size != size:
        yield Finding(Flaw.WRONG_SIZE, name(clip), f"{pinned.size} bytes, recorded {size}")
    yield from _of_content(clip, bucket, pinned)
    yield from _of_manifest(clip, bucket, options, version, pinned, may_be_deleted=may_be_deleted)


def _of_versions(clip: Clip, versions: Sequence[ListedVersion], pinned: str) -> Iterator[Finding]:
    newest = versions[0]
    if newest.version == pinned:
        return
    if newest.size is None:
        yield Finding(Flaw.HIDDEN, name(clip), f"{clip.object_key} has a delete marker")
    else:
        yield Finding(Flaw.OVERWRITTEN, name(clip), f"the newest version of {clip.object_key} is {newest.version}")


def _of_content(clip: Clip, bucket: BucketListing, pinned: ListedVersion) -> Iterator[Finding]:
    """A copy's format may differ from its key's suffix, but not from its record."""
    found = container(bucket.read(clip.object_key, pinned.version, HEAD_BYTES), pinned.size)
    recorded = str(clip.of(Kind.STORED)[pinned.version].fields.get("container", ""))
    if found is None or not same_kind(found, recorded or clip.object_key.rpartition(".")[2]):
        yield Finding(Flaw.WRONG_CONTAINER, name(clip), f"{clip.object_key} is {found or 'not a video'}")


def _of_manifest(
    clip: Clip,
    bucket: BucketListing,
    options: CheckOptions,
    version: str,
    pinned: ListedVersion,
    *,
    may_be_deleted: bool,
) -> Iterator[Finding]:
    key = manifest_key(clip)
    versions = bucket.objects.get(key, [])
    if not versions or versions[0].size is None:
        if not may_be_deleted and options.now - _stored_at(clip) >= options.grace:
            yield Finding(Flaw.MANIFEST_MISSING, name(clip), key)
        return
    manifest = _parsed(bucket.read(key, None, _MAX_MANIFEST_BYTES))
    if manifest is None:
        yield Finding(Flaw.MANIFEST_UNREADABLE, name(clip), key)
        return
    expected = {
        "taskUUID": clip.task_uuid,
        "clip": clip.index,
        "caller": clip.caller,
        "objectKey": clip.object_key,
        "versionId": version,
        "size": pinned.size,
    }
    differing = [field for field, value in expected.items() if manifest.get(field) != value]
    if differing:
        yield Finding(Flaw.MANIFEST_DIFFERS, name(clip), f"different: {', '.join(differing)}")
    elif options.deep and manifest.get("sha256") != bucket.sha256(clip.object_key, version):
        yield Finding(Flaw.HASH_DIFFERS, name(clip), clip.object_key)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("sha256"), str) else None


def _stored_at(clip: Clip) -> int:
    return clip.copy[1].at if clip.copy else clip.created_at


def _dollars(micro_dollars: int) -> str:
    return f"${micro_dollars / 1_000_000:.6f}".rstrip("0").rstrip(".")

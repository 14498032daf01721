"""The table against the bucket, and both against themselves: everything that must be so and is not.

A finding is something that the service would not put right by itself. What is under way is none: open clips, uploads of
the last minutes, a manifest that is still being written. Both are read while the service works, so whatever looks wrong
is looked at a second time, and only what is wrong both times is told.
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
from rushes.domain.task import Task

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PREFIX = "videos/"
_TOGETHER = 8  # questions to S3 at once
_MAX_MANIFEST_BYTES = 5_000_000
_LONG_OVERDUE = 3_600_000  # milliseconds; a sweep runs every minute
_CHUNK = 1024 * 1024


class Flaw(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    HIDDEN = "hidden"
    EMPTY = "empty"
    WRONG_SIZE = "wrongSize"
    WRONG_CONTAINER = "wrongContainer"
    OVERWRITTEN = "overwritten"
    ORPHANED = "orphaned"
    UNRECORDED = "unrecorded"
    NOT_ERASED = "notErased"
    MANIFEST_MISSING = "manifestMissing"
    MANIFEST_UNREADABLE = "manifestUnreadable"
    MANIFEST_DIFFERS = "manifestDiffers"
    HASH_DIFFERS = "hashDiffers"
    BUDGET_DIFFERS = "budgetDiffers"
    MISCOUNTED = "miscounted"
    REQUEST_MISSING = "requestMissing"
    CLIPS_MISSING = "clipsMissing"
    UNWATCHED = "unwatched"
    OVERDUE = "overdue"
    KEY_DIFFERS = "keyDiffers"
    KEY_WITHOUT_CALLER = "keyWithoutCaller"
    STRANGE = "strange"


MEANINGS: Mapping[Flaw, str] = {
    Flaw.MISSING: "a stored clip's version is not in the bucket",
    Flaw.HIDDEN: "a stored clip's version is there, behind a delete marker",
    Flaw.EMPTY: "a stored clip's object has no bytes",
    Flaw.WRONG_SIZE: "a stored clip's object has another size than on record",
    Flaw.WRONG_CONTAINER: "a stored clip's object is no video, or of another kind than on record",
    Flaw.OVERWRITTEN: "a later version lies over the one on record",
    Flaw.ORPHANED: "an object belongs to no clip",
    Flaw.UNRECORDED: "a video lies where a clip's should, and the clip is not recorded as stored",
    Flaw.NOT_ERASED: "an object of a forgotten task is still there",
    Flaw.MANIFEST_MISSING: "a stored clip has no manifest",
    Flaw.MANIFEST_UNREADABLE: "a manifest is not the JSON that it should be",
    Flaw.MANIFEST_DIFFERS: "a manifest tells of another clip, version or size",
    Flaw.HASH_DIFFERS: "a stored clip's bytes are not those of the manifest's SHA-256 (only with --deep)",
    Flaw.BUDGET_DIFFERS: "a budget's month is not the sum of its clips",
    Flaw.MISCOUNTED: "a clip counts for another amount than its facts say",
    Flaw.REQUEST_MISSING: "clips whose request is gone, with nothing left to tell a repeat from a conflict",
    Flaw.CLIPS_MISSING: "a task has fewer clips than were ordered",
    Flaw.UNWATCHED: "an open clip that no sweep will ever look at",
    Flaw.OVERDUE: "an open clip that no sweep has looked at for an hour",
    Flaw.KEY_DIFFERS: "an API key and its entry in its caller's list are not the same",
    Flaw.KEY_WITHOUT_CALLER: "an API key in use whose caller has no limit, so that it opens nothing",
    Flaw.STRANGE: "an item that cannot be read, perhaps a later version's: its money and objects show as flaws, too",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something wrong: what, with which clip, object, task or budget, and how it shows."""

    flaw: Flaw
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How to judge. Times are in milliseconds; `retention` is how long objects are kept, None means for ever.

    `grace` is how long after a clip was stored its manifest may take.
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
    """What lies under a key: its versions, the newest first. Reads more only when asked."""

    s3: "S3Client"
    name: str
    objects: dict[str, list[ListedVersion]] = field(default_factory=dict)

    def list(self) -> None:
        """Reads which objects and versions there are."""
        self.objects.clear()
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=PREFIX):
            found = chain(
                ((each, each.get("Size", 0)) for each in page.get("Versions", [])),
                ((each, None) for each in page.get("DeleteMarkers", [])),
            )
            for each, size in found:
                modified = round(each["LastModified"].timestamp() * 1000)
                kept = self.objects.setdefault(each["Key"], [])
                version = ListedVersion(each["VersionId"], size, modified)
                kept.insert(0, version) if each.get("IsLatest") else kept.append(version)

    def read(self, key: str, version: str | None, most: int) -> bytes:
        """The first bytes of an object."""
        of = {"VersionId": version} if version else {}
        try:
            answer = self.s3.get_object(Bucket=self.name, Key=key, Range=f"bytes=0-{most - 1}", **of)  # type: ignore[arg-type]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("InvalidRange", "416"):  # an empty object
                return b""
            raise
        return answer["Body"].read(most)

    def sha256(self, key: str, version: str) -> str:
        """The hash of all bytes of one version."""
        body = self.s3.get_object(Bucket=self.name, Key=key, VersionId=version)["Body"]
        digest = hashlib.sha256()
        for piece in body.iter_chunks(_CHUNK):
            digest.update(piece)
        return digest.hexdigest()


def check(store: AdminTable, s3: "S3Client", bucket: str, terms: Terms) -> list[Finding]:
    """Everything that is wrong, in the order of the flaws."""
    found = _look(store, BucketListing(s3, bucket), terms)
    if found:
        found &= _look(store, BucketListing(s3, bucket), terms)
    order = list(Flaw)
    return sorted(found, key=lambda finding: (order.index(finding.flaw), finding))


def _look(store: AdminTable, bucket: BucketListing, terms: Terms) -> set[Finding]:
    snapshot = store.snapshot()
    bucket.list()  # after the table: what is stored meanwhile belongs to a clip that was open
    records = _Records(snapshot)
    return {
        *(Finding(Flaw.STRANGE, key, "no task, clip, budget, caller or key") for key in snapshot.unrecognized_keys),
        *_of_tasks(records),
        *_of_money(snapshot, terms),
        *_of_clips(snapshot.clips, terms),
        *_of_keys(snapshot),
        *_of_objects(records, bucket),
        *_of_copies(records, bucket, terms),
    }


class _Records:
    """The snapshot, looked up by task and by object key."""

    def __init__(self, snapshot: TableSnapshot) -> None:
        self.tasks: dict[tuple[str, str], Task] = {(task.caller, task.task_uuid): task for task in snapshot.tasks}
        self.tombstones = snapshot.tombstones
        self.of_task: dict[tuple[str, str], list[Clip]] = defaultdict(list)
        for clip in snapshot.clips:
            self.of_task[clip.caller, clip.task_uuid].append(clip)
        self.by_key = {clip.object_key: clip for clip in snapshot.clips}
        self.by_manifest = {manifest_key(clip): clip for clip in snapshot.clips}

    def is_forgotten(self, clip: Clip) -> bool:
        """Whether the task was erased on purpose."""
        task = self.tasks.get((clip.caller, clip.task_uuid))
        return task is not None and not task.request

    def may_be_gone(self, clip: Clip, terms: Terms) -> bool:
        """Whether a clip's objects may have been removed in good order."""
        if self.is_forgotten(clip) or (clip.caller, clip.task_uuid) not in self.tasks:
            return True
        return terms.retention is not None and terms.now - _stored_at(clip) >= terms.retention


def manifest_key(clip: Clip) -> str:
    """Where a clip's manifest lies."""
    return clip.object_key.rpartition(".")[0] + ".json"


def name(clip: Clip) -> str:
    """A clip for people."""
    return f"{clip.caller}/{clip.task_uuid}-{clip.index}"


def _of_tasks(records: _Records) -> Iterator[Finding]:
    for (caller, task_uuid), clips in records.of_task.items():
        named = f"{caller}/{task_uuid}"
        if (caller, task_uuid) not in records.tasks and (caller, task_uuid) not in records.tombstones:
            yield Finding(Flaw.REQUEST_MISSING, named, "neither the request nor its tombstone is in the table")
        task = records.tasks.get((caller, task_uuid))
        if task and len(clips) != task.clips:
            yield Finding(Flaw.CLIPS_MISSING, named, f"{len(clips)} of {task.clips} clips are in the table")
    for (caller, task_uuid), task in records.tasks.items():
        if (caller, task_uuid) not in records.of_task:
            yield Finding(Flaw.CLIPS_MISSING, f"{caller}/{task_uuid}", f"0 of {task.clips} clips are in the table")


def _of_money(snapshot: TableSnapshot, terms: Terms) -> Iterator[Finding]:
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for clip in snapshot.clips:
        for scope in clip.scopes:
            sums[scope, clip.month] += clip.budgeted
        due = clip.next_check_at is not None and clip.next_check_at >= terms.now - _LONG_OVERDUE
        if not clip.budget_is_current and not due:  # where one is due, its money is to follow
            yield Finding(
                Flaw.MISCOUNTED,
                name(clip),
                f"counts {_dollars(clip.budgeted)}, worth {_dollars(billable_amount(clip))}",
            )
    for scope, month in sums.keys() | snapshot.budgets.keys():
        held, summed = snapshot.budgets.get((scope, month), 0), sums.get((scope, month), 0)
        if held != summed:
            detail = f"holds {_dollars(held)}, its clips come to {_dollars(summed)}"
            yield Finding(Flaw.BUDGET_DIFFERS, f"{scope} {month}", detail)


def _of_clips(clips: Iterable[Clip], terms: Terms) -> Iterator[Finding]:
    for clip in clips:
        listed = clip.open or clip.status == Status.REVIEW
        if listed and clip.next_check_at is None:
            yield Finding(Flaw.UNWATCHED, name(clip), f"{clip.status}, and in no index")
        elif clip.open and clip.next_check_at is not None and clip.next_check_at < terms.now - _LONG_OVERDUE:
            yield Finding(Flaw.OVERDUE, name(clip), f"{clip.status}, due at {clip.next_check_at}")


def _of_keys(snapshot: TableSnapshot) -> Iterator[Finding]:
    for key_hash in snapshot.keys.keys() | snapshot.listed.keys():
        found, listed = snapshot.keys.get(key_hash), snapshot.listed.get(key_hash)
        caller, key = found or listed or ("", None)
        named = f"{caller} {key_hash[:12]}"
        if found != listed:
            gone = "it opens nothing" if found is None else "its list lacks it" if listed is None else "they differ"
            yield Finding(Flaw.KEY_DIFFERS, named, gone)
        elif key and key.revoked_at is None and caller not in snapshot.callers:
            yield Finding(Flaw.KEY_WITHOUT_CALLER, named, "the caller has no limit")


def _of_objects(records: _Records, bucket: BucketListing) -> Iterator[Finding]:
    """What lies in the bucket and should not, or should be known."""
    for key, versions in bucket.objects.items():
        if all(version.size is None for version in versions):
            continue  # markers alone
        clip, described = records.by_key.get(key), records.by_manifest.get(key)
        owner = clip or described
        if owner is None:
            yield Finding(Flaw.ORPHANED, key, "no clip has this key")
        elif records.is_forgotten(owner):
            yield Finding(Flaw.NOT_ERASED, key, f"{name(owner)} was forgotten")
        elif clip is not None and clip.copy is None and not clip.open:
            # What is no video was uploaded and found wanting; it is evidence, and harms nobody.
            if container(bucket.read(key, None, HEAD_BYTES), versions[0].size):
                yield Finding(Flaw.UNRECORDED, key, f"{name(clip)} is {clip.status}")
        elif described is not None and described.copy is None and not described.open:
            yield Finding(Flaw.ORPHANED, key, f"a manifest of {name(described)}, which is {described.status}")


def _of_copies(records: _Records, bucket: BucketListing, terms: Terms) -> Iterator[Finding]:
    """Every stored clip's object and manifest."""
    stored = [clip for clip in records.by_key.values() if clip.copy is not None and not records.is_forgotten(clip)]

    def look(clip: Clip) -> list[Finding]:
        return list(_of_copy(clip, bucket, terms, gone=records.may_be_gone(clip, terms)))

    with ThreadPoolExecutor(_TOGETHER) as executor:
        for found in executor.map(look, stored):
            yield from found


def _of_copy(clip: Clip, bucket: BucketListing, terms: Terms, *, gone: bool) -> Iterator[Finding]:
    version, known = clip.copy or ("", None)
    versions = bucket.objects.get(clip.object_key, [])
    pinned = next((each for each in versions if each.version == version and each.size is not None), None)
    if pinned is None:
        if not gone:
            yield Finding(Flaw.MISSING, name(clip), f"version {version} of {clip.object_key}")
        return
    yield from _of_versions(clip, versions, version)
    size = known.fields.get("size") if known else None
    if pinned.size == 0:
        yield Finding(Flaw.EMPTY, name(clip), clip.object_key)
        return
    if isinstance(size, int) and pinned.size != size:
        yield Finding(Flaw.WRONG_SIZE, name(clip), f"{pinned.size} bytes, on record {size}")
    yield from _of_content(clip, bucket, pinned)
    yield from _of_manifest(clip, bucket, terms, version, pinned, gone=gone)


def _of_versions(clip: Clip, versions: Sequence[ListedVersion], pinned: str) -> Iterator[Finding]:
    newest = versions[0]
    if newest.version == pinned:
        return
    if newest.size is None:
        yield Finding(Flaw.HIDDEN, name(clip), f"a delete marker lies over {clip.object_key}")
    else:
        yield Finding(Flaw.OVERWRITTEN, name(clip), f"{clip.object_key} is now version {newest.version}")


def _of_content(clip: Clip, bucket: BucketListing, pinned: ListedVersion) -> Iterator[Finding]:
    """A copy may be of another kind than its key promises, but not of another than its record has."""
    found = container(bucket.read(clip.object_key, pinned.version, HEAD_BYTES), pinned.size)
    recorded = str(clip.of(Kind.STORED)[pinned.version].fields.get("container", ""))
    if found is None or not same_kind(found, recorded or clip.object_key.rpartition(".")[2]):
        yield Finding(Flaw.WRONG_CONTAINER, name(clip), f"{clip.object_key} is {found or 'no video'}")


def _of_manifest(
    clip: Clip, bucket: BucketListing, terms: Terms, version: str, pinned: ListedVersion, *, gone: bool
) -> Iterator[Finding]:
    key = manifest_key(clip)
    versions = bucket.objects.get(key, [])
    if not versions or versions[0].size is None:
        if not gone and terms.now - _stored_at(clip) >= terms.grace:
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
        yield Finding(Flaw.MANIFEST_DIFFERS, name(clip), f"in {', '.join(differing)}")
    elif terms.deep and manifest.get("sha256") != bucket.sha256(clip.object_key, version):
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

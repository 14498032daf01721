"""Checks the service's promises at the end of a run, by Runware's ledger, the table and the bucket.

The ledger is the reference for payments, and Runware for the content of a clip's object. The events are compared with
the table, and the manifests with the objects.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from botocore.exceptions import ClientError

from rushes.domain.clip import Clip, Kind, Status
from rushes_local.runware.emulator import Charge
from rushes_local.stack import Stack
from tests.chaos.traffic import Caller, CallerHistory, Json, TaskName
from tests.event_listener import LISTENER
from tests.secret_patterns import leaks

# The event of a clip in each final status.
_EVENTS = {Status.STORED: "Clip Stored", Status.FAILED: "Clip Failed", Status.REVIEW: "Clip Needs Review"}

# The signature of each format, with the position of its first byte.
_SIGNATURES = {"mp4": (4, b"ftyp"), "mov": (4, b"ftyp"), "webm": (0, b"\x1aE\xdf\xa3")}


@dataclass
class FinalState:
    """The state at the end: clips by task, and Runware's charges by clip."""

    clips: dict[TaskName, list[Clip]]
    charges: dict[str, list[Charge]]

    @property
    def all_clips(self) -> list[Clip]:
        return [clip for clips in self.clips.values() for clip in clips]


@dataclass(frozen=True)
class BrokenPromise:
    """The description of a broken promise, and its task, if it is about one."""

    text: str
    task: TaskName | None = None


class StackInspector:
    """Reads the current state of a stack's components. Slow to create, quick to use."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._dynamodb, self._sqs, self._s3 = (stack.client(service) for service in ("dynamodb", "sqs", "s3"))
        self._http = httpx.Client(base_url=stack.emulator_url, timeout=10, trust_env=False)

    def find(self) -> FinalState:
        """All clips and all charges."""
        charges: dict[str, list[Charge]] = defaultdict(list)
        for charge in self.stack.emulator.ledger():
            charges[charge.task_uuid].append(charge)
        return FinalState({name: self.stack.store.clips(*name) for name in self._tasks()}, charges)

    def open_clips(self) -> int:
        """The number of clips that the index of due clips will have, without those in review."""
        due = self._scan(FilterExpression="attribute_exists(dueShard)", ProjectionExpression="dueShard")
        return sum(item["dueShard"]["S"] != "review" for item in due)

    def waiting(self, *, dead: bool = False) -> int:
        """The number of messages in the queues, or in the dead-letter queues."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
        return sum(
            int(count)
            for url in self._sqs.list_queues().get("QueueUrls", [])
            if ("DeadLetters" in url) == dead and LISTENER not in url
            for count in self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
        )

    def all_quiet(self) -> bool:
        """True if no clip is open, no message waits, and Runware has no work left."""
        return not self.open_clips() and not self.waiting() and self.stack.emulator.idle(0)

    def content(self, key: str, version: str) -> bytes | None:
        """The bytes of an object version; None if it does not exist."""
        try:
            answer = self._s3.get_object(Bucket=self.stack.bucket_name, Key=key, VersionId=version)
        except ClientError:
            return None
        content: bytes = answer["Body"].read()
        return content

    def manifest(self, clip: Clip) -> Json:
        """A clip's manifest; empty if it does not exist."""
        try:
            key = clip.object_key.rpartition(".")[0] + ".json"
            answer = self._s3.get_object(Bucket=self.stack.bucket_name, Key=key)
        except ClientError:
            return {}
        content: Json = json.loads(answer["Body"].read())
        return content

    def rendered(self, charge: Charge, suffix: str) -> bytes:
        """The bytes at Runware of the video with this charge."""
        return self._http.get(f"/video/os/a02d21/ws/5/vi/{charge.video_uuid}.{suffix}").content

    def _scan(self, **options: Any) -> Iterator[Any]:
        """Scan the table consistently: its index, and other reads, may lag."""
        scan = self._dynamodb.get_paginator("scan")
        for page in scan.paginate(TableName=self.stack.table_name, ConsistentRead=True, **options):
            yield from page["Items"]

    def _tasks(self) -> list[TaskName]:
        keys = [(item["pk"]["S"], item["sk"]["S"]) for item in self._scan(ProjectionExpression="pk, sk")]
        # By the clips and not by the requests, to find clips without a task.
        return sorted({(pk.split("#")[1], pk.split("#")[2]) for pk, sk in keys if sk.startswith("clip#")})


def judge(
    inspector: StackInspector,
    final: FinalState,
    callers: Sequence[Caller],
    history: CallerHistory,
    events: Sequence[Json],
    log: Sequence[str],
) -> list[BrokenPromise]:
    """Every broken promise; empty if all were kept.

    `history` has the requests of the callers, `events` every event of the bus, `log` every line of every component.
    """
    return [
        *(
            BrokenPromise(f"clip {clip.index}: {fault}", name)
            for name, clips in final.clips.items()
            for clip in clips
            for fault in (
                *_purchase_faults(clip, final),
                *_copy_faults(inspector, clip, final),
                *event_faults(inspector, clip, events),
            )
        ),
        *_answer_faults(final, history),
        *_unrecorded(inspector.stack, final),
        *_budget_faults(inspector.stack, final, callers),
        *(BrokenPromise(text) for text in (*history.contradictions, *leaks(log))),
    ]


def _purchase_faults(clip: Clip, final: FinalState) -> Iterator[str]:
    """A clip is bought at most once, never lost, and has no invented facts."""
    charges = final.charges.get(clip.clip_uuid, [])
    paid = sum(charge.micro_dollars for charge in charges)
    if len(charges) > 1:
        yield f"bought {len(charges)} times"
    if clip.open or clip.status not in (Status.STORED, Status.FAILED, Status.REVIEW):
        yield f"lost: still {clip.status} at the end"
    if clip.status == Status.FAILED and charges:
        yield "lost: paid for and called failed"
    if clip.status == Status.FAILED and not (clip.has(Kind.FAILED) or clip.has(Kind.REFUSED)):
        yield "failed without evidence"
    if clip.status == Status.REVIEW and not (clip.has(Kind.UNPROVEN) or clip.has(Kind.UNSAVED)):
        yield "in review without evidence"
    if clip.status == Status.STORED and not charges:
        yield "stored without having been paid for"
    if clip.status != Status.REVIEW and clip.budgeted != paid:
        yield f"counted with {clip.budgeted} micro-dollars, paid {paid}"
    if clip.status == Status.REVIEW and clip.budgeted < paid:
        yield f"in review and counted with only {clip.budgeted} micro-dollars, paid {paid}"
    for invented in clip.of(Kind.RENDERED).keys() - {charge.video_uuid for charge in charges}:
        yield f"has a render that does not exist at Runware: {invented}"


def _copy_faults(inspector: StackInspector, clip: Clip, final: FinalState) -> Iterator[str]:
    """The pinned object version of a stored clip is in the bucket, with the bytes that Runware rendered."""
    if clip.status != Status.STORED or clip.copy is None:
        return
    version, _ = clip.copy
    content = inspector.content(clip.object_key, version)
    if content is None:
        yield f"version {version} of its object is not in the bucket"
        return
    suffix = clip.object_key.rpartition(".")[2]
    start, signature = _SIGNATURES[suffix]
    if content[start : start + len(signature)] != signature:
        yield f"its object of {len(content)} bytes is not a {suffix} file"
    charges = final.charges.get(clip.clip_uuid, [])
    if charges and content not in [inspector.rendered(charge, suffix) for charge in charges]:
        yield f"its object of {len(content)} bytes differs from Runware's render"


def event_faults(inspector: StackInspector, clip: Clip, events: Sequence[Json]) -> Iterator[str]:
    """The last event of a finished clip has its status, and the manifest of a stored one is current."""
    if clip.open and clip.status != Status.STORED:
        return
    own = [event for event in events if event["detail"]["clipUUID"] == clip.clip_uuid]
    newest = max(own, key=lambda event: event["detail"]["revision"], default={"detail-type": "none"})
    if newest["detail-type"] != _EVENTS[clip.status]:
        yield f"is {clip.status}, and its last event is {newest['detail-type']}"
    if len({event["detail"]["id"] for event in own}) != len({json.dumps(event["detail"]) for event in own}):
        yield "two different events have one id, or one has two"
    if clip.status == Status.STORED and clip.copy:
        version, _ = clip.copy
        manifest, content = inspector.manifest(clip), inspector.content(clip.object_key, version) or b""
        expected = {"revision": clip.version, "versionId": version, "sha256": hashlib.sha256(content).hexdigest()}
        actual = {name: manifest.get(name) for name in expected}
        if actual != expected:
            yield f"its manifest has {actual}, not {expected}"


def _answer_faults(final: FinalState, history: CallerHistory) -> Iterator[BrokenPromise]:
    """The answers to callers hold: accepted tasks are recorded with every clip, invalid ones are not recorded."""
    for name in sorted(history.accepted):
        ordered, clips = history.requests[name]["numberResults"], final.clips.get(name, [])
        if len(clips) != ordered:
            yield BrokenPromise(f"accepted with {ordered} clips, recorded with {len(clips)}", name)
    for name in sorted(history.withdrawn):
        if any(clip.decisive != Kind.REFUSED for clip in final.clips.get(name, [])):
            yield BrokenPromise("accepted, and a repeat was not, although not every clip was refused", name)
    for name in sorted(history.invalid & final.clips.keys()):
        yield BrokenPromise("an invalid task was recorded", name)


def _unrecorded(stack: Stack, final: FinalState) -> Iterator[BrokenPromise]:
    """A clip is recorded before it is sent to Runware."""
    recorded = {clip.clip_uuid for clip in final.all_clips}
    sent = {each.task["taskUUID"] for each in stack.emulator.requests() if each.task["taskType"] == "videoInference"}
    for clip_uuid in sorted((sent | final.charges.keys()) - recorded):
        yield BrokenPromise(f"sent to Runware without a record: {clip_uuid}")


def _budget_faults(stack: Stack, final: FinalState, callers: Sequence[Caller]) -> Iterator[BrokenPromise]:
    """Every budget is the sum of its clips' counted amounts, and not above its limit."""
    sums: Counter[tuple[str, str]] = Counter()
    for clip in final.all_clips:
        sums.update(dict.fromkeys(((scope, clip.month) for scope in clip.scopes), clip.budgeted))
    limits = {caller.name: caller.limit for caller in callers}
    for (scope, month), expected in sorted(sums.items()):
        counted, limit = stack.store.budget(scope, month)
        if counted != expected:
            yield BrokenPromise(f"the budget of {scope} is {counted} micro-dollars, the sum of its clips {expected}")
        if counted > limits.get(scope, counted) or limit is None or counted > limit:
            yield BrokenPromise(f"the budget of {scope} is {counted} micro-dollars, above its limit")

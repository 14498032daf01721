"""The promises, held against what the parts know when all is over: Runware's ledger, the table, and the bucket.

Only the ledger is believed: it alone knows what was paid. What a clip's object should hold is asked of Runware, too.
What was told on the event bus is held against the record, and the manifests against the objects.
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
from tests.chaos.traffic import Caller, Heard, Json, TaskName
from tests.event_listener import LISTENER
from tests.secret_patterns import leaks

# What is told of a clip that has come to its end.
_NEWS = {Status.STORED: "Clip Stored", Status.FAILED: "Clip Failed", Status.REVIEW: "Clip Needs Review"}

# How a file of each kind begins, from which byte on.
_BEGINNINGS = {"mp4": (4, b"ftyp"), "mov": (4, b"ftyp"), "webm": (0, b"\x1aE\xdf\xa3")}


@dataclass
class Found:
    """What there is at the end: clips by task, and what Runware charged for each clip."""

    clips: dict[TaskName, list[Clip]]
    charges: dict[str, list[Charge]]

    @property
    def all_clips(self) -> list[Clip]:
        return [clip for clips in self.clips.values() for clip in clips]


@dataclass(frozen=True)
class Broken:
    """A promise that was not kept, in words, and the task whose record shows it."""

    what: str
    task: TaskName | None = None


class Books:
    """What the parts of a stack hold at the moment. Slow to make, quick to ask."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._dynamodb, self._sqs, self._s3 = (stack.client(service) for service in ("dynamodb", "sqs", "s3"))
        self._http = httpx.Client(base_url=stack.emulator_url, timeout=10, trust_env=False)

    def find(self) -> Found:
        """All clips and all charges."""
        charges: dict[str, list[Charge]] = defaultdict(list)
        for charge in self.stack.emulator.ledger():
            charges[charge.task_uuid].append(charge)
        return Found({name: self.stack.store.clips(*name) for name in self._tasks()}, charges)

    def open_clips(self) -> int:
        """How many clips are listed to be looked at. Those in review are listed apart, for people."""
        return sum(
            item["dueShard"]["S"] != "review" for item in self._scan(IndexName="due", ProjectionExpression="dueShard")
        )

    def waiting(self, *, dead: bool = False) -> int:
        """How many messages the queues hold, or how many the dead letters do."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
        return sum(
            int(count)
            for url in self._sqs.list_queues().get("QueueUrls", [])
            if ("DeadLetters" in url) == dead and LISTENER not in url
            for count in self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
        )

    def all_quiet(self) -> bool:
        """Whether no clip is open, no message waits, and Runware has nothing more to do."""
        return not self.open_clips() and not self.waiting() and self.stack.emulator.idle(0)

    def content(self, key: str, version: str) -> bytes | None:
        """An object's bytes in this version; None if it is not there."""
        try:
            answer = self._s3.get_object(Bucket=self.stack.bucket_name, Key=key, VersionId=version)
        except ClientError:
            return None
        content: bytes = answer["Body"].read()
        return content

    def manifest(self, clip: Clip) -> Json:
        """What lies beside a clip; empty if nothing does."""
        try:
            key = clip.object_key.rpartition(".")[0] + ".json"
            answer = self._s3.get_object(Bucket=self.stack.bucket_name, Key=key)
        except ClientError:
            return {}
        content: Json = json.loads(answer["Body"].read())
        return content

    def as_made(self, charge: Charge, suffix: str) -> bytes:
        """The video that was charged for, as Runware has it."""
        return self._http.get(f"/video/os/a02d21/ws/5/vi/{charge.video_uuid}.{suffix}").content

    def _scan(self, **options: Any) -> Iterator[Any]:
        for page in self._dynamodb.get_paginator("scan").paginate(TableName=self.stack.table_name, **options):
            yield from page["Items"]

    def _tasks(self) -> list[TaskName]:
        keys = [(item["pk"]["S"], item["sk"]["S"]) for item in self._scan(ProjectionExpression="pk, sk")]
        # By their clips, not their requests: a clip without its task would be a find.
        return sorted({(pk.split("#")[1], pk.split("#")[2]) for pk, sk in keys if sk.startswith("clip#")})


def judge(
    books: Books, found: Found, callers: Sequence[Caller], heard: Heard, told: Sequence[Json], log: Sequence[str]
) -> list[Broken]:
    """Every broken promise; empty if all were kept.

    `heard` is what callers were answered, `told` every event of the bus, `log` every line that any part has logged.
    """
    return [
        *(
            Broken(f"clip {clip.index}: {fault}", name)
            for name, clips in found.clips.items()
            for clip in clips
            for fault in (*_facts(clip, found), *_copy(books, clip, found), *untold(books, clip, told))
        ),
        *_tasks_kept(found, heard),
        *_strangers(books.stack, found),
        *_budgets(books.stack, found, callers),
        *(Broken(what) for what in (*heard.contradictions, *leaks(log))),
    ]


def _facts(clip: Clip, found: Found) -> Iterator[str]:
    """Bought at most once, never lost, nothing made up."""
    charges = found.charges.get(clip.clip_uuid, [])
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
    for made_up in clip.of(Kind.RENDERED).keys() - {charge.video_uuid for charge in charges}:
        yield f"has a render that Runware never made: {made_up}"


def _copy(books: Books, clip: Clip, found: Found) -> Iterator[str]:
    """What is called stored is in the bucket under the pinned version, byte for byte as Runware made it."""
    if clip.status != Status.STORED or clip.copy is None:
        return
    version, _ = clip.copy
    content = books.content(clip.object_key, version)
    if content is None:
        yield f"version {version} of its object is not in the bucket"
        return
    suffix = clip.object_key.rpartition(".")[2]
    start, beginning = _BEGINNINGS[suffix]
    if content[start : start + len(beginning)] != beginning:
        yield f"its object of {len(content)} bytes is no {suffix}"
    charges = found.charges.get(clip.clip_uuid, [])
    if charges and content not in [books.as_made(charge, suffix) for charge in charges]:
        yield f"its object of {len(content)} bytes is not what Runware rendered"


def untold(books: Books, clip: Clip, told: Sequence[Json]) -> Iterator[str]:
    """What has become of a clip and reached nobody: its event, and for a stored one the manifest as of now."""
    if clip.open and clip.status != Status.STORED:
        return
    about = [event for event in told if event["detail"]["clipUUID"] == clip.clip_uuid]
    newest = max(about, key=lambda event: event["detail"]["revision"], default={"detail-type": "nothing"})
    if newest["detail-type"] != _NEWS[clip.status]:
        yield f"is {clip.status}, and {newest['detail-type']} was told last"
    if len({event["detail"]["id"] for event in about}) != len({json.dumps(event["detail"]) for event in about}):
        yield "two different events have one id, or one has two"
    if clip.status == Status.STORED and clip.copy:
        version, _ = clip.copy
        manifest, content = books.manifest(clip), books.content(clip.object_key, version) or b""
        expected = {"revision": clip.version, "versionId": version, "sha256": hashlib.sha256(content).hexdigest()}
        says = {name: manifest.get(name) for name in expected}
        if says != expected:
            yield f"its manifest says {says}, not {expected}"


def _tasks_kept(found: Found, heard: Heard) -> Iterator[Broken]:
    """What a caller was told stands."""
    for name in sorted(heard.accepted):
        wanted, clips = heard.requests[name]["numberResults"], found.clips.get(name, [])
        if len(clips) != wanted:
            yield Broken(f"accepted with {wanted} clips, recorded with {len(clips)}", name)
    for name in sorted(heard.taken_back):
        if any(clip.decisive != Kind.REFUSED for clip in found.clips.get(name, [])):
            yield Broken("accepted, and later not any more, though not every clip was refused", name)
    for name in sorted(heard.nonsense & found.clips.keys()):
        yield Broken("nonsense, and recorded", name)


def _strangers(stack: Stack, found: Found) -> Iterator[Broken]:
    """Nothing is sent to Runware before it is recorded."""
    recorded = {clip.clip_uuid for clip in found.all_clips}
    sent = {each.task["taskUUID"] for each in stack.emulator.requests() if each.task["taskType"] == "videoInference"}
    for stranger in sorted((sent | found.charges.keys()) - recorded):
        yield Broken(f"sent to Runware without a record: {stranger}")


def _budgets(stack: Stack, found: Found, callers: Sequence[Caller]) -> Iterator[Broken]:
    """Every budget holds exactly what its clips are counted with, and never more than its limit."""
    sums: Counter[tuple[str, str]] = Counter()
    for clip in found.all_clips:
        sums.update(dict.fromkeys(((scope, clip.month) for scope in clip.scopes), clip.budgeted))
    limits = {caller.name: caller.limit for caller in callers}
    for (scope, month), expected in sorted(sums.items()):
        counted, limit = stack.store.budget(scope, month)
        if counted != expected:
            yield Broken(f"the budget of {scope} holds {counted} micro-dollars, its clips {expected}")
        if counted > limits.get(scope, counted) or limit is None or counted > limit:
            yield Broken(f"the budget of {scope} holds {counted} micro-dollars, above its limit")

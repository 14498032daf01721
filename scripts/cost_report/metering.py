"""The AWS usage of one clip, measured on the local stack.

Responsible for the paths of a clip, for counting calls, and for DynamoDB's units; prices are elsewhere. Hides how time
passes without waiting: a clip's own times are moved into the past, which is the same to functions that only compare
them with now.
"""

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from rushes.domain.budget import ALL_CALLERS, Reservation, month_of
from rushes.domain.clip import Clip, FactRecord
from rushes.domain.delivery import Delivery, SigningSecret, new_secret
from rushes.domain.task import Recorded, Task
from rushes_local.aws.application import Access
from rushes_local.event_sources import first_iterator, queue_event, schedule_event, stream_event
from rushes_local.runware.emulator import OneShot
from rushes_local.servers import Server
from rushes_local.stack import STACK_NAME, Stack

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Item = Mapping[str, Any]
Images = tuple[Item, Item]

CALLER = "costs"
_LIMIT_USD = 1000
# As long as the prompts of the examples on the model's page.
PROMPT = "A lighthouse on a basalt cliff at dusk, slow aerial orbit, waves breaking far below. " * 9
NEGATIVE_PROMPT = "blurry, distorted, flickering, watermark, low quality, " * 4

_WRITE_UNIT = 1024  # bytes
_READ_UNIT = 4096
_LOG_EVENT = 26  # bytes that CloudWatch adds to every line
_PATIENCE = 15.0  # seconds
_MINUTE = 60_000  # milliseconds, like all times of a clip
_MAX_MINUTES = 600
# The line that each function logs for an event without a clip; when it arrives, all earlier lines have arrived.
_MARKERS = {
    "submit": "request failed",
    "webhook": "WebhooksRejected",
    "reconcile": "uploaded object belongs to no clip",
    "publish": "change could not be published",
    "deliver": "delivery is obsolete",
}


class MeteringError(Exception):
    """A path did not go as expected, so its counts are worthless."""


@dataclass(frozen=True)
class Usage:
    """Counts of AWS usage. `calls` are by service and operation, `invocations` by function, `log_bytes` as ingested.

    `budget_units` are the write units of the budgets' shares, a part of `write_units`.
    """

    calls: Counter[str] = field(default_factory=Counter)
    invocations: Counter[str] = field(default_factory=Counter)
    http_requests: int = 0
    messages: int = 0
    write_units: int = 0
    budget_units: int = 0
    read_units: float = 0.0
    log_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return self._joined(other, 1)

    def __sub__(self, other: "Usage") -> "Usage":
        return self._joined(other, -1)

    def _joined(self, other: "Usage", sign: int) -> "Usage":
        return Usage(
            _added(self.calls, other.calls, sign),
            _added(self.invocations, other.invocations, sign),
            self.http_requests + sign * other.http_requests,
            self.messages + sign * other.messages,
            self.write_units + sign * other.write_units,
            self.budget_units + sign * other.budget_units,
            self.read_units + sign * other.read_units,
            self.log_bytes + sign * other.log_bytes,
        )


@dataclass(frozen=True)
class ClipUsage:
    """The usage of a clip on each path, by name, with warm caches; of filling the caches; and of a sweep without work.

    `published` is the usage of publishing the happy clip's changes, on top of its path; `delivered` that of a webhook
    to its caller, on top of both.
    """

    paths: Mapping[str, Usage]
    published: Usage
    delivered: Usage
    caches: Usage
    idle_sweep: Usage
    memory_mb: Mapping[str, int]


def measure(root: Path) -> ClipUsage:
    """Runs every path once on a local stack of the project in `root`."""
    journal = _Journal()
    # One process a function, so that a second clip finds the caches that the first one filled.
    stack = Stack(
        root,
        render_seconds=None,
        emulator_options={"small": True},
        processes=1,
        parameters={"MonthlyLimitUsd": str(_LIMIT_USD)},
        schedule=False,
        queues=False,
        streams=False,
        sink=journal,
    )
    with stack:
        bench = _Bench(stack, journal)
        cold = _happy(bench)
        bench.sweep()
        bench.idle = bench.sweep()
        paths = {name: path(bench) for name, path in _PATHS.items()}
        published = _published(bench)
        delivered = _delivered(bench) - published
        memory = {name: pool.function.memory_mb for name, pool in stack.functions.items()}
    return ClipUsage(paths, published, delivered, cold - paths["happy"], bench.idle, memory)


def _happy(bench: "_Bench") -> Usage:
    with bench.metered() as metered:
        bench.order()
        bench.render()
    return metered.usage + bench.uploads()


def _polled(bench: "_Bench") -> Usage:
    bench.next_submission(webhook_copies=0)
    with bench.metered() as metered:
        task_uuid = bench.order()
        bench.render()
    return metered.usage + bench.uploads() + bench.sweeps(task_uuid)


def _rescued(bench: "_Bench") -> Usage:
    bench.next_submission(upload="never")
    with bench.metered() as metered:
        task_uuid = bench.order()
        bench.render()
    return metered.usage + bench.sweeps(task_uuid) + bench.uploads()


def _refused(bench: "_Bench") -> Usage:
    bench.next_submission(submit_status=400, submit_code="invalidPositivePrompt")
    with bench.metered() as metered:
        bench.order(expected=400)
    return metered.usage


def _published(bench: "_Bench") -> Usage:
    """Publishes one change at a time, so that no two share an invocation."""
    bench.changes()
    bench.order()
    bench.render()
    bench.uploads()
    used = Usage()
    for change in bench.changes():
        used += bench.publish(change)
    return used


def _delivered(bench: "_Bench") -> Usage:
    """Publishes a clip whose task names a receiver, and delivers its outcome in one attempt."""
    with Server(_accept, name="receiver") as receiver:
        bench.changes()
        bench.order(webhookURL=f"{receiver.url}/runware")
        bench.render()
        bench.uploads()
        used = Usage()
        for change in bench.changes():
            used += bench.publish(change)
        return used + bench.deliver()


def _accept(_: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    start_response("204 No Content", [])
    return []


_PATHS: Mapping[str, Callable[["_Bench"], Usage]] = {
    "happy": _happy,
    "polled": _polled,
    "rescued": _rescued,
    "refused": _refused,
}


class _Journal:
    """Every line that the stack logs, and waiting for one."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def __call__(self, name: str, line: str) -> None:
        with self._changed:
            self._lines.append((name, line))
            self._changed.notify_all()

    @property
    def length(self) -> int:
        with self._changed:
            return len(self._lines)

    def of(self, name: str, since: int) -> list[str]:
        """The lines of one part of the stack from a position on."""
        with self._changed:
            return [line for part, line in self._lines[since:] if part == name]

    def wait_for(self, name: str, text: str, since: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: any(text in line for line in self.of(name, since)), _PATIENCE):
                raise MeteringError(f"{name} did not log {text!r}")


@dataclass
class _Metered:
    """The usage of a `metered` block, complete when the block has ended."""

    usage: Usage = field(default_factory=Usage)


class _Bench:
    """The running stack, and the steps of the paths."""

    def __init__(self, stack: Stack, journal: _Journal) -> None:
        self._stack, self._journal = stack, journal
        self.idle = Usage()
        self._headers = {"Authorization": f"Bearer {stack.create_key(CALLER, limit_usd=_LIMIT_USD)}"}
        stack.store.set_signing_secrets(CALLER, [SigningSecret(new_secret(), 0)])
        _make_budgets(stack)
        self._streams = stack.client("dynamodbstreams")
        self._sqs = stack.client("sqs")
        self._queue, self._deliveries = (self._queue_url(name) for name in ("UploadsQueue", "Deliveries"))
        self._sqs.set_queue_attributes(QueueUrl=self._queue, Attributes={"DelaySeconds": "0"})
        table = stack.client("dynamodb").describe_table(TableName=stack.table_name)["Table"]
        self._beginning = self._stream = self._place = first_iterator(self._streams, table["LatestStreamArn"])
        self._indexes = [
            Index(
                tuple(key["AttributeName"] for key in index["KeySchema"]),
                tuple(index["Projection"].get("NonKeyAttributes", ())),
            )
            for index in table["GlobalSecondaryIndexes"]
        ]

    def _queue_url(self, name: str) -> str:
        where = {"StackName": STACK_NAME, "LogicalResourceId": name}
        described = self._stack.client("cloudformation").describe_stack_resource(**where)
        url: str = described["StackResourceDetail"]["PhysicalResourceId"]
        return url

    def next_submission(self, **switches: Any) -> None:
        """Sets the emulator's faults for the next order."""
        self._stack.emulator.faults.next_submissions.append(OneShot(**switches))

    def order(self, expected: int = 200, **changes: str) -> str:
        """Orders one clip over the API and returns its taskUUID."""
        task_uuid = str(uuid.uuid4())
        task = {
            "taskType": "videoInference",
            "taskUUID": task_uuid,
            "model": "klingai:5@3",
            "positivePrompt": PROMPT,
            "negativePrompt": NEGATIVE_PROMPT,
            "width": 1920,
            "height": 1080,
            "duration": 5,
            **changes,
        }
        answer = self._post("/v1", json.dumps([task]))
        if answer.status_code != expected:
            raise MeteringError(f"the order was answered {answer.status_code}")
        return task_uuid

    def render(self) -> None:
        """The emulator finishes, uploads and calls back, as far as its faults allow."""
        if not (self._stack.emulator.finish_all() and self._stack.emulator.idle(_PATIENCE)):
            raise MeteringError("Runware did not finish")

    def uploads(self) -> Usage:
        """Delivers the event of the one new object to `reconcile`, through its queue."""
        return self._received("reconcile", self._queue)

    def deliver(self) -> Usage:
        """Delivers the one message about a webhook to `deliver`, through its queue."""
        return self._received("deliver", self._deliveries)

    def _received(self, name: str, queue: str) -> Usage:
        """Invokes a function with the one message of its queue."""
        found = self._sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5, MessageSystemAttributeNames=["All"]).get(
            "Messages", []
        )
        if len(found) != 1:
            raise MeteringError(f"{name} has {len(found)} messages instead of one")
        used = self._invoked(name, queue_event(found, "arn:aws:sqs:us-east-1:000000000000:queue")) + Usage(messages=1)
        self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=found[0]["ReceiptHandle"])
        return used

    def sweep(self) -> Usage:
        """Delivers the schedule's event to `reconcile`."""
        return self._reconcile(schedule_event(f"{STACK_NAME}-reconcile", time.time()))

    def sweeps(self, task_uuid: str) -> Usage:
        """The usage of sweeps for this clip, on top of idle sweeps, until the clip is closed.

        The first sweep comes half a minute after the last event, which is the mean.
        """
        used, pause = Usage(), _MINUTE // 2
        for _ in range(_MAX_MINUTES):
            (clip,) = self._stack.store.clips(CALLER, task_uuid)
            if clip.next_check_at is None:
                return used
            clip = self._stack.store.save(clip, _earlier(clip, pause))
            pause = _MINUTE
            if clip.next_check_at is not None and clip.next_check_at <= time.time() * 1000:
                used += self.sweep() - self.idle
        raise MeteringError("the clip is still open after the most sweeps")

    def changes(self) -> Sequence[Mapping[str, Any]]:
        """The clips' changes since the last call that the template's filter passes to `publish`."""
        answer = self._streams.get_records(ShardIterator=self._place)
        self._place = answer["NextShardIterator"]
        return _of_clips(answer["Records"])

    def publish(self, change: Mapping[str, Any]) -> Usage:
        """Delivers one change to `publish`, as the stream does."""
        return self._invoked("publish", stream_event([change], "arn"))

    @contextmanager
    def metered(self) -> Iterator[_Metered]:
        """Counts the AWS calls of functions and emulator in the block, which itself must make none."""
        metered, accesses = _Metered(), list[Access]()
        self._written()  # drops the bench's own writes
        logged = self._journal.length
        self._stack.aws.observer = accesses.append
        try:
            yield metered
        finally:
            self._stack.aws.observer = None
        routes = [json.loads(line)["routeKey"] for line in self._journal.of("gateway", logged)]
        lines = self._function_lines(logged)
        units = self._write_units(accesses, self._written())
        metered.usage = Usage(
            calls=Counter(f"{access.service} {access.operation}" for access in accesses),
            invocations=Counter("submit" if route == "POST /v1" else "webhook" for route in routes),
            http_requests=len(routes),
            write_units=units.total(),
            budget_units=units["budget"],
            read_units=sum(read_units(access) for access in accesses),
            log_bytes=sum(len(line.encode()) + _LOG_EVENT for line in lines),
        )

    def _reconcile(self, event: Mapping[str, Any]) -> Usage:
        return self._invoked("reconcile", event)

    def _invoked(self, name: str, event: Mapping[str, Any]) -> Usage:
        with self.metered() as metered:
            outcome = self._stack.functions[name].invoke(event)
        if outcome.kind != "ok" or outcome.payload.get("batchItemFailures"):
            raise MeteringError(f"{name} failed: {outcome}")
        return metered.usage + Usage(invocations=Counter({name: 1}))

    def _function_lines(self, since: int) -> list[str]:
        """The functions' log lines. A pipe may be slower than an answer, so each function is made to log a marker."""
        start = self._journal.length
        self._post("/v1", "not JSON")
        self._post(f"/webhooks/runware/{CALLER}/{uuid.uuid4()}/0", "{}")
        unrelated = {"Body": json.dumps({"detail": {"object": {"key": "videos/unrelated"}}})}
        record = {"MessageId": "1", "ReceiptHandle": "1", "Attributes": {}, "MD5OfBody": "", **unrelated}
        self._stack.functions["reconcile"].invoke(queue_event([record], "arn"))
        self._stack.functions["publish"].invoke(
            {"Records": [{"dynamodb": {"SequenceNumber": "0"}}, *self._change_without_event()]}
        )
        obsolete = Delivery(CALLER, str(uuid.uuid4()), 0, "obsolete")
        self._stack.functions["deliver"].invoke(queue_event([{**record, "Body": obsolete.text}], "arn"))
        for name, marker in _MARKERS.items():
            self._journal.wait_for(name, marker, start)
        return [
            line for name, marker in _MARKERS.items() for line in self._journal.of(name, since) if marker not in line
        ]

    def _change_without_event(self) -> Sequence[Any]:
        """A change without an event. Beside it in a batch, an unreadable record is logged and raises nothing."""
        answer = self._streams.get_records(ShardIterator=self._beginning)
        records: list[Any] = stream_event(_of_clips(answer["Records"])[:1], "arn")["Records"]
        return records

    def _write_units(self, accesses: Sequence[Access], written: Sequence[Images]) -> Counter[str]:
        """The units of the writes, by the first part of the items' keys.

        The stream has the images of each item, in the order of the writes.
        """
        units, images = Counter[str](), iter(written)
        for access in accesses:
            transactional = access.operation == "TransactWriteItems"
            if transactional or access.operation in ("PutItem", "UpdateItem", "DeleteItem"):
                for _ in json.loads(access.request)["TransactItems"] if transactional else [access]:
                    before, after = next(images)
                    kind = (after or before)["pk"]["S"].partition("#")[0]
                    units[kind] += write_units(before, after, self._indexes, transactional=transactional)
        if next(images, None):
            raise MeteringError("the stream has a write without a call")
        return units

    def _written(self) -> list[Images]:
        """The writes since the last call, as the item before and after each."""
        answer = self._streams.get_records(ShardIterator=self._stream)
        self._stream = answer["NextShardIterator"]
        changes = [record["dynamodb"] for record in answer["Records"]]
        return [(change.get("OldImage") or {}, change.get("NewImage") or {}) for change in changes]

    def _post(self, path: str, body: str) -> httpx.Response:
        return httpx.post(self._stack.url + path, content=body, headers=self._headers, timeout=30, trust_env=False)


def _make_budgets(stack: Stack) -> None:
    """Writes the budgets' shares, as the first purchase of a month does: no other one pays for that."""
    now = int(time.time() * 1000)
    scopes = (ALL_CALLERS, CALLER)
    reservations = [Reservation(scope, month_of(now), 0, _LIMIT_USD * 1_000_000) for scope in scopes]
    nothing = Task(caller=CALLER, task_uuid=str(uuid.uuid4()), request={}, fingerprint="", clips=0, created_at=now)
    assert stack.store.record(nothing, [], reservations) == Recorded()


def _of_clips(records: Sequence[Any]) -> Sequence[Any]:
    """The changes of clips, as the template's filter selects them."""
    return [
        record
        for record in records
        if record["eventName"] == "MODIFY" and record["dynamodb"]["Keys"]["sk"]["S"].startswith("clip#")
    ]


def _earlier(clip: Clip, milliseconds: int) -> Clip:
    """The clip with all times of its facts moved into the past."""
    assert clip.next_check_at is not None
    facts = {
        name: FactRecord({source: claim._replace(at=claim.at - milliseconds) for source, claim in known.claims.items()})
        for name, known in clip.facts.items()
    }
    return replace(clip, facts=facts, next_check_at=clip.next_check_at - milliseconds)


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index of the table: the names of its keys, and of its other projected attributes."""

    keys: Sequence[str]
    more: Sequence[str] = ()

    def entry(self, image: Item) -> Item:
        """The index's entry for an item: empty unless the item has all of the index's keys."""
        if any(key not in image for key in self.keys):
            return {}
        return {name: image[name] for name in ("pk", "sk", *self.keys, *self.more) if name in image}

    def units(self, before: Item, after: Item) -> int:
        """Units of a write in this index. An entry whose key changes is one deletion and one insertion."""
        out, into = self.entry(before), self.entry(after)
        if out == into:
            return 0
        sizes = [ceil(size_of(entry) / _WRITE_UNIT) for entry in (out, into)]
        stays = out and into and all(out[key] == into[key] for key in self.keys)
        return max(sizes) if stays else sum(sizes)


def write_units(before: Item, after: Item, indexes: Sequence[Index], *, transactional: bool) -> int:
    """Units of one write: the larger image counts, twice in a transaction; each index entry that changes adds its own.

    Indexes follow the table later, outside of the transaction.
    """
    units = ceil(max(size_of(before), size_of(after)) / _WRITE_UNIT) * (2 if transactional else 1)
    return units + sum(index.units(before, after) for index in indexes)


def read_units(access: Access) -> float:
    """Units of one read, at most: the response is a little larger than the items read."""
    if access.operation not in ("GetItem", "Query"):
        return 0.0
    consistent = json.loads(access.request).get("ConsistentRead", False)
    return ceil(access.response_size / _READ_UNIT) * (1.0 if consistent else 0.5)


def size_of(item: Item) -> int:
    """Bytes of an item as DynamoDB counts them: names and values."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":  # two digits a byte and one more; zeros at the ends are free, but they come and go with the clock
            return len(content.lstrip("-")) // 2 + 2
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(member) for name, member in content.items())
        case "L":
            return 3 + sum(1 + _value_size(member) for member in content)
    return 1


def _added(one: Counter[str], other: Counter[str], sign: int) -> Counter[str]:
    both = {name: one[name] + sign * other[name] for name in one.keys() | other.keys()}
    return Counter({name: count for name, count in both.items() if count})

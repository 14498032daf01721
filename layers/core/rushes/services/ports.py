"""The interfaces of the use cases to storage, queues and Runware, as protocols.

The adapters implement these protocols, and the use cases depend on nothing else of them: this module hides which AWS
services are behind a table, a bucket or a queue. Times are in milliseconds, money in micro-dollars.

Only type checkers import this module: a protocol takes as long to make as a small module to import.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from rushes.domain.budget import Costs, OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.delivery import Attempt, Delivery, Reply, SigningSecret
from rushes.domain.media import Head, ProbeResult
from rushes.domain.task import Existing, Page, Recorded, Task, TaskWithClips
from rushes.runware.outcome import Outcome
from rushes.runware.response import LookupResponse
from rushes.services.metric import Metric

T = TypeVar("T")
R = TypeVar("R")


class ClipTable(Protocol):
    """Clips and their budgets. Every call may raise `BusyError`."""

    def save(self, before: Clip, after: Clip) -> Clip:
        """Replaces `before` by `after`; raises `StaleError` if the stored version is another one."""

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None: ...

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        """A scope's sum for a month, and the limit at its last reservation; None before the first."""


class TaskTable(ClipTable, Protocol):
    """Tasks with their clips, for the use cases that buy them."""

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation], *, patience: float = 0
    ) -> Recorded | Existing | OverBudget:
        """Writes a task, its clips and their reservations in one transaction.

        Conflicts with other purchases, throttling and server errors are retried for `patience` seconds.
        """

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None:
        """A task with its fingerprint, which distinguishes a repeat from a conflict, also after its request expired."""

    def task(self, caller: str, task_uuid: str) -> Task | None: ...

    def clips(self, caller: str, task_uuid: str) -> list[Clip]: ...

    def due(self, now: int, limit: int) -> Sequence[tuple[str, str, int]]:
        """The keys of at most `limit` due clips, oldest first: caller, task and clip. Eventually consistent."""

    def fall_over(self, before: Clip, closed: Clip, successor: Clip, task: Task | None) -> Clip:
        """Replaces `before` by `closed`, and writes the next model's clip and their budgets, in one transaction.

        Raises `StaleError` if the stored version is another one.
        """

    def postpone(self, name: tuple[str, str, int], now: int, until: int) -> None:
        """Postpones the next check of a clip that is due at `now` to `until`, without reading the clip."""


class TaskQueries(Protocol):
    """Tasks, costs and budgets of one caller, read-only."""

    def task(self, caller: str, task_uuid: str) -> Task | None: ...

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None: ...

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None: ...

    def page(self, caller: str, limit: int, *, after: str | None = None, day: str = "", prefix: str = "") -> Page: ...

    def costs(self, caller: str, since: int, until: int, limit: int, after: str | None = None) -> Costs: ...

    def budget(self, scope: str, month: str) -> tuple[int, int | None]: ...

    def attempts(self, caller: str, task_uuid: str) -> Sequence[Attempt]: ...


class CallerTable(Protocol):
    """Callers by the hash of an API key, and by name."""

    def caller(self, key_hash: str) -> Caller | None: ...

    def caller_named(self, name: str) -> Caller | None: ...


class ClipObjects(Protocol):
    """The objects of clips in the bucket: presigned links to them, and probes. Raises `BucketError`."""

    def upload_link(self, key: str, seconds: int) -> str: ...

    def image_link(self, bucket: str, key: str, seconds: int) -> str: ...

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str: ...

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None: ...


class ImageStore(Protocol):
    """The input images, in our bucket and in callers' buckets. Raises `BucketError`."""

    @property
    def name(self) -> str:
        """The name of our bucket."""

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Writes an object into our bucket, unless it exists."""

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        """The first bytes of an object, at most `length`; None if it does not exist or may not be read."""


class ManifestStore(Protocol):
    """The manifests beside clips' copies, and the digests of the copies. Raises `BucketError`."""

    def manifest(self, key: str) -> bytes | None: ...

    def put_manifest(self, key: str, content: bytes) -> None: ...

    def has(self, object_key: str, version: str) -> bool: ...

    def digest(self, object_key: str, version: str) -> str | None: ...


class RunwareOrders(Protocol):
    """Sends orders to Runware."""

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome: ...


class RunwareLookups(Protocol):
    """Asks Runware about tasks. Raises `ProviderError`."""

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse: ...

    def details(self, task_uuid: str, key: str) -> LookupResponse: ...


class VideoTransfer(Protocol):
    """Copies a render into the bucket. Raises `RescueError` with the reason."""

    def fetch(self, url: str, key: str, ends_at: int) -> ProbeResult: ...

    def save_inline(self, data: str, key: str) -> ProbeResult: ...


class RequestFile(Protocol):
    """One version of an object under `requests/`, with its bytes, which are read once."""

    @property
    def encoding(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def hidden_metadata(self) -> int: ...

    def chunks(self) -> Iterator[bytes]: ...


class RequestFileVersion(Protocol):
    """One version of an object under `requests/`, without its bytes."""

    @property
    def version(self) -> str: ...

    @property
    def etag(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def put_at(self) -> int: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...


class RequestFileStore(Protocol):
    """The objects under `requests/`. Raises `BucketError`."""

    def open(self, key: str, version: str) -> RequestFile | None: ...

    def head(self, key: str, version: str) -> RequestFileVersion | None: ...

    def before(self, key: str, version: str) -> str | None:
        """The version that this one replaced; None if there was none, or the object was deleted before."""


class ReportStore(Protocol):
    """The reports about request files and events. Raises `BucketError`."""

    def put(self, key: str, content: bytes) -> None: ...


class InboxQueue(Protocol):
    """The queue of tasks to buy. Raises `InboxError`."""

    def send(self, texts: Iterable[str]) -> None:
        """Sends all messages; returns when they are in the queue."""


class DeliveryQueue(Protocol):
    """The queue of attempts at deliveries. Raises `QueueError`."""

    def send(self, delivery: Delivery, delay: int = 0) -> None:
        """Queues an attempt that is due in `delay` milliseconds; it may be received earlier."""


class DeliveryTable(Protocol):
    """Clips and their requests, attempts at deliveries, signing secrets, and slots. Raises `BusyError`."""

    def task(self, caller: str, task_uuid: str) -> Task | None: ...

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None: ...

    def signing_secrets(self, caller: str) -> Sequence[SigningSecret]: ...

    def attempt(self, delivery: Delivery) -> Attempt | None: ...

    def put_attempt(self, attempt: Attempt, expires_at: int) -> None: ...

    def take_slot(self, caller: str, slots: int, holder: str, now: int, until: int) -> int | None: ...

    def free_slot(self, caller: str, slot: int, holder: str) -> None: ...


class Receivers(Protocol):
    """Sends deliveries to callers' receivers. Never raises."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply: ...


class EventPublisher(Protocol):
    """The event bus. Raises `BusError`."""

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None: ...


class Telemetry(Protocol):
    """Log lines and metrics."""

    def count(self, metric: Metric, amount: int = 1) -> None: ...

    def log(self, message: str, *, warn: bool = False, **details: object) -> None: ...


class ConcurrentMap(Protocol):
    """Like `map`, but possibly concurrent, and complete when it returns; the results are in the items' order."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], /) -> list[R]: ...

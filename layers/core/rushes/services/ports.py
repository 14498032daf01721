"""What the use cases need of the world, each need once, as protocols; and the names of all metrics.

The adapters satisfy these protocols and the use cases name nothing else of them, so this module hides which services
stand behind a table, a bucket, a queue or Runware. Times are in milliseconds, money in micro-dollars.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from rushes.domain.budget import Costs, OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.media import Head, ProbeResult
from rushes.domain.task import Existing, Page, Recorded, Task, TaskWithClips
from rushes.runware.outcome import Outcome
from rushes.runware.response import LookupResponse

# Runware advises a low, steady concurrency, and every clip's work is mostly waiting for it.
MAX_AT_ONCE = 8

T = TypeVar("T")
R = TypeVar("R")


class ClipTable(Protocol):
    """Clips and their budgets. Every call may raise `BusyError`."""

    def save(self, before: Clip, after: Clip) -> Clip:
        """Writes `after` over `before`; raises `StaleError` if another version is there."""

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None: ...

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        """A scope's sum of a month, and the limit of its last reservation."""


class TaskTable(ClipTable, Protocol):
    """Tasks with their clips, for the use cases that buy them."""

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation]
    ) -> Recorded | Existing | OverBudget:
        """Writes a task, its clips and their money, all or nothing."""

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None:
        """A task as far as it tells a repeat from a conflict, also once its request has expired."""

    def task(self, caller: str, task_uuid: str) -> Task | None: ...

    def clips(self, caller: str, task_uuid: str) -> list[Clip]: ...

    def due(self, now: int, most: int) -> Sequence[tuple[str, str, int]]:
        """The clips whose next look is due, oldest first: caller, task and clip. May lag behind."""

    def postpone(self, name: tuple[str, str, int], now: int, until: int) -> None:
        """Moves the next look at a clip without reading the clip."""


class TaskQueries(Protocol):
    """Tasks, costs and budgets of one caller, read-only."""

    def task(self, caller: str, task_uuid: str) -> Task | None: ...

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None: ...

    def page(self, caller: str, most: int, *, after: str | None = None, day: str = "") -> Page: ...

    def costs(self, caller: str, since: int, until: int, most: int, after: str | None = None) -> Costs: ...

    def budget(self, scope: str, month: str) -> tuple[int, int | None]: ...


class CallerTable(Protocol):
    """Callers by the hash of a key, and by name."""

    def caller(self, key_hash: str) -> Caller | None: ...

    def caller_named(self, name: str) -> Caller | None: ...


class ClipObjects(Protocol):
    """Clips' objects in the bucket: links to them, and their first bytes. Raises `BucketError`."""

    def upload_link(self, key: str, seconds: int) -> str: ...

    def image_link(self, bucket: str, key: str, seconds: int) -> str: ...

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str: ...

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None: ...


class ImageStore(Protocol):
    """Images of orders, in our bucket and in callers'. Raises `BucketError`."""

    @property
    def name(self) -> str:
        """Our bucket."""

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Puts an object into our bucket, unless it is there already."""

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        """The first bytes of an object, at most `length`; None if it is not there or not for us to read."""


class ManifestStore(Protocol):
    """The manifests beside clips' copies, and what they say of the copies. Raises `BucketError`."""

    def manifest(self, key: str) -> bytes | None: ...

    def put_manifest(self, key: str, content: bytes) -> None: ...

    def has(self, object_key: str, version: str) -> bool: ...

    def digest(self, object_key: str, version: str) -> str | None: ...


class RunwareOrders(Protocol):
    """Runware's side of a purchase."""

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome: ...


class RunwareLookups(Protocol):
    """Runware's answers to questions about clips. Raises `ProviderError`."""

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse: ...

    def details(self, task_uuid: str, key: str) -> LookupResponse: ...


class VideoTransfer(Protocol):
    """Brings a render's bytes into the bucket. Raises `RescueError` with the reason."""

    def fetch(self, url: str, key: str, ends_at: int) -> ProbeResult: ...

    def save_inline(self, data: str, key: str) -> ProbeResult: ...


class RequestFile(Protocol):
    """One version of an object under `requests/`, read once."""

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
        """The version that this one replaced; None if there was none, or the object had been deleted."""


class ReportStore(Protocol):
    """The reports about requests that came as files or events. Raises `BucketError`."""

    def put(self, key: str, content: bytes) -> None: ...


class InboxQueue(Protocol):
    """The queue of tasks to buy. Raises `InboxError`."""

    def send(self, texts: Iterable[str]) -> None:
        """Returns when all messages are in the queue."""


class EventPublisher(Protocol):
    """The event bus. Raises `BusError`."""

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None: ...


class Telemetry(Protocol):
    """Log lines and metrics."""

    def count(self, metric: "Metric", amount: int = 1) -> None: ...

    def log(self, message: str, *, warn: bool = False, **details: object) -> None: ...


class ConcurrentMap(Protocol):
    """Like `map`, but complete when it returns; the results are in the items' order."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], /) -> list[R]: ...


class Metric(StrEnum):
    """Every metric. Those that an operator has to act on have an alarm in the template and a line in the runbook."""

    TASKS_IMPORTED = "TasksImported"
    TASKS_REFUSED = "TasksRefused"
    CLIPS_BOUGHT = "ClipsBought"
    CLIPS_STORED = "ClipsStored"
    CLIPS_RESCUED = "ClipsRescued"
    RENDER_ORIGINS_REFUSED = "RenderOriginsRefused"
    CLIPS_IN_REVIEW = "ClipsInReview"
    FOUND_BY_POLL = "FoundByPoll"
    AMBIGUOUS_PURCHASES = "AmbiguousPurchases"
    SECOND_RENDERS = "SecondRenders"
    OVERWRITTEN_CLIPS = "OverwrittenClips"
    IMPLAUSIBLE_COST = "ImplausibleCost"
    TOO_MANY_FACTS = "TooManyFacts"
    BUDGET_REFUSED = "BudgetRefused"
    BUDGET_EXCEEDED = "BudgetExceeded"
    ACCOUNT_REFUSED = "AccountRefused"
    WEBHOOKS_REJECTED = "WebhooksRejected"
    UNREADABLE_CLIPS = "UnreadableClips"

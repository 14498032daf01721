"""Small in-memory stand-ins for the table, the bucket, Runware, the clock and telemetry, and clips to test with.

The table keeps the conditions of the adapter: new items only, one version after another, limits before budgets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

import httpx

from rushes.domain.budget import Cost, Costs, OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, Fact, Kind, Scalar, Witness, merge_all
from rushes.domain.media import Head, Probed, container
from rushes.domain.task import Existing, Found, Page, Recorded, Task
from rushes.domain.timings import Timings
from rushes.errors import BucketError, BusyError, StaleError
from rushes.runware.outcome import Accepted, Outcome, Refused
from rushes.runware.response import Problem
from rushes.services.ports import Metric
from rushes.services.purchase import Buyer, Credentials, PurchaseService
from rushes.services.queries import QueryService
from rushes.services.submit import Request, SubmitService
from rushes.services.webhook import WebhookService

T = TypeVar("T")
R = TypeVar("R")

START = 1_790_000_000_000  # 2026-09-21, in milliseconds
MONTH = "2026-09"
PRICE = 924_000  # of five seconds, in micro-dollars
TASK_UUID = "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c"
CLIP_UUID = "00000000-0000-4000-8000-000000000001"
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x48mdat" + bytes(64)
WEBM = b"\x1aE\xdf\xa3\x87\x42\x82\x84webm\x18\x53\x80\x67" + bytes(64)
TIMES = Timings(
    http=10_000,
    function=25_000,
    lease=60_000,
    resend_window=120_000,
    deadline=7_200_000,
    last_look=900_000,
    copy_deadline=21_600_000,
    usual_render=240_000,
    rescue_after=60_000,
)


def request(**changes: Any) -> dict[str, Any]:
    """A valid task; a parameter given as Ellipsis is left out."""
    task = {
        "taskType": "videoInference",
        "taskUUID": TASK_UUID,
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
        **changes,
    }
    return {name: value for name, value in task.items() if value is not ...}


def uuid4(number: int) -> str:
    """A UUID v4 for each number."""
    return f"00000000-0000-4000-8000-{number:012x}"


def clip(*facts: Fact, **changes: Any) -> Clip:
    """A clip as `submit` records it, without a lease, knowing some facts."""
    values: dict[str, Any] = {
        "caller": "ann",
        "task_uuid": TASK_UUID,
        "index": 0,
        "clip_uuid": CLIP_UUID,
        "object_key": f"videos/ann/2026/09/21/{TASK_UUID}-0.mp4",
        "estimate": PRICE,
        "month": MONTH,
        "created_at": START,
        "budgeted": PRICE,
        **changes,
    }
    return merge_all(Clip(**values), facts)


def fact(kind: Kind, key: str = "", at: int = START, witness: Witness = Witness.POLL, **fields: Scalar) -> Fact:
    """A fact, for short."""
    return Fact(kind=kind, key=key, at=at, witness=witness, fields=fields)


def refusal(status: int = 400, code: str = "invalidModel", task_uuid: str | None = CLIP_UUID) -> Refused:
    """A definite no of Runware's."""
    return Refused(status, Problem(task_uuid, code, "no", False, {"code": code, "message": "no"}))


class Clock:
    """Milliseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class Telemetry:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.counted: Counter[Metric] = Counter()
        self.notes: list[tuple[str, bool, dict[str, object]]] = []

    def count(self, metric: Metric, amount: int = 1) -> None:
        self.counted[metric] += amount

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        self.notes.append((message, warn, details))


class Table:
    """Tasks, clips and budgets under the conditions of the real table.

    `busy` names the calls that fail as if the table were away, `unheard` those that take effect and then fail. While
    `contended`, no save moves money. `before_save` runs ahead of every save, to race it.
    """

    def __init__(self) -> None:
        self.tasks: dict[tuple[str, str], Task] = {}
        self.rows: dict[tuple[str, str, int], Clip] = {}
        self.budgets: dict[tuple[str, str], tuple[int, int]] = {}  # counted, limit
        self.busy: set[str] = set()
        self.unheard: set[str] = set()
        self.contended = False
        self.before_save: Callable[[], None] = lambda: None
        self.saves = 0
        self.asked: list[tuple[str, int, str | None, str]] = []  # of `page`

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation]
    ) -> Recorded | Existing | OverBudget:
        self._answer("record")
        if (task.caller, task.task_uuid) in self.tasks:
            return Existing(self.tasks[task.caller, task.task_uuid])
        for wanted in reservations:
            counted, _ = self.budgets.get((wanted.scope, wanted.month), (0, 0))
            if counted > wanted.limit - wanted.amount:
                return OverBudget(wanted.scope, wanted.limit, counted)
        for wanted in reservations:
            counted, _ = self.budgets.get((wanted.scope, wanted.month), (0, 0))
            self.budgets[wanted.scope, wanted.month] = counted + wanted.amount, wanted.limit
        self.tasks[task.caller, task.task_uuid] = task
        self.rows |= {(member.caller, member.task_uuid, member.index): member for member in clips}
        self._lose("record")
        return Recorded()

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        self._answer("budget")
        self._answer(f"budget of {scope}")
        return self.budgets.get((scope, month), (0, None))

    def save(self, before: Clip, after: Clip) -> Clip:
        self.before_save()
        self._answer("save")
        key = before.caller, before.task_uuid, before.index
        if key not in self.rows or self.rows[key].version != before.version:
            raise StaleError
        if self.contended and after.budgeted != before.budgeted:
            raise BusyError("the budgets are contended")
        self.saves += 1
        self.rows[key] = replace(after, version=before.version + 1)
        for scope in after.scopes:
            counted, limit = self.budgets.get((scope, after.month), (0, 0))
            self.budgets[scope, after.month] = counted + after.budgeted - before.budgeted, limit
        self._lose("save")
        return self.rows[key]

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        self._answer("clip")
        return self.rows.get((caller, task_uuid, index))

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None:
        self._answer("known")
        return self.tasks.get((caller, task_uuid))

    def clips(self, caller: str, task_uuid: str) -> list[Clip]:
        self._answer("clips")
        return [row for key, row in sorted(self.rows.items()) if key[:2] == (caller, task_uuid)]

    def get_task_with_clips(self, caller: str, task_uuid: str) -> Found | None:
        clips = self.clips(caller, task_uuid)
        if not clips:
            return None
        known = self.tasks.get((caller, task_uuid)) or Task(
            caller=caller, task_uuid=task_uuid, request={}, fingerprint="", clips=len(clips), created_at=START
        )
        return Found(known, tuple(clips), f"{known.created_at}#{task_uuid}")

    def page(self, caller: str, most: int, *, after: str | None = None, day: str = "") -> Page:
        self.asked.append((caller, most, after, day))
        found = [self.get_task_with_clips(*key) for key in self.tasks if key[0] == caller]
        listed = sorted((each for each in found if each), key=lambda each: each.position, reverse=True)
        rest = [each for each in listed if after is None or each.position < after]
        return Page(tuple(rest[:most]), rest[most - 1].position if len(rest) > most else None)

    def costs(self, caller: str, since: int, until: int, most: int, after: str | None = None) -> Costs:
        listed = [self._cost(row) for row in self.rows.values() if row.caller == caller]
        found = [each for each in listed if since <= each.created_at <= until]
        found.sort(key=_place, reverse=True)
        rest = [each for each in found if after is None or _place(each) < after]
        return Costs(tuple(rest[:most]), _place(rest[most - 1]) if len(rest) > most else None)

    def _cost(self, row: Clip) -> Cost:
        task = self.tasks.get((row.caller, row.task_uuid))
        sent = task.request if task else {}
        model, tags = sent.get("model", ""), sent.get("tags") or {}
        return Cost(row.caller, row.task_uuid, row.index, row.created_at, row.budgeted, model, tags)

    def put(self, row: Clip) -> Clip:
        """Puts a clip there, no questions asked."""
        self.rows[row.caller, row.task_uuid, row.index] = row
        return row

    def race(self, row: Clip) -> None:
        """Saves a clip as somebody else would, for `before_save`."""
        self.put(row)

    def _answer(self, call: str) -> None:
        if call in self.busy:
            raise BusyError("made busy")

    def _lose(self, call: str) -> None:
        if call in self.unheard:
            raise BusyError("made unheard", maybe_written=True)


def _place(cost: Cost) -> str:
    return f"{cost.created_at}#{cost.task_uuid}#{cost.index}"


class Bucket:
    """Objects by key, with one version each. `down` makes S3 unable to say; `no_links` makes signing fail.

    `others` are objects of other buckets, by bucket and key. `calls` counts what was done about images.
    """

    name = "clips"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.others: dict[tuple[str, str], bytes] = {}
        self.calls: Counter[str] = Counter()
        self.probes = 0
        self.down = self.no_links = False

    def upload_link(self, key: str, seconds: int) -> str:
        if self.no_links:
            raise BucketError("NoCredentials")
        return f"https://bucket.example/{key}?X-Amz-Expires={seconds}"

    def image_link(self, bucket: str, key: str, seconds: int) -> str:
        if self.no_links:
            raise BucketError("NoCredentials")
        return f"https://{bucket}.example/{key}?X-Amz-Expires={seconds}"

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        self.calls["keep"] += 1
        if self.down:
            raise BucketError("SlowDown")
        self.objects.setdefault(key, content)
        self.types.setdefault(key, content_type)

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        self.calls["head"] += 1
        if self.down:
            raise BucketError("SlowDown")
        content = self.objects.get(key) if bucket == self.name else self.others.get((bucket, key))
        return None if content is None else Head(len(content), content[:length])

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str:
        if self.no_links:
            raise BucketError("NoCredentials")
        return f"https://bucket.example/{key}?versionId={version}&X-Amz-Expires={seconds}"

    def probe(self, key: str) -> Probed | None:
        self.probes += 1
        if self.down:
            raise BucketError("SlowDown")
        content = self.objects.get(key)
        return None if content is None else Probed("v1", len(content), "etag", container(content, len(content)))


class Seller:
    """Runware's side of buying: answers from `script`, then accepts. `on_send` sees each task before the answer."""

    def __init__(self) -> None:
        self.script: list[Outcome] = []
        self.sent: list[Mapping[str, Any]] = []
        self.keys: set[str] = set()
        self.on_send: Callable[[Mapping[str, Any]], None] = lambda _: None

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        self.sent.append(task)
        self.keys.add(key)
        self.on_send(task)
        return self.script.pop(0) if self.script else Accepted("acknowledged")


def transport(handler: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    """Answers as the handler says, in bytes that are still to be read, as they come over a wire."""

    def answer(sent: httpx.Request) -> httpx.Response:
        response = handler(sent)
        return httpx.Response(response.status_code, stream=httpx.ByteStream(response.read()))

    return httpx.MockTransport(answer)


def one_after_another(work: Callable[[T], R], items: Iterable[T], /) -> list[R]:
    """`SideBySide`, in order."""
    return [work(item) for item in items]


@dataclass
class World:
    """The fakes, and the use cases on them."""

    clock: Clock = field(default_factory=Clock)
    table: Table = field(default_factory=Table)
    bucket: Bucket = field(default_factory=Bucket)
    seller: Seller = field(default_factory=Seller)
    telemetry: Telemetry = field(default_factory=Telemetry)
    caller: Caller = Caller("ann", 100_000_000)  # noqa: RUF009 (frozen)
    monthly_limit: int = 1_000_000_000
    retention: int | None = None

    def __post_init__(self) -> None:
        self.numbers = count(1)

    @property
    def purchasing(self) -> PurchaseService:
        return PurchaseService(
            clips=self.table,
            links=self.bucket,
            seller=self.seller,
            telemetry=self.telemetry,
            times=TIMES,
            webhook_url="https://hooks.example",
            clock=self.clock,
        )

    @property
    def submitting(self) -> SubmitService:
        return SubmitService(
            table=self.table,
            inputs=self.bucket,
            reading=self.reading,
            purchasing=self.purchasing,
            telemetry=self.telemetry,
            times=TIMES,
            monthly_limit=self.monthly_limit,
            retention=self.retention,
            clock=self.clock,
            new_uuid=lambda: uuid4(next(self.numbers)),
            side_by_side=one_after_another,
        )

    @property
    def reading(self) -> QueryService:
        return QueryService(table=self.table, links=self.bucket, times=TIMES, clock=self.clock)

    @property
    def receiving(self) -> WebhookService:
        return WebhookService(
            clips=self.table, copies=self.bucket, telemetry=self.telemetry, times=TIMES, clock=self.clock
        )

    def buyer(self, lasts: int = TIMES.function, *, patient: bool = False) -> Buyer:
        """Somebody who may buy for `lasts` milliseconds from now."""
        return Buyer("holder", self.clock.now + lasts, Credentials("runware-key", ["signing-key"]), patient)

    def call(self, lasts: int = TIMES.function) -> Request:
        """One call of the caller's."""
        return Request(self.caller, self.buyer(lasts))

    def row(self, index: int = 0, task_uuid: str = TASK_UUID) -> Clip:
        """A clip as it is in the table."""
        return self.table.rows[self.caller.name, task_uuid, index]

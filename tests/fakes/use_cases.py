"""The use cases on in-memory stand-ins for the bucket and Runware, whose behaviour a test can set."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import httpx

from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.media import Head, ProbeResult, container
from rushes.errors import BucketError
from rushes.runware.outcome import Accepted, Outcome
from rushes.services.purchase import Buyer, Credentials, PurchaseService
from rushes.services.queries import QueryService
from rushes.services.submit import Request, SubmitService
from rushes.services.webhook import WebhookService
from tests.fakes.builders import TASK_UUID, TIMES, uuid4
from tests.fakes.table import FakeTable
from tests.fakes.telemetry import FakeClock, FakeTelemetry

T = TypeVar("T")
R = TypeVar("R")


class FakeBucket:
    """Objects by key, with one version each. `down` makes S3 unavailable; `no_links` makes signing fail.

    `others` are objects of other buckets, by bucket and key. `calls` counts the requests for images.
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

    def probe(self, key: str) -> ProbeResult | None:
        self.probes += 1
        if self.down:
            raise BucketError("SlowDown")
        content = self.objects.get(key)
        return None if content is None else ProbeResult("v1", len(content), "etag", container(content, len(content)))


class FakeRunware:
    """Runware's side of a purchase: outcomes from `script`, then acceptance. `on_send` gets each task first."""

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
    """A transport that answers with the handler's response, its bytes not yet read, as they come over a wire."""

    def answer(sent: httpx.Request) -> httpx.Response:
        response = handler(sent)
        return httpx.Response(response.status_code, stream=httpx.ByteStream(response.read()))

    return httpx.MockTransport(answer)


def sequential_map(work: Callable[[T], R], items: Iterable[T], /) -> list[R]:
    """The concurrent map of the services, but in order."""
    return [work(item) for item in items]


@dataclass
class UseCases:
    """The fakes, and the use cases on them."""

    clock: FakeClock = field(default_factory=FakeClock)
    table: FakeTable = field(default_factory=FakeTable)
    bucket: FakeBucket = field(default_factory=FakeBucket)
    runware: FakeRunware = field(default_factory=FakeRunware)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    caller: Caller = Caller("ann", 100_000_000)  # noqa: RUF009 (frozen)
    monthly_limit: int = 1_000_000_000
    retention: int | None = None

    def __post_init__(self) -> None:
        self.numbers = count(1)

    @property
    def purchase_service(self) -> PurchaseService:
        return PurchaseService(
            clips=self.table,
            links=self.bucket,
            runware=self.runware,
            telemetry=self.telemetry,
            times=TIMES,
            webhook_url="https://hooks.example",
            clock=self.clock,
        )

    @property
    def submit_service(self) -> SubmitService:
        return SubmitService(
            table=self.table,
            inputs=self.bucket,
            query_service=self.query_service,
            purchase_service=self.purchase_service,
            telemetry=self.telemetry,
            times=TIMES,
            monthly_limit=self.monthly_limit,
            retention=self.retention,
            clock=self.clock,
            new_uuid=lambda: uuid4(next(self.numbers)),
            concurrent_map=sequential_map,
        )

    @property
    def query_service(self) -> QueryService:
        return QueryService(table=self.table, links=self.bucket, times=TIMES, clock=self.clock)

    @property
    def webhook_service(self) -> WebhookService:
        return WebhookService(
            clips=self.table, copies=self.bucket, telemetry=self.telemetry, times=TIMES, clock=self.clock
        )

    def buyer(self, lasts: int = TIMES.function, *, unattended: bool = False) -> Buyer:
        """A buyer whose function ends in `lasts` milliseconds."""
        return Buyer("holder", self.clock.now + lasts, Credentials("runware-key", ["signing-key"]), unattended)

    def call(self, lasts: int = TIMES.function) -> Request:
        """One request of the caller."""
        return Request(self.caller, self.buyer(lasts))

    def row(self, index: int = 0, task_uuid: str = TASK_UUID) -> Clip:
        """A clip as the table has it."""
        return self.table.rows[self.caller.name, task_uuid, index]

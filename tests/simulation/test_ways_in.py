"""A request file's way to its clips: stopped anywhere, delivered twice or concurrently, each line is bought once.

Queues behave as SQS does: a message is deleted only after its function has returned success, so a stopped function gets
its whole batch again, and any message may be delivered twice.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice, product
from typing import Any

import pytest

from rushes.domain.caller import Caller
from rushes.domain.clip import Status
from rushes.domain.inbox_message import read
from rushes.lambda_events import message_id, process_batch
from rushes.runware.wire import WireError
from rushes.services import inbox as inbox_service
from rushes.services.authentication import Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.import_requests import ImportService, Origin
from rushes.services.inbox import InboxService
from tests.fakes.builders import PRICE, TIMES, request, uuid4
from tests.fakes.use_cases import sequential_map
from tests.simulation.history import CALLER, CREDENTIALS, History, Setting, verdict
from tests.simulation.world import Schedule

KEY, VERSION = f"requests/{CALLER.name}/a.jsonl", "v1"
LINES: Sequence[Any] = (
    request(taskUUID=...),
    request(duration=7),
    request(taskUUID=uuid4(7)),
    "{",
    request(taskUUID=...),
)
VALID = (1, 3, 5)
BATCH = 2  # messages in an invocation of submit, more than the template's one
SEND_BATCH = 2  # messages in a call that sends to the inbox
VISIBILITY = 150_000  # milliseconds until a failed message is delivered again


@dataclass
class SimulatedFile:
    """The file, read in chunks."""

    encoding: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    hidden_metadata: int = 0

    def chunks(self) -> Iterator[bytes]:
        for line in LINES:
            yield (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"


@dataclass
class Flow:
    """Intake, the inbox as a queue, and submit, in a history's world."""

    schedule: Schedule = field(default_factory=Schedule)
    fates: tuple[str, ...] = ()
    limit: int = CALLER.monthly_limit
    deliveries: int = 1
    inbox: list[str] = field(default_factory=list)
    ever_sent: set[str] = field(default_factory=set)
    reports: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = History(Setting(schedule=self.schedule, fates=self.fates))
        self.world, self.table = self.history.world, self.history.table
        self.world.guests |= {"file": self._intake, "message": self._second_delivery}
        self.numbers = count()
        self.set_limit(self.limit)
        self.callers = Callers(self.table, self.world.clock)
        self.intake = ImportService(
            bucket="bucket",
            request_files=self,
            inbox=self,
            reports=self,
            store_images=self.store_images,
            caller_named=lambda name: self.callers.by_name(name, signing=True),
            telemetry=self.history.telemetry,
            concurrent_map=sequential_map,
            clock=self.world.clock,
        )
        breaker = CircuitBreaker(self.history.runware, self.world.clock)
        purchase_service = replace(self.history.submit_service.purchase_service, runware=breaker)
        self.inbox_service = InboxService(
            submit_service=replace(self.history.submit_service, purchase_service=purchase_service),
            breaker=breaker,
            callers=self.callers,
            reports=self,
            telemetry=self.history.telemetry,
            clock=self.world.clock,
        )

    def set_limit(self, limit: int) -> None:
        self.table.set_caller(Caller(CALLER.name, limit))

    def open(self, key: str, version: str) -> SimulatedFile:
        assert (key, version) == (KEY, VERSION)
        return self.world.effect("open", SimulatedFile)

    def before(self, key: str, version: str) -> str | None:
        return None

    def head(self, key: str, version: str) -> "Flow":
        return self  # no earlier version to compare it with

    def store_images(self, task: Mapping[str, Any], caller: Caller) -> Mapping[str, Any] | list[WireError]:
        return task

    def send(self, texts: Iterable[str]) -> None:
        batch = list(texts)
        for start in range(0, len(batch), SEND_BATCH):
            self.world.effect("send", lambda start=start: self._sent(batch[start : start + SEND_BATCH]))  # type: ignore[misc]

    def _sent(self, texts: Sequence[str]) -> None:
        self.inbox += texts
        self.ever_sent |= {json.loads(text)["task"]["taskUUID"] for text in texts}

    def put(self, key: str, content: bytes) -> None:
        self.world.effect("put", lambda: self._put(key, content))

    def _put(self, key: str, content: bytes) -> None:
        if self.reports.setdefault(key, content) != content:
            self.faults.append(f"a repeat wrote another report: {key}")
        accepted = {line["taskUUID"] for line in json.loads(content).get("lines", []) if "accepted" in line}
        if not accepted <= self.ever_sent:
            self.faults.append("a report has an accepted line that is not in the inbox")

    def _intake(self) -> bool:
        """One run of intake; True if it was not stopped."""
        ends_at = self.world.now + 270_000
        return self.world.run(lambda: self.intake.import_file(KEY, VERSION, ends_at) or True) or False

    def _submit(self, texts: Sequence[str]) -> list[str]:
        """One run of submit; returns the messages to deliver again."""
        failed = self.world.run(lambda: self._batch(texts))
        return list(texts) if failed is None else failed

    def _batch(self, texts: Sequence[str]) -> list[str]:
        buyer = inbox_service.Buyer(
            f"run {next(self.numbers)}", self.world.now + TIMES.function - 2_000, CREDENTIALS, True
        )
        event = {"Records": [{"messageId": str(number), "body": text} for number, text in enumerate(texts)]}
        answer = process_batch(
            event, lambda record: self.inbox_service.buy(read(record["body"]), buyer), message_id, all_may_fail=True
        )
        return [texts[int(failure["itemIdentifier"])] for failure in answer["batchItemFailures"]]

    def _second_delivery(self) -> None:
        """SQS delivers messages that another run has, or that are in the queue."""
        self._submit((self.in_hand + self.inbox)[:BATCH])

    in_hand: list[str] = field(default_factory=list)

    def run(self) -> "Flow":
        """Runs everything until the queues are empty and no clip is open."""
        for _ in range(self.deliveries):
            while not self._intake():
                self.wait()
        self.drain()
        self.history.advance()
        return self

    def drain(self, tries: int = 10) -> list[str]:
        """Runs submit until no message is left, at most `tries` times; returns the messages that are left."""
        left: list[str] = []
        for _ in range(tries):
            left = []
            while self.inbox:
                self.in_hand, self.inbox = self.inbox[:BATCH], self.inbox[BATCH:]
                left += self._submit(self.in_hand)
                self.in_hand = []
            self.inbox = left
            if not left:
                break
            self.wait()
        return left

    def wait(self) -> None:
        """Moves time to the next delivery of failed messages."""
        until = self.world.now + VISIBILITY
        self.history.advance(until)
        self.world.move_to(until)

    def broken(self, bought: int = len(VALID)) -> list[str]:
        """Every broken promise as a sentence.

        A clip may be in review if a stop hit the sweep that should have sent it; the test limits how many are.
        """
        broken = [*self.faults, *verdict(self.history)]
        clips = list(self.table.rows.values())
        stopped = bool(self.schedule.before | self.schedule.after)
        decided = [clip for clip in clips if clip.status is not Status.REVIEW or not stopped]
        if len(clips) != bought or any(self.history.runware.charged(clip.clip_uuid) != 1 for clip in decided):
            broken.append(f"{len(clips)} clips, {self.history.runware.ledger() / PRICE:g} paid, of {bought} lines")
        report = json.loads(self.reports.get(f"reports/{CALLER.name}/a.jsonl.{VERSION}.json", b"{}"))
        if tuple(line["line"] for line in report.get("lines", []) if "accepted" in line) != VALID:
            broken.append("the report is incomplete")
        if report.get("refused") != len(LINES) - len(VALID):
            broken.append("the report has the wrong number of refused lines")
        if len(self.reports) != 1:
            broken.append(f"refused after the import: {sorted(self.reports)}")
        return broken


def effects(fates: tuple[str, ...]) -> int:
    """The number of effects of an undisturbed run."""
    flow = Flow(fates=fates)
    flow._intake()
    flow.drain()
    return flow.world.effects


def schedules(fates: tuple[str, ...]) -> Iterator[Schedule]:
    """Every stop and every second delivery, alone; and each stop during a second delivery."""
    yield Schedule()
    last = effects(fates)
    for number in range(1, last + 1):
        yield Schedule(before=frozenset({number}))
        yield Schedule(after=frozenset({number}))
        for guest in ("file", "message"):
            for raced in (Schedule(guests={number: guest}), Schedule(guests_inside={number: guest})):
                yield raced
                yield Schedule(after=frozenset({number + 1}), guests=raced.guests, guests_inside=raced.guests_inside)


def pairs(fates: tuple[str, ...]) -> Iterator[Schedule]:
    """Every pair of stops."""
    last = effects(fates)
    for first, second in product(range(1, last + 1), repeat=2):
        yield Schedule(before=frozenset({first}), after=frozenset({second}))


FATES = (("well",), ("lost",), ("cut after",), ("late", "lost"), ("refused connection",), ("no account",))


def flows(faulty: bool = False) -> Iterator[Flow]:
    """Every schedule for every outcome; and a file that is delivered three times, undisturbed."""
    for fates in FATES:
        yield Flow(fates=fates, deliveries=3)
        for schedule in (*schedules(fates), *(pairs(fates) if fates == ("well",) and not faulty else ())):
            yield Flow(schedule, fates)


def explore(every: int = 1, faulty: bool = False) -> tuple[int, int, list[str]]:
    """Returns the number of runs, the number with a clip in review, and the first broken promises.

    Only every n-th flow runs.
    """
    explored = in_review = 0
    for flow in islice(flows(faulty), 0, None, every):
        explored += 1
        flow.run()
        in_review += any(clip.status is Status.REVIEW for clip in flow.table.rows.values())
        if broken := flow.broken():
            return explored, in_review, [str(flow.schedule), *broken]
    return explored, in_review, []


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.batch)])
def test_every_valid_line_is_bought_once_and_reported(every: int) -> None:
    """Under every stop, second delivery and race of intake and submit, the ledger and the report agree."""
    explored, in_review, broken = explore(every)
    assert not broken
    assert explored > 900 / every
    assert in_review < explored / 20
    print(f"flows explored: {explored}, of which {in_review} have a clip in review")


def test_orders_beyond_the_budget_wait_for_it() -> None:
    """Orders beyond the limit are neither bought nor dropped; they are bought when the limit is raised."""
    flow = Flow(limit=PRICE)
    assert flow._intake()
    set_aside = flow.drain()
    flow.history.advance()
    assert len(set_aside) == 2
    assert flow.broken(bought=1) == []
    flow.set_limit(10 * PRICE)
    flow.inbox = set_aside
    assert flow.drain() == []
    flow.history.advance()
    assert flow.broken() == []


Patch = pytest.MonkeyPatch


def random_uuids(patch: Patch) -> None:
    """A task without a UUID gets a new one each time it is read."""
    numbers = count(1000)
    patch.setattr(Origin, "uuid_at", lambda self, line: uuid4(next(numbers)))


def report_first(patch: Patch) -> None:
    """The report is written before the messages are sent."""
    original = ImportService._send

    def send(self: ImportService, block: Any, origin: Any, caller: Any, uuid_counts: Any, report: Any) -> None:
        results = [self._validate(entry, origin=origin, caller=caller, uuid_counts=uuid_counts) for entry in block]
        for each in results:
            report.add(each)
        self.reports.put(f"{origin.report}.json", report.content)
        original(self, block, origin, caller, uuid_counts, type(report)(report.about))

    patch.setattr(ImportService, "_send", send)


def postponed_is_refused(patch: Patch) -> None:
    """An order that should be retried is refused instead."""
    patch.setattr(inbox_service, "_RETRYABLE", ())


@pytest.mark.parametrize("mutant", [random_uuids, report_first], ids=lambda mutant: mutant.__name__)
def test_each_planted_fault_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A fault in the import breaks at least one promise in at least one flow."""
    mutant(monkeypatch)
    explored, _, broken = explore(faulty=True)
    assert broken, f"{mutant.__doc__} Not detected in {explored} flows."


def test_an_order_dropped_for_its_budget_is_caught(monkeypatch: Patch) -> None:
    """If a used-up budget counted as a refusal, the order would be lost and this suite would fail."""
    postponed_is_refused(monkeypatch)
    flow = Flow(limit=PRICE)
    assert flow._intake()
    assert flow.drain() == []
    assert flow.broken(bought=1) != []

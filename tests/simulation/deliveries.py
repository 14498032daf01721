"""`deliver` on the changes of a finished history, stopped before and after each of its effects.

The history runs once. Its changes are then applied to a table one by one, each queues its delivery as `publish` does,
and invocations work on the queue in between: so outcomes replace each other while attempts at them are under way.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rushes.domain.clip import Clip, Status
from rushes.domain.delivery import Delivery, Reply, SigningSecret, new_secret
from rushes.errors import BusyError, QueueError, RushesError
from rushes.services import deliver, publish
from rushes.services.queries import QueryService
from tests.fakes.builders import TIMES
from tests.fakes.deliveries import FakeDeliveriesTable
from tests.fakes.telemetry import FakeClock, FakeTelemetry
from tests.fakes.use_cases import FakeBucket
from tests.simulation.history import History
from tests.simulation.world import FailurePoint, Schedule, Stopped, World

T = TypeVar("T")
Fate = Literal["accepted", "refused", "lost"]
"""The receiver's answer to one request; of a lost one only the receiver has the answer."""

_VISIBILITY = 150_000  # milliseconds until a message that was not deleted is received again
_MAX_INVOCATIONS = 100
_SECRET = SigningSecret(new_secret(), 0)


@dataclass(slots=True)
class DeliveryReplay:
    """The changes of a history and the deliveries of their outcomes.

    `steps` invocations take place before the last change of the history. `failures` are effects that fail, by number:
    before they take place, or after, when only the answer is lost. `fates` are of the first requests; later ones are
    accepted.
    """

    history: History
    schedule: Schedule = field(default_factory=Schedule)
    failures: Mapping[int, FailurePoint] = field(default_factory=dict)
    fates: Sequence[Fate] = ()
    steps: int = 0
    world: World = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    table: "_Table" = field(init=False)
    queue: list[tuple[int, Delivery]] = field(default_factory=list)
    requests: list[tuple[str, bool]] = field(default_factory=list)  # id, and if the receiver accepted it
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(self.schedule)
        self.table = _Table(self)

    def run(self) -> "DeliveryReplay":
        """Applies all changes and works until the queue is empty."""
        *changes, last = self.history.table.changes
        for before, after in changes:
            self._apply(before, after)
        for _ in range(self.steps):
            self._invoke()
        self._apply(*last)
        for _ in range(_MAX_INVOCATIONS):
            self._invoke()
        if self.queue:
            self.violations.append("lost: a delivery is still under way after a hundred invocations")
        return self

    def effect(self, name: str, act: Callable[[], T], error: type[RushesError]) -> T:
        """One effect of the service, which may fail."""
        return self.world.failing_effect(name, act, self.failures, error)

    def send(self, delivery: Delivery, delay: int = 0) -> None:
        self.effect("send", lambda: self.queue.append((self.clock.now + delay, delivery)), QueueError)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The receiver. A request that the service does not survive has arrived."""
        return self.world.effect("post", lambda: self._receive(headers["webhook-id"], json.loads(body)))

    def _apply(self, before: Clip, after: Clip) -> None:
        self.table.put(after)
        delivery_id = publish.delivery_id_of(after)
        if delivery_id and delivery_id != publish.delivery_id_of(before):
            delivery = Delivery(after.caller, after.task_uuid, after.index, delivery_id)
            self.queue += [(self.clock.now, delivery)] * 2  # the stream repeats a change

    def _invoke(self) -> None:
        """One invocation with the message that is due first; without one, none."""
        if not self.queue:
            return
        self.queue.sort(key=lambda message: message[0])
        visible_at, delivery = self.queue[0]
        self.clock.now = max(self.clock.now, visible_at)
        service = deliver.DeliverService(
            table=self.table,
            queue=self,
            receivers=self,
            query_service=QueryService(table=self.table, links=FakeBucket(), times=TIMES, clock=self.clock),
            telemetry=FakeTelemetry(),
            bucket="clips",
            first_pause=5000,
            lease=25_000,
            retention=1,
            concurrency=1,
            clock=self.clock,
            jitter=lambda: 0.5,
        )
        try:
            service.attempt(delivery, f"invocation {self.world.effects}")
        except (Stopped, RushesError):
            self.queue[0] = self.clock.now + _VISIBILITY, delivery
        else:
            self.queue.remove((visible_at, delivery))

    def _receive(self, delivery_id: str, body: Mapping[str, Any]) -> Reply:
        fate: Fate = self.fates[len(self.requests)] if len(self.requests) < len(self.fates) else "accepted"
        current = {publish.delivery_id_of(row): row for row in self.table.rows.values()}
        if delivery_id not in current:
            self.violations.append("sent an outcome that was not the present one")
        elif (body["rushes"]["status"] == "stored") != (current[delivery_id].status == Status.STORED):
            self.violations.append("sent another outcome than the record's")
        self.requests.append((delivery_id, fate != "refused"))
        return Reply(*{"accepted": (200, 1), "refused": (500, 1), "lost": (None, 15_000, "", None, "timeout")}[fate])


class _Table(FakeDeliveriesTable):
    """The table, whose calls are effects; with a receiver and a secret for every task of the history."""

    def __init__(self, replay: DeliveryReplay) -> None:
        super().__init__()
        self._replay = replay
        tasks = replay.history.table.tasks
        self.tasks = {name: task._replace(webhook_url="https://hooks.example/") for name, task in tasks.items()}
        self.secrets = {caller: [_SECRET] for caller, _ in tasks}

    def call(self, name: str, act: Callable[[], T]) -> T:
        return self._replay.effect(name, act, BusyError)


def verdict(replay: DeliveryReplay) -> list[str]:
    """Every broken promise as a sentence; empty if all were kept."""
    broken = list(replay.violations)
    accepted = {delivery_id for delivery_id, success in replay.requests if success}
    for clip in replay.table.rows.values():
        delivery_id = publish.delivery_id_of(clip)
        if delivery_id and delivery_id not in accepted:
            broken.append(f"clip {clip.index} is {clip.status}, and its receiver was not told")
    recorded = len(replay.table.recorded)
    disturbed = len(replay.schedule.before | replay.schedule.after) + len(replay.failures)
    if not len(replay.requests) - disturbed <= recorded <= len(replay.requests):
        broken.append(f"{recorded} attempts are on record, and {len(replay.requests)} were made")
    # A repeat of one attempt for each disturbance, and one attempt after each refused or lost request.
    outcomes = {delivery_id for delivery_id, _ in replay.requests}
    if len(replay.requests) > len(outcomes) + len(replay.fates) + disturbed:
        broken.append(f"{len(replay.requests)} requests for {len(outcomes)} outcomes")
    if replay.table.slots and not disturbed:
        broken.append("a slot stayed taken")
    return broken


def replays(histories: Sequence[History]) -> Iterator[DeliveryReplay]:
    """Every history, undisturbed and with every single stop and failure, under the receiver's answers."""
    every_fate: tuple[tuple[Fate, ...], ...] = ((), ("refused",), ("lost",), ("refused", "lost"))
    for history in histories:
        for fates in every_fate:
            for steps in (0, 1, 3):
                options: dict[str, Any] = {"fates": fates, "steps": steps}
                plain = DeliveryReplay(history, **options).run()
                yield DeliveryReplay(history, **options)
                for number in range(1, plain.world.effects + 1):
                    yield DeliveryReplay(history, Schedule(before=frozenset({number})), **options)
                    yield DeliveryReplay(history, Schedule(after=frozenset({number})), **options)
                    yield DeliveryReplay(history, failures={number: "before"}, **options)
                    yield DeliveryReplay(history, failures={number: "after"}, **options)

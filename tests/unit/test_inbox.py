"""One message of the inbox: bought, reported, or returned to the queue."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rushes.domain.caller import Caller
from rushes.domain.clip import Status
from rushes.domain.inbox_message import Message
from rushes.errors import PostponedError
from rushes.runware.outcome import NeverArrived
from rushes.services.authentication import Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.inbox import InboxService
from rushes.services.metric import Metric
from tests.fakes.builders import PRICE, START, TASK_UUID, TIMES, refusal, request, uuid4
from tests.fakes.use_cases import UseCases

REPORT = "reports/ann/a.jsonl.v1"


class CallersByName:
    """Callers by name, as the table has them."""

    def __init__(self, **limits: int) -> None:
        self.limits = limits
        self.disabled: set[str] = set()

    def caller(self, key_hash: str) -> Caller | None:
        raise AssertionError("no message has a key")

    def caller_named(self, name: str) -> Caller | None:
        return Caller(name, self.limits[name], disabled=name in self.disabled) if name in self.limits else None


class Reports:
    """Keeps reports in memory."""

    def __init__(self) -> None:
        self.contents: dict[str, Any] = {}

    def put(self, key: str, content: bytes) -> None:
        self.contents[key] = json.loads(content)


class Inbox:
    """The use case on the fakes. A caller's limit is `unknown`, unless it is given by name; None refuses the caller."""

    def __init__(self, unknown: int | None = 10 * PRICE, **limits: int) -> None:
        self.world, self.caller_names, self.reports = UseCases(), CallersByName(**limits), Reports()
        breaker = CircuitBreaker(self.world.runware, self.world.clock)
        self.inbox_service = InboxService(
            submit_service=replace(
                self.world.submit_service, purchase_service=replace(self.world.purchase_service, runware=breaker)
            ),
            breaker=breaker,
            callers=Callers(self.caller_names, self.world.clock, unknown),
            reports=self.reports,
            telemetry=self.world.telemetry,
            clock=self.world.clock,
        )

    def receive(self, lasts: int = TIMES.function, **changes: Any) -> None:
        self.inbox_service.buy(Message("ann", request(**changes), REPORT), self.world.buyer(lasts, unattended=True))


def test_a_message_is_bought_once() -> None:
    """A task is recorded for its caller and sent once; a redelivered message changes nothing."""
    inbox = Inbox()
    for _ in range(3):
        inbox.receive()
    assert inbox.world.row().status is Status.RUNNING
    assert len(inbox.world.runware.sent) == 1
    assert inbox.reports.contents == {}


@pytest.mark.parametrize(("limits", "bought"), [({}, 10), ({"ann": 2 * PRICE}, 2)])
def test_a_message_beyond_the_budget_is_retried(limits: dict[str, int], bought: int) -> None:
    """A message beyond the budget raises without a report, and is bought after the limit was raised."""
    inbox = Inbox(**limits)
    uuids = [f"00000000-0000-4000-8000-{number:012x}" for number in range(bought + 1)]
    for task_uuid in uuids[:-1]:
        inbox.receive(taskUUID=task_uuid)
    for _ in range(2):
        with pytest.raises(PostponedError, match="budgetExceeded"):
            inbox.receive(taskUUID=uuids[-1])
    assert len(inbox.world.runware.sent) == bought
    assert inbox.world.telemetry.counted[Metric.BUDGET_REFUSED] == 2
    inbox.caller_names.limits["ann"] = 100 * PRICE
    inbox.world.clock.now += 61_000  # the time for which a name is cached
    inbox.receive(taskUUID=uuids[-1])
    assert len(inbox.world.runware.sent) == bought + 1
    assert inbox.reports.contents == {}


def test_a_busy_table_returns_the_message() -> None:
    """An order that the table could not record is neither bought nor reported."""
    inbox = Inbox()
    inbox.world.table.busy = {"record"}
    with pytest.raises(PostponedError, match="serviceUnavailable"):
        inbox.receive()
    assert inbox.world.runware.sent == []
    assert inbox.reports.contents == {}


def test_a_conflict_is_reported() -> None:
    """A conflict can never succeed, so it is reported beside the file's report and not retried."""
    inbox = Inbox()
    inbox.receive()
    for _ in range(2):
        inbox.receive(positivePrompt="another one")
        (key,) = inbox.reports.contents
        assert key == f"{REPORT}.{TASK_UUID}.json"
        assert [error["code"] for error in inbox.reports.contents[key]["errors"]] == ["conflictTaskUUID"]
    assert len(inbox.world.runware.sent) == 1
    assert inbox.world.telemetry.counted[Metric.TASKS_REFUSED] == 2


def test_a_task_that_became_invalid_is_reported() -> None:
    """Rules may change between import and purchase: the fault is reported, and nothing is recorded."""
    inbox = Inbox()
    inbox.receive(duration=7)
    assert [error["code"] for error in inbox.reports.contents[f"{REPORT}.{TASK_UUID}.json"]["errors"]] == [
        "unsupportedDuration"
    ]
    assert inbox.world.table.tasks == {}


def test_runwares_own_refusal_is_reported() -> None:
    """A definite refusal of the only attempt is in the record and in a report."""
    inbox = Inbox()
    inbox.world.runware.script = [refusal()]
    inbox.receive()
    assert inbox.world.row().status is Status.FAILED
    assert inbox.reports.contents[f"{REPORT}.{TASK_UUID}.json"]["taskUUID"] == TASK_UUID


@pytest.mark.parametrize(
    "outcome", [refusal(401, "invalidApiKey"), refusal(200, "insufficientCredits"), NeverArrived("ConnectError")]
)
def test_a_recorded_task_is_not_retried(outcome: Any) -> None:
    """A recorded task is left to the reconciler, so an account refusal or a network error is no reason for a retry."""
    inbox = Inbox()
    inbox.world.runware.script = [outcome]
    inbox.receive()
    assert inbox.world.row().status is Status.PENDING
    assert inbox.reports.contents == {}


def test_orders_wait_while_runware_refuses_the_account() -> None:
    """After an account refusal one order a minute is tried and the others wait; after a success all are bought."""
    inbox = Inbox()
    inbox.world.runware.script = [refusal(402, "insufficientCredits")] * 2
    uuids = [uuid4(number) for number in range(4)]
    inbox.receive(taskUUID=uuids[0])
    for _ in range(2):
        with pytest.raises(PostponedError, match="Runware refuses the account"):
            inbox.receive(taskUUID=uuids[1])
    inbox.world.clock.now += 60_000
    inbox.receive(taskUUID=uuids[1])
    with pytest.raises(PostponedError, match="Runware refuses the account"):
        inbox.receive(taskUUID=uuids[2])
    assert len(inbox.world.table.tasks) == len(inbox.world.runware.sent) == 2
    inbox.world.clock.now += 60_000
    for task_uuid in uuids[2:]:
        inbox.receive(taskUUID=task_uuid)
    assert [inbox.world.row(task_uuid=task_uuid).status for task_uuid in uuids[2:]] == [Status.RUNNING] * 2


def test_without_time_to_finish_nothing_is_recorded() -> None:
    """To the millisecond, a message is returned while its task could be recorded but perhaps not sent."""
    needed = TIMES.http + TIMES.to_finish
    inbox = Inbox()
    with pytest.raises(PostponedError, match="no time"):
        inbox.receive(lasts=needed - 1)
    assert inbox.world.table.tasks == {}
    inbox.receive(lasts=needed)
    assert len(inbox.world.runware.sent) == 1
    assert inbox.world.row().created_at == START


@pytest.mark.parametrize("exists", [True, False])
def test_the_order_of_a_disallowed_caller_is_reported(exists: bool) -> None:
    """For a disabled or unknown caller nothing is recorded or sent, also of earlier messages."""
    inbox = Inbox(unknown=None, **({"ann": 10 * PRICE} if exists else {}))
    inbox.caller_names.disabled = {"ann"}
    inbox.receive()
    assert [error["code"] for error in inbox.reports.contents[f"{REPORT}.{TASK_UUID}.json"]["errors"]] == [
        "callerNotAllowed"
    ]
    assert (inbox.world.table.tasks, inbox.world.runware.sent) == ({}, [])
    assert inbox.world.telemetry.counted == {Metric.TASKS_REFUSED: 1}
    inbox.caller_names.limits["ann"], inbox.caller_names.disabled = PRICE, set()
    inbox.receive()
    assert len(inbox.world.runware.sent) == 1


def postponed(orders: int, batch: int) -> int:
    """The number of messages that are returned, of orders that take six seconds each, in batches of this size."""
    inbox, returned = Inbox(), 0
    for start in range(0, orders, batch):
        buyer = inbox.world.buyer(TIMES.function - TIMES.to_finish, unattended=True)
        for number in range(start, start + batch):
            before = len(inbox.world.runware.sent)
            try:
                inbox.inbox_service.buy(Message("ann", request(taskUUID=uuid4(number)), REPORT), buyer)
            except PostponedError:
                returned += 1
            inbox.world.clock.now += 6_000 * (len(inbox.world.runware.sent) - before)
    return returned


def test_slow_orders_are_not_returned_in_batches_of_one() -> None:
    """In a batch of five slow orders most find no time left, and each return uses up one of ten tries."""
    assert postponed(5, batch=5) == 3
    assert postponed(5, batch=1) == 0

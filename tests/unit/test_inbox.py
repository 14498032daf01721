"""One message of the inbox: bought, told in a report, or left to come back."""

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


class Names:
    """Callers by name, as the table has them."""

    def __init__(self, **limits: int) -> None:
        self.limits = limits
        self.disabled: set[str] = set()

    def caller(self, key_hash: str) -> Caller | None:
        raise AssertionError("nobody comes with a key")

    def caller_named(self, name: str) -> Caller | None:
        return Caller(name, self.limits[name], disabled=name in self.disabled) if name in self.limits else None


class Shelf:
    """Reports that were put."""

    def __init__(self) -> None:
        self.reports: dict[str, Any] = {}

    def put(self, key: str, content: bytes) -> None:
        self.reports[key] = json.loads(content)


class Desk:
    """The use case on the fakes; a caller has a limit of ten clips unless another is named, or `unknown` is None."""

    def __init__(self, unknown: int | None = 10 * PRICE, **limits: int) -> None:
        self.world, self.names, self.shelf = UseCases(), Names(**limits), Shelf()
        breaker = CircuitBreaker(self.world.runware, self.world.clock)
        self.inbox_service = InboxService(
            submit_service=replace(
                self.world.submit_service, purchase_service=replace(self.world.purchase_service, runware=breaker)
            ),
            breaker=breaker,
            callers=Callers(self.names, self.world.clock, unknown),
            reports=self.shelf,
            telemetry=self.world.telemetry,
            clock=self.world.clock,
        )

    def take(self, lasts: int = TIMES.function, **changes: Any) -> None:
        self.inbox_service.buy(Message("ann", request(**changes), REPORT), self.world.buyer(lasts, unattended=True))


def test_a_message_is_bought_once() -> None:
    """A task is recorded for its caller and sent; when its message comes again, nothing happens."""
    desk = Desk()
    for _ in range(3):
        desk.take()
    assert desk.world.row().status is Status.RUNNING
    assert len(desk.world.runware.sent) == 1
    assert desk.shelf.reports == {}


@pytest.mark.parametrize(("limits", "bought"), [({}, 10), ({"ann": 2 * PRICE}, 2)])
def test_a_message_that_the_budget_cannot_hold_comes_back(limits: dict[str, int], bought: int) -> None:
    """It is neither bought nor reported but raises, and when the limit was raised it is bought."""
    desk = Desk(**limits)
    uuids = [f"00000000-0000-4000-8000-{number:012x}" for number in range(bought + 1)]
    for task_uuid in uuids[:-1]:
        desk.take(taskUUID=task_uuid)
    for _ in range(2):
        with pytest.raises(PostponedError, match="budgetExceeded"):
            desk.take(taskUUID=uuids[-1])
    assert len(desk.world.runware.sent) == bought
    assert desk.world.telemetry.counted[Metric.BUDGET_REFUSED] == 2
    desk.names.limits["ann"] = 100 * PRICE
    desk.world.clock.now += 61_000  # as long as a name is remembered
    desk.take(taskUUID=uuids[-1])
    assert len(desk.world.runware.sent) == bought + 1
    assert desk.shelf.reports == {}


def test_a_busy_table_sends_the_message_back() -> None:
    """What the table could not take is neither bought nor reported."""
    desk = Desk()
    desk.world.table.busy = {"record"}
    with pytest.raises(PostponedError, match="serviceUnavailable"):
        desk.take()
    assert desk.world.runware.sent == []
    assert desk.shelf.reports == {}


def test_another_request_under_the_uuid_is_told_in_a_report() -> None:
    """A conflict can never succeed: it is reported beside the file's report, the same each time, and done."""
    desk = Desk()
    desk.take()
    for _ in range(2):
        desk.take(positivePrompt="another one")
        (key,) = desk.shelf.reports
        assert key == f"{REPORT}.{TASK_UUID}.json"
        assert [error["code"] for error in desk.shelf.reports[key]["errors"]] == ["conflictTaskUUID"]
    assert len(desk.world.runware.sent) == 1
    assert desk.world.telemetry.counted[Metric.TASKS_REFUSED] == 2


def test_what_became_invalid_on_its_way_is_told_in_a_report() -> None:
    """Rules may change between intake and purchase: the fault is reported, and nothing recorded."""
    desk = Desk()
    desk.take(duration=7)
    assert [error["code"] for error in desk.shelf.reports[f"{REPORT}.{TASK_UUID}.json"]["errors"]] == [
        "unsupportedDuration"
    ]
    assert desk.world.table.tasks == {}


def test_runwares_own_refusal_is_told_as_well() -> None:
    """A definite no to the only attempt is in the record and in a report."""
    desk = Desk()
    desk.world.runware.script = [refusal()]
    desk.take()
    assert desk.world.row().status is Status.FAILED
    assert desk.shelf.reports[f"{REPORT}.{TASK_UUID}.json"]["taskUUID"] == TASK_UUID


@pytest.mark.parametrize(
    "outcome", [refusal(401, "invalidApiKey"), refusal(200, "insufficientCredits"), NeverArrived("ConnectError")]
)
def test_what_may_still_be_bought_is_done(outcome: Any) -> None:
    """Once recorded, a task is seen through: trouble with our account or the network is no reason to come back."""
    desk = Desk()
    desk.world.runware.script = [outcome]
    desk.take()
    assert desk.world.row().status is Status.PENDING
    assert desk.shelf.reports == {}


def test_while_runware_refuses_us_orders_wait() -> None:
    """After trouble with our account one order a minute is tried; the others come back, and when it is over all go."""
    desk = Desk()
    desk.world.runware.script = [refusal(402, "insufficientCredits")] * 2
    uuids = [uuid4(number) for number in range(4)]
    desk.take(taskUUID=uuids[0])
    for _ in range(2):
        with pytest.raises(PostponedError, match="Runware refuses the account"):
            desk.take(taskUUID=uuids[1])
    desk.world.clock.now += 60_000
    desk.take(taskUUID=uuids[1])
    with pytest.raises(PostponedError, match="Runware refuses the account"):
        desk.take(taskUUID=uuids[2])
    assert len(desk.world.table.tasks) == len(desk.world.runware.sent) == 2
    desk.world.clock.now += 60_000
    for task_uuid in uuids[2:]:
        desk.take(taskUUID=task_uuid)
    assert [desk.world.row(task_uuid=task_uuid).status for task_uuid in uuids[2:]] == [Status.RUNNING] * 2


def test_with_too_little_time_left_nothing_is_recorded() -> None:
    """A message is given back while it could still be recorded but perhaps not sent, down to the millisecond."""
    needed = TIMES.http + TIMES.to_finish
    desk = Desk()
    with pytest.raises(PostponedError, match="no time"):
        desk.take(lasts=needed - 1)
    assert desk.world.table.tasks == {}
    desk.take(lasts=needed)
    assert len(desk.world.runware.sent) == 1
    assert desk.world.row().created_at == START


@pytest.mark.parametrize("known", [True, False])
def test_a_caller_that_may_not_order_is_told_in_a_report(known: bool) -> None:
    """Disabled, or made by no operator: nothing is recorded or sent, also of what was in the inbox before."""
    desk = Desk(unknown=None, **({"ann": 10 * PRICE} if known else {}))
    desk.names.disabled = {"ann"}
    desk.take()
    assert [error["code"] for error in desk.shelf.reports[f"{REPORT}.{TASK_UUID}.json"]["errors"]] == [
        "callerNotAllowed"
    ]
    assert (desk.world.table.tasks, desk.world.runware.sent) == ({}, [])
    assert desk.world.telemetry.counted == {Metric.TASKS_REFUSED: 1}
    desk.names.limits["ann"], desk.names.disabled = PRICE, set()
    desk.take()
    assert len(desk.world.runware.sent) == 1


def postponed(orders: int, batch: int) -> int:
    """How many messages come back at first of orders that take six seconds each, in batches of so many."""
    desk, back = Desk(), 0
    for start in range(0, orders, batch):
        buyer = desk.world.buyer(TIMES.function - TIMES.to_finish, unattended=True)
        for number in range(start, start + batch):
            before = len(desk.world.runware.sent)
            try:
                desk.inbox_service.buy(Message("ann", request(taskUUID=uuid4(number)), REPORT), buyer)
            except PostponedError:
                back += 1
            desk.world.clock.now += 6_000 * (len(desk.world.runware.sent) - before)
    return back


def test_slow_orders_do_not_come_back_when_each_has_the_functions_time() -> None:
    """One after another in one run most of five find no time left, and lose one of their ten tries each time."""
    assert postponed(5, batch=5) == 3
    assert postponed(5, batch=1) == 0

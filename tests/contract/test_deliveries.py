"""The table of deliveries on moto and its fake keep one contract; the real one's items follow."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from rushes.adapters.dynamodb.admin import AdminTable
from rushes.domain.caller import Caller
from rushes.domain.delivery import Attempt, AttemptOutcome, Delivery, Reply, SigningSecret
from rushes_local.stack import Stack
from tests.conftest import User, client
from tests.fakes.builders import START, uuid4
from tests.fakes.deliveries import FakeDeliveriesTable

numbers = count(1)


@pytest.fixture(params=["moto", "fake"])
def table(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of the two tables."""
    if request.param == "fake":
        yield FakeDeliveriesTable()
    else:
        yield request.getfixturevalue("stack").store


@pytest.fixture
def delivery() -> Delivery:
    """The first attempt at a delivery of a new caller."""
    number = next(numbers)
    return Delivery(f"caller-{number}", uuid4(number), 0, f"id-{number}")


def attempt(delivery: Delivery, at: int = START, **changes: Any) -> Attempt:
    reply = Reply(503, 12, "busy", 2000, "")
    values: dict[str, Any] = {"outcome": AttemptOutcome.RETRY, "next_at": at + 5000, **changes}
    return Attempt(delivery, at, "https://hooks.example", reply, **values)


def test_an_attempt_is_recorded_once(table: Any, delivery: Delivery) -> None:
    """An attempt is found by its delivery, run and number, whenever it was due."""
    assert table.attempt(delivery) is None
    table.put_attempt(attempt(delivery), START + 1)
    assert table.attempt(delivery._replace(due_at=START + 7, waits=3)) == attempt(delivery)
    for other in ({"attempt": 2}, {"run": 1}, {"clip": 1}, {"delivery_id": "other"}, {"caller": "other"}):
        assert table.attempt(delivery._replace(**other)) is None


def test_a_reply_without_a_response_is_kept(table: Any, delivery: Delivery) -> None:
    """The record of an attempt without a response, and without a next one."""
    last = attempt(delivery)._replace(reply=Reply(None, 15_000, failure="timeout"), next_at=None)
    table.put_attempt(last, START + 1)
    assert table.attempt(delivery) == last


def test_attempts_are_listed_by_task_and_by_time(table: Any, delivery: Delivery) -> None:
    """The attempts of a task, and those of a caller since a time, both oldest first."""
    second = delivery._replace(attempt=2)
    other = delivery._replace(task_uuid=uuid4(10**6))
    for each, at in ((second, START + 5000), (delivery, START), (other, START + 9000)):
        table.put_attempt(attempt(each, at), START + 1)
    listed = table.attempts(delivery.caller, delivery.task_uuid)
    assert [each.delivery for each in listed] == [delivery, second]
    found = list(table.attempts_of_caller(delivery.caller, START + 5000))
    assert [each.delivery for each in found] == [second, other]
    assert list(table.attempts_of_caller("another", 0)) == []


def test_slots_are_limited_and_end_by_themselves(table: Any, delivery: Delivery) -> None:
    """A caller has so many slots at once; each ends when it is freed by its holder, or at its time."""

    def take(holder: str, now: int = START) -> int | None:
        found: int | None = table.take_slot(delivery.caller, 2, holder, now, now + 1000)
        return found

    assert (take("a"), take("b"), take("c")) == (0, 1, None)
    assert take("a") == 0  # the same invocation, whose answer was lost
    table.free_slot(delivery.caller, 0, "c")
    assert take("c") is None
    table.free_slot(delivery.caller, 0, "a")
    assert take("c") == 0
    assert take("d", START + 1000) is None
    assert take("d", START + 1001) == 0
    assert table.take_slot("another", 2, "d", START, START + 1000) == 0


def test_secrets_belong_to_an_existing_caller(stack: Stack) -> None:
    """Secrets and the caller's mark change together; an unknown caller gets none."""
    store, name = stack.store, f"caller-{next(numbers)}"
    secrets = [SigningSecret("whsec_YQ==", 1, 5), SigningSecret("whsec_Yg==", 2)]
    assert not store.set_signing_secrets(name, secrets)
    assert store.signing_secrets(name) == []
    store.set_caller(Caller(name, 1))
    assert store.set_signing_secrets(name, secrets)
    assert store.signing_secrets(name) == secrets
    assert store.caller_named(name) == Caller(name, 1, signs_webhooks=True)
    store.set_caller(Caller(name, 2))
    assert store.set_signing_secrets(name, [])
    assert store.caller_named(name) == Caller(name, 2)


def test_a_default_receiver_is_set_and_removed(stack: Stack) -> None:
    """A caller's receiver survives a change of its limit."""
    store, name = stack.store, f"caller-{next(numbers)}"
    assert not store.set_webhook_url(name, "https://hooks.example")
    store.set_caller(Caller(name, 1))
    assert store.set_webhook_url(name, "https://hooks.example")
    store.set_caller(Caller(name, 2))
    assert store.caller_named(name) == Caller(name, 2, webhook_url="https://hooks.example")
    assert store.set_webhook_url(name, "")
    assert store.caller_named(name) == Caller(name, 2)


def test_a_task_shows_the_attempts_at_its_webhooks(user: User) -> None:
    """`GET /tasks/{taskUUID}` has the attempts of a task with a receiver, with the origin of its URL only."""
    user.stack.store.set_signing_secrets(user.name, [SigningSecret("whsec_YQ==", 1)])
    signing = User(user.stack, name=user.name)  # with a new key, because the function remembers the other's caller
    clip = signing.buy(webhookURL="https://hooks.example/?token=sesame-sesame")
    user.stack.store.put_attempt(attempt(Delivery(user.name, clip.task_uuid, 0, "id-1")), START)
    shown = signing.get(f"/tasks/{clip.task_uuid}").json()["webhooks"]
    assert shown == [
        {
            "clip": 0,
            "id": "id-1",
            "attempt": 1,
            "at": "2026-09-21T14:13:20.000Z",
            "receiver": "https://hooks.example",
            "outcome": "retry",
            "status": 503,
            "milliseconds": 12,
            "excerpt": "busy",
            "nextAt": "2026-09-21T14:13:25.000Z",
        }
    ]
    assert "webhooks" not in signing.get(f"/tasks/{signing.buy().task_uuid}").json()


def test_records_of_deliveries_are_no_tasks(stack: Stack, delivery: Delivery) -> None:
    """Attempts expire, are apart from the caller's tasks in their index, and are no inconsistency."""
    stack.store.put_attempt(attempt(delivery), START)
    stack.store.take_slot(delivery.caller, 1, "a", START, START + 1)
    assert stack.store.page(delivery.caller, 10).found == ()
    assert stack.store.snapshot().unrecognized_keys == []
    key = AdminTable(client(stack, "dynamodb"), stack.table_name)
    assert key.attempt(delivery) is not None
    items = client(stack, "dynamodb").scan(TableName=stack.table_name)["Items"]
    assert all("expiresAt" in item for item in items if item["pk"]["S"].startswith(("delivery#", "slots#")))

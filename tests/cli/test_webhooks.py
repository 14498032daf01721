"""`rushes webhooks` on the local stack: secrets, and deliveries that are listed and repeated."""

from dataclasses import dataclass, field

import pytest

from rushes.domain.delivery import Attempt, AttemptOutcome, Delivery, Reply, SigningSecret
from rushes_cli.exits import Exit
from rushes_cli.operator.webhooks import latest
from rushes_local.stack import STACK_NAME, Stack
from tests.cli.conftest import Run
from tests.conftest import User, client
from tests.fakes.builders import START, uuid4

pytestmark = pytest.mark.usefixtures("account")

STACK = ("--stack", STACK_NAME)
SINCE = ("--since", "2020-01-01")


def secrets(user: User) -> list[SigningSecret]:
    return user.stack.store.signing_secrets(user.name)


def attempt(user: User, number: int, *, task: str | None = None, at: int = START, accepted: bool = False) -> Attempt:
    """A recorded attempt at the delivery of a task; the eighth is the last."""
    delivery = Delivery(user.name, task or uuid4(1), 0, "id-1", attempt=number)
    reply = Reply(200 if accepted else 503, 12, "busy")
    outcome = AttemptOutcome.DELIVERED if accepted else AttemptOutcome.RETRY if number < 8 else AttemptOutcome.FAILED
    next_at = at + 5 if outcome == AttemptOutcome.RETRY else None
    found = Attempt(delivery, at, "https://hooks.example", reply, outcome, next_at)
    user.stack.store.put_attempt(found, at + 10**11)
    return found


@dataclass
class Queue:
    """The queue of deliveries."""

    stack: Stack
    url: str = field(init=False)

    def __post_init__(self) -> None:
        outputs = client(self.stack, "cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"][0]["Outputs"]
        (self.url,) = [each["OutputValue"] for each in outputs if each["OutputKey"] == "DeliveriesUrl"]

    def bodies(self) -> list[str]:
        """Receives and deletes every message."""
        sqs, found = client(self.stack, "sqs"), []
        while messages := sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(message["Body"])
                sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found


def test_a_secret_is_created_rotated_and_revoked(user: User, run: Run) -> None:
    """A new secret is printed once; a rotation keeps the old one for its overlap; a revocation removes all."""
    created = run("webhooks", "secret", "create", user.name, *STACK).out.strip()
    assert [each.text for each in secrets(user)] == [created]
    again = run("webhooks", "secret", "create", user.name, *STACK)
    assert again.status == Exit.FAILED
    assert f"rushes webhooks secret rotate {user.name}" in again.err
    rotated = run("webhooks", "secret", "rotate", user.name, "--overlap", "2", *STACK, "--json").json["secret"]
    new, old = secrets(user)
    assert (new.text, new.ends_at, old.text) == (rotated, None, created)
    assert old.ends_at is not None
    assert abs(old.ends_at - new.made_at - 7_200_000) < 10_000
    run("webhooks", "secret", "revoke", user.name, "--previous", *STACK)
    assert [each.text for each in secrets(user)] == [rotated]
    run("webhooks", "secret", "revoke", user.name, "--yes", *STACK)
    assert secrets(user) == []
    missing = run("webhooks", "secret", "rotate", user.name, *STACK)
    assert (missing.status, "secret create" in missing.err) == (Exit.FAILED, True)


def test_an_unknown_caller_gets_no_secret(run: Run) -> None:
    """Secrets and receivers belong to callers that an operator has created."""
    assert "no caller nowhere" in run("webhooks", "secret", "create", "nowhere", *STACK).err
    assert "no caller nowhere" in run("webhooks", "url", "nowhere", *STACK).err


def test_a_default_receiver_is_set_with_the_key_or_later(user: User, run: Run) -> None:
    """The receiver of tasks that name none is checked, stored, printed and removed."""
    bad = run("webhooks", "url", user.name, "https://10.0.0.1/", *STACK)
    assert bad.status == Exit.USAGE
    assert "private" in bad.err
    run("keys", "create", user.name, "--limit-usd", "5", "--webhook-url", "https://hooks.example/a", *STACK)
    assert run("webhooks", "url", user.name, *STACK).out == "https://hooks.example/a\n"
    assert "secret create" in run("webhooks", "url", user.name, "https://hooks.example/b", *STACK).err
    run("webhooks", "url", user.name, "", *STACK)
    assert "no default receiver" in run("webhooks", "url", user.name, *STACK).out
    refused = run("keys", "create", user.name, "--limit-usd", "5", "--webhook-url", "http://x/", *STACK)
    assert "https://" in refused.err


def test_deliveries_are_listed_by_their_last_attempt(user: User, run: Run) -> None:
    """Each webhook has one line; `show` has every attempt of a task."""
    attempt(user, 1)
    attempt(user, 2, at=START + 5000)
    attempt(user, 1, task=uuid4(2), at=START + 6000, accepted=True)
    lines = run("webhooks", "list", user.name, *SINCE, *STACK).out.splitlines()
    assert [line.split("\t")[1:5] for line in lines[1:]] == [
        [uuid4(1), "0", "2", "retry"],
        [uuid4(2), "0", "1", "delivered"],
    ]
    failed = run("webhooks", "list", user.name, "--failed", *SINCE, *STACK).out.splitlines()
    assert len(failed) == 2
    assert len(run("webhooks", "show", user.name, uuid4(1), *STACK).out.splitlines()) == 3
    assert "must be a time" in run("webhooks", "list", user.name, "--since", "noon", *STACK).err


def test_failed_deliveries_are_replayed(stack: Stack, user: User, run: Run) -> None:
    """Only webhooks whose schedule has ended without success are queued again, under their ids, as a run of its own."""
    queue = Queue(stack)
    queue.bodies()
    attempt(user, 8)
    attempt(user, 7, task=uuid4(2))
    attempt(user, 1, task=uuid4(3), accepted=True)
    assert run("webhooks", "replay", user.name, *SINCE, *STACK, "--json").json["replayed"] == 1
    (body,) = queue.bodies()
    assert f'"task_uuid":"{uuid4(1)}"' in body
    assert '"attempt":1' in body
    assert '"run":0' not in body


def test_a_task_without_a_receiver_is_not_replayed(user: User, run: Run) -> None:
    """A task that has no receiver is named."""
    clip = user.buy()
    refused = run("webhooks", "replay", user.name, clip.task_uuid, *STACK)
    assert (refused.status, "receiver" in refused.err) == (Exit.FAILED, True)


def test_the_latest_attempt_counts() -> None:
    """Of several attempts at a delivery the last is kept, at its own place."""
    delivery = Delivery("ann", uuid4(1), 0, "id-1")
    other = Delivery("ann", uuid4(2), 0, "id-2")
    attempts = [
        Attempt(each, at, "", Reply(500, 1), AttemptOutcome.RETRY)
        for at, each in enumerate((delivery, other, delivery._replace(attempt=2)))
    ]
    assert [each.at for each in latest(attempts)] == [1, 2]

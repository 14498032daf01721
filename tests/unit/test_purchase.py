"""One attempt to buy one clip: when it was sent, and that nothing is left behind where nothing was sent."""

from dataclasses import replace

import pytest

from rushes.domain.clip import Clip, Kind, Lease, Status
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome
from tests.fakes.builders import CLIP_UUID, PRICE, START, TASK_UUID, TIMES, clip, refusal, request
from tests.fakes.use_cases import UseCases


def leased(world: UseCases) -> Clip:
    """A recorded clip under the buyer's lease."""
    now = world.clock.now
    return world.table.put(clip(lease=Lease("holder", now, now + TIMES.lease)))


@pytest.mark.parametrize("lasts", [0, 1, 9_999])
def test_a_doubtful_attempt_is_as_old_as_its_sending(world: UseCases, lasts: int) -> None:
    """The resend window is counted from before the request went out, not from when its answer failed to come."""
    before = leased(world)
    world.runware.script = [Ambiguous("ReadTimeout")]
    world.runware.on_send = lambda _: setattr(world.clock, "now", world.clock.now + lasts)
    after, _ = world.purchase_service.attempt(before, request(), world.buyer())
    assert after == world.row()
    assert (after.possibly_sent_at, after.possibly_sent_to) == (START, world.buyer().credentials.account)
    assert after.first_seen_at(Kind.ATTEMPTED) == START + lasts


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Accepted("acknowledged"), Status.RUNNING),
        (refusal(), Status.FAILED),
        (NeverArrived("ConnectError"), Status.PENDING),
        (Ambiguous("ReadTimeout"), Status.PENDING),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_attempt_ends_its_lease(world: UseCases, outcome: Outcome, status: Status) -> None:
    """Whatever came of it, the outcome is on record and the lease is over."""
    before = leased(world)
    world.runware.script = [outcome]
    after, told = world.purchase_service.attempt(before, request(), world.buyer())
    assert told == outcome
    assert (after.status, after.lease) == (status, None)
    assert after.facts


@pytest.mark.parametrize("short", ["of the function", "of the lease"])
def test_too_late_to_send(world: UseCases, short: str) -> None:
    """With less than a request's time left nothing is sent, and the lease is no trace of an attempt."""
    before = leased(world)
    buyer = world.buyer(TIMES.http if short == "of the lease" else TIMES.http - 1)
    if short == "of the lease":
        before = world.table.put(replace(before, lease=Lease("holder", START, START + TIMES.http - 1)))
    after, outcome = world.purchase_service.attempt(before, request(), buyer)
    assert (outcome, world.runware.sent) == (None, [])
    assert (after.lease, after.possibly_sent_at, after.facts) == (None, None, {})


def test_a_request_has_just_enough_time(world: UseCases) -> None:
    """To the millisecond."""
    before = leased(world)
    world.purchase_service.attempt(before, request(), world.buyer(TIMES.http))
    assert len(world.runware.sent) == 1


def test_no_link_no_attempt(world: UseCases) -> None:
    """Where nothing can be signed nothing is sent, and the lease is no trace of an attempt."""
    before = leased(world)
    world.bucket.no_links = True
    after, outcome = world.purchase_service.attempt(before, request(), world.buyer())
    assert (outcome, world.runware.sent) == (None, [])
    assert (after.lease, after.possibly_sent_at) == (None, None)
    details = {"reason": "NoCredentials", "clipUUID": CLIP_UUID}
    assert world.telemetry.notes == [("upload or image link could not be signed", True, details)]


def test_an_outcome_that_cannot_be_saved_leaves_the_lease(world: UseCases) -> None:
    """A sent clip of which no outcome is on record must look like one."""
    before = leased(world)
    world.table.busy = {"save"}
    after, outcome = world.purchase_service.attempt(before, request(), world.buyer())
    assert isinstance(outcome, Accepted)
    assert after == world.row() == before
    details = {"reason": "made busy", "taskUUID": TASK_UUID, "clip": 0}
    assert world.telemetry.notes == [("attempt outcome could not be saved", True, details)]


def test_a_refusal_is_saved_while_the_budgets_are_contended(world: UseCases) -> None:
    """What is known for certain is not lost for the sake of its money, which follows."""
    before = leased(world)
    world.table.contended = True
    world.runware.script = [refusal()]
    after, _ = world.purchase_service.attempt(before, request(), world.buyer())
    assert after == world.row()
    assert (after.status, after.lease, after.possibly_sent_at, after.budgeted) == (Status.FAILED, None, None, PRICE)


@pytest.mark.parametrize("written", [True, False])
def test_a_lease_that_may_be_written_is_given_back(world: UseCases, written: bool) -> None:
    """Whether the lease was written or not, the clip is without it afterwards, and nothing counts as an attempt."""
    before = world.table.put(clip())
    lease = replace(before, lease=Lease("holder", START, START + TIMES.lease))
    if written:
        world.table.save(before, lease)
    after = world.purchase_service.give_back(lease, world.buyer())
    assert after == world.row()
    assert (after.lease, after.possibly_sent_at, after.facts) == (None, None, {})


def test_the_lease_of_another_buyer_is_not_given_back(world: UseCases) -> None:
    """A clip that another buyer has taken since is left alone."""
    lease = Lease("holder", START, START + TIMES.lease)
    theirs = world.table.put(clip(lease=lease._replace(holder="other"), version=3))
    assert world.purchase_service.give_back(clip(lease=lease), world.buyer()) == theirs == world.row()


def test_an_attempt_asks_for_the_copy_until_its_deadline(world: UseCases) -> None:
    """To the second: a `ttl` that is a moment too short loses a paid clip whose upload failed."""
    world.purchase_service.attempt(leased(world), request(ttl=60), world.buyer())
    assert repr(world.runware.sent[0]["ttl"]) == str(TIMES.copy_deadline // 1000)  # whole seconds

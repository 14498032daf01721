"""One attempt to buy one clip: the time of its send, and no trace of an attempt that was not sent."""

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
def test_an_ambiguous_attempt_is_dated_before_its_send(world: UseCases, lasts: int) -> None:
    """The resend window is counted from before the send, not from the missing answer."""
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
    """After any outcome its fact is recorded and the lease is over."""
    before = leased(world)
    world.runware.script = [outcome]
    after, returned = world.purchase_service.attempt(before, request(), world.buyer())
    assert returned == outcome
    assert (after.status, after.lease) == (status, None)
    assert after.facts


@pytest.mark.parametrize("too_short", ["of the function", "of the lease"])
def test_without_time_for_a_request_nothing_is_sent(world: UseCases, too_short: str) -> None:
    """With less than a request's time left nothing is sent, and the lease is no evidence of an attempt."""
    before = leased(world)
    buyer = world.buyer(TIMES.http if too_short == "of the lease" else TIMES.http - 1)
    if too_short == "of the lease":
        before = world.table.put(replace(before, lease=Lease("holder", START, START + TIMES.http - 1)))
    after, outcome = world.purchase_service.attempt(before, request(), buyer)
    assert (outcome, world.runware.sent) == (None, [])
    assert (after.lease, after.possibly_sent_at, after.facts) == (None, None, {})


def test_a_request_is_sent_with_just_enough_time(world: UseCases) -> None:
    """A request is sent with exactly its own time left."""
    before = leased(world)
    world.purchase_service.attempt(before, request(), world.buyer(TIMES.http))
    assert len(world.runware.sent) == 1


def test_without_a_link_nothing_is_sent(world: UseCases) -> None:
    """If no link can be signed nothing is sent, and the lease is no evidence of an attempt."""
    before = leased(world)
    world.bucket.no_links = True
    after, outcome = world.purchase_service.attempt(before, request(), world.buyer())
    assert (outcome, world.runware.sent) == (None, [])
    assert (after.lease, after.possibly_sent_at) == (None, None)
    details = {"reason": "NoCredentials", "clipUUID": CLIP_UUID}
    assert world.telemetry.logs == [("upload or image link could not be signed", True, details)]


def test_an_outcome_that_cannot_be_saved_leaves_the_lease(world: UseCases) -> None:
    """The lease stays as evidence of a sent clip without a recorded outcome."""
    before = leased(world)
    world.table.busy = {"save"}
    after, outcome = world.purchase_service.attempt(before, request(), world.buyer())
    assert isinstance(outcome, Accepted)
    assert after == world.row() == before
    details = {"reason": "made busy", "taskUUID": TASK_UUID, "clip": 0}
    assert world.telemetry.logs == [("attempt outcome could not be saved", True, details)]


def test_a_refusal_is_saved_while_the_budgets_are_contended(world: UseCases) -> None:
    """A certain outcome is saved although its money can be moved only later."""
    before = leased(world)
    world.table.contended = True
    world.runware.script = [refusal()]
    after, _ = world.purchase_service.attempt(before, request(), world.buyer())
    assert after == world.row()
    assert (after.status, after.lease, after.possibly_sent_at, after.budgeted) == (Status.FAILED, None, None, PRICE)


@pytest.mark.parametrize("written", [True, False])
def test_a_lease_that_may_be_written_is_given_back(world: UseCases, written: bool) -> None:
    """After giving back a lease, written or not, the clip has none, and no attempt is recorded."""
    before = world.table.put(clip())
    lease = replace(before, lease=Lease("holder", START, START + TIMES.lease))
    if written:
        world.table.save(before, lease)
    after = world.purchase_service.give_back(lease, world.buyer())
    assert after == world.row()
    assert (after.lease, after.possibly_sent_at, after.facts) == (None, None, {})


def test_the_lease_of_another_buyer_is_not_given_back(world: UseCases) -> None:
    """A clip that another buyer has leased since is left alone."""
    lease = Lease("holder", START, START + TIMES.lease)
    other = world.table.put(clip(lease=lease._replace(holder="other"), version=3))
    assert world.purchase_service.give_back(clip(lease=lease), world.buyer()) == other == world.row()


def test_the_provider_keeps_its_copy_until_the_copy_deadline(world: UseCases) -> None:
    """The `ttl` is exact to the second: a shorter one loses a paid clip whose upload failed."""
    world.purchase_service.attempt(leased(world), request(ttl=60), world.buyer())
    assert repr(world.runware.sent[0]["ttl"]) == str(TIMES.copy_deadline // 1000)  # whole seconds

"""The request for a clip, the effect of an attempt's outcome on it, and one whole attempt."""

from dataclasses import replace
from typing import Any

import pytest

from rushes.domain import webhook_token
from rushes.domain.clip import Clip, FactSource, Kind, Lease, Status, billable_amount, lease_to
from rushes.runware.facts import apply_outcome, is_account_refusal, refusals
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome
from rushes.services.metric import Metric
from rushes.services.purchase import build_wire_task, callback_url
from tests.fakes.builders import CLIP_UUID, PRICE, START, TASK_UUID, TIMES, clip, fact, refusal, request
from tests.fakes.use_cases import UseCases

OUTCOMES: dict[str, Outcome] = {
    "accepted": Accepted("acknowledged"),
    "conflict": Accepted("conflict"),
    "refused": refusal(),
    "never arrived": NeverArrived("ConnectError"),
    "ambiguous": Ambiguous("ReadTimeout"),
}
SENT_AT, NOW = START + 5, START + 9


def after_attempt(outcome: Outcome, *, possibly_sent_at: int | None = None, unattended: bool = False) -> Clip:
    """A leased clip after one attempt with this outcome."""
    leased = clip(lease=Lease("me", START, START + TIMES.lease), possibly_sent_at=possibly_sent_at)
    return apply_outcome(leased, outcome, holder="me", account="a1", sent_at=SENT_AT, now=NOW, unattended=unattended)


def wire(**changes: Any) -> dict[str, Any]:
    return build_wire_task(
        request(**changes), clip(), callback="https://hook", upload_link="https://put", least_ttl=21600
    )


def test_the_service_sets_its_own_parameters() -> None:
    """A clip is bought alone, asynchronously, with its cost, under its own UUID, with our webhook and upload link."""
    sent = wire(numberResults=4, includeCost=False, positivePrompt="ab", destination="a", tags={"a": "b"})
    assert sent == {
        "taskType": "videoInference",
        "model": "klingai:5@3",
        "positivePrompt": "ab",
        "taskUUID": CLIP_UUID,
        "deliveryMethod": "async",
        "numberResults": 1,
        "includeCost": True,
        "webhookURL": "https://hook",
        "uploadEndpoint": "https://put",
    }


def test_other_parameters_are_sent_unchanged() -> None:
    """Every other parameter is sent unchanged, and defaults are left to the provider."""
    requested = {"safety": {"mode": "full"}, "CFGScale": 0.57, "inputs": {"frameImages": ["https://a.example/b.png"]}}
    sent = wire(**requested)
    assert {name: sent[name] for name in requested} == requested
    assert not {"duration", "outputFormat", "width", "ttl"} & sent.keys()


@pytest.mark.parametrize(("requested", "sent"), [(60, 21_600), (21_600, 21_600), (21_601, 21_601)])
def test_the_providers_copy_outlives_the_copy_deadline(requested: int, sent: int) -> None:
    """A short `ttl` is lengthened, since a rescue needs the provider's copy."""
    assert wire(ttl=requested)["ttl"] == sent


def test_the_callback_is_signed_for_this_clip() -> None:
    """The callback's path and its token are for this clip alone."""
    url = callback_url("https://hooks.example", clip(index=2), ["new", "old"], START)
    path, _, token = url.partition("?token=")
    assert path == f"https://hooks.example/webhooks/runware/ann/{TASK_UUID}/2"
    webhook_token.verify(token, f"ann/{TASK_UUID}/2", ["new"], START)


@pytest.mark.parametrize(
    ("outcome", "kind", "key", "possibly_sent_at", "status"),
    [
        ("accepted", Kind.ACCEPTED, "acknowledged", None, Status.RUNNING),
        ("conflict", Kind.ACCEPTED, "conflict", None, Status.RUNNING),
        ("refused", Kind.REFUSED, "invalidModel", None, Status.FAILED),
        ("never arrived", Kind.ATTEMPTED, "never arrived: ConnectError", None, Status.PENDING),
        ("ambiguous", Kind.ATTEMPTED, "ambiguous: ReadTimeout", SENT_AT, Status.PENDING),
    ],
)
def test_each_outcome_of_the_only_attempt(
    outcome: str, kind: Kind, key: str, possibly_sent_at: int | None, status: Status
) -> None:
    """Each outcome leaves exactly its fact, with its time, whether the attempt is ambiguous, and no lease."""
    after = after_attempt(OUTCOMES[outcome])
    assert {name: recorded.seen for name, recorded in after.facts.items()} == {
        (kind, key): {FactSource.SUBMISSION: NOW}
    }
    assert (after.possibly_sent_at, after.status, after.lease) == (possibly_sent_at, status, None)
    assert after.possibly_sent_to == ("a1" if possibly_sent_at else "")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_ambiguous_attempt_stays_ambiguous(outcome: str) -> None:
    """After an ambiguous attempt no later outcome clears or moves its time, and no refusal closes the clip."""
    after = after_attempt(OUTCOMES[outcome], possibly_sent_at=START)
    assert after.possibly_sent_at == START
    assert not after.has(Kind.REFUSED)
    assert after.status == (Status.RUNNING if outcome in ("accepted", "conflict") else Status.PENDING)
    assert after.open
    assert billable_amount(after) == PRICE
    assert len(after.facts) == 1
    if outcome == "refused":
        assert after.of(Kind.ATTEMPTED)["refused: invalidModel"].seen == {FactSource.SUBMISSION: NOW}


def test_an_outcome_leaves_the_lease_of_another_buyer() -> None:
    """A late outcome is recorded, but the next buyer's lease stays, and so does the ambiguous attempt before it."""
    next_lease = lease_to(clip(lease=Lease("me", START, START + 1)), "next", START + 1, TIMES, "a1")
    assert next_lease is not None
    after = apply_outcome(next_lease, refusal(), holder="me", account="a1", sent_at=START, now=NOW, unattended=False)
    assert after.lease == next_lease.lease
    assert not after.has(Kind.REFUSED)


def test_a_refusal_keeps_its_evidence() -> None:
    """Status, category and error are kept, but not the provider's message about our own account."""
    recorded = after_attempt(refusal(400, "invalidValue")).of(Kind.REFUSED)["invalidValue"]
    error = '{"code":"invalidValue","message":"no"}'
    assert recorded.fields == {"httpStatus": 400, "category": "validation", "message": "no", "error": error}
    recorded = after_attempt(refusal(400, "invalidApiKey")).of(Kind.REFUSED)["invalidApiKey"]
    assert recorded.fields.keys() == {"httpStatus", "category", "message"}
    assert "operator" in str(recorded.fields["message"])


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404])
@pytest.mark.parametrize("code", ["invalidApiKey", "insufficientCredits", "invalidModel", "somethingNew"])
def test_account_refusals_are_the_operators_concern(status: int, code: str) -> None:
    """Only a wrong key, no money and no permission are account refusals, by status or by code.

    An unattended buyer keeps the clip pending for them.
    """
    refused = status in (401, 402, 403) or code in ("invalidApiKey", "insufficientCredits")
    outcome = refusal(status, code)
    assert is_account_refusal(outcome) is refused
    assert after_attempt(outcome).status == Status.FAILED
    assert after_attempt(outcome, unattended=True).status == (Status.PENDING if refused else Status.FAILED)


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "refused"])
def test_only_a_refusal_can_be_an_account_refusal(name: str) -> None:
    """No other outcome is about our account."""
    assert not is_account_refusal(OUTCOMES[name])


def test_a_task_is_refused_only_if_every_clip_is() -> None:
    """Refusals are listed once each, and only if every clip was refused."""
    no, other = after_attempt(refusal()), replace(after_attempt(refusal(code="promptBlocked")), index=1)
    assert refusals([no, replace(no, index=1)]) == [(400, {"code": "invalidModel", "message": "no"})]
    assert [error["code"] for _, error in refusals([no, other])] == ["invalidModel", "promptBlocked"]
    assert refusals([no, replace(after_attempt(OUTCOMES["accepted"]), index=1)]) == []
    assert refusals([no, clip(index=1)]) == []
    assert refusals([clip(*[fact(Kind.ACCEPTED)], facts=no.facts)]) == []
    assert refusals([]) == []


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403])
@pytest.mark.parametrize("code", ["invalidApiKey", "insufficientCredits"])
def test_an_account_refusal_is_a_503_to_the_caller(status: int, code: str) -> None:
    """If clips were refused for our account the caller gets 503, whatever status the provider used."""
    ((shown, error),) = refusals([after_attempt(refusal(status, code))])
    assert (shown, error["code"]) == (503, "providerAccountRefused")
    assert code in error["message"]  # the operator needs the code, and it reveals nothing


def leased(world: UseCases, lasts: int = TIMES.lease) -> Clip:
    return world.table.put(clip(lease=Lease("holder", START, START + lasts)))


@pytest.mark.parametrize(
    ("lease", "function", "is_sent"),
    [
        (TIMES.http + TIMES.skew, TIMES.http, True),
        (TIMES.http + TIMES.skew - 1, TIMES.function, False),
        (TIMES.lease, TIMES.http - 1, False),
        (TIMES.lease, -1, False),
    ],
)
def test_nothing_is_sent_without_time_for_the_answer(world: UseCases, lease: int, function: int, is_sent: bool) -> None:
    """If less than the HTTP timeout is left, of the function or of the lease minus skew, the lease is given back."""
    after, outcome = world.purchase_service.attempt(leased(world, lease), request(), world.buyer(function))
    assert bool(world.runware.sent) is is_sent
    assert (outcome is not None) is is_sent
    assert after == world.row()
    assert after.lease is None
    assert after.possibly_sent_at is None


@pytest.mark.parametrize("elapsed", range(0, TIMES.lease + 1, 1_000))
def test_clock_skew_lets_no_two_buyers_overlap(world: UseCases, elapsed: int) -> None:
    """While a request may be under way, a function whose clock is ahead by the whole skew gets no lease."""
    before = leased(world)
    world.clock.now = START + elapsed
    world.purchase_service.attempt(before, request(), world.buyer())
    if world.runware.sent:
        ahead = START + elapsed + TIMES.http - 1 + TIMES.skew
        assert lease_to(before, "other", ahead, TIMES, "a1") is None
    assert bool(world.runware.sent) is (elapsed <= TIMES.lease - TIMES.skew - TIMES.http)


def test_without_a_lease_nothing_is_sent(world: UseCases) -> None:
    """Only the holder of a lease sends."""
    _, outcome = world.purchase_service.attempt(world.table.put(clip()), request(), world.buyer())
    assert outcome is None
    assert world.runware.sent == []


def test_an_attempt_is_sent_once_with_our_links(world: UseCases) -> None:
    """One request with the clip's own upload link and callback is sent with the Runware key."""
    world.purchase_service.attempt(leased(world), request(), world.buyer())
    (sent,) = world.runware.sent
    assert world.runware.keys == {"runware-key"}
    assert sent["uploadEndpoint"] == f"https://bucket.example/{clip().object_key}?X-Amz-Expires=7200"
    assert sent["webhookURL"].startswith(f"https://hooks.example/webhooks/runware/ann/{TASK_UUID}/0?token=")


def test_an_image_is_sent_as_a_link(world: UseCases) -> None:
    """An `s3://` image is sent as a link, valid as long as the upload link; other addresses are sent as given."""
    for image in ("s3://photos/a.png", "https://example.com/a.png"):
        world.purchase_service.attempt(leased(world), request(inputs={"frameImages": [image]}), world.buyer())
    as_link, unchanged = (sent["inputs"]["frameImages"] for sent in world.runware.sent)
    assert as_link == ["https://photos.example/a.png?X-Amz-Expires=7200"]
    assert unchanged == ["https://example.com/a.png"]


def test_without_links_nothing_is_sent(world: UseCases) -> None:
    """If no link can be signed the lease is given back, and the attempt is not ambiguous."""
    world.bucket.no_links = True
    _, outcome = world.purchase_service.attempt(leased(world), request(), world.buyer())
    assert (outcome, world.runware.sent, world.row().lease) == (None, [], None)


@pytest.mark.parametrize("outcome", OUTCOMES.values())
def test_any_outcome_that_cannot_be_saved_leaves_the_lease(world: UseCases, outcome: Outcome) -> None:
    """If the table is unavailable after the send nothing is raised, and the lease stays as evidence of the attempt."""
    world.table.busy = {"save"}
    world.runware.script = [outcome]
    before = leased(world)
    after, returned = world.purchase_service.attempt(before, request(), world.buyer())
    assert returned == outcome
    assert after == before == world.row()
    assert world.telemetry.logs[0][1]


@pytest.mark.parametrize("unattended", [True, False])
def test_an_account_refusal_raises_the_alarm(world: UseCases, unattended: bool) -> None:
    """An account refusal is counted, for attended and unattended buyers."""
    world.runware.script = [refusal(401, "invalidApiKey")]
    after, _ = world.purchase_service.attempt(leased(world), request(), world.buyer(unattended=unattended))
    assert world.telemetry.counted[Metric.ACCOUNT_REFUSED] == 1
    details = {"httpStatus": 401, "code": "invalidApiKey", "reason": "no"}
    assert world.telemetry.logs[0] == ("Runware refused the account", True, details)
    assert after.has(Kind.REFUSED) is not unattended


def test_concurrent_facts_are_kept(world: UseCases) -> None:
    """A webhook that is faster than the answer to the submission is merged, not overwritten."""
    before = leased(world)

    def webhook(_: object) -> None:
        world.table.put(clip(fact(Kind.RENDERED, "v"), lease=before.lease, version=2))

    world.runware.on_send = webhook
    after, _ = world.purchase_service.attempt(before, request(), world.buyer())
    assert after.status == Status.RENDERED
    assert after.has(Kind.ACCEPTED)
    assert after.lease is None

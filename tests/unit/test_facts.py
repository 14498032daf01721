"""What is sent for a clip, what an attempt's outcome makes of it, and one attempt as a whole."""

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


def concluded(outcome: Outcome, *, possibly_sent_at: int | None = None, unattended: bool = False) -> Clip:
    """A leased clip after one attempt."""
    leased = clip(lease=Lease("me", START, START + TIMES.lease), possibly_sent_at=possibly_sent_at)
    return apply_outcome(leased, outcome, holder="me", account="a1", sent_at=SENT_AT, now=NOW, unattended=unattended)


def wire(**changes: Any) -> dict[str, Any]:
    return build_wire_task(
        request(**changes), clip(), callback="https://hook", upload_link="https://put", least_ttl=21600
    )


def test_the_service_decides_its_own_parameters() -> None:
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


def test_the_rest_goes_as_the_caller_gave_it() -> None:
    """Every other parameter leaves unchanged, and defaults are left to the provider."""
    asked = {"safety": {"mode": "full"}, "CFGScale": 0.57, "inputs": {"frameImages": ["https://a.example/b.png"]}}
    sent = wire(**asked)
    assert {name: sent[name] for name in asked} == asked
    assert not {"duration", "outputFormat", "width", "ttl"} & sent.keys()


@pytest.mark.parametrize(("asked", "sent"), [(60, 21_600), (21_600, 21_600), (21_601, 21_601)])
def test_the_providers_copy_outlives_the_copy_deadline(asked: int, sent: int) -> None:
    """A short `ttl` is lengthened, since a rescue needs the provider's copy."""
    assert wire(ttl=asked)["ttl"] == sent


def test_the_callback_names_and_signs_this_clip() -> None:
    """The callback's path is the clip's own, and its token is about nothing else."""
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
    """Each outcome leaves exactly its fact, as of when it came, its doubt and no lease."""
    after = concluded(OUTCOMES[outcome])
    assert {name: known.seen for name, known in after.facts.items()} == {(kind, key): {FactSource.SUBMISSION: NOW}}
    assert (after.possibly_sent_at, after.status, after.lease) == (possibly_sent_at, status, None)
    assert after.possibly_sent_to == ("a1" if possibly_sent_at else "")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_earlier_doubt_is_never_unsaid(outcome: str) -> None:
    """After an ambiguous attempt no later outcome clears or moves its time, and no "no" closes the clip."""
    after = concluded(OUTCOMES[outcome], possibly_sent_at=START)
    assert after.possibly_sent_at == START
    assert not after.has(Kind.REFUSED)
    assert after.status == (Status.RUNNING if outcome in ("accepted", "conflict") else Status.PENDING)
    assert after.open
    assert billable_amount(after) == PRICE
    assert len(after.facts) == 1
    if outcome == "refused":
        assert after.of(Kind.ATTEMPTED)["refused: invalidModel"].seen == {FactSource.SUBMISSION: NOW}


def test_an_outcome_leaves_somebody_elses_lease() -> None:
    """A late outcome is learned, but the lease of the next buyer stays, and so does the doubt it found."""
    taken = lease_to(clip(lease=Lease("me", START, START + 1)), "next", START + 1, TIMES, "a1")
    assert taken is not None
    after = apply_outcome(taken, refusal(), holder="me", account="a1", sent_at=START, now=NOW, unattended=False)
    assert after.lease == taken.lease
    assert not after.has(Kind.REFUSED)


def test_a_refusal_keeps_its_evidence() -> None:
    """Status, category and error are kept; of our own account's trouble the provider's words are not."""
    known = concluded(refusal(400, "invalidValue")).of(Kind.REFUSED)["invalidValue"]
    error = '{"code":"invalidValue","message":"no"}'
    assert known.fields == {"httpStatus": 400, "category": "validation", "message": "no", "error": error}
    known = concluded(refusal(400, "invalidApiKey")).of(Kind.REFUSED)["invalidApiKey"]
    assert known.fields.keys() == {"httpStatus", "category", "message"}
    assert "operator" in str(known.fields["message"])


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404])
@pytest.mark.parametrize("code", ["invalidApiKey", "insufficientCredits", "invalidModel", "somethingNew"])
def test_account_trouble_is_the_operators(status: int, code: str) -> None:
    """Only a wrong key, no money and no permission are about us, whether the status or the code says it.

    A patient buyer keeps the clip pending for them.
    """
    trouble = status in (401, 402, 403) or code in ("invalidApiKey", "insufficientCredits")
    outcome = refusal(status, code)
    assert is_account_refusal(outcome) is trouble
    assert concluded(outcome).status == Status.FAILED
    assert concluded(outcome, unattended=True).status == (Status.PENDING if trouble else Status.FAILED)


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name != "refused"])
def test_only_a_refusal_is_account_trouble(name: str) -> None:
    """Nothing else speaks about our account."""
    assert not is_account_refusal(OUTCOMES[name])


def test_only_a_task_refused_as_a_whole_is_refused() -> None:
    """Refusals are shown once each, and only if every clip was refused."""
    no, other = concluded(refusal()), concluded(refusal(code="promptBlocked"))
    assert refusals([no, no]) == [(400, {"code": "invalidModel", "message": "no"})]
    assert [error["code"] for _, error in refusals([no, other])] == ["invalidModel", "promptBlocked"]
    assert refusals([no, concluded(OUTCOMES["accepted"])]) == []
    assert refusals([no, clip()]) == []
    assert refusals([clip(*[fact(Kind.ACCEPTED)], facts=no.facts)]) == []
    assert refusals([]) == []


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403])
@pytest.mark.parametrize("code", ["invalidApiKey", "insufficientCredits"])
def test_the_caller_never_sees_our_accounts_trouble_as_its_own(status: int, code: str) -> None:
    """A caller whose clips were refused for our account hears 503, whatever the provider said."""
    ((shown, error),) = refusals([concluded(refusal(status, code))])
    assert (shown, error["code"]) == (503, "providerAccountRefused")
    assert code in error["message"]  # which the operator needs, and which gives nothing away


def leased(world: UseCases, lasts: int = TIMES.lease) -> Clip:
    return world.table.put(clip(lease=Lease("holder", START, START + lasts)))


@pytest.mark.parametrize(
    ("lease", "function", "sends"),
    [
        (TIMES.http + TIMES.skew, TIMES.http, True),
        (TIMES.http + TIMES.skew - 1, TIMES.function, False),
        (TIMES.lease, TIMES.http - 1, False),
        (TIMES.lease, -1, False),
    ],
)
def test_nothing_is_sent_without_time_for_the_answer(world: UseCases, lease: int, function: int, sends: bool) -> None:
    """Without the HTTP timeout left of the function, or of the lease by the fastest clock, the lease is given back."""
    after, outcome = world.purchase_service.attempt(leased(world, lease), request(), world.buyer(function))
    assert bool(world.runware.sent) is sends
    assert (outcome is not None) is sends
    assert after == world.row()
    assert after.lease is None
    assert after.possibly_sent_at is None


@pytest.mark.parametrize("passed", range(0, TIMES.lease + 1, 1_000))
def test_clocks_apart_let_no_two_buyers_overlap(world: UseCases, passed: int) -> None:
    """While a request may be on its way, a function whose clock is ahead by the whole margin gets no lease."""
    before = leased(world)
    world.clock.now = START + passed
    world.purchase_service.attempt(before, request(), world.buyer())
    if world.runware.sent:
        ahead = START + passed + TIMES.http - 1 + TIMES.skew
        assert lease_to(before, "other", ahead, TIMES, "a1") is None
    assert bool(world.runware.sent) is (passed <= TIMES.lease - TIMES.skew - TIMES.http)


def test_without_a_lease_nothing_is_sent(world: UseCases) -> None:
    """Only the holder of a lease sends."""
    _, outcome = world.purchase_service.attempt(world.table.put(clip()), request(), world.buyer())
    assert outcome is None
    assert world.runware.sent == []


def test_an_attempt_is_sent_once_with_our_links(world: UseCases) -> None:
    """One request with the clip's own upload link and callback goes out under the Runware key."""
    world.purchase_service.attempt(leased(world), request(), world.buyer())
    (sent,) = world.runware.sent
    assert world.runware.keys == {"runware-key"}
    assert sent["uploadEndpoint"] == f"https://bucket.example/{clip().object_key}?X-Amz-Expires=7200"
    assert sent["webhookURL"].startswith(f"https://hooks.example/webhooks/runware/ann/{TASK_UUID}/0?token=")


def test_an_image_is_sent_as_a_link(world: UseCases) -> None:
    """An `s3://` image leaves as a link that lives as long as the upload link; others leave as given."""
    for image in ("s3://photos/a.png", "https://example.com/a.png"):
        world.purchase_service.attempt(leased(world), request(inputs={"frameImages": [image]}), world.buyer())
    signed, given = (sent["inputs"]["frameImages"] for sent in world.runware.sent)
    assert signed == ["https://photos.example/a.png?X-Amz-Expires=7200"]
    assert given == ["https://example.com/a.png"]


def test_without_links_nothing_is_sent(world: UseCases) -> None:
    """When nothing can be signed the lease is given back, and nobody doubts that nothing was sent."""
    world.bucket.no_links = True
    _, outcome = world.purchase_service.attempt(leased(world), request(), world.buyer())
    assert (outcome, world.runware.sent, world.row().lease) == (None, [], None)


@pytest.mark.parametrize("outcome", OUTCOMES.values())
def test_an_outcome_that_cannot_be_saved_leaves_the_lease(world: UseCases, outcome: Outcome) -> None:
    """When the table is away after the send nothing is raised: the lease stays and says that it may have been sent."""
    world.table.busy = {"save"}
    world.runware.script = [outcome]
    before = leased(world)
    after, said = world.purchase_service.attempt(before, request(), world.buyer())
    assert said == outcome
    assert after == before == world.row()
    assert world.telemetry.notes[0][1]


@pytest.mark.parametrize("unattended", [True, False])
def test_account_trouble_raises_the_alarm(world: UseCases, unattended: bool) -> None:
    """Runware's no to our account is counted, whoever hears it."""
    world.runware.script = [refusal(401, "invalidApiKey")]
    after, _ = world.purchase_service.attempt(leased(world), request(), world.buyer(unattended=unattended))
    assert world.telemetry.counted[Metric.ACCOUNT_REFUSED] == 1
    details = {"httpStatus": 401, "code": "invalidApiKey", "reason": "no"}
    assert world.telemetry.notes[0] == ("Runware refused the account", True, details)
    assert after.has(Kind.REFUSED) is not unattended


def test_what_others_learned_meanwhile_is_kept(world: UseCases) -> None:
    """A webhook that is faster than the answer to the submission is merged, not overwritten."""
    before = leased(world)

    def webhook(_: object) -> None:
        world.table.put(clip(fact(Kind.RENDERED, "v"), lease=before.lease, version=2))

    world.runware.on_send = webhook
    after, _ = world.purchase_service.attempt(before, request(), world.buyer())
    assert after.status == Status.RENDERED
    assert after.has(Kind.ACCEPTED)
    assert after.lease is None

"""Fallback to a task's next model: the request, the rules of a clip in a chain, and the views of its members."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.clip import (
    SLOTS,
    Chain,
    Clip,
    Fact,
    FactSource,
    FallbackModel,
    Kind,
    Lease,
    Status,
    billable_amount,
    fall_over,
    merge,
    merge_all,
    next_check,
    refresh_derived,
)
from rushes.domain.delivery import Attempt, AttemptOutcome, Delivery, Reply
from rushes.domain.task import Task, current_clips, task_status
from rushes.domain.views import attempt_view, manifest_key, timeline
from rushes.runware.outcome import Accepted, Ambiguous, Outcome
from rushes.runware.request import Order, check_chain
from rushes.runware.wire import OURS
from rushes.services.publish import EventType, delivery_id_of, detail, event_of, manifest
from rushes.services.purchase import build_wire_task
from rushes.services.submit import price
from tests.fakes import models
from tests.fakes.builders import CLIP_UUID, PRICE, START, TASK_UUID, TIMES, clip, fact, refusal, request, uuid4
from tests.fakes.models import CHEAPER, DEARER, PRICES, more_models
from tests.fakes.use_cases import UseCases

FIRST = models.FIRST.air
SECOND = FallbackModel(DEARER.air, uuid4(2), f"videos/ann/2026/09/21/{TASK_UUID}-20.webm", PRICES[DEARER.air])
THIRD = FallbackModel(CHEAPER.air, uuid4(3), f"videos/ann/2026/09/21/{TASK_UUID}-40.mp4", PRICES[CHEAPER.air])
CHAIN = Chain(FIRST, (SECOND, THIRD))
DEAREST = PRICES[DEARER.air]

REFUSED = fact(
    Kind.REFUSED,
    "invalidModel",
    source=FactSource.SUBMISSION,
    category="validation",
    httpStatus=400,
    error='{"code":"invalidModel","message":"no"}',
)
ACCEPTED = fact(Kind.ACCEPTED, "acknowledged", source=FactSource.SUBMISSION)
FAILED = fact(Kind.FAILED, "inferenceError", category="provider", message="no", error='{"code":"inferenceError"}')
LAST_LOOK = fact(Kind.LAST_LOOK, at=START + 900_000, source=FactSource.CLOCK)
RENDERED = fact(Kind.RENDERED, "v", at=START + 2_000_000, cost=900_000)
STORED = fact(Kind.STORED, "v1", at=START + 2_000_001, source=FactSource.BUCKET, size=100, container="mp4")


def chained(*facts: Fact, **changes: Any) -> Clip:
    """A clip of the first model of three."""
    return clip(*facts, **{"chain": CHAIN, "budgeted": DEAREST, **changes})


@pytest.fixture
def more() -> Iterator[None]:
    """The service sells three models."""
    with more_models():
        yield


# ----------------------------------------------------------------------------------------------------------------------
# The request
# ----------------------------------------------------------------------------------------------------------------------


def checked(**changes: Any) -> Order:
    order = check_chain(request(**changes))
    assert isinstance(order, Order), order
    return order


def faults(**changes: Any) -> list[Mapping[str, Any]]:
    found = check_chain(request(**changes))
    assert isinstance(found, list)
    return found


@pytest.mark.usefixtures("more")
def test_an_order_has_one_for_each_model() -> None:
    """Each model has its own price and file format; the dearest price is reserved."""
    order = checked(fallback=[DEARER.air, CHEAPER.air], fallbackOnModeration=True)
    assert [each.model.air for each in order.chain] == [DEARER.air, CHEAPER.air]
    assert [each.extension for each in order.chain] == ["webm", "mp4"]
    assert [order.price, *(each.price for each in order.chain)] == [PRICE, DEAREST, PRICES[CHEAPER.air]]
    assert order.reserved == DEAREST
    assert checked().reserved == PRICE
    assert checked().chain == ()


@pytest.mark.usefixtures("more")
@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"fallback": []}, ["invalidFallback"]),
        ({"fallback": DEARER.air}, ["invalidFallback"]),
        ({"fallback": [1]}, ["invalidFallback"]),
        ({"fallback": None}, ["invalidFallback"]),
        ({"fallback": ["x:1@1"] * 4}, ["invalidFallback"]),
        ({"fallback": [FIRST]}, ["invalidFallback"]),
        ({"fallback": [DEARER.air, DEARER.air]}, ["invalidFallback"]),
        ({"fallback": [DEARER.air], "fallbackOnModeration": "yes"}, ["invalidFallbackOnModeration"]),
        ({"fallbackOnModeration": True}, ["missingFallback"]),
        ({"fallback": [DEARER.air], "model": [FIRST]}, ["invalidModel"]),
    ],
)
def test_invalid_fallbacks(changes: Mapping[str, Any], codes: list[str]) -> None:
    """A fallback is one to three other models, each once; its option needs it."""
    assert [fault["code"] for fault in faults(**changes)] == codes


@pytest.mark.parametrize("fallback", [[{}], [[]], [DEARER.air, {}]])
def test_an_invalid_fallback_after_the_limit_of_faults(fallback: list[object]) -> None:
    """Only the first 50 faults are reported, so the fallback's own may be missing; it is not read as valid."""
    assert len(faults(tags={f"k{number}": {} for number in range(60)}, fallback=fallback)) == 50


@pytest.mark.usefixtures("more")
def test_an_unknown_model_of_a_fallback_is_named() -> None:
    """The fault is about the fallback, with the model's name."""
    (fault,) = faults(fallback=["x:1@1"])
    assert (fault["code"], fault["parameter"], fault["model"]) == ("invalidModel", "fallback", "x:1@1")
    assert "x:1@1" in fault["message"]


def test_parameters_are_checked_for_every_model() -> None:
    """A fault that only a later model has names it; one that all have is reported once."""
    short = models.shorter(DEARER)
    task = {"fallback": [short.air], "duration": 10, "positivePrompt": "x" * 31, "outputFormat": "WEBM"}
    with more_models(short):
        found = faults(**task)
        (both,) = faults(**task | {"duration": 5, "positivePrompt": ""})
    assert [(fault["parameter"], fault["model"]) for fault in found] == [
        ("positivePrompt", short.air),
        ("duration", short.air),
    ]
    assert all(fault["message"].startswith(f"As an order for {short.air}: ") for fault in found)
    assert both["parameter"] == "positivePrompt"
    assert "model" not in both


def test_the_parameters_never_leave() -> None:
    """The wire task has neither of our parameters, and the model of the clip's place in the chain."""
    assert {"fallback", "fallbackOnModeration"} <= set(OURS)
    sent = request(fallback=[DEARER.air], fallbackOnModeration=True)
    more: dict[str, Any] = {
        "callback": "https://hooks.example",
        "upload_link": "https://bucket.example",
        "least_ttl": 60,
    }
    for model, member in ((FIRST, chained(REFUSED)), (DEARER.air, successor_of(chained(REFUSED)))):
        task = build_wire_task(sent, member, **more)
        assert task["model"] == model
        assert not {"fallback", "fallbackOnModeration"} & task.keys()
        assert task["taskUUID"] == member.clip_uuid


# ----------------------------------------------------------------------------------------------------------------------
# The rules
# ----------------------------------------------------------------------------------------------------------------------


def successor_of(member: Clip, now: int = START + 1_000_000) -> Clip:
    """The next model's clip."""
    both = fall_over(member, now, TIMES)
    assert both
    return both[1]


@pytest.mark.parametrize("facts", [(REFUSED,), (ACCEPTED, FAILED, LAST_LOOK), (REFUSED, FAILED, LAST_LOOK)])
def test_a_certain_end_falls_over(facts: tuple[Fact, ...]) -> None:
    """A refused clip, or one whose failure the last look confirmed, is followed by the next model's clip."""
    member = chained(*facts)
    assert (member.status, member.open, member.awaits_fallback) == (Status.RUNNING, True, True)
    assert next_check(member, START + 900_000, TIMES) == START + 900_000 + TIMES.check
    both = fall_over(member, START + 1_000_000, TIMES)
    assert both
    closed, successor = both
    assert (closed.status, closed.open, closed.budgeted, closed.next_check_at) == (Status.FAILED, False, 0, None)
    assert (successor.status, successor.open, successor.budgeted) == (Status.PENDING, True, DEAREST)
    assert (successor.clip_uuid, successor.object_key) == (SECOND.clip_uuid, SECOND.object_key)
    assert (successor.index, successor.slot, successor.month) == (SLOTS, 0, member.month)
    assert successor.chain == Chain(DEARER.air, (THIRD,))
    assert successor.lease is None
    assert successor.possibly_sent_at is None
    assert fall_over(closed, START + 1_000_000, TIMES) is None
    last = successor_of(merge(successor, REFUSED))
    assert (last.clip_uuid, last.index, last.budgeted) == (THIRD.clip_uuid, 2 * SLOTS, THIRD.estimate)
    assert fall_over(merge(last, REFUSED), START, TIMES) is None


DOUBTS: Mapping[str, Clip] = {
    "no fact": chained(),
    "accepted": chained(ACCEPTED),
    "before the last look": chained(ACCEPTED, FAILED),
    "possibly sent": chained(FAILED, LAST_LOOK, possibly_sent_at=START),
    "sending": chained(REFUSED, lease=Lease("other", START, START + 60_000)),
    "in review": chained(ACCEPTED, fact(Kind.UNPROVEN)),
    "was in review": chained(fact(Kind.UNPROVEN), FAILED, LAST_LOOK),
    "given up": chained(fact(Kind.UNSAVED), fact(Kind.GIVEN_UP)),
    "a last look without an answer": chained(
        FAILED, replace(LAST_LOOK, fields={"reason": "no answer from the bucket"})
    ),
    "a provider's timeout": chained(fact(Kind.FAILED, "timeoutProvider", category="timeout"), LAST_LOOK),
    "one of two failures by timeout": chained(
        FAILED, fact(Kind.FAILED, "timeoutProvider", category="timeout"), LAST_LOOK
    ),
    "our account": chained(fact(Kind.REFUSED, "insufficientCredits", category="quota", httpStatus=402)),
    "never reached": chained(fact(Kind.REFUSED, "providerUnreachable", source=FactSource.CLOCK, category="provider")),
    "moderation": chained(fact(Kind.REFUSED, "promptBlocked", category="safety")),
    "moderation of a render": chained(fact(Kind.FAILED, "invalidProviderContent", category="safety"), LAST_LOOK),
    "undelivered": chained(FAILED, LAST_LOOK, fact(Kind.UNDELIVERED, "uploadFailed")),
    "rendered": chained(FAILED, LAST_LOOK, RENDERED),
    "stored": chained(REFUSED, STORED),
    "a fact of a later version": replace(
        chained(REFUSED), facts={**chained(REFUSED).facts, ("x", ""): clip(REFUSED).facts[REFUSED.kind, REFUSED.key]}
    ),
    "the last model": chained(REFUSED, chain=Chain(FIRST, ())),
    "no fallback": clip(REFUSED),
    "superseded": chained(REFUSED, fact(Kind.SUPERSEDED, SECOND.clip_uuid)),
    "erased": chained(REFUSED, fact(Kind.ERASED)),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_doubt_never_falls_over(doubt: str) -> None:
    """Only a certain and free end that is about the model falls over."""
    assert fall_over(DOUBTS[doubt], START + 2_000_000, TIMES) is None


@pytest.mark.parametrize("doubt", ["moderation", "moderation of a render"])
def test_moderation_falls_over_if_asked(doubt: str) -> None:
    """With the option, a moderation refusal is like any other."""
    member = DOUBTS[doubt]
    assert not member.open
    asked = replace(member, chain=CHAIN._replace(on_moderation=True))
    assert asked.open
    successor = successor_of(asked)
    assert successor.chain
    assert successor.chain.on_moderation


@pytest.mark.parametrize(
    ("member", "amount"),
    [
        (chained(), DEAREST),
        (chained(ACCEPTED), DEAREST),
        (chained(ACCEPTED, FAILED), DEAREST),
        (chained(REFUSED), DEAREST),
        (chained(possibly_sent_at=START), PRICE),
        (chained(fact(Kind.UNPROVEN)), PRICE),
        (chained(RENDERED), 900_000),
        (chained(STORED), PRICE),
        (DOUBTS["moderation"], 0),
        (DOUBTS["our account"], 0),
        (DOUBTS["superseded"], 0),
        (merge(DOUBTS["superseded"], RENDERED), 900_000),
        (merge(DOUBTS["superseded"], ACCEPTED), PRICE),
        (chained(chain=Chain(FIRST, (THIRD,))), PRICE),
    ],
)
def test_the_dearest_model_is_reserved_while_it_may_follow(member: Clip, amount: int) -> None:
    """The difference is given back as soon as no other model can follow."""
    assert billable_amount(member) == amount


FACTS = st.builds(
    fact,
    kind=st.sampled_from([kind for kind in Kind if kind not in (Kind.SUPERSEDED, Kind.FALLBACK)]),
    key=st.sampled_from("abc"),
    at=st.integers(START, START + 10_000),
    source=st.sampled_from(FactSource),
    category=st.sampled_from(["provider", "safety", "timeout", "quota"]),
)


@given(st.lists(FACTS, max_size=8), FACTS)
def test_a_chain_that_ended_never_goes_on(history: list[Fact], late: Fact) -> None:
    """Once no other model can follow, no later fact changes that: a published failure of a slot is final."""
    member = chained(*history)
    if not member.may_fall_over:
        assert not merge(member, late).may_fall_over
    if member.awaits_fallback:
        assert member.open
        assert billable_amount(member) == DEAREST


@given(st.lists(FACTS, max_size=8))
def test_falling_over_never_needs_more_money(history: list[Fact]) -> None:
    """The next model's clip fits into the amount that its predecessor holds."""
    member = refresh_derived(chained(*history), START, TIMES)
    if both := fall_over(member, START, TIMES):
        assert sum(each.budgeted for each in both) <= member.budgeted


@pytest.mark.parametrize(
    "late", [ACCEPTED, RENDERED, STORED, fact(Kind.UNDELIVERED, "uploadFailed")], ids=lambda f: f.kind
)
def test_a_late_success_of_a_superseded_clip_needs_review(late: Fact) -> None:
    """Its money is booked and its copy fetched, and it waits for an operator, whose decision ends the review."""
    both = fall_over(chained(REFUSED), START, TIMES)
    assert both
    bought = refresh_derived(merge(both[0], late), START + 2_000_000, TIMES)
    assert bought.status == Status.REVIEW
    assert bought.budgeted > 0
    assert task_status([bought, both[1]]) == Status.RUNNING
    assert task_status([bought, merge_all(both[1], [RENDERED, STORED])]) == Status.REVIEW
    assert bought.next_check_at is not None
    assert bought.next_check_at > START + 2_000_000
    decided = merge_all(bought, [replace(STORED, source=FactSource.OPERATOR), RENDERED])
    assert (decided.status, decided.open) == (Status.STORED, False)
    ended = merge_all(bought, [fact(Kind.GIVEN_UP, source=FactSource.OPERATOR)])
    assert ended.status == (Status.STORED if late == STORED else Status.FAILED)


def test_a_stored_superseded_clip_is_listed_until_decided() -> None:
    """Nothing is left to check, and operators list it by the time of its copy."""
    both = fall_over(chained(REFUSED), START, TIMES)
    assert both
    bought = merge_all(both[0], [RENDERED, STORED])
    assert (bought.status, bought.open) == (Status.REVIEW, False)
    assert next_check(bought, START + 9_000_000, TIMES) == STORED.at


# ----------------------------------------------------------------------------------------------------------------------
# submit
# ----------------------------------------------------------------------------------------------------------------------

WITH_FALLBACK = {"fallback": [DEARER.air, CHEAPER.air]}


@pytest.mark.usefixtures("more")
def test_the_chain_is_planned_with_the_order() -> None:
    """Each clip has the UUIDs, keys and prices of all that may follow; the dearest is reserved for each."""
    cases = UseCases()
    cases.submit_service.submit([request(**WITH_FALLBACK, numberResults=2)], cases.call())
    rows = [cases.row(0), cases.row(1)]
    assert {budget[0] for budget in cases.table.budgets.values()} == {2 * DEAREST}
    for row in rows:
        assert row.chain
        assert [each.model for each in row.chain.rest] == [DEARER.air, CHEAPER.air]
        assert [each.object_key.rpartition("-")[2] for each in row.chain.rest] == [
            f"{SLOTS + row.index}.webm",
            f"{2 * SLOTS + row.index}.mp4",
        ]
    members = [row.clip_uuid for row in rows] + [each.clip_uuid for row in rows if row.chain for each in row.chain.rest]
    assert len(set(members)) == 6
    assert all("fallback" not in sent and sent["model"] == FIRST for sent in cases.runware.sent)


@pytest.mark.usefixtures("more")
def test_the_dearest_model_counts_against_the_limit() -> None:
    """An order that only its first model's price would fit is refused; a dry run shows the reserved amount."""
    cases = UseCases(monthly_limit=DEAREST - 1)
    answer = cases.submit_service.submit([request(**WITH_FALLBACK)], cases.call())
    assert [(status, error["code"]) for status, error in answer.errors] == [(402, "budgetExceeded")]
    assert "$1.250" in answer.errors[0][1]["message"]
    assert cases.runware.sent == []
    (item,) = price([request(**WITH_FALLBACK)], cases.caller, cases.bucket).data
    assert item["cost"] == 1.25


@pytest.mark.usefixtures("more")
@pytest.mark.parametrize(
    ("outcome", "accepted"),
    [
        (refusal(), True),
        (Ambiguous("ReadTimeout"), True),
        (Accepted("acknowledged"), True),
        (refusal(402, "insufficientCredits"), False),
        (refusal(400, "promptBlocked"), False),
    ],
)
def test_a_refusal_is_answered_as_accepted_while_another_model_may_follow(outcome: Outcome, accepted: bool) -> None:
    """The answer has errors only if the whole chain has ended; a repeat gets the same answer."""
    cases = UseCases()
    for _ in range(2):
        cases.runware.script = [outcome]
        answer = cases.submit_service.submit([request(**WITH_FALLBACK)], cases.call())
        assert (bool(answer.data), bool(answer.errors)) == (accepted, not accepted)
    assert len(cases.runware.sent) == 1


@pytest.mark.usefixtures("more")
def test_the_request_is_kept_for_every_model() -> None:
    """Retention begins when no clip of the chain can be open any more."""
    cases = UseCases(retention=1000)
    cases.submit_service.submit([request(**WITH_FALLBACK)], cases.call())
    (task,) = cases.table.tasks.values()
    assert task.expires_at == cases.clock.now + 3 * TIMES.longest_open + 1000


# ----------------------------------------------------------------------------------------------------------------------
# Views, events and deliveries
# ----------------------------------------------------------------------------------------------------------------------


def recorded(*last: Fact, late: tuple[Fact, ...] = ()) -> UseCases:
    """A task whose first clip was refused and whose second one has these facts."""
    cases = UseCases()
    sent = request(**WITH_FALLBACK)
    both = fall_over(chained(REFUSED), START, TIMES)
    assert both
    task = Task(caller="ann", task_uuid=TASK_UUID, request=sent, fingerprint="", clips=1, created_at=START)
    cases.table.tasks["ann", TASK_UUID] = task
    cases.table.put(refresh_derived(merge_all(both[0], late), START + 2_000_000, TIMES))
    cases.table.put(refresh_derived(merge_all(both[1], last), START + 2_000_000, TIMES))
    return cases


def test_a_slot_is_shown_with_its_chain() -> None:
    """The view has one clip per slot, the last one, with its predecessors and their timelines."""
    cases = recorded(ACCEPTED, RENDERED, STORED)
    view = cases.query_service.task(cases.caller, TASK_UUID)
    assert view
    assert view["status"] == Status.SUCCEEDED
    (slot,) = view["clips"]
    assert (slot["clip"], slot["model"], slot["status"], slot["clipUUID"]) == (
        0,
        DEARER.air,
        "stored",
        SECOND.clip_uuid,
    )
    (earlier,) = slot["chain"]
    assert (earlier["clip"], earlier["model"], earlier["status"], earlier["cost"]) == (0, FIRST, "failed", 0)
    assert earlier["error"]["code"] == "invalidModel"
    superseded = next(entry for entry in earlier["timeline"] if entry["fact"] == "superseded")
    assert (superseded["key"], superseded["fields"]) == (SECOND.clip_uuid, {"model": DEARER.air})
    fallback = next(entry for entry in slot["timeline"] if entry["fact"] == "fallback")
    assert (fallback["key"], fallback["fields"]) == (CLIP_UUID, {"code": "invalidModel", "model": FIRST})


def test_get_response_has_the_slots_outcome() -> None:
    """A superseded clip is neither an error nor a second result."""
    data, errors = recorded(ACCEPTED).query_service.poll("ann", TASK_UUID)
    assert ([item["status"] for item in data], errors) == (["processing"], [])
    late = recorded(RENDERED, STORED, late=(RENDERED, STORED))
    data, errors = late.query_service.poll("ann", TASK_UUID)
    assert ([item["status"] for item in data], errors) == (["success"], [])
    assert SECOND.object_key in data[0]["videoURL"]
    last = recorded(
        fact(Kind.REFUSED, "promptBlocked", category="safety", error='{"code":"promptBlocked"}', message="no")
    )
    data, errors = last.query_service.poll("ann", TASK_UUID)
    assert (data, [error["code"] for _, error in errors]) == ([], ["promptBlocked"])


def test_a_superseded_clip_without_its_successor_is_not_yet_failed() -> None:
    """A read may find the one before the other, although both were written at once."""
    cases = recorded()
    del cases.table.rows["ann", TASK_UUID, SLOTS]
    data, errors = cases.query_service.poll("ann", TASK_UUID)
    assert ([item["status"] for item in data], errors) == (["processing"], [])
    assert task_status(cases.table.rows.values()) == Status.RUNNING


def test_current_clips_are_the_last_of_each_slot() -> None:
    """Whatever the order in which they were read."""
    rows = [clip(index=index) for index in (2 * SLOTS, 1, SLOTS, 0, SLOTS + 1)]
    assert [each.index for each in current_clips(rows)] == [2 * SLOTS, SLOTS + 1]


def test_nothing_is_published_as_failed_while_the_chain_goes_on() -> None:
    """Neither before the next model's clip is recorded nor afterwards; only the last clip's failure is published."""
    waiting = chained(REFUSED)
    both = fall_over(waiting, START, TIMES)
    assert both
    closed, successor = both
    assert [event_of(each) for each in (waiting, closed, successor)] == [None] * 3
    last = merge(replace(successor, chain=Chain(DEARER.air, ())), REFUSED)
    event = event_of(last)
    assert event
    assert event.event_type == EventType.FAILED
    content = detail(last, event, {}, "bucket", "")
    assert (content["clip"], content["model"]) == (0, DEARER.air)
    assert [each["model"] for each in content["chain"]] == [FIRST]


def test_a_late_success_is_published_as_a_review() -> None:
    """It is no result of the slot: there is one event for the operator, and no delivery."""
    both = fall_over(chained(REFUSED), START, TIMES)
    assert both
    for late in ((RENDERED,), (RENDERED, STORED)):
        bought = merge_all(both[0], late)
        event = event_of(bought)
        assert event == (EventType.NEEDS_REVIEW, "superseded")
        assert delivery_id_of(bought) is None
        content = detail(bought, event, {}, "bucket", "")
        assert (content["reason"], content["status"], content["clip"]) == ("superseded", "review", 0)
    decided = merge(merge_all(both[0], [RENDERED, STORED]), replace(STORED, source=FactSource.OPERATOR))
    assert event_of(decided) is None


def test_a_manifest_has_the_chain() -> None:
    """The manifest names the model, and the superseded clips before it."""
    stored = merge_all(successor_of(chained(REFUSED)), [RENDERED, STORED])
    content = json.loads(manifest(stored, "0" * 64, {}, "bucket"))
    assert content["model"] == DEARER.air
    (earlier,) = content["chain"]
    assert (earlier["model"], earlier["clipUUID"], earlier["code"]) == (FIRST, CLIP_UUID, "invalidModel")
    assert content["timeline"] == timeline(stored)
    assert manifest_key(stored) != manifest_key(chained())
    without = merge_all(clip(), [RENDERED, STORED])
    plain = json.loads(manifest(without, "0" * 64, {}, "bucket"))
    assert not {"model", "chain"} & plain.keys()


def test_deliveries_and_costs_have_the_slots_number() -> None:
    """Callers see the number of the result, not that of a member of its chain."""
    delivery = Delivery("ann", TASK_UUID, SLOTS + 1, "id")
    attempt = Attempt(delivery, START, "https://receiver.example", Reply(200, 5), AttemptOutcome.DELIVERED)
    assert attempt_view(attempt)["clip"] == 1
    cases = recorded(ACCEPTED)
    found = cases.query_service.costs(cases.caller, {"since": "2026-09-01", "until": "2026-12-31"})
    assert isinstance(found, dict)
    assert [(line["clip"], line["cost"]) for line in found["costs"]] == [(0, 1.25), (0, 0.0)]


def test_a_webhook_about_a_superseded_clip_is_saved() -> None:
    """Its address names its own record, so that a late result is neither lost nor taken for the successor's."""
    cases = recorded(ACCEPTED)
    item = {"taskUUID": CLIP_UUID, "videoUUID": "v", "cost": 0.9, "taskType": "videoInference"}
    saved = cases.webhook_service.receive(json.dumps({"data": [item]}).encode(), "ann", TASK_UUID, 0, "")
    assert (saved.status, saved.budgeted) == (Status.REVIEW, 900_000)
    assert cases.row(SLOTS).status == Status.RUNNING

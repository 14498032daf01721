"""Facts, merge, status, money, the next check and leases."""

import json
import tracemalloc
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.clip import (
    KIND_RULES,
    Clip,
    Fact,
    FactRecord,
    FactSource,
    FirstCheck,
    Kind,
    Lease,
    Status,
    answered_facts,
    billable_amount,
    expire_lease,
    has_implausible_cost,
    has_too_many_facts,
    lease_to,
    mark_possibly_sent,
    merge,
    merge_all,
    next_check,
    refresh_derived,
    release,
)
from rushes.domain.formats import canonical
from rushes.domain.task import task_status
from rushes.domain.views import timeline
from tests.fakes.builders import PRICE, START, TIMES, clip, fact

WITH_TEXT_KEYS = (Kind.REFUSED, Kind.ACCEPTED, Kind.FAILED, Kind.UNDELIVERED, Kind.ATTEMPTED)
STATUSES = {
    Kind.REFUSED: (5, Status.FAILED),
    Kind.ACCEPTED: (10, Status.RUNNING),
    Kind.UNPROVEN: (20, Status.REVIEW),
    Kind.FAILED: (30, Status.FAILED),
    Kind.UNDELIVERED: (35, Status.RENDERED),
    Kind.RENDERED: (40, Status.RENDERED),
    Kind.UNSAVED: (45, Status.REVIEW),
    Kind.GIVEN_UP: (47, Status.FAILED),
    Kind.STORED: (50, Status.STORED),
}

fields = st.fixed_dictionaries(
    {},
    optional={
        "cost": st.sampled_from([0, 3, 900_000, 950_000, 3 * PRICE, 3 * PRICE + 1, 10 * PRICE, 10 * PRICE + 1, 10**10]),
        "seed": st.integers(8, 12),
        "videoURL": st.sampled_from(["", "u", "v", "é"]),
        "message": st.sampled_from(["a", "b"]),
        "NSFWContent": st.booleans(),
        "rescued": st.just(True),
    },
)
facts = st.builds(
    Fact,
    kind=st.sampled_from(Kind),
    key=st.sampled_from(["", *"abcdefghijkl"]),
    at=st.integers(START, START + 5),
    source=st.sampled_from(FactSource),
    fields=fields,
)
keyed_facts = st.builds(
    Fact,
    kind=st.sampled_from([Kind.FAILED, Kind.ACCEPTED, Kind.RENDERED, Kind.STORED]),
    key=st.text("abcd", max_size=3),
    at=st.integers(START, START + 5),
    source=st.sampled_from([FactSource.WEBHOOK, FactSource.BUCKET]),
    fields=fields,
)
histories = st.lists(facts, max_size=12) | st.lists(keyed_facts, max_size=30)


def derived(member: Clip) -> object:
    """Everything that the API shows or the budgets count of a clip."""
    return (
        member.status,
        billable_amount(member),
        has_implausible_cost(member),
        has_too_many_facts(member),
        member.copy,
        member.open,
        next_check(member, START + 9, TIMES),
    )


def as_facts(member: Clip) -> Iterator[Fact]:
    """The clip's record as facts again, one for each claim."""
    for (kind, key), recorded in member.facts.items():
        for source, claim in recorded.claims.items():
            source = FactSource.BUCKET if source == "rescue" else FactSource(source)
            yield Fact(kind=kind, key=key, at=claim.at, source=source, fields=claim.fields)


def join(one: Clip, other: Clip) -> Clip:
    """A clip with the facts of another one merged in."""
    return merge_all(one, as_facts(other))


@given(histories, st.data())
def test_any_order_with_any_repeats_ends_in_the_same_record(history: list[Fact], data: st.DataObject) -> None:
    """The same facts in any order, with any repeats, give the identical clip and the same derived values."""
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5)) if history else []
    shuffled = data.draw(st.permutations([*history, *repeats]))
    one, other = merge_all(clip(), history), merge_all(clip(), shuffled)
    assert one == other
    assert derived(one) == derived(other)


@given(histories, histories, histories)
def test_merging_whole_clips_is_a_semilattice(first: list[Fact], second: list[Fact], third: list[Fact]) -> None:
    """Joining clips is commutative, associative and idempotent."""
    a, b, c = (merge_all(clip(), history) for history in (first, second, third))
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) is a


@given(histories, facts)
def test_a_recorded_fact_changes_nothing(history: list[Fact], added: Fact) -> None:
    """A repeat returns the same clip object, so that nothing is saved for it."""
    recorded = merge(merge_all(clip(), history), added)
    assert merge(recorded, added) is recorded


def test_conflicting_values_are_joined_by_fixed_rules() -> None:
    """The smallest canonical value stands, the larger cost, and the earliest time of each source."""
    one = fact(Kind.RENDERED, "v", START + 2, FactSource.POLL, seed=10, cost=5, videoURL="b")
    other = fact(Kind.RENDERED, "v", START + 1, FactSource.POLL, seed=9, cost=7, videoURL="a")
    late = fact(Kind.RENDERED, "v", START + 9, FactSource.WEBHOOK, NSFWContent=True)
    recorded = clip(one, other, late).of(Kind.RENDERED)["v"]
    assert recorded.fields == {"seed": 10, "cost": 7, "videoURL": "a", "NSFWContent": True}  # "10" < "9" as texts
    assert recorded.seen == {FactSource.POLL: START + 1, FactSource.WEBHOOK: START + 9}
    assert recorded.at == START + 1


def test_a_rescued_copy_stays_rescued() -> None:
    """A copy keeps its `rescued` field also if its upload was recorded first."""
    seen = fact(Kind.STORED, "v", START, FactSource.BUCKET)
    recorded = clip(seen, fact(Kind.STORED, "v", START + 9, FactSource.BUCKET, rescued=True, size=5))
    assert recorded.of(Kind.STORED)["v"].fields == {"rescued": True, "size": 5}
    assert recorded.of(Kind.STORED)["v"].seen == {FactSource.BUCKET: START}
    assert recorded.copy is not None
    assert recorded.copy[1].at == START


def test_of_two_claims_about_a_copy_one_stands() -> None:
    """Of two claims about a version one stands whole: the earlier, or with equal times the same one in either order."""
    one, other = fact(Kind.STORED, "v", size=5, etag="b"), fact(Kind.STORED, "v", size=7, etag="a")
    earlier = fact(Kind.STORED, "v", START - 1, size=9)
    assert clip(one, other) == clip(other, one)
    assert clip(one, other).of(Kind.STORED)["v"].fields == {"size": 7, "etag": "a"}
    assert clip(one, earlier) == clip(earlier, one) == clip(earlier)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_bounded(kind: Kind) -> None:
    """A source can fill a fixed number of keys of each kind: the smallest, or of copies the first recorded."""
    four_keys, hundred_keys = (Kind.REFUSED, Kind.FAILED, Kind.RENDERED, Kind.STORED), (Kind.ASKED, Kind.ANSWERED)
    limit = 4 if kind in four_keys else 100 if kind in hundred_keys else 8
    keys = [f"{number:03}" for number in range(120)]
    falling = [fact(kind, key, START - place) for place, key in enumerate(reversed(keys))]
    assert sorted(clip(*falling).of(kind)) == keys[:limit]
    rising = [fact(kind, key, START + place) for place, key in enumerate(reversed(keys))]
    assert sorted(clip(*rising).of(kind)) == (keys[:limit] if kind != Kind.STORED else keys[-limit:])
    full = clip(*falling)
    assert merge(full, falling[0]) is full  # nothing to save


def test_the_pinned_copy_is_never_displaced() -> None:
    """The first recorded version stays the clip's copy, however many versions follow, under any version ids."""
    recorded = clip(fact(Kind.STORED, "z"), *(fact(Kind.STORED, f"{number:02}", START + 1) for number in range(20)))
    assert recorded.copy is not None
    assert recorded.copy[0] == "z"


def test_forged_webhooks_leave_room_for_a_poll() -> None:
    """Forged renders of webhooks fill only the webhook's keys, so that a poll's facts are always recorded."""
    forged = [fact(Kind.RENDERED, f"0{number}", START, FactSource.WEBHOOK, cost=10**10) for number in range(7 * 16)]
    recorded = clip(*forged, fact(Kind.RENDERED, "z", START + 9, cost=5))
    assert sorted(recorded.of(Kind.RENDERED)) == ["00", "01", "010", "0100", "z"]
    assert billable_amount(recorded) == 4 * PRICE + 5
    assert has_too_many_facts(recorded)
    assert not has_too_many_facts(clip(fact(Kind.RENDERED, "z")))


def test_a_displaced_claim_leaves_other_sources_claims() -> None:
    """A poll's claim on a render stays after further webhooks displaced the webhook's claim on it."""
    forged = [fact(Kind.RENDERED, f"0{number}", START, FactSource.WEBHOOK) for number in range(4)]
    both = [fact(Kind.RENDERED, "z", START, source, cost=5) for source in (FactSource.POLL, FactSource.WEBHOOK)]
    recorded = clip(*both, *forged)
    assert recorded.of(Kind.RENDERED)["z"].seen == {FactSource.POLL: START}
    assert billable_amount(recorded) == 4 * PRICE + 5


def test_the_services_own_evidence_is_not_too_many_facts() -> None:
    """Many kinds of failed attempts do not count as too many facts."""
    assert not has_too_many_facts(clip(*(fact(Kind.ATTEMPTED, str(number)) for number in range(20))))


@pytest.mark.parametrize(
    ("claims", "money", "implausible"),
    [
        ({FactSource.WEBHOOK: 3 * PRICE}, 3 * PRICE, False),
        ({FactSource.WEBHOOK: 3 * PRICE + 1}, PRICE, True),
        ({FactSource.POLL: 3 * PRICE + 1}, 3 * PRICE + 1, False),
        ({FactSource.POLL: 10 * PRICE}, 10 * PRICE, False),
        ({FactSource.POLL: 10 * PRICE + 1}, PRICE, True),
        ({FactSource.OPERATOR: 10 * PRICE}, 10 * PRICE, False),
        ({FactSource.WEBHOOK: 10**10}, PRICE, True),
        ({FactSource.WEBHOOK: 10**10, FactSource.POLL: 5}, 5, True),
        ({FactSource.WEBHOOK: 5 * PRICE, FactSource.POLL: 5 * PRICE}, 5 * PRICE, False),
        ({FactSource.WEBHOOK: 2 * PRICE, FactSource.POLL: PRICE}, 2 * PRICE, False),
    ],
)
def test_a_plausible_cost_depends_on_its_source(claims: dict[FactSource, int], money: int, implausible: bool) -> None:
    """A webhook's cost counts up to three times the estimate, a poll's up to ten times; beyond, the estimate counts."""
    recorded = clip(*(fact(Kind.RENDERED, "v", START, source, cost=cost) for source, cost in claims.items()))
    assert billable_amount(recorded) == money
    assert has_implausible_cost(recorded) is implausible
    assert recorded.of(Kind.RENDERED)["v"].fields["cost"] == max(claims.values())


def test_ranks_and_statuses_are_fixed() -> None:
    """Ranks and statuses are exactly those of the table above."""
    decisions = {kind: rule.decides for kind, rule in KIND_RULES.items() if rule.decides}
    assert {kind: (each.rank, each.status) for kind, each in decisions.items()} == STATUSES


def test_every_kind_has_a_rule() -> None:
    """Every kind has a rule, and each that leaves a clip open schedules its next check."""
    assert set(KIND_RULES) == set(Kind)
    for kind, rule in KIND_RULES.items():
        if decision := rule.decides:
            assert (decision.look is None) == (kind in decision.closed_by), kind
            assert decision.look is None or isinstance(decision.look, FirstCheck)
            assert not (decision.needs_review and decision.look)


@pytest.mark.parametrize(("lower", "higher"), list(combinations(STATUSES, 2)))
def test_the_highest_rank_decides(lower: Kind, higher: Kind) -> None:
    """The fact with the highest rank determines the status, whichever came first."""
    for order in ((lower, higher), (higher, lower)):
        assert clip(*map(fact, order)).status == STATUSES[higher][1]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in STATUSES and kind != Kind.ERASED])
def test_unranked_facts_decide_nothing(kind: Kind) -> None:
    """Evidence alone leaves a clip pending."""
    recorded = clip(fact(kind))
    assert recorded.status == Status.PENDING
    assert recorded.decisive is None
    assert recorded.open


ERASED = fact(Kind.ERASED, at=START + 7, source=FactSource.OPERATOR)


@given(histories, st.data())
def test_an_erasure_counts_for_earlier_and_later_facts(history: list[Fact], data: st.DataObject) -> None:
    """An erased clip has its own state, no copy, no check and no text; its money is that of its facts."""
    place = data.draw(st.integers(0, len(history)))
    erased = merge_all(clip(), [*history[:place], ERASED, *history[place:]])
    assert erased == merge_all(clip(), [*history, ERASED]) == merge_all(clip(), [ERASED, *history, ERASED])
    assert (erased.status, erased.copy, erased.open, next_check(erased, START + 9, TIMES)) == (
        Status.ERASED,
        None,
        False,
        None,
    )
    assert billable_amount(erased) == billable_amount(
        merge_all(clip(), (each for each in history if each.kind != Kind.ERASED))
    )
    texts = [record.fields for (kind, _), record in erased.facts.items() if kind != Kind.STORED]
    assert all(fields.get("message", "Erased.") == "Erased." and "videoURL" not in fields for fields in texts)


def test_an_erased_refusal_keeps_its_code() -> None:
    """The error is still the response to a repeat of the order, without Runware's words."""
    text = '{"code": "invalidPrompt", "message": "a lighthouse is not allowed"}'
    erased = clip(fact(Kind.REFUSED, "invalidPrompt", error=text, message="a lighthouse is not allowed"), ERASED)
    fields = erased.of(Kind.REFUSED)["invalidPrompt"].fields
    assert json.loads(str(fields["error"])) == {"code": "invalidPrompt", "message": "Erased."}
    assert "lighthouse" not in str(erased.facts)


@pytest.mark.parametrize(
    ("kinds", "is_open"),
    [
        ((), True),
        ((Kind.ATTEMPTED,), True),
        ((Kind.REFUSED,), False),
        ((Kind.REFUSED, Kind.ACCEPTED), True),
        ((Kind.ACCEPTED,), True),
        ((Kind.UNPROVEN,), False),
        ((Kind.UNPROVEN, Kind.RENDERED), True),
        ((Kind.FAILED,), True),
        ((Kind.FAILED, Kind.LAST_LOOK), False),
        ((Kind.FAILED, Kind.LAST_LOOK, Kind.RENDERED), True),
        ((Kind.FAILED, Kind.LAST_LOOK, Kind.UNDELIVERED), True),
        ((Kind.UNPROVEN, Kind.ASKED), True),
        ((Kind.UNPROVEN, Kind.ASKED, Kind.ANSWERED), False),
        ((Kind.UNSAVED, Kind.ASKED), True),
        ((Kind.FAILED, Kind.LAST_LOOK, Kind.ASKED), False),
        ((Kind.UNDELIVERED, Kind.UNSAVED), False),
        ((Kind.RENDERED,), True),
        ((Kind.UNSAVED,), False),
        ((Kind.UNSAVED, Kind.RENDERED), False),
        ((Kind.STORED,), True),
        ((Kind.STORED, Kind.LAST_LOOK), True),
        ((Kind.STORED, Kind.RENDERED), False),
        ((Kind.STORED, Kind.DETAILS_UNKNOWN), False),
    ],
)
def test_a_clip_is_open_while_a_source_can_add_a_fact(kinds: tuple[Kind, ...], is_open: bool) -> None:
    """Clips in review are not open, and a later decisive fact opens a clip again."""
    assert clip(*map(fact, kinds)).open is is_open


@pytest.mark.parametrize(
    ("recorded", "money"),
    [
        ([], PRICE),
        ([fact(Kind.ATTEMPTED)], PRICE),
        ([fact(Kind.ACCEPTED)], PRICE),
        ([fact(Kind.REFUSED)], 0),
        ([fact(Kind.REFUSED), fact(Kind.ACCEPTED)], PRICE),
        ([fact(Kind.UNPROVEN)], PRICE),
        ([fact(Kind.FAILED)], PRICE),
        ([fact(Kind.FAILED), fact(Kind.LAST_LOOK)], 0),
        ([fact(Kind.FAILED), fact(Kind.LAST_LOOK), fact(Kind.UNDELIVERED)], PRICE),
        ([fact(Kind.UNDELIVERED), fact(Kind.RENDERED, "v", cost=5)], 5),
        ([fact(Kind.UNDELIVERED), fact(Kind.UNSAVED)], PRICE),
        ([fact(Kind.UNDELIVERED), fact(Kind.UNSAVED), fact(Kind.GIVEN_UP)], PRICE),
        ([fact(Kind.STORED), fact(Kind.DETAILS_UNKNOWN)], PRICE),
        ([fact(Kind.LAST_LOOK)], PRICE),
        ([fact(Kind.STORED)], PRICE),
        ([fact(Kind.STORED), fact(Kind.FAILED), fact(Kind.LAST_LOOK)], PRICE),
        ([fact(Kind.RENDERED, "v")], PRICE),
        ([fact(Kind.RENDERED, "v", cost=5)], 5),
        ([fact(Kind.RENDERED, "v", cost=5), fact(Kind.RENDERED, "w")], 5 + PRICE),
        ([fact(Kind.RENDERED, "v", cost=5), fact(Kind.RENDERED, "w", cost=7), fact(Kind.STORED)], 12),
        ([fact(Kind.RENDERED, "v", cost=5), fact(Kind.FAILED), fact(Kind.LAST_LOOK)], 5),
        ([fact(Kind.RENDERED, "v", cost=5), fact(Kind.UNSAVED)], 5),
    ],
)
def test_money_follows_the_facts(recorded: list[Fact], money: int) -> None:
    """A clip costs its distinct renders, or else the estimate, or nothing if it was certainly not bought."""
    assert billable_amount(clip(*recorded)) == money


def test_refreshing_updates_money_and_next_check() -> None:
    """`refresh_derived` updates the budgeted amount and the next check and nothing else."""
    refused = refresh_derived(clip(fact(Kind.REFUSED), budgeted=PRICE, next_check_at=5), START, TIMES)
    assert (refused.budgeted, refused.next_check_at) == (0, None)
    assert refresh_derived(clip(), START, TIMES).next_check_at == next_check(clip(), START, TIMES)


def test_the_copy_is_the_first_recorded_version() -> None:
    """A later version of the object never replaces the pinned one."""
    recorded = clip(fact(Kind.STORED, "b", START), fact(Kind.STORED, "a", START + 1))
    assert recorded.copy is not None
    assert recorded.copy[0] == "b"
    assert clip().copy is None


@given(histories, st.integers(0, 10**9), st.integers(0, 10**9))
def test_open_clips_are_checked_at_growing_intervals(history: list[Fact], elapsed: int, more: int) -> None:
    """An open clip's next check is in the future, never moves back, and its pauses never shrink."""
    recorded, now = merge_all(clip(), history), START + elapsed
    due = next_check(recorded, now, TIMES)
    if recorded.status == Status.REVIEW and not recorded.open:
        assert due == recorded.first_seen_at(recorded.decisive or Kind.UNPROVEN)
    elif not recorded.open:
        assert due is None
    else:
        later = next_check(recorded, now + more, TIMES)
        assert due is not None
        assert later is not None
        assert later >= due
        assert due > now
        if recorded.decisive != Kind.FAILED:
            assert due - now >= TIMES.check
        if recorded.decisive in (None, Kind.RENDERED, Kind.STORED):
            assert later - (now + more) >= due - now


@pytest.mark.parametrize(
    ("recorded", "elapsed", "due"),
    [
        ([], 0, 10_000),
        ([], 400_000, 500_000),
        ([fact(Kind.ACCEPTED)], 0, 240_000),
        ([fact(Kind.ACCEPTED)], 239_999, 299_998),
        ([fact(Kind.ACCEPTED)], 400_000, 500_000),
        ([fact(Kind.RENDERED, "v")], 0, 10_000),
        ([fact(Kind.RENDERED, "v")], 4_000_000, 5_000_000),
        ([fact(Kind.STORED, "1")], 0, 10_000),
        ([fact(Kind.FAILED, "x")], 0, 900_000),
        ([fact(Kind.FAILED, "x")], 899_000, 900_000),
        ([fact(Kind.UNPROVEN)], 9_000_000, 0),
        ([fact(Kind.RENDERED, "v"), fact(Kind.UNSAVED, at=START + 3)], 9_000_000, 3),
        ([fact(Kind.UNPROVEN), fact(Kind.ASKED, "a", START + 9_000_000)], 9_000_000, 9_010_000),
        ([fact(Kind.UNDELIVERED, "uploadFailed")], 0, 10_000),
        ([fact(Kind.REFUSED)], 0, None),
    ],
)
def test_the_next_check_follows_the_facts(recorded: list[Fact], elapsed: int, due: int | None) -> None:
    """An unconfirmed clip is checked soon, a running one after the usual render time, a failed one at its last look."""
    expected = None if due is None else START + due
    assert next_check(clip(*recorded), START + elapsed, TIMES) == expected


def test_a_last_look_without_an_answer_is_retried_after_a_pause() -> None:
    """A failed clip past its last look that lacks an answer is checked again after a pause."""
    now = START + TIMES.last_look + 1
    due = next_check(clip(fact(Kind.FAILED, "x")), now, TIMES)
    assert due is not None
    assert due > now


def test_a_pending_clip_waits_for_its_lease_and_checks_are_spread() -> None:
    """A leased clip is not checked until its lease ends; afterwards the checks of different clips are spread."""
    leased = clip(lease=Lease("h", START, START + TIMES.lease))
    assert next_check(leased, START, TIMES) == START + TIMES.lease
    assert next_check(leased, START + TIMES.lease, TIMES) == START + TIMES.lease + 15_000
    other = clip(clip_uuid="ff" + clip().clip_uuid[2:])
    assert next_check(other, START, TIMES) == START + 10_000 + 10_000 * 255 // 1024


def test_a_lease_is_exclusive_until_it_is_over() -> None:
    """While a lease runs no other buyer gets one; at its end any buyer does, and the first attempt stays ambiguous."""
    first = lease_to(clip(), "a", START, TIMES, "a1")
    assert first is not None
    assert first.lease == Lease("a", START, START + TIMES.lease, "a1")
    assert first.possibly_sent_at is None
    assert lease_to(first, "b", START + TIMES.lease - 1, TIMES, "a1") is None
    assert lease_to(first, "a", START + TIMES.lease - 1, TIMES, "a1") is None
    second = lease_to(first, "b", START + TIMES.lease, TIMES, "a1")
    assert second is not None
    assert second.lease == Lease("b", START + TIMES.lease, START + 2 * TIMES.lease, "a1")
    assert second.possibly_sent_at == START
    assert second.has(Kind.ATTEMPTED)


def test_an_ambiguous_clip_is_not_sent_into_another_account() -> None:
    """An account refuses only UUIDs of its own, so an ambiguous clip is sent again into the same account alone."""
    abandoned = clip(lease=Lease("a", START, START + 1, "a1"))
    ambiguous = mark_possibly_sent(clip(), START, "a1")
    for recorded in (abandoned, ambiguous):
        assert lease_to(recorded, "b", START + 1, TIMES, "a2") is None
        assert lease_to(recorded, "b", START + 1, TIMES, "a1") is not None
    assert mark_possibly_sent(ambiguous, START - 1, "a2").possibly_sent_to == "a1"
    assert lease_to(clip(), "b", START + 1, TIMES, "a2") is not None
    earlier_version = mark_possibly_sent(clip(), START)
    assert lease_to(earlier_version, "b", START + 1, TIMES, "a2") is not None


def test_an_expired_lease_means_possibly_sent() -> None:
    """An expired lease is an attempt without a recorded outcome; a running or missing lease is not."""
    leased = clip(lease=Lease("a", START + 7, START + 50))
    assert expire_lease(leased, START + 49) is leased
    assert expire_lease(clip(), START) == clip()
    expired = expire_lease(leased, START + 50)
    assert (expired.lease, expired.possibly_sent_at) == (None, START + 7)
    evidence = fact(Kind.ATTEMPTED, "ambiguous: no outcome recorded", START + 50, FactSource.CLOCK)
    assert expired.facts == clip(evidence).facts


def test_only_the_holder_releases_its_lease() -> None:
    """A late answer does not remove the lease of a later buyer."""
    leased = clip(lease=Lease("a", START, START + 50))
    assert release(leased, "b") is leased
    assert release(leased, "a").lease is None
    assert release(clip(), "a") == clip()


def test_the_earliest_ambiguous_attempt_stands() -> None:
    """The time of the first ambiguous attempt is never removed nor moved later."""
    assert mark_possibly_sent(mark_possibly_sent(clip(), START + 5), START + 9).possibly_sent_at == START + 5
    assert mark_possibly_sent(mark_possibly_sent(clip(), START + 5), START + 1).possibly_sent_at == START + 1
    assert merge_all(mark_possibly_sent(clip(), START), [fact(kind) for kind in Kind]).possibly_sent_at == START


def test_every_request_for_a_look_is_answered_once() -> None:
    """The next look answers all requests of operators until then; a later request opens the clip again."""
    in_review = clip(fact(Kind.UNPROVEN), fact(Kind.ASKED, "a", START + 5), fact(Kind.ASKED, "b", START + 7))
    assert in_review.asked_at == START + 5
    answered = merge_all(in_review, answered_facts(in_review, START + 9, "nothing new"))
    assert answered.asked_at is None
    assert not answered.open
    assert answered_facts(answered, START + 10, "") == []
    assert merge(answered, fact(Kind.ASKED, "c", START + 11)).asked_at == START + 11


def test_kinds_of_a_later_version_decide_nothing_and_stay() -> None:
    """A kind unknown to this version has no rank, closes nothing, costs nothing, and is kept by a merge."""
    later = {("cancelled", "x"): FactRecord.of_all({"oracle": START}, {"cost": 9})}
    plain, recorded = clip(fact(Kind.ACCEPTED)), clip(facts=later)
    assert (recorded.status, recorded.open, billable_amount(recorded), recorded.has_unknown_kinds) == (
        Status.PENDING,
        True,
        PRICE,
        True,
    )
    both = merge(recorded, fact(Kind.ACCEPTED))
    assert both.facts == {**later, **plain.facts}
    assert (derived(both), plain.has_unknown_kinds) == (derived(plain), False)
    assert [entry["fact"] for entry in timeline(both)] == ["cancelled", "accepted"]


def test_a_source_of_a_later_version_counts() -> None:
    """A fact counts whatever its source, and a merge keeps a source unknown to this version."""
    recorded = clip(facts={(Kind.ACCEPTED, ""): FactRecord.of_all({"oracle": START}, {})})
    assert recorded.status == Status.RUNNING
    seen = merge(recorded, fact(Kind.ACCEPTED, "", START + 1)).of(Kind.ACCEPTED)[""].seen
    assert seen == {"oracle": START, FactSource.POLL: START + 1}


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ([None], Status.RUNNING),
        ([Kind.STORED, Kind.RENDERED], Status.RUNNING),
        ([Kind.UNPROVEN, Kind.ACCEPTED], Status.RUNNING),
        ([Kind.UNPROVEN, Kind.STORED, Kind.FAILED], Status.REVIEW),
        ([Kind.STORED, Kind.STORED], Status.SUCCEEDED),
        ([Kind.FAILED, Kind.REFUSED], Status.FAILED),
        ([Kind.FAILED, Kind.STORED], Status.PARTIAL),
    ],
)
def test_a_tasks_status_follows_from_its_clips(kinds: list[Kind | None], status: Status) -> None:
    """A task is running while any clip is undecided, else in review if any clip is, else as its clips ended."""
    clips = [clip(*([fact(kind)] if kind else []), index=slot) for slot, kind in enumerate(kinds)]
    assert task_status(clips) == status


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 5.0, "b": [1, 2.0]}, {"b": [1.0, 2], "a": 5}, True),
        ({"a": {"b": 1e3}}, {"a": {"b": 1000}}, True),
        ({"a": 0.5}, {"a": 0.50}, True),
        ({"a": 2.0**53}, {"a": 2**53}, True),
        ({"a": -(2.0**53)}, {"a": -(2**53)}, True),
        ({"a": 2.0**54}, {"a": 2**54}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": "1"}, False),
        ([1, 2], [2, 1], False),
    ],
)
def test_canonical_text_is_equal_for_equal_values(one: object, other: object, same: bool) -> None:
    """Two JSON values have the same canonical text exactly if they are equal."""
    assert (canonical(one) == canonical(other)) is same


@pytest.mark.parametrize("value", [1e308, -1e308, 2.0**53, 2.0**54])
def test_canonical_text_of_a_number_is_short(value: float) -> None:
    """A float of a few characters does not become hundreds of digits."""
    assert len(canonical(value)) <= 24


def test_canonical_text_of_large_numbers_takes_little_memory() -> None:
    """A body of large numbers takes no more memory than one of others; as digits it took twenty times as much."""

    def peak(number: float) -> int:
        tracemalloc.start()
        canonical([number] * 20_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak_bytes

    assert peak(1e308) < 2 * peak(1.5e-300)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_canonical_text_is_json(value: float) -> None:
    """A value that JSON cannot represent has no canonical text."""
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": value})

"""Facts, merge, status, money, the next check and leases."""

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

WORDED = (Kind.REFUSED, Kind.ACCEPTED, Kind.FAILED, Kind.UNDELIVERED, Kind.ATTEMPTED)
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
wordy = st.builds(
    Fact,
    kind=st.sampled_from([Kind.FAILED, Kind.ACCEPTED, Kind.RENDERED, Kind.STORED]),
    key=st.text("abcd", max_size=3),
    at=st.integers(START, START + 5),
    source=st.sampled_from([FactSource.WEBHOOK, FactSource.BUCKET]),
    fields=fields,
)
histories = st.lists(facts, max_size=12) | st.lists(wordy, max_size=30)


def derived(member: Clip) -> object:
    """Everything that is shown or counted of a clip."""
    return (
        member.status,
        billable_amount(member),
        has_implausible_cost(member),
        has_too_many_facts(member),
        member.copy,
        member.open,
        next_check(member, START + 9, TIMES),
    )


def told(member: Clip) -> Iterator[Fact]:
    """A clip's knowledge as facts again, one for each claim."""
    for (kind, key), known in member.facts.items():
        for source, claim in known.claims.items():
            source = FactSource.BUCKET if source == "rescue" else FactSource(source)
            yield Fact(kind=kind, key=key, at=claim.at, source=source, fields=claim.fields)


def joined(one: Clip, other: Clip) -> Clip:
    """One clip, knowing all that another one knows."""
    return merge_all(one, told(other))


@given(histories, st.data())
def test_any_order_with_any_repeats_ends_in_the_same_record(history: list[Fact], data: st.DataObject) -> None:
    """The same facts in any order, with any repeats, give the identical clip and all that is derived from it."""
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5)) if history else []
    shuffled = data.draw(st.permutations([*history, *repeats]))
    one, other = merge_all(clip(), history), merge_all(clip(), shuffled)
    assert one == other
    assert derived(one) == derived(other)


@given(histories, histories, histories)
def test_merging_whole_clips_is_a_semilattice(first: list[Fact], second: list[Fact], third: list[Fact]) -> None:
    """Joining what clips know is commutative, associative and idempotent."""
    a, b, c = (merge_all(clip(), history) for history in (first, second, third))
    assert joined(a, b) == joined(b, a)
    assert joined(joined(a, b), c) == joined(a, joined(b, c))
    assert joined(a, a) is a


@given(histories, facts)
def test_a_known_fact_changes_nothing_at_all(history: list[Fact], news: Fact) -> None:
    """A repeat gives back the very same clip, so that nothing is saved for it."""
    known = merge(merge_all(clip(), history), news)
    assert merge(known, news) is known


def test_where_two_values_meet_the_join_is_as_designed() -> None:
    """The smallest canonical value stands, the larger cost, and the earliest time of each witness."""
    one = fact(Kind.RENDERED, "v", START + 2, FactSource.POLL, seed=10, cost=5, videoURL="b")
    other = fact(Kind.RENDERED, "v", START + 1, FactSource.POLL, seed=9, cost=7, videoURL="a")
    late = fact(Kind.RENDERED, "v", START + 9, FactSource.WEBHOOK, NSFWContent=True)
    known = clip(one, other, late).of(Kind.RENDERED)["v"]
    assert known.fields == {"seed": 10, "cost": 7, "videoURL": "a", "NSFWContent": True}  # "10" < "9" as texts
    assert known.seen == {FactSource.POLL: START + 1, FactSource.WEBHOOK: START + 9}
    assert known.at == START + 1


def test_a_copy_that_was_rescued_stays_so() -> None:
    """That we fetched a copy ourselves is no less known if its upload was seen first."""
    seen = fact(Kind.STORED, "v", START, FactSource.BUCKET)
    known = clip(seen, fact(Kind.STORED, "v", START + 9, FactSource.BUCKET, rescued=True, size=5))
    assert known.of(Kind.STORED)["v"].fields == {"rescued": True, "size": 5}
    assert known.of(Kind.STORED)["v"].seen == {FactSource.BUCKET: START}
    assert known.copy is not None
    assert known.copy[1].at == START


def test_two_claims_of_one_moment_about_a_copy_end_in_one() -> None:
    """Of what never changes one claim stands whole: the earlier, or of two at once the same in either order."""
    one, other = fact(Kind.STORED, "v", size=5, etag="b"), fact(Kind.STORED, "v", size=7, etag="a")
    earlier = fact(Kind.STORED, "v", START - 1, size=9)
    assert clip(one, other) == clip(other, one)
    assert clip(one, other).of(Kind.STORED)["v"].fields == {"size": 7, "etag": "a"}
    assert clip(one, earlier) == clip(earlier, one) == clip(earlier)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_bounded(kind: Kind) -> None:
    """Of each kind a source fills so many keys and no more: the smallest, or of copies those that it saw first."""
    few, many = (Kind.REFUSED, Kind.FAILED, Kind.RENDERED, Kind.STORED), (Kind.ASKED, Kind.ANSWERED)
    most = 4 if kind in few else 100 if kind in many else 8
    keys = [f"{number:03}" for number in range(120)]
    falling = [fact(kind, key, START - place) for place, key in enumerate(reversed(keys))]
    assert sorted(clip(*falling).of(kind)) == keys[:most]
    rising = [fact(kind, key, START + place) for place, key in enumerate(reversed(keys))]
    assert sorted(clip(*rising).of(kind)) == (keys[:most] if kind != Kind.STORED else keys[-most:])
    full = clip(*falling)
    assert merge(full, falling[0]) is full  # there is nothing to save


def test_the_pinned_copy_is_never_pushed_out() -> None:
    """However many versions are put over it, and whatever S3 calls them, the first one stays the clip."""
    known = clip(fact(Kind.STORED, "z"), *(fact(Kind.STORED, f"{number:02}", START + 1) for number in range(20)))
    assert known.copy is not None
    assert known.copy[0] == "z"


def test_forged_webhooks_leave_room_for_a_poll() -> None:
    """Renders that webhooks made up fill their own room alone, so that what a poll knows is always learned."""
    forged = [fact(Kind.RENDERED, f"0{number}", START, FactSource.WEBHOOK, cost=10**10) for number in range(7 * 16)]
    known = clip(*forged, fact(Kind.RENDERED, "z", START + 9, cost=5))
    assert sorted(known.of(Kind.RENDERED)) == ["00", "01", "010", "0100", "z"]
    assert billable_amount(known) == 4 * PRICE + 5
    assert has_too_many_facts(known)
    assert not has_too_many_facts(clip(fact(Kind.RENDERED, "z")))


def test_what_a_source_claims_too_much_takes_nobody_elses_claim_along() -> None:
    """A poll's word on a render stays though a webhook said the same and then pushed its own claim out."""
    forged = [fact(Kind.RENDERED, f"0{number}", START, FactSource.WEBHOOK) for number in range(4)]
    both = [fact(Kind.RENDERED, "z", START, source, cost=5) for source in (FactSource.POLL, FactSource.WEBHOOK)]
    known = clip(*both, *forged)
    assert known.of(Kind.RENDERED)["z"].seen == {FactSource.POLL: START}
    assert billable_amount(known) == 4 * PRICE + 5


def test_our_own_evidence_fills_no_room() -> None:
    """Many ways in which sending failed are nobody's wrongdoing."""
    assert not has_too_many_facts(clip(*(fact(Kind.ATTEMPTED, str(number)) for number in range(20))))


@pytest.mark.parametrize(
    ("claims", "money", "doubted"),
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
def test_a_cost_is_believed_as_far_as_its_source(claims: dict[FactSource, int], money: int, doubted: bool) -> None:
    """A webhook up to three times the estimate, a poll up to ten times; beyond, the estimate counts and people hear."""
    known = clip(*(fact(Kind.RENDERED, "v", START, source, cost=cost) for source, cost in claims.items()))
    assert billable_amount(known) == money
    assert has_implausible_cost(known) is doubted
    assert known.of(Kind.RENDERED)["v"].fields["cost"] == max(claims.values())


def test_the_ranks_are_the_designs() -> None:
    """Ranks and statuses are exactly the table of the design."""
    decisions = {kind: meaning.decides for kind, meaning in KIND_RULES.items() if meaning.decides}
    assert {kind: (each.rank, each.status) for kind, each in decisions.items()} == STATUSES


def test_every_kind_has_a_meaning() -> None:
    """No kind is missing from the table, and each that leaves a clip open says when it is looked at."""
    assert set(KIND_RULES) == set(Kind)
    for kind, meaning in KIND_RULES.items():
        if decision := meaning.decides:
            assert (decision.look is None) == (kind in decision.closed_by), kind
            assert decision.look is None or isinstance(decision.look, FirstCheck)
            assert not (decision.needs_review and decision.look)


@pytest.mark.parametrize(("lower", "higher"), list(combinations(STATUSES, 2)))
def test_the_highest_rank_decides(lower: Kind, higher: Kind) -> None:
    """The fact of the higher rank gives the status, whichever came first."""
    for order in ((lower, higher), (higher, lower)):
        assert clip(*map(fact, order)).status == STATUSES[higher][1]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in STATUSES])
def test_unranked_facts_decide_nothing(kind: Kind) -> None:
    """Evidence alone leaves a clip pending."""
    known = clip(fact(kind))
    assert known.status == Status.PENDING
    assert known.decisive is None
    assert known.open


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
def test_a_clip_is_open_while_looking_can_teach_something(kinds: tuple[Kind, ...], is_open: bool) -> None:
    """Open clips are exactly the design's; clips in review lie elsewhere, and late truth opens a clip again."""
    assert clip(*map(fact, kinds)).open is is_open


@pytest.mark.parametrize(
    ("known", "money"),
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
def test_money_follows_the_facts(known: list[Fact], money: int) -> None:
    """A clip is worth its distinct renders, or the estimate, or nothing once it is known that nothing was bought."""
    assert billable_amount(clip(*known)) == money


def test_settling_counts_and_lists_anew() -> None:
    """Settling brings the counted amount and the next check up to date and touches nothing else."""
    refused = refresh_derived(clip(fact(Kind.REFUSED), budgeted=PRICE, next_check_at=5), START, TIMES)
    assert (refused.budgeted, refused.next_check_at) == (0, None)
    assert refresh_derived(clip(), START, TIMES).next_check_at == next_check(clip(), START, TIMES)


def test_the_copy_is_the_one_that_was_learned_of_first() -> None:
    """A later version of the object never replaces the pinned one."""
    known = clip(fact(Kind.STORED, "b", START), fact(Kind.STORED, "a", START + 1))
    assert known.copy is not None
    assert known.copy[0] == "b"
    assert clip().copy is None


@given(histories, st.integers(0, 10**9), st.integers(0, 10**9))
def test_open_clips_are_looked_at_later_and_ever_less_often(history: list[Fact], passed: int, more: int) -> None:
    """An open clip's next check always lies ahead, moves only forward, and pauses never shrink."""
    known, now = merge_all(clip(), history), START + passed
    due = next_check(known, now, TIMES)
    if known.status == Status.REVIEW and not known.open:
        assert due == known.first_seen_at(known.decisive or Kind.UNPROVEN)
    elif not known.open:
        assert due is None
    else:
        later = next_check(known, now + more, TIMES)
        assert due is not None
        assert later is not None
        assert later >= due
        assert due > now
        if known.decisive != Kind.FAILED:
            assert due - now >= TIMES.check
        if known.decisive in (None, Kind.RENDERED, Kind.STORED):
            assert later - (now + more) >= due - now


@pytest.mark.parametrize(
    ("known", "passed", "due"),
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
def test_the_next_check_suits_what_is_known(known: list[Fact], passed: int, due: int | None) -> None:
    """Soon while unconfirmed, after the usual render time while rendering, at the last look after a failure."""
    expected = None if due is None else START + due
    assert next_check(clip(*known), START + passed, TIMES) == expected


def test_a_last_look_that_got_no_answer_is_not_due_again_at_once() -> None:
    """A failed clip past its last look that some witness did not answer is looked at after a pause."""
    now = START + TIMES.last_look + 1
    due = next_check(clip(fact(Kind.FAILED, "x")), now, TIMES)
    assert due is not None
    assert due > now


def test_a_pending_clip_waits_for_its_lease_and_crowds_are_spread() -> None:
    """Nobody looks at a clip while its buyer may be at work; afterwards different clips come at different times."""
    leased = clip(lease=Lease("h", START, START + TIMES.lease))
    assert next_check(leased, START, TIMES) == START + TIMES.lease
    assert next_check(leased, START + TIMES.lease, TIMES) == START + TIMES.lease + 15_000
    other = clip(clip_uuid="ff" + clip().clip_uuid[2:])
    assert next_check(other, START, TIMES) == START + 10_000 + 10_000 * 255 // 1024


def test_a_lease_is_exclusive_until_it_is_over() -> None:
    """While a lease runs nobody gets another; a second later anybody does, and the first attempt stays in doubt."""
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


def test_what_may_be_bought_in_one_account_is_not_sent_into_another() -> None:
    """No account refuses a UUID that another one works on, so a doubtful clip is sent again into its own alone."""
    left = clip(lease=Lease("a", START, START + 1, "a1"))
    doubtful = mark_possibly_sent(clip(), START, "a1")
    for known in (left, doubtful):
        assert lease_to(known, "b", START + 1, TIMES, "a2") is None
        assert lease_to(known, "b", START + 1, TIMES, "a1") is not None
    assert mark_possibly_sent(doubtful, START - 1, "a2").possibly_sent_to == "a1"
    assert lease_to(clip(), "b", START + 1, TIMES, "a2") is not None
    earlier_version = mark_possibly_sent(clip(), START)
    assert lease_to(earlier_version, "b", START + 1, TIMES, "a2") is not None


def test_a_lease_that_ran_out_means_may_have_been_sent() -> None:
    """A lease left behind is an attempt without a recorded answer; one that runs, or none, means nothing."""
    leased = clip(lease=Lease("a", START + 7, START + 50))
    assert expire_lease(leased, START + 49) is leased
    assert expire_lease(clip(), START) == clip()
    left = expire_lease(leased, START + 50)
    assert (left.lease, left.possibly_sent_at) == (None, START + 7)
    evidence = fact(Kind.ATTEMPTED, "ambiguous: no outcome recorded", START + 50, FactSource.CLOCK)
    assert left.facts == clip(evidence).facts


def test_only_the_holder_releases_its_lease() -> None:
    """Nobody's late answer takes away the lease of a later buyer."""
    leased = clip(lease=Lease("a", START, START + 50))
    assert release(leased, "b") is leased
    assert release(leased, "a").lease is None
    assert release(clip(), "a") == clip()


def test_the_earliest_doubtful_attempt_stands() -> None:
    """The first attempt that may have bought the clip is never forgotten nor made younger."""
    assert mark_possibly_sent(mark_possibly_sent(clip(), START + 5), START + 9).possibly_sent_at == START + 5
    assert mark_possibly_sent(mark_possibly_sent(clip(), START + 5), START + 1).possibly_sent_at == START + 1
    assert merge_all(mark_possibly_sent(clip(), START), [fact(kind) for kind in Kind]).possibly_sent_at == START


def test_every_ask_is_answered_once() -> None:
    """The next look answers whatever a person has asked until then; later ones ask anew."""
    parked = clip(fact(Kind.UNPROVEN), fact(Kind.ASKED, "a", START + 5), fact(Kind.ASKED, "b", START + 7))
    assert parked.asked_at == START + 5
    answered = merge_all(parked, answered_facts(parked, START + 9, "nothing new"))
    assert answered.asked_at is None
    assert not answered.open
    assert answered_facts(answered, START + 10, "") == []
    assert merge(answered, fact(Kind.ASKED, "c", START + 11)).asked_at == START + 11


def test_facts_of_a_later_version_decide_nothing_and_stay() -> None:
    """A kind that this version does not know has no rank, closes nothing, costs nothing, and is kept by a merge."""
    later = {("cancelled", "x"): FactRecord.of_all({"oracle": START}, {"cost": 9})}
    plain, known = clip(fact(Kind.ACCEPTED)), clip(facts=later)
    assert (known.status, known.open, billable_amount(known), known.has_unknown_kinds) == (
        Status.PENDING,
        True,
        PRICE,
        True,
    )
    both = merge(known, fact(Kind.ACCEPTED))
    assert both.facts == {**later, **plain.facts}
    assert (derived(both), plain.has_unknown_kinds) == (derived(plain), False)
    assert [entry["fact"] for entry in timeline(both)] == ["cancelled", "accepted"]


def test_a_witness_of_a_later_version_counts() -> None:
    """A fact counts whoever saw it, and keeps a witness that this version does not know."""
    known = clip(facts={(Kind.ACCEPTED, ""): FactRecord.of_all({"oracle": START}, {})})
    assert known.status == Status.RUNNING
    seen = merge(known, fact(Kind.ACCEPTED, "", START + 1)).of(Kind.ACCEPTED)[""].seen
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
def test_a_task_stands_where_its_clips_stand(kinds: list[Kind | None], status: Status) -> None:
    """Running while any clip is undecided, else in review if any is parked, else as its clips ended."""
    assert task_status(clip(fact(kind)) if kind else clip() for kind in kinds) == status


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
def test_canonical_text_tells_values_apart_and_nothing_else(one: object, other: object, same: bool) -> None:
    """Two JSON values have one canonical text exactly if they mean the same."""
    assert (canonical(one) == canonical(other)) is same


@pytest.mark.parametrize("value", [1e308, -1e308, 2.0**53, 2.0**54])
def test_canonical_text_of_a_number_is_short(value: float) -> None:
    """A float of a few characters does not become hundreds of digits."""
    assert len(canonical(value)) <= 24


def test_canonical_text_of_large_numbers_is_made_in_little_memory() -> None:
    """A body of large numbers takes no more memory than one of others; as digits they took twenty times as much."""

    def peak(number: float) -> int:
        tracemalloc.start()
        canonical([number] * 20_000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(1e308) < 2 * peak(1.5e-300)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_canonical_text_is_json(value: float) -> None:
    """What JSON cannot say has no canonical text."""
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": value})

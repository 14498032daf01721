"""A clip is its immutable order plus a set of facts; everything else about it is derived here.

Pure: no I/O, no clock. Facts form a semilattice: joining them is commutative, associative and idempotent, so the same
facts in any order, with any repeats, end in the same record. Status, money and the next check follow from the facts.
Times are integer milliseconds since the epoch, money is integer micro-dollars.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from rushes.domain.budget import EVERYBODY
from rushes.domain.formats import canonical
from rushes.domain.timings import Timings

Scalar: TypeAlias = str | int | bool


class Kind(StrEnum):
    """What a fact says; MEANINGS has what follows from it. A record may hold kinds of a later version besides."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNPROVEN = "unproven"
    FAILED = "failed"
    RENDERED = "rendered"
    UNSAVED = "unsaved"
    UNDELIVERED = "undelivered"  # Runware could not upload the render, which so exists
    GIVEN_UP = "givenUp"  # a person has decided that nobody waits for a rendered clip's copy any longer
    STORED = "stored"
    ATTEMPTED = "attempted"  # evidence: how an attempt to buy ended that proved nothing
    LAST_LOOK = "lastLook"  # bucket and provider were asked once more after a failure
    DETAILS_UNKNOWN = "detailsUnknown"  # stored, and nobody can tell the render's details any more
    ASKED = "asked"  # a person wants a clip in review to be looked at once more; the key is when
    ANSWERED = "answered"  # that look has taken place; the key is the one of `asked`


class Status(StrEnum):
    """Where a clip, or a task, stands. Never stored: the fact of the highest rank decides."""

    PENDING = "pending"
    RUNNING = "running"
    RENDERED = "rendered"
    STORED = "stored"
    FAILED = "failed"
    REVIEW = "review"
    SUCCEEDED = "succeeded"  # tasks only
    PARTIAL = "partial"  # tasks only


class Witness(StrEnum):
    """Through whom a fact was learned."""

    SUBMISSION = "submission"
    WEBHOOK = "webhook"
    POLL = "poll"
    BUCKET = "bucket"
    CLOCK = "clock"
    OPERATOR = "operator"


class Look(StrEnum):
    """When an open clip is looked at first, counted from its decisive fact."""

    SOON = "soon"
    AFTER_RENDER = "afterRender"  # after the usual render time
    LAST = "last"  # after a pause for the truth to come out


@dataclass(frozen=True, slots=True)
class Decision:
    """What the decisive kind, the one of the highest rank, means for its clip.

    `closed_by` are the kinds of which each leaves nothing more to be learned by looking; none is needed where `look` is
    None. `free` means that nothing was bought once the clip is closed, unless a render is known.
    """

    rank: int
    status: Status
    closed_by: frozenset[Kind]
    look: Look | None
    free: bool

    @property
    def needs_review(self) -> bool:
        """Whether the clip waits for a person."""
        return self.status == Status.REVIEW


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a kind of fact means: what it decides, None for evidence, and how many keys of it each source may fill."""

    decides: Decision | None
    most: int


# Everything that depends on a fact's kind: no rule about kinds stands anywhere else, and none has a default.
#                            rank status           closed_by            look               free    most
MEANINGS: Mapping[str, Meaning] = {
    Kind.REFUSED: Meaning(Decision(5, Status.FAILED, frozenset({Kind.REFUSED}), None, free=True), most=4),
    Kind.ACCEPTED: Meaning(Decision(10, Status.RUNNING, frozenset(), Look.AFTER_RENDER, free=False), most=8),
    Kind.UNPROVEN: Meaning(Decision(20, Status.REVIEW, frozenset({Kind.UNPROVEN}), None, free=False), most=8),
    Kind.FAILED: Meaning(Decision(30, Status.FAILED, frozenset({Kind.LAST_LOOK}), Look.LAST, free=True), most=4),
    Kind.UNDELIVERED: Meaning(Decision(35, Status.RENDERED, frozenset(), Look.SOON, free=False), most=8),
    Kind.RENDERED: Meaning(Decision(40, Status.RENDERED, frozenset(), Look.SOON, free=False), most=4),
    Kind.UNSAVED: Meaning(Decision(45, Status.REVIEW, frozenset({Kind.UNSAVED}), None, free=False), most=8),
    Kind.GIVEN_UP: Meaning(Decision(47, Status.FAILED, frozenset({Kind.GIVEN_UP}), None, free=False), most=8),
    Kind.STORED: Meaning(
        Decision(50, Status.STORED, frozenset({Kind.RENDERED, Kind.DETAILS_UNKNOWN}), Look.SOON, free=False),
        most=4,
    ),
    Kind.ATTEMPTED: Meaning(None, most=8),
    Kind.LAST_LOOK: Meaning(None, most=8),
    Kind.DETAILS_UNKNOWN: Meaning(None, most=8),
    Kind.ASKED: Meaning(None, most=100),
    Kind.ANSWERED: Meaning(None, most=100),
}
_UNREAD = Meaning(None, most=1000)  # of a kind that only a later version knows: kept as it is, and decides nothing

# Kinds whose facts are about something that never changes: the earliest claim stands whole, and the earliest are kept.
_UNCHANGING = {Kind.STORED}
_RESCUE = "rescue"  # the source of copies that the service made itself

# How many times the estimate a reported cost may be to count. A webhook is believed by whoever has its address.
_BELIEVED_OF_WEBHOOKS = 3
_BELIEVED_WHEN_ASKED = 10
_ASKED = {Witness.POLL, Witness.OPERATOR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing learned: `key` tells apart what may be true several times, such as two renders by their `videoUUID`."""

    kind: Kind
    key: str = ""
    at: int
    witness: Witness
    fields: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one source said of a fact, and when first."""

    at: int
    fields: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known under one kind and key: the claim of each source, which is a witness or our own rescue."""

    claims: Mapping[str, Claim]

    @classmethod
    def of_all(cls, seen: Mapping[str, int], fields: Mapping[str, Scalar]) -> "Known":
        """What several witnesses say alike."""
        return cls({_source(witness, fields): Claim(at, fields) for witness, at in seen.items()})

    @property
    def seen(self) -> Mapping[str, int]:
        """Which witness saw it and when first; a later version may know more of them than `Witness`."""
        seen: dict[str, int] = {}
        for source, claim in self.claims.items():
            witness = Witness.BUCKET if source == _RESCUE else source
            seen[witness] = min(claim.at, seen.get(witness, claim.at))
        return seen

    @property
    def fields(self) -> Mapping[str, Scalar]:
        """What all claims say together."""
        return _join_fields(*(claim.fields for claim in self.claims.values()))

    @property
    def at(self) -> int:
        """When it was first learned."""
        return min(claim.at for claim in self.claims.values())


Facts: TypeAlias = Mapping[tuple[str, str], Known]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send this clip's order, exclusive until `until`. Left behind, it means: may have been sent.

    `account` is a digest of the Runware account that it would be sent into; empty if an earlier version gave the lease.
    """

    holder: str
    since: int
    until: int
    account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip. The first block is written once; the second changes. `counted` is what the budgets hold for it."""

    caller: str
    task_uuid: str
    index: int
    clip_uuid: str
    object_key: str
    estimate: int
    month: str
    created_at: int

    facts: Facts = field(default_factory=dict)
    maybe_sent_at: int | None = None
    maybe_sent_to: str = ""  # the account of that attempt, see `Lease`
    lease: Lease | None = None
    next_check_at: int | None = None
    budgeted: int = 0
    version: int = 1

    @property
    def scopes(self) -> tuple[str, str]:
        """The budgets that this clip counts in."""
        return EVERYBODY, self.caller

    @property
    def decisive(self) -> Kind | None:
        """The kind of the highest rank among the facts, or None while nothing is known."""
        found = max((kind for kind, _ in self.facts), key=rank, default="")
        return Kind(found) if rank(found) else None

    @property
    def decision(self) -> Decision | None:
        """What the decisive kind means, or None while nothing is known."""
        kind = self.decisive
        return MEANINGS[kind].decides if kind else None

    @property
    def status(self) -> Status:
        decision = self.decision
        return decision.status if decision else Status.PENDING

    @property
    def settled(self) -> bool:
        """Whether the budgets hold what the facts say; if not, the next look moves the difference."""
        return self.budgeted == billable_amount(self)

    def of(self, kind: Kind) -> dict[str, Known]:
        """Everything known of one kind, by key."""
        return {key: known for (other, key), known in self.facts.items() if other == kind}

    def has(self, kind: Kind) -> bool:
        return any(other == kind for other, _ in self.facts)

    def learned_at(self, kind: Kind) -> int | None:
        """When a kind of fact was first learned."""
        return min((known.at for known in self.of(kind).values()), default=None)

    @property
    def copy(self) -> tuple[str, Known] | None:
        """The pinned object version and what is known of it: the copy that was learned of first."""
        copies = self.of(Kind.STORED)
        return min(copies.items(), key=lambda item: (item[1].at, item[0])) if copies else None

    @property
    def open(self) -> bool:
        """Whether anything more can be learned about this clip by looking."""
        decision = self.decision
        if decision is None or (decision.needs_review and self.asked_at is not None):
            return True
        return not any(self.has(kind) for kind in decision.closed_by)

    @property
    def asked_at(self) -> int | None:
        """Since when a person waits for one more look at this clip."""
        answered = self.of(Kind.ANSWERED)
        return min((known.at for key, known in self.of(Kind.ASKED).items() if key not in answered), default=None)

    @property
    def unread(self) -> bool:
        """Whether there is a fact of a kind that only a later version knows."""
        return any(kind not in MEANINGS for kind, _ in self.facts)


def rank(kind: str) -> int:
    """How much a kind of fact decides, 0 for evidence."""
    decides = MEANINGS.get(kind, _UNREAD).decides
    return decides.rank if decides else 0


def merge(clip: Clip, fact: Fact) -> Clip:
    """The clip, knowing one thing more; the clip itself when it knew already.

    What each source claims is kept apart, as far as the bounds go: so no number of forged webhooks keeps a poll out.
    """
    name, source = (fact.kind, fact.key), _source(fact.witness, fact.fields)
    news = Claim(fact.at, dict(fact.fields))
    old = clip.facts.get(name)
    claim = old.claims.get(source) if old else None
    joined = _join(fact.kind, claim, news) if claim else news
    if joined == claim:
        return clip
    facts = {**clip.facts, name: Known({**(old.claims if old else {}), source: joined})}
    bounded = _bounded(facts, fact.kind, source)
    return clip if bounded == clip.facts else replace(clip, facts=bounded)


def merge_all(clip: Clip, facts: Iterable[Fact]) -> Clip:
    """`merge`, fact by fact."""
    for fact in facts:
        clip = merge(clip, fact)
    return clip


def billable_amount(clip: Clip) -> int:
    """What this clip costs, as far as the facts tell, in micro-dollars: the sum that the budgets should hold for it.

    Every distinct render counts, at its reported cost as far as that is believed, or else the estimate. Without one,
    the estimate counts unless it is known that nothing was bought: refused, or failed and nothing came to light at the
    last look.
    """
    renders = clip.of(Kind.RENDERED)
    if renders:
        costs = [believed_cost(known, clip.estimate) for known in renders.values()]
        return sum(clip.estimate if cost is None else cost for cost in costs)
    decision = clip.decision
    return 0 if decision and decision.free and not clip.open else clip.estimate


def believed_cost(render: Known, estimate: int) -> int | None:
    """The largest reported cost of a render that is no multiple too many of the estimate; None if there is none.

    A larger one is believed of a poll, since we asked, than of a webhook; beyond that it is kept as a claim.
    """
    costs = []
    for source, claim in render.claims.items():
        cost = claim.fields.get("cost")
        most = _BELIEVED_WHEN_ASKED if source in _ASKED else _BELIEVED_OF_WEBHOOKS
        if isinstance(cost, int) and cost <= estimate * most:
            costs.append(cost)
    return max(costs, default=None)


def disbelieves(clip: Clip) -> bool:
    """Whether a render of this clip is said to have cost more than is counted for it."""
    renders = clip.of(Kind.RENDERED).values()
    return any(
        "cost" in known.fields and known.fields["cost"] != believed_cost(known, clip.estimate) for known in renders
    )


def is_full(clip: Clip) -> bool:
    """Whether one source has filled the room for a kind of fact, our own evidence aside: what else it says is cut."""
    counts = Counter((kind, source) for (kind, _), known in clip.facts.items() for source in known.claims)
    return any(
        count >= MEANINGS.get(kind, _UNREAD).most for (kind, _), count in counts.items() if kind != Kind.ATTEMPTED
    )


def next_check(clip: Clip, now: int, times: Timings) -> int | None:
    """When this clip should be looked at again, or None when nothing more can be learned.

    Soon while the purchase is unconfirmed, after the usual render time while it renders, then at growing intervals:
    each pause is a quarter of what has passed, so that a lost webhook costs a few polls and a stuck clip not many more.
    A clip in review is listed at the time it was parked, for people, unless one of them wants it to be looked at.
    """
    kind, decision = clip.decisive, clip.decision
    if kind is None or decision is None:
        return _next_try(clip, now, times)
    since = min(known.at for known in clip.of(kind).values())
    if decision.needs_review:
        return since if clip.asked_at is None else _pause(clip.asked_at, now, times)
    if not clip.open or decision.look is None:
        return None
    match decision.look:
        case Look.SOON:
            return _pause(since, now, times)
        case Look.AFTER_RENDER:
            return max(since + times.usual_render, _pause(since, now, times))
        case Look.LAST:
            last_look = since + times.last_look
            return last_look if last_look > now else _pause(last_look, now, times)


def refresh_derived(clip: Clip, now: int, times: Timings) -> Clip:
    """The clip with everything derived brought up to date: call it once, before saving."""
    return replace(clip, budgeted=billable_amount(clip), next_check_at=next_check(clip, now, times))


def defer_budget(clip: Clip, now: int, times: Timings) -> Clip:
    """`refresh_derived` without the money: that stays, and a look comes soon to move it, also if the clip is closed."""
    return replace(clip, next_check_at=now + times.check)


def lease_to(clip: Clip, holder: str, now: int, times: Timings, account: str) -> Clip | None:
    """The clip with the right to send it given to `holder`, or None if nobody may send it into this account now.

    A lease left behind belongs to a buyer whose answer was never recorded: that attempt is ambiguous for ever.
    """
    if clip.lease and clip.lease.until > now:
        return None
    left = expire_lease(clip, now)
    return (
        None if sent_elsewhere(left, account) else replace(left, lease=Lease(holder, now, now + times.lease, account))
    )


def sent_elsewhere(clip: Clip, account: str) -> bool:
    """Whether an attempt may have bought the clip in another account, which knows nothing of what this one is asked."""
    return clip.maybe_sent_to not in ("", account)


def expire_lease(clip: Clip, now: int) -> Clip:
    """The clip with a lease that ran out turned into what it means: an attempt whose answer nobody recorded."""
    if clip.lease is None or clip.lease.until > now:
        return clip
    evidence = Fact(kind=Kind.ATTEMPTED, key="ambiguous: no outcome recorded", at=now, witness=Witness.CLOCK)
    return merge(replace(mark_possibly_sent(clip, clip.lease.since, clip.lease.account), lease=None), evidence)


def release(clip: Clip, holder: str) -> Clip:
    """The clip without `holder`'s lease; anybody else's stays."""
    return replace(clip, lease=None) if clip.lease and clip.lease.holder == holder else clip


def mark_possibly_sent(clip: Clip, at: int, account: str = "") -> Clip:
    """The clip, with an attempt at `at` that may have bought it. The earliest one stands, and nothing unsays it."""
    if clip.maybe_sent_at is None:
        return replace(clip, maybe_sent_at=at, maybe_sent_to=account)
    return replace(clip, maybe_sent_at=min(at, clip.maybe_sent_at))


def answers_to_asks(clip: Clip, now: int, why: str) -> list[Fact]:
    """That a look for which a person had asked has taken place, and what it came to."""
    return [
        Fact(kind=Kind.ANSWERED, key=key, at=now, witness=Witness.CLOCK, fields={"why": why})
        for key in clip.of(Kind.ASKED).keys() - clip.of(Kind.ANSWERED).keys()
    ]


def _source(witness: str, fields: Mapping[str, Scalar]) -> str:
    return _RESCUE if fields.get("rescued") else str(witness)


def _join(kind: Kind, one: Claim, other: Claim) -> Claim:
    if kind in _UNCHANGING:
        return min(one, other, key=lambda claim: (claim.at, canonical(claim.fields)))
    return Claim(min(one.at, other.at), _join_fields(one.fields, other.fields))


def _join_fields(*several: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Where two values meet the smallest canonical one stands, but the larger cost."""
    joined: dict[str, Scalar] = {}
    for fields in several:
        for name, value in fields.items():
            known = joined.get(name, value)
            joined[name] = max(known, value) if name == "cost" else min(known, value, key=canonical)
    return joined


def _bounded(facts: Facts, kind: Kind, source: str) -> Facts:
    """The facts without what one source says beyond its bound.

    Of a union it keeps the smallest keys, or of what does not change the earliest claims. Both are themselves
    associative, commutative and idempotent. An earliest claim whose fields were joined would not be: see `_join`.
    """
    claims = [
        (known.claims[source].at, key)
        for (other, key), known in facts.items()
        if other == kind and source in known.claims
    ]
    if len(claims) <= MEANINGS[kind].most:
        return facts
    _, key = max(claims, key=lambda claim: claim if kind in _UNCHANGING else claim[1:])
    left = {other: claim for other, claim in facts[kind, key].claims.items() if other != source}
    rest = {name: known for name, known in facts.items() if name != (kind, key)}
    return {**rest, (kind, key): Known(left)} if left else rest


def _next_try(clip: Clip, now: int, times: Timings) -> int:
    """When an unconfirmed purchase is looked at again: after the lease of its buyer, if there is one."""
    if clip.lease and clip.lease.until > now:
        return clip.lease.until
    # Spread by the clip's own UUID, so that a crowd which failed together does not come back together.
    pause = _pause(clip.created_at, now, times)
    return pause + (pause - now) * int(clip.clip_uuid[:2], 16) // 1024


def _pause(since: int, now: int, times: Timings) -> int:
    return now + max(times.check, (now - since) // 4)

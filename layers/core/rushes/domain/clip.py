"""A clip is an immutable order plus a set of facts; everything else about it is derived here.

Pure: no I/O, no clock. Facts form a semilattice: joining them is commutative, associative and idempotent, so the same
facts in any order, with any repeats, give the same record. Status, money and the next check follow from the facts.
Times are integer milliseconds since the epoch, money is integer micro-dollars.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from rushes.domain.budget import ALL_CALLERS
from rushes.domain.failure import Category, is_account_failure
from rushes.domain.formats import canonical
from rushes.domain.timings import Timings

Scalar: TypeAlias = str | int | bool

SLOTS = 20  # no task has more clips; clips of later models have their slot's index plus a multiple of this


class Kind(StrEnum):
    """The kind of a fact; `KIND_RULES` has its consequences. A record may also hold kinds of a later version."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNPROVEN = "unproven"
    FAILED = "failed"
    RENDERED = "rendered"
    UNSAVED = "unsaved"
    UNDELIVERED = "undelivered"  # Runware could not upload the render, so the render exists
    GIVEN_UP = "givenUp"  # an operator has ended the wait for the copy of a rendered clip
    STORED = "stored"
    ATTEMPTED = "attempted"  # evidence: the end of an attempt to buy that proved nothing
    LAST_LOOK = "lastLook"  # bucket and provider were checked once more after a failure
    DETAILS_UNKNOWN = "detailsUnknown"  # stored, and the render's details are lost permanently
    ASKED = "asked"  # an operator requests another check of a clip in review; the key is the time
    ANSWERED = "answered"  # that check has taken place; the key is that of `asked`
    SUPERSEDED = "superseded"  # closed, and the next model's clip recorded, whose UUID is the key
    FALLBACK = "fallback"  # evidence: an earlier model's clip, whose UUID is the key, was superseded
    ERASED = "erased"  # an operator has had the clip's objects and texts deleted


class Status(StrEnum):
    """The state of a clip or a task. Never stored: the fact with the highest rank decides."""

    PENDING = "pending"
    RUNNING = "running"
    RENDERED = "rendered"
    STORED = "stored"
    FAILED = "failed"
    REVIEW = "review"
    ERASED = "erased"
    SUCCEEDED = "succeeded"  # tasks only
    PARTIAL = "partial"  # tasks only


class FactSource(StrEnum):
    """The origin of a fact."""

    SUBMISSION = "submission"
    WEBHOOK = "webhook"
    POLL = "poll"
    BUCKET = "bucket"
    CLOCK = "clock"
    OPERATOR = "operator"


class FirstCheck(StrEnum):
    """The time of an open clip's first check, counted from its decisive fact."""

    SOON = "soon"
    AFTER_RENDER = "afterRender"  # after the usual render time
    LAST = "last"  # after a pause in which late facts may arrive


class Decision(NamedTuple):
    """The consequences of a kind of fact for a clip in which it has the highest rank.

    A fact of any kind in `closed_by` closes the clip; `look` is None for a kind that closes it by itself. `free` means
    that a closed clip without a render was not bought.
    """

    rank: int
    status: Status
    closed_by: frozenset[Kind]
    look: FirstCheck | None
    free: bool

    @property
    def needs_review(self) -> bool:
        """True if the clip waits for an operator's decision."""
        return self.status == Status.REVIEW


class KindRule(NamedTuple):
    """The decision of a kind of fact, None for evidence, and the number of keys that each source may fill with it."""

    decides: Decision | None
    limit: int


# Everything that depends on a fact's kind. No other place has a rule about kinds, and no rule has a default.
#                            rank status           closed_by            look               free    limit
KIND_RULES: Mapping[str, KindRule] = {
    Kind.REFUSED: KindRule(Decision(5, Status.FAILED, frozenset({Kind.REFUSED}), None, free=True), limit=4),
    Kind.ACCEPTED: KindRule(Decision(10, Status.RUNNING, frozenset(), FirstCheck.AFTER_RENDER, free=False), limit=8),
    Kind.UNPROVEN: KindRule(Decision(20, Status.REVIEW, frozenset({Kind.UNPROVEN}), None, free=False), limit=8),
    Kind.FAILED: KindRule(
        Decision(30, Status.FAILED, frozenset({Kind.LAST_LOOK}), FirstCheck.LAST, free=True), limit=4
    ),
    Kind.UNDELIVERED: KindRule(Decision(35, Status.RENDERED, frozenset(), FirstCheck.SOON, free=False), limit=8),
    Kind.RENDERED: KindRule(Decision(40, Status.RENDERED, frozenset(), FirstCheck.SOON, free=False), limit=4),
    Kind.UNSAVED: KindRule(Decision(45, Status.REVIEW, frozenset({Kind.UNSAVED}), None, free=False), limit=8),
    Kind.GIVEN_UP: KindRule(Decision(47, Status.FAILED, frozenset({Kind.GIVEN_UP}), None, free=False), limit=8),
    Kind.STORED: KindRule(
        Decision(50, Status.STORED, frozenset({Kind.RENDERED, Kind.DETAILS_UNKNOWN}), FirstCheck.SOON, free=False),
        limit=4,
    ),
    Kind.ATTEMPTED: KindRule(None, limit=8),
    Kind.LAST_LOOK: KindRule(None, limit=8),
    Kind.DETAILS_UNKNOWN: KindRule(None, limit=8),
    Kind.ASKED: KindRule(None, limit=100),
    Kind.ANSWERED: KindRule(None, limit=100),
    Kind.SUPERSEDED: KindRule(None, limit=8),
    Kind.FALLBACK: KindRule(None, limit=8),
    Kind.ERASED: KindRule(None, limit=8),
}
_RANKS: Mapping[str, int] = {kind: rule.decides.rank for kind, rule in KIND_RULES.items() if rule.decides}
_LATER_KIND = KindRule(None, limit=1000)  # a later version's kind: kept unchanged, decides nothing

# Kinds of facts about immutable things: claims are not joined; the earliest ones are kept.
_IMMUTABLE = {Kind.STORED}
_ERASED_TEXT = "Erased."
_RESCUE = "rescue"  # the source of copies that the service made itself

# The largest multiple of the estimate that is accepted as a cost. Anyone with a webhook's URL can forge one.
_MAX_COST_FACTOR_OF_WEBHOOKS = 3
_MAX_COST_FACTOR_OF_POLLS = 10
_TRUSTED_SOURCES = {FactSource.POLL, FactSource.OPERATOR}

# After a provider's timeout the render may still go on.
_IN_DOUBT = {Category.TIMEOUT}
_DECISIONS = (Kind.STORED, Kind.GIVEN_UP)  # the operator's decisions about a superseded clip that was bought


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact about a clip. `key` distinguishes facts of one kind, for example two renders by their `videoUUID`."""

    kind: Kind
    key: str = ""
    at: int
    source: FactSource
    fields: Mapping[str, Scalar] = field(default_factory=dict)


class Claim(NamedTuple):
    """One source's fields of a fact, and the time of its first report."""

    at: int
    fields: Mapping[str, Scalar]


class FactRecord(NamedTuple):
    """A fact under one kind and key, with the claim of each source. A source is a `FactSource` or the rescue."""

    claims: Mapping[str, Claim]

    @classmethod
    def of_all(cls, seen: Mapping[str, int], fields: Mapping[str, Scalar]) -> "FactRecord":
        """The record of several sources whose claims have the same fields."""
        return cls({_source(source, fields): Claim(at, fields) for source, at in seen.items()})

    @property
    def seen(self) -> Mapping[str, int]:
        """The time of each source's first report. A later version may have sources besides `FactSource`."""
        seen: dict[str, int] = {}
        for source, claim in self.claims.items():
            source = FactSource.BUCKET if source == _RESCUE else source
            seen[source] = min(claim.at, seen.get(source, claim.at))
        return seen

    @property
    def fields(self) -> Mapping[str, Scalar]:
        """The joined fields of all claims."""
        return _join_fields(*(claim.fields for claim in self.claims.values()))

    @property
    def at(self) -> int:
        """The time of the first report, in milliseconds."""
        return min(claim.at for claim in self.claims.values())


Facts: TypeAlias = Mapping[tuple[str, str], FactRecord]


class Lease(NamedTuple):
    """The right of `holder` to send this clip's order, exclusive until `until`.

    An expired lease means that the order may have been sent. `account` is a digest of the Runware account of the
    attempt; it is empty in a lease of an earlier version.
    """

    holder: str
    since: int
    until: int
    account: str = ""


class FallbackModel(NamedTuple):
    """A later model of a chain, and the clip that would be bought from it. The estimate is in micro-dollars."""

    model: str
    clip_uuid: str
    object_key: str
    estimate: int


class Chain(NamedTuple):
    """A clip's place in its task's fallback: its own model, and the `rest` of the models in their order.

    `on_moderation`: the next model's clip may also be bought after a moderation refusal.
    """

    model: str
    rest: tuple[FallbackModel, ...]
    on_moderation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip. The first block is written once; the second changes. `budgeted` is the clip's amount in the budgets."""

    caller: str
    task_uuid: str
    index: int
    clip_uuid: str
    object_key: str
    estimate: int
    month: str
    created_at: int
    chain: Chain | None = None  # None for a task without fallback

    facts: Facts = field(default_factory=dict)
    possibly_sent_at: int | None = None
    possibly_sent_to: str = ""  # the account of that attempt, see `Lease`
    lease: Lease | None = None
    next_check_at: int | None = None
    budgeted: int = 0
    version: int = 1

    @property
    def scopes(self) -> tuple[str, str]:
        """The scopes of the budgets that contain this clip."""
        return ALL_CALLERS, self.caller

    @property
    def slot(self) -> int:
        """The number of the result in its task; the clips of a chain share it."""
        return self.index % SLOTS

    @property
    def decisive(self) -> Kind | None:
        """The kind with the highest rank among the facts, or None without a decisive fact."""
        decisive, highest = "", 0
        for kind, _ in self.facts:
            if rank(kind) > highest:
                decisive, highest = kind, rank(kind)
        return Kind(decisive) if decisive else None

    @property
    def decision(self) -> Decision | None:
        """The consequences of the decisive kind, or None without a decisive fact.

        A superseded clip that was bought after all waits for an operator, because its slot may be paid for twice.
        """
        kind = self.decisive
        decision = KIND_RULES[kind].decides if kind else None
        if decision is None or decision.free or not self.is_superseded or self._is_decided_by_operator:
            return decision
        return decision._replace(status=Status.REVIEW)

    @property
    def status(self) -> Status:
        """The status of the decision; that of a failure is `running` while the next model's clip may follow."""
        if self.has(Kind.ERASED):
            return Status.ERASED
        decision = self.decision
        if decision is None:
            return Status.PENDING
        return Status.RUNNING if decision.status == Status.FAILED and self.may_fall_over else decision.status

    @property
    def is_superseded(self) -> bool:
        """True if the next model's clip was recorded in this one's place."""
        return self.has(Kind.SUPERSEDED)

    @property
    def may_fall_over(self) -> bool:
        """True while the next model's clip may still be recorded in this one's place.

        Doubt never falls over: a possibly sent attempt, a clip that was in review, a last look without every answer, a
        fact of a later version. Nor does a refusal or failure that is not about the model: of our account, by the
        clock, by a provider's timeout, or, unless asked for, by moderation. Facts are only added, so False is final.
        """
        if self.chain is None or not self.chain.rest or self.is_superseded or self.has(Kind.ERASED):
            return False
        if self.possibly_sent_at is not None or self.has(Kind.UNPROVEN) or self.has_unknown_kinds:
            return False
        if rank(self.decisive or "") > rank(Kind.FAILED):
            return False
        if any("reason" in record.fields for record in self.of(Kind.LAST_LOOK).values()):
            return False
        reasons = [*self.of(Kind.REFUSED).values(), *self.of(Kind.FAILED).values()]
        return all(_is_about_the_model(record, self.chain) for record in reasons)

    @property
    def awaits_fallback(self) -> bool:
        """True if the clip certainly was not bought, and the next model's clip is to be recorded in its place."""
        return self.may_fall_over and self._is_closed_by_facts

    @property
    def _is_closed_by_facts(self) -> bool:
        decision = self.decision
        return decision is not None and any(self.has(kind) for kind in decision.closed_by)

    @property
    def _is_decided_by_operator(self) -> bool:
        records = [record for kind in _DECISIONS for record in self.of(kind).values()]
        return any(FactSource.OPERATOR in record.seen for record in records)

    @property
    def budget_is_current(self) -> bool:
        """True if the budgets contain the billable amount; otherwise the next check corrects them."""
        return self.budgeted == billable_amount(self)

    def of(self, kind: Kind) -> dict[str, FactRecord]:
        """The records of one kind, by key."""
        return {key: record for (other, key), record in self.facts.items() if other == kind}

    def has(self, kind: Kind) -> bool:
        return any(other == kind for other, _ in self.facts)

    def first_seen_at(self, kind: Kind) -> int | None:
        """The time of the first fact of a kind, in milliseconds, or None."""
        return min((record.at for record in self.of(kind).values()), default=None)

    @property
    def copy(self) -> tuple[str, FactRecord] | None:
        """The pinned object version and its record: the copy that was recorded first. None if it was erased."""
        copies = {} if self.has(Kind.ERASED) else self.of(Kind.STORED)
        return min(copies.items(), key=lambda item: (item[1].at, item[0])) if copies else None

    @property
    def erased_at(self) -> int | None:
        """The time of the clip's erasure in milliseconds, or None."""
        return self.first_seen_at(Kind.ERASED)

    @property
    def open(self) -> bool:
        """True if a check of this clip can still add a fact. An erased clip is never checked again."""
        return not self.has(Kind.ERASED) and not self.is_decided

    @property
    def is_decided(self) -> bool:
        """True if the facts decide the clip, whether or not it was erased afterwards."""
        decision = self.decision
        if decision is None or (decision.needs_review and self.asked_at is not None):
            return False
        return self._is_closed_by_facts and not self.may_fall_over

    @property
    def asked_at(self) -> int | None:
        """The time of an operator's request for another check, in milliseconds, or None without an open one."""
        answered = self.of(Kind.ANSWERED)
        return min((record.at for key, record in self.of(Kind.ASKED).items() if key not in answered), default=None)

    @property
    def has_unknown_kinds(self) -> bool:
        """True if there is a fact of a kind that only a later version has."""
        return any(kind not in KIND_RULES for kind, _ in self.facts)


def rank(kind: str) -> int:
    """The rank of a kind of fact, 0 for evidence."""
    return _RANKS.get(kind, 0)


def merge(clip: Clip, fact: Fact) -> Clip:
    """Returns the clip with the fact added, or the same object if the fact adds nothing.

    The claims of each source are kept and limited separately, so that no number of forged webhooks displaces a poll.
    Texts and addresses of Runware are removed from the facts of an erased clip, of later ones too.
    """
    if fact.kind == Kind.ERASED:
        clip = _without_texts(clip)
    name, source = (fact.kind, fact.key), _source(fact.source, fact.fields)
    is_erased = fact.kind == Kind.ERASED or clip.has(Kind.ERASED)
    fields = _redacted(fact.kind, fact.key, fact.fields) if is_erased else fact.fields
    new_claim = Claim(fact.at, dict(fields))
    record = clip.facts.get(name)
    claim = record.claims.get(source) if record else None
    joined = _join(fact.kind, claim, new_claim) if claim else new_claim
    if joined == claim:
        return clip
    facts = {**clip.facts, name: FactRecord({**(record.claims if record else {}), source: joined})}
    bounded = _bounded(facts, fact.kind, source)
    return clip if bounded == clip.facts else replace(clip, facts=bounded)


def merge_all(clip: Clip, facts: Iterable[Fact]) -> Clip:
    """Returns the clip with all facts merged."""
    for fact in facts:
        clip = merge(clip, fact)
    return clip


def billable_amount(clip: Clip) -> int:
    """Returns the amount that the budgets should contain for this clip, in micro-dollars.

    Each distinct render counts at its plausible reported cost, or else at the estimate. A clip without a render counts
    at the estimate, unless it certainly was not bought: refused, or failed and without a render at the last look.
    While it may fall over, the dearest model of the rest of its chain counts.
    """
    renders = clip.of(Kind.RENDERED)
    if renders:
        costs = [plausible_cost(record, clip.estimate) for record in renders.values()]
        return sum(clip.estimate if cost is None else cost for cost in costs)
    decision = clip.decision
    if decision and decision.free and clip.is_decided:
        return 0
    rest = clip.chain.rest if clip.chain and clip.may_fall_over else ()
    return max([clip.estimate, *(each.estimate for each in rest)])


def plausible_cost(render: FactRecord, estimate: int) -> int | None:
    """Returns the largest reported cost of a render within the accepted multiple of the estimate, or None.

    The multiple is larger for a poll, which cannot be forged, than for a webhook. A larger cost stays a mere claim.
    """
    costs = []
    for source, claim in render.claims.items():
        cost = claim.fields.get("cost")
        limit = _MAX_COST_FACTOR_OF_POLLS if source in _TRUSTED_SOURCES else _MAX_COST_FACTOR_OF_WEBHOOKS
        if isinstance(cost, int) and cost <= estimate * limit:
            costs.append(cost)
    return max(costs, default=None)


def has_implausible_cost(clip: Clip) -> bool:
    """True if a render of this clip has a reported cost that the budgets do not contain."""
    renders = clip.of(Kind.RENDERED).values()
    return any(
        "cost" in record.fields and record.fields["cost"] != plausible_cost(record, clip.estimate) for record in renders
    )


def has_too_many_facts(clip: Clip) -> bool:
    """True if a source has reached the limit for a kind of fact; its further claims are dropped.

    Attempts are exempt, since they are the service's own evidence.
    """
    counts = Counter((kind, source) for (kind, _), record in clip.facts.items() for source in record.claims)
    return any(
        count >= KIND_RULES.get(kind, _LATER_KIND).limit
        for (kind, _), count in counts.items()
        if kind != Kind.ATTEMPTED
    )


def next_check(clip: Clip, now: int, times: Timings) -> int | None:
    """Returns the time of the clip's next check, in milliseconds, or None if no check can add a fact.

    It is soon while the purchase is unconfirmed, after the usual render time while the clip renders, then at growing
    intervals: each pause is a quarter of the elapsed time. So a lost webhook costs a few polls and a stuck clip not
    many more. A clip in review has the time at which its review began, by which operators list it, unless one of them
    has requested a check.
    """
    kind, decision = clip.decisive, clip.decision
    if clip.has(Kind.ERASED):
        return None
    if kind is None or decision is None:
        return _next_unconfirmed_check(clip, now, times)
    since = min(record.at for record in clip.of(kind).values())
    if decision.needs_review and clip.asked_at is not None:
        return _after_pause(clip.asked_at, now, times)
    if decision.needs_review and not clip.open:
        return since
    if clip.awaits_fallback:
        is_leased = clip.lease is not None and clip.lease.until > now
        return clip.lease.until if clip.lease and is_leased else now + times.check
    if not clip.open or decision.look is None:
        return None
    match decision.look:
        case FirstCheck.SOON:
            return _after_pause(since, now, times)
        case FirstCheck.AFTER_RENDER:
            return max(since + times.usual_render, _after_pause(since, now, times))
        case FirstCheck.LAST:
            last_look = since + times.last_look
            return last_look if last_look > now else _after_pause(last_look, now, times)


def refresh_derived(clip: Clip, now: int, times: Timings) -> Clip:
    """Returns the clip with its derived fields computed anew: call it once, before saving."""
    return replace(clip, budgeted=billable_amount(clip), next_check_at=next_check(clip, now, times))


def defer_budget(clip: Clip, now: int, times: Timings) -> Clip:
    """Returns the clip with its budgets unchanged and a check soon, which corrects them even if the clip is closed."""
    return replace(clip, next_check_at=now + times.check)


def lease_to(clip: Clip, holder: str, now: int, times: Timings, account: str) -> Clip | None:
    """Returns the clip with a lease of `holder`, or None if it must not be sent into this account now.

    An expired lease belongs to a buyer that recorded no outcome, so that attempt is permanently ambiguous.
    """
    if clip.lease and clip.lease.until > now:
        return None
    expired = expire_lease(clip, now)
    if sent_to_other_account(expired, account):
        return None
    return replace(expired, lease=Lease(holder, now, now + times.lease, account))


def sent_to_other_account(clip: Clip, account: str) -> bool:
    """True if an attempt may have bought the clip in another account, where polls of this one cannot find it."""
    return clip.possibly_sent_to not in ("", account)


def expire_lease(clip: Clip, now: int) -> Clip:
    """Returns the clip with an expired lease replaced by an ambiguous attempt, whose outcome was not recorded."""
    if clip.lease is None or clip.lease.until > now:
        return clip
    evidence = Fact(kind=Kind.ATTEMPTED, key="ambiguous: no outcome recorded", at=now, source=FactSource.CLOCK)
    return merge(replace(mark_possibly_sent(clip, clip.lease.since, clip.lease.account), lease=None), evidence)


def release(clip: Clip, holder: str) -> Clip:
    """Returns the clip without `holder`'s lease; the lease of another holder stays."""
    return replace(clip, lease=None) if clip.lease and clip.lease.holder == holder else clip


def mark_possibly_sent(clip: Clip, at: int, account: str = "") -> Clip:
    """Returns the clip with an ambiguous attempt at `at`. The earliest one is kept permanently."""
    if clip.possibly_sent_at is None:
        return replace(clip, possibly_sent_at=at, possibly_sent_to=account)
    return replace(clip, possibly_sent_at=min(at, clip.possibly_sent_at))


def fall_over(clip: Clip, now: int, times: Timings) -> tuple[Clip, Clip] | None:
    """Returns the clip closed, and the next model's clip in its place; None unless that one may be bought now.

    Both are to be saved in one transaction. Its UUID was chosen with the order, so that a repeat can only record the
    same clip. The new clip stays in the budgets of the old one's month, which hold its amount.
    """
    if clip.chain is None or not clip.awaits_fallback or clip.lease is not None:
        return None
    following, *rest = clip.chain.rest
    superseded = Fact(
        kind=Kind.SUPERSEDED,
        key=following.clip_uuid,
        at=now,
        source=FactSource.CLOCK,
        fields={"model": following.model},
    )
    successor = Clip(
        caller=clip.caller,
        task_uuid=clip.task_uuid,
        index=clip.index + SLOTS,
        clip_uuid=following.clip_uuid,
        object_key=following.object_key,
        estimate=following.estimate,
        month=clip.month,
        created_at=now,
        chain=clip.chain._replace(model=following.model, rest=tuple(rest)),
        facts={name: record for name, record in clip.facts.items() if name[0] == Kind.FALLBACK},
    )
    reason = min(clip.of(clip.decisive or Kind.FAILED).items(), key=lambda item: (item[1].at, item[0]))[0]
    fallback = Fact(
        kind=Kind.FALLBACK,
        key=clip.clip_uuid,
        at=now,
        source=FactSource.CLOCK,
        fields={"model": clip.chain.model, "code": reason},
    )
    return refresh_derived(merge(clip, superseded), now, times), refresh_derived(merge(successor, fallback), now, times)


def answered_facts(clip: Clip, now: int, reason: str) -> list[Fact]:
    """Returns the facts that the requested checks have taken place, with their result as `reason`."""
    return [
        Fact(kind=Kind.ANSWERED, key=key, at=now, source=FactSource.CLOCK, fields={"reason": reason})
        for key in clip.of(Kind.ASKED).keys() - clip.of(Kind.ANSWERED).keys()
    ]


def _is_about_the_model(reason: FactRecord, chain: Chain) -> bool:
    """True if this refusal or failure concerns the model, so that another one may succeed."""
    category = reason.fields.get("category")
    is_excluded = category in _IN_DOUBT or (category == Category.SAFETY and not chain.on_moderation)
    return not (is_excluded or FactSource.CLOCK in reason.seen or is_account_failure(reason.fields))


def _without_texts(clip: Clip) -> Clip:
    """The clip without the provider's messages, which may quote the prompt, and without its render's URL."""
    facts = {
        (kind, key): FactRecord(
            {
                source: claim._replace(fields=_redacted(kind, key, claim.fields))
                for source, claim in record.claims.items()
            }
        )
        for (kind, key), record in clip.facts.items()
    }
    return clip if facts == clip.facts else replace(clip, facts=facts)


def _redacted(kind: str, key: str, fields: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    if kind in _IMMUTABLE:  # compared as a whole, and without texts
        return fields
    redacted = {name: value for name, value in fields.items() if name != "videoURL"}
    if "message" in redacted:
        redacted["message"] = _ERASED_TEXT
    if "error" in redacted:  # still the response to a repeat of a refused request
        redacted["error"] = canonical({"code": key, "message": _ERASED_TEXT})
    return redacted


def _source(source: str, fields: Mapping[str, Scalar]) -> str:
    return _RESCUE if fields.get("rescued") else str(source)


def _join(kind: Kind, one: Claim, other: Claim) -> Claim:
    if kind in _IMMUTABLE:
        return min(one, other, key=lambda claim: (claim.at, canonical(claim.fields)))
    return Claim(min(one.at, other.at), _join_fields(one.fields, other.fields))


def _join_fields(*several: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Of two values for a field the one with the smaller canonical text is kept; of two costs the larger."""
    joined: dict[str, Scalar] = {}
    for fields in several:
        for name, value in fields.items():
            if name not in joined:  # the usual case: one source's value alone needs no canonical text
                joined[name] = value
            elif name == "cost":
                joined[name] = max(joined[name], value)
            else:
                joined[name] = min(joined[name], value, key=canonical)
    return joined


def _bounded(facts: Facts, kind: Kind, source: str) -> Facts:
    """Returns the facts without the claims of `source` beyond its limit for `kind`.

    The smallest keys of a kind are kept, or the earliest claims of an immutable one. Both rules are associative,
    commutative and idempotent. They would not be with an earliest claim whose fields were joined: see `_join`.
    """
    claims = [
        (record.claims[source].at, key)
        for (other, key), record in facts.items()
        if other == kind and source in record.claims
    ]
    if len(claims) <= KIND_RULES[kind].limit:
        return facts
    _, key = max(claims, key=lambda claim: claim if kind in _IMMUTABLE else claim[1:])
    remaining = {other: claim for other, claim in facts[kind, key].claims.items() if other != source}
    rest = {name: record for name, record in facts.items() if name != (kind, key)}
    return {**rest, (kind, key): FactRecord(remaining)} if remaining else rest


def _next_unconfirmed_check(clip: Clip, now: int, times: Timings) -> int:
    """The time of an unconfirmed purchase's next check: after its buyer's lease, if it has one."""
    if clip.lease and clip.lease.until > now:
        return clip.lease.until
    # Jitter from the clip's UUID, so that clips which failed together are not all retried together.
    at = _after_pause(clip.created_at, now, times)
    return at + (at - now) * int(clip.clip_uuid[:2], 16) // 1024


def _after_pause(since: int, now: int, times: Timings) -> int:
    return now + max(times.check, (now - since) // 4)

"""A clip is its immutable order plus a set of facts; everything else about it is derived here.

Pure: no I/O, no clock. Facts form a semilattice: joining them is commutative, associative and idempotent, so the same
facts in any order, with any repeats, end in the same record. Status, money and the next check follow from the facts.
Times are integer milliseconds since the epoch, money is integer micro-dollars.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from rushes.config import Timings

Scalar: TypeAlias = str | int | bool
EVERYBODY = "all"  # the budget scope that holds every caller's clips


class Kind(StrEnum):
    """What a fact says. The last three prove nothing about the clip's fate and have no rank."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNPROVEN = "unproven"
    FAILED = "failed"
    RENDERED = "rendered"
    UNSAVED = "unsaved"
    GIVEN_UP = "givenUp"  # a person has decided that nobody waits for a rendered clip's copy any longer
    STORED = "stored"
    ATTEMPTED = "attempted"  # evidence: how an attempt to buy ended that proved nothing
    LAST_LOOK = "lastLook"  # bucket and provider were asked once more after a failure
    DETAILS_UNKNOWN = "detailsUnknown"  # stored, and nobody can tell the render's details any more


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


RANKED: Mapping[Kind, tuple[int, Status]] = {
    Kind.REFUSED: (5, Status.FAILED),
    Kind.ACCEPTED: (10, Status.RUNNING),
    Kind.UNPROVEN: (20, Status.REVIEW),
    Kind.FAILED: (30, Status.FAILED),
    Kind.RENDERED: (40, Status.RENDERED),
    Kind.UNSAVED: (45, Status.REVIEW),
    Kind.GIVEN_UP: (47, Status.FAILED),
    Kind.STORED: (50, Status.STORED),
}

# Kinds whose keys are the provider's own words. Only the smallest few are kept, or a provider gone wild could grow an
# item past what the table can hold. "The k smallest of a union" is itself associative, commutative and idempotent.
_WORDED = {Kind.REFUSED, Kind.ACCEPTED, Kind.FAILED, Kind.ATTEMPTED}
_MOST_WORDED = 8
_EXACT = 2**53  # up to here every integer is a float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing learned: `key` tells apart what may be true several times, such as two renders by their `videoUUID`."""

    kind: Kind
    key: str = ""
    at: int
    witness: Witness
    fields: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known under one kind and key: who saw it and when first, and its fields."""

    seen: Mapping[Witness, int]
    fields: Mapping[str, Scalar]

    @property
    def at(self) -> int:
        """When it was first learned."""
        return min(self.seen.values())


Facts: TypeAlias = Mapping[tuple[Kind, str], Known]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send this clip's order, exclusive until `until`. Left behind, it means: may have been sent."""

    holder: str
    since: int
    until: int


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
    lease: Lease | None = None
    next_check_at: int | None = None
    counted: int = 0
    version: int = 1

    @property
    def scopes(self) -> tuple[str, str]:
        """The budgets that this clip counts in."""
        return EVERYBODY, self.caller

    @property
    def decisive(self) -> Kind | None:
        """The kind of the highest rank among the facts, or None while nothing is known."""
        ranked = [kind for kind, _ in self.facts if kind in RANKED]
        return max(ranked, key=lambda kind: RANKED[kind][0], default=None)

    @property
    def status(self) -> Status:
        kind = self.decisive
        return RANKED[kind][1] if kind else Status.PENDING

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
        match self.decisive:
            case Kind.UNPROVEN | Kind.UNSAVED | Kind.REFUSED | Kind.GIVEN_UP:
                return False
            case Kind.FAILED:
                return not self.has(Kind.LAST_LOOK)
            case Kind.STORED:
                return not (self.has(Kind.RENDERED) or self.has(Kind.DETAILS_UNKNOWN))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a caller asked for: the request as sent, and the fingerprint that tells a repeat from a conflict.

    `expires_at` is when the table may drop the request; what is left then has none and still knows the fingerprint.
    """

    caller: str
    task_uuid: str
    request: Mapping[str, Any]
    fingerprint: str
    clips: int
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A recorded task with its clips. `position` is where it stands among its caller's tasks."""

    task: Task
    clips: tuple[Clip, ...]
    position: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a caller's tasks, newest first. The next page begins after the position `end`; None: there is none."""

    found: tuple[Found, ...]
    end: str | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one clip counts against its caller's budget, in micro-dollars, and what it can be summed by.

    Tags go when a task is forgotten. `model` is empty for clips that were ordered before it was kept beside the money.
    """

    caller: str
    task_uuid: str
    index: int
    created_at: int
    counted: int
    model: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Costs:
    """What some of a caller's clips count, newest first. The next page begins after the position `end`, if any."""

    found: tuple[Cost, ...]
    end: str | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money to be set aside in one scope's month, only if the sum stays within `limit`.

    `enforced` is the limit that the month's item is believed to hold; the reservation fails if it holds another, so
    that nobody buys on a limit that has been changed. On success the item holds `limit`.
    """

    scope: str
    month: str
    amount: int
    limit: int
    enforced: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """The task, its clips and their money are in the table."""


@dataclass(frozen=True, slots=True)
class Existing:
    """The caller has a task under this UUID already; nothing was written."""

    task: Task


@dataclass(frozen=True, slots=True)
class OverBudget:
    """The scope's month cannot hold the amount; nothing was written."""

    scope: str
    limit: int
    counted: int


def merge(clip: Clip, fact: Fact) -> Clip:
    """The clip, knowing one thing more; the clip itself when it knew already."""
    name = (fact.kind, fact.key)
    news = Known({fact.witness: fact.at}, dict(fact.fields))
    old = clip.facts.get(name)
    joined = _join(old, news) if old else news
    if joined == old:
        return clip
    facts = _bounded({**clip.facts, name: joined}, fact.kind)
    return clip if facts == clip.facts else replace(clip, facts=facts)


def merge_all(clip: Clip, facts: Iterable[Fact]) -> Clip:
    """`merge`, fact by fact."""
    for fact in facts:
        clip = merge(clip, fact)
    return clip


def worth(clip: Clip) -> int:
    """What this clip costs, as far as the facts tell, in micro-dollars: the sum that the budgets should hold for it.

    Every distinct render counts, at its reported cost or else the estimate. Without one, the estimate counts unless
    it is known that nothing was bought: refused, or failed and nothing came to light at the last look.
    """
    renders = clip.of(Kind.RENDERED)
    if renders:
        return sum(_cost(known, clip.estimate) for known in renders.values())
    if clip.decisive == Kind.REFUSED or (clip.decisive == Kind.FAILED and clip.has(Kind.LAST_LOOK)):
        return 0
    return clip.estimate


def next_check(clip: Clip, now: int, times: Timings) -> int | None:
    """When this clip should be looked at again, or None when nothing more can be learned.

    Soon while the purchase is unconfirmed, after the usual render time while it renders, then at growing intervals:
    each pause is a quarter of what has passed, so that a lost webhook costs a few polls and a stuck clip not many more.
    A clip in review is listed at the time it was parked, for people.
    """
    match clip.decisive:
        case Kind.UNPROVEN | Kind.UNSAVED as kind:
            return clip.learned_at(kind)
        case _ if not clip.open:
            return None
        case None if clip.lease and clip.lease.until > now:
            return clip.lease.until
        case None:
            # Spread by the clip's own UUID, so that a crowd which failed together does not come back together.
            pause = _pause(clip.created_at, now, times)
            return pause + (pause - now) * int(clip.clip_uuid[:2], 16) // 1024
        case Kind.ACCEPTED as kind:
            since = _first(clip, kind)
            return max(since + times.usual_render, _pause(since, now, times))
        case Kind.FAILED as kind:
            last_look = _first(clip, kind) + times.last_look
            return last_look if last_look > now else _pause(last_look, now, times)
        case kind:
            return _pause(_first(clip, kind), now, times)


def settle(clip: Clip, now: int, times: Timings) -> Clip:
    """The clip with everything derived brought up to date: call it once, before saving."""
    return replace(clip, counted=worth(clip), next_check_at=next_check(clip, now, times))


def lease_to(clip: Clip, holder: str, now: int, times: Timings) -> Clip | None:
    """The clip with the right to send it given to `holder`, or None while somebody else has it.

    A lease left behind belongs to a buyer whose answer was never recorded: that attempt is ambiguous for ever.
    """
    if clip.lease and clip.lease.until > now:
        return None
    return replace(taken_over(clip, now), lease=Lease(holder, now, now + times.lease))


def taken_over(clip: Clip, now: int) -> Clip:
    """The clip with a lease that ran out turned into what it means: an attempt whose answer nobody recorded."""
    if clip.lease is None or clip.lease.until > now:
        return clip
    evidence = Fact(kind=Kind.ATTEMPTED, key="ambiguous: no outcome recorded", at=now, witness=Witness.CLOCK)
    return merge(replace(maybe_sent(clip, clip.lease.since), lease=None), evidence)


def release(clip: Clip, holder: str) -> Clip:
    """The clip without `holder`'s lease; anybody else's stays."""
    return replace(clip, lease=None) if clip.lease and clip.lease.holder == holder else clip


def maybe_sent(clip: Clip, at: int) -> Clip:
    """The clip, with an attempt at `at` that may have bought it. The earliest one stands, and nothing unsays it."""
    return replace(clip, maybe_sent_at=at if clip.maybe_sent_at is None else min(at, clip.maybe_sent_at))


def due_for_parking(clip: Clip, now: int, times: Timings) -> bool:
    """Whether a clip that was certainly bought has been waited for long enough."""
    return now >= _first(clip, Kind.ACCEPTED) + times.deadline


def month_of(at: int) -> str:
    """The month (UTC) whose budgets hold what is ordered at this time."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m")


def task_status(clips: Iterable[Clip]) -> Status:
    """Where a whole task stands."""
    members = list(clips)
    states = {clip.status for clip in members}
    if states & {Status.PENDING, Status.RUNNING, Status.RENDERED}:
        return Status.RUNNING
    if Status.REVIEW in states:
        return Status.REVIEW
    if states == {Status.STORED}:
        return Status.SUCCEEDED
    return Status.FAILED if states == {Status.FAILED} else Status.PARTIAL


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, whole floats as integers (5.0 and 5 are one number).

    Floats beyond 2**53 stay floats: there not every integer is a float, and 1e308 would become 309 digits.
    """
    return json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_whole(member) for member in value]
    return value


def _join(one: Known, other: Known) -> Known:
    seen = {
        witness: min(known.seen[witness] for known in (one, other) if witness in known.seen)
        for witness in {*one.seen, *other.seen}
    }
    return Known(seen, {name: _join_field(name, one, other) for name in {*one.fields, *other.fields}})


def _join_field(name: str, one: Known, other: Known) -> Scalar:
    values = [known.fields[name] for known in (one, other) if name in known.fields]
    return max(values) if name == "cost" else min(values, key=canonical)


def _bounded(facts: Facts, kind: Kind) -> Facts:
    keys = sorted(key for other, key in facts if other == kind)
    if kind not in _WORDED or len(keys) <= _MOST_WORDED:
        return facts
    return {name: known for name, known in facts.items() if name != (kind, keys[-1])}


def _cost(render: Known, estimate: int) -> int:
    cost = render.fields.get("cost")
    return cost if isinstance(cost, int) else estimate


def _first(clip: Clip, kind: Kind) -> int:
    at = clip.learned_at(kind)
    return clip.created_at if at is None else at


def _pause(since: int, now: int, times: Timings) -> int:
    return now + max(times.check, (now - since) // 4)

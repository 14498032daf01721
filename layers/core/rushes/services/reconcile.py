"""The use case behind the schedule: which clips are due, and what to do about each.

Nothing depends on a webhook. Every open clip lies in the index under the time of its next look; a sweep takes the
oldest, moves each forward before it works on it, asks the witnesses, and learns what they say. It may run twice at
once and die anywhere: what is moved forward comes back, and what is learned is merged under a version condition.

The rules of sending again are design decisions about money; they stand in `_resolve_uncertain_purchase`,
and nowhere else. The end of a clip's patience is one rule, too: `_is_over`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from rushes.config import WhenAmbiguous
from rushes.domain.clip import (
    Clip,
    Fact,
    FactSource,
    Kind,
    Scalar,
    answered_facts,
    expire_lease,
    lease_to,
    merge_all,
    refresh_derived,
    sent_to_other_account,
)
from rushes.domain.media import ProbeResult, stored_fact
from rushes.domain.timings import Timings
from rushes.errors import (
    BucketError,
    BusyError,
    OriginRefusedError,
    ProviderError,
    RescueError,
    StaleError,
    UnreadableClipError,
    UnusableRenderError,
)
from rushes.runware.facts import details_facts, is_account_refusal, poll_facts
from rushes.runware.outcome import Ambiguous, NeverArrived
from rushes.runware.response import LookupResponse
from rushes.services.ports import (
    ClipObjects,
    ConcurrentMap,
    Metric,
    RunwareLookups,
    TaskTable,
    Telemetry,
    VideoTransfer,
)
from rushes.services.purchase import Buyer, PurchaseService
from rushes.services.update_clip import report_overruns, save, update_clip

T = TypeVar("T")
R = TypeVar("R")

BATCH = 100  # clips taken from the index at a time
MAX_POLLED = 50  # clips asked about in one request
_MAX_FAILURES = 3  # failures of Runware in a row after which a sweep leaves it alone
_MAX_REFUSED = 16  # shared questions that a sweep asks again in parts, after Runware has turned them away as a whole
_KEY = re.compile(r"videos/(?P<caller>[^/]+)/.+/(?P<task>[0-9a-f-]{36})-(?P<clip>[0-3])\.[a-z0-9]+")


@dataclass(slots=True)
class Sweep:
    """One sweep: who buys in it, how often in a row Runware has failed it, and how much it may be asked at once."""

    buyer: Buyer
    failures: int = 0
    max_polled: int = MAX_POLLED
    refused: int = 0  # shared questions that were turned away as a whole

    @property
    def gave_up(self) -> bool:
        """When Runware is down, a sweep that went on asking would only hammer it."""
        return self.failures >= _MAX_FAILURES

    def count_result(self, failed: bool) -> None:
        self.failures = self.failures + 1 if failed else 0


@dataclass(slots=True)
class LookupResult:
    """What the witnesses said of one clip.

    `asked`: there was time to ask them. `unanswered` names those that gave no answer. `all_absent`: all of them
    answered that they know nothing. `at_work`: `getResponse` knows the clip and names neither render nor failure.
    """

    facts: list[Fact] = field(default_factory=list)
    asked: bool = True
    unanswered: list[str] = field(default_factory=list)
    all_absent: bool = True
    at_work: bool = False

    @property
    def answered(self) -> bool:
        return not self.unanswered

    def has(self, kind: Kind) -> bool:
        return any(fact.kind == kind for fact in self.facts)

    def add_response(self, report: LookupResponse | None, clip_uuid: str) -> None:
        """Runware's answer, None if there is none: the clip is absent only if every answer confirms that."""
        self.all_absent &= report is not None and report.confirms_absent(clip_uuid)

    @property
    def summary(self) -> str:
        """For people, why this decided nothing more."""
        if self.unanswered:
            return f"no answer from {' and '.join(self.unanswered)}"
        if self.at_work:
            return "Runware has it and names no end"
        return "every witness denies it" if self.all_absent else "no witness knows its end"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileService:
    """The use case with its adapters. `clock` gives milliseconds."""

    table: TaskTable
    bucket: ClipObjects
    provider: RunwareLookups
    rescuer: VideoTransfer
    purchase_service: PurchaseService
    telemetry: Telemetry
    times: Timings
    when_ambiguous: WhenAmbiguous
    clock: Callable[[], int]
    concurrent_map: ConcurrentMap

    def sweep(self, buyer: Buyer) -> int:
        """Works on due clips, oldest first, until none is left or the time is up. Returns how many it took."""
        run, taken = Sweep(buyer), 0
        passed: set[tuple[str, str, int]] = set()  # named by the index, which may lag behind, and not to be had
        while self._has_time(run):
            most = BATCH + len(passed)
            named = self.table.due(self.clock(), most)
            due = list(dict.fromkeys(name for name in named if name not in passed))
            claims = self.concurrent_map(self._isolated(self._claim), due)
            passed |= {name for name, clip in zip(due, claims, strict=True) if clip is None}
            claimed = [clip for clip in claims if clip]
            if not claimed and len(named) < most:
                break
            taken += len(claimed)
            self._work(claimed, run)
        return taken

    def uploaded(self, object_key: str, version: str) -> None:
        """Looks at one object that S3 says was created, in whatever status its clip is.

        At that very version: one that was put over it meanwhile has an event of its own, and may be worth nothing.
        """
        named = _KEY.fullmatch(object_key)
        clip = self.table.clip(named["caller"], named["task"], int(named["clip"])) if named else None
        if clip is None or clip.object_key != object_key:
            self.telemetry.log("an object that no clip waits for", warn=True, key=object_key)
        elif version not in clip.of(Kind.STORED):
            copy = stored_fact(self.bucket.probe(object_key, version), object_key, self.clock())
            if copy:
                self._update(clip, [copy])

    def _may_ask(self, run: Sweep) -> bool:
        """Whether a question to Runware, or an order, can still be answered in time."""
        return self.clock() + self.times.http <= run.buyer.ends_at

    def _has_time(self, run: Sweep) -> bool:
        return self.clock() + 2 * self.times.http <= run.buyer.ends_at

    def _claim(self, key: tuple[str, str, int]) -> Clip | None:
        """Takes a clip if it is due in truth, moving it forward first, so that one poison clip blocks no other."""
        try:
            clip, now = self.table.clip(*key), self.clock()
        except UnreadableClipError:
            self._set_aside(key)
            return None
        if (
            clip is None
            or clip.next_check_at is None
            or clip.next_check_at > now
            or (clip.budget_is_current and not clip.open)
        ):
            return None
        saved = save(self.table, clip, expire_lease(clip, now), now=now, times=self.times)
        report_overruns(self.table, clip, saved, self.telemetry)
        return saved

    def _set_aside(self, key: tuple[str, str, int]) -> None:
        """Moves a clip that this version cannot read out of the others' way; later it is tried again."""
        now = self.clock()
        self.table.postpone(key, now, now + self.times.last_look)
        self.telemetry.count(Metric.UNREADABLE_CLIPS)
        self.telemetry.log("a clip that this version cannot read", warn=True, which=str(key))

    def _isolated(self, work: Callable[[T], R]) -> Callable[[T], R | None]:
        """The same work, but what goes wrong with one clip is noted and stays with that clip."""

        def attempt(item: T) -> R | None:
            try:
                return work(item)
            except StaleError:
                return None  # somebody else is on it
            except Exception as error:  # whatever it is, the other clips are not to blame
                reason = f"{type(error).__name__}: {error}"
                self.telemetry.log("a clip could not be looked at", warn=True, reason=reason, which=str(item)[:300])
                return None

        return attempt

    def _work(self, clips: Sequence[Clip], run: Sweep) -> None:
        running = [clip for clip in clips if clip.decisive == Kind.ACCEPTED]
        others = [clip for clip in clips if clip.decisive != Kind.ACCEPTED]
        reported = self._poll_together([clip.clip_uuid for clip in running], run)

        def look(clip: Clip) -> None:
            self._look(clip, run, reported.get(clip.clip_uuid))

        self.concurrent_map(self._isolated(look), [*running, *others])

    def _poll_together(self, uuids: Sequence[str], run: Sweep) -> dict[str, LookupResponse | None]:
        """The poll's answer for each of these clips, asked for in as few questions as Runware takes.

        One clip can spoil a question for the others, and so can their number. A question that was turned away as a
        whole is asked again without those that the answer names, or else in halves; when both halves are answered
        their size is the most for the rest of the sweep.
        """
        if len(uuids) > run.max_polled:
            parts = [uuids[start : start + run.max_polled] for start in range(0, len(uuids), run.max_polled)]
            return {uuid: report for part in parts for uuid, report in self._poll_together(part, run).items()}
        if not uuids:
            return {}
        report = self._polled(uuids, run)
        found: dict[str, LookupResponse | None] = dict.fromkeys(uuids, report)
        left = [uuid for uuid in uuids if report and report.rejected_whole and not report.answers(uuid)]
        if not left or len(uuids) == 1 or run.refused >= _MAX_REFUSED:
            return found
        run.refused += 1
        if len(left) < len(uuids):
            return found | self._poll_together(left, run)
        half = (len(uuids) + 1) // 2
        halves = self._poll_together(uuids[:half], run), self._poll_together(uuids[half:], run)
        if all(answer and not answer.rejected_whole for part in halves for answer in part.values()):
            run.max_polled = min(run.max_polled, half)
        return halves[0] | halves[1]

    def _look(self, clip: Clip, run: Sweep, report: LookupResponse | None) -> None:
        """What one clip needs. Out of time, it is left for the next sweep: it has been moved forward."""
        if self.clock() > run.buyer.ends_at:
            return
        match clip.decisive:
            case None:
                self._resolve_uncertain_purchase(clip, run)
            case Kind.ACCEPTED:
                self._follow(clip, report, run)
            case Kind.RENDERED | Kind.UNDELIVERED:
                self._save_copy(clip, run)
            case Kind.FAILED:
                self._look_last(clip, run)
            case Kind.STORED:
                self._complete(clip, run)
            case Kind.UNPROVEN | Kind.UNSAVED:
                self._look_again(clip, run)

    def _is_over(self, since: int, limit: int, lookup: LookupResult) -> bool:
        """The one rule for giving up: past the limit once every witness has answered, or else past the hard limit.

        Never without having had the time to ask about this clip alone.
        """
        patience = limit if lookup.answered else self.times.hard(limit)
        return lookup.asked and self.clock() >= since + patience

    def _resolve_uncertain_purchase(self, clip: Clip, run: Sweep) -> None:
        """A clip of which nobody knows whether it was bought. The one place where a clip may be sent again.

        Without an attempt that may have arrived there is nothing to ask: send, or at the deadline give up for certain.
        With one, every witness must deny the clip before it is sent again, and only while that attempt is younger than
        the resend window. The lease is taken under the version that was read before the witnesses were asked: if any
        of them, or anybody else, reports meanwhile, the version has moved and nothing is sent.

        A fact of a kind that only a later version knows may mean anything: such a clip is in doubt and never sent.
        """
        now = self.clock()
        if clip.possibly_sent_at is None and not clip.has_unknown_kinds:
            if now >= clip.created_at + self.times.deadline:
                self._update(clip, [_given_up(now)])
            else:
                self._buy(clip, run)
            return
        lookup = self._ask(clip, run)
        if lookup.facts:
            self._update(clip, lookup.facts)
        elif self._is_over(clip.created_at, self.times.deadline, lookup):
            where = " in another Runware account" if sent_to_other_account(clip, run.buyer.credentials.account) else ""
            doubt = (
                "a later version knows more of it" if clip.has_unknown_kinds else f"an attempt may have arrived{where}"
            )
            reason = f"{doubt}: {lookup.summary}"
            self._update(clip, [_needs_review(Kind.UNPROVEN, reason, self.clock())])
        elif lookup.all_absent and not clip.has_unknown_kinds and self.when_ambiguous == "resend":
            self._buy(clip, run)

    def _buy(self, clip: Clip, run: Sweep) -> None:
        """Sends a clip under a lease, taken over exactly the version in hand.

        The lease begins when the resend window is judged, so that a repeat takes effect within the two together.
        """
        task = self.table.task(clip.caller, clip.task_uuid)
        now = self.clock()
        late = clip.possibly_sent_at is not None and now >= clip.possibly_sent_at + self.times.resend_window
        leased = lease_to(clip, run.buyer.holder, now, self.times, run.buyer.credentials.account)
        if task is None or late or leased is None or run.gave_up or not self._may_ask(run):
            return
        try:
            saved = self.table.save(clip, refresh_derived(leased, now, self.times))
        except BusyError as error:
            if error.possibly_written:  # a lease left behind would count as an attempt
                self.purchase_service.give_back(leased, run.buyer)
            raise
        _, outcome = self.purchase_service.attempt(saved, task.request, run.buyer)
        if outcome:
            run.count_result(failed=isinstance(outcome, Ambiguous | NeverArrived) or is_account_refusal(outcome))

    def _follow(self, clip: Clip, report: LookupResponse | None, run: Sweep) -> None:
        """A running clip. It shared its poll with others; what that does not mention is simply not known yet.

        So before it is parked it is asked about alone, or one clip that spoils the poll would hide all others.
        """
        now = self.clock()
        facts = self._facts_of(report, clip, now) + self._copy_of(clip, now)
        since = clip.first_seen_at(Kind.ACCEPTED) or clip.created_at
        if now >= since + self.times.deadline and merge_all(clip, facts).decisive == Kind.ACCEPTED:
            lookup = self._ask(clip, run)
            facts += lookup.facts
            is_running = merge_all(clip, facts).decisive == Kind.ACCEPTED
            if is_running and self._is_over(since, self.times.deadline, lookup):
                facts.append(_needs_review(Kind.UNPROVEN, f"bought, and no result: {lookup.summary}", self.clock()))
        self._update(clip, facts)

    def _save_copy(self, clip: Clip, run: Sweep) -> None:
        """A render without a copy: the upload may be under way; later it is rescued; at last people decide."""
        lookup = LookupResult()
        since = clip.first_seen_at(clip.decisive or Kind.RENDERED) or clip.created_at
        self._look_for_copy(clip, run, lookup, rescue=self.clock() >= since + self.times.rescue_after)
        if not lookup.has(Kind.STORED) and self._is_over(since, self.times.copy_deadline, lookup):
            reason = "rendered, but no copy could be had by the deadline"
            if lookup.unanswered:
                reason += f": {lookup.summary}"
            lookup.facts.append(_needs_review(Kind.UNSAVED, reason, self.clock()))
        self._update(clip, lookup.facts)

    def _look_for_copy(self, clip: Clip, run: Sweep, lookup: LookupResult, *, rescue: bool) -> None:
        """Into the bucket, and else, if it is time for that, at Runware's own copy."""
        self._ask_bucket(clip, lookup)
        if rescue and not lookup.has(Kind.STORED):
            lookup.facts += self._rescue(clip, run, lookup)

    def _rescue(self, clip: Clip, run: Sweep, lookup: LookupResult) -> list[Fact]:
        """Tries the addresses on record, then what a poll says now, and keeps the reasons of what failed."""
        renders = clip.of(Kind.RENDERED).values()
        urls = {str(known.fields["videoURL"]) for known in renders if "videoURL" in known.fields}
        facts = self._fetched(clip, sorted(urls), run)
        if any(fact.kind == Kind.STORED for fact in facts):
            return facts
        report = self._ask_poll(clip, run, lookup)
        if report is None:
            return facts
        said = report.envelope.about(clip.clip_uuid)
        fresh = {result.video_url for result in said.results if result.video_url} - urls
        facts += self._fetched(clip, sorted(fresh), run)
        for data in [result.data for result in said.results if result.data]:
            facts += self._saved(clip, partial(self.rescuer.save_inline, data, clip.object_key), data)
        return facts

    def _fetched(self, clip: Clip, urls: Iterable[str], run: Sweep) -> list[Fact]:
        """The first address that holds a video is enough.

        One that gave something else is asked again only when the clip's time is over, once more before people are.
        """
        facts: list[Fact] = []
        since = clip.first_seen_at(Kind.RENDERED) or clip.created_at
        overdue = self.clock() >= since + self.times.copy_deadline
        ends_at = run.buyer.ends_at - self.times.http // 2  # the bucket has to take the last part after that
        for url in urls:
            if not overdue and any(key.endswith(_mark(url)) for key in clip.of(Kind.ATTEMPTED)):
                continue
            if not self._may_ask(run):
                break
            facts += self._saved(clip, partial(self.rescuer.fetch, url, clip.object_key, ends_at), url)
            if facts[-1].kind == Kind.STORED:
                break
        return facts

    def _saved(self, clip: Clip, save: Callable[[], ProbeResult], source: str) -> list[Fact]:
        try:
            copy = stored_fact(save(), clip.object_key, self.clock())
        except UnusableRenderError as error:
            return [_failed_rescue(f"{error} {_mark(source)}", self.clock())]
        except RescueError as error:
            if isinstance(error, OriginRefusedError):
                self.telemetry.count(Metric.RENDER_ORIGINS_REFUSED)
                self.telemetry.log(
                    "RescueOrigins lacks the origin of a render",
                    warn=True,
                    origin=error.origin,
                    clipUUID=clip.clip_uuid,
                )
            return [_failed_rescue(str(error), self.clock())]
        if copy is None:
            return [_failed_rescue("the copy in the bucket is no video", self.clock())]
        self.telemetry.count(Metric.CLIPS_RESCUED)
        return [replace(copy, fields={**copy.fields, "rescued": True})]

    def _look_last(self, clip: Clip, run: Sweep) -> None:
        """A failure is believed for good after one more look, which every witness has to answer.

        A poll that still knows the clip, and no failure of it, is not yet the last word.
        """
        lookup = self._ask(clip, run)
        limit = self.times.hard(self.times.last_look) if lookup.at_work else self.times.last_look
        if self._is_over(clip.first_seen_at(Kind.FAILED) or clip.created_at, limit, lookup):
            lookup.facts.append(Fact(kind=Kind.LAST_LOOK, at=self.clock(), source=FactSource.CLOCK))
        self._update(clip, lookup.facts)

    def _complete(self, clip: Clip, run: Sweep) -> None:
        """A stored clip whose render nobody has described yet: its seed, its cost."""
        lookup = LookupResult()
        self._ask_poll(clip, run, lookup)
        facts, since = lookup.facts, clip.first_seen_at(Kind.STORED) or clip.created_at
        is_described = merge_all(clip, facts).has(Kind.RENDERED)
        if not is_described and self._is_over(since, self.times.last_look, lookup):
            facts.append(Fact(kind=Kind.DETAILS_UNKNOWN, at=self.clock(), source=FactSource.CLOCK))
        self._update(clip, facts)

    def _look_again(self, clip: Clip, run: Sweep) -> None:
        """A clip in review that an operator wants to have looked at once more; what is learned may end the review."""
        lookup, since = LookupResult(), clip.asked_at
        if since is None:
            return
        if clip.decisive == Kind.UNSAVED:
            self._look_for_copy(clip, run, lookup, rescue=True)
        else:
            lookup = self._ask(clip, run)
        if self._is_over(since, 0, lookup):
            lookup.facts += answered_facts(clip, self.clock(), lookup.summary)
        self._update(clip, lookup.facts)

    def _ask(self, clip: Clip, run: Sweep) -> LookupResult:
        """Every witness about this clip alone: the bucket, `getResponse`, and `getTaskDetails`."""
        lookup = LookupResult()
        self._ask_bucket(clip, lookup)
        self._ask_poll(clip, run, lookup)
        # Whether this question exists for certain nobody knows: it has to be answered, be it by turning it away.
        details = self._asked(lambda key: self.provider.details(clip.clip_uuid, key), run)
        lookup.add_response(details, clip.clip_uuid)
        if details is None:
            lookup.unanswered.append("getTaskDetails")
        else:
            said = details.envelope.about(clip.clip_uuid)
            lookup.facts += details_facts(said, clip.clip_uuid, self.clock())
        return lookup

    def _ask_poll(self, clip: Clip, run: Sweep, lookup: LookupResult) -> LookupResponse | None:
        """`getResponse` about this clip alone; to be turned away is no answer."""
        lookup.asked = self._may_ask(run)
        report = self._polled([clip.clip_uuid], run)
        lookup.add_response(report, clip.clip_uuid)
        if report is None or not report.answers(clip.clip_uuid):
            lookup.unanswered.append("getResponse")
        facts = self._facts_of(report, clip, self.clock())
        lookup.at_work = any(fact.kind == Kind.ACCEPTED for fact in facts)
        lookup.facts += facts
        return report

    def _ask_bucket(self, clip: Clip, lookup: LookupResult) -> None:
        now = self.clock()
        try:
            probed = self.bucket.probe(clip.object_key)
        except BucketError:
            lookup.unanswered.append("the bucket")
            lookup.all_absent = False
            return
        if probed is None:
            return
        lookup.all_absent = False
        copy = stored_fact(probed, clip.object_key, now)
        # Even an object that is no video came through a link that only Runware was given.
        lookup.facts.append(
            copy or Fact(kind=Kind.ACCEPTED, key="an object was uploaded", at=now, source=FactSource.BUCKET)
        )

    def _facts_of(self, report: LookupResponse | None, clip: Clip, now: int) -> list[Fact]:
        if report is None:
            return []
        facts = list(poll_facts(report.envelope.about(clip.clip_uuid), now))
        if any(fact.kind == Kind.RENDERED for fact in facts) and not clip.has(Kind.RENDERED):
            self.telemetry.count(Metric.FOUND_BY_POLL)
        return facts

    def _copy_of(self, clip: Clip, now: int) -> list[Fact]:
        try:
            copy = stored_fact(self.bucket.probe(clip.object_key), clip.object_key, now)
        except BucketError:
            return []
        return [copy] if copy else []

    def _polled(self, task_uuids: Sequence[str], run: Sweep) -> LookupResponse | None:
        return self._asked(lambda key: self.provider.poll(task_uuids, key), run)

    def _asked(self, ask: Callable[[str], LookupResponse], run: Sweep) -> LookupResponse | None:
        """Runware's answer, or None when it has none or there is no time or patience left to ask for one."""
        if run.gave_up or not self._may_ask(run):
            return None
        try:
            report = ask(run.buyer.credentials.runware_key)
        except ProviderError as error:
            run.count_result(failed=True)
            self.telemetry.log("Runware could not be asked", warn=True, reason=str(error))
            return None
        run.count_result(failed=False)
        return report

    def _update(self, clip: Clip, facts: Sequence[Fact]) -> None:
        update_clip(
            self.table,
            clip,
            lambda current: merge_all(current, facts),
            now=self.clock(),
            times=self.times,
            telemetry=self.telemetry,
        )


def _given_up(now: int) -> Fact:
    """No attempt reached Runware, and nobody will try again: certainly not bought."""
    message = "Runware could not be reached, or refused our account, until the deadline. Nothing was bought."
    error = '{"code":"providerUnreachable","message":"' + message + '"}'
    fields: Mapping[str, Scalar] = {"httpStatus": 503, "category": "provider", "message": message, "error": error}
    return Fact(kind=Kind.REFUSED, key="providerUnreachable", at=now, source=FactSource.CLOCK, fields=fields)


def _failed_rescue(reason: str, now: int) -> Fact:
    return Fact(kind=Kind.ATTEMPTED, key=f"rescue failed: {reason}"[:200], at=now, source=FactSource.BUCKET)


def _mark(source: str) -> str:
    """Stands for an address in the reason of a final failure: short, and without the address's secrets."""
    return f"({hashlib.sha256(source.encode(errors='replace')).hexdigest()[:12]})"


def _needs_review(kind: Kind, reason: str, now: int) -> Fact:
    return Fact(kind=kind, at=now, source=FactSource.CLOCK, fields={"reason": reason})

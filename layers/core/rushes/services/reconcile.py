"""The use case behind the schedule: finds the clips that are due and checks each of them.

Nothing depends on a webhook. Every open clip is in an index by the time of its next check. A sweep takes the oldest
clips, postpones the next check of each before the work on it, asks the sources of facts and saves their facts. Sweeps
may overlap or be killed at any point: a postponed clip becomes due again, and saves are conditional on the version.

The rules for a second attempt are decisions about money; they are in `_resolve_uncertain_purchase` and nowhere
else. The rule for the end of waiting is in `_is_over`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rushes.config import WhenAmbiguous
from rushes.domain.clip import (
    Clip,
    Fact,
    FactSource,
    Kind,
    Scalar,
    Status,
    answered_facts,
    expire_lease,
    fall_over,
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
from rushes.runware import models
from rushes.runware.facts import details_facts, is_account_refusal, poll_facts
from rushes.runware.outcome import Ambiguous, NeverArrived
from rushes.runware.response import LookupResponse
from rushes.services.metric import Metric
from rushes.services.purchase import Buyer, PurchaseService
from rushes.services.update_clip import report_overruns, save, update_clip

if TYPE_CHECKING:
    from rushes.services.ports import ClipObjects, ConcurrentMap, RunwareLookups, TaskTable, Telemetry, VideoTransfer

T = TypeVar("T")
R = TypeVar("R")

BATCH = 100  # clips read from the index at a time
MAX_POLLED = 50  # clips in one poll
_MAX_FAILURES = 3  # consecutive failures of Runware after which a sweep stops calling it
_MAX_REFUSED = 16  # shared polls, refused as a whole, that a sweep repeats in parts
_KEY = re.compile(r"videos/(?P<caller>[^/]+)/.+/(?P<task>[0-9a-f-]{36})-(?P<clip>\d{1,2})\.[a-z0-9]+")


@dataclass(slots=True)
class Sweep:
    """The state of one sweep: its buyer, Runware's consecutive failures and the size limit of its polls."""

    buyer: Buyer
    failures: int = 0
    max_polled: int = MAX_POLLED
    refused: int = 0  # shared polls that were refused as a whole

    @property
    def is_runware_down(self) -> bool:
        """True after several consecutive failures; more requests would only add load."""
        return self.failures >= _MAX_FAILURES

    def count_result(self, failed: bool) -> None:
        self.failures = self.failures + 1 if failed else 0


@dataclass(slots=True)
class LookupResult:
    """The answers of the sources about one clip.

    `asked`: there was time to ask. `unanswered`: the names of the sources without an answer. `all_absent`: every
    source confirmed that it has nothing. `in_progress`: `getResponse` has the clip, with neither render nor failure.
    """

    facts: list[Fact] = field(default_factory=list)
    asked: bool = True
    unanswered: list[str] = field(default_factory=list)
    all_absent: bool = True
    in_progress: bool = False

    @property
    def answered(self) -> bool:
        return not self.unanswered

    def has(self, kind: Kind) -> bool:
        return any(fact.kind == kind for fact in self.facts)

    def add_response(self, response: LookupResponse | None, clip_uuid: str) -> None:
        """Adds Runware's response, None if there was none. The clip is absent only if every response confirms that."""
        self.all_absent &= response is not None and response.confirms_absent(clip_uuid)

    @property
    def summary(self) -> str:
        """The reason, for people, why the sources did not decide the clip."""
        if self.unanswered:
            return f"no answer from {' and '.join(self.unanswered)}"
        if self.in_progress:
            return "Runware reports it in progress"
        return "every source confirms its absence" if self.all_absent else "no source has its outcome"


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
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
        """Checks due clips, oldest first, until none is left or the time is up. Returns the number of clips checked."""
        run, count = Sweep(buyer), 0
        skipped: set[tuple[str, str, int]] = set()  # listed by the eventually consistent index, but not claimable
        while self._has_time_for_batch(run):
            limit = BATCH + len(skipped)
            listed = self.table.due(self.clock(), limit)
            due = list(dict.fromkeys(key for key in listed if key not in skipped))
            claims = self.concurrent_map(self._isolated(self._claim), due)
            skipped |= {key for key, clip in zip(due, claims, strict=True) if clip is None}
            claimed = [clip for clip in claims if clip]
            if not claimed and len(listed) < limit:
                break
            count += len(claimed)
            self._check_all(claimed, run)
        return count

    def check_upload(self, object_key: str, version: str) -> None:
        """Probes one created object, as S3's event names it, whatever the status of its clip.

        It probes exactly this object version: a later one has an event of its own and may not be a video.
        """
        match = _KEY.fullmatch(object_key)
        clip = self.table.clip(match["caller"], match["task"], int(match["clip"])) if match else None
        if clip is None or clip.object_key != object_key:
            self.telemetry.log("uploaded object belongs to no clip", warn=True, key=object_key)
        elif version not in clip.of(Kind.STORED):
            copy = stored_fact(self.bucket.probe(object_key, version), object_key, self.clock())
            if copy:
                self._update(clip, [copy])

    def _has_time_for_request(self, run: Sweep) -> bool:
        """True if one request to Runware can still end in time."""
        return self.clock() + self.times.http <= run.buyer.ends_at

    def _has_time_for_batch(self, run: Sweep) -> bool:
        return self.clock() + 2 * self.times.http <= run.buyer.ends_at

    def _claim(self, key: tuple[str, str, int]) -> Clip | None:
        """Postpones the next check of a clip and returns the clip; None if it is not due.

        The check comes after that, so a clip whose check always fails blocks no other.
        """
        try:
            clip, now = self.table.clip(*key), self.clock()
        except UnreadableClipError:
            self._postpone_unreadable(key)
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

    def _postpone_unreadable(self, key: tuple[str, str, int]) -> None:
        """Postpones a clip that this version cannot read, so that it blocks no other."""
        now = self.clock()
        self.table.postpone(key, now, now + self.times.last_look)
        self.telemetry.count(Metric.UNREADABLE_CLIPS)
        caller, task_uuid, index = key
        self.telemetry.log("clip unreadable by this version", warn=True, caller=caller, taskUUID=task_uuid, clip=index)

    def _isolated(self, work: Callable[[T], R]) -> Callable[[T], R | None]:
        """Wraps `work`: an error with one item is logged and ends as None, so that the other items continue."""

        def attempt(item: T) -> R | None:
            try:
                return work(item)
            except StaleError:
                return None  # another process works on it
            except Exception as error:  # of any kind: it must not end the other clips' checks
                reason = f"{type(error).__name__}: {error}"
                self.telemetry.log("clip check failed", warn=True, reason=reason, item=str(item)[:300])
                return None

        return attempt

    def _check_all(self, clips: Sequence[Clip], run: Sweep) -> None:
        clips = [clip for clip in clips if not clip.erased_at]  # only their budgets were due
        running = [clip for clip in clips if clip.decisive == Kind.ACCEPTED]
        others = [clip for clip in clips if clip.decisive != Kind.ACCEPTED]
        responses = self._poll_together([clip.clip_uuid for clip in running], run)

        def check(clip: Clip) -> None:
            self._check(clip, run, responses.get(clip.clip_uuid))

        self.concurrent_map(self._isolated(check), [*running, *others])

    def _poll_together(self, uuids: Sequence[str], run: Sweep) -> dict[str, LookupResponse | None]:
        """The poll's response for each of these clips, in as few requests as Runware allows.

        One clip can make Runware refuse the poll of all, and so can their number. A poll that was refused as a whole is
        repeated without the clips that the response names, or else in halves. If both halves are answered, their size
        is the limit for the rest of the sweep.
        """
        if len(uuids) > run.max_polled:
            parts = [uuids[start : start + run.max_polled] for start in range(0, len(uuids), run.max_polled)]
            return {uuid: response for part in parts for uuid, response in self._poll_together(part, run).items()}
        if not uuids:
            return {}
        response = self._poll(uuids, run)
        found: dict[str, LookupResponse | None] = dict.fromkeys(uuids, response)
        left = [uuid for uuid in uuids if response and response.rejected_whole and not response.answers(uuid)]
        if not left or len(uuids) == 1 or run.refused >= _MAX_REFUSED:
            return found
        run.refused += 1
        if len(left) < len(uuids):
            return found | self._poll_together(left, run)
        half = (len(uuids) + 1) // 2
        halves = self._poll_together(uuids[:half], run), self._poll_together(uuids[half:], run)
        if all(each and not each.rejected_whole for part in halves for each in part.values()):
            run.max_polled = min(run.max_polled, half)
        return halves[0] | halves[1]

    def _check(self, clip: Clip, run: Sweep, response: LookupResponse | None) -> None:
        """Checks one clip by its decisive fact. Without time left, the clip waits for the next sweep."""
        if self.clock() > run.buyer.ends_at:
            return
        if clip.awaits_fallback:
            self._fall_over(clip)
            return
        if clip.asked_at is not None and clip.status == Status.REVIEW:
            self._check_again(clip, run)
            return
        match clip.decisive:
            case None:
                self._resolve_uncertain_purchase(clip, run)
            case Kind.ACCEPTED:
                self._check_running(clip, response, run)
            case Kind.RENDERED | Kind.UNDELIVERED:
                self._save_copy(clip, run)
            case Kind.FAILED:
                self._check_failed(clip, run)
            case Kind.STORED:
                self._check_details(clip, run)

    def _is_over(self, since: int, limit: int, lookup: LookupResult) -> bool:
        """True if waiting ends: at the limit if every source has answered, otherwise at the hard limit.

        Never before there was time to ask about this clip alone.
        """
        allowed = limit if lookup.answered else self.times.hard(limit)
        return lookup.asked and self.clock() >= since + allowed

    def _resolve_uncertain_purchase(self, clip: Clip, run: Sweep) -> None:
        """Checks a clip without proof that it was bought. The one place from which a clip may be sent again.

        If no attempt may have arrived, there is nothing to ask: the clip is sent, or closed as not bought at the
        deadline. Otherwise it is sent again only if every source confirms its absence, and within the resend window.
        The lease is taken under the version that was read before the sources were asked: a fact saved meanwhile has
        changed the version, and nothing is sent.

        A fact of a kind from a later version may mean anything: such a clip is in doubt and never sent.
        """
        now = self.clock()
        if clip.possibly_sent_at is None and not clip.has_unknown_kinds:
            if now >= clip.created_at + self.times.deadline:
                self._update(clip, [_never_reached(now)])
            else:
                self._buy(clip, run)
            return
        lookup = self._look_up(clip, run)
        if lookup.facts:
            self._update(clip, lookup.facts)
        elif self._is_over(clip.created_at, self.times.deadline, lookup):
            where = " in another Runware account" if sent_to_other_account(clip, run.buyer.credentials.account) else ""
            doubt = (
                "it has facts of a later version" if clip.has_unknown_kinds else f"an attempt may have arrived{where}"
            )
            reason = f"{doubt}: {lookup.summary}"
            self._update(clip, [_needs_review(Kind.UNPROVEN, reason, self.clock())])
        elif lookup.all_absent and not clip.has_unknown_kinds and self.when_ambiguous == "resend":
            self._buy(clip, run)

    def _buy(self, clip: Clip, run: Sweep) -> None:
        """Sends a clip under a lease, which is saved only if the clip's version has not changed.

        The lease begins at the time at which the resend window is checked, so a resend takes effect at most one lease
        after the window.
        """
        task = self.table.task(clip.caller, clip.task_uuid)
        now = self.clock()
        leased = lease_to(clip, run.buyer.holder, now, self.times, run.buyer.credentials.account)
        if task is None or leased is None or run.is_runware_down or not self._has_time_for_request(run):
            return
        air = clip.chain.model if clip.chain else task.request.get("model")
        if clip.possibly_sent_at is not None and not self._may_repeat(air, clip.possibly_sent_at, now):
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

    def _may_repeat(self, air: object, sent_at: int, now: int) -> bool:
        """True within the resend window of a model whose renders last longer than a repeat takes."""
        model = models.find(air)
        renders = model.usual_render if model else None
        return now < sent_at + self.times.resend_window and (renders or 0) > self.times.latest_repeat

    def _check_running(self, clip: Clip, response: LookupResponse | None, run: Sweep) -> None:
        """Checks a running clip. A clip that is missing in a shared poll may still be running.

        So it is asked about alone before it goes to review; otherwise one clip that fails the poll would hide all
        others.
        """
        now = self.clock()
        facts = self._facts_of(response, clip, now) + self._probe_copy(clip, now)
        since = clip.first_seen_at(Kind.ACCEPTED) or clip.created_at
        if now >= since + self.times.deadline and merge_all(clip, facts).decisive == Kind.ACCEPTED:
            lookup = self._look_up(clip, run)
            facts += lookup.facts
            is_running = merge_all(clip, facts).decisive == Kind.ACCEPTED
            if is_running and self._is_over(since, self.times.deadline, lookup):
                facts.append(_needs_review(Kind.UNPROVEN, f"bought, but no result: {lookup.summary}", self.clock()))
        self._update(clip, facts)

    def _save_copy(self, clip: Clip, run: Sweep) -> None:
        """Checks a render without a copy: waits for the upload, then rescues it, and finally sends it to review."""
        lookup = LookupResult()
        since = clip.first_seen_at(clip.decisive or Kind.RENDERED) or clip.created_at
        self._find_copy(clip, run, lookup, rescue=self.clock() >= since + self.times.rescue_after)
        if not lookup.has(Kind.STORED) and self._is_over(since, self.times.copy_deadline, lookup):
            reason = "rendered, but no copy was obtained by the deadline"
            if lookup.unanswered:
                reason += f": {lookup.summary}"
            lookup.facts.append(_needs_review(Kind.UNSAVED, reason, self.clock()))
        self._update(clip, lookup.facts)

    def _find_copy(self, clip: Clip, run: Sweep, lookup: LookupResult, *, rescue: bool) -> None:
        """Probes the bucket; if it has no copy, and `rescue` is set, fetches Runware's own."""
        self._probe_bucket(clip, lookup)
        if rescue and not lookup.has(Kind.STORED):
            lookup.facts += self._rescue(clip, run, lookup)

    def _rescue(self, clip: Clip, run: Sweep, lookup: LookupResult) -> list[Fact]:
        """Tries the recorded addresses, then those of a new poll. The facts include the reason of each failure."""
        renders = clip.of(Kind.RENDERED).values()
        urls = {str(render.fields["videoURL"]) for render in renders if "videoURL" in render.fields}
        facts = self._fetch(clip, sorted(urls), run)
        if any(fact.kind == Kind.STORED for fact in facts):
            return facts
        response = self._poll_alone(clip, run, lookup)
        if response is None:
            return facts
        results = response.envelope.about(clip.clip_uuid).results
        fresh = {result.video_url for result in results if result.video_url} - urls
        facts += self._fetch(clip, sorted(fresh), run)
        for data in [result.data for result in results if result.data]:
            facts += self._save_render(clip, partial(self.rescuer.save_inline, data, clip.object_key), data)
        return facts

    def _fetch(self, clip: Clip, urls: Iterable[str], run: Sweep) -> list[Fact]:
        """Tries the addresses in order and stops at the first video.

        An address with another content is tried again only once: after the copy deadline, before the clip goes to
        review.
        """
        facts: list[Fact] = []
        since = clip.first_seen_at(Kind.RENDERED) or clip.created_at
        overdue = self.clock() >= since + self.times.copy_deadline
        ends_at = run.buyer.ends_at - self.times.http // 2  # the upload of the last part comes after that
        for url in urls:
            if not overdue and any(key.endswith(_digest(url)) for key in clip.of(Kind.ATTEMPTED)):
                continue
            if not self._has_time_for_request(run):
                break
            facts += self._save_render(clip, partial(self.rescuer.fetch, url, clip.object_key, ends_at), url)
            if facts[-1].kind == Kind.STORED:
                break
        return facts

    def _save_render(self, clip: Clip, save: Callable[[], ProbeResult], source: str) -> list[Fact]:
        try:
            copy = stored_fact(save(), clip.object_key, self.clock())
        except UnusableRenderError as error:
            return [_failed_rescue(f"{error} {_digest(source)}", self.clock())]
        except RescueError as error:
            if isinstance(error, OriginRefusedError):
                self.telemetry.count(Metric.RENDER_ORIGINS_REFUSED)
                self.telemetry.log(
                    "render origin is not in RescueOrigins",
                    warn=True,
                    origin=error.origin,
                    clipUUID=clip.clip_uuid,
                )
            return [_failed_rescue(str(error), self.clock())]
        if copy is None:
            return [_failed_rescue("the copy in the bucket is not a video", self.clock())]
        self.telemetry.count(Metric.CLIPS_RESCUED)
        return [replace(copy, fields={**copy.fields, "rescued": True})]

    def _check_failed(self, clip: Clip, run: Sweep) -> None:
        """Checks a failed clip once more; every source has to answer before the failure is final.

        If the poll still has the clip without a failure, the wait goes on until the hard limit.
        """
        lookup = self._look_up(clip, run)
        limit = self.times.hard(self.times.last_look) if lookup.in_progress else self.times.last_look
        if self._is_over(clip.first_seen_at(Kind.FAILED) or clip.created_at, limit, lookup):
            # The reason is doubt, which prevents a fallback.
            in_doubt = clip.chain is not None and (lookup.in_progress or not lookup.answered)
            reason: Mapping[str, Scalar] = {"reason": lookup.summary} if in_doubt else {}
            lookup.facts.append(Fact(kind=Kind.LAST_LOOK, at=self.clock(), source=FactSource.CLOCK, fields=reason))
        saved = self._update(clip, lookup.facts)
        if saved.awaits_fallback:
            self._fall_over(saved)

    def _fall_over(self, clip: Clip) -> None:
        """Records the next model's clip, which the next sweep sends, in the transaction that closes this one.

        If the budgets stay contended, nothing is written, and the next check tries again.
        """
        now = self.clock()
        if fallback := fall_over(clip, now, self.times):
            closed, successor = fallback
            self.table.fall_over(clip, closed, successor, self.table.task(clip.caller, clip.task_uuid))
            self.telemetry.log(
                "clip superseded by the next model's",
                caller=clip.caller,
                taskUUID=clip.task_uuid,
                clip=clip.index,
                clipUUID=clip.clip_uuid,
                successor=successor.clip_uuid,
            )

    def _check_details(self, clip: Clip, run: Sweep) -> None:
        """Checks a stored clip for the details of its render: its seed and cost."""
        lookup = LookupResult()
        self._poll_alone(clip, run, lookup)
        facts, since = lookup.facts, clip.first_seen_at(Kind.STORED) or clip.created_at
        is_described = merge_all(clip, facts).has(Kind.RENDERED)
        if not is_described and self._is_over(since, self.times.last_look, lookup):
            facts.append(Fact(kind=Kind.DETAILS_UNKNOWN, at=self.clock(), source=FactSource.CLOCK))
        self._update(clip, facts)

    def _check_again(self, clip: Clip, run: Sweep) -> None:
        """Checks a clip in review again at an operator's request; new facts may end the review."""
        lookup, since = LookupResult(), clip.asked_at
        if since is None:
            return
        if clip.decisive == Kind.UNSAVED:
            self._find_copy(clip, run, lookup, rescue=True)
        else:
            lookup = self._look_up(clip, run)
        if self._is_over(since, 0, lookup):
            lookup.facts += answered_facts(clip, self.clock(), lookup.summary)
        self._update(clip, lookup.facts)

    def _look_up(self, clip: Clip, run: Sweep) -> LookupResult:
        """Asks every source about this clip alone: the bucket, `getResponse` and `getTaskDetails`."""
        lookup = LookupResult()
        self._probe_bucket(clip, lookup)
        self._poll_alone(clip, run, lookup)
        # This task type is not certain to exist at Runware, so a refusal counts as an answer here.
        details = self._call_runware(lambda key: self.provider.details(clip.clip_uuid, key), run)
        lookup.add_response(details, clip.clip_uuid)
        if details is None:
            lookup.unanswered.append("getTaskDetails")
        else:
            about_clip = details.envelope.about(clip.clip_uuid)
            lookup.facts += details_facts(about_clip, clip.clip_uuid, self.clock())
        return lookup

    def _poll_alone(self, clip: Clip, run: Sweep, lookup: LookupResult) -> LookupResponse | None:
        """Sends `getResponse` for this clip alone. A refusal does not count as an answer."""
        lookup.asked = self._has_time_for_request(run)
        response = self._poll([clip.clip_uuid], run)
        lookup.add_response(response, clip.clip_uuid)
        if response is None or not response.answers(clip.clip_uuid):
            lookup.unanswered.append("getResponse")
        facts = self._facts_of(response, clip, self.clock())
        lookup.in_progress = any(fact.kind == Kind.ACCEPTED for fact in facts)
        lookup.facts += facts
        return response

    def _probe_bucket(self, clip: Clip, lookup: LookupResult) -> None:
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
        # An object that is not a video was still uploaded through a link that only Runware has.
        lookup.facts.append(
            copy or Fact(kind=Kind.ACCEPTED, key="an object was uploaded", at=now, source=FactSource.BUCKET)
        )

    def _facts_of(self, response: LookupResponse | None, clip: Clip, now: int) -> list[Fact]:
        if response is None:
            return []
        facts = list(poll_facts(response.envelope.about(clip.clip_uuid), now))
        if any(fact.kind == Kind.RENDERED for fact in facts) and not clip.has(Kind.RENDERED):
            self.telemetry.count(Metric.FOUND_BY_POLL)
        return facts

    def _probe_copy(self, clip: Clip, now: int) -> list[Fact]:
        try:
            copy = stored_fact(self.bucket.probe(clip.object_key), clip.object_key, now)
        except BucketError:
            return []
        return [copy] if copy else []

    def _poll(self, task_uuids: Sequence[str], run: Sweep) -> LookupResponse | None:
        return self._call_runware(lambda key: self.provider.poll(task_uuids, key), run)

    def _call_runware(self, call: Callable[[str], LookupResponse], run: Sweep) -> LookupResponse | None:
        """Runware's response; None if it failed, is down, or no time is left."""
        if run.is_runware_down or not self._has_time_for_request(run):
            return None
        try:
            response = call(run.buyer.credentials.runware_key)
        except ProviderError as error:
            run.count_result(failed=True)
            self.telemetry.log("Runware lookup failed", warn=True, reason=str(error))
            return None
        run.count_result(failed=False)
        return response

    def _update(self, clip: Clip, facts: Sequence[Fact]) -> Clip:
        return update_clip(
            self.table,
            clip,
            lambda current: merge_all(current, facts),
            now=self.clock(),
            times=self.times,
            telemetry=self.telemetry,
        )


def _never_reached(now: int) -> Fact:
    """A refusal by the clock: no attempt reached Runware and none will follow, so the clip was not bought."""
    message = "Runware could not be reached, or refused our account, until the deadline. Nothing was bought."
    error = '{"code":"providerUnreachable","message":"' + message + '"}'
    fields: Mapping[str, Scalar] = {"httpStatus": 503, "category": "provider", "message": message, "error": error}
    return Fact(kind=Kind.REFUSED, key="providerUnreachable", at=now, source=FactSource.CLOCK, fields=fields)


def _failed_rescue(reason: str, now: int) -> Fact:
    return Fact(kind=Kind.ATTEMPTED, key=f"rescue failed: {reason}"[:200], at=now, source=FactSource.BUCKET)


def _digest(source: str) -> str:
    """A short digest of an address for the reason of a failure, because an address may hold secrets."""
    return f"({hashlib.sha256(source.encode(errors='replace')).hexdigest()[:12]})"


def _needs_review(kind: Kind, reason: str, now: int) -> Fact:
    return Fact(kind=kind, at=now, source=FactSource.CLOCK, fields={"reason": reason})

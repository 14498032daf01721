"""Each deliberate fault in the rules must be detected by the simulation; otherwise its success proves nothing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import pytest

from rushes.domain import clip, timings
from rushes.domain.clip import Clip, Fact, FactSource, Kind
from rushes.runware import facts
from rushes.runware import outcome as outcomes
from rushes.runware.outcome import NeverArrived, Outcome, Refused
from rushes.services import purchase, reconcile, submit, update_clip
from rushes.services import queries as query_service
from rushes.services.purchase import build_wire_task, callback_url
from tests.fakes import simulated as fakes
from tests.simulation.enumeration import EXHAUSTIVE, all_settings, explore
from tests.simulation.history import Setting
from tests.simulation.telltale import TELLTALE

Patch = pytest.MonkeyPatch
MAX_SEARCHED = 4_000  # settings, by `make simulate`


def no_lease(patch: Patch) -> None:
    """A clip is recorded without a lease, so that another process may send it while the first buyer does."""
    original = submit.SubmitService._clip
    patch.setattr(
        submit.SubmitService,
        "_clip",
        lambda self, *given: replace(original(self, *given), lease=None, next_check_at=self.clock() + 10_000),
    )
    patch.setattr(purchase.PurchaseService, "attempt", _attempt_without_lease(purchase.PurchaseService.attempt))


def _attempt_without_lease(original: Callable[..., Any]) -> Callable[..., Any]:
    def attempt(self: purchase.PurchaseService, given: Clip, request: Any, buyer: purchase.Buyer) -> Any:
        now = self.clock()
        leased = replace(given, lease=clip.Lease(buyer.holder, now, now + self.times.lease))
        return original(self, leased, request, buyer)

    return attempt


def leases_are_ignored(patch: Patch) -> None:
    """A lease can be taken while another buyer holds one, and its end is not waited for."""

    def lease_to(given: Clip, holder: str, now: int, times: Any, account: str) -> Clip:
        return replace(given, lease=clip.Lease(holder, now, now + times.lease, account))

    patch.setattr(reconcile, "lease_to", lease_to)
    patch.setattr(reconcile, "expire_lease", lambda given, now: replace(given, lease=None))
    original = clip.next_check
    patch.setattr(clip, "next_check", lambda given, now, times: original(replace(given, lease=None), now, times))
    patch.setattr(submit, "next_check", clip.next_check)


def intent_after_the_send(patch: Patch) -> None:
    """The clip is sent first and recorded after the answer."""
    original = submit.SubmitService._reserve_and_record

    def record(self: submit.SubmitService, task: Any, clips: Any, amount: int, request: Any) -> Any:
        for given in clips:
            callback = callback_url(self.purchase_service.webhook_url, given, ["key"], self.clock())
            link = self.purchase_service.links.upload_link(given.object_key, 60)
            order = build_wire_task(task.request, given, callback=callback, upload_link=link, least_ttl=60)
            self.purchase_service.runware.submit(order, "key")
        return original(self, task, clips, amount, request)

    patch.setattr(submit.SubmitService, "_reserve_and_record", record)


def doubt_cleared_by_a_refusal(patch: Patch) -> None:
    """A definite refusal counts although an earlier attempt may have arrived."""
    original = facts.apply_outcome

    def apply_outcome(given: Clip, outcome: Outcome, **more: Any) -> Clip:
        certain = replace(given, possibly_sent_at=None) if isinstance(outcome, Refused) else given
        return original(certain, outcome, **more)

    patch.setattr(facts, "apply_outcome", apply_outcome)


def doubt_not_kept(patch: Patch) -> None:
    """An ambiguous answer is not recorded, so that the clip is simply sent again."""
    patch.setattr(facts, "mark_possibly_sent", lambda given, *_: given)


def expired_lease_read_as_not_sent(patch: Patch) -> None:
    """A lease that ran out counts as an attempt that was never made."""

    def expire_lease(given: Clip, now: int) -> Clip:
        return replace(given, lease=None) if given.lease and given.lease.until <= now else given

    patch.setattr(reconcile, "expire_lease", expire_lease)


def poll_error_read_as_absence(patch: Patch) -> None:
    """A source without an answer counts as one that confirms the clip's absence."""
    original = reconcile.LookupResult.add_response

    def add_response(self: reconcile.LookupResult, report: Any, clip_uuid: str) -> None:
        if report is not None:
            original(self, report, clip_uuid)

    patch.setattr(reconcile.LookupResult, "add_response", add_response)


def details_not_queried(patch: Patch) -> None:
    """Only the bucket and the poll are queried before a clip is sent again."""
    patch.setattr(fakes.SimulatedRunware, "details", lambda self, uuid, key: empty_lookup())


def empty_lookup() -> Any:
    from rushes.runware.response import read_lookup

    return read_lookup(200, b'{"data": []}')


def server_error_read_as_never_arrived(patch: Patch) -> None:
    """503 counts as proof that nothing was accepted."""
    original = outcomes.read_answer

    def read_answer(status: int, body: bytes, uuid: str) -> Outcome:
        return NeverArrived("503") if status == 503 else original(status, body, uuid)

    patch.setattr(fakes, "read_answer", read_answer)


def conflict_read_as_failure(patch: Patch) -> None:
    """A conflict counts as a refusal."""
    original = outcomes.read_answer

    def read_answer(status: int, body: bytes, uuid: str) -> Outcome:
        outcome = original(status, body, uuid)
        if isinstance(outcome, outcomes.Accepted) and outcome.how == "conflict":
            problem = outcomes.read(body).problems[0]
            return Refused(400, problem)
        return outcome

    patch.setattr(fakes, "read_answer", read_answer)
    patch.setattr(facts, "mark_possibly_sent", lambda given, *_: given)


def window_without_end(patch: Patch) -> None:
    """An ambiguous clip is sent again however old the attempt is."""
    original = reconcile.ReconcileService._resolve_uncertain_purchase

    def resolve(self: reconcile.ReconcileService, given: Clip, run: Any) -> None:
        object.__setattr__(self, "times", replace(self.times, resend_window=self.times.deadline - 1))
        original(self, given, run)

    patch.setattr(reconcile.ReconcileService, "_resolve_uncertain_purchase", resolve)
    patch.setattr(timings.Timings, "latest_repeat", 0)  # which would hold the repeat back, too


def policy_ignored(patch: Patch) -> None:
    """A clip is sent again although the deployment's policy is review."""
    original = reconcile.ReconcileService._resolve_uncertain_purchase

    def resolve(self: reconcile.ReconcileService, given: Clip, run: Any) -> None:
        object.__setattr__(self, "when_ambiguous", "resend")
        original(self, given, run)

    patch.setattr(reconcile.ReconcileService, "_resolve_uncertain_purchase", resolve)


def lease_on_a_newer_version(patch: Patch) -> None:
    """The lease is taken on the clip's current version, not on the version before the lookups."""
    original = reconcile.ReconcileService._buy

    def buy(self: reconcile.ReconcileService, given: Clip, run: Any) -> None:
        current = self.table.clip(given.caller, given.task_uuid, given.index)
        original(self, current or given, run)

    patch.setattr(reconcile.ReconcileService, "_buy", buy)


def no_last_look(patch: Patch) -> None:
    """A failure is final at once."""
    original = Clip.open.fget
    assert original
    patch.setattr(Clip, "open", property(lambda self: self.decisive != Kind.FAILED and original(self)))


def failed_clip_released_at_once(patch: Patch) -> None:
    """A failed clip's money is released, and the clip closed, before the last look."""
    billable_amount, is_open = clip.billable_amount, Clip.open.fget
    assert is_open
    patch.setattr(clip, "billable_amount", lambda given: 0 if given.decisive == Kind.FAILED else billable_amount(given))
    patch.setattr(Clip, "open", property(lambda self: self.decisive != Kind.FAILED and is_open(self)))


def rendered_without_deadline(patch: Patch) -> None:
    """A render whose bytes are unavailable is looked for permanently."""
    original = reconcile._needs_review
    nothing = Fact(kind=Kind.ATTEMPTED, key="nothing", at=0, source=FactSource.CLOCK)
    patch.setattr(
        reconcile,
        "_needs_review",
        lambda kind, reason, now: nothing if kind == Kind.UNSAVED else original(kind, reason, now),
    )


def pending_without_deadline(patch: Patch) -> None:
    """An uncertain purchase without proof is looked up permanently."""
    original = reconcile._needs_review
    nothing = Fact(kind=Kind.ATTEMPTED, key="nothing", at=0, source=FactSource.CLOCK)
    patch.setattr(
        reconcile,
        "_needs_review",
        lambda kind, reason, now: nothing if kind == Kind.UNPROVEN else original(kind, reason, now),
    )


def no_rescue_and_no_deadline(patch: Patch) -> None:
    """A render without a copy is forgotten."""
    patch.setattr(reconcile.ReconcileService, "_save_copy", lambda self, given, run: None)


def failed_save_ignored(patch: Patch) -> None:
    """A lost race for a clip counts as saved."""
    original = update_clip.update_clip

    def update_ignoring(clips: Any, given: Clip, change: Any, **more: Any) -> Clip:
        class Once:
            def save(self, before: Clip, after: Clip) -> Clip:
                try:
                    return clips.save(before, after)  # type: ignore[no-any-return]
                except update_clip.StaleError:
                    return after

        return original(Once(), given, change, **more)  # type: ignore[arg-type]

    for module in (purchase, reconcile, submit):
        if hasattr(module, "update_clip"):
            patch.setattr(module, "update_clip", update_ignoring)
    from rushes.services import webhook

    patch.setattr(webhook, "update_clip", update_ignoring)


def budget_released_twice(patch: Patch) -> None:
    """A refusal releases a clip's money twice."""
    original = clip.refresh_derived

    def refresh_derived(given: Clip, now: int, times: Any) -> Clip:
        refreshed = original(given, now, times)
        return replace(refreshed, budgeted=-refreshed.estimate) if refreshed.decisive == Kind.REFUSED else refreshed

    patch.setattr(update_clip, "refresh_derived", refresh_derived)


def budget_not_corrected(patch: Patch) -> None:
    """The billable amount of a clip never reaches the budgets."""
    original = clip.refresh_derived

    def refresh_derived(given: Clip, now: int, times: Any) -> Clip:
        return replace(original(given, now, times), budgeted=given.budgeted)

    patch.setattr(update_clip, "refresh_derived", refresh_derived)


def refusal_outranks_acceptance(patch: Patch) -> None:
    """A refusal counts although a fact shows that the clip is bought."""
    rule = clip.KIND_RULES[Kind.REFUSED]
    assert rule.decides
    higher = rule._replace(decides=rule.decides._replace(rank=15))
    patch.setattr(clip, "KIND_RULES", {**clip.KIND_RULES, Kind.REFUSED: higher})
    patch.setattr(facts, "mark_possibly_sent", lambda given, *_: given)


def ambiguity_called_refusal(patch: Patch) -> None:
    """An ambiguous answer counts as a refusal."""
    original = facts.apply_outcome

    def apply_outcome(given: Clip, outcome: Outcome, **more: Any) -> Clip:
        if isinstance(outcome, outcomes.Ambiguous):
            body = b'{"errors": [{"code": "internalServerError", "message": "no"}]}'
            outcome = Refused(500, outcomes.read(body).problems[0])
        return original(given, outcome, **more)

    patch.setattr(facts, "apply_outcome", apply_outcome)


def own_writes_are_not_recognised(patch: Patch) -> None:
    """A repeated write whose first answer was lost counts as another process's."""
    patch.setattr(fakes.SimulatedTable, "remembered_writes", 0)


def another_requests_clip_is_overwritten(patch: Patch) -> None:
    """A save over the clip of another request with the same taskUUID succeeds if the versions are equal."""
    original = fakes.SimulatedTable._save

    def _save(self: fakes.SimulatedTable, before: Clip, *changed: Clip) -> Clip:
        row = self.rows.get((before.caller, before.task_uuid, before.index))
        return original(self, replace(before, clip_uuid=row.clip_uuid) if row else before, *changed)

    patch.setattr(fakes.SimulatedTable, "_save", _save)


def lost_answers_are_not_counted(patch: Patch) -> None:
    """A write that may have been saved is not counted, and is not new the next time."""
    patch.setattr(update_clip, "_alarm", lambda *_: None)


def leases_are_left_behind(patch: Patch) -> None:
    """A lease that may have been written, and under which nothing was sent, is not given back."""
    patch.setattr(purchase.PurchaseService, "give_back", lambda self, given, buyer: given)


def an_unread_budget_ends_the_search(patch: Patch) -> None:
    """A budget that cannot be read hides the overrun of another one."""

    def report_overruns(clips: Any, before: Clip, after: Clip, telemetry: Any) -> None:
        with suppress(update_clip.BusyError):
            for scope in after.scopes if after.budgeted > before.budgeted else ():
                counted, limit = clips.budget(scope, after.month)
                if limit is not None and counted > limit:
                    telemetry.count(update_clip.Metric.BUDGET_EXCEEDED)

    patch.setattr(update_clip, "report_overruns", report_overruns)
    patch.setattr(reconcile, "report_overruns", report_overruns)


def facts_wait_for_budgets(patch: Patch) -> None:
    """Facts are not saved while the budgets are contended."""

    def save(clips: Any, before: Clip, after: Clip, *, now: int, times: Any) -> Any:
        return clips.save(before, clip.refresh_derived(after, now, times))

    patch.setattr(update_clip, "save", save)
    patch.setattr(reconcile, "save", save)


def deferred_amounts_are_forgotten(patch: Patch) -> None:
    """A clip that was saved without its money is not checked again."""
    original = clip.defer_budget

    def defer_budget(given: Clip, now: int, times: Any) -> Clip:
        return replace(original(given, now, times), next_check_at=clip.next_check(given, now, times))

    patch.setattr(update_clip, "defer_budget", defer_budget)


def no_margin_for_clock_skew(patch: Patch) -> None:
    """A lease has no margin for clocks that differ."""
    patch.setattr(timings.Timings, "skew", 0)


def review_at_the_window(patch: Patch) -> None:
    """An uncertain purchase goes to review when the resend window ends."""
    original = reconcile.ReconcileService._is_over

    def is_over(self: reconcile.ReconcileService, since: int, limit: int, lookup: Any) -> bool:
        return original(self, since, self.times.resend_window if limit == self.times.deadline else limit, lookup)

    patch.setattr(reconcile.ReconcileService, "_is_over", is_over)


def review_without_an_answer(patch: Patch) -> None:
    """A clip goes to review at its limit although Runware gave no answer."""
    patch.setattr(reconcile.LookupResult, "answered", True)


def window_judged_before_the_lookups(patch: Patch) -> None:
    """The age of the attempt is judged before the sources are queried."""
    resolve, buy = reconcile.ReconcileService._resolve_uncertain_purchase, reconcile.ReconcileService._buy
    judged: dict[str, int] = {}

    def resolve_now(self: reconcile.ReconcileService, given: Clip, run: Any) -> None:
        judged[given.clip_uuid] = self.clock()
        resolve(self, given, run)

    def buy_then(self: reconcile.ReconcileService, given: Clip, run: Any) -> None:
        since, now = given.possibly_sent_at, judged[given.clip_uuid]
        if since is not None and now < since + self.times.resend_window:
            later = self.clock() - now
            self = replace(self, times=replace(self.times, resend_window=self.times.resend_window + later))
        buy(self, given, run)

    patch.setattr(timings.Timings, "latest_repeat", 0)
    patch.setattr(reconcile.ReconcileService, "_resolve_uncertain_purchase", resolve_now)
    patch.setattr(reconcile.ReconcileService, "_buy", buy_then)


def sent_when_answered(patch: Patch) -> None:
    """An attempt is recorded with the time of its answer."""
    original = facts.apply_outcome

    def apply_outcome(given: Clip, outcome: Outcome, *, now: int, sent_at: int, **more: Any) -> Clip:
        del sent_at
        return original(given, outcome, now=now, sent_at=now, **more)

    patch.setattr(facts, "apply_outcome", apply_outcome)


def never_gives_up_on_runware(patch: Patch) -> None:
    """A sweep keeps calling a Runware that does not answer."""
    patch.setattr(reconcile.Sweep, "is_runware_down", False)


def rescued_at_once(patch: Patch) -> None:
    """A render is fetched before its upload had time to arrive."""
    original = reconcile.ReconcileService._save_copy

    def save_copy(self: reconcile.ReconcileService, given: Clip, run: Any) -> None:
        original(replace(self, times=replace(self.times, rescue_after=0)), given, run)

    patch.setattr(reconcile.ReconcileService, "_save_copy", save_copy)


def claimed_before_its_time(patch: Patch) -> None:
    """A clip is claimed because the index lists it, although it has been checked since."""
    original = reconcile.ReconcileService._claim

    def claim(self: reconcile.ReconcileService, key: Any) -> Any:
        given = self.table.clip(*key)
        if given is None or not given.open or given.next_check_at is None or given.next_check_at <= self.clock():
            return original(self, key)
        return self.table.save(
            given, clip.refresh_derived(clip.expire_lease(given, self.clock()), self.clock(), self.times)
        )

    patch.setattr(reconcile.ReconcileService, "_claim", claim)


def shared_polls_are_not_split(patch: Patch) -> None:
    """A poll that is refused as a whole is not repeated in parts."""
    patch.setattr(reconcile, "_MAX_REFUSED", 0)


def open_failures_are_final(patch: Patch) -> None:
    """A failure is reported as final before the last look at it."""
    original = query_service.QueryService.poll

    def poll(self: query_service.QueryService, caller: str, task_uuid: str) -> Any:
        found = self._find(caller, task_uuid)
        if found and all(member.status == clip.Status.FAILED for member in found.clips):
            return [], [(200, {"code": "failed"}) for _ in found.clips]
        return original(self, caller, task_uuid)

    patch.setattr(query_service.QueryService, "poll", poll)


def ambiguity_falls_over(patch: Patch) -> None:
    """An ambiguous attempt, such as a timeout, counts as refused if there is a next model."""
    original = facts.apply_outcome

    def apply_outcome(given: Clip, outcome: Outcome, **more: Any) -> Clip:
        if given.chain and isinstance(outcome, outcomes.Ambiguous):
            body = b'{"errors": [{"code": "internalServerError", "message": "no"}]}'
            outcome = Refused(500, outcomes.read(body).problems[0])
        return original(given, outcome, **more)

    patch.setattr(facts, "apply_outcome", apply_outcome)


def possibly_sent_clips_fall_over(patch: Patch) -> None:
    """A refusal counts for the fallback although an earlier attempt may have arrived."""
    original = facts.apply_outcome

    def apply_outcome(given: Clip, outcome: Outcome, **more: Any) -> Clip:
        certain = given.chain and isinstance(outcome, Refused)
        return original(replace(given, possibly_sent_at=None) if certain else given, outcome, **more)

    patch.setattr(facts, "apply_outcome", apply_outcome)


def reviews_fall_over(patch: Patch) -> None:
    """A clip whose purchase could not be proven by the deadline is followed by the next model's."""
    awaits, is_open = Clip.awaits_fallback.fget, Clip.open.fget
    assert awaits
    assert is_open

    def awaits_fallback(self: Clip) -> bool:
        is_in_doubt = self.decisive == Kind.UNPROVEN and self.chain is not None and bool(self.chain.rest)
        return awaits(self) or (is_in_doubt and not self.is_superseded)

    patch.setattr(Clip, "awaits_fallback", property(awaits_fallback))
    patch.setattr(Clip, "open", property(lambda self: is_open(self) or awaits_fallback(self)))


def providers_timeouts_fall_over(patch: Patch) -> None:
    """A render that ended by a provider's timeout is followed by the next model's clip."""
    patch.setattr(clip, "_IN_DOUBT", set())


def moderation_falls_over(patch: Patch) -> None:
    """A moderation refusal is followed by the next model's clip although the caller has not asked for that."""
    original = clip._is_about_the_model
    patch.setattr(
        clip, "_is_about_the_model", lambda reason, chain: original(reason, chain._replace(on_moderation=True))
    )


def fallback_before_the_last_look(patch: Patch) -> None:
    """The next model's clip is recorded at the first report of a failure."""
    original = Clip._is_closed_by_facts.fget
    assert original
    early = property(lambda self: original(self) or (self.chain is not None and self.decisive == Kind.FAILED))
    patch.setattr(Clip, "_is_closed_by_facts", early)


def fallback_after_a_last_look_without_an_answer(patch: Patch) -> None:
    """The next model's clip is recorded although the last look ended without an answer."""
    original = Clip.of
    patch.setattr(Clip, "of", lambda self, kind: {} if kind == Kind.LAST_LOOK else original(self, kind))


def fallback_in_two_writes(patch: Patch) -> None:
    """The clip is closed in one write, and the next model's recorded in another."""

    def fall_over(self: Any, before: Clip, closed: Clip, successor: Clip, task: Any) -> Clip:
        del task
        saved = self.call("save", lambda: self._save(before, closed))
        return self.call("save", lambda: self._save(saved, saved, successor))  # type: ignore[no-any-return]

    patch.setattr(fakes.SimulatedTable, "fall_over", fall_over)


def cheapest_reserved(patch: Patch) -> None:
    """Only the first model's price is reserved."""
    original = clip.billable_amount

    def billable_amount(given: Clip) -> int:
        return original(replace(given, chain=None)) if given.chain and not given.awaits_fallback else original(given)

    for module in (clip, submit):
        patch.setattr(module, "billable_amount", billable_amount)
    from rushes.runware.request import Order

    patch.setattr(Order, "reserved", property(lambda self: self.price))


def late_success_unnoticed(patch: Patch) -> None:
    """A superseded clip that was bought after all does not wait for an operator."""
    patch.setattr(Clip, "_is_decided_by_operator", True)


MUTANTS = [
    no_lease,
    leases_are_ignored,
    intent_after_the_send,
    doubt_cleared_by_a_refusal,
    doubt_not_kept,
    expired_lease_read_as_not_sent,
    poll_error_read_as_absence,
    details_not_queried,
    server_error_read_as_never_arrived,
    conflict_read_as_failure,
    window_without_end,
    policy_ignored,
    lease_on_a_newer_version,
    no_last_look,
    failed_clip_released_at_once,
    rendered_without_deadline,
    pending_without_deadline,
    no_rescue_and_no_deadline,
    failed_save_ignored,
    budget_released_twice,
    budget_not_corrected,
    refusal_outranks_acceptance,
    ambiguity_called_refusal,
    own_writes_are_not_recognised,
    another_requests_clip_is_overwritten,
    lost_answers_are_not_counted,
    leases_are_left_behind,
    an_unread_budget_ends_the_search,
    facts_wait_for_budgets,
    deferred_amounts_are_forgotten,
    no_margin_for_clock_skew,
    review_at_the_window,
    review_without_an_answer,
    window_judged_before_the_lookups,
    sent_when_answered,
    never_gives_up_on_runware,
    rescued_at_once,
    claimed_before_its_time,
    shared_polls_are_not_split,
    open_failures_are_final,
    ambiguity_falls_over,
    possibly_sent_clips_fall_over,
    reviews_fall_over,
    providers_timeouts_fall_over,
    moderation_falls_over,
    fallback_before_the_last_look,
    fallback_after_a_last_look_without_an_answer,
    fallback_in_two_writes,
    cheapest_reserved,
    late_success_unnoticed,
]


@pytest.fixture(scope="module")
def schedules() -> list[Setting]:
    """The settings of `make test`; `make simulate` searches more, to find others after a change of the rules.

    Created before a fault is planted, since the number of effects is found by running histories.
    """
    return list(chain(TELLTALE, islice(all_settings(), MAX_SEARCHED) if EXHAUSTIVE else ()))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_planted_fault_is_caught(
    mutant: Callable[[Patch], None], schedules: list[Setting], monkeypatch: Patch
) -> None:
    """A fault in the rules breaks at least one promise in at least one schedule."""
    mutant(monkeypatch)
    findings = explore(schedules, stop_at_first=True)
    assert not findings.clean, f"{mutant.__doc__} Not detected in {findings.explored} schedules."
    setting, faults = findings.broken[0]
    print(f"{mutant.__name__}: caught after {findings.explored}: {faults}, by {setting}")

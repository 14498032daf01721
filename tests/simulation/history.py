"""One history: submissions, renders at Runware, sweeps every minute, stops and races; then the check of the promises.

The use cases are the real ones. A history runs until no clip is open. Then the promises of docs/guarantees.md are
checked against the ledger of the fake Runware, the only record of the payments.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any, TypeVar

from rushes.config import WhenAmbiguous
from rushes.domain.budget import ALL_CALLERS
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, Kind, Status
from rushes.errors import BusyError, RushesError
from rushes.services.metric import Metric
from rushes.services.purchase import Buyer, Credentials, PurchaseService
from rushes.services.queries import QueryService
from rushes.services.reconcile import ReconcileService
from rushes.services.request_validation import WireResponse
from rushes.services.submit import Request, SubmitService
from rushes.services.webhook import WebhookService
from tests.fakes.builders import TIMES
from tests.fakes.models import more_models
from tests.fakes.simulated import Execution, SimulatedBucket, SimulatedRunware, SimulatedTable, Supervisor, Switches
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.use_cases import sequential_map
from tests.simulation.transitions import TransitionChecker
from tests.simulation.world import Schedule, World

T = TypeVar("T")

CREDENTIALS = Credentials("key", ("current", "previous"))
CALLER = Caller("me", 50_000_000)
MINUTE = 60_000
MAX_DURATION = 48 * 3_600_000  # milliseconds; a clip that is open then is lost
MAX_DETECTION_TIME = 1_800_000  # milliseconds after a render's end, whichever clips share its polls
MAX_FAILURES = 6  # of Runware in a row within a sweep: a few more than its limit
PROVIDER_CALLS = {"submit", "poll", "details"}  # effects that end within the HTTP timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The parameters of a history: Runware's behaviour, the outcomes of the first submissions, the lost sources.

    `skews` are the leads of the processes' clocks, in turn, and `lag` is the delay of the index, in milliseconds. For
    `contended` milliseconds after a task is recorded no transaction with the budgets succeeds.
    """

    switches: Switches = field(default_factory=Switches)
    when_ambiguous: WhenAmbiguous = "resend"
    fates: tuple[str, ...] = ()
    clips: int = 1
    tasks: int = 1
    limit: int = CALLER.monthly_limit
    skews: tuple[int, ...] = ()
    lag: int = 0
    contended: int = 0
    lost: frozenset[str] = frozenset()  # of: webhook, poll, bucket, uploaded
    schedule: Schedule = field(default_factory=Schedule)
    fallback: tuple[str, ...] = ()  # the models after the first
    on_moderation: bool = False
    repeats: bool = True  # the caller repeats its request without an answer, and once more later


@dataclass(slots=True)
class History:
    """The service and its surroundings under one setting."""

    setting: Setting
    world: World = field(init=False)
    table: SimulatedTable = field(init=False)
    bucket: SimulatedBucket = field(init=False)
    runware: SimulatedRunware = field(init=False)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    submit_service: SubmitService = field(init=False)
    reconcile_service: ReconcileService = field(init=False)
    webhook_service: WebhookService = field(init=False)
    accepted: dict[str, WireResponse] = field(default_factory=dict)
    unsaved: list[str] = field(default_factory=list)
    new_uuids: "count[int]" = field(default_factory=lambda: count(1 << 64))
    next_sweep: int = 0
    hangs: int = 0
    outage_ended_at: int = 0  # of Runware, if it had one
    skews: Iterator[int] = field(init=False)
    skew: int = 0  # the largest difference between two clocks
    checker: TransitionChecker = field(init=False)

    def __post_init__(self) -> None:
        setting = self.setting
        self.skews = cycle(setting.skews or (0,))
        self.skew = max(setting.skews, default=0) - min(setting.skews, default=0)
        self.world = World(setting.schedule)
        self.table = SimulatedTable(self.world)
        self.table.lag = setting.lag
        began = self.world.now
        self.table.contended_now = lambda: self.world.now < began + setting.contended
        self.bucket = SimulatedBucket(self.world)
        self.bucket.lost = lambda: "bucket" in setting.lost
        switches = setting.switches
        self.runware = SimulatedRunware(self.world, self.bucket, switches, list(setting.fates))
        self.runware.supervisor = Supervisor(
            TIMES.lease, TIMES.resend_window, setting.when_ambiguous == "resend", self.skew
        )
        self.checker = TransitionChecker(self, TIMES)
        self.table.on_change, self.runware.on_fetch = self.checker.on_change, self.checker.on_fetch
        self.bucket.found_nothing = self._record_absence_in_bucket
        self.runware.deliver = self.deliver
        self.runware.on_upload = self.deliver_upload
        shared: dict[str, Any] = {"telemetry": self.telemetry, "times": TIMES, "clock": self.world.clock}
        purchase_service = PurchaseService(
            clips=self.table, links=self.bucket, runware=self.runware, webhook_url="https://hooks.example", **shared
        )
        self.submit_service = SubmitService(
            table=self.table,
            inputs=self.bucket,
            query_service=QueryService(table=self.table, links=self.bucket, times=TIMES, clock=self.world.clock),
            purchase_service=purchase_service,
            monthly_limit=setting.limit,
            retention=None,
            new_uuid=lambda: str(uuid.UUID(int=next(self.new_uuids), version=4)),
            concurrent_map=sequential_map,
            **shared,
        )
        self.reconcile_service = ReconcileService(
            table=self.table,
            bucket=self.bucket,
            provider=self.runware,
            rescuer=self.runware,
            purchase_service=purchase_service,
            when_ambiguous=setting.when_ambiguous,
            concurrent_map=sequential_map,
            **shared,
        )
        self.webhook_service = WebhookService(clips=self.table, copies=self.bucket, **shared)
        self.next_sweep = self.world.now + 37_000
        self.world.guests |= {
            "sweep": self.sweep,
            "submit": self._submit_again,
            "webhook": self._send_webhooks,
            "later sweep": self._sweep_later,
            "hang": self._hang,
            "last sweep": self._sweep_last,
        }

    def process(
        self, program: Callable[[], T], lasts: int = TIMES.function, max_failures: int | None = None
    ) -> T | None:
        """Runs a function with a clock of its own; returns its result, or None if it was stopped.

        It may last `lasts` milliseconds and see at most `max_failures` failures of Runware in a row.
        """
        world, runware = self.world, self.runware
        outer = world.offset, world.ends, runware.failures_in_a_row, runware.max_failures_in_a_row
        world.offset, world.ends = next(self.skews), world.now + lasts - 2_000
        runware.failures_in_a_row, runware.max_failures_in_a_row = 0, max_failures
        try:
            with more_models() if self.setting.fallback else nullcontext():
                return world.run(program)
        finally:
            world.offset, world.ends, runware.failures_in_a_row, runware.max_failures_in_a_row = outer

    def buyer(self, unattended: bool) -> Buyer:
        """The buyer in the current process."""
        ends_at = self.world.ends + self.world.offset
        return Buyer(f"run {self.world.effects}", ends_at, CREDENTIALS, unattended)

    def submit(self, task: Mapping[str, Any]) -> WireResponse | None:
        """One call of `POST /v1`; None if the function was stopped."""
        caller = Caller(CALLER.name, self.setting.limit)

        def program() -> WireResponse:
            return self.submit_service.submit([task], Request(caller, self.buyer(unattended=False)))

        answer = self.process(program)
        if answer and answer.data:
            self.accepted[task["taskUUID"]] = answer
        return answer

    def sweep(self) -> None:
        """One run of `reconcile`; after a failure the next one comes in a minute."""
        with suppress(BusyError):
            self.process(
                lambda: self.reconcile_service.sweep(self.buyer(unattended=True)),
                TIMES.lease - 10_000,
                max_failures=MAX_FAILURES,
            )

    def _sweep_later(self) -> None:
        """The program hangs for a part of its function's time, and the schedule starts a sweep."""
        self.world.move_to(self.world.now + 20_000)
        self.sweep()

    def _hang(self) -> None:
        """The program hangs: during a call of Runware until the timeout, else as long as it may still make a call."""
        last_call = self.world.ends - TIMES.http
        self.hangs += 1
        hangs_until = self.world.now + TIMES.http if self.world.names[-1] in PROVIDER_CALLS else last_call
        self.world.move_to(min(max(hangs_until, self.world.now), self.world.ends))

    def _sweep_last(self) -> None:
        self._hang()
        self.sweep()

    def _record_absence_in_bucket(self, key: str) -> None:
        if uuid := self.runware.supervisor.keys.get(key):
            self.runware.supervisor.record_absence(uuid, "bucket", self.world.now)

    def _submit_again(self) -> None:
        """The caller repeats its request while the first call is at work."""
        self.submit(order(self.setting))

    def _send_webhooks(self) -> None:
        """Runware finishes at once, so that its webhook arrives while the program is at work."""
        for task in self.runware.executions:
            if not task.finished and self._may_be_finished(task):
                self.runware.finish(task)
                self.world.move_to(self.world.now + 500)

    def _may_be_finished(self, task: Execution) -> bool:
        """True if a render may be this quick; resends rely on a minimum duration of renders.

        That holds unless Runware also refuses the UUIDs of finished renders, or clips are never sent again.
        """
        if self.setting.switches.finished_uuid_refused or self.setting.when_ambiguous == "review":
            return True
        return self.world.now >= task.accepted_at + TIMES.usual_render

    def deliver(self, request: Mapping[str, Any], body: bytes) -> bool:
        """One run of `webhook`; True if it answered 2xx."""
        if "webhook" in self.setting.lost:
            return False
        path = str(request["webhookURL"]).removeprefix("https://hooks.example/webhooks/runware/").partition("?")[0]
        caller, task_uuid, index = path.split("/")
        try:
            clip = self.process(lambda: self.webhook_service.receive(body, caller, task_uuid, int(index), ""))
        except RushesError:
            return False
        if clip is not None and b"videoUUID" in body:
            current = self.table.rows[caller, task_uuid, int(index)]
            if not current.has(Kind.RENDERED):
                self.unsaved.append("answered a webhook with 2xx without having saved it")
        return clip is not None

    def deliver_upload(self, key: str, version: str) -> None:
        """Schedules S3's event about an object, repeated if the function was stopped."""
        if "uploaded" not in self.setting.lost:
            self.world.at(self.world.now + 10_000, lambda: self._deliver_upload(key, version, tries=3))

    def _deliver_upload(self, key: str, version: str, tries: int) -> None:
        try:
            done = self.process(lambda: self.reconcile_service.check_upload(key, version) or True)
        except RushesError:
            done = False  # the message stays in the queue
        if not done and tries:
            self.world.at(self.world.now + 30_000, lambda: self._deliver_upload(key, version, tries - 1))

    def advance(self, until: int | None = None) -> None:
        """Moves time forward, with a sweep every minute while clips are due, until nothing is left to do."""
        end = self.world.now + MAX_DURATION if until is None else until
        while self.world.now < end:
            moments = [moment for moment in (self.world.next_event(), self._next_useful_sweep()) if moment is not None]
            if not moments or min(moments) > end:
                break
            self.world.move_to(min(moments))
            if self.world.now >= self.next_sweep:
                self.next_sweep = self.world.now + MINUTE
                self.sweep()

    def _next_useful_sweep(self) -> int | None:
        """The time of the next sweep that finds a clip; the sweeps before it have no effect and are skipped."""
        due = self.table.next_due()
        if due is None:
            return None
        if due > self.next_sweep:
            self.next_sweep += (due - self.next_sweep + MINUTE - 1) // MINUTE * MINUTE
        return self.next_sweep


def request(number: int = 1, clips: int = 1) -> dict[str, Any]:
    """A valid task."""
    task: dict[str, Any] = {
        "taskType": "videoInference",
        "taskUUID": str(uuid.UUID(int=number, version=4)),
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
    }
    return task | ({"numberResults": clips} if clips > 1 else {})


def order(setting: Setting, number: int = 1, clips: int | None = None) -> dict[str, Any]:
    """A task of a setting, possibly with another number of clips."""
    fallback = {"fallback": list(setting.fallback)} if setting.fallback else {}
    moderation = {"fallbackOnModeration": True} if setting.on_moderation else {}
    return {**request(number, clips or setting.clips), **fallback, **moderation}


def run_history(setting: Setting) -> History:
    """Submits the tasks of a setting and runs the history to its end."""
    history = History(setting)
    tasks = [order(setting, number) for number in range(1, setting.tasks + 1)]
    answers = [history.submit(task) for task in tasks]
    if setting.repeats:
        # A retry without an answer, or a second click. Twice, since a repeat may be stopped, too.
        for pause in (5_000, 400_000):
            if None in answers:
                history.advance(history.world.now + pause)
                history.world.move_to(history.world.now + pause)
            answers = [history.submit(task) or answer for task, answer in zip(tasks, answers, strict=True)]
    history.advance()
    return history


def verdict(history: History) -> list[str]:
    """Every broken promise as a sentence; empty if all were kept."""
    broken = []
    clips = list(history.table.rows.values())
    for clip in clips:
        broken += [f"clip {clip.index}: {fault}" for fault in _faults(clip, history)]
    broken += _slot_faults(clips, history)
    for task_uuid in history.accepted:
        if not history.table.clips_of(CALLER.name, task_uuid):
            broken.append("lost: a task was accepted and is not recorded")
    unrecorded = {task.uuid for task in history.runware.executions} - {clip.clip_uuid for clip in clips}
    if unrecorded:
        broken.append("bought without a record")
    violations = {*history.runware.supervisor.violations, *history.checker.violations}
    broken += sorted(violations) + history.unsaved + _missing_metrics(clips, history)
    unexpected_logs = {
        note for note in map(str, history.telemetry.logs) if "clip check failed" in note and "BusyError" not in note
    }
    return broken + sorted(unexpected_logs) + _budget_faults(clips, history)


def _faults(clip: Clip, history: History) -> list[str]:
    charged = history.runware.charged(clip.clip_uuid)
    faults = []
    if charged > 1:
        faults.append(f"bought {charged} times")
    if clip.open:
        faults.append(f"lost: still {clip.status} at the end")
    if clip.status not in (Status.STORED, Status.FAILED, Status.REVIEW):
        faults.append(f"lost: ended {clip.status}")
    if charged and clip.status == Status.FAILED:
        faults.append("lost: paid for and reported as failed")
    if clip.status == Status.STORED and not charged:
        faults.append("stored without having been paid for")
    has_evidence = clip.has(Kind.UNPROVEN) or clip.has(Kind.UNSAVED) or clip.is_superseded
    if clip.status == Status.REVIEW and not has_evidence:
        faults.append("in review without evidence")
    if _found_late(clip, history):
        faults.append("found too long after its render")
    possible_sends = history.runware.supervisor.possible_sends.get(clip.clip_uuid)
    # Only a person can decide after a killed function, an unsaved outcome, or one saved after the lease's expiry by
    # another clock.
    excused = history.world.stops or history.table.refused or (history.hangs and history.skew)
    if clip.status == Status.REVIEW and not (possible_sends or excused or clip.is_superseded):
        faults.append("in review without an ambiguous attempt")
    recorded_at = clip.possibly_sent_at
    if possible_sends and recorded_at is not None and recorded_at > possible_sends[0] + history.skew:
        faults.append("its first ambiguous attempt is recorded with a later time")
    return faults


def _slot_faults(clips: list[Clip], history: History) -> list[str]:
    """Slots that were paid for twice, except for a clip that Runware charged after it had reported its failure."""
    by_uuid = {clip.clip_uuid: clip for clip in clips}
    successors = {key: clip for clip in clips for key in clip.of(Kind.SUPERSEDED)}
    faults = ["lost: superseded without a successor" for key in successors if key not in by_uuid]
    paid = Counter(
        (by_uuid[task.uuid].task_uuid, by_uuid[task.uuid].slot)
        for task in history.runware.executions
        if task.charge and task.uuid in by_uuid and not _charged_after_its_end(task, by_uuid[task.uuid])
    )
    faults += [f"slot {slot}: bought {number} times" for (_, slot), number in paid.items() if number > 1]
    for clip in successors.values():
        bought = history.runware.charged(clip.clip_uuid) > 0
        if bought and clip.status != Status.REVIEW:
            faults.append("paid for after its successor was recorded, and not in review")
    return faults


def _charged_after_its_end(task: Execution, clip: Clip) -> bool:
    superseded_at = clip.first_seen_at(Kind.SUPERSEDED)
    return superseded_at is not None and task.failed_at is not None and (task.succeeded_at or 0) >= superseded_at


def _found_late(clip: Clip, history: History) -> bool:
    """True if a Runware that refuses shared polls delayed the detection of a render.

    After an outage of Runware the next check comes after a third of the time until then, at the latest, unless the
    outage was so long that the clip went to review.
    """
    switches = history.setting.switches
    if not switches.polls_all_or_nothing and switches.max_polled >= len(history.table.rows):
        return False
    found = min(clip.first_seen_at(kind) or MAX_DURATION + clip.created_at for kind in (Kind.RENDERED, Kind.STORED))
    done = [task.done_at for task in history.runware.executions[switches.forgotten :] if task.uuid == clip.clip_uuid]
    if not done or history.outage_ended_at >= clip.created_at + TIMES.hard(TIMES.deadline):
        return False
    delay = max(0, history.outage_ended_at - min(done))
    return found > min(done) + delay + delay // 3 + MAX_DETECTION_TIME


def _missing_metrics(clips: list[Clip], history: History) -> list[str]:
    """The events for operators without a metric, unless a function was killed or got no answer at all."""
    if history.world.stops or history.table.refused or "busy" in history.world.losses[:-1]:
        return []
    counts, faults = history.telemetry.counted, []
    if any(len(clip.of(Kind.RENDERED)) > 1 for clip in clips) and not counts.get(Metric.SECOND_RENDERS):
        faults.append("a second render was not counted")
    exceeded = any(limit is not None and amount > limit for amount, limit in history.table.budgets.values())
    if exceeded and not counts.get(Metric.BUDGET_EXCEEDED):
        faults.append("an overrun was not counted")
    return faults


def _budget_faults(clips: list[Clip], history: History) -> list[str]:
    """Differences between the budgets, the clips and the ledger, except for uncertain purchases."""
    faults = []
    for scope in (ALL_CALLERS, CALLER.name):
        counted = sum(amount for (name, _), (amount, _) in history.table.budgets.items() if name == scope)
        if counted != sum(clip.budgeted for clip in clips):
            faults.append(f"the budget of {scope} holds {counted}, its clips {sum(clip.budgeted for clip in clips)}")
        # A second render is the provider's fault and raises an alarm; the orders themselves must fit.
        ordered = sum(clip.estimate for clip in clips) if history.setting.switches.second_render else counted
        if ordered > history.setting.limit:
            faults.append(f"over budget: {counted}")
    decided = all(clip.status != Status.REVIEW or (clip.is_superseded and clip.has(Kind.RENDERED)) for clip in clips)
    total, paid = sum(clip.budgeted for clip in clips), history.runware.ledger()
    if (decided and total != paid) or total < paid:
        faults.append(f"the records have {total} micro-dollars, the ledger {paid}")
    return faults

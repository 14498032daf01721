"""The promises of docs/guarantees.md, checked by enumeration and at random: the real use cases in a simulated world.

`make simulate` and `make test-batch` explore the whole enumeration and print the figures. `make test` always takes
the same sample, in which each fault of test_mutants shows. With FOR=, `make simulate` makes new random histories in
each run; the others repeat theirs while the code is the same.
"""

import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice, product
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rushes.domain.clip import Status
from rushes.services.metric import Metric
from tests.fakes.builders import PRICE, TIMES
from tests.fakes.simulated import LOOKUP_REFUSALS, Switches
from tests.simulation.enumeration import (
    ADVERSE,
    CHAIN_SWITCHES,
    CHAINS,
    EXHAUSTIVE,
    FATES,
    LOSSES,
    ONE_AT_A_TIME,
    POLICIES,
    SAMPLE_SIZE,
    SHARED_POLLS,
    SKEWS,
    Findings,
    all_settings,
    explore,
    sample,
)
from tests.simulation.history import MAX_DETECTION_TIME, History, Setting, order, request, run_history, verdict
from tests.simulation.telltale import TELLTALE
from tests.simulation.transitions import SKEW
from tests.simulation.world import Schedule

PROCESSES = 2  # as many as the smallest machine has cores
MIN_EXPLORED = 20_000
EXTRA_SECONDS = float(os.environ.get("SIMULATE_SECONDS", "0"))  # seconds of random histories, at least


def part(number: int) -> Findings:
    """Every `PROCESSES`-th setting, so that the parts are of one size."""
    return explore(islice(all_settings(), number, None, PROCESSES))


@pytest.mark.skipif(EXHAUSTIVE, reason="all settings are explored")
def test_a_sample_of_the_schedules_keeps_every_promise() -> None:
    """No stop, race, loss or behaviour of Runware in the sample buys a clip twice, loses one or overruns a budget."""
    findings = explore(sample())
    assert findings.explored == SAMPLE_SIZE + len(TELLTALE)
    assert findings.clean, findings.broken


@pytest.mark.timeout(900)
@pytest.mark.batch
def test_every_schedule_keeps_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """No enumerated stop, race, loss or behaviour of Runware buys a clip twice, loses one or overruns a budget."""
    findings = Findings()
    # Not forked, since the test's process may have threads.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as processes:
        for found in processes.map(part, range(PROCESSES)):
            findings.add(found)
    with capsys.disabled():
        print(f"\n{findings}")
    assert findings.explored >= MIN_EXPLORED
    assert findings.clean, findings.broken


@pytest.mark.parametrize("refusal", LOOKUP_REFUSALS)
@pytest.mark.parametrize("failure", ["", "inferenceError"])
def test_a_refused_lookup_adds_no_fact(refusal: str, failure: str) -> None:
    """While Runware refuses every lookup, running clips stay running and failures stay open; later all are stored.

    No webhook or upload arrives, so lookups are the only source; the failures turn out to be successes.
    """
    refusing = Switches(lookup_refusal=refusal, webhook="lost", upload="never", render_fails=failure)
    history = History(Setting(switches=refusing, clips=2))
    history.submit(request(clips=2))
    if failure:
        history.runware.switches = replace(refusing, lookup_refusal="")
        history.advance(history.world.now + 400_000)
        assert {clip.status for clip in history.table.rows.values()} == {Status.FAILED}
        history.runware.switches = refusing
    history.advance(history.world.now + 3_600_000)
    assert all(clip.open for clip in history.table.rows.values())
    assert failure or {clip.status for clip in history.table.rows.values()} == {Status.RUNNING}
    for task in history.runware.executions:
        task.failed, task.charge = False, PRICE
    history.runware.switches = replace(refusing, lookup_refusal="", render_fails="")
    history.advance()
    assert {clip.status for clip in history.table.rows.values()} == {Status.STORED}
    assert not verdict(history), verdict(history)


def test_a_clip_is_polled_alone_before_review() -> None:
    """A clip goes to review only after a poll for it alone, since a shared poll may leave it out."""
    history = History(Setting(switches=Switches(polls_all_or_nothing=True, webhook="lost", upload="never"), clips=3))
    history.submit(request(clips=3))
    forgotten = history.runware.executions.pop(1)
    history.advance()
    ends = {clip.clip_uuid: clip.status for clip in history.table.rows.values()}
    assert ends.pop(forgotten.uuid) == Status.REVIEW
    assert set(ends.values()) == {Status.STORED}


@pytest.mark.parametrize("webhook", ["enveloped", "lost"])
def test_an_overwritten_copy_stays_the_clips_copy(webhook: str) -> None:
    """A version that was a video when S3 reported it stays the clip's copy after a later upload spoils the object."""
    history = run_history(Setting(switches=Switches(webhook=webhook, upload="spoiled", url_works=False)))
    (clip,) = history.table.rows.values()
    assert clip.status == Status.STORED
    assert clip.copy
    assert clip.copy[0] == "1"
    assert not verdict(history), verdict(history)


@pytest.mark.parametrize("unknown", [True, False])
def test_a_refused_shared_poll_is_repeated_in_parts(unknown: bool) -> None:
    """One unknown task, or too many in a poll, delays the other clips of the poll only briefly."""
    refuses = Switches(polls_all_or_nothing=True, forgotten=1) if unknown else Switches(max_polled=10)
    history = History(Setting(switches=replace(refuses, webhook="lost", upload="never"), tasks=8, clips=4))
    for number in range(1, 9):
        history.submit(request(number, clips=4))
    history.advance(history.world.now + MAX_DETECTION_TIME)
    ends = Counter(clip.status for clip in history.table.rows.values())
    assert ends == {Status.STORED: 32 - unknown, **({Status.RUNNING: 1} if unknown else {})}
    history.advance()
    assert not verdict(history), verdict(history)


def test_unreadable_clips_delay_no_others() -> None:
    """More than a hundred due clips of a later version are postponed, alarmed, and read again later."""
    history = History(Setting(tasks=30, clips=4, limit=200 * PRICE, switches=Switches(webhook="lost")))
    for number in range(1, 31):
        history.submit(request(number, clips=4))
    newer = [key for key in history.table.rows if key[1] != request(30)["taskUUID"]]
    history.table.unreadable |= set(newer)
    history.advance(history.world.now + MAX_DETECTION_TIME)
    ends = Counter(clip.status for key, clip in history.table.rows.items() if key not in newer)
    assert ends == {Status.STORED: 4}
    assert history.telemetry.counted[Metric.UNREADABLE_CLIPS] >= len(newer)
    history.table.unreadable.clear()
    history.advance()
    assert not verdict(history), verdict(history)


def test_an_unknown_kind_of_fact_is_kept() -> None:
    """A fact of a later version stays in the clip through every change of it."""
    history = History(Setting())
    history.submit(request())
    ((key, clip),) = history.table.rows.items()
    (fact,) = clip.facts.values()
    history.table.rows[key] = replace(clip, facts={**clip.facts, ("teleported", "x"): fact})
    history.advance()
    assert history.table.rows[key].status == Status.STORED
    assert history.table.rows[key].facts["teleported", "x"] == fact
    assert not verdict(history), verdict(history)


def test_clocks_beyond_the_allowed_skew_break_a_promise() -> None:
    """The bound is needed: with clocks a minute apart two buyers hold one clip at once, and the check reports it."""

    def broken(apart: int) -> set[str]:
        settings = (
            Setting(
                fates=("refused connection", "lost"), skews=skews, schedule=Schedule(guests_inside={n: "last sweep"})
            )
            for n, skews in product(range(1, 30), ((apart, 0), (0, apart)))
        )
        return {fault for setting in settings for fault in verdict(run_history(setting))}

    assert broken(SKEW) == set()
    assert "two buyers of one clip at once" in broken(TIMES.lease)


class ServiceMachine(RuleBasedStateMachine):
    """Several tasks under one small budget, and every possible event in any order."""

    history: History

    @initialize(
        switches=st.sampled_from([*ONE_AT_A_TIME, *ADVERSE, *SHARED_POLLS, *CHAIN_SWITCHES]),
        policy=st.sampled_from(POLICIES),
        skews=st.sampled_from([(), *SKEWS]),
        contended=st.sampled_from([0, 0, 300_000]),
        lag=st.sampled_from([0, 20_000]),
        fallback=st.sampled_from([(), *CHAINS]),
    )
    def begin(
        self, switches: Any, policy: Any, skews: Any, contended: int, lag: int, fallback: tuple[str, ...]
    ) -> None:
        self.history = History(
            Setting(
                switches=switches,
                when_ambiguous=policy,
                limit=6 * PRICE,
                skews=skews,
                contended=contended,
                lag=lag,
                fallback=fallback,
            )
        )
        self.history.runware.down = lambda: self.down
        self.history.table.busy_now = self._busy
        self.down = False
        self.busy = 0
        self.sent: dict[int, int] = {}

    def _busy(self, _: str) -> bool:
        self.busy -= self.busy > 0
        return self.busy > 0

    @rule(number=st.integers(1, 5), clips=st.integers(1, 3), fate=st.sampled_from(FATES))
    def submit(self, number: int, clips: int, fate: str) -> None:
        """A new task, or a repeat of one, possibly with another number of clips."""
        self.history.runware.fates[:] = [fate]
        answer = self.history.submit(order(self.history.setting, number, clips))
        note(f"answered {answer and answer.body}")

    @rule(ahead=st.integers(1, 12), after=st.booleans())
    def stop_soon(self, ahead: int, after: bool) -> None:
        """The program is killed a few effects from now."""
        number = frozenset({self.history.world.effects + ahead})
        self.history.world.schedule = Schedule(after=number) if after else Schedule(before=number)

    @rule(ahead=st.integers(1, 8), loss=st.sampled_from(LOSSES))
    def lose_an_answer_soon(self, ahead: int, loss: str) -> None:
        """The answer of the table is lost a few effects from now."""
        self.history.world.schedule = Schedule(lost={self.history.world.effects + ahead: loss})

    @rule(
        ahead=st.integers(1, 8), guest=st.sampled_from(["sweep", "hang", "last sweep", "webhook"]), inside=st.booleans()
    )
    def race_soon(self, ahead: int, guest: str, inside: bool) -> None:
        """Another process is faster, a few effects from now."""
        guests = {self.history.world.effects + ahead: guest}
        self.history.world.schedule = Schedule(guests_inside=guests) if inside else Schedule(guests=guests)

    @rule(seconds=st.sampled_from([1, 20, 59, 61, 119, 240, 900, 7200]))
    def wait(self, seconds: int) -> None:
        """Time passes under the schedule."""
        until = self.history.world.now + seconds * 1000
        self.history.advance(until)
        self.history.world.move_to(until)

    @rule()
    def sweep(self) -> None:
        """A sweep out of turn."""
        self.history.sweep()

    @rule()
    def webhook_now(self) -> None:
        """Runware finishes all renders at once."""
        self.history.world.guests["webhook"]()

    @precondition(lambda self: not self.down)
    @rule()
    def runware_fails(self) -> None:
        """No request reaches Runware from now on."""
        self.down = True

    @precondition(lambda self: self.down)
    @rule()
    def runware_recovers(self) -> None:
        """Requests reach Runware again."""
        self.down = False
        self.history.outage_ended_at = self.history.world.now

    @rule(writes=st.integers(1, 4))
    def table_is_busy(self, writes: int) -> None:
        """The next few writes find the table busy after all retries."""
        self.busy = writes

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        """No clip is charged twice, checked after every step."""
        if not hasattr(self, "history"):
            return
        runware = self.history.runware
        assert all(runware.charged(task.uuid) <= 1 for task in runware.executions)
        assert not runware.supervisor.violations, runware.supervisor.violations
        assert not self.history.unsaved

    @invariant()
    def nothing_is_over_budget(self) -> None:
        """The budgets equal the sum of the clips and stay within the limit."""
        if not hasattr(self, "history"):
            return
        held = {amount for (_, _), (amount, _) in self.history.table.budgets.items()}
        assert held <= {sum(clip.budgeted for clip in self.history.table.rows.values())}
        assert max(held, default=0) <= self.history.setting.limit

    def teardown(self) -> None:
        """All failures end, and the history runs until nothing is left to do."""
        if hasattr(self, "history"):
            if self.down:
                self.runware_recovers()
            self.busy = 0
            self.history.world.schedule = Schedule()
            self.history.advance()
            assert not verdict(self.history), verdict(self.history)


@pytest.mark.timeout(EXTRA_SECONDS + 600)  # Hypothesis simplifies a counterexample for up to five minutes
@pytest.mark.parametrize(
    "histories",
    [
        pytest.param(100, marks=pytest.mark.skipif(EXHAUSTIVE, reason="more are run")),
        pytest.param(300, marks=pytest.mark.batch),
    ],
)
def test_long_random_histories_keep_every_promise(histories: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Random events in random order, followed by a recovery, end with every promise kept."""
    began, completed = time.monotonic(), 0
    while not completed or time.monotonic() - began < EXTRA_SECONDS:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            ServiceMachine,
            settings=settings(
                max_examples=histories,
                stateful_step_count=40,
                deadline=None,
                derandomize=not EXTRA_SECONDS,
                suppress_health_check=list(HealthCheck),
            ),
        )
        completed += histories
    with capsys.disabled():
        print(f"\nrandom histories: {completed}")

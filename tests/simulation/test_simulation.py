"""The six promises, by enumeration and by chance, on the real use cases and a world in memory.

`make simulate` explores the whole enumeration and shows the figures, and so does `make test-batch`; `make test` takes
the same sample of it each time, in which each fault of test_mutants would show.
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
    CROWDS,
    FATES,
    MANNERS,
    ONE_AT_A_TIME,
    POLICIES,
    SAMPLED,
    SKEWS,
    WHOLE,
    Findings,
    everything,
    explore,
    sample,
)
from tests.simulation.history import FOUND_WITHIN, History, Setting, live, request, verdict
from tests.simulation.telltale import TELLTALE
from tests.simulation.watching import SKEW
from tests.simulation.world import Schedule

PARTS = 2  # processes: as many as the smallest machine has cores
AT_LEAST = 20_000
GO_ON_FOR = float(os.environ.get("SIMULATE_SECONDS", "0"))  # seconds of random histories, beyond the usual number


def part(number: int) -> Findings:
    """Every `PARTS`-th setting, so that the parts are of one size."""
    return explore(islice(everything(), number, None, PARTS))


@pytest.mark.skipif(WHOLE, reason="the whole is explored")
def test_a_sample_of_the_schedules_keeps_every_promise() -> None:
    """No stop, race, loss or manner of Runware in the sample buys a clip twice, loses one or overruns a budget."""
    findings = explore(sample())
    assert findings.explored == SAMPLED + len(TELLTALE)
    assert findings.clean, findings.broken


@pytest.mark.timeout(900)
@pytest.mark.batch
def test_every_schedule_keeps_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """No enumerated stop, race, loss or manner of Runware buys a clip twice, loses one or overruns a budget."""
    findings = Findings()
    # Not forked: the test's process may have threads by now.
    with ProcessPoolExecutor(PARTS, mp_context=get_context("spawn")) as processes:
        for found in processes.map(part, range(PARTS)):
            findings.add(found)
    with capsys.disabled():
        print(f"\n{findings}")
    assert findings.explored >= AT_LEAST
    assert findings.clean, findings.broken


@pytest.mark.parametrize("questions", LOOKUP_REFUSALS)
@pytest.mark.parametrize("fails", ["", "inferenceError"])
def test_a_question_turned_away_says_nothing_of_a_clip(questions: str, fails: str) -> None:
    """While Runware answers nobody, clips under way stay so, and failures are doubted; then all are found as they are.

    No webhook comes and nothing is uploaded, so that there is nobody else to tell; the failures turn out to be none.
    """
    deaf = Switches(lookup_refusal=questions, webhook="lost", upload="never", render_fails=fails)
    history = History(Setting(switches=deaf, clips=2))
    history.submit(request(clips=2))
    if fails:
        history.runware.switches = replace(deaf, lookup_refusal="")
        history.go_on(history.world.now + 400_000)
        assert {clip.status for clip in history.table.rows.values()} == {Status.FAILED}
        history.runware.switches = deaf
    history.go_on(history.world.now + 3_600_000)
    assert all(clip.open for clip in history.table.rows.values())
    assert fails or {clip.status for clip in history.table.rows.values()} == {Status.RUNNING}
    for task in history.runware.executions:
        task.failed, task.charge = False, PRICE
    history.runware.switches = replace(deaf, lookup_refusal="", render_fails="")
    history.go_on()
    assert {clip.status for clip in history.table.rows.values()} == {Status.STORED}
    assert not verdict(history), verdict(history)


def test_a_clip_that_others_hide_is_asked_for_alone() -> None:
    """Before a clip is parked Runware is asked about it alone: what a shared poll leaves out may well be known."""
    history = History(Setting(switches=Switches(polls_all_or_nothing=True, webhook="lost", upload="never"), clips=3))
    history.submit(request(clips=3))
    forgotten = history.runware.executions.pop(1)
    history.go_on()
    ends = {clip.clip_uuid: clip.status for clip in history.table.rows.values()}
    assert ends.pop(forgotten.uuid) == Status.REVIEW
    assert set(ends.values()) == {Status.STORED}


@pytest.mark.parametrize("webhook", ["enveloped", "lost"])
def test_a_copy_that_was_put_over_is_still_the_clips(webhook: str) -> None:
    """S3 tells of each version: what was there for a moment counts, though a probe now finds what spoiled it."""
    history = live(Setting(switches=Switches(webhook=webhook, upload="spoiled", url_works=False)))
    (clip,) = history.table.rows.values()
    assert clip.status == Status.STORED
    assert clip.copy
    assert clip.copy[0] == "1"
    assert not verdict(history), verdict(history)


@pytest.mark.parametrize("unknown", [True, False])
def test_one_task_or_too_many_spoil_no_poll_for_the_others(unknown: bool) -> None:
    """A Runware that turns a poll away as a whole hides nothing for long: what is left is asked again, in parts."""
    refuses = Switches(polls_all_or_nothing=True, forgotten=1) if unknown else Switches(max_polled=10)
    history = History(Setting(switches=replace(refuses, webhook="lost", upload="never"), tasks=8, clips=4))
    for number in range(1, 9):
        history.submit(request(number, clips=4))
    history.go_on(history.world.now + FOUND_WITHIN)
    ends = Counter(clip.status for clip in history.table.rows.values())
    assert ends == {Status.STORED: 32 - unknown, **({Status.RUNNING: 1} if unknown else {})}
    history.go_on()
    assert not verdict(history), verdict(history)


def test_clips_that_cannot_be_read_starve_no_other_and_are_kept() -> None:
    """A hundred due clips of a later version, and more, are moved out of the way, alarmed, and read again later."""
    history = History(Setting(tasks=30, clips=4, limit=200 * PRICE, switches=Switches(webhook="lost")))
    for number in range(1, 31):
        history.submit(request(number, clips=4))
    newer = [key for key in history.table.rows if key[1] != request(30)["taskUUID"]]
    history.table.unreadable |= set(newer)
    history.go_on(history.world.now + FOUND_WITHIN)
    ends = Counter(clip.status for key, clip in history.table.rows.items() if key not in newer)
    assert ends == {Status.STORED: 4}
    assert history.telemetry.counted[Metric.UNREADABLE_CLIPS] >= len(newer)
    history.table.unreadable.clear()
    history.go_on()
    assert not verdict(history), verdict(history)


def test_an_unknown_kind_of_fact_is_kept_and_hinders_nothing() -> None:
    """What a later version has learned of a clip is carried through every change of it."""
    history = History(Setting())
    history.submit(request())
    ((key, clip),) = history.table.rows.items()
    (known,) = clip.facts.values()
    history.table.rows[key] = replace(clip, facts={**clip.facts, ("teleported", "x"): known})
    history.go_on()
    assert history.table.rows[key].status == Status.STORED
    assert history.table.rows[key].facts["teleported", "x"] == known
    assert not verdict(history), verdict(history)


def test_clocks_further_apart_than_promised_break_a_promise() -> None:
    """The bound is needed: with clocks a minute apart two buyers hold one clip at once, and the judge sees it."""

    def broken(apart: int) -> set[str]:
        settings = (
            Setting(
                fates=("refused connection", "lost"), skews=skews, schedule=Schedule(guests_inside={n: "last sweep"})
            )
            for n, skews in product(range(1, 30), ((apart, 0), (0, apart)))
        )
        return {fault for setting in settings for fault in verdict(live(setting))}

    assert broken(SKEW) == set()
    assert "two buyers of one clip at once" in broken(TIMES.lease)


class Service(RuleBasedStateMachine):
    """Several tasks under one small budget, and everything that can happen to them in any order."""

    history: History

    @initialize(
        switches=st.sampled_from([*ONE_AT_A_TIME, *ADVERSE, *CROWDS]),
        policy=st.sampled_from(POLICIES),
        skews=st.sampled_from([(), *SKEWS]),
        contended=st.sampled_from([0, 0, 300_000]),
        lag=st.sampled_from([0, 20_000]),
    )
    def begin(self, switches: Any, policy: Any, skews: Any, contended: int, lag: int) -> None:
        self.history = History(
            Setting(
                switches=switches, when_ambiguous=policy, limit=6 * PRICE, skews=skews, contended=contended, lag=lag
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
        """A new task, or a repeat of one, perhaps with another number of clips."""
        self.history.runware.fates[:] = [fate]
        answer = self.history.submit(request(number, clips))
        note(f"answered {answer and answer.body}")

    @rule(ahead=st.integers(1, 12), after=st.booleans())
    def stop_soon(self, ahead: int, after: bool) -> None:
        """The program will be killed a few effects from now."""
        number = frozenset({self.history.world.effects + ahead})
        self.history.world.schedule = Schedule(after=number) if after else Schedule(before=number)

    @rule(ahead=st.integers(1, 8), manner=st.sampled_from(MANNERS))
    def lose_an_answer_soon(self, ahead: int, manner: str) -> None:
        """The table will do something a few effects from now, and nothing comes back."""
        self.history.world.schedule = Schedule(lost={self.history.world.effects + ahead: manner})

    @rule(
        ahead=st.integers(1, 8), guest=st.sampled_from(["sweep", "hang", "last sweep", "webhook"]), inside=st.booleans()
    )
    def race_soon(self, ahead: int, guest: str, inside: bool) -> None:
        """Another process will be faster, a few effects from now."""
        guests = {self.history.world.effects + ahead: guest}
        self.history.world.schedule = Schedule(guests_inside=guests) if inside else Schedule(guests=guests)

    @rule(seconds=st.sampled_from([1, 20, 59, 61, 119, 240, 900, 7200]))
    def wait(self, seconds: int) -> None:
        """Time passes, with the schedule at work."""
        until = self.history.world.now + seconds * 1000
        self.history.go_on(until)
        self.history.world.move_to(until)

    @rule()
    def sweep(self) -> None:
        """A sweep out of turn."""
        self.history.sweep()

    @rule()
    def webhook_now(self) -> None:
        """Runware is done with everything at once."""
        self.history.world.guests["webhook"]()

    @precondition(lambda self: not self.down)
    @rule()
    def runware_fails(self) -> None:
        """Nothing reaches Runware from now on."""
        self.down = True

    @precondition(lambda self: self.down)
    @rule()
    def runware_recovers(self) -> None:
        """Runware is back."""
        self.down = False

    @rule(writes=st.integers(1, 4))
    def table_is_busy(self, writes: int) -> None:
        """The next few writes find the table contended beyond patience."""
        self.busy = writes

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        """At any moment, not only in the end."""
        if not hasattr(self, "history"):
            return
        runware = self.history.runware
        assert all(runware.charged(task.uuid) <= 1 for task in runware.executions)
        assert not runware.supervisor.violations, runware.supervisor.violations
        assert not self.history.unsaved

    @invariant()
    def nothing_is_over_budget(self) -> None:
        """What the budgets hold is what the clips are worth, and within the limit."""
        if not hasattr(self, "history"):
            return
        held = {amount for (_, _), (amount, _) in self.history.table.budgets.items()}
        assert held <= {sum(clip.budgeted for clip in self.history.table.rows.values())}
        assert max(held, default=0) <= self.history.setting.limit

    def teardown(self) -> None:
        """Everything heals, and time goes on until nothing is left to do."""
        if hasattr(self, "history"):
            self.down, self.busy = False, 0
            self.history.world.schedule = Schedule()
            self.history.go_on()
            assert not verdict(self.history), verdict(self.history)


@pytest.mark.timeout(GO_ON_FOR + 300)
@pytest.mark.parametrize(
    "histories",
    [
        pytest.param(100, marks=pytest.mark.skipif(WHOLE, reason="more are lived")),
        pytest.param(300, marks=pytest.mark.batch),
    ],
)
def test_long_random_histories_keep_every_promise(histories: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever happens, in whatever order, and then heals, ends with every promise kept."""
    began, lived = time.monotonic(), 0
    while not lived or time.monotonic() - began < GO_ON_FOR:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Service,
            settings=settings(
                max_examples=histories,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        lived += histories
    with capsys.disabled():
        print(f"\nrandom histories lived: {lived}")

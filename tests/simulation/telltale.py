"""The settings in which the planted faults of test_mutants show, each in at least one of them.

After a change of the rules a fault may show in none of them: `make simulate` finds and prints another setting for it.
"""

from dataclasses import replace

from tests.fakes.builders import PRICE
from tests.fakes.models import DEARER, FIRST
from tests.fakes.simulated import Switches
from tests.simulation.history import Setting
from tests.simulation.transitions import SKEW
from tests.simulation.world import Schedule

_SECOND_RENDER = Switches(second_render=True)
_FAILING = Switches(render_fails="timeoutProvider")
_FORGETFUL = Switches(
    finished_uuid_refused=False, poll_finds_running=False, poll_finds_finished_for=0, details="missing"
)
_FALLBACK = (DEARER.air,)
_FIRST_FAILS = Switches(render_fails="inferenceError", fails_only=FIRST.air)

TELLTALE: tuple[Setting, ...] = (
    Setting(
        switches=Switches(poll_finds_finished_for=0),
        when_ambiguous="review",
        fates=("cut after",),
        schedule=Schedule(before=frozenset({3})),
    ),
    Setting(switches=Switches(details="missing"), fates=("late", "no")),
    Setting(
        switches=Switches(polls_fail=True),
        fates=("cut after",),
        lost=frozenset({"poll"}),
        schedule=Schedule(before=frozenset({19})),
    ),
    Setting(switches=Switches(webhook_twice=True, upload="late", url=False), when_ambiguous="review", fates=("503",)),
    Setting(fates=("lost", "lost"), schedule=Schedule(after=frozenset({22}), guests_inside={22: "webhook"})),
    Setting(
        fates=("refused connection", "cut after"),
        skews=(SKEW, 0),
        schedule=Schedule(guests_inside={9: "hang", 10: "last sweep"}),
    ),
    Setting(
        switches=Switches(webhook="lost", upload="never", render_fails="taskFailed", fails_then_succeeds=True),
        fates=("lost",),
        schedule=Schedule(after=frozenset({7})),
    ),
    Setting(switches=Switches(webhook="lost", upload="never", url_works=False), fates=("well",)),
    Setting(
        switches=_FORGETFUL,
        fates=("refused connection", "late"),
        skews=(SKEW, 0),
        schedule=Schedule(guests_inside={27: "last sweep"}),
    ),
    Setting(switches=_SECOND_RENDER, fates=("no",), contended=300_000, schedule=Schedule(before=frozenset({33}))),
    Setting(
        switches=_FAILING,
        when_ambiguous="review",
        fates=("refused connection",),
        schedule=Schedule(lost={12: "again"}),
    ),
    Setting(
        switches=_SECOND_RENDER,
        fates=("well",),
        limit=PRICE,
        schedule=Schedule(guests_inside={1: "webhook"}, lost={1: "busy"}),
    ),
    Setting(
        switches=_FAILING,
        when_ambiguous="review",
        fates=("refused connection",),
        schedule=Schedule(lost={1: "busy"}),
    ),
    Setting(switches=_SECOND_RENDER, fates=("well",), limit=PRICE, schedule=Schedule(lost={14: "busy"})),
    Setting(switches=_FAILING, when_ambiguous="review", fates=("no account",), contended=30_000),
    Setting(
        fates=("refused connection", "lost"),
        skews=(SKEW, 0),
        schedule=Schedule(guests_inside={12: "hang", 13: "last sweep"}),
    ),
    Setting(
        switches=Switches(polls_fail=True),
        fates=("late",),
        lost=frozenset({"webhook", "poll"}),
        schedule=Schedule(after=frozenset({21})),
    ),
    Setting(switches=_FORGETFUL, fates=("lost", "lost", "lost"), schedule=Schedule(guests_inside={22: "hang"})),
    Setting(
        fates=("refused connection", "cut after"),
        skews=(0, SKEW),
        schedule=Schedule(guests_inside={13: "hang", 14: "last sweep"}),
    ),
    Setting(
        switches=Switches(lookup_refusal="no key", webhook="lost", upload="never"),
        fates=("lost", "lost"),
        clips=4,
        tasks=3,
        lag=20_000,
    ),
    Setting(switches=Switches(upload="never"), when_ambiguous="review", fates=("late", "no")),
    Setting(
        switches=Switches(
            poll_finds_finished_for=3_600_000, polls_all_or_nothing=True, forgotten=1, webhook="lost", upload="never"
        ),
        fates=("lost", "lost"),
        clips=4,
        tasks=3,
        lag=20_000,
    ),
    Setting(fates=("well",), schedule=Schedule(guests_inside={2: "submit"}, lost={3: "busy"})),
    Setting(fates=("cut after",), fallback=_FALLBACK),
    Setting(fates=("lost", "no"), fallback=_FALLBACK),
    Setting(fates=("lost", "no"), fallback=_FALLBACK, when_ambiguous="review"),
    Setting(switches=replace(_FIRST_FAILS, render_fails="timeoutProvider"), fallback=_FALLBACK),
    Setting(switches=replace(_FIRST_FAILS, render_fails="invalidProviderContent"), fallback=_FALLBACK),
    Setting(switches=_FIRST_FAILS, fallback=_FALLBACK),
    Setting(switches=replace(_FIRST_FAILS, polls_fail=True), fallback=_FALLBACK),
    Setting(fates=("no",), fallback=_FALLBACK, schedule=Schedule(before=frozenset({13}))),
    Setting(fates=("no",), fallback=_FALLBACK, limit=1_000_000),
    Setting(switches=replace(_FIRST_FAILS, fails_then_succeeds=True, succeeds_after=1_500_000), fallback=_FALLBACK),
)

"""The enumerated schedules: each stop and each race, under each behaviour of Runware, for each outcome of a call.

`all_settings()` yields them; `explore` runs and checks each. No setting comes twice. `sample()` has those that
`make test` runs.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain, combinations, islice, product, zip_longest
from typing import Literal

from tests.fakes.builders import PRICE
from tests.fakes.models import CHEAPER, DEARER, FIRST
from tests.fakes.simulated import Switches
from tests.simulation.history import Setting, run_history, verdict
from tests.simulation.telltale import TELLTALE
from tests.simulation.transitions import SKEW
from tests.simulation.world import EndlessError, Schedule

FATES = (
    "well",
    "lost",
    "late",
    "cut after",
    "500",
    "500 after",
    "503",
    "503 after",
    "garbled after",
    "bare 429",
    "429",
    "no",
    "no account",
    "refused connection",
)
# The outcomes with the most different consequences, for parts in which all outcomes would be too many.
KEY_FATES = ("refused connection", "well", "lost", "late", "cut after", "no")
POLICIES: tuple[Literal["resend", "review"], ...] = ("resend", "review")
GUESTS = ("sweep", "later sweep", "submit", "webhook")
LOSSES = ("again", "busy")
SOURCES = ("webhook", "poll", "bucket", "uploaded")

PLAIN = Switches()
ONE_AT_A_TIME = (
    PLAIN,
    Switches(finished_uuid_refused=False),
    Switches(poll_finds_running=False),
    Switches(poll_finds_finished_for=0),
    Switches(poll_finds_finished_for=300_000),
    Switches(details="missing"),
    Switches(details="never"),
    Switches(polls_fail=True),
    Switches(webhook="flat"),
    Switches(webhook="array"),
    Switches(webhook="lost"),
    Switches(webhook_tries=1),
    Switches(webhook_twice=True),
    Switches(render_fails="timeoutProvider"),
    Switches(render_fails="invalidProviderContent", failures_call=False),
    Switches(render_fails="inferenceError", fails_then_succeeds=True),
    Switches(upload="after"),
    Switches(upload="late"),
    Switches(upload="never"),
    Switches(upload="garbage"),
    Switches(upload="empty"),
    Switches(conflict_status=409),
    Switches(url=False),
    Switches(url=False, inline=True, upload="never"),
    Switches(cost=False),
    Switches(nsfw=True),
    Switches(url_works=False),
    Switches(render=130_000),
    Switches(render=1_500_000),
)
ADVERSE = (
    Switches(webhook="lost", upload="never"),
    Switches(webhook="lost", upload="garbage"),
    Switches(webhook="lost", polls_fail=True),
    Switches(webhook="lost", polls_fail=True, upload="never"),
    Switches(webhook="lost", upload="never", url_works=False),
    Switches(webhook="lost", poll_finds_finished_for=0, details="missing"),
    Switches(webhook="lost", poll_finds_running=False, poll_finds_finished_for=0, details="missing", upload="never"),
    Switches(finished_uuid_refused=False, poll_finds_running=False, poll_finds_finished_for=0, details="missing"),
    Switches(finished_uuid_refused=False, webhook="lost", upload="late", details="never"),
    Switches(poll_finds_running=False, webhook="lost", details="missing", render=130_000),
    Switches(render_fails="taskFailed", fails_then_succeeds=True, webhook="lost", upload="never"),
    Switches(render_fails="timeoutProvider", failures_call=False, poll_finds_finished_for=0, details="missing"),
    Switches(upload="late", url=False, webhook_twice=True),
    Switches(cost=False, webhook="lost", upload="late"),
    Switches(
        finished_uuid_refused=False,
        poll_finds_running=False,
        poll_finds_finished_for=0,
        details="missing",
        webhook="lost",
        upload="never",
    ),
)
RACED = (
    PLAIN,
    Switches(webhook="lost"),
    Switches(upload="never"),
    Switches(poll_finds_finished_for=0, details="missing"),
    Switches(poll_finds_running=False, webhook="lost"),
)

# Differences between clocks: the first function's is behind or ahead, or only every third one's is ahead.
SKEWS = ((0, SKEW), (SKEW, 0), (0, 0, SKEW))
COSTLY = Switches(second_render=True)  # exceeds the budgets of a single clip
SHARED_POLLS = (
    Switches(webhook="lost", max_polled=10),
    Switches(webhook="lost", max_polled=3, upload="never"),
    Switches(webhook="lost", polls_all_or_nothing=True, forgotten=1, upload="never"),
    Switches(webhook="lost", polls_all_or_nothing=True, forgotten=2),
    Switches(webhook="lost", polls_all_or_nothing=True, forgotten=1, poll_finds_finished_for=3_600_000, upload="never"),
    Switches(webhook="lost", polls_all_or_nothing=True, max_polled=10, forgotten=1, upload="never"),
    Switches(polls_fail=True, webhook="lost"),
    Switches(lookup_refusal="no key", webhook="lost", upload="never"),
)


CHAINS = ((DEARER.air,), (CHEAPER.air, DEARER.air))
_FIRST_FAILS = Switches(render_fails="inferenceError", fails_only=FIRST.air)
CHAIN_SWITCHES = (
    PLAIN,
    _FIRST_FAILS,
    Switches(render_fails="inferenceError"),
    replace(_FIRST_FAILS, failures_call=False),
    replace(_FIRST_FAILS, fails_then_succeeds=True),
    replace(_FIRST_FAILS, polls_fail=True),
    replace(_FIRST_FAILS, webhook="lost", upload="never"),
    replace(_FIRST_FAILS, details="missing", poll_finds_finished_for=0),
    replace(_FIRST_FAILS, render_fails="timeoutProvider"),
    replace(_FIRST_FAILS, render_fails="invalidProviderContent"),
)
CHAIN_FATES = (
    (),
    ("no",),
    ("no", "no", "no"),
    ("no", "lost"),
    ("cut after",),
    ("no", "cut after"),
    ("lost", "no"),
    ("late", "no"),
    ("429", "no"),
    ("refused connection", "no"),
    ("no account",),
    ("no", "no account"),
)
LATE_SUCCESS = replace(_FIRST_FAILS, fails_then_succeeds=True, succeeds_after=1_500_000)

EXHAUSTIVE = "SIMULATE_SECONDS" in os.environ  # set by `make simulate`
SAMPLE_SIZE = 1_000  # settings in `make test`, besides those in which the planted faults show
_SAMPLE_STEP = 15  # of the behaviours and policies in the sample; odd, so that both policies occur
_SEED = 2  # arbitrary


@dataclass(slots=True)
class Findings:
    """The result of an exploration; `broken` has the first five settings that broke a promise, with the promises."""

    explored: int = 0
    double_purchases: int = 0
    lost_clips: int = 0
    overruns: int = 0
    others: int = 0
    broken: list[tuple[Setting, list[str]]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.double_purchases or self.lost_clips or self.overruns or self.others)

    def judge(self, setting: Setting) -> None:
        try:
            faults = verdict(run_history(setting))
        except EndlessError:
            faults = ["lost: a sweep does not end"]
        self.explored += 1
        doubles = any("bought" in fault for fault in faults)
        lost = any(fault.partition(": ")[2].startswith("lost") or fault.startswith("lost") for fault in faults)
        overruns = any("over budget" in fault for fault in faults)
        self.double_purchases += doubles
        self.lost_clips += lost
        self.overruns += overruns
        self.others += bool(faults) and not (doubles or lost or overruns)
        if faults and len(self.broken) < 5:
            self.broken.append((setting, faults))

    def add(self, other: "Findings") -> None:
        self.explored += other.explored
        self.double_purchases += other.double_purchases
        self.lost_clips += other.lost_clips
        self.overruns += other.overruns
        self.others += other.others
        self.broken = (self.broken + other.broken)[:5]

    def __str__(self) -> str:
        return (
            f"schedules explored: {self.explored}\n"
            f"double purchases: {self.double_purchases}\n"
            f"lost clips: {self.lost_clips}\n"
            f"budget overruns: {self.overruns}\n"
            f"other broken promises: {self.others}"
        )


def explore(settings: Iterable[Setting], stop_at_first: bool = False) -> Findings:
    """Runs and checks each setting."""
    findings = Findings()
    for setting in settings:
        findings.judge(setting)
        if stop_at_first and not findings.clean:
            break
    return findings


def sample() -> list[Setting]:
    """The settings in which the planted faults show, and a thousand from all parts of the enumeration."""
    return [*TELLTALE, *islice(_mixed(*PARTS, partial(single_stops, every=_SAMPLE_STEP)), SAMPLE_SIZE)]


def all_settings() -> Iterator[Setting]:
    """All parts of the enumeration. No setting comes twice."""
    return _mixed(*PARTS, single_stops)


def _mixed(*makers: Callable[[], Iterable[Setting]]) -> Iterator[Setting]:
    """Takes settings from the parts in turn, in a pseudorandom order within each part.

    So the small parts come early, and faults show soon.
    """
    shuffled = random.Random(_SEED)
    parts = [list(part()) for part in makers]
    for part in parts:
        shuffled.shuffle(part)
    seen: set[str] = set()
    for setting in chain.from_iterable(zip_longest(*parts)):
        name = repr(setting)
        if setting is not None and name not in seen:
            seen.add(name)
            yield setting


def undisturbed() -> Iterator[Setting]:
    """No stops and no races: many faults show without any."""
    for switches, policy in product((*ONE_AT_A_TIME, *ADVERSE), POLICIES):
        for fate in (*KEY_FATES, "503", "503 after"):
            yield Setting(switches=switches, when_ambiguous=policy, fates=(fate,))
            yield Setting(switches=switches, when_ambiguous=policy, fates=(fate, "no"))


def single_stops(every: int = 1) -> Iterator[Setting]:
    """Every single stop, under every switch by itself and in adverse combinations, for every outcome of the call.

    Or under every n-th combination: each undisturbed history has to be run, to count its effects.
    """
    for switches, policy in islice(product((*ONE_AT_A_TIME, *ADVERSE), POLICIES), 0, None, every):
        for fate in FATES if switches is PLAIN else KEY_FATES:
            setting = Setting(switches=switches, when_ambiguous=policy, fates=(fate,))
            yield setting
            yield from _stopped(setting)


def lost_sources() -> Iterator[Setting]:
    """Each source lost, and each pair of sources, with every single stop."""
    losses = [frozenset(lost) for number in (1, 2) for lost in combinations(SOURCES, number)]
    for lost, fate in product(losses, KEY_FATES):
        switches = Switches(polls_fail="poll" in lost)
        setting = Setting(switches=switches, fates=(fate,), lost=lost)
        yield setting
        yield from _stopped(setting)


def races() -> Iterator[Setting]:
    """Another sweep, webhook or call of the same request before or inside every single effect."""
    lost_twice = [Setting(fates=(fate, "lost")) for fate in KEY_FATES]
    then_refused = [Setting(switches=switches, fates=(fate, "no")) for fate, switches in product(KEY_FATES, RACED)]
    for setting in (*lost_twice, *then_refused):
        for number, guest in product(range(1, effects(setting) + 1), GUESTS):
            for raced in (Schedule(guests={number: guest}), Schedule(guests_inside={number: guest})):
                yield replace(setting, schedule=raced)
                yield replace(setting, schedule=replace(raced, after=frozenset({number})))


def pairs_of_stops() -> Iterator[Setting]:
    """Every pair of stops, at the default switches, for contrasting outcomes of the first and second call."""
    for fates in (("well",), ("lost",), ("cut after",), ("late", "lost"), ("refused connection", "cut after")):
        setting = Setting(fates=fates)
        last = effects(setting) + 4
        for first, second in combinations(range(1, last + 1), 2):
            for one, other in product((True, False), repeat=2):
                before = frozenset(n for n, early in ((first, one), (second, other)) if early)
                yield replace(setting, schedule=Schedule(before, frozenset({first, second}) - before))


def lost_answers() -> Iterator[Setting]:
    """Every write and every read with its answer lost; for writes, also while another process is faster."""
    behaviours = (PLAIN, COSTLY, Switches(webhook="lost", upload="never"), Switches(render_fails="timeoutProvider"))
    for switches, policy, fate in product(behaviours, POLICIES, KEY_FATES):
        limit = PRICE if switches is COSTLY else 50 * PRICE
        setting = Setting(switches=switches, when_ambiguous=policy, fates=(fate,), limit=limit)
        for number, loss in product(range(1, effects(setting) + 1), LOSSES):
            yield replace(setting, schedule=Schedule(lost={number: loss}))
            # The answer of a repeated request's first write is lost.
            yield replace(setting, schedule=Schedule(lost={number + 1: loss}, guests_inside={number: "submit"}))
            if policy == "resend":
                yield replace(setting, schedule=Schedule(lost={number: loss}, guests_inside={number: "sweep"}))
                yield replace(setting, schedule=Schedule(lost={number: loss}, guests_inside={number: "webhook"}))
                yield replace(setting, schedule=Schedule(lost={number: loss}, after=frozenset({number + 2})))


def slow_functions() -> Iterator[Setting]:
    """A function that hangs as long as it may, at each of its effects, before or during a call of Runware."""
    for switches, fates in product((PLAIN, ADVERSE[7]), (("lost", "lost", "lost"), ("cut after",), ("late", "lost"))):
        setting = Setting(switches=switches, fates=fates)
        for number in range(1, effects(setting) + 1):
            yield replace(setting, schedule=Schedule(guests_inside={number: "hang"}))


def differing_clocks() -> Iterator[Setting]:
    """Functions with different clocks: one hangs as long as it may, then another one works."""
    second = (("refused connection", "lost"), ("refused connection", "late"), ("lost", "lost"), ("cut after", "no"))
    for skews, switches, fates in product(SKEWS, (PLAIN, ADVERSE[7]), second):
        setting = Setting(switches=switches, fates=fates, skews=skews)
        for number in range(1, effects(setting) + 1):
            yield replace(setting, schedule=Schedule(guests={number: "last sweep"}))
            yield replace(setting, schedule=Schedule(guests_inside={number: "last sweep"}))


def two_at_once() -> Iterator[Setting]:
    """The same, where one of them hangs both before and during its send."""
    for skews, fate in product(SKEWS, ("lost", "late", "cut after")):
        setting = Setting(fates=("refused connection", fate), skews=skews)
        for number in range(1, effects(setting) + 1):
            yield replace(setting, schedule=Schedule(guests_inside={number: "hang", number + 1: "last sweep"}))


def shared_polls() -> Iterator[Setting]:
    """Many clips at once, with a Runware that refuses polls for several clips, or all polls."""
    for switches, fate in product(SHARED_POLLS, ("well", "cut after", "refused connection")):
        yield Setting(switches=switches, fates=(fate,), tasks=3, clips=4)
    for switches in SHARED_POLLS:
        yield Setting(switches=switches, when_ambiguous="review", tasks=3, clips=4, lag=1)
        yield Setting(switches=switches, fates=("lost", "lost"), tasks=3, clips=4, lag=20_000)


def contended_budgets() -> Iterator[Setting]:
    """Budgets with which no transaction succeeds for a while, with each single stop in that time."""
    behaviours = (PLAIN, COSTLY, Switches(render_fails="timeoutProvider"), Switches(cost=False, webhook="lost"))
    for switches, policy, fate in product(behaviours, POLICIES, (*KEY_FATES, "no account")):
        for contended in (30_000, 300_000, 3_600_000):
            setting = Setting(switches=switches, when_ambiguous=policy, fates=(fate,), contended=contended)
            yield setting
            if contended == 300_000:
                yield from _stopped(setting)


def fallbacks() -> Iterator[Setting]:
    """Tasks with fallback: each refusal and failure of the models, with each single stop, loss and race."""
    for models, switches, fates, policy in product(CHAINS, CHAIN_SWITCHES, CHAIN_FATES, POLICIES):
        yield Setting(switches=switches, fates=fates, fallback=models, when_ambiguous=policy)
        yield Setting(switches=switches, fates=fates, fallback=models, when_ambiguous=policy, on_moderation=True)
    for switches, fates in product(CHAIN_SWITCHES[:3], CHAIN_FATES):
        yield Setting(switches=switches, fates=fates, fallback=CHAINS[1], clips=3)
        for contended in (30_000, 1_500_000):
            yield Setting(switches=switches, fates=fates, fallback=CHAINS[0], contended=contended)
    for limit, models in product((PRICE, 1_000_000, 1_250_000), CHAINS):
        yield Setting(fates=("no", "no"), fallback=models, limit=limit)
    # After its last look no failure is expected to turn out a success, except for superseded clips, which are reviewed.
    for fates in ((), ("no",), ("no", "lost")):
        yield Setting(switches=LATE_SUCCESS, fates=fates, fallback=CHAINS[0])
    for switches, fates in product((PLAIN, CHAIN_SWITCHES[1], CHAIN_SWITCHES[2]), CHAIN_FATES[:5]):
        setting = Setting(switches=switches, fates=fates, fallback=CHAINS[0])
        yield from _stopped(setting)
        for number in range(1, effects(setting) + 1):
            for loss in LOSSES:
                yield replace(setting, schedule=Schedule(lost={number: loss}))
            for guest in ("sweep", "last sweep", "webhook"):
                yield replace(setting, schedule=Schedule(guests={number: guest}))
                yield replace(setting, schedule=Schedule(guests_inside={number: guest}))


def _stopped(setting: Setting) -> Iterator[Setting]:
    for number in range(1, effects(setting) + 4):
        yield replace(setting, schedule=Schedule(before=frozenset({number})))
        yield replace(setting, schedule=Schedule(after=frozenset({number})))


@cache
def _effects(name: str) -> int:
    return run_history(_by_name[name]).world.effects


PARTS = (
    undisturbed,
    races,
    lost_sources,
    pairs_of_stops,
    lost_answers,
    slow_functions,
    differing_clocks,
    two_at_once,
    shared_polls,
    contended_budgets,
    fallbacks,
)

_by_name: dict[str, Setting] = {}
_MAX_EFFECTS = 40  # later sweeps repeat earlier ones


def effects(setting: Setting) -> int:
    """The number of effects of the undisturbed history, up to the maximum."""
    _by_name[repr(setting)] = setting
    return min(_effects(repr(setting)), _MAX_EFFECTS)

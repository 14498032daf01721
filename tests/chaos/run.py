"""One run: callers order while parts fail; then the failures end, the stack finishes its work, and a judge checks it.

Has the times of the run: every interval of the service is scaled down, in the same order.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock

from rushes.config import WhenAmbiguous
from rushes.domain.clip import Kind
from rushes_cli.operator.review import clip_record
from rushes_local.aws.behavior import AwsBehavior
from rushes_local.stack import Stack
from tests.chaos.judgement import BrokenPromise, FinalState, StackInspector, event_faults, judge
from tests.chaos.traffic import Caller, Traffic
from tests.chaos.weather import FaultInjector, FaultLimits
from tests.event_listener import Listener

# The scale of the schedule (a sweep every 0.6 s) and of the queues. The functions' own intervals are below.
SCALE = 0.01

# In seconds. The functions reserve two seconds for their end at every scale, and moto, Runware and the gateway share a
# process: with shorter times, calls would time out without any failure.
TIMES: Mapping[str, float] = {
    "HTTP_TIMEOUT_SECONDS": 0.6,
    "FUNCTION_TIMEOUT_SECONDS": 4.0,
    "LEASE_SECONDS": 4.5,
    "RESEND_WINDOW_SECONDS": 5.0,
    "LAST_LOOK_SECONDS": 3.0,
    "RESCUE_AFTER_SECONDS": 1.0,
}

# The longest delay of a request and the range of render times, in seconds. `resend` assumes that a render takes longer
# than the latest resend: the window, the rest of the function's time, and the delay. `review` assumes nothing.
MAX_DELAY: Mapping[WhenAmbiguous, float] = {"resend": 1.2, "review": 4.0}
RENDERS: Mapping[WhenAmbiguous, tuple[float, float]] = {"resend": (8.5, 10.0), "review": (0.3, 3.0)}

# Seconds after which no resend can take effect, as the functions calculate it for slow renders.
_AFTER_RESENDS = sum(TIMES[f"{name}_SECONDS"] for name in ("RESEND_WINDOW", "FUNCTION_TIMEOUT", "LEASE")) + 0.1

# AWS as unkind as it may be, with delays shorter than the service's own intervals at this scale.
AWS = AwsBehavior(
    hold_seconds=0.01,
    lag_seconds=0.3,
    honors_tokens=True,
    throttled=0.02,
    repeated_events=0.1,
    late_seconds=0.5,
    lapsed_receipts=0.1,
    repeated_batches=0.1,
)

CALLERS = (("ada", 10_000.0), ("grace", 10_000.0), ("thrifty", 12.0))
_RETRY_DELAYS = (0.05, 0.1, 0.2, 0.4)  # seconds between Runware's attempts at a webhook
_POLL_SECONDS = 0.3
_MAX_QUIET_SECONDS = 240.0  # of which an idle machine needs a tenth
_MAX_EVENTS_SECONDS = 30.0
_REPEATED_TASKS = 40


@dataclass(frozen=True)
class Plan:
    """A run: `pace` orders a second for `seconds` seconds with failures.

    `deadline`: the seconds after which an uncertain purchase without evidence needs review.
    """

    seed: int
    seconds: float
    when_ambiguous: WhenAmbiguous
    pace: float = 2.0
    deadline: float = 20.0


@dataclass(frozen=True)
class Result:
    """The outcome of a run. `log` has every line of every component."""

    broken: Sequence[BrokenPromise]
    clips: int
    kills: int
    log: Sequence[str]
    report: str


@dataclass
class Log:
    """Every line of every component, in memory."""

    lines: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            self.lines.append(f"{name}\t{line}")


def run(root: Path, plan: Plan) -> Result:
    """Run the plan on the stack of the checkout at `root`. Takes `plan.seconds` and half a minute or more."""
    log, pause = Log(), Event()
    with start(root, plan, log) as stack:
        callers = [Caller(name, stack.create_key(name, limit), round(limit * 1_000_000)) for name, limit in CALLERS]
        limits = FaultLimits(
            slow_answer=1.5 * TIMES["HTTP_TIMEOUT_SECONDS"],
            max_delay=MAX_DELAY[plan.when_ambiguous],
            breaks_assumptions=plan.when_ambiguous == "review",
        )
        listener = Listener(stack)
        injector = FaultInjector(stack, plan.seed, limits)
        traffic = Traffic(stack, callers, plan.seed, pace=plan.pace)
        try:
            injector.start()
            traffic.start()
            pause.wait(plan.seconds)
        finally:
            traffic.stop()
            injector.stop()
        inspector = StackInspector(stack)
        took = wait_until(inspector.all_quiet, _MAX_QUIET_SECONDS)
        traffic.repeat_accepted(_REPEATED_TASKS)
        final = inspector.find()
        wait_until(lambda: all_published(inspector, final, listener), _MAX_EVENTS_SECONDS)
        events = listener.listen()
        broken = judge(inspector, final, callers, traffic.history, events, log.lines)
        broken += [BrokenPromise(text) for text in injector.accepted_forgeries]
        counts = (
            injector.counts
            + Counter({f"AWS: {effect}": count for effect, count in stack.aws.effects.items()})
            + traffic.history.counts
            + Counter(f"event: {event['detail-type']}" for event in events)
        )
        text = "\n".join((injector.behaviour, report(inspector, final, counts, log.lines, took, broken)))
        kills = sum(count for name, count in counts.items() if name.startswith("killed"))
        return Result(broken, len(final.all_clips), kills, log.lines, text)


def start(root: Path, plan: Plan, log: Log) -> Stack:
    """The stack for a plan, not started yet."""
    chance = random.Random(f"{plan.seed}-renders")
    shortest, longest = RENDERS[plan.when_ambiguous]
    times = {
        **TIMES,
        "USUAL_RENDER_SECONDS": shortest + 0.5 if plan.when_ambiguous == "review" else _AFTER_RESENDS,
        "DEADLINE_SECONDS": plan.deadline,
        "COPY_DEADLINE_SECONDS": plan.deadline + 1,
    }
    return Stack(
        root,
        time_scale=SCALE,
        timings={name: seconds / SCALE for name, seconds in times.items()},
        emulator_options={
            "small": True,
            "retry_delays": _RETRY_DELAYS,
            "render_seconds": lambda: chance.uniform(shortest, longest),
        },
        parameters={"MonthlyLimitUsd": "1000000", "WhenAmbiguous": plan.when_ambiguous},
        aws_behavior=replace(AWS, seed=plan.seed),
        sink=log,
    )


def wait_until(condition: Callable[[], bool], timeout: float) -> float:
    """Wait until `condition` is true, at most `timeout` seconds; returns the seconds that it took."""
    began, never = time.monotonic(), Event()
    while not condition() and time.monotonic() - began < timeout:
        never.wait(_POLL_SECONDS)
    return time.monotonic() - began


def all_published(inspector: StackInspector, final: FinalState, listener: Listener) -> bool:
    """True if the last event and manifest of every clip are published."""
    events = listener.listen()
    return not any(fault for clip in final.all_clips for fault in event_faults(inspector, clip, events))


def report(
    inspector: StackInspector,
    final: FinalState,
    counts: Counter[str],
    log: Sequence[str],
    took: float,
    broken: Sequence[BrokenPromise],
) -> str:
    """The figures of a run, and its broken promises, for people."""
    clips = final.all_clips
    statuses = Counter(f"clips {clip.status}" for clip in clips)
    kinds = Counter(kind for clip in clips for kind in (Kind.UNPROVEN, Kind.UNSAVED) if clip.decisive == kind)
    paid = [charge for charges in final.charges.values() for charge in charges]
    rows = {
        **dict(sorted(counts.items())),
        **{f"metric {name}": count for name, count in sorted(metrics(log).items())},
        "tasks recorded": len(final.clips),
        **dict(sorted(statuses.items())),
        **{f"in review: {kind}": count for kind, count in kinds.items()},
        "possibly sent": sum(clip.possibly_sent_at is not None for clip in clips),
        "rescued": sum(any(copy.fields.get("rescued") for copy in clip.of(Kind.STORED).values()) for clip in clips),
        "charges": len(paid),
        "paid, micro-dollars": sum(charge.micro_dollars for charge in paid),
        "dead letters": inspector.waiting(dead=True),
        "clips still open": inspector.open_clips(),
        "messages still waiting": inspector.waiting(),
        "seconds until all was quiet": round(took),
    }
    width = max(len(name) for name in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join(lines + [line for each in broken for line in _describe(inspector.stack, each)])


def metrics(log: Sequence[str]) -> Counter[str]:
    """The sums of the functions' metrics, as far as they were written before a kill."""
    sums: Counter[str] = Counter()
    for line in log:
        text = line.partition("\t")[2]
        if text.startswith('{"_aws"'):
            entry = json.loads(text)
            for metric in entry["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                value = entry[metric["Name"]]
                sums[metric["Name"]] += int(sum(value) if isinstance(value, list) else value)
    return sums


def _describe(stack: Stack, broken: BrokenPromise) -> list[str]:
    """A broken promise, with the record of its task."""
    if broken.task is None:
        return [f"BROKEN {broken.text}"]
    task = stack.store.task(*broken.task)
    record = (
        {"request": task.request, "clips": [clip_record(each) for each in stack.store.clips(*broken.task)]}
        if task
        else "there is no task"
    )
    return [f"BROKEN {broken.text}: {'/'.join(broken.task)}", json.dumps(record, indent=2)]

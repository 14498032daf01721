"""One run: callers order in bad weather, then it clears, then nothing is left to do, then the promises are judged.

Holds the times of the small world in which that happens: every interval of the service is scaled down, in its order.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

from rushes.config import WhenAmbiguous
from rushes.domain.clip import Kind
from rushes_cli.operator.review import clip_record
from rushes_local.stack import Stack
from tests.chaos.judgement import Books, Broken, Found, judge, untold
from tests.chaos.traffic import Caller, Traffic
from tests.chaos.weather import Climate, Weather
from tests.event_listener import Listener

# Of the schedule (a sweep every 0.6 s) and of the queues. The functions' own intervals are given below.
SCALE = 0.01

# In seconds. The functions keep two seconds back to finish, whatever the scale, and moto, Runware and the gateway share
# one process: below these figures healthy calls would run out of time, and nothing else would be tried.
TIMES: Mapping[str, float] = {
    "HTTP_TIMEOUT_SECONDS": 0.6,
    "FUNCTION_TIMEOUT_SECONDS": 4.0,
    "LEASE_SECONDS": 4.5,
    "RESEND_WINDOW_SECONDS": 5.0,
    "LAST_LOOK_SECONDS": 3.0,
    "RESCUE_AFTER_SECONDS": 1.0,
}

# Seconds that a request may be on its way, and that renders take. Under `resend` no render is quicker than a repeat can
# be late: the window, what is left of the function that repeats, and the way. Under `review` nothing is relied on.
LATEST: Mapping[WhenAmbiguous, float] = {"resend": 1.2, "review": 4.0}
RENDERS: Mapping[WhenAmbiguous, tuple[float, float]] = {"resend": (8.5, 10.0), "review": (0.3, 3.0)}

# Seconds after which no repeat can take effect any more, by the functions' own reckoning, which knows no quick renders.
_AFTER_REPEATS = sum(TIMES[f"{name}_SECONDS"] for name in ("RESEND_WINDOW", "FUNCTION_TIMEOUT", "LEASE")) + 0.1

CALLERS = (("ada", 10_000.0), ("grace", 10_000.0), ("thrifty", 12.0))
_RUNWARE_WAITS = (0.05, 0.1, 0.2, 0.4)  # seconds between its calls of a webhook that fails
_LOOK_EVERY = 0.3  # seconds
_UNTIL_OVER = 90.0  # seconds
_UNTIL_TOLD = 30.0  # seconds
_REPEATED = 40


@dataclass(frozen=True)
class Plan:
    """A run: `seconds` of bad weather, in which `pace` orders a second are made.

    `deadline`: after so many seconds a clip of which nothing can be learned is parked.
    """

    seed: int
    seconds: float
    when_ambiguous: WhenAmbiguous
    pace: float = 2.0
    deadline: float = 20.0


@dataclass(frozen=True)
class Result:
    """What came of it. `log` is every line that any part has logged."""

    broken: Sequence[Broken]
    clips: int
    kills: int
    log: Sequence[str]
    report: str


@dataclass
class Log:
    """Every line of every part, in memory."""

    lines: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            self.lines.append(f"{name}\t{line}")


def run(root: Path, plan: Plan) -> Result:
    """Run the stack of the checkout at `root` through `plan`. Takes `plan.seconds`, and half a minute or more."""
    log, pause = Log(), Event()
    with start(root, plan, log) as stack:
        callers = [Caller(name, stack.create_key(name, limit), round(limit * 1_000_000)) for name, limit in CALLERS]
        climate = Climate(
            slow_answer=1.5 * TIMES["HTTP_TIMEOUT_SECONDS"],
            latest=LATEST[plan.when_ambiguous],
            lawless=plan.when_ambiguous == "review",
        )
        listener = Listener(stack)
        weather = Weather(stack, plan.seed, climate)
        traffic = Traffic(stack, callers, plan.seed, pace=plan.pace)
        try:
            weather.start()
            traffic.start()
            pause.wait(plan.seconds)
        finally:
            traffic.stop()
            weather.clear()
        books = Books(stack)
        took = wait_until(books.all_quiet, _UNTIL_OVER)
        traffic.ask_again(_REPEATED)
        found = books.find()
        wait_until(lambda: all_told(books, found, listener), _UNTIL_TOLD)
        told = listener.listen()
        broken = judge(books, found, callers, traffic.heard, told, log.lines)
        broken += [Broken(what) for what in weather.believed]
        counts = weather.counts + traffic.heard.counts + Counter(f"told: {event['detail-type']}" for event in told)
        text = "\n".join((weather.told, report(books, found, counts, log.lines, took, broken)))
        kills = sum(count for what, count in counts.items() if what.startswith("killed"))
        return Result(broken, len(found.all_clips), kills, log.lines, text)


def start(root: Path, plan: Plan, log: Log) -> Stack:
    """The stack for a plan, not yet entered."""
    chance = random.Random(f"{plan.seed}-renders")
    shortest, longest = RENDERS[plan.when_ambiguous]
    times = {
        **TIMES,
        "USUAL_RENDER_SECONDS": shortest + 0.5 if plan.when_ambiguous == "review" else _AFTER_REPEATS,
        "DEADLINE_SECONDS": plan.deadline,
        "COPY_DEADLINE_SECONDS": plan.deadline + 1,
    }
    return Stack(
        root,
        time_scale=SCALE,
        timings={name: seconds / SCALE for name, seconds in times.items()},
        emulator_options={
            "small": True,
            "retry_delays": _RUNWARE_WAITS,
            "render_seconds": lambda: chance.uniform(shortest, longest),
        },
        parameters={"MonthlyLimitUsd": "1000000", "WhenAmbiguous": plan.when_ambiguous},
        sink=log,
    )


def wait_until(reached: Callable[[], bool], patience: float) -> float:
    """Wait until something holds, at most `patience` seconds; returns how long it took."""
    began, never = time.monotonic(), Event()
    while not reached() and time.monotonic() - began < patience:
        never.wait(_LOOK_EVERY)
    return time.monotonic() - began


def all_told(books: Books, found: Found, listener: Listener) -> bool:
    """Whether everything that became of the clips has reached who listens."""
    told = listener.listen()
    return not any(fault for clip in found.all_clips for fault in untold(books, clip, told))


def report(
    books: Books, found: Found, counts: Counter[str], log: Sequence[str], took: float, broken: Sequence[Broken]
) -> str:
    """What was done and what was found, for people."""
    clips = found.all_clips
    statuses = Counter(f"clips {clip.status}" for clip in clips)
    kinds = Counter(kind for clip in clips for kind in (Kind.UNPROVEN, Kind.UNSAVED) if clip.decisive == kind)
    paid = [charge for charges in found.charges.values() for charge in charges]
    rows = {
        **dict(sorted(counts.items())),
        **{f"metric {name}": count for name, count in sorted(metrics(log).items())},
        "tasks recorded": len(found.clips),
        **dict(sorted(statuses.items())),
        **{f"in review: {kind}": count for kind, count in kinds.items()},
        "maybe sent": sum(clip.possibly_sent_at is not None for clip in clips),
        "rescued": sum(any(copy.fields.get("rescued") for copy in clip.of(Kind.STORED).values()) for clip in clips),
        "charges": len(paid),
        "paid, micro-dollars": sum(charge.micro_dollars for charge in paid),
        "dead letters": books.waiting(dead=True),
        "seconds until all was settled": round(took),
    }
    width = max(len(name) for name in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join(lines + [line for each in broken for line in _told(books.stack, each)])


def metrics(log: Sequence[str]) -> Counter[str]:
    """What the functions counted, as far as they lived to tell."""
    sums: Counter[str] = Counter()
    for line in log:
        text = line.partition("\t")[2]
        if text.startswith('{"_aws"'):
            told = json.loads(text)
            for metric in told["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                value = told[metric["Name"]]
                sums[metric["Name"]] += int(sum(value) if isinstance(value, list) else value)
    return sums


def _told(stack: Stack, broken: Broken) -> list[str]:
    """A broken promise, and the record that shows it."""
    if broken.task is None:
        return [f"BROKEN {broken.what}"]
    task = stack.store.task(*broken.task)
    shown = (
        {"request": task.request, "clips": [clip_record(each) for each in stack.store.clips(*broken.task)]}
        if task
        else "there is no task"
    )
    return [f"BROKEN {broken.what}: {'/'.join(broken.task)}", json.dumps(shown, indent=2)]

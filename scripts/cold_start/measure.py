"""Runs measured processes and compares them: by turns, so that the machine's load affects all alike."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

_HERE = Path(__file__).parent
_PATIENCE = 120.0  # seconds
_IMPORT = re.compile(r"import time:\s*(?P<microseconds>\d+) \|\s*\d+ \|\s*(?P<module>[\w.]+)")
_LEAST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Program:
    """A handler, its import path and environment, its event, and the data of the simulated AWS.

    `restored`: time before the handler was loaded does not count, as after the restore of a snapshot.
    """

    app: Path
    path: Sequence[str]
    environment: Mapping[str, str]
    event: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    secrets: Mapping[str, str]
    status: int | None = None
    restored: bool = False


@dataclass
class Measured:
    """Seconds of processor time, one figure a run; `modules` are those loaded after the event."""

    seconds: list[float] = field(default_factory=list)
    modules: frozenset[str] = frozenset()

    @property
    def median(self) -> float:
        return median(self.seconds)


def run(program: Program, *, warm_up: int = 0, events: int = 1) -> tuple[float, frozenset[str]]:
    """Runs one process. Returns the seconds of an event, with the start unless it was warmed up, and the modules."""
    result = json.loads(_started(program, warm_up, events)[-1])
    return result["seconds"], frozenset(result["modules"])


def import_shares(program: Program, rounds: int) -> dict[str, float]:
    """The share of each package in a cold start's import time, in percent, from the interpreter's own measurement.

    That measures elapsed time, so each module counts with its quickest round.
    """
    quickest: dict[str, int] = {}
    for _ in range(rounds):
        for line in _started(program, 0, 1, "-X", "importtime"):
            if found := _IMPORT.match(line):
                name, spent = found["module"], int(found["microseconds"])
                quickest[name] = min(spent, quickest.get(name, spent))
    shares: Counter[str] = Counter()
    for name, spent in quickest.items():
        top = name.partition(".")[0]
        shares["standard library" if top in sys.stdlib_module_names else top] += spent
    everything = shares.total()
    return {name: 100 * part / everything for name, part in shares.items() if part > everything * _LEAST_SHARE}


def _started(program: Program, warm_up: int, events: int, *options: str) -> list[str]:
    """The lines on a measured process's standard error. Raises `RuntimeError` if it failed."""
    job = {
        "app": str(program.app),
        "answers": str(_HERE / "answers.py"),
        "path": list(program.path),
        "event": program.event,
        "items": program.items,
        "secrets": program.secrets,
        "status": program.status,
        "restored": program.restored,
        "warm_up": warm_up,
        "events": events,
    }
    # -B: no byte code is written, so that every round finds the same.
    command = [sys.executable, "-B", "-I", "-S", *options, str(_HERE / "probe.py")]
    result = subprocess.run(
        command,
        env=dict(program.environment),
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{program.app} could not be measured:\n{result.stderr}")
    return result.stderr.strip().splitlines()


def concurrent_map(
    programs: Mapping[str, Program], rounds: int, *, warm_up: int = 0, events: int = 1
) -> dict[str, Measured]:
    """Runs every program once in each round, in a rotating order, so that none always follows the same one."""
    names = list(programs)
    measured = {name: Measured() for name in names}
    for number in range(rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            seconds, modules = run(programs[name], warm_up=warm_up, events=events)
            measured[name].seconds.append(seconds)
            measured[name].modules = modules
    return measured


def ratio(ours: Measured, reference: Measured) -> float:
    """The median of the rounds' ratios; each round compares two runs close in time."""
    return median(one / other for one, other in zip(ours.seconds, reference.seconds, strict=True))

"""The table of a bench, judged, and the page docs/benchmarks.md around it."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from textwrap import fill

_PACKAGES = ("aws-lambda-powertools", "boto3", "httpx", "pydantic")
_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `value` is what the goal is about, at most `goal`; without a goal the row only informs."""

    what: str
    ours: str
    reference: str = ""
    value: float | None = None
    goal: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is no goal."""
        if self.goal is None or self.value is None:
            return None
        return round(self.value, 3) <= self.goal

    @property
    def cells(self) -> list[str]:
        ratio = f"{self.value:.2f}" if self.value is not None and not self.unit else ""
        goal = "" if self.goal is None else f"at most {self.goal:g}{self.unit}"
        return [self.what, self.ours, self.reference, ratio, goal, self._verdict()]

    def _verdict(self) -> str:
        if self.met is None or self.value is None or self.goal is None:
            return ""
        missing = self.value - self.goal
        return "met" if self.met else f"short by {missing:{',.0f' if missing >= 100 else '.2g'}}{self.unit}"


_HEAD = ["what", "ours", "reference", "ratio", "goal", ""]


def table(rows: Sequence[Row], *, judged: bool = True) -> str:
    """The rows as Markdown."""
    cells = [row.cells if judged else [*row.cells[:-1], ""] for row in rows]
    lines = [_HEAD, ["---", "---:", "---:", "---:", "---:", "---"], *cells]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def verdict(rows: Sequence[Row]) -> str:
    """The last line."""
    judged = [row.met for row in rows if row.met is not None]
    return f"{sum(judged)} of {len(judged)} goals met"


def page(rows: Sequence[Row], shares: Mapping[str, Mapping[str, float]], date: str) -> str:
    """The whole of docs/benchmarks.md."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return (
        "\n\n".join(
            (
                "# Benchmarks",
                _filled(_INTRODUCTION),
                _filled(f"Measured on {date} with Python {platform.python_version()}, {versions} ({machine})."),
                table(rows),
                _filled(_HOW),
                "## Where a cold start goes",
                _filled(_SHARES),
                _share_table(shares),
                verdict(rows),
            )
        )
        + "\n"
    )


def _share_table(shares: Mapping[str, Mapping[str, float]]) -> str:
    names = sorted({name for of in shares.values() for name in of}, key=lambda name: -max(_all(shares, name)))
    lines = [["percent", *shares], ["---", *("---:" for _ in shares)]]
    lines += [[name, *(f"{of.get(name, 0.0):.0f}" for of in shares.values())] for name in names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _all(shares: Mapping[str, Mapping[str, float]], name: str) -> list[float]:
    return [of.get(name, 0.0) for of in shares.values()]


def _filled(text: str) -> str:
    return "\n\n".join(
        part if part.startswith(("-", "    ")) else fill(part, _WIDTH, break_on_hyphens=False)
        for part in text.strip().split("\n\n")
    )


_INTRODUCTION = """
What the functions cost in time, beside what one would use in their place. `make bench` measures and writes this page;
`make bench QUICK=1` measures little, judges nothing and writes nothing. Absolute times are this machine's and drift;
the ratios are what counts.
"""

_HOW = """
How it is measured: each figure is processor time (user and system) of a fresh process without site-packages, which
answers one event (cold) or hundreds of them after a warm-up (warm). AWS is answered inside the process, at botocore's
HTTP layer, and Runware over loopback by another process, so TLS is in nobody's figure, nor is the reading of the
authorities' certificates before the first handshake with Runware. Processes run turn by turn; a ratio is the median
of the rounds' ratios, and the times beside it are medians.

Ours runs with the layers as `make build` leaves them; the references run with the same versions as pip installs them,
as they would be deployed. The rows "on our layers" give the floor our pruned layers too. Byte code is there beforehand
in both: `scripts/pack.py` puts it into the layers, as AWS does with the boto3 that comes with Lambda.

The floor is a handler that makes one boto3 client and one update by hand; the usual stack is Powertools' resolver
with validation, Logger, Metrics and Tracer, pydantic, httpx, boto3 clients and a resource; "the same calls" is a
handler that asks AWS (and Runware) the same with nothing around it. All of them are in
scripts/cold_start/references.

"Restored" is what is left of a cold start when the process comes from a snapshot that was taken after the handler had
been loaded (SnapStart): a process counts from there. What a restore itself takes is AWS's and in no figure.
"""

_SHARES = """
Of the time that importing takes in a fresh process (`python -X importtime`, each module's own, the quickest of
several runs), by package; what is under 2 percent everywhere is left out.
"""

"""The table of a benchmark with its verdicts, and the page docs/benchmarks.md around it."""

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
    """One comparison. The goal is met if `value` is at most `goal`; without a goal the row only informs."""

    what: str
    ours: str
    reference: str = ""
    value: float | None = None
    goal: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """True if the goal is met; None without a goal."""
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
    """The last line of the page: the number of goals met."""
    judged = [row.met for row in rows if row.met is not None]
    return f"{sum(judged)} of {len(judged)} goals met"


@dataclass(frozen=True)
class Part:
    """A part of a page between two marks, which another command writes."""

    begin: str
    end: str

    def find(self, text: str) -> str:
        """The part in a page, without its marks."""
        return text.partition(self.begin)[2].partition(self.end)[0].strip()

    def replace(self, text: str, part: str) -> str:
        """The page with another text in this part."""
        before, _, rest = text.partition(self.begin)
        return before + self.marked(part) + rest.partition(self.end)[2]

    def marked(self, part: str) -> str:
        """The part's text with its marks."""
        return f"{self.begin}\n\n{part}\n\n{self.end}"


WHOLE_WAY = Part("<!-- written by `make whole-way`, up to the end mark -->", "<!-- end -->")


def page(rows: Sequence[Row], shares: Mapping[str, Mapping[str, float]], date: str, whole_way: str) -> str:
    """The whole of docs/benchmarks.md, with its part by `make whole-way`."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return (
        "\n\n".join(
            (
                "# Benchmarks",
                filled(_INTRODUCTION),
                filled(f"Measured on {date} with Python {platform.python_version()}, {versions} ({machine})."),
                table(rows),
                filled(_HOW),
                "## Where a cold start goes",
                filled(_SHARES),
                _share_table(shares),
                WHOLE_WAY.marked(whole_way),
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


def filled(text: str) -> str:
    """A text with its paragraphs filled to the page's width."""
    return "\n\n".join(
        part if part.startswith(("-", "    ")) else fill(part, _WIDTH, break_on_hyphens=False)
        for part in text.strip().split("\n\n")
    )


_INTRODUCTION = """
The processor time of the functions, compared with common alternatives. `make bench` measures and writes this page;
`make bench QUICK=1` makes few measurements, judges nothing and writes nothing. Absolute times depend on the machine and
drift; only the ratios are comparable.
"""

_HOW = """
Each figure is the processor time (user and system) of a fresh process without site-packages, which handles one event
(cold), or hundreds of events after a warm-up (warm). AWS is simulated inside the process, at botocore's HTTP layer, and
Runware over loopback by another process. So no figure includes TLS, nor the reading of the certificate authorities
before the first handshake with Runware. The processes run by turns. A ratio is the median of the rounds' ratios, and
the times beside it are medians.

"Ours" runs with the layers that `make build` makes. The references run with the same versions of the packages as pip
installs them, as they would be deployed; in the rows "on our layers", the floor runs with our pruned layers. Both have
byte code: `scripts/pack.py` puts it into the layers, as AWS does with the boto3 that comes with Lambda.

The floor is a handler with one boto3 client and one update by hand. The usual stack is Powertools' resolver with
validation, Logger, Metrics and Tracer, pydantic, httpx, boto3 clients and a resource. "The same calls" is a handler
that makes the same calls to AWS (and Runware) and nothing else. All of them are in scripts/cold_start/references.

"Restored" is the rest of a cold start from a snapshot that was taken after the handler had been loaded (SnapStart). The
time of the restore itself is AWS's and in no figure.
"""

_SHARES = """
The share of each package in the import time of a fresh process (`python -X importtime`, each module's own time, the
quickest of several runs). Packages under 2 percent in every function are left out.
"""

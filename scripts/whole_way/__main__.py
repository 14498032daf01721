"""`python -m scripts.whole_way`: measures the whole way of a clip, and writes its part of docs/benchmarks.md.

The part has delays on the local stack, processor time of webhooks, and the model of bursts. `--quick` shortens every
interval and writes nothing.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rushes.domain import budget
from scripts.cold_start.__main__ import PAGE, QUICK, THOROUGH, Bench
from scripts.cold_start.measure import Measured, concurrent_map
from scripts.cold_start.packages import ROOT, Packages
from scripts.cold_start.page import WHOLE_WAY, filled
from scripts.whole_way.delays import measure, percentile
from tests.bursts.__main__ import CASES, LIMIT
from tests.bursts.model import BurstResult, run

_HOLD = 0.020  # seconds for which a transaction holds its items, at the upper end
_PATIENCE = 8.0  # seconds of a request for conflicts in one task, as in `make bursts`
_QUICK_CASES = 1

_DELAYS = """
The time from a render's end at the emulator to the acceptance of `Clip Stored` by the event bus, on the local stack in
real time, with the template's own intervals: ten seconds in the queue of uploads, a minute for Runware's upload before
a rescue, a sweep a minute, the first poll four minutes after the order (these renders end in the minute before it). The
rest is the machine's. Lambda's own delays, such as its batching window of a second before `publish`, are not in it.
"""
_WEBHOOKS = """
The webhooks that one processor handles in a second, in warm processes, by the processor time of the function alone: the
reciprocal of the warm row above, measured again. The bare receiver makes the same calls to AWS, and verifies and merges
nothing.
"""
_BURSTS = f"""
The answers of `submit` to many orders at once, by the model of `make bursts`, in virtual time: a transaction of
DynamoDB holds its items for {1000 * _HOLD:.0f} ms and refuses other writes to them. A budget has {budget.SHARES} items.
"""
_COSTS = """
[costs.md](costs.md) has the cost of a million clips on each way, with the writes of the budgets' shares.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description="Measures the whole way of a clip.")
    arguments.add_argument("--quick", action="store_true", help="shorten every interval, judge and write nothing")
    quick = arguments.parse_args().quick
    cases = CASES[: _QUICK_CASES if quick else None]
    bursts = {name: run(at, tasks, _HOLD, limit=LIMIT, patience=_PATIENCE) for name, at, tasks in cases}
    webhooks = _webhooks(quick=quick)
    delays = measure(ROOT, clips=3, scale=0.1) if quick else measure(ROOT, clips=100)
    text = section(delays, webhooks, bursts, datetime.now(UTC).strftime("%Y-%m-%d"))
    print(text)
    if not quick:
        PAGE.write_text(WHOLE_WAY.replace(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def section(
    delays: Mapping[str, Sequence[float]],
    webhooks: Mapping[str, Measured],
    bursts: Mapping[str, BurstResult],
    date: str,
) -> str:
    """This part of the page, without its marks."""
    numbers = {len(seconds) for seconds in delays.values()}
    clips = f"Measured on {date}, with {' or '.join(map(str, sorted(numbers)))} clips of each way."
    return "\n\n".join(
        (
            "## The whole way",
            filled(_DELAYS + clips),
            _table(
                ["from a render's end to `Clip Stored`", "p50", "p99"],
                (
                    [title, *(f"{percentile(seconds, percent):.2f} s" for percent in (50, 99))]
                    for title, seconds in delays.items()
                ),
            ),
            filled(_WEBHOOKS),
            _table(
                ["", "ours", "bare receiver"],
                [
                    [
                        "webhooks a second of processor time",
                        *(f"{1 / measured.median:.0f}" for measured in webhooks.values()),
                    ]
                ],
            ),
            filled(_BURSTS),
            _table(
                ["orders", "answered 503", "p50", "p99"],
                (
                    [
                        name,
                        f"{100 * result.busy / len(result.seconds):.1f} %",
                        *(f"{result.percentile(percent):.2f} s" for percent in (50, 99)),
                    ]
                    for name, result in bursts.items()
                ),
            ),
            filled(_COSTS),
        )
    )


def _webhooks(*, quick: bool) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory(prefix="rushes-bench-") as folder:
        effort = QUICK if quick else THOROUGH
        # The webhook calls no Runware.
        programs = Bench(Packages.make(Path(folder)), "", effort).warm_programs("webhook")
        return concurrent_map(programs, effort.warm_rounds, warm_up=effort.warm_up, events=effort.events)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()

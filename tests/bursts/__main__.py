"""Prints the model's table: bursts, steady arrivals, and requests of many tasks, with one share per budget and all."""

from rushes.domain import budget
from tests.bursts.model import BurstResult, run
from tests.fakes.builders import PRICE

LIMIT = 100_000 * PRICE


def main() -> None:
    shares = budget.SHARES
    print(f"{'':34} {'shares':>6} {'HOLD':>6} {'503':>7} {'p50':>8} {'p99':>8} {'calls a task':>13}")
    for hold in (0.005, 0.010, 0.020):
        for name, arrivals, tasks in CASES:
            for number in (1, shares):
                budget.SHARES = number
                result = run(arrivals, tasks, hold, limit=LIMIT, patience=0 if number == 1 else 8)
                _print(name, number, hold, result, len(arrivals) * tasks)


CASES = [
    *((f"{burst} tasks at once", [0.0] * burst, 1) for burst in (20, 40, 100, 200)),
    *((f"{rate} tasks a second for 5 s", [number / rate for number in range(5 * rate)], 1) for rate in (20, 40, 200)),
    ("40 requests of 20 tasks at once", [0.0] * 40, 20),
]


def _print(name: str, shares: int, hold: float, result: BurstResult, tasks: int) -> None:
    busy = f"{100 * result.busy / len(result.seconds):.1f} %"
    p50, p99 = (f"{result.percentile(percent):.2f} s" for percent in (50, 99))
    print(
        f"{name:34} {shares:6} {1000 * hold:3.0f} ms {busy:>7} {p50:>8} {p99:>8} {result.calls / tasks:13.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

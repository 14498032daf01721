"""A clock that stands still, and a telemetry that keeps metrics and log entries."""

from collections import Counter

from rushes.services.metric import Metric
from tests.fakes.builders import START


class FakeClock:
    """Milliseconds that pass only when a test sets `now`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class FakeTelemetry:
    """Keeps metrics and log entries."""

    def __init__(self) -> None:
        self.counted: Counter[Metric] = Counter()
        self.logs: list[tuple[str, bool, dict[str, object]]] = []

    def count(self, metric: Metric, amount: int = 1) -> None:
        self.counted[metric] += amount

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        self.logs.append((message, warn, details))

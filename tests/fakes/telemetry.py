"""A clock that stands still, and a telemetry that keeps what was counted and logged."""

from collections import Counter

from rushes.services.metric import Metric
from tests.fakes.builders import START


class FakeClock:
    """Milliseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class FakeTelemetry:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.counted: Counter[Metric] = Counter()
        self.notes: list[tuple[str, bool, dict[str, object]]] = []

    def count(self, metric: Metric, amount: int = 1) -> None:
        self.counted[metric] += amount

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        self.notes.append((message, warn, details))

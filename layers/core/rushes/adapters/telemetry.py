"""The logger and the metrics' names.

Use cases report through `Telemetry`, so that they can be run without Powertools; `PowertoolsTelemetry` is what runs.
Event logging stays off: events carry tokens and keys.
"""

import threading

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from rushes.domain.redaction import scrub
from rushes.services.ports import Metric


class PowertoolsTelemetry:
    """Structured log lines and CloudWatch metrics. Safe to use from several threads."""

    def __init__(self) -> None:
        self.logger = Logger()
        self.metrics = Metrics()
        self._lock = threading.Lock()

    def count(self, metric: Metric, amount: int = 1) -> None:
        with self._lock:
            self.metrics.add_metric(name=metric, unit=MetricUnit.Count, value=amount)

    def flush(self) -> None:
        """Writes the metrics counted so far; call it at the end of every invocation."""
        with self._lock:
            if self.metrics.metric_set:
                self.metrics.flush_metrics()

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        shown = {name: scrub(value) if isinstance(value, str) else value for name, value in details.items()}
        (self.logger.warning if warn else self.logger.info)(message, extra=shown)

    def secret_unanswered(self, reason: str) -> None:
        """Says that Secrets Manager did not answer, for operators who look for the reason of an old value."""
        self.log("a secret could not be fetched", warn=True, reason=reason)

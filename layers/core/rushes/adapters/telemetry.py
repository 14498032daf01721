"""Logs and metrics through Powertools.

Use cases depend only on the protocol `Telemetry`, so they run without Powertools. Event logging stays off, because
events hold tokens and keys.
"""

import threading

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from rushes.domain.redaction import scrub
from rushes.services.metric import Metric


class PowertoolsTelemetry:
    """Structured log lines and CloudWatch metrics. Thread-safe."""

    def __init__(self) -> None:
        self.logger = Logger()
        self.metrics = Metrics()
        self._lock = threading.Lock()

    def count(self, metric: Metric, amount: int = 1) -> None:
        with self._lock:
            self.metrics.add_metric(name=metric, unit=MetricUnit.Count, value=amount)

    def flush(self) -> None:
        """Writes the counted metrics; to be called at the end of every invocation."""
        with self._lock:
            if self.metrics.metric_set:
                self.metrics.flush_metrics()

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        scrubbed = {name: scrub(value) if isinstance(value, str) else value for name, value in details.items()}
        (self.logger.warning if warn else self.logger.info)(message, extra=scrubbed)

    def log_secret_failure(self, reason: str) -> None:
        """Logs a failed fetch of a secret, after which an old value may be in use."""
        self.log("secret could not be fetched", warn=True, reason=reason)

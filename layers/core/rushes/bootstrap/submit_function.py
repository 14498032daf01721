"""The wiring of `functions/submit`."""

import os
import uuid
from dataclasses import dataclass, replace
from functools import cache

from rushes.adapters.aws import clock
from rushes.adapters.s3 import S3Reports
from rushes.adapters.thread_pool import side_by_side
from rushes.bootstrap.purchase_parts import PurchaseParts, assemble
from rushes.config import SubmitSettings
from rushes.services.authentication import Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.inbox import InboxService
from rushes.services.queries import QueryService
from rushes.services.submit import SubmitService


@dataclass(frozen=True, slots=True)
class SubmitWiring:
    """Everything the function is made of."""

    parts: PurchaseParts
    callers: Callers
    submitting: SubmitService
    taking: InboxService


@cache
def wiring() -> SubmitWiring:
    """Made once a process, at the first call."""
    settings = SubmitSettings.read(os.environ)
    parts = assemble(settings)
    submitting = SubmitService(
        table=parts.store,
        inputs=parts.bucket,
        reading=QueryService(table=parts.store, links=parts.bucket, times=settings.timings, clock=clock),
        purchasing=parts.purchasing,
        telemetry=parts.telemetry,
        times=settings.timings,
        monthly_limit=settings.monthly_limit,
        retention=settings.retention,
        clock=clock,
        new_uuid=lambda: str(uuid.uuid4()),
        side_by_side=side_by_side,
    )
    callers = Callers(parts.store, clock, settings.monthly_limit if settings.unknown_callers else None)
    breaker = CircuitBreaker(parts.runware, clock)
    taking = InboxService(
        submitting=replace(submitting, purchasing=replace(parts.purchasing, seller=breaker)),
        breaker=breaker,
        callers=callers,
        reports=S3Reports(parts.s3, settings.bucket),
        telemetry=parts.telemetry,
        clock=clock,
    )
    return SubmitWiring(parts, callers, submitting, taking)

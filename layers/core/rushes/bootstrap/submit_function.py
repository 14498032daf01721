"""The wiring of `functions/submit`."""

import os
import uuid
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from rushes.adapters.aws import clock
from rushes.adapters.s3 import S3Reports
from rushes.adapters.thread_pool import concurrent_map
from rushes.bootstrap.purchase_parts import PurchaseParts, assemble
from rushes.config import SubmitSettings
from rushes.services.authentication import Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.inbox import InboxService
from rushes.services.queries import QueryService
from rushes.services.submit import SubmitService


class SubmitWiring(NamedTuple):
    """The parts of the function."""

    parts: PurchaseParts
    callers: Callers
    submit_service: SubmitService
    inbox_service: InboxService


@cache
def wiring() -> SubmitWiring:
    """Built once in each process, at the first call."""
    settings = SubmitSettings.read(os.environ)
    parts = assemble(settings)
    submit_service = SubmitService(
        table=parts.table,
        inputs=parts.bucket,
        query_service=QueryService(table=parts.table, links=parts.bucket, times=settings.timings, clock=clock),
        purchase_service=parts.purchase_service,
        telemetry=parts.telemetry,
        times=settings.timings,
        monthly_limit=settings.monthly_limit,
        retention=settings.retention,
        clock=clock,
        new_uuid=lambda: str(uuid.uuid4()),
        concurrent_map=concurrent_map,
        loopback=settings.loopback,
        gone_models=settings.gone_models,
    )
    callers = Callers(parts.table, clock, settings.monthly_limit if settings.unknown_callers else None)
    breaker = CircuitBreaker(parts.runware, clock)
    inbox_service = InboxService(
        submit_service=replace(submit_service, purchase_service=replace(parts.purchase_service, runware=breaker)),
        breaker=breaker,
        callers=callers,
        reports=S3Reports(parts.s3, settings.bucket),
        telemetry=parts.telemetry,
        clock=clock,
    )
    return SubmitWiring(parts, callers, submit_service, inbox_service)

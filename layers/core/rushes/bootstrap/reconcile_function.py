"""The wiring of `functions/reconcile`."""

import os
from functools import cache
from typing import NamedTuple

from rushes.adapters.aws import clock
from rushes.adapters.thread_pool import concurrent_map
from rushes.adapters.video_download import VideoDownloader
from rushes.bootstrap.purchase_parts import PurchaseParts, assemble
from rushes.config import ReconcileSettings
from rushes.services.reconcile import ReconcileService


class ReconcileWiring(NamedTuple):
    """The parts of the function."""

    parts: PurchaseParts
    reconcile_service: ReconcileService


@cache
def wiring() -> ReconcileWiring:
    """Built once in each process, at the first call."""
    settings = ReconcileSettings.read(os.environ)
    parts = assemble(settings)
    reconcile_service = ReconcileService(
        table=parts.table,
        bucket=parts.bucket,
        provider=parts.runware,
        rescuer=VideoDownloader(
            parts.s3, settings.bucket, parts.bucket.probe, parts.http, settings.rescue_origins, clock
        ),
        purchase_service=parts.purchase_service,
        telemetry=parts.telemetry,
        times=settings.timings,
        when_ambiguous=settings.when_ambiguous,
        clock=clock,
        concurrent_map=concurrent_map,
    )
    return ReconcileWiring(parts, reconcile_service)

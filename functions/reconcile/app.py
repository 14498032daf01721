"""Every minute, and for objects created under `videos/`: looks at the clips that nobody has finished.

The schedule sends an event of its own; uploads come as S3's EventBridge events through a queue, one a message.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.adapters.aws import clock
from rushes.adapters.thread_pool import side_by_side
from rushes.adapters.video_download import Rescue
from rushes.bootstrap import Parts, assemble
from rushes.config import ReconcileSettings
from rushes.errors import RushesError
from rushes.lambda_events import Record, message_id, work_on
from rushes.services.reconcile import ReconcileService


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    parts: Parts
    reconciling: ReconcileService


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = ReconcileSettings.read(os.environ)
    parts = assemble(settings)
    rescue = Rescue(parts.s3, settings.bucket, parts.bucket.probe, parts.http, settings.rescue_origins, clock)
    reconciling = ReconcileService(
        table=parts.store,
        bucket=parts.bucket,
        provider=parts.runware,
        rescuer=rescue,
        purchasing=parts.purchasing,
        telemetry=parts.telemetry,
        times=settings.timings,
        when_ambiguous=settings.when_ambiguous,
        clock=clock,
        side_by_side=side_by_side,
    )
    return Wiring(parts, reconciling)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of uploads, or a sweep."""
    wired = wiring()
    try:
        if "Records" in event:
            return dict(work_on(event, _uploaded, message_id))
        buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), patient=True)
        return {"taken": wired.reconciling.sweep(buyer)}
    finally:
        wired.parts.telemetry.flush()


def _uploaded(record: Record) -> None:
    """One object of S3's event. An exception leaves the message in the queue, and after a few times aside."""
    wired = wiring()
    try:
        created = json.loads(record["body"])["detail"]["object"]
        wired.reconciling.uploaded(created["key"], created.get("version-id", "null"))
    except Exception as error:
        # What is not ours may say anything: left out.
        why = f"{type(error).__name__}: {error}" if isinstance(error, RushesError) else type(error).__name__
        wired.parts.telemetry.log("an upload could not be looked at", warn=True, why=why)
        raise

"""Objects under `requests/` and `Video Requested` on the bus, through a queue: into the inbox, with a report.

Both come as EventBridge's events, one a message.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import uploads
from rushes.batches import Record, message_id, work_on
from rushes.concurrency import side_by_side
from rushes.config import IntakeSettings
from rushes.drops import Drops, Reports
from rushes.entry import aws_client, aws_config
from rushes.errors import UnreadableError
from rushes.images import take_in
from rushes.inbox import Inbox
from rushes.intake import Intake
from rushes.observability import PowertoolsTelemetry


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    telemetry: PowertoolsTelemetry
    intake: Intake


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = IntakeSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    s3 = aws_client("s3", uploads.CONFIG)
    bucket = uploads.Bucket(s3, settings.bucket)
    intake = Intake(
        bucket=settings.bucket,
        drops=Drops(s3, settings.bucket),
        inbox=Inbox(aws_client("sqs", aws_config()), settings.inbox),
        reports=Reports(s3, settings.bucket),
        take_in=lambda task, caller: take_in(task, caller, bucket),
        telemetry=telemetry,
        events_caller=settings.events_caller,
        side_by_side=side_by_side,
    )
    return Wiring(telemetry, intake)


def handler(event: dict[str, Any], _: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point."""
    wired = wiring()
    try:
        return dict(work_on(event, _take, message_id))
    finally:
        wired.telemetry.flush()


def _take(record: Record) -> None:
    """One event. An exception leaves the message in the queue, and after a few times aside."""
    match json.loads(record["body"]):
        case {"detail-type": "Object Created", "detail": {"object": {"key": str(key), "version-id": str(version)}}}:
            wiring().intake.dropped(key, version)
        case {"detail-type": "Video Requested", "id": str(event_id), "detail": detail}:
            wiring().intake.requested(event_id, detail)
        case _:
            raise UnreadableError("The message is no event that is known here.")

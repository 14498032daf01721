"""Objects under `requests/` and `Video Requested` on the bus, through a queue: into the inbox, with a report.

Both come as EventBridge's events, one a message; that of the bus with the caller that its rule names.
"""

import json
import os
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.adapters import s3 as uploads
from rushes.adapters.aws import aws_client, aws_config, clock
from rushes.adapters.dynamodb.table import Store
from rushes.adapters.request_files import Drops, Reports
from rushes.adapters.sqs import Inbox
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.adapters.thread_pool import side_by_side
from rushes.config import IntakeSettings
from rushes.domain.caller import is_name
from rushes.errors import UnreadableError
from rushes.lambda_events import Record, message_id, work_on
from rushes.services.authentication import Callers
from rushes.services.import_requests import ImportService
from rushes.services.input_images import take_in
from rushes.services.ports import Metric


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    telemetry: PowertoolsTelemetry
    intake: ImportService


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = IntakeSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    s3 = aws_client("s3", uploads.CONFIG)
    bucket = uploads.Bucket(s3, settings.bucket)
    # The limit is submit's to know: here an unknown caller is let in or not.
    store = Store(aws_client("dynamodb", aws_config(tries=1)), settings.table)
    callers = Callers(store, clock, 0 if settings.unknown_callers else None)
    intake = ImportService(
        bucket=settings.bucket,
        drops=Drops(s3, settings.bucket),
        inbox=Inbox(aws_client("sqs", aws_config()), settings.inbox),
        reports=Reports(s3, settings.bucket),
        take_in=lambda task, caller: take_in(task, caller, bucket),
        may_order=lambda caller: callers.named(caller) is not None,
        telemetry=telemetry,
        side_by_side=side_by_side,
        clock=clock,
    )
    return Wiring(telemetry, intake)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point."""
    wired = wiring()
    # A tenth is kept for the block under way and the report.
    ends_at = clock() + context.get_remaining_time_in_millis() * 9 // 10
    try:
        return dict(work_on(event, partial(_take, ends_at=ends_at), message_id))
    finally:
        wired.telemetry.flush()


def _take(record: Record, ends_at: int) -> None:
    """One event. An exception leaves the message in the queue, and after a few times aside."""
    wired = wiring()
    try:
        content = json.loads(record["body"])
    except (ValueError, RecursionError) as error:  # it is no other the next time
        wired.telemetry.log(
            "an event that is no JSON", warn=True, messageId=message_id(record), why=type(error).__name__
        )
        wired.telemetry.count(Metric.TASKS_REFUSED)
        return
    match content:
        case {"detail-type": "Object Created", "detail": {"object": {"key": str(key), "version-id": str(version)}}}:
            wired.intake.dropped(key, version, ends_at)
        case {"caller": str(caller), "event": {"detail-type": "Video Requested"} as requested} if is_name(caller):
            wired.intake.requested(caller, requested)
        case {"source": "rushes", "detail-type": str(kind)}:
            # The bus's dead letters hold our own events, too: sent back, they come here and order nothing.
            wired.telemetry.log("an event that orders nothing", detailType=kind)
        case _:
            raise UnreadableError("The message is no event that is known here.")

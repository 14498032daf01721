"""Imports request files and `Video Requested` events from a queue into the inbox, with a report for each.

Both are EventBridge events, one a message. The bus's rule adds the caller to a `Video Requested` event.
"""

import json
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.intake_function import wiring
from rushes.domain.caller import is_name
from rushes.errors import UnreadableError
from rushes.lambda_events import Record, message_id, process_batch
from rushes.services.metric import Metric


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of events."""
    wired = wiring()
    # A tenth of the time is kept for the current block and the report.
    ends_at = wired.clock() + context.get_remaining_time_in_millis() * 9 // 10
    try:
        return dict(process_batch(event, partial(_import, ends_at=ends_at), message_id))
    finally:
        wired.telemetry.flush()


def _import(record: Record, ends_at: int) -> None:
    """Imports one event. An exception leaves the message in the queue for a retry, or for the dead-letter queue."""
    wired = wiring()
    try:
        content = json.loads(record["body"])
    except (ValueError, RecursionError) as error:  # permanent: a retry would fail again
        wired.telemetry.log("event is not JSON", warn=True, messageId=message_id(record), reason=type(error).__name__)
        wired.telemetry.count(Metric.TASKS_REFUSED)
        return
    match content:
        case {"detail-type": "Object Created", "detail": {"object": {"key": str(key), "version-id": str(version)}}}:
            wired.intake.import_file(key, version, ends_at)
        case {"caller": str(caller), "event": {"detail-type": "Video Requested"} as requested} if is_name(caller):
            wired.intake.import_event(caller, requested)
        case {"source": "rushes", "detail-type": str(kind)}:
            # The bus's dead-letter queue has our own events too. Redriven, they arrive here and are ignored.
            wired.telemetry.log("event of this service ignored", detailType=kind)
        case _:
            raise UnreadableError("The message must be an S3 Object Created or a Video Requested event.")

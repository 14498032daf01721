"""Objects under `requests/` and `Video Requested` on the bus, through a queue: into the inbox, with a report.

Both come as EventBridge's events, one a message; that of the bus with the caller that its rule names.
"""

import json
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.intake_function import wiring
from rushes.domain.caller import is_name
from rushes.errors import UnreadableError
from rushes.lambda_events import Record, message_id, work_on
from rushes.services.ports import Metric


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point."""
    wired = wiring()
    # A tenth is kept for the block under way and the report.
    ends_at = wired.clock() + context.get_remaining_time_in_millis() * 9 // 10
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
            "an event that is no JSON", warn=True, messageId=message_id(record), reason=type(error).__name__
        )
        wired.telemetry.count(Metric.TASKS_REFUSED)
        return
    match content:
        case {"detail-type": "Object Created", "detail": {"object": {"key": str(key), "version-id": str(version)}}}:
            wired.intake.import_file(key, version, ends_at)
        case {"caller": str(caller), "event": {"detail-type": "Video Requested"} as requested} if is_name(caller):
            wired.intake.import_event(caller, requested)
        case {"source": "rushes", "detail-type": str(kind)}:
            # The bus's dead letters hold our own events, too: sent back, they come here and order nothing.
            wired.telemetry.log("an event that orders nothing", detailType=kind)
        case _:
            raise UnreadableError("The message is no event that is known here.")

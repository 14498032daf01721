"""Every minute, and for objects created under `videos/`: looks at the clips that nobody has finished.

The schedule sends an event of its own; uploads come as S3's EventBridge events through a queue, one a message.
"""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.reconcile_function import wiring
from rushes.lambda_events import Record, error_text, message_id, work_on


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of uploads, or a sweep."""
    wired = wiring()
    try:
        if "Records" in event:
            return dict(work_on(event, _uploaded, message_id))
        buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), unattended=True)
        return {"taken": wired.reconcile_service.sweep(buyer)}
    finally:
        wired.parts.telemetry.flush()


def _uploaded(record: Record) -> None:
    """One object of S3's event. An exception leaves the message in the queue, and after a few times aside."""
    wired = wiring()
    try:
        created = json.loads(record["body"])["detail"]["object"]
        wired.reconcile_service.check_upload(created["key"], created.get("version-id", "null"))
    except Exception as error:
        wired.parts.telemetry.log("an upload could not be looked at", warn=True, error_text=error_text(error))
        raise

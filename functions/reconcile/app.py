"""Checks the clips that are due, once a minute, and the clips of objects created under `videos/`.

The schedule sends its own event; uploads are S3's EventBridge events from a queue, one a message.
"""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.reconcile_function import wiring
from rushes.lambda_events import Record, error_text, message_id, process_batch


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of uploads, or a sweep."""
    wired = wiring()
    try:
        if "Records" in event:
            return dict(process_batch(event, _check_upload, message_id))
        buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), unattended=True)
        return {"taken": wired.reconcile_service.sweep(buyer)}
    finally:
        wired.parts.telemetry.flush()


def _check_upload(record: Record) -> None:
    """Checks one upload. An exception leaves the message in the queue for a retry, or for the dead-letter queue."""
    wired = wiring()
    try:
        created = json.loads(record["body"])["detail"]["object"]
        wired.reconcile_service.check_upload(created["key"], created.get("version-id", "null"))
    except Exception as error:
        wired.parts.telemetry.log("upload could not be checked", warn=True, reason=error_text(error))
        raise

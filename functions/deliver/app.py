"""Sends the outcomes of clips to their callers' receivers: one attempt for each message of the queue.

An exception leaves the message in the queue for a retry, or for the dead-letter queue.
"""

from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.deliver_function import wiring
from rushes.domain import delivery
from rushes.lambda_events import Record, error_text, message_id, process_batch


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of attempts. The response lists the failed ones for a retry."""
    try:
        return dict(process_batch(event, partial(_deliver, holder=context.aws_request_id), message_id))
    finally:
        wiring().telemetry.flush()


def _deliver(record: Record, holder: str) -> None:
    wired = wiring()
    try:
        wired.deliver_service.attempt(delivery.read(record["body"]), holder)
    except Exception as error:
        wired.telemetry.log("message failed", warn=True, messageId=message_id(record), reason=error_text(error))
        raise

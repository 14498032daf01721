"""Publishes changes of clips from the table's stream on the event bus, and writes a manifest for each stored clip.

The event source's filter passes only changes of clips, in the order in which they were saved.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.bootstrap.publish_function import wiring
from rushes.errors import BusyError
from rushes.lambda_events import Record, error_text, process_batch, sequence_number


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of changes. The response lists the failed ones for a retry."""
    return dict(process_batch(event, lambda record: _publish(record, context), sequence_number))


def _publish(record: Record, context: LambdaContext) -> None:
    """Publishes one change. It is not begun shortly before the timeout, which would fail the whole batch."""
    wired, images = wiring(), record["dynamodb"]
    try:
        if context.get_remaining_time_in_millis() < wired.to_finish:
            raise BusyError("no time left for this change")
        before = images.get("OldImage")
        wired.publish_service.publish_change(
            clip_of_image(before) if before else None, clip_of_image(images.get("NewImage", {}))
        )
    except Exception as error:
        # The batch's response has only its place in the stream.
        keys = {name: value.get("S") for name, value in images.get("Keys", {}).items()}
        wired.telemetry.log("change could not be published", warn=True, reason=error_text(error), **keys)
        raise

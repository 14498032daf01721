"""The table's stream: what became of clips is told on the event bus, and a manifest laid beside each that is stored.

The event source passes on nothing but changes of clips, in the order in which they were saved.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.bootstrap.publish_function import wiring
from rushes.errors import BusyError
from rushes.lambda_events import Record, error_text, sequence_number, work_on


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of changes. Those that could not be told are named, and come again."""
    return dict(work_on(event, lambda record: _changed(record, context), sequence_number))


def _changed(record: Record, context: LambdaContext) -> None:
    """One change. What is begun too late would be cut off by the timeout, and the whole batch with it."""
    wired, images = wiring(), record["dynamodb"]
    try:
        if context.get_remaining_time_in_millis() < wired.to_finish:
            raise BusyError("no time is left for this change")
        before = images.get("OldImage")
        wired.publish_service.publish_change(
            clip_of_image(before) if before else None, clip_of_image(images.get("NewImage", {}))
        )
    except Exception as error:
        # The batch's answer names it by its place in the stream only.
        keys = {name: value.get("S") for name, value in images.get("Keys", {}).items()}
        wired.telemetry.log("a change could not be told", warn=True, error_text=error_text(error), **keys)
        raise

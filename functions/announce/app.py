"""The table's stream: what became of clips is told on the event bus, and a manifest laid beside each that is stored.

The event source passes on nothing but changes of clips, in the order in which they were saved.
"""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.adapters import s3
from rushes.adapters.aws import aws_client, aws_config
from rushes.adapters.dynamodb.table import Store, clip_of_image
from rushes.adapters.eventbridge import EventBus
from rushes.adapters.manifests import Manifests
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import AnnounceSettings
from rushes.errors import BusyError, RushesError
from rushes.lambda_events import Record, sequence_number, work_on
from rushes.services.publish import PublishService


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of. `to_finish` is in milliseconds."""

    announcing: PublishService
    telemetry: PowertoolsTelemetry
    to_finish: int


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = AnnounceSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    announcing = PublishService(
        tasks=Store(aws_client("dynamodb", aws_config(tries=1)), settings.table),
        manifests=Manifests(aws_client("s3", s3.CONFIG), settings.bucket),
        bus=EventBus(aws_client("events", aws_config()), settings.bus),
        telemetry=telemetry,
        bucket=settings.bucket,
    )
    return Wiring(announcing, telemetry, settings.timings.to_finish)


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
        wired.announcing.publish_change(
            clip_of_image(before) if before else None, clip_of_image(images.get("NewImage", {}))
        )
    except Exception as error:
        # The batch's answer names it by its place in the stream only. What is not ours may say anything: left out.
        why = f"{type(error).__name__}: {error}" if isinstance(error, RushesError) else type(error).__name__
        keys = {name: value.get("S") for name, value in images.get("Keys", {}).items()}
        wired.telemetry.log("a change could not be told", warn=True, why=why, **keys)
        raise

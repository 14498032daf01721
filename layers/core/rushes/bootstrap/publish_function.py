"""The wiring of `functions/publish`."""

import os
from functools import cache
from typing import NamedTuple

from rushes.adapters.aws import aws_client, aws_config, table_config
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.eventbridge import EventBridgeBus
from rushes.adapters.s3 import S3_CONFIG, S3Manifests
from rushes.adapters.sqs import SqsDeliveryQueue
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import PublishSettings
from rushes.services.publish import PublishService


class PublishWiring(NamedTuple):
    """The parts of the function. `to_finish` is in milliseconds."""

    publish_service: PublishService
    telemetry: PowertoolsTelemetry
    to_finish: int


@cache
def wiring() -> PublishWiring:
    """Built once in each process, at the first call."""
    settings = PublishSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    publish_service = PublishService(
        tasks=DynamoDbTable(aws_client("dynamodb", table_config()), settings.table),
        manifests=S3Manifests(aws_client("s3", S3_CONFIG), settings.bucket),
        bus=EventBridgeBus(aws_client("events", aws_config()), settings.bus),
        deliveries=SqsDeliveryQueue(lambda: aws_client("sqs", aws_config()), settings.deliveries),
        telemetry=telemetry,
        bucket=settings.bucket,
    )
    return PublishWiring(publish_service, telemetry, settings.timings.to_finish)

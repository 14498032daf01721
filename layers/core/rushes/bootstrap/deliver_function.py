"""The wiring of `functions/deliver`."""

import os
from functools import cache
from random import SystemRandom
from typing import NamedTuple

from rushes.adapters.aws import aws_client, aws_config, clock, table_config
from rushes.adapters.dynamodb.deliveries import DeliveriesTable
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.sqs import SqsDeliveryQueue
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.adapters.webhook_sender import WebhookSender
from rushes.config import DeliverSettings
from rushes.services.deliver import DeliverService
from rushes.services.queries import QueryService

_RETENTION = 30 * 86_400_000  # milliseconds for which attempts stay on record


class DeliverWiring(NamedTuple):
    """The parts of the function."""

    deliver_service: DeliverService
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> DeliverWiring:
    """Built once in each process, at the first call."""
    settings = DeliverSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    table = DeliveriesTable(aws_client("dynamodb", table_config()), settings.table)
    bucket = S3Bucket(aws_client("s3", S3_CONFIG), settings.bucket)
    deliver_service = DeliverService(
        table=table,
        queue=SqsDeliveryQueue(lambda: aws_client("sqs", aws_config()), settings.deliveries),
        receivers=WebhookSender(settings.timeout / 1000, clock, loopback=settings.loopback),
        query_service=QueryService(table=table, links=bucket, times=settings.timings, clock=clock),
        telemetry=telemetry,
        bucket=settings.bucket,
        first_pause=settings.first_pause,
        lease=settings.timings.function,
        retention=_RETENTION,
        # A third of all attempts at once: two dead receivers leave room for a third caller.
        concurrency=max(1, settings.concurrency // 3),
        clock=clock,
        jitter=SystemRandom().random,  # processes restored from one snapshot share the state of Python's own
    )
    return DeliverWiring(deliver_service, telemetry)

"""The wiring of `functions/intake`."""

import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from rushes.adapters.aws import aws_client, aws_config, clock, table_config
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.s3 import S3_CONFIG, S3Bucket, S3Reports, S3RequestFiles
from rushes.adapters.sqs import SqsQueue
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.adapters.thread_pool import concurrent_map
from rushes.config import IntakeSettings
from rushes.services.authentication import Callers
from rushes.services.import_requests import ImportService
from rushes.services.input_images import store_images


class IntakeWiring(NamedTuple):
    """The parts of the function."""

    telemetry: PowertoolsTelemetry
    intake: ImportService
    clock: Callable[[], int]


@cache
def wiring() -> IntakeWiring:
    """Built once in each process, at the first call."""
    settings = IntakeSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    s3 = aws_client("s3", S3_CONFIG)
    bucket = S3Bucket(s3, settings.bucket)
    table = DynamoDbTable(aws_client("dynamodb", table_config()), settings.table)
    # The limit of an unknown caller is 0, because only `submit` needs it; here it is only accepted or refused.
    callers = Callers(table, clock, 0 if settings.unknown_callers else None)
    intake = ImportService(
        bucket=settings.bucket,
        request_files=S3RequestFiles(s3, settings.bucket),
        inbox=SqsQueue(aws_client("sqs", aws_config()), settings.inbox),
        reports=S3Reports(s3, settings.bucket),
        store_images=lambda task, caller: store_images(task, caller, bucket),
        caller_named=lambda name: callers.by_name(name, signing=True),
        telemetry=telemetry,
        concurrent_map=concurrent_map,
        clock=clock,
        loopback=settings.loopback,
        gone_models=settings.gone_models,
    )
    return IntakeWiring(telemetry, intake, clock)

"""The wiring of `functions/tasks`."""

import os
from functools import cache
from typing import NamedTuple

from rushes.adapters.aws import aws_client, clock, table_config
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import TasksSettings
from rushes.services.authentication import Callers
from rushes.services.queries import QueryService


class TasksWiring(NamedTuple):
    """The parts of the function."""

    callers: Callers
    query_service: QueryService
    bucket: S3Bucket
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> TasksWiring:
    """Built once in each process, at the first call."""
    settings = TasksSettings.read(os.environ)
    table = DynamoDbTable(aws_client("dynamodb", table_config()), settings.table)
    bucket = S3Bucket(aws_client("s3", S3_CONFIG), settings.bucket)
    query_service = QueryService(
        table=table, links=bucket, times=settings.timings, clock=clock, monthly_limit=settings.monthly_limit
    )
    return TasksWiring(Callers(table, clock), query_service, bucket, PowertoolsTelemetry())

"""The wiring of `functions/tasks`."""

import os
from dataclasses import dataclass
from functools import cache

from rushes.adapters.aws import aws_client, aws_config, clock
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import TasksSettings
from rushes.services.authentication import Callers
from rushes.services.queries import QueryService


@dataclass(frozen=True, slots=True)
class TasksWiring:
    """Everything the function is made of."""

    callers: Callers
    query_service: QueryService
    bucket: S3Bucket
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> TasksWiring:
    """Made once a process, at the first call."""
    settings = TasksSettings.read(os.environ)
    table = DynamoDbTable(aws_client("dynamodb", aws_config(tries=1)), settings.table)
    bucket = S3Bucket(aws_client("s3", S3_CONFIG), settings.bucket)
    query_service = QueryService(table=table, links=bucket, times=settings.timings, clock=clock)
    return TasksWiring(Callers(table, clock), query_service, bucket, PowertoolsTelemetry())

"""The wiring of `functions/webhook`."""

import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from rushes.adapters.aws import aws_client, aws_config, clock, table_config
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.secrets import SecretsManagerSecret
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import WebhookSettings
from rushes.services.webhook import WebhookService


class WebhookWiring(NamedTuple):
    """The parts of the function."""

    webhook_service: WebhookService
    secret: SecretsManagerSecret
    telemetry: PowertoolsTelemetry
    clock: Callable[[], int]


@cache
def wiring() -> WebhookWiring:
    """Built once in each process, at the first call."""
    settings = WebhookSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    webhook_service = WebhookService(
        clips=DynamoDbTable(aws_client("dynamodb", table_config()), settings.table),
        copies=S3Bucket(aws_client("s3", S3_CONFIG), settings.bucket),
        telemetry=telemetry,
        times=settings.timings,
        clock=clock,
    )
    secrets = aws_client("secretsmanager", aws_config())
    secret = SecretsManagerSecret(secrets, settings.webhook_secret, clock, telemetry.log_secret_failure)
    return WebhookWiring(webhook_service, secret, telemetry, clock)

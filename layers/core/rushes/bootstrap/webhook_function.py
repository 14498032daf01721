"""The wiring of `functions/webhook`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rushes.adapters.aws import aws_client, aws_config, clock
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.secrets import SecretsManagerSecret
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import WebhookSettings
from rushes.services.webhook import WebhookService


@dataclass(frozen=True, slots=True)
class WebhookWiring:
    """Everything the function is made of."""

    webhook_service: WebhookService
    secret: SecretsManagerSecret
    telemetry: PowertoolsTelemetry
    clock: Callable[[], int]


@cache
def wiring() -> WebhookWiring:
    """Made once a process, at the first call."""
    settings = WebhookSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    webhook_service = WebhookService(
        clips=DynamoDbTable(aws_client("dynamodb", aws_config(tries=1)), settings.table),
        copies=S3Bucket(aws_client("s3", S3_CONFIG), settings.bucket),
        telemetry=telemetry,
        times=settings.timings,
        clock=clock,
    )
    secrets = aws_client("secretsmanager", aws_config())
    secret = SecretsManagerSecret(secrets, settings.webhook_secret, clock, telemetry.secret_unanswered)
    return WebhookWiring(webhook_service, secret, telemetry, clock)

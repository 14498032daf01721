"""The common wiring of the functions that buy, `submit` and `reconcile`."""

from typing import TYPE_CHECKING, NamedTuple

import httpx

from rushes.adapters.aws import aws_client, aws_config, clock, table_config
from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.adapters.runware_api import RunwareClient, http_client
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.secrets import SecretsManagerSecret, runware_key, webhook_keys
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import BuyingSettings
from rushes.services.purchase import Buyer, Credentials, PurchaseService

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class PurchaseParts(NamedTuple):
    """Clients and adapters of one process."""

    telemetry: PowertoolsTelemetry
    table: DynamoDbTable
    s3: "S3Client"
    bucket: S3Bucket
    http: httpx.Client
    runware: RunwareClient
    purchase_service: PurchaseService
    runware_secret: SecretsManagerSecret
    webhook_secret: SecretsManagerSecret

    def buyer(self, holder: str, remaining: int, *, unattended: bool = False) -> Buyer:
        """The buyer of this invocation, which ends in `remaining` milliseconds.

        Raises `MissingSecretError` before anything is recorded or sent.
        """
        credentials = Credentials(runware_key(self.runware_secret), webhook_keys(self.webhook_secret))
        return Buyer(holder, clock() + remaining - self.purchase_service.times.to_finish, credentials, unattended)


def assemble(settings: BuyingSettings) -> PurchaseParts:
    """Builds the clients and adapters without calling any service."""
    telemetry = PowertoolsTelemetry()
    table = DynamoDbTable(aws_client("dynamodb", table_config()), settings.table)
    s3 = aws_client("s3", S3_CONFIG)
    bucket = S3Bucket(s3, settings.bucket)
    http = http_client(settings.timings.http / 1000)
    runware = RunwareClient(http, settings.runware_url)
    secrets = aws_client("secretsmanager", aws_config())
    purchase_service = PurchaseService(
        clips=table,
        links=bucket,
        runware=runware,
        telemetry=telemetry,
        times=settings.timings,
        webhook_url=settings.webhook_url,
        clock=clock,
    )
    return PurchaseParts(
        telemetry=telemetry,
        table=table,
        s3=s3,
        bucket=bucket,
        http=http,
        runware=runware,
        purchase_service=purchase_service,
        runware_secret=SecretsManagerSecret(secrets, settings.runware_secret, clock, telemetry.log_secret_failure),
        webhook_secret=SecretsManagerSecret(secrets, settings.webhook_secret, clock, telemetry.log_secret_failure),
    )

"""What a function that buys is made of, put together once: `submit` and `reconcile` differ only in what they add."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from rushes.adapters import s3 as uploads
from rushes.adapters.aws import aws_client, aws_config, clock
from rushes.adapters.dynamodb.table import Store
from rushes.adapters.runware_api import Runware, http_client
from rushes.adapters.secrets import Secret, runware_key, webhook_keys
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import BuyingSettings
from rushes.services.purchase import Buyer, Credentials, PurchaseService

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Parts:
    """Clients and adapters of one process."""

    telemetry: PowertoolsTelemetry
    store: Store
    s3: "S3Client"
    bucket: uploads.Bucket
    http: httpx.Client
    runware: Runware
    purchasing: PurchaseService
    runware_secret: Secret
    webhook_secret: Secret

    def buyer(self, holder: str, remaining: int, *, patient: bool = False) -> Buyer:
        """Who buys in this invocation, with `remaining` milliseconds to live.

        Raises `MissingSecretError` before anything is recorded or sent.
        """
        credentials = Credentials(runware_key(self.runware_secret), webhook_keys(self.webhook_secret))
        return Buyer(holder, clock() + remaining - self.purchasing.times.to_finish, credentials, patient)


def assemble(settings: BuyingSettings) -> Parts:
    """Makes the clients; calls nobody."""
    telemetry = PowertoolsTelemetry()
    store = Store(aws_client("dynamodb", aws_config(tries=1)), settings.table)
    s3 = aws_client("s3", uploads.CONFIG)
    bucket = uploads.Bucket(s3, settings.bucket)
    http = http_client(settings.timings.http / 1000)
    runware = Runware(http, settings.runware_url)
    secrets = aws_client("secretsmanager", aws_config())
    purchasing = PurchaseService(
        clips=store,
        links=bucket,
        seller=runware,
        telemetry=telemetry,
        times=settings.timings,
        webhook_url=settings.webhook_url,
        clock=clock,
    )
    return Parts(
        telemetry=telemetry,
        store=store,
        s3=s3,
        bucket=bucket,
        http=http,
        runware=runware,
        purchasing=purchasing,
        runware_secret=Secret(secrets, settings.runware_secret, clock, telemetry.secret_unanswered),
        webhook_secret=Secret(secrets, settings.webhook_secret, clock, telemetry.secret_unanswered),
    )

"""Every minute, and for objects created under `videos/`: looks at the clips that nobody has finished.

The schedule sends an event of its own; uploads come as S3's EventBridge events through a queue, one a message.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import uploads
from rushes.concurrency import side_by_side
from rushes.config import ReconcileSettings
from rushes.credentials import Secret, runware_key, webhook_keys
from rushes.entry import aws_config, clock
from rushes.observability import PowertoolsTelemetry
from rushes.purchasing import Buyer, Credentials, Purchasing
from rushes.reconciling import Reconciling
from rushes.rescue import Rescue
from rushes.runware.client import Runware, http_client
from rushes.store import Store

_TO_FINISH = 2_000  # milliseconds kept back for saving what was learned


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    reconciling: Reconciling
    credentials: Callable[[], Credentials]
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = ReconcileSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    store = Store(boto3.client("dynamodb", config=aws_config()), settings.table)
    s3 = boto3.client("s3", config=uploads.CONFIG)
    bucket = uploads.Bucket(s3, settings.bucket)
    http = http_client(settings.timings.http / 1000)
    runware = Runware(http, settings.runware_url)
    secrets = boto3.client("secretsmanager", config=aws_config())
    runware_secret = Secret(secrets, settings.runware_secret, clock)
    webhook_secret = Secret(secrets, settings.webhook_secret, clock)
    reconciling = Reconciling(
        table=store,
        bucket=bucket,
        provider=runware,
        rescuer=Rescue(s3, settings.bucket, bucket.probe, http, settings.rescue_origins, clock),
        purchasing=Purchasing(
            clips=store,
            links=bucket,
            seller=runware,
            telemetry=telemetry,
            times=settings.timings,
            webhook_url=settings.webhook_url,
            clock=clock,
        ),
        telemetry=telemetry,
        times=settings.timings,
        when_ambiguous=settings.when_ambiguous,
        clock=clock,
        side_by_side=side_by_side,
    )
    return Wiring(
        reconciling,
        lambda: Credentials(runware_key(runware_secret), webhook_keys(webhook_secret)),
        telemetry,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of uploads, or a sweep."""
    wired = wiring()
    try:
        if "Records" in event:
            processor = BatchProcessor(event_type=EventType.SQS)
            return dict(process_partial_response(event, _uploaded, processor, context))
        buyer = Buyer(
            holder=context.aws_request_id,
            ends_at=clock() + context.get_remaining_time_in_millis() - _TO_FINISH,
            credentials=wired.credentials(),
            patient=True,
        )
        return {"taken": wired.reconciling.sweep(buyer)}
    finally:
        wired.telemetry.flush()


def _uploaded(record: SQSRecord) -> None:
    """One object of S3's event. An exception leaves the message in the queue, and after a few times aside."""
    created = json.loads(record.body)["detail"]["object"]
    wiring().reconciling.uploaded(created["key"], created.get("version-id", "null"))

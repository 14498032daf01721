"""The same in the usual stack: Powertools with validation, Logger, Metrics and Tracer, pydantic, httpx, a resource."""

import os
from typing import Any

import boto3
import httpx
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.metrics import MetricUnit
from pydantic import BaseModel

tracer = Tracer(disabled=True)  # its modules are loaded all the same; no daemon runs here
logger = Logger()
metrics = Metrics()
app = APIGatewayHttpResolver(enable_validation=True)
table = boto3.resource("dynamodb").Table(os.environ["TABLE_NAME"])
s3 = boto3.client("s3")
secrets = boto3.client("secretsmanager")
http = httpx.Client(timeout=10)


class UsualResult(BaseModel):
    """A finished clip, as Runware reports it."""

    taskUUID: str
    videoUUID: str
    videoURL: str | None = None
    seed: int | None = None
    cost: float | None = None


@app.post("/webhooks/runware/<caller>/<task_uuid>/<clip>")
@tracer.capture_method
def receive(caller: str, task_uuid: str, clip: int, result: UsualResult) -> dict[str, str]:
    table.update_item(
        Key={"pk": f"task#{caller}#{task_uuid}", "sk": f"clip#{clip}"},
        UpdateExpression="SET video = :video",
        ExpressionAttributeValues={":video": result.videoUUID},
    )
    metrics.add_metric(name="ClipsStored", unit=MetricUnit.Count, value=1)
    logger.info("stored", extra={"taskUUID": task_uuid})
    return {"message": "ok"}


@logger.inject_lambda_context
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda entry point."""
    return app.resolve(event, context)

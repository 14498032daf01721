"""`POST /v1`: Runware's wire format in and out. Translates HTTP to the use case and back; decides nothing."""

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import uploads
from rushes.callers import Callers
from rushes.concurrency import side_by_side
from rushes.config import SubmitSettings
from rushes.credentials import Secret, runware_key, webhook_keys
from rushes.entry import aws_config, body_of, clock
from rushes.errors import MissingSecretError, RushesError, UnreadableError
from rushes.observability import PowertoolsTelemetry
from rushes.purchasing import Buyer, Credentials, Purchasing
from rushes.runware.client import Runware, http_client
from rushes.runware.models import wire_error
from rushes.store import Store
from rushes.submitting import BUSY, Answer, Request, Submitting, parse, price

_TO_ANSWER = 2_000  # milliseconds kept back for saving what was learned and answering

app = APIGatewayHttpResolver(enable_validation=False)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    submitting: Submitting
    callers: Callers
    credentials: Callable[[], Credentials]
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = SubmitSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    store = Store(boto3.client("dynamodb", config=aws_config()), settings.table)
    secrets = boto3.client("secretsmanager", config=aws_config())
    runware_secret = Secret(secrets, settings.runware_secret, clock)
    webhook_secret = Secret(secrets, settings.webhook_secret, clock)
    submitting = Submitting(
        table=store,
        purchasing=Purchasing(
            clips=store,
            links=uploads.Bucket(boto3.client("s3", config=uploads.CONFIG), settings.bucket),
            seller=Runware(http_client(settings.timings.http / 1000), settings.runware_url),
            telemetry=telemetry,
            times=settings.timings,
            webhook_url=settings.webhook_url,
            clock=clock,
        ),
        telemetry=telemetry,
        times=settings.timings,
        monthly_limit=settings.monthly_limit,
        clock=clock,
        new_uuid=lambda: str(uuid.uuid4()),
        side_by_side=side_by_side,
    )
    return Wiring(
        submitting,
        Callers(store, clock),
        lambda: Credentials(runware_key(runware_secret), webhook_keys(webhook_secret)),
        telemetry,
    )


@app.post("/v1")
def submit() -> Response[str]:
    wired, event = wiring(), app.current_event
    authorization = event.headers.get("authorization")
    caller = wired.callers.of(authorization)
    if caller is None:
        return _response(Answer(errors=[(401, _NO_CALLER)]))
    tasks = parse(body_of(event.raw_event))
    if event.headers.get("x-runware-dry-run") == "1":
        return _response(price(tasks))
    context = app.lambda_context
    request = Request(
        caller=caller,
        buyer=Buyer(
            holder=context.aws_request_id,
            ends_at=clock() + context.get_remaining_time_in_millis() - _TO_ANSWER,
            credentials=wired.credentials(),
        ),
        renewed=lambda: wired.callers.of(authorization, fresh=True),
    )
    return _response(wired.submitting.submit(tasks, request))


@app.exception_handler(RushesError)  # type: ignore[untyped-decorator]
def trouble(error: RushesError) -> Response[str]:
    """The one place where what went wrong becomes an HTTP answer."""
    wiring().telemetry.note("not served", warn=True, why=f"{type(error).__name__}: {error}")
    match error:
        case UnreadableError():
            return _response(Answer(errors=[(400, wire_error("invalidRequest", str(error), "body", type="array"))]))
        case MissingSecretError():
            return _response(Answer(errors=[(503, _NOT_CONFIGURED)]))
    return _response(Answer(errors=[(503, BUSY)]))


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point."""
    try:
        answer: dict[str, Any] = app.resolve(event, context)
        return answer
    finally:
        wiring().telemetry.flush()


def _response(answer: Answer) -> Response[str]:
    return Response(answer.status, "application/json", json.dumps(answer.body))


_NO_CALLER = wire_error(
    "invalidApiKey", "Send your API key as Authorization: Bearer.", "apiKey", type="string", taskType="authentication"
)
_NOT_CONFIGURED = wire_error(
    "serviceNotConfigured", "The service has no Runware key yet. Nothing was bought; the operator has to set it."
)

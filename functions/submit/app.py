"""`POST /v1`, Runware's wire format in and out; and the inbox, one task a message.

Translates HTTP and messages to the use cases and back; decides nothing.
"""

import json
import os
import uuid
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import messages
from rushes.assembly import Parts, assemble
from rushes.callers import Callers
from rushes.concurrency import side_by_side
from rushes.config import SubmitSettings
from rushes.drops import Reports
from rushes.entry import body_of, clock
from rushes.errors import MissingSecretError, RushesError, UnreadableError
from rushes.purchasing import Buyer
from rushes.reading import Reading
from rushes.runware.wire import wire_error
from rushes.submitting import BUSY, Answer, Request, Submitting, parse, price
from rushes.taking import Gate, Taking

app = APIGatewayHttpResolver(enable_validation=False)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    parts: Parts
    callers: Callers
    submitting: Submitting
    taking: Taking


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = SubmitSettings.read(os.environ)
    parts = assemble(settings)
    gate = Gate(parts.runware, clock)
    submitting = Submitting(
        table=parts.store,
        inputs=parts.bucket,
        reading=Reading(table=parts.store, links=parts.bucket, times=settings.timings, clock=clock),
        purchasing=replace(parts.purchasing, seller=gate),
        telemetry=parts.telemetry,
        times=settings.timings,
        monthly_limit=settings.monthly_limit,
        retention=settings.retention,
        clock=clock,
        new_uuid=lambda: str(uuid.uuid4()),
        side_by_side=side_by_side,
    )
    callers = Callers(parts.store, clock, settings.monthly_limit)
    taking = Taking(
        submitting=submitting,
        gate=gate,
        callers=callers,
        reports=Reports(parts.s3, settings.bucket),
        telemetry=parts.telemetry,
        clock=clock,
    )
    return Wiring(parts, callers, submitting, taking)


@app.post("/v1")
def submit() -> Response[str]:
    wired, event = wiring(), app.current_event
    authorization = event.headers.get("authorization")
    caller = wired.callers.of(authorization)
    if caller is None:
        return _response(Answer(errors=[(401, _NO_CALLER)]))
    tasks = parse(body_of(event.raw_event))
    match event.headers.get("x-runware-dry-run"):
        case "1":
            return _response(price(tasks, caller, wired.parts.bucket))
        case str():  # whoever writes "true" means not to buy, and would
            return _response(Answer(errors=[(400, _NO_SUCH_DRY_RUN)]))
    context = app.lambda_context
    request = Request(
        caller=caller,
        buyer=wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis()),
        renewed=lambda: wired.callers.of(authorization, fresh=True),
    )
    return _response(wired.submitting.submit(tasks, request))


@app.exception_handler(RushesError)  # type: ignore[untyped-decorator]
def trouble(error: RushesError) -> Response[str]:
    """The one place where what went wrong becomes an HTTP answer."""
    wiring().parts.telemetry.note("not served", warn=True, why=f"{type(error).__name__}: {error}")
    match error:
        case UnreadableError():
            return _response(Answer(errors=[(400, wire_error("invalidRequest", str(error), "body", type="array"))]))
        case MissingSecretError():
            return _response(Answer(errors=[(503, _NOT_CONFIGURED)]))
    return _response(Answer(errors=[(503, BUSY)]))


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a request, or a batch of the inbox."""
    try:
        if "Records" in event:
            return _batch(event, context)
        answer: dict[str, Any] = app.resolve(event, context)
        return answer
    finally:
        wiring().parts.telemetry.flush()


def _batch(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes each message by itself. If all come back that is no error of the function: a budget may be used up."""
    parts = wiring().parts
    buyer = parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), patient=True)
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return dict(process_partial_response(event, partial(_take, buyer=buyer), processor, context))


def _take(record: SQSRecord, buyer: Buyer) -> None:
    """One message. An exception leaves it in the queue, and after a few times aside."""
    wired = wiring()
    try:
        wired.taking.take(messages.read(record.body), buyer)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        wired.parts.telemetry.note("a message comes back", warn=True, messageId=record.message_id, why=why)
        raise


def _response(answer: Answer) -> Response[str]:
    return Response(answer.status, "application/json", json.dumps(answer.body))


_NO_CALLER = wire_error(
    "invalidApiKey", "Send your API key as Authorization: Bearer.", "apiKey", type="string", taskType="authentication"
)
_NO_SUCH_DRY_RUN = wire_error(
    "invalidDryRun", "X-Runware-Dry-Run can only be 1. Nothing was bought; leave it out to buy.", "X-Runware-Dry-Run"
)
_NOT_CONFIGURED = wire_error(
    "serviceNotConfigured", "The service has no Runware key yet. Nothing was bought; the operator has to set it."
)

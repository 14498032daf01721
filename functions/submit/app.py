"""`POST /v1`, Runware's wire format in and out; and the inbox, one task a message.

Translates HTTP and messages to the use cases and back; decides nothing.
"""

import json
import os
import uuid
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.adapters.aws import clock
from rushes.adapters.request_files import Reports
from rushes.adapters.thread_pool import side_by_side
from rushes.bootstrap import Parts, assemble
from rushes.config import SubmitSettings
from rushes.domain import inbox_message
from rushes.errors import MissingSecretError, RushesError, UnreadableError
from rushes.lambda_events import Record, body_of, header, message_id, work_on
from rushes.runware.wire import wire_error
from rushes.services.authentication import Callers
from rushes.services.circuit_breaker import CircuitBreaker
from rushes.services.inbox import InboxService
from rushes.services.purchase import Buyer
from rushes.services.queries import QueryService
from rushes.services.request_validation import WireResponse, bearer_in, parse, without_authentication
from rushes.services.submit import BUSY, Request, SubmitService, price


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    parts: Parts
    callers: Callers
    submitting: SubmitService
    taking: InboxService


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = SubmitSettings.read(os.environ)
    parts = assemble(settings)
    submitting = SubmitService(
        table=parts.store,
        inputs=parts.bucket,
        reading=QueryService(table=parts.store, links=parts.bucket, times=settings.timings, clock=clock),
        purchasing=parts.purchasing,
        telemetry=parts.telemetry,
        times=settings.timings,
        monthly_limit=settings.monthly_limit,
        retention=settings.retention,
        clock=clock,
        new_uuid=lambda: str(uuid.uuid4()),
        side_by_side=side_by_side,
    )
    callers = Callers(parts.store, clock, settings.monthly_limit if settings.unknown_callers else None)
    breaker = CircuitBreaker(parts.runware, clock)
    taking = InboxService(
        submitting=replace(submitting, purchasing=replace(parts.purchasing, seller=breaker)),
        breaker=breaker,
        callers=callers,
        reports=Reports(parts.s3, settings.bucket),
        telemetry=parts.telemetry,
        clock=clock,
    )
    return Wiring(parts, callers, submitting, taking)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of the inbox, or a request."""
    wired = wiring()
    try:
        return _batch(event, context) if "Records" in event else _response(_answered(wired, event, context))
    finally:
        wired.parts.telemetry.flush()


def _answered(wired: Wiring, event: dict[str, Any], context: LambdaContext) -> WireResponse:
    """The one place where trouble becomes an answer. Not a batch's: there an answer says that its messages are done."""
    try:
        return _submit(wired, event, context)
    except RushesError as error:
        wired.parts.telemetry.log("not served", warn=True, why=f"{type(error).__name__}: {error}")
        return _trouble(error)


def _submit(wired: Wiring, event: dict[str, Any], context: LambdaContext) -> WireResponse:
    body, in_header = body_of(event), header(event, "authorization")
    caller = wired.callers.of(in_header or bearer_in(body))
    if caller is None:
        return WireResponse(errors=[(401, _NO_CALLER)])
    tasks = without_authentication(parse(body), mixed=bool(in_header))
    match header(event, "x-runware-dry-run"):
        case "1":
            return price(tasks, caller, wired.parts.bucket)
        case str():  # whoever writes "true" means not to buy, and would
            return WireResponse(errors=[(400, _NO_SUCH_DRY_RUN)])
    request = Request(
        caller=caller,
        buyer=wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis()),
    )
    return wired.submitting.submit(tasks, request)


def _trouble(error: RushesError) -> WireResponse:
    match error:
        case UnreadableError():
            return WireResponse(errors=[(400, wire_error("invalidRequest", str(error), "body", type="array"))])
        case MissingSecretError():
            return WireResponse(errors=[(503, _NOT_CONFIGURED)])
    return WireResponse(errors=[(503, BUSY)])


def _batch(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes each message by itself. If all come back that is no error of the function: a budget may be used up.

    Without secrets to buy with it is one: it raises before any message is looked at, and all of them come back.
    """
    buyer = wiring().parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), patient=True)
    return dict(work_on(event, partial(_take, buyer=buyer), message_id, all_may_fail=True))


def _take(record: Record, buyer: Buyer) -> None:
    """One message. An exception leaves it in the queue, and after a few times aside."""
    wired = wiring()
    try:
        wired.taking.take(inbox_message.read(record["body"]), buyer)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        wired.parts.telemetry.log("a message comes back", warn=True, messageId=message_id(record), why=why)
        raise


def _response(answer: WireResponse) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    return {"statusCode": answer.status, "headers": headers, "body": json.dumps(answer.body)}


_NO_CALLER = wire_error(
    "invalidApiKey",
    "Send your API key as Authorization: Bearer, or in an authentication task before all others.",
    "apiKey",
    type="string",
    taskType="authentication",
)
_NO_SUCH_DRY_RUN = wire_error(
    "invalidDryRun", "X-Runware-Dry-Run can only be 1. Nothing was bought; leave it out to buy.", "X-Runware-Dry-Run"
)
_NOT_CONFIGURED = wire_error(
    "serviceNotConfigured", "The service has no Runware key yet. Nothing was bought; the operator has to set it."
)

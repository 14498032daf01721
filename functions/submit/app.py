"""`POST /v1`, with Runware's wire format in request and response; and the inbox, one task a message.

Translates HTTP and messages to the use cases and back; decides nothing.
"""

from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.submit_function import SubmitWiring, wiring
from rushes.domain import inbox_message
from rushes.errors import MissingSecretError, RushesError, UnreadableError
from rushes.lambda_events import Record, body_of, error_text, header, json_response, message_id, process_batch
from rushes.runware.wire import wire_error
from rushes.services.purchase import Buyer
from rushes.services.request_validation import WireResponse, bearer_in, parse, without_authentication
from rushes.services.submit import BUSY, Request, price


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point: a batch of the inbox, or a request."""
    wired = wiring()
    try:
        if "Records" in event:
            return _batch(wired, event, context)
        response = _answered(wired, event, context)
        return json_response(response.status, response.body, response.headers)
    finally:
        wired.parts.telemetry.flush()


def _answered(wired: SubmitWiring, event: dict[str, Any], context: LambdaContext) -> WireResponse:
    """Maps errors to responses, in this one place. Not for a batch, whose messages a response would delete."""
    try:
        return _submit(wired, event, context)
    except RushesError as error:
        wired.parts.telemetry.log("request failed", warn=True, reason=error_text(error))
        match error:
            case UnreadableError():
                return WireResponse(errors=[(400, wire_error("invalidRequest", str(error), "body", type="array"))])
            case MissingSecretError():
                return WireResponse(errors=[(503, _NOT_CONFIGURED)])
        return WireResponse(errors=[(503, BUSY)])


def _submit(wired: SubmitWiring, event: dict[str, Any], context: LambdaContext) -> WireResponse:
    body, in_header = body_of(event), header(event, "authorization")
    caller = wired.callers.of(in_header or bearer_in(body))
    if caller is None:
        return WireResponse(errors=[(401, _NO_CALLER)])
    tasks = without_authentication(parse(body), mixed=bool(in_header))
    match header(event, "x-runware-dry-run"):
        case "1":
            service = wired.submit_service
            return price(tasks, caller, wired.parts.bucket, loopback=service.loopback, gone_models=service.gone_models)
        case str():  # refused: a caller who writes "true" does not want to buy
            return WireResponse(errors=[(400, _NO_SUCH_DRY_RUN)])
    buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis())
    return wired.submit_service.submit(tasks, Request(caller=caller, buyer=buyer))


def _batch(wired: SubmitWiring, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Processes each message by itself. If all fail, that is no error of the function: a budget may be used up.

    A missing secret is an error: it raises before the first message, and all of them are retried.
    """
    buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), unattended=True)
    return dict(process_batch(event, partial(_buy, buyer=buyer), message_id, all_may_fail=True))


def _buy(record: Record, buyer: Buyer) -> None:
    """Processes one message. An exception leaves it in the queue for a retry, or for the dead-letter queue."""
    wired = wiring()
    try:
        wired.inbox_service.buy(inbox_message.read(record["body"]), buyer)
    except Exception as error:
        wired.parts.telemetry.log("message failed", warn=True, messageId=message_id(record), reason=error_text(error))
        raise


_NO_CALLER = wire_error(
    "invalidApiKey",
    "Send your API key as Authorization: Bearer, or in an authentication task before all others.",
    "apiKey",
    type="string",
    taskType="authentication",
)
_NO_SUCH_DRY_RUN = wire_error(
    "invalidDryRun",
    "X-Runware-Dry-Run must be 1. Nothing was bought; leave the header out to buy.",
    "X-Runware-Dry-Run",
)
_NOT_CONFIGURED = wire_error(
    "serviceNotConfigured", "The service has no Runware key yet. Nothing was bought; the operator has to set it."
)

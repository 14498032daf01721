"""`POST /v1`, Runware's wire format in and out; and the inbox, one task a message.

Translates HTTP and messages to the use cases and back; decides nothing.
"""

from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes.bootstrap.submit_function import SubmitWiring, wiring
from rushes.domain import inbox_message
from rushes.errors import MissingSecretError, RushesError, UnreadableError
from rushes.lambda_events import Record, body_of, error_text, header, json_response, message_id, work_on
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
        answer = _answered(wired, event, context)
        return json_response(answer.status, answer.body)
    finally:
        wired.parts.telemetry.flush()


def _answered(wired: SubmitWiring, event: dict[str, Any], context: LambdaContext) -> WireResponse:
    """The one place where trouble becomes an answer. Not a batch's: there an answer says that its messages are done."""
    try:
        return _submit(wired, event, context)
    except RushesError as error:
        wired.parts.telemetry.log("not served", warn=True, error_text=error_text(error))
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
            return price(tasks, caller, wired.parts.bucket)
        case str():  # whoever writes "true" means not to buy, and would
            return WireResponse(errors=[(400, _NO_SUCH_DRY_RUN)])
    buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis())
    return wired.submit_service.submit(tasks, Request(caller=caller, buyer=buyer))


def _batch(wired: SubmitWiring, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes each message by itself. If all come back that is no error of the function: a budget may be used up.

    Without secrets to buy with it is one: it raises before any message is looked at, and all of them come back.
    """
    buyer = wired.parts.buyer(context.aws_request_id, context.get_remaining_time_in_millis(), unattended=True)
    return dict(work_on(event, partial(_take, buyer=buyer), message_id, all_may_fail=True))


def _take(record: Record, buyer: Buyer) -> None:
    """One message. An exception leaves it in the queue, and after a few times aside."""
    wired = wiring()
    try:
        wired.inbox_service.buy(inbox_message.read(record["body"]), buyer)
    except Exception as error:
        wired.parts.telemetry.log(
            "a message comes back", warn=True, messageId=message_id(record), error_text=error_text(error)
        )
        raise


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

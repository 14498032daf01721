"""`POST /webhooks/runware/{caller}/{taskUUID}/{clip}`: Runware's callback. The token is verified before the body.

Responses: 200 recorded, or a repeat; 400 no item for this clip; 401 any fault of the token; 404 no such clip; 503 not
saved, so that Runware retries.
"""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import BotoCoreError, ClientError

from rushes.adapters.secrets import webhook_keys
from rushes.bootstrap.webhook_function import WebhookWiring, wiring
from rushes.domain import webhook_token
from rushes.errors import BadTokenError, RushesError, UnknownClipError, UnreadableError
from rushes.lambda_events import body_of, error_text, json_response
from rushes.services.metric import Metric


def handler(event: dict[str, Any], _: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point, and the one place that maps errors to HTTP responses."""
    wired = wiring()
    path = event.get("pathParameters") or {}
    caller, task_uuid, index = path.get("caller", ""), path.get("taskUUID", ""), path.get("clip", "")
    about = {"caller": caller, "taskUUID": task_uuid, "clip": index}
    try:
        token = _verified(event, webhook_token.subject(caller, task_uuid, index), wired)
        clip = wired.webhook_service.receive(body_of(event), caller, task_uuid, int(index), token)
        return json_response(200, {"message": clip.status})
    except BadTokenError:
        # The path is not logged: without a valid token none of it is proven.
        wired.telemetry.count(Metric.WEBHOOKS_REJECTED)
        return json_response(401, {"message": "invalid token"})
    except UnreadableError as error:
        wired.telemetry.log("webhook unreadable", warn=True, reason=str(error), **about)
        return json_response(400, {"message": str(error)})
    except UnknownClipError:
        wired.telemetry.log("webhook for an unknown clip", warn=True, **about)
        return json_response(404, {"message": "no such clip"})
    except (RushesError, ClientError, BotoCoreError) as error:
        wired.telemetry.log("webhook not saved", warn=True, reason=error_text(error), **about)
        return json_response(503, {"message": "not saved; send it again"})
    finally:
        wired.telemetry.flush()


def _verified(event: Mapping[str, Any], subject: str, wired: WebhookWiring) -> str:
    """Returns the token; raises `BadTokenError`.

    An unknown signature may be from a new key after a rotation, so the keys are read again, with a limited rate.
    """
    token: str = (event.get("queryStringParameters") or {}).get("token", "")
    try:
        webhook_token.verify(token, subject, webhook_keys(wired.secret), wired.clock())
    except BadTokenError:
        if not wired.secret.refresh():
            raise
        webhook_token.verify(token, subject, webhook_keys(wired.secret), wired.clock())
    return token

"""`POST /webhooks/runware/{caller}/{taskUUID}/{clip}`: Runware's callback. The token comes first, then the body.

Answers: 200 learned or known already; 400 says nothing about this clip; 401 any fault of the token; 404 no such clip;
503 not saved, so that Runware tries again.
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
from rushes.services.ports import Metric


def handler(event: dict[str, Any], _: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point; the one place where trouble becomes an HTTP answer."""
    wired = wiring()
    path = event.get("pathParameters") or {}
    caller, task_uuid, index = path.get("caller", ""), path.get("taskUUID", ""), path.get("clip", "")
    about = {"caller": caller, "taskUUID": task_uuid, "clip": index}
    try:
        token = _verified(event, webhook_token.subject(caller, task_uuid, index), wired)
        clip = wired.webhook_service.receive(body_of(event), caller, task_uuid, int(index), token)
        return json_response(200, {"message": clip.status})
    except BadTokenError:
        # Nothing of the path is logged: none of it is proven to be about anything.
        wired.telemetry.count(Metric.WEBHOOKS_REJECTED)
        return json_response(401, {"message": "invalid token"})
    except UnreadableError as error:
        wired.telemetry.log("webhook says nothing", warn=True, error_text=str(error), **about)
        return json_response(400, {"message": str(error)})
    except UnknownClipError:
        wired.telemetry.log("webhook for a clip that is not recorded", warn=True, **about)
        return json_response(404, {"message": "no such clip"})
    except (RushesError, ClientError, BotoCoreError) as error:
        wired.telemetry.log("webhook not saved", warn=True, error_text=error_text(error), **about)
        return json_response(503, {"message": "not saved; send it again"})
    finally:
        wired.telemetry.flush()


def _verified(event: Mapping[str, Any], subject: str, wired: WebhookWiring) -> str:
    """The token; raises `BadTokenError`.

    An unknown signature may be of a key that was rotated in: worth one bounded look.
    """
    token: str = (event.get("queryStringParameters") or {}).get("token", "")
    try:
        webhook_token.verify(token, subject, webhook_keys(wired.secret), wired.clock())
    except BadTokenError:
        if not wired.secret.refresh():
            raise
        webhook_token.verify(token, subject, webhook_keys(wired.secret), wired.clock())
    return token

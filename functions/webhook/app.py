"""`POST /webhooks/runware/{caller}/{taskUUID}/{clip}`: Runware's callback. The token comes first, then the body.

Answers: 200 learned or known already; 400 says nothing about this clip; 401 any fault of the token; 404 no such clip;
503 not saved, so that Runware tries again.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import BotoCoreError, ClientError

from rushes.adapters import s3
from rushes.adapters.aws import aws_client, aws_config, clock
from rushes.adapters.dynamodb.table import Store
from rushes.adapters.secrets import Secret, webhook_keys
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import WebhookSettings
from rushes.domain import webhook_token
from rushes.errors import BadTokenError, RushesError, UnknownClipError, UnreadableError
from rushes.lambda_events import body_of
from rushes.services.ports import Metric
from rushes.services.webhook import WebhookService


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    receiving: WebhookService
    secret: Secret
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = WebhookSettings.read(os.environ)
    telemetry = PowertoolsTelemetry()
    receiving = WebhookService(
        clips=Store(aws_client("dynamodb", aws_config(tries=1)), settings.table),
        copies=s3.Bucket(aws_client("s3", s3.CONFIG), settings.bucket),
        telemetry=telemetry,
        times=settings.timings,
        clock=clock,
    )
    secret = Secret(
        aws_client("secretsmanager", aws_config()), settings.webhook_secret, clock, telemetry.secret_unanswered
    )
    return Wiring(receiving, secret, telemetry)


def handler(event: dict[str, Any], _: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point; the one place where trouble becomes an HTTP answer."""
    wired = wiring()
    path = event.get("pathParameters") or {}
    caller, task_uuid, index = path.get("caller", ""), path.get("taskUUID", ""), path.get("clip", "")
    about = {"caller": caller, "taskUUID": task_uuid, "clip": index}
    try:
        token = _verified(event, webhook_token.subject(caller, task_uuid, index), wired.secret)
        clip = wired.receiving.receive(body_of(event), caller, task_uuid, int(index), token)
        return _answer(200, clip.status)
    except BadTokenError:
        # Nothing of the path is logged: none of it is proven to be about anything.
        wired.telemetry.count(Metric.WEBHOOKS_REJECTED)
        return _answer(401, "invalid token")
    except UnreadableError as error:
        wired.telemetry.log("webhook says nothing", warn=True, why=str(error), **about)
        return _answer(400, str(error))
    except UnknownClipError:
        wired.telemetry.log("webhook for a clip that is not recorded", warn=True, **about)
        return _answer(404, "no such clip")
    except (RushesError, ClientError, BotoCoreError) as error:
        wired.telemetry.log("webhook not saved", warn=True, why=f"{type(error).__name__}: {error}", **about)
        return _answer(503, "not saved; send it again")
    finally:
        wired.telemetry.flush()


def _verified(event: Mapping[str, Any], subject: str, secret: Secret) -> str:
    """The token; raises `BadTokenError`.

    An unknown signature may be of a key that was rotated in: worth one bounded look.
    """
    token: str = (event.get("queryStringParameters") or {}).get("token", "")
    try:
        webhook_token.verify(token, subject, webhook_keys(secret), clock())
    except BadTokenError:
        if not secret.renew():
            raise
        webhook_token.verify(token, subject, webhook_keys(secret), clock())
    return token


def _answer(status: int, message: str) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps({"message": str(message)})}

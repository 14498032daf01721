"""`GET /tasks`, `/tasks/{taskUUID}`, `/costs`, `/budget`: a caller's own, read-only; `GET /`, the page that shows it.

Answers: 200; 400 a parameter is wrong; 401 no valid key; 404 no such task of this caller's; 503 busy.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import gallery as page
from rushes.adapters import s3
from rushes.adapters.aws import aws_client, aws_config, clock
from rushes.adapters.dynamodb.table import Store
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.config import TasksSettings
from rushes.domain.caller import Caller
from rushes.domain.views import Json
from rushes.errors import RushesError
from rushes.lambda_events import header
from rushes.runware.wire import WireError, wire_error
from rushes.services.authentication import Callers
from rushes.services.queries import QueryService, not_found

Event = Mapping[str, Any]
HttpAnswer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    callers: Callers
    reading: QueryService
    bucket: s3.Bucket
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = TasksSettings.read(os.environ)
    store = Store(aws_client("dynamodb", aws_config(tries=1)), settings.table)
    bucket = s3.Bucket(aws_client("s3", s3.CONFIG), settings.bucket)
    reading = QueryService(table=store, links=bucket, times=settings.timings, clock=clock)
    return Wiring(Callers(store, clock), reading, bucket, PowertoolsTelemetry())


@cache
def gallery() -> tuple[str, Mapping[str, str]]:
    """The page and its headers, read and hashed once a process."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return html, page.headers(html, wiring().bucket.origin)


def handler(event: Event, _: LambdaContext) -> HttpAnswer:
    """The Lambda entry point; the one place where what went wrong becomes an HTTP answer."""
    wired = wiring()
    try:
        if event["routeKey"] == PAGE:
            html, headers = gallery()
            return _response(200, "text/html; charset=utf-8", html, headers)
        caller = wired.callers.of(header(event, "authorization"))
        return READ[event["routeKey"]](wired.reading, caller, event) if caller else _errors(401, _NO_CALLER)
    except RushesError as error:
        wired.telemetry.log("not served", warn=True, why=f"{type(error).__name__}: {error}")
        return _errors(503, _BUSY)


def _tasks(reading: QueryService, caller: Caller, event: Event) -> HttpAnswer:
    return _page(reading.tasks(caller, event.get("queryStringParameters") or {}))


def _task(reading: QueryService, caller: Caller, event: Event) -> HttpAnswer:
    task_uuid = event["pathParameters"]["taskUUID"]
    found = reading.task(caller, task_uuid)
    return _json(200, found) if found else _errors(404, not_found(task_uuid))


def _costs(reading: QueryService, caller: Caller, event: Event) -> HttpAnswer:
    return _page(reading.costs(caller, event.get("queryStringParameters") or {}))


def _budget(reading: QueryService, caller: Caller, _: Event) -> HttpAnswer:
    return _json(200, reading.budget(caller))


PAGE = "GET /"
READ: Mapping[str, Callable[[QueryService, Caller, Event], HttpAnswer]] = {
    "GET /tasks": _tasks,
    "GET /tasks/{taskUUID}": _task,
    "GET /costs": _costs,
    "GET /budget": _budget,
}


def _page(found: Json | list[WireError]) -> HttpAnswer:
    """A page of a list, or what was wrong with the question."""
    return _errors(400, *found) if isinstance(found, list) else _json(200, found)


def _errors(status: int, *errors: WireError) -> HttpAnswer:
    return _json(status, {"errors": errors})


def _json(status: int, body: Json) -> HttpAnswer:
    # The links in it are good for whoever has them, so nothing on the way may keep it.
    headers = {"Cache-Control": "no-store", **page.PROTECTIVE}
    return _response(status, "application/json", json.dumps(body, ensure_ascii=False), headers)


def _response(status: int, content_type: str, body: str, headers: Mapping[str, str]) -> HttpAnswer:
    return {"statusCode": status, "headers": {"Content-Type": content_type, **headers}, "body": body}


_NO_CALLER = wire_error("invalidApiKey", "Send your API key as Authorization: Bearer.", "apiKey", type="string")
_BUSY = wire_error("serviceUnavailable", "The service is busy. Ask again later.")

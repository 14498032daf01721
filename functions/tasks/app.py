"""`GET /tasks`, `/tasks/{taskUUID}`, `/costs` and `/budget` for a caller's own data; `GET /models` for the catalog.

`GET /` is the gallery page, which needs no key.

Responses: 200; 400 invalid parameter; 401 no valid key; 404 no such task of this caller; 503 busy.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import gallery
from rushes.bootstrap.tasks_function import wiring
from rushes.domain.caller import Caller
from rushes.domain.views import Json
from rushes.errors import RushesError
from rushes.lambda_events import error_text, header, http_response
from rushes.runware.wire import WireError, wire_error
from rushes.services.queries import QueryService, models, not_found

Event = Mapping[str, Any]
HttpAnswer = dict[str, Any]


@cache
def page() -> tuple[str, Mapping[str, str]]:
    """Returns the page and its headers, read and hashed once a process."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return html, gallery.headers(html, wiring().bucket.origin)


def handler(event: Event, _: LambdaContext) -> HttpAnswer:
    """The Lambda entry point, and the one place that maps errors to HTTP responses."""
    wired = wiring()
    try:
        if event["routeKey"] == PAGE:
            html, headers = page()
            return http_response(200, "text/html; charset=utf-8", html, headers)
        caller = wired.callers.of(header(event, "authorization"))
        return READ[event["routeKey"]](wired.query_service, caller, event) if caller else _errors(401, _NO_CALLER)
    except RushesError as error:
        wired.telemetry.log("request failed", warn=True, reason=error_text(error))
        return _errors(503, _BUSY)


def _tasks(query_service: QueryService, caller: Caller, event: Event) -> HttpAnswer:
    return _page(query_service.tasks(caller, event.get("queryStringParameters") or {}))


def _task(query_service: QueryService, caller: Caller, event: Event) -> HttpAnswer:
    task_uuid = event["pathParameters"]["taskUUID"]
    found = query_service.task(caller, task_uuid)
    return _json(200, found) if found else _errors(404, not_found(task_uuid))


def _costs(query_service: QueryService, caller: Caller, event: Event) -> HttpAnswer:
    return _page(query_service.costs(caller, event.get("queryStringParameters") or {}))


def _budget(query_service: QueryService, caller: Caller, _: Event) -> HttpAnswer:
    return _json(200, query_service.budget(caller))


def _models(_: QueryService, __: Caller, ___: Event) -> HttpAnswer:
    return _json(200, models())


PAGE = "GET /"
READ: Mapping[str, Callable[[QueryService, Caller, Event], HttpAnswer]] = {
    "GET /tasks": _tasks,
    "GET /tasks/{taskUUID}": _task,
    "GET /costs": _costs,
    "GET /budget": _budget,
    "GET /models": _models,
}


def _page(found: Json | list[WireError]) -> HttpAnswer:
    """A page of a list, or the faults of the request."""
    return _errors(400, *found) if isinstance(found, list) else _json(200, found)


def _errors(status: int, *errors: WireError) -> HttpAnswer:
    return _json(status, {"errors": errors})


def _json(status: int, body: Json) -> HttpAnswer:
    # It contains presigned URLs, which work without a key, so no cache may keep it.
    headers = {"Cache-Control": "no-store", **gallery.PROTECTIVE}
    return http_response(status, "application/json", json.dumps(body, ensure_ascii=False), headers)


_NO_CALLER = wire_error("invalidApiKey", "Send your API key as Authorization: Bearer.", "apiKey", type="string")
_BUSY = wire_error("serviceUnavailable", "The service is busy. Try again later.")

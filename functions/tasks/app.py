"""`GET /tasks`, `GET /tasks/{taskUUID}`, `GET /budget`: a caller's own, read-only; and `GET /`, the page that shows it.

Answers: 200; 400 a parameter is wrong; 401 no valid key; 404 no such task of this caller's; 503 busy.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from rushes import page, uploads
from rushes.callers import Caller, Callers
from rushes.config import TasksSettings
from rushes.entry import aws_client, aws_config, clock
from rushes.errors import RushesError
from rushes.observability import PowertoolsTelemetry
from rushes.outside import Json
from rushes.reading import Reading, not_found
from rushes.runware.wire import WireError, wire_error
from rushes.store import Store

app = APIGatewayHttpResolver(enable_validation=False)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything this function is made of."""

    callers: Callers
    reading: Reading
    bucket: uploads.Bucket
    telemetry: PowertoolsTelemetry


@cache
def wiring() -> Wiring:
    """Built once a process, at the first call."""
    settings = TasksSettings.read(os.environ)
    store = Store(aws_client("dynamodb", aws_config(tries=1)), settings.table)
    bucket = uploads.Bucket(aws_client("s3", uploads.CONFIG), settings.bucket)
    reading = Reading(table=store, links=bucket, times=settings.timings, clock=clock)
    return Wiring(Callers(store, clock), reading, bucket, PowertoolsTelemetry())


@cache
def gallery() -> tuple[str, Mapping[str, str]]:
    """The page and its headers, read and hashed once a process."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return html, page.headers(html, wiring().bucket.origin)


@app.get("/")
def show() -> Response[str]:
    html, headers = gallery()
    return Response(200, "text/html; charset=utf-8", html, headers)


@app.get("/tasks")
def tasks() -> Response[str]:
    parameters = app.current_event.query_string_parameters or {}
    return _answer(lambda reading, caller: reading.tasks(caller, parameters))


@app.get("/tasks/<task_uuid>")
def task(task_uuid: str) -> Response[str]:
    def found(reading: Reading, caller: Caller) -> Json | Response[str]:
        return reading.task(caller, task_uuid) or _errors(404, not_found(task_uuid))

    return _answer(found)


@app.get("/budget")
def budget() -> Response[str]:
    return _answer(lambda reading, caller: reading.budget(caller))


@app.not_found
def nothing_here(_: Exception) -> Response[str]:
    """API Gateway lets nothing else in but a path with characters that no UUID has."""
    return _answer(lambda _reading, _caller: _errors(404, not_found("")))


@app.exception_handler(RushesError)  # type: ignore[untyped-decorator]
def trouble(error: RushesError) -> Response[str]:
    """The one place where what went wrong becomes an HTTP answer."""
    wiring().telemetry.note("not served", warn=True, why=f"{type(error).__name__}: {error}")
    return _errors(503, _BUSY)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The Lambda entry point."""
    answer: dict[str, Any] = app.resolve(event, context)
    return answer


def _answer(read: Callable[[Reading, Caller], Json | list[WireError] | Response[str]]) -> Response[str]:
    """What the caller behind the key may read, or why nothing is read."""
    wired = wiring()
    caller = wired.callers.of(app.current_event.headers.get("authorization"))
    if caller is None:
        return _errors(401, _NO_CALLER)
    found = read(wired.reading, caller)
    if isinstance(found, Response):
        return found
    return _errors(400, *found) if isinstance(found, list) else _json(200, found)


def _errors(status: int, *errors: WireError) -> Response[str]:
    return _json(status, {"errors": errors})


def _json(status: int, body: Json) -> Response[str]:
    # The links in it are good for whoever has them, so nothing on the way may keep it.
    headers = {"Cache-Control": "no-store", **page.PROTECTIVE}
    return Response(status, "application/json", json.dumps(body, ensure_ascii=False), headers)


_NO_CALLER = wire_error("invalidApiKey", "Send your API key as Authorization: Bearer.", "apiKey", type="string")
_BUSY = wire_error("serviceUnavailable", "The service is busy. Ask again later.")

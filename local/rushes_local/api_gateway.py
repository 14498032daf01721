"""API Gateway's HTTP API: HTTP request -> payload 2.0 event -> function -> HTTP response.

Hides the two formats and API Gateway's own error responses. As in API Gateway, `rawPath` is the decoded path. The
access log has no query strings, because they contain the webhook's token.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import binascii
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

from rushes_local.lambda_runtime import ACCOUNT_ID, PAYLOAD_LIMIT, Outcome

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BODY_LIMIT = 10 * 1024 * 1024
INTEGRATION_TIMEOUT = 30.0
STAGE = "$default"

_TEXT_TYPES = re.compile(r"text/|application/(json|javascript|xml|[\w.-]+\+(json|xml))\b")

# API Gateway's texts: those of http.HTTPStatus differ between versions of Python.
_ERROR_TEXTS = {
    HTTPStatus.NOT_FOUND: "Not Found",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request Entity Too Large",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Internal Server Error",
    HTTPStatus.SERVICE_UNAVAILABLE: "Service Unavailable",
}

# The WSGI server sets these itself and rejects an application that does.
_HOP_BY_HOP = {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}


class Invocable(Protocol):
    """A function that can be invoked, in a process here or in a container."""

    def invoke(self, event: Mapping[str, Any], *, timeout: float | None = None) -> Outcome:
        """Run the function on an event, waiting at most `timeout` seconds for its outcome."""


@dataclass(frozen=True)
class Route:
    """A method, a path with `{parameters}`, and the function that serves them."""

    method: str
    path: str
    function: Invocable
    api_id: str = "local"
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = re.split(r"\{(\w+)\}", self.path)
        names = [f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)]
        object.__setattr__(self, "pattern", re.compile("".join(names)))

    @property
    def key(self) -> str:
        """The route key, such as `POST /v1`."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()


def gateway_error(status: HTTPStatus) -> Response:
    """One of API Gateway's own error responses."""
    body = json.dumps({"message": _ERROR_TEXTS[status]}, separators=(",", ":")).encode()
    return Response(status, body, [("content-type", "application/json")])


class Gateway:
    """A WSGI application. `routes` may be set after the server has started; until then every response is a 404."""

    def __init__(
        self, routes: Sequence[Route] = (), *, log: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self.routes = routes
        self._log = log
        self._clock = clock

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        began = self._clock()
        request_id = str(uuid.uuid4())
        route, parameters = self._match(environ)
        response = self._respond(environ, route, parameters, request_id, began)
        line = {
            "requestId": request_id,
            "routeKey": route.key if route else None,
            "method": environ["REQUEST_METHOD"],
            "path": _path(environ),
            "status": response.status,
            "milliseconds": round((self._clock() - began) * 1000),
        }
        self._log(json.dumps(line))
        headers = [*response.headers, ("content-length", str(len(response.body))), ("apigw-requestid", request_id)]
        start_response(f"{response.status} {_phrase(response.status)}", headers)
        return [response.body]

    def _match(self, environ: "WSGIEnvironment") -> tuple[Route | None, dict[str, str]]:
        path = _path(environ)
        for route in self.routes:
            match = route.pattern.fullmatch(path)
            if match and route.method == environ["REQUEST_METHOD"]:
                return route, match.groupdict()
        return None, {}

    def _respond(
        self,
        environ: "WSGIEnvironment",
        route: Route | None,
        parameters: dict[str, str],
        request_id: str,
        now: float,
    ) -> Response:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > BODY_LIMIT:
            return gateway_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if route is None:
            return gateway_error(HTTPStatus.NOT_FOUND)
        event = build_event(environ, environ["wsgi.input"].read(length), route, parameters, request_id, now)
        if len(json.dumps(event)) > PAYLOAD_LIMIT:
            return gateway_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return read_outcome(route.function.invoke(event, timeout=INTEGRATION_TIMEOUT))


def build_event(
    environ: "WSGIEnvironment",
    body: bytes,
    route: Route,
    parameters: Mapping[str, str],
    request_id: str,
    now: float,
) -> dict[str, Any]:
    """The payload 2.0 event of a request, without the empty fields that API Gateway leaves out."""
    headers = _headers(environ)
    headers.setdefault("x-amzn-trace-id", f"Root=1-{int(now):08x}-{request_id.replace('-', '')[:24]}")
    cookies = [cookie.strip() for cookie in headers.pop("cookie", "").split(";") if cookie.strip()]
    query: dict[str, str] = {}
    for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    domain = headers.get("host", "").partition(":")[0]
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": _path(environ),
        "rawQueryString": environ.get("QUERY_STRING", ""),
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": route.api_id,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": environ["REQUEST_METHOD"],
                "path": _path(environ),
                "protocol": environ["SERVER_PROTOCOL"],
                "sourceIp": environ.get("REMOTE_ADDR", ""),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": route.key,
            "stage": STAGE,
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    optional = {"cookies": cookies, "queryStringParameters": query, "pathParameters": dict(parameters)}
    event.update({name: value for name, value in optional.items() if value})
    if body:
        event["body"], event["isBase64Encoded"] = _encode_body(body, headers)
    return event


def _encode_body(body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    if _TEXT_TYPES.match(headers.get("content-type", "").lower()) and "content-encoding" not in headers:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def read_outcome(outcome: Outcome) -> Response:
    """The HTTP response that API Gateway makes of an invocation's outcome."""
    if outcome.kind == "unanswered":
        return gateway_error(HTTPStatus.SERVICE_UNAVAILABLE)
    if outcome.kind != "ok":
        return gateway_error(HTTPStatus.INTERNAL_SERVER_ERROR)
    try:
        return _read_result(outcome.payload)
    except (TypeError, ValueError, AttributeError, binascii.Error):
        return gateway_error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _read_result(result: Any) -> Response:
    if not isinstance(result, dict) or "statusCode" not in result:
        # Inferred: a result without a status is the body of a 200.
        text = result if isinstance(result, str) else json.dumps(result)
        return Response(200, text.encode(), [("content-type", "application/json")])
    status = int(result["statusCode"])
    if not 200 <= status <= 599:
        raise ValueError(f"status {status}")
    body = result.get("body") or ""
    raw = base64.b64decode(body, validate=True) if result.get("isBase64Encoded") else str(body).encode()
    headers = {str(name).lower(): _header_text(value) for name, value in (result.get("headers") or {}).items()}
    headers.setdefault("content-type", "text/plain;charset=UTF-8")
    kept = [(name, value) for name, value in headers.items() if name not in _HOP_BY_HOP]
    return Response(status, raw, kept + [("set-cookie", str(cookie)) for cookie in result.get("cookies") or []])


def _header_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _headers(environ: "WSGIEnvironment") -> dict[str, str]:
    headers = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    headers.pop("connection", None)
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    headers["x-forwarded-for"] = environ.get("REMOTE_ADDR", "")
    headers["x-forwarded-port"] = environ["SERVER_PORT"]
    headers["x-forwarded-proto"] = environ["wsgi.url_scheme"]
    return headers


def _path(environ: "WSGIEnvironment") -> str:
    # WSGI carries the decoded bytes as Latin-1.
    path: str = environ["PATH_INFO"]
    return path.encode("latin-1").decode("utf-8", errors="replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

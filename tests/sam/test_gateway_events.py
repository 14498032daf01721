"""The events that a function receives from the local gateway and from `sam local start-api`, field by field.

These are two independent imitations of API Gateway. Where they differ, AWS's documentation decides. Accepted
differences are listed here with their reasons; any other one fails.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from rushes_local.api_gateway import Gateway, Route
from rushes_local.lambda_runtime import Outcome
from rushes_local.sam import MACHINE, SamServer, remove_containers
from rushes_local.servers import Server

pytestmark = [pytest.mark.sam, pytest.mark.timeout(300)]

ROUTES = [("POST", "/v1"), ("GET", "/tasks/{taskUUID}"), ("POST", "/webhooks/runware/{caller}/{taskUUID}/{clip}")]
HANDLER = """
import json

def handler(event, context):
    if event["rawPath"] == "/tasks/raise":
        raise ValueError("on purpose")
    return {"statusCode": 200, "body": json.dumps(event)}
"""


@dataclass(frozen=True)
class HttpRequest:
    """A request with its exact bytes."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def send(self, port: int) -> tuple[int, Any]:
        """The status, and the parsed body, which is the event if the function was reached."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.putrequest(self.method, self.target, skip_accept_encoding=True)
            for name, value in self.headers:
                connection.putheader(name, value)
            if self.body is not None:
                connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


JSON = ("Content-Type", "application/json")
OCTETS = ("Content-Type", "application/octet-stream")
SAME = {
    "GET": HttpRequest("GET", "/tasks/abc"),
    "query string": HttpRequest("GET", "/tasks/abc?one=1&empty=&flag"),
    "repeated keys": HttpRequest("GET", "/tasks/abc?tag=1&other=x&tag=2&tag="),
    "encoded query string": HttpRequest("GET", "/tasks/abc?token=a%2Fb%3D%26&plus=a+b%2B&caf%C3%A9=%E2%98%83"),
    "encoded path": HttpRequest("GET", "/tasks/a%20b%2Bc%C3%A9%25"),
    "several parameters": HttpRequest("POST", "/webhooks/runware/alice/6f3c/0?token=x.y", (JSON,), b"{}"),
    "POST": HttpRequest("POST", "/v1", (JSON,), '[{"positivePrompt": "caf\u00e9"}]'.encode()),
    "POST of nothing": HttpRequest("POST", "/v1", (JSON,), b""),
    "odd case": HttpRequest("GET", "/tasks/abc", (("X-oDd-CASE", "Value"), ("AUTHORIZATION", "Bearer x"))),
    "cookies": HttpRequest("GET", "/tasks/abc", (("Cookie", "one=1; two=2"),)),
}


class Echo:
    """The local gateway's function, which behaves as HANDLER."""

    def invoke(self, event: Mapping[str, Any], *, timeout: float | None = None) -> Outcome:
        if event["rawPath"] == "/tasks/raise":
            return Outcome("error", {"errorMessage": "on purpose", "errorType": "ValueError"})
        return Outcome("ok", {"statusCode": 200, "body": json.dumps(event)})


@pytest.fixture(scope="module")
def gateway_port() -> Iterator[int]:
    """The port of the local gateway."""
    routes = [Route(method, path, Echo()) for method, path in ROUTES]
    with Server(Gateway(routes, log=lambda line: None), name="echo") as server:
        yield server.port


@pytest.fixture(scope="module")
def sam_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of `sam local start-api` with the same routes."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / "code").mkdir()
    (folder / "code" / "app.py").write_text(HANDLER)
    api = {"ApiId": {"Ref": "Api"}}
    function = {
        "CodeUri": "code",
        "Handler": "app.handler",
        "Runtime": "python3.13",
        "Architectures": [MACHINE],
        "Events": {
            f"Route{number}": {"Type": "HttpApi", "Properties": {**api, "Method": method, "Path": path}}
            for number, (method, path) in enumerate(ROUTES)
        },
    }
    template = {
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {
            "Api": {"Type": "AWS::Serverless::HttpApi"},
            "Echo": {"Type": "AWS::Serverless::Function", "Properties": function},
        },
    }
    file = folder / "template.json"
    file.write_text(json.dumps(template))
    server = SamServer("start-api")
    try:
        server.start(file, ["--no-watch", "--warm-containers", "EAGER"], log=lambda line: None, environment={})
        server.wait()
        yield server.port
    finally:
        server.stop()
        remove_containers(folder)


def common(event: dict[str, Any]) -> dict[str, Any]:
    """The comparable part of an event: without values that always differ, and with start-api's errors corrected.

    Each correction follows a statement of the documentation or its example event.
    """
    corrected = {name: value for name, value in event.items() if value not in (None, "", [], {})}  # left out when empty
    corrected["rawQueryString"] = event["rawQueryString"]  # but this one is never left out
    headers = {name.lower(): value for name, value in event["headers"].items()}  # "Header names are lowercased"
    headers.pop("cookie", None)  # cookies are only in `cookies`
    for name in ("x-forwarded-for", "x-amzn-trace-id"):
        headers.pop(name, None)  # start-api has none
    for name in ("host", "x-forwarded-port"):
        headers[name] = re.sub(r"\d+$", "<port>", headers[name])  # two servers, two ports
    corrected["headers"] = headers
    context = dict(corrected["requestContext"])
    for name in ("domainName", "domainPrefix"):
        del context[name]  # start-api: always localhost
    for name in ("apiId", "requestId", "time", "timeEpoch"):
        del context[name]  # differ per request; start-api's epoch is in seconds and constant
    context["http"] = {name: value for name, value in context["http"].items() if name != "userAgent"}  # always the same
    corrected["requestContext"] = context
    return corrected


@pytest.mark.parametrize("name", SAME)
def test_events_are_equal(name: str, gateway_port: int, sam_port: int) -> None:
    """The function receives the same event from both gateways."""
    request = SAME[name]
    (status, event), (sam_status, sam_event) = request.send(gateway_port), request.send(sam_port)
    assert (status, sam_status) == (200, 200)
    assert common(event) == common(sam_event)


def test_fields_without_comparison_are_correct(gateway_port: int) -> None:
    """The fields that cannot be compared have their documented form."""
    _, event = HttpRequest("GET", "/tasks/abc", (("User-Agent", "someone"),)).send(gateway_port)
    context = event["requestContext"]
    assert context["http"]["userAgent"] == "someone"
    assert context["domainName"] == "127.0.0.1"
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", context["time"])
    assert context["timeEpoch"] > 1_700_000_000_000
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", event["headers"]["x-amzn-trace-id"])
    assert event["headers"]["x-forwarded-for"] == "127.0.0.1"


def test_repeated_headers_are_joined(gateway_port: int, sam_port: int) -> None:
    """Values of a repeated header are joined in their order.

    API Gateway and start-api join with a comma alone. The local server joins with a comma and a space before the
    gateway receives the headers, and a comma sent within a value must not change. Both are equivalent in HTTP.
    """
    request = HttpRequest("GET", "/tasks/abc", (("x-twice", "one"), ("X-Twice", "two")))
    (_, event), (_, sam_event) = request.send(gateway_port), request.send(sam_port)
    assert event["headers"]["x-twice"] == "one, two"
    assert sam_event["headers"]["X-Twice"] == "one,two"


@pytest.mark.parametrize("body", [b"\xff\x00\xfe", b"plain"])
def test_binary_bodies(body: bytes, gateway_port: int, sam_port: int) -> None:
    """The local gateway encodes a body that is not text, as API Gateway does by content type; start-api fails on it."""
    request = HttpRequest("POST", "/v1", (OCTETS,), body)
    (_, event), (sam_status, sam_event) = request.send(gateway_port), request.send(sam_port)
    assert (event["isBase64Encoded"], base64.b64decode(event["body"])) == (True, body)
    if body == b"plain":
        assert (sam_event.pop("isBase64Encoded"), sam_event.pop("body")) == (False, "plain")
        del event["isBase64Encoded"], event["body"]
        assert common(event) == common(sam_event)
    else:
        assert sam_status == 502


@pytest.mark.parametrize(
    ("unknown", "answer", "sam_answer"),
    [
        # start-api always answers as a REST API; an HTTP API answers as the local gateway does.
        (HttpRequest("GET", "/nothing"), (404, "Not Found"), (403, "Missing Authentication Token")),
        (HttpRequest("GET", "/v1"), (404, "Not Found"), (403, "Missing Authentication Token")),
    ],
    ids=["unknown path", "unknown method"],
)
def test_unknown_routes(
    unknown: HttpRequest, answer: tuple[int, str], sam_answer: tuple[int, str], gateway_port: int, sam_port: int
) -> None:
    """A request for an unknown route gets API Gateway's response of an HTTP API."""
    (status, body), (sam_status, sam_body) = unknown.send(gateway_port), unknown.send(sam_port)
    assert (status, body) == (answer[0], {"message": answer[1]})
    assert (sam_status, sam_body) == (sam_answer[0], {"message": sam_answer[1]})


def test_a_function_that_raises(gateway_port: int, sam_port: int) -> None:
    """A failed function is a 500 without details; start-api returns the error as a response instead."""
    request = HttpRequest("GET", "/tasks/raise")
    (status, body), (sam_status, sam_body) = request.send(gateway_port), request.send(sam_port)
    assert (status, body) == (500, {"message": "Internal Server Error"})
    assert (sam_status, sam_body["errorMessage"]) == (200, "on purpose")

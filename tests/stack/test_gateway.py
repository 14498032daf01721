"""The gateway: HTTP requests to payload 2.0 events, and results to HTTP responses."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from rushes_local.api_gateway import BODY_LIMIT, Gateway, Route
from rushes_local.lambda_runtime import PAYLOAD_LIMIT, Kind, Outcome
from rushes_local.servers import Server

NOON = 1_700_000_000.5  # 14 November 2023, 22:13:20


class Recorder:
    """A function that records its events and returns a preset outcome."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.outcome = Outcome("ok", {"statusCode": 200})

    def invoke(self, event: Mapping[str, Any], *, timeout: float | None = None) -> Outcome:
        self.events.append(event)
        return self.outcome


@pytest.fixture
def function() -> Recorder:
    return Recorder()


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def client(function: Recorder, log: list[str]) -> Iterator[httpx.Client]:
    """A client of a gateway on a real socket, with three routes to one function."""
    routes = [
        Route("POST", "/v1", function, "Api"),
        Route("GET", "/tasks/{taskUUID}", function, "Api"),
        Route("POST", "/webhooks/runware/{caller}/{taskUUID}/{clip}", function, "WebhookApi"),
    ]
    gateway = Gateway(routes, log=log.append, clock=lambda: NOON)
    with Server(gateway, name="test", threads=2) as server, httpx.Client(base_url=server.url) as client:
        yield client


def test_whole_event(client: httpx.Client, function: Recorder) -> None:
    """A request's event has exactly the fields of the documented format."""
    response = client.post(
        "/webhooks/runware/ada/6f3c/0?token=a%2Fb&tag=1&tag=2&empty=",
        json={"data": []},
        headers={"User-Agent": "runware", "X-Odd": "Value", "Cookie": "one=1; two=2"},
    )
    (event,) = function.events
    host = client.base_url.host
    request_id = response.headers["apigw-requestid"]
    headers = event["headers"]
    assert headers.pop("accept-encoding")
    assert event == {
        "version": "2.0",
        "routeKey": "POST /webhooks/runware/{caller}/{taskUUID}/{clip}",
        "rawPath": "/webhooks/runware/ada/6f3c/0",
        "rawQueryString": "token=a%2Fb&tag=1&tag=2&empty=",
        "cookies": ["one=1", "two=2"],
        "headers": {
            "accept": "*/*",
            "content-length": "11",
            "content-type": "application/json",
            "host": f"{host}:{client.base_url.port}",
            "user-agent": "runware",
            "x-amzn-trace-id": f"Root=1-6553f100-{request_id.replace('-', '')[:24]}",
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-port": str(client.base_url.port),
            "x-forwarded-proto": "http",
            "x-odd": "Value",
        },
        "queryStringParameters": {"token": "a/b", "tag": "1,2", "empty": ""},
        "pathParameters": {"caller": "ada", "taskUUID": "6f3c", "clip": "0"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "WebhookApi",
            "domainName": host,
            "domainPrefix": "127",
            "http": {
                "method": "POST",
                "path": "/webhooks/runware/ada/6f3c/0",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "runware",
            },
            "requestId": request_id,
            "routeKey": "POST /webhooks/runware/{caller}/{taskUUID}/{clip}",
            "stage": "$default",
            "time": "14/Nov/2023:22:13:20 +0000",
            "timeEpoch": 1_700_000_000_500,
        },
        "body": '{"data":[]}',
        "isBase64Encoded": False,
    }


def test_empty_parts_are_left_out(client: httpx.Client, function: Recorder) -> None:
    """The fields of an empty query, empty cookies, path parameters and body are absent, as in API Gateway."""
    client.post("/v1")
    absent = {"queryStringParameters", "cookies", "pathParameters", "body", "stageVariables"}
    assert not absent & function.events[0].keys()
    assert function.events[0]["rawQueryString"] == ""


def test_path_is_decoded(client: httpx.Client, function: Recorder) -> None:
    """Path and path parameters are decoded, as UTF-8."""
    client.get("/tasks/d%C3%BCne%20x")
    assert function.events[0]["pathParameters"] == {"taskUUID": "düne x"}
    assert function.events[0]["rawPath"] == "/tasks/düne x"


@pytest.mark.parametrize(
    ("content_type", "body", "encoded"),
    [
        ("application/json", "{'ü'}".encode(), False),
        ("application/problem+json; charset=utf-8", b"{}", False),
        ("text/plain", b"x", False),
        ("application/json", b"\xff\xfe", True),
        ("application/octet-stream", b"x", True),
        ("application/x-www-form-urlencoded", b"a=b", True),
        (None, b"x", True),
    ],
)
def test_body_encoding(
    client: httpx.Client, function: Recorder, content_type: str | None, body: bytes, encoded: bool
) -> None:
    """Text in valid UTF-8 is passed unchanged, everything else in base64."""
    client.post("/v1", content=body, headers={"Content-Type": content_type} if content_type else {})
    (event,) = function.events
    assert event["isBase64Encoded"] is encoded
    assert (base64.b64decode(event["body"]) if encoded else event["body"].encode()) == body


def test_compressed_body_is_binary(client: httpx.Client, function: Recorder) -> None:
    """A body with a content encoding is binary, with any content type."""
    client.post("/v1", content=b"{}", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert function.events[0]["isBase64Encoded"] is True


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1"), ("POST", "/v1/"), ("POST", "/"), ("GET", "/tasks/a/b")])
def test_unknown_route(client: httpx.Client, function: Recorder, method: str, path: str) -> None:
    """A request without a matching route is a 404 and invokes no function."""
    response = client.request(method, path)
    assert (response.status_code, response.json()) == (404, {"message": "Not Found"})
    assert function.events == []


@pytest.mark.parametrize(
    ("size", "content_type", "status"),
    [
        (BODY_LIMIT + 1, "text/plain", 413),
        (PAYLOAD_LIMIT, "text/plain", 413),
        (PAYLOAD_LIMIT * 3 // 4, "application/octet-stream", 413),
        (PAYLOAD_LIMIT - 4096, "text/plain", 200),
    ],
)
def test_large_bodies(client: httpx.Client, function: Recorder, size: int, content_type: str, status: int) -> None:
    """A body over API Gateway's 10 MB, or with an event over Lambda's 6 MB, is refused without an invocation."""
    response = client.post("/v1", content=b"x" * size, headers={"Content-Type": content_type})
    assert response.status_code == status
    assert len(function.events) == (status == 200)
    if status == 413:
        assert response.json() == {"message": "Request Entity Too Large"}


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        ({"statusCode": 202, "body": "x"}, 202, "text/plain;charset=UTF-8", b"x"),
        ({"statusCode": "201", "headers": {"Content-Type": "a/b"}, "body": "ü"}, 201, "a/b", "ü".encode()),
        ({"statusCode": 200, "isBase64Encoded": True, "body": "/wA="}, 200, "text/plain;charset=UTF-8", b"\xff\x00"),
        ({"statusCode": 204, "headers": None, "cookies": None, "body": None}, 204, "text/plain;charset=UTF-8", b""),
        ({"tasks": 1}, 200, "application/json", b'{"tasks": 1}'),
        ("hello", 200, "application/json", b"hello"),
        (None, 200, "application/json", b"null"),
    ],
)
def test_results(
    client: httpx.Client, function: Recorder, result: object, status: int, content_type: str, body: bytes
) -> None:
    """A result becomes a response; a result without a status is the body of a 200."""
    function.outcome = Outcome("ok", result)
    response = client.post("/v1")
    assert (response.status_code, response.headers["content-type"], response.content) == (status, content_type, body)


def test_response_headers_and_cookies(client: httpx.Client, function: Recorder) -> None:
    """Headers are passed on as text, each cookie is a separate header, and the length is the body's."""
    function.outcome = Outcome(
        "ok",
        {
            "statusCode": 200,
            "headers": {"X-Number": 5, "X-Flag": True, "Content-Length": "99", "Connection": "close"},
            "cookies": ["a=1", "b=2"],
            "body": "four",
        },
    )
    response = client.post("/v1")
    assert (response.headers["x-number"], response.headers["x-flag"]) == ("5", "true")
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert response.headers["content-length"] == "4"


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "teapot"},
        {"statusCode": 7},
        {"statusCode": 200, "isBase64Encoded": True, "body": "%"},
        {"statusCode": 200, "headers": ["x"]},
    ],
)
def test_malformed_results(client: httpx.Client, function: Recorder, result: object) -> None:
    """A result in another format is an internal error."""
    function.outcome = Outcome("ok", result)
    response = client.post("/v1")
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


@pytest.mark.parametrize(("kind", "status"), [("error", 500), ("crashed", 500), ("timeout", 500), ("unanswered", 503)])
def test_failures(client: httpx.Client, function: Recorder, kind: Kind, status: int) -> None:
    """The response after a function's failure does not contain the reason."""
    function.outcome = Outcome(kind, {"errorMessage": "a secret"})
    response = client.post("/v1")
    assert response.status_code == status
    assert "secret" not in response.text


def test_access_log_has_no_query(client: httpx.Client, log: list[str]) -> None:
    """The access log has route, path and status, and never the query, which contains the webhook's token."""
    client.post("/webhooks/runware/ada/6f3c/0?token=unmistakable")
    client.get("/nowhere?token=unmistakable")
    assert [json.loads(line)["status"] for line in log] == [200, 404]
    assert json.loads(log[0])["path"] == "/webhooks/runware/ada/6f3c/0"
    assert "unmistakable" not in "".join(log)


def test_server_stops(function: Recorder) -> None:
    """After `stop` the server no longer listens, even with an open connection."""
    server = Server(Gateway([Route("POST", "/v1", function)], log=[].append), name="test")
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/v1").status_code == 200
        server.stop()
        with pytest.raises(httpx.TransportError):
            client.post("/v1")


def test_server_stops_after_traffic(function: Recorder) -> None:
    """A stop right after a response, while the server still closes connections, is always clean."""
    for _ in range(40):
        with Server(Gateway([Route("POST", "/v1", function)], log=[].append), name="test", threads=2) as server:
            assert httpx.post(f"{server.url}/v1", json={}).status_code == 200

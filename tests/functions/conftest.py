"""Handlers in this process, for tests that change the environment or the time."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from rushes_local.stack import Stack

Invoke = Callable[[str, Mapping[str, str], str], tuple[int, Any]]
"""Takes a route key or a path with query, headers and body; returns the status and the body's JSON."""

InProcess = Callable[..., Any]


@pytest.fixture
def in_process(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """Wires a function's handler in this process, with the deployed one's environment except for the changes."""
    wired: list[Any] = []

    def wire(name: str, clock: Callable[[], int] | None = None, **changes: str) -> Callable[..., tuple[int, Any]]:
        app = importlib.import_module(f"functions.{name}.app")
        region = {"AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_METRICS_DISABLED": "true"}
        for variable, value in {**stack.functions[name].function.environment, **region, **changes}.items():
            monkeypatch.setenv(variable, value)
        if clock:
            monkeypatch.setattr(sys.modules[app.wiring.__module__], "clock", clock)
        app.wiring.cache_clear()
        wired.append(app)

        def invoke(
            route: str,
            headers: Mapping[str, str],
            body: str = "",
            path: Mapping[str, str] | None = None,
            token: str = "",
        ) -> tuple[int, Any]:
            event = {
                "version": "2.0",
                "routeKey": route,
                "rawPath": route.partition(" ")[2],
                "headers": {key.lower(): value for key, value in headers.items()},
                "pathParameters": dict(path or {}),
                "queryStringParameters": {"token": token},
                "requestContext": {
                    "http": {"method": route.partition(" ")[0], "path": route.partition(" ")[2]},
                    "stage": "$default",
                },
                "body": body,
                "isBase64Encoded": False,
            }
            context = SimpleNamespace(aws_request_id="in-process", get_remaining_time_in_millis=lambda: 25_000)
            answer = app.handler(event, context)
            return answer["statusCode"], json.loads(answer["body"])

        return invoke

    yield wire
    for app in wired:
        app.wiring.cache_clear()

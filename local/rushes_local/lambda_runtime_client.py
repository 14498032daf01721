"""The main module of a function's process: runs the handler, and ends with the parent process.

Hides the choice of the Lambda Runtime API client: AWS's `awslambdaric` on platforms for which it has a wheel, a small
client of the same four calls elsewhere (macOS). Nothing here runs in Lambda.

Run as `python -m rushes_local.lambda_runtime_client [--pure] app.handler`, with Lambda's environment variables.
"""

import http.client
import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

Handler = Callable[[Any, "Context"], Any]


def main(arguments: list[str]) -> None:
    """Run the handler, the last argument, until the parent ends; `--pure` skips awslambdaric."""
    die_with_parent()
    # As in Lambda, whose layer has no click: with it, httpx also imports its command line and rich.
    sys.modules["click"] = None  # type: ignore[assignment]
    handler_name = arguments[-1]
    if "--pure" not in arguments:
        try:
            from awslambdaric.__main__ import main as run_awslambdaric
        except ImportError:
            pass
        else:
            run_awslambdaric([sys.argv[0], handler_name])
            return
    run(handler_name, os.environ["AWS_LAMBDA_RUNTIME_API"])


def die_with_parent() -> None:
    """End this process when its standard input closes, which happens at every end of the parent.

    A pipe, because it works on every platform and outlives the parent's threads: Linux's PR_SET_PDEATHSIG fires when
    the *thread* that started the child ends. SIGKILL, because a handler may catch every other signal.
    """

    def wait_and_die() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_die, name="parent-watch", daemon=True).start()


class Context:
    """Lambda's context object, with the names of AWS's documentation."""

    client_context = None
    identity = None

    def __init__(self, request_id: str, deadline_ms: int, arn: str) -> None:
        self.aws_request_id = request_id
        self.invoked_function_arn = arn
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's timeout, never negative."""
        return max(0, self._deadline_ms - int(time.time() * 1000))


class RuntimeApi:
    """The four calls of the Runtime API over one persistent connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)

    def next(self) -> tuple[http.client.HTTPMessage, bytes]:
        """Wait for the next event; returns its headers and body."""
        return self._call("GET", "invocation/next", None, HTTPStatus.OK)

    def respond(self, request_id: str, body: bytes) -> None:
        """Report a handler's result."""
        self._call("POST", f"invocation/{request_id}/response", body, HTTPStatus.ACCEPTED)

    def fail(self, request_id: str, error: BaseException) -> None:
        """Report a handler's exception."""
        self._call("POST", f"invocation/{request_id}/error", describe(error), HTTPStatus.ACCEPTED)

    def fail_init(self, error: BaseException) -> None:
        """Report an exception of the handler's import."""
        self._call("POST", "init/error", describe(error), HTTPStatus.ACCEPTED)

    def _call(
        self, method: str, path: str, body: bytes | None, expected: HTTPStatus
    ) -> tuple[http.client.HTTPMessage, bytes]:
        self._connection.request(method, f"/2018-06-01/runtime/{path}", body)
        response = self._connection.getresponse()
        answer = response.read()
        # The API refuses a result above Lambda's limit and has reported it to the invoker; the next one may be smaller.
        if response.status not in (expected, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            raise ConnectionError(f"Runtime API answered {response.status} to {path}")
        return response.headers, answer


def describe(error: BaseException) -> bytes:
    """The error as Lambda reports it: `errorMessage`, `errorType`, `stackTrace`."""
    report = {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(error.__traceback__),
    }
    return json.dumps(report).encode()


def run(handler_name: str, address: str) -> None:
    """Import `module.function` and feed it events until the connection breaks."""
    # Output to a pipe is buffered by the block otherwise, and lost when the function is killed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    api = RuntimeApi(address)
    try:
        handler = load(handler_name)
    except BaseException as error:
        api.fail_init(error)
        raise SystemExit(1) from error
    while True:
        headers, body = api.next()
        answer_event(api, handler, headers, body)


def load(handler_name: str) -> Handler:
    """The handler `module.function`, from the module in the working directory."""
    module_name, function_name = handler_name.rsplit(".", 1)
    handler: Handler = getattr(importlib.import_module(module_name), function_name)
    return handler


def answer_event(api: RuntimeApi, handler: Handler, headers: http.client.HTTPMessage, body: bytes) -> None:
    """Run the handler on one event and report its result or exception."""
    request_id = headers["Lambda-Runtime-Aws-Request-Id"]
    context = Context(
        request_id, int(headers["Lambda-Runtime-Deadline-Ms"]), headers["Lambda-Runtime-Invoked-Function-Arn"]
    )
    os.environ["_X_AMZN_TRACE_ID"] = headers["Lambda-Runtime-Trace-Id"]
    try:
        result = json.dumps(handler(json.loads(body), context)).encode()
    except Exception as error:
        traceback.print_exc()
        api.fail(request_id, error)
    else:
        api.respond(request_id, result)


if __name__ == "__main__":
    main(sys.argv[1:])

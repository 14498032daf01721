"""Processes restored from one SnapStart snapshot share no randomness and no credentials.

A snapshot is imitated by a process that has loaded the function and is forked twice. Credentials come from a URL, as
under SnapStart, so that credentials from before the snapshot are recognized as old.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rushes_local.template import DeclaredFunction
from scripts.cold_start.cases import environment, functions

BEHIND_HTTP = [each for each in functions() if each.routes]

PROGRAM = """
import gc, json, os, random, sys, uuid
sys.path.insert(0, sys.argv[1])
import app
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from rushes.adapters import aws
from rushes.errors import BusyError
from rushes.adapters.dynamodb.table import DynamoDbTable

made = sorted(type(each).__name__ for each in gc.get_objects() if isinstance(each, BaseClient))

class Busy:
    def get_item(self, **_):
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, "GetItem")

state = random.getstate()

def restored():
    random.setstate(state)  # a fork reseeds the generator, a snapshot does not
    pauses = []
    try:
        DynamoDbTable(Busy(), "table", sleep=pauses.append).caller("hash")
    except BusyError:
        pass
    app.wiring()
    return {
        "pauses": pauses,
        "token": str(uuid.uuid4()),
        "credentials": aws.aws_client("s3", aws.aws_config())._request_signer._credentials.access_key,
    }

results = []
for _ in range(2):
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps(restored()).encode())
        os._exit(0)
    os.close(writing)
    results.append(json.loads(os.read(reading, 65536)))
    os.wait()
print(json.dumps({"made": made, "restored": results}))
"""


@pytest.fixture
def credentials_url() -> Iterator[str]:
    """A URL that returns other credentials at each call."""
    calls = iter(range(1, 100))

    class Giving(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            key = {"AccessKeyId": f"ASIA{next(calls)}", "SecretAccessKey": "secret", "Token": "session"}
            body = json.dumps({**key, "Expiration": "2099-01-01T00:00:00Z"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Giving)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/credentials"
    server.shutdown()
    server.server_close()


def forked(function: DeclaredFunction, credentials_url: str) -> dict[str, Any]:
    variables = {
        name: value
        for name, value in environment(function, "http://127.0.0.1:9/v1").items()
        if name not in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    }
    variables |= {
        "PATH": os.environ["PATH"],
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials_url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
    }
    command = [sys.executable, "-c", PROGRAM, str(function.folder)]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stderr
    output: dict[str, Any] = json.loads(result.stdout)
    return output


@pytest.mark.parametrize("function", BEHIND_HTTP, ids=lambda function: function.name)
def test_restored_processes_share_no_state(function: DeclaredFunction, credentials_url: str) -> None:
    """Loading a function makes no client; each restored process has its own credentials and its own backoff times."""
    output = forked(function, credentials_url)
    assert output["made"] == []
    one, other = output["restored"]
    assert len(one["pauses"]) > 3
    assert one["pauses"] != other["pauses"]
    assert one["token"] != other["token"]
    assert {one["credentials"], other["credentials"]} == {"ASIA1", "ASIA2"}


def test_the_functions_behind_http_are_tested() -> None:
    """The functions that may have SnapStart are the three behind HTTP."""
    assert {each.name for each in BEHIND_HTTP} == {"submit", "tasks", "webhook"}

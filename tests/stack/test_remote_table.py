"""`make test-table` against the local AWS: the table's life, the tests on it, and the requests to its server."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from botocore.credentials import Credentials

from rushes_local.aws.application import Access, Aws
from rushes_local.aws.behavior import AwsBehavior
from rushes_local.aws.remote_table import RemoteTable
from rushes_local.lambda_runtime import ACCOUNT_ID
from rushes_local.servers import Server
from tests.conftest import ROOT
from tests.remote_table.__main__ import PREFIX

# The server is this process's moto.
pytestmark = [pytest.mark.usefixtures("no_shared_stack"), pytest.mark.timeout(240)]

PATIENCE = 200  # seconds for one run
SOME = "test_stream or test_a_changed_limit or test_costs_in_pages or test_a_stored_clip_has_event_and_manifest"
NONE = "no_test_has_this_name"


class TableHost:
    """The local AWS, as a server that runs of `make test-table` use, and the requests that reached it."""

    def __init__(self) -> None:
        self.aws = Aws()
        self.aws.load()
        self.aws.observer = self._observe
        self.server = Server(self.aws, name="table-host")
        self.requests: list[Access] = []
        self._changed = threading.Condition()

    def _observe(self, access: Access) -> None:
        with self._changed:
            self.requests.append(access)
            self._changed.notify_all()

    def wait_for(self, operation: str) -> None:
        """Waits until a request has been answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: operation in self.operations(), PATIENCE)

    def operations(self) -> list[str]:
        return [access.operation for access in self.requests]

    def created(self) -> dict[str, Any]:
        """The only CreateTable request."""
        (created,) = [access.request for access in self.requests if access.operation == "CreateTable"]
        request: dict[str, Any] = json.loads(created)
        return request

    def tables(self) -> list[str]:
        from moto.dynamodb.models import dynamodb_backends

        return [
            name for regions in dynamodb_backends.values() for backend in regions.values() for name in backend.tables
        ]

    def start(self, *arguments: str, account: bool = False) -> subprocess.Popen[str]:
        """Starts a run. With `account`, the server is that of the default credentials."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        if account:
            credentials = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "secret"}
            environment |= {"AWS_ENDPOINT_URL": self.server.url, "AWS_DEFAULT_REGION": "eu-central-1", **credentials}
        command = [sys.executable, "-m", "tests.remote_table", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def run(self, *arguments: str, account: bool = False) -> tuple[int, str]:
        """The exit status and output of a run."""
        with self.start(*arguments, account=account) as process:
            output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output


@pytest.fixture
def host() -> Iterator[TableHost]:
    host = TableHost()
    yield host
    host.server.stop()


def test_some_tests_on_a_table_of_another_server(host: TableHost) -> None:
    """Tests of store, stream and functions pass; their table is the template's, and is removed."""
    status, output = host.run("--endpoint", host.server.url, "--", "-q", "-k", SOME)
    assert status == 0, output
    assert " passed" in output
    assert "left out, because they need moto itself: " in output
    name = host.created()["TableName"]
    assert f"creates the table {name} at {host.server.url}, and removes it at the end" in output
    assert f"removed the table {name} at {host.server.url}" in output
    assert name.startswith(PREFIX)
    assert host.created()["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert [index["IndexName"] for index in host.created()["GlobalSecondaryIndexes"]] == ["due", "recent", "costs"]
    assert [key["AttributeName"] for key in host.created()["KeySchema"]] == ["pk", "sk"]
    assert host.tables() == []
    assert {"TransactWriteItems", "UpdateItem", "Query", "GetRecords", "BatchWriteItem"} <= set(host.operations())
    tables = {json.loads(access.request).get("TableName", name) for access in host.requests}
    assert tables == {name}
    assert {access.service for access in host.requests} == {"dynamodb"}


@pytest.mark.batch
@pytest.mark.timeout(1800)
def test_all_tests_on_a_table_of_another_server(host: TableHost) -> None:
    """Every test of the table and the functions passes on the local AWS as a server, and none is skipped."""
    with host.start("--endpoint", host.server.url, "--", "-q") as process:
        output, _ = process.communicate(timeout=1700)
    assert process.returncode == 0, output
    assert " skipped" not in output
    assert host.tables() == []


@pytest.mark.batch
def test_a_run_without_a_test_fails(host: TableHost) -> None:
    """A run passes on pytest's exit status, and removes its table."""
    status, output = host.run("--endpoint", host.server.url, "--", "-q", "-k", NONE)
    assert status == 5, output
    assert host.tables() == []


@pytest.mark.parametrize(
    ("after", "number"), [("CreateTable", signal.SIGTERM), ("TransactWriteItems", signal.SIGINT)], ids=str
)
def test_an_interrupted_run_removes_its_table(host: TableHost, after: str, number: signal.Signals) -> None:
    """Neither Ctrl-C in the middle of the tests nor an early SIGTERM leaves a table behind."""
    with host.start("--endpoint", host.server.url) as process:
        host.wait_for(after)
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "removed the table" in output
    assert host.tables() == []


def test_an_account_is_named_first(host: TableHost) -> None:
    """Without the account's number, or with another one, the run names account and region, and creates nothing."""
    for arguments in ((), ("--account", "210987654321")):
        status, output = host.run("--endpoint", "aws", *arguments, account=True)
        assert status == 2, output
        assert f"in account {ACCOUNT_ID}, region eu-central-1" in output
        assert f"ENDPOINT=aws ACCOUNT={ACCOUNT_ID}" in output
    assert "CreateTable" not in host.operations()


def test_a_table_in_an_account(host: TableHost) -> None:
    """With the account's number, the tests run on a table of the default credentials in their region."""
    arguments = (
        "--endpoint",
        "aws",
        "--account",
        ACCOUNT_ID,
        "--",
        "-q",
        "-k",
        "test_saves_have_records_in_their_order",
    )
    status, output = host.run(*arguments, account=True)
    assert status == 0, output
    assert "1 passed" in output
    assert f"removed the table {host.created()['TableName']} in account {ACCOUNT_ID}, region eu-central-1" in output
    assert host.tables() == []


@pytest.mark.parametrize("endpoint", ["", "ftp://x", "localhost:8000", "https://dynamodb.us-east-1.amazonaws.com"])
def test_a_run_needs_the_choice_of_an_endpoint(host: TableHost, endpoint: str) -> None:
    """No endpoint, no URL, and AWS without its account are refused."""
    status, output = host.run("--endpoint", endpoint)
    assert status == 2, output
    assert "ENDPOINT=aws" in output or "no URL" in output


def remote_table(answer: httpx.Response | Exception, **options: Any) -> tuple[RemoteTable, list[httpx.Request]]:
    """A remote table whose server gives this answer, and the requests that it received."""
    received: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        received.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    table = RemoteTable(
        "table",
        dynamodb="https://table.example",
        streams="https://streams.example",
        region="eu-central-1",
        credentials=Credentials("theirs", "secret", "session"),
        http=httpx.Client(transport=httpx.MockTransport(respond)),
        **options,
    )
    return table, received


def call(table: RemoteTable, target: str, **request: Any) -> tuple[int, bytes]:
    """Status and body of the response to a request of a function."""
    aws = Aws(remote_table=table)
    aws._application = lambda *_: pytest.fail("reached moto")
    transport = httpx.WSGITransport(aws)  # type: ignore[arg-type]
    headers = {
        "X-Amz-Target": target,
        "Authorization": "AWS4-HMAC-SHA256 Credential=ours/x/us-east-1/dynamodb/aws4_request",
    }
    with httpx.Client(transport=transport, base_url="http://aws.test") as client:
        response = client.post("/", json=request, headers=headers)
    return response.status_code, response.content


def test_requests_are_signed_for_the_tables_server() -> None:
    """A function's request gets the server's credentials and region; body, answer and status are passed on."""
    refusal = {"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "Item": {}}
    table, received = remote_table(httpx.Response(400, json=refusal))
    status, body = call(table, "DynamoDB_20120810.UpdateItem", TableName="table")
    (request,) = received
    assert (status, json.loads(body)) == (400, refusal)
    assert json.loads(request.content) == {"TableName": "table"}
    assert request.url.host == "table.example"
    assert "Credential=theirs/" in request.headers["Authorization"]
    assert "/eu-central-1/dynamodb/aws4_request" in request.headers["Authorization"]
    assert request.headers["X-Amz-Security-Token"] == "session"
    call(table, "DynamoDBStreams_20120810.GetRecords", ShardIterator="i")
    assert received[-1].url.host == "streams.example"


def test_a_behavior_of_moto_is_refused() -> None:
    """A behavior that a remote table would ignore is an error, so that no test passes without it."""
    table, _ = remote_table(httpx.Response(200, json={}))
    with pytest.raises(ValueError, match="remote table"):
        Aws(remote_table=table).behave(AwsBehavior(lag_seconds=1))


def test_an_unreachable_server_is_an_error_of_dynamodb() -> None:
    """A function's client gets an answer that it repeats, with the reason."""
    table, _ = remote_table(httpx.ConnectError("refused"))
    status, body = call(table, "DynamoDB_20120810.GetItem")
    assert status == 503
    assert b"ServiceUnavailable" in body


@pytest.mark.parametrize(
    ("before", "read", "waits"),
    [
        ("UpdateItem", {"IndexName": "due"}, [0.75]),
        ("UpdateItem", {}, []),
        ("GetItem", {"IndexName": "due"}, [0.0]),
    ],
    ids=["index after a write", "table after a write", "index without a write"],
)
def test_an_index_is_read_when_it_has_caught_up(before: str, read: dict[str, str], waits: list[float]) -> None:
    """A read of an index waits for the rest of the lag after the last write; other reads do not wait."""
    times, slept = iter([10.0, 10.25]), list[float]()
    table, _ = remote_table(
        httpx.Response(200, json={}), index_lag=1.0, clock=lambda: next(times, 10.25), sleep=slept.append
    )
    call(table, f"DynamoDB_20120810.{before}")
    call(table, "DynamoDB_20120810.Query", **read)
    assert slept == waits

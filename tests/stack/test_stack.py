"""The stack put together from template.yaml, with toys for functions."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rushes.domain.caller import Caller, hash_key
from rushes_local.stack import EMULATOR_KEY, Stack, StackError
from tests.stack.conftest import toy_root

ROOT = Path(__file__).parents[2]

# A stack of its own cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack of toys, ten times as fast as the template says."""
    with Stack(toy_root(ROOT, tmp_path_factory.mktemp("root")), time_scale=0.1, emulator_options={"small": True}) as up:
        yield up


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        yield client


def environment(stack: Stack, function: str) -> dict[str, str]:
    seen: dict[str, str] = stack.functions[function].invoke({"do": "environment"}).payload
    return seen


def test_ready_soon(stack: Stack) -> None:
    """The stack is ready in under five seconds."""
    assert stack.started_in["functions"] < 5


def test_variables_are_resolved(stack: Stack) -> None:
    """A function's variables are the template's, with the names of what was really made here."""
    submit, webhook, reconcile = (environment(stack, name) for name in ("submit", "webhook", "reconcile"))
    assert submit["TABLE_NAME"] == webhook["TABLE_NAME"] == stack.table_name
    assert submit["BUCKET_NAME"] == stack.bucket_name
    assert submit["AWS_ENDPOINT_URL"] == stack.aws_url
    assert submit["RUNWARE_BASE_URL"] == f"{stack.emulator_url}/v1"
    assert submit["WEBHOOK_BASE_URL"] == stack.url
    assert reconcile["WHEN_AMBIGUOUS"] == "resend"
    assert reconcile["RESCUE_ORIGINS"] == stack.emulator_url
    assert "RUNWARE_SECRET" not in webhook


def test_every_interval_is_scaled(stack: Stack) -> None:
    """All variables in seconds and the functions' timeouts shrink by the same factor."""
    seen = environment(stack, "submit")
    assert (seen["HTTP_TIMEOUT_SECONDS"], seen["LEASE_SECONDS"], seen["DEADLINE_SECONDS"]) == ("1", "6", "720")
    for name in ("submit", "webhook", "reconcile"):
        timeout = stack.functions[name].function.timeout_seconds
        assert float(environment(stack, name)["FUNCTION_TIMEOUT_SECONDS"]) == timeout


def test_secrets(stack: Stack) -> None:
    """The Runware secret opens the emulator, and the webhook secret is generated as the template says."""
    client, seen = stack.client("secretsmanager"), environment(stack, "submit")
    assert client.get_secret_value(SecretId=seen["RUNWARE_SECRET"])["SecretString"] == EMULATOR_KEY
    keys = json.loads(client.get_secret_value(SecretId=seen["WEBHOOK_SECRET"])["SecretString"])
    assert keys["previous"] == ""
    assert len(keys["current"]) == 64


def test_storage(stack: Stack) -> None:
    """The table has its indexes and its stream, and the bucket keeps versions."""
    table = stack.client("dynamodb").describe_table(TableName=stack.table_name)["Table"]
    assert {index["IndexName"] for index in table["GlobalSecondaryIndexes"]} == {"due", "recent", "costs"}
    assert table["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert stack.client("s3").get_bucket_versioning(Bucket=stack.bucket_name)["Status"] == "Enabled"


def test_routes(stack: Stack, client: httpx.Client) -> None:
    """The routes of both APIs are served on the one port, each by its own function."""
    submit = client.post("/v1", json={}).json()["pid"]
    webhook = client.post("/webhooks/runware/ada/6f3c/0?token=x", json={}).json()["pid"]
    assert submit in stack.functions["submit"].pids()
    assert webhook in stack.functions["webhook"].pids()
    assert client.get("/v1").status_code == 404


def test_api_key(stack: Stack) -> None:
    """A key made here is known to the table with its caller and limit."""
    key = stack.create_key("ada", limit_usd=12.5)
    assert stack.store.caller(hash_key(key)) == Caller(name="ada", monthly_limit=12_500_000)


def test_a_killed_function_comes_back(stack: Stack, client: httpx.Client) -> None:
    """Killing processes costs at most the requests in them; the stack goes on."""
    assert client.post("/v1", json={"do": "exit"}).status_code == 500
    for pid in stack.functions["submit"].pids():
        os.kill(pid, signal.SIGKILL)
    # A request may still be given to a process that is dead and not yet buried: that is a crash, as on Lambda.
    statuses = [client.post("/v1", json={}).status_code for _ in range(4)]
    assert statuses[-1] == 200
    stack.check()


def test_logs(stack: Stack, client: httpx.Client) -> None:
    """What functions print and the gateway serves is in one file."""
    client.post("/v1", json={"do": "print"})
    # A function's output comes through a pipe, which may be slower than its answer.
    deadline = time.monotonic() + 10
    while "submit\tsecond" not in (lines := stack.log_path.read_text().splitlines()):
        assert time.monotonic() < deadline
    assert any(line.startswith("gateway\t") and '"POST /v1"' in line for line in lines)


def test_one_stack_a_process(stack: Stack, tmp_path: Path) -> None:
    """A second stack in the same process is refused, since it would empty the first one's tables."""
    with pytest.raises(StackError, match="another stack"):
        Stack(tmp_path).__enter__()
    assert stack.client("dynamodb").list_tables()["TableNames"] == [stack.table_name]

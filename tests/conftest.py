"""One real stack for the tests of several folders, a caller for it, and a check of its logs for secrets.

Its table is moto's, or with `make test-table` that of another server.

moto has one state per process, so a stack cannot run beside another one, nor beside a test that clears moto. Such tests
use `no_shared_stack`; the next test that uses `stack` gets a new one.
"""

import json
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import httpx
import pytest
from botocore.loaders import Loader

from rushes.domain.clip import Clip
from rushes_local.aws.remote_table import RemoteTable
from rushes_local.lambda_runtime import ACCOUNT_ID, REGION
from rushes_local.stack import Stack
from tests.remote_table.plugin import REMOTE_TABLE
from tests.secret_patterns import leaks

Json = dict[str, Any]

ROOT = Path(__file__).parents[1]
MAX_BATCH = 25  # items in one BatchWriteItem
PATIENCE = 20.0  # seconds; the limit for background work, of which no test needs a tenth

# A shell makes its background jobs ignore Ctrl-C, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class SharedStack:
    """A stack that starts at its first use. Renders, sweeps, queues and streams run only when a test starts them."""

    def __init__(self, remote_table: RemoteTable | None = None) -> None:
        self._stack: Stack | None = None
        self._remote_table = remote_table

    def up(self) -> Stack:
        if self._stack is None:
            self._stack = Stack(
                ROOT,
                render_seconds=None,
                schedule=False,
                queues=False,
                streams=False,
                emulator_options={"small": True, "retry_delays": (0.05,)},
                parameters={"MonthlyLimitUsd": "1000"},
                remote_table=self._remote_table,
            ).__enter__()
        return self._stack

    def down(self) -> None:
        if self._stack is not None:
            self._stack.stop()
            self._stack = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests of the shared stack first, so that it is started once; the others keep their order."""

    def shares(item: pytest.Item) -> bool:
        return {"shared_stack", "no_shared_stack"} & set(getattr(item, "fixturenames", ())) == {"shared_stack"}

    sharing = {item.path for item in items if shares(item)}
    items.sort(key=lambda item: item.path not in sharing)


@pytest.fixture(scope="session", autouse=True)
def loaded_models() -> Iterator[None]:
    """Shares botocore's loaded models between all sessions; each would find, read and parse them again."""
    original, loaded = botocore.session.create_loader, dict[Any, Any]()

    def create_loader(search_path: str | None = None) -> Loader:
        loader = original(search_path)
        loader._cache = loaded
        return loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", create_loader)
        yield


@pytest.fixture(scope="session", autouse=True)
def logged() -> Iterator[list[str]]:
    """Every line that a stack of this process logs. At the end of the session none may contain a secret."""
    lines: list[str] = []
    original = Stack.log

    def log(stack: Stack, name: str, line: str) -> None:
        lines.append(f"{name}\t{line}")
        original(stack, name, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stack, "log", log)
        yield lines
    assert leaks(lines) == []


@pytest.fixture(scope="session")
def shared_stack(logged: list[str], pytestconfig: pytest.Config) -> Iterator[SharedStack]:
    """The session's stack, which may not be started yet."""
    shared = SharedStack(pytestconfig.stash.get(REMOTE_TABLE, None))
    yield shared
    shared.down()


@pytest.fixture(scope="module")
def no_shared_stack(shared_stack: SharedStack) -> None:
    """Stops the shared stack, for modules with a stack or a moto of their own."""
    shared_stack.down()


@pytest.fixture
def stack(shared_stack: SharedStack) -> Iterator[Stack]:
    """The real functions on moto and a stepped emulator; the table is emptied after each test."""
    stack = shared_stack.up()
    yield stack
    stack.aws.faults.clear()
    stack.emulator.reset()
    empty_table(stack)


def order(**changes: Any) -> Json:
    """A valid task; a parameter given as Ellipsis is left out."""
    task = {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
        **changes,
    }
    return {name: value for name, value in task.items() if value is not ...}


def children(pid: int) -> list[int]:
    """The process IDs of this process's running children."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in (line.split() for line in table.splitlines()) if int(parent) == pid]


@cache
def http() -> httpx.Client:
    """One client for all requests, because making one takes longer than most requests."""
    return httpx.Client(timeout=30, trust_env=False)


@dataclass
class User:
    """A caller with an API key, and access to the service and its state."""

    stack: Stack
    limit_usd: float = 50.0
    name: str = field(default_factory=lambda: f"caller-{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self.key = self.stack.create_key(self.name, self.limit_usd)
        self.headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def post(self, *tasks: Any, **headers: str) -> httpx.Response:
        """`POST /v1` with an array of these tasks."""
        return self.send(json.dumps(tasks).encode(), **headers)

    def send(self, body: bytes, **headers: str) -> httpx.Response:
        """`POST /v1` with these bytes."""
        url = f"{self.stack.url}/v1"
        return http().post(url, content=body, headers={**self.headers, **headers})

    def get(self, path: str, **parameters: str) -> httpx.Response:
        """`GET` of a path with these parameters."""
        return http().get(f"{self.stack.url}{path}", params=parameters, headers=self.headers)

    def poll(self, task_uuid: str) -> httpx.Response:
        """`getResponse` for a task."""
        return self.post({"taskType": "getResponse", "taskUUID": task_uuid})

    def buy(self, **changes: Any) -> Clip:
        """Orders one valid task and returns its first clip."""
        task = order(**changes)
        assert self.post(task).status_code == 200
        return self.clips(task)[0]

    def clips(self, task: Json) -> list[Clip]:
        """The clips of a task, as currently in the table."""
        return self.stack.store.clips(self.name, task["taskUUID"].lower())

    def now(self, clip: Clip) -> Clip:
        """A clip, as currently in the table."""
        found = self.stack.store.clip(clip.caller, clip.task_uuid, clip.index)
        assert found is not None
        return found

    def sent(self, clip: Clip) -> list[Json]:
        """The submissions of a clip that reached Runware."""
        return [task for task in submissions(self.stack) if task["taskUUID"] == clip.clip_uuid]

    def callback(self, clip: Clip) -> str:
        """The webhook URL that Runware received for a clip."""
        url: str = self.sent(clip)[0]["webhookURL"]
        return url

    def counted(self, clip: Clip) -> int:
        """The counted amount of this caller's budget for the clip's month, in micro-dollars."""
        return self.stack.store.budget(self.name, clip.month)[0]


@cache
def client(stack: Stack, service: str) -> Any:
    """A client of the stack, made once, because making one takes longer than most tests."""
    return stack.client(service)


def submissions(stack: Stack) -> list[Json]:
    """Every order that reached Runware, with any outcome."""
    received = stack.emulator.requests()
    return [each.task for each in received if each.task.get("taskType") == "videoInference"]


def whole_table(stack: Stack) -> list[Json]:
    """Every item of the table, sorted by key."""
    pages = client(stack, "dynamodb").get_paginator("scan").paginate(TableName=stack.table_name, ConsistentRead=True)
    items = [item for page in pages for item in page["Items"]]
    return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def empty_table(stack: Stack) -> None:
    """Deletes every item, including API keys; within moto, if possible, because deleting them by API calls takes
    longer than most tests."""
    if stack.remote_table is None:
        from moto.dynamodb.models import dynamodb_backends

        dynamodb_backends[ACCOUNT_ID][REGION].get_table(stack.table_name).items.clear()
        return
    deletions = [{"DeleteRequest": {"Key": {name: item[name] for name in ("pk", "sk")}}} for item in whole_table(stack)]
    while deletions:
        batch, deletions = deletions[:MAX_BATCH], deletions[MAX_BATCH:]
        answer = client(stack, "dynamodb").batch_write_item(RequestItems={stack.table_name: batch})
        deletions += answer.get("UnprocessedItems", {}).get(stack.table_name, [])


def whole_bucket(stack: Stack) -> list[tuple[str, str]]:
    """Key and version of every object version."""
    pages = client(stack, "s3").get_paginator("list_object_versions").paginate(Bucket=stack.bucket_name)
    return sorted((found["Key"], found["VersionId"]) for page in pages for found in page.get("Versions", []))


def is_about(url: str, clip: Clip) -> bool:
    """Returns True if a callback's path names this clip."""
    return urlsplit(url).path == f"/webhooks/runware/{clip.caller}/{clip.task_uuid}/{clip.index}"


@pytest.fixture
def user(stack: Stack) -> User:
    """A new caller with a limit of fifty dollars."""
    return User(stack)

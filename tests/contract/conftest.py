"""The emulated Runware with a receiver for its uploads and webhooks, in this process and without sockets."""

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rushes_local.runware.emulator import Emulator
from rushes_local.stack import Stack
from tests.conftest import SharedStack
from tests.contract.s3_servers import S3Server, local_s3, serve_s3

Json = dict[str, Any]

PATIENCE = 10.0  # seconds to wait for background work; no test needs a tenth of it


@dataclass(frozen=True)
class Arrival:
    """One request that the emulator sent."""

    method: str
    path: str
    content_type: str | None
    content_length: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A WSGI application that records requests and answers with the given statuses, then with 200."""

    statuses: list[int] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    on_call: Callable[[], None] = lambda: None

    def __call__(self, environ: Json, start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        names = ("REQUEST_METHOD", "PATH_INFO", "CONTENT_TYPE", "CONTENT_LENGTH")
        method, path, content_type, length = (environ.get(name) for name in names)
        self.arrivals.append(Arrival(str(method), str(path), content_type, length, body))
        self.on_call()
        status = self.statuses.pop(0) if self.statuses else 200
        start_response(f"{status} Status", [])
        return [b""]

    @property
    def puts(self) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.method == "PUT"]

    @property
    def calls(self) -> list[Any]:
        return [arrival.json for arrival in self.arrivals if arrival.method == "POST"]


class EmulatorService:
    """An emulator, its receiver, and a client for it."""

    def __init__(self, **options: Any) -> None:
        self.receiver = Receiver()
        self.outgoing = httpx.Client(transport=httpx.WSGITransport(self.receiver))
        settings = {"http": self.outgoing, "small": True, "retry_delays": (0.01,), "base_url": "http://runware.test"}
        self.emulator = Emulator(**{**settings, **options})
        self.client = httpx.Client(
            transport=httpx.WSGITransport(self.emulator.wsgi),
            base_url="http://runware.test",
            headers={"Authorization": "Bearer emulator-key"},
        )

    def task(self, **changes: Any) -> Json:
        """A valid task with webhook and upload URLs; a change to `...` removes the parameter."""
        task = {
            "taskType": "videoInference",
            "taskUUID": str(uuid.uuid4()),
            "model": "klingai:5@3",
            "positivePrompt": "A lighthouse at dusk",
            "includeCost": True,
            "webhookURL": "http://receiver.test/hook?token=t",
            "uploadEndpoint": "http://receiver.test/put",
            **changes,
        }
        return {name: value for name, value in task.items() if value is not ...}

    def post(self, *tasks: Any, **options: Any) -> httpx.Response:
        return self.client.post("/v1", content=json.dumps(tasks), **options)

    def poll(self, task: Json) -> httpx.Response:
        return self.post({"taskType": "getResponse", "taskUUID": task["taskUUID"]})

    def details(self, task: Json) -> httpx.Response:
        return self.post({"taskType": "getTaskDetails", "taskUUID": task["taskUUID"]})

    def run(self, **changes: Any) -> Json:
        """Submits a task and waits until the emulator is idle."""
        task = self.task(**changes)
        self.post(task)
        self.settle()
        return task

    def settle(self) -> None:
        assert self.emulator.idle(PATIENCE)

    def close(self) -> None:
        self.emulator.close()
        self.outgoing.close()
        self.client.close()


@pytest.fixture
def start() -> Iterator[Callable[..., EmulatorService]]:
    """Starts services with options for the emulator; they are closed after the test."""
    services: list[EmulatorService] = []

    def starter(**options: Any) -> EmulatorService:
        services.append(EmulatorService(**options))
        return services[-1]

    threads = threading.active_count()
    yield starter
    for service in services:
        service.close()
    assert threading.active_count() <= threads, "close() left a worker behind"


@pytest.fixture
def service(start: Callable[..., EmulatorService]) -> EmulatorService:
    """A service whose tasks finish at once, in the background."""
    return start()


@pytest.fixture
def stepped(start: Callable[..., EmulatorService]) -> EmulatorService:
    """A service whose tasks finish only on request."""
    return start(render_seconds=None)


@pytest.fixture(params=sorted(Path(__file__).parent.joinpath("documented").glob("*.json")), ids=lambda path: path.stem)
def documented(request: pytest.FixtureRequest) -> Json:
    """An example of the model's page, with `request` and `response`."""
    example: Json = json.loads(request.param.read_text())
    return example


@pytest.fixture(scope="session")
def other_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server that S3_ENDPOINT selects."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_server(request: pytest.FixtureRequest, shared_stack: SharedStack) -> Iterator[S3Server]:
    """The local AWS, or the server that S3_ENDPOINT selects.

    The stack is started in the first case only; named here, it counts as used by the tests.
    """
    if os.environ.get("S3_ENDPOINT"):
        server: S3Server = request.getfixturevalue("other_s3")
    else:
        stack: Stack = request.getfixturevalue("stack")
        server = local_s3(stack)
    yield server
    server.remove_buckets()

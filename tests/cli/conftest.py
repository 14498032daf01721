"""An in-memory service with the API as callers use it, and a fixture that runs the command against it."""

import hashlib
import io
import json
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from werkzeug.wrappers import Request, Response

from rushes_cli import api_client, main
from rushes_local.aws.application import CREDENTIALS
from rushes_local.runware.emulator import CutConnectionError
from rushes_local.servers import Server
from rushes_local.stack import Stack

Json = dict[str, Any]

KEY = "rushes_" + "k" * 43
PRICE = 0.924


@dataclass
class FakeService:
    """Tasks in memory. `intercept_request` runs before each request is handled; it may return another response or cut
    the connection."""

    tasks: dict[str, Json] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    intercept_request: Callable[[Request], Response | None] | None = None
    # The same, after the request has taken effect.
    intercept_response: Callable[[Request], Response | None] | None = None
    # The errors of orders by prompt. A refusal is recorded under the order's UUID and answered again.
    refusals: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, Json] = field(default_factory=dict)
    models: list[Json] = field(default_factory=list)
    registry: Json = field(default_factory=dict)
    price_list: Any = field(default_factory=list)
    unmodified: int = 0  # answers of the registry without content
    max_per_page: int = 100
    limit: float = 50.0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        body = json.loads(request.get_data() or b"null")
        with self.lock:
            self.requests.append((request.method, request.path, body))
        response = self.intercept_request(request) if self.intercept_request else None
        if response is None:
            response = self._answer(request, body)
            response = (self.intercept_response(request) if self.intercept_response else None) or response
        return response(environ, start_response)

    def _answer(self, request: Request, body: Any) -> Response:
        if found := self._without_key(request):
            return found
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return answer({"errors": [{"code": "invalidApiKey", "message": "No."}]}, 401)
        match request.method, request.path.split("/")[1:]:
            case "POST", ["v1"]:
                return self._post(body, dry=request.headers.get("X-Runware-Dry-Run") == "1")
            case "GET", ["tasks"]:
                return self._page(request.args)
            case "GET", ["tasks", task_uuid] if task_uuid in self.tasks:
                return answer(self.tasks[task_uuid])
            case "GET", ["tasks", task_uuid]:
                error = {"code": "taskNotFound", "message": "You have no task with this UUID.", "taskUUID": task_uuid}
                return answer({"errors": [error]}, 404)
            case "GET", ["models"]:
                return answer({"models": self.models})
            case "GET", ["costs"]:
                return self._costs(request.args)
            case "GET", ["budget"]:
                left = self._left()
                return answer({"month": "2026-11", "spent": self.limit - left, "limit": self.limit, "left": left})
        return answer({"message": "Not Found"}, 404)

    def _post(self, tasks: list[Json], *, dry: bool) -> Response:
        data, errors, repeated = [], [], []
        status = 400
        for task in tasks:
            about = {"taskType": "videoInference", "taskUUID": task["taskUUID"]}
            if len(task.get("positivePrompt", "")) < 2:
                error = {"code": "invalidPositivePromptLength", "message": "Too short.", "parameter": "positivePrompt"}
                errors.append({**error, **about})
            elif task.get("duration", 5) not in (5, 10):
                error = {"code": "unsupportedDuration", "message": "Not supported.", "parameter": "duration"}
                errors.append({**error, **about, "allowedValues": [5, 10]})
            elif dry:
                cost = PRICE * task.get("numberResults", 1) * task.get("duration", 5) / 5
                data.append({**about, "dryRun": True, "cost": round(cost, 6)})
            elif task["taskUUID"] not in self.tasks and self._left() < PRICE * task.get("numberResults", 1):
                message = f"Your limit has ${self._left():.3f} left."
                errors.append({"code": "budgetExceeded", "message": message, "parameter": "numberResults", **about})
            elif task["taskUUID"] in self.refused or task["positivePrompt"] in self.refusals:
                error = self.refused.setdefault(task["taskUUID"], self.refusals.get(task["positivePrompt"], {}))
                errors.append({**error, **about})
                status = 503 if error["code"] in ("serviceUnavailable", "providerAccountRefused") else 400
            else:
                repeated += [task["taskUUID"]] if task["taskUUID"] in self.tasks else []
                self.tasks.setdefault(task["taskUUID"], make_task(task))
                data.append(about)
        response = answer({"data": data, **({"errors": errors} if errors else {})}, 200 if data else status)
        response.headers["Rushes-Repeated"] = ", ".join(repeated)
        return response

    def _without_key(self, request: Request) -> Response | None:
        """The bucket's files, and Runware's registry and price list, which this server has too."""
        if request.path == "/prices.json":
            return answer(self.price_list)
        if request.path != "/registry.json":
            return self._file(request) if request.path.startswith("/files/") else None
        if "klingai" in request.headers.get("If-None-Match", ""):
            self.unmodified += 1
            return Response(status=304)
        response = answer({"version": "1", "models": self.registry})
        response.headers["ETag"] = '"klingai"'
        return response

    def _left(self) -> float:
        return round(self.limit - sum(task["cost"] for task in self.tasks.values()), 6)

    def _page(self, query: Any) -> Response:
        limit, start = min(int(query.get("limit", 20)), self.max_per_page), int(query.get("cursor", 0))
        tasks = sorted(self.tasks.values(), key=lambda task: task["createdAt"], reverse=True)
        page = [task for task in tasks[start : start + limit] if _matches(task, query)]
        more = {"cursor": str(start + limit)} if start + limit < len(tasks) else {}
        return answer({"tasks": page, **more})

    def _costs(self, query: Any) -> Response:
        start = int(query.get("cursor", 0))
        lines = [
            {
                "taskUUID": task["taskUUID"],
                "clip": clip["clip"],
                "createdAt": task["createdAt"],
                "cost": clip["cost"],
                **{name: task["request"][name] for name in ("model", "tags") if name in task["request"]},
            }
            for task in sorted(self.tasks.values(), key=lambda task: task["createdAt"], reverse=True)
            for clip in task["clips"]
            if query["since"] <= task["createdAt"][:10] <= query["until"]
        ]
        end = start + self.max_per_page
        more = {"cursor": str(end)} if end < len(lines) else {}
        return answer({"costs": lines[start:end], **more})

    def _file(self, request: Request) -> Response:
        content = self.files.get(request.path.removeprefix("/files/"))
        if content is None:
            return Response(status=404)
        return Response(content).make_conditional(request, accept_ranges=True, complete_length=len(content))

    def orders(self) -> list[list[Json]]:
        """The bodies of all orders. The header that marks a dry run is not kept, so dry runs are among them."""
        return [body for method, path, body in self.requests if (method, path) == ("POST", "/v1")]

    def bought(self) -> int:
        """The number of clips ordered."""
        return sum(len(task["clips"]) for task in self.tasks.values())

    def add(self, status: str = "stored", *, content: bytes | None = None, **changes: Any) -> Json:
        """Adds a task with one clip of this status, with content for download if given, and returns it."""
        task = make_task(
            {"taskUUID": str(uuid.uuid4()), "model": "klingai:5@3", "positivePrompt": "a lighthouse"}, status
        )
        (clip,) = task["clips"]
        if content is not None:
            self.serve(task, clip, content)
        task |= {name: value for name, value in changes.items() if name in ("request", "createdAt", "cost")}
        clip |= changes.get("clip", {})
        self.tasks[task["taskUUID"]] = task
        return task

    def serve(self, task: Json, clip: Json, content: bytes) -> None:
        """Makes a clip available for download, with its manifest."""
        name = f"{task['taskUUID']}-{clip['clip']}.mp4"
        manifest = {
            "taskUUID": task["taskUUID"],
            "clip": clip["clip"],
            "versionId": "v1",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self.files |= {name: content, f"{name}.json": json.dumps(manifest).encode()}
        url = f"{self.url}/files/{name}"
        clip |= {"versionId": "v1", "size": len(content), "videoURL": url, "manifestURL": f"{url}.json"}


def make_task(request: Json, status: str = "running") -> Json:
    """A task as the service returns it."""
    now = datetime.now(UTC)
    clips = [
        {
            "clip": number,
            "status": status,
            "open": status in ("pending", "running", "rendered"),
            "cost": PRICE,
            "objectKey": f"videos/alice/2026/11/24/{request['taskUUID']}-{number}.mp4",
            "clipUUID": str(uuid.uuid4()),
            "nextCheckAt": stamp(now + timedelta(minutes=3)),
            "timeline": [{"at": stamp(now), "fact": "accepted", "key": "acknowledged", "source": "submission"}],
        }
        for number in range(request.get("numberResults", 1))
    ]
    finals = {"stored": "succeeded", "failed": "failed", "review": "review", "erased": "erased"}
    whole = finals.get(status, "running")
    cost = round(PRICE * len(clips), 6)
    return {
        "taskUUID": request["taskUUID"],
        "status": whole,
        "createdAt": stamp(now),
        "request": request,
        "cost": cost,
        "clips": clips,
    }


def stamp(at: datetime) -> str:
    """A time in the service's format."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer(body: Json, status: int = 200) -> Response:
    """A JSON response."""
    return Response(json.dumps(body), status, content_type="application/json")


def cut(_: Request) -> Response:
    """Ends the connection without a response."""
    raise CutConnectionError("cut")


def _matches(task: Json, query: Any) -> bool:
    name, _, value = query.get("tag", "").partition(":")
    return (
        query.get("status") in (None, task["status"])
        and task["createdAt"].startswith(query.get("day", ""))
        and task["taskUUID"].startswith(query.get("prefix", ""))
        and (not name or (task["request"].get("tags") or {}).get(name) == value)
    )


@dataclass
class CommandResult:
    """The exit status and the output of one run of the command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, parsed as one JSON value."""
        return json.loads(self.out)


Run = Callable[..., CommandResult]


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[FakeService, Server]]:
    """One fake service for the whole session."""
    fake = FakeService()
    serving = Server(fake.wsgi, name="fake")
    fake.url = serving.url
    yield fake, serving
    serving.stop()


@pytest.fixture
def fake(server: tuple[FakeService, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeService:
    """The fake service, empty, and an environment that points the command to it."""
    fake, _ = server
    fake.tasks.clear()
    fake.files.clear()
    fake.requests.clear()
    fake.refusals.clear()
    fake.refused.clear()
    fake.models.clear()
    fake.registry.clear()
    fake.price_list = []
    fake.unmodified = 0
    fake.intercept_request = fake.intercept_response = None
    fake.max_per_page = 100
    fake.limit = 50.0
    isolate_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("RUSHES_URL", fake.url)
    monkeypatch.setenv("RUSHES_API_KEY", KEY)
    monkeypatch.setattr(api_client, "PAUSES", (0.0, 0.0))
    return fake


def isolate_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An environment without any settings of this machine's user."""
    for name in list(os.environ):
        if name.startswith(("RUSHES_", "AWS_")) or name in ("TABLE_NAME", "BUCKET_NAME"):
            monkeypatch.delenv(name)
    for name in ("CONFIG", "STATE", "RUNTIME"):
        path = folder / name.lower()
        path.mkdir(exist_ok=True)
        monkeypatch.setenv(f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}", str(path))


@pytest.fixture
def account(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An operator's environment, pointing to the local stack."""
    isolate_environment(monkeypatch, tmp_path)
    settings = {
        "AWS_ENDPOINT_URL": stack.aws_url,
        "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process with its output in pipes; `stdin` is its standard input."""

    def run(*arguments: str, stdin: str = "") -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["rushes", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        monkeypatch.setattr(main.signal, "signal", lambda *_: None)
        capfd.readouterr()
        status = 0
        try:
            main.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        output = capfd.readouterr()
        return CommandResult(int(status or 0), output.out, output.err)

    return run

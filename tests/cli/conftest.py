"""A small service in memory that speaks the API as callers see it, and the command run against it."""

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
    """Tasks in memory. `trouble` is asked before every answer and may give another one, or cut the connection."""

    tasks: dict[str, Json] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    trouble: Callable[[Request], Response | None] | None = None
    after: Callable[[Request], Response | None] | None = None  # the same, once the request has taken effect
    most_per_page: int = 100
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        body = json.loads(request.get_data() or b"null")
        with self.lock:
            self.asked.append((request.method, request.path, body))
        found = self.trouble(request) if self.trouble else None
        if found is None:
            found = self._answer(request, body)
            found = (self.after(request) if self.after else None) or found
        return found(environ, start_response)

    def _answer(self, request: Request, body: Any) -> Response:
        if request.path.startswith("/files/"):
            return self._file(request)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return answer({"errors": [{"code": "invalidApiKey", "message": "No."}]}, 401)
        match request.method, request.path.split("/")[1:]:
            case "POST", ["v1"]:
                return self._post(body, dry=request.headers.get("X-Runware-Dry-Run") == "1")
            case "GET", ["tasks"]:
                return self._page(request.args)
            case "GET", ["tasks", task_uuid] if task_uuid in self.tasks:
                return answer(self.tasks[task_uuid])
            case "GET", ["costs"]:
                return self._costs(request.args)
            case "GET", ["budget"]:
                spent = sum(task["cost"] for task in self.tasks.values())
                return answer({"month": "2026-11", "spent": spent, "limit": 50.0, "left": 50.0 - spent})
        return answer({"message": "Not Found"}, 404)

    def _post(self, tasks: list[Json], *, dry: bool) -> Response:
        data, errors = [], []
        for task in tasks:
            about = {"taskType": "videoInference", "taskUUID": task["taskUUID"]}
            if len(task.get("positivePrompt", "")) < 2:
                wrong = {"code": "invalidPositivePromptLength", "message": "Too short.", "parameter": "positivePrompt"}
                errors.append({**wrong, **about})
            elif dry:
                cost = PRICE * task.get("numberResults", 1) * task.get("duration", 5) / 5
                data.append({**about, "dryRun": True, "cost": round(cost, 6)})
            else:
                self.tasks.setdefault(task["taskUUID"], made(task))
                data.append(about)
        return answer({"data": data, **({"errors": errors} if errors else {})}, 200 if data else 400)

    def _page(self, wanted: Any) -> Response:
        limit, start = min(int(wanted.get("limit", 20)), self.most_per_page), int(wanted.get("cursor", 0))
        tasks = sorted(self.tasks.values(), key=lambda task: task["createdAt"], reverse=True)
        page = [task for task in tasks[start : start + limit] if _matches(task, wanted)]
        more = {"cursor": str(start + limit)} if start + limit < len(tasks) else {}
        return answer({"tasks": page, **more})

    def _costs(self, wanted: Any) -> Response:
        start = int(wanted.get("cursor", 0))
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
            if wanted["since"] <= task["createdAt"][:10] <= wanted["until"]
        ]
        end = start + self.most_per_page
        more = {"cursor": str(end)} if end < len(lines) else {}
        return answer({"costs": lines[start:end], **more})

    def _file(self, request: Request) -> Response:
        content = self.files.get(request.path.removeprefix("/files/"))
        if content is None:
            return Response(status=404)
        return Response(content).make_conditional(request, accept_ranges=True, complete_length=len(content))

    def orders(self) -> list[list[Json]]:
        """The bodies of all orders, dry runs left out: those are asked with a header that is not kept."""
        return [body for method, path, body in self.asked if (method, path) == ("POST", "/v1")]

    def bought(self) -> int:
        """How many clips were ordered."""
        return sum(len(task["clips"]) for task in self.tasks.values())

    def add(self, status: str = "stored", *, content: bytes | None = None, **changes: Any) -> Json:
        """A task with one clip of this status; with content it can be downloaded."""
        task = made({"taskUUID": str(uuid.uuid4()), "model": "klingai:5@3", "positivePrompt": "a lighthouse"}, status)
        (clip,) = task["clips"]
        if content is not None:
            self.serve(task, clip, content)
        task |= {name: value for name, value in changes.items() if name in ("request", "createdAt", "cost")}
        clip |= changes.get("clip", {})
        self.tasks[task["taskUUID"]] = task
        return task

    def serve(self, task: Json, clip: Json, content: bytes) -> None:
        """Lets a clip be downloaded."""
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


def made(request: Json, status: str = "running") -> Json:
    """A task as the service tells it."""
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
    whole = {"stored": "succeeded", "failed": "failed", "review": "review"}.get(status, "running")
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
    """A time as the service writes it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer(body: Json, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body), status, content_type="application/json")


def cut(_: Request) -> Response:
    """Ends the connection without an answer."""
    raise CutConnectionError("cut")


def _matches(task: Json, wanted: Any) -> bool:
    name, _, value = wanted.get("tag", "").partition(":")
    return (
        wanted.get("status") in (None, task["status"])
        and task["createdAt"].startswith(wanted.get("day", ""))
        and (not name or (task["request"].get("tags") or {}).get(name) == value)
    )


@dataclass
class Ran:
    """How a run of the command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[FakeService, Server]]:
    """One fake service for all tests."""
    fake = FakeService()
    serving = Server(fake.wsgi, name="fake")
    fake.url = serving.url
    yield fake, serving
    serving.stop()


@pytest.fixture
def fake(server: tuple[FakeService, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeService:
    """The fake service, empty, and an environment that leads the command to it."""
    fake, _ = server
    fake.tasks.clear()
    fake.files.clear()
    fake.asked.clear()
    fake.trouble = fake.after = None
    fake.most_per_page = 100
    alone(monkeypatch, tmp_path)
    monkeypatch.setenv("RUSHES_URL", fake.url)
    monkeypatch.setenv("RUSHES_API_KEY", KEY)
    monkeypatch.setattr(api_client, "PAUSES", (0.0, 0.0))
    return fake


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An environment that shows the command nothing of this machine's user."""
    for name in list(os.environ):
        if name.startswith(("RUSHES_", "AWS_")) or name in ("TABLE_NAME", "BUCKET_NAME"):
            monkeypatch.delenv(name)
    for name in ("CONFIG", "STATE", "RUNTIME"):
        path = folder / name.lower()
        path.mkdir(exist_ok=True)
        monkeypatch.setenv(f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}", str(path))


@pytest.fixture
def account(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The operator's environment leads to the local stack."""
    alone(monkeypatch, tmp_path)
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
    """Runs the command in this process as in a pipe; `stdin` is what is piped in."""

    def run(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["rushes", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        monkeypatch.setattr(main.signal, "signal", lambda *_: None)
        capfd.readouterr()
        status = 0
        try:
            main.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        said = capfd.readouterr()
        return Ran(int(status or 0), said.out, said.err)

    return run

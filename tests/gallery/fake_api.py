"""An in-memory reading API and bucket for the page's own tests, with every state of a task and any error.

Orders are validated with the service's own rules, so that the page receives the service's real errors.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from rushes import gallery
from rushes.domain.caller import Caller
from rushes.runware.request import Order
from rushes.services import queries
from rushes.services.queries import folded
from rushes.services.request_validation import WireResponse, parse, validate
from rushes.services.submit import price
from rushes_local.runware.rendering import Shape, render
from rushes_local.servers import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Json = dict[str, Any]

PAGE = Path(__file__).parents[2] / "functions" / "tasks" / "page.html"
KEY = "rushes_fake-key-for-the-page"
PER_SECOND = 0.1848

_SIZES = {"wide": (1920, 1080), "square": (1080, 1080), "tall": (1080, 1920)}


@cache
def clip_bytes(shape: str, caption: str) -> bytes:
    """A real MP4 with one frame per second."""
    return render(Shape(*_SIZES[shape], 5, "MP4", caption, small=True))


def headers(page: str, bucket: str) -> list[tuple[str, str]]:
    """The page's headers, with a policy that is stricter than the deployed one: no text becomes markup or code."""
    served = dict(gallery.headers(page, bucket))
    served["Content-Security-Policy"] += "; require-trusted-types-for 'script'; trusted-types 'none'"
    return [("content-type", "text/html; charset=utf-8"), *served.items()]


def iso(seconds: float) -> str:
    """A time in the API's format."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03}Z"


@dataclass
class Request:
    """One received request."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    authorization: str | None
    dry_run: bool = False

    @property
    def buys(self) -> bool:
        """True for an order, False for the question for its price."""
        return self.method == "POST" and not self.dry_run


class NoImages:
    """A bucket without input images."""

    name = "no-images"

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Stores nothing."""

    def head(self, bucket: str, key: str, length: int) -> None:
        """Finds nothing."""


@dataclass
class FakeApi:
    """The API's state, which a test prepares and changes. `with FakeApi() as api: api.url`."""

    tasks: dict[str, Json] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    spent: float = 12.94
    limit: float = 50.0
    key: str = KEY
    rendering: dict[str, str] = field(default_factory=dict)  # object key to shape
    models: list[Json] = field(default_factory=lambda: queries.models()["models"])
    list_links_expired: bool = False  # links in lists are expired, those of a single task are valid
    # Called with each request before it is served; a returned status and body replace the response.
    intercept: Callable[[Request], tuple[int, Any] | None] = lambda _: None
    _signed: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __enter__(self) -> "FakeApi":
        self._bucket = Server(self._serve_bucket, name="fake-bucket")
        self._api = Server(self._serve, name="fake-api")
        self.url = self._api.url
        return self

    def __exit__(self, *_: object) -> None:
        self._api.stop()
        self._bucket.stop()

    # For tests

    def add(
        self, *statuses: str, prompt: str = "a lighthouse at dusk", ago: float = 60, shape: str = "wide", **more: Any
    ) -> Json:
        """Adds a task with one clip per status; `more` goes into the request, and `clip` into each clip."""
        in_clips = more.pop("clip", {})
        created = time.time() - ago
        task_uuid = more.pop("taskUUID", None) or str(uuid.uuid4())
        task = {
            "taskUUID": task_uuid,
            "createdAt": iso(created),
            "request": {
                "taskType": "videoInference",
                "taskUUID": task_uuid,
                "model": "klingai:5@3",
                "positivePrompt": prompt,
                "duration": 5,
                "numberResults": len(statuses),
                **more,
            },
            "clips": [self._clip(task_uuid, index, created, shape) | in_clips for index in range(len(statuses))],
        }
        with self._lock:
            self.tasks[task_uuid] = task
        for index, status in enumerate(statuses):
            self.set_status(task, status, index)
        return task

    def set_status(self, task: Json, status: str, index: int = 0, **facts: Any) -> None:
        """Changes the status of one clip, with the facts that belong to it."""
        with self._lock:
            clip = task["clips"][index]
            clip["status"] = status
            clip["open"] = status in ("pending", "running", "rendered")
            clip["timeline"] = _TIMELINES[status](clip, task["createdAt"])
            if clip["open"]:
                clip["nextCheckAt"] = iso(time.time() + 90)
            if status == "stored":
                clip |= {"size": 4_812_330, "versionId": "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY", "seed": 169984304}
                clip["seedText"] = "169984304"
                clip["videoUUID"] = str(uuid.uuid5(uuid.NAMESPACE_URL, clip["clipUUID"]))
            if status == "failed":
                clip["cost"] = 0.0
                clip["error"] = {"code": "providerContentPolicyViolation", "message": _REFUSED}
            if status == "review":
                message = "It cannot be determined if the clip was bought. Do not order it again."
                clip["error"] = {"code": "purchaseUnproven", "message": message}
            if status == "erased":
                task["request"] = {}
                clip["erasedAt"] = clip["timeline"][-1]["at"]
            clip |= facts

    def ordered(self) -> list[Json]:
        """The tasks of all received orders, one per request."""
        return [json.loads(request.body)[0] for request in self.requests if request.buys]

    def priced(self) -> list[Json]:
        """The tasks of which the price was asked."""
        return [json.loads(request.body)[0] for request in self.requests if request.dry_run]

    def requests_for(self, path: str) -> list[Request]:
        """The requests for one path."""
        return [request for request in self.requests if request.path == path]

    # Serving

    def _clip(self, task_uuid: str, index: int, created: float, shape: str) -> Json:
        object_key = f"videos/alice/{iso(created)[:10]}/{task_uuid}-{index}.mp4"
        self.rendering[object_key] = shape
        return {"clip": index, "cost": PER_SECOND * 5, "objectKey": object_key, "clipUUID": str(uuid.uuid4())}

    def _serve(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            dict(parse_qsl(environ.get("QUERY_STRING", ""))),
            environ["wsgi.input"].read(length),
            environ.get("HTTP_AUTHORIZATION"),
            "HTTP_X_RUNWARE_DRY_RUN" in environ,
        )
        if request.path == "/":
            page = PAGE.read_text()
            start_response("200 OK", headers(page, self._bucket.url))
            return [page.encode()]
        with self._lock:
            self.requests.append(request)
        status, body = self.intercept(request) or self._answer(request)
        content = json.dumps(body).encode() if not isinstance(body, bytes) else body
        types = [("content-type", "application/json"), ("content-length", str(len(content)))]
        start_response(f"{status} {HTTPStatus(status).phrase}", types)
        return [content]

    def _answer(self, request: Request) -> tuple[int, Any]:
        if request.authorization != f"Bearer {self.key}":
            error = {"code": "invalidApiKey", "message": "Send your API key as Authorization: Bearer."}
            return 401, {"errors": [error]}
        with self._lock:
            match request.method, request.path.split("/")[1:]:
                case "GET", ["tasks"]:
                    return 200, self._list(request.query)
                case "GET", ["tasks", task_uuid] if task_uuid in self.tasks:
                    return 200, self._response(self.tasks[task_uuid], detailed=True)
                case "GET", ["budget"]:
                    left = self.limit - self.spent
                    return 200, {"month": "2026-11", "spent": self.spent, "limit": self.limit, "left": left}
                case "GET", ["models"]:
                    return 200, {"models": self.models}
                case "POST", ["v1"] if request.dry_run:
                    answer = price(parse(request.body), Caller("alice", 50_000_000), NoImages())
                    return answer.status, answer.body
                case "POST", ["v1"]:
                    return self._buy(request.body)
        return 404, {"errors": [{"code": "unknownTask", "message": "There is no such task."}]}

    def _list(self, query: Mapping[str, str]) -> Json:
        newest = sorted(self.tasks.values(), key=lambda task: task["createdAt"], reverse=True)
        start, limit = int(query.get("cursor", 0)), int(query.get("limit", 20))
        page = [self._response(task) for task in newest[start : start + limit]]
        more: Json = {"cursor": str(start + limit)} if start + limit < len(newest) else {}
        if query.keys() & {"status", "tag", "prompt"}:
            more["searched"] = len(page)
        return {"tasks": [task for task in page if _matches(task, query)], **more}

    def _response(self, task: Json, detailed: bool = False) -> Json:
        clips = []
        for clip in task["clips"]:
            visible = {
                name: value for name, value in clip.items() if detailed or name not in ("timeline", "possiblySentAt")
            }
            if clip["status"] == "stored":
                self._signed += 1  # every response has new links, as in the service
                signature = 0 if self.list_links_expired and not detailed else self._signed
                address = f"{self._bucket.url}/{clip['objectKey']}?X-Amz-Signature={signature}"
                visible = {"videoURL": address, "manifestURL": address.replace(".mp4", ".json")} | visible
            clips.append(visible)
        cost = round(sum(clip["cost"] for clip in clips), 6)
        return {**task, "status": _status(clips), "cost": cost, "clips": clips}

    def _buy(self, body: bytes) -> tuple[int, Any]:
        answer = WireResponse()
        for order in validate(parse(body), answer):
            assert isinstance(order, Order)
            request = dict(order.request)
            if order.task_uuid not in self.tasks:
                self.add(*["pending"] * order.clips, prompt=request["positivePrompt"], ago=0, **request_of(request))
                self.spent += order.price * order.clips / 1e6
            answer.data.append({"taskType": "videoInference", "taskUUID": order.task_uuid})
        return answer.status, answer.body

    def _serve_bucket(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        shape = self.rendering.get(environ["PATH_INFO"].lstrip("/"))
        if shape is None or not int(query.get("X-Amz-Signature", 0)):
            start_response("403 Forbidden", [("content-length", "0")])
            return [b""]
        content = clip_bytes(shape, shape)
        types = [("content-type", "video/mp4"), ("accept-ranges", "bytes")]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", environ.get("HTTP_RANGE", ""))
        if not wanted:
            start_response("200 OK", [*types, ("content-length", str(len(content)))])
            return [content]
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        part = content[start : end + 1]
        types += [("content-range", f"bytes {start}-{end}/{len(content)}"), ("content-length", str(len(part)))]
        start_response("206 Partial Content", types)
        return [part]


def request_of(request: Json) -> Json:
    """A request's parameters except those that `add` sets by itself."""
    return {name: value for name, value in request.items() if name not in ("positivePrompt", "numberResults")}


def _matches(task: Json, query: Mapping[str, str]) -> bool:
    name, *value = re.split("[:=]", query.get("tag", ""), maxsplit=1)
    return (
        query.get("status", task["status"]) == task["status"]
        and task["createdAt"].startswith(query.get("day", ""))
        and (not name or task["request"].get("tags", {}).get(name) == value[0])
        and folded(query.get("prompt", "")) in folded(task["request"].get("positivePrompt", ""))
    )


def _status(clips: list[Json]) -> str:
    states = {clip["status"] for clip in clips}
    if "erased" in states:
        return "erased"
    if states & {"pending", "running", "rendered"}:
        return "running"
    if "review" in states:
        return "review"
    if states == {"stored"}:
        return "succeeded"
    return "failed" if states == {"failed"} else "partial"


_REFUSED = "The prompt was turned down by the provider's content policy."


def _fact(fact: str, created: str, after: float, source: str, key: str = "", **fields: Any) -> Json:
    moment = datetime.fromisoformat(created).timestamp() + after
    return {"at": iso(moment), "fact": fact, "source": source, **({"key": key} if key else {}), "fields": fields}


def _bought(clip: Json, created: str) -> list[Json]:
    return [_fact("accepted", created, 0.8, "submission", "acknowledged")]


def _rendered(clip: Json, created: str) -> list[Json]:
    return [*_bought(clip, created), _fact("rendered", created, 192, "webhook", "0b1d", seed=169984304)]


_TIMELINES: dict[str, Callable[[Json, str], list[Json]]] = {
    "pending": lambda clip, created: [],
    "running": _bought,
    "rendered": _rendered,
    "stored": lambda clip, created: [*_rendered(clip, created), _fact("stored", created, 192.4, "bucket", "v1")],
    "failed": lambda clip, created: [
        *_bought(clip, created),
        _fact("failed", created, 12, "poll", "providerContentPolicyViolation", message=_REFUSED),
        _fact("lastLook", created, 912, "clock"),
    ],
    "review": lambda clip, created: [
        _fact("attempted", created, 10, "submission", "ambiguous: no answer in time"),
        _fact("unproven", created, 7200, "clock", reason="Neither the bucket nor Runware knows this clip."),
    ],
    "erased": lambda clip, created: [*_rendered(clip, created), _fact("erased", created, 86_400, "operator")],
}

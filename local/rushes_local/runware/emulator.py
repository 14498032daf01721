"""The emulated Runware as one WSGI application: routes and wire format.

Responsible for authentication, envelopes, HTTP statuses, injected responses, the downloads of videos, and the control
routes under /_emulator. `tasks` has the tasks, `validation` their rules, and `delivery` the work after the
acknowledgement.
"""

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from waitress.channel import ClientDisconnected  # type: ignore[import-untyped,unused-ignore]
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.wrappers import Request, Response

from rushes_local.runware.completion import LANES, RETRY_DELAYS, WEBHOOK_TIMEOUT, TaskCompletion
from rushes_local.runware.faults import Faults, OneShot
from rushes_local.runware.tasks import Charge, Execution, TaskBook
from rushes_local.runware.validation import (
    ImageLimits,
    error,
    frame_urls,
    is_uuid4,
    page_of,
    picture_error,
    price,
    unreachable,
    video_errors,
)
from rushes_local.runware.workers import Workers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Charge", "Emulator", "Faults", "OneShot", "Received"]

Json = dict[str, Any]

CALL_BEFORE_ANSWER_TIMEOUT = 10.0
IMAGE_TIMEOUT = 5.0
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")

_ROUTES = Map(
    [
        Rule("/v1", endpoint="api", methods=["POST"]),
        Rule("/video/os/a02d21/ws/5/vi/<name>", endpoint="video", methods=["GET"]),
        Rule("/_emulator/ledger", endpoint="ledger", methods=["GET"]),
        Rule("/_emulator/tasks", endpoint="tasks", methods=["GET"]),
        Rule("/_emulator/faults", endpoint="faults", methods=["GET"]),
        Rule("/_emulator/faults", endpoint="set faults", methods=["PUT"]),
        Rule("/_emulator/reset", endpoint="reset", methods=["POST"]),
        Rule("/_emulator/finish", endpoint="finish", methods=["POST"]),
    ]
)
# The usual error code of each status, documented or assumed.
_CODES = {
    401: "invalidApiKey",
    402: "insufficientCredits",
    403: "insufficientPermissions",
    408: "requestTimeout",
    409: "conflictTaskUUID",
    429: "rateLimitExceeded",
    503: "serviceUnavailable",
    504: "providerGatewayTimeout",
}


class CutConnectionError(httpx.RemoteProtocolError, ClientDisconnected):  # type: ignore[misc,unused-ignore]
    """Ends a request without a response.

    To waitress, this exception means that the client has disconnected: it closes the connection without a response.
    httpx.WSGITransport passes the exception to its caller, as the httpx error of a cut connection.
    """


@dataclass(frozen=True)
class Received:
    """A task object of a request, polls included; `at` in seconds since the epoch."""

    at: float
    task: Json


@dataclass
class EmulatorAnswer:
    """The response to one request, as it grows: items, errors, and the HTTP status of each error."""

    greeting: list[Json] = field(default_factory=list)  # for an authentication task; does not count as a success
    data: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def refuse(self, task: Json, faults: Iterable[Json], status: int = 400) -> None:
        for fault in faults:
            self.errors.append({**fault, **_about(task)})
            self.statuses.append(status)

    def response(self) -> Response:
        """The HTTP response: 200 after any success, else the first error's status; `errors` only if there are any."""
        if not self.errors:
            return _json({"data": self.greeting + self.data})
        status = 200 if self.data else self.statuses[0]
        return _json({"data": self.greeting + self.data, "errors": self.errors}, status)


class Emulator:
    """Runware's API for KlingAI 2.1 Master. Serve `wsgi`; control it through `faults`, `finish` and `reset`."""

    def __init__(
        self,
        api_keys: frozenset[str] = frozenset({"emulator-key"}),
        base_url: str = "http://127.0.0.1",
        render_seconds: float | Callable[[], float] | None = 0.0,
        clock: Callable[[], float] = time.time,
        http: httpx.Client | None = None,
        retry_delays: Sequence[float] = RETRY_DELAYS,
        small: bool = False,
    ) -> None:
        self.base_url = base_url
        self.faults = Faults()
        self._api_keys = api_keys
        self._render_seconds = render_seconds
        self._clock = clock
        self._own_http = http is None
        self._http = http or httpx.Client(trust_env=False)
        self._received: list[Received] = []
        self._book = TaskBook(clock, self.faults)
        self._workers = Workers(LANES)
        self._completion = TaskCompletion(
            self._book, self._workers, self._http, lambda: self.base_url, retry_delays, small
        )
        self._closing = threading.Event()

    # For tests and the local stack

    def ledger(self) -> list[Charge]:
        """Every charge, in order."""
        return self._book.charges()

    def requests(self) -> list[Received]:
        """Every task object that was received with a valid key, accepted or not."""
        return list(self._received)

    def finish(self, task_uuid: str) -> bool:
        """Finish a waiting task in the background. Returns False if none waits under this UUID."""
        return self._release(task_uuid.lower())

    def finish_all(self) -> bool:
        """Finish all waiting tasks in the background. Returns False if none waits."""
        return self._release(None)

    def idle(self, timeout: float) -> bool:
        """Wait until no background work is left. Returns False after `timeout` seconds."""
        return self._workers.idle(timeout)

    def reset(self) -> None:
        """Remove all tasks, charges, requests and faults. Waits for work in progress, at most ten seconds."""
        self._workers.drain(2 * WEBHOOK_TIMEOUT)
        self._book.clear()
        self._received.clear()
        self.faults.replace({})

    def close(self) -> None:
        """Stop all background work and join its threads, for at most ten seconds."""
        self._closing.set()
        self._workers.close(2 * WEBHOOK_TIMEOUT)
        if self._own_http:
            self._http.close()

    # HTTP

    def wsgi(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """The WSGI application."""
        response = self._respond(Request(environ), _ROUTES.bind_to_environ(environ))
        return response(environ, start_response)

    def _respond(self, request: Request, routes: MapAdapter) -> Response:
        try:
            endpoint, arguments = routes.match()
            match endpoint:
                case "api":
                    return self._api(request)
                case "video":
                    return self._video(request, arguments["name"])
            return self._control(endpoint, request)
        except HTTPException as problem:
            return _bare(problem.code or 500)

    def _video(self, request: Request, name: str) -> Response:
        video_uuid, _, suffix = name.rpartition(".")
        video = self._book.video(video_uuid)
        if self.faults.video_url_status:
            return _bare(self.faults.video_url_status)
        if video is None or f".{suffix}" != video.container.suffix:
            return _bare(404)
        content = b"" if video.reads <= self.faults.video_url_empty_reads else video.content
        response = Response(content, content_type=video.container.content_type)
        return response.make_conditional(request, accept_ranges=True, complete_length=len(content))

    # /_emulator

    def _control(self, endpoint: str, request: Request) -> Response:
        try:
            match endpoint:
                case "set faults":
                    self.faults.replace(_decode(request.get_data(), dict))
                case "finish":
                    task_uuid = _decode(request.get_data() or b"{}", dict).get("taskUUID")
                    return _json({"released": self.finish_all() if task_uuid is None else self.finish(str(task_uuid))})
                case "reset":
                    self.reset()
                    return _json({})
                case "tasks":
                    return _json([_as_json(run) for run in self._book.runs()])
                case "ledger":
                    return _json(_bill(self.ledger()))
        except ValueError as problem:
            return _json({"error": str(problem)}, 400)
        return _json({**self.faults.permanent(), "next_submissions": self.faults.one_shots()})

    # POST /v1

    def _api(self, request: Request) -> Response:
        try:
            tasks = _decode(request.get_data(), list)
        except ValueError as problem:
            return _refused(str(problem))
        if not tasks or not all(isinstance(task, dict) for task in tasks):
            return _refused("The body must be a JSON array of at least one task object.")
        key, tasks, greeting = _credentials(request, tasks)
        if key not in self._api_keys:
            return _json({"data": [], "errors": [_NO_KEY]}, 401)
        now = self._clock()
        self._received.extend(Received(now, task) for task in tasks)
        dry = request.headers.get("X-Runware-Dry-Run") == "1"
        if not dry and any(task.get("taskType") == "videoInference" for task in tasks):
            return self._submission(tasks, greeting)
        if injected := self._poll_injected(tasks):
            return injected
        return self._answer(tasks, greeting, {}, dry).response()

    def _submission(self, tasks: list[Json], greeting: list[Json]) -> Response:
        """The response to a request that buys, with the faults of its one-shot and permanent switches."""
        overrides = self.faults.take(json.dumps(tasks, ensure_ascii=False))
        switches = self.faults.with_overrides(overrides)
        if switches.submit_late_seconds:
            late = switches.submit_late_seconds
            self._workers.at("deliver", late, lambda: self._answer(tasks, [], overrides))
        if switches.submit_late_seconds or switches.submit_cut == "before":
            raise CutConnectionError("the connection was cut before acceptance")
        if switches.submit_status and not switches.submit_accepts:
            return _injected(switches.submit_status, switches.submit_code, switches.submit_bare, tasks)
        answer = self._answer(tasks, greeting, overrides)
        self._closing.wait(switches.submit_seconds)
        if switches.submit_cut == "after":
            raise CutConnectionError("the connection was cut after acceptance")
        if switches.submit_status:
            return _injected(switches.submit_status, switches.submit_code, switches.submit_bare, tasks)
        if switches.submit_garbage:
            return Response("<html>It works", content_type="text/html")
        if switches.submit_empty and not answer.errors:
            return _json({"data": []})
        return answer.response()

    def _poll_injected(self, tasks: list[Json]) -> Response | None:
        kinds = [task.get("taskType") for task in tasks]
        if "getResponse" in kinds and self.faults.poll_status:
            return _injected(self.faults.poll_status, "", self.faults.poll_bare, tasks)
        if "getTaskDetails" in kinds and self.faults.details_status:
            return _injected(self.faults.details_status, "", False, tasks)
        return None

    def _answer(self, tasks: list[Json], greeting: list[Json], overrides: Json, dry: bool = False) -> EmulatorAnswer:
        answer = EmulatorAnswer(greeting if tasks else [])
        uuids = Counter(str(task.get("taskUUID")).lower() for task in tasks if "taskUUID" in task)
        for task in tasks:
            if uuids[str(task.get("taskUUID")).lower()] > 1:
                message = "The taskUUID is used more than once in this request."
                answer.refuse(task, [error("duplicateTaskUUID", message, "taskUUID", type="string")])
                continue
            match task.get("taskType"):
                case "videoInference" if dry:
                    self._price(task, answer)
                case "videoInference":
                    self._buy(task, overrides, answer)
                case "getResponse":
                    self._poll(task, answer)
                case "getTaskDetails" if self.faults.finds_details:
                    self._details(task, answer)
                case "accountManagement":
                    self._account(task, answer)
                case "ping":
                    answer.data.append({**_about(task), "pong": True})
                case _:
                    message = "Unsupported task type."
                    answer.refuse(task, [error("unsupportedTaskType", message, "taskType", type="string")])
        return answer

    def _price(self, task: Json, answer: EmulatorAnswer) -> None:
        if faults := video_errors(task):
            answer.refuse(task, faults)
            return
        micro_dollars = price(task, int(task.get("duration", 5))) * int(task.get("numberResults", 1))
        answer.data.append({**_about(task), "cost": micro_dollars / 1_000_000})

    def _buy(self, task: Json, overrides: Json, answer: EmulatorAnswer) -> None:
        if faults := video_errors(task) or self._image_errors(task, overrides):
            answer.refuse(task, faults)
            return
        run = self._book.accept(task, overrides)
        if run is None:
            message = "A task with this taskUUID exists already."
            refusal = error("conflictTaskUUID", message, "taskUUID", type="string")
            answer.refuse(task, [refusal], self.faults.with_overrides(overrides).conflict_status)
            self._book.remember_refusal(task["taskUUID"], answer.errors[-1])
            return
        answer.data.append(run.item())
        self._begin(run)

    def _image_errors(self, task: Json, overrides: Json) -> list[Json]:
        """The errors of images given as URLs. Only URLs of this machine are fetched, to stay off the internet."""
        if not self.faults.with_overrides(overrides).fetches_images:
            return []
        local = [(name, url) for name, url in frame_urls(task) if urlsplit(url).hostname in _THIS_MACHINE]
        limits = page_of(task).images
        faults = [self._fetched_image_error(name, url, limits) for name, url in local]
        return [fault for fault in faults if fault]

    def _fetched_image_error(self, name: str, url: str, limits: ImageLimits) -> Json | None:
        try:
            response = self._http.get(url, timeout=IMAGE_TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL):
            return unreachable(name)
        return picture_error(name, response.content, limits) if response.status_code == 200 else unreachable(name)

    def _begin(self, run: Execution) -> None:
        self._completion.progress(run)
        called_first = self._book.switches(run).webhook_before_answer
        if self._render_seconds is None and not called_first:
            return
        run.released = True
        seconds = self._render_seconds() if callable(self._render_seconds) else self._render_seconds or 0.0
        self._completion.start(run, 0.0 if called_first else seconds)
        if called_first:
            run.called.wait(CALL_BEFORE_ANSWER_TIMEOUT)

    def _release(self, task_uuid: str | None) -> bool:
        runs = self._book.release(task_uuid)
        for run in runs:
            self._completion.start(run, 0.0)
        return bool(runs)

    def _poll(self, task: Json, answer: EmulatorAnswer) -> None:
        if not self._names_a_task(task, answer):
            return
        result = self._book.polled(task["taskUUID"])
        if result is None:
            self._unknown(task, answer)
            return
        data, errors = result
        answer.data += data
        for fault in errors:
            self._report_failure(fault, answer)

    def _report_failure(self, fault: Json, answer: EmulatorAnswer) -> None:
        match self.faults.poll_failure_shape:
            case "errors":
                answer.errors.append(fault)
                answer.statuses.append(self.faults.poll_failure_status)
            case "flat":
                answer.data.append(fault)
            case "nested":
                answer.data.append({**_about(fault), "status": "error", "error": fault})

    def _details(self, task: Json, answer: EmulatorAnswer) -> None:
        if not self._names_a_task(task, answer):
            return
        details = self._book.details(task["taskUUID"])
        if details is None:
            self._unknown(task, answer)
        else:
            answer.data.append({**_about(task), **details})

    def _names_a_task(self, task: Json, answer: EmulatorAnswer) -> bool:
        if is_uuid4(task.get("taskUUID")):
            return True
        message = "Invalid value for 'taskUUID': must be a UUID v4."
        answer.refuse(task, [error("invalidTaskUUID", message, "taskUUID", type="string")])
        return False

    def _unknown(self, task: Json, answer: EmulatorAnswer) -> None:
        if self.faults.unknown_uuid == "taskNotFound":
            fault = error("taskNotFound", "There is no task with this taskUUID.", "taskUUID", status="error")
            answer.refuse(task, [fault], self.faults.poll_failure_status)

    def _account(self, task: Json, answer: EmulatorAnswer) -> None:
        if task.get("operation") != "getDetails":
            fault = error("invalidOperation", "The emulator supports only the operation getDetails.", "operation")
            answer.refuse(task, [fault])
            return
        spent = sum(charge.micro_dollars for charge in self.ledger()) / 1_000_000
        usage = {"credits": spent, "requests": len(self.ledger())}
        details = {
            "operation": "getDetails",
            "organizationUUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, "emulator")),
            "organizationName": "Emulator",
            "apiKeys": [{"apiKey": f"{key[:2]}****{key[-2:]}", "enabled": True} for key in sorted(self._api_keys)],
            "team": [],
            "usage": dict.fromkeys(("total", "today", "last7Days", "last30Days"), usage),
            "balance": round(1000 - spent, 6),
        }
        answer.data.append({**_about(task), **details})


_NO_KEY = {
    "code": "invalidApiKey",
    "message": "Invalid API key. Get one at https://my.runware.ai/signup",
    "parameter": "apiKey",
    "type": "string",
    "documentation": "https://runware.ai/docs/platform/authentication",
    "taskType": "authentication",
}


def _decode(body: bytes, kind: type[Any]) -> Any:
    """The body's JSON value, of this type. Raises ValueError with the reason."""
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except RecursionError as problem:
        raise ValueError("The body is nested too deeply.") from problem
    except ValueError as problem:
        raise ValueError("The body is not valid JSON.") from problem
    if not isinstance(value, kind):
        raise ValueError(f"The body must be a JSON {'array' if kind is list else 'object'}.")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _credentials(request: Request, tasks: list[Json]) -> tuple[str, list[Json], list[Json]]:
    """The request's API key, its other tasks, and the response item of its authentication task, if there is one."""
    if tasks[0].get("taskType") == "authentication":
        return str(tasks[0].get("apiKey", "")), tasks[1:], [{"taskType": "authentication"}]
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else "", tasks, []


def _about(task: Json) -> Json:
    return {name: task[name] for name in ("taskType", "taskUUID") if name in task}


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def _refused(message: str) -> Response:
    return _json({"data": [], "errors": [{"code": "validationFailed", "message": message}]}, 400)


def _bare(status: int) -> Response:
    return Response(f"<html><h1>{status}</h1></html>", status, content_type="text/html")


def _injected(status: int, code: str, bare: bool, tasks: list[Json]) -> Response:
    """An injected response: a gateway's HTML page, or Runware's envelope with an error for each task."""
    if bare:
        return _bare(status)
    if status == 401 and not code:
        return _json({"data": [], "errors": [_NO_KEY]}, status)
    code = code or _CODES.get(status, "internalServerError" if status >= 500 else "validationFailed")
    message = f"The emulator injected the status {status}."
    return _json({"data": [], "errors": [{"code": code, "message": message, **_about(task)} for task in tasks]}, status)


def _bill(charges: list[Charge]) -> Json:
    total = sum(charge.micro_dollars for charge in charges)
    return {"microDollars": total, "charges": [asdict(charge) for charge in charges]}


def _as_json(run: Execution) -> Json:
    return {
        "taskUUID": run.uuid,
        "status": run.status,
        "acceptedAt": run.accepted_at,
        "finishedAt": run.finished_at,
        "task": run.task,
        "results": run.results,
        "errors": [*([run.failure] if run.failure else []), *run.delivery_failures],
    }

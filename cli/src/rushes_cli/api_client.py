"""A client for the service's HTTP API. Hides retries, paging and malformed responses.

Every request is idempotent; a purchase has the taskUUID as its idempotency key. Requests without a response are
therefore retried a few times with increasing backoff. `Retry-After` is honoured up to a limit.
"""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

import httpx

from rushes_cli.exits import CommandError, NotAllowedError, NotFoundError, UnavailableError, UsageError
from rushes_cli.profiles import Target

Json = dict[str, Any]
Filters = Mapping[str, str | None]
"""The query parameters that filter a list of tasks; None means no filter."""

MAX_PER_PAGE = 100
_TIMEOUT = httpx.Timeout(35.0, connect=5.0)  # API Gateway gives up after 30
# The error codes after which the same request, under the same taskUUIDs, may get another answer. Every other error is
# final: the service has recorded it, or finds the same fault again.
_RETRIED_CODES = {
    "serviceUnavailable",  # the service was busy, and may have recorded the task or not
    "serviceNotConfigured",  # the request was refused before its tasks were read
}
PAUSES: Sequence[float] = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts
_MAX_PAUSE = 10.0


@dataclass(slots=True)
class OrderResponse:
    """The response of `POST /v1`: accepted items and errors."""

    data: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)

    @property
    def accepted(self) -> list[str]:
        """The taskUUIDs of the accepted items."""
        return [str(item.get("taskUUID")) for item in self.data]


class ApiClient:
    """A client for one service with one caller's key. Thread-safe."""

    def __init__(self, target: Target, warn: Callable[[str], None] = lambda _: None) -> None:
        """`warn` is called once with each warning of the service, such as of a model that will end."""
        self.target = target
        self._warn, self._warned = warn, ""
        self.repeated: set[str] = set()  # the taskUUIDs of orders that the service had before
        self._has_answered = False  # after which a failed connection is no sign of a wrong URL
        headers = {"Authorization": f"Bearer {target.api_key}", "User-Agent": "rushes"}
        self._http = http_client(target, [target.url], base_url=target.url, headers=headers, timeout=_TIMEOUT)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def price(self, tasks: Sequence[Json]) -> OrderResponse:
        """Validates and prices these tasks. Nothing is recorded or bought."""
        return self._post(tasks, {"X-Runware-Dry-Run": "1"})

    def submit(self, tasks: Sequence[Json]) -> OrderResponse:
        """Orders these tasks. Raises `UnavailableError` unless each of them was accepted or refused."""
        return self._post(tasks, {})

    def page(self, filters: Filters, limit: int = MAX_PER_PAGE, cursor: str | None = None) -> Json:
        """One page of the caller's tasks, newest first."""
        params = {"limit": str(limit), "cursor": cursor, **filters}
        return self._get("/tasks", {name: value for name, value in params.items() if value}, "tasks")

    def tasks(self, filters: Filters, limit: int | None = None) -> Iterator[Json]:
        """The caller's tasks, newest first, at most `limit`; follows the pages."""
        cursor: str | None = None
        count = 0
        while True:
            page = self.page(filters, min(MAX_PER_PAGE, limit - count) if limit else MAX_PER_PAGE, cursor)
            for task in page["tasks"]:
                yield task
                count += 1
                if count == limit:
                    return
            cursor = page.get("cursor")
            if not cursor:
                return

    def task(self, task_uuid: str) -> Json | None:
        """One task with its clips' timelines; None if the caller has no task with this UUID."""
        try:
            return self._get(f"/tasks/{task_uuid.lower()}", {}, "clips")
        except NotFoundError:
            return None

    def require_task(self, task_uuid: str) -> Json:
        """One task, as `task` returns it. Raises `CommandError` if the caller has no task with this UUID."""
        found = self.task(task_uuid)
        if found is None:
            raise NotFoundError(f"You have no task {task_uuid}.")
        return found

    def costs(self, since: str, until: str) -> Iterator[Json]:
        """The counted amounts of the caller's clips between two days, one per clip, newest first; follows the pages."""
        cursor: str | None = None
        while True:
            days = {"since": since, "until": until}
            page = self._get("/costs", days | ({"cursor": cursor} if cursor else {}), "costs")
            yield from page["costs"]
            cursor = page.get("cursor")
            if not cursor:
                return

    def budget(self) -> Json:
        """The caller's budget of this month: `month`, `spent`, `limit` and `left`, in dollars."""
        return self._get("/budget", {}, "left", int | float)

    def models(self) -> list[Json]:
        """The models that can be ordered, each with its limits and prices."""
        found: list[Json] = self._get("/models", {}, "models")["models"]
        return found

    def _post(self, tasks: Sequence[Json], headers: Mapping[str, str]) -> OrderResponse:
        # Not httpx's own encoding, which refuses NaN: validation is left to the service.
        content = json.dumps(tasks).encode()
        headers = {"Content-Type": "application/json", **headers}
        _, body = self._request("POST", "/v1", _is_order_response, content=content, headers=headers)
        return OrderResponse(_objects(body, "data"), _objects(body, "errors"))

    def _get(self, path: str, params: Mapping[str, Any], name: str, kind: type | UnionType = list) -> Json:
        """The object at this path, which has a member of this name and type. Raises `CommandError` otherwise."""
        status, body = self._request("GET", path, lambda body: isinstance(body.get(name), kind), params=params)
        if status == 200:
            return body
        message = _sentence(_first_message(body))
        if status == 404:
            raise NotFoundError(message)
        raise UsageError(message) if status == 400 else CommandError(f"{self.target.url} refused {path}: {message}")

    def _request(self, method: str, path: str, is_expected: Callable[[Json], bool], **request: Any) -> tuple[int, Json]:
        """The status and the body of the service's answer, after a limited number of retries.

        The answer is an expected body with status 200, or errors. Raises `UnavailableError` without an answer, and
        `NotAllowedError` for a refused key or a wrong URL.
        """
        sent, fault = False, ""
        for pause in (*PAUSES, None):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                problem, fault, wait = _describe(error), _address_fault(error), pause
                sent = sent or not isinstance(error, _NOT_SENT)
            else:
                body = _json_object(response)
                status = response.status_code
                self.repeated.update(filter(None, response.headers.get("Rushes-Repeated", "").split(", ")))
                warning = response.headers.get("Rushes-Warning", "")
                if warning and warning != self._warned:
                    self._warned = warning
                    self._warn(warning)
                if not _is_retried(status, body):
                    self._check(status, is_expected(body) if status == 200 else bool(_codes(body)))
                    return status, body
                problem = _first_message(body) or f"status {status}"
                sent, fault, wait = True, "", _pause(response, pause)
            if wait is None:
                break
            time.sleep(wait)
        if fault and not sent and not self._has_answered:
            raise NotAllowedError(f"{self.target.url} {fault}: is it the URL of a running Rushes service?")
        raise UnavailableError(_sentence(f"{self.target.url} is unavailable: {problem}"), sent=sent)

    def _check(self, status: int, is_answer: bool) -> None:
        """Raises `NotAllowedError` for a refused key, and for a response of something else than the service."""
        if not is_answer:
            text = f"{self.target.url} responded with status {status} and not as a Rushes service does"
            if self._has_answered:
                raise UnavailableError(f"{text}.")
            raise NotAllowedError(f"{text}: is it the URL of a Rushes service?")
        if status in (401, 403):
            raise NotAllowedError(f"{self.target.url} does not accept the API key of {self.target.name}.")
        self._has_answered = True


def http_client(target: Target, urls: Iterable[str], **options: Any) -> httpx.Client:
    """An HTTP client for the URLs of a service and of its bucket."""
    # Loading the certificates takes longer than most requests to this machine.
    verify = not target.is_here or any(not url.startswith("http://") for url in urls)
    # A configured proxy cannot reach this machine.
    return httpx.Client(verify=verify, trust_env=not target.is_here, **options)


def refusal(error: Mapping[str, Any]) -> str:
    """One entry of `errors` as text: code, parameters and message."""
    parameter = error.get("parameter")
    names = ", ".join(parameter) if isinstance(parameter, list) else parameter
    where = f" ({names})" if names else ""
    return f"{error.get('code', 'error')}{where}: {error.get('message', 'no message')}"


def _json_object(response: httpx.Response) -> Json:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _objects(body: Mapping[str, Any], name: str) -> list[Json]:
    members = body.get(name)
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _codes(body: Mapping[str, Any]) -> set[str]:
    return {str(error["code"]) for error in _objects(body, "errors") if "code" in error}


def _is_order_response(body: Mapping[str, Any]) -> bool:
    return bool(_objects(body, "data") or _objects(body, "errors"))


def _is_retried(status: int, body: Mapping[str, Any]) -> bool:
    """True if the same request may get another answer: by the codes of its errors, otherwise by its status."""
    codes = _codes(body)
    return bool(codes & _RETRIED_CODES) if codes else status == 429 or status >= 500


def _first_message(body: Mapping[str, Any]) -> str:
    messages = [str(error.get("message", "")) for error in _objects(body, "errors")]
    return messages[0] if messages else str(body.get("message", ""))


def _sentence(text: str) -> str:
    """The text with one full stop at its end."""
    return f"{text.rstrip(' .:;')}."


def _pause(response: httpx.Response, pause: float | None) -> float | None:
    if pause is None:
        return None
    retry_after = response.headers.get("Retry-After", "")
    return max(pause, min(float(retry_after), _MAX_PAUSE)) if retry_after.isdigit() else pause


_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Unlike EAI_AGAIN, which is also the error of a machine without a network.
_UNKNOWN_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def _describe(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError() | httpx.ProxyError():
            return "the connection failed"
        case httpx.TimeoutException():
            return "the request timed out"
    return "the connection was lost"


def _address_fault(error: httpx.TransportError) -> str:
    """The fault of a URL at which there is no such service; empty if the service may only be unavailable."""
    cause: BaseException | None = error if isinstance(error, httpx.ConnectError) else None
    while cause is not None:
        match cause:
            case ConnectionRefusedError():
                return "refused the connection"
            case socket.gaierror() if cause.errno in _UNKNOWN_HOST:
                return "has an unknown host name"
            case ssl.SSLError():
                return "failed the TLS handshake"
        cause = cause.__context__
    return ""

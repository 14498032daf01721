"""A client for the service's HTTP API. Hides retries, paging and malformed responses.

Every request is idempotent; a purchase has the taskUUID as its idempotency key. Requests without a response are
therefore retried a few times with increasing backoff. `Retry-After` is honoured up to a limit.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from rushes_cli.exits import CommandError, NotAllowedError, UnavailableError, UsageError
from rushes_cli.profiles import Target

Json = dict[str, Any]
Filters = Mapping[str, str | None]
"""The query parameters that filter a list of tasks; None means no filter."""

MAX_PER_PAGE = 100
_TIMEOUT = httpx.Timeout(35.0, connect=5.0)  # API Gateway gives up after 30
_RETRIED_STATUSES = {429, 502, 503, 504}
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

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Authorization": f"Bearer {target.api_key}", "User-Agent": "rushes"}
        self._http = http_client(target, [target.url], base_url=target.url, headers=headers, timeout=_TIMEOUT)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def price(self, tasks: Sequence[Json]) -> OrderResponse:
        """Validates and prices these tasks. Nothing is recorded or bought."""
        return self._post(tasks, {"X-Runware-Dry-Run": "1"})

    def submit(self, tasks: Sequence[Json]) -> OrderResponse:
        """Orders these tasks. Raises `UnavailableError` without a response; the tasks may have been accepted."""
        return self._post(tasks, {})

    def page(self, filters: Filters, limit: int = MAX_PER_PAGE, cursor: str | None = None) -> Json:
        """One page of the caller's tasks, newest first."""
        params = {"limit": str(limit), "cursor": cursor, **filters}
        response = self._get("/tasks", {name: value for name, value in params.items() if value})
        if response is None or not isinstance(response.get("tasks"), list):
            raise CommandError(
                f"{self.target.url}/tasks did not return a list of tasks: is it the URL of a Rushes service?"
            )
        return response

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
        return self._get(f"/tasks/{task_uuid.lower()}", {})

    def require_task(self, task_uuid: str) -> Json:
        """One task, as `task` returns it. Raises `CommandError` if the caller has no task with this UUID."""
        found = self.task(task_uuid)
        if found is None:
            raise CommandError(f"You have no task {task_uuid}.")
        return found

    def costs(self, since: str, until: str) -> Iterator[Json]:
        """The counted amounts of the caller's clips between two days, one per clip, newest first; follows the pages."""
        cursor: str | None = None
        while True:
            page = self._get("/costs", {"since": since, "until": until, **({"cursor": cursor} if cursor else {})})
            if page is None or not isinstance(page.get("costs"), list):
                raise CommandError(
                    f"{self.target.url}/costs did not return a list of costs: is it the URL of a Rushes service?"
                )
            yield from page["costs"]
            cursor = page.get("cursor")
            if not cursor:
                return

    def budget(self) -> Json | None:
        """The caller's budget of this month: `month`, `spent`, `limit` and `left`, in dollars."""
        return self._get("/budget", {})

    def _post(self, tasks: Sequence[Json], headers: Mapping[str, str]) -> OrderResponse:
        # Not httpx's own encoding, which refuses NaN: validation is left to the service.
        body = json.dumps(tasks).encode()
        response = self._request("POST", "/v1", content=body, headers={"Content-Type": "application/json", **headers})
        body_json = _json_object(response)
        data, errors = body_json.get("data", []), body_json.get("errors", [])
        if not isinstance(data, list) or not isinstance(errors, list) or not (data or errors):
            raise UnavailableError(
                f"{self.target.url} responded with status {response.status_code} and an unexpected body."
            )
        return OrderResponse(data, errors)

    def _get(self, path: str, params: Mapping[str, Any]) -> Json | None:
        response = self._request("GET", path, params=params)
        if response.status_code == 404:
            return None
        body = _json_object(response)
        if response.status_code == 400:
            raise UsageError(_first_message(body) or f"{path} refused these parameters.")
        if response.status_code != 200:
            failure = UnavailableError if response.status_code >= 500 else CommandError
            raise failure(
                f"{self.target.url} responded with status {response.status_code}. {_first_message(body)}".strip()
            )
        return body

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Sends one request, with a limited number of retries."""
        problem = ""
        for pause in (*PAUSES, None):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                problem, wait = _describe(error), pause
            else:
                # A purchase's 500 may hold the outcome of its tasks; a read's holds nothing.
                if response.status_code not in _RETRIED_STATUSES and (method, response.status_code) != ("GET", 500):
                    return self._authorized(response)
                problem = _first_message(_json_object(response)) or f"status {response.status_code}"
                wait = _pause(response, pause)
            if wait is None:
                break
            time.sleep(wait)
        raise UnavailableError(f"{self.target.url} is unavailable: {problem.rstrip('.')}.")

    def _authorized(self, response: httpx.Response) -> httpx.Response:
        if response.status_code in (401, 403):
            raise NotAllowedError(f"{self.target.url} does not accept the API key of {self.target.name}.")
        return response


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
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _first_message(body: Mapping[str, Any]) -> str:
    errors = body.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return str(errors[0].get("message", ""))
    return str(body.get("message", ""))


def _pause(response: httpx.Response, pause: float | None) -> float | None:
    if pause is None:
        return None
    retry_after = response.headers.get("Retry-After", "")
    return max(pause, min(float(retry_after), _MAX_PAUSE)) if retry_after.isdigit() else pause


def _describe(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            return "the connection failed"
        case httpx.TimeoutException():
            return "the request timed out"
    return "the connection was lost"

"""The service over HTTP, as any caller reaches it. Hides retries, pages and the ways in which an answer can be none.

Every question is safe to ask twice, and so is a purchase: the taskUUID is its idempotency key. So what was not answered
is sent again a few times, with growing pauses, and a `Retry-After` is obeyed within bounds.
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
"""What narrows a list of tasks, as the service wants to be asked; None narrows nothing."""

MAX_PER_PAGE = 100
_TIMEOUT = httpx.Timeout(35.0, connect=5.0)  # API Gateway gives up after 30
_AGAIN = {429, 502, 503, 504}
PAUSES: Sequence[float] = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts
_MAX_PAUSE = 10.0


@dataclass(slots=True)
class OrderResponse:
    """What `POST /v1` said: items, and errors."""

    data: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)

    @property
    def accepted(self) -> list[str]:
        """The taskUUIDs of the items."""
        return [str(item.get("taskUUID")) for item in self.data]


class ApiClient:
    """One service and one caller's key. Safe to use from several threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Authorization": f"Bearer {target.api_key}", "User-Agent": "rushes"}
        self._http = client(target, [target.url], base_url=target.url, headers=headers, timeout=_TIMEOUT)

    def close(self) -> None:
        """Ends its connections."""
        self._http.close()

    def price(self, tasks: Sequence[Json]) -> OrderResponse:
        """What these tasks would cost, with nothing recorded and nothing bought."""
        return self._post(tasks, {"X-Runware-Dry-Run": "1"})

    def submit(self, tasks: Sequence[Json]) -> OrderResponse:
        """Orders these tasks. Raises `UnavailableError` when it stays unknown whether they arrived."""
        return self._post(tasks, {})

    def page(self, filters: Filters, limit: int = MAX_PER_PAGE, cursor: str | None = None) -> Json:
        """One page of the caller's tasks, newest first."""
        wanted = {"limit": str(limit), "cursor": cursor, **filters}
        answer = self._get("/tasks", {name: value for name, value in wanted.items() if value})
        if answer is None or not isinstance(answer.get("tasks"), list):
            raise CommandError(f"{self.target.url}/tasks is no list of tasks: is that the address of a Rushes service?")
        return answer

    def tasks(self, filters: Filters, most: int | None = None) -> Iterator[Json]:
        """The caller's tasks, newest first, page after page."""
        cursor: str | None = None
        given = 0
        while True:
            page = self.page(filters, min(MAX_PER_PAGE, most - given) if most else MAX_PER_PAGE, cursor)
            for task in page["tasks"]:
                yield task
                given += 1
                if given == most:
                    return
            cursor = page.get("cursor")
            if not cursor:
                return

    def task(self, task_uuid: str) -> Json | None:
        """One task with the timeline of its clips; None if the caller has none of this UUID."""
        return self._get(f"/tasks/{task_uuid.lower()}", {})

    def known(self, task_uuid: str) -> Json:
        """`task`, which must be there."""
        found = self.task(task_uuid)
        if found is None:
            raise CommandError(f"There is no task {task_uuid} of yours.")
        return found

    def costs(self, since: str, until: str) -> Iterator[Json]:
        """What the caller's clips of these days count, a line each, newest first, page after page."""
        cursor: str | None = None
        while True:
            page = self._get("/costs", {"since": since, "until": until, **({"cursor": cursor} if cursor else {})})
            if page is None or not isinstance(page.get("costs"), list):
                raise CommandError(f"{self.target.url}/costs tells no costs: is that the address of a Rushes service?")
            yield from page["costs"]
            cursor = page.get("cursor")
            if not cursor:
                return

    def budget(self) -> Json | None:
        """The caller's month: spent, limit and left."""
        return self._get("/budget", {})

    def _post(self, tasks: Sequence[Json], headers: Mapping[str, str]) -> OrderResponse:
        # Not httpx's own encoding: whether NaN is a number is for the service to say.
        body = json.dumps(tasks).encode()
        response = self._asked("POST", "/v1", content=body, headers={"Content-Type": "application/json", **headers})
        said = _envelope(response)
        data, errors = said.get("data", []), said.get("errors", [])
        if not isinstance(data, list) or not isinstance(errors, list) or not (data or errors):
            raise UnavailableError(f"{self.target.url} answered {response.status_code} with something unexpected.")
        return OrderResponse(data, errors)

    def _get(self, path: str, params: Mapping[str, Any]) -> Json | None:
        response = self._asked("GET", path, params=params)
        if response.status_code == 404:
            return None
        said = _envelope(response)
        if response.status_code == 400:
            raise UsageError(_first(said) or f"{path} cannot be asked like that.")
        if response.status_code != 200:
            raise CommandError(f"{self.target.url} answered {response.status_code}. {_first(said)}".strip())
        return said

    def _asked(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer, after as many attempts as it takes, within bounds."""
        trouble = ""
        for pause in (*PAUSES, None):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                trouble, wait = _why(error), pause
            else:
                if response.status_code not in _AGAIN:
                    return self._admitted(response)
                trouble = _first(_envelope(response)) or f"it answered {response.status_code}"
                wait = _pause(response, pause)
            if wait is None:
                break
            time.sleep(wait)
        raise UnavailableError(f"{self.target.url} cannot serve this now: {trouble.rstrip('.')}.")

    def _admitted(self, response: httpx.Response) -> httpx.Response:
        if response.status_code in (401, 403):
            raise NotAllowedError(f"{self.target.url} does not accept the API key of {self.target.name}.")
        return response


def client(target: Target, urls: Iterable[str], **options: Any) -> httpx.Client:
    """A client for addresses that a service has to do with."""
    # To read the certificates takes longer than most requests to this machine do.
    verify = not target.is_here or any(not url.startswith("http://") for url in urls)
    # The developer's proxies know no way to this machine.
    return httpx.Client(verify=verify, trust_env=not target.is_here, **options)


def refusal(error: Mapping[str, Any]) -> str:
    """An entry of `errors` for people."""
    parameter = error.get("parameter")
    named = ", ".join(parameter) if isinstance(parameter, list) else parameter
    where = f" ({named})" if named else ""
    return f"{error.get('code', 'error')}{where}: {error.get('message', 'no message')}"


def _envelope(response: httpx.Response) -> Json:
    try:
        said = response.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _first(said: Mapping[str, Any]) -> str:
    errors = said.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return str(errors[0].get("message", ""))
    return str(said.get("message", ""))


def _pause(response: httpx.Response, pause: float | None) -> float | None:
    if pause is None:
        return None
    wanted = response.headers.get("Retry-After", "")
    return max(pause, min(float(wanted), _MAX_PAUSE)) if wanted.isdigit() else pause


def _why(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            return "nobody answers there"
        case httpx.TimeoutException():
            return "the answer took too long"
    return "the connection was lost"

"""Sending to Runware, over an httpx client that is handed in. Decides nothing: `outcomes` says what an answer proves.

There is no retry here and no kept connection. A connection kept open may be closed by the other side just as a request
goes out; the error would be ambiguous where a fresh connection would have failed before the first byte. One TLS
handshake a clip is a small price for that.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from rushes.errors import ProviderError
from rushes.redaction import Redactor, secrets_in
from rushes.runware.answers import Report, read_report
from rushes.runware.outcomes import Ambiguous, NeverArrived, Outcome, read_answer

_LARGEST_ANSWER = 4 * 1024 * 1024  # bytes


def http_client(timeout: float) -> httpx.Client:
    """A client for `Runware`; `timeout` in seconds bounds the whole exchange's every single step."""
    return httpx.Client(
        timeout=timeout,
        limits=httpx.Limits(max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=False,
    )


class Runware:
    """Runware's API. The key comes with every call, since it may be changed while this runs.

    `elapsed` gives seconds from any fixed point. An answer that drips in is given up when the client's timeout is over,
    though each single read was in time.
    """

    def __init__(self, http: httpx.Client, url: str, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._http, self._url, self._elapsed = http, url, elapsed

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """Sends one clip's order, once, and says what the answer proves. Never raises for anything Runware does."""
        try:
            status, body = self._post([task], key)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return NeverArrived(type(error).__name__)
        except httpx.HTTPError as error:
            return Ambiguous(type(error).__name__)
        return read_answer(status, body, task["taskUUID"], Redactor([key, *secrets_in(dict(task))]))

    def poll(self, task_uuids: Sequence[str], key: str) -> Report:
        """What Runware knows of these tasks (`getResponse`), in one request; raises `ProviderError`."""
        return self._ask("getResponse", task_uuids, key)

    def details(self, task_uuid: str, key: str) -> Report:
        """The stored request and last response of one task (`getTaskDetails`); raises `ProviderError`."""
        return self._ask("getTaskDetails", [task_uuid], key)

    def _ask(self, task_type: str, task_uuids: Sequence[str], key: str) -> Report:
        try:
            status, body = self._post([{"taskType": task_type, "taskUUID": uuid} for uuid in task_uuids], key)
        except httpx.HTTPError as error:
            raise ProviderError(type(error).__name__) from None
        return read_report(status, body, Redactor([key]))

    def _post(self, tasks: Sequence[Mapping[str, Any]], key: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        content = json.dumps(tasks, ensure_ascii=False).encode()
        ends_at = self._elapsed() + (self._http.timeout.read or 0)
        with self._http.stream("POST", self._url, content=content, headers=headers) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _LARGEST_ANSWER:
                    raise httpx.DecodingError("the answer is too large")
                if self._elapsed() > ends_at:
                    raise httpx.ReadTimeout("the answer takes too long")
            return response.status_code, bytes(body)

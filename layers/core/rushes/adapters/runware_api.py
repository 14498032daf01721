"""Sending to Runware, over an httpx client that is handed in. Decides nothing: `outcomes` says what an answer proves.

There is no retry here and no kept connection. A connection kept open may be closed by the other side just as a request
goes out; the error would be ambiguous where a fresh connection would have failed before the first byte. One TLS
handshake a clip is a small price for that.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from rushes.adapters.bounded_http import bounded_transport
from rushes.domain.redaction import Redactor, secrets_in
from rushes.errors import ProviderError
from rushes.runware.outcome import Ambiguous, NeverArrived, Outcome, read_answer
from rushes.runware.response import LookupResponse, read_lookup

_MAX_ANSWER_BYTES = 4 * 1024 * 1024  # bytes, as sent and as decompressed
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def http_client(timeout: float) -> httpx.Client:
    """A client for Runware and for rescues; `timeout` in seconds bounds the whole exchange, however it drips."""
    return httpx.Client(timeout=timeout, transport=bounded_transport(), follow_redirects=False, trust_env=False)


class RunwareClient:
    """Runware's API. The key comes with every call, since it may be changed while this runs."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http, self._url = http, url

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """Sends one clip's order, once, and says what the answer proves. Never raises for anything Runware does."""
        try:
            status, body = self._post([task], key)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return NeverArrived(type(error).__name__)
        except Exception as error:  # whatever it is, bytes may have gone out
            return Ambiguous(type(error).__name__)
        return read_answer(status, body, task["taskUUID"], Redactor([key, *secrets_in(dict(task))]))

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse:
        """What Runware knows of these tasks (`getResponse`), in one request; raises `ProviderError`."""
        return self._ask("getResponse", task_uuids, key)

    def details(self, task_uuid: str, key: str) -> LookupResponse:
        """The stored request and last response of one task (`getTaskDetails`); raises `ProviderError`."""
        return self._ask("getTaskDetails", [task_uuid], key)

    def _ask(self, task_type: str, task_uuids: Sequence[str], key: str) -> LookupResponse:
        try:
            status, body = self._post([{"taskType": task_type, "taskUUID": uuid} for uuid in task_uuids], key)
        except Exception as error:  # whatever it is, there is no answer
            raise ProviderError(type(error).__name__) from None
        return read_lookup(status, body, Redactor([key]))

    def _post(self, tasks: Sequence[Mapping[str, Any]], key: str) -> tuple[int, bytes]:
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        content = json.dumps(tasks, ensure_ascii=False).encode()
        with self._http.stream("POST", self._url, content=content, headers=headers) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise httpx.DecodingError("the answer is too large")
            return response.status_code, _decoded(bytes(body), response.headers.get("Content-Encoding", ""))


def _decoded(body: bytes, coding: str) -> bytes:
    """The answer in clear. Compression was not asked for; what comes compressed once, all the same, is read."""
    match coding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "deflate":
            try:
                reader = zlib.decompressobj(_GZIP_OR_ZLIB)
                clear = reader.decompress(body, _MAX_ANSWER_BYTES)
            except zlib.error:
                raise httpx.DecodingError("the answer is not compressed as it says") from None
            if reader.eof:
                return clear
    raise httpx.DecodingError("the answer is too large, cut off, or compressed in another way")

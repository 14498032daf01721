"""Requests to Runware's API over an injected httpx client. The responses are interpreted in `runware.outcome`.

There are no retries and no keep-alive. A kept connection may be closed by the server while a request is sent, and that
error is ambiguous; a new connection fails before the first byte. The price is one TLS handshake for each request.
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
    """A client for Runware and for rescues; `timeout`, in seconds, limits the whole exchange."""
    return httpx.Client(timeout=timeout, transport=bounded_transport(), follow_redirects=False, trust_env=False)


class RunwareClient:
    """Runware's API. Each call has the key as an argument, because the key may change at run time."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http, self._url = http, url

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        """Sends the order of one clip once and returns its outcome. Never raises, whatever Runware answers."""
        try:
            status, body = self._post([task], key)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return NeverArrived(type(error).__name__)
        except Exception as error:  # of any kind: bytes may have been sent
            return Ambiguous(type(error).__name__)
        return read_answer(status, body, task["taskUUID"], Redactor([key, *secrets_in(dict(task))]))

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse:
        """Runware's response about these tasks (`getResponse`), in one request; raises `ProviderError`."""
        return self._look_up("getResponse", task_uuids, key)

    def details(self, task_uuid: str, key: str) -> LookupResponse:
        """The stored request and last response of one task (`getTaskDetails`); raises `ProviderError`."""
        return self._look_up("getTaskDetails", [task_uuid], key)

    def _look_up(self, task_type: str, task_uuids: Sequence[str], key: str) -> LookupResponse:
        try:
            status, body = self._post([{"taskType": task_type, "taskUUID": uuid} for uuid in task_uuids], key)
        except Exception as error:  # of any kind: there is no answer
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
    """The decompressed body. Compression is not requested, but a body that is compressed once is accepted."""
    match coding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "deflate":
            try:
                reader = zlib.decompressobj(_GZIP_OR_ZLIB)
                decompressed = reader.decompress(body, _MAX_ANSWER_BYTES)
            except zlib.error:
                raise httpx.DecodingError("the answer is not compressed as declared") from None
            if reader.eof:
                return decompressed
    raise httpx.DecodingError("the answer is too large, cut off, or compressed in another way")

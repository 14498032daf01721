"""The client's retries: a read that the service failed to answer is repeated, and its end is "unavailable"."""

from typing import Any

import httpx
import pytest

from rushes_cli import api_client
from rushes_cli.exits import UnavailableError
from rushes_cli.profiles import Target


def _client(monkeypatch: pytest.MonkeyPatch, statuses: list[int]) -> api_client.ApiClient:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(statuses.pop(0) if len(statuses) > 1 else statuses[0], json={"tasks": []})

    def http_client(_target: Target, _urls: object, **options: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(api_client, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(api_client, "http_client", http_client)
    target = object.__new__(Target)
    for name, value in {"url": "https://service.example", "api_key": "key", "name": "test"}.items():
        object.__setattr__(target, name, value)
    return api_client.ApiClient(target)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_read_is_repeated_after_a_server_error(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    assert _client(monkeypatch, [status, 200]).page({}) == {"tasks": []}


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504])
def test_a_lasting_server_error_is_unavailable(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with pytest.raises(UnavailableError):
        _client(monkeypatch, [status]).page({})

"""The client's retries, and the errors of a service that is unavailable, refuses, or is none."""

import socket
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rushes_cli import api_client
from rushes_cli.exits import CommandError, NotAllowedError, UnavailableError, UsageError
from rushes_cli.profiles import Target

URL = "https://service.example"
Answer = Callable[[httpx.Request], httpx.Response]


def client(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> api_client.ApiClient:
    """A client whose requests have these answers."""

    def http_client(_target: Target, _urls: object, **options: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(api_client, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(api_client, "http_client", http_client)
    return api_client.ApiClient(Target("test", URL, "key"))


def answers(*given: tuple[int, Any] | Exception) -> Answer:
    """These answers one after the other; the last one is repeated."""
    left = list(given)

    def answer(_: httpx.Request) -> httpx.Response:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return httpx.Response(found[0], json=found[1])

    return answer


def failed(cause: Exception) -> httpx.ConnectError:
    """A failed connection as httpx raises it, in the context of the system's error."""
    error = httpx.ConnectError(str(cause))
    error.__context__ = cause
    return error


def errors(code: str, message: str = "Busy.", **more: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message, **more}]}


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504])
def test_a_server_error_is_retried(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A read is repeated after a server error, which is unavailability if it lasts."""
    assert client(monkeypatch, answers((status, {}), (200, {"tasks": []}))).page({}) == {"tasks": []}
    with pytest.raises(UnavailableError, match=f"is unavailable: status {status}\\.$"):
        client(monkeypatch, answers((status, {}))).page({})


# ----------------------------------------------------------------------------------------------------------------------
# Orders
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 402, 429, 500, 503])
def test_a_refusal_is_the_outcome_of_an_order(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A refusal of a task is returned at once, whatever its status."""
    body = errors("providerAccountRefused", taskUUID="u")
    response = client(monkeypatch, answers((status, body), (200, {"data": [{}]}))).submit([{}])
    assert (response.data, response.errors) == ([], body["errors"])


@pytest.mark.parametrize("code", ["serviceUnavailable", "serviceNotConfigured"])
@pytest.mark.parametrize("status", [200, 400, 503])
def test_a_busy_service_is_no_outcome(monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> None:
    """A task for which the service was busy has no outcome, also beside tasks that have one."""
    body = {"data": [{"taskUUID": "a"}], **errors(code, taskUUID="b")}
    done = {"data": [{"taskUUID": "a"}, {"taskUUID": "b"}]}
    assert client(monkeypatch, answers((status, body), (200, done))).submit([{}, {}]).accepted == ["a", "b"]
    with pytest.raises(UnavailableError, match=r": Busy\.$") as caught:
        client(monkeypatch, answers((status, body))).submit([{}, {}])
    assert caught.value.sent


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([httpx.ConnectError("")], False),
        ([httpx.ConnectTimeout("")], False),
        ([httpx.ReadTimeout(""), httpx.ConnectError("")], True),
        ([httpx.RemoteProtocolError("")], True),
        ([(503, {}), httpx.ConnectError("")], True),
    ],
)
def test_only_a_failed_connection_proves_that_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch, given: list[Any], sent: bool
) -> None:
    """One request that may have arrived is enough for an order to be possibly accepted."""
    with pytest.raises(UnavailableError) as caught:
        client(monkeypatch, answers(*given)).submit([{}])
    assert caught.value.sent is sent


# ----------------------------------------------------------------------------------------------------------------------
# URLs
# ----------------------------------------------------------------------------------------------------------------------

WRONG = {
    "has an unknown host name": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "refused the connection": ConnectionRefusedError(111, "Connection refused"),
    "failed the TLS handshake": ssl.SSLCertVerificationError("certificate verify failed"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_url_without_a_service(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """An unknown host, a closed port and a wrong certificate are a wrong URL, until the service has answered once."""
    with pytest.raises(NotAllowedError, match=rf"^{URL} {fault}: is it the URL of a running Rushes service\?$"):
        client(monkeypatch, answers(failed(WRONG[fault]))).page({})
    later = client(monkeypatch, answers((200, {"tasks": []}), failed(WRONG[fault])))
    later.page({})
    with pytest.raises(UnavailableError, match="the connection failed"):
        later.page({})


@pytest.mark.parametrize("cause", [socket.gaierror(socket.EAI_AGAIN, "Try again"), OSError(101, "unreachable")])
def test_a_machine_without_a_network(monkeypatch: pytest.MonkeyPatch, cause: OSError) -> None:
    """A network failure is no sign of a wrong URL."""
    with pytest.raises(UnavailableError, match="the connection failed"):
        client(monkeypatch, answers(failed(cause))).page({})


def test_a_proxy_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign answer after one of the service is unavailability: a proxy, not a wrong URL."""
    service = client(monkeypatch, answers((200, {"tasks": []}), (404, {"message": "Not Found"})))
    service.page({})
    with pytest.raises(UnavailableError, match="not as a Rushes service does"):
        service.task("3fa85f64-5717-4562-b3fc-2c963f66afa6")


def test_an_unknown_task_is_the_services_own_404(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the service's own error means that there is no such task; a 404 of another host does not."""
    assert client(monkeypatch, answers((404, errors("taskNotFound")))).task("u") is None
    with pytest.raises(NotAllowedError):
        client(monkeypatch, answers((404, {}))).task("u")


# ----------------------------------------------------------------------------------------------------------------------
# Sentences
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["Not now", "Not now.", "Not now:", "Not now. ", "Not now.."])
@pytest.mark.parametrize(("status", "code"), [(400, "x"), (409, "x"), (503, "serviceUnavailable")])
def test_a_sentence_ends_once(monkeypatch: pytest.MonkeyPatch, message: str, status: int, code: str) -> None:
    """A message of the service ends with one full stop."""
    with pytest.raises(CommandError, match=r"(^|: )Not now\.$") as caught:
        client(monkeypatch, answers((status, errors(code, message)))).page({})
    assert isinstance(caught.value, UsageError) == (status == 400)

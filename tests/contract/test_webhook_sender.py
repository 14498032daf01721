"""Deliveries over real sockets: receivers that hang, redirect, lie or close early, and forbidden addresses."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpcore
import pytest

from rushes.adapters.webhook_sender import WebhookSender
from rushes.domain.delivery import Reply
from tests.fakes.builders import START

Answer = Callable[[socket.socket], None]


class Receiver:
    """A server on this machine that reads each request and answers with `answer`; keeps the requests."""

    def __init__(self) -> None:
        self.answer: Answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?token=sesame-sesame-sesame"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                request = b""
                try:
                    while b"\r\n\r\n{}" not in request:
                        request += connection.recv(65_536) or b"\r\n\r\n{}"
                    self.requests.append(request)
                    self.answer(connection)
                except OSError:
                    pass


def raw(answer: bytes) -> Answer:
    """An answer of exactly these bytes, after which the connection is closed."""
    return lambda connection: connection.sendall(answer)


def drip(connection: socket.socket) -> None:
    """One byte of a header at a time, until the sender closes the connection."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    pause = threading.Event()
    while not pause.wait(0.05):
        connection.sendall(b"x")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def send(receiver: Receiver, timeout: float = 5, **headers: str) -> Reply:
    return WebhookSender(timeout, lambda: START, loopback=True).post(receiver.url, headers, b"{}")


def test_a_delivery_has_only_the_services_headers(receiver: Receiver) -> None:
    """The request has the given headers, the type of its body, and nothing that a caller could choose."""
    reply = send(receiver, **{"webhook-id": "7"})
    assert (reply.status, reply.excerpt, reply.failure) == (200, "ok", "")
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert (first, body) == ("POST /hook?token=sesame-sesame-sesame HTTP/1.1", b"{}")
    names = {line.partition(":")[0].lower() for line in lines}
    assert names == {"host", "content-type", "user-agent", "accept-encoding", "content-length", "webhook-id"}


@pytest.mark.parametrize(
    ("answer", "status", "failure"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", 302, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", 200, "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 200, "RemoteProtocolError"),
        (b"HTTP/1.1 two hundred\r\n\r\n", None, "RemoteProtocolError"),
        (b"", None, "RemoteProtocolError"),
        (b"SSH-2.0\r\n", None, "RemoteProtocolError"),
    ],
)
def test_a_bad_answer_is_a_reply(receiver: Receiver, answer: bytes, status: int | None, failure: str) -> None:
    """Redirects are not followed; an answer that is cut off or no HTTP is a failure with a name."""
    receiver.answer = raw(answer)
    reply = send(receiver)
    assert (reply.status, reply.failure, reply.accepted) == (status, failure, False)
    assert len(receiver.requests) == 1


def test_a_long_body_is_not_read_to_its_end(receiver: Receiver) -> None:
    """An answer of any length is a success after its first bytes."""

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)

    receiver.answer = endless
    reply = send(receiver)
    assert (reply.accepted, len(reply.excerpt)) == (True, 300)


def test_a_slow_answer_ends_at_the_deadline(receiver: Receiver) -> None:
    """A receiver that sends single bytes is given up at the timeout of the whole exchange."""
    receiver.answer = drip
    reply = send(receiver, timeout=0.5)
    assert (reply.status, reply.failure) == (None, "timeout")
    assert reply.duration < 4000


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("120", 120_000),
        ("Mon, 21 Sep 2026 14:15:00 GMT", 100_000),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 0),
        ("soon", None),
    ],
)
def test_retry_after_is_read(receiver: Receiver, header: str, pause: int | None) -> None:
    """The pause that a receiver asks for, in seconds or as a date."""
    receiver.answer = raw(f"HTTP/1.1 429 Slow\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode())
    assert send(receiver).retry_after == pause


def test_an_echo_of_the_token_is_not_recorded(receiver: Receiver) -> None:
    """A receiver that repeats its own address shows no token in the excerpt."""
    echo = b"no route for /hook?token=sesame-sesame-sesame"
    receiver.answer = raw(b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n%s" % (len(echo), echo))
    assert "sesame" not in send(receiver).excerpt


FORBIDDEN = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "192.168.0.1",
    "224.0.0.1",
    "::1",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses to which a connection was tried; none is made."""
    addresses: list[str] = []

    def connect(_: Any, host: str, *__: Any, **___: Any) -> Any:
        addresses.append(host)
        raise httpcore.ConnectError("not in this test")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    return addresses


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Makes name resolution give these answers in turn; returns the resolved names."""
    names: list[str] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        names.append(name)
        addresses = answers[min(len(names), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("written", ["literal", "name", "one of two"])
def test_a_forbidden_address_is_never_connected_to(
    address: str, written: str, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection to a private or reserved address is tried, whether it is in the URL or its name resolves to it."""
    resolve_to(monkeypatch, [address] if written == "name" else ["8.8.8.8", address])
    literal = f"[{address}]" if ":" in address else address
    host = literal if written == "literal" else "hooks.example"
    reply = WebhookSender(5, lambda: START, loopback=False).post(f"https://{host}/", {}, b"{}")
    assert (connected, reply.failure) == ([], "address not allowed")


def test_the_checked_address_is_the_connected_one(connected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose address changes after the check is not resolved a second time."""
    names = resolve_to(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    reply = WebhookSender(5, lambda: START, loopback=False).post("https://hooks.example/", {}, b"{}")
    assert (names, connected, reply.failure) == (["hooks.example"], ["8.8.8.8"], "connection failed")


def test_a_listener_on_this_machine_gets_nothing(receiver: Receiver) -> None:
    """Without the local stack's setting, a receiver on this machine sees no connection."""
    sender = WebhookSender(5, lambda: START, loopback=False)
    for host in ("127.0.0.1", "localhost"):
        assert sender.post(f"http://{host}:{receiver.port}/", {}, b"{}").failure == "address not allowed"
    assert receiver.requests == []

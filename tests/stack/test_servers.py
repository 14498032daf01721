"""The server: requests that are answered at once, beside those that may wait."""

import socket
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from rushes_local.servers import Server


class Application:
    """Answers with the path, on `/waits` not before it is told to."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.waiting = threading.Event()
        self.threads: dict[str, str] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.threads[path] = threading.current_thread().name
        if path == "/waits":
            self.waiting.set()
            assert self.told.wait(10)
        start_response("200 OK", [("content-length", str(len(path)))])
        return [path.encode()]


def quick(headers: Mapping[str, str]) -> bool:
    return "QUICK" in headers


def test_at_once_needs_no_thread() -> None:
    """While every thread waits, what is to be answered at once still is, by the server's own thread."""
    application = Application()
    with Server(application, name="test", threads=1, at_once=quick) as server:
        slow = threading.Thread(target=httpx.get, args=(f"{server.url}/waits",))
        slow.start()
        assert application.waiting.wait(10)
        assert httpx.get(f"{server.url}/quick", headers={"Quick": "1"}).text == "/quick"
        application.told.set()
        slow.join(10)
    assert application.threads["/quick"] == "server-test"
    assert application.threads["/waits"] != "server-test"


def test_one_connection_with_both() -> None:
    """Requests that come together over one connection are answered in their order, whoever answers them."""
    application = Application()
    application.told.set()
    paths = ["/quick", "/waits", "/quick/2", "/quick/3", "/last"]
    requests = [
        f"GET {path} HTTP/1.1\r\nHost: test\r\n{'Quick: 1' if 'quick' in path else 'Slow: 1'}\r\n\r\n" for path in paths
    ]
    with (
        Server(application, name="test", at_once=quick) as server,
        socket.create_connection(("127.0.0.1", server.port), 10) as connection,
    ):
        connection.sendall("".join(requests).encode())
        received = b""
        while not received.endswith(b"/last"):
            received += connection.recv(65536)
    assert [answer.partition("\r\n\r\n")[2] for answer in received.decode().split("HTTP/1.1 200 OK")[1:]] == paths

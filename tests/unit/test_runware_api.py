"""Requests to Runware: the outcome of every kind of failure, over real sockets where the difference arises there."""

import gzip
import json
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rushes.adapters import bounded_http
from rushes.adapters.runware_api import RunwareClient, http_client
from rushes.errors import ProviderError
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome, Refused
from tests.fakes.builders import CLIP_UUID, request
from tests.fakes.use_cases import transport

TASK = request(taskUUID=CLIP_UUID)
ACK = json.dumps({"data": [{"taskUUID": CLIP_UUID}]}).encode()
REFUSAL = json.dumps({"errors": [{"taskUUID": CLIP_UUID, "code": "invalidModel"}]}).encode()
CLIENT_TIMEOUT = 0.25  # seconds
MAX_DURATION = 5  # seconds: less than any behaviour here lasts, and enough on a busy machine
Behaviour = Callable[[socket.socket, threading.Event], None]


class Server:
    """Accepts connections and handles each with one behaviour, until it is closed."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.closing_down = threading.Event()
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing_down.set()
        with closing(socket.create_connection(("127.0.0.1", self.port))):
            self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self.closing_down.is_set():
                    return
                self.connections += 1
                connection.settimeout(30)
                with suppress(OSError):  # the client may close the connection
                    self._behaviour(connection, self.closing_down)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Server]:
    server = Server(behaviour)
    try:
        yield server
    finally:
        server.close()


def submit_to(url: str) -> Outcome:
    with http_client(CLIENT_TIMEOUT) as http:
        return RunwareClient(http, url).submit(TASK, "key")


def mocked(handler: Callable[[httpx.Request], httpx.Response]) -> RunwareClient:
    return RunwareClient(httpx.Client(transport=transport(handler)), "https://api.example/v1")


def read_request(connection: socket.socket) -> bytes:
    """One whole HTTP request."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = sum(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answering(raw: bytes) -> Behaviour:
    """Reads the request, sends these bytes, and closes."""

    def behave(connection: socket.socket, _: threading.Event) -> None:
        read_request(connection)
        connection.sendall(raw)

    return behave


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def stall(connection: socket.socket, over: threading.Event) -> None:
    """Reads the request and sends nothing."""
    read_request(connection)
    over.wait(30)


def stall_at_once(_: socket.socket, over: threading.Event) -> None:
    """Accepts the connection and neither reads nor sends."""
    over.wait(30)


def stall_in_the_body(connection: socket.socket, over: threading.Event) -> None:
    """Sends most of a good answer and stops."""
    read_request(connection)
    connection.sendall(answer("200 OK", ACK)[:-5])
    over.wait(30)


def reset(connection: socket.socket, _: threading.Event) -> None:
    """Reads the request and resets the connection."""
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def trickle(first: bytes, piece: bytes) -> Behaviour:
    """Sends an answer without an end, in pieces that come before the timeout of a single read."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        read_request(connection)
        connection.sendall(first)
        for _ in range(200):
            connection.sendall(piece)
            if over.wait(CLIENT_TIMEOUT / 5):
                return

    return behave


def read_slowly(connection: socket.socket, over: threading.Event) -> None:
    """Reads a request without an end, in pieces that come before the timeout of a single write."""
    while not over.wait(CLIENT_TIMEOUT / 5):
        connection.recv(1_000_000)


OK = b"HTTP/1.1 200 OK\r\n"
SLOW_ANSWERS = {
    "headers": trickle(OK, b"X: y\r\n"),
    "one header": trickle(OK + b"X: ", b"y"),
    "status line": trickle(b"", b"H"),
    "1xx": trickle(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "many 1xx": trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "body": trickle(OK + b"Content-Length: 1000\r\n\r\n", b" "),
    "chunks": trickle(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "body without a length": trickle(OK + b"\r\n", b" "),
    "nothing": stall_at_once,
}


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (answer("200 OK", ACK), Accepted("acknowledged")),
        (answer("200 OK", gzip.compress(ACK), "Content-Encoding: gzip"), Accepted("acknowledged")),
        (answer("200 OK", b"not gzip", "Content-Encoding: gzip"), Ambiguous),
        (answer("200 OK", ACK)[:-3], Ambiguous),
        (answer("400 Bad Request", REFUSAL), Refused),
        (answer("400 Bad Request", REFUSAL)[:-3], Ambiguous),
        (answer("302 Found", b"", "Location: https://127.0.0.1:1/"), Ambiguous),
        (answer("307 Temporary Redirect", REFUSAL, "Location: /v1"), Ambiguous),
        (answer("503 Service Unavailable", b""), Ambiguous),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Ambiguous),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Ambiguous),
        (b"", Ambiguous),
        (b"HTTP/1.1 200", Ambiguous),
        (b"nonsense\r\n\r\n", Ambiguous),
        (b"\x00\xff" * 1000, Ambiguous),
    ],
    ids=range(15),
)
def test_each_answer_has_its_outcome(raw: bytes, outcome: object) -> None:
    """Every answer has its outcome after one single request, without a retry or a redirect."""
    with serving(answering(raw)) as server:
        received = submit_to(f"http://127.0.0.1:{server.port}/v1")
        assert received == outcome or (isinstance(outcome, type) and isinstance(received, outcome)), received
        assert server.connections == 1


@pytest.mark.parametrize("behaviour", [stall, stall_at_once, stall_in_the_body, reset, lambda *_: None])
def test_every_failure_after_the_connection_is_ambiguous(behaviour: Behaviour) -> None:
    """A stall, a reset or a close proves nothing once bytes may have been sent, and is not retried."""
    with serving(behaviour) as server:
        started = time.monotonic()
        assert isinstance(submit_to(f"http://127.0.0.1:{server.port}/v1"), Ambiguous)
        assert time.monotonic() - started < MAX_DURATION
        assert server.connections == 1


@pytest.mark.parametrize("slow", SLOW_ANSWERS)
def test_a_slow_answer_ends_with_the_timeout(slow: str) -> None:
    """The whole exchange ends about at the HTTP timeout, since the lease and the function depend on it."""
    with serving(SLOW_ANSWERS[slow]) as server:
        started = time.monotonic()
        assert submit_to(f"http://127.0.0.1:{server.port}/v1") == Ambiguous("ReadTimeout")
        assert time.monotonic() - started < MAX_DURATION
        with http_client(CLIENT_TIMEOUT) as http, pytest.raises(ProviderError, match="ReadTimeout"):
            RunwareClient(http, f"http://127.0.0.1:{server.port}/v1").poll([CLIP_UUID], "key")


def test_a_slow_send_ends_with_the_timeout() -> None:
    """The whole send has the timeout as well, and its sent part proves nothing."""
    large = {**TASK, "positivePrompt": "x" * 20_000_000}
    with serving(read_slowly) as server, http_client(CLIENT_TIMEOUT) as http:
        started = time.monotonic()
        assert RunwareClient(http, f"http://127.0.0.1:{server.port}/v1").submit(large, "key") == Ambiguous(
            "WriteTimeout"
        )
        assert time.monotonic() - started < MAX_DURATION


def test_a_connection_that_is_never_accepted() -> None:
    """The system accepts the connection and the bytes, but no program reads them: they may arrive later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        started = time.monotonic()
        assert submit_to(f"http://127.0.0.1:{port}/v1") == Ambiguous("ReadTimeout")
        assert submit_to(f"https://127.0.0.1:{port}/v1") == NeverArrived("ConnectTimeout")
        assert time.monotonic() - started < MAX_DURATION


def test_eight_concurrent_requests_take_no_longer_than_one() -> None:
    """Each request has its own timeout and waits for no other."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads, http_client(CLIENT_TIMEOUT) as http:
        servers = [stack.enter_context(serving(SLOW_ANSWERS["headers"])) for _ in range(8)]
        clients = [RunwareClient(http, f"http://127.0.0.1:{server.port}/v1") for server in servers]
        started = time.monotonic()
        outcomes = list(threads.map(lambda runware: runware.submit(TASK, "key"), clients))
        assert outcomes == [Ambiguous("ReadTimeout")] * 8
        assert time.monotonic() - started < MAX_DURATION


def test_a_slow_name_lookup_never_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name lookup cannot be cancelled, but it is not waited for, and few of them run in the background."""
    answer, lookups_begun = threading.Event(), threading.Semaphore(0)

    def resolve(*_: object, **__: object) -> list[object]:
        lookups_begun.release()
        answer.wait(30)
        return []

    monkeypatch.setattr(bounded_http, "_lookups", threading.BoundedSemaphore(2))
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    before = threading.active_count()
    with http_client(0.05) as http:
        runware = RunwareClient(http, "https://api.example/v1")
        assert [runware.submit(TASK, "key") for _ in range(5)] == [NeverArrived("ConnectTimeout")] * 5
    assert threading.active_count() <= before + 2
    answer.set()
    for _ in range(2):
        assert lookups_begun.acquire(timeout=5)
    assert not lookups_begun.acquire(blocking=False)
    for _ in range(2):
        assert bounded_http._lookups.acquire(timeout=5), "a lookup that ended makes room for others"


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses the first that accepts the connection is used, within the one timeout."""
    with serving(answering(answer("200 OK", ACK))) as server:
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]
        genuine = socket.getaddrinfo

        def resolve(host: str, *rest: Any, **more: Any) -> Any:
            return addresses if host == "api.example" else genuine(host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert submit_to(f"http://api.example:{server.port}/v1") == Accepted("acknowledged")


def test_a_refused_connection_never_arrived() -> None:
    """Without a listener nothing was sent."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        assert submit_to(f"http://127.0.0.1:{unused.getsockname()[1]}/v1") == NeverArrived("ConnectError")


def test_an_unknown_name_never_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the name cannot be resolved nothing was sent."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert submit_to("https://api.example/v1") == NeverArrived("ConnectError")


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], Behaviour]:
    """Wraps a behaviour in TLS, with a certificate that new clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = tmp_path / "chain.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cafile=str(chain))
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: client)

    def with_tls(behaviour: Behaviour) -> Behaviour:
        def behave(connection: socket.socket, over: threading.Event) -> None:
            with server.wrap_socket(connection, server_side=True) as secure:
                behaviour(secure, over)

        return behave

    return with_tls


def test_without_a_handshake_no_certificates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client reads no certificates until it uses TLS."""
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: pytest.fail("the certificates were read"))
    with serving(answering(answer("200 OK", ACK))) as server, http_client(MAX_DURATION) as http:
        assert RunwareClient(http, f"http://127.0.0.1:{server.port}/v1").submit(TASK, "key") == Accepted("acknowledged")


def test_a_certificate_of_an_unknown_authority_is_refused(
    trusted: Callable[[Behaviour], Behaviour], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is not sent to a server with a certificate of an unknown authority."""
    monkeypatch.undo()  # a deployed client does not trust the server's certificate
    with serving(trusted(answering(answer("200 OK", ACK)))) as server, http_client(MAX_DURATION) as http:
        outcome = RunwareClient(http, f"https://127.0.0.1:{server.port}/v1").submit(TASK, "key")
    assert outcome == NeverArrived("ConnectError")


def test_an_order_goes_over_tls(trusted: Callable[[Behaviour], Behaviour]) -> None:
    """A large order is sent whole over TLS, and its answer is read."""
    seen: list[bytes] = []

    def behave(connection: socket.socket, _: threading.Event) -> None:
        seen.append(read_request(connection))
        connection.sendall(answer("200 OK", ACK))

    large = {**TASK, "positivePrompt": "x" * 1_000_000}
    with serving(trusted(behave)) as server, http_client(MAX_DURATION) as http:
        outcome = RunwareClient(http, f"https://127.0.0.1:{server.port}/v1").submit(large, "key")
    assert outcome == Accepted("acknowledged")
    assert json.loads(seen[0].partition(b"\r\n\r\n")[2]) == [large]


@pytest.mark.parametrize("slow", ["headers", "1xx", "body"])
def test_a_slow_answer_over_tls_ends_with_the_timeout(trusted: Callable[[Behaviour], Behaviour], slow: str) -> None:
    """The timeout holds for the connection below TLS as well."""
    with serving(trusted(SLOW_ANSWERS[slow])) as server, http_client(4 * CLIENT_TIMEOUT) as http:
        started = time.monotonic()
        outcome = RunwareClient(http, f"https://127.0.0.1:{server.port}/v1").submit(TASK, "key")
        assert outcome == Ambiguous("ReadTimeout")
        assert time.monotonic() - started < MAX_DURATION


def test_a_slow_handshake_never_arrived() -> None:
    """The whole handshake has the timeout."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KB
        while not over.wait(CLIENT_TIMEOUT / 5):
            connection.sendall(b"\x00")

    with serving(behave) as server:
        started = time.monotonic()
        assert submit_to(f"https://127.0.0.1:{server.port}/v1") == NeverArrived("ConnectTimeout")
        assert time.monotonic() - started < MAX_DURATION


def test_a_failed_tls_handshake_never_arrived() -> None:
    """A server without TLS never receives the request."""

    def behave(connection: socket.socket, _: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(answer("400 Bad Request", REFUSAL))

    with serving(behave) as server:
        assert submit_to(f"https://127.0.0.1:{server.port}/v1") == NeverArrived("ConnectError")
        assert server.connections == 1


@pytest.mark.parametrize("behaviour", [stall_at_once, lambda *_: None])
def test_a_tls_handshake_that_does_not_end_never_arrived(behaviour: Behaviour) -> None:
    """A handshake that stalls or is cut off ends before the first byte of the request."""
    with serving(behaviour) as server:
        assert isinstance(submit_to(f"https://127.0.0.1:{server.port}/v1"), NeverArrived)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (httpx.ConnectError, NeverArrived),
        (httpx.ConnectTimeout, NeverArrived),
        (httpx.PoolTimeout, NeverArrived),
        (httpx.ReadError, Ambiguous),
        (httpx.ReadTimeout, Ambiguous),
        (httpx.WriteError, Ambiguous),
        (httpx.WriteTimeout, Ambiguous),
        (httpx.CloseError, Ambiguous),
        (httpx.RemoteProtocolError, Ambiguous),
        (httpx.ProxyError, Ambiguous),
        (httpx.DecodingError, Ambiguous),
        (httpx.TooManyRedirects, Ambiguous),
    ],
)
def test_each_error_of_the_transport_has_its_outcome(error: type[httpx.RequestError], outcome: type) -> None:
    """Only failures before the first byte never arrived; the reason is the error's type without its message."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise error("with a secret")

    assert mocked(fail).submit(TASK, "key") == outcome(error.__name__)


def test_one_task_is_sent_with_the_key() -> None:
    """The body is an array of the one task in UTF-8, the key a bearer token."""
    seen: list[httpx.Request] = []

    def accept(sent: httpx.Request) -> httpx.Response:
        seen.append(sent)
        return httpx.Response(200, content=ACK)

    task = {**TASK, "positivePrompt": "ä \U0001f3ac"}
    assert mocked(accept).submit(task, "key") == Accepted("acknowledged")
    (sent,) = seen
    assert (sent.method, str(sent.url)) == ("POST", "https://api.example/v1")
    assert sent.headers["accept-encoding"] == "identity"
    assert (sent.headers["authorization"], sent.headers["content-type"]) == ("Bearer key", "application/json")
    assert json.loads(sent.content) == [task]


def test_every_request_has_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is reused, which could be closed just as the next request is sent, and no proxy is used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    def keep_alive(connection: socket.socket, over: threading.Event) -> None:
        read_request(connection)
        connection.sendall(answer("200 OK", ACK, "Connection: keep-alive"))
        assert connection.recv(1) == b"", "a second request came on the same connection"

    with serving(keep_alive) as server, http_client(CLIENT_TIMEOUT) as http:
        runware = RunwareClient(http, f"http://127.0.0.1:{server.port}/v1")
        assert [runware.submit(TASK, "key") for _ in range(2)] == [Accepted("acknowledged")] * 2
        assert server.connections == 2


def test_an_endless_answer_is_ambiguous() -> None:
    """An answer of more than a few megabytes is not read to its end and proves nothing."""
    padded = ACK + b" " * 5 * 1024 * 1024
    runware = mocked(lambda _: httpx.Response(200, stream=httpx.ByteStream(padded)))
    assert runware.submit(TASK, "key") == Ambiguous("DecodingError")


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (gzip.compress(bytes(5 * 1024 * 1024)), "gzip"),
        (gzip.compress(gzip.compress(bytes(64 * 1024 * 1024))), "gzip, gzip"),
        (gzip.compress(ACK)[:-9], "gzip"),
        (ACK, "gzip"),
        (ACK, "br"),
        (ACK, "zstd"),
        (ACK, "nonsense"),
    ],
    ids=["a bomb", "a bomb in a bomb", "cut off", "not gzip", "br", "zstd", "unknown"],
)
def test_a_compressed_answer_is_bounded(body: bytes, coding: str) -> None:
    """No compression is requested; a compressed answer is read within the bound, or not at all."""
    with serving(answering(answer("200 OK", body, f"Content-Encoding: {coding}"))) as server, http_client(5) as http:
        runware = RunwareClient(http, f"http://127.0.0.1:{server.port}/v1")
        assert runware.submit(TASK, "key") == Ambiguous("DecodingError")
        with pytest.raises(ProviderError, match="DecodingError"):
            runware.poll([CLIP_UUID], "key")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
def test_an_answer_compressed_once_is_read(coding: str) -> None:
    """A single compression does not make a purchase ambiguous."""
    body = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[coding](ACK)
    with serving(answering(answer("200 OK", body, f"Content-Encoding: {coding}"))) as server:
        assert submit_to(f"http://127.0.0.1:{server.port}/v1") == Accepted("acknowledged")


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, OSError, RecursionError, ValueError])
def test_every_exception_has_an_outcome(error: type[Exception]) -> None:
    """After any exception a send is ambiguous, since bytes may have been sent, and a lookup has no answer."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise error("with a secret")

    assert mocked(fail).submit(TASK, "key") == Ambiguous(error.__name__)
    with pytest.raises(ProviderError, match=f"^{error.__name__}$"):
        mocked(fail).details(CLIP_UUID, "key")


@pytest.mark.parametrize(("name", "task_type"), [("poll", "getResponse"), ("details", "getTaskDetails")])
def test_lookups_name_their_tasks(name: str, task_type: str) -> None:
    """A lookup is one request with every task, and its answer is a response."""
    seen: list[object] = []

    def reply(sent: httpx.Request) -> httpx.Response:
        seen.append(json.loads(sent.content))
        return httpx.Response(200, json={"data": []})

    runware = mocked(reply)
    response = runware.poll([CLIP_UUID, "other"], "key") if name == "poll" else runware.details(CLIP_UUID, "key")
    uuids = [CLIP_UUID, "other"] if name == "poll" else [CLIP_UUID]
    assert seen == [[{"taskType": task_type, "taskUUID": uuid} for uuid in uuids]]
    assert response.confirms_absent(CLIP_UUID)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_lookup_without_an_answer_is_a_provider_error(error: type[httpx.RequestError]) -> None:
    """A failed lookup proves nothing about any task."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise error("with a secret")

    with pytest.raises(ProviderError, match=f"^{error.__name__}$"):
        mocked(fail).poll([CLIP_UUID], "key")

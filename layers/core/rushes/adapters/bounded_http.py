"""HTTP exchanges that end in time: one deadline for name, connection, TLS, request, headers and body together.

httpx bounds each single step. A server that sends a byte, an informational response or a piece of a handshake now and
then keeps every step short and the exchange going for ever. Here the time allowed begins with the connection, and each
step gets only what is left of it.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

# getaddrinfo cannot be ended from outside: what is given up goes on in its thread until the resolver's own timeout.
_MAX_LOOKUPS = 16
_lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)


def bounded_transport() -> httpx.HTTPTransport:
    """A transport whose connections serve one exchange each, for as long as the request's connect timeout says."""
    transport = httpx.HTTPTransport(trust_env=False)
    transport._pool = httpcore.ConnectionPool(  # no public way to give httpx a network backend
        ssl_context=httpx.create_ssl_context(trust_env=False),
        max_connections=None,  # or an exchange would wait for another before its own time begins
        max_keepalive_connections=0,  # a connection used twice would have one deadline for both
        network_backend=_Network(),
    )
    return transport


def resolve(host: str, seconds: float) -> list[str]:
    """The addresses of a host, in the resolver's order; raises `OSError`, of which `TimeoutError` is one."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    ends_at = time.monotonic() + seconds
    if not _lookups.acquire(timeout=max(0, seconds)):
        raise TimeoutError("too many names are being looked up")
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except Exception as error:  # for the thread that waits
            found.set_exception(error)
        finally:
            _lookups.release()

    try:
        threading.Thread(target=look_up, daemon=True).start()
    except RuntimeError as error:
        _lookups.release()
        raise OSError("no thread can be started") from error
    try:
        return list(dict.fromkeys(str(info[4][0]) for info in found.result(max(0, ends_at - time.monotonic()))))
    except UnicodeError as error:  # a label that is too long, say
        raise OSError("the name cannot be encoded") from error


class _Network(httpcore.SyncBackend):
    """Connections with a deadline: the timeout for connecting is the one for everything."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        if timeout is None:
            raise httpcore.ConnectTimeout("an exchange has to have a timeout")
        ends_at = time.monotonic() + timeout
        try:
            addresses = resolve(host, timeout)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in addresses:
            try:
                left = _left(ends_at, timeout, httpcore.ConnectTimeout)
                return _Stream(super().connect_tcp(address, port, left, local_address, socket_options), ends_at)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Stream(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline of all."""

    def __init__(self, stream: httpcore.NetworkStream, ends_at: float) -> None:
        self._stream, self._ends_at = stream, ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._ends_at, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Bit by bit: httpcore's own loop gives each bit the whole timeout anew."""
        wire: socket.socket = self._stream.get_extra_info("socket")
        rest = memoryview(buffer)
        while rest:
            left = _left(self._ends_at, timeout, httpcore.WriteTimeout)
            try:
                wire.settimeout(left)
                rest = rest[wire.send(rest) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from None
            except OSError as error:
                raise httpcore.WriteError(str(error)) from None

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        # Python bounds a handshake as a whole.
        left = _left(self._ends_at, timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._ends_at)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(ends_at: float, timeout: float | None, error: type[Exception]) -> float:
    """What a step may take; raises `error` when nothing is left."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise error("the exchange takes too long")
    return left if timeout is None else min(left, timeout)

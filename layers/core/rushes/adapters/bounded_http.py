"""HTTP exchanges with one deadline for name resolution, connection, TLS, request, headers and body together.

httpx has a timeout for each step only. A server that slowly sends single bytes, informational responses or parts of a
handshake keeps each step short and the exchange open without end. Here the timeout starts with the connection, and each
step gets only the time that is left.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any

import httpcore
import httpx

ADDRESS_REFUSED = "the host has an address that is not allowed"
# getaddrinfo cannot be cancelled: an abandoned lookup occupies its thread until the resolver's own timeout.
_MAX_LOOKUPS = 16
_lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)


def bounded_transport(is_allowed: Callable[[str], bool] = lambda _: True) -> httpx.HTTPTransport:
    """A transport with one connection for each exchange; the request's connect timeout limits the whole exchange.

    No connection is made to a host with an IP address for which `is_allowed` is false: that is an `httpx.ConnectError`
    with the text `ADDRESS_REFUSED`. The checked address itself is connected to, so a second look-up cannot change it.
    """
    return _Transport(is_allowed)


class _Transport(httpx.HTTPTransport):
    """httpx's transport with another network backend, for which httpx has no public interface."""

    def __init__(self, is_allowed: Callable[[str], bool]) -> None:
        no_authorities = SSLContext(PROTOCOL_TLS_CLIENT)  # no handshake with it succeeds; see `_Network.tls`
        super().__init__(verify=no_authorities, trust_env=False)
        self._network = _Network(is_allowed)
        self._pool = httpcore.ConnectionPool(
            ssl_context=no_authorities,
            max_connections=None,  # a wait for a free connection would not count towards the deadline
            max_keepalive_connections=0,  # a reused connection would keep its first deadline
            network_backend=self._network,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            self._network.tls()  # before the request's timeout starts
        return super().handle_request(request)


def resolve(host: str, seconds: float) -> list[str]:
    """The addresses of a host, in the resolver's order; raises `OSError`, including `TimeoutError`."""
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
        except Exception as error:  # raised in the waiting thread
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
    except UnicodeError as error:  # such as a label that is too long
        raise OSError("the name cannot be encoded") from error


class _Network(httpcore.SyncBackend):
    """Connections with a deadline: the connect timeout applies to the whole exchange."""

    def __init__(self, is_allowed: Callable[[str], bool]) -> None:
        self._is_allowed = is_allowed
        self._tls: SSLContext | None = None

    def tls(self) -> SSLContext:
        """The context of every handshake, created for the first one.

        Reading the authorities' certificates takes a twentieth of a cold start, and polls, dry runs and empty sweeps
        make no connection.
        """
        if self._tls is None:
            context = httpx.create_ssl_context(trust_env=False)
            context.set_alpn_protocols(["http/1.1"])  # as httpcore does in the context that it gets
            self._tls = context
        return self._tls

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        if timeout is None:
            raise httpcore.ConnectTimeout("an exchange must have a timeout")
        ends_at = time.monotonic() + timeout
        try:
            addresses = resolve(host, timeout)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        if not all(map(self._is_allowed, addresses)):
            raise httpcore.ConnectError(ADDRESS_REFUSED)
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in addresses:
            try:
                left = _left(ends_at, timeout, httpcore.ConnectTimeout)
                return _Stream(
                    super().connect_tcp(address, port, left, local_address, socket_options), ends_at, self.tls
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Stream(httpcore.NetworkStream):
    """A connection on which every step ends at the same deadline."""

    def __init__(self, stream: httpcore.NetworkStream, ends_at: float, tls: Callable[[], SSLContext]) -> None:
        self._stream, self._ends_at, self._tls = stream, ends_at, tls

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._ends_at, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes in a loop of its own, because httpcore's loop restarts the timeout for each chunk."""
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
        self,
        ssl_context: SSLContext,  # noqa: ARG002  the pool's, without authorities
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        context = self._tls()
        # Python applies a timeout to the whole handshake.
        left = _left(self._ends_at, timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(context, server_hostname, left), self._ends_at, self._tls)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(ends_at: float, timeout: float | None, error: type[Exception]) -> float:
    """The timeout of the next step, in seconds; raises `error` after the deadline."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise error("the exchange takes too long")
    return left if timeout is None else min(left, timeout)

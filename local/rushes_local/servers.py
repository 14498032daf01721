"""Serves a WSGI application on 127.0.0.1 with a pool of threads, and stops cleanly.

Hides waitress, which has no public way to end its loop from another thread.
"""

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]
from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# More threads than requests that can work at once, because requests wait for functions and for each other: a webhook
# may arrive before its submission is answered.
THREADS = 16


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """A correction of waitress, which after `Expect: 100-continue` waits for content even if there is none.

    boto3 sends the header with empty objects, too. RFC 9110, 10.1.1, permits a server to omit the response 100 if "the
    framing indicates that there is no content".
    """

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.body_rcv is None:
            self.expect_continue = False


class _Channel(HTTPChannel):  # type: ignore[misc]
    parser_class = _Parser


class Server:
    """A running server; `stop` ends it. `port` 0 takes any free port. Also a context manager."""

    def __init__(self, application: "WSGIApplication", *, name: str, port: int = 0, threads: int = THREADS) -> None:
        self._dispatcher = ThreadedTaskDispatcher()
        self._dispatcher.set_thread_count(threads)
        self._server = create_server(
            application,
            host="127.0.0.1",
            port=port,
            ident=None,
            asyncore_use_poll=True,
            _dispatcher=self._dispatcher,
        )
        self._server.channel_class = _Channel
        self.port: int = self._server.effective_port
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"server-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # The same loop as waitress's `run`, which only an exception in this thread can end.
        while not self._stopping.is_set():
            self._server.asyncore.loop(timeout=30, map=self._server._map, use_poll=True, count=1)

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Wait for the requests in progress, at most 5 s, then close the listener and every connection."""
        self._stopping.set()
        self._server.pull_trigger()
        self._thread.join()
        # After the loop's end, because the loop and the requests write to the sockets that are closed here.
        self._dispatcher.shutdown(timeout=5)
        self._server.asyncore.close_all(self._server._map, ignore_all=True)

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

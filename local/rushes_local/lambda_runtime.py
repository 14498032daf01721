"""Runs a Lambda function as Lambda does: in separate processes that get their events from the Runtime API.

Hides the processes (started, replaced, killed at the timeout), the HTTP server from which each gets its events, and the
event loop for all of them. Callers use `FunctionPool.invoke`.

Each process has a Runtime API on its own port. The port identifies the process, and a process that dies breaks only its
own connection. asyncio sets TCP_NODELAY, and each response is one write; otherwise Nagle's algorithm and delayed
acknowledgements cost 44 ms a call.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rushes_local import lambda_runtime_client

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"

# Lambda's limit for a synchronous event and for its result, in bytes of JSON.
PAYLOAD_LIMIT = 6_291_556

# awslambdaric reports an error with its cause in a header, of up to 1 MB.
_HEADER_LIMIT = 2 * 1024 * 1024

# Backoff between two failed starts of a process, in seconds; it doubles.
_MIN_BACKOFF = 0.1
_MAX_BACKOFF = 5.0
# An event waits so many seconds for a busy process before another process is started, which would take longer.
_GROW_AFTER = 0.05

Kind = Literal["ok", "error", "timeout", "crashed", "unanswered"]

Log = Callable[[str, str], None]
"""Receives a function's name and one line of its output; called in the pool's thread."""


@dataclass(frozen=True)
class Function:
    """A Lambda function, as configured in the template."""

    name: str
    folder: Path
    handler: str
    environment: Mapping[str, str]
    timeout_seconds: float
    memory_mb: int = 128

    @property
    def arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{self.name}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one invocation.

    `payload` is the parsed result if `kind` is `ok`, else Lambda's error object (`errorMessage`, `errorType`).
    `error`: the handler raised, or could not be imported. `timeout`: the process was killed at the function's timeout.
    `crashed`: the process ended. `unanswered`: the invoker's own timeout came first.
    """

    kind: Kind
    payload: Any


class FunctionStartError(Exception):
    """A function cannot be imported, or did not request its first event in time. The text gives the reason."""


class FunctionPool:
    """Processes of one function, each of which runs one event at a time.

    The first process starts with the pool, further ones, up to `size`, when an event finds no free process. The first
    free process gets the event. `stop` must be called; if this process dies without it, the function's processes end
    too.
    """

    def __init__(
        self,
        function: Function,
        *,
        size: int = 2,
        log: Log = lambda *_: None,
        home: Path | None = None,
        pure: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`home` is the processes' home directory; `pure` selects our own Runtime API client."""
        self.function = function
        self.log = log
        self.clock = clock
        self._size = size
        self._home = home
        self._pure = pure
        self._workers: set[_Worker] = set()
        self._failure: str | None = None
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._running: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"pool-{function.name}", daemon=True)
        self._thread.start()
        self._running.result()

    @property
    def failure(self) -> str | None:
        """The reason why no process can start at present, or None."""
        return self._failure

    def wait_ready(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until the first process is ready for events.

        Raises FunctionStartError with the import error's text, or on timeout.
        """
        try:
            self._ready.result(timeout)
        except concurrent.futures.TimeoutError:
            raise FunctionStartError(f"{self.function.name} was not ready {timeout:g} s after its start") from None

    def invoke(self, event: Mapping[str, Any], *, timeout: float | None = None) -> Outcome:
        """Run the handler on `event` and wait for the outcome.

        `timeout` limits the wait, in seconds, including the time until a process is free. A handler that has begun
        continues after it, as after API Gateway's timeout. The function's own timeout kills the process.
        """
        invocation = _Invocation(json.dumps(event).encode())
        try:
            self._loop.call_soon_threadsafe(self._accept, invocation)
        except RuntimeError:  # the loop is closed
            return _error("crashed", "Runtime.Stopped", f"{self.function.name} has been stopped")
        try:
            return invocation.future.result(timeout)
        except concurrent.futures.TimeoutError:
            invocation.future.cancel()
            return _error("unanswered", "Gateway.Timedout", f"{self.function.name} did not answer within {timeout:g} s")

    def pids(self) -> list[int]:
        """The ids of the live processes."""
        return [worker.pid for worker in list(self._workers) if worker.pid is not None]

    def stop(self) -> None:
        """Kill the processes and wait for their end; the outcome of events in progress is `crashed`. Idempotent."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Invocation] = asyncio.Queue()
        self._stopping = asyncio.Event()
        self._free = 0
        self._slots = [asyncio.create_task(self._keep_one_running())]
        self._running.set_result(None)
        await self._stopping.wait()
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        self._fail_queued(_error("crashed", "Runtime.Stopped", f"{self.function.name} has been stopped"))

    def _accept(self, invocation: "_Invocation") -> None:
        self._queue.put_nowait(invocation)
        self._loop.call_later(_GROW_AFTER, self._grow)

    def _grow(self) -> None:
        """Start another process if events wait and no process is free for them.

        Not before the first one is ready: it may be ready in milliseconds, or never if the handler is broken.
        """
        if self._ready.done() and self._free < self._queue.qsize() and len(self._slots) < self._size:
            self._slots.append(asyncio.create_task(self._keep_one_running()))

    async def _keep_one_running(self) -> None:
        failures = 0
        while True:
            worker = _Worker(self)
            self._workers.add(worker)
            try:
                await worker.run(self._command(), self._environment)
            finally:
                self._workers.discard(worker)
            failures = 0 if worker.ready else failures + 1
            if failures:
                self._note_failure(worker)
                await asyncio.sleep(min(_MIN_BACKOFF * 2 ** (failures - 1), _MAX_BACKOFF))

    def _command(self) -> list[str]:
        # The working directory is the function's folder, so that `app` is found there, as in Lambda.
        options = ["--pure"] if self._pure else []
        return [sys.executable, "-m", lambda_runtime_client.__name__, *options, self.function.handler]

    def _environment(self, port: int) -> dict[str, str]:
        function = self.function
        return {
            # Nothing is inherited, so that no function gets a key, proxy or profile of the developer.
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._home or function.folder),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"local/[$LATEST]{port}",
            "LAMBDA_TASK_ROOT": str(function.folder),
            "_HANDLER": function.handler,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            **function.environment,
        }

    async def next_invocation(self) -> "_Invocation":
        """The next event whose invoker still waits."""
        while True:
            self._free += 1
            try:
                invocation = await self._queue.get()
            finally:
                self._free -= 1
            self._grow()
            if invocation.future.set_running_or_notify_cancel():
                return invocation

    def note_ready(self) -> None:
        """Record that a process is ready for events."""
        self._failure = None
        if not self._ready.done():
            self._ready.set_result(None)

    def _note_failure(self, worker: "_Worker") -> None:
        if any(other.ready for other in self._workers):
            return
        self._failure = f"{self.function.name} cannot start: {worker.init_error or worker.ending}"
        if not self._ready.done():
            self._ready.set_exception(FunctionStartError(self._failure))
        self._fail_queued(_error("error", "Runtime.InitError", self._failure))

    def _fail_queued(self, outcome: Outcome) -> None:
        while not self._queue.empty():
            invocation = self._queue.get_nowait()
            if invocation.future.set_running_or_notify_cancel():
                invocation.future.set_result(outcome)


@dataclass(frozen=True)
class _Invocation:
    body: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    future: "concurrent.futures.Future[Outcome]" = field(default_factory=concurrent.futures.Future)


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: bytes


class _Worker:
    """One process and its Runtime API, from start to end."""

    def __init__(self, pool: FunctionPool) -> None:
        self.ready = False
        self.init_error: str | None = None
        self.ending = ""
        self.pid: int | None = None
        self._pool = pool
        self._connections: set[asyncio.Task[Any]] = set()
        self._current: _Invocation | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, command: list[str], environment: Callable[[int], dict[str, str]]) -> None:
        """Start the process and serve it until it ends. Cancellation kills it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEADER_LIMIT)
        try:
            await self._run(command, environment(server.sockets[0].getsockname()[1]))
        except OSError as error:
            self.ending = str(error)
        finally:
            server.close()
            for connection in list(self._connections):
                connection.cancel()
            self._complete(_error("crashed", "Runtime.ExitError", f"Runtime exited with {self.ending}"))

    async def _run(self, command: list[str], environment: dict[str, str]) -> None:
        process = self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._pool.function.folder,
            env=environment,
            stdin=asyncio.subprocess.PIPE,  # never written to: the process ends when it is closed
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must reach this process only, which stops the others
        )
        self.pid = process.pid
        output = asyncio.create_task(self._log_lines(process.stdout))
        try:
            await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
            self.pid = None
            self.ending = f"signal: {-code}" if code < 0 else f"exit status {code}"
            # With a limit, since a child process of the handler may hold the pipe open.
            await asyncio.wait([output], timeout=1)
            output.cancel()

    async def _log_lines(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._pool.log(self._pool.function.name, line.decode(errors="replace"))
        if rest:
            self._pool.log(self._pool.function.name, rest.decode(errors="replace"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read_request(reader)) is not None:
                writer.write(await self._answer(request))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the process has ended, which `run` handles
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, request: _Request) -> bytes:
        call = request.path.removeprefix("/2018-06-01/runtime/").split("/")
        match request.method, call:
            case "GET", ["invocation", "next"]:
                return await self._next()
            case "POST", ["invocation", request_id, "response" | "error" as end]:
                return self._finish(request_id, end == "response", request.body)
            case "POST", ["init", "error"]:
                error = _parse_error(request.body)
                self.init_error = f"{error.get('errorType')}: {error.get('errorMessage')}"
                return _response(202, b'{"status":"OK"}')
        return _response(404, b'{"errorType":"Runtime.UnknownPath"}')

    async def _next(self) -> bytes:
        if not self.ready:
            self.ready = True
            self._pool.note_ready()
        invocation = self._current = await self._pool.next_invocation()
        seconds = self._pool.function.timeout_seconds
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._time_out)
        now = self._pool.clock()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((now + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self._pool.function.arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(now):08x}-{secrets.token_hex(12)};Sampled=0",
        }
        return _response(200, invocation.body, headers)

    def _finish(self, request_id: str, ok: bool, body: bytes) -> bytes:
        if self._current is None or self._current.request_id != request_id:
            return _response(400, b'{"errorType":"InvalidRequestID"}')
        if len(body) > PAYLOAD_LIMIT:
            text = f"Response payload size exceeded maximum allowed payload size ({PAYLOAD_LIMIT} bytes)."
            self._complete(_error("error", "Function.ResponseSizeTooLarge", text))
            return _response(413, b'{"errorType":"Function.ResponseSizeTooLarge"}')
        try:
            self._complete(Outcome("ok", json.loads(body)) if ok else Outcome("error", _parse_error(body)))
        except ValueError:
            self._complete(_error("error", "Runtime.MarshalError", "the result is not JSON"))
        return _response(202, b'{"status":"OK"}')

    def _time_out(self) -> None:
        assert self._process is not None
        text = f"Task timed out after {self._pool.function.timeout_seconds:.2f} seconds"
        self._pool.log(self._pool.function.name, text)
        self._complete(_error("timeout", "Sandbox.Timedout", text))
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _complete(self, outcome: Outcome) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._current is not None:
            self._current.future.set_result(outcome)
            self._current = None


async def _read_request(reader: asyncio.StreamReader) -> _Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *fields = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request_line.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
        return _Request(method, path, await reader.readexactly(int(headers.get("content-length", "0"))))
    except asyncio.IncompleteReadError:
        return None


def _response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + body


def _error(kind: Kind, error_type: str, message: str) -> Outcome:
    return Outcome(kind, {"errorMessage": message, "errorType": error_type})


def _parse_error(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    return {"errorMessage": body.decode(errors="replace"), "errorType": "Runtime.Unknown"}

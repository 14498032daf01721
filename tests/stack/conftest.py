"""Toy functions, and a monitor of their processes."""

import select
import shutil
import socket
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rushes_local.lambda_runtime import Function, FunctionPool
from rushes_local.template import Template

# One handler for all tests, controlled by the event. On import it connects to the monitor, if there is one, and never
# closes the connection, which therefore ends with the process.
TOY = """
    import json, os, signal, socket

    if "MONITOR_PORT" in os.environ:
        monitor = socket.create_connection(("127.0.0.1", int(os.environ["MONITOR_PORT"])))

    def handler(event, context):
        if "body" in event:  # through the gateway
            event = json.loads(event["body"])
        match event.get("do"):
            case "raise":
                raise ValueError(event["text"])
            case "exit":
                os._exit(3)
            case "spin":
                if "MONITOR_PORT" in os.environ:
                    monitor.sendall(b".")
                while True:
                    pass
            case "hang":
                monitor.sendall(b".")
                signal.pause()
            case "print":
                print("first\\nsecond")
            case "large":
                return "x" * event["bytes"]
            case "meet":
                # Opening one end of a named pipe waits for the other end.
                os.close(os.open(event["pipe"], event["flags"]))
            case "answer":
                return event["answer"]
            case "environment":
                return dict(os.environ)
        return {
            "pid": os.getpid(),
            "event": event,
            "id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "left": context.get_remaining_time_in_millis(),
            "memory": context.memory_limit_in_mb,
        }
"""


class ProcessMonitor:
    """Observes the start and end of processes: each toy opens a connection to it, which ends with the process."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self._connections: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def expect(self, count: int) -> None:
        """Wait until `count` more processes have started."""
        for _ in range(count):
            connection, _ = self._listener.accept()
            connection.settimeout(10)
            self._connections.append(connection)

    def wait_busy(self) -> None:
        """Wait until a process runs its handler."""
        busy, _, _ = select.select(self._connections, [], [], 10)
        assert busy
        assert busy[0].recv(1) == b"."

    def wait_all_dead(self) -> None:
        """Wait until every process that has started has ended."""
        for connection in self._connections:
            try:
                while connection.recv(1):
                    pass
            except ConnectionResetError:
                pass  # the process ended with unread data

    def close(self) -> None:
        for connection in (self._listener, *self._connections):
            connection.close()


@pytest.fixture
def monitor() -> Iterator[ProcessMonitor]:
    """A monitor for toys with its port in their environment, as `MONITOR_PORT`."""
    monitor = ProcessMonitor()
    yield monitor
    monitor.close()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A function's folder with the toy handler."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "app.py").write_text(textwrap.dedent(TOY))
    return folder


StartPool = Callable[..., FunctionPool]


@pytest.fixture
def start_pool(toy: Path) -> Iterator[StartPool]:
    """Starts pools of the toy and stops them after the test."""
    pools: list[FunctionPool] = []

    def start(
        *, timeout_seconds: float = 10.0, environment: dict[str, str] | None = None, **options: object
    ) -> FunctionPool:
        function = Function("toy", toy, "app.handler", environment or {}, timeout_seconds, memory_mb=256)
        pools.append(FunctionPool(function, **options))  # type: ignore[arg-type]
        return pools[-1]

    yield start
    for pool in pools:
        pool.stop()


def toy_root(project: Path, root: Path) -> Path:
    """Copy the project's template to `root`, with a toy for each function; returns `root`."""
    root.mkdir(exist_ok=True)
    shutil.copy(project / "template.yaml", root)
    for function in Template(root / "template.yaml").functions():
        function.folder.mkdir(parents=True)
        (function.folder / "app.py").write_text(textwrap.dedent(TOY))
    return root

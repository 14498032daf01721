"""Toy functions, and witnesses for the life and death of processes."""

import select
import shutil
import socket
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rushes_local.lambda_runtime import Function, FunctionPool
from rushes_local.template import Template

# One handler for all tests: what it does is in the event. On import it connects to the test, if that listens, and
# never hangs up: the connection ends with the process, whoever ends it and how.
TOY = """
    import json, os, signal, socket

    if "WITNESS_PORT" in os.environ:
        witness = socket.create_connection(("127.0.0.1", int(os.environ["WITNESS_PORT"])))

    def handler(event, context):
        if "body" in event:  # through the gateway
            event = json.loads(event["body"])
        match event.get("do"):
            case "raise":
                raise ValueError(event["text"])
            case "exit":
                os._exit(3)
            case "spin":
                if "WITNESS_PORT" in os.environ:
                    witness.sendall(b".")
                while True:
                    pass
            case "hang":
                witness.sendall(b".")
                signal.pause()
            case "print":
                print("first\\nsecond")
            case "large":
                return "x" * event["bytes"]
            case "meet":
                # Opening either end of a named pipe waits for the other end.
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


class FactSource:
    """Sees processes live and die: each toy connects to it, and its connection ends when it does."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self._connections: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def expect(self, count: int) -> None:
        """Wait until that many processes have come."""
        for _ in range(count):
            connection, _ = self._listener.accept()
            connection.settimeout(10)
            self._connections.append(connection)

    def wait_busy(self) -> None:
        """Wait until a process is in its handler."""
        busy, _, _ = select.select(self._connections, [], [], 10)
        assert busy
        assert busy[0].recv(1) == b"."

    def wait_all_dead(self) -> None:
        """Wait until every process that has come is gone."""
        for connection in self._connections:
            try:
                while connection.recv(1):
                    pass
            except ConnectionResetError:
                pass  # it died with something unread

    def close(self) -> None:
        for connection in (self._listener, *self._connections):
            connection.close()


@pytest.fixture
def source() -> Iterator[FactSource]:
    """A listener that toys connect to when their environment says so."""
    source = FactSource()
    yield source
    source.close()


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
    """A project of this template whose functions are all toys."""
    root.mkdir(exist_ok=True)
    shutil.copy(project / "template.yaml", root)
    for function in Template(root / "template.yaml").functions():
        function.folder.mkdir(parents=True)
        (function.folder / "app.py").write_text(textwrap.dedent(TOY))
    return root

"""The Lambda runtime: functions in separate processes."""

import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rushes_local.lambda_runtime import PAYLOAD_LIMIT, FunctionStartError
from tests.stack.conftest import ProcessMonitor, StartPool

both_clients = pytest.mark.parametrize("pure", [False, True], ids=["awslambdaric", "pure"])


@both_clients
def test_result(start_pool: StartPool, pure: bool) -> None:
    """A handler gets the event and a context with the real deadline, and its result comes back."""
    pool = start_pool(pure=pure, timeout_seconds=10.0)
    outcome = pool.invoke({"prompt": "Düne 🎬"})
    assert outcome.kind == "ok"
    assert outcome.payload["event"] == {"prompt": "Düne 🎬"}
    assert outcome.payload["pid"] in pool.pids()
    assert 0 < outcome.payload["left"] <= 10_000
    assert outcome.payload["arn"].endswith(":function:toy")
    assert outcome.payload["memory"] == "256"


@both_clients
def test_error(start_pool: StartPool, pure: bool) -> None:
    """A handler's exception becomes Lambda's error object, and the process goes on."""
    pool = start_pool(pure=pure, size=1)
    outcome = pool.invoke({"do": "raise", "text": "no such film"})
    assert outcome.kind == "error"
    assert outcome.payload["errorType"] == "ValueError"
    assert outcome.payload["errorMessage"] == "no such film"
    pids = pool.pids()
    assert pool.invoke({}).payload["pid"] in pids


@both_clients
def test_result_over_the_limit(start_pool: StartPool, pure: bool) -> None:
    """A result larger than Lambda allows is an error, and the next event is served."""
    pool = start_pool(pure=pure, size=1)
    assert pool.invoke({"do": "large", "bytes": PAYLOAD_LIMIT}).payload["errorType"] == "Function.ResponseSizeTooLarge"
    assert pool.invoke({"do": "large", "bytes": PAYLOAD_LIMIT - 2}).kind == "ok"


def test_environment_is_not_inherited(start_pool: StartPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function has its own variables and none of the developer's."""
    for name in ("RUNWARE_API_KEY", "HTTPS_PROXY", "AWS_PROFILE", "PYTHONPATH"):
        monkeypatch.setenv(name, "of the developer")
    environment = start_pool(environment={"TABLE_NAME": "films"}).invoke({"do": "environment"}).payload
    assert environment["TABLE_NAME"] == "films"
    assert "of the developer" not in environment.values()
    assert environment["HOME"] != os.environ.get("HOME")


@both_clients
def test_timeout_kills_the_process(start_pool: StartPool, pure: bool) -> None:
    """A process is killed at its timeout, the outcome reports it, and a new process gets the next event."""
    pool = start_pool(pure=pure, size=1, timeout_seconds=1.0)
    before = pool.invoke({}).payload["pid"]
    outcome = pool.invoke({"do": "spin"})
    assert outcome.kind == "timeout"
    assert outcome.payload["errorMessage"] == "Task timed out after 1.00 seconds"
    assert pool.invoke({}).payload["pid"] != before


def test_crash_is_reported_and_the_process_replaced(start_pool: StartPool) -> None:
    """A process that ends during an event fails only that event."""
    pool = start_pool(size=1)
    outcome = pool.invoke({"do": "exit"})
    assert outcome.kind == "crashed"
    assert outcome.payload["errorMessage"] == "Runtime exited with exit status 3"
    assert pool.invoke({}).kind == "ok"


def test_killed_while_busy(start_pool: StartPool, monitor: ProcessMonitor) -> None:
    """SIGKILL during an event is a crash, with the signal in the message."""
    pool = start_pool(size=1, environment={"MONITOR_PORT": str(monitor.port)})
    monitor.expect(1)
    with ThreadPoolExecutor(1) as executor:
        outcome = executor.submit(pool.invoke, {"do": "hang"})
        monitor.wait_busy()
        os.kill(pool.pids()[0], signal.SIGKILL)
        assert outcome.result(10).payload["errorMessage"] == "Runtime exited with signal: 9"


def test_killed_while_idle(start_pool: StartPool, monitor: ProcessMonitor) -> None:
    """A process that is killed between events is replaced at once."""
    pool = start_pool(size=1, environment={"MONITOR_PORT": str(monitor.port)})
    monitor.expect(1)
    os.kill(pool.pids()[0], signal.SIGKILL)
    monitor.expect(1)
    assert pool.invoke({}).kind == "ok"


def test_two_at_once(start_pool: StartPool, tmp_path: Path) -> None:
    """Two processes run two events at the same time."""
    pool = start_pool(size=2)
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    with ThreadPoolExecutor(2) as executor:
        ends = [
            executor.submit(pool.invoke, {"do": "meet", "pipe": pipe, "flags": flags})
            for flags in (os.O_RDONLY, os.O_WRONLY)
        ]
        pids = {end.result(10).payload["pid"] for end in ends}
    assert len(pids) == 2


def test_a_second_process_starts_when_the_first_is_busy(start_pool: StartPool, monitor: ProcessMonitor) -> None:
    """A second process starts only when an event finds the first one busy."""
    pool = start_pool(size=2, environment={"MONITOR_PORT": str(monitor.port)})
    monitor.expect(1)
    assert [pool.invoke({}).kind for _ in range(3)] == ["ok"] * 3
    assert len(pool.pids()) == 1
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(pool.invoke, {"do": "hang"})
        monitor.wait_busy()
        assert pool.invoke({}, timeout=10).kind == "ok"
        assert len(pool.pids()) == 2
        pool.stop()
        assert busy.result(10).kind == "crashed"


def test_one_at_a_time(start_pool: StartPool, monitor: ProcessMonitor) -> None:
    """A busy process gets no second event, and a caller's timeout does not interrupt it."""
    pool = start_pool(size=1, environment={"MONITOR_PORT": str(monitor.port)})
    monitor.expect(1)
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(pool.invoke, {"do": "hang"})
        monitor.wait_busy()
        assert pool.invoke({}, timeout=0.1).kind == "unanswered"
        assert not busy.done()
        pool.stop()
        assert busy.result(10).kind == "crashed"


def test_import_error(start_pool: StartPool, toy: Path) -> None:
    """A failed import is reported with its reason, fails waiting events, and is retried until it succeeds."""
    code = (toy / "app.py").read_text()
    (toy / "app.py").write_text("import no_such_module")
    pool = start_pool()
    with pytest.raises(FunctionStartError, match="no_such_module"):
        pool.wait_ready(10)
    assert "no_such_module" in str(pool.failure)
    outcome = pool.invoke({})
    assert outcome.kind == "error"
    assert "no_such_module" in outcome.payload["errorMessage"]
    (toy / "app.py").write_text(code)
    deadline = time.monotonic() + 10
    while (outcome := pool.invoke({})).kind != "ok":
        assert time.monotonic() < deadline
    assert pool.failure is None


def test_import_error_of_our_client(start_pool: StartPool, toy: Path) -> None:
    """Our own client reports an import error as AWS's does."""
    (toy / "app.py").write_text("1 / 0")
    with pytest.raises(FunctionStartError, match="ZeroDivisionError: division by zero"):
        start_pool(pure=True).wait_ready(10)


def test_missing_folder(start_pool: StartPool, toy: Path) -> None:
    """A missing folder is reported."""
    shutil.rmtree(toy)
    with pytest.raises(FunctionStartError, match=r"toy cannot start: .*No such file"):
        start_pool().wait_ready(10)


def test_output_arrives_by_line(start_pool: StartPool) -> None:
    """A function's output reaches the sink line by line, with the function's name."""
    lines: queue.Queue[tuple[str, str]] = queue.Queue()
    pool = start_pool(log=lambda name, line: lines.put((name, line)))
    pool.invoke({"do": "print"})
    assert [lines.get(timeout=10), lines.get(timeout=10)] == [("toy", "first"), ("toy", "second")]


@both_clients
def test_warm_call_is_quick(start_pool: StartPool, pure: bool) -> None:
    """A warm call takes far less than the 40 ms of a delayed acknowledgement, so Nagle's algorithm is off."""
    pool = start_pool(pure=pure, size=1)
    pool.invoke({})

    def timed() -> float:
        began = time.perf_counter()
        pool.invoke({})
        return time.perf_counter() - began

    assert statistics.median(timed() for _ in range(30)) < 0.010


def test_stop_leaves_no_process(start_pool: StartPool, monitor: ProcessMonitor) -> None:
    """After `stop` every process has ended, and a further event fails at once."""
    pool = start_pool(size=2, environment={"MONITOR_PORT": str(monitor.port)})
    monitor.expect(1)
    pool.stop()
    monitor.wait_all_dead()
    assert pool.pids() == []
    assert pool.invoke({}).kind == "crashed"


# A parent to be killed, with one idle process and one busy in its handler.
PARENT = """
    import sys
    from pathlib import Path
    from rushes_local.lambda_runtime import Function, FunctionPool

    folder, port, pure = sys.argv[1:]
    environment = {"MONITOR_PORT": port}
    options = {"size": 1, "pure": pure == "True"}
    idle = FunctionPool(Function("idle", Path(folder), "app.handler", environment, 60), **options)
    busy = FunctionPool(Function("busy", Path(folder), "app.handler", environment, 60), **options)
    idle.wait_ready(10)
    busy.invoke({"do": "spin"})
"""


@both_clients
def test_processes_die_with_a_killed_parent(toy: Path, monitor: ProcessMonitor, pure: bool) -> None:
    """A parent that is killed cannot clean up; its idle and its busy processes end all the same."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(toy), str(monitor.port), str(pure)]
    with subprocess.Popen(command) as parent:
        try:
            monitor.expect(2)
            monitor.wait_busy()
        finally:
            parent.kill()
    monitor.wait_all_dead()

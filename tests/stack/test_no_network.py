"""The local stack connects to no address outside the machine, and needs no address for requests from outside."""

import os
import shutil
import subprocess
import sys
import uuid
from contextlib import closing
from functools import cache
from pathlib import Path

import httpx
import pytest

from rushes.domain.clip import Clip, FactSource, Kind, Status
from rushes_local.runware.emulator import Emulator
from rushes_local.servers import Server
from rushes_local.stack import ProviderEndpoint, Stack
from tests.chaos.run import SCALE, TIMES, wait_until

ROOT = Path(__file__).parents[2]

PATIENCE = 150  # seconds

# A separate stack cannot run beside the shared one.
pytestmark = [pytest.mark.usefixtures("no_shared_stack"), pytest.mark.timeout(2 * PATIENCE)]

RUN_DEMO = (
    "from rushes_cli import main; sys.argv = ['rushes', 'demo', '--render-seconds', '0', '--out', out]; main.main()"
)

# Runs a program in a network namespace with only a loopback. There the kernel counts every attempt without a route, by
# any process: to any other address, and to a resolver on the real loopback. The counts are the last line.
ALONE = ("unshare", "--user", "--map-root-user", "--net")
COUNTED = """
import fcntl, pathlib, socket, struct, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
status = subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode
lines = [line.split() for line in pathlib.Path("/proc/net/snmp").read_text().splitlines()]
counts = {}
for names, values in zip(lines[::2], lines[1::2]):
    counts |= {f"{names[0]}{name}": value for name, value in zip(names, values)}
counts |= dict(line.split() for line in pathlib.Path("/proc/net/snmp6").read_text().splitlines())
print(*(int(counts.get(name, 0)) for name in ("Ip:OutNoRoutes", "Ip6OutNoRoutes", "Udp:NoPorts", "Udp6NoPorts")))
sys.exit(status)
"""

# Without network namespaces, each Python process records its own attempts.
WATCH = """
import sys

def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if str(host) not in ("127.0.0.1", "localhost", "None"):
        with open({attempts!r}, "a") as attempts:
            print(event, host, file=attempts)

sys.addaudithook(watch)
"""


def without_key() -> dict[str, str]:
    """This environment without the Runware key and proxies."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith(("_proxy", "_api_key"))}


def run_alone(program: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[int]]:
    """Run a Python program without a network; returns the process and the counts of its attempts."""
    command = [*ALONE, sys.executable, "-c", COUNTED, program, *arguments]
    done = subprocess.run(command, env=without_key(), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    return done, [int(count) for count in done.stdout.splitlines()[-1].split()] if done.stdout else []


@cache
def can_be_alone() -> bool:
    """True if network namespaces are available, with the kernel's counts."""
    return shutil.which(ALONE[0]) is not None and run_alone("")[1] == [0, 0, 0, 0]


needs_namespace = pytest.mark.skipif(
    not can_be_alone(), reason="no network namespaces: each process is audited instead"
)


@needs_namespace
@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.socket().connect_ex(('192.0.2.1', 443))",
        "import socket; socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 443))",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).connect_ex(('192.0.2.1', 53))",
    ],
)
def test_attempts_are_counted(attempt: str) -> None:
    """An attempt at an outside address is counted, even if the program ignores the error."""
    done, counts = run_alone(attempt)
    assert done.returncode == 0
    assert sum(counts) > 0


@needs_namespace
def test_the_demo_tries_no_address_outside(tmp_path: Path) -> None:
    """Without a network the demo ends with its clips, and none of its processes has tried an outside address."""
    done, counts = run_alone(f"import sys; out = sys.argv[1]; {RUN_DEMO}", str(tmp_path))
    assert_succeeded(done, tmp_path)
    assert counts == [0, 0, 0, 0]


@pytest.mark.skipif(can_be_alone(), reason="the kernel's counts are more complete")
def test_the_demo_names_no_address_outside(tmp_path: Path) -> None:
    """No process of the demo looks up a name or connects to an address outside the machine."""
    root, attempts = tmp_path / "root", tmp_path / "attempts"
    shutil.copytree(ROOT / "functions", root / "functions")
    shutil.copy(ROOT / "template.yaml", root)
    watch = WATCH.format(attempts=str(attempts))
    for handler in (root / "functions").glob("*/app.py"):
        handler.write_text(watch + handler.read_text())
    program = f"{watch}\nfrom pathlib import Path; from rushes_local import dev; root, out = sys.argv[1:]\n"
    program += f"dev.ROOT = Path(root)\n{RUN_DEMO}"
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "out")]
    done = subprocess.run(command, env=without_key(), capture_output=True, text=True, timeout=PATIENCE)
    assert_succeeded(done, tmp_path / "out")
    assert not attempts.exists(), attempts.read_text()


def assert_succeeded(done: subprocess.CompletedProcess[str], out: Path) -> None:
    """The demo succeeded: the clips of the order and the request file are there, and its invalid line is reported."""
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*.mp4"))) == 2
    assert "unsupportedDuration" in done.stdout
    assert done.stdout.count(", from videos/demo/") == 2
    assert ", from videos/demo/drops/" in done.stdout


def test_a_provider_needs_no_way_in(logged: list[str]) -> None:
    """With another provider, a clip is stored by poll and download only, without a webhook or an upload."""
    emulator = Emulator(frozenset({"a-real-key"}), small=True)
    emulator.faults.webhook_copies, emulator.faults.upload = 0, "never"
    with closing(emulator), Server(emulator.wsgi, name="provider") as server:
        emulator.base_url = server.url
        stack = Stack(
            ROOT,
            provider=ProviderEndpoint("a-real-key", f"{server.url}/v1"),
            time_scale=SCALE,
            timings={
                name: seconds / SCALE
                for name, seconds in {**TIMES, "USUAL_RENDER_SECONDS": 0.3, "RESCUE_AFTER_SECONDS": 0.1}.items()
            },
            parameters={"WhenAmbiguous": "review"},  # under `resend` the first poll waits until no resend can come
            sink=lambda name, line: logged.append(f"{name}\t{line}"),
        )
        with stack:
            task_uuid = order_one(stack)

            def clip() -> Clip:
                return stack.store.clips("ada", task_uuid)[0]

            assert wait_until(lambda: clip().status == Status.STORED, PATIENCE) < PATIENCE, clip()
            (render,) = clip().of(Kind.RENDERED).values()
            (copy,) = clip().of(Kind.STORED).values()
    assert render.seen.keys() == {FactSource.POLL}
    assert copy.fields["rescued"] is True
    assert len(emulator.ledger()) == 1


def order_one(stack: Stack) -> str:
    """Order a clip; returns the task's UUID."""
    task = {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
    }
    headers = {"Authorization": f"Bearer {stack.create_key('ada')}"}
    answer = httpx.post(f"{stack.url}/v1", json=[task], headers=headers, timeout=30, trust_env=False)
    assert answer.json()["data"], answer.text
    return task["taskUUID"]

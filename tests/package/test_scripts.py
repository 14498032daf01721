"""The scripts behind `make`: the choice of a Python, and the check of stack names."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def find_python(commands: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{commands}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    command = ["bash", str(ROOT / "scripts" / "find-python"), *wanted]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_broken_interpreter_is_skipped(tmp_path: Path) -> None:
    """A command that fails, such as a version manager's placeholder, is skipped for the next one that works."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    put(tmp_path, f"python{version}", "exit 127")
    put(tmp_path, "python3", f'exec {sys.executable} "$@"')
    result = find_python(tmp_path, version)
    assert result.returncode == 0
    assert Path(result.stdout.strip()).samefile(sys.executable)


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    """Without a Python of the required version only an error with that version is printed."""
    result = find_python(tmp_path, "3.99")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Python 3.99" in result.stderr


def deploy(stack: str) -> subprocess.CompletedProcess[str]:
    """Runs the first step of `make deploy`."""
    command = ["make", "stack-name", f"STACK={stack}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_too_long_a_stack_name_is_refused_before_the_build() -> None:
    """A stack name is refused if a rule's name, which adds a suffix, would exceed 64 characters."""
    rules = re.findall(r"Name: !Sub \$\{AWS::StackName\}(-[a-z]+)", (ROOT / "template.yaml").read_text())
    assert sorted(rules) == ["-reconcile", "-requested"]
    longest = 64 - max(map(len, rules))
    assert deploy("s" * longest).returncode == 0
    refused = deploy("s" * (longest + 1))
    assert refused.returncode != 0
    assert f"at most {longest} characters" in refused.stderr
    first = re.search(r"(?m)^deploy: ([\w-]+)", (ROOT / "Makefile").read_text())
    assert first is not None
    assert first[1] == "stack-name"


PIP = """
case "$*" in *--version*) exit;; esac
echo 'Collecting boto3==1.2 (from -r requirements.txt (line 1))'
echo '  Using cached boto3-1.2-py3-none-any.whl'
echo 'Requirement already satisfied: httpx==0.1 in somewhere'
echo 'WARNING: a local setting' >&2
echo 'Installing collected packages: boto3, httpx'
exit $STATUS
"""


@pytest.mark.parametrize("status", [0, 1])
def test_an_installation_shows_its_packages(tmp_path: Path, status: int) -> None:
    """The packages are printed while pip installs them; its failure is that of the script."""
    (tmp_path / "bin").mkdir()
    put(tmp_path / "bin", "python", PIP)
    (tmp_path / "requirements.txt").write_text("boto3==1.2\nhttpx==0.1\n")
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "make-venv", tmp_path / "scripts")
    command = ["bash", str(script), str(tmp_path), str(tmp_path / "requirements.txt")]
    environment = {**os.environ, "STATUS": str(status)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert done.stdout.splitlines()[1:3] == ["  1 of 2  boto3==1.2", "Installing them"]
    assert "Using cached" not in done.stdout


def is_handling_interrupt(pid: int) -> bool:
    """True while a process runs its handler of SIGINT, in which the signal is blocked."""
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = re.search(r"SigBlk:\s*([0-9a-f]+)", status)
    return blocked is not None and bool(int(blocked[1], 16) & 1 << signal.SIGINT - 1)


@pytest.mark.parametrize(("status", "is_error"), [(130, False), (1, True)])
def test_ctrl_c_ends_make_dev_without_an_error(tmp_path: Path, status: int, is_error: bool) -> None:
    """On a terminal, Ctrl-C ends `make dev` without an error of make; another failure of the command is one."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for needed in ("requirements-local.txt", "pyproject.toml", "cli/pyproject.toml", "scripts/make-venv"):
        (tmp_path / needed).parent.mkdir(exist_ok=True)
        (tmp_path / needed).touch()
    (tmp_path / ".venv" / "local.stamp").touch()
    # The command stops only after make has begun to handle the signal, as the real one does: it takes a second.
    stop = f"while [ ! -e handled ]; do :; done; echo stopped; exit {status}"
    put(tmp_path / ".venv" / "bin", "rushes", f"trap '{stop}' INT\necho started; sleep 30 & wait")
    controller, terminal = pty.openpty()
    command = ["setsid", "--ctty", "--wait", "make", "-f", str(ROOT / "Makefile"), "dev"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        output = ""
        while "started" not in output:
            output += os.read(controller, 1000).decode()
        os.write(controller, b"\x03")
        ends = time.monotonic() + 30
        while not is_handling_interrupt(process.pid) and time.monotonic() < ends:
            time.sleep(0.01)
        (tmp_path / "handled").touch()
        with suppress(OSError):  # on Linux: the other end is closed
            while piece := os.read(controller, 1000):
                output += piece.decode()
        process.wait(30)
    os.close(controller)
    assert "stopped" in output
    assert ("***" in output) == is_error

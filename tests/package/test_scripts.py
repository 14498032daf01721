"""The scripts behind `make`: the choice of a Python, and the check of stack names."""

import os
import re
import subprocess
import sys
from pathlib import Path

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

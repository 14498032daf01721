"""The helpers behind `make`: which Python is taken, and which stack names."""

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


def test_an_interpreter_that_exists_and_fails_is_passed_over(tmp_path: Path) -> None:
    """A version manager's empty shell of a command is skipped for the next one that works."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    put(tmp_path, f"python{version}", "exit 127")
    put(tmp_path, "python3", f'exec {sys.executable} "$@"')
    result = find_python(tmp_path, version)
    assert result.returncode == 0
    assert Path(result.stdout.strip()).samefile(sys.executable)


def test_no_interpreter_is_said_clearly(tmp_path: Path) -> None:
    """Without a Python of the wanted version nothing is printed but a sentence that names it."""
    result = find_python(tmp_path, "3.99")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Python 3.99" in result.stderr


def deploy(stack: str) -> subprocess.CompletedProcess[str]:
    """What `make deploy` begins with."""
    command = ["make", "stack-name", f"STACK={stack}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_a_stack_name_that_makes_no_rule_is_refused_before_anything_is_built() -> None:
    """The rules' names are the stack's and a suffix, in 64 characters: a longer name is refused in a sentence."""
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

"""The helpers behind `make`: which Python is taken."""

import os
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

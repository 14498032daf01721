"""The command's wheel in an empty environment: its contents, its size, and a clip from order to file.

Its dependencies come from the package index, so these tests have the mark `batch`.
"""

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rushes_local.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 60_000_000
NEVER = ("av", "boto3", "botocore", "moto", "pydantic", "rushes_local")

pytestmark = [pytest.mark.batch, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT / "cli", check=True, capture_output=True, timeout=60)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with only the wheel and its requirements."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    # With byte code, as pip installs it, because that is part of the size.
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder)]
    subprocess.run([*install, str(wheel)], check=True, timeout=240)
    return folder


@pytest.fixture
def environment(installed: Path, tmp_path: Path) -> dict[str, str]:
    """An environment without any settings of this machine's user."""
    homes = {f"XDG_{name}": str(tmp_path / name.lower()) for name in ("CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR")}
    return {**homes, "PATH": f"{installed / 'bin'}{os.pathsep}/usr/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}


@pytest.fixture
def local_stack() -> Iterator[Stack]:
    """A local stack that renders clips by itself, as `rushes dev` does."""
    with Stack(ROOT, render_seconds=0) as stack:
        yield stack


def rushes(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the installed command."""
    path = Path(environment["PATH"].split(os.pathsep)[0]) / "rushes"
    command = [str(path), *arguments]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=100)


def test_the_wheel_contains_the_core(wheel: Path) -> None:
    """The wheel contains exactly the sources of the core and of the command."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {str(path.relative_to(ROOT / "layers/core")) for path in (ROOT / "layers/core/rushes").rglob("*.py")}
    sources |= {str(path.relative_to(ROOT / "cli/src")) for path in (ROOT / "cli/src/rushes_cli").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert {name.split("/")[0] for name in names} == {"rushes", "rushes_cli"}


def test_the_installation_is_small(installed: Path) -> None:
    """The installation takes at most 60 MB, without the packages for operators and developers."""
    size = sum(path.stat().st_size for path in installed.rglob("*") if path.is_file() and not path.is_symlink())
    assert size <= MAX_BYTES
    program = f"from importlib.util import find_spec; print([name for name in {NEVER} if find_spec(name)])"
    python = [str(installed / "bin" / "python"), "-I", "-c", program]
    assert subprocess.run(python, capture_output=True, text=True, timeout=60).stdout == "[]\n"


def test_verbs_that_are_not_installed(environment: dict[str, str]) -> None:
    """Verbs without their extra are listed; each prints one sentence about the installation and exits with 2."""
    listed = rushes(environment, "--help").stdout
    for verb, message in (("keys", "./cli[operator]"), ("check", "./cli[operator]"), ("dev", "make demo")):
        assert f" {verb} " in listed
        result = rushes(environment, verb, "--what", "ever")
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert message in result.stderr
    assert rushes(environment, "--version").stdout.startswith("rushes 0.")


@pytest.mark.usefixtures("no_shared_stack")
def test_from_login_to_download(environment: dict[str, str], local_stack: Stack, tmp_path: Path) -> None:
    """A caller with a URL and a key logs in, orders, watches and downloads a clip."""
    stack = local_stack
    result = rushes(environment, "login", "--url", stack.url, "--key-stdin", stdin=stack.create_key("wheel"))
    assert result.returncode == 0, result.stderr
    ordered = rushes(environment, "submit", "a lighthouse at dusk", "--yes", "--watch")
    assert ordered.returncode == 0, ordered.stderr
    task_uuid = ordered.stdout.split()[0]
    assert "succeeded" in ordered.stdout
    fetched = rushes(environment, "download", task_uuid, "--out", str(tmp_path / "clips"))
    assert fetched.returncode == 0, fetched.stderr
    (clip,) = (tmp_path / "clips").glob("*.mp4")
    assert clip.read_bytes()[4:8] == b"ftyp"

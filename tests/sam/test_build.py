"""The content of the package that `sam build` makes, and that it is complete."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rushes_local.sam import MACHINE
from scripts.cold_start.cases import environment, functions

pytestmark = [pytest.mark.sam, pytest.mark.timeout(600)]

FUNCTIONS = {"submit": "SubmitFunction", "webhook": "WebhookFunction", "reconcile": "ReconcileFunction"}
LAYERS = ("DependenciesLayer", "CoreLayer")
# The machine in a binary's header (ELF's e_machine) and in Python's file names.
MACHINES = {"arm64": (0xB7, "aarch64"), "x86_64": (0x3E, "x86_64")}


@pytest.mark.parametrize("architecture", MACHINES)
def test_binaries_are_for_the_chosen_architecture(architecture: str, build: Callable[[str], Path]) -> None:
    """Every binary is built for the chosen architecture, on any build machine."""
    machine, name = MACHINES[architecture]
    binaries = list(build(architecture).rglob("*.so"))
    assert binaries
    for binary in binaries:
        header = binary.read_bytes()[:20]
        assert header[:4] == b"\x7fELF", binary
        assert int.from_bytes(header[18:20], "little") == machine, binary
        assert f"-{name}-" in binary.name, binary


def test_the_package_holds_nothing_else(build: Callable[[str], Path]) -> None:
    """The core layer contains the package only and a function its app.py only; nothing local, no tests and no
    caches."""
    folder = build(MACHINE)
    assert [path.name for path in (folder / "CoreLayer").iterdir()] == ["python"]
    assert [path.name for path in (folder / "CoreLayer" / "python").iterdir()] == ["rushes"]
    for function in FUNCTIONS.values():
        assert [path.name for path in (folder / function).iterdir()] == ["app.py"]
    unwanted = {"rushes_local", "tests", "moto", "pytest"}
    dependencies = {path.name for path in (folder / "DependenciesLayer" / "python").iterdir()}
    assert not dependencies & unwanted


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_layers_are_small(architecture: str, build: Callable[[str], Path]) -> None:
    """Both layers together take at most 20 MB unzipped, including their byte code."""
    folder = build(architecture)
    files = [path for layer in LAYERS for path in (folder / layer).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000


@pytest.mark.parametrize("architecture", MACHINES)
def test_byte_code_is_included(architecture: str, build: Callable[[str], Path]) -> None:
    """Every module of the core has byte code for Lambda's Python, because Lambda cannot save any."""
    package = build(architecture) / "CoreLayer" / "python"
    sources = list(package.rglob("*.py"))
    assert sources
    for source in sources:
        assert (source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc").exists(), source


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_package_is_complete(function: str, build: Callable[[str], Path]) -> None:
    """Lambda's Python version imports each handler from the built folders alone and makes all of its clients."""
    folder = build(MACHINE)
    (declared,) = (each for each in functions() if each.name == function)
    paths = [folder / FUNCTIONS[function], *(folder / layer / "python" for layer in LAYERS)]
    program = f"import sys; sys.path += {[str(path) for path in paths]}; import app; app.wiring(); print('made')"
    command = ["python3.13", "-I", "-S", "-c", program]
    variables = {"PATH": os.environ["PATH"], **environment(declared, "http://127.0.0.1:9/v1")}
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("made\n", "")


@pytest.mark.parametrize("service", ["dynamodb", "events", "s3", "secretsmanager", "sqs"])
def test_every_client_can_be_made(service: str, build: Callable[[str], Path]) -> None:
    """The packed data of botocore is enough to make each service's client and to find its endpoint."""
    folder = build(MACHINE)
    program = (
        f"import sys; sys.path.append({str(folder / 'DependenciesLayer' / 'python')!r}); import botocore.session; "
        f"client = botocore.session.Session().create_client({service!r}, region_name='eu-central-1'); "
        "print(client.meta.endpoint_url)"
    )
    result = subprocess.run(
        ["python3.13", "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr) == (f"https://{service}.eu-central-1.amazonaws.com\n", "")

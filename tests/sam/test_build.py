"""What `sam build` puts into the package, and that it is enough."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rushes_local.sam import MACHINE

pytestmark = [pytest.mark.sam, pytest.mark.timeout(600)]

FUNCTIONS = {"submit": "SubmitFunction", "webhook": "WebhookFunction", "reconcile": "ReconcileFunction"}
# As compilers write the machine into a binary's header (ELF's e_machine) and Python into its name.
MACHINES = {"arm64": (0xB7, "aarch64"), "x86_64": (0x3E, "x86_64")}


@pytest.mark.parametrize("architecture", MACHINES)
def test_binaries_are_for_the_chosen_architecture(architecture: str, build: Callable[[str], Path]) -> None:
    """Whatever the building machine is, every binary in the package is for the machine it will run on."""
    machine, name = MACHINES[architecture]
    binaries = list(build(architecture).rglob("*.so"))
    assert binaries
    for binary in binaries:
        header = binary.read_bytes()[:20]
        assert header[:4] == b"\x7fELF", binary
        assert int.from_bytes(header[18:20], "little") == machine, binary
        assert f"-{name}-" in binary.name, binary


def test_the_package_holds_nothing_else(build: Callable[[str], Path]) -> None:
    """The core layer is the package, a function is its app.py; nothing local, no test and no cache comes along."""
    folder = build(MACHINE)
    assert [path.name for path in (folder / "CoreLayer").iterdir()] == ["python"]
    assert [path.name for path in (folder / "CoreLayer" / "python").iterdir()] == ["rushes"]
    for function in FUNCTIONS.values():
        assert [path.name for path in (folder / function).iterdir()] == ["app.py"]
    unwanted = {"rushes_local", "tests", "moto", "pytest", "__pycache__"}
    dependencies = {path.name for path in (folder / "DependenciesLayer" / "python").iterdir()}
    assert not dependencies & unwanted
    assert not list((folder / "CoreLayer").rglob("*.pyc"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_package_is_enough(function: str, build: Callable[[str], Path]) -> None:
    """Lambda's Python version imports each handler from the built folders alone, with nothing installed beside them."""
    folder = build(MACHINE)
    paths = [folder / FUNCTIONS[function], *(folder / layer / "python" for layer in ("DependenciesLayer", "CoreLayer"))]
    program = f"import sys; sys.path += {[str(path) for path in paths]}; import app; print(callable(app.handler))"
    command = ["python3.13", "-I", "-S", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("True\n", "")

"""What the command is made of: its imports, its own constants, and verbs whose part is not installed."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from rushes.domain import formats
from rushes.runware.catalog import KLING_2_1_MASTER
from rushes_cli import extras, limits, output
from tests.cli.conftest import Run

SOURCE = Path(__file__).resolve().parents[2] / "cli" / "src" / "rushes_cli"
PACKAGES = {"httpx", "rich", "rushes_cli", "typer"}


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=lambda path: path.stem)
def test_callers_verbs_need_three_packages(path: Path) -> None:
    """What callers use imports the standard library, httpx, rich and typer, and nothing of the core."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.partition(".")[0] for name in names} <= PACKAGES | sys.stdlib_module_names


def test_the_commands_constants_are_the_services() -> None:
    """What help says of the model, and what amounts may be, is what the core goes by."""
    assert KLING_2_1_MASTER.air == limits.MODEL
    assert tuple(f"{width}x{height}" for width, height in KLING_2_1_MASTER.sizes) == limits.SIZES
    assert KLING_2_1_MASTER.durations == limits.DURATIONS
    assert (KLING_2_1_MASTER.results.least, KLING_2_1_MASTER.results.most) == limits.CLIPS
    assert tuple(KLING_2_1_MASTER.formats.values()) == limits.FORMATS
    assert limits.MOST_DOLLARS == formats.MOST_DOLLARS


@pytest.mark.parametrize("text", ["0", "5", "0.924", "1e3", "1000000000", "0.0000005", "-1", "nan", "inf", "x", "1e10"])
def test_amounts_are_read_alike(text: str) -> None:
    """The command reads an amount as the service does, or refuses it as the service does."""

    def read(function: object) -> int | None:
        try:
            return function(text)  # type: ignore[operator]
        except ValueError:
            return None

    assert read(limits.micro_dollars) == read(formats.micro_dollars)


def test_times_are_written_alike() -> None:
    """The command writes a time as the service does."""
    assert output.iso(1_764_250_000_007) == formats.iso(1_764_250_000_007)


def test_version(run: Run) -> None:
    """The version is the project's."""
    ran = run("--version")
    assert (ran.status, ran.out) == (0, "rushes 0.1.0\n")


@pytest.mark.parametrize("arguments", [["keys", "create"], ["check", "--nonsense"], ["cost", "--by", "caller"]])
def test_an_operators_verb_without_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """It says in one sentence how to install it, whatever follows it, and ends with 2; its help stays."""
    found = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "boto3" else found(name))
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith("in a checkout of Rushes.\n")
    assert ran.err.count("\n") == 1
    assert "pipx install --force './cli[operator]'" in ran.err
    assert run(arguments[0], "--help").status == 0

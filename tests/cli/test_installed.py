"""The command's imports, its own constants, and verbs whose extra is not installed."""

import ast
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rushes.domain import formats
from rushes.runware import models
from rushes_cli import extras, limits, output
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "cli" / "src" / "rushes_cli"
CALLERS = {"httpx", "rich", "rushes_cli", "typer"}


ROOTS = {"rushes": ROOT / "layers" / "core", "rushes_cli": SOURCE.parent}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, except those for type checkers only."""
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    for node in nodes:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{each.name}" for each in node.names)


def file_of(name: str) -> Path | None:
    """The path of a module of this project."""
    path = ROOTS[name.partition(".")[0]] / name.replace(".", "/")
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=lambda path: path.stem)
def test_verbs_for_callers_need_three_packages(path: Path) -> None:
    """Verbs for callers import the standard library, httpx, rich and typer, and nothing of the core."""
    assert {name.partition(".")[0] for name in imported(path)} <= CALLERS | sys.stdlib_module_names


def test_the_operator_extra_is_complete() -> None:
    """The extra has all packages that operators' verbs import, including through the core, and no others."""
    paths, packages = list((SOURCE / "operator").glob("*.py")), set()
    for path in paths:
        for name in imported(path):
            top = name.partition(".")[0]
            found = file_of(name) if top in ROOTS else None
            paths += [found] if found and found not in paths else []
            packages |= {top} - ROOTS.keys()
    extra = tomllib.loads((ROOT / "cli/pyproject.toml").read_text())["project"]["optional-dependencies"]["operator"]
    declared = {each.partition(">")[0] for each in extra}
    assert packages - sys.stdlib_module_names - CALLERS == declared | {"botocore"}
    assert declared | {"rushes"} == set(extras.OPERATOR_PACKAGES)


def test_the_limits_are_those_of_the_core() -> None:
    """The model's limits and the limit of amounts in the command equal those of the core."""
    kling = models.get(models.DEFAULT)
    results = kling.parameters["numberResults"]
    assert kling.air == limits.MODEL
    assert tuple(f"{width}x{height}" for width, height in kling.sizes) == limits.SIZES
    assert kling.parameters["duration"].values == limits.DURATIONS
    assert (results.minimum, results.maximum) == limits.CLIPS
    assert tuple(kling.formats.values()) == limits.FORMATS
    assert limits.MAX_DOLLARS == formats.MAX_DOLLARS


@pytest.mark.parametrize("text", ["0", "5", "0.924", "1e3", "1000000000", "0.0000005", "-1", "nan", "inf", "x", "1e10"])
def test_amounts_are_read_alike(text: str) -> None:
    """The command parses or refuses an amount exactly as the service does."""

    def read(function: object) -> int | None:
        try:
            return function(text)  # type: ignore[operator]
        except ValueError:
            return None

    assert read(limits.micro_dollars) == read(formats.micro_dollars)


def test_times_are_written_alike() -> None:
    """The command formats a time as the service does."""
    assert output.iso(1_764_250_000_007) == formats.iso(1_764_250_000_007)


def test_version(run: Run) -> None:
    """`--version` prints the project's version."""
    result = run("--version")
    assert (result.status, result.out) == (0, "rushes 0.1.0\n")


@pytest.mark.parametrize("arguments", [["keys", "create"], ["check", "--nonsense"], ["cost", "--by", "caller"]])
def test_an_operators_verb_without_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Without its extra a verb explains the installation in one sentence and exits with 2; its help still works."""
    original = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "boto3" else original(name))
    result = run(*arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.endswith("in a checkout of Rushes.\n")
    assert result.err.count("\n") == 1
    assert "pipx install --force './cli[operator]'" in result.err
    assert run(arguments[0], "--help").status == 0

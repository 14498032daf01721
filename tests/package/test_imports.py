"""Who may import whom, read from the source so that nobody has to remember it.

A module that is in no row fails the test. Put it where it belongs: the lower a row, the more it may know.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "layers" / "core"

# Decisions without I/O. They may use each other and what turns bytes into values.
PURE = {
    "rushes",
    "rushes.attributes",
    "rushes.batches",
    "rushes.buying",
    "rushes.callers",
    "rushes.captions",
    "rushes.clip",
    "rushes.concurrency",
    "rushes.config",
    "rushes.errors",
    "rushes.lines",
    "rushes.media",
    "rushes.outside",
    "rushes.messages",
    "rushes.page",
    "rushes.redaction",
    "rushes.runware",
    "rushes.runware.answers",
    "rushes.runware.errors",
    "rushes.runware.kling",
    "rushes.runware.models",
    "rushes.runware.outcomes",
    "rushes.runware.wire",
    "rushes.webhook_token",
}
PURE_PACKAGES = {"imagesize", "itsdangerous", "pydantic", "pydantic_core"}

# How adapters reach the world over HTTP.
TRANSPORTS = {"rushes.bounded_http"}

# What touches the world, one thing each.
ADAPTERS = {
    "rushes.credentials",
    "rushes.drops",
    "rushes.entry",
    "rushes.events",
    "rushes.inbox",
    "rushes.manifests",
    "rushes.observability",
    "rushes.rescue",
    "rushes.runware.client",
    "rushes.store",
    "rushes.uploads",
}
ADAPTER_PACKAGES = PURE_PACKAGES | {
    "aws_lambda_powertools",
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "types_boto3_dynamodb",
    "types_boto3_events",
    "types_boto3_s3",
    "types_boto3_secretsmanager",
    "types_boto3_sqs",
}

# Adapters arrive as arguments, so that these run without any of them. They share steps: what is learned or bought goes
# the same way whoever starts it.
USE_CASES = {
    "rushes.announcing",
    "rushes.images",
    "rushes.intake",
    "rushes.learning",
    "rushes.purchasing",
    "rushes.reading",
    "rushes.receiving",
    "rushes.reconciling",
    "rushes.submitting",
    "rushes.taking",
}

# Puts adapters and use cases together, for handlers alone: nothing of the package may import these.
ASSEMBLIES = {"rushes.assembly"}

HANDLER_PACKAGES = ADAPTER_PACKAGES


def imported(source: str, module: str = "", package: bool = False) -> Iterator[str]:
    """The absolute names that a module's source imports, wherever in it the import stands."""
    parents = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from rushes import clip` names a module, `from rushes.clip import Clip` does not.
            yield from (f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names)


def is_module(name: str) -> bool:
    path = CORE / Path(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def allowed(module: str) -> tuple[set[str], set[str]]:
    """Of our own modules and of others' packages, what `module` may import."""
    if module in PURE:
        return PURE, PURE_PACKAGES
    if module in TRANSPORTS | ADAPTERS:
        return PURE | (TRANSPORTS - {module}), ADAPTER_PACKAGES
    if module in USE_CASES:
        return PURE | USE_CASES | {"rushes.observability"}, PURE_PACKAGES
    if module in ASSEMBLIES:
        return PURE | ADAPTERS | USE_CASES, ADAPTER_PACKAGES
    raise KeyError(module)


def faults(module: str, source: str, ours: set[str], packages: set[str]) -> list[str]:
    """The imports in `source` that are in neither set."""
    wrong = []
    for name in imported(source, module):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or (top != "rushes" and top in packages) or name in ours:
            continue
        wrong.append(f"{module} may not import {name}")
    return wrong


def core_modules() -> list[str]:
    paths = sorted((CORE / "rushes").rglob("*.py"))
    return [".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def source_of(module: str) -> str:
    path = CORE / Path(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@pytest.mark.parametrize("module", core_modules())
def test_core_modules_import_only_what_their_row_allows(module: str) -> None:
    """Every module of the package is in one row of the table, and imports only what that row may."""
    try:
        ours, packages = allowed(module)
    except KeyError:
        pytest.fail(f"{module} is in no row: add it to PURE, TRANSPORTS, ADAPTERS, USE_CASES or ASSEMBLIES")
    assert faults(module, source_of(module), ours, packages) == []


@pytest.mark.parametrize("path", sorted((ROOT / "functions").glob("*/*.py")), ids=lambda path: path.parent.name)
def test_handlers_import_only_the_package(path: Path) -> None:
    """A handler may use anything in the package, but no other function, nothing local and no test."""
    ours = set(core_modules())
    assert faults(f"functions.{path.parent.name}.app", path.read_text(), ours, HANDLER_PACKAGES) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "local/rushes_local/emulator").rglob("*.py")), ids=lambda path: path.stem
)
def test_the_emulator_knows_nothing_of_the_code_it_checks(path: Path) -> None:
    """The emulator imports nothing from the package: it would agree with the package's mistakes."""
    names = set(imported(path.read_text(), f"rushes_local.emulator.{path.stem}"))
    assert not {name for name in names if name.partition(".")[0] in ("rushes", "functions", "tests")}


def test_package_files_are_empty() -> None:
    """Importing one module must not import the rest, so `__init__.py` files hold at most a docstring."""
    for path in (CORE / "rushes").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rushes.clip", "import httpx"),
        ("rushes.clip", "from rushes import store"),
        ("rushes.clip", "from rushes.observability import Metric"),
        ("rushes.receiving", "from rushes.store import Store"),
        ("rushes.receiving", "def late():\n    import boto3"),
        ("rushes.store", "from rushes.receiving import receive"),
        ("rushes.store", "import rushes_local.stack"),
        ("rushes.runware.client", "from ..receiving import receive"),
        ("functions.webhook.app", "from functions.submit import app"),
        ("functions.webhook.app", "import moto"),
    ],
)
def test_a_forbidden_import_is_found(module: str, line: str) -> None:
    """Every kind of import that the rows forbid is seen, also inside a function and through a relative name."""
    ours, packages = (set(core_modules()), HANDLER_PACKAGES) if module.startswith("functions") else allowed(module)
    assert len(faults(module, line, ours, packages)) == 1

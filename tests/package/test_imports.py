"""The allowed imports of each module, read from the source.

A module that is in no row fails the test. Add it to its row: lower rows may import more.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from scripts import pack

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "layers" / "core"

# The imports allowed to each folder of the core, or module beside the folders: from the core, and other packages.
_AWS_TYPES = {f"types_boto3_{name}" for name in ("dynamodb", "events", "s3", "secretsmanager", "sqs")}
_WORLD = {"aws_lambda_powertools", "boto3", "botocore", "h11", "httpcore", "httpx", *_AWS_TYPES}
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "domain": ({"domain", "errors"}, {"itsdangerous"}),
    "runware": ({"domain", "errors", "runware"}, {"pydantic", "pydantic_core"}),
    "config": ({"domain", "errors"}, set()),
    "services": ({"config", "domain", "errors", "runware", "services"}, {"imagesize"}),
    "adapters": ({"adapters", "config", "domain", "errors", "runware", "services.metric"}, _WORLD),
    "gallery": (set(), set()),
    "lambda_events": ({"errors"}, set()),
    "bootstrap": (
        {"adapters", "bootstrap", "config", "domain", "errors", "runware", "services"},
        _WORLD,
    ),
}

HANDLER_PACKAGES = _WORLD | {"imagesize", "itsdangerous", "pydantic"}


def imported(source: str, module: str = "", package: bool = False) -> Iterator[str]:
    """The absolute names that a module's source imports, at any place in it."""
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


def row_of(module: str) -> str:
    """The table's row for a module of the core: its folder, or its own name."""
    return module.split(".")[1]


def allowed(module: str) -> tuple[set[str], set[str]]:
    """The modules of the core and the packages that `module` may import; raises `KeyError` if it is in no row."""
    modules, packages = TABLE[row_of(module)]
    rows = {f"rushes.{name}" for name in modules}
    within = {name for name in core_modules() if name in rows or any(name.startswith(f"{row}.") for row in rows)}
    return within, packages


def forbidden(module: str, source: str, modules: set[str], packages: set[str]) -> list[str]:
    """The imports in `source` that are in neither set."""
    found = []
    for name in imported(source, module):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or (top != "rushes" and top in packages) or name in modules:
            continue
        found.append(f"{module} may not import {name}")
    return found


def core_modules() -> list[str]:
    paths = sorted((CORE / "rushes").rglob("*.py"))
    return [".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def source_of(module: str) -> str:
    path = CORE / Path(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@pytest.mark.parametrize("module", [name for name in core_modules() if name != "rushes"])
def test_core_modules_import_only_what_their_row_allows(module: str) -> None:
    """Every module of the package is in one row of the table, and imports only what the row allows."""
    try:
        modules, packages = allowed(module)
    except KeyError:
        pytest.fail(f"{module} is in no row of the table")
    assert forbidden(module, source_of(module), modules, packages) == []


@pytest.mark.parametrize("path", sorted((ROOT / "functions").glob("*/*.py")), ids=lambda path: path.parent.name)
def test_handlers_import_only_the_package(path: Path) -> None:
    """A handler imports the package, but no other function, nothing local and no test."""
    modules = set(core_modules())
    assert forbidden(f"functions.{path.parent.name}.app", path.read_text(), modules, HANDLER_PACKAGES) == []


@pytest.mark.parametrize("path", sorted((ROOT / "functions").glob("*/*.py")), ids=lambda path: path.parent.name)
def test_a_handler_only_translates(path: Path) -> None:
    """A handler has fewer than a hundred lines: wiring is in `bootstrap`, and every rule in the core."""
    assert len(path.read_text().splitlines()) < 100


@pytest.mark.parametrize(
    "path", sorted((ROOT / "local/rushes_local/runware").rglob("*.py")), ids=lambda path: path.stem
)
def test_the_emulator_does_not_import_the_package(path: Path) -> None:
    """The emulator imports nothing from the package, so that it does not share its mistakes."""
    names = set(imported(path.read_text(), f"rushes_local.runware.{path.stem}"))
    assert not {name for name in names if name.partition(".")[0] in ("rushes", "functions", "tests")}


def graph() -> dict[str, set[str]]:
    """Each module of the core with the core's modules that it imports, at import time or later."""
    modules = set(core_modules())
    return {name: {each for each in imported(source_of(name), name) if each in modules} - {name} for name in modules}


def reached(start: Iterable[str], edges: Mapping[str, set[str]]) -> set[str]:
    """Every module that can be reached from these; a start is included only if it is in a cycle."""
    found: set[str] = set()
    left = list(start)
    while left:
        new = edges[left.pop()] - found
        found |= new
        left += new
    return found


def in_cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """The modules that import themselves through others."""
    return sorted(name for name in edges if name in reached([name], edges))


def test_the_core_has_no_cycle() -> None:
    """No module of the core imports itself through others."""
    assert in_cycles(graph()) == []


@pytest.mark.parametrize("cycle", [("a", "b"), ("a", "b", "c")], ids=len)
def test_a_cycle_is_found(cycle: tuple[str, ...]) -> None:
    """All modules of a cycle are found, and a module that only imports them is not."""
    edges = {name: {cycle[(place + 1) % len(cycle)]} for place, name in enumerate(cycle)}
    assert in_cycles({**edges, "user": {"a"}}) == list(cycle)


def test_no_function_imports_an_unpacked_module() -> None:
    """No handler imports the operators' part of the table, which is not in the layer."""
    modules, edges = set(core_modules()), graph()
    handlers = [path.read_text() for path in (ROOT / "functions").glob("*/*.py")]
    loaded = {name for source in handlers for name in imported(source) if name in modules}
    loaded |= reached(loaded, edges)
    absent = {".".join(Path(name).with_suffix("").parts) for name in pack.OPERATORS_ONLY}
    assert absent <= modules
    assert loaded & absent == set()


def test_package_files_are_empty() -> None:
    """`__init__.py` files contain at most a docstring, so that one import does not load the rest."""
    for path in (CORE / "rushes").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rushes.domain.clip", "import httpx"),
        ("rushes.domain.clip", "from rushes.adapters.dynamodb import table"),
        ("rushes.domain.clip", "from rushes.runware.response import read"),
        ("rushes.runware.facts", "from rushes.services.purchase import Buyer"),
        ("rushes.services.webhook", "from rushes.adapters.dynamodb.table import DynamoDbTable"),
        ("rushes.services.webhook", "def late():\n    import boto3"),
        ("rushes.adapters.s3", "from rushes.services.webhook import WebhookService"),
        ("rushes.adapters.s3", "import rushes_local.stack"),
        ("rushes.adapters.runware_api", "from ..services.webhook import WebhookService"),
        ("functions.webhook.app", "from functions.submit import app"),
        ("functions.webhook.app", "import moto"),
    ],
)
def test_a_forbidden_import_is_found(module: str, line: str) -> None:
    """Every kind of forbidden import is found, also inside a function and by a relative name."""
    modules, packages = (set(core_modules()), HANDLER_PACKAGES) if module.startswith("functions") else allowed(module)
    assert len(forbidden(module, line, modules, packages)) == 1


def test_names_are_unique() -> None:
    """No two modules and no two classes share a name."""
    modules: dict[str, list[Path]] = defaultdict(list)
    classes: dict[str, list[Path]] = defaultdict(list)
    for folder in ("layers/core", "functions", "cli/src", "local", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.stem not in ("__init__", "__main__", "app"):
                modules[path.stem].append(path)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    classes[node.name].append(path)
    named = (*modules.items(), *classes.items())
    assert {name: paths for name, paths in named if len(paths) > 1} == {}

"""The files that packing removes from the built layers, and those that it adds."""

import ast
import gzip
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import Session

from scripts import pack

ROOT = Path(__file__).resolve().parents[2]


def put(file: Path, content: Any) -> None:
    """Writes a file of botocore's data, compressed if its suffix is `.gz`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)


def got(file: Path) -> Any:
    content = file.read_bytes()
    return json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)


MODEL: dict[str, Any] = {
    "metadata": {"apiVersion": "2"},
    "documentation": "prose",
    "operations": {
        "GetObject": {"input": {"shape": "Part"}, "errors": [{"shape": "NoSuchKey"}]},
        "DeleteBucket": {"input": {"shape": "Other"}},
    },
    "shapes": {
        "Part": {
            "type": "structure",
            "members": {"documentation": {"shape": "Text", "documentation": "more prose"}},
            "examples": ["kept"],
        },
        "Text": {"type": "string"},
        "NoSuchKey": {"type": "structure", "members": {"part": {"shape": "Part"}}, "exception": True},
        "Other": {"type": "structure", "members": {}},
    },
}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Two layers as `sam build` makes them, with few files."""
    python = tmp_path / "DependenciesLayer" / "python"
    data = python / "botocore" / "data"
    put(data / "endpoints.json", {"partitions": [{"partition": "aws", "services": {"s3": {}, "ec2": {}}}]})
    put(data / "s3" / "2006-03-01" / "service-2.json.gz", MODEL)
    put(data / "s3" / "2006-03-01" / "examples-1.json", {})
    put(data / "s3" / "2006-03-01" / "paginators-1.json", {})
    put(data / "dynamodb" / "2011-12-05" / "service-2.json.gz", MODEL)
    put(data / "dynamodb" / "2012-08-10" / "service-2.json.gz", MODEL)
    put(data / "ec2" / "2016-11-15" / "service-2.json.gz", MODEL)
    put(python / "boto3" / "data" / "ec2" / "resources-1.json", {})
    (python / "package.py").write_text('"""Prose."""\n\nVALUE = 1\n')
    (python / "package-1.dist-info").mkdir()
    (python / "package-1.dist-info" / "RECORD").write_text("")
    (python / "package-1.dist-info" / "METADATA").write_text("")
    core = tmp_path / "CoreLayer" / "python" / "rushes"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text("")
    for module in ("table", "admin"):
        put(core / "adapters" / "dynamodb" / f"{module}.py", None)
    pack.pack(tmp_path)
    return tmp_path


@pytest.fixture
def python(build: Path) -> Path:
    return build / "DependenciesLayer" / "python"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_called_services_are_kept(python: Path) -> None:
    """Only the newest data of each called service is kept, with the endpoints of these services."""
    data = python / "botocore" / "data"
    left = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert left == {
        "endpoints.json",
        "s3/2006-03-01/service-2.json.gz",
        "s3/2006-03-01/paginators-1.json",
        "dynamodb/2012-08-10/service-2.json.gz",
    }
    assert got(data / "endpoints.json") == {"partitions": [{"partition": "aws", "services": {"s3": {}}}]}


def test_documentation_and_uncalled_operations_are_removed(python: Path) -> None:
    """Documentation texts are emptied, and operations that no function calls are removed with their own shapes; a
    member named `documentation` is kept."""
    operations, shapes = MODEL["operations"], MODEL["shapes"]
    assert got(python / "botocore" / "data" / "s3" / "2006-03-01" / "service-2.json.gz") == {
        **MODEL,
        "documentation": "",
        "operations": {"GetObject": operations["GetObject"]},
        "shapes": {
            "Part": {**shapes["Part"], "members": {"documentation": {"shape": "Text", "documentation": ""}}},
            "Text": shapes["Text"],
            "NoSuchKey": shapes["NoSuchKey"],
        },
    }


def test_unused_package_files_are_removed(python: Path) -> None:
    """boto3's resources and pip's file lists are removed; a package's metadata is kept."""
    assert not (python / "boto3" / "data").exists()
    assert [path.name for path in (python / "package-1.dist-info").iterdir()] == ["METADATA"]


def test_the_operators_side_of_the_table_is_left_out(build: Path) -> None:
    """The layer has the table without the operators' module."""
    core = build / "CoreLayer" / "python" / "rushes" / "adapters" / "dynamodb"
    assert [path.name for path in core.glob("*.py")] == ["table.py"]


def test_packing_is_idempotent(build: Path) -> None:
    """Packing a folder from SAM's cache again changes no byte."""
    before = files(build)
    pack.pack(build)
    assert files(build) == before


def test_byte_code_is_used_with_any_modification_time(python: Path) -> None:
    """A module loads from its byte code although the source has another time, as after an upload to Lambda."""
    os.utime(python / "package.py", (0, 0))
    program = "import package; print(package.VALUE, package.__doc__, package.__spec__.cached)"
    command = [sys.executable, "-B", "-v", "-c", program]
    result = subprocess.run(command, cwd=python, capture_output=True, text=True, timeout=60, check=True)
    cached = python / "__pycache__" / f"package.{sys.implementation.cache_tag}.pyc"
    assert result.stdout.startswith("1 None ")
    assert f"{cached} matches" in result.stderr


def test_tracebacks_name_the_deployed_file(python: Path) -> None:
    """Byte code has the deployed path of its source, not the path at build time."""
    (cached,) = (python / "__pycache__").iterdir()
    assert b"/opt/python/package.py" in cached.read_bytes()


def test_a_folder_without_layers_is_refused(tmp_path: Path) -> None:
    """A folder without built layers is refused with the missing step."""
    with pytest.raises(SystemExit, match="run sam build first"):
        pack.pack(tmp_path)


def called_services() -> Iterator[str]:
    """The services for which deployed code makes clients."""
    for folder in ("functions", "layers/core"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "aws_client":
                    (name, *_) = node.args
                    assert isinstance(name, ast.Constant), f"{path}: the service's name must be a literal"
                    yield str(name.value)


def test_every_service_that_is_called_is_kept() -> None:
    """The data of every called service is kept, because its client needs it."""
    assert set(called_services()) <= pack.OPERATIONS.keys()


def called_operations(service: str) -> set[str]:
    """The operations of a service whose method names occur in deployed code."""
    model = Session().get_service_model(service)
    operations = {xform_name(name): name for name in model.operation_names}
    absent = [ROOT / "layers" / "core" / name for name in pack.OPERATORS_ONLY]
    used = set()
    for path in (ROOT / "layers" / "core" / "rushes" / "adapters").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())) if path not in absent else ():
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant):
                used.add(str(node.value))
    return {operations[name] for name in used & operations.keys()}


@pytest.mark.parametrize("service", pack.OPERATIONS)
def test_every_operation_that_is_called_is_kept(service: str) -> None:
    """The kept operations are exactly the called ones, because a client has no method for a removed one."""
    assert called_operations(service) == pack.OPERATIONS[service]


def test_the_operations_of_s3transfer_are_kept() -> None:
    """The operations that s3transfer calls in an upload are kept."""
    package = importlib.metadata.distribution("s3transfer").locate_file("s3transfer")
    sources = [Path(str(package), name).read_text() for name in ("tasks.py", "upload.py")]
    names = {xform_name(name): name for name in Session().get_service_model("s3").operation_names}
    called = {names[name] for source in sources for name in re.findall(r"client\.(\w+)", source) if name in names}
    assert "CreateMultipartUpload" in called
    assert called <= pack.OPERATIONS["s3"] | pack.UNSEEN_OPERATIONS["s3"]


@pytest.mark.parametrize("service", pack.UNSEEN_OPERATIONS)
def test_operations_have_their_real_names(service: str) -> None:
    """Every kept operation exists under its name."""
    assert pack.UNSEEN_OPERATIONS[service] <= set(Session().get_service_model(service).operation_names)

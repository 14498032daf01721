"""What is taken out of the built layers, and what is put in."""

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
    """A file of botocore's data, zipped if its name says so."""
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
    """Two layers as `sam build` leaves them, with little in them."""
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


def test_only_what_is_called_stays_of_botocore(python: Path) -> None:
    """Of botocore's data the newest version of each service that is called stays, and the endpoints of those."""
    data = python / "botocore" / "data"
    left = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert left == {
        "endpoints.json",
        "s3/2006-03-01/service-2.json.gz",
        "s3/2006-03-01/paginators-1.json",
        "dynamodb/2012-08-10/service-2.json.gz",
    }
    assert got(data / "endpoints.json") == {"partitions": [{"partition": "aws", "services": {"s3": {}}}]}


def test_prose_is_emptied_and_what_is_not_called_goes(python: Path) -> None:
    """Texts under `documentation` go, and so do operations that no function calls, with the shapes of theirs alone; a
    member of that name, and everything else, stays as it was."""
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


def test_what_nobody_reads_goes(python: Path) -> None:
    """boto3's resources and pip's lists go, what names a package and its licence stays."""
    assert not (python / "boto3" / "data").exists()
    assert [path.name for path in (python / "package-1.dist-info").iterdir()] == ["METADATA"]


def test_the_operators_side_of_the_table_is_left_out(build: Path) -> None:
    """The layer has the table, and nothing that only operators do to it."""
    core = build / "CoreLayer" / "python" / "rushes" / "adapters" / "dynamodb"
    assert [path.name for path in core.glob("*.py")] == ["table.py"]


def test_again_changes_nothing(build: Path) -> None:
    """A folder that SAM took from its cache may have been packed already: every byte stays."""
    before = files(build)
    pack.pack(build)
    assert files(build) == before


def test_byte_code_is_taken_whatever_the_times(python: Path) -> None:
    """Modules load from their byte code though the source has another time, as it has after the way to Lambda."""
    os.utime(python / "package.py", (0, 0))
    program = "import package; print(package.VALUE, package.__doc__, package.__spec__.cached)"
    command = [sys.executable, "-B", "-v", "-c", program]
    result = subprocess.run(command, cwd=python, capture_output=True, text=True, timeout=60, check=True)
    cached = python / "__pycache__" / f"package.{sys.implementation.cache_tag}.pyc"
    assert result.stdout.startswith("1 None ")
    assert f"{cached} matches" in result.stderr


def test_tracebacks_name_the_deployed_file(python: Path) -> None:
    """Byte code names the file where it will lie, not where it was built."""
    (cached,) = (python / "__pycache__").iterdir()
    assert b"/opt/python/package.py" in cached.read_bytes()


def test_a_folder_without_layers_is_refused(tmp_path: Path) -> None:
    """Before `sam build` there is nothing to pack, and that is said."""
    with pytest.raises(SystemExit, match="run sam build first"):
        pack.pack(tmp_path)


def called_services() -> Iterator[str]:
    """The services that deployed code makes clients of."""
    for folder in ("functions", "layers/core"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "aws_client":
                    (name, *_) = node.args
                    assert isinstance(name, ast.Constant), f"{path}: say the service's name, or nobody finds it"
                    yield str(name.value)


def test_every_service_that_is_called_is_kept() -> None:
    """A client cannot be made without its service's data."""
    assert set(called_services()) <= pack.OPERATIONS.keys()


def called_operations(service: str) -> set[str]:
    """The operations of a service that stand in deployed code by their method's name, called or handed on."""
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
    """A client has no method for an operation that its model lacks; one that is called no more is taken out."""
    assert called_operations(service) == pack.OPERATIONS[service]


def test_what_s3transfer_calls_is_kept() -> None:
    """The operations of an upload, at once or in parts, as s3transfer names them."""
    package = importlib.metadata.distribution("s3transfer").locate_file("s3transfer")
    sources = [Path(str(package), name).read_text() for name in ("tasks.py", "upload.py")]
    names = {xform_name(name): name for name in Session().get_service_model("s3").operation_names}
    called = {names[name] for source in sources for name in re.findall(r"client\.(\w+)", source) if name in names}
    assert "CreateMultipartUpload" in called
    assert called <= pack.OPERATIONS["s3"] | pack.UNSEEN_OPERATIONS["s3"]


@pytest.mark.parametrize("service", pack.UNSEEN_OPERATIONS)
def test_operations_have_their_real_names(service: str) -> None:
    """A misspelt name would keep nothing."""
    assert pack.UNSEEN_OPERATIONS[service] <= set(Session().get_service_model(service).operation_names)

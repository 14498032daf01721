#!/usr/bin/env python3.13
"""Packs the layers after `sam build`: removes files that no function uses, and adds byte code.

    scripts/pack.py .aws-sam/build

Lambda cannot write beside the code, so without byte code it would compile every module at every cold start, which takes
longer than all the rest of it. Packing is idempotent, since SAM caches its builds.
"""

import gzip
import json
import py_compile
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPERATIONS = {
    "dynamodb": {
        *("BatchGetItem", "DeleteItem", "GetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"),
    },
    "events": {"PutEvents"},
    "s3": {"GetObject", "HeadObject", "ListObjectVersions", "PutObject"},
    "secretsmanager": {"GetSecretValue"},
    "sqs": {"SendMessage", "SendMessageBatch"},
}
"""The called operations. botocore's data for the other four hundred services is half of the installed bytes, and a
client parses the whole of its service's model: with the other operations a cold start takes a twentieth longer."""

UNSEEN_OPERATIONS = {
    "s3": {
        # of s3transfer, which sends a large copy in parts
        *("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload"),
        # of botocore itself, for a bucket in another region and for a directory bucket
        *("HeadBucket", "CreateSession"),
    }
}
"""Operations that libraries call."""

# Whole folders, relative to python/. A function that begins to use one fails in tests/sam/test_build.py.
_UNUSED = (
    "aws_lambda_powertools/event_handler",
    "aws_lambda_powertools/utilities/auth_alpha",
    "aws_lambda_powertools/utilities/batch",
    "aws_lambda_powertools/utilities/circuit_breaker",
    "aws_lambda_powertools/utilities/data_classes",
    "aws_lambda_powertools/utilities/data_masking",
    "aws_lambda_powertools/utilities/feature_flags",
    "aws_lambda_powertools/utilities/idempotency",
    "aws_lambda_powertools/utilities/kafka",
    "aws_lambda_powertools/utilities/parameters",
    "aws_lambda_powertools/utilities/parser",
    "aws_lambda_powertools/utilities/streaming",
    "aws_lambda_powertools/utilities/validation",
    "boto3/data",
    "boto3/examples",
    "dateutil/zoneinfo",
    "pydantic/v1",
)
OPERATORS_ONLY = ("rushes/adapters/dynamodb/admin.py",)
"""Modules of the core for operators' commands; tests/package/test_imports.py checks that no function imports them."""

# Loaded by no function, and larger than a few kilobytes: they work without byte code, only slower.
_NOT_COMPILED = (
    "anyio/_backends",
    "anyio/_core",
    "anyio/abc",
    "anyio/streams",
    "dateutil/rrule.py",
    "idna/uts46data.py",
    "pydantic/deprecated",
    "pydantic/experimental",
    "pydantic/mypy.py",
    "s3transfer/crt.py",
    "s3transfer/processpool.py",
    "urllib3/contrib/emscripten",
)
_DEPLOYED = Path("/opt/python")  # where Lambda mounts a layer's python/, for tracebacks


def pack(build: Path) -> None:
    """Prunes and compiles both layers of a built application."""
    for layer in ("DependenciesLayer", "CoreLayer"):
        python = build / layer / "python"
        if not python.is_dir():
            raise SystemExit(f"{python} is not there: run sam build first")
        prune(python)
        compile_all(python)


def prune(python: Path) -> None:
    """Removes files from a layer's python/ that no function reads."""
    for name in _UNUSED:
        shutil.rmtree(python / name, ignore_errors=True)
    for module in OPERATORS_ONLY:
        (python / module).unlink(missing_ok=True)
    for leftover in python.glob("*.dist-info/RECORD"):  # a list for pip, which does not run again
        leftover.unlink()
    for leftover in python.glob("*.dist-info/sboms"):
        shutil.rmtree(leftover)
    data = python / "botocore" / "data"
    if data.is_dir():
        _prune_botocore(data)


def _prune_botocore(data: Path) -> None:
    for folder in [path for path in data.iterdir() if path.is_dir()]:
        if folder.name not in OPERATIONS:
            shutil.rmtree(folder)
            continue
        *old_versions, newest = sorted(path for path in folder.iterdir() if path.is_dir())
        for version in old_versions:
            shutil.rmtree(version)
        for examples in newest.glob("examples-*"):
            examples.unlink()
        for model in newest.glob("service-*.json.gz"):
            _reduce(model, OPERATIONS[folder.name] | UNSEEN_OPERATIONS.get(folder.name, set()))
    endpoints = data / "endpoints.json"
    _rewrite(endpoints, _known_endpoints(json.loads(endpoints.read_bytes())))


def _reduce(model: Path, operations: set[str]) -> None:
    """Keeps these operations of a service's model, without documentation."""
    content = _undocumented(json.loads(gzip.decompress(model.read_bytes())))
    content["operations"] = {name: each for name, each in content["operations"].items() if name in operations}
    needed = _shapes_in(content["operations"], content["shapes"])
    content["shapes"] = {name: shape for name, shape in content["shapes"].items() if name in needed}
    # mtime=0: the same text makes the same bytes, or every build would be deployed again.
    model.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))


def _shapes_in(node: Any, shapes: dict[str, Any]) -> set[str]:
    """The names of the shapes that a part of a model refers to, and those that these refer to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            name = node.get("shape")
            if isinstance(name, str) and name in shapes and name not in found:
                found.add(name)
                waiting.append(shapes[name])
    return found


def _undocumented(node: Any) -> Any:
    if isinstance(node, dict):
        # A shape may have a member of that name, which is no text; botocore needs the key with a text.
        return {
            key: "" if key == "documentation" and isinstance(value, str) else _undocumented(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_undocumented(member) for member in node]
    return node


def _known_endpoints(content: dict[str, Any]) -> dict[str, Any]:
    for partition in content["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services if name in OPERATIONS}
    return content


def _rewrite(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def compile_all(python: Path) -> None:
    """Puts byte code beside the modules of a layer's python/."""
    for source in _to_compile(python):
        within = source.relative_to(python)
        py_compile.compile(
            str(source),
            cfile=str(source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"),
            dfile=str(_DEPLOYED / within),
            doraise=True,
            # A dataclass without a docstring makes one of its own signature, a third of the time that it takes to make.
            optimize=1 if b"dataclass" in source.read_bytes() else 2,
            # File times change on the way to Lambda, the source does not.
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def _to_compile(python: Path) -> Iterator[Path]:
    left_out = [python / name for name in _NOT_COMPILED]
    for source in sorted(python.rglob("*.py")):
        if not any(source == path or path in source.parents for path in left_out):
            yield source


if __name__ == "__main__":
    # The benchmark runs the layers with this very Python; a deployment does not.
    if sys.version_info[:2] != (3, 13) and "--for-this-python" not in sys.argv[2:]:
        raise SystemExit("byte code depends on the version: run this with Lambda's Python, 3.13")
    pack(Path(sys.argv[1]))

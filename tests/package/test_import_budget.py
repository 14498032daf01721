"""What a cold start loads. Names of modules are steadier than milliseconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Each costs a noticeable part of a cold start, and none is needed by every function.
HEAVY = {
    "aws_lambda_powertools.event_handler",
    "aws_lambda_powertools.event_handler.openapi.models",
    "aws_lambda_powertools.event_handler.openapi.params",
    "aws_lambda_powertools.utilities.batch",
    "aws_lambda_powertools.utilities.idempotency",
    "aws_xray_sdk",
    "boto3",
    "httpx",
    "moto",
    "pydantic",
    "requests",
    "rushes.services.ports",  # for type checkers: eighteen protocols, which nobody calls
}
BUDGET = {
    "publish": set[str](),
    "intake": {"pydantic"},
    "reconcile": {"httpx"},
    "submit": {"httpx", "pydantic"},
    "tasks": set[str](),
    "webhook": set[str](),
}
PROGRAM = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""


def loaded(function: str) -> set[str]:
    """Every module in a fresh interpreter that has imported nothing but the handler, with an empty environment."""
    command = [sys.executable, "-c", PROGRAM, f"functions.{function}.app"]
    result = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("function", sorted(BUDGET))
def test_a_cold_start_loads_no_more_than_it_needs(function: str) -> None:
    """A handler can be imported with nothing set, and imports only the heavy modules that it is allowed."""
    assert loaded(function) & HEAVY == BUDGET[function]


def test_every_function_has_a_budget() -> None:
    """A function that is added is given a budget here."""
    assert {path.parent.name for path in (ROOT / "functions").glob("*/app.py")} == BUDGET.keys()

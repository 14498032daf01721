"""The heavy modules that each function imports. Names of modules vary less than milliseconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Each takes a noticeable part of a cold start, and no function needs all of them.
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
    "rushes.services.ports",  # eighteen protocols, for type checkers only
}
BUDGET = {
    "deliver": {"httpx"},
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
    """All modules in a fresh interpreter that imported only the handler, with an empty environment."""
    command = [sys.executable, "-c", PROGRAM, f"functions.{function}.app"]
    result = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize("function", sorted(BUDGET))
def test_a_cold_start_loads_no_more_than_it_needs(function: str) -> None:
    """A handler can be imported without any settings, and imports only the heavy modules of its budget."""
    assert loaded(function) & HEAVY == BUDGET[function]


def test_every_function_has_a_budget() -> None:
    """Every function has a budget here."""
    assert {path.parent.name for path in (ROOT / "functions").glob("*/app.py")} == BUDGET.keys()

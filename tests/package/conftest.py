"""The template as data: `{"Ref": …}` and `{"Fn::Sub": …}` where the file has tags."""

from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    content: dict[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))
    return content


@pytest.fixture(scope="session")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = template["Resources"]
    return content

"""The parsed template, with `{"Ref": …}` and `{"Fn::Sub": …}` in place of tags."""

from pathlib import Path
from typing import Any

import pytest

from rushes_local import template as templates

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    return templates.read(ROOT / "template.yaml")


@pytest.fixture(scope="session")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = template["Resources"]
    return content

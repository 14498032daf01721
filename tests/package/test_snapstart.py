"""What SnapStart adds to the built template. What SAM makes of it: tests/sam/test_build.py."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rushes_local.template import Template
from scripts import snapstart

WAITED_FOR = {"SubmitFunction", "TasksFunction", "WebhookFunction"}


@pytest.fixture
def turned_on(template: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(template)
    snapstart.turn_on(changed)
    return changed


def test_what_somebody_waits_for_gets_it(turned_on: dict[str, Any]) -> None:
    """The functions behind HTTP are published and take snapshots; a queue, a stream or a schedule can wait."""
    published = {
        name for name, each in turned_on["Resources"].items() if "AutoPublishAlias" in each.get("Properties", {})
    }
    assert published == WAITED_FOR
    for name in published:
        assert turned_on["Resources"][name]["Properties"]["SnapStart"] == {"ApplyOn": "PublishedVersions"}


def test_nothing_else_changes(template: dict[str, Any], turned_on: dict[str, Any]) -> None:
    """Everything else is deployed as it is without."""
    layers = {"CoreLayer", "DependenciesLayer"}
    changed = {name for name, each in turned_on["Resources"].items() if each != template["Resources"][name]}
    assert changed == WAITED_FOR | layers
    assert {name: part for name, part in turned_on.items() if name != "Resources"} == {
        name: part for name, part in template.items() if name != "Resources"
    }


@pytest.mark.parametrize("name", sorted(WAITED_FOR))
def test_a_version_is_described_by_every_parameter_in_it(name: str, turned_on: dict[str, Any], root: Path) -> None:
    """Whatever parameter a function's variables are made of, and its processor, stands in the description: another
    value is another version."""
    (declared,) = (each for each in Template(root / "template.yaml").functions() if each.logical_id == name)
    named = set(re.findall(r'"Ref": "(\w+)"|\$\{(\w+)\}', json.dumps(dict(declared.variables))))
    parameters = {part for pair in named for part in pair} & turned_on["Parameters"].keys() | {"Architecture"}
    described = turned_on["Resources"][name]["Properties"]["VersionDescription"]["Fn::Join"][1]
    assert {each["Ref"] for each in described} == parameters
    if name == "SubmitFunction":
        assert {"MonthlyLimitUsd", "RetentionDays"} < parameters


@pytest.mark.parametrize("name", sorted(WAITED_FOR))
def test_descriptions_are_texts_that_fit(name: str, turned_on: dict[str, Any]) -> None:
    """CloudFormation takes 256 characters: the defaults leave room for two long addresses."""
    described = turned_on["Resources"][name]["Properties"]["VersionDescription"]["Fn::Join"][1]
    used = [turned_on["Parameters"][each["Ref"]] for each in described]
    assert {parameter["Type"] for parameter in used} <= {"String", "Number"}
    assert len(" ".join(str(parameter["Default"]) for parameter in used)) <= 256 - 2 * 60

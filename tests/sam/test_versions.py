"""The result of SAM's transform: versions that are replaced after every change, and an alias for all invocations."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rushes_local import template as templates

pytestmark = pytest.mark.sam

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = {f"{name}Function" for name in ("Submit", "Intake", "Webhook", "Reconcile", "Publish", "Deliver", "Tasks")}

Template = dict[str, Any]
Transform = Callable[[Callable[[Template], None]], Template]


@pytest.fixture(scope="module")
def transform(tmp_path_factory: pytest.TempPathFactory) -> Transform:
    """Changes the template and transforms it as CloudFormation does."""
    tmp_path = tmp_path_factory.mktemp("template")

    @cache
    def transformed(change: Callable[[Template], None]) -> Template:
        template = templates.read(ROOT / "template.yaml")
        for name, resource in template["Resources"].items():  # as after `sam deploy`, which names code by its content
            for location in {"CodeUri", "ContentUri"} & resource.get("Properties", {}).keys():
                resource["Properties"][location] = f"s3://deployments/{name}-1"
        change(template)
        (tmp_path / "template.yaml").write_text(json.dumps(template))
        command = ["python3.13", ROOT / "scripts" / "transform.py", tmp_path / "template.yaml"]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        content: Template = yaml.safe_load(result.stdout)
        return content

    return transformed


def unchanged(template: Template) -> None: ...


def once_more(template: Template) -> None: ...


def code(template: Template) -> None:
    for name in FUNCTIONS:
        template["Resources"][name]["Properties"]["CodeUri"] = f"s3://deployments/{name}-2"


def core(template: Template) -> None:
    template["Resources"]["CoreLayer"]["Properties"]["ContentUri"] = "s3://deployments/CoreLayer-2"


def dependencies(template: Template) -> None:
    template["Resources"]["DependenciesLayer"]["Properties"]["ContentUri"] = "s3://deployments/DependenciesLayer-2"


def variable(template: Template) -> None:
    template["Globals"]["Function"]["Environment"]["Variables"]["LEASE_SECONDS"] = 61


def timeout(template: Template) -> None:
    for name in FUNCTIONS:
        template["Resources"][name]["Properties"]["Timeout"] = 9


def versions(transformed: Template) -> dict[str, str]:
    """The logical IDs of the functions' versions, by function."""
    return {
        each["Properties"]["FunctionName"]["Ref"]: name
        for name, each in transformed["Resources"].items()
        if each["Type"] == "AWS::Lambda::Version"
    }


@pytest.mark.parametrize("change", [code, core, dependencies, variable, timeout], ids=lambda change: change.__name__)
def test_a_change_publishes_a_version(change: Callable[[Template], None], transform: Transform) -> None:
    """A change gives the version another logical ID, so that CloudFormation publishes a new version."""
    before, after = versions(transform(unchanged)), versions(transform(change))
    assert before.keys() == after.keys() == FUNCTIONS
    assert all(before[name] != after[name] for name in FUNCTIONS)


def test_an_unchanged_template_publishes_no_version(transform: Transform) -> None:
    """Without a change the version keeps its logical ID, because Lambda refuses a version without changes."""
    assert versions(transform(unchanged)) == versions(transform(once_more))


def test_events_go_to_the_newest_version(transform: Transform) -> None:
    """Each function's alias names its version, and a replaced version is retained."""
    content = transform(unchanged)
    resources = content["Resources"]
    for function, version in versions(content).items():
        alias = resources[f"{function}Aliaslive"]["Properties"]
        assert alias["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}
        assert resources[version]["DeletionPolicy"] == "Retain"


def invocations(content: Template) -> Iterator[Any]:
    """Every reference in a transformed template that invokes a function or permits its invocation."""
    for each in content["Resources"].values():
        properties = each["Properties"]
        match each["Type"]:
            case "AWS::Lambda::EventSourceMapping" | "AWS::Lambda::Permission":
                yield properties["FunctionName"]
            case "AWS::Events::Rule":
                yield from (target["Arn"] for target in properties["Targets"] if "Function" in str(target["Arn"]))
            case "AWS::ApiGatewayV2::Api":
                for text in re.findall(r"functions/\$\{([\w.]+)\}/invocations", json.dumps(properties["Body"])):
                    yield {"Ref": text}


def test_all_invocations_use_the_alias(transform: Transform) -> None:
    """APIs, queues, the stream and the schedule invoke each function through its alias and have no other permission."""
    named = list(invocations(transform(unchanged)))
    assert {each["Ref"] for each in named} == {f"{function}Aliaslive" for function in FUNCTIONS}
    # Eight routes with a permission each, four queues, one stream, one schedule with its permission.
    assert len(named) == 2 * 8 + 4 + 1 + 2


def test_the_alias_has_the_settings_of_failed_sweeps(transform: Transform) -> None:
    """The settings for asynchronous invocations are those of the alias that the schedule invokes."""
    (config,) = [
        each["Properties"]
        for each in transform(unchanged)["Resources"].values()
        if each["Type"] == "AWS::Lambda::EventInvokeConfig"
    ]
    assert (config["FunctionName"], config["Qualifier"]) == ({"Ref": "ReconcileFunction"}, "live")

"""What SAM's own transform makes of SnapStart: versions that are replaced whenever what they keep has changed."""

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rushes_local import template as templates

pytestmark = pytest.mark.sam

ROOT = Path(__file__).resolve().parents[2]
BEHIND_HTTP = ("SubmitFunction", "TasksFunction", "WebhookFunction")

Template = dict[str, Any]
Transform = Callable[[Callable[[Template], None]], Template]


@pytest.fixture(scope="module")
def transform(tmp_path_factory: pytest.TempPathFactory) -> Transform:
    """The template with SnapStart, changed and transformed as CloudFormation would have it done."""
    tmp_path = tmp_path_factory.mktemp("template")

    @cache
    def transformed(change: Callable[[Template], None]) -> Template:
        template = templates.read(ROOT / "template.yaml")
        for name, resource in template["Resources"].items():  # as `sam deploy` leaves them: named by their content
            for location in {"CodeUri", "ContentUri"} & resource.get("Properties", {}).keys():
                resource["Properties"][location] = f"s3://deployments/{name}-1"
        change(template)
        (tmp_path / "template.yaml").write_text(json.dumps(template))
        subprocess.run(["python3.13", ROOT / "scripts" / "snapstart.py", tmp_path], check=True, timeout=60)
        command = ["python3.13", ROOT / "scripts" / "transform.py", tmp_path / "template.yaml"]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        content: Template = yaml.safe_load(result.stdout)
        return content

    return transformed


def unchanged(template: Template) -> None: ...


def once_more(template: Template) -> None: ...


def code(template: Template) -> None:
    for name in BEHIND_HTTP:
        template["Resources"][name]["Properties"]["CodeUri"] = f"s3://deployments/{name}-2"


def core(template: Template) -> None:
    template["Resources"]["CoreLayer"]["Properties"]["ContentUri"] = "s3://deployments/CoreLayer-2"


def dependencies(template: Template) -> None:
    template["Resources"]["DependenciesLayer"]["Properties"]["ContentUri"] = "s3://deployments/DependenciesLayer-2"


def variable(template: Template) -> None:
    template["Globals"]["Function"]["Environment"]["Variables"]["LEASE_SECONDS"] = 61


def timeout(template: Template) -> None:
    for name in BEHIND_HTTP:
        template["Resources"][name]["Properties"]["Timeout"] = 9


def versions(transformed: Template) -> dict[str, str]:
    """The logical ids of the functions' versions, by function."""
    return {
        each["Properties"]["FunctionName"]["Ref"]: name
        for name, each in transformed["Resources"].items()
        if each["Type"] == "AWS::Lambda::Version"
    }


@pytest.mark.parametrize("change", [code, core, dependencies, variable, timeout], ids=lambda change: change.__name__)
def test_a_change_publishes_a_version(change: Callable[[Template], None], transform: Transform) -> None:
    """Another logical id is another resource: CloudFormation publishes it and deletes the one before."""
    before, after = versions(transform(unchanged)), versions(transform(change))
    assert before.keys() == after.keys() == set(BEHIND_HTTP)
    assert all(before[name] != after[name] for name in BEHIND_HTTP)


def test_the_same_is_the_same_version(transform: Transform) -> None:
    """Nothing is published for nothing: Lambda would refuse it, and the deployment fail."""
    assert versions(transform(unchanged)) == versions(transform(once_more))


def test_events_go_to_the_newest_version(transform: Transform) -> None:
    """Each function's alias names its version, and whoever invokes it from outside names the alias."""
    content = transform(unchanged)
    resources = content["Resources"]
    for function, version in versions(content).items():
        alias = resources[f"{function}Aliaslive"]["Properties"]
        assert alias["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}
        assert resources[version]["DeletionPolicy"] == "Delete"
        assert resources[function]["Properties"]["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    integrations = json.dumps([resources[api]["Properties"]["Body"] for api in ("Api", "WebhookApi")])
    mapped = resources["SubmitFunctionInbox"]["Properties"]["FunctionName"]
    permissions = [
        each["Properties"]["FunctionName"]["Ref"]
        for each in resources.values()
        if each["Type"] == "AWS::Lambda::Permission" and each["Properties"]["Principal"] == "apigateway.amazonaws.com"
    ]
    for function in BEHIND_HTTP:
        assert f"${{{function}Aliaslive}}/invocations" in integrations
        assert f"${{{function}.Arn}}" not in integrations
    assert mapped == {"Ref": "SubmitFunctionAliaslive"}
    assert set(permissions) == {f"{function}Aliaslive" for function in BEHIND_HTTP}

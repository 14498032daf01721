"""The published version of each function in the template. SAM's result is in tests/sam/test_versions.py."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

FUNCTIONS = [f"{name}Function" for name in ("Submit", "Intake", "Webhook", "Reconcile", "Publish", "Deliver", "Tasks")]
# CloudFormation's limit.
MAX_DESCRIPTION = 256
# Maximum lengths of parameters that have neither a maximum value nor a maximum length.
BOUND_OTHERWISE = {"DeadlineSeconds": 5, "EventsCaller": 64, "MonthlyLimitUsd": 20}


def names(node: Any) -> Iterator[str]:
    """The names that a part of the template refers to, including conditions."""
    match node:
        case {"Ref": str(name)} | {"Condition": str(name)}:
            yield name
        case {"Fn::Sub": str(text)}:
            yield from re.findall(r"\$\{(\w+)\}", text)
        case {"Fn::If": [condition, *parts]}:
            yield condition
            yield from names(parts)
        case dict():
            yield from names(list(node.values()))
        case list():
            for each in node:
                yield from names(each)


def parameters(template: dict[str, Any], node: Any) -> set[str]:
    """The parameters that a part of the template depends on."""
    named = set(names(node))
    tested = {name for each in named & template["Conditions"].keys() for name in names(template["Conditions"][each])}
    return (named | tested) & template["Parameters"].keys()


def max_length(name: str, parameter: dict[str, Any]) -> int:
    """The length of a parameter's longest value."""
    if "AllowedValues" in parameter:
        return max(len(str(value)) for value in parameter["AllowedValues"])
    if "MaxValue" in parameter:
        return len(str(parameter["MaxValue"]))
    return int(parameter["MaxLength"]) if "MaxLength" in parameter else BOUND_OTHERWISE[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_events_go_to_published_versions(name: str, template: dict[str, Any]) -> None:
    """Each function has the alias, gets a new version when a property or a layer changes, and keeps old versions."""
    properties = template["Globals"]["Function"] | template["Resources"][name]["Properties"]
    assert (properties["AutoPublishAlias"], properties["AutoPublishAliasAllProperties"]) == ("live", True)
    assert properties["VersionDeletionPolicy"] == "Retain"
    for layer in properties["Layers"]:
        assert template["Resources"][layer["Ref"]]["Properties"]["PublishLambdaVersion"] is True


def test_every_function_is_covered_by_these_tests(resources: dict[str, Any]) -> None:
    """Every function of the template is listed here."""
    assert {name for name, each in resources.items() if each["Type"] == "AWS::Serverless::Function"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_versions_description_has_all_its_parameters(name: str, template: dict[str, Any]) -> None:
    """The description contains every parameter that a function depends on, so that another value makes another
    version."""
    properties = template["Globals"]["Function"] | template["Resources"][name]["Properties"]
    variables = template["Globals"]["Function"]["Environment"]
    kept = {key: value for key, value in properties.items() if key not in ("Events", "VersionDescription")}
    described = list(names(properties["VersionDescription"]))
    assert len(described) == len(set(described))
    assert set(described) == parameters(template, [kept, variables])
    assert {"Architecture", "LogLevel", "DeadlineSeconds"} < set(described)
    if name == "SubmitFunction":
        assert {"MonthlyLimitUsd", "RetentionDays", "PublicWebhookUrl", "SnapStart"} < set(described)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_description_fits(name: str, template: dict[str, Any]) -> None:
    """The longest parameter values fit into the description, so that no deployment fails because of it; all of them are
    strings or numbers."""
    described = list(names(template["Resources"][name]["Properties"]["VersionDescription"]))
    used = {each: template["Parameters"][each] for each in described}
    assert {parameter["Type"] for parameter in used.values()} <= {"String", "Number"}
    assert all(len(str(parameter["Default"])) <= max_length(each, parameter) for each, parameter in used.items())
    for parameter in used.values():
        if "MaxLength" in parameter:
            assert f"of {parameter['MaxLength']} characters at most" in parameter["ConstraintDescription"]
    longest = sum(max_length(each, parameter) for each, parameter in used.items()) + len(used) - 1
    assert longest <= MAX_DESCRIPTION


def test_functions_behind_http_can_have_snapstart(template: dict[str, Any]) -> None:
    """Exactly the functions behind HTTP have SnapStart if the parameter turns it on; by default it is off."""
    functions = {name: template["Resources"][name]["Properties"] for name in FUNCTIONS}
    behind_http = {
        name
        for name, properties in functions.items()
        if any(event["Type"] == "HttpApi" for event in properties["Events"].values())
    }
    assert {name for name, properties in functions.items() if "SnapStart" in properties} == behind_http
    for name in behind_http:
        switch = {"ApplyOn": {"Fn::If": ["HasSnapStart", "PublishedVersions", "None"]}}
        assert functions[name]["SnapStart"] == switch
    assert template["Conditions"]["HasSnapStart"] == {"Fn::Equals": [{"Ref": "SnapStart"}, "on"]}
    assert template["Parameters"]["SnapStart"]["Default"] == "off"

"""Turns SnapStart on in a built application, for the functions that somebody waits for: those behind HTTP.

    scripts/snapstart.py .aws-sam/build

SnapStart takes its snapshots of published versions, so events have to go to an alias. SAM's alias cannot stand under a
condition; this is a step of the build, so that who does not want it has functions without versions.

A version keeps the code, layers and variables that it was published with. One that is not replaced would go on buying
under last month's limit, so there has to be a new one whenever any of these changes. For code, layers and properties
SAM sees to it. It does not look into parameters: their values are in the description, and to CloudFormation a version
with another description is another version. Runs in SAM CLI's environment.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ALIAS = "live"
_NAMED = re.compile(r"\$\{(\w+)\}")


def turn_on(template: dict[str, Any]) -> None:
    """Changes a template that is read into its long form, `{"Ref": …}`."""
    resources, shared = template["Resources"], template["Globals"]["Function"]
    for resource in resources.values():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["PublishLambdaVersion"] = True
        elif resource["Type"] == "AWS::Serverless::Function" and _is_waited_for(resource["Properties"]):
            properties = resource["Properties"]
            named = {name for part in (shared, _without_events(properties)) for name in _names(part)}
            properties |= {
                "SnapStart": {"ApplyOn": "PublishedVersions"},
                "AutoPublishAlias": ALIAS,
                "AutoPublishAliasAllProperties": True,
                "VersionDescription": {
                    "Fn::Join": [" ", [{"Ref": name} for name in template["Parameters"] if name in named]]
                },
                "VersionDeletionPolicy": "Delete",  # each one's snapshot costs money
            }


def _is_waited_for(properties: dict[str, Any]) -> bool:
    return any(event["Type"] == "HttpApi" for event in properties["Events"].values())


def _without_events(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name != "Events"}


def _names(node: Any) -> Iterator[str]:
    """What a part of a template refers to."""
    match node:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::Sub": str(text)}:
            yield from _NAMED.findall(text)
        case dict():
            for value in node.values():
                yield from _names(value)
        case list():
            for value in node:
                yield from _names(value)


def main() -> None:
    from samcli.yamlhelper import yaml_dump, yaml_parse  # type: ignore[import-not-found]

    file = Path(sys.argv[1]) / "template.yaml"
    template = yaml_parse(file.read_text(encoding="utf-8"))
    turn_on(template)
    file.write_text(yaml_dump(template), encoding="utf-8")


if __name__ == "__main__":
    main()

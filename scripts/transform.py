"""Prints a template for checkov: as SAM's transform hands it to CloudFormation, with every condition true.

    transform.py <template>

Checkov cannot parse merge keys, supports only some of SAM's resources, and skips a policy that contains a condition. So
resources and properties under a condition (the key, the expiry) are judged, and their alternatives are not. Runs in SAM
CLI's environment.
"""

import sys
from pathlib import Path
from typing import Any

from samcli.commands.validate.lib.exceptions import InvalidSamDocumentException  # type: ignore[import-not-found]
from samcli.lib.translate.sam_template_validator import SamTemplateValidator  # type: ignore[import-not-found]
from samcli.yamlhelper import yaml_parse  # type: ignore[import-not-found]

_ANY_REGION = "us-east-1"  # no region is called
_ANY_KEY = "arn:aws:kms:us-east-1:111111111111:key/11111111-1111-1111-1111-111111111111"


class NoManagedPolicies:
    """An empty list of managed policies, instead of a call to AWS: no role of ours names one."""

    def load(self) -> dict[str, str]:
        return {}


def met(node: Any) -> Any:
    """A part of a template with each `Fn::If` replaced by its value for a met condition."""
    match node:
        case {"Fn::If": [_, chosen, _]}:
            return met(chosen)
        case dict():
            return {name: met(value) for name, value in node.items() if not _left_out(value)}
        case list():
            return [met(value) for value in node if not _left_out(value)]
    return node


def _left_out(node: Any) -> bool:
    match node:
        case {"Fn::If": [_, {"Ref": "AWS::NoValue"}, _]}:
            return True
    return False


def transformed(path: Path) -> str:
    """The transformed template, as YAML; raises `InvalidSamDocumentException`."""
    template = met(yaml_parse(path.read_text(encoding="utf-8")))
    template["Parameters"]["KmsKeyArn"]["Default"] = _ANY_KEY  # checkov replaces references to parameters by defaults
    validator = SamTemplateValidator(template, NoManagedPolicies(), region=_ANY_REGION)
    return str(validator.get_translated_template_if_valid())


if __name__ == "__main__":
    try:
        print(transformed(Path(sys.argv[1])))
    except InvalidSamDocumentException as error:
        sys.exit(str(error))

"""CloudFormation's role for CI, as in docs/deploying.md, against the calls of the resources' handlers.

Each resource type's public schema lists the actions that CloudFormation calls to create, read, update and delete one.
cfn-lint contains the schemas, so they are those of the SAM environment (`make validate` makes it).
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rushes_local import template as templates

ROOT = Path(__file__).resolve().parents[2]
SAM_PYTHON = ROOT / ".venv-sam" / "bin" / "python"

# The statements for each type.
STATEMENTS = {
    "AWS::ApiGatewayV2::Api": {"Apis"},
    "AWS::ApiGatewayV2::Stage": {"Apis"},
    "AWS::CloudWatch::Alarm": {"Alarms"},
    "AWS::CloudWatch::Dashboard": {"Dashboard"},
    "AWS::DynamoDB::Table": {"TableButNeverDelete"},
    "AWS::Events::EventBus": {"Bus"},
    "AWS::Events::Rule": {"Rules"},
    "AWS::IAM::Role": {"Roles"},
    "AWS::Lambda::Alias": {"Functions"},
    "AWS::Lambda::EventInvokeConfig": {"Functions"},
    "AWS::Lambda::EventSourceMapping": {"QueuesAndStream", "TagsOfQueuesAndStream"},
    "AWS::Lambda::Function": {"Functions", "Layers"},
    "AWS::Lambda::LayerVersion": {"Layers"},
    "AWS::Lambda::Permission": {"Functions"},
    "AWS::Lambda::Version": {"Functions"},
    "AWS::Logs::LogGroup": {"Logs", "AccessLogs"},
    "AWS::S3::Bucket": {"BucketButNeverDelete"},
    "AWS::S3::BucketPolicy": {"BucketButNeverDelete"},
    "AWS::SNS::Subscription": {"Topic"},
    "AWS::SNS::Topic": {"Topic"},
    "AWS::SQS::Queue": {"Queues"},
    "AWS::SQS::QueuePolicy": {"Queues"},
    "AWS::SecretsManager::Secret": {"Secrets", "GenerateTheWebhookKey"},
}
# Paid clips and their records are never deleted. No secret is read, because the template contains no secret's value.
NEVER = {"dynamodb:DeleteTable", "s3:DeleteBucket", "s3:DeleteBucketPolicy", "secretsmanager:GetSecretValue"}
# Actions, by service, that create and update handlers call for features unused here; read handlers need them all.
UNUSED = {
    "dynamodb": r"Import|Replica|Kinesis|ContributorInsights|ResourcePolicy|Item$|Scan|Query",
    "events": r"Permission",
    "iam": r"PermissionsBoundary|(Attach|Detach)RolePolicy|UpdateRole(Description)?$",
    "lambda": r"Concurrency|CodeSigning|Recursion|Scaling|CapacityProvider|RuntimeManagement|RuntimeAlias",
    "logs": r"DataProtection|IndexPolic|BearerToken|DeletionProtection|DeleteResourcePolicy",
    "s3": r"Abac|Accelerate|Acl$|Analytics|C(ORS|ors)$|Inventory|Logging|Metadata|Metrics|Object|Replication|Tiering"
    r"|Website|Delete(BucketEncryption|BucketLifecycle)",
    "secretsmanager": r"Regions",
    "sns": r"DataProtection",
}
# IAM's limit for all inline policies of a role, without white space.
MAX_POLICIES = 10_240
MAX_STACK_NAME = 32


def own(kind: str, action: str) -> bool:
    """Returns True if an action belongs to the type's own service. Actions of other services have tests elsewhere, or
    are for unused features."""
    service = kind.split("::")[1].lower().removesuffix("v2")
    return action.partition(":")[0] == service


def needed(kind: str, handlers: dict[str, dict[str, list[str]]]) -> set[str]:
    """The actions that CloudFormation needs for a type of this template."""
    found = set()
    for handler in ("create", "read", "update", "delete"):
        for action in handlers.get(handler, {}).get("permissions", []):
            service, _, name = action.partition(":")
            optional = handler in ("create", "update") and re.search(UNUSED.get(service, "(?!)"), name)
            if own(kind, action) and not optional and action not in NEVER:
                found.add(action)
    return found


@pytest.fixture(scope="module")
def kinds() -> set[str]:
    """The resource types of the transformed template."""
    if not SAM_PYTHON.exists():
        pytest.skip("the schemas are in SAM's environment: make validate")
    command = [SAM_PYTHON, ROOT / "scripts" / "transform.py", ROOT / "template.yaml"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return {each["Type"] for each in yaml.safe_load(made)["Resources"].values()}


@pytest.fixture(scope="module")
def schemas(kinds: set[str]) -> dict[str, dict[str, Any]]:
    """The public schema of each type."""
    (folder,) = SAM_PYTHON.parents[1].glob("lib/python3*/site-packages/cfnlint/data/schemas")
    files = json.loads((folder / "providers" / "us-east-1.json").read_text())
    return {kind: json.loads((folder / "resources" / f"{files[kind]}.json").read_text()) for kind in kinds}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The template of CI's roles in docs/deploying.md."""
    (text,) = re.findall(r"(?ms)^```yaml\n(# ci\.yaml\n.*?)^```$", (ROOT / "docs" / "deploying.md").read_text())
    file = tmp_path_factory.mktemp("ci") / "ci.yaml"
    file.write_text(text)
    return templates.read(file)


@pytest.fixture(scope="module")
def granted(page: dict[str, Any]) -> dict[str, set[str]]:
    """The actions that CloudFormation's role allows, by statement, in lower case, as IAM compares them."""
    (policy,) = page["Resources"]["CloudFormation"]["Properties"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    actions = {each["Sid"]: each["Action"] for each in statements}
    return {sid: {each.lower() for each in ([one] if isinstance(one, str) else one)} for sid, one in actions.items()}


def test_every_type_has_its_statements(kinds: set[str], granted: dict[str, set[str]]) -> None:
    """Every type of the template is listed here, and the listed statements exist."""
    assert kinds == STATEMENTS.keys()
    assert {sid for sids in STATEMENTS.values() for sid in sids} <= granted.keys()


@pytest.mark.parametrize("kind", STATEMENTS)
def test_the_role_allows_the_handlers_actions(
    kind: str, schemas: dict[str, dict[str, Any]], granted: dict[str, set[str]]
) -> None:
    """All actions that a type's handlers need are in the statements for that type."""
    allowed = {action for sid in STATEMENTS[kind] for action in granted[sid]}
    missing = {action for action in needed(kind, schemas[kind]["handlers"]) if action.lower() not in allowed}
    assert missing == set()


def test_every_exception_is_needed(schemas: dict[str, dict[str, Any]], granted: dict[str, set[str]]) -> None:
    """Each exception is an action that some handler calls and that no statement allows."""
    asked = {
        action
        for schema in schemas.values()
        for handler in ("create", "read", "update", "delete")
        for action in schema["handlers"].get(handler, {}).get("permissions", [])
    }
    assert asked >= NEVER
    assert not {action.lower() for action in NEVER} & {each for actions in granted.values() for each in actions}


def filled(node: Any) -> Any:
    """A part of the page's template with the longest possible names."""
    values = {"AWS::Partition": "aws-us-gov", "AWS::Region": "ap-southeast-2", "AWS::AccountId": "1" * 12}
    match node:
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([\w:]+)\}", lambda name: values.get(name[1], "s" * MAX_STACK_NAME), text)
        case dict():
            return {name: filled(value) for name, value in node.items()}
        case list():
            return [filled(each) for each in node]
    return node


def test_the_roles_fit_into_iam(page: dict[str, Any]) -> None:
    """With the longest stack name the policies stay 500 characters below IAM's limit."""
    for role in page["Resources"].values():
        documents = [policy["PolicyDocument"] for policy in role["Properties"]["Policies"]]
        assert len(json.dumps(filled(documents), separators=(",", ":"))) < MAX_POLICIES - 500


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("rushes-prod", True),
        ("r" * MAX_STACK_NAME, True),
        ("r" * (MAX_STACK_NAME + 1), False),
        ("Rushes", False),
        ("1rushes", False),
        ("rushes_prod", False),
    ],
)
def test_a_stacks_name_is_kept_in_its_resources_names(name: str, fits: bool, page: dict[str, Any]) -> None:
    """Only names are allowed that CloudFormation neither shortens nor changes to lower case in its resources' names;
    the statements depend on that."""
    assert bool(re.fullmatch(page["Parameters"]["Stack"]["AllowedPattern"], name)) is fits


def test_the_longest_name_is_not_shortened(template: dict[str, Any]) -> None:
    """Stack, logical ID and the 13 random characters that CloudFormation adds fit into 64 characters."""
    named = ("AWS::Serverless::Function", "AWS::IAM::Role", "AWS::Events::Rule")
    longest = max(len(name) for name, each in template["Resources"].items() if each["Type"] in named)
    assert MAX_STACK_NAME + 1 + longest + 1 + 13 <= 64

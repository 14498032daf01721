"""The template's guarantees: least privilege, consistent times, storage that outlives the stack, logs without
tokens."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from rushes import config
from rushes.adapters.telemetry import PowertoolsTelemetry
from rushes.domain.caller import is_name
from rushes.services.metric import Metric
from rushes_local import template as templates

FUNCTIONS = ["Submit", "Intake", "Webhook", "Reconcile", "Publish", "Deliver", "Tasks"]
# The functions that read the service's times.
TIMED = ["Submit", "Webhook", "Reconcile", "Publish", "Deliver", "Tasks"]
# The permissions of each function by statement, no wider than its needs. Resources are in short form: "Table" is the
# table's ARN.
STATEMENTS = {
    "SubmitRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"SubmitLogs"}),
        "RecordTasksAndReserveBudgets": ({"dynamodb:PutItem", "dynamodb:UpdateItem"}, {"Table"}),
        "ReadKeysTasksAndBudgets": ({"dynamodb:GetItem", "dynamodb:Query"}, {"Table"}),
        "SignUploads": ({"s3:PutObject"}, {"Bucket/videos/*"}),
        "SignDownloads": ({"s3:GetObjectVersion"}, {"Bucket/videos/*"}),
        "StoreAndSignInputs": ({"s3:PutObject", "s3:GetObject"}, {"Bucket/inputs/*"}),
        "ReceiveMessages": ({"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}, {"Inbox"}),
        "PutRefusals": ({"s3:PutObject"}, {"Bucket/reports/*"}),
        "ReadRunwareKeyAndWebhookKeys": ({"secretsmanager:GetSecretValue"}, {"RunwareSecret", "WebhookSecret"}),
    },
    "IntakeRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"IntakeLogs"}),
        "ReadCallers": ({"dynamodb:GetItem"}, {"Table"}),
        "ReadRequests": ({"s3:GetObject", "s3:GetObjectVersion"}, {"Bucket/requests/*"}),
        "DistinguishMissingFromForbiddenAndFindRepeats": ({"s3:ListBucket", "s3:ListBucketVersions"}, {"Bucket"}),
        "StoreInputs": ({"s3:PutObject"}, {"Bucket/inputs/*"}),
        "PutReports": ({"s3:PutObject"}, {"Bucket/reports/*"}),
        "ReceiveRequests": ({"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}, {"RequestsQueue"}),
        "SendToInbox": ({"sqs:SendMessage"}, {"Inbox"}),
    },
    "WebhookRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"WebhookLogs"}),
        "SaveFactsAndTheirMoney": ({"dynamodb:GetItem", "dynamodb:UpdateItem"}, {"Table"}),
        "ReadBudgets": ({"dynamodb:Query"}, {"Table"}),
        "ProbeVideos": ({"s3:GetObject", "s3:GetObjectVersion"}, {"Bucket/videos/*"}),
        "DistinguishMissingFromForbidden": ({"s3:ListBucket"}, {"Bucket"}),
        "ReadWebhookKeys": ({"secretsmanager:GetSecretValue"}, {"WebhookSecret"}),
    },
    "ReconcileRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"ReconcileLogs"}),
        "FindDueClips": ({"dynamodb:Query"}, {"Table/index/due"}),
        "SaveFactsAndTheirMoney": ({"dynamodb:GetItem", "dynamodb:UpdateItem"}, {"Table"}),
        "RecordClipsOfNextModels": ({"dynamodb:PutItem"}, {"Table"}),
        "ReadBudgets": ({"dynamodb:Query"}, {"Table"}),
        "ProbeVideos": ({"s3:GetObject", "s3:GetObjectVersion"}, {"Bucket/videos/*"}),
        "DistinguishMissingFromForbidden": ({"s3:ListBucket", "s3:ListBucketVersions"}, {"Bucket"}),
        "SignUploadsAndRescueVideos": ({"s3:PutObject", "s3:AbortMultipartUpload"}, {"Bucket/videos/*"}),
        "SignInputs": ({"s3:GetObject"}, {"Bucket/inputs/*"}),
        "ReadRunwareKeyAndWebhookKeys": ({"secretsmanager:GetSecretValue"}, {"RunwareSecret", "WebhookSecret"}),
        "ReceiveUploads": ({"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}, {"UploadsQueue"}),
    },
    "PublishRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"PublishLogs"}),
        "ReadStream": (
            {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"},
            {"Table/stream/*"},
        ),
        "ReadRequests": ({"dynamodb:GetItem"}, {"Table"}),
        "ReadCopiesAndManifests": ({"s3:GetObject", "s3:GetObjectVersion"}, {"Bucket/videos/*"}),
        "DistinguishMissingFromForbidden": ({"s3:ListBucket", "s3:ListBucketVersions"}, {"Bucket"}),
        "WriteManifests": ({"s3:PutObject"}, {"Bucket/videos/*.json"}),
        "PublishEvents": ({"events:PutEvents"}, {"EventBus"}),
        "QueueDeliveries": ({"sqs:SendMessage"}, {"Deliveries"}),
        "SendDeadLetters": ({"sqs:SendMessage"}, {"PublishDeadLetters"}),
    },
    "DeliverRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"DeliverLogs"}),
        "ReadOutcomesSecretsAndAttempts": ({"dynamodb:GetItem"}, {"Table"}),
        "RecordAttemptsAndTakeSlots": ({"dynamodb:PutItem"}, {"Table"}),
        "FreeSlots": ({"dynamodb:DeleteItem"}, {"Table"}),
        "SignDownloads": ({"s3:GetObject", "s3:GetObjectVersion"}, {"Bucket/videos/*"}),
        "ReceiveAndQueueDeliveries": (
            {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:SendMessage"},
            {"Deliveries"},
        ),
    },
    "TasksRole": {
        "WriteLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"TasksLogs"}),
        "ListRecentTasksAndCosts": ({"dynamodb:Query"}, {"Table/index/recent", "Table/index/costs"}),
        "ReadKeysTasksAndBudgets": ({"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"}, {"Table"}),
        "SignDownloads": ({"s3:GetObject", "s3:GetObjectVersion"}, {"Bucket/videos/*"}),
    },
}
NO_VALUE = {"Ref": "AWS::NoValue"}
# The additional permissions of each function, and the services through which it has them, when a KMS key is given.
KEY_STATEMENTS = {
    "SubmitRole": {
        "DecryptTableObjectsSecretsAndMessages": ("kms:Decrypt", {"dynamodb", "s3", "secretsmanager", "sqs"}),
        "EncryptUploadsInputsAndRefusals": ("kms:GenerateDataKey", {"s3"}),
    },
    "IntakeRole": {
        "DecryptCallersRequestsAndMessages": ("kms:Decrypt", {"dynamodb", "s3", "sqs"}),
        "EncryptInputsReportsAndMessages": ("kms:GenerateDataKey", {"s3", "sqs"}),
    },
    "WebhookRole": {
        "DecryptTableVideosAndSecret": ("kms:Decrypt", {"dynamodb", "s3", "secretsmanager"}),
    },
    "ReconcileRole": {
        "DecryptTableVideosSecretsAndUploads": ("kms:Decrypt", {"dynamodb", "s3", "secretsmanager", "sqs"}),
        "EncryptUploads": ("kms:GenerateDataKey", {"s3"}),
    },
    "PublishRole": {
        "DecryptTableAndCopies": ("kms:Decrypt", {"dynamodb", "s3"}),
        "EncryptManifests": ("kms:GenerateDataKey", {"s3"}),
    },
    "DeliverRole": {
        "DecryptTableAndCopies": ("kms:Decrypt", {"dynamodb", "s3"}),
    },
    "TasksRole": {
        "DecryptTableAndVideos": ("kms:Decrypt", {"dynamodb", "s3"}),
    },
}
# The service's metrics about money, clips in review or attacks, with the number in five minutes that raises an alarm.
# The other metrics count successes or problems that resolve themselves.
ALARMING = {
    Metric.SECOND_RENDERS: 1,
    Metric.OVERWRITTEN_CLIPS: 1,
    Metric.IMPLAUSIBLE_COST: 1,
    Metric.TOO_MANY_FACTS: 1,
    Metric.BUDGET_EXCEEDED: 1,
    Metric.ACCOUNT_REFUSED: 1,
    Metric.RENDER_ORIGINS_REFUSED: 1,
    Metric.CLIPS_IN_REVIEW: 1,
    Metric.WEBHOOKS_REJECTED: 20,
    Metric.UNREADABLE_CLIPS: 1,
    Metric.WEBHOOKS_FAILING: 1,
}
# Parameters about money whose value in samconfig.toml differs from the template's default.
OWN_VALUES = {"MonthlyLimitUsd"}
# Read by Powertools and boto3 themselves.
READ_BY_LIBRARIES = {
    "AWS_ENDPOINT_URL",
    "POWERTOOLS_LOG_LEVEL",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_SERVICE_NAME",
}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def short(arn: Any) -> str:
    """A resource in the short form of the tables above; a literal ARN or wildcard is unchanged."""
    match arn:
        case {"Ref": name}:
            return str(name)
        case {"Fn::GetAtt": [name, "Arn"]}:
            return str(name)
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", str(text))
    return str(arn)


def resolve(node: Any, *met: str) -> Any:
    """A part of the template with `Fn::If` resolved: the named conditions are true, the others false."""
    if isinstance(node, dict) and "Fn::If" in node:
        condition, yes, no = node["Fn::If"]
        return resolve(yes if condition in met else no, *met)
    if isinstance(node, dict):
        decided = {name: resolve(value, *met) for name, value in node.items()}
        return {name: value for name, value in decided.items() if value != NO_VALUE}
    if isinstance(node, list):
        return [value for value in (resolve(each, *met) for each in node) if value != NO_VALUE]
    return node


def properties_of(resources: Mapping[str, Any], kind: str, *met: str) -> dict[str, dict[str, Any]]:
    """The properties of the resources of a type, by logical ID, with conditions resolved as in `resolve`."""
    return {name: resolve(each["Properties"], *met) for name, each in resources.items() if each["Type"] == kind}


def statements(role: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for policy in role["Properties"]["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def environment(template: dict[str, Any], function: str) -> dict[str, str]:
    """A function's variables, with parameters at their defaults and resources by their logical IDs."""
    defaults = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    shared = template["Globals"]["Function"]["Environment"]["Variables"]
    own = template["Resources"][f"{function}Function"]["Properties"]["Environment"]["Variables"]

    def plain(value: Any) -> str:
        match value:
            case {"Ref": name}:
                return str(defaults.get(name, name))
            case dict():
                return json.dumps(value)
        return str(value)

    return {name: plain(value) for name, value in (shared | own).items()}


def shared(template: dict[str, Any]) -> set[str]:
    """The names of the variables that all functions have."""
    return set(template["Globals"]["Function"]["Environment"]["Variables"])


class Recorded(dict[str, str]):
    """An environment that records the variables read from it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)


def test_roles_have_exactly_the_listed_permissions(resources: dict[str, Any]) -> None:
    """Each role's statements are exactly the listed ones, and nothing else grants a permission."""
    identities = {name: resolve(each) for name, each in resources.items() if each["Type"].startswith("AWS::IAM::")}
    roles = {name: each for name, each in identities.items() if each["Type"] == "AWS::IAM::Role"}
    assert roles == identities
    assert {
        name: {
            each["Sid"]: (set(listed(each["Action"])), {short(arn) for arn in listed(each["Resource"])})
            for each in statements(role)
        }
        for name, role in roles.items()
    } == STATEMENTS


GIVEN_KEY, OTHER_KEYS = {"Ref": "KmsKeyArn"}, {"Ref": "AlsoKmsKeyArns"}
JOINED_KEYS = {"Fn::Split": [",", {"Fn::Join": [",", [GIVEN_KEY, {"Fn::Join": [",", OTHER_KEYS]}]]}]}


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({"HasKmsKey"}, GIVEN_KEY),
        ({"HasOtherKmsKeys"}, OTHER_KEYS),  # before a key is set, or after it was removed
        ({"HasKmsKey", "HasOtherKmsKeys"}, JOINED_KEYS),
    ],
    ids=["one", "others", "both"],
)
def test_roles_may_use_given_keys_for_their_data_only(given: set[str], keys: Any, resources: dict[str, Any]) -> None:
    """With a KMS key, and only then, each role may use it through the listed services; other given keys are allowed in
    the same way."""
    for name, expected in KEY_STATEMENTS.items():
        before, after = (list(statements(resolve(resources[name], *met))) for met in ((), (*given, "HasAnyKmsKey")))
        added = [each for each in after if each not in before]
        assert len(after) == len(before) + len(added)
        assert {
            each["Sid"]: (
                each["Action"],
                {text["Fn::Sub"] for text in each["Condition"]["StringEquals"]["kms:ViaService"]},
            )
            for each in added
        } == {
            sid: (action, {f"{service}.${{AWS::Region}}.${{AWS::URLSuffix}}" for service in services})
            for sid, (action, services) in expected.items()
        }
        assert all(each["Resource"] == keys for each in added)


def test_either_parameter_adds_the_key_statements(template: dict[str, Any]) -> None:
    """Either key parameter adds the roles' statements, so that they can precede the key and outlast it."""
    conditions = template["Conditions"]
    assert conditions["HasAnyKmsKey"] == {"Fn::Or": [{"Condition": "HasKmsKey"}, {"Condition": "HasOtherKmsKeys"}]}
    assert conditions["HasKmsKey"] == {"Fn::Not": [{"Fn::Equals": [GIVEN_KEY, ""]}]}
    assert conditions["HasOtherKmsKeys"] == {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", OTHER_KEYS]}, ""]}]}
    one, others = (template["Parameters"][name] for name in ("KmsKeyArn", "AlsoKmsKeyArns"))
    assert (others["Type"], others["Default"]) == ("CommaDelimitedList", "")
    assert others["AllowedPattern"] == one["AllowedPattern"]


def test_other_buckets_need_a_parameter(template: dict[str, Any]) -> None:
    """Only with image sources can the two buying functions read those objects; nothing else is allowed."""
    for name, role in template["Resources"].items():
        if role["Type"] == "AWS::IAM::Role":
            before, after = (list(statements(resolve(role, *met))) for met in ((), ("HasImageSources",)))
            added = [each for each in after if each not in before]
            assert len(after) == len(before) + len(added)
            allowed = {"Sid": "ReadImageSources", "Effect": "Allow", "Action": "s3:GetObject"}
            expected = [{**allowed, "Resource": {"Ref": "ImageSourceArns"}}]
            assert added == (expected if name in ("SubmitRole", "ReconcileRole") else [])


@pytest.mark.parametrize(
    ("arn", "allowed"),
    [
        ("", True),
        ("arn:aws:s3:::photos/*", True),
        ("arn:aws-us-gov:s3:::my.photos-1/alice/*", True),
        ("arn:aws:s3:::photos/a.png", True),
        ("arn:aws:s3:::photos", False),
        ("arn:aws:s3:::photos/", False),
        ("arn:aws:s3:::*", False),
        ("arn:aws:s3:::*/*", False),
        ("arn:aws:s3:::photo*/*", False),
        ("arn:aws:sqs:::photos/*", False),
        ("photos/*", False),
        ("*", False),
    ],
)
def test_an_image_source_names_its_bucket(template: dict[str, Any], arn: str, allowed: bool) -> None:
    """Each value names objects of one bucket, without a wildcard in the bucket's name."""
    parameter = template["Parameters"]["ImageSourceArns"]
    assert (parameter["Type"], parameter["Default"]) == ("CommaDelimitedList", "")
    assert bool(re.fullmatch(parameter["AllowedPattern"], arn)) is allowed


def test_a_given_key_encrypts_everything_stored(resources: dict[str, Any]) -> None:
    """Logs, secrets, queues, table and bucket use the given key, or else AWS's keys; the dead-letter queues for
    messages that the key may block always use AWS's key."""
    key = {"Ref": "KmsKeyArn"}

    def keys(kind: str, name: str, *met: str) -> list[Any]:
        return [each.get(name) for each in properties_of(resources, kind, *met).values()]

    for kind, name, count in (
        ("AWS::Logs::LogGroup", "KmsKeyId", 9),
        ("AWS::SecretsManager::Secret", "KmsKeyId", 2),
    ):
        assert keys(kind, name, "HasKmsKey") == [key] * count
        assert keys(kind, name) == [None] * count

    # Messages may come here because the key blocked their way; those of deliveries have only identifiers.
    never = {"RequestsDeadLetters", "PublishDeadLetters", "Deliveries", "DeliveriesDeadLetters"}
    for name, queue in properties_of(resources, "AWS::SQS::Queue", "HasKmsKey").items():
        # SQS refuses both at once.
        sealed = (queue.get("KmsMasterKeyId"), queue.get("SqsManagedSseEnabled"))
        assert sealed == ((None, True) if name in never else (key, None)), name
    assert keys("AWS::SQS::Queue", "SqsManagedSseEnabled") == [True] * 9
    assert keys("AWS::SQS::Queue", "KmsMasterKeyId") == [None] * 9

    table = {"SSEEnabled": True, "SSEType": "KMS"}
    assert resolve(resources["Table"]["Properties"]["SSESpecification"]) == table
    assert resolve(resources["Table"]["Properties"]["SSESpecification"], "HasKmsKey") == {
        **table,
        "KMSMasterKeyId": key,
    }
    rules = resources["Bucket"]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert resolve(rules) == [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    assert resolve(rules, "HasKmsKey") == [
        {
            "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key},
            "BucketKeyEnabled": True,
        }
    ]


def test_no_statement_is_wider_than_it_looks(resources: dict[str, Any]) -> None:
    """No action or resource is a wildcard, nothing is granted by exclusion, and no role has a managed policy."""
    for name in STATEMENTS:
        assert "ManagedPolicyArns" not in resources[name]["Properties"]
        for each in statements(resolve(resources[name], "HasAnyKmsKey")):
            assert each["Effect"] == "Allow"
            assert not {"NotAction", "NotResource", "NotPrincipal"} & each.keys()
            assert not any("*" in action for action in listed(each["Action"]))
            for arn in map(short, listed(each["Resource"])):
                assert re.fullmatch(r"[A-Za-z]+(/[a-z]+/\*(\.json)?|/index/[a-z]+)?", arn), arn


def test_a_function_reaches_only_the_items_it_needs(resources: dict[str, Any]) -> None:
    """No function can write an API key, and only functions that serve callers can read one."""
    reach = {
        (name, each["Sid"]): set(each["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"])
        for name in STATEMENTS
        for each in statements(resolve(resources[name]))
        # The indexes contain clips and requests but no keys, so all their items may be read.
        if short(each["Resource"]) == "Table"
    }
    assert reach == {
        ("SubmitRole", "RecordTasksAndReserveBudgets"): {"task#*", "budget#*"},
        ("SubmitRole", "ReadKeysTasksAndBudgets"): {"key#*", "caller#*", "task#*", "budget#*"},
        ("IntakeRole", "ReadCallers"): {"caller#*"},
        ("WebhookRole", "SaveFactsAndTheirMoney"): {"task#*", "budget#*"},
        ("WebhookRole", "ReadBudgets"): {"budget#*"},
        ("ReconcileRole", "SaveFactsAndTheirMoney"): {"task#*", "budget#*"},
        ("ReconcileRole", "RecordClipsOfNextModels"): {"task#*"},
        ("ReconcileRole", "ReadBudgets"): {"budget#*"},
        ("PublishRole", "ReadRequests"): {"task#*"},
        ("DeliverRole", "ReadOutcomesSecretsAndAttempts"): {"task#*", "signing#*", "delivery#*"},
        ("DeliverRole", "RecordAttemptsAndTakeSlots"): {"delivery#*", "slots#*"},
        ("DeliverRole", "FreeSlots"): {"slots#*"},
        ("TasksRole", "ReadKeysTasksAndBudgets"): {"key#*", "caller#*", "task#*", "budget#*", "delivery#*"},
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_own_role_logs_and_code(name: str, resources: dict[str, Any], root: Path) -> None:
    """Each function has its own role, log group and folder, named after it."""
    properties = resources[f"{name}Function"]["Properties"]
    assert properties["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
    assert properties["LoggingConfig"] == {"LogGroup": {"Ref": f"{name}Logs"}}
    assert properties["CodeUri"] == f"functions/{name.lower()}"
    assert (root / properties["CodeUri"] / "app.py").is_file()


def test_every_function_is_covered_by_these_tests(resources: dict[str, Any]) -> None:
    """Every function of the template is listed here."""
    functions = {name for name, each in resources.items() if each["Type"] == "AWS::Serverless::Function"}
    assert functions == {f"{name}Function" for name in FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_settings_and_template_name_the_same_variables(name: str, template: dict[str, Any]) -> None:
    """A function reads exactly its declared variables, and the defaults are valid settings.

    A variable declared for all functions is read by those that need it.
    """
    variables = Recorded(environment(template, name))
    getattr(config, f"{name}Settings").read(variables)
    needless = READ_BY_LIBRARIES if name in TIMED else READ_BY_LIBRARIES | shared(template)
    assert variables.keys() >= variables.asked >= variables.keys() - needless


@pytest.mark.parametrize("name", TIMED)
def test_a_function_is_given_its_own_timeout(name: str, template: dict[str, Any]) -> None:
    """The timeout in a function's settings is the one that Lambda enforces."""
    timeout = template["Resources"][f"{name}Function"]["Properties"]["Timeout"]
    assert environment(template, name)["FUNCTION_TIMEOUT_SECONDS"] == str(timeout)


def bounds(parameter: dict[str, Any]) -> tuple[int, int]:
    """The minimum and the maximum of an interval's parameter, in seconds."""
    if parameter["Type"] == "Number":
        return parameter["MinValue"], parameter["MaxValue"]
    allowed = [number for number in range(100_000) if re.fullmatch(parameter["AllowedPattern"], str(number))]
    assert allowed == list(range(allowed[0], allowed[-1] + 1)), "the pattern has a hole"
    return allowed[0], allowed[-1]


def test_the_deadline_is_in_whole_seconds(template: dict[str, Any]) -> None:
    """The deadline is an integer, because the bucket policy appends 000 to it; a fraction would make links expire
    early."""
    deadline = template["Parameters"]["DeadlineSeconds"]
    assert bounds(deadline) == (3600, 86400)
    for text in ("7200.5", "7200.0", "07200", "7200 ", "", "1e4", "-7200"):
        assert not re.fullmatch(deadline["AllowedPattern"], text)


def corners(template: dict[str, Any], when_ambiguous: str) -> Iterator[dict[str, Any]]:
    """The template with its intervals in every combination of the parameters' extremes."""
    intervals = {name: each for name, each in template["Parameters"].items() if name.endswith("Seconds")}
    assert len(intervals) == 6
    for corner in itertools.product(*map(bounds, intervals.values())):
        turned = dict(zip(intervals, corner, strict=True)) | {"WhenAmbiguous": when_ambiguous}
        parameters = {
            name: {**each, "Default": turned.get(name, each["Default"])}
            for name, each in template["Parameters"].items()
        }
        yield {**template, "Parameters": parameters}


def test_all_allowed_intervals_are_accepted(template: dict[str, Any]) -> None:
    """Every combination of the parameters' extremes is accepted while nothing is resent."""
    for corner in corners(template, "review"):
        for name in TIMED:
            getattr(config, f"{name}Settings").read(environment(corner, name))


def test_intervals_under_which_a_clip_could_be_bought_twice_are_refused(template: dict[str, Any]) -> None:
    """If a resend could come after a usual render, the only function that resends does not start."""
    for corner in corners(template, "resend"):
        chosen = {name: each["Default"] for name, each in corner["Parameters"].items()}
        variables = environment(corner, "Reconcile")
        timeout = corner["Resources"]["ReconcileFunction"]["Properties"]["Timeout"]
        if chosen["ResendWindowSeconds"] + timeout + 60 < chosen["UsualRenderSeconds"]:
            config.ReconcileSettings.read(variables)
        else:
            with pytest.raises(config.SettingsError, match="RESEND_WINDOW_SECONDS"):
                config.ReconcileSettings.read(variables)


def test_the_resend_window_ends_where_the_usual_render_begins(template: dict[str, Any]) -> None:
    """Every allowed resend window fits the default of the usual render, and a second more would not."""
    window, render = template["Parameters"]["ResendWindowSeconds"], template["Parameters"]["UsualRenderSeconds"]
    timeout = template["Resources"]["ReconcileFunction"]["Properties"]["Timeout"]
    assert window["MaxValue"] + timeout + 60 + 1 == render["Default"]


def test_an_empty_endpoint_means_aws(template: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 treats an empty AWS_ENDPOINT_URL, the template's default, as unset, and a value as the endpoint."""
    assert template["Parameters"]["AwsEndpointUrl"]["Default"] == ""
    session = boto3.Session("key", "secret", region_name="eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    assert session.client("dynamodb").meta.endpoint_url == "https://dynamodb.eu-central-1.amazonaws.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert session.client("dynamodb").meta.endpoint_url == "http://127.0.0.1:4566"


def test_one_parameter_decides_the_architecture(template: dict[str, Any]) -> None:
    """Functions, layers and the layers' build have the architecture of one parameter."""
    parameter = {"Ref": "Architecture"}
    layers = [each for each in template["Resources"].values() if each["Type"] == "AWS::Serverless::LayerVersion"]
    assert template["Globals"]["Function"]["Architectures"] == [parameter]
    assert len(layers) == 2
    for layer in layers:
        assert layer["Properties"]["CompatibleArchitectures"] == [parameter]
        assert layer["Metadata"]["BuildArchitecture"] == parameter


def test_the_table_has_the_keys_that_the_code_uses(resources: dict[str, Any]) -> None:
    """Keys, indexes, stream and expiry are those that the code uses."""
    table = resources["Table"]["Properties"]
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}

    def keys(schema: list[dict[str, str]]) -> list[tuple[str, str, str]]:
        return [(each["AttributeName"], types[each["AttributeName"]], each["KeyType"]) for each in schema]

    indexes = {each["IndexName"]: each for each in table["GlobalSecondaryIndexes"]}
    assert keys(table["KeySchema"]) == [("pk", "S", "HASH"), ("sk", "S", "RANGE")]
    assert indexes.keys() == {"due", "recent", "costs"}
    assert keys(indexes["due"]["KeySchema"]) == [("dueShard", "S", "HASH"), ("nextCheckAt", "N", "RANGE")]
    assert keys(indexes["recent"]["KeySchema"]) == [("caller", "S", "HASH"), ("createdAt", "S", "RANGE")]
    assert keys(indexes["costs"]["KeySchema"]) == [("clipCaller", "S", "HASH"), ("createdAtMs", "N", "RANGE")]
    held = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["counted", "model", "tags"]}
    keys_only = {"ProjectionType": "KEYS_ONLY"}
    projections = {name: index["Projection"] for name, index in indexes.items()}
    assert projections == {"due": keys_only, "recent": keys_only, "costs": held}
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expiresAt", "Enabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert table["SSESpecification"]["SSEEnabled"] is True


def test_paid_data_outlives_the_stack(resources: dict[str, Any]) -> None:
    """Table, bucket and bucket policy are retained when the stack is deleted, except after a failed creation, when they
    are empty."""
    for name in ("Table", "Bucket", "BucketPolicy"):
        assert resources[name]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert resources[name]["UpdateReplacePolicy"] == "Retain"


def test_the_table_can_be_protected(template: dict[str, Any]) -> None:
    """A parameter turns on deletion protection; it is off by default, because a failed creation could not be
    removed."""
    protected = {"Fn::If": ["HasDeletionProtection", True, False]}
    assert template["Resources"]["Table"]["Properties"]["DeletionProtectionEnabled"] == protected
    assert template["Conditions"]["HasDeletionProtection"] == {"Fn::Equals": [{"Ref": "DeletionProtection"}, "on"]}
    assert template["Parameters"]["DeletionProtection"]["Default"] == "off"


def test_the_bucket_is_private_and_versioned(resources: dict[str, Any]) -> None:
    """The bucket has no public access, requires TLS, and keeps overwritten clips."""
    bucket = resources["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert [rule.keys() for rule in resolve(bucket["LifecycleConfiguration"]["Rules"])] == [
        {"Id", "Status", "AbortIncompleteMultipartUpload"}
    ]
    denied = resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    for each in denied:
        assert (each["Effect"], each["Principal"], each["Action"]) == ("Deny", "*", "s3:*")
        assert {short(arn) for arn in each["Resource"]} == {"Bucket", "Bucket/*"}
    assert {each["Sid"]: each["Condition"] for each in denied} == {
        "DenyWithoutTls": {"Bool": {"aws:SecureTransport": "false"}},
        # Milliseconds, from a parameter in whole seconds.
        "DenyLinksPastDeadline": {"NumericGreaterThan": {"s3:signatureAge": {"Fn::Sub": "${DeadlineSeconds}000"}}},
    }


def test_objects_expire_only_with_retention(template: dict[str, Any]) -> None:
    """With `RetentionDays` all objects expire after that time and no version sooner; without it none expires."""
    rules = template["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    always, expiring = resolve(rules), resolve(rules, "ObjectsExpire")
    days = {"Ref": "RetentionDays"}
    assert [
        (rule["Prefix"], rule["Status"], rule["ExpirationInDays"], rule["NoncurrentVersionExpiration"])
        for rule in expiring[len(always) :]
    ] == [
        (prefix, "Enabled", days, {"NoncurrentDays": days})
        for prefix in ("videos/", "inputs/", "reports/", "requests/")
    ]
    assert expiring[: len(always)] == always
    assert len({rule["Id"] for rule in expiring}) == len(expiring)
    assert template["Conditions"]["ObjectsExpire"] == {"Fn::Not": [{"Fn::Equals": [days, 0]}]}
    assert template["Parameters"]["RetentionDays"]["Default"] == 0


def test_access_logs_cannot_hold_a_token(resources: dict[str, Any]) -> None:
    """Each API logs one JSON object per request, without the query string and headers."""
    apis = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::Serverless::HttpApi"]
    assert len(apis) == 2
    for api in apis:
        text = api["AccessLogSettings"]["Format"]
        assert "\n" not in text
        assert set(json.loads(text).values()) == {
            "$context.requestId",
            "$context.requestTimeEpoch",
            "$context.identity.sourceIp",
            "$context.routeKey",
            "$context.path",
            "$context.status",
            "$context.responseLength",
            "$context.responseLatency",
            "$context.integrationErrorMessage",
        }


def test_logs_expire_and_requests_are_throttled(resources: dict[str, Any]) -> None:
    """Every log group has a retention, and every API a request limit."""
    groups = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::Logs::LogGroup"]
    assert len(groups) == 9
    assert all(group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups)
    for api in ("Api", "WebhookApi"):
        settings = resources[api]["Properties"]["DefaultRouteSettings"]
        assert 0 < settings["ThrottlingRateLimit"] <= settings["ThrottlingBurstLimit"]


def test_callers_and_provider_have_separate_apis(resources: dict[str, Any]) -> None:
    """Callers and the provider use different APIs, and the provider's has a single route."""
    doors = {
        (event["Properties"]["ApiId"]["Ref"], event["Properties"]["Method"], event["Properties"]["Path"])
        for name in FUNCTIONS
        for event in resources[f"{name}Function"]["Properties"]["Events"].values()
        if event["Type"] == "HttpApi"
    }
    assert doors == {
        ("Api", "POST", "/v1"),
        ("Api", "GET", "/tasks"),
        ("Api", "GET", "/tasks/{taskUUID}"),
        ("Api", "GET", "/budget"),
        ("Api", "GET", "/models"),
        ("Api", "GET", "/costs"),
        ("Api", "GET", "/"),
        ("WebhookApi", "POST", "/webhooks/runware/{caller}/{taskUUID}/{clip}"),
    }


def test_the_sweep_runs_every_minute_and_is_never_repeated(resources: dict[str, Any]) -> None:
    """A sweep starts each minute and ends within it; a failed or late one is not retried."""
    properties = resources["ReconcileFunction"]["Properties"]
    (schedule,) = [each["Properties"] for each in properties["Events"].values() if each["Type"] == "Schedule"]
    once = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
    assert schedule["Schedule"] == "rate(1 minute)"
    assert schedule["RetryPolicy"] == properties["EventInvokeConfig"] == once
    assert properties["Timeout"] < 60


def source(resources: dict[str, Any], function: str) -> dict[str, Any]:
    """The queue from which a function receives messages."""
    events = resources[f"{function}Function"]["Properties"]["Events"].values()
    (only,) = [each["Properties"] for each in events if each["Type"] == "SQS"]
    return only


def created(keys: list[dict[str, str]]) -> dict[str, Any]:
    """The event pattern for new objects with these keys."""
    return {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [{"Ref": "Bucket"}]}, "object": {"key": keys}},
    }


def test_only_changes_of_clips_reach_publish(resources: dict[str, Any]) -> None:
    """The stream's changes of clips alone reach publish; failures are reported one by one, permanent ones become dead
    letters."""
    (source,) = resources["PublishFunction"]["Properties"]["Events"].values()
    assert source["Type"] == "DynamoDB"
    properties = dict(source["Properties"])
    (pattern,) = properties.pop("FilterCriteria")["Filters"]
    assert json.loads(pattern["Pattern"]) == {
        "eventName": ["MODIFY"],
        "dynamodb": {"Keys": {"sk": {"S": [{"prefix": "clip#"}]}}},
    }
    assert properties == {
        "Stream": {"Fn::GetAtt": ["Table", "StreamArn"]},
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 1,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 20,
        "DestinationConfig": {
            "OnFailure": {"Type": "SQS", "Destination": {"Fn::GetAtt": ["PublishDeadLetters", "Arn"]}}
        },
    }
    assert resources["PublishDeadLetters"]["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_bucket_sends_events(resources: dict[str, Any]) -> None:
    """Every new object in the bucket is an event on the account's default bus."""
    bucket = resources["Bucket"]["Properties"]
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}


@pytest.mark.parametrize(
    ("rule", "bus", "pattern", "queue"),
    [
        # The manifests beside the videos are no uploads.
        (
            "UploadsRule",
            None,
            created([{"wildcard": f"videos/*.{suffix}"} for suffix in ("mp4", "mov", "webm")]),
            "UploadsQueue",
        ),
        ("DropsRule", None, created([{"prefix": "requests/"}]), "RequestsQueue"),
        (
            "RequestedRule",
            {"Fn::GetAtt": ["EventBus", "Name"]},
            {"detail-type": ["Video Requested"]},
            "RequestsQueue",
        ),
    ],
)
def test_each_rule_forwards_its_queues_events(
    rule: str, bus: Any, pattern: dict[str, Any], queue: str, resources: dict[str, Any]
) -> None:
    """A rule matches its own prefix or detail type only, on its own bus, and has one target.

    Undeliverable events go to a dead-letter queue, unless the sweep finds their objects anyway.
    """
    properties = resources[rule]["Properties"]
    assert properties.get("EventBusName") == bus
    assert properties["EventPattern"] == pattern
    (target,) = properties["Targets"]
    kept = short(target["DeadLetterConfig"]["Arn"]) if "DeadLetterConfig" in target else None
    assert (short(target["Arn"]), kept) == (queue, "RequestsDeadLetters" if queue == "RequestsQueue" else None)


@pytest.mark.parametrize(
    ("function", "queue", "batch", "scaling"),
    [
        ("Reconcile", "UploadsQueue", 10, {"MaximumConcurrency": 2}),
        ("Intake", "RequestsQueue", 1, {"MaximumConcurrency": 5}),
        ("Submit", "Inbox", 1, {"MaximumConcurrency": {"Ref": "InboxConcurrency"}}),
    ],
)
def test_a_failed_message_does_not_fail_its_batch(
    function: str, queue: str, batch: int, scaling: Any, resources: dict[str, Any]
) -> None:
    """Each function has its own queue, reports the failed messages, and has a concurrency limit, so that no queue uses
    all of a small account's concurrency."""
    mapping = source(resources, function)
    assert (short(mapping["Queue"]), mapping["BatchSize"], mapping["ScalingConfig"]) == (queue, batch, scaling)
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize(
    ("queue", "dead", "function", "tries"),
    [
        ("UploadsQueue", "UploadsDeadLetters", "Reconcile", 5),
        ("RequestsQueue", "RequestsDeadLetters", "Intake", 5),
        ("Inbox", "InboxDeadLetters", "Submit", 10),
        ("Deliveries", "DeliveriesDeadLetters", "Deliver", 10),
    ],
)
def test_a_message_is_hidden_while_it_is_processed(
    queue: str, dead: str, function: str, tries: int, resources: dict[str, Any]
) -> None:
    """A message stays hidden while its function may run, and goes to the dead-letter queue after some failures."""
    properties = resources[queue]["Properties"]
    assert properties["VisibilityTimeout"] >= 6 * resources[f"{function}Function"]["Properties"]["Timeout"]
    assert properties.get("DelaySeconds") == (10 if queue == "UploadsQueue" else None)
    assert short(properties["RedrivePolicy"]["deadLetterTargetArn"]) == dead
    assert properties["RedrivePolicy"]["maxReceiveCount"] == tries
    longest = 14 * 24 * 3600
    assert resources[dead]["Properties"]["MessageRetentionPeriod"] == longest
    # The sweep finds uploads as well; a request is only here.
    assert properties.get("MessageRetentionPeriod") == (None if queue == "UploadsQueue" else longest)


@pytest.mark.parametrize(
    ("queue", "rules"),
    [
        ("UploadsQueue", {"Fn::GetAtt": ["UploadsRule", "Arn"]}),
        ("RequestsQueue", [{"Fn::GetAtt": ["DropsRule", "Arn"]}, {"Fn::GetAtt": ["RequestedRule", "Arn"]}]),
        (
            "RequestsDeadLetters",
            [{"Fn::GetAtt": [sender, "Arn"]} for sender in ("EventBus", "DropsRule", "RequestedRule")],
        ),
    ],
)
def test_only_the_rules_send_to_the_queue(queue: str, rules: Any, resources: dict[str, Any]) -> None:
    """A queue's policy allows one action on the queue itself, to its rules only."""
    policy = resources[f"{queue}Policy"]["Properties"]
    (allow,) = policy["PolicyDocument"]["Statement"]
    assert policy["Queues"] == [{"Ref": queue}]
    assert (allow["Effect"], allow["Action"], short(allow["Resource"])) == ("Allow", "sqs:SendMessage", queue)
    assert allow["Principal"] == {"Service": "events.amazonaws.com"}
    assert allow["Condition"] == {"ArnEquals": {"aws:SourceArn": rules}}


def test_the_bus_has_a_dead_letter_queue(resources: dict[str, Any]) -> None:
    """Events that EventBridge cannot encrypt with the given key go to the bus's own dead-letter queue."""
    assert resources["EventBus"]["Properties"]["DeadLetterConfig"] == {
        "Arn": {"Fn::GetAtt": ["RequestsDeadLetters", "Arn"]}
    }


def test_the_buses_caller_is_a_callers_name(template: dict[str, Any]) -> None:
    """The parameter's pattern allows exactly the caller names that the code allows."""
    pattern = template["Parameters"]["EventsCaller"]["AllowedPattern"]
    for text in ("events", "a", "0-9", "a" * 64, "all", "all-of-us", "", "A", "-a", "a_b", "a/b", "a" * 65):
        assert bool(re.search(pattern, text)) is is_name(text), text


def alarms(resources: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    """The properties of the alarms on a namespace's metrics."""
    each = (each["Properties"] for each in resources.values() if each["Type"] == "AWS::CloudWatch::Alarm")
    return [alarm for alarm in each if alarm["Namespace"] == namespace]


def dimension(alarm: dict[str, Any]) -> tuple[str, Any]:
    (only,) = alarm["Dimensions"]
    return only["Name"], only["Value"]


def test_metrics_about_money_have_alarms(resources: dict[str, Any]) -> None:
    """Exactly the metrics in `ALARMING` have an alarm, over five minutes, and missing data raises none."""
    metric_alarms = alarms(resources, "Rushes")
    assert {alarm["MetricName"]: alarm["Threshold"] for alarm in metric_alarms} == ALARMING
    for alarm in metric_alarms:
        assert (alarm["Statistic"], alarm["Period"], alarm["EvaluationPeriods"]) == ("Sum", 300, 1)
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert alarm["TreatMissingData"] == "notBreaching"


def test_alarms_name_the_written_metrics(
    template: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The alarms have the namespace and dimension that functions with the template's variables write."""
    variables = environment(template, "Reconcile")
    for name in READ_BY_LIBRARIES:
        monkeypatch.setenv(name, variables[name])
    telemetry = PowertoolsTelemetry()
    telemetry.metrics.clear_metrics()  # Powertools keeps one set per process, also from other tests
    telemetry.count(Metric.CLIPS_IN_REVIEW)
    telemetry.flush()
    written = json.loads(capsys.readouterr().out)
    (metrics,) = written["_aws"]["CloudWatchMetrics"]
    (alarm,) = [each for each in alarms(template["Resources"], "Rushes") if each["MetricName"] == "ClipsInReview"]
    name, value = dimension(alarm)
    assert (metrics["Namespace"], metrics["Dimensions"]) == (alarm["Namespace"], [[name]])
    assert written[name] == short(value)
    assert [each["Name"] for each in metrics["Metrics"]] == [alarm["MetricName"]]


def test_failures_and_missing_sweeps_have_alarms(resources: dict[str, Any]) -> None:
    """There are alarms on each function's errors, throttled invocations, dead letters, and ten minutes without a
    sweep."""
    functions = alarms(resources, "AWS/Lambda")
    errors = [alarm for alarm in functions if alarm["MetricName"] == "Errors"]
    assert [dimension(alarm) for alarm in errors] == [
        ("FunctionName", {"Ref": f"{name}Function"}) for name in FUNCTIONS
    ]
    throttled = [alarm for alarm in functions if alarm["MetricName"] == "Throttles"]
    assert [dimension(alarm) for alarm in throttled] == [
        ("FunctionName", {"Ref": f"{name}Function"}) for name in ("Submit", "Webhook")
    ]
    for alarm in errors + throttled:
        assert (alarm["Statistic"], alarm["Threshold"], alarm["TreatMissingData"]) == ("Sum", 1, "notBreaching")

    letters = alarms(resources, "AWS/SQS")
    assert {alarm["MetricName"] for alarm in letters} == {"ApproximateNumberOfMessagesVisible"}
    assert [dimension(alarm) for alarm in letters] == [
        ("QueueName", {"Fn::GetAtt": [f"{name}DeadLetters", "QueueName"]})
        for name in ("Inbox", "Deliveries", "Requests", "Uploads", "Publish")
    ]

    (behind,) = [alarm for alarm in functions if alarm["MetricName"] == "IteratorAge"]
    assert (dimension(behind), behind["Statistic"]) == (("FunctionName", {"Ref": "PublishFunction"}), "Maximum")
    assert behind["Threshold"] < 24 * 3_600_000, "the stream has forgotten by then"

    every = functions + alarms(resources, "AWS/Events")
    beats = [alarm for alarm in every if alarm["MetricName"] == "Invocations"]
    rule = resources["ReconcileFunction"]["Properties"]["Events"]["EveryMinute"]["Properties"]["Name"]
    assert [dimension(alarm) for alarm in beats] == [("FunctionName", {"Ref": "ReconcileFunction"}), ("RuleName", rule)]
    for beat in beats:
        assert (beat["MetricName"], beat["Statistic"], beat["Period"]) == ("Invocations", "Sum", 600)
        assert (beat["ComparisonOperator"], beat["Threshold"]) == ("LessThanThreshold", 1)
        assert beat["TreatMissingData"] == "breaching"


def test_undelivered_events_have_alarms(resources: dict[str, Any]) -> None:
    """Each rule has an alarm on failed invocations, and on events that its dead-letter queue did not receive.

    The metrics of a rule on a custom bus have the bus as a dimension.
    """
    bus_name = {"Ref": "EventBus"}
    rules = {name: each["Properties"] for name, each in resources.items() if each["Type"] == "AWS::Events::Rule"}
    expected = []
    for name, rule in rules.items():
        dimensions: list[tuple[str, Any]] = [("RuleName", rule.get("Name", {"Ref": name}))]
        if "EventBusName" in rule:
            assert rule["EventBusName"] == {"Fn::GetAtt": ["EventBus", "Name"]}
            assert "Name" in rule, "a Ref to it is not its name alone"
            dimensions = [("EventBusName", bus_name), *dimensions]
        expected.append(("FailedInvocations", dimensions))
        if any("DeadLetterConfig" in target for target in rule["Targets"]):
            expected.append(("InvocationsFailedToBeSentToDlq", dimensions))
    rings = [each for each in alarms(resources, "AWS/Events") if each["MetricName"] != "Invocations"]
    found = [(each["MetricName"], [(one["Name"], one["Value"]) for one in each["Dimensions"]]) for each in rings]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    assert all((each["Statistic"], each["Threshold"]) == ("Sum", 1) for each in rings)


def test_alarms_notify_the_operator(template: dict[str, Any]) -> None:
    """Every alarm goes to the topic, which is not encrypted with a key that alarms cannot use, and on to the given
    address."""
    resources = template["Resources"]
    every = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    assert all(alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}] for alarm in every)
    assert len({alarm["AlarmDescription"] for alarm in every}) == len(every)
    assert "KmsMasterKeyId" not in resources["AlarmTopic"]["Properties"]
    subscription = resources["AlarmSubscription"]
    assert subscription["Condition"] == "HasAlarmEmail"
    assert template["Conditions"]["HasAlarmEmail"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmEmail"}, ""]}]}
    assert subscription["Properties"] == {
        "TopicArn": {"Ref": "AlarmTopic"},
        "Protocol": "email",
        "Endpoint": {"Ref": "AlarmEmail"},
    }


def test_the_runbook_explains_every_alarm(resources: dict[str, Any], root: Path) -> None:
    """Each alarm has a row in the runbook, and each row an alarm."""
    _, _, text = (root / "docs" / "runbook.md").read_text().partition("\n## Alarms\n")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {
        name.removesuffix("Alarm") for name, each in resources.items() if each["Type"] == "AWS::CloudWatch::Alarm"
    }


def test_the_template_contains_no_secret(resources: dict[str, Any]) -> None:
    """The webhook's keys are generated, and Runware's key is set later."""
    generated = resources["WebhookSecret"]["Properties"]["GenerateSecretString"]
    assert json.loads(generated["SecretStringTemplate"]) == {"previous": ""}
    assert generated["GenerateStringKey"] == "current"
    assert generated["PasswordLength"] >= 64
    assert resources["RunwareSecret"]["Properties"].keys() == {"Description", "KmsKeyId"}


@pytest.mark.parametrize(
    ("parameter", "value", "fits"),
    [
        ("PublicWebhookUrl", "", True),
        ("PublicWebhookUrl", "https://hooks.example.com", True),
        ("PublicWebhookUrl", "http://127.0.0.1:8080/base", True),
        ("PublicWebhookUrl", "https://hooks.example.com/", False),
        ("PublicWebhookUrl", "https://hooks.example.com?x=1", False),
        ("PublicWebhookUrl", "hooks.example.com", False),
        ("RunwareBaseUrl", "http://127.0.0.1:8081/v1", True),
        ("RunwareBaseUrl", "", False),
        ("RescueOrigins", "https://vm.runware.ai", True),
        ("RescueOrigins", "https://vm.runware.ai,http://127.0.0.1:8081", True),
        ("RescueOrigins", "https://vm.runware.ai, https://im.runware.ai", False),
        ("RescueOrigins", "https://vm.runware.ai/", False),
        ("RescueOrigins", "", False),
        ("KmsKeyArn", "", True),
        ("KmsKeyArn", "arn:aws:kms:eu-central-1:123456789012:key/mrk-0123456789abcdef0123456789abcdef", True),
        ("KmsKeyArn", "arn:aws-cn:kms:cn-north-1:123456789012:key/5c0b0b9e-2f2d-4a4e-9d0c-0123456789ab", True),
        ("KmsKeyArn", "arn:aws:kms:eu-central-1:123456789012:alias/rushes", False),
        ("KmsKeyArn", "alias/rushes", False),
        ("KmsKeyArn", "*", False),
        ("AlarmEmail", "", True),
        ("AlarmEmail", "ada@example.com", True),
        ("AlarmEmail", "ada", False),
        ("AwsEndpointUrl", "", True),
        ("AwsEndpointUrl", "http://127.0.0.1:4566", True),
        ("AwsEndpointUrl", "127.0.0.1", False),
    ],
)
def test_parameters_accept_only_usable_values(parameter: str, value: str, fits: bool, template: dict[str, Any]) -> None:
    """A pattern allows usable values and refuses values that would only fail later."""
    assert bool(re.search(template["Parameters"][parameter]["AllowedPattern"], value)) is fits


def test_deployments_fit_the_template(template: dict[str, Any], root: Path) -> None:
    """The overrides of dev and prod are allowed parameters and values, and prod's changes need a confirmation."""
    settings = tomllib.loads((root / "samconfig.toml").read_text())
    for name in ("dev", "prod"):
        deploy = settings[name]["deploy"]["parameters"]
        for override in deploy["parameter_overrides"]:
            parameter, _, value = override.partition("=")
            allowed = template["Parameters"][parameter].get("AllowedValues")
            assert allowed is None or value in map(str, allowed), override
        assert deploy["capabilities"] == "CAPABILITY_IAM"
    assert settings["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


def overrides(root: Path, name: str) -> dict[str, str]:
    """The parameters that a deployment of an environment sets."""
    deploy = tomllib.loads((root / "samconfig.toml").read_text())[name]["deploy"]["parameters"]
    return dict(override.split("=", 1) for override in deploy["parameter_overrides"])


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_deployments_set_the_parameters_about_money(name: str, template: dict[str, Any], root: Path) -> None:
    """Every parameter about money is set explicitly, because an update keeps a parameter's former value and ignores a
    changed default."""
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = {group["Label"]["default"].split(" (")[0]: group["Parameters"] for group in groups}
    money = {*grouped["Money"], *grouped["Intervals"], "RescueOrigins"}
    given = overrides(root, name)
    assert given.keys() >= money
    compared = money - OWN_VALUES
    assert {each: given[each] for each in compared} == {
        each: str(template["Parameters"][each]["Default"]) for each in compared
    }


def widgets(resources: dict[str, Any]) -> list[dict[str, Any]]:
    """The properties of the dashboard's widgets, with substituted values by their names."""
    text = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    body = json.loads(re.sub(r"\$\{([\w:.]+)\}", r"\1", text))
    return [each["properties"] for each in body["widgets"]]


def test_the_dashboard_shows_every_metric(resources: dict[str, Any]) -> None:
    """Every metric of the service is on the dashboard under its dimension, and no unknown one."""
    displayed = [metric for widget in widgets(resources) for metric in widget["metrics"] if metric[0] == "Rushes"]
    assert {metric[1] for metric in displayed} == {str(each) for each in Metric}
    assert {tuple(metric[2:]) for metric in displayed} == {("service", "AWS::StackName")}
    assert all(widget["region"] == "AWS::Region" for widget in widgets(resources))


def test_the_dashboard_begins_with_the_funnel(resources: dict[str, Any]) -> None:
    """The first widget sums the steps of clips over the displayed time; functions and queues follow."""
    first, *others = widgets(resources)
    assert [metric[1] for metric in first["metrics"]] == [
        "ClipsBought",
        "ClipsStored",
        "FoundByPoll",
        "ClipsRescued",
        "AmbiguousPurchases",
        "ClipsInReview",
    ]
    assert (first["stat"], first["setPeriodToTimeRange"]) == ("Sum", True)
    aws = {tuple(metric[:4]) for widget in others for metric in widget["metrics"] if metric[0] != "Rushes"}
    assert aws == {
        ("AWS/Lambda", metric, "FunctionName", f"{name}Function")
        for metric in ("Errors", "Duration")
        for name in FUNCTIONS
    } | {
        ("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", f"{name}.QueueName")
        for name in ("RequestsQueue", "Inbox", "UploadsQueue", "Deliveries")
    } | {
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", f"{name}DeadLetters.QueueName")
        for name in ("Requests", "Inbox", "Uploads", "Publish", "Deliveries")
    } | {("AWS/Lambda", "IteratorAge", "FunctionName", "PublishFunction")}


def test_every_parameter_is_in_one_group(template: dict[str, Any]) -> None:
    """The console's groups contain each parameter once, with a description and a default."""
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    asked = [name for group in groups for name in group["Parameters"]]
    assert sorted(asked) == sorted(template["Parameters"])
    assert all(each["Description"] and "Default" in each for each in template["Parameters"].values())


def test_the_documented_roles_are_limited_and_complete(root: Path, tmp_path: Path, resources: dict[str, Any]) -> None:
    """CI's roles allow named actions only, for every service of the stack, and delete neither table nor bucket."""
    (text,) = re.findall(r"(?ms)^```yaml\n(# ci\.yaml\n.*?)^```$", (root / "docs" / "deploying.md").read_text())
    (tmp_path / "ci.yaml").write_text(text)
    roles = templates.read(tmp_path / "ci.yaml")["Resources"]
    granted = {role: list(statements(content)) for role, content in roles.items()}
    actions = {action for each in granted["CloudFormation"] for action in listed(each["Action"])}
    assert all("*" not in action for each in granted["Deployer"] for action in listed(each["Action"]))
    assert all("*" not in action for action in actions)
    assert not actions & {"dynamodb:DeleteTable", "s3:DeleteBucket", "s3:DeleteObject", "s3:GetObjectVersion"}
    made_of = {each["Type"].split("::")[1].lower() for each in resources.values()}
    services = {action.partition(":")[0] for action in actions}
    # SAM's own types become functions and APIs.
    assert (made_of - {"serverless"}) | {"lambda", "apigateway"} <= services
    named = {name for name, each in resources.items() if each["Type"] == "AWS::IAM::Role"}
    for sid in ("Roles", "RolesForFunctionsOnly"):
        (places,) = [each["Resource"] for each in granted["CloudFormation"] if each["Sid"] == sid]
        assert {re.search(r"\$\{Stack\}-(\w+)-\*", str(place))[1] for place in places} == named  # type: ignore[index]


def test_every_skipped_check_has_its_reason(root: Path) -> None:
    """Each skipped check has a comment with the reason above it, in one file only."""
    text = (root / ".checkov.yaml").read_text()
    waived = yaml.safe_load(text)["skip-check"]
    assert re.findall(r"(?m)^  #.*\n  - (\w+)$", text) == waived
    assert "checkov" not in (root / "template.yaml").read_text()


def test_an_event_keeps_the_caller_of_its_arrival(resources: dict[str, Any]) -> None:
    """Only the rule reads the caller of events, so that a message keeps its caller after the parameter changes."""
    (target,) = resources["RequestedRule"]["Properties"]["Targets"]
    (template,) = target["InputTransformer"].values()
    filled = template["Fn::Sub"].replace("${EventsCaller}", "events").replace("<aws.events.event.json>", '{"id": "1"}')
    assert json.loads(filled) == {"caller": "events", "event": {"id": "1"}}
    naming = [name for name, resource in resources.items() if "EventsCaller" in json.dumps(resource)]
    assert naming == ["RequestedRule"]

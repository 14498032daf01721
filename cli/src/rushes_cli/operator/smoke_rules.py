"""The expectations of `rushes smoke` about a stack's configuration, and their comparison with an account. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Json = Mapping[str, Any]

FUNCTIONS = ("Submit", "Intake", "Webhook", "Reconcile", "Publish", "Deliver", "Tasks")


class Permission(NamedTuple):
    """Actions that a function's role must have, or must not have, on one resource.

    `resource` is a format string over the names of the stack's ARNs. `key` is a leading key of the table, if the
    decision depends on it.
    """

    function: str
    actions: tuple[str, ...]
    resource: str
    key: str = ""
    allowed: bool = True


_RECEIVE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
_READ_OBJECT = ("s3:GetObject", "s3:GetObjectVersion")
_VIDEO, _INPUT, _REPORT = "{bucket}/videos/smoke/clip.mp4", "{bucket}/inputs/smoke/image.png", "{bucket}/reports/smoke"
_TASK, _BUDGET, _KEY, _CALLER = "task#smoke#task", "budget#all", "key#smoke", "caller#smoke"
_SECRET = ("secretsmanager:GetSecretValue",)

_MUST = (
    Permission("Submit", ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:GetItem"), "{table}", _TASK),
    Permission("Submit", ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"), "{table}", _BUDGET),
    Permission("Submit", ("dynamodb:GetItem",), "{table}", _KEY),
    Permission("Submit", ("dynamodb:GetItem",), "{table}", _CALLER),
    Permission("Submit", ("s3:PutObject", "s3:GetObjectVersion"), _VIDEO),
    Permission("Submit", ("s3:PutObject", "s3:GetObject"), _INPUT),
    Permission("Submit", ("s3:PutObject",), _REPORT),
    Permission("Submit", _RECEIVE, "{Inbox}"),
    Permission("Submit", _SECRET, "{RunwareSecret}"),
    Permission("Submit", _SECRET, "{WebhookSecret}"),
    Permission("Intake", ("dynamodb:GetItem",), "{table}", _CALLER),
    Permission("Intake", _READ_OBJECT, "{bucket}/requests/smoke/file.jsonl"),
    Permission("Intake", ("s3:ListBucket", "s3:ListBucketVersions"), "{bucket}"),
    Permission("Intake", ("s3:PutObject",), _INPUT),
    Permission("Intake", ("s3:PutObject",), _REPORT),
    Permission("Intake", _RECEIVE, "{RequestsQueue}"),
    Permission("Intake", ("sqs:SendMessage",), "{Inbox}"),
    Permission("Webhook", ("dynamodb:GetItem", "dynamodb:UpdateItem"), "{table}", _TASK),
    Permission("Webhook", ("dynamodb:UpdateItem", "dynamodb:Query"), "{table}", _BUDGET),
    Permission("Webhook", _READ_OBJECT, _VIDEO),
    Permission("Webhook", ("s3:ListBucket",), "{bucket}"),
    Permission("Webhook", _SECRET, "{WebhookSecret}"),
    Permission("Reconcile", ("dynamodb:Query",), "{table}/index/due"),
    Permission("Reconcile", ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"), "{table}", _TASK),
    Permission("Reconcile", ("dynamodb:UpdateItem", "dynamodb:Query"), "{table}", _BUDGET),
    Permission("Reconcile", (*_READ_OBJECT, "s3:PutObject", "s3:AbortMultipartUpload"), _VIDEO),
    Permission("Reconcile", ("s3:ListBucket", "s3:ListBucketVersions"), "{bucket}"),
    Permission("Reconcile", ("s3:GetObject",), _INPUT),
    Permission("Reconcile", _RECEIVE, "{UploadsQueue}"),
    Permission("Reconcile", _SECRET, "{RunwareSecret}"),
    Permission("Reconcile", _SECRET, "{WebhookSecret}"),
    Permission("Publish", ("dynamodb:GetRecords", "dynamodb:GetShardIterator"), "{table}/stream/smoke"),
    Permission("Publish", ("dynamodb:GetItem",), "{table}", _TASK),
    Permission("Publish", _READ_OBJECT, _VIDEO),
    Permission("Publish", ("s3:PutObject",), "{bucket}/videos/smoke/clip.json"),
    Permission("Publish", ("events:PutEvents",), "{bus}"),
    Permission("Publish", ("sqs:SendMessage",), "{PublishDeadLetters}"),
    Permission("Publish", ("sqs:SendMessage",), "{Deliveries}"),
    Permission("Deliver", ("dynamodb:GetItem",), "{table}", _TASK),
    Permission("Deliver", ("dynamodb:GetItem",), "{table}", "signing#smoke"),
    Permission("Deliver", ("dynamodb:GetItem", "dynamodb:PutItem"), "{table}", "delivery#smoke"),
    Permission("Deliver", ("dynamodb:PutItem", "dynamodb:DeleteItem"), "{table}", "slots#smoke"),
    Permission("Deliver", _READ_OBJECT, _VIDEO),
    Permission("Deliver", (*_RECEIVE, "sqs:SendMessage"), "{Deliveries}"),
    Permission("Tasks", ("dynamodb:Query",), "{table}/index/recent"),
    Permission("Tasks", ("dynamodb:Query",), "{table}/index/costs"),
    Permission("Tasks", ("dynamodb:GetItem", "dynamodb:BatchGetItem"), "{table}", _TASK),
    Permission("Tasks", ("dynamodb:GetItem",), "{table}", _KEY),
    Permission("Tasks", _READ_OBJECT, _VIDEO),
)

# No function may delete records or clips, make keys or change what protects them.
_MUST_NOT_OF_ALL = tuple(
    Permission(function, actions, resource, key, allowed=False)
    for function in FUNCTIONS
    for actions, resource, key in (
        (("dynamodb:DeleteItem", "dynamodb:DeleteTable", "dynamodb:Scan"), "{table}", _TASK),
        (("dynamodb:PutItem", "dynamodb:UpdateItem"), "{table}", _KEY),
        (("dynamodb:PutItem", "dynamodb:UpdateItem"), "{table}", _CALLER),
        (("s3:DeleteObject", "s3:DeleteObjectVersion"), _VIDEO, ""),
        (("s3:PutBucketPolicy", "s3:PutBucketVersioning", "s3:DeleteBucketPolicy"), "{bucket}", ""),
        (("secretsmanager:PutSecretValue",), "{WebhookSecret}", ""),
        (("secretsmanager:PutSecretValue",), "{RunwareSecret}", ""),
        (("iam:PassRole", "sts:AssumeRole", "lambda:InvokeFunction"), "*", ""),
    )
)
# Only `submit` creates orders, only it and `reconcile` create clips and buy, and only they and `publish` write beside
# clips.
_MUST_NOT = (
    *(
        Permission(function, ("dynamodb:PutItem",), "{table}", _TASK, allowed=False)
        for function in FUNCTIONS
        if function not in ("Submit", "Reconcile")
    ),
    *(
        Permission(function, _SECRET, "{RunwareSecret}", allowed=False)
        for function in ("Intake", "Webhook", "Publish", "Deliver", "Tasks")
    ),
    *(
        Permission(function, _SECRET, "{WebhookSecret}", allowed=False)
        for function in ("Intake", "Publish", "Deliver", "Tasks")
    ),
    *(
        Permission(function, ("s3:PutObject",), _VIDEO, allowed=False)
        for function in ("Intake", "Webhook", "Publish", "Deliver", "Tasks")
    ),
    Permission("Tasks", ("dynamodb:UpdateItem",), "{table}", _BUDGET, allowed=False),
    Permission("Webhook", ("sqs:SendMessage",), "{Inbox}", allowed=False),
)

PERMISSIONS = (*_MUST, *_MUST_NOT_OF_ALL, *_MUST_NOT)


def wrong_decisions(permission: Permission, decisions: Mapping[str, str]) -> Iterator[str]:
    """The actions of a permission that IAM decides otherwise, as text."""
    for action in permission.actions:
        if (decisions.get(action) == "allowed") != permission.allowed:
            verb = "may not" if permission.allowed else "may"
            key = f" with the key {permission.key}" if permission.key else ""
            yield f"{permission.function}Role {verb} {action} on {permission.resource}{key}"


def missing_alarms(expected: Iterable[str], found: Iterable[Json]) -> list[str]:
    """The flaws of the alarms: one that is missing, has no action, or whose actions are disabled."""
    by_name = {each["AlarmName"]: each for each in found}
    flaws = []
    for name in sorted(expected):
        alarm = by_name.get(name)
        if alarm is None:
            flaws.append(f"{name} is missing")
        elif not alarm.get("ActionsEnabled", True) or not alarm.get("AlarmActions"):
            flaws.append(f"{name} has no enabled action")
    return flaws


def bucket_policy_flaws(statements: Iterable[Json], bucket_arn: str, max_signature_age: str) -> list[str]:
    """The protections that a bucket policy lacks."""
    denials = [each for each in statements if each.get("Effect") == "Deny" and _is_for_all(each, bucket_arn)]
    wanted = {
        "access without TLS is not denied": {"Bool": {"aws:SecureTransport": "false"}},
        f"links older than {max_signature_age} ms are not denied": {
            "NumericGreaterThan": {"s3:signatureAge": max_signature_age}
        },
    }
    conditions = [each.get("Condition") for each in denials]
    return [flaw for flaw, condition in wanted.items() if condition not in conditions]


def _is_for_all(statement: Json, bucket_arn: str) -> bool:
    resources = _list(statement.get("Resource"))
    return (
        statement.get("Principal") in ("*", {"AWS": "*"})
        and _list(statement.get("Action")) == ["s3:*"]
        and {bucket_arn, f"{bucket_arn}/*"} <= set(resources)
    )


def wrong_variables(function: str, variables: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """The variables of a function that are missing or name another resource. Values are not repeated."""
    return [
        f"{function}Function has {'another' if name in variables else 'no'} {name}"
        for name, value in expected.items()
        if variables.get(name) != value
    ]


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]

"""The expectations of `rushes smoke` about a stack's configuration."""

import pytest

from rushes_cli.operator.smoke_rules import (
    FUNCTIONS,
    PERMISSIONS,
    Permission,
    bucket_policy_flaws,
    missing_alarms,
    wrong_decisions,
    wrong_variables,
)

BUCKET = "arn:aws:s3:::clips"
TLS = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [BUCKET, f"{BUCKET}/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
AGE = {**TLS, "Condition": {"NumericGreaterThan": {"s3:signatureAge": "7200000"}}}


def test_every_role_has_both_kinds_of_expectations() -> None:
    """Each function has permissions that it needs and permissions that it must not have, and none is in both."""
    for allowed in (True, False):
        assert {each.function for each in PERMISSIONS if each.allowed is allowed} == set(FUNCTIONS)
    wanted, refused = (
        {
            (each.function, action, each.resource, each.key)
            for each in PERMISSIONS
            if each.allowed is allowed
            for action in each.actions
        }
        for allowed in (True, False)
    )
    assert not wanted & refused


@pytest.mark.parametrize(
    ("allowed", "decision", "flaws"),
    [
        (True, "allowed", []),
        (True, "implicitDeny", ["TasksRole may not s3:GetObject on {bucket}"]),
        (False, "explicitDeny", []),
        (False, "allowed", ["TasksRole may s3:GetObject on {bucket}"]),
    ],
)
def test_decisions(allowed: bool, decision: str, flaws: list[str]) -> None:
    """A flaw names the role, the action and the resource."""
    permission = Permission("Tasks", ("s3:GetObject",), "{bucket}", allowed=allowed)
    assert list(wrong_decisions(permission, {"s3:GetObject": decision})) == flaws


def test_an_action_without_a_decision_is_a_flaw() -> None:
    """A permission that IAM did not decide counts as missing."""
    assert list(wrong_decisions(Permission("Tasks", ("s3:GetObject",), "{bucket}"), {}))


@pytest.mark.parametrize(
    ("statements", "flaws"),
    [
        ([TLS, AGE], 0),
        ([AGE], 1),
        ([TLS, {**AGE, "Condition": {"NumericGreaterThan": {"s3:signatureAge": "7200001"}}}], 1),
        ([TLS, {**AGE, "Resource": [f"{BUCKET}/*"]}], 1),
        ([{**TLS, "Effect": "Allow"}, AGE], 1),
        ([TLS, {**AGE, "Principal": {"AWS": "arn:aws:iam::1:root"}}], 1),
        ([], 2),
    ],
)
def test_bucket_policy(statements: list[dict[str, object]], flaws: int) -> None:
    """Both denials must be for everyone, all actions and the whole bucket, with exactly their condition."""
    assert len(bucket_policy_flaws(statements, BUCKET, "7200000")) == flaws


def test_alarms() -> None:
    """A missing alarm, one without an action and one with disabled actions are named."""
    found = [
        {"AlarmName": "a", "ActionsEnabled": True, "AlarmActions": ["topic"]},
        {"AlarmName": "b", "ActionsEnabled": False, "AlarmActions": ["topic"]},
        {"AlarmName": "c", "ActionsEnabled": True, "AlarmActions": []},
    ]
    assert missing_alarms("abcd", found) == [
        "b has no enabled action",
        "c has no enabled action",
        "d is missing",
    ]


def test_variables() -> None:
    """A wrong and a missing variable are named without their values."""
    flaws = wrong_variables("Submit", {"A": "1", "B": "secret"}, {"A": "1", "B": "2", "C": "3"})
    assert flaws == ["SubmitFunction has another B", "SubmitFunction has no C"]

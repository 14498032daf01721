"""The local answers of IAM's policy simulation."""

import pytest

from rushes_local.aws.policy_simulation import ALLOWED, EXPLICIT_DENY, IMPLICIT_DENY, decide

OBJECTS = {"Effect": "Allow", "Action": ["s3:Get*", "s3:PutObject"], "Resource": "arn:aws:s3:::clips/videos/*"}
RECORDS = {
    "Effect": "Allow",
    "Action": "dynamodb:GetItem",
    "Resource": "arn:aws:dynamodb:::table/t",
    "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["task#*", "budget#*"]}},
}
DENIED = {"Effect": "Deny", "Action": "*", "Resource": "*/secret?"}
VIDEO, TABLE = "arn:aws:s3:::clips/videos/a", "arn:aws:dynamodb:::table/t"


@pytest.mark.parametrize(
    ("action", "resource", "keys", "decision"),
    [
        ("s3:PutObject", VIDEO, [], ALLOWED),
        ("S3:getobjectversion", VIDEO, [], ALLOWED),
        ("s3:DeleteObject", VIDEO, [], IMPLICIT_DENY),
        ("s3:PutObject", "arn:aws:s3:::clips/Videos/a", [], IMPLICIT_DENY),
        ("s3:PutObject", f"{VIDEO}/secret1", [], EXPLICIT_DENY),
        ("dynamodb:GetItem", TABLE, ["task#a", "budget#b"], ALLOWED),
        ("dynamodb:GetItem", TABLE, ["task#a", "key#b"], IMPLICIT_DENY),
        ("dynamodb:GetItem", TABLE, [], ALLOWED),
    ],
)
def test_decisions(action: str, resource: str, keys: list[str], decision: str) -> None:
    """Wildcards, denials and conditions on leading keys are decided as IAM does."""
    context = {"dynamodb:LeadingKeys": keys} if keys else {}
    assert decide([OBJECTS, RECORDS, DENIED], action, resource, context) == decision


@pytest.mark.parametrize("change", [{"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, {"NotAction": "s3:*"}])
def test_an_unsupported_statement_is_an_error(change: dict[str, object]) -> None:
    """A condition that the evaluator does not know is never ignored."""
    with pytest.raises(ValueError, match="not supported"):
        decide([{**OBJECTS, **change}], "s3:PutObject", VIDEO, {})

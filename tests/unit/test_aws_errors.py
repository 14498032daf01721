"""The translation of AWS's errors."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from rushes.adapters.aws import aws_errors
from rushes.errors import BucketError, InboxError

REFUSED = ClientError({"Error": {"Code": "AccessDenied", "Message": "not on arn:aws:s3:::clips/key"}}, "PutObject")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (REFUSED, "AccessDenied"),
        (EndpointConnectionError(endpoint_url="https://example/?secret"), "EndpointConnectionError"),
        (NoCredentialsError(), "NoCredentialsError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_of_aws_is_ours_with_its_code_alone(raised: Exception, code: str) -> None:
    """The error has AWS's code, or the exception's type without an answer: no name, no link and no context."""
    with pytest.raises(InboxError) as caught, aws_errors(InboxError):
        raise raised
    assert str(caught.value) == code
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("raised", [KeyError("x"), BucketError("own"), OSError("disk")], ids=repr)
def test_other_errors_stay_what_they_are(raised: Exception) -> None:
    """An error that is not from AWS is raised unchanged."""
    with pytest.raises(type(raised)) as caught, aws_errors(InboxError):
        raise raised
    assert caught.value is raised

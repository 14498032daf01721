"""Access to a deployed stack's table, bucket and secrets, with the default AWS credentials.

The stack is that of `--stack`, whose outputs name the resources. Otherwise TABLE_NAME and BUCKET_NAME name them;
otherwise it is the running local stack.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rushes_cli import local_stack
from rushes_cli.exits import CommandError, Exit, NotAllowedError, UnavailableError

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config
    from types_boto3_s3 import S3Client

    from rushes.adapters.dynamodb.admin import AdminTable

_DAY = 86_400_000  # milliseconds


@dataclass
class Deployment:
    """One stack. Names and clients are resolved on first use."""

    stack: str | None
    environment: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The stack's name in messages."""
        return self.stack or self.environment.get("TABLE_NAME") or "the local stack"

    @cached_property
    def table(self) -> str:
        """The table's name."""
        return self._named("TABLE_NAME", "TableName", self._local.table if self._local else None)

    @cached_property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._named("BUCKET_NAME", "BucketName", self._local.bucket if self._local else None)

    @cached_property
    def store(self) -> "AdminTable":
        """The table's adapter for operators."""
        from rushes.adapters.dynamodb.admin import AdminTable

        return AdminTable(self.client("dynamodb"), self.table)

    @cached_property
    def s3(self) -> "S3Client":
        """An S3 client for the bucket's account."""
        client: S3Client = self.client("s3")
        return client

    @property
    def retention(self) -> int | None:
        """The retention of objects in milliseconds; None if unlimited or unknown."""
        if self.stack is None:
            return None
        days = self.parameter("RetentionDays") or "0"
        return int(days) * _DAY or None if days.isdigit() else None

    def parameter(self, name: str) -> str:
        """The value of a parameter of the stack; empty if it has no such parameter."""
        found = {each["ParameterKey"]: each.get("ParameterValue", "") for each in self._described.get("Parameters", [])}
        return str(found.get(name, ""))

    def output(self, name: str) -> str:
        """The value of a stack output. Raises `CommandError` if there is no such output."""
        outputs = {str(each["OutputKey"]): str(each["OutputValue"]) for each in self._described.get("Outputs", [])}
        if name not in outputs:
            raise CommandError(f"The stack has no output {name}: template.yaml lists its outputs.")
        return outputs[name]

    def client(self, service: str, settings: "Config | None" = None) -> Any:
        """A client for an AWS service in the stack's account; `settings` take precedence over the default ones."""
        from botocore.config import Config

        if not (self.stack or self._local or "TABLE_NAME" in self.environment):
            raise NotAllowedError("The stack is not set: use --stack.")  # before botocore reports missing settings
        session, endpoint = self._session
        tries = (
            {"total_max_attempts": 1} if service == "dynamodb" else {"mode": "standard"}
        )  # the table adapter retries
        config = Config(retries=tries, proxies={} if endpoint else None)  # type: ignore[arg-type]
        config = config.merge(settings) if settings else config
        return session.client(service, endpoint_url=endpoint, config=config)  # type: ignore[call-overload]

    @cached_property
    def _local(self) -> local_stack.RunningStack | None:
        return None if self.stack or "TABLE_NAME" in self.environment else local_stack.find(self.environment)

    @cached_property
    def _described(self) -> Mapping[str, Any]:
        name = self.stack or (self._local.stack if self._local else None)
        if name is None:
            raise NotAllowedError("The stack is not set: use --stack.")
        found: Mapping[str, Any] = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        return found

    @cached_property
    def _session(self) -> "tuple[boto3.Session, str | None]":
        import boto3

        local = self._local
        if local is None:
            return boto3.Session(), None
        session = boto3.Session(
            region_name=local.region,
            aws_access_key_id=local.access_key,
            aws_secret_access_key=local.secret_key,
        )
        return session, local.aws_url

    def _named(self, variable: str, output: str, local: str | None) -> str:
        if self.stack:
            return self.output(output)
        name = self.environment.get(variable) or local
        if not name:
            raise NotAllowedError(f"The stack is not set: use --stack, or set {variable}.")
        return name


@contextmanager
def operated(stack: str | None) -> Iterator[Deployment]:
    """Yields the chosen stack. Turns AWS errors in the block into one-line errors."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    from rushes.errors import BucketError, BusError, StoreError

    try:
        yield Deployment(stack, os.environ)
    except NoCredentialsError:
        raise NotAllowedError("No AWS credentials were found.") from None
    except NoRegionError:
        raise NotAllowedError("No AWS region was found: set AWS_DEFAULT_REGION.") from None
    except ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        denied = "Denied" in code or "Token" in code or "Signature" in code
        raise CommandError(
            f"AWS responded with {code}: {message}", Exit.NOT_ALLOWED if denied else Exit.FAILED
        ) from None
    except (BotoCoreError, BucketError, BusError, StoreError) as error:
        raise UnavailableError(f"AWS is unavailable: {error or type(error).__name__}") from None


def new_webhook_keys(current: str) -> str:
    """The next value of the webhook secret, as JSON: a new key, and the current one as the previous key."""
    return json.dumps({"current": secrets.token_urlsafe(48), "previous": current})

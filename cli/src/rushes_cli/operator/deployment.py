"""A deployed stack as its operator sees it: table, bucket and secrets, with the credentials that the AWS tools find.

Named by `--stack`, whose outputs say the rest; else by TABLE_NAME and BUCKET_NAME; else it is the running local stack.
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
    from types_boto3_s3 import S3Client

    from rushes.adapters.dynamodb.admin import AdminTable

_DAY = 86_400_000  # milliseconds


@dataclass
class Deployment:
    """One stack. Nothing is asked for before it is needed."""

    stack: str | None
    environment: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """What it is called, for people."""
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
        """The table."""
        from rushes.adapters.dynamodb.admin import AdminTable

        return AdminTable(self.client("dynamodb"), self.table)

    @cached_property
    def s3(self) -> "S3Client":
        """The bucket's client."""
        client: S3Client = self.client("s3")
        return client

    @property
    def retention(self) -> int | None:
        """How long objects are kept, in milliseconds; None for ever, or where nobody can say."""
        if self.stack is None:
            return None
        found = {each["ParameterKey"]: each.get("ParameterValue", "") for each in self._described.get("Parameters", [])}
        days = found.get("RetentionDays", "0")
        return int(days) * _DAY or None if days.isdigit() else None

    def output(self, name: str) -> str:
        """One of the stack's outputs."""
        outputs = {str(each["OutputKey"]): str(each["OutputValue"]) for each in self._described.get("Outputs", [])}
        if name not in outputs:
            raise CommandError(f"The stack has no output {name}.")
        return outputs[name]

    def client(self, service: str) -> Any:
        """A client for the account that the stack is in."""
        from botocore.config import Config

        if not (self.stack or self._local or "TABLE_NAME" in self.environment):
            raise NotAllowedError("Name the deployed stack with --stack.")  # before anything that AWS's tools may miss
        session, endpoint = self._session
        tries = {"total_max_attempts": 1} if service == "dynamodb" else {"mode": "standard"}  # the table is patient
        config = Config(retries=tries, proxies={} if endpoint else None)  # type: ignore[arg-type]
        return session.client(service, endpoint_url=endpoint, config=config)  # type: ignore[call-overload]

    @cached_property
    def _local(self) -> local_stack.RunningStack | None:
        return None if self.stack or "TABLE_NAME" in self.environment else local_stack.find(self.environment)

    @cached_property
    def _described(self) -> Mapping[str, Any]:
        name = self.stack or (self._local.stack if self._local else None)
        if name is None:
            raise NotAllowedError("Name the deployed stack with --stack.")
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
            raise NotAllowedError(f"Name the deployed stack with --stack, or set {variable}.")
        return name


@contextmanager
def operated(stack: str | None) -> Iterator[Deployment]:
    """The stack that is meant; what AWS has against it becomes one line."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    from rushes.errors import BucketError, BusError, StoreError

    try:
        yield Deployment(stack, os.environ)
    except NoCredentialsError:
        raise NotAllowedError("AWS's tools find no credentials here.") from None
    except NoRegionError:
        raise NotAllowedError("AWS's tools find no region here: set AWS_DEFAULT_REGION.") from None
    except ClientError as error:
        code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        denied = "Denied" in code or "Token" in code or "Signature" in code
        raise CommandError(f"AWS answered {code}: {said}", Exit.NOT_ALLOWED if denied else Exit.FAILED) from None
    except (BotoCoreError, BucketError, BusError, StoreError) as error:
        raise UnavailableError(f"AWS cannot be asked: {error or type(error).__name__}") from None


def new_webhook_keys(current: str) -> str:
    """The webhook secret's next value: a new key, and the one before, which stays valid until the next time."""
    return json.dumps({"current": secrets.token_urlsafe(48), "previous": current})

"""The DynamoDB of a run: a server at an address, or that of an AWS account. Creates and removes the run's table."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import ClientError

from rushes_local.aws.remote_table import RemoteTable
from rushes_local.template import Template

ROOT = Path(__file__).parents[2]
ACCOUNT = "aws"
"""The endpoint that stands for the account of the default credentials, in their region."""

# Accepted by servers that check no signature. The account's own credentials are for AWS only.
_ANY_CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}

# AWS names no limit. "Changes to the table data are propagated to the global secondary indexes within a fraction of a
# second, under normal conditions": https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html
_INDEX_LAG = 1.0  # seconds


class ServerError(Exception):
    """The endpoint cannot be used. The text is shown to the developer."""


@dataclass
class TableServer:
    """DynamoDB at `endpoint`: a URL, or ACCOUNT. Raises ServerError for another endpoint."""

    endpoint: str
    session: Any = field(init=False)

    def __post_init__(self) -> None:
        self.session = boto3.Session(**({} if self.is_account else _ANY_CREDENTIALS))
        if self.is_account:
            if self.session.region_name is None or self.session.get_credentials() is None:
                raise ServerError("there are no default credentials, or no region: set AWS_PROFILE, AWS_DEFAULT_REGION")
            return
        url = urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ServerError(f"{self.endpoint} is no URL of a server")
        if url.hostname.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
            raise ServerError(f"{url.hostname} is AWS: use ENDPOINT={ACCOUNT}, which names the account first")

    @property
    def is_account(self) -> bool:
        return self.endpoint == ACCOUNT

    def client(self, service: str) -> Any:
        """A client of DynamoDB, its streams or, in an account, another service."""
        if self.is_account:
            return self.session.client(service)
        return self.session.client(service, endpoint_url=self.endpoint, config=Config(proxies={}))

    def account(self) -> str:
        """The number of the account of the default credentials."""
        number: str = self.client("sts").get_caller_identity()["Account"]
        return number

    def table(self, name: str) -> RemoteTable:
        """A table of this server, for a stack."""
        return RemoteTable(
            name,
            dynamodb=self.client("dynamodb").meta.endpoint_url,
            streams=self.client("dynamodbstreams").meta.endpoint_url,
            region=self.session.region_name,
            credentials=self.session.get_credentials(),
            index_lag=_INDEX_LAG if self.is_account else 0,
            http=httpx.Client(timeout=30, trust_env=self.is_account),
        )

    def create(self, name: str) -> None:
        """Begins to create the template's table under this name."""
        self.client("dynamodb").create_table(TableName=name, **Template(ROOT / "template.yaml").table())

    def wait(self, name: str, state: str = "table_exists") -> None:
        """Waits until a table has a state, one of boto3's waiters."""
        delay = 5 if self.is_account else 1
        self.client("dynamodb").get_waiter(state).wait(TableName=name, WaiterConfig={"Delay": delay})

    def remove(self, name: str) -> None:
        """Removes a table, if it exists, and waits for its end."""
        client = self.client("dynamodb")
        try:
            try:
                client.delete_table(TableName=name)
            except client.exceptions.ResourceInUseException:  # it is still being created
                self.wait(name)
                client.delete_table(TableName=name)
            self.wait(name, "table_not_exists")
        except client.exceptions.ResourceNotFoundException:
            pass


def error_text(error: ClientError) -> str:
    """The error of a service in one line."""
    return f"{error.operation_name}: {error.response['Error']['Code']}: {error.response['Error'].get('Message', '')}"

"""Completes the local account with the resources that moto's CloudFormation does not support.

They are functions with their aliases and event sources, the schedule's rule, alarms, the bucket's policy and two
outputs, as SAM and CloudFormation create them. The functions' code runs elsewhere, so moto invokes none of them. Only
for stacks whose configuration is examined, such as by `rushes smoke`, because it takes a second.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rushes_local.lambda_runtime import ACCOUNT_ID, REGION, Function
from rushes_local.template import read

ALIAS = "live"


@dataclass
class _Resource:
    """A resource in the form of moto's CloudFormation."""

    logical_resource_id: str
    physical_resource_id: str
    type: str
    arn: str = ""
    status: str = "CREATE_COMPLETE"

    @property
    def cf_resource_type(self) -> str:
        return self.type

    def get_cfn_attribute(self, _name: str) -> str:
        """The only attribute that the template needs."""
        return self.arn


class Account:
    """The account of one local stack. `client` makes clients, `url` is the address of both APIs."""

    def __init__(self, template: Path, stack: str, client: Callable[[str], Any], url: str) -> None:
        from moto.cloudformation.models import cloudformation_backends

        self._resources = read(template)["Resources"]
        self._stack, self._client, self._url = stack, client, url
        self._created: Any = cloudformation_backends[ACCOUNT_ID][REGION].get_stack(stack)

    def complete(self, functions: Mapping[str, Function]) -> None:
        """Create the missing resources; `functions` has the functions by logical id."""
        self._restore_policies()
        for logical_id, function in functions.items():
            self._create_function(logical_id, function)
        for logical_id in functions:
            self._create_events(logical_id)
        for logical_id, properties in self._of("AWS::CloudWatch::Alarm"):
            name = f"{self._stack}-{logical_id}"
            self._client("cloudwatch").put_metric_alarm(AlarmName=name, **properties)
            self._register(logical_id, name, "AWS::CloudWatch::Alarm")
        for logical_id, properties in self._of("AWS::S3::BucketPolicy"):
            policy = json.dumps(properties["PolicyDocument"])
            self._client("s3").put_bucket_policy(Bucket=properties["Bucket"], Policy=policy)
            self._register(logical_id, properties["Bucket"], "AWS::S3::BucketPolicy")
        for _, properties in self._of("AWS::S3::Bucket"):
            block = properties["PublicAccessBlockConfiguration"]
            bucket = self._physical("Bucket")
            self._client("s3").put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
        for name in ("ApiUrl", "WebhookUrl"):
            self._created.output_map._output_json_map[name] = {"Value": self._url}

    def pulse(self) -> None:
        """Record an invocation by the schedule, as EventBridge does in CloudWatch."""
        from datetime import UTC, datetime

        datum = {
            "MetricName": "Invocations",
            "Dimensions": [{"Name": "RuleName", "Value": f"{self._stack}-reconcile"}],
            "Value": 1,
            "Timestamp": datetime.now(UTC),
        }
        self._client("cloudwatch").put_metric_data(Namespace="AWS/Events", MetricData=[datum])

    def _of(self, kind: str) -> list[tuple[str, Any]]:
        return [
            (name, self._resolve(each["Properties"])) for name, each in self._resources.items() if each["Type"] == kind
        ]

    def _resolve(self, value: Any) -> Any:
        from moto.cloudformation.parsing import clean_json

        return _without_none(clean_json(json.loads(json.dumps(value)), self._created.resource_map))

    def _physical(self, logical_id: str) -> str:
        return str(self._created.resource_map[logical_id].physical_resource_id)

    def _register(self, logical_id: str, name: str, kind: str, arn: str = "") -> None:
        resources = self._created.resource_map
        resources._resource_json_map[logical_id] = {"Type": kind}
        resources._parsed_resources[logical_id] = _Resource(logical_id, name, kind, arn)

    def _restore_policies(self) -> None:
        """Put the roles' policies again: moto stores them as text of Python, with None for AWS::NoValue."""
        for logical_id, properties in self._of("AWS::IAM::Role"):
            for policy in properties["Policies"]:
                document = json.dumps(policy["PolicyDocument"])
                self._client("iam").put_role_policy(
                    RoleName=self._physical(logical_id), PolicyName=policy["PolicyName"], PolicyDocument=document
                )

    def _create_function(self, logical_id: str, function: Function) -> None:
        created = self._client("lambda").create_function(
            FunctionName=f"{self._stack}-{logical_id}",
            Runtime="python3.13",
            Role=self._created.resource_map[logical_id.replace("Function", "Role")].arn,
            Handler=function.handler,
            Code={"ZipFile": _empty_archive()},
            Environment={"Variables": {key: value for key, value in function.environment.items() if key[:4] != "AWS_"}},
            Timeout=max(1, math.ceil(function.timeout_seconds)),
            MemorySize=function.memory_mb,
            Publish=True,
        )
        name = created["FunctionName"]
        self._client("lambda").create_alias(FunctionName=name, Name=ALIAS, FunctionVersion=created["Version"])
        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{name}"
        self._register(logical_id, name, "AWS::Lambda::Function", arn)

    def _create_events(self, logical_id: str) -> None:
        arn = f"{self._created.resource_map[logical_id].arn}:{ALIAS}"
        for event in self._resources[logical_id]["Properties"]["Events"].values():
            if event["Type"] == "HttpApi":
                continue  # the gateway has the routes
            properties = self._resolve(event["Properties"])
            match event["Type"]:
                case "Schedule":
                    self._client("events").put_rule(
                        Name=properties["Name"], ScheduleExpression=properties["Schedule"], State="ENABLED"
                    )
                    self._client("events").put_targets(Rule=properties["Name"], Targets=[{"Id": "f", "Arn": arn}])
                case "SQS" | "DynamoDB":
                    self._map_source(arn, properties.get("Queue") or properties["Stream"])

    def _map_source(self, function: str, source: str) -> None:
        """Record an event source mapping. Its messages are delivered by `Triggers`, not by moto."""
        from moto.awslambda.models import lambda_backends
        from moto.dynamodb.models import dynamodb_backends
        from moto.sqs.models import sqs_backends

        created = self._client("lambda").create_event_source_mapping(
            FunctionName=function, EventSourceArn=source, StartingPosition="TRIM_HORIZON"
        )
        # moto replaces the alias by its version.
        mapping: Any = lambda_backends[ACCOUNT_ID][REGION].get_event_source_mapping(created["UUID"])
        mapping.function_arn = function
        for queue in sqs_backends[ACCOUNT_ID][REGION].queues.values():
            queue.lambda_event_source_mappings.clear()
        for table in dynamodb_backends[ACCOUNT_ID][REGION].tables.values():
            table.lambda_event_source_mappings.clear()


def _without_none(value: Any) -> Any:
    """The value without members and items that are AWS::NoValue."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value if each is not None] if isinstance(value, list) else value


def _empty_archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("app.py", "")
    return content.getvalue()

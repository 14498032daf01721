"""Reads template.yaml for the local stack.

Hides the file's syntax: tags, Globals, and the resource types that moto's CloudFormation supports. Interprets no
intrinsic function: moto resolves the functions' variables, which are passed to it as outputs.
"""

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # without libyaml, parsing takes ten times as long
    from yaml import SafeLoader  # type: ignore[assignment]

_SECRET = "AWS::SecretsManager::Secret"
_TABLE_PROPERTIES = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
_SUBSTITUTED = re.compile(r"\$\{([^}!.]+)")
_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


class _Loader(SafeLoader):
    """Reads tags as mappings: `!Ref x` as `{"Ref": "x"}`."""


def _read_tag(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _read_tag)


@dataclass(frozen=True)
class HttpRoute:
    """A route of one of the HTTP APIs; `api` is the API's logical id."""

    method: str
    path: str
    api: str


@dataclass(frozen=True)
class QueueSource:
    """A queue, by logical id, that invokes a function. `partial`: the function reports the messages that failed.

    `max_concurrency` is a number or refers to a parameter.
    """

    queue: str
    batch_size: int
    partial: bool
    max_concurrency: int | Mapping[str, str]


@dataclass(frozen=True)
class StreamSource:
    """A table, by logical id, whose stream invokes a function with the records that match one of `patterns`, if any.

    `partial`: the function reports the record that failed. `bisect`: a batch that fails as a whole is halved. After
    `retries` retries, a message about the failed records goes to the queue `failures`, by logical id.
    """

    table: str
    batch_size: int
    partial: bool
    bisect: bool
    retries: int
    patterns: tuple[str, ...]
    failures: str


@dataclass(frozen=True)
class DeclaredFunction:
    """A declared function, with Globals merged. `variables` are unresolved. `schedules` are intervals in seconds."""

    logical_id: str
    folder: Path
    handler: str
    timeout_seconds: float
    memory_mb: int
    variables: Mapping[str, Any]
    routes: tuple[HttpRoute, ...]
    schedules: tuple[float, ...]
    queues: tuple[QueueSource, ...]
    streams: tuple[StreamSource, ...] = ()

    @property
    def name(self) -> str:
        """The name of the function's folder under functions/, such as `submit`."""
        return self.folder.name


def read(path: Path) -> dict[str, Any]:
    """A template's content, with tags in their long form, such as `{"Ref": …}` and `{"Fn::Sub": …}`."""
    with path.open(encoding="utf-8") as file:
        # Safe: the loader is a SafeLoader with tags for CloudFormation's intrinsic functions.
        content: dict[str, Any] = yaml.load(file, Loader=_Loader)
    return content


class Template:
    """A parsed template.yaml."""

    def __init__(self, path: Path) -> None:
        self._content = read(path)
        self._root = path.parent

    def functions(self) -> list[DeclaredFunction]:
        """The Lambda functions, in the file's order."""
        shared = self._content.get("Globals", {}).get("Function", {})
        return [
            self._function(logical_id, {**shared, **resource["Properties"]}, shared)
            for logical_id, resource in self._content["Resources"].items()
            if resource["Type"] == "AWS::Serverless::Function"
        ]

    def _function(self, logical_id: str, properties: Mapping[str, Any], shared: Mapping[str, Any]) -> DeclaredFunction:
        events = properties.get("Events", {}).values()

        def of(kind: str) -> list[Mapping[str, Any]]:
            return [event["Properties"] for event in events if event["Type"] == kind]

        return DeclaredFunction(
            logical_id=logical_id,
            folder=self._root / properties["CodeUri"],
            handler=properties["Handler"],
            timeout_seconds=float(properties["Timeout"]),
            memory_mb=int(properties["MemorySize"]),
            variables={**_variables(shared), **_variables(properties)},
            routes=tuple(_route(event) for event in of("HttpApi")),
            schedules=tuple(_interval(event["Schedule"]) for event in of("Schedule")),
            queues=tuple(_source(event) for event in of("SQS")),
            streams=tuple(_stream(event) for event in of("DynamoDB")),
        )

    def defaults(self) -> dict[str, Any]:
        """The default values of the parameters that have one, by name."""
        parameters = self._content.get("Parameters", {}).items()
        return {name: parameter["Default"] for name, parameter in parameters if "Default" in parameter}

    def secrets(self) -> dict[str, Mapping[str, Any]]:
        """The properties of the secrets, by logical id."""
        return self._of(_SECRET)

    def buckets(self) -> dict[str, Mapping[str, Any]]:
        """The properties of the buckets, by logical id."""
        return self._of("AWS::S3::Bucket")

    def queues(self) -> dict[str, Mapping[str, Any]]:
        """The properties of the queues, by logical id."""
        return self._of("AWS::SQS::Queue")

    def table(self) -> dict[str, Any]:
        """DynamoDB's CreateTable arguments for the table, without its name.

        Left out are the properties without an effect on requests: encryption, backups, expiry and protection.
        """
        (properties,) = self._of("AWS::DynamoDB::Table").values()
        stream = {"StreamEnabled": True, **properties["StreamSpecification"]}
        return {**{name: properties[name] for name in _TABLE_PROPERTIES}, "StreamSpecification": stream}

    def number_of(self, kind: str) -> int:
        """The number of resources of a type."""
        return len(self._of(kind))

    def _of(self, kind: str) -> dict[str, Mapping[str, Any]]:
        return {
            name: resource.get("Properties", {})
            for name, resource in self._content["Resources"].items()
            if resource["Type"] == kind
        }

    def for_cloudformation(self, supported: Container[str]) -> dict[str, Any]:
        """The template with the resources of `supported` types only, and an output for each variable of a function.

        Each secret becomes a parameter of the same name, for its ARN: moto's CloudFormation does not support secrets,
        and a `Ref` to a parameter looks the same. `output_name` has the names of the outputs. The template's own
        outputs stay if they need no removed resource.
        """
        resources = self._resources(supported)
        absent = self._content["Resources"].keys() - resources.keys() - self.secrets().keys()
        outputs = {
            name: output
            for name, output in self._content.get("Outputs", {}).items()
            if not absent & set(_references(output))
        }
        outputs |= {
            # An output is a text or an intrinsic function. Unlike CloudFormation, moto converts no numbers to text.
            output_name(function, variable): {"Value": value if isinstance(value, dict) else str(value)}
            for function in self.functions()
            for variable, value in function.variables.items()
        }
        parameters = {**self._content.get("Parameters", {}), **{name: {"Type": "String"} for name in self.secrets()}}
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Parameters": parameters,
            "Conditions": self._content.get("Conditions", {}),
            "Resources": resources,
            "Outputs": outputs,
        }

    def _resources(self, supported: Container[str]) -> dict[str, Any]:
        """The resources of supported types that refer to no removed resource."""
        resources = {name: r for name, r in self._content["Resources"].items() if r["Type"] in supported}
        while True:
            absent = self._content["Resources"].keys() - resources.keys() - self.secrets().keys()
            kept = {name: r for name, r in resources.items() if not absent & set(_references(r))}
            if len(kept) == len(resources):
                return resources
            resources = kept


def output_name(function: DeclaredFunction, variable: str) -> str:
    """The name of the output for a function's variable. Output names are alphanumeric."""
    return f"{function.logical_id}0{variable.replace('_', '0')}"


def _variables(properties: Mapping[str, Any]) -> dict[str, Any]:
    variables: dict[str, Any] = properties.get("Environment", {}).get("Variables", {})
    return variables


def _route(properties: Mapping[str, Any]) -> HttpRoute:
    return HttpRoute(properties["Method"].upper(), properties["Path"], properties["ApiId"]["Ref"])


def _interval(expression: str) -> float:
    match = _RATE.fullmatch(expression)
    if match is None:
        raise ValueError(f"the local stack supports schedules like rate(1 minute), not {expression}")
    return float(int(match[1]) * _SECONDS[match[2]])


def _stream(properties: Mapping[str, Any]) -> StreamSource:
    return StreamSource(
        table=properties["Stream"]["Fn::GetAtt"][0],
        batch_size=int(properties["BatchSize"]),
        partial=_reports_failures(properties),
        bisect=bool(properties["BisectBatchOnFunctionError"]),
        retries=int(properties["MaximumRetryAttempts"]),
        patterns=tuple(each["Pattern"] for each in properties.get("FilterCriteria", {}).get("Filters", [])),
        failures=properties["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0],
    )


def _source(properties: Mapping[str, Any]) -> QueueSource:
    return QueueSource(
        queue=properties["Queue"]["Fn::GetAtt"][0],
        batch_size=int(properties["BatchSize"]),
        partial=_reports_failures(properties),
        max_concurrency=properties["ScalingConfig"]["MaximumConcurrency"],
    )


def _reports_failures(properties: Mapping[str, Any]) -> bool:
    return "ReportBatchItemFailures" in properties.get("FunctionResponseTypes", [])


def _references(node: Any) -> Iterator[str]:
    """The logical ids to which a part of a template refers."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            match key:
                case "Ref":
                    yield value
                case "Fn::GetAtt":
                    yield value[0]
                case "Fn::Sub":
                    yield from _SUBSTITUTED.findall(value if isinstance(value, str) else value[0])
                case "DependsOn":
                    yield from [value] if isinstance(value, str) else value
                case _:
                    yield from _references(value)

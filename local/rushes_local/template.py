"""What template.yaml says, for those who run it on one machine.

Hides the file's syntax: tags, Globals, and which resources moto's CloudFormation can make. Interprets no intrinsic
function: moto resolves the functions' variables, which are given to it as outputs.
"""

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # built without libyaml, it takes ten times as long
    from yaml import SafeLoader  # type: ignore[assignment]

_SECRET = "AWS::SecretsManager::Secret"
_SUBSTITUTED = re.compile(r"\$\{([^}!.]+)")
_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


class _Loader(SafeLoader):
    """Reads `!Ref x` as `{"Ref": "x"}`, and so on."""


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
    """A queue, by logical id, that a function takes messages from. `partial`: it reports which of them failed.

    `max_concurrency` is a number or refers to a parameter.
    """

    queue: str
    batch_size: int
    partial: bool
    max_concurrency: int | Mapping[str, str]


@dataclass(frozen=True)
class StreamSource:
    """A table, by logical id, whose changes a function follows, as far as they match a pattern, if there are any.

    `partial`: it reports which of them failed. `bisect`: a batch that failed as a whole is halved. What still fails
    after so many `retries` is told to the queue `failures`, by logical id.
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
    """A function as declared, Globals merged in. `variables` are unresolved. `schedules` are intervals in seconds."""

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
        """The function's folder under functions/, as `submit`."""
        return self.folder.name


def read(path: Path) -> dict[str, Any]:
    """A template as it is written, in long form: `{"Ref": …}` and `{"Fn::Sub": …}` where the file has tags."""
    with path.open(encoding="utf-8") as file:
        # The loader is a SafeLoader with tags for CloudFormation's own functions.
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
        """The parameters' defaults, by name, where they have one."""
        parameters = self._content.get("Parameters", {}).items()
        return {name: parameter["Default"] for name, parameter in parameters if "Default" in parameter}

    def secrets(self) -> dict[str, Mapping[str, Any]]:
        """Properties of the secrets by logical id."""
        return self._of(_SECRET)

    def buckets(self) -> dict[str, Mapping[str, Any]]:
        """Properties of the buckets by logical id."""
        return self._of("AWS::S3::Bucket")

    def queues(self) -> dict[str, Mapping[str, Any]]:
        """Properties of the queues by logical id."""
        return self._of("AWS::SQS::Queue")

    def number_of(self, kind: str) -> int:
        """How many resources of a type there are."""
        return len(self._of(kind))

    def _of(self, kind: str) -> dict[str, Mapping[str, Any]]:
        return {
            name: resource.get("Properties", {})
            for name, resource in self._content["Resources"].items()
            if resource["Type"] == kind
        }

    def for_cloudformation(self, supported: Container[str]) -> dict[str, Any]:
        """The template with the resources of `supported` types only, and an output for each function's variable.

        Each secret becomes a parameter of the same name, whose value is to be its ARN: moto's CloudFormation knows no
        secrets, and a `Ref` cannot tell the difference. The outputs are named by `output_name`; beside them stand those
        of the template that need nothing which was left out.
        """
        resources = self._resources(supported)
        absent = self._content["Resources"].keys() - resources.keys() - self.secrets().keys()
        outputs = {
            name: output
            for name, output in self._content.get("Outputs", {}).items()
            if not absent & set(_references(output))
        }
        outputs |= {
            # An output is a text or an intrinsic function; only CloudFormation itself would turn numbers into texts.
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
        """The resources of supported types that refer to nothing which is left out."""
        resources = {name: r for name, r in self._content["Resources"].items() if r["Type"] in supported}
        while True:
            absent = self._content["Resources"].keys() - resources.keys() - self.secrets().keys()
            kept = {name: r for name, r in resources.items() if not absent & set(_references(r))}
            if len(kept) == len(resources):
                return resources
            resources = kept


def output_name(function: DeclaredFunction, variable: str) -> str:
    """The output under which a function's variable is found. Output names are alphanumeric."""
    return f"{function.logical_id}0{variable.replace('_', '0')}"


def _variables(properties: Mapping[str, Any]) -> dict[str, Any]:
    variables: dict[str, Any] = properties.get("Environment", {}).get("Variables", {})
    return variables


def _route(properties: Mapping[str, Any]) -> HttpRoute:
    return HttpRoute(properties["Method"].upper(), properties["Path"], properties["ApiId"]["Ref"])


def _interval(expression: str) -> float:
    match = _RATE.fullmatch(expression)
    if match is None:
        raise ValueError(f"only rates can be kept here, not {expression}")
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
    """The logical ids that a part of a template names."""
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

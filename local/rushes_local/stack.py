"""The whole system on one machine: functions, gateway, AWS (moto) and Runware (the emulator).

Hides the start of the components, the exchange of their addresses, and their common end. The resources are read from
template.yaml. The functions run unchanged and depend only on their environment variables.

State is in memory. Log files are in a temporary directory, which is removed when the stack stops.
"""

import contextlib
import gc
import importlib
import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config

from rushes.adapters.dynamodb.admin import AdminTable
from rushes.domain.caller import Caller, hash_key, new_key
from rushes_local.account import Account
from rushes_local.api_gateway import Gateway, Invocable, Route
from rushes_local.aws.application import CREDENTIALS, Aws
from rushes_local.aws.behavior import AS_MOTO, AwsBehavior
from rushes_local.aws.remote_table import RemoteTable
from rushes_local.event_sources import Source, Stream, Triggers
from rushes_local.lambda_runtime import REGION, Function, FunctionPool, FunctionStartError, Log
from rushes_local.servers import Server
from rushes_local.template import DeclaredFunction, StreamSource, Template, output_name

if TYPE_CHECKING:
    from rushes_local.runware.emulator import Emulator

STACK_NAME = "rushes"
EMULATOR_KEY = "emulator-key"

# The functions' credentials. As in Lambda, they have a session token, which is part of presigned links.
_FUNCTION_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
    "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
    "AWS_SESSION_TOKEN": "local-session-token",
}

# Requests to this machine must not go through the developer's proxies.
_DIRECT = Config(proxies={})

_only_one = threading.Lock()

# The longest start of a function, with its imports.
_FUNCTION_START = 30.0  # seconds


class StackError(Exception):
    """The stack could not start, or one of its components failed later. The text is shown to the user."""


@dataclass(frozen=True)
class ProviderEndpoint:
    """The provider of the functions: Runware itself, or the one at `base_url`, the full URL for POST."""

    api_key: str = field(repr=False)
    base_url: str | None = None


class Host(Protocol):
    """Runs the functions and serves their routes in place of the stack."""

    @property
    def url(self) -> str:
        """The address of the routes, without a slash at its end; available before `start`."""

    def start(self, functions: Mapping[str, Function], log: Log) -> Mapping[str, Invocable]:
        """Run the functions, which are given and returned by logical id. Raises StackError."""

    def check(self) -> None:
        """Raise StackError if the functions cannot run at present."""

    def stop(self) -> None:
        """End the functions. Idempotent; may follow a failed start."""


class Stack:
    """The running system, between `with Stack(root) as stack:` and the end of the block.

    `root` contains template.yaml. `render_seconds` is the emulator's render time (None: until the test finishes the
    task). `time_scale` multiplies every interval and timeout of the functions, schedules and queues; `timings` replaces
    some of the functions' variables that end in `_SECONDS`, in seconds before scaling. Without `schedule` no function
    is invoked by the clock, without `queues` none by messages, without `streams` none by changes of the table. With a
    `provider` there is no emulator. `parameters` overrides the template's. With a `host` the functions run there, and
    neither `functions` nor the gateway is used. `aws_behavior` makes AWS less kind than moto. A `remote_table` is used
    in place of the local one. With `whole_account` the local AWS also has the resources that moto's CloudFormation
    lacks, for commands that examine them. `sink` receives every log line of every component. A process can run one
    stack, because moto's state is global.
    """

    def __init__(
        self,
        root: Path,
        *,
        render_seconds: float | None = 0.0,
        time_scale: float = 1.0,
        timings: Mapping[str, float] | None = None,
        schedule: bool = True,
        queues: bool = True,
        streams: bool = True,
        emulator_options: Mapping[str, Any] | None = None,
        provider: ProviderEndpoint | None = None,
        parameters: Mapping[str, str] | None = None,
        port: int = 0,
        processes: int = 2,
        host: Host | None = None,
        keep_files: bool = False,
        whole_account: bool = False,
        aws_behavior: AwsBehavior = AS_MOTO,
        remote_table: RemoteTable | None = None,
        sink: Log = lambda *_: None,
    ) -> None:
        self._root = root.resolve()
        self._emulator_options = {"render_seconds": render_seconds, **(emulator_options or {})}
        self._time_scale = time_scale
        self._timings = dict(timings or {})
        self._schedule = schedule
        self._queues = queues
        self._streams = streams
        self._provider = provider
        self._parameters = dict(parameters or {})
        self._port = port
        self._processes = processes
        self._host = host
        self._keep_files = keep_files
        self._whole_account = whole_account
        self.account: Account | None = None
        self._aws_behavior = aws_behavior
        self.remote_table = remote_table
        self._sink = sink
        self._emulator: Emulator | None = None
        self._log_lock = threading.Lock()
        self._closing = contextlib.ExitStack()
        self.functions: dict[str, FunctionPool] = {}
        self.started_in: dict[str, float] = {}
        self.url = self.aws_url = self.emulator_url = self.table_name = self.bucket_name = self.bus_name = ""

    def __enter__(self) -> "Stack":
        try:
            self._start()
        except FunctionStartError as error:
            self.stop()
            raise StackError(str(error)) from None
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every component and wait for it. Idempotent."""
        self._closing.close()

    @property
    def emulator(self) -> "Emulator":
        """The emulated Runware. Raises StackError if the functions use another provider."""
        if self._emulator is None:
            raise StackError("this stack has no emulator: its functions buy from another provider")
        return self._emulator

    @property
    def log_path(self) -> Path:
        """The path of a file with every log line of every component."""
        return self._files / "stack.log"

    def check(self) -> None:
        """Raise StackError if a function cannot run at present."""
        failures = [pool.failure for pool in self.functions.values() if pool.failure]
        if failures:
            raise StackError("; ".join(failures))
        if self._host is not None:
            self._host.check()

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client for the local AWS; `options` as for boto3's own."""
        config = _DIRECT.merge(options.pop("config", Config()))
        return self.session.client(service, endpoint_url=self.aws_url, config=config, **options)  # type: ignore[call-overload]

    def create_key(self, caller: str, limit_usd: float = 50.0) -> str:
        """A new API key for a caller with this monthly limit in US dollars."""
        key = new_key()
        settings = Caller(name=caller, monthly_limit=round(limit_usd * 1_000_000))
        self.store.add_key(hash_key(key), settings, f"made locally for {caller}", int(time.time() * 1000))
        return key

    @cached_property
    def store(self) -> AdminTable:
        """The functions' table."""
        return AdminTable(self.client("dynamodb"), self.table_name)

    def _start(self) -> None:
        began = time.perf_counter()
        if not _only_one.acquire(blocking=False):
            raise StackError(
                "another stack is running in this process, and both would share moto's state: stop it first"
            )
        self._closing.callback(_only_one.release)
        self._files = Path(tempfile.mkdtemp(prefix="rushes-"))
        if not self._keep_files:
            self._closing.callback(shutil.rmtree, self._files, ignore_errors=True)
        self._log_file = self._closing.enter_context(self.log_path.open("a", encoding="utf-8", buffering=1))
        template = Template(self._root / "template.yaml")
        unknown = self._timings.keys() - {name for declared in template.functions() for name in declared.variables}
        if unknown:
            raise StackError(f"no function has {', '.join(sorted(unknown))}: timings must name variables of functions")
        self._serve()
        # moto and the emulator have the slowest imports, which mostly read files, so they are imported concurrently.
        # Both need werkzeug, whose modules import each other, so that a concurrent import of it can fail.
        importlib.import_module("werkzeug")
        with ThreadPoolExecutor(2) as executor:
            emulator = executor.submit(self._start_emulator)
            outputs = self._create_resources(template, emulator.result)
        self._mark("resources", began)
        triggers = Triggers(lambda line: self.log("triggers", line), self.aws.repeats_batch)
        # The triggers stop before the functions and are joined after them: their last invocations end with the
        # functions.
        self._closing.callback(triggers.join)
        declared = template.functions()
        parameters = {**template.defaults(), **self._parameters}
        functions = {each.logical_id: self._function(each, outputs) for each in declared}
        if self._whole_account:
            self.account = Account(self._root / "template.yaml", STACK_NAME, self.client, self.url)
            self.account.complete(functions)
        followers = {each.name for each in declared if each.streams and not (each.routes or each.queues)}
        running = (
            self._start_pools(functions, followers) if self._host is None else self._start_host(self._host, functions)
        )
        self.gateway.routes = [
            Route(route.method, route.path, running[each.logical_id], route.api)
            for each in declared
            for route in each.routes
        ]
        for pool in self.functions.values():
            pool.wait_ready(_FUNCTION_START)
        self._closing.callback(triggers.stop)
        for each in declared:
            self._start_triggers(each, running[each.logical_id], triggers, parameters)
        self._mark("functions", began)
        # Otherwise each full garbage collection takes a quarter of a second, mostly for moto's and botocore's modules.
        gc.freeze()
        self._closing.callback(gc.unfreeze)

    def _mark(self, part: str, began: float) -> None:
        self.started_in[part] = time.perf_counter() - began

    def _serve(self) -> None:
        """Open the ports before the components start, because each needs the others' addresses."""
        self.aws = Aws(behavior=self._aws_behavior, remote_table=self.remote_table)
        self.gateway = Gateway(log=lambda line: self.log("gateway", line))
        # Registered first, closed last: the servers stop after the functions.
        aws = Server(self.aws, name="aws")
        self._closing.callback(aws.stop)
        try:
            gateway = Server(self.gateway, name="gateway", port=self._port)
        except OSError as error:
            raise StackError(
                f"port {self._port} cannot be used ({error.strerror}): choose another with --port"
            ) from None
        self._closing.callback(gateway.stop)
        self.aws_url, self.url = aws.url, self._host.url if self._host else gateway.url
        self.session = _local_session()

    def _start_emulator(self) -> ProviderEndpoint:
        if self._provider is not None:
            return self._provider
        from rushes_local.runware.emulator import Emulator

        emulator = self._emulator = Emulator(api_keys=frozenset({EMULATOR_KEY}), **self._emulator_options)
        self._closing.callback(emulator.close)
        server = Server(emulator.wsgi, name="emulator")
        self._closing.callback(server.stop)
        emulator.base_url = self.emulator_url = server.url
        return ProviderEndpoint(EMULATOR_KEY, f"{server.url}/v1")

    def _create_resources(self, template: Template, provider: Callable[[], ProviderEndpoint]) -> dict[str, str]:
        """Create the template's resources; returns its outputs, which include the functions' variables."""
        # moto warns about every unsupported type; those that matter have been left out before.
        logging.getLogger("moto").setLevel(logging.ERROR)
        self.aws.load()
        from moto.cloudformation import models
        from moto.cloudformation.parsing import get_model_map

        # moto tries YAML first, which takes half a second; the template below is JSON.
        models.Stack.parse_template = staticmethod(json.loads)  # type: ignore[method-assign,assignment]
        cloudformation = self.client("cloudformation", config=Config(retries={"total_max_attempts": 1}))
        body = template.for_cloudformation(get_model_map())
        parameters = {**self._create_secrets(template, provider().api_key), **self._endpoints(provider())}
        cloudformation.create_stack(
            StackName=STACK_NAME,
            TemplateBody=json.dumps(body),
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in {**parameters, **self._parameters}.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        (description,) = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"]
        if description["StackStatus"] != "CREATE_COMPLETE":
            raise StackError(f"template.yaml could not be created locally: {description['StackStatus']}")
        self._finish_buckets(template)
        self._finish_queues(template)
        outputs = {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}
        if self.remote_table is not None:
            local, remote = outputs["TableName"], self.remote_table.name
            outputs = {name: remote if value == local else value for name, value in outputs.items()}
        self.table_name, self.bucket_name = outputs["TableName"], outputs["BucketName"]
        self.bus_name = outputs["EventBusName"]
        return outputs

    def _finish_buckets(self, template: Template) -> None:
        """Enable versioning and events, which moto's CloudFormation ignores."""
        s3 = self.client("s3")
        for name, properties in template.buckets().items():
            bucket = self._physical_id(name)
            if properties.get("VersioningConfiguration", {}).get("Status") == "Enabled":
                s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            if "EventBridgeConfiguration" in properties.get("NotificationConfiguration", {}):
                events: dict[str, Any] = {"EventBridgeConfiguration": {}}
                s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=events)

    def _finish_queues(self, template: Template) -> None:
        """Scale the queues' times to whole seconds, as SQS requires; visibility timeouts are rounded up."""
        sqs = self.client("sqs")
        # Rounded up, so that no message is delivered again while its function may still run.
        rounding: dict[str, Callable[[float], int]] = {"DelaySeconds": round, "VisibilityTimeout": math.ceil}
        for name, properties in template.queues().items():
            times = {
                key: str(rounded(properties[key] * self._time_scale))
                for key, rounded in rounding.items()
                if key in properties
            }
            if times:
                sqs.set_queue_attributes(QueueUrl=self._physical_id(name), Attributes=times)

    def _physical_id(self, name: str) -> str:
        """The physical id of a resource of the template."""
        detail = self.client("cloudformation").describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=name)
        physical_id: str = detail["StackResourceDetail"]["PhysicalResourceId"]
        return physical_id

    def _create_secrets(self, template: Template, runware_key: str) -> dict[str, str]:
        """Create the template's secrets; returns their ARNs by logical id."""
        client = self.client("secretsmanager")
        arns = {}
        for name, properties in template.secrets().items():
            text = runware_key if name == "RunwareSecret" else _generate(client, properties["GenerateSecretString"])
            arns[name] = client.create_secret(Name=name, SecretString=text)["ARN"]
        return arns

    def _endpoints(self, provider: ProviderEndpoint) -> dict[str, str]:
        endpoints = {"AwsEndpointUrl": self.aws_url, "PublicWebhookUrl": self.url, "AllowLoopbackWebhooks": "true"}
        if provider.base_url is None:
            return endpoints
        # A stand-in for Runware also serves the rendered videos.
        url = urlsplit(provider.base_url)
        return {**endpoints, "RunwareBaseUrl": provider.base_url, "RescueOrigins": f"{url.scheme}://{url.netloc}"}

    def _function(self, declared: DeclaredFunction, outputs: Mapping[str, str]) -> Function:
        environment = {name: outputs[output_name(declared, name)] for name in declared.variables}
        environment |= {name: str(self._timings[name]) for name in environment.keys() & self._timings.keys()}
        timeout = self._timings.get("FUNCTION_TIMEOUT_SECONDS", declared.timeout_seconds)
        return Function(
            name=declared.name,
            folder=declared.folder,
            handler=declared.handler,
            environment={**_FUNCTION_CREDENTIALS, **scaled(environment, self._time_scale)},
            timeout_seconds=timeout * self._time_scale,
            memory_mb=declared.memory_mb,
        )

    def _start_pools(self, functions: Mapping[str, Function], followers: Container[str]) -> Mapping[str, Invocable]:
        pools = {}
        for logical_id, function in functions.items():
            # The stream has one shard, which waits for each invocation, so that a second process would be idle.
            size = 1 if function.name in followers else self._processes
            pool = FunctionPool(function, size=size, log=self.log, home=self._files)
            pools[logical_id] = self.functions[function.name] = pool
            self._closing.callback(pool.stop)
        return pools

    def _start_host(self, host: Host, functions: Mapping[str, Function]) -> Mapping[str, Invocable]:
        self._closing.callback(host.stop)
        return host.start(functions, self.log)

    def _start_triggers(
        self, declared: DeclaredFunction, function: Invocable, triggers: Triggers, parameters: Mapping[str, Any]
    ) -> None:
        account = self.account
        pulse = (lambda: account.pulse()) if account else None  # looked up at each tick: a test may replace it
        for seconds in declared.schedules if self._schedule else ():
            triggers.schedule(f"{STACK_NAME}-{declared.name}", seconds * self._time_scale, function, pulse)
        for queue in declared.queues if self._queues else ():
            sqs, url = self.client("sqs"), self._physical_id(queue.queue)
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            limit = queue.max_concurrency
            limit = int(parameters[limit["Ref"]] if isinstance(limit, Mapping) else limit)
            triggers.poll(sqs, Source(url, arn, queue.batch_size, queue.partial, limit), function)
        for source in declared.streams if self._streams else ():
            triggers.follow(self.client("dynamodbstreams"), self.client("sqs"), self._stream(source), function)

    def _stream(self, source: StreamSource) -> Stream:
        from moto.events.models import EventPattern  # not at the top: the import takes a second or two

        name = self._physical_id(source.table)
        patterns = [EventPattern.load(pattern) for pattern in source.patterns]
        return Stream(
            arn=self.client("dynamodb").describe_table(TableName=name)["Table"]["LatestStreamArn"],
            batch_size=source.batch_size,
            partial=source.partial,
            bisect=source.bisect,
            retries=source.retries,
            failures_url=self._physical_id(source.failures),
            wanted=lambda record: not patterns or any(each.matches_event(_filtered(record)) for each in patterns),
        )

    def log(self, name: str, line: str) -> None:
        """Write a component's line to the log file and to the sink."""
        with self._log_lock:
            if not self._log_file.closed:
                self._log_file.write(f"{name}\t{line}\n")
        self._sink(name, line)


def _filtered(record: Mapping[str, Any]) -> Any:
    """The fields of a record that a filter can match here: event name and keys. The images are long and no JSON."""
    return {"eventName": record["eventName"], "dynamodb": {"Keys": record["dynamodb"]["Keys"]}}


def _local_session() -> boto3.Session:
    """A session that reads none of the developer's profiles and files, which may be absent."""
    nowhere = (None, None, os.devnull, None)
    variables = {"profile": (None, None, None, None), "config_file": nowhere, "credentials_file": nowhere}
    return boto3.Session(
        aws_access_key_id=CREDENTIALS.access_key,
        aws_secret_access_key=CREDENTIALS.secret_key,
        region_name=REGION,
        botocore_session=botocore.session.Session(session_vars=variables),
    )


def scaled(environment: Mapping[str, str], factor: float) -> dict[str, str]:
    """The environment with every variable that ends in `_SECONDS` multiplied by `factor`."""
    return {
        name: f"{float(value) * factor:g}" if name.endswith("_SECONDS") else value
        for name, value in environment.items()
    }


def _generate(client: Any, rules: Mapping[str, Any]) -> str:
    """A secret by the rules of CloudFormation's GenerateSecretString."""
    options = {key: value for key, value in rules.items() if key not in ("SecretStringTemplate", "GenerateStringKey")}
    password: str = client.get_random_password(**options)["RandomPassword"]
    return json.dumps({**json.loads(rules["SecretStringTemplate"]), rules["GenerateStringKey"]: password})

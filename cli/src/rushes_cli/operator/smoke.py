"""`smoke`: examines a deployed stack from outside, without buying anything.

Each check is a function that returns a detail or raises `CheckError`. Those of the configuration only read. Those of
the way through the stack use a caller of their own with a limit of zero, and a clip that was never ordered: its record
is closed as given up, with an estimate of zero, so that no function buys it or counts money for it.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import httpx
import typer

from rushes_cli.exits import CommandError, Exit, UsageError
from rushes_cli.operator import smoke_rules as rules
from rushes_cli.operator.deployment import Deployment, operated
from rushes_cli.options import AsJson, Stack, Yes
from rushes_cli.output import Screen, micros, money

if TYPE_CHECKING:
    from rushes.domain.clip import Clip

Json = dict[str, Any]

_MODEL = "klingai:5@3"
_PROMPT = "a lighthouse at dusk, slow aerial push-in"
_KEY_CACHE = 60.0  # seconds for which a function may still accept a revoked key
_PULSE = timedelta(minutes=10)  # as long as the alarms ScheduleStopped and ReconcileStopped wait
_RENDER = 3600.0  # seconds; the longest wait for a bought clip
_DAY = 86_400_000  # milliseconds
# The smallest file that is recognised as a video: two boxes.
_VIDEO = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x00\x00\x00\x10mdat" + bytes(8)
_RULES = {  # the rules' logical ids, with the logical ids of their targets
    "DropsRule": "RequestsQueue",
    "RequestedRule": "RequestsQueue",
    "UploadsRule": "UploadsQueue",
}
_SOURCES = {
    "Inbox": "Submit",
    "RequestsQueue": "Intake",
    "UploadsQueue": "Reconcile",
    "Deliveries": "Deliver",
    "Table": "Publish",
}
_QUEUES = ("Inbox", "RequestsQueue", "UploadsQueue", "Deliveries", "PublishDeadLetters")


class CheckError(Exception):
    """A check failed. The text is its detail, without secrets."""


class _NotConfirmedError(Exception):
    """The operator did not confirm the purchase."""


class CheckResult(NamedTuple):
    """The result of one check."""

    check: str
    passed: bool
    detail: str
    seconds: float
    hint: str


@dataclass
class SmokeRun:
    """One run against one stack. `wait` is the longest wait for an asynchronous result, in seconds."""

    deployment: Deployment
    wait: float
    cleanup: ExitStack = field(default_factory=ExitStack)
    name: str = field(default_factory=lambda: f"smoke-{uuid.uuid4().hex[:12]}")
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _clients: Json = field(default_factory=dict)

    @cached_property
    def http(self) -> httpx.Client:
        """A client for the service; a proxy of the environment is used for addresses outside this machine only."""
        return httpx.Client(timeout=35, trust_env=not self.api.startswith("http://"))

    @cached_property
    def api(self) -> str:
        """The address of the API for callers."""
        return self.deployment.output("ApiUrl")

    @cached_property
    def webhook_url(self) -> str:
        """The base URL of the webhooks."""
        return self.deployment.output("WebhookUrl")

    def client(self, service: str) -> Any:
        """A client for an AWS service, made once."""
        if service not in self._clients:
            self._clients[service] = self.deployment.client(service)
        return self._clients[service]

    @cached_property
    def resources(self) -> dict[str, str]:
        """The physical ids of the stack's resources, by logical id."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.stack)
        return {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for page in pages
            for each in page["StackResourceSummaries"]
            if "PhysicalResourceId" in each
        }

    @property
    def stack(self) -> str:
        """The stack's name."""
        return self.deployment.stack or self.deployment.name

    def resource(self, logical_id: str) -> str:
        """The physical id of a resource. Raises `CheckError` if the stack has none."""
        try:
            return self.resources[logical_id]
        except KeyError:
            raise CheckError(f"the stack has no {logical_id}") from None

    @cached_property
    def arns(self) -> dict[str, str]:
        """The ARNs of the stack's resources, by the names that `smoke_rules` uses."""
        table = self.client("dynamodb").describe_table(TableName=self.deployment.table)["Table"]["TableArn"]
        sqs = self.client("sqs")
        queues = {
            name: sqs.get_queue_attributes(QueueUrl=self.resource(name), AttributeNames=["QueueArn"])["Attributes"][
                "QueueArn"
            ]
            for name in _QUEUES
        }
        return {
            "table": table,
            "bucket": f"arn:{table.split(':')[1]}:s3:::{self.deployment.bucket}",
            "bus": self.client("events").describe_event_bus(Name=self.deployment.output("EventBusName"))["Arn"],
            "RunwareSecret": self.deployment.output("RunwareSecretArn"),
            "WebhookSecret": self.deployment.output("WebhookSecretArn"),
            **queues,
        }

    @cached_property
    def key(self) -> str:
        """The API key of this run's caller, whose limit of zero lets it buy nothing. Removed at the end."""
        from rushes.domain.caller import Caller, hash_key, new_key

        key, store = new_key(), self.deployment.store
        self.cleanup.callback(self.delete_items, f"caller#{self.name}", f"key#{hash_key(key)}")
        store.add_key(hash_key(key), Caller(self.name, 0), "rushes smoke", _now())
        return key

    @cached_property
    def clip(self) -> "Clip":
        """The throwaway clip. Removed at the end."""
        from rushes.domain.clip import Clip, Fact, FactSource, Kind, merge_all
        from rushes.domain.formats import canonical
        from rushes.domain.task import Task

        now, task_uuid = _now(), str(uuid.uuid4())
        day = datetime.fromtimestamp(now / 1000, UTC)
        facts = [
            Fact(kind=kind, key="rushes smoke", at=now, source=FactSource.OPERATOR)
            for kind in (Kind.GIVEN_UP, Kind.DETAILS_UNKNOWN)
        ]
        clip = Clip(
            caller=self.name,
            task_uuid=task_uuid,
            index=0,
            clip_uuid=str(uuid.uuid4()),
            object_key=f"videos/{self.name}/{day:%Y/%m/%d}/{task_uuid}-0.mp4",
            estimate=0,
            month=f"{day:%Y-%m}",
            created_at=now,
        )
        clip = merge_all(clip, facts)
        request = _task(task_uuid)
        fingerprint = hashlib.sha256(canonical(request).encode()).hexdigest()
        task = Task(self.name, task_uuid, request, fingerprint, 1, now, now + _DAY)
        self.cleanup.callback(self.delete_items, f"task#{self.name}#{task_uuid}")
        self.deployment.store.record(task, [clip], [])
        return clip

    def call(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """A request to the API with this run's key."""
        headers = {"Authorization": f"Bearer {self.key}", **headers}
        return self.http.request(method, f"{self.api}{path}", json=body, headers=headers)

    def callback(self, token: str) -> int:
        """The status of a callback about the throwaway clip; its body reports progress, which changes nothing."""
        clip = self.clip
        body = {"data": [{"taskType": "videoInference", "taskUUID": clip.clip_uuid, "status": "processing"}]}
        path = f"/webhooks/runware/{clip.caller}/{clip.task_uuid}/{clip.index}"
        return self.http.post(f"{self.webhook_url}{path}", params={"token": token}, json=body).status_code

    def eventually(self, attempt: Callable[[], Any], failure: str, limit: float | None = None) -> Any:
        """The first true result of `attempt`. Raises `CheckError` after the limit, in seconds."""
        ends_at, pause = self.clock() + (self.wait if limit is None else limit), 0.2
        while True:
            found = attempt()
            if found:
                return found
            if self.clock() >= ends_at:
                raise CheckError(failure)
            self.sleep(min(pause, max(0.0, ends_at - self.clock())))
            pause = min(pause * 1.5, 5.0)

    def keys(self, prefix: str) -> list[str]:
        """The keys of the objects under a prefix, at most a thousand."""
        found = self.deployment.s3.list_objects_v2(Bucket=self.deployment.bucket, Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", [])]

    def delete_items(self, *partitions: str) -> None:
        """Delete all items of these partitions of the table, which are this run's own."""
        dynamodb, table = self.client("dynamodb"), self.deployment.table
        for partition in partitions:
            answer = dynamodb.query(
                TableName=table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": partition}},
                ProjectionExpression="pk, sk",
                ConsistentRead=True,
            )
            for item in answer["Items"]:
                dynamodb.delete_item(TableName=table, Key={"pk": item["pk"], "sk": item["sk"]})

    def delete_objects(self, prefix: str) -> None:
        """Delete all versions of the objects under a prefix of this run's own."""
        from rushes_cli.operator.erase import delete_versions

        delete_versions(self.deployment.s3, self.deployment.bucket, prefix)


def check_environment(run: SmokeRun) -> str:
    """The live functions have the stack's resources in their variables."""
    common = {"TABLE_NAME": run.deployment.table, "BUCKET_NAME": run.deployment.bucket}
    webhook = {"WEBHOOK_SECRET": run.arns["WebhookSecret"]}
    buying = {**webhook, "WEBHOOK_BASE_URL": run.webhook_url, "RUNWARE_SECRET": run.arns["RunwareSecret"]}
    expected = {
        "Submit": buying,
        "Intake": {"INBOX_URL": run.resource("Inbox")},
        "Webhook": webhook,
        "Reconcile": buying,
        "Publish": {"EVENT_BUS_NAME": run.deployment.output("EventBusName")},
        "Deliver": {"DELIVERIES_URL": run.resource("Deliveries")},
        "Tasks": {},
    }
    flaws = []
    for function, variables in expected.items():
        found = run.client("lambda").get_function_configuration(
            FunctionName=run.resource(f"{function}Function"), Qualifier="live"
        )
        environment = found.get("Environment", {}).get("Variables", {})
        flaws += rules.wrong_variables(function, environment, {**common, **variables})
    return _no(flaws, f"the variables of {len(expected)} functions")


def check_secrets(run: SmokeRun) -> str:
    """Both secrets are set."""
    secrets = run.client("secretsmanager")

    def text(name: str) -> str:
        try:
            return str(secrets.get_secret_value(SecretId=run.arns[name])["SecretString"]).strip()
        except secrets.exceptions.ResourceNotFoundException:
            return ""

    flaws = [] if text("RunwareSecret") else ["the Runware key is not set: run `rushes configure`"]
    try:
        current = json.loads(text("WebhookSecret"))["current"]
    except (ValueError, KeyError, TypeError):
        current = ""
    if not isinstance(current, str) or len(current) < 32:
        flaws.append("the webhook secret has no current key: run `rushes rotate`")
    return _no(flaws, "both secrets are set")


def check_roles(run: SmokeRun) -> str:
    """Each role may do what its function needs, and is refused what it must not do."""
    iam, arns = run.client("iam"), run.arns
    partition, account = arns["table"].split(":")[1], arns["table"].split(":")[4]
    flaws: list[str] = []
    for each in rules.PERMISSIONS:
        context = (
            [
                {
                    "ContextKeyName": "dynamodb:LeadingKeys",
                    "ContextKeyValues": [each.key],
                    "ContextKeyType": "stringList",
                }
            ]
            if each.key
            else []
        )
        answer = iam.simulate_principal_policy(
            PolicySourceArn=f"arn:{partition}:iam::{account}:role/{run.resource(f'{each.function}Role')}",
            ActionNames=list(each.actions),
            ResourceArns=[each.resource.format_map(arns)],
            ContextEntries=context,
        )
        decisions = {found["EvalActionName"]: found["EvalDecision"] for found in answer["EvaluationResults"]}
        flaws += rules.wrong_decisions(each, decisions)
    return _no(flaws, f"{sum(len(each.actions) for each in rules.PERMISSIONS)} decisions")


def check_rules(run: SmokeRun) -> str:
    """Each event rule is enabled and has its target."""
    function = run.client("lambda").get_function_configuration(FunctionName=run.resource("ReconcileFunction"))
    targets = {name: run.arns[queue] for name, queue in _RULES.items()}
    names = {name: run.resource(name).rpartition("|")[2] for name in _RULES}  # CloudFormation's id is `bus|name`
    names["EveryMinute"], targets["EveryMinute"] = f"{run.stack}-reconcile", f"{function['FunctionArn']}:live"
    flaws: list[str] = []
    events = run.client("events")
    for rule, name in names.items():
        bus = {"EventBusName": run.deployment.output("EventBusName")} if rule == "RequestedRule" else {}
        try:
            state = events.describe_rule(Name=name, **bus)["State"]
            found = {each["Arn"] for each in events.list_targets_by_rule(Rule=name, **bus)["Targets"]}
        except events.exceptions.ResourceNotFoundException:
            flaws.append(f"{rule} is missing")
            continue
        flaws += [f"{rule} is disabled"] if state == "DISABLED" else []
        flaws += [f"{rule} lacks its target"] if targets[rule] not in found else []
    return _no(flaws, f"{len(names)} rules")


def check_event_sources(run: SmokeRun) -> str:
    """Each queue and the table's stream invoke their functions."""
    table = run.client("dynamodb").describe_table(TableName=run.deployment.table)["Table"]
    mappings = run.client("lambda").get_paginator("list_event_source_mappings").paginate()
    found = [each for page in mappings for each in page["EventSourceMappings"]]
    flaws = []
    for source, function in _SOURCES.items():
        arn = table.get("LatestStreamArn") if source == "Table" else run.arns[source]
        name = f":{run.resource(f'{function}Function')}:live"
        states = [
            each["State"]
            for each in found
            if each.get("EventSourceArn") == arn and f"{each['FunctionArn']}".endswith(name)
        ]
        if not states:
            flaws.append(f"{source} does not invoke {function}Function")
        elif states[0] not in ("Enabled", "Creating", "Updating", "Enabling"):
            flaws.append(f"the event source of {source} is {states[0].lower()}")
    return _no(flaws, f"{len(_SOURCES)} event sources")


def check_bucket(run: SmokeRun) -> str:
    """The bucket keeps versions, sends its events, and is protected by its policy."""
    from botocore.exceptions import ClientError

    flaws: list[str] = []
    s3, bucket = run.deployment.s3, run.deployment.bucket
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        flaws.append("versioning is not enabled")
    if "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(Bucket=bucket):
        flaws.append("events are not sent to EventBridge")
    try:
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        flaws += [] if all(block.values()) else ["public access is not blocked"]
    except ClientError:
        flaws.append("public access is not blocked")
    try:
        statements = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    except ClientError:
        statements = []
    flaws += rules.bucket_policy_flaws(
        statements, run.arns["bucket"], f"{run.deployment.parameter('DeadlineSeconds')}000"
    )
    return _no(flaws, "versioning, events, access and policy")


def check_alarms(run: SmokeRun) -> str:
    """Each alarm of the stack exists with its action. Metrics without data yet are named; they do not fail."""
    kinds = run.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=run.stack)
    expected = [
        each["PhysicalResourceId"]
        for page in kinds
        for each in page["StackResourceSummaries"]
        if each["ResourceType"] == "AWS::CloudWatch::Alarm"
    ]
    if not expected:
        raise CheckError("the stack has no alarms")
    cloudwatch = run.client("cloudwatch")
    found = [
        each
        for start in range(0, len(expected), 100)
        for each in cloudwatch.describe_alarms(AlarmNames=expected[start : start + 100])["MetricAlarms"]
    ]
    flaws = rules.missing_alarms(expected, found)
    if flaws:
        raise CheckError("; ".join(flaws))
    silent = sorted(
        {
            each["MetricName"]
            for each in found
            if "MetricName" in each
            and not cloudwatch.list_metrics(
                Namespace=each["Namespace"], MetricName=each["MetricName"], Dimensions=each.get("Dimensions", [])
            )["Metrics"]
        }
    )
    return f"{len(expected)} alarms" + (f"; no data yet: {', '.join(silent)}" if silent else "")


def check_schedule(run: SmokeRun) -> str:
    """The schedule has invoked `reconcile` within the last ten minutes."""
    now = datetime.now(UTC)
    points = run.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Events",
        MetricName="Invocations",
        Dimensions=[{"Name": "RuleName", "Value": f"{run.stack}-reconcile"}],
        StartTime=now - _PULSE,
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    count = round(sum(each["Sum"] for each in points))
    if not count:
        raise CheckError("the schedule has not invoked reconcile for ten minutes")
    return f"{count} invocations in ten minutes"


def check_validation(run: SmokeRun) -> str:
    """A valid task gets a price in a dry run, an invalid one an error, and a wrong key 401."""
    priced = run.call("POST", "/v1", [_task(str(uuid.uuid4()))], **{"X-Runware-Dry-Run": "1"})
    if priced.status_code != 200 or not priced.json().get("data"):
        raise CheckError(f"a dry run was answered with {priced.status_code}")
    refused = run.call(
        "POST", "/v1", [{**_task(str(uuid.uuid4())), "model": "smoke:0@0"}], **{"X-Runware-Dry-Run": "1"}
    )
    if refused.status_code != 400 or not refused.json().get("errors"):
        raise CheckError(f"an invalid task was answered with {refused.status_code}")
    status = run.http.get(f"{run.api}/budget", headers={"Authorization": f"Bearer {run.key}x"}).status_code
    if status != 401:
        raise CheckError(f"a wrong API key was answered with {status}")
    return f"priced at {money(micros(priced.json()['data'][0].get('cost')))}, nothing bought"


def check_webhooks(run: SmokeRun) -> str:
    """Forged and expired tokens are refused with 401; a token signed with the stack's own key is accepted."""
    from rushes.adapters.secrets import SecretsManagerSecret, webhook_keys
    from rushes.domain.webhook_token import VALID_SECONDS, sign, subject

    keys = webhook_keys(SecretsManagerSecret(run.client("secretsmanager"), run.arns["WebhookSecret"], _now))
    name, now = subject(run.clip.caller, run.clip.task_uuid, 0), _now()
    expired = sign(name, keys, now - (VALID_SECONDS + 3600) * 1000)
    calls = {
        "a forged token": (sign(name, ["forged" * 8], now), 401),
        "an expired token": (expired, 401),
        "a token for another clip": (sign(f"{name}0", keys, now), 401),
        "a valid token": (sign(name, keys, now), 200),
    }
    statuses = {label: (run.callback(token), wanted) for label, (token, wanted) in calls.items()}
    flaws = [
        f"{label} got {found} instead of {wanted}" for label, (found, wanted) in statuses.items() if found != wanted
    ]
    return _no(flaws, "forged and expired tokens are refused")


def check_upload(run: SmokeRun) -> str:
    """A presigned PUT is found by its event, recorded, and published with a manifest."""
    from rushes.adapters.s3 import S3_CONFIG, S3Bucket
    from rushes.domain.clip import Status

    clip = run.clip
    run.cleanup.callback(run.delete_objects, clip.object_key.removesuffix("mp4"))
    # Signed as the functions sign their links.
    bucket = S3Bucket(run.deployment.client("s3", S3_CONFIG), run.deployment.bucket)
    url = bucket.upload_link(clip.object_key, 300)
    status = run.http.put(url, content=_VIDEO).status_code
    if status != 200:
        raise CheckError(f"the presigned PUT was answered with {status}")

    def stored() -> bool:
        found = run.deployment.store.clip(clip.caller, clip.task_uuid, clip.index)
        return found is not None and found.status == Status.STORED

    run.eventually(stored, "the upload's event reached no clip")
    manifest = clip.object_key.removesuffix("mp4") + "json"
    run.eventually(lambda: run.keys(manifest), "the clip is recorded, but publish wrote no manifest")
    found = run.deployment.store.clip(clip.caller, clip.task_uuid, clip.index)
    if found is None or found.budgeted:
        raise CheckError("money was counted for the throwaway clip")
    return "uploaded, recorded and published; no money counted"


def check_file(run: SmokeRun) -> str:
    """A request file with an invalid line gets a report that refuses the line."""
    _ = run.key  # makes the caller
    key = f"requests/{run.name}/smoke.jsonl"
    run.cleanup.callback(run.delete_objects, f"reports/{run.name}/")
    run.cleanup.callback(run.delete_objects, key)
    run.deployment.s3.put_object(Bucket=run.deployment.bucket, Key=key, Body=b'{"taskType": "smoke"}\n')
    (report, *_) = run.eventually(lambda: run.keys(f"reports/{run.name}/"), "no report was written")
    content = json.loads(run.deployment.s3.get_object(Bucket=run.deployment.bucket, Key=report)["Body"].read())
    if (content.get("accepted"), content.get("refused")) != (0, 1):
        raise CheckError("the report does not refuse the invalid line")
    return "the line was refused with a report"


def check_revocation(run: SmokeRun) -> str:
    """A revoked key is refused within the minute for which functions cache it."""
    from rushes.domain.caller import hash_key

    status = run.call("GET", "/budget").status_code
    if status != 200:
        raise CheckError(f"a new key was answered with {status}")
    run.deployment.store.revoke_key(hash_key(run.key), _now())
    start = run.clock()
    # Several times in a row, since each process of the function has a cache of its own.
    run.eventually(
        lambda: all(run.call("GET", "/budget").status_code == 401 for _ in range(5)),
        "the revoked key is still accepted",
        _KEY_CACHE + 15,
    )
    return f"refused after {run.clock() - start:.0f} s"


Check = Callable[[SmokeRun], str]

CHECKS: dict[str, tuple[Check, str]] = {
    "environment": (check_environment, 'deploying.md, "Parameters"'),
    "secrets": (check_secrets, 'runbook.md, "The Runware key" and "Rotating the webhook key"'),
    "roles": (check_roles, "deploy the template again: a role was changed by hand, or a permission boundary applies"),
    "rules": (check_rules, 'runbook.md, "Alarms", ScheduleStopped and UploadsUndelivered'),
    "event-sources": (check_event_sources, 'runbook.md, "Orders that were not imported or not bought"'),
    "bucket": (check_bucket, 'deploying.md, "An existing bucket"'),
    "alarms": (check_alarms, 'runbook.md, "Alarms"'),
    "schedule": (check_schedule, 'runbook.md, "Alarms", ScheduleStopped'),
    "validation": (check_validation, "read the log of submit"),
    "webhooks": (check_webhooks, 'runbook.md, "Rotating the webhook key"; deploying.md, "A custom domain"'),
    "upload": (check_upload, 'runbook.md, "Alarms", UploadsDeadLetters and PublishDeadLetters'),
    "file": (check_file, 'runbook.md, "Orders that were not imported or not bought"'),
    "revocation": (check_revocation, 'runbook.md, "A caller\'s API key"'),
}


def smoke(
    buy: Annotated[bool, typer.Option("--buy", help="Buy one real clip at the end, if all checks pass.")] = False,
    skip: Annotated[list[str] | None, typer.Option(help="Skip this check; repeatable.")] = None,
    wait: Annotated[
        float, typer.Option(min=1, help="The longest wait for an asynchronous result, in seconds.")
    ] = 180.0,
    yes: Yes = False,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Check a deployed stack: its configuration, its roles and the way of a clip. Nothing is bought without --buy.

    It makes a caller with a limit of zero, an API key, a clip that was never ordered and a request file, and removes
    them at the end, also after Ctrl-C. The event bus gets one Clip Stored of that caller, `smoke-…`.

    Ends with 0 if every check passes, otherwise with 1.

    --json prints {"stack", "passed", "checks": [{"check", "passed", "detail", "seconds", "hint"}]}.
    """
    screen, skipped = Screen(as_json), set(skip or ())
    unknown = skipped - CHECKS.keys()
    if unknown:
        raise UsageError(f"there is no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    if stack is None:
        raise UsageError("smoke examines a deployed stack: use --stack")
    results: list[CheckResult] = []
    with operated(stack) as deployment:
        run = SmokeRun(deployment, wait)
        with _cleaned_up(run, screen, results):
            for name in CHECKS:
                if name not in skipped:
                    screen.info(f"{name} …", "dim")
                    results.append(_timed(run, name, *CHECKS[name]))
        ended = Exit.OK
        if buy and all(each.passed for each in results):
            try:
                results.append(_timed(run, "purchase", lambda run: _buy(run, screen, yes), 'runbook.md, "Alarms"'))
            except _NotConfirmedError:
                ended = Exit.NOT_CONFIRMED
        elif buy:
            screen.warn("Nothing was bought, because a check failed.")
    passed = all(each.passed for each in results)
    _print_results(screen, stack, results)
    if not passed or ended != Exit.OK:
        raise typer.Exit(ended if passed else Exit.FAILED)


def _print_results(screen: Screen, stack: str, results: Sequence[CheckResult]) -> None:
    passed = all(each.passed for each in results)
    screen.print_json({"stack": stack, "passed": passed, "checks": [each._asdict() for each in results]})
    screen.table(
        ("check", "result", "seconds", "detail", "hint"),
        [
            (each.check, "passed" if each.passed else "FAILED", f"{each.seconds:.1f}", each.detail, each.hint)
            for each in results
        ],
    )


@contextmanager
def _cleaned_up(run: SmokeRun, screen: Screen, results: list[CheckResult]) -> Iterator[None]:
    """Removes everything that the run made, at any end of the block. A failure is a result of its own."""
    try:
        yield
    finally:
        try:
            run.cleanup.close()
        except Exception as error:  # the next steps of the stack have run all the same
            screen.warn(f"Not everything of {run.name} could be removed: {_describe(error)}")
            results.append(
                CheckResult("cleanup", False, f"{run.name}: {_describe(error)}", 0.0, "remove its items by hand")
            )


def _timed(run: SmokeRun, name: str, check: Check, hint: str) -> CheckResult:
    from botocore.exceptions import BotoCoreError, ClientError

    from rushes.errors import RushesError

    start = run.clock()
    try:
        passed, detail = True, check(run)
    except (CheckError, CommandError, RushesError, ClientError, BotoCoreError, httpx.HTTPError) as error:
        passed, detail = False, _describe(error)
    return CheckResult(name, passed, detail, round(run.clock() - start, 3), "" if passed else hint)


def _describe(error: Exception) -> str:
    """The error in one line. The text of an HTTP error is left out, since its URL may hold a token."""
    if isinstance(error, httpx.HTTPError):
        return f"no response ({type(error).__name__})"
    return str(error) or type(error).__name__


def _buy(run: SmokeRun, screen: Screen, yes: bool) -> str:
    """One clip of the smallest kind, priced, confirmed, ordered and awaited. Its record stays, as every purchase's."""
    from rushes.domain.caller import Caller, hash_key, new_key

    store, key, task = run.deployment.store, new_key(), _task(str(uuid.uuid4()))
    spent = store.budget("smoke", datetime.now(UTC).strftime("%Y-%m"))[0]
    headers = {"Authorization": f"Bearer {key}"}
    store.add_key(hash_key(key), Caller("smoke", spent), "rushes smoke --buy", _now())
    with ExitStack() as cleanup:
        cleanup.callback(store.revoke_key, hash_key(key), _now())
        # Priced by another key than the one that buys, because functions cache a key's limit.
        price = _price(run, task, headers)
        if not yes and not _is_confirmed(screen, price):
            raise _NotConfirmedError
        buying = new_key()
        cleanup.callback(store.revoke_key, hash_key(buying), _now())
        store.add_key(hash_key(buying), Caller("smoke", spent + price), "rushes smoke --buy", _now())
        answer = run.http.post(f"{run.api}/v1", json=[task], headers={"Authorization": f"Bearer {buying}"})
        if answer.status_code != 200:
            raise CheckError(f"the order was answered with {answer.status_code}")

        def closed() -> str:
            clips = store.clips("smoke", task["taskUUID"])
            return clips[0].status if clips and clips[0].status in ("stored", "failed", "review") else ""

        status = run.eventually(
            closed, f"the clip has no outcome yet: rushes check, taskUUID {task['taskUUID']}", _RENDER
        )
    if status != "stored":
        raise CheckError(f"the clip of smoke, taskUUID {task['taskUUID']}, is {status}")
    return f"bought for {money(price)} and stored: taskUUID {task['taskUUID']} of the caller smoke"


def _price(run: SmokeRun, task: Json, headers: dict[str, str]) -> int:
    answer = run.http.post(f"{run.api}/v1", json=[task], headers={**headers, "X-Runware-Dry-Run": "1"})
    if answer.status_code != 200:
        raise CheckError(f"the dry run was answered with {answer.status_code}")
    return micros(answer.json()["data"][0].get("cost"))


def _is_confirmed(screen: Screen, price: int) -> bool:
    import sys

    if not sys.stdin.isatty():
        screen.warn(f"The clip costs {money(price)}; --yes buys it without a terminal.")
        return False
    return typer.confirm(f"Buy one clip for {money(price)}?", err=True)


def _task(task_uuid: str) -> Json:
    return {
        "taskType": "videoInference",
        "taskUUID": task_uuid,
        "model": _MODEL,
        "positivePrompt": _PROMPT,
        "duration": 5,
    }


def _no(flaws: Sequence[str], detail: str) -> str:
    """The detail without flaws. Raises `CheckError` with the flaws."""
    if flaws:
        raise CheckError("; ".join(flaws))
    return detail


def _now() -> int:
    return time.time_ns() // 1_000_000

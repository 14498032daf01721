"""`rushes smoke` against the local stack, as deployed and with planted misconfigurations."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from rushes_cli import main
from rushes_cli.exits import Exit
from rushes_cli.operator import smoke
from rushes_local.aws.application import CREDENTIALS
from rushes_local.lambda_runtime import ACCOUNT_ID, REGION
from rushes_local.stack import STACK_NAME, Stack
from tests.conftest import submissions, whole_bucket, whole_table

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("no_shared_stack")


@pytest.fixture(scope="module")
def stack(no_shared_stack: None) -> Iterator[Stack]:
    """A stack of the real functions with all resources. The first pulse of its schedule is immediate."""
    with Stack(ROOT, time_scale=0.3, whole_account=True, emulator_options={"small": True}) as up:
        assert up.account is not None
        up.account.pulse()
        yield up


@pytest.fixture
def run(stack: Stack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Json]:
    """Runs `rushes smoke --json` without the wait for a revoked key; returns its output and its exit status."""
    settings = {
        "AWS_ENDPOINT_URL": stack.aws_url,
        "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
        "AWS_DEFAULT_REGION": REGION,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    def run(*arguments: str, skip: tuple[str, ...] = ("revocation",)) -> Json:
        skipped = [text for name in skip for text in ("--skip", name)]
        monkeypatch.setattr(sys, "argv", ["rushes", "smoke", "--stack", STACK_NAME, "--json", *skipped, *arguments])
        monkeypatch.setattr(main.signal, "signal", lambda *_: None)
        capfd.readouterr()
        status = 0
        try:
            main.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return {**json.loads(capfd.readouterr().out), "status": status}

    return run


def failures(answer: Json) -> dict[str, str]:
    """The failed checks with their details."""
    return {each["check"]: each["detail"] for each in answer["checks"] if not each["passed"]}


def test_a_stack_as_deployed_passes(stack: Stack, run: Callable[..., Json]) -> None:
    """Every check passes, nothing is bought, and nothing of the run is left."""
    before = whole_table(stack), whole_bucket(stack)
    answer = run()
    assert failures(answer) == {}
    assert (answer["status"], answer["passed"]) == (Exit.OK, True)
    assert [each["check"] for each in answer["checks"]] == [each for each in smoke.CHECKS if each != "revocation"]
    assert submissions(stack) == []
    assert (whole_table(stack), whole_bucket(stack)) == before


Undo = Callable[[], object]
_OF_THE_WAY = ("validation", "webhooks", "upload", "file", "revocation")


def physical(stack: Stack, logical_id: str) -> str:
    """The physical id of a resource."""
    found = stack.client("cloudformation").describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=logical_id)
    return str(found["StackResourceDetail"]["PhysicalResourceId"])


def live_variables(stack: Stack, function: str) -> dict[str, str]:
    """The variables of a function's live version, to be changed: a published version cannot be, but a wrong one can be
    published."""
    from moto.awslambda.models import lambda_backends

    found = lambda_backends[ACCOUNT_ID][REGION].get_function(physical(stack, f"{function}Function"), "live")
    variables: dict[str, str] = found.environment_vars
    return variables


def _policy(stack: Stack, role: str, change: Callable[[list[Json]], list[Json]]) -> Undo:
    iam, name = stack.client("iam"), role.removesuffix("Role").lower()
    identity = {"RoleName": physical(stack, role), "PolicyName": name}
    document = iam.get_role_policy(**identity)["PolicyDocument"]
    changed = {**document, "Statement": change(document["Statement"])}
    iam.put_role_policy(**identity, PolicyDocument=json.dumps(changed))
    return lambda: iam.put_role_policy(**identity, PolicyDocument=json.dumps(document))


def role_without_a_permission(stack: Stack) -> Undo:
    return _policy(
        stack, "SubmitRole", lambda statements: [each for each in statements if each["Sid"] != "SignUploads"]
    )


def role_with_a_condition_on_other_keys(stack: Stack) -> Undo:
    """A leading key that is misspelt refuses every read of a task."""

    def change(statements: list[Json]) -> list[Json]:
        text = json.dumps(statements)
        return json.loads(text.replace('"task#*"', '"tasks#*"'))  # type: ignore[no-any-return]

    return _policy(stack, "TasksRole", change)


def role_with_too_many_permissions(stack: Stack) -> Undo:
    more = {"Effect": "Allow", "Action": "s3:*", "Resource": f"arn:aws:s3:::{stack.bucket_name}/*"}
    return _policy(stack, "WebhookRole", lambda statements: [*statements, more])


def rule_without_its_target(stack: Stack) -> Undo:
    events, rule = stack.client("events"), physical(stack, "UploadsRule")
    targets = events.list_targets_by_rule(Rule=rule)["Targets"]
    events.remove_targets(Rule=rule, Ids=[each["Id"] for each in targets])
    return lambda: events.put_targets(Rule=rule, Targets=targets)


def disabled_rule(stack: Stack) -> Undo:
    events, rule = stack.client("events"), f"{STACK_NAME}-reconcile"
    events.disable_rule(Name=rule)
    return lambda: events.enable_rule(Name=rule)


def disabled_event_source(stack: Stack) -> Undo:
    from moto.awslambda.models import lambda_backends

    mappings = lambda_backends[ACCOUNT_ID][REGION]._event_source_mappings.values()
    (found,) = [each for each in mappings if "Inbox-" in each.event_source_arn]
    found.enabled = False
    return lambda: setattr(found, "enabled", True)


def _bucket_policy(stack: Stack, change: Callable[[str], str]) -> Undo:
    s3, bucket = stack.client("s3"), stack.bucket_name
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.put_bucket_policy(Bucket=bucket, Policy=change(policy))
    return lambda: s3.put_bucket_policy(Bucket=bucket, Policy=policy)


def bucket_policy_with_another_deadline(stack: Stack) -> Undo:
    return _bucket_policy(stack, lambda policy: policy.replace('"7200000"', '"86400000"'))


def bucket_policy_that_denies_other_objects(stack: Stack) -> Undo:
    return _bucket_policy(stack, lambda policy: policy.replace(stack.bucket_name, "another-bucket"))


def versioning_off(stack: Stack) -> Undo:
    s3, bucket = stack.client("s3"), stack.bucket_name
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    return lambda: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def events_of_the_bucket_off(stack: Stack) -> Undo:
    s3, bucket = stack.client("s3"), stack.bucket_name
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    events: Json = {"EventBridgeConfiguration": {}}
    return lambda: s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=events)


def dead_schedule(stack: Stack) -> Undo:
    from moto.cloudwatch.models import cloudwatch_backends

    data = cloudwatch_backends[ACCOUNT_ID][REGION].metric_data
    kept, account = list(data), stack.account
    assert account is not None
    pulse = account.pulse
    account.pulse = lambda: None  # type: ignore[method-assign]
    data.clear()

    def undo() -> None:
        account.pulse = pulse  # type: ignore[method-assign]
        data.extend(kept)

    return undo


def missing_alarm(stack: Stack) -> Undo:
    cloudwatch, name = stack.client("cloudwatch"), f"{STACK_NAME}-SecondRendersAlarm"
    (found,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    cloudwatch.delete_alarms(AlarmNames=[name])
    taken = cloudwatch.meta.service_model.operation_model("PutMetricAlarm").input_shape.members
    return lambda: cloudwatch.put_metric_alarm(**{key: found[key] for key in found.keys() & taken.keys()})


def _secret(stack: Stack, name: str, text: str) -> Undo:
    secrets, arn = stack.client("secretsmanager"), stack.functions["submit"].function.environment[name]
    before = secrets.get_secret_value(SecretId=arn)["SecretString"]
    secrets.put_secret_value(SecretId=arn, SecretString=text)
    return lambda: secrets.put_secret_value(SecretId=arn, SecretString=before)


def webhook_secret_without_a_key(stack: Stack) -> Undo:
    return _secret(stack, "WEBHOOK_SECRET", "{}")


def runware_key_not_set(stack: Stack) -> Undo:
    return _secret(stack, "RUNWARE_SECRET", " ")


def _variable(stack: Stack, function: str, name: str, value: str) -> Undo:
    variables = live_variables(stack, function)
    before = variables[name]
    variables[name] = value
    return lambda: variables.update({name: before})


def wrong_webhook_url(stack: Stack) -> Undo:
    return _variable(stack, "Submit", "WEBHOOK_BASE_URL", "https://hooks.example.com")


def another_webhook_secret(stack: Stack) -> Undo:
    return _variable(stack, "Webhook", "WEBHOOK_SECRET", "arn:aws:secretsmanager:us-east-1:1:secret:old")


@pytest.mark.batch
@pytest.mark.parametrize(
    ("plant", "check", "detail"),
    [
        (role_without_a_permission, "roles", "SubmitRole may not s3:PutObject on {bucket}/videos/"),
        (role_with_a_condition_on_other_keys, "roles", "TasksRole may not dynamodb:GetItem"),
        (role_with_too_many_permissions, "roles", "WebhookRole may s3:DeleteObjectVersion"),
        (rule_without_its_target, "rules", "UploadsRule lacks its target"),
        (disabled_rule, "rules", "EveryMinute is disabled"),
        (disabled_event_source, "event-sources", "the event source of Inbox is disabled"),
        (bucket_policy_with_another_deadline, "bucket", "links older than 7200000 ms are not denied"),
        (bucket_policy_that_denies_other_objects, "bucket", "access without TLS is not denied"),
        (versioning_off, "bucket", "versioning is not enabled"),
        (events_of_the_bucket_off, "bucket", "events are not sent to EventBridge"),
        (dead_schedule, "schedule", "has not invoked reconcile"),
        (missing_alarm, "alarms", "SecondRendersAlarm is missing"),
        (webhook_secret_without_a_key, "secrets", "the webhook secret has no current key"),
        (runware_key_not_set, "secrets", "the Runware key is not set"),
        (wrong_webhook_url, "environment", "SubmitFunction has another WEBHOOK_BASE_URL"),
        (another_webhook_secret, "environment", "WebhookFunction has another WEBHOOK_SECRET"),
    ],
)
def test_a_misconfiguration_fails_its_check(
    plant: Callable[[Stack], Undo], check: str, detail: str, stack: Stack, run: Callable[..., Json]
) -> None:
    """A planted misconfiguration fails one check, which names it; the other checks of the configuration pass."""
    undo = plant(stack)
    try:
        answer = run(skip=_OF_THE_WAY)
    finally:
        undo()
    assert answer["status"] == Exit.FAILED
    assert failures(answer).keys() == {check}
    assert detail in failures(answer)[check]


def test_an_interrupted_run_leaves_nothing(
    stack: Stack, run: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the key, the clip, the file and the report are removed, too."""
    before = whole_table(stack), whole_bucket(stack)
    reached = []

    def interrupt(run: smoke.SmokeRun) -> str:
        smoke.check_file(run)
        reached.append(run.clip)
        raise KeyboardInterrupt

    monkeypatch.setitem(smoke.CHECKS, "file", (interrupt, ""))
    with pytest.raises((KeyboardInterrupt, json.JSONDecodeError)):
        run()
    assert reached
    assert (whole_table(stack), whole_bucket(stack)) == before


def test_a_purchase_needs_a_confirmation(stack: Stack, run: Callable[..., Json]) -> None:
    """Without a terminal --buy buys only with --yes: then one clip, to its end."""
    skip = tuple(smoke.CHECKS)
    answer = run("--buy", skip=skip)
    assert answer["status"] == Exit.NOT_CONFIRMED
    assert submissions(stack) == []
    answer = run("--buy", "--yes", skip=skip)
    assert failures(answer) == {}
    assert [each["check"] for each in answer["checks"]] == ["purchase"]
    assert len(submissions(stack)) == 1


@pytest.mark.timeout(300)
@pytest.mark.batch
def test_the_whole_run(stack: Stack, run: Callable[..., Json]) -> None:
    """With the wait for a revoked key, which takes a minute, every check passes."""
    assert failures(run(skip=())) == {}

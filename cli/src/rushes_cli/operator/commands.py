"""The operators' verbs, which use AWS credentials instead of an API key.

`review`, `check` and `forget` are for clips, `configure` and `rotate` for secrets. `publish` and `redrive` repeat work
that the functions could not complete.
"""

import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes_cli.confirming import confirm_removal
from rushes_cli.exits import CommandError, Exit, UsageError
from rushes_cli.explaining import describe_fact, next_step
from rushes_cli.operator.deployment import Deployment, new_webhook_keys, operated
from rushes_cli.options import MAX_CANDIDATES, TASK_HELP, WHOLE, AsJson, Confirmed, Stack, only_candidate, task_name
from rushes_cli.output import Screen, age, iso, money, prompt_of, shorten, utc_time

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

    from rushes.adapters.dynamodb.admin import AdminTable
    from rushes.domain.clip import Clip
    from rushes.services.metric import Metric

Json = dict[str, Any]

# The prefixes of their outputs' names. PublishDeadLetters has stream positions, which cannot be redriven.
DEAD_LETTERS = ("InboxDeadLetters", "RequestsDeadLetters", "UploadsDeadLetters", "DeliveriesDeadLetters")

review = typer.Typer(invoke_without_command=True)

Caller = Annotated[str, typer.Argument(metavar="CALLER", help="The task's caller.", show_default=False)]
Task = Annotated[str, typer.Argument(metavar="TASK", help=f"The task's {TASK_HELP}.", show_default=False)]
Number = Annotated[int, typer.Argument(metavar="CLIP", min=0, help="The clip's number.", show_default=False)]


@review.callback()
def list_in_review(context: typer.Context, stack: Stack = None, as_json: AsJson = False) -> None:
    """List the clips in review with all evidence, the longest waiting first; the subcommands decide about one.

    --json prints {"clips": [clip]}, each as `review give-up --json` prints it.
    """
    if context.invoked_subcommand is not None:
        return
    from rushes_cli.operator import review as review_clips

    screen = Screen(as_json)
    with operated(stack) as deployment:
        clips = review_clips.in_review(deployment.store)
    screen.print_json({"clips": [review_clips.clip_record(clip) for clip in clips]})
    if not clips:
        screen.info("No clips are in review.")
    for clip in clips:
        _print_clip(screen, review_clips.clip_record(clip))
    if clips:
        screen.info(
            "`rushes review ask` checks the bucket and Runware again. `rushes review give-up` ends a clip as failed. "
            "`rushes review stored` records a clip whose video is in the bucket, or in a file. Callers can order their "
            "clips again with `rushes retry --accept-second-charge`."
        )


@review.command("give-up")
def give_up(
    caller: Caller,
    task: Task,
    clip: Number,
    reason: Annotated[str, typer.Option(help="The reason, shown to the caller.")] = "An operator gave it up.",
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """End a clip in review as failed. Its money is released, unless Runware rendered it and charged for it.

    Ask Runware, or check its dashboard, before you release the money of a clip that may have been bought. If the clip
    appears later, that fact outranks this decision.

    --json prints {"caller", "taskUUID", "clip", "status", "open", "cost": dollars, "objectKey", "clipUUID",
    "possiblySentAt", "nextCheckAt", "timeline"}.
    """
    from rushes_cli.operator import review as review_clips

    with operated(stack) as deployment:
        found = _in_review(deployment.store, caller, task, clip)
        _finish(Screen(as_json), review_clips.give_up(deployment.store, found, reason[:500], review_clips.clock()))


@review.command("ask")
def ask(caller: Caller, task: Task, clip: Number, stack: Stack = None, as_json: AsJson = False) -> None:
    """Check the bucket and Runware once more for a clip in review, in the next sweep.

    A rendered clip without a copy is downloaded again. The clip is not listed until the check is complete; then it is
    listed with the result, unless the result ended the review.

    --json prints the same as `review give-up --json`.
    """
    from rushes_cli.operator import review as review_clips

    with operated(stack) as deployment:
        found = _in_review(deployment.store, caller, task, clip)
        _finish(Screen(as_json), review_clips.ask(deployment.store, found, review_clips.clock()))


@review.command("stored")
def stored(
    caller: Caller,
    task: Task,
    clip: Number,
    file: Annotated[
        Path | None, typer.Option(help="Upload this video to the bucket first.", exists=True, dir_okay=False)
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Record a clip in review as stored. Its video must be in the bucket under its key, or is uploaded from a file.

    --json prints the same as `review give-up --json`.
    """
    from rushes_cli.operator import review as review_clips

    with operated(stack) as deployment:
        found = _in_review(deployment.store, caller, task, clip)
        try:
            saved = review_clips.mark_stored(
                deployment.store, deployment.s3, deployment.bucket, found, file, review_clips.clock()
            )
        except review_clips.DecisionError as error:
            raise CommandError(str(error)) from None
        _finish(Screen(as_json), saved)


def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every clip and compare it with the manifest's SHA-256.")
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0, help="The time allowed for a manifest after its clip is stored, in seconds.")
    ] = 900.0,
    retention_days: Annotated[
        int | None,
        typer.Option(
            min=0, help="The retention of objects, in days; 0 is unlimited.", show_default="the stack's RetentionDays"
        ),
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Check the consistency of the table and the bucket. Nothing is changed.

    Ends with 0 without findings, otherwise with 1. Work in progress is not a finding.

    --json prints {"findings": [{"flaw", "subject", "detail"}]}.
    """
    from rushes_cli.operator import consistency
    from rushes_cli.operator import review as review_clips

    screen = Screen(as_json)
    with operated(stack) as deployment:
        retention = deployment.retention if retention_days is None else retention_days * 86_400_000 or None
        options = consistency.CheckOptions(
            now=review_clips.clock(), retention=retention, grace=round(grace * 1000), deep=deep
        )
        found = consistency.check(deployment.store, deployment.s3, deployment.bucket, options)
    screen.print_json(
        {"findings": [{"flaw": each.flaw, "subject": each.subject, "detail": each.detail} for each in found]}
    )
    screen.table(("flaw", "subject", "detail"), [(each.flaw, each.subject, each.detail) for each in found])
    for flaw in dict.fromkeys(each.flaw for each in found):
        screen.info(f"{flaw}: {consistency.MEANINGS[flaw]}", "dim")
    screen.info(f"{len(found)} finding{'' if len(found) == 1 else 's'}." if found else "No findings.")
    if found:
        raise typer.Exit(Exit.FAILED)


def forget(caller: Caller, task: Task, yes: Confirmed = False, stack: Stack = None, as_json: AsJson = False) -> None:
    """Erase a finished task: its clips, manifests and request. A tombstone stays, so that it is not bought again.

    --json prints {"caller", "taskUUID", "clips": [{"clip", "erasedAt", "objectKey"}], "deleted": object versions}.
    """
    from rushes_cli.operator import erase
    from rushes_cli.operator.review import clock

    screen = Screen(as_json)
    with operated(stack) as deployment:
        uuid = _whole_uuid(deployment.store, caller, task)
        confirm_removal(_question(deployment, caller, uuid), yes=yes)
        try:
            found = erase.forget(deployment.store, deployment.s3, deployment.bucket, caller, uuid, clock())
        except erase.ErasureError as error:
            raise CommandError(str(error)) from None
    clips = [
        {"clip": clip.index, "erasedAt": iso(clip.erased_at), "objectKey": clip.object_key} for clip in found.clips
    ]
    screen.print_json({"caller": caller, "taskUUID": uuid, "clips": clips, "deleted": found.deleted})
    for clip in clips:
        screen.print(f"clip {clip['clip']}: erased, {clip['objectKey']}")
    screen.print(
        f"The task {screen.id(uuid)} was erased; {found.deleted} object versions were deleted. Its cost stays recorded."
    )


def _question(deployment: Deployment, caller: str, uuid: str) -> str:
    task, clips = deployment.store.task(caller, uuid), deployment.store.clips(caller, uuid)
    prompt = shorten(prompt_of({"request": dict(task.request)}) if task else "", 60)
    return f"Erase task {uuid[:8]} of {caller} ({prompt}) with its {len(clips)} clips for ever?"


def publish(caller: Caller, task: Task, stack: Stack = None, as_json: AsJson = False) -> None:
    """Publish the events of a task's clips again on the event bus, and write missing manifests.

    --json prints {"caller", "taskUUID", "clips": [{"clip", "status", "published": detail type or null}]}.
    """
    from rushes.adapters.eventbridge import EventBridgeBus
    from rushes.adapters.s3 import S3Manifests
    from rushes.adapters.sqs import SqsDeliveryQueue
    from rushes.services.publish import PublishService, event_of

    screen = Screen(as_json)
    with operated(stack) as deployment:
        uuid = _whole_uuid(deployment.store, caller, task)
        clips = deployment.store.clips(caller, uuid)
        if not clips:
            raise CommandError(f"{caller} has no task {uuid}; nothing was published.")
        publish_service = PublishService(
            tasks=deployment.store,
            manifests=S3Manifests(deployment.s3, deployment.bucket),
            bus=EventBridgeBus(deployment.client("events"), deployment.output("EventBusName")),
            deliveries=SqsDeliveryQueue(lambda: deployment.client("sqs"), deployment.output("DeliveriesUrl")),
            telemetry=_ScreenTelemetry(screen),
            bucket=deployment.bucket,
        )
        published = []
        for clip in clips:
            publish_service.publish_change(None, clip)
            event = event_of(clip)
            event_type = event.event_type if event else None
            published.append({"clip": clip.index, "status": clip.status, "published": event_type})
            screen.print(
                f"Clip {clip.index} is {clip.status}: {f'published as {event_type}' if event_type else 'no event yet'}."
            )
    screen.print_json({"caller": caller, "taskUUID": uuid, "clips": published})


def redrive(stack: Stack = None, as_json: AsJson = False) -> None:
    """Move the messages of the dead-letter queues back to their source queues, and print their numbers.

    --json prints {"queues": [{"queue", "messages"}]}.
    """
    screen = Screen(as_json)
    with operated(stack) as deployment:
        found = []
        for name in DEAD_LETTERS:
            count = _redrive(deployment.client("sqs"), deployment.output(f"{name}Url"))
            found.append({"queue": name, "messages": count})
            screen.print(f"{name}: {count} messages{' are being moved back' if count else ''}")
    screen.print_json({"queues": found})


def output(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The output's name, such as ApiUrl.", show_default=False)],
    stack: Stack = None,
) -> None:
    """Print one output of a deployed stack."""
    with operated(stack) as deployment:
        print(deployment.output(name))


def configure(stack: Stack = None) -> None:
    """Store the Runware API key in a deployed stack's secret.

    The key is prompted for without echo, or read from standard input if that is not a terminal; it is never an
    argument.
    """
    with operated(stack) as deployment:
        secret = deployment.output("RunwareSecretArn")
        key = read_secret("Runware API key: ")
        deployment.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=key)
        print(f"The Runware API key of {deployment.name} is set. Running functions use it within minutes.")


def rotate(stack: Stack = None) -> None:
    """Rotate the key of the webhook tokens. Tokens signed with the previous key stay valid until the next rotation."""
    from rushes.adapters.aws import clock as now
    from rushes.adapters.secrets import SecretsManagerSecret, webhook_keys

    with operated(stack) as deployment:
        secret, client = deployment.output("WebhookSecretArn"), deployment.client("secretsmanager")
        current = webhook_keys(SecretsManagerSecret(client, secret, now))[0]
        client.put_secret_value(SecretId=secret, SecretString=new_webhook_keys(current))
        print(
            f"The webhook tokens of {deployment.name} have a new key. Tokens signed with the previous key stay valid "
            "until the next rotation. Wait seven days before that, unless a key has leaked."
        )


def read_secret(prompt: str) -> str:
    """The key from the prompt or standard input. Raises `UsageError` unless it is printable ASCII without spaces."""
    key = (getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("An API key must be printable ASCII without spaces; nothing was changed.")
    return key


class _ScreenTelemetry:
    """Telemetry for a command: prints warnings and drops metrics, which are for functions."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def count(self, metric: "Metric", amount: int = 1) -> None:
        """Counts nothing."""

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        """Prints a warning; drops other messages."""
        if warn:
            self._screen.warn(f"{message}: {json.dumps(details, default=str)}")


def _redrive(sqs: "SQSClient", url: str) -> int:
    """Starts to move a dead-letter queue's messages to its source queue; returns their number."""
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "ApproximateNumberOfMessages"])
    count = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
    if count:
        (source,) = sqs.list_dead_letter_source_queues(QueueUrl=url)["queueUrls"]
        to = sqs.get_queue_attributes(QueueUrl=source, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        # The destination is explicit, because messages from EventBridge have no source queue.
        sqs.start_message_move_task(SourceArn=attributes["Attributes"]["QueueArn"], DestinationArn=to)
    return count


def _whole_uuid(store: "AdminTable", caller: str, text: str) -> str:
    """The taskUUID of a caller's task by its name. Raises `UsageError` or `CommandError` if there is not one task."""
    name, after = task_name(text), None
    if len(name) == WHOLE:
        return name
    candidates: list[tuple[str, str]] = []
    while True:
        page = store.page(caller, MAX_CANDIDATES + 1, after=after, prefix=name)
        candidates += [(found.task.task_uuid, prompt_of({"request": found.task.request})) for found in page.found]
        after = page.end
        if after is None or len(candidates) > MAX_CANDIDATES:
            return only_candidate(name, candidates)


def _in_review(store: Any, caller: str, task: str, clip: int) -> "Clip":
    from rushes_cli.operator import review as review_clips

    try:
        return review_clips.one(store, caller, _whole_uuid(store, caller, task), clip)
    except review_clips.DecisionError as error:
        raise CommandError(str(error)) from None


def _finish(screen: Screen, clip: "Clip") -> None:
    from rushes_cli.operator import review as review_clips

    record = review_clips.clip_record(clip)
    screen.print_json(record)
    screen.print(f"{record['taskUUID']}-{record['clip']} is {record['status']}; counted: {money(clip.budgeted)}.")
    screen.print(f"Next: {next_step(record)}")


def _print_clip(screen: Screen, record: Json) -> None:
    head = f"{record['caller']} {record['taskUUID']} {record['clip']}"
    at = record["nextCheckAt"]
    waiting = f"for {age(at)}" if screen.out.is_terminal else f"since {at}"
    state = f"in review {waiting}, counted: {money(round(record['cost'] * 1_000_000))}"
    screen.print(f"{head}  {state}", "bold")
    screen.print(f"  clipUUID {record['clipUUID']}, object {record['objectKey']}")
    if record["possiblySentAt"]:
        screen.print(f"  {utc_time(record['possiblySentAt'])}  The order may have reached Runware.")
    for fact in record["timeline"]:
        screen.print(f"  {utc_time(fact['at'])}  {describe_fact(fact)}")
    screen.print()

"""An operator's verbs, with AWS credentials instead of a key.

`review`, `check` and `forget` are about clips, `configure` and `rotate` about secrets; `publish` and `redrive` do once
more what the functions could not.
"""

import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes_cli.exits import CommandError, Exit, UsageError
from rushes_cli.explaining import outlook, sentence
from rushes_cli.operator.deployment import new_webhook_keys, operated
from rushes_cli.options import AsJson, Stack, task_uuid
from rushes_cli.output import Screen, age, clock, money

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

    from rushes.domain.clip import Clip
    from rushes.services.ports import Metric

Json = dict[str, Any]

# By the beginnings of their outputs' names. What `publish` could not tell names places in a stream and cannot be sent.
DEAD_LETTERS = ("InboxDeadLetters", "RequestsDeadLetters", "UploadsDeadLetters")

review = typer.Typer(invoke_without_command=True)

Caller = Annotated[str, typer.Argument(metavar="CALLER", help="Whose task.", show_default=False)]
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's taskUUID.", show_default=False)]
Number = Annotated[int, typer.Argument(metavar="CLIP", min=0, help="The clip's number.", show_default=False)]


@review.callback()
def parked(context: typer.Context, stack: Stack = None, as_json: AsJson = False) -> None:
    """List the clips that wait for a person, the longest waiting first, with all the evidence; decide with a verb.

    --json prints {"parked": [clip]}, each as `review give-up --json` prints it.
    """
    if context.invoked_subcommand is not None:
        return
    from rushes_cli.operator import review as review_clips

    screen = Screen(as_json)
    with operated(stack) as deployment:
        clips = review_clips.in_review(deployment.store)
    screen.give({"parked": [review_clips.clip_record(clip) for clip in clips]})
    if not clips:
        screen.note("Nothing is in review.")
    for clip in clips:
        _tell(screen, review_clips.clip_record(clip))
    if clips:
        screen.note(
            "`rushes review ask` has Runware asked about one again. `rushes review give-up` ends one as failed, "
            "`rushes review stored` one whose video is in the bucket, or in a file. Their callers can order them again "
            "with `rushes retry --accept-second-charge`."
        )


@review.command("give-up")
def give_up(
    caller: Caller,
    task: Task,
    clip: Number,
    reason: Annotated[str, typer.Option(help="The reason, for the caller to read.")] = "An operator gave it up.",
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """End a clip in review as failed. Its money is released, unless Runware has rendered it: that was paid for.

    Ask Runware, or look at its dashboard, before you release the money of a clip that may have been bought. Should the
    clip turn up after all, that outranks this decision.

    --json prints {"caller", "taskUUID", "clip", "status", "open", "cost": dollars, "objectKey", "clipUUID",
    "possiblySentAt", "nextCheckAt", "timeline"}.
    """
    from rushes_cli.operator import review as review_clips

    with operated(stack) as deployment:
        found = _in_review(deployment.store, caller, task, clip)
        _finish(Screen(as_json), review_clips.give_up(deployment.store, found, reason[:500], review_clips.clock()))


@review.command("ask")
def ask(caller: Caller, task: Task, clip: Number, stack: Stack = None, as_json: AsJson = False) -> None:
    """Have bucket and Runware asked once more about a clip in review, by the next sweep, and about it alone.

    A clip without a copy is fetched again as well. Until there is an answer the clip is not listed; then it is, with
    what came of it, unless that has ended the review.

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
        Path | None, typer.Option(help="Put this video into the bucket first.", exists=True, dir_okay=False)
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Record a clip in review as stored: its video is in the bucket under its key, or is put there from a file.

    --json prints the same as `review give-up --json`.
    """
    from rushes_cli.operator import review as review_clips

    with operated(stack) as deployment:
        found = _in_review(deployment.store, caller, task, clip)
        try:
            kept = review_clips.keep(
                deployment.store, deployment.s3, deployment.bucket, found, file, review_clips.clock()
            )
        except review_clips.DecisionError as error:
            raise CommandError(str(error)) from None
        _finish(Screen(as_json), kept)


def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte and compare it with the manifest's SHA-256.")
    ] = False,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that a manifest may take.")] = 900.0,
    retention_days: Annotated[
        int | None, typer.Option(min=0, help="How long objects are kept; 0 for ever.", show_default="the stack's")
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Check the table against the bucket, and both against themselves. Changes nothing.

    Ends with 0 when there is nothing to tell, and with 1 when there is. What is under way is no finding.

    --json prints {"findings": [{"flaw", "subject", "detail"}]}.
    """
    from rushes_cli.operator import consistency
    from rushes_cli.operator import review as review_clips

    screen = Screen(as_json)
    with operated(stack) as deployment:
        retention = deployment.retention if retention_days is None else retention_days * 86_400_000 or None
        terms = consistency.Terms(now=review_clips.clock(), retention=retention, grace=round(grace * 1000), deep=deep)
        found = consistency.check(deployment.store, deployment.s3, deployment.bucket, terms)
    screen.give({"findings": [{"flaw": each.flaw, "subject": each.subject, "detail": each.detail} for each in found]})
    screen.table(("flaw", "subject", "detail"), [(each.flaw, each.subject, each.detail) for each in found])
    for flaw in dict.fromkeys(each.flaw for each in found):
        screen.note(f"{flaw}: {consistency.MEANINGS[flaw]}", "dim")
    screen.note(f"{len(found)} finding{'' if len(found) == 1 else 's'}." if found else "Everything is as it should be.")
    if found:
        raise typer.Exit(Exit.FAILED)


def forget(caller: Caller, task: Task, stack: Stack = None, as_json: AsJson = False) -> None:
    """Erase a finished task: its clips and what its caller wrote. What keeps it from being bought again stays.

    --json prints {"caller", "taskUUID", "deleted": object versions}.
    """
    from rushes_cli.operator import erase

    screen, uuid = Screen(as_json), task_uuid(task)
    with operated(stack) as deployment:
        try:
            deleted = erase.forget(deployment.store, deployment.s3, deployment.bucket, caller, uuid)
        except erase.ErasureError as error:
            raise CommandError(str(error)) from None
    screen.give({"caller": caller, "taskUUID": uuid, "deleted": deleted})
    screen.say(f"The task is forgotten; {deleted} object versions were deleted. What it cost stays on record.")


def publish(caller: Caller, task: Task, stack: Stack = None, as_json: AsJson = False) -> None:
    """Tell once more what became of a task's clips, on the event bus, and lay the manifests that are missing.

    --json prints {"caller", "taskUUID", "clips": [{"clip", "status", "told": detail type or null}]}.
    """
    from rushes.adapters.eventbridge import EventBridgeBus
    from rushes.adapters.s3 import S3Manifests
    from rushes.services.publish import PublishService, event_of

    screen, uuid = Screen(as_json), task_uuid(task)
    with operated(stack) as deployment:
        clips = deployment.store.clips(caller, uuid)
        if not clips:
            raise CommandError(f"{caller} has no task {uuid}; nothing was told.")
        publish_service = PublishService(
            tasks=deployment.store,
            manifests=S3Manifests(deployment.s3, deployment.bucket),
            bus=EventBridgeBus(deployment.client("events"), deployment.output("EventBusName")),
            telemetry=_Shown(screen),
            bucket=deployment.bucket,
        )
        told = []
        for clip in clips:
            publish_service.publish_change(None, clip)
            news = event_of(clip)
            told.append({"clip": clip.index, "status": clip.status, "told": news.event_type if news else None})
            screen.say(
                f"Clip {clip.index} is {clip.status}: {f'sent as {news.event_type}' if news else 'no event yet'}."
            )
    screen.give({"caller": caller, "taskUUID": uuid, "clips": told})


def redrive(stack: Stack = None, as_json: AsJson = False) -> None:
    """Send what waits in the dead-letter queues back to where it came from, and say how much that is.

    --json prints {"queues": [{"queue", "messages"}]}.
    """
    screen = Screen(as_json)
    with operated(stack) as deployment:
        found = []
        for name in DEAD_LETTERS:
            waiting = _send_back(deployment.client("sqs"), deployment.output(f"{name}Url"))
            found.append({"queue": name, "messages": waiting})
            screen.say(f"{name}: {waiting} messages{' are on their way back' if waiting else ''}")
    screen.give({"queues": found})


def output(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, such as ApiUrl.", show_default=False)],
    stack: Stack = None,
) -> None:
    """Print one output of a deployed stack."""
    with operated(stack) as deployment:
        print(deployment.output(name))


def configure(stack: Stack = None) -> None:
    """Put the Runware API key into a deployed stack's secret.

    It is typed without echo, or read from standard input where that is no terminal; it is never an argument.
    """
    with operated(stack) as deployment:
        secret = deployment.output("RunwareSecretArn")
        key = read_secret("Runware API key: ")
        deployment.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=key)
        print(f"The Runware API key of {deployment.name} is set. Functions that are running pick it up within minutes.")


def rotate(stack: Stack = None) -> None:
    """Give the webhook tokens a new key. Links signed with the one before stay valid until the next time."""
    from rushes.adapters.aws import clock as now
    from rushes.adapters.secrets import SecretsManagerSecret, webhook_keys

    with operated(stack) as deployment:
        secret, client = deployment.output("WebhookSecretArn"), deployment.client("secretsmanager")
        current = webhook_keys(SecretsManagerSecret(client, secret, now))[0]
        client.put_secret_value(SecretId=secret, SecretString=new_webhook_keys(current))
        print(
            f"The webhook tokens of {deployment.name} have a new key. Links that were signed with the one before stay "
            "valid until the next rotation: leave seven days until then, unless a key has leaked."
        )


def read_secret(prompt: str) -> str:
    """What was typed, without surrounding white space. Raises `UsageError` when it cannot be a key."""
    key = (getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("That is not an API key; nothing was changed.")
    return key


class _Shown:
    """Telemetry for somebody at a terminal, who is shown what is worth a warning; metrics are the functions'."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def count(self, metric: "Metric", amount: int = 1) -> None:
        """Counts nothing."""

    def log(self, message: str, *, warn: bool = False, **details: object) -> None:
        """Shows what is a warning."""
        if warn:
            self._screen.warn(f"{message}: {json.dumps(details, default=str)}")


def _send_back(sqs: "SQSClient", url: str) -> int:
    """Lets a dead-letter queue be emptied into the one that it stands behind; how many messages there are."""
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "ApproximateNumberOfMessages"])
    waiting = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
    if waiting:
        (before,) = sqs.list_dead_letter_source_queues(QueueUrl=url)["queueUrls"]
        to = sqs.get_queue_attributes(QueueUrl=before, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        # Named, because what EventBridge put there has no queue that it came from.
        sqs.start_message_move_task(SourceArn=attributes["Attributes"]["QueueArn"], DestinationArn=to)
    return waiting


def _in_review(store: Any, caller: str, task: str, clip: int) -> "Clip":
    from rushes_cli.operator import review as review_clips

    try:
        return review_clips.one(store, caller, task_uuid(task), clip)
    except review_clips.DecisionError as error:
        raise CommandError(str(error)) from None


def _finish(screen: Screen, clip: "Clip") -> None:
    from rushes_cli.operator import review as review_clips

    record = review_clips.clip_record(clip)
    screen.give(record)
    screen.say(f"{record['taskUUID']}-{record['clip']} is {record['status']}, and counts {money(clip.budgeted)}.")
    screen.say(f"Next: {outlook(record)}")


def _tell(screen: Screen, record: Json) -> None:
    head = f"{record['caller']} {record['taskUUID']} {record['clip']}"
    waiting = f"in review for {age(record['nextCheckAt'])}, counts {money(round(record['cost'] * 1_000_000))}"
    screen.say(f"{head}  {waiting}", "bold")
    screen.say(f"  clipUUID {record['clipUUID']}, object {record['objectKey']}")
    if record["possiblySentAt"]:
        screen.say(f"  {clock(record['possiblySentAt'])}  From here on the order may have reached Runware.")
    for fact in record["timeline"]:
        screen.say(f"  {clock(fact['at'])}  {sentence(fact)}")
    screen.say()

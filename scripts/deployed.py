"""Talks to a deployed stack: what it is called there, its secrets, what somebody wants erased or told again.

    deployed.py output <stack> <name>             prints one output of the stack
    deployed.py configure <stack>                 asks for the Runware API key and puts it into its secret
    deployed.py rotate <stack>                    gives the webhook tokens a new key; the one before stays valid
    deployed.py redrive <stack>                   sends what waits in the dead-letter queues back
    deployed.py forget <stack> <caller> <task>    erases a finished task's clips and request
    deployed.py announce <stack> <caller> <task>  tells once more what became of a task's clips

The Runware key is typed without echo, or read from standard input when that is not a terminal. It is never an argument,
so it reaches neither the shell's history nor the process list. No key is ever printed.
"""

import getpass
import json
import secrets
import sys
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from rushes import uploads
from rushes.announcing import Announcing, announced
from rushes.credentials import Secret, webhook_keys
from rushes.entry import clock
from rushes.errors import RushesError
from rushes.events import EventBus
from rushes.manifests import Manifests
from rushes.observability import Metric
from rushes.store import Store
from rushes_local import erasing

if TYPE_CHECKING:
    from types_boto3_sqs.literals import QueueAttributeFilterType

DEAD_LETTERS = ("InboxDeadLetters", "RequestsDeadLetters", "UploadsDeadLetters")


def output(stack: str, name: str) -> str:
    """The value of one output; raises `KeyError` when the stack has none of this name."""
    description = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    outputs = {str(each["OutputKey"]): str(each["OutputValue"]) for each in description.get("Outputs", [])}
    return outputs[name]


def read_key() -> str:
    """The key without surrounding white space; raises `ValueError` when it cannot be one."""
    key = (getpass.getpass("Runware API key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("That is not an API key; nothing was changed.")
    return key


def configure(stack: str) -> None:
    secret = output(stack, "RunwareSecretArn")
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=read_key())
    print(f"The Runware API key of {stack} is set. Functions that are running pick it up within minutes.")


def rotate(stack: str) -> None:
    secret, client = output(stack, "WebhookSecretArn"), boto3.client("secretsmanager")
    current = webhook_keys(Secret(client, secret, clock))[0]
    keys = {"current": secrets.token_urlsafe(48), "previous": current}
    client.put_secret_value(SecretId=secret, SecretString=json.dumps(keys))
    print(
        f"The webhook tokens of {stack} have a new key. Links that were signed with the one before stay valid "
        "until the next rotation: leave seven days until then, unless a key has leaked."
    )


def forget(stack: str, caller: str, task_uuid: str) -> None:
    store = Store(boto3.client("dynamodb"), output(stack, "TableName"))
    deleted = erasing.forget(store, boto3.client("s3"), output(stack, "BucketName"), caller, task_uuid.lower())
    print(f"The task is forgotten; {deleted} object versions were deleted. What it cost stays on record.")


class Notes:
    """Shows what somebody at a terminal should know, and counts nothing: what is done by hand is no metric."""

    def count(self, metric: Metric, amount: int = 1) -> None:
        pass

    def note(self, message: str, *, warn: bool = False, **details: object) -> None:
        if warn:
            print(f"{message}: {json.dumps(details, default=str)}", file=sys.stderr)


def announce(stack: str, caller: str, task_uuid: str) -> None:
    store = Store(boto3.client("dynamodb"), output(stack, "TableName"))
    bucket = output(stack, "BucketName")
    announcing = Announcing(
        tasks=store,
        shelf=Manifests(boto3.client("s3", config=uploads.CONFIG), bucket),
        bus=EventBus(boto3.client("events"), output(stack, "EventBusName")),
        telemetry=Notes(),
        bucket=bucket,
    )
    clips = store.clips(caller, task_uuid.lower())
    if not clips:
        raise ValueError(f"{caller} has no task {task_uuid}; nothing was told.")
    for clip in clips:
        announcing.changed(None, clip)
        news = announced(clip)
        print(f"Clip {clip.index} is {clip.status}: {f'told as {news.news}' if news else 'nothing to tell yet'}.")


def redrive(stack: str) -> None:
    client = boto3.client("sqs")
    for name in DEAD_LETTERS:
        url = output(stack, f"{name}Url")
        wanted: list[QueueAttributeFilterType] = ["QueueArn", "ApproximateNumberOfMessages"]
        attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
        waiting = int(attributes["ApproximateNumberOfMessages"])
        if waiting:
            client.start_message_move_task(SourceArn=attributes["QueueArn"])
        print(f"{name}: {waiting} messages{' are on their way back' if waiting else ''}")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["output", stack, name]:
            print(output(stack, name))
        case ["configure", stack]:
            configure(stack)
        case ["rotate", stack]:
            rotate(stack)
        case ["forget", stack, caller, task_uuid]:
            forget(stack, caller, task_uuid)
        case ["announce", stack, caller, task_uuid]:
            announce(stack, caller, task_uuid)
        case ["redrive", stack]:
            redrive(stack)
        case _:
            raise ValueError(
                "usage: deployed.py output <stack> <name> | configure <stack> | rotate <stack> | redrive <stack> "
                "| forget <stack> <caller> <task> | announce <stack> <caller> <task>"
            )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyError as error:
        sys.exit(f"The stack has no output {error}.")
    except (BotoCoreError, ClientError, RushesError, ValueError) as error:
        sys.exit(str(error))

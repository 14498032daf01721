"""A file of a thousand lines on the local stack: each valid line is bought once, each invalid one is reported.

Takes minutes, so it is not part of `make test`: `make test-batch`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.domain.caller import Caller
from rushes.domain.clip import Status
from rushes_local.stack import Stack
from tests.chaos.judgement import StackInspector

pytestmark = [
    pytest.mark.batch,
    pytest.mark.timeout(1500),
    pytest.mark.usefixtures("no_shared_stack"),  # a separate stack cannot run beside the shared one
]

ROOT = Path(__file__).parents[2]
LINES, EVERY = 1000, 20  # one line in EVERY is invalid
BAD = LINES // EVERY
GOOD = LINES - BAD
MAX_CLIP = 200_000  # bytes
PATIENCE = 600.0  # seconds; a few tens are enough on an idle machine
PROMPT = "a lighthouse at dusk"  # the same for all lines, because the emulator caches its renders
NAME, KEY = "ada", "requests/ada/campaign/lines.jsonl"

FAULTS: tuple[Any, ...] = (
    "{",
    "[]",
    {"positivePrompt": "no model"},
    {"model": "klingai:5@3"},
    {"model": "klingai:5@3", "positivePrompt": "too short a time", "duration": 3},
    {"model": "klingai:5@3", "positivePrompt": "too wide", "width": 4096, "height": 1080},
    {"model": "klingai:5@3", "positivePrompt": "no secret to sign with", "webhookURL": "https://receiver.example"},
    {"model": "klingai:5@3", "positivePrompt": "not an order", "taskType": "getResponse"},
)


def content() -> bytes:
    """The file: every twentieth line is invalid, each in its own way."""
    lines = [
        FAULTS[number // EVERY % len(FAULTS)]
        if number % EVERY == 0
        else {"model": "klingai:5@3", "positivePrompt": PROMPT, "tags": {"line": str(number)}}
        for number in range(1, LINES + 1)
    ]
    return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode()


class Batch:
    """The stack with the file, and the figures of the test."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.s3, self.sqs, self.inspector = (
            stack,
            stack.client("s3"),
            stack.client("sqs"),
            StackInspector(stack),
        )
        self.dynamodb = stack.client("dynamodb")
        stack.store.set_caller(Caller(NAME, 10_000_000_000))
        self.queues = {
            name: stack.client("cloudformation").describe_stack_resource(StackName="rushes", LogicalResourceId=name)[
                "StackResourceDetail"
            ]["PhysicalResourceId"]
            for name in ("Inbox", "InboxDeadLetters", "RequestsQueue", "RequestsDeadLetters")
        }

    def waiting(self, queue: str) -> int:
        """The number of messages in a queue, including those in progress."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queues[queue], AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def wait(self, reached: Callable[[], bool]) -> float:
        """Waits until a condition is true and returns the time in seconds."""
        began = checked = time.monotonic()
        while not reached():
            now = time.monotonic()
            assert now - began < PATIENCE, self.figures()
            self.stack.check()
            time.sleep(max(1.0, 5 * (now - checked)))  # a check takes time from the stack's work
            checked = time.monotonic()
        return time.monotonic() - began

    def done(self) -> bool:
        """Returns True if no queue has a message and Runware has nothing left to do."""
        return not (self.waiting("RequestsQueue") or self.waiting("Inbox")) and self.stack.emulator.idle(0.1)

    def keys(self, prefix: str) -> dict[str, int]:
        """Sizes in bytes of the objects under a prefix, by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.stack.bucket_name, Prefix=prefix)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}

    def videos(self) -> dict[str, int]:
        """Sizes in bytes of the clips' objects, without their manifests."""
        return {key: size for key, size in self.keys("videos/").items() if key.endswith(".mp4")}

    def report(self) -> tuple[str, bytes]:
        """Key and content of the only report."""
        (key,) = self.keys("reports/")
        return key, self.s3.get_object(Bucket=self.stack.bucket_name, Key=key)["Body"].read()

    def figures(self) -> dict[str, Any]:
        """The figures of the ledger, the table, the bucket and the budgets."""
        report = json.loads(self.report()[1]) if self.keys("reports/") else {}
        accepted = {line["taskUUID"] for line in report.get("lines", []) if line.get("accepted")}
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.stack.table_name)
        items = [item for page in pages for item in page["Items"] if item["sk"]["S"].startswith("clip#")]
        clips = [clip_of_image(item) for item in items]
        month = clips[0].month if clips else ""
        return {
            "accepted": report.get("accepted"),
            "reasons": sum("errors" in line for line in report.get("lines", [])),
            "charges": len(self.stack.emulator.ledger()),
            "charged": sum(charge.micro_dollars for charge in self.stack.emulator.ledger()),
            "budget": self.stack.store.budget(NAME, month)[0] if month else 0,
            "clips": len(clips),
            "stored": sum(clip.status is Status.STORED and clip.task_uuid in accepted for clip in clips),
            "videos": len(self.videos()),
            "manifests": len(self.keys("videos/")) - len(self.videos()),
            "dead letters": self.waiting("InboxDeadLetters") + self.waiting("RequestsDeadLetters"),
        }


def test_a_thousand_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """950 clips are stored for 950 charges, 50 lines have their errors, and two more deliveries change nothing."""
    stack = Stack(
        ROOT,
        emulator_options={"small": True},
        parameters={"MonthlyLimitUsd": "10000"},
    )
    with stack:
        batch = Batch(stack)
        version = stack.client("s3").put_object(Bucket=stack.bucket_name, Key=KEY, Body=content())["VersionId"]
        seconds = batch.wait(lambda: len(stack.emulator.ledger()) >= GOOD and batch.done())
        seconds += batch.wait(lambda: not batch.inspector.open_clips())
        seconds += batch.wait(lambda: len(batch.keys("videos/")) == 2 * GOOD)
        first, report = batch.figures(), batch.report()
        assert first == {
            "accepted": GOOD,
            "reasons": BAD,
            "charges": GOOD,
            "charged": GOOD * 924_000,
            "budget": GOOD * 924_000,
            "clips": GOOD,
            "stored": GOOD,
            "videos": GOOD,
            "manifests": GOOD,
            "dead letters": 0,
        }
        assert max(batch.videos().values()) < MAX_CLIP
        assert report[0] == f"{KEY.replace('requests', 'reports', 1)}.{version}.json"

        event = {
            "version": "0",
            "detail-type": "Object Created",
            "source": "aws.s3",
            "detail": {"object": {"key": KEY, "version-id": version}},
        }
        for _ in range(2):
            batch.sqs.send_message(QueueUrl=batch.queues["RequestsQueue"], MessageBody=json.dumps(event))
        again = batch.wait(batch.done)
        assert batch.figures() == first
        assert batch.report() == report
    with capsys.disabled():
        print(f"\n{LINES} lines: {first}\nstored after {seconds:.0f} s; two more deliveries took {again:.0f} s")

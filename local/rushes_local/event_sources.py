"""What invokes functions without a request: schedules, queues that a function takes messages from, and streams.

Hides their threads, the events they make, and what Lambda does with a batch's answer. Every invocation is waited for,
so a function that is slow or away gets no crowd of late ones.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
"""

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rushes_local.api_gateway import Invokes
from rushes_local.lambda_runtime import ACCOUNT_ID, REGION, Outcome

Log = Callable[[str], None]
Message = Mapping[str, Any]
Record = Mapping[str, Any]

# A schedule is kept at most this often, however fast everything else goes: an idle sweep costs some milliseconds.
_SHORTEST_INTERVAL = 0.2  # seconds

# Between two looks into an empty queue or stream, in seconds; doubles. Asking moto to wait would hold a thread of its
# server.
_FIRST_PAUSE = 0.05
_LAST_PAUSE = 0.2

# Between two attempts at the same changes, in seconds; doubles.
_FIRST_BACK_OFF = 0.05
_LAST_BACK_OFF = 1.0

_MAX_END = 1.0


@dataclass(frozen=True)
class Source:
    """A queue that a function takes messages from, in at most so many batches at once (`max_concurrency`).

    `partial`: the function reports the messages that failed.
    """

    url: str
    arn: str
    batch_size: int
    partial: bool
    max_concurrency: int


@dataclass(frozen=True)
class Stream:
    """A table's stream that a function follows. `wanted` says which records it gets; the rest as in the template.

    Each attempt to pass a batch on counts, but splitting does not: so a record that fails again and again is alone in
    the end, and is set aside alone.
    """

    arn: str
    batch_size: int
    partial: bool
    bisect: bool
    retries: int
    failures_url: str
    wanted: Callable[[Record], bool] = field(default=lambda _: True)


class Triggers:
    """Threads that invoke functions until `stop`. `log` receives what goes wrong."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def schedule(self, rule: str, interval: float, function: Invokes) -> None:
        """Invoke a function every `interval` seconds, in a rule's name. Ticks that a slow one misses are skipped."""
        self._start(f"schedule-{rule}", lambda: self._keep(rule, max(interval, _SHORTEST_INTERVAL), function))

    def poll(self, sqs: Any, source: Source, function: Invokes) -> None:
        """Invoke a function with the messages of a queue, batch by batch, as many at once as the source allows."""
        self._start(f"poll-{source.arn}", lambda: self._poll(sqs, source, function))

    def follow(self, streams: Any, sqs: Any, stream: Stream, function: Invokes) -> None:
        """Invoke a function with the changes of a table from the stream's beginning on, batch by batch, in order."""
        self._start(f"follow-{stream.arn}", lambda: self._follow(streams, sqs, stream, function))

    def stop(self) -> None:
        """Start nothing more. What is under way ends with its function."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the threads, whose functions have been stopped; at most a second."""
        end = time.monotonic() + _MAX_END
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _start(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep(self, rule: str, interval: float, function: Invokes) -> None:
        due = time.monotonic() + interval
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self._note(rule, function.invoke(schedule_event(rule, time.time())))
            due = next_tick(due, time.monotonic(), interval)

    def _poll(self, sqs: Any, source: Source, function: Invokes) -> None:
        """One thread receives, and each batch has its own: an idle queue costs the same for every concurrency."""
        free, pause = threading.Semaphore(source.max_concurrency), _FIRST_PAUSE
        while not self._stopping.wait(pause):
            # Before a batch is received: its messages come back after a time, and would be waiting here meanwhile.
            free.acquire()
            messages = self._receive(sqs, source)
            if messages:
                arguments = (sqs, source, messages, function, free)
                threading.Thread(target=self._work_off, args=arguments, name=f"batch-{source.arn}", daemon=True).start()
            else:
                free.release()
            pause = 0.0 if messages else min(max(2 * pause, _FIRST_PAUSE), _LAST_PAUSE)
        for _ in range(source.max_concurrency):
            free.acquire()

    def _receive(self, sqs: Any, source: Source) -> Sequence[Message]:
        """The next batch, empty if there is none or the queue is away."""
        try:
            answer = sqs.receive_message(
                QueueUrl=source.url,
                MaxNumberOfMessages=source.batch_size,
                WaitTimeSeconds=0,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except (ClientError, BotoCoreError) as error:
            self._log(f"{source.arn}: {error}")
            return []
        messages: Sequence[Message] = answer.get("Messages", [])
        return messages

    def _work_off(
        self, sqs: Any, source: Source, messages: Sequence[Message], function: Invokes, free: threading.Semaphore
    ) -> None:
        """Pass one batch on and delete what the function was done with."""
        try:
            outcome = function.invoke(queue_event(messages, source.arn))
            self._note(source.arn, outcome)
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(done(messages, outcome, source.partial))
            ]
            if entries:
                sqs.delete_message_batch(QueueUrl=source.url, Entries=entries)
        except (ClientError, BotoCoreError) as error:
            self._log(f"{source.arn}: {error}")
        finally:
            free.release()

    def _follow(self, streams: Any, sqs: Any, stream: Stream, function: Invokes) -> None:
        place, pause = None, _FIRST_PAUSE
        while not self._stopping.wait(pause):
            try:
                place = place or start_of(streams, stream.arn)
                answer = streams.get_records(ShardIterator=place, Limit=stream.batch_size)
                records = answer["Records"]
                self._pass_on(sqs, stream, list(filter(stream.wanted, records)), function)
                place = answer["NextShardIterator"]
            except (ClientError, BotoCoreError) as error:
                self._log(f"{stream.arn}: {error}")
                records = []
            pause = 0.0 if records else min(max(2 * pause, _FIRST_PAUSE), _LAST_PAUSE)

    def _pass_on(self, sqs: Any, stream: Stream, records: Sequence[Record], function: Invokes) -> None:
        """Pass records on until the function is done with all of them, or they are set aside."""
        waiting, back_off = [(records, 0)] if records else [], _FIRST_BACK_OFF
        while waiting and not self._stopping.is_set():
            batch, retried = waiting.pop(0)
            outcome = function.invoke(stream_event(batch, stream.arn))
            self._note(stream.arn, outcome)
            rest = undone(batch, outcome, stream.partial)
            if not rest:
                back_off = _FIRST_BACK_OFF
                continue
            if retried >= stream.retries:
                sqs.send_message(QueueUrl=stream.failures_url, MessageBody=json.dumps(failure(rest, stream, retried)))
                continue
            if len(rest) < len(batch):
                waiting.insert(0, (rest, retried))
            elif stream.bisect and len(batch) > 1:
                middle = len(batch) // 2
                waiting[:0] = [(batch[:middle], retried), (batch[middle:], retried)]
            else:
                waiting.insert(0, (batch, retried + 1))
            self._stopping.wait(back_off)
            back_off = min(2 * back_off, _LAST_BACK_OFF)

    def _note(self, name: str, outcome: Outcome) -> None:
        if outcome.kind != "ok" and not self._stopping.is_set():
            self._log(f"{name}: {outcome.kind}: {outcome.payload.get('errorMessage')}")


def next_tick(due: float, now: float, interval: float) -> float:
    """The tick that follows the one which was due, leaving out those that have passed by `now`."""
    return due + interval * max(1, math.ceil((now - due) / interval))


def done(messages: Sequence[Message], outcome: Outcome, partial: bool) -> Sequence[Message]:
    """The messages that are not to come back, as Lambda reads a function's answer to them."""
    if outcome.kind != "ok":
        return []
    if not partial or not isinstance(outcome.payload, dict):
        return messages
    try:
        failed = {failure["itemIdentifier"] for failure in outcome.payload.get("batchItemFailures") or []}
    except (TypeError, KeyError):
        return []
    # Whoever names a message that is not there has mixed something up, so nothing is taken for done.
    if not failed <= {message["MessageId"] for message in messages}:
        return []
    return [message for message in messages if message["MessageId"] not in failed]


def start_of(streams: Any, arn: str) -> str:
    """The iterator at the beginning of a stream, of which there is one shard here."""
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    where = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator: str = streams.get_shard_iterator(**where)["ShardIterator"]
    return iterator


def undone(records: Sequence[Record], outcome: Outcome, partial: bool) -> Sequence[Record]:
    """The records that are to come again, as Lambda reads a function's answer: all from the first that failed on."""
    if outcome.kind != "ok":
        return records
    if not partial or not isinstance(outcome.payload, dict):
        return []
    places = [record["dynamodb"]["SequenceNumber"] for record in records]
    try:
        failed = {failure["itemIdentifier"] for failure in outcome.payload.get("batchItemFailures") or []}
    except (TypeError, KeyError):
        return records
    if not failed <= set(places):
        return records
    return records[min(map(places.index, failed)) :] if failed else []


def failure(records: Sequence[Record], stream: Stream, retried: int) -> dict[str, Any]:
    """What Lambda tells of records that it gives up: where they are, and nothing of what they hold."""
    first, last = records[0]["dynamodb"], records[-1]["dynamodb"]
    return {
        "version": "1.0",
        "requestContext": {"condition": "RetryAttemptsExhausted", "approximateInvokeCount": retried + 1},
        "DDBStreamBatchInfo": {
            "streamArn": stream.arn,
            "startSequenceNumber": first["SequenceNumber"],
            "endSequenceNumber": last["SequenceNumber"],
            "batchSize": len(records),
        },
    }


def stream_event(records: Sequence[Record], arn: str) -> dict[str, Any]:
    """What Lambda makes of records that it read from the stream with this ARN."""
    return {"Records": [_change(record, arn) for record in records]}


def _change(record: Record, arn: str) -> dict[str, Any]:
    change = dict(record["dynamodb"])
    change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
    return {**record, "dynamodb": change, "eventSourceARN": arn}


def schedule_event(rule: str, now: float) -> dict[str, Any]:
    """What EventBridge sends when a rule's time has come; `now` in Unix seconds."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{rule}"],
        "detail": {},
    }


def queue_event(messages: Sequence[Message], arn: str) -> dict[str, Any]:
    """What Lambda makes of messages that it received from the queue with this ARN."""
    return {"Records": [_record(message, arn) for message in messages]}


def _record(message: Message, arn: str) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {f"{key[0].lower()}{key[1:]}": value for key, value in attribute.items()}
            for name, attribute in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": REGION,
    }

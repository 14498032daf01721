"""Lambda's event sources: schedules, queues and DynamoDB streams, which invoke functions without an HTTP request.

Hides the poller threads, the format of the events, and the partial batch responses. Each poller waits for its
invocations, so that no backlog builds up for a slow or stopped function.
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

from rushes_local.api_gateway import Invocable
from rushes_local.lambda_runtime import ACCOUNT_ID, REGION, Outcome

Log = Callable[[str], None]
Message = Mapping[str, Any]
Record = Mapping[str, Any]

# The shortest interval of a schedule, at any time scale: an idle sweep costs some milliseconds.
_MIN_INTERVAL = 0.2  # seconds

# Pause between two polls of an empty queue or stream, in seconds; it doubles. A long poll would hold one of the threads
# of moto's server.
_MIN_PAUSE = 0.05
_MAX_PAUSE = 0.2

# Backoff between two attempts at the same records, in seconds; it doubles.
_MIN_BACKOFF = 0.05
_MAX_BACKOFF = 1.0

_MAX_JOIN = 1.0  # seconds


@dataclass(frozen=True)
class Source:
    """A queue that invokes a function, with at most `max_concurrency` batches at once.

    `partial`: the function reports the messages that failed.
    """

    url: str
    arn: str
    batch_size: int
    partial: bool
    max_concurrency: int


@dataclass(frozen=True)
class Stream:
    """A table's stream that invokes a function. `wanted` selects its records; the other fields are as in the template.

    An invocation counts as a retry, a split does not. A record that always fails is therefore alone in its batch in the
    end, and goes to the dead-letter queue alone.
    """

    arn: str
    batch_size: int
    partial: bool
    bisect: bool
    retries: int
    failures_url: str
    wanted: Callable[[Record], bool] = field(default=lambda _: True)


class Triggers:
    """Threads that invoke functions until `stop`. `log` receives a line for each failure.

    `repeats_batch` decides for each processed batch of a stream whether it is read and processed again. From Lambda's
    developer guide ("How Lambda processes records from stream and queue-based event sources"): "Lambda event source
    mappings process each event at least once, and duplicate processing of records can occur."
    """

    def __init__(self, log: Log, repeats_batch: Callable[[], bool] = lambda: False) -> None:
        self._log = log
        self._repeats_batch = repeats_batch
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def schedule(
        self, rule: str, interval: float, function: Invocable, pulse: Callable[[], None] | None = None
    ) -> None:
        """Invoke a function every `interval` seconds with a rule's event, and call `pulse` each time.

        Ticks that pass meanwhile are skipped.
        """
        interval = max(interval, _MIN_INTERVAL)
        self._start(f"schedule-{rule}", lambda: self._run_schedule(rule, interval, function, pulse))

    def poll(self, sqs: Any, source: Source, function: Invocable) -> None:
        """Invoke a function with the batches of a queue, as many at once as the source allows."""
        self._start(f"poll-{source.arn}", lambda: self._poll(sqs, source, function))

    def follow(self, streams: Any, sqs: Any, stream: Stream, function: Invocable) -> None:
        """Invoke a function with the records of a table's stream, from its beginning, in order, one batch at a time."""
        self._start(f"follow-{stream.arn}", lambda: self._follow(streams, sqs, stream, function))

    def stop(self) -> None:
        """Start no further invocation. Those in progress end with their functions."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the threads, at most one second. Their functions must have been stopped before."""
        end = time.monotonic() + _MAX_JOIN
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _start(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_schedule(self, rule: str, interval: float, function: Invocable, pulse: Callable[[], None] | None) -> None:
        due = time.monotonic() + interval
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            if pulse:
                pulse()
            self._log_failure(rule, function.invoke(schedule_event(rule, time.time())))
            due = next_tick(due, time.monotonic(), interval)

    def _poll(self, sqs: Any, source: Source, function: Invocable) -> None:
        """Receive in this thread and start one for each batch: so an idle queue costs the same at every concurrency."""
        free, pause = threading.Semaphore(source.max_concurrency), _MIN_PAUSE
        while not self._stopping.wait(pause):
            # Before the batch is received, or its visibility timeout would run while the batch waits here.
            free.acquire()
            messages = self._receive(sqs, source)
            if messages:
                arguments = (sqs, source, messages, function, free)
                name = f"batch-{source.arn}"
                threading.Thread(target=self._process_batch, args=arguments, name=name, daemon=True).start()
            else:
                free.release()
            pause = 0.0 if messages else min(max(2 * pause, _MIN_PAUSE), _MAX_PAUSE)
        for _ in range(source.max_concurrency):
            free.acquire()

    def _receive(self, sqs: Any, source: Source) -> Sequence[Message]:
        """The next batch; empty if the queue is empty or unavailable."""
        try:
            answer = sqs.receive_message(
                QueueUrl=source.url,
                MaxNumberOfMessages=source.batch_size,
                WaitTimeSeconds=0,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except (ClientError, BotoCoreError) as error:
            self._log(f"{source.arn}: receiving failed: {error}")
            return []
        messages: Sequence[Message] = answer.get("Messages", [])
        return messages

    def _process_batch(
        self, sqs: Any, source: Source, messages: Sequence[Message], function: Invocable, free: threading.Semaphore
    ) -> None:
        """Invoke the function with one batch, and delete the messages that it processed."""
        try:
            outcome = function.invoke(queue_event(messages, source.arn))
            self._log_failure(source.arn, outcome)
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(processed_messages(messages, outcome, source.partial))
            ]
            if entries:
                sqs.delete_message_batch(QueueUrl=source.url, Entries=entries)
        except (ClientError, BotoCoreError) as error:
            self._log(f"{source.arn}: deleting failed: {error}")
        finally:
            free.release()

    def _follow(self, streams: Any, sqs: Any, stream: Stream, function: Invocable) -> None:
        iterator, pause = None, _MIN_PAUSE
        while not self._stopping.wait(pause):
            try:
                iterator = iterator or first_iterator(streams, stream.arn)
                answer = streams.get_records(ShardIterator=iterator, Limit=stream.batch_size)
                records = answer["Records"]
                self._process_records(sqs, stream, list(filter(stream.wanted, records)), function)
                if not (records and self._repeats_batch()):
                    iterator = answer["NextShardIterator"]
            except (ClientError, BotoCoreError) as error:
                self._log(f"{stream.arn}: reading failed: {error}")
                records = []
            pause = 0.0 if records else min(max(2 * pause, _MIN_PAUSE), _MAX_PAUSE)

    def _process_records(self, sqs: Any, stream: Stream, records: Sequence[Record], function: Invocable) -> None:
        """Invoke the function until it has processed each record, or the record is in the dead-letter queue."""
        waiting, backoff = [(records, 0)] if records else [], _MIN_BACKOFF
        while waiting and not self._stopping.is_set():
            batch, retried = waiting.pop(0)
            outcome = function.invoke(stream_event(batch, stream.arn))
            self._log_failure(stream.arn, outcome)
            remaining = records_to_retry(batch, outcome, stream.partial)
            if not remaining:
                backoff = _MIN_BACKOFF
                continue
            if retried >= stream.retries:
                record = failure_record(remaining, stream, retried)
                sqs.send_message(QueueUrl=stream.failures_url, MessageBody=json.dumps(record))
                continue
            if len(remaining) < len(batch):
                waiting.insert(0, (remaining, retried))
            elif stream.bisect and len(batch) > 1:
                middle = len(batch) // 2
                waiting[:0] = [(batch[:middle], retried), (batch[middle:], retried)]
            else:
                waiting.insert(0, (batch, retried + 1))
            self._stopping.wait(backoff)
            backoff = min(2 * backoff, _MAX_BACKOFF)

    def _log_failure(self, name: str, outcome: Outcome) -> None:
        if outcome.kind != "ok" and not self._stopping.is_set():
            self._log(f"{name}: {outcome.kind}: {outcome.payload.get('errorMessage')}")


def next_tick(due: float, now: float, interval: float) -> float:
    """The time of the first tick after `due` that is not before `now`, in seconds."""
    return due + interval * max(1, math.ceil((now - due) / interval))


def processed_messages(messages: Sequence[Message], outcome: Outcome, partial: bool) -> Sequence[Message]:
    """The messages to delete, by Lambda's rules for a function's batch response."""
    if outcome.kind != "ok":
        return []
    if not partial or not isinstance(outcome.payload, dict):
        return messages
    try:
        failed = {failure["itemIdentifier"] for failure in outcome.payload.get("batchItemFailures") or []}
    except (TypeError, KeyError):
        return []
    # An unknown message id makes the whole response invalid, so that every message is retried.
    if not failed <= {message["MessageId"] for message in messages}:
        return []
    return [message for message in messages if message["MessageId"] not in failed]


def first_iterator(streams: Any, arn: str) -> str:
    """The iterator at the beginning of a stream, which has a single shard in moto."""
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    position = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator: str = streams.get_shard_iterator(**position)["ShardIterator"]
    return iterator


def records_to_retry(records: Sequence[Record], outcome: Outcome, partial: bool) -> Sequence[Record]:
    """The first failed record and all after it, by Lambda's rules for a function's batch response."""
    if outcome.kind != "ok":
        return records
    if not partial or not isinstance(outcome.payload, dict):
        return []
    numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    try:
        failed = {failure["itemIdentifier"] for failure in outcome.payload.get("batchItemFailures") or []}
    except (TypeError, KeyError):
        return records
    if not failed <= set(numbers):
        return records
    return records[min(map(numbers.index, failed)) :] if failed else []


def failure_record(records: Sequence[Record], stream: Stream, retried: int) -> dict[str, Any]:
    """Lambda's message to the dead-letter queue: the positions of the records in the stream, without their content."""
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
    """Lambda's event with these records of the stream with this ARN."""
    return {"Records": [_stream_record(record, arn) for record in records]}


def _stream_record(record: Record, arn: str) -> dict[str, Any]:
    change = dict(record["dynamodb"])
    change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
    return {**record, "dynamodb": change, "eventSourceARN": arn}


def schedule_event(rule: str, now: float) -> dict[str, Any]:
    """EventBridge's event of a scheduled rule; `now` in Unix seconds."""
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
    """Lambda's event with these messages of the queue with this ARN."""
    return {"Records": [_queue_record(message, arn) for message in messages]}


def _queue_record(message: Message, arn: str) -> dict[str, Any]:
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

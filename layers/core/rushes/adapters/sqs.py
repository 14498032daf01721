"""The queues: the inbox with one task a message, and the deliveries with one attempt a message."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from rushes.adapters.aws import aws_errors
from rushes.domain.delivery import Delivery
from rushes.domain.inbox_message import MAX_MESSAGE_BYTES
from rushes.errors import InboxError, QueueError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

MAX_MESSAGES = 10  # of a batch
_MAX_ATTEMPTS = 4
_MAX_DELAY = 900  # seconds, SQS's limit
_PAUSE = 0.1  # seconds before the second attempt; doubles


class SqsQueue:
    """Sends to one queue."""

    def __init__(self, client: "SQSClient", url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._url, self._sleep = client, url, sleep

    def send(self, texts: Iterable[str]) -> None:
        """Sends these messages; raises `InboxError` unless the queue accepted all of them.

        A repeat may send some of them again: the consumer must be idempotent.
        """
        for batch in batches(texts):
            self._send(batch)

    def _send(self, batch: Sequence[str]) -> None:
        left = {str(number): text for number, text in enumerate(batch)}
        reason = ""
        for attempt in range(_MAX_ATTEMPTS):
            if attempt:
                self._sleep(_PAUSE * 2 ** (attempt - 1))
            with aws_errors(InboxError):
                answer = self._client.send_message_batch(
                    QueueUrl=self._url,
                    Entries=[{"Id": name, "MessageBody": text} for name, text in left.items()],
                )
            failed = answer.get("Failed", [])
            if not failed:
                return
            reason = failed[0]["Code"]
            if any(failure["SenderFault"] for failure in failed):
                break
            left = {failure["Id"]: left[failure["Id"]] for failure in failed}
        raise InboxError(reason)


class SqsDeliveryQueue:
    """Sends attempts at deliveries. The message group is the caller, so that SQS shares its consumers fairly.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """

    def __init__(self, client: Callable[[], "SQSClient"], url: str) -> None:
        """`client` is called at the first delivery: most clips have none, and making a client takes milliseconds."""
        self._client, self._url = cache(client), url

    def send(self, delivery: Delivery, delay: int = 0) -> None:
        """Sends one attempt, to be received after `delay` milliseconds or SQS's maximum of 15 minutes.

        Raises `QueueError`. An attempt that is received too early has to be sent again.
        """
        seconds = min(_MAX_DELAY, max(0, -(-delay // 1000)))
        with aws_errors(QueueError):
            self._client().send_message(
                QueueUrl=self._url, MessageBody=delivery.text, DelaySeconds=seconds, MessageGroupId=delivery.caller
            )


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The messages in their order, in as few batches as SQS's limits allow."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == MAX_MESSAGES or size + length > MAX_MESSAGE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch

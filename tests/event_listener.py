"""A listener on a stack's event bus: a rule that forwards the service's events to a queue, and the received events."""

import json
import uuid
from typing import Any

from rushes_local.stack import Stack

Json = dict[str, Any]
LISTENER = "listener-"
"""The prefix of all listeners' queues, which none of the stack's own queues has."""

_MAX_MESSAGES = 10


class Listener:
    """Receives every event published from now on. Events arrive in any order, and some of them twice."""

    def __init__(self, stack: Stack) -> None:
        self.name = f"{LISTENER}{uuid.uuid4().hex[:8]}"
        self.received: list[Json] = []
        self._sqs = stack.client("sqs")
        events = stack.client("events")
        self.queue_url: str = self._sqs.create_queue(QueueName=self.name)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["QueueArn"])["Attributes"]
        events.put_rule(Name=self.name, EventBusName=stack.bus_name, EventPattern=json.dumps({"source": ["rushes"]}))
        target = {"Id": "queue", "Arn": attributes["QueueArn"]}
        events.put_targets(Rule=self.name, EventBusName=stack.bus_name, Targets=[target])

    def listen(self) -> list[Json]:
        """Every event received so far, in the order of arrival. Polls the queue without waiting."""
        while True:
            found = self._sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=_MAX_MESSAGES).get(
                "Messages", []
            )
            if not found:
                return self.received
            self.received += [json.loads(message["Body"]) for message in found]
            done = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(found)]
            self._sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=done)

    def about(self, clip_uuid: str) -> list[Json]:
        """The events about one clip so far."""
        return [event for event in self.listen() if event["detail"]["clipUUID"] == clip_uuid]

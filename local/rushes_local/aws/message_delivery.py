"""Delivery of events and messages as in AWS: some twice, some late, and some while they are being processed.

moto delivers each event once and each message in order. From EventBridge's reference ("Delivery level for AWS service
events"): "Durable delivery means the service will successfully attempt to deliver events to EventBridge at least once."
Its "Troubleshooting" has "My rule ran more than once in response to one event". From S3's user guide ("Amazon S3 Event
Notifications"): "Amazon S3 event notifications are designed to be delivered at least once. Typically, event
notifications are delivered in seconds but can sometimes take a minute or longer." From SQS's developer guide ("Amazon
SQS standard queues"): "more than one copy of a message might be delivered, and messages may occasionally arrive out of
order". From the AWS SDKs' guides ("Setting Visibility Timeout in Amazon SQS"): "When using standard queues, visibility
timeout isn't a guarantee against receiving a message twice."
"""

import json
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from rushes_local.aws.behavior import AwsBehavior, Chance

Send = Callable[[Any, str, dict[str, Any], str | None], None]
Add = Callable[[Any, Any], None]


def deliver(behavior: AwsBehavior, chance: Chance) -> None:
    """Set the delivery of moto's rules and queues for this process. Imports moto."""
    from moto.events.models import Rule
    from moto.sqs.models import Queue

    send = getattr(Rule._send_to_sqs_queue, "__wrapped__", Rule._send_to_sqs_queue)
    add = getattr(Queue.add_message, "__wrapped__", Queue.add_message)
    Rule._send_to_sqs_queue = _repeated(send, behavior, chance) if behavior.repeated_events else send  # type: ignore[method-assign,assignment]
    Queue.add_message = _late(add, behavior, chance) if behavior.late_seconds else add  # type: ignore[method-assign,assignment]


def _repeated(send: Send, behavior: AwsBehavior, chance: Chance) -> Send:
    @wraps(send)
    def send_to_queue(rule: Any, name: str, event: dict[str, Any], group_id: str | None = None) -> None:
        if chance.happens(behavior.repeated_events, "event repeated"):
            send(rule, name, dict(event), group_id)  # a copy, because moto changes the format of its time
        send(rule, name, event, group_id)

    return send_to_queue


def _late(add: Add, behavior: AwsBehavior, chance: Chance) -> Add:
    @wraps(add)
    def add_message(queue: Any, message: Any) -> None:
        if not queue.fifo_queue:
            now = time.time() * 1000
            message.delayed_until = max(message.delayed_until, now) + 1000 * chance.below(behavior.late_seconds)
        add(queue, message)

    return add_message


def leave_visible(request: bytes) -> bytes:
    """A `ReceiveMessage` request whose messages can be received again at once, as if their timeout had lapsed."""
    return json.dumps({**json.loads(request), "VisibilityTimeout": 0}).encode()

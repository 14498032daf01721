"""Fair queues: messages of quiet groups are received before those of groups with many messages in flight.

moto's standard queues ignore message groups and give out messages in their order. From SQS's developer guide ("How
Amazon SQS fair queues work"): "When fair queues detect that one tenant is using a disproportionate share of the queue's
consumer capacity, they prioritize delivery of messages from quiet tenants." Here the groups with the fewest messages in
flight come first, and messages of one group stay in their order.
"""

from collections import Counter
from functools import wraps
from typing import Any


def make_queues_fair() -> None:
    """Change moto's standard queues for this process; a second call changes nothing. Imports moto."""
    from moto.sqs.models import Queue

    original = vars(Queue)["messages"].fget
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def messages(queue: Any) -> list[Any]:
        visible: list[Any] = original(queue)
        if queue.fifo_queue or not any(message.group_id for message in visible):
            return visible
        in_flight = Counter(message.group_id for message in queue._messages if not message.visible)
        return sorted(visible, key=lambda message: in_flight[message.group_id])

    Queue.messages = property(messages)  # type: ignore[assignment,method-assign]

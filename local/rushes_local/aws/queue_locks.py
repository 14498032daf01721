"""Makes moto's queues safe under threads: no message is lost, and none is received twice before its timeout.

To delete a message, moto replaces the list of messages by a copy without it. A message that another thread sends
meanwhile is not in the copy, and is lost. To receive one, moto iterates over sets that other threads change, and
several threads can find the same message. So these methods hold the queue's lock, with which moto adds messages.
"""

from functools import wraps
from typing import Any


def lock_queues() -> None:
    """Change moto's queues for this process; a second call changes nothing. Imports moto."""
    from moto.sqs.models import Queue, SQSBackend

    delete, receive = Queue.delete_message, SQSBackend.receive_message
    if hasattr(delete, "__wrapped__"):
        return

    @wraps(delete)
    def delete_message(queue: Any, *arguments: Any) -> None:
        with queue._messages_lock:
            delete(queue, *arguments)

    @wraps(receive)
    def receive_message(backend: Any, queue_name: str, *arguments: Any) -> list[Any]:
        # A long poll releases the lock: it waits on the condition to which the lock belongs.
        with backend.get_queue(queue_name)._messages_lock:
            return receive(backend, queue_name, *arguments)

    Queue.delete_message = delete_message  # type: ignore[method-assign,assignment]
    SQSBackend.receive_message = receive_message  # type: ignore[method-assign,assignment]

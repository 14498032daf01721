"""Detours of moto that grow with every message, cut short.

Hides two changes to moto: it lists the folder of its services for each request, a fifth of what a request takes; and
for each message that it gives out it counts all messages of the queue, to learn how long that keeps them.
"""


def cut_short() -> None:
    """Change moto for this process. Imports moto."""
    from moto import backends
    from moto.sqs.models import SQSBackend

    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    # Queues keep messages for days, and no stack lives so long.
    SQSBackend.is_message_valid_based_on_retention_period = lambda *_: True  # type: ignore[method-assign]

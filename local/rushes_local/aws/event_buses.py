"""A correction of moto's event buses: in a template, `!Ref` of a bus is its name.

In moto's CloudFormation a bus has no physical id, unlike every other resource, so that a reference to it becomes the
text of a Python object.
"""


def name_event_buses() -> None:
    """Change moto's event buses for this process; a second call changes nothing. Imports moto."""
    from moto.events.models import EventBus

    EventBus.physical_resource_id = property(lambda bus: bus.name)  # type: ignore[attr-defined]

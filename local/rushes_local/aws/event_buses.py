"""moto's event buses, mended: in a template, `!Ref` of a bus is its name.

Hides that moto's CloudFormation gives every other resource an id of its own and forgot the buses: what refers to one
gets a Python object written out.
"""


def name_buses() -> None:
    """Change moto's event buses for this process; a second call changes nothing. Imports moto."""
    from moto.events.models import EventBus

    EventBus.physical_resource_id = property(lambda bus: bus.name)  # type: ignore[attr-defined]

"""moto's DynamoDB requests and answers, their attribute values read and written as they are.

Hides two changes to moto. It writes every attribute value through its general serializer, which looks for many
spellings of each of the ten members that a value may have: six sevenths of the time of every answer with items in it.
Here a value, which has its wire format already, is copied. And it reads every value through its general parser, which
looks for all ten; here the plain ones, in which nothing is encoded, are taken as they come.
"""

import base64
from typing import Any

_PLAIN = frozenset({"S", "N", "BOOL", "NULL"})


def copy_values() -> None:
    """Change moto's serializer and parser for this process; a second call changes nothing. Imports moto."""
    from moto.core.parse import BaseJSONParser
    from moto.core.serialize import BaseJSONSerializer

    genuine = BaseJSONSerializer._serialize_type_structure
    if genuine.__module__ == __name__:
        return

    def serialize(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and value is not None:
            serialized[key] = _written(value)
        else:
            genuine(self, serialized, value, shape, key)

    BaseJSONSerializer._serialize_type_structure = serialize  # type: ignore[method-assign]
    parsed = BaseJSONParser._parse_structure

    def parse(self: Any, shape: Any, value: Any) -> Any:
        if shape.name == "AttributeValue" and isinstance(value, dict) and len(value) == 1:
            ((kind, inner),) = value.items()
            if kind in _PLAIN and inner is not None:
                return {kind: inner}
        return parsed(self, shape, value)  # type: ignore[no-untyped-call]

    BaseJSONParser._parse_structure = parse  # type: ignore[method-assign]


def _written(value: Any) -> dict[str, Any]:
    """A value's wire format; inside a map or a list moto may still have its own objects."""
    ((kind, inner),) = (value if isinstance(value, dict) else value.to_json()).items()
    match kind:
        case "M":
            return {kind: {name: _written(member) for name, member in inner.items()}}
        case "L":
            return {kind: [_written(member) for member in inner]}
        case "B" if isinstance(inner, bytes):
            return {kind: base64.b64encode(inner).decode()}
        case "BS":
            return {kind: [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in inner]}
        case "S" | "N":
            return {kind: str(inner)}
    return {kind: inner}

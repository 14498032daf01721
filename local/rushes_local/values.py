"""moto's attribute values, walked once.

Hides three changes to moto: to write a value out, to measure and to copy it, moto copies or wraps the whole value again
at each of its levels. An update does each of them several times to its whole item, and a clip is four levels deep.
"""

import base64
from typing import Any


def walk_once() -> None:
    """Change moto for this process; a second call changes nothing. Imports moto."""
    from moto.dynamodb.models.dynamo_type import DynamoType

    DynamoType.to_regular_json = _written  # type: ignore[method-assign,assignment]
    DynamoType.size = _size  # type: ignore[method-assign,assignment]
    DynamoType.__deepcopy__ = _copied  # type: ignore[method-assign,assignment]


def _written(value: Any) -> dict[str, Any]:
    inner = value.value
    match value.type:
        case "M":
            return {"M": {name: _written(member) for name, member in inner.items()}}
        case "L":
            return {"L": [_written(member) for member in inner]}
        case "B" if isinstance(inner, str):
            return {"B": base64.b64decode(inner)}
        case "SS" | "NS" | "BS":
            return {value.type: list(inner)}
    return {value.type: inner}


def _size(value: Any) -> int:
    """By moto's rule, which is nearly DynamoDB's: a number counts its digits."""
    inner = value.value
    match value.type:
        case "M":
            return sum(len(name.encode()) + _size(member) for name, member in inner.items())
        case "L":
            return sum(map(_size, inner))
        case "SS" | "NS" | "BS":
            return sum(map(_length, inner))
    return 1 if isinstance(inner, bool) else _length(inner)


def _length(text: Any) -> int:
    return len(text if isinstance(text, bytes) else str(text).encode())


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    copied = object.__new__(type(value))
    copied.type, inner = value.type, value.value
    match value.type:
        case "M":
            copied.value = {name: _copied(member, memo) for name, member in inner.items()}
        case "L":
            copied.value = [_copied(member, memo) for member in inner]
        case "SS" | "NS" | "BS":
            copied.value = list(inner)
        case _:
            copied.value = inner
    return copied

"""DynamoDB's typed JSON for the types in the table: text, whole numbers, booleans, null, lists and maps. Pure.

boto3 has the same for all types, but its import takes a tenth of a cold start, and it parses each number as a decimal;
the table has only whole numbers.
"""

from collections.abc import Mapping
from typing import Any


def wire(value: object) -> dict[str, Any]:
    """A value in DynamoDB's format; raises `TypeError` for a type that the table does not use."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case Mapping():
            return {"M": {name: wire(member) for name, member in value.items()}}
        case list() | tuple():
            return {"L": [wire(member) for member in value]}
    raise TypeError(f"the table has no attributes of type {type(value).__name__}")


def plain(value: Mapping[str, Any]) -> Any:
    """A value from DynamoDB's format; raises `TypeError` for a type that the table does not use."""
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "N":
            return int(content)
        case "M":
            return {name: plain(member) for name, member in content.items()}
        case "L":
            return [plain(member) for member in content]
        case "NULL":
            return None
    raise TypeError(f"the table has no attributes of type {kind}")

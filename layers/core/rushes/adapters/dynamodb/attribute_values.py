"""DynamoDB's typed JSON, as far as the table uses it: text, whole numbers, booleans, null, lists and maps. Pure.

boto3 has the same for every type there is. Importing it costs a tenth of a cold start, and it reads each number as a
decimal first; whole numbers are all that is kept here.
"""

from collections.abc import Mapping
from typing import Any


def wire(value: object) -> dict[str, Any]:
    """A value as DynamoDB takes it; raises `TypeError` for what the table never holds."""
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
    raise TypeError(f"the table holds no {type(value).__name__}")


def plain(value: Mapping[str, Any]) -> Any:
    """A value as DynamoDB gave it; raises `TypeError` for what the table never holds."""
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
    raise TypeError(f"the table holds no {kind}")

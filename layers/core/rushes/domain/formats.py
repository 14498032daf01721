"""The written forms of values: canonical JSON, ISO 8601 times, dollars and UUIDs.

The service works in milliseconds and micro-dollars. The conversions to and from the formats of people and callers are
here, each once. Pure.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

MAX_DOLLARS = 10**9  # of any configured amount: its micro-dollars are exact in JSON and in the table
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
UUID4_SCHEMA: dict[str, Any] = {
    "format": "uuid",
    "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$",
}
"""The same as a JSON Schema, with letters of either case."""
_MAX_EXACT_FLOAT = 2**53  # up to here each integer has an exact float


def canonical(value: object) -> str:
    """Returns the canonical JSON text of a value: sorted keys, no spaces, integral floats as integers (5.0 as 5).

    Floats beyond 2**53 stay floats: they do not represent each integer, and 1e308 would become 309 digits.
    """
    return json.dumps(
        _integral_floats_as_integers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _integral_floats_as_integers(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT_FLOAT:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _integral_floats_as_integers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_integral_floats_as_integers(member) for member in value]
    return value


def iso(at: int) -> str:
    """Returns a time in milliseconds since the epoch as `2026-11-24T13:35:45.123Z`."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dollars(amount: int) -> float:
    """Returns an amount of micro-dollars in dollars."""
    return amount / 1_000_000


def micro_dollars(text: str) -> int:
    """Returns dollars in decimal notation as micro-dollars; raises `ValueError` unless from 0 to `MAX_DOLLARS`."""
    try:
        amount = Decimal(text)
        if not amount.is_finite() or not 0 <= amount <= MAX_DOLLARS:
            raise ValueError(text)
        return int((amount * 1_000_000).to_integral_value())
    except ArithmeticError:
        raise ValueError(text) from None

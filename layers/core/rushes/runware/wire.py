"""Names and shapes of the wire that need no validation library: whoever only reads and answers imports no more."""

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

WireError: TypeAlias = dict[str, Any]
"""One entry of `errors`: code, message, parameter, type, documentation, and min, max or allowedValues."""


DATA_URI = re.compile(r"data:image/(png|jpe?g|webp);base64,", re.IGNORECASE)
# Of a key, S3 takes any text literally; clients that fetch it would resolve parts that are dots alone.
S3_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/((?!(?:.*/)?\.{1,2}(?:/|$))[^\x00-\x1f\x7f]+)")
OURS = ("destination", "tags")  # our own parameters; they never leave


def wire_error(code: str, message: str, parameter: str | Sequence[str] | None = None, **more: Any) -> WireError:
    """An entry of `errors`; absent values are left out."""
    named = {"code": code, "message": message, "parameter": parameter, **more}
    return {name: value for name, value in named.items() if value is not None}

"""Names and shapes of the wire format that need no validation library, for functions that only read and answer."""

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

WireError: TypeAlias = dict[str, Any]
"""An entry of `errors`: code, message, parameter, type, documentation, and min, max or allowedValues."""


# The declared type is ignored, since senders derive it from a file's name: the bytes decide.
DATA_URI = re.compile(r"data:[^,\s]{0,100};base64,", re.IGNORECASE)
# S3 takes a key literally, but clients that fetch it resolve parts that are only dots.
S3_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/((?!(?:.*/)?\.{1,2}(?:/|$))[^\x00-\x1f\x7f]+)")
# Runware recommends a low, steady concurrency, and the work on a clip is mostly waiting for Runware.
MAX_AT_ONCE = 8
# Our own parameters, which are not sent to Runware. Its webhook goes to this service; `deliver` sends the caller's.
OURS = ("destination", "tags", "webhookURL", "fallback", "fallbackOnModeration")


def wire_error(code: str, message: str, parameter: str | Sequence[str] | None = None, **more: Any) -> WireError:
    """Returns an entry of `errors` without the fields that are None."""
    fields = {"code": code, "message": message, "parameter": parameter, **more}
    return {name: value for name, value in fields.items() if value is not None}


def of_model(model: str, fault: WireError) -> WireError:
    """Returns a fault that a task has for one model of its fallback."""
    if fault.get("parameter") == "model":
        fault = {**fault, "parameter": "fallback"}
    return {**fault, "message": f"As an order for {model[:100]}: {fault['message']}", "model": model[:100]}

"""The refusals of a file's tasks as text: by line, with the value and the allowed ones, equal reasons together. Pure.

A refusal is an entry of the service's `errors`; `line` (of a file of lines) or `task` (of an array) is its place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rushes_cli.api_client import refusal

Json = dict[str, Any]

_MAX_VALUE = 40  # characters
_ECHOED = 36  # the service repeats no longer taskUUID in its errors


def uuid_faults(tasks: Sequence[Json]) -> dict[int, Json]:
    """The errors of tasks, by their positions, whose taskUUIDs cannot identify them.

    The service compares the taskUUIDs of one request only; a file may need several.
    """
    faults: dict[int, Json] = {}
    positions: dict[str, list[int]] = {}
    for position, task in enumerate(tasks):
        task_uuid = task["taskUUID"]
        if isinstance(task_uuid, str) and len(task_uuid) <= _ECHOED:
            positions.setdefault(task_uuid.lower(), []).append(position)
        else:
            message = "taskUUID must be a UUID v4 of 36 characters."
            faults[position] = {"code": "invalidTaskUUID", "message": message, "parameter": "taskUUID"}
    for task_uuid, repeated in positions.items():
        if len(repeated) > 1:
            error = {
                "code": "duplicateTaskUUID",
                "message": f"Several tasks have the taskUUID {task_uuid}.",
                "parameter": "taskUUID",
                "taskUUID": task_uuid,
            }
            faults |= dict.fromkeys(repeated, error)
    return faults


def reason(error: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """A refusal as text: `duration 7: 5 or 10` if the value breaks the error's limits, or else code and message."""
    parameter = error.get("parameter")
    names = [str(name) for name in parameter] if isinstance(parameter, list) else [str(parameter)]
    values = [_value(task, name) for name in names]
    allowed = _allowed(error, values)
    if not allowed or not all(map(_is_short, values)):
        return refusal(error)
    return f"{', '.join(names)} {'x'.join(map(str, values))}: {allowed}"


def grouped(refused: Iterable[tuple[Json, str]]) -> list[str]:
    """Lines of text for refusals with their reasons: those of one reason, apart from amounts, are one line."""
    groups: dict[tuple[str, str], tuple[str, list[int]]] = {}
    lines: list[str] = []
    for error, text in refused:
        kind = next((name for name in ("line", "task") if name in error), "")
        if not kind:
            lines.append(f"{error.get('taskUUID', '')} {text}".strip())
            continue
        _, numbers = groups.setdefault((kind, _without_amounts(error, text)), (text, []))
        numbers.append(error[kind])
    ordered = sorted(groups.items(), key=lambda group: min(group[1][1]))
    return [f"{places(kind, numbers)}: {text}" for (kind, _), (text, numbers) in ordered] + lines


def places(kind: str, numbers: Iterable[int]) -> str:
    """Numbers in words: `line 7`, `lines 2, 4 and 18 to 200`."""
    ordered = sorted(set(numbers))
    starts = [ordered[0], *(after for before, after in pairwise(ordered) if after != before + 1)]
    ends = [*(before for before, after in pairwise(ordered) if after != before + 1), ordered[-1]]
    ranges: list[str] = []
    for start, end in zip(starts, ends, strict=True):
        ranges += [str(start), str(end)][: end - start + 1] if end - start < 2 else [f"{start} to {end}"]
    return f"{kind}{'s' if len(ordered) > 1 else ''} {_listed(ranges, 'and')}"


def _without_amounts(error: Mapping[str, Any], text: str) -> str:
    return re.sub(r"\$[\d.]+", "$", text) if error.get("code") == "budgetExceeded" else text


def _allowed(error: Mapping[str, Any], values: Sequence[object]) -> str:
    """The allowed values, or the limits of a number that is outside them: a text's limits are of its length."""
    allowed, least, most = error.get("allowedValues"), error.get("min"), error.get("max")
    if isinstance(allowed, list) and allowed:
        return _listed(list(map(str, allowed)), "or")
    low, high = (limit if _is_number(limit) else None for limit in (least, most))
    if not any(_is_outside(value, low, high) for value in values):
        return ""
    if low is None or high is None:
        return f"at least {low}" if high is None else f"at most {high}"
    return f"{low} to {high}"


def _listed(words: Sequence[str], conjunction: str) -> str:
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _value(task: Mapping[str, Any], path: str) -> object:
    """The value of a parameter such as `safety.mode`; None if it is missing."""
    value: object = task
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_outside(value: object, low: float | None, high: float | None) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return (low is not None and value < low) or (high is not None and value > high)


def _is_short(value: object) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= _MAX_VALUE

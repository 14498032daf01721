"""Tasks for `POST /v1` from arguments and files. The service validates them.

No I/O except for reading the named files.
"""

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rushes_cli import task_faults
from rushes_cli.exits import UsageError

Json = dict[str, Any]

# The limits of one request to the service.
MAX_TASKS = 20
MAX_CLIPS = 20
MAX_BYTES = 4_500_000

_MAX_IMAGE_BYTES = 3_000_000  # must fit into one request in base64
_URL = re.compile(r"(https?|s3|data):", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TAG_SEPARATOR = re.compile(r"[:=]")
_SIZE = re.compile(r"(\d{1,5})[xX](\d{1,5})")


class TaskFile(NamedTuple):
    """The tasks of a file, the place of each such as `{"line": 7}`, and the errors of lines that hold no task."""

    tasks: list[Json]
    places: list[Json]
    faults: list[Json]


def read(content: bytes, name: str, *, prompts: bool = False, skip_faults: bool = False) -> TaskFile:
    """The tasks of a file: one task, an array, or one task per line.

    With `prompts`, text other than JSON is one prompt. Text with a JSON object on one of its lines is a file of lines,
    also if another line has a fault.

    Raises `UsageError` with the file and the lines, unless `skip_faults` keeps their errors.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeError:
        raise UsageError(f"{name} is not UTF-8 text") from None
    if not text.strip():
        raise UsageError(f"{name} is empty")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Not splitlines(), which also splits at characters that are allowed in a JSON text.
        lines = re.split("\r\n|\n|\r", text)
        has_objects = any(map(_is_object, lines))
        if prompts and not has_objects:
            return TaskFile([{"positivePrompt": text.strip()}], [{}], [])
        if not has_objects or text.lstrip().startswith("["):
            raise UsageError(f"{name} is not valid JSON: {error}") from None
        return _of_lines(lines, name, skip_faults=skip_faults)
    if prompts and not isinstance(parsed, dict | list):
        return TaskFile([{"positivePrompt": text.strip()}], [{}], [])
    tasks = parsed if isinstance(parsed, list) else [parsed]
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UsageError(f"{name} must contain a JSON object, an array of objects, or one object per line")
    return TaskFile(tasks, [{"task": number} for number in range(1, len(tasks) + 1)], [])


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _of_lines(lines: Sequence[str], name: str, *, skip_faults: bool) -> TaskFile:
    found = TaskFile([], [], [])
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            task, message = json.loads(line), "not a JSON object"
        except json.JSONDecodeError as error:
            task, message = None, f"not valid JSON ({error.msg} at column {error.colno})"
        except (ValueError, RecursionError) as error:
            task, message = None, f"not valid JSON ({error})"
        if isinstance(task, dict):
            found.tasks.append(task)
            found.places.append({"line": number})
        else:
            found.faults.append({"code": "invalidTask", "message": message, "line": number})
    if found.faults and not skip_faults:
        groups = task_faults.grouped((fault, str(fault["message"])) for fault in found.faults)
        raise UsageError(f"{name}, {'; '.join(groups)}")
    return found


def completed(task: Mapping[str, Any], options: Mapping[str, Any]) -> Json:
    """A task with the options as defaults; tags of both are merged."""
    tags = {**options.get("tags", {}), **(task.get("tags") or {})} if isinstance(task.get("tags", {}), dict) else None
    filled = {**options, **task}
    return {**filled, "tags": tags} if tags else filled


def size(text: str) -> tuple[int, int]:
    """`1920x1080` as width and height. Raises `UsageError` for another form."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError("--size must have the form WIDTHxHEIGHT, such as 1920x1080")
    return int(found[1]), int(found[2])


def tags(pairs: Iterable[str]) -> dict[str, str]:
    """Pairs `name=value` or `name:value` as an object. Raises `UsageError` for another form."""
    return dict(map(split_tag, pairs))


def split_tag(text: str) -> tuple[str, str]:
    """A tag's name and value, split at the first `:` or `=`: a name has neither, a value may have both."""
    name, *value = _TAG_SEPARATOR.split(text, maxsplit=1)
    if not (name and value):
        raise UsageError("--tag must have the form name=value or name:value")
    return name, value[0]


def image(text: str) -> str:
    """An image for the service: a URL or UUID is unchanged, a file becomes a data URI."""
    if _URL.match(text) or _UUID.fullmatch(text):
        return text
    try:
        content = Path(text).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"{text}: {error.strerror}") from None
    kind = _kind(content[:12])
    if kind is None:
        raise UsageError(f"{text} is not a PNG, JPEG or WEBP image")
    if len(content) > _MAX_IMAGE_BYTES:
        raise UsageError(
            f"{text} is larger than {_MAX_IMAGE_BYTES // 1_000_000} MB; use an https:// or s3:// URL instead"
        )
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _kind(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def clips(task: Mapping[str, Any]) -> int:
    """The number of clips in a task; 1 if it is not a positive integer."""
    count = task.get("numberResults", 1)
    return count if isinstance(count, int) and count > 0 else 1


def batches(tasks: Sequence[Json]) -> Iterator[list[Json]]:
    """The tasks in order, grouped into requests within the limits."""
    batch: list[Json] = []
    batch_clips = batch_bytes = 0
    for task in tasks:
        count, length = clips(task), len(json.dumps(task)) + 2
        is_full = len(batch) == MAX_TASKS or batch_clips + count > MAX_CLIPS or batch_bytes + length > MAX_BYTES
        if batch and is_full:
            yield batch
            batch, batch_clips, batch_bytes = [], 0, 0
        batch.append(task)
        batch_clips, batch_bytes = batch_clips + count, batch_bytes + length
    if batch:
        yield batch


def derived_uuid(task_uuid: str, attempt: int, repeated: Iterable[int]) -> str:
    """The deterministic UUID of a retry, from the task, the attempt and the repeated clips."""
    name = f"retry {task_uuid.lower()} {attempt} {','.join(map(str, sorted(set(repeated))))}"
    return str(uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4))


def digest(url: str, api_key: str, tasks: Sequence[Json]) -> str:
    """The SHA-256 that identifies a submission: URL, key and tasks."""
    content = json.dumps([url, hashlib.sha256(api_key.encode()).hexdigest(), tasks], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()

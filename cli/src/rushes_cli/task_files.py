"""What was typed, or lies in a file, as tasks for `POST /v1`. Whether they are valid is for the service to say.

Pure but for reading the files that are named.
"""

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rushes_cli.exits import UsageError

Json = dict[str, Any]

# What one request to the service may hold.
MAX_TASKS = 20
MAX_CLIPS = 20
MAX_BYTES = 4_500_000

_MAX_IMAGE_BYTES = 3_000_000  # bytes; in base64 it has to fit into one request
_ELSEWHERE = re.compile(r"(https?|s3|data):", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SIZE = re.compile(r"(\d{1,5})[xX](\d{1,5})")


def read(content: bytes, name: str, *, prompts: bool = False) -> list[Json]:
    """The tasks of a file: one, an array of them, or one a line. `prompts`: text that is no JSON is one prompt.

    Raises `UsageError` naming the file and the line.
    """
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeError:
        raise UsageError(f"{name} is not UTF-8 text") from None
    if not text:
        raise UsageError(f"{name} is empty")
    if prompts and text[0] not in "[{":
        return [{"positivePrompt": text}]
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\n" not in text:
            raise UsageError(f"{name} is not JSON: {error}") from None
        return list(_lines(text, name))
    tasks = whole if isinstance(whole, list) else [whole]
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UsageError(f"{name} must hold a task, an array of tasks, or one task a line")
    return tasks


def _lines(text: str, name: str) -> Iterator[Json]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            task = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}, line {number} is not JSON: {error}") from None
        if not isinstance(task, dict):
            raise UsageError(f"{name}, line {number} is not a task")
        yield task


def completed(task: Mapping[str, Any], options: Mapping[str, Any]) -> Json:
    """A task with what it leaves open taken from the options; tags are joined."""
    tags = {**options.get("tags", {}), **(task.get("tags") or {})} if isinstance(task.get("tags", {}), dict) else None
    filled = {**options, **task}
    return {**filled, "tags": tags} if tags else filled


def size(text: str) -> tuple[int, int]:
    """`1920x1080` as width and height."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError("--size is written as 1920x1080")
    return int(found[1]), int(found[2])


def tags(pairs: Iterable[str]) -> dict[str, str]:
    """`name=value`, several times, as an object."""
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not (name and separator):
            raise UsageError("--tag is written as name=value")
        found[name] = value
    return found


def image(text: str) -> str:
    """An image as the service takes it: an address or UUID as it is, a file as a data URI."""
    if _ELSEWHERE.match(text) or _UUID.fullmatch(text):
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
            f"{text} is larger than {_MAX_IMAGE_BYTES // 1_000_000} MB; give it as a URL or as an s3:// address"
        )
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _kind(head: bytes) -> str | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def clips(task: Mapping[str, Any]) -> int:
    """How many clips a task asks for, as far as that is a number."""
    count = task.get("numberResults", 1)
    return count if isinstance(count, int) and count > 0 else 1


def batches(tasks: Sequence[Json]) -> Iterator[list[Json]]:
    """The tasks in as few requests as they fit into, in their order."""
    batch: list[Json] = []
    held = weight = 0
    for task in tasks:
        count, length = clips(task), len(json.dumps(task)) + 2
        if batch and (len(batch) == MAX_TASKS or held + count > MAX_CLIPS or weight + length > MAX_BYTES):
            yield batch
            batch, held, weight = [], 0, 0
        batch.append(task)
        held, weight = held + count, weight + length
    if batch:
        yield batch


def derived_uuid(task_uuid: str, attempt: int, repeated: Iterable[int]) -> str:
    """The UUID of a task that repeats some clips of another one: the same whenever the same is repeated."""
    name = f"retry {task_uuid.lower()} {attempt} {','.join(map(str, sorted(set(repeated))))}"
    return str(uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4))


def digest(url: str, api_key: str, tasks: Sequence[Json]) -> str:
    """What tells one submission from another: where it goes, who sends it, and what it says."""
    said = json.dumps([url, hashlib.sha256(api_key.encode()).hexdigest(), tasks], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()

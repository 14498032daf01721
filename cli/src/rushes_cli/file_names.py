"""Names for downloaded clips: by default from taskUUID and clip number, otherwise from a template such as
`{tag.photo}-{n}`. Pure.

The values come from callers and from the service, so they are made safe: a name never has a separator of folders, a
control character or a leading dot or hyphen, and it is short enough for every file system.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from rushes_cli.exits import UsageError
from rushes_cli.output import prompt_of, short_id

Json = dict[str, Any]
Value = Callable[[Json, Json], object]
"""The value of a field for a task and one of its clips; None if it has none."""

FIELDS: Mapping[str, Value] = {
    "taskUUID": lambda task, _: task.get("taskUUID"),
    "id": lambda task, _: short_id(task.get("taskUUID")),
    "n": lambda _, clip: clip.get("clip"),
    "clipUUID": lambda _, clip: clip.get("clipUUID"),
    "date": lambda task, _: str(task.get("createdAt", ""))[: len("yyyy-mm-dd")],
    "prompt": lambda task, _: prompt_of(task)[:_MAX_PROMPT],
    "model": lambda task, _: (task.get("request") or {}).get("model"),
    "destination": lambda task, _: (task.get("request") or {}).get("destination"),
    "seed": lambda _, clip: clip.get("seed"),
}
_TAG = "tag."
_MISSING = "none"  # the text of a field without a value
_MAX_PROMPT = 60  # characters
_MAX_BYTES = 160  # of a name without its ending: with those of partial files it stays below 255
_FIELD = re.compile(r"\{([^{}]*)\}")
_SAFE_CATEGORIES = ("L", "M", "N")  # letters, their marks, and digits
_SAFE_CHARACTERS = frozenset(" ._-+,@()")


class FileName(NamedTuple):
    """The names of a clip's file. `unique` is used if a file with other content has the name `plain`."""

    plain: str
    unique: str


def check_template(template: str) -> None:
    """Raises `UsageError` for a template with an unknown field or a path."""
    for name in _FIELD.findall(template):
        if name not in FIELDS and not (name.startswith(_TAG) and name != _TAG):
            raise UsageError(f"--name has no field {{{name}}}; the fields are {', '.join([*FIELDS, _TAG + 'NAME'])}")
    rest = _FIELD.sub("", template)
    if set("{}") & set(rest):
        raise UsageError("--name has a brace without its counterpart; a field is such as {tag.photo}")
    if not template or set("/\\\0") & set(rest):
        raise UsageError("--name is the name of a file, such as {tag.photo}-{n}; --out names the folder")


def file_names(template: str | None, clips: Sequence[tuple[Json, Json]]) -> list[FileName]:
    """The names for these clips with their tasks; without a template, by taskUUID and clip number.

    No two clips get the same name. Of clips with equal names the first ordered has it, the others their `unique` one,
    so a repeat of the same download finds its files.
    """
    if template is None:
        return [FileName(name, name) for name in (default_name(task, clip) for task, clip in clips)]
    names: dict[int, FileName] = {}
    plain: dict[int, str] = {}
    taken: set[str] = set()
    oldest_first = sorted(range(len(clips)), key=lambda index: _age(*clips[index]))
    for index in oldest_first:
        name = f"{_rendered(template, *clips[index])}.{suffix(clips[index][1])}"
        if _take(name, taken):
            plain[index] = name
    for index in oldest_first:
        unique = next(name for name in _unique_names(template, *clips[index]) if _take(name, taken))
        names[index] = FileName(plain.get(index, unique), unique)
    return [names[index] for index in range(len(clips))]


def default_name(task: Json, clip: Json) -> str:
    """The name of a clip's file from its taskUUID and number. Only the suffix comes from the service."""
    task_uuid, ending = str(task["taskUUID"]), suffix(clip)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", task_uuid):
        raise UsageError("the service returned an invalid taskUUID")
    return f"{task_uuid}-{int(clip['clip'])}.{ending}"


def suffix(clip: Json) -> str:
    """The suffix of a clip's file; it must be mp4, webm or mov.

    It follows the content if that differs from the ordered format; MP4 and MOV count as the same.
    """
    ordered = str(clip.get("objectKey", "")).rpartition(".")[2]
    content = str(clip.get("container") or ordered)
    found = content if "webm" in (ordered, content) else ordered
    if found not in ("mp4", "webm", "mov"):
        raise UsageError("the service returned an invalid file name; the suffix must be mp4, webm or mov")
    return found


def _rendered(template: str, task: Json, clip: Json) -> str:
    def value(field: re.Match[str]) -> str:
        name = field[1]
        if name.startswith(_TAG):
            found: object = ((task.get("request") or {}).get("tags") or {}).get(name.removeprefix(_TAG))
        else:
            found = FIELDS[name](task, clip)
        return _MISSING if found in (None, "") else str(found)

    return safe(_FIELD.sub(value, template))


def safe(text: str) -> str:
    """The text as the name of a file in every file system, without an ending."""
    normal = unicodedata.normalize("NFC", text)
    characters = (
        char if char in _SAFE_CHARACTERS or unicodedata.category(char)[0] in _SAFE_CATEGORIES else "_"
        for char in normal
    )
    name = "".join(characters).strip(" .")
    cut = name.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(" .")
    return f"_{cut}" if not cut or cut.startswith("-") else cut


def _take(name: str, taken: set[str]) -> bool:
    """Adds a name to those taken; False if it is one of them. Some file systems ignore the case of letters."""
    key = unicodedata.normalize("NFC", name.casefold())
    if key in taken:
        return False
    taken.add(key)
    return True


def _unique_names(template: str, task: Json, clip: Json) -> Iterator[str]:
    """The names with the task's id and the clip's number; the counter is for tags that imitate such a name."""
    stem = f"{_rendered(template, task, clip)}-{safe(short_id(task['taskUUID']))}-{int(clip['clip'])}"
    return (f"{stem}{f'-{number}' if number else ''}.{suffix(clip)}" for number in count())


def _age(task: Json, clip: Json) -> tuple[str, str, int]:
    return str(task.get("createdAt")), str(task["taskUUID"]), int(clip["clip"])

"""Turns an image's object metadata, which has lower-case names and text values, into a task.

Values are not validated here. A value that does not look like its parameter's type stays a text, and the validation of
the task reports it.
"""

import base64
import re
from collections.abc import Callable, Mapping
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Any

from rushes.runware import models
from rushes.runware.wire import WireError, wire_error

AGAIN = "again"  # orders the same content once more; not a part of the task
_TAG = "tag-"
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_FRACTION = re.compile(r"-?[0-9]{1,18}\.[0-9]{1,18}")


def task_of(metadata: Mapping[str, str], image: bytes) -> dict[str, Any] | list[WireError]:
    """The task of an image, with the image as its first frame; or the errors of its metadata."""
    task: dict[str, Any] = {"model": models.DEFAULT}
    errors: list[WireError] = []
    tags = {}
    seen: set[str] = set()
    for original, encoded in sorted(metadata.items()):
        name = original.lower()  # S3 lowers names; not every stand-in for S3 does
        if name == AGAIN:
            continue
        parameter, read = _PARAMETERS.get(name.replace("-", ""), ("", _text))
        value = _decoded(encoded)
        if value is None:
            errors.append(wire_error("invalidMetadata", "The value's RFC 2047 encoding is broken.", _shortened(name)))
        elif name.startswith(_TAG):
            tags[name.removeprefix(_TAG)] = value
        elif not parameter:
            errors.append(wire_error("unsupportedParameter", "No parameter has this name.", _shortened(name)))
        elif parameter in seen:
            errors.append(wire_error("invalidMetadata", "The parameter is given twice.", parameter))
        else:
            seen.add(parameter)
            task[parameter] = read(value)
    if errors:
        return errors
    # Without a media type: the format is detected from the bytes, since the file's name may be wrong.
    task["inputs"] = {"frameImages": [base64.b64encode(image).decode()]}
    return {**task, "tags": tags} if tags else task


def _decoded(value: str) -> str | None:
    """A value with its RFC 2047 encoded words decoded, since metadata is ASCII. None if they are broken."""
    try:
        parts = decode_header(value)
        text = "".join(part if isinstance(part, str) else part.decode(charset or "ascii") for part, charset in parts)
        text.encode()  # some charsets have characters that UTF-8 has not
    except (HeaderParseError, LookupError, ValueError):
        return None
    return text


def _text(value: str) -> object:
    return value


def _number(value: str) -> object:
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _FRACTION.fullmatch(value) else value


def _truth(value: str) -> object:
    return {"true": True, "false": False}.get(value.lower(), value)


def _shortened(name: str) -> str:
    return name[:100]


_PARAMETERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "prompt": ("positivePrompt", _text),
    "positiveprompt": ("positivePrompt", _text),
    "negativeprompt": ("negativePrompt", _text),
    "model": ("model", _text),
    "taskuuid": ("taskUUID", _text),
    "duration": ("duration", _number),
    "width": ("width", _number),
    "height": ("height", _number),
    "cfgscale": ("CFGScale", _number),
    "numberresults": ("numberResults", _number),
    "outputformat": ("outputFormat", _text),
    "outputquality": ("outputQuality", _number),
    "ttl": ("ttl", _number),
    "includecost": ("includeCost", _truth),
    "destination": ("destination", _text),
}

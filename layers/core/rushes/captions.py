"""An image's metadata into a task: object metadata knows only lower-case names and texts.

Values are not judged here. What does not look like the type that the wire wants stays a text, and the rules for every
task say what is wrong with it.
"""

import base64
import re
from collections.abc import Callable, Mapping
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Any

from rushes.runware.kling import KLING_2_1_MASTER
from rushes.runware.wire import WireError, wire_error

AGAIN = "again"  # asks for another clip where the same file was put before, and is no part of the task
_TAG = "tag-"
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_FRACTION = re.compile(r"-?[0-9]{1,18}\.[0-9]{1,18}")


def task_of(metadata: Mapping[str, str], image: bytes) -> dict[str, Any] | list[WireError]:
    """The task that an image asks for, itself being the first frame; or what is wrong with its metadata."""
    task: dict[str, Any] = {"model": KLING_2_1_MASTER.air}
    faults: list[WireError] = []
    tags = {}
    named: set[str] = set()
    for given, encoded in sorted(metadata.items()):
        name = given.lower()  # S3 lowers them, not everything that stands in for it does
        if name == AGAIN:
            continue
        parameter, read = _PARAMETERS.get(name.replace("-", ""), ("", _text))
        value = _decoded(encoded)
        if value is None:
            faults.append(wire_error("invalidMetadata", "A value is not in its own encoding.", _shown(name)))
        elif name.startswith(_TAG):
            tags[name.removeprefix(_TAG)] = value
        elif not parameter:
            faults.append(wire_error("unsupportedParameter", "No parameter has this name.", _shown(name)))
        elif parameter in named:
            faults.append(wire_error("invalidMetadata", "The parameter is given twice.", parameter))
        else:
            named.add(parameter)
            task[parameter] = read(value)
    if faults:
        return faults
    # Without a type: what the image is, its bytes say, whatever its name does.
    task["inputs"] = {"frameImages": [base64.b64encode(image).decode()]}
    return {**task, "tags": tags} if tags else task


def _decoded(value: str) -> str | None:
    """RFC 2047's encoded words as text: the way to say more than ASCII in metadata. None if they are broken."""
    try:
        parts = decode_header(value)
        text = "".join(part if isinstance(part, str) else part.decode(charset or "ascii") for part, charset in parts)
        text.encode()  # some charsets can say what UTF-8 cannot
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


def _shown(name: str) -> str:
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

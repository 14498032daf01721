"""Runware's rules for a task of KlingAI 2.1 Master, written from the model's page only.

Pure: a decoded JSON object in, the list of its error items out, in the wire format. Each parameter's rule is an entry
of `_RULES`; `_size_errors` checks width and height together.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

Json = dict[str, Any]
Rule = Callable[[str, Any], "Json | None"]

DOCUMENTATION = "https://runware.ai/docs/models/klingai-2-1-master"
MODEL = "klingai:5@3"
SIZES = ((1920, 1080), (1080, 1080), (1080, 1920))
IMAGE_SIDES = (300, 2048)
IMAGE_BYTES = 20 * 1024 * 1024
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_DATA_URI = re.compile(r"data:image/[a-z+.-]+;base64,", re.IGNORECASE)


def is_uuid4(value: Any) -> bool:
    """True if the value is the text of a UUID, version 4."""
    match = _UUID.fullmatch(value) if isinstance(value, str) else None
    return match is not None and match[1] == "4"


def error(code: str, message: str, parameter: str | list[str], **more: Any) -> Json:
    """An error item about a parameter in the wire format, without its task's fields."""
    anchor = (parameter if isinstance(parameter, str) else parameter[0]).replace(".", "-").lower()
    documentation = f"{DOCUMENTATION}#request-{anchor}"
    return {"code": code, "message": message, "parameter": parameter, "documentation": documentation, **more}


def video_errors(task: Json) -> list[Json]:
    """All errors of one videoInference task; empty if Runware would accept it."""
    unknown = [name for name in task if name not in _RULES and name != "taskType"]
    faults = [error("unsupportedParameter", f"Unsupported parameter '{name}' for {MODEL}.", name) for name in unknown]
    faults += [missing for name in _REQUIRED if (missing := _missing(task, name))]
    faults += [fault for name, rule in _RULES.items() if name in task and (fault := rule(name, task[name]))]
    return faults + _size_errors(task)


def _missing(task: Json, name: str) -> Json | None:
    if name in task:
        return None
    # A missing UUID has the same code as a malformed one.
    code = "invalidTaskUUID" if name == "taskUUID" else f"missing{_capital(name)}"
    return error(code, f"Missing required parameter '{name}'.", name, type="string")


def _capital(name: str) -> str:
    return "".join(part[0].upper() + part[1:] for part in name.split("."))


def _invalid(name: str, expected: str, kind: str, **limits: Any) -> Json:
    message = f"Invalid value for '{name}': must be {expected}."
    return error(f"invalid{_capital(name)}", message, name, type=kind, **limits)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _uuid(name: str, value: Any) -> Json | None:
    return None if is_uuid4(value) else _invalid(name, "a UUID v4", "string")


def _text(low: int, high: int) -> Rule:
    def rule(name: str, value: Any) -> Json | None:
        if not isinstance(value, str):
            return _invalid(name, "a string", "string")
        if low <= len(value) <= high:
            return None
        message = f"'{name}' must be between {low} and {high} characters long."
        return error(f"invalid{_capital(name)}Length", message, name, type="string", min=low, max=high)

    return rule


def _one_of(*allowed: str) -> Rule:
    def rule(name: str, value: Any) -> Json | None:
        if isinstance(value, str) and value in allowed:
            return None
        return _invalid(name, "one of " + ", ".join(allowed), "string", allowedValues=list(allowed))

    return rule


def _integer(low: int, high: int | None = None) -> Rule:
    limits = {"min": low} if high is None else {"min": low, "max": high}

    def rule(name: str, value: Any) -> Json | None:
        fits = type(value) is int and low <= value and (high is None or value <= high)
        expected = f"an integer of at least {low}" if high is None else f"an integer between {low} and {high}"
        return None if fits else _invalid(name, expected, "integer", **limits)

    return rule


def _boolean(name: str, value: Any) -> Json | None:
    return None if isinstance(value, bool) else _invalid(name, "true or false", "boolean")


def _uri(name: str, value: Any) -> Json | None:
    return None if isinstance(value, str) and _is_http(value) else _invalid(name, "an absolute http(s) URI", "string")


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and re.fullmatch("[!-~]+", value) is not None
    except ValueError:
        return False


def _duration(name: str, value: Any) -> Json | None:
    if not _is_number(value):
        return _invalid(name, "a number", "float", allowedValues=[5, 10])
    if value in (5, 10):
        return None
    message = f"Unsupported duration for {MODEL}: must be 5 or 10."
    return error("unsupportedDuration", message, name, type="float", allowedValues=[5, 10])


def _guidance(name: str, value: Any) -> Json | None:
    # As a decimal, because in binary 0.57 is not a multiple of 0.01.
    if _is_number(value) and 0 <= value <= 1 and Decimal(str(value)) % Decimal("0.01") == 0:
        return None
    return _invalid(name, "between 0 and 1 in steps of 0.01", "float", min=0, max=1, multiplier=0.01)


def _object(rules: dict[str, Rule]) -> Rule:
    def rule(name: str, value: Any) -> Json | None:
        if not isinstance(value, dict):
            return _invalid(name, "an object", "object")
        for key, inner in value.items():
            path = f"{name}.{key}"
            if key not in rules:
                return error("unsupportedParameter", f"Unsupported parameter '{path}' for {MODEL}.", path)
            if fault := rules[key](path, inner):
                return fault
        return None

    return rule


def _frame_images(name: str, value: Any) -> Json | None:
    if not isinstance(value, list):
        return _invalid(name, "an array", "array")
    if len(value) > 1:
        return _invalid(name, "an array of at most one image, the first frame", "array", max=1)
    return next((fault for entry in value if (fault := _frame_image(name, entry))), None)


def _frame_image(name: str, entry: Any) -> Json | None:
    if not isinstance(entry, dict):
        return _image(name, entry)
    if unknown := next((key for key in entry if key not in ("image", "frame")), None):
        path = f"{name}.{unknown}"
        return error("unsupportedParameter", f"Unsupported parameter '{path}' for {MODEL}.", path)
    if "image" not in entry:
        return error(f"missing{_capital(name)}Image", f"Missing required parameter '{name}.image'.", f"{name}.image")
    frame = entry.get("frame", "first")
    if isinstance(frame, bool) or frame not in ("first", 0):
        return _invalid(f"{name}.frame", "first or 0", "string", allowedValues=["first", 0])
    return _image(f"{name}.image", entry["image"])


def _image(name: str, value: Any) -> Json | None:
    """The error of an image: a data URI or base64 text must contain a valid picture. UUIDs and URLs are accepted."""
    if not isinstance(value, str) or not value:
        return _invalid(name, "a UUID, URL, data URI or base64 string", "string")
    if _UUID.fullmatch(value) or _is_http(value):
        return None
    try:
        content = base64.b64decode(_DATA_URI.sub("", value, count=1), validate=True)
    except (binascii.Error, ValueError):
        return _unusable(name)
    return picture_error(name, content)


def picture_error(name: str, content: bytes) -> Json | None:
    """The error of these bytes as a picture of the parameter `name`; None if the model accepts them."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as picture:
            sides = picture.size
    except (ValueError, OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return _unusable(name)
    low, high = IMAGE_SIDES
    for side, word in zip(sides, ("Width", "Height"), strict=True):
        if not low <= side <= high:
            message = f"The image's {word.lower()} must be between {low} and {high} pixels."
            return error(f"invalidFrameImage{word}", message, name, type="string", min=low, max=high)
    if len(content) > IMAGE_BYTES:
        return error("valueTooLarge", "The image must not be larger than 20 MB.", name, type="string", max=IMAGE_BYTES)
    return None


def frame_urls(task: Json) -> list[tuple[str, str]]:
    """The parameter and the URL of each image given as a URL, in a valid task."""
    entries = task.get("inputs", {}).get("frameImages", [])
    images = [
        ("inputs.frameImages.image", entry["image"]) if isinstance(entry, dict) else ("inputs.frameImages", entry)
        for entry in entries
    ]
    return [(name, image) for name, image in images if _is_http(image)]


def unreachable(name: str) -> Json:
    """The error of an image that could not be fetched."""
    return error("invalidValueUploadFailed", "The image could not be fetched.", name, type="string")


def _unusable(name: str) -> Json:
    return error("invalidValueUploadFailed", "The image could not be read.", name, type="string")


def _size_errors(task: Json) -> list[Json]:
    given = [name for name in ("width", "height") if name in task]
    if not given:
        return []
    if len(given) == 1:
        return [error("incompatibleParameters", "'width' and 'height' must be used together.", ["width", "height"])]
    sides = (task["width"], task["height"])
    if any(type(side) is not int for side in sides) or sides in SIZES:
        return []
    allowed = [f"{width}x{height}" for width, height in SIZES]
    message = f"Unsupported dimensions for {MODEL}: must be one of {', '.join(allowed)}."
    return [error("unsupportedDimensions", message, ["width", "height"], type="integer", allowedValues=allowed)]


def _side(name: str, value: Any) -> Json | None:
    return None if type(value) is int else _invalid(name, "an integer", "integer")


_REQUIRED = ("taskUUID", "model", "positivePrompt")
_RULES: dict[str, Rule] = {
    "taskUUID": _uuid,
    "model": _one_of(MODEL),
    "positivePrompt": _text(2, 2500),
    "negativePrompt": _text(2, 2500),
    "width": _side,
    "height": _side,
    "duration": _duration,
    "CFGScale": _guidance,
    "outputType": _one_of("URL"),
    "outputFormat": _one_of("MP4", "WEBM", "MOV"),
    "outputQuality": _integer(20, 99),
    "numberResults": _integer(1, 4),
    "deliveryMethod": _one_of("async"),
    "webhookURL": _uri,
    "uploadEndpoint": _uri,
    "ttl": _integer(60),
    "includeCost": _boolean,
    "safety": _object({"checkContent": _boolean, "mode": _one_of("none", "fast", "full")}),
    "inputs": _object({"frameImages": _frame_images}),
}

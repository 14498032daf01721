"""Runware's rules for a task of each model, written from the models' pages only.

Pure: a decoded JSON object in, the list of its error items out, in the wire format. Each parameter's rule is an entry
of `ModelPage.rules`; `_size_errors` checks width and height together, and `ModelPage.more` has the page's other rules.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

Json = dict[str, Any]
Rule = Callable[[str, Any], "Json | None"]

_PAGES = "https://runware.ai/docs/models/"
DOCUMENTATION = f"{_PAGES}klingai-2-1-master"
MODEL = "klingai:5@3"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_DATA_URI = re.compile(r"data:image/[a-z+.-]+;base64,", re.IGNORECASE)


class ImageLimits(NamedTuple):
    """The smallest and largest side of an image in pixels, and its largest size in megabytes."""

    low: int = 300
    high: int = 2048
    megabytes: int = 20


IMAGES = ImageLimits()  # of most models


@dataclass(frozen=True)
class ModelPage:
    """The page of one model. `price` is of a clip of so many seconds, in micro-dollars.

    `more` gives the errors of parameters together.
    """

    model: str
    address: str
    sizes: tuple[tuple[int, int], ...]
    rules: Mapping[str, Rule]
    price: Callable[[Json, int], int]
    required: tuple[str, ...] = ("taskUUID", "model", "positivePrompt")
    more: Callable[[Json], "list[Json]"] = lambda _: []
    images: ImageLimits = IMAGES


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
    page = page_of(task)
    unknown = [name for name in task if name not in page.rules and name != "taskType"]
    faults = [
        error("unsupportedParameter", f"Unsupported parameter '{name}' for {page.model}.", name) for name in unknown
    ]
    faults += [missing for name in page.required if (missing := _missing(task, name))]
    faults += [fault for name, rule in page.rules.items() if name in task and (fault := rule(name, task[name]))]
    faults += _size_errors(task, page) + page.more(task)
    return [{**fault, "documentation": fault["documentation"].replace(DOCUMENTATION, page.address)} for fault in faults]


def page_of(task: Json) -> ModelPage:
    """The page of a task's model; that of KlingAI 2.1 Master for an unknown model, which its rule refuses."""
    model = task.get("model")
    return MODELS.get(model, MODELS[MODEL]) if isinstance(model, str) else MODELS[MODEL]


def price(task: Json, seconds: int) -> int:
    """The price of one render of this valid task in micro-dollars."""
    return page_of(task).price(task, seconds)


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


def _duration(model: str, *allowed: int) -> Rule:
    def rule(name: str, value: Any) -> Json | None:
        if not _is_number(value):
            return _invalid(name, "a number", "float", allowedValues=list(allowed))
        if value in allowed:
            return None
        message = f"Unsupported duration for {model}: must be {' or '.join(map(str, allowed))}."
        return error("unsupportedDuration", message, name, type="float", allowedValues=list(allowed))

    return rule


def _guidance(name: str, value: Any) -> Json | None:
    # As a decimal, because in binary 0.57 is not a multiple of 0.01.
    if _is_number(value) and 0 <= value <= 1 and Decimal(str(value)) % Decimal("0.01") == 0:
        return None
    return _invalid(name, "between 0 and 1 in steps of 0.01", "float", min=0, max=1, multiplier=0.01)


def _object(model: str, rules: dict[str, Rule]) -> Rule:
    def rule(name: str, value: Any) -> Json | None:
        if not isinstance(value, dict):
            return _invalid(name, "an object", "object")
        for key, inner in value.items():
            path = f"{name}.{key}"
            if key not in rules:
                return error("unsupportedParameter", f"Unsupported parameter '{path}' for {model}.", path)
            if fault := rules[key](path, inner):
                return fault
        return None

    return rule


def _frames(most: int, *places: str | int, limits: ImageLimits = IMAGES) -> Rule:
    """A list of images, each alone or with its place in the video."""

    def rule(name: str, value: Any) -> Json | None:
        if not isinstance(value, list):
            return _invalid(name, "an array", "array")
        if len(value) > most:
            return _invalid(name, f"an array of at most {most} images", "array", max=most)
        return next((fault for entry in value if (fault := _frame_image(name, entry, places, limits))), None)

    return rule


def _frame_image(name: str, entry: Any, places: tuple[str | int, ...], limits: ImageLimits) -> Json | None:
    if not isinstance(entry, dict):
        return _image(name, entry, limits)
    if unknown := next((key for key in entry if key not in ("image", "frame")), None):
        path = f"{name}.{unknown}"
        return error("unsupportedParameter", f"Unsupported parameter '{path}' for this model.", path)
    if "image" not in entry:
        return error(f"missing{_capital(name)}Image", f"Missing required parameter '{name}.image'.", f"{name}.image")
    frame = entry.get("frame", "first")
    if isinstance(frame, bool) or frame not in places:
        expected = " or ".join(map(str, places))
        return _invalid(f"{name}.frame", expected, "string", allowedValues=list(places))
    return _image(f"{name}.image", entry["image"], limits)


def _image(name: str, value: Any, limits: ImageLimits) -> Json | None:
    """The error of an image: a data URI or base64 text must contain a valid picture. UUIDs and URLs are accepted."""
    if not isinstance(value, str) or not value:
        return _invalid(name, "a UUID, URL, data URI or base64 string", "string")
    if _UUID.fullmatch(value) or _is_http(value):
        return None
    try:
        content = base64.b64decode(_DATA_URI.sub("", value, count=1), validate=True)
    except (binascii.Error, ValueError):
        return _unusable(name)
    return picture_error(name, content, limits)


def picture_error(name: str, content: bytes, limits: ImageLimits) -> Json | None:
    """The error of these bytes as a picture of the parameter `name`; None if the model accepts them."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as picture:
            sides = picture.size
    except (ValueError, OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return _unusable(name)
    low, high, megabytes = limits
    for side, word in zip(sides, ("Width", "Height"), strict=True):
        if not low <= side <= high:
            message = f"The image's {word.lower()} must be between {low} and {high} pixels."
            return error(f"invalidFrameImage{word}", message, name, type="string", min=low, max=high)
    if len(content) > megabytes * 1024 * 1024:
        message = f"The image must not be larger than {megabytes} MB."
        return error("valueTooLarge", message, name, type="string", max=megabytes * 1024 * 1024)
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


def _size_errors(task: Json, page: ModelPage) -> list[Json]:
    given = [name for name in ("width", "height") if name in task]
    if not given:
        return []
    if len(given) == 1:
        return [error("incompatibleParameters", "'width' and 'height' must be used together.", ["width", "height"])]
    sides = (task["width"], task["height"])
    if any(type(side) is not int for side in sides) or sides in page.sizes:
        return []
    allowed = [f"{width}x{height}" for width, height in page.sizes]
    message = f"Unsupported dimensions for {page.model}: must be one of {', '.join(allowed)}."
    return [error("unsupportedDimensions", message, ["width", "height"], type="integer", allowedValues=allowed)]


def _side(name: str, value: Any) -> Json | None:
    return None if type(value) is int else _invalid(name, "an integer", "integer")


def _rules(model: str, **own: Rule) -> dict[str, Rule]:
    """The rules of the parameters that all pages have, in the same words, and the page's own."""
    return {
        "taskUUID": _uuid,
        "model": _one_of(model),
        "width": _side,
        "height": _side,
        "outputType": _one_of("URL"),
        "outputFormat": _one_of("MP4", "WEBM", "MOV"),
        "outputQuality": _integer(20, 99),
        "numberResults": _integer(1, 4),
        "deliveryMethod": _one_of("async"),
        "webhookURL": _uri,
        "uploadEndpoint": _uri,
        "ttl": _integer(60),
        "includeCost": _boolean,
        "safety": _object(model, {"checkContent": _boolean, "mode": _one_of("none", "fast", "full")}),
        **own,
    }


def _kling(model: str, page: str, sizes: tuple[tuple[int, int], ...], price: int) -> ModelPage:
    """The pages of KlingAI 2.1 Master and 2.5 Turbo Pro differ only in their sizes and prices."""
    rules = _rules(
        model,
        positivePrompt=_text(2, 2500),
        negativePrompt=_text(2, 2500),
        duration=_duration(model, 5, 10),
        CFGScale=_guidance,
        inputs=_object(model, {"frameImages": _frames(1, "first", 0)}),
    )
    return ModelPage(model, _PAGES + page, sizes, rules, lambda _, seconds: price * seconds)


def _has_sound(task: Json) -> bool:
    return task.get("providerSettings", {}).get("google", {}).get("generateAudio") is True


def _veo_price(task: Json, seconds: int) -> int:
    """In 720p; the page has no price for 1080p, for which the emulator charges the same."""
    return (400_000 if _has_sound(task) else 200_000) * seconds


def _veo_fast_price(task: Json, seconds: int) -> int:
    """In 1080p; in 4K of 8 seconds a clip costs 2.40 or 2.80 dollars. 720p is charged like 1080p."""
    if task.get("resolution") == "4K" or task.get("width") in (3840, 2160):
        return 2_800_000 if _has_sound(task) else 2_400_000
    return (150_000 if _has_sound(task) else 100_000) * seconds


def _either(task: Json, *groups: tuple[str, ...]) -> list[Json]:
    """The error of a task that has parameters of none of these groups, or of several."""
    given = [group for group in groups if any(name in task for name in group)]
    if len(given) == 1:
        return []
    message = f"Exactly one of {', '.join(' and '.join(group) for group in groups)} must be given."
    return [error("incompatibleParameters", message, [group[0] for group in groups])]


def _resolution_or_size(task: Json) -> list[Json]:
    """The error of a task with a resolution besides a size."""
    both = "resolution" in task and {"width", "height"} & task.keys()
    return _either(task, ("resolution",), ("width", "height")) if both else []


def _image_or_size(task: Json) -> list[Json]:
    faults = _either({**task, **task.get("inputs", {})}, ("width", "height"), ("frameImages",))
    return faults + _resolution_or_size(task)


_WIDE_AND_TALL = ((1280, 720), (720, 1280), (1920, 1080), (1080, 1920))


def _veo(
    model: str, page: str, resolutions: tuple[str, ...], price: Callable[[Json, int], int], **more: Any
) -> ModelPage:
    rules = _rules(
        model,
        positivePrompt=_text(2, 3000),
        duration=_duration(model, 4, 6, 8),
        resolution=_one_of(*resolutions),
        providerSettings=_object(model, {"google": _object(model, {"generateAudio": _boolean})}),
        **more.pop("own", {}),
    )
    return ModelPage(model, _PAGES + page, more.pop("sizes", _WIDE_AND_TALL), rules, price, **more)


def _hailuo(model: str, page: str) -> ModelPage:
    rules = _rules(
        model,
        positivePrompt=_text(2, 2000),
        duration=_duration(model, 6, 10),
        fps=_duration(model, 25),
        inputs=_object(model, {"frameImages": _frames(1, "first")}),
        providerSettings=_object(model, {"minimax": _object(model, {"promptOptimizer": _boolean})}),
    )

    def full_size(task: Json) -> list[Json]:
        if task.get("width") != 1920 or task.get("duration") in (6, None):
            return []
        return [error("unsupportedDuration", "1920x1080 has a duration of 6 only.", "duration", allowedValues=[6])]

    def price(task: Json, seconds: int) -> int:
        return 490_000 if task.get("width") == 1920 else 560_000 if seconds == 10 else 280_000

    return ModelPage(model, _PAGES + page, ((1366, 768), (1920, 1080)), rules, price, more=full_size)


def _seedance(model: str, page: str) -> ModelPage:
    images = ImageLimits(300, 6000, megabytes=10)
    rules = _rules(
        model,
        positivePrompt=_text(2, 3000),
        duration=_duration(model, 5, 10),
        resolution=_one_of("480p", "1080p"),
        inputs=_object(model, {"frameImages": _frames(2, "first", "last", limits=images)}),
        providerSettings=_object(model, {"bytedance": _object(model, {"cameraFixed": _boolean})}),
    )
    small = ((864, 480), (736, 544), (640, 640), (544, 736), (480, 864), (416, 960), (960, 416))
    large = ((1920, 1088), (1664, 1248), (1440, 1440), (1248, 1664), (1088, 1920), (928, 2176), (2176, 928))

    def size_or_image(task: Json) -> list[Json]:
        if not {"width", "height", "resolution"} & task.keys() and not task.get("inputs", {}).get("frameImages"):
            message = "Provide 'inputs.frameImages', or specify 'width' and 'height' or 'resolution'."
            return [error("incompatibleParameters", message, ["inputs.frameImages", "width", "resolution"])]
        return _resolution_or_size(task)

    # In 1080p; the page has no price for 480p, for which the emulator charges the same.
    return ModelPage(
        model,
        _PAGES + page,
        small + large,
        rules,
        lambda _, seconds: 96_800 * seconds,
        more=size_or_image,
        images=images,
    )


def _pixverse(model: str, page: str) -> ModelPage:
    images = ImageLimits(300, 4000)
    settings = {
        "style": _one_of("anime", "3d_animation", "clay", "comic", "cyberpunk"),
        "motionMode": _one_of("normal", "fast"),
    }
    rules = _rules(
        model,
        positivePrompt=_text(2, 2048),
        negativePrompt=_text(2, 2048),
        duration=_duration(model, 5, 8),
        fps=_duration(model, 16, 24),
        resolution=_one_of("360p", "540p", "720p", "1080p"),
        inputs=_object(model, {"frameImages": _frames(2, "first", "last", limits=images)}),
        providerSettings=_object(model, {"pixverse": _object(model, settings)}),
    )
    # The width of 16:9, 4:3 and 1:1 in each resolution, and each of them upright.
    lying = [(width, height) for height in (360, 540, 720, 1080) for width in (height * 16 // 9, height * 4 // 3)]
    sizes = (*lying, *((height, width) for width, height in lying), *((side, side) for side in (360, 540, 720, 1080)))
    # In 1080p; the page has no price for smaller videos, for which the emulator charges the same.
    return ModelPage(
        model,
        _PAGES + page,
        sizes,
        rules,
        lambda _, seconds: 59_800 * seconds,
        more=_image_or_size,
        images=images,
    )


def _kling_3(model: str, page: str, sizes: tuple[tuple[int, int], ...], silent: int, sound: int) -> ModelPage:
    """The pages of Kling VIDEO 3.0 have no default of `sound`; without it the emulator renders a silent clip."""
    rules = _rules(
        model,
        positivePrompt=_text(2, 2500),
        duration=_integer(3, 15),
        providerSettings=_object(model, {"klingai": _object(model, {"sound": _boolean})}),
    )

    def price(task: Json, seconds: int) -> int:
        settings = task.get("providerSettings", {}).get("klingai", {})
        return (sound if settings.get("sound") else silent) * seconds

    required = ("taskUUID", "model", "positivePrompt", "width", "height")
    return ModelPage(model, _PAGES + page, sizes, rules, price, required=required)


MODELS: Mapping[str, ModelPage] = {
    page.model: page
    for page in (
        _kling(MODEL, "klingai-2-1-master", ((1920, 1080), (1080, 1080), (1080, 1920)), 184_800),
        _kling("klingai:6@1", "klingai-2-5-turbo-pro", ((1280, 720), (720, 720), (720, 1280)), 70_000),
        _veo(
            "google:3@0",
            "google-veo-3",
            ("720p", "1080p"),
            _veo_price,
            more=lambda task: _either(task, ("width", "height"), ("resolution",)),
        ),
        _veo(
            "google:3@3",
            "google-veo-3-1-fast",
            ("720p", "1080p", "4K"),
            _veo_fast_price,
            own={"inputs": _object("google:3@3", {"frameImages": _frames(2, "first", "last")})},
            sizes=(*_WIDE_AND_TALL, (3840, 2160), (2160, 3840)),
            more=_image_or_size,
        ),
        _hailuo("minimax:4@1", "minimax-hailuo-2-3"),
        _seedance("bytedance:2@1", "bytedance-seedance-1-0-pro"),
        _pixverse("pixverse:1@5", "pixverse-v5"),
        _kling_3(
            "klingai:kling-video@3-standard",
            "klingai-video-3-0-standard",
            ((1280, 720), (960, 960), (720, 1280)),
            silent=84_000,
            sound=126_000,
        ),
        _kling_3(
            "klingai:kling-video@3-pro",
            "klingai-video-3-0-pro",
            ((1920, 1080), (1440, 1440), (1080, 1920)),
            silent=112_000,
            sound=168_000,
        ),
    )
}

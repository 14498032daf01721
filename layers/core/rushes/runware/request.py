"""Validates a caller's request in wire format: one pydantic type per model, and its faults in Runware's error shape.

`check` reports all faults of a task at once. It hides pydantic: callers get an `Order` or a list of error objects. The
limits are the model's data (`models`); the rules that concern several parameters are in `combinations`.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from rushes.domain.formats import UUID4, UUID4_SCHEMA
from rushes.domain.media import picture
from rushes.domain.receiver_url import MAX_URL_LENGTH as MAX_RECEIVER_LENGTH
from rushes.domain.receiver_url import url_fault
from rushes.runware import models
from rushes.runware.combinations import capital, combination_faults, either, no_price, price_of
from rushes.runware.models import Parameter, Span, VideoModel
from rushes.runware.wire import DATA_URI, OURS, S3_OBJECT, WireError, of_model, wire_error

_ANY_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WEB = re.compile(r"https?://[^\s/?#\\]+([/?#][^\s\\]*)?", re.IGNORECASE)
_DESTINATION = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9_.-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9_.-]+)*")
_MAX_URL_LENGTH = 4096
_MAX_KEY_BYTES = 1024
_MAX_FAULTS = 50
_MAX_FALLBACKS = 3
_SEPARATOR = re.compile(r"[:=]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_PROMPT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BLANK_SYMBOLS = "\u115f\u1160\u2800\u3164\uffa0"  # fillers and an empty Braille cell: letters without a visible form
# Advice for parameters of Runware's other pages that this model does not have, or has in another form.
_ADVICE = {
    "uploadEndpoint": "is set by the service, which has every clip uploaded to its bucket; use destination instead",
    "frameImages": 'is an older form; use inputs: {"frameImages": [{"image": …, "frame": "first"}]} instead',
    "inputs.frameImages.inputImage": "is an older form; use image instead",
    "seed": "is not a parameter of this model, which takes none; the result holds the seed that was used",
}


class Order(NamedTuple):
    """A valid task: the request as sent, and the values that the service itself uses."""

    task_uuid: str
    request: Mapping[str, Any]
    model: VideoModel
    clips: int
    price: int  # of one clip, in micro-dollars
    extension: str
    destination: str | None
    webhook_url: str | None = None
    chain: tuple["Order", ...] = ()  # the order of each model of the fallback, if the ones before it fail

    @property
    def reserved(self) -> int:
        """The amount to reserve for one clip, in micro-dollars: the dearest price of the chain."""
        return max([self.price, *(order.price for order in self.chain)])


def check_chain(task: Mapping[str, Any], *, loopback: bool = False) -> Order | list[WireError]:
    """Returns a task as an order, with one more order for each model of its fallback, or the list of all faults.

    The task is checked for each model. A fault that only a later model has names that model.
    """
    first = check(task, loopback=loopback)
    later = task.get("fallback")
    faults = first if isinstance(first, list) else []
    if len(faults) >= _MAX_FAULTS:  # the fault of `fallback` may be among those left out
        return faults
    if not isinstance(later, list) or any(fault.get("parameter") == "fallback" for fault in faults):
        misplaced = "fallback" not in task and "fallbackOnModeration" in task
        return [*faults, _NO_FALLBACK] if misplaced else first
    if task.get("model") in later or len(set(later)) < len(later):
        return [*faults, _REPEATED]
    known = [_aspect(fault) for fault in faults]
    bare = {name: value for name, value in task.items() if name not in ("fallback", "fallbackOnModeration")}
    chain = []
    for model in later:
        checked = check({**bare, "model": model}, loopback=loopback)
        if isinstance(checked, Order):
            chain.append(checked)
        else:
            faults = [*faults, *(of_model(model, fault) for fault in checked if _aspect(fault) not in known)]
    return faults if faults or isinstance(first, list) else first._replace(chain=tuple(chain))


def check(task: Mapping[str, Any], *, loopback: bool = False) -> Order | list[WireError]:
    """Returns a `videoInference` task as an order, or the list of its faults.

    `loopback` allows webhooks to receivers on the same machine.
    """
    model = models.find(task.get("model")) or models.get(models.DEFAULT)
    faults: list[WireError] = []
    try:
        request_type(model).model_validate(task, context={"loopback": loopback})
    except ValidationError as error:
        faults = [_wire_error(detail, model) for detail in error.errors(include_url=False)[:_MAX_FAULTS]]
    faulty = {str(fault["parameter"]) for fault in faults}
    faults += combination_faults(task, model, faulty)
    if faults:
        return faults
    price = price_of(task, model)
    if price is None:
        return [no_price(task, model)]
    return Order(
        task_uuid=task["taskUUID"].lower(),
        request=task,
        model=model,
        clips=task.get("numberResults", model.default("numberResults")),
        price=price,
        extension=model.formats[task.get("outputFormat", model.default("outputFormat"))],
        destination=task.get("destination"),
        webhook_url=task.get("webhookURL"),
    )


@cache
def request_type(model: VideoModel) -> type[BaseModel]:
    """Returns the pydantic type of a request for one model, with the model's limits."""
    fields: dict[str, Any] = {
        "taskType": (Literal["videoInference"], ...),
        "taskUUID": (Annotated[str, Field(strict=True, json_schema_extra=UUID4_SCHEMA), AfterValidator(_uuid4)], ...),
        "model": (Literal[model.air], ...),
        **_fields("", model),
        "outputType": (Literal["URL"], "URL"),
        "deliveryMethod": (Literal["async"], "async"),
        "includeCost": (Annotated[bool, Field(strict=True)], False),
        "destination": (Annotated[str, Field(strict=True, max_length=200), AfterValidator(_destination)], None),
        "tags": (_Tags, None),
        "webhookURL": (_Receiver, None),
        "fallback": (_fallback(), None),
        "fallbackOnModeration": (Annotated[bool, Field(strict=True)], False),
    }
    in_order = sorted(fields, key=lambda name: _LAST.index(name) if name in _LAST else -1)
    return create_model("VideoInference", __base__=_Strict, **{name: fields[name] for name in in_order})


def _fallback() -> Any:
    """The type of `fallback`, a list of identifiers; `check_chain` checks the models themselves."""
    sold: dict[str, Any] = {"enum": list(models.identifiers())}
    model = Annotated[str, Field(strict=True, json_schema_extra=sold)]
    return Annotated[list[model], Field(min_length=1, max_length=_MAX_FALLBACKS)]


def _fields(prefix: str, model: VideoModel) -> dict[str, Any]:
    """The fields of the model's own parameters whose names begin with `prefix`, which ends with a dot."""
    fields: dict[str, Any] = {}
    for path, limits in model.parameters.items():
        name, *inner = path.removeprefix(prefix).split(".")
        if not path.startswith(prefix) or name in fields:
            continue
        if inner:
            nested = _fields(f"{prefix}{name}.", model)
            called = _TYPE_NAMES.get(name, capital(name))
            fields[name] = (create_model(called, __base__=_Strict, __doc__=_DESCRIPTIONS.get(name), **nested), None)
        else:
            fields[name] = (_type(limits, model), ... if limits.required else limits.default)
    return fields


def _type(limits: Parameter, model: VideoModel) -> Any:
    """The type of one parameter of the model."""
    low: Any = limits.minimum
    high: Any = limits.maximum
    match limits.type:
        case "string" if limits.values:
            return Literal[limits.values]
        case "string":
            return Annotated[str, Field(strict=True, min_length=low, max_length=high), AfterValidator(_prompt)]
        case "boolean":
            return Annotated[bool, Field(strict=True)]
        case "size":
            sides: list[Any] = sorted({side for size in model.sizes for side in size})
            return Annotated[int, Field(strict=True, json_schema_extra={"enum": sides})]
        case "images":
            image, count = _frame_image(limits.frames), Field(max_length=high)
            return Annotated[list[image], count]  # type: ignore[valid-type]
        case "integer":
            number: Any = Annotated[int, Field(strict=True, ge=low, le=high)]
        case _:
            number = Annotated[float, Field(strict=True, ge=low, le=high, allow_inf_nan=False)]
    if limits.values:
        extra: Any = {"enum": list(limits.values)}
        return Annotated[number, Field(json_schema_extra=extra), AfterValidator(_one_of(limits.values))]
    return Annotated[number, AfterValidator(_in_steps(limits.step))] if limits.step else number


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _image(value: str) -> str:
    """Only the first bytes of an inline image are checked here; it is decoded once, when it is stored."""
    if len(value) <= _MAX_URL_LENGTH and (_ANY_UUID.fullmatch(value) or _WEB.fullmatch(value)):
        return value
    in_bucket = S3_OBJECT.fullmatch(value) if len(value) <= _MAX_URL_LENGTH else None
    if in_bucket and len(in_bucket[2].encode()) <= _MAX_KEY_BYTES:
        return value
    if value.startswith("s3://"):
        raise PydanticCustomError(
            "object",
            "must be s3://bucket/key with a key of at most 1,024 bytes that has no control character and no part that "
            "is . or .., because clients resolve such parts to another key",
        )
    data_uri = DATA_URI.match(value)
    start = data_uri.end() if data_uri else 0
    try:
        head = base64.b64decode(value[start : start + 16], validate=True)
    except (binascii.Error, ValueError):
        head = b""
    if picture(head):
        return value
    raise PydanticCustomError(
        "image", "must be an image's UUID, http(s) URL, s3://bucket/key, or a PNG, JPEG or WEBP in base64"
    )


_Image = Annotated[str, Field(strict=True), AfterValidator(_image)]


def _frame_image(frames: tuple[str | int, ...]) -> Any:
    """The type of an image of a video: the image alone, or with its place in the video."""

    def frame(value: object) -> object:
        if any(type(value) is type(allowed) and value == allowed for allowed in frames):
            return value
        raise PydanticCustomError("literal", "must be {frames}", {"frames": either(frames)})

    place: Any = (Annotated[Literal[frames], BeforeValidator(frame)], frames[0])
    placed = create_model("_PlacedImage", __base__=_Strict, image=(_Image, ...), frame=place)
    return Annotated[
        Annotated[_Image, Tag("image")] | Annotated[placed, Tag("placed")],
        Discriminator(lambda value: "placed" if isinstance(value, Mapping) else "image"),
    ]


def _tag_text(value: str) -> str:
    if _CONTROL.search(value) or value != value.strip():
        raise PydanticCustomError("tag", "must have names and values without control characters and outer white space")
    return value


def _tag_name(value: str) -> str:
    """A name without a separator lets `name:value` and `name=value` be split at the first separator."""
    if _SEPARATOR.search(value):
        raise PydanticCustomError(
            "tag", "must have names without : and =, since filters have the form name:value or name=value"
        )
    return _tag_text(value)


_TagName = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=64),
    AfterValidator(_tag_name),
    Field(json_schema_extra={"pattern": r"^[^:=\u0000-\u001f]{1,64}$"}),
]
_TagValue = Annotated[str, StringConstraints(strict=True, max_length=256), AfterValidator(_tag_text)]
_Tags = Annotated[
    dict[_TagName, _TagValue], Field(max_length=20, json_schema_extra={"additionalProperties": False})
]  # the schema has the name's pattern under patternProperties, which alone would allow other names


def _receiver(value: str, info: ValidationInfo) -> str:
    if fault := url_fault(value, loopback=bool((info.context or {}).get("loopback"))):
        raise PydanticCustomError("receiver", "{fault}", {"fault": fault})
    return value


_Receiver = Annotated[
    str,
    StringConstraints(strict=True),
    AfterValidator(_receiver),
    Field(json_schema_extra={"format": "uri", "pattern": "^https://", "maxLength": MAX_RECEIVER_LENGTH}),
]


def _prompt(value: str) -> str:
    """A blank prompt, or one with control characters, is the fault of a program and would cost a clip."""
    if match := _CONTROL_IN_PROMPT.search(value):
        where = {"position": match.start() + 1, "code": f"U+{ord(match[0]):04X}"}
        raise PydanticCustomError(
            "control", "must not contain control characters; character {position} is {code}", where
        )
    if not any(_is_visible(character) for character in value):
        raise PydanticCustomError("blank", "must contain a visible character")
    return value


def _is_visible(character: str) -> bool:
    """True for letters, numbers, punctuation and symbols; not for separators, formats and combining marks."""
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANK_SYMBOLS


def _uuid4(value: str) -> str:
    if UUID4.fullmatch(value.lower()):
        return value
    raise PydanticCustomError("uuid", "must be a UUID v4 of 36 characters")


def _destination(value: str) -> str:
    if _DESTINATION.fullmatch(value):
        return value
    raise PydanticCustomError(
        "destination", "must be names of A-Z a-z 0-9 _ . - joined by single slashes, none of which is . or .. alone"
    )


def _one_of(allowed: Sequence[float]) -> Callable[[float], float]:
    def validate(value: float) -> float:
        if value in allowed:
            return value
        raise PydanticCustomError("literal", "is not supported")

    return validate


def _in_steps(step: float) -> Callable[[float], float]:
    def validate(value: float) -> float:
        # The shortest decimal of a float is the text that the sender wrote, so 0.57 is exactly 57 steps of 0.01.
        if Decimal(repr(value)) % Decimal(repr(step)) == 0:
            return value
        raise PydanticCustomError("step", "must be in steps of {step}", {"step": step})

    return validate


# Type names, which pydantic's errors have, and descriptions of parameters that are objects.
_TYPE_NAMES = {"safety": "_Safety"}
_DESCRIPTIONS = {"safety": "A content check by Runware. If both are given, `mode` overrides `checkContent`."}
# The order in which faults are listed: these parameters after the model's own.
_LAST = (
    "outputType",
    "outputFormat",
    "outputQuality",
    "numberResults",
    "deliveryMethod",
    "safety",
    "ttl",
    "includeCost",
    "destination",
    "tags",
    "webhookURL",
    "fallback",
    "fallbackOnModeration",
)
_WIRE_TYPES = {"number": "float", "integer": "integer", "size": "integer", "boolean": "boolean", "images": "array"}
_COMMON_TYPES = {
    "includeCost": "boolean",
    "tags": "object",
    "fallback": "array",
    "fallbackOnModeration": "boolean",
}
_COMMON_VALUES: Mapping[str, list[Any]] = {
    "taskType": ["videoInference"],
    "outputType": ["URL"],
    "deliveryMethod": ["async"],
}


def _wire_error(detail: ErrorDetails, model: VideoModel) -> WireError:
    """One pydantic error in Runware's shape, with Runware's code where it has one."""
    path = _path(detail["loc"])
    parameter = ".".join(path)[:100]
    allowed = _allowed(parameter, model) if detail["type"] in ("literal", "literal_error") else None
    code, message = _code_and_message(detail, path[-1], parameter, allowed or ())
    supported = code != "unsupportedParameter"
    limits = _limits(parameter, model)
    return wire_error(
        code,
        f"{parameter} {message}.",
        parameter,
        type=_wire_type(parameter, model) if supported else None,
        documentation=f"{model.documentation}#request-{'-'.join(path).lower()}"
        if supported and path[0] not in OURS
        else None,
        min=limits.minimum if limits else None,
        max=limits.maximum if limits else None,
        allowedValues=allowed,
    )


def _aspect(fault: WireError) -> tuple[object, object]:
    return fault["code"], str(fault.get("parameter"))


_NO_FALLBACK = wire_error(
    "missingFallback", "fallbackOnModeration must be used together with fallback.", "fallback", type="array"
)
_REPEATED = wire_error(
    "invalidFallback",
    "fallback must be models that differ from the task's model and from each other.",
    "fallback",
    type="array",
)


def _path(location: tuple[int | str, ...]) -> list[str]:
    """The path of a fault, without list positions, the union members that follow them, and the names of tags."""
    if location[0] == "tags":
        return ["tags"]
    before = (None, *location)
    return [
        part
        for part, last in zip(location, before, strict=False)
        if isinstance(part, str) and not isinstance(last, int)
    ]


def _code_and_message(detail: ErrorDetails, last: str, parameter: str, allowed: Sequence[object]) -> tuple[str, str]:
    name, kind = capital(last), detail["type"]
    match kind:
        case "missing":
            return f"missing{name}", "is required"
        case "extra_forbidden" if parameter in _ADVICE:
            return "unsupportedParameter", _ADVICE[parameter]
        case "extra_forbidden":
            return "unsupportedParameter", "is not a parameter of this model"
        case "literal_error" if parameter == "model":
            return "invalidModel", "is not a model that can be bought here"
        case "literal_error" | "literal":
            return f"unsupported{name}", f"must be {either(allowed)}"
        case "string_unicode":
            return f"invalid{name}", "contains a character that is not Unicode text"
        case "string_too_short" | "string_too_long" if parameter.endswith("Prompt"):
            return f"invalid{name}Length", _phrase(detail)
    return f"invalid{name}", _phrase(detail)


def _phrase(detail: ErrorDetails) -> str:
    """Pydantic's message as the rest of a sentence that begins with the parameter's name."""
    return re.sub(r"^\w+ should", "must", detail["msg"])


def _wire_type(parameter: str, model: VideoModel) -> str:
    """The type's name in Runware's errors."""
    if limits := model.parameters.get(parameter):
        return _WIRE_TYPES.get(limits.type, "string")
    if any(name.startswith(f"{parameter}.") for name in model.parameters):
        return "object"
    return _COMMON_TYPES.get(parameter, "string")


def _limits(parameter: str, model: VideoModel) -> Span | None:
    if parameter == "fallback":
        return Span(1, _MAX_FALLBACKS)
    limits = model.parameters.get(parameter)
    return Span(limits.minimum, limits.maximum) if limits and not limits.values else None


def _allowed(parameter: str, model: VideoModel) -> list[Any] | None:
    if parameter == "model":
        return list(models.identifiers())
    if (images := model.parameters.get(parameter.removesuffix(".frame"))) and parameter.endswith(".frame"):
        return list(images.frames)
    limits = model.parameters.get(parameter)
    return list(limits.values) if limits and limits.values else _COMMON_VALUES.get(parameter)

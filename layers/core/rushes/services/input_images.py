"""Image inputs: recognised, checked, and brought where Runware can fetch them.

Runware's own images (a UUID) and web addresses pass through. An image inside the request is decoded here, once, and
kept in our bucket under the hash of its bytes, because neither the table nor a queue could hold it; from then on it is
an `s3://` address like those that callers send. Such an address becomes a link only when a clip is bought.

Only the beginning of an image is looked at, for its format and its size. What Runware cannot decode, Runware refuses.
"""

import base64
import binascii
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import imagesize

from rushes.domain.caller import Caller
from rushes.domain.media import Head, picture
from rushes.runware.catalog import MODELS, VideoModel
from rushes.runware.wire import DATA_URI, S3_OBJECT, WireError, wire_error
from rushes.services.ports import ImageStore

_PARAMETER = "inputs.frameImages"
_ADDRESS = "s3://"
_MIME_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
# PNG and WEBP say their size at once. A JPEG does after its metadata, which are seldom longer than the first of these,
# and beyond the second we do not look.
_HEADS = (64 * 1024, 1024 * 1024)  # bytes


@dataclass(frozen=True, slots=True)
class ReadOnlyImageStore:
    """Inputs of which nothing is kept, for a dry run."""

    inputs: ImageStore

    @property
    def name(self) -> str:
        return self.inputs.name

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Keeps nothing."""

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        return self.inputs.head(bucket, key, length)


def store_images(task: Mapping[str, Any], caller: Caller, inputs: ImageStore) -> Mapping[str, Any] | list[WireError]:
    """A valid task whose images are checked, with addresses in our bucket instead of inline ones; or its faults.

    Doing it again does nothing new. Raises `BucketError` when S3 cannot say, or cannot keep.
    """
    model = MODELS[task["model"]]
    taken = {image: _taken(image, caller, inputs, model) for image in images_of(task)}
    faults = [fault for found in taken.values() if not isinstance(found, str) for fault in found]
    return faults or _replaced(task, lambda image: str(taken[image]))


def needs_storing(task: Mapping[str, Any]) -> bool:
    """Whether a valid task has an image that S3 has to be asked about."""
    return any(_is_inline(image) or image.startswith(_ADDRESS) for image in images_of(task))


def linked(task: Mapping[str, Any], link: Callable[[str, str], str]) -> Mapping[str, Any]:
    """The task as Runware can read it: each `s3://` image replaced by what `link` gives for its bucket and key."""

    def reachable(image: str) -> str:
        found = S3_OBJECT.fullmatch(image)
        return link(found[1], found[2]) if found else image

    return _replaced(task, reachable)


def images_of(task: Mapping[str, Any]) -> Iterator[str]:
    """The texts that stand where a task's images do, whether or not the task is valid."""
    inputs = task.get("inputs")
    frames = inputs.get("frameImages") if isinstance(inputs, Mapping) else None
    for frame in frames if isinstance(frames, list) else ():
        image = frame.get("image") if isinstance(frame, Mapping) else frame
        if isinstance(image, str):
            yield image


def folder(caller: str) -> str:
    """Where in our bucket a caller's images lie."""
    return f"inputs/{caller}/"


def _taken(image: str, caller: Caller, inputs: ImageStore, model: VideoModel) -> str | list[WireError]:
    if in_bucket := S3_OBJECT.fullmatch(image):
        return _looked_at(image, in_bucket[1], in_bucket[2], caller, inputs, model)
    return _kept(image, caller, inputs, model) if _is_inline(image) else image


def _is_inline(image: str) -> bool:
    """Whether a valid image is in the request itself. The others are told by a character that base64 has not."""
    return DATA_URI.match(image) is not None or not {":", "-"} & set(image[:64])


def _kept(image: str, caller: Caller, inputs: ImageStore, model: VideoModel) -> str | list[WireError]:
    data_uri = DATA_URI.match(image)
    start = data_uri.end() if data_uri else 0
    # Before it is decoded: of what is too large no copy is made.
    if len(image) - start > 4 * (model.max_image_bytes + 2) // 3:
        return [_too_large(model)]
    try:
        content = base64.b64decode(image[start:], validate=True)
    except (binascii.Error, ValueError):
        return [_fault("Format", "is not base64 without spaces and line breaks", model)]
    judged = _judged(content[: _HEADS[-1]], len(content), model)
    if judged is None:
        return [_sizeless(model)]
    if not isinstance(judged, str):
        return judged
    declared = data_uri[1].lower().replace("jpeg", "jpg") if data_uri else judged
    if declared != judged:
        return [_fault("Format", f"says {_MIME_TYPES[declared]} and is {_MIME_TYPES[judged]}", model)]
    key = f"{folder(caller.name)}{hashlib.sha256(content).hexdigest()}.{judged}"
    inputs.put_if_absent(key, content, _MIME_TYPES[judged])
    return f"{_ADDRESS}{inputs.name}/{key}"


def _looked_at(
    image: str, bucket: str, key: str, caller: Caller, inputs: ImageStore, model: VideoModel
) -> str | list[WireError]:
    if not _may_use(caller, bucket, key, inputs.name):
        reason = "names a place that is not among those your images may come from; the operator can add it"
        return [_fault("Source", reason, model)]
    for length in _HEADS:
        head = inputs.head(bucket, key, length)
        if head is None:
            # To those who may not list a bucket, S3 does not say which.
            return [_fault("Source", "cannot be read: it is not there, or this service may not read it", model)]
        judged = _judged(head.content, head.size, model)
        if judged is not None:
            return image if isinstance(judged, str) else judged
        if head.size <= length:
            break
    return [_sizeless(model)]


def _may_use(caller: Caller, bucket: str, key: str, ours: str) -> bool:
    if bucket == ours:
        return key.startswith(folder(caller.name))
    sources = (source.partition("/") for source in caller.image_sources)
    return any(bucket == name and key.startswith(prefix) for name, _, prefix in sources)


def _judged(head: bytes, size: int, model: VideoModel) -> str | list[WireError] | None:
    """The format of an image that the model can use, or its faults; None if the head ends before it says its sides."""
    if size > model.max_image_bytes:
        return [_too_large(model)]
    found = picture(head)
    if found is None:
        return [_fault("Format", "is neither PNG nor JPEG nor WEBP", model)]
    # Whatever is wrong with the bytes, it answers with sides of -1.
    width, height = imagesize.get(io.BytesIO(head), exif_rotation=False)
    if width < 0 or height < 0:
        return None
    allowed = model.image_sides
    least, most = allowed.minimum, allowed.maximum
    wrong = [(name, side) for name, side in (("Width", width), ("Height", height)) if side not in allowed]
    return [
        _fault(
            name, f"has a {name.lower()} of {side} pixels; {least} to {most} are allowed", model, min=least, max=most
        )
        for name, side in wrong
    ] or found


def _replaced(task: Mapping[str, Any], change: Callable[[str], str]) -> Mapping[str, Any]:
    """The task with each of its images changed."""
    inputs = task.get("inputs") or {}
    if not inputs.get("frameImages"):
        return task
    frames = [
        {**frame, "image": change(frame["image"])} if isinstance(frame, Mapping) else change(frame)
        for frame in inputs["frameImages"]
    ]
    return {**task, "inputs": {**inputs, "frameImages": frames}}


def _too_large(model: VideoModel) -> WireError:
    return _fault("Size", f"is larger than {model.max_image_bytes} bytes", model, max=model.max_image_bytes)


def _sizeless(model: VideoModel) -> WireError:
    return _fault("Format", f"does not say in its first {_HEADS[-1]} bytes how wide and high it is", model)


def _fault(what: str, reason: str, model: VideoModel, **limits: int | None) -> WireError:
    documentation = f"{model.documentation}#request-inputs-frameimages"
    code, message = f"invalidFrameImage{what}", f"The image {reason}."
    return wire_error(code, message, _PARAMETER, type="string", documentation=documentation, **limits)

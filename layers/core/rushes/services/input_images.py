"""Checks image inputs and stores them where Runware can fetch them.

UUIDs of Runware's own images and web addresses pass unchanged. An inline image is decoded here and stored in our bucket
under the hash of its bytes, because it is too large for the table or a queue. From then on it is an `s3://` address,
like those that callers send. The presigned link for such an address is made only when a clip is bought.

Only the beginning of an image is read, for its format and dimensions; images that cannot be decoded are refused by
Runware.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import imagesize

from rushes.domain.caller import Caller
from rushes.domain.media import Head, picture
from rushes.runware import models
from rushes.runware.models import VideoModel
from rushes.runware.wire import DATA_URI, S3_OBJECT, WireError, of_model, wire_error

if TYPE_CHECKING:
    from rushes.services.ports import ImageStore

_PARAMETER = "inputs.frameImages"
_ADDRESS = "s3://"
_MIME_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
# PNG and WEBP have their dimensions at the beginning. A JPEG has them after its metadata, which are seldom longer than
# the first of these lengths; an image without dimensions within the second is refused.
_HEADS = (64 * 1024, 1024 * 1024)  # bytes


class ReadOnlyImageStore(NamedTuple):
    """An image store that reads and does not write, for a dry run."""

    inputs: ImageStore

    @property
    def name(self) -> str:
        return self.inputs.name

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        """Does nothing."""

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        return self.inputs.head(bucket, key, length)


def store_images(task: Mapping[str, Any], caller: Caller, inputs: ImageStore) -> Mapping[str, Any] | list[WireError]:
    """Checks the images of a valid task; returns the task with `s3://` addresses for inline images, or the errors.

    Idempotent. Raises `BucketError` if S3 is unavailable.
    """
    images = dict.fromkeys(images_of(task))
    later = [
        of_model(air, error)
        for air in task.get("fallback", ())
        for image in images
        for error in _faults(_store(image, caller, ReadOnlyImageStore(inputs), models.get(air)))
    ]
    # An order with a fault stores nothing.
    store = ReadOnlyImageStore(inputs) if later else inputs
    results = {image: _store(image, caller, store, models.get(task["model"])) for image in images}
    errors = [error for result in results.values() for error in _faults(result)]
    errors += [error for error in later if error["code"] not in {each["code"] for each in errors}]
    return errors or _replace_images(task, lambda image: str(results[image]))


def _faults(result: str | list[WireError]) -> list[WireError]:
    return result if isinstance(result, list) else []


def needs_storing(task: Mapping[str, Any]) -> bool:
    """True if `store_images` has to call S3 for an image of this valid task."""
    return any(_is_inline(image) or image.startswith(_ADDRESS) for image in images_of(task))


def linked(task: Mapping[str, Any], link: Callable[[str, str], str]) -> Mapping[str, Any]:
    """The task as sent to Runware: each `s3://` image is replaced by `link` of its bucket and key."""

    def reachable(image: str) -> str:
        found = S3_OBJECT.fullmatch(image)
        return link(found[1], found[2]) if found else image

    return _replace_images(task, reachable)


def images_of(task: Mapping[str, Any]) -> Iterator[str]:
    """The texts in the places of a task's images, also of an invalid task."""
    inputs = task.get("inputs")
    frames = inputs.get("frameImages") if isinstance(inputs, Mapping) else None
    for frame in frames if isinstance(frames, list) else ():
        image = frame.get("image") if isinstance(frame, Mapping) else frame
        if isinstance(image, str):
            yield image


def folder(caller: str) -> str:
    """The prefix of a caller's images in our bucket."""
    return f"inputs/{caller}/"


def _store(image: str, caller: Caller, inputs: ImageStore, model: VideoModel) -> str | list[WireError]:
    if in_bucket := S3_OBJECT.fullmatch(image):
        return _check_object(image, in_bucket[1], in_bucket[2], caller, inputs, model)
    return _store_inline(image, caller, inputs, model) if _is_inline(image) else image


def _is_inline(image: str) -> bool:
    """True if a valid image is in the request itself. Addresses and UUIDs have a character that base64 has not."""
    return DATA_URI.match(image) is not None or not {":", "-"} & set(image[:64])


def _store_inline(image: str, caller: Caller, inputs: ImageStore, model: VideoModel) -> str | list[WireError]:
    data_uri = DATA_URI.match(image)
    start = data_uri.end() if data_uri else 0
    # Checked before decoding, so that an image that is too large is not copied.
    if len(image) - start > 4 * (model.max_image_bytes + 2) // 3:
        return [_too_large(model)]
    try:
        content = base64.b64decode(image[start:], validate=True)
    except (binascii.Error, ValueError):
        return [_error("Format", "must be base64 without spaces and line breaks", model)]
    found = _check_head(content[: _HEADS[-1]], len(content), model)
    if found is None:
        return [_no_dimensions(model)]
    if not isinstance(found, str):
        return found
    key = f"{folder(caller.name)}{hashlib.sha256(content).hexdigest()}.{found}"
    inputs.put_if_absent(key, content, _MIME_TYPES[found])
    return f"{_ADDRESS}{inputs.name}/{key}"


def _check_object(
    image: str, bucket: str, key: str, caller: Caller, inputs: ImageStore, model: VideoModel
) -> str | list[WireError]:
    if not _may_use(caller, bucket, key, inputs.name):
        reason = "is in a bucket or folder that is not allowed for your images; the operator can allow it"
        return [_error("Source", reason, model)]
    for length in _HEADS:
        head = inputs.head(bucket, key, length)
        if head is None:
            # Without the permission to list the bucket, S3 answers both cases alike.
            return [_error("Source", "cannot be read: it does not exist, or this service may not read it", model)]
        found = _check_head(head.content, head.size, model)
        if found is not None:
            return image if isinstance(found, str) else found
        if head.size <= length:
            break
    return [_no_dimensions(model)]


def _may_use(caller: Caller, bucket: str, key: str, ours: str) -> bool:
    if bucket == ours:
        return key.startswith(folder(caller.name))
    sources = (source.partition("/") for source in caller.image_sources)
    return any(bucket == name and key.startswith(prefix) for name, _, prefix in sources)


def _check_head(head: bytes, size: int, model: VideoModel) -> str | list[WireError] | None:
    """The format of an image that the model can use, or its errors; None if its dimensions are beyond the head."""
    if size > model.max_image_bytes:
        return [_too_large(model)]
    found = picture(head)
    if found is None:
        return [_error("Format", "must be PNG, JPEG or WEBP", model)]
    # For invalid bytes of any kind, `imagesize` returns -1.
    width, height = imagesize.get(io.BytesIO(head), exif_rotation=False)
    if width < 0 or height < 0:
        return None
    allowed = model.image_sides
    low, high = allowed.minimum, allowed.maximum
    wrong = [(name, side) for name, side in (("Width", width), ("Height", height)) if side not in allowed]
    return [
        _error(name, f"has a {name.lower()} of {side} pixels; {low} to {high} are allowed", model, min=low, max=high)
        for name, side in wrong
    ] or found


def _replace_images(task: Mapping[str, Any], change: Callable[[str], str]) -> Mapping[str, Any]:
    """The task with `change` applied to each of its images."""
    inputs = task.get("inputs") or {}
    if not inputs.get("frameImages"):
        return task
    frames = [
        {**frame, "image": change(frame["image"])} if isinstance(frame, Mapping) else change(frame)
        for frame in inputs["frameImages"]
    ]
    return {**task, "inputs": {**inputs, "frameImages": frames}}


def _too_large(model: VideoModel) -> WireError:
    return _error("Size", f"must not be larger than {model.max_image_bytes} bytes", model, max=model.max_image_bytes)


def _no_dimensions(model: VideoModel) -> WireError:
    return _error("Format", f"must have its width and height in its first {_HEADS[-1]} bytes", model)


def _error(aspect: str, reason: str, model: VideoModel, **limits: float | None) -> WireError:
    documentation = f"{model.documentation}#request-inputs-frameimages"
    code, message = f"invalidFrameImage{aspect}", f"The image {reason}."
    return wire_error(code, message, _PARAMETER, type="string", documentation=documentation, **limits)

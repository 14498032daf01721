"""Small pictures for tests."""

import base64
import io
from functools import cache

from PIL import Image


@cache
def picture(width: int = 400, height: int = 300, kind: str = "PNG") -> bytes:
    """A black picture in one of Pillow's formats."""
    target = io.BytesIO()
    Image.new("L", (width, height)).save(target, kind)
    return target.getvalue()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_uri(content: bytes, mime_type: str = "image/png") -> str:
    return f"data:{mime_type};base64,{base64_of(content)}"


def padded(jpeg: bytes, length: int) -> bytes:
    """The JPEG with so many bytes of metadata ahead of its frame header, in segments of at most 64 KB."""
    segments = b""
    while length > 0:
        part = min(length, 65_533)
        segments += b"\xff\xe9" + (part + 2).to_bytes(2, "big") + bytes(part)
        length -= part
    return jpeg[:2] + segments + jpeg[2:]

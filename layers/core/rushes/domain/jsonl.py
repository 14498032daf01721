"""Splits a stream of bytes into lines, with all sizes limited while it is read. Blank lines are counted and skipped."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rushes.errors import UnreadableError

_BLANK = b" \t\r"
_SIGNATURES = (
    (b"\xef\xbb\xbf", "begins with a byte order mark; write it as UTF-8 without one"),
    (b"\xff\xfe", "is UTF-16; write it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; write it as UTF-8"),
    (b"\x1f\x8b", "is compressed (gzip); send it uncompressed"),
    (b"PK\x03\x04", "is compressed (zip); send it uncompressed"),
    (b"BZh", "is compressed (bzip2); send it uncompressed"),
    (b"\xfd7zXZ", "is compressed (xz); send it uncompressed"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd); send it uncompressed"),
)


class Limits(NamedTuple):
    """The limits of a file: `size` in bytes, the number of `lines`, and the bytes of one `line`."""

    size: int
    lines: int
    line: int


class Line(NamedTuple):
    """A line that is not blank, with its number in the file from 1. `content` is None for a line over the limit."""

    number: int
    content: bytes | None


def split(chunks: Iterable[bytes], limits: Limits) -> Iterator[Line]:
    """Yields the lines of a file; raises `UnreadableError` if the file exceeds a limit or has a foreign encoding."""
    number, total, head = 1, 0, bytearray()
    for chunk in chunks:
        total += len(chunk)
        if total > limits.size:
            raise UnreadableError(f"The file must not be larger than {limits.size} bytes.")
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            _extend(head, piece, limits)
            if number > limits.lines:
                raise _too_many(limits)
            yield from _line(number, head, limits)
            head.clear()
            number += 1
        _extend(head, rest, limits)
    yield from _line(number, head, limits)


def read_whole(chunks: Iterable[bytes], max_bytes: int, label: str) -> bytes:
    """Returns all bytes of a stream; raises `UnreadableError` if it has none or more than `max_bytes`."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > max_bytes:
            raise UnreadableError(f"The {label} must not be larger than {max_bytes} bytes.")
    if not content:
        raise UnreadableError(f"The {label} is empty.")
    return bytes(content)


def reject_foreign_encoding(head: bytes, label: str = "file") -> None:
    """Raises `UnreadableError` for content that begins with a byte order mark or is compressed."""
    for signature, fault in _SIGNATURES:
        if head.startswith(signature):
            raise UnreadableError(f"The {label} {fault}.")


def _extend(head: bytearray, piece: bytes, limits: Limits) -> None:
    """Appends up to one byte beyond the limit, by which a line that is too long is recognized."""
    head += piece[: limits.line + 1 - len(head)]


def _line(number: int, head: bytearray, limits: Limits) -> Iterator[Line]:
    if not head:
        return
    if number > limits.lines:
        raise _too_many(limits)
    if number == 1:
        reject_foreign_encoding(bytes(head[:8]))
    content = bytes(head).strip(_BLANK)
    if len(head) > limits.line:
        yield Line(number, None)
    elif content:
        yield Line(number, content)


def _too_many(limits: Limits) -> UnreadableError:
    return UnreadableError(f"The file must not have more than {limits.lines} lines.")

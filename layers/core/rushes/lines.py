"""A stream of bytes into lines, with every size bounded while it streams. Blank lines are counted and left out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rushes.errors import UnreadableError

_BLANK = b" \t\r"
_FOREIGN = (
    (b"\xef\xbb\xbf", "begins with a byte order mark; write it as UTF-8 without one"),
    (b"\xff\xfe", "is UTF-16; write it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; write it as UTF-8"),
    (b"\x1f\x8b", "is compressed (gzip); send it as it is"),
    (b"PK\x03\x04", "is compressed (zip); send it as it is"),
    (b"BZh", "is compressed (bzip2); send it as it is"),
    (b"\xfd7zXZ", "is compressed (xz); send it as it is"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd); send it as it is"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may have: bytes in all, lines, and bytes in a line."""

    size: int
    lines: int
    line: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank, by its number in the file. `content` is None if it was too long to be kept."""

    number: int
    content: bytes | None


def split(chunks: Iterable[bytes], limits: Limits) -> Iterator[Line]:
    """The lines of a file; raises `UnreadableError` as soon as the file as a whole cannot be taken."""
    number, total, head = 1, 0, bytearray()
    for chunk in chunks:
        total += len(chunk)
        if total > limits.size:
            raise UnreadableError(f"The file must not be larger than {limits.size} bytes.")
        *ended, begun = chunk.split(b"\n")
        for piece in ended:
            _extend(head, piece, limits)
            if number > limits.lines:
                raise _too_many(limits)
            yield from _line(number, head, limits)
            head.clear()
            number += 1
        _extend(head, begun, limits)
    yield from _line(number, head, limits)


def whole(chunks: Iterable[bytes], most: int, called: str) -> bytes:
    """All bytes of a stream; raises `UnreadableError` if there are more than `most`, or none."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > most:
            raise UnreadableError(f"The {called} must not be larger than {most} bytes.")
    if not content:
        raise UnreadableError(f"The {called} is empty.")
    return bytes(content)


def refuse_foreign(head: bytes, called: str = "file") -> None:
    """Raises `UnreadableError` if something begins like what is no plain UTF-8 text."""
    for mark, what in _FOREIGN:
        if head.startswith(mark):
            raise UnreadableError(f"The {called} {what}.")


def _extend(head: bytearray, piece: bytes, limits: Limits) -> None:
    """Keeps one byte more than a line may have, which is how a long one is known."""
    head += piece[: limits.line + 1 - len(head)]


def _line(number: int, head: bytearray, limits: Limits) -> Iterator[Line]:
    if not head:
        return
    if number > limits.lines:
        raise _too_many(limits)
    if number == 1:
        refuse_foreign(bytes(head[:8]))
    content = bytes(head).strip(_BLANK)
    if len(head) > limits.line:
        yield Line(number, None)
    elif content:
        yield Line(number, content)


def _too_many(limits: Limits) -> UnreadableError:
    return UnreadableError(f"The file must not have more than {limits.lines} lines.")

"""Lines from a stream, with every bound at its edge, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.jsonl import Limits, Line, read_whole, reject_foreign_encoding, split
from rushes.errors import UnreadableError

LIMITS = Limits(size=40, lines=4, line=10)


def in_chunks(content: bytes, size: int) -> list[bytes]:
    """The content in chunks of this size."""
    return [content[start : start + size] for start in range(0, len(content), size)]


def lines(content: bytes, chunk: int = 3, limits: Limits = LIMITS) -> list[Line]:
    return list(split(in_chunks(content, chunk), limits))


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", []),
        (b"\n", []),
        (b"a", [Line(1, b"a")]),
        (b"a\n", [Line(1, b"a")]),
        (b"a\nb", [Line(1, b"a"), Line(2, b"b")]),
        (b"a\r\nb\r\n", [Line(1, b"a"), Line(2, b"b")]),
        (b"\n \n\t\r\nb", [Line(4, b"b")]),
        (b"0123456789\nx", [Line(1, b"0123456789"), Line(2, b"x")]),
        (b"0123456789A\nx", [Line(1, None), Line(2, b"x")]),
        (b"x\n0123456789ABCDEF", [Line(1, b"x"), Line(2, None)]),
        (b"a\nb\nc\nd\n", [Line(number, bytes([96 + number])) for number in (1, 2, 3, 4)]),
    ],
)
def test_lines_do_not_depend_on_chunks(content: bytes, chunk: int, found: list[Line]) -> None:
    """Numbers count blank lines, which are left out; a long line has no content; the last line needs no newline."""
    assert lines(content, chunk) == found


@pytest.mark.parametrize("content", [b"a\nb\nc\nd\ne", b"\n\n\n\n\n", b"\n\n\n\nx"])
def test_the_number_of_lines_is_bounded(content: bytes) -> None:
    """One line more than allowed is an error, blank ones included."""
    with pytest.raises(UnreadableError, match="not have more than 4 lines"):
        lines(content)


def test_the_size_is_bounded_while_reading() -> None:
    """A stream is read no further than its bound, and the bound itself is allowed."""
    assert lines(b"x\n" + b" " * 38, 7) == [Line(1, b"x"), Line(2, None)]
    reads = []

    def endless() -> object:
        while True:
            reads.append(1)
            yield b"x" * 15

    with pytest.raises(UnreadableError, match="not be larger than 40 bytes"):
        list(split(endless(), LIMITS))  # type: ignore[arg-type]
    assert len(reads) == 3


@given(st.binary(max_size=60), st.integers(1, 7))
def test_lines_are_those_of_the_whole_content(content: bytes, chunk: int) -> None:
    """For any bytes and any chunks, the lines are those of the whole content."""
    roomy = Limits(size=100, lines=100, line=100)
    expected = [
        Line(number, line.strip(b" \t\r"))
        for number, line in enumerate(content.split(b"\n"), 1)
        if line.strip(b" \t\r")
    ]
    try:
        found = lines(content, chunk, roomy)
    except UnreadableError:
        with pytest.raises(UnreadableError):
            reject_foreign_encoding(content)
        return
    assert found == expected


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\x00", "UTF-16"),
        (b"\xfe\xff\x00{", "UTF-16"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ],
)
def test_other_kinds_of_files_are_named(head: bytes, words: str) -> None:
    """A file that is not plain UTF-8 is refused as a whole, also if its first bytes come in two chunks."""
    for chunk in (1, 100):
        with pytest.raises(UnreadableError, match=words):
            lines(head + b"\n{}", chunk)


def test_a_whole_file_is_bounded_and_not_empty() -> None:
    """A file that is read whole has at least one byte, and no more than allowed."""
    assert read_whole([b"ab", b"c"], 3, "file") == b"abc"
    with pytest.raises(UnreadableError, match="The image must not be larger than 2 bytes"):
        read_whole([b"ab", b"c"], 2, "image")
    with pytest.raises(UnreadableError, match="The file is empty"):
        read_whole([], 3, "file")

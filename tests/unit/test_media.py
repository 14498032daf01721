"""The container of an object by its first bytes, and the fact of a copy."""

from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.clip import FactSource, Kind
from rushes.domain.media import HEAD_BYTES, ProbeResult, container, extension, is_video, stored_fact
from rushes_local.runware.rendering import CONTAINERS, Shape, render
from tests.fakes.builders import START


def box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def ftyp(*brands: bytes) -> bytes:
    return box(b"ftyp", brands[0] + bytes(4) + b"".join(brands[1:]))


def ebml(doctype: bytes, after: bytes = b"\x18\x53\x80\x67\xff") -> bytes:
    elements = b"\x42\x86\x81\x01" + b"\x42\x82" + bytes([0x80 | len(doctype)]) + doctype + b"\x42\x87\x81\x04"
    return b"\x1aE\xdf\xa3" + bytes([0x80 | len(elements)]) + elements + after


MDAT = box(b"mdat", bytes(64))
MOOV = box(b"moov", box(b"mvhd", bytes(100)))
LARGE = b"\x00\x00\x00\x01mdat" + (80).to_bytes(8) + bytes(64)  # its length has 64 bits


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (ftyp(b"isom", b"isom", b"mp41") + box(b"free") + MDAT, "mp4"),
        (ftyp(b"mp42") + MOOV + MDAT, "mp4"),
        (ftyp(b"iso5", b"dash") + box(b"styp", bytes(8)) + MOOV, "mp4"),
        (ftyp(b"NEW1", b"isom") + MOOV, "mp4"),
        (ftyp(b"qt  ") + box(b"wide") + MDAT, "mov"),
        (ftyp(b"isom") + LARGE + MOOV, "mp4"),
        (ftyp(b"isom") + b"\x00\x00\x00\x00mdat" + bytes(64), "mp4"),  # up to the end of the file
        (box(b"wide") + MDAT + MOOV, "mov"),
        (box(b"wide") + LARGE + MOOV, "mov"),
        (MDAT + MOOV, "mov"),
        (MOOV + MDAT, "mov"),
        (ebml(b"webm"), "webm"),
        (ebml(b"webm\x00\x00"), "webm"),
        (ebml(b"webm", b"\xec\x81\x00\x18\x53\x80\x67\xff"), "webm"),
        (ebml(b"matroska"), None),
        (ebml(b"webm", b"<script>"), None),
        (ebml(b"webm", b""), None),
        (ebml(b""), None),
        (b"\x1aE\xdf\xa3" + bytes(60), None),
        (b"\x1aE\xdf\xa3", None),
        (b"<!--ftypmp42--><script>alert(1)</script>", None),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42<script>alert(1)</script>", None),
        (b"\n\n\n\nmdat of a text" * 9, None),
        (b"\n\n\n\nmoov of a text" * 9, None),
        (box(b"moov"), None),
        (box(b"wide"), None),
        (box(b"mdat"), None),
        (box(b"free") * 5, None),
        (b"\x00\x00\x00\x00free", None),
        (b"\x00\x00\x00\x00mdat" + bytes(64), None),  # no box can follow it
        (MDAT, None),
        (MOOV, None),
        (box(b"moov", b"<script>alert(1)</script>") + MDAT, None),
        (ftyp(b"isom", b"mp41"), None),
        (ftyp(b"isom", b"mp41")[:12], None),
        (ftyp(b"isom")[:12] + bytes(100), None),
        (ftyp(b"isom", b"mp41") + bytes(100), None),
        (ftyp(b"isom") + box(b"mdat", bytes(64))[:-1], None),  # truncated
        (ftyp(b"none", b"other") + MOOV, None),
        (ftyp(b"avif", b"mif1", b"iso8") + MOOV, None),
        (ftyp(b"heic", b"mif1") + MOOV, None),
        (ftyp(b"M4A ", b"isom", b"mp42") + MOOV, None),
        (b"", None),
        (b"\x00\x00\x00\x18fty", None),
        (b"ftypisom", None),
        (b"<?xml version", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (bytes(20), None),
    ],
)
def test_the_container_is_read_from_the_first_bytes(content: bytes, kind: str | None) -> None:
    """Videos are recognized by boxes that fit together or by EBML's header; anything else has no container."""
    assert container(content[:HEAD_BYTES], len(content)) == kind


def test_the_size_may_be_unknown() -> None:
    """Without the file's size a box may end anywhere within reason, and text still is no video."""
    video = ftyp(b"isom") + box(b"mdat", bytes(5000))
    assert container(video[:HEAD_BYTES]) == "mp4"
    assert container(video[:HEAD_BYTES], len(video) - 1) is None
    assert container(b"<!--ftypmp42--><script>" + bytes(500)) is None


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_emulators_renders_are_videos(name: str) -> None:
    """Each of the emulator's renders has the container that was ordered."""
    content = render(Shape(320, 320, 5, name, "a lighthouse", small=True))
    assert container(content[:HEAD_BYTES], len(content)) == name.lower()


@pytest.mark.parametrize(
    ("muxer", "options", "kind"),
    [
        ("mp4", {}, "mp4"),
        ("mp4", {"movflags": "faststart"}, "mp4"),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}, "mp4"),
        ("mp4", {"movflags": "dash+frag_keyframe"}, "mp4"),
        ("mp4", {"brand": "mp42"}, "mp4"),
        ("mov", {}, "mov"),
        ("mov", {"movflags": "faststart"}, "mov"),
        ("ismv", {}, "mp4"),
        ("3gp", {}, "mp4"),
        ("webm", {}, "webm"),
        ("webm", {"live": "1"}, "webm"),
        ("matroska", {}, None),
        ("avi", {}, None),
    ],
)
def test_videos_of_other_programs_are_recognized(
    muxer: str, options: dict[str, str], kind: str | None, tmp_path: Path
) -> None:
    """Files of FFmpeg's muxers, with the index in front, at the end or in fragments."""
    file = tmp_path / "video"
    with av.open(str(file), "w", format=muxer, options=options) as output:
        stream = output.add_stream("libvpx" if muxer in ("webm", "matroska") else "mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode())
    content = file.read_bytes()
    assert container(content[:HEAD_BYTES], len(content)) == kind
    if muxer == "mov" and not options:
        # QuickTime from before brands: the same boxes without the first.
        older = content[int.from_bytes(content[:4]) :]
        assert container(older[:HEAD_BYTES], len(older)) == "mov"


@given(st.binary(max_size=HEAD_BYTES), st.sampled_from([b"", b"\x1aE\xdf\xa3", ftyp(b"isom"), b"\x00\x00\x00\x08wide"]))
def test_any_bytes_have_a_container_or_none(rest: bytes, start: bytes) -> None:
    """No bytes raise an error."""
    head = (start + rest)[:HEAD_BYTES]
    assert container(head, len(head)) in (None, "mp4", "mov", "webm")
    assert container(head) in (None, "mp4", "mov", "webm")


@pytest.mark.parametrize(
    ("kind", "size", "good"),
    [("mp4", 1, True), ("mov", 1, True), ("webm", 1, True), ("mp4", 0, False), (None, 9, False)],
)
def test_an_object_is_a_copy_if_it_is_a_video(kind: str | None, size: int, good: bool) -> None:
    """Only a non-empty object of a supported container is recorded as a copy."""
    probed = ProbeResult("v1", size, "etag", kind)
    assert is_video(probed) is good
    assert (stored_fact(probed, "a.mp4", START) is not None) is good


@pytest.mark.parametrize(
    ("kind", "key", "ordered", "ending"),
    [
        ("mp4", "a.mp4", None, "mp4"),
        ("mov", "a.mp4", None, "mp4"),
        ("mp4", "a.mov", None, "mov"),
        ("webm", "a.webm", None, "webm"),
        ("mp4", "a.webm", "webm", "mp4"),
        ("webm", "a.mp4", "mp4", "webm"),
    ],
)
def test_a_video_of_another_kind_than_ordered_is_a_copy(kind: str, key: str, ordered: str | None, ending: str) -> None:
    """The fact of such a paid video has its container and the ordered one; MP4 and MOV count as one."""
    found = stored_fact(ProbeResult("v1", 5, "e", kind), key, START)
    assert found is not None
    assert found.fields == {"size": 5, "etag": "e", "container": kind} | ({"ordered": ordered} if ordered else {})
    assert extension(key, kind) == ending
    assert extension(key, "") == key.rpartition(".")[2]


def test_a_copy_is_pinned_by_its_version() -> None:
    """The fact has the probed version, the bucket as its source, size, ETag and container."""
    found = stored_fact(ProbeResult("v1", 5, "e", "mov"), "a.mp4", START)
    assert found is not None
    assert (found.kind, found.key, found.at, found.source) == (Kind.STORED, "v1", START, FactSource.BUCKET)
    assert found.fields == {"size": 5, "etag": "e", "container": "mov"}
    assert stored_fact(None, "a.mp4", START) is None

"""What first bytes say, and whether an object is the clip that its key promises."""

import pytest

from rushes.clip import Kind, Witness
from rushes.media import Probed, container, is_video, stored_fact
from tests.unit.fakes import START

PADDING = bytes(20)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x00\x00\x00\x18ftypisom" + PADDING, "mp4"),
        (b"\x00\x00\x00\x18ftypmp42", "mp4"),
        (b"\x00\x00\x00\x14ftypqt  " + PADDING, "mov"),
        (b"\x00\x00\x00\x08wide", "mov"),
        (b"\x00\x00\x00\x08moov", "mov"),
        (b"\x00\x00\x00\x08mdat", "mov"),
        (b"\x1aE\xdf\xa3" + PADDING, "webm"),
        (b"", None),
        (b"\x00\x00\x00\x18fty", None),
        (b"ftypisom", None),
        (b"<?xml version", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (PADDING, None),
    ],
)
def test_first_bytes_tell_the_container(head: bytes, kind: str | None) -> None:
    """Videos are told by their signatures; everything else is none."""
    assert container(head) == kind


@pytest.mark.parametrize(
    ("kind", "size", "key", "good"),
    [
        ("mp4", 1, "a.mp4", True),
        ("mov", 1, "a.mp4", True),
        ("mp4", 1, "a.mov", True),
        ("webm", 1, "a.webm", True),
        ("webm", 1, "a.mp4", False),
        ("mp4", 1, "a.webm", False),
        ("mp4", 0, "a.mp4", False),
        (None, 9, "a.mp4", False),
        (None, 9, "a", False),
        ("mp4", 1, "mp4.txt", False),
    ],
)
def test_an_object_is_a_copy_only_if_it_is_what_its_key_promises(
    kind: str | None, size: int, key: str, good: bool
) -> None:
    """Not empty, and of the promised container, where MP4 and MOV are one family; only then it is a fact."""
    probed = Probed("v1", size, "etag", kind)
    assert is_video(probed, key) is good
    assert (stored_fact(probed, key, START) is not None) is good


def test_a_copy_is_pinned_by_its_version() -> None:
    """The fact names the version that was seen, by the bucket's own witness, with size, ETag and container."""
    found = stored_fact(Probed("v1", 5, "e", "mov"), "a.mp4", START)
    assert found is not None
    assert (found.kind, found.key, found.at, found.witness) == (Kind.STORED, "v1", START, Witness.BUCKET)
    assert found.fields == {"size": 5, "etag": "e", "container": "mov"}
    assert stored_fact(None, "a.mp4", START) is None

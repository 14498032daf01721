"""Recognizes pictures and video containers by their first bytes, and makes the `stored` fact of a clip. Pure."""

import re
from typing import NamedTuple

from rushes.domain.clip import Fact, FactSource, Kind, Scalar

HEAD_BYTES = 512  # enough for the first boxes of an MP4 or MOV, and for the header of a WEBM
_MAX_BOX_BYTES = 512 * 1024 * 1024  # for a file of unknown size: the first four bytes of a text are a larger number
_MAX_FTYP_BYTES = 4096
_EBML, _SEGMENT, _DOCTYPE = 0x1A45DFA3.to_bytes(4), 0x18538067.to_bytes(4), 0x4282.to_bytes(2)
_PADDING = {b"wide", b"free", b"skip"}
_MOVIE_HEADERS = {b"mvhd", b"cmov"}
_FOUR_CHARACTERS = re.compile(rb"[A-Za-z0-9 _\xa9-]{4}")
# Brands of files that have boxes but are not videos: audio and pictures.
_OTHER_MEDIA = re.compile(rb"M4[ABP] |F4[AB] |hei[cmsx]|mif[12]|avif|jp[2xm] |crx |aax[ c]")
_BRANDS = re.compile(
    rb"iso[2-9a-m]|mp4[12]|mp71|mmp4|avc1|hvc1|hev1|av01|M4V[ HP]|[Ff]4[vVP] |3g[2p]."
    rb"|dash|msdh|cmf[2c]|isml|piff|MSNV|XAVC"
)


class ProbeResult(NamedTuple):
    """The object version under a key. `container` is None if its first bytes are not a video's; `size` is in bytes."""

    version: str
    size: int
    etag: str
    container: str | None


class Head(NamedTuple):
    """The first bytes of an object, and its total size in bytes."""

    size: int
    content: bytes


def picture(head: bytes) -> str | None:
    """Returns the picture format by a file's first bytes, as a file extension: png, jpg, webp, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def container(head: bytes, size: int | None = None) -> str | None:
    """Returns the container by a file's first `HEAD_BYTES`: mp4, mov, webm, or None if it is not a video.

    `size` is the file's size in bytes, or None. The structure is checked as far as the head goes, since any text may
    contain a signature of four bytes: each box has to end within the file, and another box has to follow the first.
    """
    if head.startswith(_EBML):
        return "webm" if _is_webm(head, size) else None
    box = _box(head, 0, size)
    while box and box.kind in _PADDING:
        box = _box(head, box.end, size) if box.end else None
    if box is None or not _has_successor(head, box, size):
        return None
    if box.kind == b"moov":  # QuickTime without brands, as the next
        child = _box(head, box.payload, box.end)
        return "mov" if child and child.kind in _MOVIE_HEADERS else None
    if box.kind == b"mdat":
        return "mov"
    return _by_brand(head, box) if box.kind == b"ftyp" else None


def same_kind(one: str, other: str) -> bool:
    """True if two containers or file extensions are of one family: MP4 and MOV are."""
    return one == other or {one, other} <= {"mp4", "mov"}


def extension(key: str, container: str) -> str:
    """Returns an object's file extension: that of its key, or of its container if this is of another family."""
    ordered = key.rpartition(".")[2]
    return ordered if not container or same_kind(ordered, container) else container


def is_video(probed: ProbeResult) -> bool:
    """True if an object is a video that is not empty."""
    return probed.size > 0 and probed.container is not None


def stored_fact(probed: ProbeResult | None, key: str, now: int) -> Fact | None:
    """Returns the `stored` fact of a probed object, or None if it is missing, empty or not a video.

    A video of another container than its key's extension is a copy too: it is paid for and can be played. The fact then
    has both.
    """
    if probed is None or not is_video(probed):
        return None
    actual, ordered = probed.container or "", key.rpartition(".")[2]
    fields: dict[str, Scalar] = {"size": probed.size, "etag": probed.etag, "container": actual}
    if not same_kind(actual, ordered):
        fields["ordered"] = ordered
    return Fact(kind=Kind.STORED, key=probed.version, at=now, source=FactSource.BUCKET, fields=fields)


class _Box(NamedTuple):
    """A box of an MP4 or MOV, with the offsets of its content and its end; `end` is 0 for the end of the file."""

    kind: bytes
    payload: int
    end: int


def _box(head: bytes, at: int, size: int | None) -> _Box | None:
    """The box at this offset; None if there is none or it does not fit into the file."""
    kind, length, payload = head[at + 4 : at + 8], int.from_bytes(head[at : at + 4]), at + 8
    if not _FOUR_CHARACTERS.fullmatch(kind):
        return None
    if length == 1:
        length, payload = int.from_bytes(head[at + 8 : at + 16]), at + 16
        if len(head) < payload:
            return None
    if length == 0:
        return _Box(kind, payload, 0)
    end = at + length
    return _Box(kind, payload, end) if payload <= end <= (_MAX_BOX_BYTES if size is None else size) else None


def _has_successor(head: bytes, box: _Box, size: int | None) -> bool:
    """True if another box follows, as far as the head shows: a video has more than one box."""
    if box.end <= box.payload or (size is not None and box.end + 8 > size):
        return False
    return len(head) < box.end + 8 or _box(head, box.end, size) is not None


def _by_brand(head: bytes, ftyp: _Box) -> str | None:
    if ftyp.end - ftyp.payload < 8 or ftyp.end % 4 or ftyp.end > _MAX_FTYP_BYTES:
        return None
    major, rest = head[ftyp.payload : ftyp.payload + 4], head[ftyp.payload + 8 : ftyp.end]
    brands = [major, *(rest[at : at + 4] for at in range(0, len(rest), 4))]
    if _OTHER_MEDIA.fullmatch(major):
        return None
    if major == b"qt  ":
        return "mov"
    return "mp4" if any(_BRANDS.fullmatch(brand) for brand in brands) else None


def _is_webm(head: bytes, size: int | None) -> bool:
    """True if an EBML header has the type WEBM and a segment follows. Matroska has the same signature."""
    length, at = _vint(head, 4)
    end = at + length
    if at == 0 or end > _MAX_FTYP_BYTES or (size is not None and end >= size):
        return False
    if len(head) >= end + 4 and not head.startswith((_SEGMENT, b"\xec", b"\xbf"), end):
        return False
    while 0 < at < min(end, len(head)):
        name = head[at : at + _vint_length(head, at)]
        length, at = _vint(head, at + len(name))
        if name == _DOCTYPE:
            return head[at : at + length].rstrip(b"\0") == b"webm"
        at = at and at + length
    return False


def _vint_length(head: bytes, at: int) -> int:
    """The bytes of an EBML number, by its leading zeros; 0 if there is none."""
    return 9 - head[at].bit_length() if at < len(head) and head[at] else 0


def _vint(head: bytes, at: int) -> tuple[int, int]:
    """An EBML number and the offset after it; the offset is 0 if there is no number."""
    length = _vint_length(head, at)
    value = int.from_bytes(head[at : at + length])
    return (value & ((1 << 7 * length) - 1), at + length) if length and at + length <= len(head) else (0, 0)

"""What a file's first bytes say, and whether an object is the clip that its key promises. Pure."""

import re
from dataclasses import dataclass

from rushes.domain.clip import Fact, FactSource, Kind, Scalar

HEAD_BYTES = 512  # enough for the first boxes of an MP4 or MOV, and for the header of a WEBM
_MAX_BOX_BYTES = 512 * 1024 * 1024  # bytes, where the file's size is unknown: no text begins with such a number
_MAX_FTYP_BYTES = 4096
_EBML, _SEGMENT, _DOCTYPE = 0x1A45DFA3.to_bytes(4), 0x18538067.to_bytes(4), 0x4282.to_bytes(2)
_PADDING = {b"wide", b"free", b"skip"}
_MOVIE_HEADERS = {b"mvhd", b"cmov"}
_FOUR_CHARACTERS = re.compile(rb"[A-Za-z0-9 _\xa9-]{4}")
# Files that have boxes and brands and are no videos: sound alone, and pictures.
_OTHER_MEDIA = re.compile(rb"M4[ABP] |F4[AB] |hei[cmsx]|mif[12]|avif|jp[2xm] |crx |aax[ c]")
_BRANDS = re.compile(
    rb"iso[2-9a-m]|mp4[12]|mp71|mmp4|avc1|hvc1|hev1|av01|M4V[ HP]|[Ff]4[vVP] |3g[2p]."
    rb"|dash|msdh|cmf[2c]|isml|piff|MSNV|XAVC"
)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What lies under a key: `container` is None when the first bytes are not a video's. `size` is in bytes."""

    version: str
    size: int
    etag: str
    container: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of an object, and how large all of it is."""

    size: int
    content: bytes


def picture(head: bytes) -> str | None:
    """The picture format that a file's first bytes announce, as a file extension: png, jpg, webp, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def container(head: bytes, size: int | None = None) -> str | None:
    """The container that a file's first `HEAD_BYTES` show: mp4, mov, webm, or None for anything that is not a video.

    `size` is the whole file's, if it is known. The structure is checked as far as the head goes, since a signature of
    four bytes can stand in any text: each box has to end within the file, and something has to follow the first one.
    """
    if head.startswith(_EBML):
        return "webm" if _is_webm(head, size) else None
    box = _box(head, 0, size)
    while box and box.kind in _PADDING:
        box = _box(head, box.end, size) if box.end else None
    if box is None or not _is_followed(head, box, size):
        return None
    if box.kind == b"moov":  # QuickTime from before it had brands, as the next
        child = _box(head, box.payload, box.end)
        return "mov" if child and child.kind in _MOVIE_HEADERS else None
    if box.kind == b"mdat":
        return "mov"
    return _by_brand(head, box) if box.kind == b"ftyp" else None


def same_kind(one: str, other: str) -> bool:
    """Whether two containers, or file extensions, are as good as one: MP4 and MOV are one family."""
    return one == other or {one, other} <= {"mp4", "mov"}


def extension(key: str, container: str) -> str:
    """The file extension of an object by its content: the key's own, unless the object is of another kind."""
    ordered = key.rpartition(".")[2]
    return ordered if not container or same_kind(ordered, container) else container


def is_video(probed: ProbeResult) -> bool:
    """Whether an object is a video at all."""
    return probed.size > 0 and probed.container is not None


def stored_fact(probed: ProbeResult | None, key: str, now: int) -> Fact | None:
    """What a probe proves: the clip is stored, or nothing. An empty or foreign object is not a copy.

    A video of another kind than its key promises is a copy: it was paid for, and can be played. The fact has both.
    """
    if probed is None or not is_video(probed):
        return None
    found, ordered = probed.container or "", key.rpartition(".")[2]
    fields: dict[str, Scalar] = {"size": probed.size, "etag": probed.etag, "container": found}
    if not same_kind(found, ordered):
        fields["ordered"] = ordered
    return Fact(kind=Kind.STORED, key=probed.version, at=now, source=FactSource.BUCKET, fields=fields)


@dataclass(frozen=True, slots=True)
class _Box:
    """A box of an MP4 or MOV: where its content begins, and where it ends; 0 for the end of the file."""

    kind: bytes
    payload: int
    end: int


def _box(head: bytes, at: int, size: int | None) -> _Box | None:
    """The box whose header stands at this place; None if none does, or none that fits into the file."""
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


def _is_followed(head: bytes, box: _Box, size: int | None) -> bool:
    """Whether another box comes after this one, as far as can be seen: no video is made of its first box alone."""
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
    """Whether an EBML header names WEBM, and a segment follows it. Matroska has the same signature."""
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
    """How many bytes a number of EBML's takes, by the zeros that it begins with; 0 if it is none."""
    return 9 - head[at].bit_length() if at < len(head) and head[at] else 0


def _vint(head: bytes, at: int) -> tuple[int, int]:
    """A number of EBML's, and the place after it; the place is 0 if no number stands there."""
    length = _vint_length(head, at)
    value = int.from_bytes(head[at : at + length])
    return (value & ((1 << 7 * length) - 1), at + length) if length and at + length <= len(head) else (0, 0)

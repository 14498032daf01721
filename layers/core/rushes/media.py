"""What a file's first bytes say, and whether an object is the clip that its key promises. Pure."""

from dataclasses import dataclass

from rushes.clip import Fact, Kind, Scalar, Witness


@dataclass(frozen=True, slots=True)
class Probed:
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


def container(head: bytes) -> str | None:
    """The container that a file's first bytes announce: mp4, mov, webm, or None for anything that is not a video."""
    if head[4:8] == b"ftyp":
        return "mov" if head[8:12] == b"qt  " else "mp4"
    if head[4:8] in (b"moov", b"wide", b"mdat"):  # QuickTime from before it had brands
        return "mov"
    return "webm" if head.startswith(b"\x1aE\xdf\xa3") else None


def is_video(probed: Probed, key: str) -> bool:
    """Whether an object is what its key promises. MP4 and MOV are one family and their brands are often mixed."""
    promised = key.rpartition(".")[2]
    return probed.size > 0 and (probed.container == promised or {probed.container, promised} <= {"mp4", "mov"})


def stored_fact(probed: Probed | None, key: str, now: int) -> Fact | None:
    """What a probe proves: the clip is stored, or nothing. An empty or foreign object is not a copy."""
    if probed is None or not is_video(probed, key):
        return None
    fields: dict[str, Scalar] = {"size": probed.size, "etag": probed.etag, "container": probed.container or ""}
    return Fact(kind=Kind.STORED, key=probed.version, at=now, witness=Witness.BUCKET, fields=fields)

"""Bringing a render's bytes into the bucket when the upload never came: from Runware's address, or from inline data.

The address comes from outside, so it is trusted with little: only listed origins, no redirects, no name that resolves
to a private address, one deadline for everything, a size cap, bounded memory, and nothing that does not begin like a
video, of whatever kind. Nothing is decompressed.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import httpx

from rushes.adapters.aws import aws_errors
from rushes.adapters.bounded_http import resolve
from rushes.domain.media import HEAD_BYTES, ProbeResult, container
from rushes.errors import BucketError, OriginRefusedError, RescueError, UnusableRenderError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_PART = 8 * 1024 * 1024  # bytes held in memory; S3 wants parts of at least 5 MiB
_MAX_VIDEO_BYTES = 512 * 1024 * 1024  # bytes; a 10-second clip at the highest quality has some tens of megabytes
_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "webm": "video/webm"}


class VideoDownloader:
    """Writes into one bucket what it fetches from `origins` (scheme, host and port). `clock` gives milliseconds."""

    def __init__(
        self,
        client: "S3Client",
        name: str,
        probe: Callable[[str], ProbeResult | None],
        http: httpx.Client,
        origins: frozenset[str],
        clock: Callable[[], int],
    ) -> None:
        self._client, self._name, self._probe = client, name, probe
        self._http, self._origins, self._clock = http, origins, clock

    def fetch(self, url: str, key: str, ends_at: int) -> ProbeResult:
        """Streams a video into the bucket; raises `RescueError` with the reason, and leaves nothing half-written."""
        with _rescue_errors():
            response = self._http.send(self._request(url, ends_at), stream=True)
            with closing(response):
                if response.status_code != 200:
                    raise RescueError(f"HTTP {response.status_code}")
                if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                    raise RescueError("the answer is compressed")
                pieces = _Pieces(response.iter_raw(), lambda: self._clock() > ends_at)
                return self._store(pieces, key, _announced(response))

    def save_inline(self, data: str, key: str) -> ProbeResult:
        """Stores a video that came inline, as base64 or data URI; raises `RescueError`."""
        text = data.partition(";base64,")[2] if data.startswith("data:") else data
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise RescueError("the inline video is not base64") from None
        with _rescue_errors():
            return self._store(_Pieces(iter([content]), lambda: False), key, len(content))

    def _request(self, url: str, ends_at: int) -> httpx.Request:
        """The request, bound to an address that was checked, so that the name cannot resolve to another one later."""
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}".lower() not in self._origins or not parts.hostname:
            raise OriginRefusedError(_origin(parts))
        address = _address(parts.hostname, self._left(ends_at))
        return self._http.build_request(
            "GET",
            httpx.URL(url).copy_with(host=address),
            headers={"Host": parts.netloc, "Accept-Encoding": "identity"},
            timeout=self._left(ends_at),
            extensions={"sni_hostname": parts.hostname},
        )

    def _left(self, ends_at: int) -> float:
        """The seconds that are left; raises `RescueError` if none are."""
        left = (ends_at - self._clock()) / 1000
        if left <= 0:
            raise RescueError("out of time")
        return left

    def _store(self, body: "_Pieces", key: str, size: int | None) -> ProbeResult:
        """Judges what comes before anything of it is uploaded. `size` is what was announced."""
        head = body.peek()
        if not head:
            raise RescueError("nothing at the address yet")
        found = container(head, len(head) if len(head) < HEAD_BYTES else size)
        if not found:
            raise UnusableRenderError("no video at the address")
        if size is not None and size > _MAX_VIDEO_BYTES:
            raise UnusableRenderError("the video is too large")
        try:
            with aws_errors(BucketError):
                self._upload(body, key, _TYPES[found])
            stored = self._probe(key)
        except BucketError as error:
            raise RescueError(f"the bucket refused: {error}") from None
        if stored is None:
            raise RescueError("the copy is not in the bucket")
        return stored

    def _upload(self, body: "_Pieces", key: str, content_type: str) -> None:
        # Here, since a rescue is rare and every cold start would wait for the import.
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        # One part after another: what is held in memory is one part.
        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, use_threads=False)
        with create_transfer_manager(self._client, config) as manager:
            # A reader is all that is asked of the body.
            manager.upload(body, self._name, key, {"ContentType": content_type}).result()  # type: ignore[arg-type]


class _Pieces:
    """A reader over pieces that come in, within the size cap and until `late` says stop."""

    def __init__(self, pieces: Iterator[bytes], late: Callable[[], bool]) -> None:
        self._pieces, self._late = pieces, late
        self._buffer = bytearray()
        self._total = 0

    def peek(self) -> bytes:
        """The first bytes, enough to tell a container; nothing is consumed."""
        self._fill(HEAD_BYTES)
        return bytes(self._buffer[:HEAD_BYTES])

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all there are if negative; empty at the end."""
        wanted = _MAX_VIDEO_BYTES if size < 0 else size
        self._fill(wanted)
        taken = bytes(self._buffer[:wanted])
        del self._buffer[:wanted]
        return taken

    def _fill(self, wanted: int) -> None:
        while len(self._buffer) < wanted:
            piece = next(self._pieces, None)
            if piece is None:
                return
            self._total += len(piece)
            if self._total > _MAX_VIDEO_BYTES:
                raise UnusableRenderError("the video is too large")
            if self._late():
                raise RescueError("out of time")
            self._buffer += piece


@contextmanager
def _rescue_errors() -> Iterator[None]:
    """Inside, whatever goes wrong is a `RescueError`: there is no copy, and another address may have one."""
    try:
        yield
    except RescueError:
        raise
    except (ValueError, httpx.InvalidURL):
        raise RescueError("the address cannot be read") from None
    except Exception as error:
        raise RescueError(type(error).__name__) from None


def _announced(response: httpx.Response) -> int | None:
    """The body's length, if it was sent along."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch("[0-9]{1,15}", length) else None


def _origin(parts: SplitResult) -> str:
    """Scheme, host and port of an address, without whatever else it has; harmless, and not long."""
    host = parts.netloc.rpartition("@")[2]
    return re.sub(r"[^A-Za-z0-9.:/\[\]-]", "_", f"{parts.scheme}://{host}")[:100]


def _address(host: str, seconds: float) -> str:
    """An address of the host. A name must not lead inside; an address was listed by the operator in so many words."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = resolve(host, seconds)
    except OSError:
        raise RescueError("the host's name is not resolved") from None
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    if not addresses or not all(address.is_global for address in addresses):
        raise RescueError("the host's name leads to an address that is not public")
    return str(sorted(addresses, key=lambda address: address.version)[0])

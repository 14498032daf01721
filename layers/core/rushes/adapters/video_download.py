"""The rescue of a render whose upload is missing: copies it into the bucket, from Runware's URL or from inline data.

The URL is untrusted input: only allowed origins, no redirects, no name that resolves to a private address, one deadline
for the whole download, limits of size and memory, and no content that does not begin like a video. Nothing is
decompressed.
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

_PART = 8 * 1024 * 1024  # bytes in memory; S3 requires parts of at least 5 MiB
_MAX_VIDEO_BYTES = 512 * 1024 * 1024  # bytes; a 10-second clip at the highest quality has some tens of megabytes
_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "webm": "video/webm"}


class VideoDownloader:
    """Copies videos from `origins` (scheme, host and port) into one bucket. `clock` gives milliseconds."""

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
        """Streams a video into the bucket; raises `RescueError` with the reason, and never leaves a partial object."""
        with _rescue_errors():
            response = self._http.send(self._request(url, ends_at), stream=True)
            with closing(response):
                if response.status_code != 200:
                    raise RescueError(f"HTTP {response.status_code}")
                if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                    raise RescueError("the answer is compressed")
                body = _Reader(response.iter_raw(), lambda: self._clock() > ends_at)
                return self._store(body, key, _content_length(response))

    def save_inline(self, data: str, key: str) -> ProbeResult:
        """Stores an inline video, given as base64 or data URI; raises `RescueError`."""
        text = data.partition(";base64,")[2] if data.startswith("data:") else data
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise RescueError("the inline video is not base64") from None
        with _rescue_errors():
            return self._store(_Reader(iter([content]), lambda: False), key, len(content))

    def _request(self, url: str, ends_at: int) -> httpx.Request:
        """The request to a checked address, so that the name cannot resolve to another address later."""
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}".lower() not in self._origins or not parts.hostname:
            raise OriginRefusedError(_origin(parts))
        address = _public_address(parts.hostname, self._seconds_left(ends_at))
        return self._http.build_request(
            "GET",
            httpx.URL(url).copy_with(host=address),
            headers={"Host": parts.netloc, "Accept-Encoding": "identity"},
            timeout=self._seconds_left(ends_at),
            extensions={"sni_hostname": parts.hostname},
        )

    def _seconds_left(self, ends_at: int) -> float:
        """The seconds until `ends_at`; raises `RescueError` after it."""
        left = (ends_at - self._clock()) / 1000
        if left <= 0:
            raise RescueError("out of time")
        return left

    def _store(self, body: "_Reader", key: str, size: int | None) -> ProbeResult:
        """Checks the first bytes before the upload starts. `size` is the declared length in bytes."""
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

    def _upload(self, body: "_Reader", key: str, content_type: str) -> None:
        # Imported here, because a rescue is rare, and the import would slow down every cold start.
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        # Parts are sent one by one, so only one is in memory.
        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, use_threads=False)
        with create_transfer_manager(self._client, config) as manager:
            # The upload needs only the method `read` of a body.
            manager.upload(body, self._name, key, {"ContentType": content_type}).result()  # type: ignore[arg-type]


class _Reader:
    """A reader over chunks; raises beyond the size limit and as soon as `is_late` is true."""

    def __init__(self, chunks: Iterator[bytes], is_late: Callable[[], bool]) -> None:
        self._chunks, self._is_late = chunks, is_late
        self._buffer = bytearray()
        self._total = 0

    def peek(self) -> bytes:
        """The first bytes, enough to detect a container, without consuming them."""
        self._fill(HEAD_BYTES)
        return bytes(self._buffer[:HEAD_BYTES])

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, or all if it is negative; empty at the end."""
        length = _MAX_VIDEO_BYTES if size < 0 else size
        self._fill(length)
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return content

    def _fill(self, length: int) -> None:
        while len(self._buffer) < length:
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            self._total += len(chunk)
            if self._total > _MAX_VIDEO_BYTES:
                raise UnusableRenderError("the video is too large")
            if self._is_late():
                raise RescueError("out of time")
            self._buffer += chunk


@contextmanager
def _rescue_errors() -> Iterator[None]:
    """Turns every exception into a `RescueError`: there is no copy yet, and another URL may have one."""
    try:
        yield
    except RescueError:
        raise
    except (ValueError, httpx.InvalidURL):
        raise RescueError("the address cannot be read") from None
    except Exception as error:
        raise RescueError(type(error).__name__) from None


def _content_length(response: httpx.Response) -> int | None:
    """The declared length of the body in bytes; None without a valid `Content-Length`."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch("[0-9]{1,15}", length) else None


def _origin(parts: SplitResult) -> str:
    """The scheme, host and port of a URL, at most 100 safe characters, without user name, path and query."""
    host = parts.netloc.rpartition("@")[2]
    return re.sub(r"[^A-Za-z0-9.:/\[\]-]", "_", f"{parts.scheme}://{host}")[:100]


def _public_address(host: str, seconds: float) -> str:
    """An address of the host. A name must resolve to public addresses only; a literal address was allowed as such."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = resolve(host, seconds)
    except OSError:
        raise RescueError("the host's name could not be resolved") from None
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    if not addresses or not all(address.is_global for address in addresses):
        raise RescueError("the host's name resolves to an address that is not public")
    return str(sorted(addresses, key=lambda address: address.version)[0])

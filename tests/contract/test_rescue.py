"""Rescues of renders from a small server into a moto bucket; a failed one leaves nothing behind."""

import base64
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from rushes.adapters import video_download
from rushes.adapters.runware_api import http_client
from rushes.adapters.s3 import S3Bucket
from rushes.adapters.video_download import VideoDownloader
from rushes.domain.media import ProbeResult
from rushes.errors import OriginRefusedError, RescueError, UnusableRenderError
from rushes.runware.facts import poll_facts
from rushes.runware.response import read
from rushes_local.servers import Server
from rushes_local.stack import Stack
from tests.contract.s3_servers import S3Server
from tests.unit.test_runware_api import MAX_DURATION, SLOW_ANSWERS, serving, trickle

KEY = "videos/ann/2026/09/21/e613fb01-17f4-4dbf-85bd-05ea4a15aa2c-0.mp4"
HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x00mdat"
MP4 = HEAD + bytes(range(256)) * 40
MOV = b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  \x00\x00\x00\x6cmdat" + bytes(100)
WEBM = b"\x1aE\xdf\xa3\x87\x42\x82\x84webm\x18\x53\x80\x67" + bytes(100)
PART = 8 * 1024 * 1024
DEADLINE = 60_000  # milliseconds on the test's clock


@dataclass
class Site:
    """Answers every GET alike and records the paths."""

    status: int = 200
    body: bytes = MP4
    headers: list[tuple[str, str]] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    url: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.requested.append(environ["PATH_INFO"])
        length = ("Content-Length", str(len(self.body)))
        start_response(f"{self.status} Status", [length, *self.headers])
        return [self.body]


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on a free port."""
    site = Site()
    with Server(site, name="site") as server:
        site.url = server.url
        yield site


class SteppingClock:
    """Milliseconds from an arbitrary zero; each reading adds `step`."""

    now = 0
    step = 0

    def __call__(self) -> int:
        self.now += self.step
        return self.now


@dataclass
class RescueTarget:
    """An empty bucket, and rescues into it."""

    s3: Any
    name: str
    clock: SteppingClock = field(default_factory=SteppingClock)

    @property
    def bucket(self) -> S3Bucket:
        return S3Bucket(self.s3, self.name)

    def rescue(self, *origins: str, http: httpx.Client | None = None) -> VideoDownloader:
        http = http or http_client(5)
        return VideoDownloader(self.s3, self.name, self.bucket.probe, http, frozenset(origins), self.clock)

    @contextmanager
    def on(self, event: str, handler: Callable[..., None]) -> Iterator[None]:
        """Within the block boto3 calls the handler at each event of the client, which other tests share."""
        self.s3.meta.events.register(event, handler)
        try:
            yield
        finally:
            self.s3.meta.events.unregister(event, handler)

    def content(self, version: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=self.name, Key=KEY, VersionId=version)["Body"].read()
        return content

    def assert_empty(self) -> None:
        """Checks that there is no object, no earlier version and no unfinished upload."""
        assert "Versions" not in self.s3.list_object_versions(Bucket=self.name)
        assert "Uploads" not in self.s3.list_multipart_uploads(Bucket=self.name)


@pytest.fixture
def target(s3_server: S3Server) -> RescueTarget:
    """An empty bucket with versioning."""
    return RescueTarget(s3_server.client, s3_server.new_bucket())


# ----------------------------------------------------------------------------------------------------------------------
# From a URL
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "container", "content_type"),
    [(MP4, "mp4", "video/mp4"), (MOV, "mov", "video/quicktime"), (WEBM, "webm", "video/webm")],
    ids=["mp4", "mov", "webm"],
)
def test_rescued(target: RescueTarget, site: Site, body: bytes, container: str, content_type: str) -> None:
    """A video at an allowed address is stored byte by byte under the returned version."""
    site.body = body
    found = target.rescue(site.url).fetch(f"{site.url}/video/1.mp4?x=1", KEY, DEADLINE)
    assert found == target.bucket.probe(KEY)
    assert (found.size, found.container) == (len(body), container)
    assert target.content(found.version) == body
    assert target.s3.head_object(Bucket=target.name, Key=KEY)["ContentType"] == content_type
    assert site.requested == ["/video/1.mp4"]


def test_rescued_in_another_format(target: RescueTarget, site: Site) -> None:
    """A video in another format than its key's is a copy, with its own container and type."""
    site.body = WEBM
    found = target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    assert found.container == "webm"
    assert target.s3.head_object(Bucket=target.name, Key=KEY)["ContentType"] == "video/webm"
    link = target.bucket.download_link(KEY, 60, found.version, "webm")
    answer = httpx.get(link, trust_env=False)
    assert (answer.content, answer.headers["content-type"]) == (WEBM, "video/webm")
    name = KEY.rpartition("/")[2].replace(".mp4", ".webm")
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'


def test_rescued_over_garbage(target: RescueTarget, site: Site) -> None:
    """A rescue adds a version to the object of a bad upload and returns that version."""
    garbage = target.s3.put_object(Bucket=target.name, Key=KEY, Body=b"<html>")["VersionId"]
    found = target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    assert found.version != garbage
    assert target.content(found.version) == MP4
    assert target.content(garbage) == b"<html>"


@pytest.mark.parametrize(
    "body", [b"<html>try again</html>" * 9, b"\x00" * 500, b"{}", b"<!--ftypmp42--><script>", b"\x00\x00\x00\x08wide"]
)
def test_not_a_video(target: RescueTarget, site: Site, body: bytes) -> None:
    """Content that does not begin like a video is not stored."""
    site.body = body
    with pytest.raises(UnusableRenderError, match="no video"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()


def test_the_first_bytes_decide(target: RescueTarget) -> None:
    """A download ends after the first bytes if they are no video, and nothing is uploaded."""
    read_sizes: list[int] = []
    pieces = (read_sizes.append(1024) or b"<html>  " * 128 for _ in range(1000))  # type: ignore[func-returns-value]
    http = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=pieces)))
    with pytest.raises(UnusableRenderError):
        target.rescue("http://8.8.8.8", http=http).fetch("http://8.8.8.8/1.mp4", KEY, DEADLINE)
    assert sum(read_sizes) == 1024
    target.assert_empty()


def test_a_large_content_length_is_refused(target: RescueTarget) -> None:
    """A Content-Length beyond the limit is refused before the download."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 600000000\r\n\r\n"
    with RawServer(head + HEAD + bytes(1000)) as server, pytest.raises(UnusableRenderError, match="too large"):
        target.rescue(server.url).fetch(f"{server.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, gzip"])
def test_a_compressed_answer(target: RescueTarget, site: Site, coding: str) -> None:
    """A compressed answer is neither decompressed nor stored."""
    site.body, site.headers = gzip.compress(MP4), [("Content-Encoding", coding)]
    with pytest.raises(RescueError, match="compressed"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()


def test_nothing_yet(target: RescueTarget, site: Site) -> None:
    """A 200 without a body, which Runware has sent at first, is not a copy."""
    site.body = b""
    with pytest.raises(RescueError, match="nothing at the address yet"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()


@pytest.mark.parametrize("status", [206, 404, 403, 410, 500, 503])
def test_another_status(target: RescueTarget, site: Site, status: int) -> None:
    """Any status except 200 is an error with that status, whatever its body."""
    site.status = status
    with pytest.raises(RescueError, match=f"HTTP {status}"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect(target: RescueTarget, site: Site, status: int) -> None:
    """A redirect is not followed, not even to the same origin."""
    site.status, site.headers = status, [("Location", f"{site.url}/elsewhere.mp4")]
    with pytest.raises(RescueError, match=f"HTTP {status}"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    assert site.requested == ["/1.mp4"]
    target.assert_empty()


@pytest.mark.parametrize(
    "url",
    [
        "{scheme}://{host}:1/1.mp4",
        "https://{host}:{port}/1.mp4",
        "{scheme}://user@{host}:{port}/1.mp4",
        "{scheme}://{host}:{port}@example.com/1.mp4",
        "{scheme}://{host}:{port}.example.com/1.mp4",
        "{scheme}://127.1:{port}/1.mp4",
        "{scheme}://[::1]:{port}/1.mp4",
        "{scheme}://2130706433:{port}/1.mp4",
        "file:///etc/passwd",
        "//{host}:{port}/1.mp4",
        "1.mp4",
        "",
    ],
)
def test_another_origin(target: RescueTarget, site: Site, url: str) -> None:
    """Scheme, host and port must equal an allowed origin; no other host is contacted."""
    scheme, _, rest = site.url.partition("://")
    host, _, port = rest.partition(":")
    with pytest.raises(OriginRefusedError, match="origin"):
        target.rescue(site.url).fetch(url.format(scheme=scheme, host=host, port=port), KEY, DEADLINE)
    assert site.requested == []
    target.assert_empty()


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://im.runware.ai/video/1.mp4?token=secret", "https://im.runware.ai"),
        ("https://IM.runware.ai:8443/1.mp4#secret", "https://IM.runware.ai:8443"),
        ("https://user:secret@im.runware.ai/1.mp4", "https://im.runware.ai"),
        ("https://im.runware.ai:none/1.mp4", "https://im.runware.ai:none"),
        ("https://im.\u00fc\u2028<b>/1.mp4", "https://im.___b_"),
        ("https://" + "x" * 500, "https://" + "x" * 92),
    ],
)
def test_a_refused_origin_is_named(target: RescueTarget, url: str, origin: str) -> None:
    """The error has the scheme and host for the operator, and no path, query or password."""
    with pytest.raises(OriginRefusedError) as caught:
        target.rescue("https://vm.runware.ai").fetch(url, KEY, DEADLINE)
    assert caught.value.origin == origin
    assert str(caught.value) == f"{origin} is not an allowed origin"


@pytest.mark.parametrize(
    "url", ["https://[", "{origin}/1.mp4\x7f", "{origin}/1\n.mp4", "{origin}/" + "x" * 70_000], ids=range(4)
)
def test_an_unreadable_address(target: RescueTarget, site: Site, url: str) -> None:
    """An unreadable address is a rescue error, so that the clip goes to review after its deadline."""
    with pytest.raises(RescueError):
        target.rescue(site.url).fetch(url.format(origin=site.url), KEY, DEADLINE)


def test_an_unreadable_address_is_recorded() -> None:
    """An unreadable address in Runware's answer is recorded unchanged."""
    answer = {"data": [{"taskUUID": "u", "videoUUID": "v", "videoURL": "https://["}]}
    (rendered,) = poll_facts(read(json.dumps(answer)), 0)
    assert rendered.fields["videoURL"] == "https://["


def test_a_name_with_a_private_address(target: RescueTarget, site: Site) -> None:
    """An allowed name with an address that is not public is refused without a request."""
    origin = site.url.replace("127.0.0.1", "localhost")
    with pytest.raises(RescueError, match="not public"):
        target.rescue(origin).fetch(f"{origin}/1.mp4", KEY, DEADLINE)
    assert site.requested == []
    target.assert_empty()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the name vm.runware.ai resolve to addresses, or to none."""
    real_getaddrinfo = socket.getaddrinfo

    def to(*addresses: str) -> None:
        def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
            if host != "vm.runware.ai":
                return real_getaddrinfo(host, *arguments, **options)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return to


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["::ffff:127.0.0.1"],
        ["fd00::1"],
        ["fe80::1%eth0"],
        ["8.8.8.8", "192.168.0.1"],
    ],
    ids=lambda addresses: "+".join(addresses),
)
def test_private_addresses(target: RescueTarget, resolve: Callable[..., None], addresses: list[str]) -> None:
    """A name is refused if any of its addresses is private, link-local, shared or mapped."""
    resolve(*addresses)
    http = httpx.Client(transport=httpx.MockTransport(lambda _: pytest.fail("a request was sent")))
    with pytest.raises(RescueError, match="not public"):
        target.rescue("https://vm.runware.ai", http=http).fetch("https://vm.runware.ai/1.mp4", KEY, DEADLINE)


def test_a_name_without_an_address(target: RescueTarget, resolve: Callable[..., None]) -> None:
    """A name that cannot be resolved is a rescue error."""
    resolve()
    with pytest.raises(RescueError, match="could not be resolved"):
        target.rescue("https://vm.runware.ai").fetch("https://vm.runware.ai/1.mp4", KEY, DEADLINE)


def test_the_checked_address_is_used(target: RescueTarget, resolve: Callable[..., None]) -> None:
    """The request goes to the checked address under the host's own name, so no second lookup can differ."""
    resolve("8.8.8.8")
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=iter([MP4]))

    http = httpx.Client(transport=httpx.MockTransport(answer))
    target.rescue("https://vm.runware.ai", http=http).fetch("https://VM.runware.ai/1.mp4", KEY, DEADLINE)
    (request,) = requests
    assert request.url.host == "8.8.8.8"
    assert request.headers["host"].lower() == "vm.runware.ai"
    assert request.extensions["sni_hostname"] == "vm.runware.ai"
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("size", [5_000, PART + 5_000, 2 * PART + 5_000])
def test_cut_off(target: RescueTarget, size: int) -> None:
    """A connection that ends before the Content-Length leaves no copy, in one part or in several."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size + 1}\r\n\r\n".encode()
    video = HEAD + bytes(size - len(HEAD))
    with RawServer(head + video) as server, pytest.raises(RescueError, match="RemoteProtocolError"):
        target.rescue(server.url).fetch(f"{server.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()


class RawServer:
    """Sends its bytes to one connection, whatever the request, and closes it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "RawServer":
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._content)


def real_clock() -> int:
    return time.monotonic_ns() // 1_000_000


@pytest.mark.parametrize("answer_form", [*SLOW_ANSWERS, "video"])
def test_a_slow_host(target: RescueTarget, answer_form: str) -> None:
    """A slow answer of any form ends with the rescue's deadline, long before the HTTP timeout."""
    video = trickle(b"HTTP/1.1 200 OK\r\n\r\n" + HEAD + bytes(PART), b"\x00")
    with serving(SLOW_ANSWERS.get(answer_form, video)) as server:
        origin, started = f"http://127.0.0.1:{server.port}", real_clock()
        rescue = VideoDownloader(
            target.s3, target.name, target.bucket.probe, http_client(30), frozenset([origin]), real_clock
        )
        with pytest.raises(RescueError, match=r"ReadTimeout|out of time"):
            rescue.fetch(f"{origin}/1.mp4", KEY, started + 300)
        assert real_clock() - started < MAX_DURATION * 1000
    target.assert_empty()


def test_eight_slow_hosts(target: RescueTarget) -> None:
    """Eight concurrent rescues from slow hosts end as soon as one does."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        servers = [stack.enter_context(serving(SLOW_ANSWERS["1xx"])) for _ in range(8)]
        origins = [f"http://127.0.0.1:{server.port}" for server in servers]
        rescue = VideoDownloader(
            target.s3, target.name, target.bucket.probe, http_client(30), frozenset(origins), real_clock
        )
        started = real_clock()

        def failure(origin: str) -> str:
            with pytest.raises(RescueError) as caught:
                rescue.fetch(f"{origin}/1.mp4", KEY, started + 300)
            return str(caught.value)

        assert set(threads.map(failure, origins)) <= {"ReadTimeout", "out of time"}
        assert real_clock() - started < MAX_DURATION * 1000


def test_no_time_is_left(target: RescueTarget, site: Site) -> None:
    """A rescue without time left sends no request."""
    target.clock.now = DEADLINE
    with pytest.raises(RescueError, match="out of time"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    assert site.requested == []


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, OSError])
def test_library_errors_are_rescue_errors(target: RescueTarget, error: type[Exception]) -> None:
    """Every exception of a library becomes a rescue error without its message."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise error("with a secret")

    http = httpx.Client(transport=httpx.MockTransport(fail))
    with pytest.raises(RescueError, match=f"^{error.__name__}$"):
        target.rescue("http://8.8.8.8", http=http).fetch("http://8.8.8.8/1.mp4", KEY, DEADLINE)


def test_a_closed_port(target: RescueTarget) -> None:
    """A refused connection is a rescue error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(RescueError, match="ConnectError"):
        target.rescue(origin).fetch(f"{origin}/1.mp4", KEY, DEADLINE)


@pytest.mark.parametrize("limit", [len(MP4) - 1, 100])
def test_too_large(target: RescueTarget, site: Site, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A video over the limit is not stored; one at the limit is."""
    monkeypatch.setattr(video_download, "_MAX_VIDEO_BYTES", limit)
    with pytest.raises(RescueError, match="too large"):
        target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)
    target.assert_empty()
    monkeypatch.setattr(video_download, "_MAX_VIDEO_BYTES", len(MP4))
    target.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, DEADLINE)


def pieces_of(size: int, read_sizes: list[int]) -> Iterator[bytes]:
    """A video in pieces of 64 KB; `read_sizes` grows with each piece that is read."""
    for start in range(0, size, 65536):
        piece = (HEAD + bytes(65536))[:65536] if start == 0 else bytes(min(65536, size - start))
        read_sizes.append(len(piece))
        yield piece


def streamed(size: int, read_sizes: list[int]) -> httpx.Client:
    """A client whose every answer is such a video, generated while it is read."""
    return httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(200, content=pieces_of(size, read_sizes)))
    )


def test_many_parts(target: RescueTarget) -> None:
    """A large video is uploaded in parts, one after another, with at most one in memory."""
    size = 2 * PART + 1_000_000
    read_sizes: list[int] = []
    buffered: list[int] = []

    def part_begins(**_: Any) -> None:
        buffered.append(sum(read_sizes) - len(buffered) * PART)

    downloader = target.rescue("http://8.8.8.8", http=streamed(size, read_sizes))
    with target.on("before-call.s3.UploadPart", part_begins):
        found = downloader.fetch("http://8.8.8.8/1.mp4", KEY, DEADLINE)
    assert len(buffered) == 3
    assert max(buffered) <= PART + 2 * 65536
    assert found.size == size
    assert target.s3.head_object(Bucket=target.name, Key=KEY)["VersionId"] == found.version


@pytest.mark.parametrize("size", [65536 * 4, 2 * PART], ids=["in one piece", "in parts"])
def test_out_of_time(target: RescueTarget, size: int) -> None:
    """A rescue at its deadline stops in the middle and leaves nothing behind."""
    read_sizes: list[int] = []
    target.clock.step = DEADLINE // (size // 65536)  # so that the last pieces are late
    with pytest.raises(RescueError, match="out of time"):
        target.rescue("http://8.8.8.8", http=streamed(size, read_sizes)).fetch("http://8.8.8.8/1.mp4", KEY, DEADLINE)
    assert 0 < sum(read_sizes) < size
    target.assert_empty()


@pytest.mark.parametrize(("after", "size"), [("PutObject", 1000), ("CreateMultipartUpload", PART + 1000)])
def test_a_bucket_that_refuses(
    target: RescueTarget, s3_server: S3Server, request: pytest.FixtureRequest, after: str, size: int
) -> None:
    """An S3 error is a rescue error, and a started upload is aborted."""
    s3_server.need("faults")
    stack: Stack = request.getfixturevalue("stack")
    # Twice, since the client tries twice.
    event = f"{'before-call' if after == 'PutObject' else 'after-call'}.s3.{after}"
    fail = target.on(event, lambda **_: stack.aws.faults.fail("s3", "SlowDown", times=2))
    with fail, pytest.raises(RescueError, match="the bucket refused"):
        target.rescue("http://8.8.8.8", http=streamed(size, [])).fetch("http://8.8.8.8/1.mp4", KEY, DEADLINE)
    stack.aws.faults.clear()
    target.assert_empty()


# ----------------------------------------------------------------------------------------------------------------------
# Inline data
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "data:video/mp4;base64,"], ids=["base64", "data URI"])
def test_inline_data_is_stored(target: RescueTarget, prefix: str) -> None:
    """An inline video is stored byte by byte."""
    found = target.rescue().save_inline(prefix + base64.b64encode(MP4).decode(), KEY)
    assert isinstance(found, ProbeResult)
    assert target.content(found.version) == MP4
    assert target.s3.head_object(Bucket=target.name, Key=KEY)["ContentType"] == "video/mp4"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("*", "base64"),
        (base64.b64encode(MP4).decode()[:-3], "base64"),
        ("data:video/mp4,plain", "nothing|base64"),
        (base64.b64encode(b"not a video" * 20).decode(), "no video"),
        ("", "nothing"),
        ("ü", "base64"),
    ],
)
def test_inline_data_that_is_no_video(target: RescueTarget, data: str, reason: str) -> None:
    """Inline data that is not base64, or not a video, leaves nothing behind."""
    with pytest.raises(RescueError, match=reason):
        target.rescue().save_inline(data, KEY)
    target.assert_empty()


def test_inline_data_that_is_too_large(target: RescueTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size limit applies to inline data as well."""
    monkeypatch.setattr(video_download, "_MAX_VIDEO_BYTES", len(MP4) - 1)
    with pytest.raises(RescueError, match="too large"):
        target.rescue().save_inline(base64.b64encode(MP4).decode(), KEY)
    target.assert_empty()

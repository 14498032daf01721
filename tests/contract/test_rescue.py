"""Rescuing a render: from a small server into a bucket of moto's, or not at all and without a trace."""

import base64
import gzip
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from rushes.adapters import video_download
from rushes.adapters.runware_api import http_client
from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.adapters.video_download import VideoDownloader
from rushes.domain.media import ProbeResult
from rushes.errors import OriginRefusedError, RescueError, UnusableRenderError
from rushes.runware.facts import poll_facts
from rushes.runware.response import read
from rushes_local.servers import Server
from rushes_local.stack import Stack
from tests.unit.test_runware_api import MAX_DURATION, SLOW_ANSWERS, serving, trickle

KEY = "videos/ann/2026/09/21/e613fb01-17f4-4dbf-85bd-05ea4a15aa2c-0.mp4"
HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x00mdat"
MP4 = HEAD + bytes(range(256)) * 40
MOV = b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  \x00\x00\x00\x6cmdat" + bytes(100)
WEBM = b"\x1aE\xdf\xa3\x87\x42\x82\x84webm\x18\x53\x80\x67" + bytes(100)
PART = 8 * 1024 * 1024
LATER = 60_000  # milliseconds from the clock's zero


@dataclass
class Site:
    """Answers every GET alike and remembers what was asked for."""

    status: int = 200
    body: bytes = MP4
    headers: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append(environ["PATH_INFO"])
        length = ("Content-Length", str(len(self.body)))
        start_response(f"{self.status} Told", [length, *self.headers])
        return [self.body]


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on a free port."""
    site = Site()
    with Server(site, name="site") as server:
        site.url = server.url
        yield site


class Clock:
    """Milliseconds since nothing in particular; `step` of them pass at each look."""

    now = 0
    step = 0

    def __call__(self) -> int:
        self.now += self.step
        return self.now


@dataclass
class Place:
    """An empty bucket, and rescues that end there."""

    s3: Any
    name: str
    clock: Clock = field(default_factory=Clock)

    @property
    def bucket(self) -> S3Bucket:
        return S3Bucket(self.s3, self.name)

    def rescue(self, *origins: str, http: httpx.Client | None = None) -> VideoDownloader:
        http = http or http_client(5)
        return VideoDownloader(self.s3, self.name, self.bucket.probe, http, frozenset(origins), self.clock)

    def content(self, version: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=self.name, Key=KEY, VersionId=version)["Body"].read()
        return content

    def assert_empty(self) -> None:
        """Neither an object, nor a former one, nor an upload that was begun."""
        assert "Versions" not in self.s3.list_object_versions(Bucket=self.name)
        assert "Uploads" not in self.s3.list_multipart_uploads(Bucket=self.name)


@pytest.fixture
def place(stack: Stack) -> Place:
    """An empty bucket that keeps versions."""
    s3, name = stack.client("s3", config=S3_CONFIG), f"clips-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return Place(s3, name)


# ----------------------------------------------------------------------------------------------------------------------
# From an address
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "container", "content_type"),
    [(MP4, "mp4", "video/mp4"), (MOV, "mov", "video/quicktime"), (WEBM, "webm", "video/webm")],
    ids=["mp4", "mov", "webm"],
)
def test_rescued(place: Place, site: Site, body: bytes, container: str, content_type: str) -> None:
    """A video at an allowed address is in the bucket, byte by byte, under the version that is told."""
    site.body = body
    found = place.rescue(site.url).fetch(f"{site.url}/video/1.mp4?x=1", KEY, LATER)
    assert found == place.bucket.probe(KEY)
    assert (found.size, found.container) == (len(body), container)
    assert place.content(found.version) == body
    assert place.s3.head_object(Bucket=place.name, Key=KEY)["ContentType"] == content_type
    assert site.asked == ["/video/1.mp4"]


def test_rescued_as_what_it_is(place: Place, site: Site) -> None:
    """A video of another kind than its key promises is a copy, with its own container and type."""
    site.body = WEBM
    found = place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    assert found.container == "webm"
    assert place.s3.head_object(Bucket=place.name, Key=KEY)["ContentType"] == "video/webm"
    link = place.bucket.download_link(KEY, 60, found.version, "webm")
    answer = httpx.get(link, trust_env=False)
    assert (answer.content, answer.headers["content-type"]) == (WEBM, "video/webm")
    name = KEY.rpartition("/")[2].replace(".mp4", ".webm")
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'


def test_rescued_over_garbage(place: Place, site: Site) -> None:
    """A rescue adds a version to what an upload left behind, and tells its own."""
    garbage = place.s3.put_object(Bucket=place.name, Key=KEY, Body=b"<html>")["VersionId"]
    found = place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    assert found.version != garbage
    assert place.content(found.version) == MP4
    assert place.content(garbage) == b"<html>"


@pytest.mark.parametrize(
    "body", [b"<html>try again</html>" * 9, b"\x00" * 500, b"{}", b"<!--ftypmp42--><script>", b"\x00\x00\x00\x08wide"]
)
def test_not_a_video(place: Place, site: Site, body: bytes) -> None:
    """What does not begin like a video is not stored."""
    site.body = body
    with pytest.raises(UnusableRenderError, match="no video"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    place.assert_empty()


def test_what_is_no_video_is_not_fetched_further(place: Place) -> None:
    """The first bytes decide, before anything is uploaded and before all of it has come."""
    pulled: list[int] = []
    pieces = (pulled.append(1024) or b"<html>  " * 128 for _ in range(1000))  # type: ignore[func-returns-value]
    http = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=pieces)))
    with pytest.raises(UnusableRenderError):
        place.rescue("http://8.8.8.8", http=http).fetch("http://8.8.8.8/1.mp4", KEY, LATER)
    assert sum(pulled) == 1024
    place.assert_empty()


def test_what_is_announced_as_too_large_is_not_fetched(place: Place) -> None:
    """A length beyond the cap is believed."""
    lines = b"HTTP/1.1 200 OK\r\nContent-Length: 600000000\r\n\r\n"
    with RawServer(lines + HEAD + bytes(1000)) as server, pytest.raises(UnusableRenderError, match="too large"):
        place.rescue(server.url).fetch(f"{server.url}/1.mp4", KEY, LATER)
    place.assert_empty()


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, gzip"])
def test_a_compressed_answer(place: Place, site: Site, coding: str) -> None:
    """Nothing is unpacked, and nothing packed is stored."""
    site.body, site.headers = gzip.compress(MP4), [("Content-Encoding", coding)]
    with pytest.raises(RescueError, match="compressed"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    place.assert_empty()


def test_nothing_yet(place: Place, site: Site) -> None:
    """An answer of 200 without a byte, as it has been seen at first, is not a copy."""
    site.body = b""
    with pytest.raises(RescueError, match="nothing at the address yet"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    place.assert_empty()


@pytest.mark.parametrize("status", [206, 404, 403, 410, 500, 503])
def test_another_status(place: Place, site: Site, status: int) -> None:
    """Only a 200 is an answer, whatever comes with another status; the reason names it."""
    site.status = status
    with pytest.raises(RescueError, match=f"HTTP {status}"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    place.assert_empty()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect(place: Place, site: Site, status: int) -> None:
    """A redirect is not followed, not even to the same origin."""
    site.status, site.headers = status, [("Location", f"{site.url}/elsewhere.mp4")]
    with pytest.raises(RescueError, match=f"HTTP {status}"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    assert site.asked == ["/1.mp4"]
    place.assert_empty()


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
def test_another_origin(place: Place, site: Site, url: str) -> None:
    """Scheme, host and port have to be exactly those that are allowed; nothing else is even asked."""
    scheme, _, rest = site.url.partition("://")
    host, _, port = rest.partition(":")
    with pytest.raises(OriginRefusedError, match="origin"):
        place.rescue(site.url).fetch(url.format(scheme=scheme, host=host, port=port), KEY, LATER)
    assert site.asked == []
    place.assert_empty()


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
def test_a_refused_origin_is_named(place: Place, url: str, origin: str) -> None:
    """The operator learns scheme and host, and nothing of the path, the query or a password."""
    with pytest.raises(OriginRefusedError) as caught:
        place.rescue("https://vm.runware.ai").fetch(url, KEY, LATER)
    assert caught.value.origin == origin
    assert str(caught.value) == f"{origin} is not an allowed origin"


@pytest.mark.parametrize(
    "url", ["https://[", "{origin}/1.mp4\x7f", "{origin}/1\n.mp4", "{origin}/" + "x" * 70_000], ids=range(4)
)
def test_an_address_that_is_none(place: Place, site: Site, url: str) -> None:
    """An address that cannot be read is a reason like any other, so that the clip is parked when its time is over."""
    with pytest.raises(RescueError):
        place.rescue(site.url).fetch(url.format(origin=site.url), KEY, LATER)


def test_such_an_address_can_come() -> None:
    """Nothing on the way from Runware's answer to the record keeps an unreadable address out."""
    answer = {"data": [{"taskUUID": "u", "videoUUID": "v", "videoURL": "https://["}]}
    (rendered,) = poll_facts(read(json.dumps(answer)), 0)
    assert rendered.fields["videoURL"] == "https://["


def test_a_name_that_leads_inside(place: Place, site: Site) -> None:
    """A name, though its origin is allowed, must not lead to an address that is not public: nothing is asked there."""
    origin = site.url.replace("127.0.0.1", "localhost")
    with pytest.raises(RescueError, match="not public"):
        place.rescue(origin).fetch(f"{origin}/1.mp4", KEY, LATER)
    assert site.asked == []
    place.assert_empty()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the name vm.runware.ai lead to addresses, or to none."""
    genuine = socket.getaddrinfo

    def to(*addresses: str) -> None:
        def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
            if host != "vm.runware.ai":
                return genuine(host, *arguments, **options)
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
def test_addresses_inside(place: Place, resolve: Callable[..., None], addresses: list[str]) -> None:
    """Private, link-local, shared, mapped: one such address among those of a name is enough to refuse it."""
    resolve(*addresses)
    http = httpx.Client(transport=httpx.MockTransport(lambda _: pytest.fail("it was asked")))
    with pytest.raises(RescueError, match="not public"):
        place.rescue("https://vm.runware.ai", http=http).fetch("https://vm.runware.ai/1.mp4", KEY, LATER)


def test_a_name_without_an_address(place: Place, resolve: Callable[..., None]) -> None:
    """A name that is not resolved is a reason."""
    resolve()
    with pytest.raises(RescueError, match="could not be resolved"):
        place.rescue("https://vm.runware.ai").fetch("https://vm.runware.ai/1.mp4", KEY, LATER)


def test_the_checked_address_is_asked(place: Place, resolve: Callable[..., None]) -> None:
    """The request goes to the address that was checked, under the host's own name, so no second answer can differ."""
    resolve("8.8.8.8")
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=iter([MP4]))

    http = httpx.Client(transport=httpx.MockTransport(answer))
    place.rescue("https://vm.runware.ai", http=http).fetch("https://VM.runware.ai/1.mp4", KEY, LATER)
    (request,) = requests
    assert request.url.host == "8.8.8.8"
    assert request.headers["host"].lower() == "vm.runware.ai"
    assert request.extensions["sni_hostname"] == "vm.runware.ai"
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("size", [5_000, PART + 5_000, 2 * PART + 5_000])
def test_cut_off(place: Place, size: int) -> None:
    """A connection that ends before the announced length leaves no copy, in one piece or in many."""
    lines = f"HTTP/1.1 200 OK\r\nContent-Length: {size + 1}\r\n\r\n".encode()
    video = HEAD + bytes(size - len(HEAD))
    with RawServer(lines + video) as server, pytest.raises(RescueError, match="RemoteProtocolError"):
        place.rescue(server.url).fetch(f"{server.url}/1.mp4", KEY, LATER)
    place.assert_empty()


class RawServer:
    """Sends one connection its bytes, whatever it asks, and hangs up."""

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


@pytest.mark.parametrize("drip", [*SLOW_ANSWERS, "video"])
def test_a_host_that_drips(place: Place, drip: str) -> None:
    """However the bytes are kept coming, the rescue ends when its time does, though the HTTP timeout is far longer."""
    video = trickle(b"HTTP/1.1 200 OK\r\n\r\n" + HEAD + bytes(PART), b"\x00")
    with serving(SLOW_ANSWERS.get(drip, video)) as server:
        origin, started = f"http://127.0.0.1:{server.port}", real_clock()
        rescue = VideoDownloader(
            place.s3, place.name, place.bucket.probe, http_client(30), frozenset([origin]), real_clock
        )
        with pytest.raises(RescueError, match=r"ReadTimeout|out of time"):
            rescue.fetch(f"{origin}/1.mp4", KEY, started + 300)
        assert real_clock() - started < MAX_DURATION * 1000
    place.assert_empty()


def test_eight_hosts_that_drip(place: Place) -> None:
    """Eight at once end when one does."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        servers = [stack.enter_context(serving(SLOW_ANSWERS["1xx"])) for _ in range(8)]
        origins = [f"http://127.0.0.1:{server.port}" for server in servers]
        rescue = VideoDownloader(
            place.s3, place.name, place.bucket.probe, http_client(30), frozenset(origins), real_clock
        )
        started = real_clock()

        def failure(origin: str) -> str:
            with pytest.raises(RescueError) as caught:
                rescue.fetch(f"{origin}/1.mp4", KEY, started + 300)
            return str(caught.value)

        assert set(threads.map(failure, origins)) <= {"ReadTimeout", "out of time"}
        assert real_clock() - started < MAX_DURATION * 1000


def test_no_time_is_left(place: Place, site: Site) -> None:
    """What cannot end in time is not begun."""
    place.clock.now = LATER
    with pytest.raises(RescueError, match="out of time"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    assert site.asked == []


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, OSError])
def test_whatever_goes_wrong_is_a_reason(place: Place, error: type[Exception]) -> None:
    """No error of a library is uncaught."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise error("with a secret")

    http = httpx.Client(transport=httpx.MockTransport(fail))
    with pytest.raises(RescueError, match=f"^{error.__name__}$"):
        place.rescue("http://8.8.8.8", http=http).fetch("http://8.8.8.8/1.mp4", KEY, LATER)


def test_nobody_there(place: Place) -> None:
    """An address where nobody listens is a reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(RescueError, match="ConnectError"):
        place.rescue(origin).fetch(f"{origin}/1.mp4", KEY, LATER)


@pytest.mark.parametrize("limit", [len(MP4) - 1, 100])
def test_too_large(place: Place, site: Site, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A video over the cap is not stored; one that just fits is."""
    monkeypatch.setattr(video_download, "_MAX_VIDEO_BYTES", limit)
    with pytest.raises(RescueError, match="too large"):
        place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)
    place.assert_empty()
    monkeypatch.setattr(video_download, "_MAX_VIDEO_BYTES", len(MP4))
    place.rescue(site.url).fetch(f"{site.url}/1.mp4", KEY, LATER)


def pieces_of(size: int, pulled: list[int]) -> Iterator[bytes]:
    """A video in pieces of 64 KB; `pulled` grows with each that is taken."""
    for start in range(0, size, 65536):
        piece = (HEAD + bytes(65536))[:65536] if start == 0 else bytes(min(65536, size - start))
        pulled.append(len(piece))
        yield piece


def streamed(size: int, pulled: list[int]) -> httpx.Client:
    """A client whose every answer is such a video, made as it is read."""
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=pieces_of(size, pulled))))


def test_many_parts(place: Place) -> None:
    """A large video goes up in parts, one after another, with no more than one of them in hand."""
    size = 2 * PART + 1_000_000
    pulled: list[int] = []
    held: list[int] = []

    def part_begins(**_: Any) -> None:
        held.append(sum(pulled) - len(held) * PART)

    place.s3.meta.events.register("before-call.s3.UploadPart", part_begins)
    rescued = place.rescue("http://8.8.8.8", http=streamed(size, pulled))
    found = rescued.fetch("http://8.8.8.8/1.mp4", KEY, LATER)
    assert len(held) == 3
    assert max(held) <= PART + 2 * 65536
    assert found.size == size
    assert place.s3.head_object(Bucket=place.name, Key=KEY)["VersionId"] == found.version


@pytest.mark.parametrize("size", [65536 * 4, 2 * PART], ids=["in one piece", "in parts"])
def test_out_of_time(place: Place, size: int) -> None:
    """When the time is over the rescue stops in the middle, and nothing of it stays."""
    pulled: list[int] = []
    place.clock.step = LATER // (size // 65536)  # so that the last of the pieces do not come in time
    with pytest.raises(RescueError, match="out of time"):
        place.rescue("http://8.8.8.8", http=streamed(size, pulled)).fetch("http://8.8.8.8/1.mp4", KEY, LATER)
    assert 0 < sum(pulled) < size
    place.assert_empty()


@pytest.mark.parametrize(("after", "size"), [("PutObject", 1000), ("CreateMultipartUpload", PART + 1000)])
def test_a_bucket_that_refuses(place: Place, stack: Stack, after: str, size: int) -> None:
    """Trouble of S3's is a reason, and what was begun is taken back."""
    # Two, since the client tries twice.
    event = f"{'before-call' if after == 'PutObject' else 'after-call'}.s3.{after}"
    place.s3.meta.events.register(event, lambda **_: stack.aws.faults.fail("s3", "SlowDown", times=2))
    with pytest.raises(RescueError, match="the bucket refused"):
        place.rescue("http://8.8.8.8", http=streamed(size, [])).fetch("http://8.8.8.8/1.mp4", KEY, LATER)
    stack.aws.faults.clear()
    place.assert_empty()


# ----------------------------------------------------------------------------------------------------------------------
# From the answer itself
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "data:video/mp4;base64,"], ids=["base64", "data URI"])
def test_kept(place: Place, prefix: str) -> None:
    """A video that came inline is in the bucket, byte by byte."""
    found = place.rescue().save_inline(prefix + base64.b64encode(MP4).decode(), KEY)
    assert isinstance(found, ProbeResult)
    assert place.content(found.version) == MP4
    assert place.s3.head_object(Bucket=place.name, Key=KEY)["ContentType"] == "video/mp4"


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
def test_inline_data_that_is_no_video(place: Place, data: str, reason: str) -> None:
    """Inline data that is not base64, or not a video's, leaves nothing."""
    with pytest.raises(RescueError, match=reason):
        place.rescue().save_inline(data, KEY)
    place.assert_empty()


def test_inline_data_that_is_too_large(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap holds for inline data as well."""
    monkeypatch.setattr(video_download, "_MAX_VIDEO_BYTES", len(MP4) - 1)
    with pytest.raises(RescueError, match="too large"):
        place.rescue().save_inline(base64.b64encode(MP4).decode(), KEY)
    place.assert_empty()

"""Renders playable videos: an order's shape and prompt in, the bytes of an MP4, MOV or WEBM file out.

Hides the optimizations for a 1080p clip in half a second: the picture is drawn once, only a bar moves from frame to
frame, which costs the encoders little, and renders are cached.
"""

import io
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

FPS = 24
EXCERPT = 240  # characters of the prompt that fit into the picture
CACHE_SIZE = 64  # renders, each under 400 kB

# The space for the index is reserved at the front ("faststart"), so that players can start before they have the whole
# file, without a second pass over it. 16 KiB are ample for the 240 frames of the longest clip.
_INDEX_FIRST = {"moov_size": "16384"}
_H264 = {"preset": "ultrafast", "tune": "stillimage", "crf": "30"}
_VP8 = {"deadline": "realtime", "cpu-used": "16", "static-thresh": "1000", "crf": "40", "b": "400k"}
# With only five or ten pictures, a slower preset costs little; the quality is lower.
_SMALL_H264 = {"preset": "veryfast", "tune": "stillimage", "crf": "45"}
_SMALL_VP8 = {**_VP8, "crf": "60", "b": "50k"}


@dataclass(frozen=True)
class Container:
    """The encoding of one outputFormat, its file suffix and its content type."""

    muxer: str
    codec: str
    codec_options: dict[str, str]
    small_options: dict[str, str]
    muxer_options: dict[str, str]
    suffix: str
    content_type: str


CONTAINERS = {
    "MP4": Container("mp4", "libx264", _H264, _SMALL_H264, _INDEX_FIRST, ".mp4", "video/mp4"),
    "MOV": Container("mov", "libx264", _H264, _SMALL_H264, _INDEX_FIRST, ".mov", "video/quicktime"),
    "WEBM": Container("webm", "libvpx", _VP8, _SMALL_VP8, {}, ".webm", "video/webm"),
}


@dataclass(frozen=True)
class Shape:
    """The parameters of a render. Sizes in pixels, duration in seconds; `small` renders one picture a second."""

    width: int
    height: int
    seconds: int
    container: str
    caption: str
    small: bool = False


class Renderer:
    """Renders shapes, with a cache of the latest ones. Thread-safe."""

    def __init__(self) -> None:
        self._cache: OrderedDict[Shape, bytes] = OrderedDict()
        self._busy: dict[Shape, threading.Lock] = {}
        self._lock = threading.Lock()

    def __call__(self, shape: Shape) -> bytes:
        with self._lock:
            busy = self._busy.setdefault(shape, threading.Lock())
        with busy:
            if (content := self._cache.get(shape)) is None:
                content = render(shape)
            with self._lock:
                self._cache[shape] = content
                self._cache.move_to_end(shape)
                while len(self._cache) > CACHE_SIZE:
                    self._busy.pop(self._cache.popitem(last=False)[0], None)
        return content


def render(shape: Shape) -> bytes:
    """The bytes of the video file."""
    container = CONTAINERS[shape.container]
    step = FPS if shape.small else 1
    options = container.small_options if shape.small else container.codec_options
    target = io.BytesIO()
    with av.open(target, "w", format=container.muxer, options=container.muxer_options) as output:
        stream = output.add_stream(container.codec, rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
        stream.codec_context.gop_size = FPS * shape.seconds
        for frame in [*_frames(shape, step), None]:
            for packet in stream.encode(frame):
                assert packet.time_base is not None
                packet.duration = int(Fraction(step, FPS) / packet.time_base)
                output.mux(packet)
    return target.getvalue()


def _frames(shape: Shape, step: int) -> Iterator[VideoFrame]:
    """The drawn picture once per step, with a bright bar that moves along its lower edge.

    The bar is written directly into the luma plane: a conversion of each picture would cost more than its encoding.
    """
    drawn: VideoFrame = VideoFrame.from_image(_picture(shape))  # type: ignore[no-untyped-call]
    still = drawn.reformat(format="yuv420p")
    luma, *chroma = (bytes(plane) for plane in still.planes)
    line = still.planes[0].line_size
    total = FPS * shape.seconds
    bar = shape.width // 12
    rows = range(shape.height - shape.height // 10, shape.height - shape.height // 14)
    for number in range(0, total, step):
        moved = bytearray(luma)
        left = (shape.width - bar) * number // (total - 1)
        for row in rows:
            moved[row * line + left : row * line + left + bar] = b"\xd8" * bar
        frame = VideoFrame(shape.width, shape.height, "yuv420p")
        for plane, content in zip(frame.planes, (bytes(moved), *chroma), strict=True):
            plane.update(content)
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _picture(shape: Shape) -> Image.Image:
    size = shape.width // 34
    columns = int(shape.width * 0.84 / (size * 0.55))
    picture = Image.new("RGB", (shape.width, shape.height), (22, 30, 46))
    draw = ImageDraw.Draw(picture)
    left, top = shape.width * 8 // 100, shape.height * 8 // 100
    title = f"{shape.width} x {shape.height}, {shape.seconds} s, {shape.container}"
    draw.text((left, top), title, font=ImageFont.load_default(size * 2 // 3), fill=(150, 170, 205))
    text = "\n".join(textwrap.wrap(shape.caption, columns))
    draw.text((left, top + size * 2), text, font=ImageFont.load_default(size), fill=(240, 240, 235), spacing=size // 3)
    return picture

"""Renders playable videos: an order's shape, prompt and seed in, the bytes of an MP4, MOV or WEBM file out.

The same prompt and seed give the same file. Hides the scene, and the optimizations for a 1080p clip in about a second:
the layers are drawn once, FFmpeg's filters move them, and renders are cached.
"""

import io
import itertools
import math
import random
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

FPS = 24
EXCERPT = 240  # characters of the prompt that fit into the picture
CACHE_SIZE = 64  # renders, each under 1 MB

# The space for the index is reserved at the front ("faststart"), so that players can start before they have the whole
# file, without a second pass over it. 16 KiB are ample for the 240 frames of the longest clip.
_INDEX_FIRST = {"moov_size": "16384"}
_H264 = {"preset": "ultrafast", "crf": "30", "aq-mode": "1"}
# A positive speed would be adapted to the machine, so that the same order would give different files.
_VP8 = {"deadline": "realtime", "cpu-used": "-16", "crf": "30", "b": "2M"}
_SMALL_H264 = {"preset": "ultrafast", "crf": "40"}
_SMALL_VP8 = {**_VP8, "crf": "60", "b": "50k"}
_SKY_STEP = 4  # frames; the sky turns so slowly that a change in each would only cost time
_SMALL_SCALE = 2  # the scene of a small render is drawn at this fraction of its size

Color = tuple[int, int, int]
# The sky from its top to the horizon, the sun, and the nearest layer; those behind it are mixed with the horizon.
_PALETTES: Sequence[tuple[Color, Color, Color, Color, Color]] = (
    ((22, 32, 74), (122, 74, 128), (240, 150, 108), (255, 226, 170), (24, 20, 44)),  # dusk
    ((62, 118, 176), (138, 186, 214), (236, 226, 200), (255, 250, 226), (26, 56, 70)),  # noon
    ((10, 16, 40), (24, 44, 88), (66, 104, 142), (232, 240, 250), (6, 12, 26)),  # night
    ((46, 92, 104), (128, 168, 154), (240, 214, 166), (255, 244, 212), (18, 48, 50)),  # morning
    ((84, 30, 66), (196, 70, 74), (250, 178, 92), (255, 236, 178), (46, 14, 36)),  # desert
    ((34, 24, 82), (58, 96, 160), (140, 214, 190), (224, 255, 240), (14, 20, 52)),  # north
)


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


_REPEATABLE = {"fflags": "+bitexact"}  # otherwise the muxer adds random numbers

CONTAINERS = {
    "MP4": Container("mp4", "libx264", _H264, _SMALL_H264, _INDEX_FIRST, ".mp4", "video/mp4"),
    "MOV": Container("mov", "libx264", _H264, _SMALL_H264, _INDEX_FIRST, ".mov", "video/quicktime"),
    "WEBM": Container("webm", "libvpx", _VP8, _SMALL_VP8, _REPEATABLE, ".webm", "video/webm"),
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
    seed: int = 0


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
        stream.codec_context.thread_count = 1  # the encoders' threads wait for each other in busy loops
        for frame in itertools.chain(_frames(shape, step), [None]):
            for packet in stream.encode(frame):
                assert packet.time_base is not None
                packet.duration = int(Fraction(step, FPS) / packet.time_base)
                output.mux(packet)
    return target.getvalue()


@dataclass(frozen=True)
class _Layer:
    """A still picture with transparency, and its left edge and top as expressions of the time `t` in seconds."""

    picture: Image.Image
    left: str
    top: str


def _frames(shape: Shape, step: int) -> Iterator[VideoFrame]:
    """The scene once per step: a sky whose gradient turns, and layers that a slow camera passes."""
    scale = _SMALL_SCALE if shape.small else 1
    width, height = shape.width // scale, shape.height // scale
    chance = random.Random(f"{shape.seed} {shape.caption}")
    palette = chance.choice(_PALETTES)
    graph = Graph()
    graph.threads = 1
    # Drawn at a few pixels: a gradient loses nothing when it is enlarged.
    stops = ":".join(f"c{number}=0x{bytes(color).hex()}" for number, color in enumerate(palette[:3]))
    pace = max(step, _SKY_STEP)
    sky = f"s=160x90:r={FPS}/{pace}:n=3:{stops}:x0=0:y0=0:x1=0:y1=70:seed=1:speed={0.0008 * pace}"
    last = graph.add("gradients", sky)
    last = _chain(graph, last, ("scale", f"{width}:{height}"), ("format", "yuv420p"), ("fps", f"{FPS}/{step}"))
    inputs = []
    for layer in _layers(shape, width, height, palette, chance):
        still = _with_transparency(layer.picture)
        source = graph.add("buffer", f"video_size={still.width}x{still.height}:pix_fmt=yuva420p:time_base=1/{FPS}")
        overlay = graph.add("overlay", f"x='{layer.left}':y='{layer.top}':format=yuv420")
        last.link_to(overlay, 0, 0)
        source.link_to(overlay, 0, 1)
        inputs.append((source, still))
        last = overlay
    last = _chain(graph, last, ("scale", f"{shape.width}:{shape.height}"), ("buffersink", None))
    graph.configure()
    for source, still in inputs:
        source.push(still)
        source.push(None)
    for number in range(0, FPS * shape.seconds, step):
        frame = last.pull()
        assert isinstance(frame, VideoFrame)
        frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, FPS), 0
        yield frame


def _chain(graph: Graph, last: FilterContext, *following: tuple[str, str | None]) -> FilterContext:
    """Append these filters, given by name and arguments; returns the last one."""
    for name, arguments in following:
        added = graph.add(name, arguments)
        last.link_to(added)
        last = added
    return last


def _with_transparency(picture: Image.Image) -> VideoFrame:
    # VideoFrame.from_image would drop the transparency.
    frame = VideoFrame.from_bytes(picture.tobytes(), picture.width, picture.height, format="rgba")
    still: VideoFrame = frame.reformat(format="yuva420p")
    still.pts, still.time_base = 0, Fraction(1, FPS)
    return still


def _layers(shape: Shape, width: int, height: int, palette: Sequence[Color], chance: random.Random) -> Iterator[_Layer]:
    """The layers from back to front: the sun, three silhouettes, and the caption."""
    _, _, horizon, light, near = palette
    size = int(min(width, height) * chance.uniform(0.5, 0.8)) & ~1
    rise = chance.choice((-1, 1)) * height * 0.02
    left, top = width * chance.uniform(0.15, 0.85) - size / 2, height * chance.uniform(0.28, 0.42) - size / 2
    yield _Layer(_sun(size, light), f"{left:.0f}-{width * 0.004:.2f}*t", f"{top:.0f}+{rise / 5:.2f}*t")
    outline = chance.choice((_ridge, _waves, _skyline))
    direction = chance.choice((-1, 1))
    for number in range(3):
        travel = width * (0.05, 0.11, 0.2)[number] * shape.seconds / 5
        wide = int(width + travel) + 2 & ~1
        high = int(height * (0.52, 0.43, 0.34)[number]) & ~1
        color = _mixed(near, horizon, (0.55, 0.3, 0.0)[number])
        start = 0.0 if direction < 0 else -travel
        sway = f"+{height * 0.006:.2f}*sin(t*1.3+{number})" if outline is _waves else ""
        yield _Layer(
            _silhouette(wide, high, color, outline(chance, wide / height)),
            f"{start:.1f}+{direction * travel / shape.seconds:.2f}*t",
            f"{height - high + int(height * 0.01)}{sway}",
        )
    text = caption(shape, width, height)
    yield _Layer(text, "0", f"{height - text.height}")


def _mixed(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(one + (two - one) * share) for one, two in zip(color, other, strict=True))
    return red, green, blue


def _sun(size: int, color: Color) -> Image.Image:
    """A disc in its glow."""
    glow = Image.radial_gradient("L").point([max(0, 150 - value * 6 // 5) for value in range(256)]).resize((size, size))
    disc = Image.new("L", (size, size))
    ImageDraw.Draw(disc).ellipse([size * 0.36, size * 0.36, size * 0.64, size * 0.64], fill=235)
    glow.paste(disc, mask=disc)
    picture = Image.new("RGBA", (size, size), color)
    picture.putalpha(glow)
    return picture


# The outlines of a silhouette: the heights from 0 to 1 at places from left to right. `length` is in frame heights.
def _ridge(chance: random.Random, length: float) -> list[float]:
    parts = [(chance.uniform(0, math.tau), chance.uniform(0.8, 1.4) * k, 0.5 / k) for k in (1.5, 3.3, 7.9, 19.0)]
    places = [length * each / 200 for each in range(201)]
    return [0.5 + sum(high * math.sin(phase + often * place) for phase, often, high in parts) / 1.4 for place in places]


def _waves(chance: random.Random, length: float) -> list[float]:
    phase, often = chance.uniform(0, math.tau), chance.uniform(7, 12)
    return [0.35 + 0.12 * abs(math.sin(phase + often * length * each / 200)) for each in range(201)]


def _skyline(chance: random.Random, length: float) -> list[float]:
    heights: list[float] = []
    while len(heights) < 400:
        heights += [chance.uniform(0.25, 0.95)] * max(2, round(chance.uniform(12, 34) / length))
        heights += [chance.uniform(0.1, 0.25)] * max(1, round(chance.uniform(0, 8) / length))
    return heights[:400]


def _silhouette(width: int, height: int, color: Color, outline: Sequence[float]) -> Image.Image:
    """The area below the outline, which takes the upper half."""
    picture = Image.new("RGBA", (width, height), (*color, 0))
    step = width / (len(outline) - 1)
    points = [(number * step, height * 0.5 * (1 - high)) for number, high in enumerate(outline)]
    ImageDraw.Draw(picture).polygon([(0, height), *points, (width, height)], fill=(*color, 255))
    return picture


# The font has no typographic punctuation.
_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")


def caption(shape: Shape, width: int, height: int) -> Image.Image:
    """The excerpt of the prompt if the font can draw it, above the render's parameters."""
    size = max(6, min(width // 40, height // 24))
    left = width * 5 // 100
    columns = int((width - 2 * left) / (size * 0.5))
    plain = shape.caption.translate(_PLAIN)
    text = "\n".join(textwrap.wrap(plain, columns)) if drawable(plain) else ""
    details = f"{shape.width} x {shape.height}, {shape.seconds} s, {shape.container}"
    lines = text.count("\n") + 1 if text else 0
    picture = Image.new("RGBA", (width, int(size * (lines * 1.35 + 2.6)) & ~1), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    draw.text((left, 0), text, font=_font(size), fill=(255, 255, 255, 240), spacing=size // 3)
    draw.text((left, picture.height - size * 2), details, font=_font(size * 2 // 3), fill=(255, 255, 255, 150))
    return picture


@lru_cache(8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font, so that a clip looks the same on every machine.
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def drawable(text: str) -> bool:
    """True if the font has a glyph for each character. It has Latin letters only; the others would be empty boxes."""
    return all(_has_glyph(character) for character in set(text.translate(_PLAIN)) if not character.isspace())


@lru_cache(1024)
def _has_glyph(character: str) -> bool:
    missing, drawn = _font(16).getmask("\uffff"), _font(16).getmask(character)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)

"""The rendered files: real videos of exactly the requested size, length and container, and quick ones."""

import io
from typing import TYPE_CHECKING

import av
import pytest

from rushes_local.runware.rendering import FPS, Renderer, Shape, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import EmulatorService

STARTS = {"MP4": (b"ftypisom", 4), "MOV": (b"ftypqt  ", 4), "WEBM": (b"\x1aE\xdf\xa3", 0)}
CODECS = {"MP4": "h264", "MOV": "h264", "WEBM": "vp8"}


@pytest.mark.parametrize(
    ("container", "width", "height", "seconds", "small"),
    [
        ("MP4", 1920, 1080, 5, False),
        ("WEBM", 1080, 1080, 5, False),
        ("MP4", 1080, 1080, 10, True),
        ("MOV", 1080, 1920, 5, True),
        ("MOV", 1920, 1080, 10, True),
        ("WEBM", 1080, 1080, 10, True),
        ("WEBM", 1920, 1080, 5, True),
    ],
)
def test_a_render_is_exactly_what_was_ordered(
    container: str, width: int, height: int, seconds: int, small: bool
) -> None:
    """Size, length within a frame, container and codec are as ordered; all pictures can be decoded and differ."""
    content = render(Shape(width, height, seconds, container, "A lighthouse at dusk, " * 10, small))
    signature, offset = STARTS[container]
    assert content[offset : offset + len(signature)] == signature
    assert len(content) < (60_000 if small else 400_000)
    with av.open(io.BytesIO(content), "r") as file:
        assert file.duration is not None
        assert abs(file.duration / 1_000_000 - seconds) <= 1 / FPS
        assert file.streams.video[0].codec.name == CODECS[container]
        frames = list(file.decode(video=0))
    assert {(frame.width, frame.height) for frame in frames} == {(width, height)}
    assert len(frames) == seconds * (1 if small else FPS)
    assert bytes(frames[0].planes[0]) != bytes(frames[-1].planes[0])


@pytest.mark.parametrize("container", ["MP4", "MOV"])
def test_the_index_comes_first(container: str) -> None:
    """The index precedes the media data, so that a player can start before it has the whole file."""
    content = render(Shape(1080, 1080, 10, container, "x", small=True))
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_the_prompt_shows_in_the_picture() -> None:
    """Two prompts give two pictures, and a picture without a prompt is darker than one with a long one."""

    def brightness(caption: str) -> int:
        with av.open(io.BytesIO(render(Shape(1080, 1080, 5, "MP4", caption, small=True))), "r") as file:
            return sum(bytes(next(file.decode(video=0)).planes[0]))

    assert brightness("a lighthouse " * 15) > brightness("a lighthouse") > brightness(" ")


def test_renders_are_cached_by_shape() -> None:
    """The same shape is rendered once, and another shape has its own render."""
    renderer = Renderer()
    shape = Shape(1080, 1080, 5, "MP4", "x", small=True)
    first = renderer(shape)
    assert renderer(shape) is first
    assert renderer(Shape(1080, 1080, 5, "MP4", "y", small=True)) != first


@pytest.mark.parametrize(
    "prompt",
    ["  ", "x" * 2500, "\ud800 lone", "line\nbreak\ttab\x00", "夜の灯台 🌊 منارة", "a" * 239 + "🌊🌊"],
    ids=["blank", "one word", "surrogate", "control", "scripts", "edge"],
)
def test_any_prompt_can_be_drawn(service: "EmulatorService", prompt: str) -> None:
    """Every valid prompt gives a video."""
    service.run(positivePrompt=prompt)
    assert len(service.emulator.ledger()) == 1


def test_an_order_without_a_size_is_full_hd(start: "Callable[..., EmulatorService]") -> None:
    """The defaults are 1920x1080, 5 s and MP4; the picture mentions a first frame."""
    service = start()
    plain = {"webhookURL": ..., "taskUUID": "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c"}
    service.run(**plain)
    service.run(inputs={"frameImages": ["https://images.test/first.jpg"]})
    one, two = (put.body for put in service.receiver.puts)
    assert one == render(Shape(1920, 1080, 5, "MP4", "A lighthouse at dusk", small=True))
    assert two == render(Shape(1920, 1080, 5, "MP4", "from image: A lighthouse at dusk", small=True))

"""The rendered files: real videos of exactly the requested size, length and container, and quick ones."""

import io
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import pytest

from rushes_local.runware.completion import SMALL_VARIANTS
from rushes_local.runware.rendering import FPS, Renderer, Shape, caption, drawable, render

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
    assert len(content) < (200_000 if small else 1_000_000)
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


def pictures(content: bytes) -> list[bytes]:
    with av.open(io.BytesIO(content), "r") as file:
        return [bytes(frame.planes[0]) for frame in file.decode(video=0)]


def test_a_prompt_and_a_seed_give_the_same_file() -> None:
    """The same prompt and seed give the same bytes; another prompt or another seed gives another picture."""

    def rendered(caption: str, seed: int, container: str = "MP4") -> bytes:
        return render(Shape(320, 320, 5, container, caption, small=True, seed=seed))

    first = rendered("a lighthouse", 7)
    assert rendered("a lighthouse", 7) == first
    assert rendered("a lighthouse", 7, "WEBM") == rendered("a lighthouse", 7, "WEBM")
    firsts = [pictures(each)[0] for each in (first, rendered("a lighthouse", 8), rendered("a harbour", 7))]
    assert len(set(firsts)) == 3


@pytest.mark.parametrize("seed", range(6))
def test_the_picture_moves(seed: int) -> None:
    """No two successive pictures are equal."""
    shown = pictures(render(Shape(320, 320, 5, "MP4", "a lighthouse", small=True, seed=seed)))
    assert all(one != two for one, two in itertools.pairwise(shown))


@pytest.mark.parametrize("text", ["a lighthouse, 50 % \u201cslower\u201d \u2014 it\u2019s dusk", "  "])
def test_a_text_that_the_font_can_draw(text: str) -> None:
    assert drawable(text)


@pytest.mark.parametrize(
    "text", ["\u591c\u306e\u706f\u53f0", "\u0645\u0646\u0627\u0631\u0629", "wave \U0001f30a", "d\u00e9j\u00e0 vu"]
)
def test_a_text_without_glyphs_is_left_out(text: str) -> None:
    """A text with a character that the font lacks is not drawn at all, so no empty boxes are."""
    assert not drawable(text)
    width = height = 320
    shape = Shape(width, height, 5, "MP4", text)
    assert caption(shape, width, height).tobytes() == caption(replace(shape, caption=" "), width, height).tobytes()
    assert caption(shape, width, height).height < caption(replace(shape, caption="wave"), width, height).height


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
    assert one in variants("A lighthouse at dusk")
    assert two in variants("from image: A lighthouse at dusk")


def variants(text: str) -> list[bytes]:
    return [render(Shape(1920, 1080, 5, "MP4", text, small=True, seed=seed)) for seed in range(SMALL_VARIANTS)]


def test_results_of_one_prompt_differ(service: "EmulatorService") -> None:
    """The results of one task, and two tasks with one prompt, have their own seeds and pictures."""
    service.run(taskUUID="00000000-0000-4000-8000-000000000001", numberResults=2)
    service.run(taskUUID="00000000-0000-4000-8000-000000000003")
    items = [item for call in service.receiver.calls for item in call["data"]]
    assert len({item["seed"] for item in items}) == 3
    assert len({put.body for put in service.receiver.puts}) == 3  # these UUIDs give three of the small variants

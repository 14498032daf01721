"""Each model's limits, rules and prices, from its page: what is ordered at which price, and each near miss.

The emulator has its own reading of the same pages. The last test changes every value of every file and expects that one
of these requests is then answered otherwise, so no value of the catalog is without a test.
"""

import copy
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from rushes.runware import models
from rushes.runware.models import Span, parse
from rushes.runware.request import Order, check, request_type
from rushes_local.runware.validation import MODELS, video_errors
from tests.fakes.builders import request
from tests.unit.test_recorded_answers import LINES

WIDE, TALL, SQUARE = {"width": 1280, "height": 720}, {"width": 720, "height": 1280}, {"width": 720, "height": 720}
SMALL = {"width": 1366, "height": 768}
HUGE_WIDE, HUGE_TALL = {"width": 3840, "height": 2160}, {"width": 2160, "height": 3840}
FULL_WIDE, FULL_TALL = {"width": 1920, "height": 1080}, {"width": 1080, "height": 1920}
SOUND = {"providerSettings": {"google": {"generateAudio": True}}}
SILENT = {"providerSettings": {"google": {"generateAudio": False}}}
SEEDANCE_WIDE, SEEDANCE_TALL = {"width": 1920, "height": 1088}, {"width": 1088, "height": 1920}
SEEDANCE_SIZES = ((1664, 1248), (1440, 1440), (1248, 1664), (928, 2176), (2176, 928))
SEEDANCE_SMALL_SIZES = ((864, 480), (736, 544), (640, 640), (544, 736), (480, 864), (416, 960), (960, 416))
PIXVERSE_SIZES = ((1440, 1080), (1080, 1080), (1080, 1440))
PIXVERSE_SMALL_SIZES = (
    *((640, 360), (480, 360), (360, 360), (360, 480), (360, 640)),
    *((960, 540), (720, 540), (540, 540), (540, 720), (540, 960)),
    *((1280, 720), (960, 720), (720, 720), (720, 960), (720, 1280)),
)
IMAGE = "https://images.example/a.png"
DOCUMENTED = json.loads((Path(__file__).parents[1] / "contract" / "documented_requests.json").read_text())


def framed(*images: object) -> dict[str, Any]:
    return {"inputs": {"frameImages": list(images)}}


# A request's parameters besides the model and prompt, and its price for each clip in micro-dollars or its error's code.
Probe = tuple[dict[str, Any], int | str]
COMMON: list[Probe] = [
    ({"outputFormat": "GIF"}, "unsupportedOutputFormat"),
    ({"outputQuality": 19}, "invalidOutputQuality"),
    ({"outputQuality": 100}, "invalidOutputQuality"),
    ({"numberResults": 0}, "invalidNumberResults"),
    ({"numberResults": 5}, "invalidNumberResults"),
    ({"ttl": 59}, "invalidTtl"),
    ({"ttl": 31_536_001}, "invalidTtl"),
    ({"safety": {"mode": "slow"}}, "unsupportedMode"),
    ({"safety": {"checkContent": 1}}, "invalidCheckContent"),
    ({"positivePrompt": ...}, "missingPositivePrompt"),
    ({"positivePrompt": "a"}, "invalidPositivePromptLength"),
    ({"seed": 5}, "unsupportedParameter"),
    ({"fps": 24}, "unsupportedParameter"),
]
# Of models with `fps`.
COMMON_BUT_FPS = [probe for probe in COMMON if probe[0] != {"fps": 24}]


def common(base: dict[str, Any], price: int, refused: list[Probe] = COMMON) -> list[Probe]:
    """Requests with `base` and a value of a parameter that all models have: accepted at this price, or refused."""
    accepted: list[dict[str, Any]] = [
        *({"outputFormat": name} for name in ("MP4", "WEBM", "MOV")),
        *({"outputQuality": quality} for quality in (20, 99)),
        *({"numberResults": number} for number in (1, 4)),
        *({"ttl": seconds} for seconds in (60, 31_536_000)),
        *({"safety": {"mode": mode}} for mode in ("none", "fast", "full")),
    ]
    return [
        *(({**base, **changes}, price) for changes in accepted),
        *(({**base, **changes}, code) for changes, code in refused),
    ]


KLING_SILENT: dict[str, Any] = {"providerSettings": {"klingai": {"sound": False}}}
KLING_SOUND: dict[str, Any] = {"providerSettings": {"klingai": {"sound": True}}}


def kling_3(sizes: list[tuple[int, int]], silent: int, sound: int) -> list[Probe]:
    """The requests of a tier of Kling VIDEO 3.0 with these sizes and prices of a second."""
    wide, *others = [{"width": width, "height": height} for width, height in sizes]
    least = {"duration": 3, **wide, **KLING_SILENT}
    return [
        (least, 3 * silent),
        ({**least, **KLING_SOUND}, 3 * sound),
        *(({**least, **size}, 3 * silent) for size in others),
        *(({**least, "duration": seconds}, seconds * silent) for seconds in (4, 5, 15)),
        ({**least, "duration": 15, **KLING_SOUND}, 15 * sound),
        ({**least, "positivePrompt": "ab"}, 3 * silent),
        ({**least, "positivePrompt": "x" * 2500}, 3 * silent),
        ({"duration": 5, **wide}, "priceUnknown"),
        ({"duration": 5, **wide, "providerSettings": {"klingai": {}}}, "priceUnknown"),
        ({**wide, **KLING_SILENT}, "missingDuration"),
        ({"duration": 5, "width": wide["width"], **KLING_SILENT}, "missingHeight"),
        ({"duration": 5, "height": wide["height"], **KLING_SILENT}, "missingWidth"),
        ({**least, "duration": 2}, "invalidDuration"),
        ({**least, "duration": 16}, "invalidDuration"),
        ({**least, "duration": 3.5}, "invalidDuration"),
        ({**least, "width": wide["width"] + 1}, "unsupportedDimensions"),
        ({**least, "height": wide["height"] + 1}, "unsupportedDimensions"),
        ({**least, "positivePrompt": "x" * 2501}, "invalidPositivePromptLength"),
        ({**least, "negativePrompt": "blur"}, "unsupportedParameter"),
        ({**least, "CFGScale": 0.5}, "unsupportedParameter"),
        ({**least, **framed(IMAGE)}, "unsupportedParameter"),
        ({**least, "providerSettings": {"klingai": {"sound": 1}}}, "invalidSound"),
        ({**least, **SOUND}, "unsupportedParameter"),
        *common(least, 3 * silent),
    ]


PROBES: dict[str, list[Probe]] = {
    "klingai:kling-video@3-standard": kling_3([(1280, 720), (960, 960), (720, 1280)], 84_000, 126_000),
    "klingai:kling-video@3-pro": kling_3([(1920, 1080), (1440, 1440), (1080, 1920)], 112_000, 168_000),
    "klingai:6@1": [
        ({}, 350_000),
        ({"duration": 5}, 350_000),
        ({"duration": 10, **WIDE}, 700_000),
        (TALL, 350_000),
        (SQUARE, 350_000),
        ({"positivePrompt": "ab", "negativePrompt": "x" * 2500, "CFGScale": 0}, 350_000),
        ({"positivePrompt": "x" * 2500, "negativePrompt": "ab", "CFGScale": 1}, 350_000),
        ({"CFGScale": 0.57}, 350_000),
        (framed(IMAGE), 350_000),
        (framed({"image": IMAGE, "frame": "first"}), 350_000),
        (framed({"image": IMAGE, "frame": 0}), 350_000),
        ({"safety": {"checkContent": True}}, 350_000),
        ({"positivePrompt": "x" * 2501}, "invalidPositivePromptLength"),
        ({"negativePrompt": "x" * 2501}, "invalidNegativePromptLength"),
        ({"negativePrompt": "x"}, "invalidNegativePromptLength"),
        ({"duration": 6}, "unsupportedDuration"),
        ({"duration": 8}, "unsupportedDuration"),
        (FULL_WIDE, "unsupportedDimensions"),
        ({"width": 1280, "height": 721}, "unsupportedDimensions"),
        ({"width": 1281, "height": 720}, "unsupportedDimensions"),
        ({"width": 721, "height": 720}, "unsupportedDimensions"),
        ({"width": 1280}, "missingHeight"),
        ({"height": 720}, "missingWidth"),
        ({"CFGScale": 1.01}, "invalidCFGScale"),
        ({"CFGScale": -0.01}, "invalidCFGScale"),
        ({"CFGScale": 0.005}, "invalidCFGScale"),
        (framed(IMAGE, IMAGE), "invalidFrameImages"),
        (framed({"image": IMAGE, "frame": "last"}), "unsupportedFrame"),
        ({"resolution": "720p"}, "unsupportedParameter"),
        (SOUND, "unsupportedParameter"),
        *common({}, 350_000),
    ],
    "google:3@0": [
        ({"duration": 8, **WIDE}, 1_600_000),
        ({"duration": 8, **TALL}, 1_600_000),
        ({"duration": 6, **WIDE}, 1_200_000),
        ({"duration": 4, "resolution": "720p"}, 800_000),
        ({"duration": 4, **WIDE, **SOUND}, 1_600_000),
        ({"duration": 6, "resolution": "720p", **SOUND}, 2_400_000),
        ({"duration": 8, **WIDE, **SOUND}, 3_200_000),
        ({"duration": 8, **WIDE, **SILENT}, 1_600_000),
        ({"duration": 8, **WIDE, "positivePrompt": "ab"}, 1_600_000),
        ({"duration": 8, **WIDE, "positivePrompt": "x" * 3000}, 1_600_000),
        ({"duration": 8, **FULL_WIDE}, "priceUnknown"),
        ({"duration": 8, **FULL_TALL}, "priceUnknown"),
        ({"duration": 8, "resolution": "1080p"}, "priceUnknown"),
        ({"duration": 8, "resolution": "1080p", **SOUND}, "priceUnknown"),
        ({"duration": 8}, "missingWidth"),
        ({"duration": 8, **WIDE, "resolution": "720p"}, "incompatibleParameters"),
        ({"duration": 8, "resolution": "480p"}, "unsupportedResolution"),
        ({"duration": 8, "width": 1280, "height": 721}, "unsupportedDimensions"),
        ({"duration": 8, "width": 1281, "height": 720}, "unsupportedDimensions"),
        ({"duration": 8, "width": 1080, "height": 1080}, "unsupportedDimensions"),
        ({"duration": 8, "height": 720}, "missingWidth"),
        (WIDE, "missingDuration"),
        ({"duration": 5, **WIDE}, "unsupportedDuration"),
        ({"duration": 8, **WIDE, "positivePrompt": "x" * 3001}, "invalidPositivePromptLength"),
        ({"duration": 8, **WIDE, "negativePrompt": "blur"}, "unsupportedParameter"),
        ({"duration": 8, **WIDE, "CFGScale": 0.5}, "unsupportedParameter"),
        ({"duration": 8, **WIDE, **framed(IMAGE)}, "unsupportedParameter"),
        ({"duration": 8, **WIDE, "providerSettings": {"google": {"generateAudio": "yes"}}}, "invalidGenerateAudio"),
        ({"duration": 8, **WIDE, "providerSettings": {"klingai": {}}}, "unsupportedParameter"),
        *common({"duration": 8, **WIDE}, 1_600_000),
    ],
    "google:3@3": [
        ({"duration": 8, **FULL_WIDE}, 800_000),
        ({"duration": 8, **FULL_TALL, **SILENT}, 800_000),
        ({"duration": 6, **FULL_WIDE}, 600_000),
        ({"duration": 4, **FULL_WIDE, **SOUND}, 600_000),
        ({"duration": 6, **FULL_WIDE, **SOUND}, 900_000),
        ({"duration": 8, **FULL_WIDE, **SOUND}, 1_200_000),
        ({"duration": 8, **HUGE_WIDE}, 2_400_000),
        ({"duration": 8, **HUGE_TALL, **SOUND}, 2_800_000),
        ({"duration": 4, "resolution": "1080p", **framed(IMAGE)}, 400_000),
        ({"duration": 8, "resolution": "4K", **framed(IMAGE)}, 2_400_000),
        ({"duration": 4, "resolution": "1080p", **framed({"image": IMAGE, "frame": "last"})}, 400_000),
        ({"duration": 4, "resolution": "1080p", **framed({"image": IMAGE, "frame": "first"}, IMAGE)}, 400_000),
        ({"duration": 8, **FULL_WIDE, "positivePrompt": "ab"}, 800_000),
        ({"duration": 8, **FULL_WIDE, "positivePrompt": "x" * 3000}, 800_000),
        ({"duration": 8, **WIDE}, "priceUnknown"),
        ({"duration": 8, **TALL}, "priceUnknown"),
        ({"duration": 8, "resolution": "720p", **framed(IMAGE)}, "priceUnknown"),
        ({"duration": 8, **framed(IMAGE)}, "priceUnknown"),
        ({"duration": 6, **HUGE_WIDE}, "priceUnknown"),
        ({"duration": 6, **HUGE_WIDE, **SOUND}, "priceUnknown"),
        ({"duration": 8}, "missingWidth"),
        ({"duration": 8, "resolution": "1080p"}, "missingWidth"),
        ({"duration": 8, **FULL_WIDE, **framed(IMAGE)}, "incompatibleParameters"),
        ({"duration": 8, **FULL_WIDE, "resolution": "1080p"}, "incompatibleParameters"),
        ({"duration": 8, "resolution": "2K", **framed(IMAGE)}, "unsupportedResolution"),
        ({"duration": 4, "resolution": "1080p", **framed(IMAGE, IMAGE, IMAGE)}, "invalidFrameImages"),
        ({"duration": 4, "resolution": "1080p", **framed({"image": IMAGE, "frame": 0})}, "unsupportedFrame"),
        ({"duration": 8, "width": 1281, "height": 720}, "unsupportedDimensions"),
        ({"duration": 8, "width": 1280, "height": 721}, "unsupportedDimensions"),
        ({"duration": 8, "height": 720}, "missingWidth"),
        (FULL_WIDE, "missingDuration"),
        ({"duration": 7, **FULL_WIDE}, "unsupportedDuration"),
        ({"duration": 8, **FULL_WIDE, "positivePrompt": "x" * 3001}, "invalidPositivePromptLength"),
        ({"duration": 8, **FULL_WIDE, "negativePrompt": "blur"}, "unsupportedParameter"),
        ({"duration": 8, **FULL_WIDE, "providerSettings": {"google": {"generateAudio": 1}}}, "invalidGenerateAudio"),
        *common({"duration": 8, **FULL_WIDE}, 800_000),
    ],
    "minimax:4@1": [
        ({"duration": 6, **SMALL}, 280_000),
        ({"duration": 10, **SMALL}, 560_000),
        ({"duration": 6, **FULL_WIDE}, 490_000),
        ({"duration": 6, **FULL_WIDE, "fps": 25}, 490_000),
        ({"duration": 6, **SMALL, "providerSettings": {"minimax": {"promptOptimizer": True}}}, 280_000),
        ({"duration": 6, **SMALL, **framed(IMAGE)}, 280_000),
        ({"duration": 6, **SMALL, **framed({"image": IMAGE, "frame": "first"})}, 280_000),
        ({"duration": 6, **SMALL, "positivePrompt": "ab"}, 280_000),
        ({"duration": 6, **SMALL, "positivePrompt": "x" * 2000}, 280_000),
        ({"duration": 6}, "priceUnknown"),
        ({"duration": 6, **framed(IMAGE)}, "priceUnknown"),
        ({"duration": 10, **FULL_WIDE}, "unsupportedDuration"),
        ({"duration": 8, **SMALL}, "unsupportedDuration"),
        (SMALL, "missingDuration"),
        ({"duration": 6, **FULL_TALL}, "unsupportedDimensions"),
        ({"duration": 6, "width": 1366, "height": 769}, "unsupportedDimensions"),
        ({"duration": 6, "width": 1367, "height": 768}, "unsupportedDimensions"),
        ({"duration": 6, "width": 1366}, "missingHeight"),
        ({"duration": 6, **SMALL, "fps": 26}, "unsupportedFps"),
        ({"duration": 6, **SMALL, **framed(IMAGE, IMAGE)}, "invalidFrameImages"),
        ({"duration": 6, **SMALL, **framed({"image": IMAGE, "frame": "last"})}, "unsupportedFrame"),
        ({"duration": 6, **SMALL, "positivePrompt": "x" * 2001}, "invalidPositivePromptLength"),
        ({"duration": 6, **SMALL, "negativePrompt": "blur"}, "unsupportedParameter"),
        ({"duration": 6, **SMALL, "providerSettings": {"minimax": {"promptOptimizer": 1}}}, "invalidPromptOptimizer"),
        ({"duration": 6, **SMALL, **SOUND}, "unsupportedParameter"),
        *common({"duration": 6, **SMALL}, 280_000, COMMON_BUT_FPS),
    ],
    "bytedance:2@1": [
        (SEEDANCE_WIDE, 484_000),
        (SEEDANCE_TALL, 484_000),
        *(({"width": width, "height": height}, 484_000) for width, height in SEEDANCE_SIZES),
        ({"duration": 5, **SEEDANCE_WIDE}, 484_000),
        ({"duration": 10, **SEEDANCE_WIDE}, 968_000),
        ({"resolution": "1080p"}, 484_000),
        ({"resolution": "1080p", **framed(IMAGE)}, 484_000),
        ({**SEEDANCE_WIDE, **framed({"image": IMAGE, "frame": "first"}, {"image": IMAGE, "frame": "last"})}, 484_000),
        ({**SEEDANCE_WIDE, "providerSettings": {"bytedance": {"cameraFixed": True}}}, 484_000),
        ({**SEEDANCE_WIDE, "positivePrompt": "ab"}, 484_000),
        ({**SEEDANCE_WIDE, "positivePrompt": "x" * 3000}, 484_000),
        *(({"width": width, "height": height}, "priceUnknown") for width, height in SEEDANCE_SMALL_SIZES),
        ({"resolution": "480p"}, "priceUnknown"),
        (framed(IMAGE), "priceUnknown"),
        ({}, "missingWidth"),
        ({"resolution": "1080p", **SEEDANCE_WIDE}, "incompatibleParameters"),
        ({"resolution": "720p"}, "unsupportedResolution"),
        (FULL_WIDE, "unsupportedDimensions"),
        ({"width": 1921, "height": 1088}, "unsupportedDimensions"),
        ({"width": 1920}, "missingHeight"),
        ({"height": 1088}, "missingWidth"),
        ({"duration": 6, **SEEDANCE_WIDE}, "unsupportedDuration"),
        ({**SEEDANCE_WIDE, **framed(IMAGE, IMAGE, IMAGE)}, "invalidFrameImages"),
        ({**SEEDANCE_WIDE, **framed({"image": IMAGE, "frame": 0})}, "unsupportedFrame"),
        ({**SEEDANCE_WIDE, "positivePrompt": "x" * 3001}, "invalidPositivePromptLength"),
        ({**SEEDANCE_WIDE, "negativePrompt": "blur"}, "unsupportedParameter"),
        ({**SEEDANCE_WIDE, "providerSettings": {"bytedance": {"cameraFixed": 1}}}, "invalidCameraFixed"),
        ({**SEEDANCE_WIDE, **SOUND}, "unsupportedParameter"),
        *common(SEEDANCE_WIDE, 484_000),
    ],
    "pixverse:1@5": [
        (FULL_WIDE, 299_000),
        (FULL_TALL, 299_000),
        *(({"width": width, "height": height}, 299_000) for width, height in PIXVERSE_SIZES),
        ({"duration": 5, **FULL_WIDE}, 299_000),
        ({"duration": 8, **FULL_WIDE}, 478_400),
        ({"resolution": "1080p", **framed(IMAGE)}, 299_000),
        ({"resolution": "1080p", **framed(IMAGE, {"image": IMAGE, "frame": "last"})}, 299_000),
        ({"resolution": "1080p", **framed({"image": IMAGE, "frame": "first"})}, 299_000),
        *(({**FULL_WIDE, "fps": fps}, 299_000) for fps in (16, 24)),
        *(
            ({**FULL_WIDE, "providerSettings": {"pixverse": {"style": style}}}, 299_000)
            for style in ("anime", "3d_animation", "clay", "comic", "cyberpunk")
        ),
        *(
            ({**FULL_WIDE, "providerSettings": {"pixverse": {"motionMode": mode}}}, 299_000)
            for mode in ("normal", "fast")
        ),
        ({**FULL_WIDE, "positivePrompt": "ab", "negativePrompt": "x" * 2048}, 299_000),
        ({**FULL_WIDE, "positivePrompt": "x" * 2048, "negativePrompt": "ab"}, 299_000),
        *(({"width": width, "height": height}, "priceUnknown") for width, height in PIXVERSE_SMALL_SIZES),
        *(({"resolution": name, **framed(IMAGE)}, "priceUnknown") for name in ("360p", "540p", "720p")),
        (framed(IMAGE), "priceUnknown"),
        ({}, "missingWidth"),
        ({"resolution": "1080p"}, "missingWidth"),
        ({**FULL_WIDE, **framed(IMAGE)}, "incompatibleParameters"),
        ({**FULL_WIDE, "resolution": "1080p"}, "incompatibleParameters"),
        ({"resolution": "480p", **framed(IMAGE)}, "unsupportedResolution"),
        ({"width": 1921, "height": 1080}, "unsupportedDimensions"),
        ({"width": 1920, "height": 1081}, "unsupportedDimensions"),
        ({"width": 1920}, "missingHeight"),
        ({"duration": 6, **FULL_WIDE}, "unsupportedDuration"),
        ({"duration": 10, **FULL_WIDE}, "unsupportedDuration"),
        ({**FULL_WIDE, "fps": 25}, "unsupportedFps"),
        ({"resolution": "1080p", **framed(IMAGE, IMAGE, IMAGE)}, "invalidFrameImages"),
        ({"resolution": "1080p", **framed({"image": IMAGE, "frame": 0})}, "unsupportedFrame"),
        ({**FULL_WIDE, "positivePrompt": "x" * 2049}, "invalidPositivePromptLength"),
        ({**FULL_WIDE, "negativePrompt": "x" * 2049}, "invalidNegativePromptLength"),
        ({**FULL_WIDE, "negativePrompt": "x"}, "invalidNegativePromptLength"),
        ({**FULL_WIDE, "providerSettings": {"pixverse": {"style": "oil"}}}, "unsupportedStyle"),
        ({**FULL_WIDE, "providerSettings": {"pixverse": {"motionMode": "slow"}}}, "unsupportedMotionMode"),
        ({**FULL_WIDE, "providerSettings": {"pixverse": {"effect": "kiss kiss"}}}, "unsupportedParameter"),
        *common(FULL_WIDE, 299_000, COMMON_BUT_FPS),
    ],
}
CASES = [(air, changes, expected) for air, probes in PROBES.items() for changes, expected in probes]


def outcome(checked: Any) -> int | str:
    return checked.price if isinstance(checked, Order) else str(checked[0]["code"])


@pytest.mark.parametrize(("air", "changes", "expected"), CASES)
def test_a_request_has_the_price_of_the_page_or_is_refused(
    air: str, changes: dict[str, Any], expected: int | str
) -> None:
    """A limit is named in the error, which leads to the model's own page."""
    checked = check(request(model=air, **changes))
    assert outcome(checked) == expected
    if isinstance(checked, list):
        assert [str(error.get("documentation", "")).partition("#")[0] for error in checked] in (
            [models.get(air).documentation],
            [""],
        )


@pytest.mark.parametrize(("air", "changes", "expected"), CASES)
def test_the_emulators_reading_of_the_page_agrees(air: str, changes: dict[str, Any], expected: int | str) -> None:
    """Runware would accept what is ordered, and refuse the rest.

    Ours alone are the limits of what has no price, of a duration whose default no page gives, and of the longest `ttl`.
    """
    ours = expected in ("priceUnknown", "missingDuration") or changes.get("ttl", 0) > 60
    assert (video_errors(request(model=air, **changes)) == []) == (isinstance(expected, int) or ours)


CHECK = """
import json, sys

opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)

from rushes.runware.request import check

assert not isinstance(check(json.loads(sys.argv[1])), list)
print(*sorted(name.rpartition("catalog/")[2] for name in opened if "/catalog/" in name))
"""


def test_only_the_file_of_the_ordered_model_is_read() -> None:
    """In a new process, as at a cold start."""
    command = [sys.executable, "-c", CHECK, json.dumps(request(model="klingai:6@1"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["klingai/6@1.json"]


def test_the_limits_of_images_and_times_are_those_of_the_pages() -> None:
    """So are those of the emulator. Only for KlingAI 2.1 Master a render time is known."""
    found = {air: models.get(air) for air in models.identifiers()}
    images = {air: (model.image_sides, model.max_image_bytes) for air, model in found.items() if model.max_image_bytes}
    common = dict.fromkeys(("google:3@3", "klingai:5@3", "klingai:6@1", "minimax:4@1"), (300, 2048, 20))
    limits = common | {"bytedance:2@1": (300, 6000, 10), "pixverse:1@5": (300, 4000, 20)}
    assert images == {air: (Span(low, high), size * 1024 * 1024) for air, (low, high, size) in limits.items()}
    assert {air: MODELS[air].images for air in limits} == limits
    assert {air: model.usual_render for air, model in found.items() if model.usual_render} == {"klingai:5@3": 240_000}
    assert {(model.status.state, model.status.successor) for model in found.values()} == {("live", "")}


def test_the_documented_requests_have_the_prices_of_the_pages() -> None:
    """The pages that are known have one, unchanged. That of Veo 3.1 Fast has a size without a price."""
    outcomes = [(outcome(check(each["request"])), each["cost"]) for each in DOCUMENTED]
    assert outcomes == [(round(cost * 1_000_000) if cost else "priceUnknown", cost) for _, cost in outcomes]
    unknown = {"klingai:kling-video@3-standard", "klingai:kling-video@3-pro"}
    assert {each["request"]["model"] for each in DOCUMENTED} == PROBES.keys() - unknown
    assert [video_errors(each["request"]) for each in DOCUMENTED] == [[]] * len(DOCUMENTED)


@pytest.mark.parametrize("air", models.identifiers())
def test_every_listed_price_is_one_of_the_models_prices(air: str) -> None:
    """The page's list names the seconds; its other words are free text."""
    for configuration, listed in models.content(air)["listedPrices"].items():
        (seconds,) = re.findall(r"(\d+)s\b", configuration)
        prices = [row.per_clip or (row.per_second or 0) * int(seconds) for row in models.get(air).prices]
        assert listed in prices


HOSTILE: tuple[Any, ...] = (None, True, -1, 1e308, "x", [], [1], {}, {"a": {}}, [[{}]])


@pytest.mark.parametrize("air", models.identifiers())
def test_any_value_of_any_parameter_is_an_order_or_an_error(air: str) -> None:
    """Values of any type, alone and two at a time, never raise: a rule about several parameters may see both."""
    names = {name.partition(".")[0] for name in models.get(air).parameters}
    for name, other in itertools.product(sorted(names), repeat=2):
        for value in HOSTILE:
            checked = check(request(model=air, duration=6) | {name: value, other: value})
            assert isinstance(checked, Order | list)


def test_every_model_has_requests() -> None:
    """The requests of KlingAI 2.1 Master are recorded with their whole answers."""
    assert {*PROBES, models.DEFAULT} == set(models.identifiers())


def mutations(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a file with its path, and another value in its place."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from mutations(inner, (*path, name))
    elif isinstance(value, list):
        yield path, value[:-1]
        for index, inner in enumerate(value):
            yield from mutations(inner, (*path, index))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int | float):
        yield path, value + 1
        yield path, value - 1
    else:
        yield path, f"{value}x"


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return data


def answers(air: str, data: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The answers of a model with this data to its requests; an error if the data cannot be used at all."""
    try:
        model = parse(data)
        yield request_type(model).model_json_schema()
    except Exception as error:
        yield repr(error)
        return
    monkeypatch.setattr(models, "find", lambda _: model)
    probes = [request(model=air, **changes) for changes, _ in PROBES.get(air, ())]
    for task in probes or recorded_tasks():
        try:
            checked = check(task)
        except Exception as error:
            yield repr(error)
        else:
            yield checked if isinstance(checked, list) else (checked.price, checked.clips, checked.extension)


@cache
def recorded_tasks() -> list[Any]:
    return [task for line in LINES for task in json.loads(line)["tasks"] if isinstance(task, dict)]


# Values that no order depends on, or that other tests hold.
ELSEWHERE = {"name", "status", "usualRenderSeconds", "images", "listedPrices"}


@pytest.mark.parametrize("air", models.identifiers())
def test_every_value_of_the_catalog_is_held_by_a_request(air: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed value changes an answer."""
    data = models.content(air)
    before = list(answers(air, data, monkeypatch))
    survivors = []
    for path, value in mutations(data):
        if path[0] in ELSEWHERE:
            continue
        after = answers(air, changed(data, path, value), monkeypatch)
        if all(given == expected for given, expected in zip_longest(after, before)):
            survivors.append(f"{'/'.join(map(str, path))} = {value!r}")
    assert not survivors, survivors

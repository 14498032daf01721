"""The video models that can be bought, as data: each model's limits and price, from its page at Runware.

To add another Runware video model, add a `VideoModel` to `MODELS`. No other module has a limit or a price.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """An inclusive range; None means no bound."""

    minimum: int | None
    maximum: int | None

    def __contains__(self, number: int) -> bool:
        return (self.minimum is None or self.minimum <= number) and (self.maximum is None or number <= self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoModel:
    """The limits and the price of one model. `micro_dollars_per_second` is the price of a second of finished video."""

    air: str
    documentation: str
    prompt: Span
    sizes: tuple[tuple[int, int], ...]
    durations: tuple[int, ...]
    default_duration: int
    cfg_scale: Span
    cfg_scale_steps: int  # per whole unit
    formats: Mapping[str, str]  # wire name -> file name extension
    default_format: str
    quality: Span
    results: Span
    ttl: Span  # seconds
    max_frame_images: int
    image_sides: Span  # pixels
    max_image_bytes: int
    micro_dollars_per_second: int

    def price(self, seconds: float) -> int:
        """Returns the price of a clip of this length, in micro-dollars."""
        return round(self.micro_dollars_per_second * seconds)


KLING_2_1_MASTER = VideoModel(
    air="klingai:5@3",
    documentation="https://runware.ai/docs/models/klingai-2-1-master",
    prompt=Span(2, 2500),
    sizes=((1920, 1080), (1080, 1080), (1080, 1920)),
    durations=(5, 10),
    default_duration=5,
    cfg_scale=Span(0, 1),
    cfg_scale_steps=100,
    formats={"MP4": "mp4", "WEBM": "webm", "MOV": "mov"},
    default_format="MP4",
    quality=Span(20, 99),
    results=Span(1, 4),
    ttl=Span(60, 365 * 24 * 3600),  # the page has no upper bound; more than a year can only be a mistake
    max_frame_images=1,
    image_sides=Span(300, 2048),
    max_image_bytes=20 * 1024 * 1024,
    micro_dollars_per_second=184_800,
)

MODELS: Mapping[str, VideoModel] = {model.air: model for model in (KLING_2_1_MASTER,)}

"""Two more video models for tests of fallback: one dearer and one cheaper than KlingAI 2.1 Master."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from rushes.runware import catalog, request
from rushes.runware.catalog import KLING_2_1_MASTER as FIRST
from rushes.runware.catalog import Span, VideoModel
from rushes.services import input_images

DEARER = replace(
    FIRST,
    air="test:dearer@1",
    micro_dollars_per_second=250_000,
    formats={"WEBM": "webm"},
    default_format="WEBM",
)
CHEAPER = replace(FIRST, air="test:cheaper@1", micro_dollars_per_second=100_000)
MODELS: Mapping[str, VideoModel] = {each.air: each for each in (FIRST, DEARER, CHEAPER)}
# Of five seconds, in micro-dollars.
PRICES: Mapping[str, int] = {FIRST.air: 924_000, DEARER.air: 1_250_000, CHEAPER.air: 500_000}


def shorter(model: VideoModel) -> VideoModel:
    """A model like this one, with clips of five seconds and prompts of thirty characters only."""
    return replace(model, air="test:shorter@1", durations=(5,), prompt=Span(2, 30))


@contextmanager
def more_models(*more: VideoModel) -> Iterator[None]:
    """Lets the service buy from these models and from `more`, too."""
    request.request_type(FIRST)  # made and kept before, so that it stays without these models
    sold = {**MODELS, **{each.air: each for each in more}}
    with (
        patch.object(catalog, "MODELS", sold),
        patch.object(request, "MODELS", sold),
        patch.object(input_images, "MODELS", sold),
    ):
        yield

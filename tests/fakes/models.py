"""Two more video models for tests of fallback: one dearer and one cheaper than KlingAI 2.1 Master."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from rushes.runware import catalog, request
from rushes.runware.catalog import KLING_2_1_MASTER, VideoModel
from rushes.services import input_images

DEARER = replace(
    KLING_2_1_MASTER,
    air="test:dearer@1",
    micro_dollars_per_second=250_000,
    formats={"WEBM": "webm"},
    default_format="WEBM",
)
CHEAPER = replace(KLING_2_1_MASTER, air="test:cheaper@1", micro_dollars_per_second=100_000)
MODELS: Mapping[str, VideoModel] = {each.air: each for each in (KLING_2_1_MASTER, DEARER, CHEAPER)}
# Of five seconds, in micro-dollars.
PRICES: Mapping[str, int] = {air: model.price(5) for air, model in MODELS.items()}


@contextmanager
def more_models() -> Iterator[None]:
    """Lets the service buy from these models, too."""
    request.request_type(KLING_2_1_MASTER)  # made and kept before, so that it stays without these models
    with (
        patch.object(catalog, "MODELS", MODELS),
        patch.object(request, "MODELS", MODELS),
        patch.object(input_images, "MODELS", MODELS),
    ):
        yield

"""Two more video models for tests of fallback: one dearer and one cheaper than KlingAI 2.1 Master."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from rushes.runware import models
from rushes.runware.models import Parameter, VideoModel

FIRST = models.get(models.DEFAULT)


def at_price(model: VideoModel, per_second: int) -> VideoModel:
    """The model with another price of a second, in micro-dollars."""
    return replace(model, prices=tuple(replace(price, per_second=per_second) for price in model.prices))


def limited(model: VideoModel, **limits: Parameter) -> VideoModel:
    """The model with other limits of these parameters."""
    return replace(model, parameters={**model.parameters, **limits})


DEARER = at_price(
    limited(
        replace(FIRST, air="test:dearer@1"),
        outputFormat=Parameter(type="string", values=("WEBM",), default="WEBM"),
    ),
    250_000,
)
CHEAPER = at_price(replace(FIRST, air="test:cheaper@1"), 100_000)
MODELS: Mapping[str, VideoModel] = {each.air: each for each in (FIRST, DEARER, CHEAPER)}
# Of five seconds, in micro-dollars.
PRICES: Mapping[str, int] = {FIRST.air: 924_000, DEARER.air: 1_250_000, CHEAPER.air: 500_000}


def shorter(model: VideoModel) -> VideoModel:
    """A model like this one, with clips of five seconds and prompts of thirty characters only."""
    return limited(
        replace(model, air="test:shorter@1"),
        duration=replace(model.parameters["duration"], values=(5,)),
        positivePrompt=replace(model.parameters["positivePrompt"], maximum=30),
        negativePrompt=replace(model.parameters["negativePrompt"], maximum=30),
    )


@contextmanager
def more_models(*more: VideoModel) -> Iterator[None]:
    """Lets the service buy from these models and from `more`, too."""
    sold = {**MODELS, **{each.air: each for each in more}}
    with (
        patch.object(models, "get", sold.__getitem__),
        patch.object(models, "find", lambda air: sold.get(air) if isinstance(air, str) else None),
        patch.object(models, "identifiers", lambda: tuple(sorted(sold))),
    ):
        yield

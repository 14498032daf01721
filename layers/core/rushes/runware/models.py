"""The video models that can be bought, as data: one JSON file for each model, with the limits and prices of its page.

The file of `klingai:5@3` is `catalog/klingai/5@3.json`. A file is read at its model's first use, so a cold start reads
only what is ordered. The files are validated when the project is built (`scripts/model_files.py`, which also writes
docs/models.md) and not here. No other module has a limit or a price.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

DEFAULT = "klingai:5@3"
_FOLDER = Path(__file__).parent / "catalog"
_AIR = re.compile(r"[a-z0-9]{1,50}:[a-z0-9][a-z0-9-]{0,50}@[a-z0-9][a-z0-9.-]{0,20}")


@dataclass(frozen=True, slots=True)
class Span:
    """An inclusive range; None means no bound."""

    minimum: float | None
    maximum: float | None

    def __contains__(self, number: float) -> bool:
        return (self.minimum is None or self.minimum <= number) and (self.maximum is None or number <= self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """The limits of one parameter.

    `minimum` and `maximum` are of a number, of a text's length in characters, or of a list's length. Without `values`
    any value within the limits is valid, in multiples of `step`. `frames` are the places of an image in a video.
    """

    type: Literal["string", "number", "integer", "boolean", "size", "images"]
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    values: tuple[Any, ...] = ()
    default: Any = None
    frames: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that concerns several parameters, of one of these kinds.

    - `together`: all of the `parameters` or none of them.
    - `exactlyOneOf`, `atLeastOneOf`, `atMostOneOf`: of the groups of parameters; a group is given if one of its
      parameters is.
    - `onlyWith`: the first of the `parameters` may be given only with the second.
    - `restricts`: where all conditions of `when` hold, the first of the `parameters` has one of `values`.
    """

    kind: Literal["together", "exactlyOneOf", "atLeastOneOf", "atMostOneOf", "onlyWith", "restricts"]
    parameters: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    when: Mapping[str, tuple[Any, ...]]
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of requests with certain values, in micro-dollars for a clip or for each of its seconds."""

    when: Mapping[str, tuple[Any, ...]]
    per_clip: int | None = None
    per_second: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """A model that is `leaving` ends on a `date` (YYYY-MM-DD); one that is `gone` has ended. Empty means unknown."""

    state: Literal["live", "leaving", "gone"]
    date: str = ""
    successor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoModel:
    """The limits and prices of one model. `sizes` are width, height and resolution; image sides are in pixels.

    `usual_render` is the shortest usual duration of a render in milliseconds; None if it is unknown.
    """

    air: str
    name: str
    documentation: str
    status: ModelStatus
    parameters: Mapping[str, Parameter]
    sizes: Mapping[tuple[int, int], str]
    default_resolution: str
    rules: tuple[Rule, ...]
    prices: tuple[Price, ...]
    image_sides: Span
    max_image_bytes: int
    usual_render: int | None

    @property
    def formats(self) -> Mapping[str, str]:
        """The file name extension of each output format."""
        return {name: name.lower() for name in self.parameters["outputFormat"].values}

    def default(self, parameter: str) -> Any:
        """The value of a parameter that is not given."""
        return self.parameters[parameter].default


def identifiers() -> tuple[str, ...]:
    """The AIR identifiers of all models, sorted, from the names of the files."""
    return tuple(sorted(f"{path.parent.name}:{path.stem}" for path in _FOLDER.glob("*/*.json")))


def find(air: object) -> VideoModel | None:
    """The model with this AIR identifier, which may be any value from outside; None if there is none."""
    return get(air) if isinstance(air, str) and _AIR.fullmatch(air) and _path(air).is_file() else None


def content(air: str) -> dict[str, Any]:
    """The content of the file of one of `identifiers()`."""
    data: dict[str, Any] = json.loads(_path(air).read_text(encoding="utf-8"))
    return data


@cache
def get(air: str) -> VideoModel:
    """The model with the AIR identifier of one of `identifiers()`."""
    return parse(content(air))


def parse(data: Mapping[str, Any]) -> VideoModel:
    """The model of a file's content, which is valid."""
    images = data.get("images", {"sides": [None, None], "bytes": 0})
    return VideoModel(
        air=data["air"],
        name=data["name"],
        documentation=data["page"],
        status=ModelStatus(**data["status"]),
        parameters={name: Parameter(**_tuples(limits)) for name, limits in data["parameters"].items()},
        sizes={(size["width"], size["height"]): size["resolution"] for size in data.get("sizes", [])},
        default_resolution=data.get("defaultResolution", ""),
        rules=tuple(_rule(rule) for rule in data.get("rules", [])),
        prices=tuple(
            Price(when=_tuples(row["when"]), per_clip=row.get("perClip"), per_second=row.get("perSecond"))
            for row in data["prices"]
        ),
        image_sides=Span(*images["sides"]),
        max_image_bytes=images["bytes"],
        usual_render=data["usualRenderSeconds"] * 1000 if "usualRenderSeconds" in data else None,
    )


def _path(air: str) -> Path:
    vendor, _, name = air.partition(":")
    return _FOLDER / vendor / f"{name}.json"


def _rule(data: Mapping[str, Any]) -> Rule:
    kind: Any
    kind, content = next(iter(data.items()))
    match kind:
        case "restricts":
            when = _tuples(content["when"])
            return Rule(kind=kind, parameters=(content["parameter"],), when=when, values=tuple(content["values"]))
        case "exactlyOneOf" | "atLeastOneOf" | "atMostOneOf":
            return Rule(kind=kind, groups=tuple(map(tuple, content)), when={})
    return Rule(kind=kind, parameters=tuple(content), when={})


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

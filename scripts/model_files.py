"""Validates the files of the model catalog and writes docs/models.md: `python -m scripts.model_files` (`--check`).

The service itself trusts the files, since validation at a cold start costs time. With `--check` nothing is written, and
the exit status is 1 if a file is invalid or the page out of date.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, model_validator

from rushes.domain.formats import dollars

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "layers" / "core" / "rushes" / "runware" / "catalog"
PAGE = ROOT / "docs" / "models.md"
DERIVED = {"resolution"}  # has a value without being a parameter: that of the size, or the model's

Number = int | float
Value = bool | int | float | str
Conditions = dict[str, Annotated[list[Value], Field(min_length=1)]]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StatusEntry(_Entry):
    """`leaving` needs a successor; `date` is the last day."""

    state: Literal["live", "leaving", "gone"]
    date: Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = ""
    successor: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.date:
            date.fromisoformat(self.date)
        if (self.state == "live") == bool(self.successor):
            raise ValueError("a model names its successor if it is leaving or gone")
        return self


class Size(_Entry):
    """Width and height in pixels, and the name of the resolution in prices."""

    width: Annotated[int, Field(ge=16, le=8192)]
    height: Annotated[int, Field(ge=16, le=8192)]
    resolution: str


class ParameterLimits(_Entry):
    """See `rushes.runware.models.Parameter`."""

    type: Literal["string", "number", "integer", "boolean", "size", "images"]
    required: bool = False
    minimum: Number | None = None
    maximum: Number | None = None
    step: Annotated[Number, Field(gt=0)] | None = None
    values: list[Value] = []
    default: Value | None = None
    frames: list[str | int] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bounded = self.minimum is not None or self.maximum is not None
        if self.values and bounded:
            raise ValueError("a parameter has either values or limits")
        if self.values and len(set(self.values)) < len(self.values):
            raise ValueError("a value is listed twice")
        if self.values and self.default is not None and self.default not in self.values:
            raise ValueError("the default is not one of the values")
        if bounded and isinstance(self.default, int | float) and not _within(self.default, self):
            raise ValueError("the default is not within the limits")
        if None not in (self.minimum, self.maximum) and self.minimum > self.maximum:  # type: ignore[operator]
            raise ValueError("the minimum is above the maximum")
        if (self.type == "images") != bool(self.frames):
            raise ValueError("images have frames, and nothing else has")
        return self


class Restricts(_Entry):
    """Where the conditions hold, the parameter has one of the values."""

    when: Conditions
    parameter: str
    values: Annotated[list[Value], Field(min_length=1)]


Groups = Annotated[list[Annotated[list[str], Field(min_length=1)]], Field(min_length=2)]


class ModelRule(_Entry):
    """One rule, of one kind."""

    together: Annotated[list[str], Field(min_length=2)] | None = None
    exactlyOneOf: Groups | None = None
    atLeastOneOf: Groups | None = None
    atMostOneOf: Groups | None = None
    onlyWith: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    restricts: Restricts | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("a rule is of one kind")
        return self

    @property
    def groups(self) -> tuple[str, list[list[str]]]:
        """The number of groups of a rule about groups, in words, and the groups."""
        if self.exactlyOneOf:
            return "Exactly one", self.exactlyOneOf
        return ("At least one", self.atLeastOneOf) if self.atLeastOneOf else ("At most one", self.atMostOneOf or [])

    @property
    def names(self) -> Iterator[str]:
        """The parameters that the rule names."""
        yield from [*(self.together or ()), *(self.onlyWith or ())]
        for group in self.groups[1]:
            yield from group
        if self.restricts:
            yield from [self.restricts.parameter, *self.restricts.when]


class PriceRow(_Entry):
    """One row of the grid, in micro-dollars."""

    when: Conditions
    perClip: Annotated[int, Field(gt=0)] | None = None
    perSecond: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if (self.perClip is None) == (self.perSecond is None):
            raise ValueError("a price is per clip or per second")
        if self.perClip and "duration" not in self.when:
            raise ValueError("a price per clip is for certain durations")
        return self


class Images(_Entry):
    """The sides of an image in pixels, smallest and largest, and its size in bytes."""

    sides: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=2, max_length=2)]
    bytes: Annotated[int, Field(gt=0)]


class ModelFile(_Entry):
    """The content of a file.

    `listedPrices` is the price list of the model's page, from which the prices are: micro-dollars by the page's name of
    the configuration. `rushes models check` compares it.
    """

    air: Annotated[str, Field(pattern=r"^[a-z0-9]+:[a-z0-9-]+@[a-z0-9.-]+$")]
    name: str
    page: str
    status: StatusEntry
    sizes: list[Size] = []
    defaultResolution: str = ""
    parameters: dict[str, ParameterLimits]
    rules: list[ModelRule] = []
    usualRenderSeconds: Annotated[int, Field(gt=0)] | None = None
    images: Images | None = None
    prices: Annotated[list[PriceRow], Field(min_length=1)]
    listedPrices: Annotated[dict[str, Annotated[int, Field(gt=0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        HttpUrl(self.page)
        missing = {"positivePrompt", "duration", "numberResults", "outputFormat"} - self.parameters.keys()
        if missing:
            raise ValueError(f"parameters are missing: {missing}")
        if any(parameter.type == "images" for parameter in self.parameters.values()) != bool(self.images):
            raise ValueError("a model with images has their limits")
        named = {name for rule in self.rules for name in rule.names} | {
            name for row in self.prices for name in row.when
        }
        if unknown := named - self.parameters.keys() - DERIVED:
            raise ValueError(f"rules or prices name parameters that the model does not have: {unknown}")
        for name, values in self._conditions():
            self._check_values(name, values)
        return self

    def _conditions(self) -> Iterator[tuple[str, list[Value]]]:
        for row in self.prices:
            yield from row.when.items()
        for rule in self.rules:
            if rule.restricts:
                yield from rule.restricts.when.items()
                yield rule.restricts.parameter, rule.restricts.values

    def _check_values(self, name: str, values: list[Value]) -> None:
        """Raises `ValueError` for a value that the parameter cannot have."""
        limits = self.parameters.get(name)
        if name == "resolution":
            known = {size.resolution for size in self.sizes} | {self.defaultResolution}
            known |= set(limits.values) if limits else set()  # type: ignore[arg-type]
            wrong = set(values) - known
        elif limits is None or limits.type == "boolean":
            wrong = {value for value in values if not isinstance(value, bool)}
        else:
            wrong = {value for value in values if not _may_be(value, limits)}
        if wrong:
            raise ValueError(f"{name} cannot be {wrong}")


def _may_be(value: Value, limits: ParameterLimits) -> bool:
    return value in limits.values if limits.values else isinstance(value, int | float) and _within(value, limits)


def _within(value: float, limits: ParameterLimits) -> bool:
    return (limits.minimum is None or limits.minimum <= value) and (limits.maximum is None or value <= limits.maximum)


def read(path: Path) -> ModelFile:
    """The validated content of a file. Raises `ValueError`."""
    model = ModelFile.model_validate_json(path.read_bytes())
    if path != FOLDER / model.air.partition(":")[0] / f"{model.air.partition(':')[2]}.json":
        raise ValueError(f"{path.name} is not the file of {model.air}")
    return model


def catalog() -> Mapping[str, ModelFile]:
    """All models by AIR identifier. Raises `ValueError` if one of them is invalid or names an unknown successor."""
    models = {}
    for path in sorted(FOLDER.glob("*/*.json")):
        try:
            models[f"{path.parent.name}:{path.stem}"] = read(path)
        except (ValidationError, ValueError) as error:
            raise ValueError(f"{path.relative_to(ROOT)}: {error}") from None
    for air, model in models.items():
        if model.status.successor and model.status.successor not in models:
            raise ValueError(f"{air} has the unknown successor {model.status.successor}")
    return models


def render(models: Mapping[str, ModelFile]) -> str:
    """docs/models.md."""
    rows = [
        f"| [{model.name}](#{_anchor(model.name)}) | `{air}` | {_status(model)} | {_price_range(model)} |"
        for air, model in models.items()
    ]
    parts = [
        "# Models",
        "Generated by `python -m scripts.model_files` from the files in "
        "[runware/catalog](../layers/core/rushes/runware/catalog). A limit that the model's page at Runware does not "
        "give is left out of what can be ordered. A request with values for which no price is listed is refused "
        "(`priceUnknown`).",
        "| Model | `model` | Status | Price of a second |\n| --- | --- | --- | --- |\n" + "\n".join(rows),
        *(_section(model) for model in models.values()),
    ]
    return "\n\n".join(parts) + "\n"


def _section(model: ModelFile) -> str:
    sizes = ", ".join(f"{size.width}x{size.height} ({size.resolution})" for size in model.sizes)
    prices = "\n".join(f"- {_conditions(row.when)}: {_price(row)}" for row in model.prices)
    rules = "\n".join(f"- {_rule(rule)}" for rule in model.rules)
    parts = [
        f"## {model.name}",
        f"`{model.air}`, {_status(model)}, [page]({model.page})",
        *([f"Sizes: {sizes}."] if sizes else []),
        "| Parameter | Values | Default |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| `{name}`{' (required)' if limits.required else ''} | {_values(limits, model)} | {_default(limits)} |"
            for name, limits in model.parameters.items()
        ),
        *([f"Rules:\n\n{rules}"] if rules else []),
        f"Prices:\n\n{prices}",
    ]
    return "\n\n".join(parts)


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-")


def _status(model: ModelFile) -> str:
    status = model.status
    ends = f" on {status.date}" if status.date else ""
    return {"live": "live", "leaving": f"ends{ends}", "gone": f"ended{ends}"}[status.state] + (
        f", successor `{status.successor}`" if status.successor else ""
    )


def _price_range(model: ModelFile) -> str:
    prices = [row.perSecond or (row.perClip or 0) / min(map(float, row.when["duration"])) for row in model.prices]
    low, high = (f"${price / 1e6:.3f}" for price in (min(prices), max(prices)))
    return low if low == high else f"{low} to {high}"


def _price(row: PriceRow) -> str:
    if row.perSecond:
        return f"${dollars(row.perSecond):g} a second"
    return f"${dollars(row.perClip or 0):g} a clip"


def _conditions(when: Mapping[str, list[Value]]) -> str:
    return " and ".join(f"`{name}` {_either(values)}" for name, values in when.items()) or "all"


def _either(values: list[Any]) -> str:
    return ", ".join(json.dumps(value) if isinstance(value, bool) else str(value) for value in values)


def _values(limits: ParameterLimits, model: ModelFile) -> str:
    if limits.values:
        return _either(limits.values)
    if limits.type == "size":
        return "a side of the sizes"
    if limits.type == "boolean":
        return "true, false"
    unit = {"string": " characters", "images": " images"}.get(limits.type, "")
    if limits.type == "images" and model.images:
        low, high = model.images.sides
        unit += f" at {_either(limits.frames)}, sides of {low} to {high} pixels, at most {model.images.bytes} bytes"
        return f"up to {limits.maximum}{unit}"
    step = f", in steps of {limits.step}" if limits.step else ""
    return f"{limits.minimum} to {limits.maximum}{unit}{step}"


def _default(limits: ParameterLimits) -> str:
    return "" if limits.default is None else _either([limits.default])


def _rule(rule: ModelRule) -> str:
    if rule.restricts:
        restricts = rule.restricts
        return f"With {_conditions(restricts.when)}, `{restricts.parameter}` is {_either(restricts.values)}."
    if rule.together:
        return f"{_named(rule.together)} are given together."
    if rule.onlyWith:
        return f"`{rule.onlyWith[0]}` requires `{rule.onlyWith[1]}`."
    number, groups = rule.groups
    return f"{number} of {', '.join(map(_named, groups))} is given."


def _named(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def main(arguments: list[str]) -> int:
    """Writes the page, or checks it with `--check`."""
    try:
        text = render(catalog())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/models.md is out of date: run 'make models'.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

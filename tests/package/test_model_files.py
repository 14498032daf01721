"""The files of the model catalog: they are valid, each kind of fault is found, and docs/models.md shows them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from rushes.runware import models
from scripts.model_files import FOLDER, PAGE, ModelFile, catalog, read, render

KLING = json.loads((FOLDER / "klingai" / "5@3.json").read_text())
Change = Callable[[dict[str, Any]], object]


def test_the_files_are_valid_and_the_page_shows_them() -> None:
    """docs/models.md equals the output of `make models`."""
    assert PAGE.read_text(encoding="utf-8") == render(catalog())
    assert tuple(catalog()) == models.identifiers()


@pytest.mark.parametrize("air", models.identifiers())
def test_a_model_is_found_by_its_identifier(air: str) -> None:
    """The service reads the same file that was validated."""
    found = models.find(air)
    assert found is not None
    assert (found.air, found.documentation) == (air, catalog()[air].page)


@pytest.mark.parametrize("air", ["", "klingai", "klingai:5@4", "klingai:../5@3", "../klingai:5@3", "a" * 5000, 5, None])
def test_an_unknown_identifier_finds_no_model(air: object) -> None:
    """An identifier comes from outside, so it cannot lead out of the folder."""
    assert models.find(air) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(air="klingai"),
        lambda data: data.update(page="no address"),
        lambda data: data.update(unknown=1),
        lambda data: data.update(prices=[]),
        lambda data: data.pop("images"),
        lambda data: data["status"].update(state="asleep"),
        lambda data: data["status"].update(state="leaving"),
        lambda data: data["status"].update(successor="klingai:6@1"),
        lambda data: data["status"].update(state="gone", successor="klingai:6@1", date="2026-02-30"),
        lambda data: data["parameters"].pop("duration"),
        lambda data: data["parameters"]["duration"].update(default=7),
        lambda data: data["parameters"]["duration"].update(values=[5, 5]),
        lambda data: data["parameters"]["duration"].update(minimum=5),
        lambda data: data["parameters"]["CFGScale"].update(minimum=2),
        lambda data: data["parameters"]["CFGScale"].update(default=2),
        lambda data: data["parameters"]["CFGScale"].update(step=0),
        lambda data: data["parameters"]["inputs.frameImages"].pop("frames"),
        lambda data: data["rules"].append({"together": ["width", "depth"]}),
        lambda data: data["rules"].append({"together": ["width", "height"], "onlyWith": ["width", "height"]}),
        lambda data: data["rules"].append(
            {"restricts": {"when": {"duration": [10]}, "parameter": "CFGScale", "values": [7]}}
        ),
        lambda data: data["prices"][0]["when"].update(duration=[5, 7]),
        lambda data: data["prices"][0]["when"].update(resolution=["720p"]),
        lambda data: data["prices"][0].update(perClip=924_000),
        lambda data: data.update(prices=[{"when": {"resolution": ["1080p"]}, "perClip": 924_000}]),
        lambda data: data["prices"][0].update(perSecond=184_800.5),
    ],
)
def test_a_faulty_file_is_found(change: Change) -> None:
    """Each of these faults would change what can be ordered, or its price."""
    data = json.loads(json.dumps(KLING))
    ModelFile.model_validate_json(json.dumps(data))
    change(data)
    with pytest.raises(ValidationError):
        ModelFile.model_validate_json(json.dumps(data))


def test_a_file_has_the_name_of_its_model() -> None:
    """A copy under another name is another model's file."""
    path = FOLDER / "klingai" / "5@4.json"
    path_of = FOLDER / "klingai" / "5@3.json"
    assert read(path_of).air == "klingai:5@3"
    with pytest.raises(FileNotFoundError):
        read(path)

"""`rushes models`, the comparison with Runware's lists, and the warning of a model that will end."""

from pathlib import Path
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from rushes.runware import models
from rushes_cli.catalog import compare
from tests.cli.conftest import FakeService, Run, answer

KLING, TURBO = "klingai:5@3", "klingai:6@1"
VIDEO = {"taskType": "videoInference", "id": "a-model"}


@pytest.fixture
def catalog(fake: FakeService) -> FakeService:
    """The fake service with the real catalog, of which Runware's registry has all but KlingAI 2.1 Master."""
    fake.models += [models.content(air) for air in models.identifiers()]
    fake.registry |= {air: VIDEO for air in models.identifiers() if air != KLING}
    fake.registry |= {"vendor:new@1": VIDEO, "vendor:image@1": {"taskType": "imageInference", "id": "an-image"}}
    fake.price_list = [
        listed(model["air"], {name: f"${price / 1_000_000}" for name, price in model["listedPrices"].items()})
        for model in fake.models
    ]
    return fake


def listed(air: str, prices: dict[str, Any]) -> dict[str, Any]:
    """An entry of Runware's price list."""
    examples = [{"configuration": name, "price": price} for name, price in prices.items()]
    return {"air": air, "pricingOverview": "from $0.1", "pricingExamples": examples}


def lists(fake: FakeService) -> tuple[str, ...]:
    return "--registry", f"{fake.url}/registry.json", "--prices", f"{fake.url}/prices.json"


def test_the_models_are_listed_with_their_prices(catalog: FakeService, run: Run) -> None:
    """Each line has the identifier, the status, the durations and the price of a second."""
    leaving = {"state": "leaving", "date": "2026-12-31", "successor": TURBO}
    number = models.identifiers().index(KLING)
    catalog.models[number] = {**catalog.models[number], "status": leaving}
    lines = run("models").out.splitlines()
    assert [line.split("\t") for line in lines[1:]] == [
        ["bytedance:2@1", "Seedance 1.0 Pro", "live", "5, 10", "$0.0968"],
        ["google:3@0", "Veo 3", "live", "4, 6, 8", "$0.2 to $0.4"],
        ["google:3@3", "Veo 3.1 Fast", "live", "4, 6, 8", "$0.1 to $0.35"],
        [KLING, "KlingAI 2.1 Master", "ends 2026-12-31, then klingai:6@1", "5, 10", "$0.1848"],
        [TURBO, "KlingAI 2.5 Turbo Pro", "live", "5, 10", "$0.07"],
        ["klingai:kling-video@3-pro", "Kling VIDEO 3.0 Pro", "live", "3 to 15", "$0.112 to $0.168"],
        ["klingai:kling-video@3-standard", "Kling VIDEO 3.0 Standard", "live", "3 to 15", "$0.084 to $0.126"],
        ["minimax:4@1", "MiniMax Hailuo 2.3", "live", "6, 10", "$0.04667 to $0.08167"],
        ["pixverse:1@5", "PixVerse V5", "live", "5, 8", "$0.0598"],
    ]
    assert run("models", "--json").json == {"models": catalog.models}


def test_a_model_in_use_that_the_registry_lacks_is_a_failure(catalog: FakeService, run: Run) -> None:
    """Exit status 1 only if the caller has ordered the model; new models are listed, other kinds are not."""
    found = run("models", "check", *lists(catalog))
    assert (found.status, f"gone: {KLING} is not in Runware's registry\n" in found.out) == (0, True)
    assert "new: vendor:new@1\n" in found.out
    assert "vendor:image@1" not in found.out
    assert run("submit", "a lighthouse", "--yes").status == 0
    found = run("models", "check", *lists(catalog), "--json")
    expected = {"gone": [KLING], "new": ["vendor:new@1"], "dearer": [], "unlisted": [], "inUse": [KLING]}
    assert (found.status, found.json) == (1, expected)


def test_a_higher_price_of_a_model_in_use_is_a_failure(catalog: FakeService, run: Run) -> None:
    """Lower prices, other configurations and other models are no news; a model without a listed price is named."""
    catalog.registry[KLING] = VIDEO
    entries = {entry["air"]: entry for entry in catalog.price_list}
    prices = {"1080p · 5s": "$1.05", "4K · 5s": "$9"}
    catalog.price_list = [listed(KLING, prices), listed(TURBO, {"1080p · 5s": "$0.3"}), listed("a:1@1", prices)]
    catalog.price_list += [entries["google:3@0"], listed("google:3@3", {"1080p · 8s": "on request"}), 5, {}]
    found = run("models", "check", *lists(catalog))
    assert (found.status, found.out) == (
        0,
        f"new: vendor:new@1\ndearer: {KLING}, $1.05 instead of $0.924 for 1080p · 5s\n",
    )
    assert "Prices were not compared of bytedance:2@1, google:3@3, " in found.err
    assert run("submit", "a lighthouse", "--yes").status == 0
    found = run("models", "check", *lists(catalog), "--json")
    dearer = {"model": KLING, "configuration": "1080p · 5s", "catalog": 0.924, "now": 1.05}
    assert (found.status, found.json["dearer"], found.json["inUse"]) == (1, [dearer], [KLING])


@pytest.mark.parametrize("content", [{}, None, {"models": []}])
def test_without_a_price_list_only_the_models_are_compared(catalog: FakeService, run: Run, content: Any) -> None:
    """The message names the models whose prices were not compared: all of them."""
    catalog.price_list = content
    found = run("models", "check", *lists(catalog), "--json")
    assert (found.json["gone"], found.json["unlisted"]) == ([KLING], sorted(models.identifiers()))
    assert "price list has another form" in found.err
    found = run("models", "check", *lists(catalog)[:2], "--prices", "http://127.0.0.1:1/", "--json")
    assert (found.json["gone"], found.json["dearer"]) == ([KLING], [])
    assert "price list cannot be reached" in found.err


def test_an_unchanged_registry_is_read_once(catalog: FakeService, run: Run) -> None:
    """The second call sends the ETag, and compares with the copy of the first."""
    first = run("models", "check", *lists(catalog), "--json").json
    assert catalog.unmodified == 0
    assert run("models", "check", *lists(catalog), "--json").json == first
    assert catalog.unmodified == 1


@pytest.mark.parametrize("content", [{}, {"models": {}}, {"models": []}, []])
def test_a_registry_of_another_form_is_no_result(catalog: FakeService, run: Run, content: Any) -> None:
    """Nothing is compared, since every model would be gone."""

    def intercept(request: Request) -> Response | None:
        return answer(content) if request.path == "/registry.json" else None

    catalog.intercept_request = intercept
    found = run("models", "check", *lists(catalog))
    assert (found.status, "another form" in found.err) == (1, True)
    assert "gone" not in found.out


def test_an_unreachable_registry_is_reported(catalog: FakeService, run: Run) -> None:
    """The exit status is that of an unavailable service."""
    found = run("models", "check", "--registry", "http://127.0.0.1:1/registry.json", *lists(catalog)[2:])
    assert (found.status, "cannot be reached" in found.err) == (4, True)


def test_a_damaged_copy_is_replaced(catalog: FakeService, run: Run, tmp_path: Path) -> None:
    """The copy of the registry is only a saving."""
    copy = tmp_path / "state" / "rushes" / "registry.json"
    copy.parent.mkdir()
    copy.write_text("{")
    assert run("models", "check", *lists(catalog)).status == 0
    assert KLING not in copy.read_text()


def test_only_videos_are_compared() -> None:
    """A registry's entry may have any form."""
    assert compare({"a:1@1", "b:1@1"}, {"a:1@1": VIDEO, "b:1@1": {"taskType": "audio"}, "c:1@1": 5}) == (["b:1@1"], [])


def test_the_warning_of_a_model_is_shown_once(catalog: FakeService, run: Run) -> None:
    """It comes with the price and with the order, and is printed once on standard error."""
    warning = f"{KLING} ends on 2026-12-31; successor {TURBO}"

    original = catalog._answer

    def answered(request: Request, body: Any) -> Response:
        response = original(request, body)
        response.headers["Rushes-Warning"] = warning
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_answer", answered)
        found = run("submit", "a lighthouse", "--yes")
    assert (found.status, found.err.count(warning)) == (0, 1)

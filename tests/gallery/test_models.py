"""The order form for every model of the catalog: its controls, its rules, and the change from one model to another."""

import copy
import io
import json
import os
import random
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from rushes.runware import models
from rushes.runware.models import ModelStatus
from rushes.runware.request import Order, check
from tests.gallery.browsers import Visit, wait_for
from tests.gallery.fake_api import FakeApi, Json, Request

VisitPage = Callable[..., Visit]

PROMPT = "a lighthouse at dusk, slow aerial push-in"
IMAGE = "https://example.com/first.png"
MODELS = models.identifiers()
WITH_IMAGES = [air for air in MODELS if "inputs.frameImages" in models.get(air).parameters]


@pytest.fixture
def form(visit: VisitPage) -> Visit:
    """The opened form."""
    return open_form(visit)


def open_form(visit: VisitPage) -> Visit:
    """Opens the form, which then has the default model."""
    here = visit()
    here.page.get_by_role("button", name="New clip").click()
    expect(here.page.get_by_label("Prompt", exact=True)).to_be_focused()
    return here


def choose_model(page: Page, air: str) -> None:
    """Chooses a model and opens the further options."""
    page.get_by_label("Model", exact=True).select_option(air)
    page.locator("#more-options").evaluate("details => { details.open = true; }")
    expect(page.locator("#model-air")).to_have_text(air)


def buy_button(page: Page) -> Locator:
    """The button that buys."""
    return page.get_by_role("button", name=re.compile("^Buy"))


def order_of(api: FakeApi, page: Page) -> Json:
    """Buys, and returns the order that the API got."""
    before = len(api.ordered())
    buy_button(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    (order,) = api.ordered()[before:]
    return order


def checked(order: Json) -> Order:
    """The order as the service's own validation returns it."""
    result = check(order)
    assert isinstance(result, Order), result
    return result


def options(page: Page, name: str) -> list[str]:
    """The values of a field's select or radio buttons that can be chosen."""
    found: list[str] = page.locator(f'[name="{name}"] option, input[type=radio][name="{name}"]').evaluate_all(
        "all => all.filter((each) => !each.disabled).map((each) => each.value)"
    )
    return found


def chosen(page: Page, name: str) -> str:
    """The value of a field."""
    value: str = page.evaluate("(name) => document.getElementById('order').elements[name].value", name)
    return value


@pytest.mark.parametrize("air", MODELS)
def test_the_limits_are_the_models(form: Visit, air: str) -> None:
    """The form has the parameters of the chosen model with its values, bounds and lengths, and no others."""
    page, model = form.page, models.get(air)
    choose_model(page, air)
    shown = set(
        page.locator("#order [data-field]:visible").evaluate_all("all => all.map((each) => each.dataset.field)")
    )
    frames = {f"image{index}" for index in range(2 if "last" in frames_of(air) else 1)} if frames_of(air) else set()
    only_with_images = any(
        rule.kind == "exactlyOneOf" and ("inputs.frameImages",) in rule.groups for rule in model.rules
    )
    hidden = {"resolution"} if only_with_images else set()
    own = {"size" if name in ("width", "height") else name.split(".mode")[0] for name in model.parameters}
    own = {name for name in own if not name.startswith(("safety", "inputs", "ttl"))} - hidden
    assert shown == own | frames | {"model", "safety", "destination", "tags"}
    sizes = page.locator("#size option").evaluate_all("all => all.map((each) => each.value).filter(Boolean)")
    assert sizes == [f"{width}x{height}" for width, height in model.sizes]
    for name, limits in model.parameters.items():
        control = page.locator(f'[name="{name}"]')
        if limits.type == "string" and not limits.values:
            expect(page.locator(f'output[for="{name}"]')).to_have_text(f"0 / {limits.maximum}")
        elif limits.values and name in own:
            found = page.locator(f'[name="{name}"] option, input[name="{name}"]')
            values = found.evaluate_all("all => all.map((each) => each.value).filter(Boolean)")
            assert values == [str(value) for value in limits.values]
        elif name in ("CFGScale", "outputQuality"):
            bounds = control.evaluate("each => [each.min, each.max, each.step, each.value].map(Number)")
            assert bounds == [limits.minimum, limits.maximum, limits.step or 1, limits.default]
    assert options(page, "numberResults") == ["1", "2", "3", "4"]
    expect(page.get_by_role("link", name=f"about {model.name}")).to_have_attribute("href", model.documentation)


def frames_of(air: str) -> tuple[str | int, ...]:
    """The places of a model's images; none for a model without images."""
    limits = models.get(air).parameters.get("inputs.frameImages")
    return limits.frames if limits else ()


@pytest.mark.parametrize("air", MODELS)
def test_a_prompt_alone_is_a_valid_order(api: FakeApi, form: Visit, air: str) -> None:
    """With the defaults of the form, every model's order is accepted at the price that was shown."""
    choose_model(form.page, air)
    form.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    expect(buy_button(form.page)).to_be_enabled()
    price = buy_button(form.page).inner_text().rpartition("$")[2]
    order = checked(order_of(api, form.page))
    assert order.model.air == air
    assert f"{order.price / 1e6:.3f}" == price


@pytest.mark.parametrize("air", MODELS)
def test_an_order_with_everything_is_valid(api: FakeApi, form: Visit, air: str) -> None:
    """With the last choice of every control, every model's order is accepted and has all shown parameters."""
    page = form.page
    choose_model(page, air)
    for text in page.locator("#text-fields textarea").all():
        text.fill(PROMPT)
    # A choice may hide or disable others, so each control is read when its turn has come.
    for name in page.locator("#main-fields [data-field], #more-fields [data-field]").evaluate_all(
        "all => all.map((each) => each.dataset.field)"
    ):
        control = page.locator(f'[data-field="{name}"]')
        if not control.is_visible():
            continue
        if control.locator("select").count():
            control.locator("select").select_option(options(page, name)[-1])
        elif control.locator("input[type=radio]").count():
            control.locator("input[type=radio]:not([disabled])").last.check()
        elif control.locator("input[type=checkbox]").count():
            control.locator("input[type=checkbox]").check()
        else:
            control.locator("input").fill(control.locator("input").get_attribute("max") or "")
    page.get_by_label(re.compile("^Destination")).fill("campaign/autumn")
    page.get_by_label(re.compile("^Tags")).fill("project: lighthouse")
    request = checked(order_of(api, page)).request
    for parameter, limits in models.get(air).parameters.items():
        if parameter.startswith(("providerSettings", "safety")):
            assert value_at(request, parameter) == (limits.values or [True])[-1], parameter
    assert request["outputFormat"] == "MOV"
    assert request["numberResults"] == 4
    assert request["tags"] == {"project": "lighthouse"}


def value_at(request: Any, path: str) -> Any:
    """The value of a parameter with a path."""
    for name in path.split("."):
        request = request[name]
    return request


@pytest.mark.parametrize("air", WITH_IMAGES)
def test_an_order_with_all_images_is_valid(api: FakeApi, form: Visit, air: str) -> None:
    """Images at all places of the model are accepted, with whatever else it then needs."""
    page = form.page
    choose_model(page, air)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    for group in page.locator("#frames fieldset").all():
        if group.is_visible():
            group.get_by_role("radio", name="From a URL").check()
            group.get_by_label("Image URL").fill(IMAGE)
    sent = checked(order_of(api, page)).request["inputs"]["frameImages"]
    placed = [{"image": IMAGE, "frame": "first"}, {"image": IMAGE, "frame": "last"}]
    assert sent == (placed if "last" in frames_of(air) else [IMAGE])


def test_a_last_frame_alone_has_its_place(api: FakeApi, form: Visit) -> None:
    """Without its place an image would be taken for the first frame."""
    page = form.page
    choose_model(page, "google:3@3")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    form.choose("Last frame (optional)", "From a URL")
    page.get_by_role("group", name="Last frame").get_by_label("Image URL").fill(IMAGE)
    sent = checked(order_of(api, page)).request["inputs"]["frameImages"]
    assert sent == [{"image": IMAGE, "frame": "last"}]


def test_two_files_have_to_fit_into_one_request(api: FakeApi, form: Visit) -> None:
    """Two images that each fit, but not together, are refused before they are sent."""
    page = form.page
    choose_model(page, "google:3@3")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    target = io.BytesIO()
    Image.frombytes("RGB", (900, 900), os.urandom(900 * 900 * 3)).save(target, "PNG")
    file = {"name": "x.png", "mimeType": "image/png", "buffer": target.getvalue()}
    for group in page.locator("#frames fieldset").all():
        group.get_by_role("radio", name="From a file").check()
        group.get_by_label("Image file").set_input_files(file)  # type: ignore[arg-type]
        expect(group.get_by_role("img", name="The chosen image")).to_be_visible()
    buy_button(page).click()
    last = page.get_by_role("group", name="Last frame")
    expect(last).to_contain_text("The files have more than 3.6 MB together. Give a URL instead.")
    assert api.ordered() == []
    last.get_by_role("radio", name="None").check()
    (sent,) = checked(order_of(api, page)).request["inputs"]["frameImages"]
    assert sent.startswith("data:image/png;base64,")


def test_values_are_kept_when_the_model_changes(api: FakeApi, form: Visit) -> None:
    """A valid value stays, another one gives way to the model's default, and it is back with the first model."""
    page = form.page
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label(re.compile("^Without")).fill("people")
    form.choose("Duration", "10 s")
    form.choose("Clips", "3")
    page.get_by_label("Format").select_option("WEBM")
    page.get_by_label("Size").select_option("1080x1920")
    choose_model(page, "minimax:4@1")
    assert (chosen(page, "duration"), chosen(page, "size")) == ("10", "1366x768")
    expect(page.get_by_label(re.compile("^Without"))).to_have_count(0)
    choose_model(page, "google:3@3")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    assert (chosen(page, "duration"), chosen(page, "numberResults")) == ("4", "3")
    assert (chosen(page, "outputFormat"), chosen(page, "size")) == ("WEBM", "1080x1920")
    choose_model(page, "klingai:5@3")
    assert (chosen(page, "duration"), chosen(page, "size")) == ("10", "1080x1920")
    expect(page.get_by_label(re.compile("^Without"))).to_have_value("people")
    choose_model(page, "google:3@3")
    order = order_of(api, page)
    assert checked(order).clips == 3
    assert "negativePrompt" not in order


def test_a_text_is_kept_even_if_it_is_too_long(api: FakeApi, form: Visit) -> None:
    """A long prompt is the user's work: the next model's counter and the form's error show what is wrong with it."""
    page = form.page
    page.get_by_label("Prompt", exact=True).fill("x" * 2400)
    choose_model(page, "minimax:4@1")
    expect(page.locator('output[for="positivePrompt"]')).to_have_text("2400 / 2000")
    buy_button(page).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_accessible_description(re.compile("2 and 2000 characters"))
    assert api.ordered() == []


def test_an_image_is_kept_when_the_model_changes(api: FakeApi, form: Visit) -> None:
    """Its file or URL stays, also through a model without images, which does not get it."""
    page = form.page
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    form.choose("First frame (optional)", "From a URL")
    page.get_by_label("Image URL").fill(IMAGE)
    choose_model(page, "google:3@0")
    expect(page.get_by_label("Image URL")).to_be_hidden()
    expect(buy_button(page)).to_be_enabled()
    choose_model(page, "minimax:4@1")
    expect(page.get_by_label("Image URL")).to_have_value(IMAGE)
    choose_model(page, "google:3@0")
    assert "inputs" not in checked(order_of(api, page)).request


def test_a_rule_restricts_choices(form: Visit) -> None:
    """MiniMax has 1080p for six seconds only: ten seconds are disabled, with the reason, and come back."""
    page = form.page
    choose_model(page, "minimax:4@1")
    form.choose("Duration", "10 s")
    page.get_by_label("Size").select_option("1920x1080")
    assert (options(page, "duration"), chosen(page, "duration")) == (["6"], "6")
    expect(page.get_by_role("group", name="Duration")).to_have_accessible_description(
        "With resolution 1080p: 6 s only."
    )
    page.get_by_label("Size").select_option("1366x768")
    assert (options(page, "duration"), chosen(page, "duration")) == (["6", "10"], "10")


def test_size_and_images_exclude_each_other(form: Visit) -> None:
    """Veo 3.1 Fast has either a size, or images with a resolution; the controls follow."""
    page = form.page
    choose_model(page, "google:3@3")
    expect(page.get_by_label("Size")).to_have_value("1920x1080")  # the first with a known price
    expect(page.get_by_label("Resolution")).to_be_hidden()
    assert "" not in options(page, "size")
    form.choose("First frame (optional)", "From a URL")
    expect(page.get_by_label("Size")).to_be_hidden()
    assert (options(page, "resolution"), chosen(page, "resolution")) == (["1080p", "4K"], "1080p")
    page.get_by_label("Resolution").select_option("4K")
    assert (options(page, "duration"), chosen(page, "duration")) == (["8"], "8")
    form.choose("First frame (optional)", "None")
    expect(page.get_by_label("Size")).to_have_value("1920x1080")
    expect(page.get_by_label("Resolution")).to_be_hidden()
    assert options(page, "duration") == ["4", "6", "8"]


def test_the_latest_of_two_choices_counts(api: FakeApi, form: Visit) -> None:
    """Veo 3 has either a size or a resolution: the one that is chosen takes the other's place."""
    page = form.page
    choose_model(page, "google:3@0")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    assert (chosen(page, "size"), chosen(page, "resolution")) == ("1280x720", "")
    page.get_by_label("Resolution").select_option("720p")
    assert (chosen(page, "size"), chosen(page, "resolution")) == ("", "720p")
    page.get_by_label("Size").select_option("720x1280")
    assert (chosen(page, "size"), chosen(page, "resolution")) == ("720x1280", "")
    page.get_by_label("Resolution").select_option("720p")
    request = checked(order_of(api, page)).request
    assert request["resolution"] == "720p"
    assert "width" not in request


def test_choices_without_a_price_are_disabled(form: Visit) -> None:
    """The service refuses what no price covers, so it cannot be chosen."""
    choose_model(form.page, "google:3@3")
    assert options(form.page, "size") == ["1920x1080", "1080x1920", "3840x2160", "2160x3840"]
    expect(form.page.get_by_label("Size")).to_have_accessible_description("The grey choices have no known price.")


def invented() -> Json:
    """A model with the kinds of limits and rules that no model of the catalog has."""
    model = copy.deepcopy(models.content("klingai:5@3"))
    model |= {"air": "invented:1@1", "name": "Invented"}
    model["parameters"] |= {
        "positivePrompt": {"type": "string", "minimum": 2, "maximum": 100},
        "duration": {"type": "number", "required": True, "minimum": 2, "maximum": 4, "step": 0.5},
        "seed": {"type": "integer", "minimum": 1, "maximum": 4_294_967_295},
        "fps": {"type": "integer", "minimum": 24, "maximum": 26},
        "providerSettings.invented.cameraFixed": {"type": "boolean"},
    }
    model["rules"] += [
        {"atLeastOneOf": [["positivePrompt"], ["inputs.frameImages"]]},
        {"onlyWith": ["fps", "providerSettings.invented.cameraFixed"]},
        {"atMostOneOf": [["seed"], ["negativePrompt"]]},
        {"restricts": {"when": {"duration": [4]}, "parameter": "outputFormat", "values": ["MOV"]}},
    ]
    model["prices"] = [{"when": {}, "perSecond": 100_000}]
    return model


@pytest.fixture
def invented_form(api: FakeApi, visit: VisitPage) -> Visit:
    """The form for the invented model, whose price is always $1.000 and whose orders are always accepted."""
    api.models = [*api.models, invented()]

    def answer(request: Request) -> tuple[int, Any] | None:
        if request.dry_run:
            return 200, {"data": [{"cost": 1.0}]}
        return (400, {"errors": [{"code": "x", "message": "Recorded."}]}) if request.buys else None

    api.intercept = answer
    here = open_form(visit)
    here.expected.append("status of 400")
    choose_model(here.page, "invented:1@1")
    return here


def test_other_kinds_of_limits_and_rules(api: FakeApi, invented_form: Visit) -> None:
    """Steps, numbers without a default, yes or no without one, `onlyWith` and `atMostOneOf` follow the data."""
    page = invented_form.page
    seed, fps = page.get_by_label("Seed (optional)"), page.get_by_label("Frames per second")
    assert options(page, "duration") == ["2", "2.5", "3", "3.5", "4"]
    assert options(page, "providerSettings.invented.cameraFixed") == ["", "false", "true"]
    expect(fps).to_be_hidden()
    page.get_by_label("Camera fixed").select_option("false")
    assert options(page, "fps") == ["", "24", "25", "26"]
    fps.select_option("25")
    page.get_by_label("Prompt (optional)", exact=True).fill(PROMPT)
    seed.fill("0")
    buy_button(page).click()
    expect(seed).to_have_accessible_description("Between 1 and 4294967295, please, without a fraction.")
    assert api.ordered() == []
    seed.fill("4294967295")
    buy_button(page).click()
    expect(page.get_by_role("alert").filter(has_text="Recorded.")).to_be_visible()
    order = api.ordered()[-1]
    assert (order["seed"], order["fps"], order["duration"]) == (4_294_967_295, 25, 2)
    assert order["providerSettings"] == {"invented": {"cameraFixed": False}}
    page.get_by_label("Without (negative prompt, optional)").fill("people")
    expect(seed).to_have_accessible_description("Not sent: it does not go together with the latest change.")
    buy_button(page).click()
    wait_for(lambda: len(api.ordered()) > 1)
    order = api.ordered()[-1]
    assert ("seed" in order, order["negativePrompt"]) == (False, "people")


def test_a_rule_moves_a_value_that_it_forbids(invented_form: Visit) -> None:
    """A restricted parameter has the rule's value, and its own again without the condition; no price is involved."""
    page = invented_form.page
    page.get_by_label("Format").select_option("WEBM")
    page.get_by_label("Duration").select_option("4")
    assert (options(page, "outputFormat"), chosen(page, "outputFormat")) == (["MOV"], "MOV")
    expect(page.get_by_label("Format")).to_have_accessible_description("With duration 4: MOV only.")
    page.get_by_label("Duration").select_option("3.5")
    assert (options(page, "outputFormat"), chosen(page, "outputFormat")) == (["MP4", "WEBM", "MOV"], "WEBM")


def test_at_least_one_of_several_is_needed(api: FakeApi, invented_form: Visit) -> None:
    """Without a prompt and an image nothing is sent; an image alone is enough, and so is a prompt."""
    page = invented_form.page
    prompt = page.get_by_label("Prompt (optional)", exact=True)
    buy_button(page).click()
    expect(prompt).to_have_accessible_description(re.compile("Give Prompt or Frame image."))
    expect(prompt).to_be_focused()
    assert api.ordered() == []
    invented_form.choose("First frame (optional)", "From a URL")
    page.get_by_label("Image URL").fill(IMAGE)
    buy_button(page).click()
    expect(page.get_by_role("alert").filter(has_text="Recorded.")).to_be_visible()
    order = api.ordered()[-1]
    assert order["inputs"] == {"frameImages": [IMAGE]}
    assert "positivePrompt" not in order


def with_status(api: FakeApi, air: str, **status: str) -> None:
    """Gives a model of the fake API another status."""
    api.models = [{**model, "status": status} if model["air"] == air else model for model in copy.deepcopy(api.models)]


def test_a_leaving_model_has_a_warning(api: FakeApi, visit: VisitPage) -> None:
    """The day and the successor stand next to the selector, and belong to it for a screen reader."""
    with_status(api, "klingai:5@3", state="leaving", date="2026-12-31", successor="klingai:6@1")
    page = open_form(visit).page
    warning = "Runware will end this model on 2026-12-31. Its successor is KlingAI 2.5 Turbo Pro (klingai:6@1)."
    expect(page.get_by_label("Model", exact=True)).to_have_accessible_description(warning)
    expect(page.get_by_text(warning)).to_be_visible()
    expect(buy_button(page)).to_be_enabled()
    choose_model(page, "klingai:6@1")
    expect(page.locator("#model-status")).to_be_hidden()


def test_a_gone_model_is_not_offered(api: FakeApi, visit: VisitPage) -> None:
    """It is disabled in the selector, and the form begins with the first of the others."""
    with_status(api, "klingai:5@3", state="gone", successor="klingai:6@1")
    page = open_form(visit).page
    expect(page.get_by_label("Model", exact=True)).to_have_value(MODELS[0])
    assert options(page, "model") == [air for air in MODELS if air != "klingai:5@3"]
    expect(page.get_by_role("option", name="KlingAI 2.1 Master (ended)")).to_have_count(1)


def test_a_gone_model_is_refused_in_clear_words(
    api: FakeApi, visit: VisitPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry for a model that has ended in the meantime shows the successor, and cannot be bought."""
    with_status(api, "klingai:5@3", state="gone", successor="klingai:6@1")
    gone = models.parse({**models.content("klingai:5@3"), "status": {"state": "gone", "successor": "klingai:6@1"}})
    assert gone.status == ModelStatus(state="gone", successor="klingai:6@1")
    find = models.find
    monkeypatch.setattr(models, "find", lambda air: gone if air == gone.air else find(air))
    api.add("failed", prompt=PROMPT)
    here = visit()
    here.expected.append("status of 400")
    here.card(PROMPT).get_by_role("button", name="Retry").click()
    expect(here.page.locator("#sum-left")).to_contain_text("its successor is klingai:6@1")
    expect(buy_button(here.page)).to_be_disabled()
    choose_model(here.page, "klingai:6@1")
    expect(buy_button(here.page)).to_be_enabled()


def test_without_the_models_the_list_works(api: FakeApi, visit: VisitPage) -> None:
    """The form says that the models are missing and tries again when asked; clips are shown as always."""
    api.intercept = lambda request: (503, {}) if request.path == "/models" else None
    api.add("stored", prompt=PROMPT)
    here = visit()
    page = here.page
    here.expected.append("status of 503")
    expect(here.card(PROMPT)).to_be_visible()
    page.get_by_role("button", name="New clip").click()
    expect(page.get_by_text("Without the list of models nothing can be ordered.")).to_be_visible()
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_focused()
    expect(buy_button(page)).to_be_hidden()
    again.click()
    expect(again).to_be_focused()
    api.intercept = lambda _: None
    again.click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(again).to_be_hidden()
    page.keyboard.press("Escape")
    here.card(PROMPT).locator(".prompt").click()
    expect(page.locator("#detail-body dl")).to_contain_text("KlingAI 2.1 Master")


def test_a_retry_waits_for_the_models(api: FakeApi, visit: VisitPage) -> None:
    """A retry that was pressed without the models fills the form as soon as they are there."""
    api.intercept = lambda request: (503, {}) if request.path == "/models" else None
    api.add("failed", prompt=PROMPT, model="minimax:4@1", duration=10, width=1366, height=768)
    here = visit()
    here.expected.append("status of 503")
    here.card(PROMPT).get_by_role("button", name="Retry").click()
    again = here.page.get_by_role("button", name="Try again")
    expect(again).to_be_focused()
    api.intercept = lambda _: None
    again.click()
    expect(here.page.get_by_label("Model", exact=True)).to_have_value("minimax:4@1")
    expect(here.page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    expect(here.page.get_by_role("radio", name="10 s")).to_be_checked()


EARLIER: dict[str, Json] = {
    "google:3@0": {"resolution": "720p", "duration": 8, "providerSettings": {"google": {"generateAudio": True}}},
    "google:3@3": {
        "resolution": "4K",
        "duration": 8,
        "inputs": {"frameImages": [{"image": IMAGE, "frame": "first"}, {"image": IMAGE, "frame": "last"}]},
    },
    "klingai:5@3": {"width": 1080, "height": 1080, "duration": 10, "CFGScale": 0.25, "negativePrompt": "people"},
    "klingai:6@1": {
        "duration": 5,
        "outputFormat": "MOV",
        "inputs": {"frameImages": [IMAGE]},
        "fallback": ["klingai:5@3"],
    },
    "klingai:kling-video@3-pro": {
        "width": 1440,
        "height": 1440,
        "duration": 15,
        "providerSettings": {"klingai": {"sound": True}},
    },
    "bytedance:2@1": {"width": 1440, "height": 1440, "duration": 10, "inputs": {"frameImages": [IMAGE]}},
    "pixverse:1@5": {
        "resolution": "1080p",
        "duration": 8,
        "fps": 24,
        "negativePrompt": "people",
        "inputs": {"frameImages": [{"image": IMAGE, "frame": "last"}]},
        "providerSettings": {"pixverse": {"style": "3d_animation", "motionMode": "fast"}},
    },
    "minimax:4@1": {
        "width": 1920,
        "height": 1080,
        "duration": 6,
        "fps": 25,
        "providerSettings": {"minimax": {"promptOptimizer": True}},
        "safety": {"checkContent": True, "mode": "full"},
    },
}


@pytest.mark.parametrize("air", list(EARLIER))
def test_a_retry_sends_the_same_request(api: FakeApi, visit: VisitPage, air: str) -> None:
    """Retry fills the form of the task's model with all of its parameters; others are carried along."""
    old = api.add("failed", prompt=PROMPT, model=air, tags={"a": "b"}, ttl=86_400, **EARLIER[air])
    here = visit()
    assert isinstance(check(old["request"]), Order), check(old["request"])
    here.card(PROMPT).get_by_role("button", name="Retry").click()
    expect(here.page.get_by_label("Model", exact=True)).to_have_value(air)
    order = order_of(api, here.page)
    assert order.pop("taskUUID") != old["taskUUID"]
    assert order == {name: value for name, value in old["request"].items() if name != "taskUUID"}


def test_a_task_of_an_unknown_model_can_be_ordered_from_another(api: FakeApi, visit: VisitPage) -> None:
    """A model that the catalog no longer has is named, and the form has the default model."""
    api.add("stored", prompt=PROMPT, model="vanished:1@1")
    page = visit().page
    page.get_by_role("button", name=PROMPT, exact=True).click()
    expect(page.locator("#detail-body dl")).to_contain_text("vanished:1@1")
    page.get_by_role("button", name="Use again").click()
    selector = page.get_by_label("Model", exact=True)
    expect(selector).to_have_value("klingai:5@3")
    expect(selector).to_have_accessible_description(re.compile("vanished:1@1 is not sold here any more"))


def test_the_details_name_the_model(api: FakeApi, visit: VisitPage) -> None:
    """By its name, not by its identifier."""
    api.add("stored", prompt=PROMPT, model="google:3@3", width=1920, height=1080, duration=4)
    page = visit().page
    page.get_by_role("button", name=PROMPT, exact=True).click()
    expect(page.locator("#detail-body dl")).to_contain_text("Veo 3.1 Fast")


# The price


def test_the_price_is_asked_once(api: FakeApi, form: Visit) -> None:
    """Text and images do not change the price, so they are neither sent for it nor ask again."""
    page = form.page
    expect(buy_button(page)).to_have_text("Buy 1 clip for $0.924")
    page.get_by_label("Prompt", exact=True).press_sequentially("a fox")
    page.get_by_label(re.compile("^Without")).fill("people")
    form.choose("First frame (optional)", "From a URL")
    expect(buy_button(page)).to_be_enabled()
    page.get_by_label("Image URL").press_sequentially(IMAGE)
    form.choose("Duration", "10 s")
    expect(buy_button(page)).to_have_text("Buy 1 clip for $1.848")
    form.choose("Duration", "5 s")
    expect(buy_button(page)).to_have_text("Buy 1 clip for $0.924")
    texts = {(task["positivePrompt"], "negativePrompt" in task) for task in api.priced()}
    assert texts == {("xx", False)}
    assert [(task["duration"], "inputs" in task) for task in api.priced()] == [(5, False), (5, True), (10, True)]


def test_an_unknown_price_is_explained(api: FakeApi, visit: VisitPage) -> None:
    """A refusal of the price is shown in the service's words, and nothing can be bought."""
    error = {"code": "priceUnknown", "message": "The price of a clip with resolution 4K is not known."}
    api.intercept = lambda request: (400, {"data": [], "errors": [error]}) if request.dry_run else None
    here = open_form(visit)
    here.expected.append("status of 400")
    expect(here.page.locator("#sum-left")).to_have_text(error["message"])
    expect(buy_button(here.page)).to_be_disabled()
    expect(buy_button(here.page)).to_have_accessible_description(error["message"])
    here.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy_button(here.page).click(force=True)
    assert api.ordered() == []


def test_a_lost_price_can_be_asked_again(api: FakeApi, visit: VisitPage) -> None:
    """Without an answer nothing can be bought until the price is there."""
    api.intercept = lambda request: (503, {}) if request.dry_run else None
    here = open_form(visit)
    here.expected.append("status of 503")
    expect(here.page.locator("#sum-left")).to_contain_text("No price is known.")
    expect(buy_button(here.page)).to_be_disabled()
    api.intercept = lambda _: None
    here.page.get_by_role("button", name="Ask for the price again").click()
    expect(buy_button(here.page)).to_have_text("Buy 1 clip for $0.924")
    expect(here.page.get_by_role("button", name="Ask for the price again")).to_be_hidden()


_CHANGE_ONE = """
(random) => {
  const pick = (all) => all[Math.floor(random.shift() * all.length)];
  const fields = "#main-fields > *, #more-fields > *, #text-fields > *, #frames > *, [data-field=model]";
  const control = pick([...pick([...document.querySelectorAll(fields)].filter((each) => !each.hidden))
    .querySelectorAll("select, textarea, input:not([type=text], [type=file], :disabled)")]);
  if (!control) return "";
  if (control.type === "checkbox") control.checked = !control.checked;
  else if (control.type === "radio") control.checked = true;
  else if (control.type === "range") control.value = pick([control.min, control.max]);
  else if (control.options) control.value = pick([...control.options].filter((each) => !each.disabled)).value;
  else control.value = pick(["", "a fox"]);
  control.dispatchEvent(new Event("input", { bubbles: true }));
  return `${control.name} ${control.value}`;
}
"""


def test_no_choice_leads_to_an_invalid_request(form: Visit) -> None:
    """After each of many random changes, in all models, the request whose price is asked is valid."""
    source, changes = random.Random(18), []
    for _ in range(600):
        changes.append(form.page.evaluate(_CHANGE_ONE, [source.random() for _ in range(3)]))
        task = json.loads(form.page.evaluate("priceRequest()"))
        result = check({**task, "taskUUID": str(uuid.UUID(int=source.getrandbits(128), version=4))})
        assert isinstance(result, Order), (changes[-8:], task, result)
    assert {change.split()[1] for change in changes if change.startswith("model ")} == set(MODELS)

"""The order form: limits, price, errors at their fields, and no second purchase."""

import io
import itertools
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from rushes.runware import models
from rushes.runware.combinations import price_of
from rushes.services.request_validation import MAX_BODY_BYTES
from tests.gallery.browsers import Visit
from tests.gallery.fake_api import FakeApi, Request

VisitPage = Callable[..., Visit]

PROMPT = "a lighthouse at dusk, slow aerial push-in"


@pytest.fixture
def form(visit: VisitPage) -> Visit:
    """The opened form."""
    here = visit()
    here.page.get_by_role("button", name="New clip").click()
    expect(here.page.get_by_label("Prompt", exact=True)).to_be_focused()
    return here


def buy(page: Page) -> Locator:
    """The button that buys."""
    return page.get_by_role("button", name=re.compile(r"^(Buy|Sending)"))


def test_files_fit_into_a_request(form: Visit) -> None:
    """A file of the largest size fits into a request in base64, beside two texts of the largest length."""
    longest = max(models.get(air).parameters["positivePrompt"].maximum or 0 for air in models.identifiers())
    assert form.page.evaluate("REQUEST_BYTES") * 4 / 3 + 4 * 2 * longest < MAX_BODY_BYTES


def test_the_price_is_shown_before_the_order(form: Visit) -> None:
    """Every choice of duration and number shows the service's exact price."""
    for seconds, clips in itertools.product((5, 10), (1, 2, 3, 4)):
        form.choose("Duration", f"{seconds} s")
        form.choose("Clips", str(clips))
        price = f"{(price_of({'duration': seconds}, models.get(models.DEFAULT)) or 0) * clips / 1e6:.3f}"
        expect(form.page.locator("#sum")).to_have_text(f"${price}")
        expect(buy(form.page)).to_contain_text(f"for ${price}")


def test_the_remaining_budget_is_shown(api: FakeApi, visit: VisitPage) -> None:
    """Spent and remaining money are at the top, and a price above the rest is reported before the order."""
    api.spent = 45.5
    here = visit()
    expect(here.page.get_by_label("Money this month")).to_contain_text("$45.50 spent")
    expect(here.page.get_by_label("Money this month")).to_contain_text("$4.50 left in November")
    here.page.get_by_role("button", name="New clip").click()
    expect(here.page.locator("#sum-left")).to_have_text("$4.500 left this month, $3.576 afterwards.")
    here.choose("Duration", "10 s")
    here.choose("Clips", "3")
    expect(here.page.locator("#sum-left")).to_have_text("Too expensive: only $4.500 are left this month.")
    expect(buy(here.page)).to_be_disabled()
    expect(buy(here.page)).to_have_accessible_description("Too expensive: only $4.500 are left this month.")
    here.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(here.page).click(force=True)
    here.choose("Clips", "2")
    expect(buy(here.page)).to_be_enabled()
    assert api.ordered() == []


def test_the_last_cent_can_be_spent(api: FakeApi, visit: VisitPage) -> None:
    """An order of exactly the rest is possible, although the rest is a rounded fraction."""
    api.limit, api.spent = 4.0, 2.152
    assert api.limit - api.spent < 1.848
    here = visit()
    here.page.get_by_role("button", name="New clip").click()
    here.choose("Duration", "10 s")
    expect(here.page.locator("#sum-left")).to_have_text("$1.848 left this month, $0.000 afterwards.")
    expect(buy(here.page)).to_be_enabled()


def test_an_order_arrives_as_it_was_filled_in(api: FakeApi, form: Visit) -> None:
    """Every field reaches the API under its name; the new card appears and the money is counted at once."""
    page = form.page
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label(re.compile("^Without")).fill("people")
    form.choose("Duration", "10 s")
    form.choose("Clips", "2")
    page.get_by_label("Size").select_option("1080x1920")
    page.get_by_label("Format").select_option("WEBM")
    form.choose("First frame (optional)", "From a URL")
    page.get_by_label("Image URL").fill("https://example.com/first.png")
    page.get_by_text("More options").click()
    page.get_by_label("Guidance (CFGScale)").fill("0.57")
    page.get_by_label("Quality").fill("90")
    page.get_by_label("Content check").select_option("full")
    page.get_by_label(re.compile("^Destination")).fill("campaign/autumn")
    page.get_by_label(re.compile("^Tags")).fill("project: lighthouse\nurl=https://example.com?a=b")
    buy(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    (order,) = api.ordered()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", order.pop("taskUUID"))
    assert order == {
        "taskType": "videoInference",
        "model": "klingai:5@3",
        "positivePrompt": PROMPT,
        "negativePrompt": "people",
        "duration": 10,
        "numberResults": 2,
        "width": 1080,
        "height": 1920,
        "outputFormat": "WEBM",
        "CFGScale": 0.57,
        "outputQuality": 90,
        "safety": {"checkContent": True, "mode": "full"},
        "destination": "campaign/autumn",
        "tags": {"project": "lighthouse", "url": "https://example.com?a=b"},
        "inputs": {"frameImages": ["https://example.com/first.png"]},
    }
    expect(form.card(PROMPT).locator(".status")).to_have_text("Running 0/2")
    expect(page.get_by_label("Money this month")).to_contain_text("$16.64 spent")
    page.get_by_role("button", name="New clip").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("")


def test_defaults_are_left_to_the_provider(api: FakeApi, form: Visit) -> None:
    """A prompt alone sends only the fields that decide the price."""
    form.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(form.page).click()
    expect(form.card(PROMPT)).to_be_visible()
    (order,) = api.ordered()
    assert set(order) == {"taskType", "taskUUID", "model", "positivePrompt", "duration", "numberResults"}


@pytest.mark.parametrize(
    ("label", "text", "words"),
    [
        ("Prompt", "", "Between 2 and 2500 characters, please; these are 0."),
        ("Prompt", "é" * 2501, "these are 2501"),
        ("Without (negative prompt, optional)", "x", "these are 1"),
        ("Destination (optional)", "a//b", "single slashes"),
        ("Destination (optional)", "../b", "single slashes"),
        ("Tags (optional)", "nothing", "name:value"),
        ("Tags (optional)", "=b", "name:value"),
        ("Tags (optional)", "\n".join(f"n{n}:v" for n in range(21)), "At most 20 tags"),
        ("Tags (optional)", "a:1\na:2", "twice"),
    ],
)
def test_errors_are_found_before_a_request(api: FakeApi, form: Visit, label: str, text: str, words: str) -> None:
    """An invalid field has its error and the focus, and nothing is sent."""
    page = form.page
    page.get_by_text("More options").click()
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    buy(page).click()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(re.compile(re.escape(words)))
    assert api.ordered() == []
    field.press("End")
    field.press("1")
    expect(field).to_have_attribute("aria-invalid", "false")


def test_characters_are_counted_as_the_service_counts(api: FakeApi, form: Visit) -> None:
    """An emoji counts as one character in the form and in the service, so that 2500 of them are accepted."""
    page = form.page
    page.get_by_label("Prompt", exact=True).fill("🌊" * 2500)
    expect(page.locator("output[for=positivePrompt]")).to_have_text("2500 / 2500")
    buy(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert len(api.tasks) == 1


def test_errors_of_the_api_are_shown_at_their_fields(api: FakeApi, form: Visit) -> None:
    """Each of the service's errors is shown at its field, others above the form, and the next try is possible."""
    page = form.page
    errors = [
        {"code": "unsupportedDimensions", "message": "<b>1x1</b> is not supported.", "parameter": ["width", "height"]},
        {"code": "invalidFrameImages", "message": "inputs.frameImages is blurry.", "parameter": "inputs.frameImages"},
        {"code": "invalidTags", "message": "tags are odd.", "parameter": "tags"},
        {"code": "strange", "message": "constructor is strange.", "parameter": "constructor"},
    ]
    api.intercept = lambda request: (400, {"data": [], "errors": errors}) if request.buys else None
    form.expected.append("status of 400")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    size = page.get_by_label("Size")
    expect(size).to_have_accessible_description("<b>1x1</b> is not supported.")
    expect(size).to_be_focused()
    expect(page.get_by_role("group", name="First frame")).to_contain_text("inputs.frameImages is blurry.")
    expect(page.get_by_label(re.compile("^Tags"))).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="strange")).to_have_text("constructor is strange.")
    api.intercept = lambda _: None
    buy(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert len({order["taskUUID"] for order in api.ordered()}) == 1


def test_an_exhausted_budget_is_explained(api: FakeApi, form: Visit) -> None:
    """A refusal for the budget is shown in the service's words, and the remaining money is updated."""
    error = {"code": "budgetExceeded", "message": "The month's limit of $50.00 cannot hold $0.924."}

    def refuse(request: Request) -> tuple[int, Any] | None:
        if not request.buys:
            return None
        api.spent = api.limit  # by another order, after the form was opened
        return 402, {"data": [], "errors": [error]}

    api.intercept = refuse
    form.expected.append("status of 402")
    form.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(form.page).click()
    expect(form.page.get_by_role("alert").filter(has_text="limit")).to_be_focused()
    expect(form.page.locator("#sum-left")).to_contain_text("only $0.000 are left")
    expect(buy(form.page)).to_be_disabled()


def test_a_double_click_buys_once(api: FakeApi, form: Visit) -> None:
    """Further clicks before the response send no second order."""
    gate = threading.Event()

    def hold(request: Request) -> None:
        if request.buys:
            gate.wait(10)

    api.intercept = hold
    form.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(form.page).dblclick()
    buy(form.page).click(force=True)  # although it is marked as busy
    gate.set()
    expect(form.card(PROMPT)).to_have_count(1)
    assert len(api.ordered()) == 1


@pytest.mark.parametrize("reload", [False, True], ids=["pressed again", "after a reload"])
@pytest.mark.parametrize("lost", [503, 504, 200], ids=["503", "504", "an unreadable answer"])
def test_a_lost_answer_buys_once(api: FakeApi, form: Visit, lost: int, reload: bool) -> None:
    """An order with a lost response is sent again under the same UUID, and the order after it under another one."""
    page = form.page

    def lose(request: Request) -> tuple[int, Any] | None:
        if not request.buys:
            return None
        api._answer(request)
        return lost, b"<html>"

    api.intercept = lose
    form.expected.append("status of 50")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    expect(page.get_by_role("alert").filter(has_text="nothing is bought twice")).to_be_visible()
    api.intercept = lambda _: None
    if reload:
        page.reload()
        page.get_by_role("button", name="New clip").click()
        page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert len(api.tasks) == 1
    assert len({order["taskUUID"] for order in api.ordered()}) == 1
    page.get_by_role("button", name="New clip").click()
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    expect(form.card(PROMPT)).to_have_count(2)
    assert len({order["taskUUID"] for order in api.ordered()}) == 2


def test_enter_in_a_field_buys_nothing(api: FakeApi, form: Visit) -> None:
    """Enter in a field does not press the buying button."""
    page = form.page
    done = threading.Event()
    api.intercept = lambda request: (503, {}) if request.buys and not done.wait(5) else None
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_text("More options").click()
    page.get_by_label(re.compile("^Destination")).press("Enter")
    page.get_by_label("Quality").press("Enter")
    page.get_by_role("radio", name="10 s").press("Enter")
    assert buy(page).inner_text().startswith("Buy")
    assert api.ordered() == []


def picture(width: int, height: int) -> bytes:
    """A PNG of this size, in pixels."""
    target = io.BytesIO()
    Image.new("RGB", (width, height), (200, 120, 40)).save(target, "PNG")
    return target.getvalue()


def test_an_image_in_a_bucket_is_sent(api: FakeApi, form: Visit) -> None:
    """The address of an object is sent unchanged, since a key may have spaces and percent signs."""
    form.choose("First frame (optional)", "From a URL")
    form.page.get_by_label("Image URL").fill("s3://photos/a%20b c+d#?.png")
    form.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(form.page).click()
    expect(form.page.get_by_role("dialog")).to_be_hidden()
    assert api.ordered()[0]["inputs"]["frameImages"] == ["s3://photos/a%20b c+d#?.png"]


def test_an_image_from_a_file_is_sent(api: FakeApi, form: Visit) -> None:
    """A chosen file is displayed and sent as a data URI."""
    page = form.page
    form.choose("First frame (optional)", "From a file")
    image = picture(640, 360)
    page.get_by_label("Image file").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": image})
    expect(page.get_by_role("img", name="The chosen image")).to_be_visible()
    expect(page.locator(".preview")).to_contain_text(re.compile("640 . 360"))
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    (sent,) = api.ordered()[0]["inputs"]["frameImages"]
    assert sent.startswith("data:image/png;base64,")


@pytest.mark.parametrize(("name", "kind"), [("x.jpg", "image/jpeg"), ("x", ""), ("x.heic", "image/heic")])
def test_an_image_is_judged_by_its_bytes(api: FakeApi, form: Visit, name: str, kind: str) -> None:
    """A PNG with another extension, from which the browser derives its type, is sent as the PNG that it is."""
    page = form.page
    form.choose("First frame (optional)", "From a file")
    file = {"name": name, "mimeType": kind, "buffer": picture(640, 360)}
    page.get_by_label("Image file").set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_role("img", name="The chosen image")).to_be_visible()
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert api.ordered()[0]["inputs"]["frameImages"][0].startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    "address",
    ["s3://film/stills/first frame.png", "s3://film/été 100% #1?.png", "s3://film//a\\b ", "s3://my.film-1/写真"],
)
def test_every_key_of_an_object_is_taken(api: FakeApi, form: Visit, address: str) -> None:
    """Keys with spaces and signs reach the service as they are, which takes them."""
    form.choose("First frame (optional)", "From a URL")
    form.page.get_by_label("Image URL").fill(address)
    form.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(form.page).click()
    expect(form.page.get_by_role("dialog")).to_be_hidden()
    assert api.ordered()[0]["inputs"]["frameImages"] == [address]
    assert len(api.tasks) == 1


@pytest.mark.parametrize(
    ("name", "kind", "content", "words"),
    [
        ("x.gif", "image/gif", b"GIF89a", "Only PNG, JPEG and WebP"),
        ("x.png", "image/png", b"no image", "Only PNG, JPEG and WebP"),
        ("x.png", "image/png", b"\x89PNG\r\n\x1a\n no image", "cannot be read"),
        ("x.png", "image/png", picture(200, 400), "300 to 2048 pixels"),
        ("x.png", "image/png", b"\0" * 3_600_001, "at most 3.6 MB"),
    ],
)
def test_an_unusable_image_is_refused_at_once(
    api: FakeApi, form: Visit, name: str, kind: str, content: bytes, words: str
) -> None:
    """A file of another kind, an unreadable one and one of a wrong size are refused when chosen, and not sent."""
    page = form.page
    form.choose("First frame (optional)", "From a file")
    page.get_by_label("Image file").set_input_files({"name": name, "mimeType": kind, "buffer": content})
    expect(page.get_by_role("group", name="First frame")).to_contain_text(words)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    buy(page).click()
    expect(page.get_by_label("Image file")).to_be_focused()
    assert api.ordered() == []


def test_an_order_can_be_used_again(api: FakeApi, visit: VisitPage) -> None:
    """The form is filled with an earlier task's request, and buys it as a new task."""
    request: dict[str, Any] = {
        "width": 1080,
        "height": 1080,
        "CFGScale": 0.25,
        "destination": "x/y",
        "tags": {"a": "b", "url": "https://example.com?c=d:e"},
        "duration": 10,
        "ttl": 86_400,
        "includeCost": True,
    }
    old = api.add("failed", "failed", prompt=PROMPT, ago=60, **request)
    here = visit()
    here.page.locator(".prompt").click()
    here.page.get_by_role("button", name="Use again").click()
    expect(here.page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    buy(here.page).click()
    expect(here.card(PROMPT)).to_have_count(2)
    (order,) = api.ordered()
    assert order["taskUUID"] != old["taskUUID"]
    sent, asked = (
        {name: value for name, value in each.items() if name != "taskUUID"} for each in (order, old["request"])
    )
    assert json.dumps(sent, sort_keys=True) == json.dumps(asked, sort_keys=True)


def test_carried_parameters_are_shown_and_can_be_left_out(api: FakeApi, visit: VisitPage) -> None:
    """Parameters that the form does not have are named, and one button removes them."""
    api.add("stored", prompt=PROMPT, ttl=86_400)
    here = visit()
    here.page.locator(".prompt").click()
    here.page.get_by_role("button", name="Use again").click()
    expect(here.page.locator("#carried")).to_contain_text("Kept from the earlier order: ttl 86400.")
    here.page.get_by_role("button", name="Leave out").click()
    expect(here.page.locator("#carried")).to_be_hidden()
    buy(here.page).click()
    expect(here.card(PROMPT)).to_have_count(2)
    assert "ttl" not in api.ordered()[0]


@pytest.mark.parametrize("place", ["card", "details"])
def test_failed_clips_can_be_ordered_again(api: FakeApi, visit: VisitPage, place: str) -> None:
    """Retry opens the form with the same fields for the failed clips; its price is shown before anything is bought."""
    old = api.add("failed", "stored", "failed", prompt=PROMPT, negativePrompt="people", ttl=86_400)
    here = visit()
    here.card(PROMPT).get_by_role("button", name="Clip 1: Failed").click()
    if place == "details":
        here.card(PROMPT).locator(".prompt").click()
    root = here.page.get_by_role("dialog") if place == "details" else here.card(PROMPT)
    root.get_by_role("button", name="Retry 2 clips").click()
    expect(buy(here.page)).to_have_text("Buy 2 clips for $1.848")
    assert api.ordered() == []
    buy(here.page).click()
    expect(here.card(PROMPT)).to_have_count(2)
    (order,) = api.ordered()
    assert order.pop("taskUUID") != old["taskUUID"]
    assert order == {name: value for name, value in old["request"].items() if name != "taskUUID"} | {"numberResults": 2}


def test_only_definite_failures_can_be_retried(api: FakeApi, visit: VisitPage) -> None:
    """A clip in review, one whose failure has a last look, and one without its request have no Retry."""
    api.add("review", prompt="review")
    api.add("failed", prompt="open")["clips"][0]["open"] = True
    api.add("failed", prompt="gone")["request"] = {}
    page = visit().page
    expect(page.locator(".card")).to_have_count(3)
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)

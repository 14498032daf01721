"""The page with a keyboard or a screen reader, in light and dark, on a desktop and on a phone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tests.gallery.browsers import Visit, is_playing, wait_for
from tests.gallery.conftest import StartVisit
from tests.gallery.fake_api import FakeApi

VisitPage = Callable[..., Visit]

SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 860}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
TAGS = {"project": "lighthouse", "shot": "12"}


def fill(api: FakeApi) -> None:
    """Adds a task of every kind."""
    api.add("running", prompt="A lone lighthouse at dusk, slow aerial push-in over a grey sea, gulls crossing", ago=74)
    api.add("stored", "running", "stored", "pending", prompt="Macro shot of espresso pouring", ago=240, tags=TAGS)
    api.add("stored", prompt="Product turntable: matte black headphones", ago=1800, tags=TAGS)
    api.add("failed", prompt="Paper boats drifting down a rain gutter", ago=7300)
    api.add("stored", prompt="A neon alley in the rain", ago=9000, clip={"NSFWContent": True})
    api.add("review", prompt="Timelapse of a city waking up", ago=17000)
    api.add("stored", "failed", prompt="A fox trots through fresh snow", ago=90000, shape="tall")
    api.add("stored", ago=180000, shape="square")["request"] = {}


def assert_accessible(page: Page) -> None:
    """Axe finds nothing serious. It runs outside the page, because the page's policy would block it."""
    found = Axe().run(page).response["violations"]
    serious = [
        (violation["id"], violation["help"], [node["html"] for node in violation["nodes"]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", list(SCREENS))
def test_axe_finds_nothing_serious(
    api: FakeApi, start_visit: StartVisit, screenshots: Path, scheme: str, screen: str
) -> None:
    """The key form, the list, the details and the order form are accessible, and nothing is wider than the screen."""
    here = start_visit(api.url, color_scheme=scheme, reduced_motion="reduce", **SCREENS[screen])
    page, name = here.page, f"{scheme}-{screen}"

    def check_view(view: str) -> None:
        assert_accessible(page)
        here.screenshot(screenshots, f"{view}-{name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    check_view("key")
    here.enter_key(api.key)
    check_view("empty")
    fill(api)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".card")).to_have_count(8)
    loaded = "[...document.querySelectorAll('video[src]')].every((video) => video.readyState >= 2)"
    wait_for(lambda: bool(page.evaluate(loaded)))
    check_view("list")
    for prompt in ("Macro shot of espresso pouring", "Paper boats drifting down a rain gutter"):
        here.card(prompt).locator(".prompt").click()
        expect(page.get_by_role("dialog").locator(".timeline li").nth(1)).to_be_visible()
        page.get_by_text("The request as sent").click()
        check_view("detail" if prompt.startswith("Macro") else "failed")
        page.keyboard.press("Escape")
    page.get_by_role("button", name="New clip").click()
    page.get_by_text("More options").click()
    here.choose("First frame (optional)", "From a file")
    check_view("form")
    page.get_by_role("button", name="Buy").click()
    check_view("faults")
    choose = page.get_by_label("Model", exact=True).select_option
    choose("google:3@3")
    check_view("form-two-frames")
    choose("minimax:4@1")
    page.get_by_label("Size").select_option("1920x1080")
    page.get_by_role("group", name="Duration").scroll_into_view_if_needed()
    check_view("form-rules")


def test_four_hundred_percent_zoom(api: FakeApi, start_visit: StartVisit, screenshots: Path) -> None:
    """At 400 % (320 by 215 pixels) no bar stays in the way, and nothing is cut off at the side."""
    fill(api)
    here = start_visit(api.url, viewport={"width": 320, "height": 215}, reduced_motion="reduce")
    page = here.page
    here.enter_key(api.key)

    def check_view(view: str) -> None:
        is_cut = "each.clientWidth > 1 && each.scrollWidth > each.clientWidth + 1"
        shown = '[document.documentElement, ...document.querySelectorAll("dialog[open], dialog[open] *")]'
        assert page.evaluate(f"{shown}.filter((each) => {is_cut}).map((each) => each.outerHTML.slice(0, 80))") == []
        here.screenshot(screenshots, f"{view}-zoom")

    page.locator(".prompt").last.scroll_into_view_if_needed()
    check_view("list")
    expect(page.locator(".bar")).not_to_be_in_viewport()
    here.card("Paper boats drifting down a rain gutter").locator(".prompt").click()
    expect(page.locator(".timeline li").nth(1)).to_be_visible()
    page.get_by_role("button", name="Retry").last.scroll_into_view_if_needed()
    check_view("detail")
    page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    page.get_by_text("More options").click()
    page.get_by_label("Prompt", exact=True).scroll_into_view_if_needed()
    check_view("form")
    box = page.get_by_label("Prompt", exact=True).bounding_box()
    assert box
    assert box["y"] >= 0
    assert box["y"] + min(box["height"], 100) <= 215
    page.get_by_role("button", name="Buy").scroll_into_view_if_needed()
    expect(page.get_by_role("button", name="Buy")).to_be_in_viewport()
    for air in ("google:3@0", "google:3@3", "minimax:4@1"):
        page.get_by_label("Model", exact=True).select_option(air)
        check_view(f"form-{air.replace(':', '-')}")


def test_right_to_left_prompts(api: FakeApi, visit: VisitPage) -> None:
    """A prompt in a script from right to left has this direction in its card, its details and the form."""
    prompt = "\u0645\u0646\u0627\u0631\u0629 at dusk"
    api.add("stored", prompt=prompt)
    page = visit().page
    expect(page.locator(".prompt")).to_have_css("direction", "rtl")
    page.locator(".prompt").click()
    expect(page.locator("#detail-title")).to_have_css("direction", "rtl")
    page.get_by_role("button", name="Use again").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_css("direction", "rtl")


def test_the_keyboard_is_enough(api: FakeApi, start_visit: StartVisit) -> None:
    """A key, an order and playback need no pointer, and the focus returns to its former place."""
    api.add("stored", prompt="an old lighthouse", ago=600)
    here = start_visit(api.url)
    page = here.page
    page.keyboard.insert_text(api.key)
    page.keyboard.press("Enter")
    expect(page.locator(".prompt")).to_be_visible()

    def tab_to(locator: Any) -> None:
        for _ in range(40):
            if locator.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        pytest.fail("the Tab key does not lead there")

    play = page.get_by_role("button", name="Play the clip: an old lighthouse")
    tab_to(play)
    page.keyboard.press("Enter")
    assert is_playing(page.locator(".card video"))
    title = page.get_by_role("button", name="an old lighthouse", exact=True)
    tab_to(title)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(title).to_be_focused()
    new = page.get_by_role("button", name="New clip")
    tab_to(new)
    page.keyboard.press("Enter")
    page.keyboard.insert_text("a new lighthouse")
    tab_to(page.get_by_role("radio", name="5 s"))
    page.keyboard.press("ArrowRight")
    tab_to(page.get_by_role("button", name="Buy 1 clip for $1.848"))
    page.keyboard.press("Enter")
    expect(here.card("a new lighthouse")).to_be_visible()
    expect(new).to_be_focused()
    assert api.ordered()[0]["duration"] == 10


def test_the_page_has_landmarks_and_headings(api: FakeApi, visit: VisitPage) -> None:
    """A screen reader finds the parts of the page by role and name."""
    api.add("stored", prompt="a lighthouse")
    page = visit().page
    for role, name in (("banner", None), ("search", "Filter the clips"), ("main", None), ("region", "Clips")):
        expect(page.get_by_role(role, name=name)).to_be_visible()  # type: ignore[arg-type]
    expect(page.get_by_role("heading", level=3, name="a lighthouse")).to_be_visible()
    page.get_by_role("link", name="Skip to the clips").press("Enter")
    expect(page.get_by_role("heading", level=2, name="Clips")).to_be_focused()

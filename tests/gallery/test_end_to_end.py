"""From the form to the playing video: the deployed page, the functions, the bucket and the emulator."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from rushes_local.stack import Stack
from rushes_local.template import Template
from tests.conftest import PATIENCE, ROOT, User, submissions
from tests.gallery.browsers import is_playing
from tests.gallery.conftest import StartVisit

PROMPT = "a lighthouse at dusk <img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def served() -> None:
    """Skips the tests if no function serves the page."""
    if not any(
        route.path == "/" for function in Template(ROOT / "template.yaml").functions() for route in function.routes
    ):
        pytest.skip("no function serves GET / yet")


def test_from_the_form_to_the_playing_video(
    stack: Stack, user: User, start_visit: StartVisit, screenshots: Path
) -> None:
    """An order from the form is bought once, its progress is displayed, and the clip plays from the bucket."""
    here = start_visit(f"{stack.url}/")
    page = here.page
    here.enter_key(user.key)
    expect(page.get_by_label("Money this month")).to_contain_text("$50.00 left")
    page.get_by_role("button", name="New clip").click()
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    here.choose("Clips", "2")
    page.get_by_role("button", name="Buy 2 clips for $1.848").dblclick()
    card = here.card(PROMPT)
    expect(card.locator(".status")).to_have_text("Running 0/2")
    expect(page.get_by_label("Money this month")).to_contain_text("$48.15 left")
    here.screenshot(screenshots, "end-to-end-running")

    assert stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)
    expect(card.locator(".status")).to_have_text("Succeeded", timeout=PATIENCE * 1000)
    card.get_by_role("button", name="Play clip 1 of 2").click()
    assert is_playing(card.locator("video"))
    here.screenshot(screenshots, "end-to-end-playing")

    card.locator(".prompt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".timeline")).to_contain_text("Stored in the bucket")
    dialog.get_by_role("button", name="Clip 2: Stored").click()
    dialog.get_by_role("button", name="Play clip 2 of 2").click()
    assert is_playing(dialog.locator("video"))
    here.screenshot(screenshots, "end-to-end-detail")
    assert len(submissions(stack)) == 2


def test_a_refusal_is_shown_at_its_field(stack: Stack, user: User, start_visit: StartVisit) -> None:
    """An error that only the service can detect is shown at its field, here an image URL without a host."""
    here = start_visit(f"{stack.url}/")
    here.expected.append("status of 400")
    here.enter_key(user.key)
    here.page.get_by_role("button", name="New clip").click()
    here.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    here.choose("First frame (optional)", "From a URL")
    here.page.get_by_label("Image URL").fill("https:///no-host")
    here.page.get_by_role("button", name="Buy").click()
    expect(here.page.get_by_label("Image URL")).to_have_attribute("aria-invalid", "true")
    expect(here.page.get_by_role("group", name="First frame")).to_contain_text("inputs.frameImages")
    assert submissions(stack) == []

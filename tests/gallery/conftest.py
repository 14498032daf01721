"""A browser for all tests of this folder, and a fake API for each. All of these tests have the mark `browser`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import ROOT
from tests.gallery.browsers import Visit, find_browser, launch
from tests.gallery.fake_api import FakeApi

SCREENSHOTS = ROOT / "out" / "gallery"  # not committed; for manual review

StartVisit = Callable[..., Visit]

expect.set_options(timeout=10_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds the mark `browser` to all tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium installed on this machine."""
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium on this machine: run scripts/install-browser, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = launch(playwright, path)
        yield browser
        browser.close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API without tasks."""
    with FakeApi() as api:
        yield api


@pytest.fixture
def start_visit(browser: Browser) -> Iterator[StartVisit]:
    """Opens a URL in a new tab; with `own_clock`, the test can move the page's clock forward.

    The test fails if a tab has unexpected errors or warnings at its end.
    """
    visits: list[Visit] = []

    def start(url: str, own_clock: bool = False, **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        context.set_default_timeout(10_000)
        if own_clock:
            context.clock.install()
        visits.append(Visit(context.new_page()))
        visits[-1].page.goto(url)
        return visits[-1]

    yield start
    complaints = [visit.unexpected() for visit in visits]
    for visit in visits:
        visit.page.context.close()
    assert complaints == [[] for _ in visits]


@pytest.fixture
def visit(start_visit: StartVisit, api: FakeApi) -> StartVisit:
    """Opens the page on the fake API and enters the key."""

    def start(**options: Any) -> Visit:
        visit = start_visit(api.url, **options)
        visit.enter_key(api.key)
        return visit

    return start


@pytest.fixture
def screenshots() -> Path:
    """The folder of the page's pictures."""
    return SCREENSHOTS

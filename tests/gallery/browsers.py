"""Finds an installed Chromium, opens the page in it, and records the browser's errors and warnings."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, expect

# Another browser can be set in the variable CHROMIUM, which scripts/install-browser reads too.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Marks violations of the policy, which look like other errors in the console.
_WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


def find_browser() -> str | None:
    """The path of an installed Chromium, or None."""
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else _NAMES
    return next((found for name in names if (found := shutil.which(name))), None)


def launch(playwright: Playwright, path: str) -> Browser:
    """A headless browser that contacts only the servers of the test."""
    return playwright.chromium.launch(executable_path=path, args=_FLAGS)


@dataclass
class Visit:
    """A tab with the page. The test fails if the browser reports an error or warning that matches nothing in
    `expected`."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(_WATCH_POLICY)
        self.page.on("console", self._record_message)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _record_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def unexpected(self) -> list[str]:
        """The complaints that match no pattern in `expected`."""
        return [text for text in self.complaints if not any(re.search(pattern, text) for pattern in self.expected)]

    def enter_key(self, key: str) -> None:
        """Enters the API key and waits for the list."""
        self.page.get_by_label("API key", exact=True).fill(key)
        self.page.get_by_role("button", name="Open").click()
        expect(self.page.get_by_role("button", name="New clip")).to_be_visible()
        expect(self.page.locator(".skeleton")).to_have_count(0)

    def card(self, prompt: str) -> Locator:
        """The card of the task with this prompt."""
        return self.page.locator(".card").filter(has=self.page.get_by_role("button", name=prompt, exact=True))

    def choose(self, group: str, option: str) -> None:
        """Chooses an option of a group of radio buttons, whose inputs are invisible above their texts."""
        self.page.get_by_role("group", name=group).get_by_role("radio", name=option, exact=True).check()

    def screenshot(self, folder: Path, name: str) -> None:
        """Saves a picture of the page."""
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until a condition is true. Playwright's own function needs `eval` in the page, which the page's policy
    forbids."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_playing(video: Locator) -> bool:
    """Returns True if the video's position advances, not only if playback was requested."""
    script = "async (video) => { const at = video.currentTime; await new Promise(requestAnimationFrame); " + (
        "await new Promise((done) => video.addEventListener('timeupdate', done, { once: true })); "
        "return !video.paused && video.videoWidth > 0 && video.currentTime !== at; }"
    )
    playing: bool = video.evaluate(script)
    return playing

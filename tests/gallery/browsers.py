"""Finds a Chromium on this machine and opens the page in it, with a watch over what the browser complains about."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, expect

# The variable is for whoever keeps a browser elsewhere; scripts/install-browser knows it as well.
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

# Reports of broken policies, which a console message alone would not tell apart from other errors.
_WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


def find_browser() -> str | None:
    """The path of a Chromium that is installed, or None."""
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else _NAMES
    return next((found for name in names if (found := shutil.which(name))), None)


def launch(playwright: Playwright, path: str) -> Browser:
    """A browser without a window, which asks nobody but the servers of the test."""
    return playwright.chromium.launch(executable_path=path, args=_FLAGS)


@dataclass
class Visit:
    """Somebody's tab with the page in it. What the browser complains about must be `expected`, or the test fails."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(_WATCH_POLICY)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def unexpected(self) -> list[str]:
        """The complaints that no pattern in `expected` allows for."""
        return [text for text in self.complaints if not any(re.search(pattern, text) for pattern in self.expected)]

    def enter(self, key: str) -> None:
        """Gives the key at the door."""
        self.page.get_by_label("API key", exact=True).fill(key)
        self.page.get_by_role("button", name="Open").click()
        expect(self.page.get_by_role("button", name="New clip")).to_be_visible()
        expect(self.page.locator(".skeleton")).to_have_count(0)

    def card(self, prompt: str) -> Locator:
        """The card of the task with this prompt."""
        return self.page.locator(".card").filter(has=self.page.get_by_role("button", name=prompt, exact=True))

    def choose(self, group: str, option: str) -> None:
        """Presses one of a row of options. The inputs lie invisibly over their texts."""
        self.page.get_by_role("group", name=group).get_by_role("radio", name=option, exact=True).check()

    def screenshot(self, folder: Path, name: str) -> None:
        """Keeps a picture of what is to be seen now."""
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something is true. For what Playwright cannot wait for: its own way in the page needs `eval`, which the
    page's policy forbids.
    """
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_playing(video: Locator) -> bool:
    """Whether a video runs: not only asked to, but moving."""
    script = "async (video) => { const at = video.currentTime; await new Promise(requestAnimationFrame); " + (
        "await new Promise((done) => video.addEventListener('timeupdate', done, { once: true })); "
        "return !video.paused && video.videoWidth > 0 && video.currentTime !== at; }"
    )
    playing: bool = video.evaluate(script)
    return playing

"""Takes the documentation's picture of the gallery: python -m tests.gallery.picture. Needs Chromium.

The page shows tasks of every kind, whose clips are rendered by the emulator.
"""

from functools import cache

from playwright.sync_api import expect, sync_playwright

from rushes_local.runware.rendering import Shape, render
from tests.conftest import ROOT
from tests.gallery import fake_api
from tests.gallery.browsers import Visit, find_browser, launch, wait_for
from tests.gallery.fake_api import FakeApi

PICTURE = ROOT / "docs" / "images" / "gallery.png"
SIZE = {"width": 1280, "height": 860}
FOX = "A fox trots through fresh snow, handheld, breath visible in cold air"
TAGS = {"project": "lighthouse"}
_LOADED = "[...document.querySelectorAll('video[src]')].every((video) => video.readyState >= 2)"


def fill(api: FakeApi) -> None:
    """Add the tasks; each clip is rendered from its prompt."""
    api.add("running", prompt="A lone lighthouse at dusk, slow aerial push-in over a grey sea", ago=74, tags=TAGS)
    api.add("stored", "running", "stored", "pending", prompt="Macro shot of espresso pouring into a glass", ago=240)
    api.add("stored", prompt="Product turntable: matte black headphones", ago=1800, tags={"client": "acoustica"})
    api.add("stored", prompt="Desert monorail racing a sandstorm, low tracking shot", ago=3700)
    api.add("stored", prompt="Harbour cranes before sunrise, locked-off", ago=5400, tags=TAGS)
    api.add("failed", prompt="Paper boats drifting down a rain gutter", ago=7300)
    api.add("review", prompt="Timelapse of a city waking up, from blue hour to noon", ago=17000)
    api.add("stored", "failed", prompt=FOX, ago=90000)
    for task in api.tasks.values():
        for clip in task["clips"]:
            api.rendering[clip["objectKey"]] = prompt = task["request"]["positivePrompt"]
            if clip["status"] == "stored":
                _clip_bytes(prompt, "")  # before the page waits for it


@cache
def _clip_bytes(prompt: str, _caption: str) -> bytes:
    size = (1080, 1920) if prompt == FOX else (1920, 1080)
    return render(Shape(*size, 5, "MP4", prompt, small=True))


def main() -> None:
    fake_api.clip_bytes = _clip_bytes
    path = find_browser()
    assert path is not None, "no Chromium: run scripts/install-browser, or set CHROMIUM to its path"
    with FakeApi() as api, sync_playwright() as playwright:
        fill(api)
        page = launch(playwright, path).new_page(viewport=SIZE, reduced_motion="reduce")
        page.goto(api.url)
        Visit(page).enter_key(api.key)
        expect(page.locator(".card")).to_have_count(len(api.tasks))
        wait_for(lambda: bool(page.evaluate(_LOADED)))
        page.screenshot(path=PICTURE, clip={"x": 0, "y": 0, "width": 1280, "height": 700})


if __name__ == "__main__":
    main()

"""The list as a person uses it: watching, filtering, scrolling, and what happens when things go wrong."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.gallery.browsers import Visit, is_playing, wait_for
from tests.gallery.conftest import StartVisit
from tests.gallery.fake_api import FakeApi, Request

VisitPage = Callable[..., Visit]

HOSTILE = (
    "</textarea><img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
    "<style>body{display:none}</style> {{7*7}} ${7*7} \u202e\u0000 &lt;b&gt;"
)


def test_the_key_is_asked_for_once_and_kept_for_the_tab(api: FakeApi, start_visit: StartVisit) -> None:
    """A wrong key is refused at its field; a good one survives a reload but is in no other place than this tab's."""
    visit = start_visit(api.url)
    visit.expected.append("status of 401")
    page = visit.page
    page.get_by_label("API key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid.")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    visit.enter(api.key)
    page.reload()
    expect(page.get_by_role("button", name="New clip")).to_be_visible()
    assert page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
    assert api.key not in page.url + page.content()
    other = start_visit(api.url)
    expect(other.page.get_by_label("API key", exact=True)).to_be_visible()


def test_forgetting_the_key_leaves_nothing_behind(api: FakeApi, visit: VisitPage) -> None:
    """One press, and the tab holds neither the key nor anything that was shown under it."""
    api.add("stored", prompt="a secret lighthouse")
    page = visit().page
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.get_by_label("API key", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("API key", exact=True)).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    assert "secret lighthouse" not in page.content()


def test_a_key_that_is_revoked_leads_back_to_the_door(api: FakeApi, visit: VisitPage) -> None:
    """When the service no longer knows the key, the page says so and asks for another one."""
    api.add("stored")
    here = visit()
    here.expected.append("status of 401")
    api.key = "another"
    here.page.get_by_role("button", name="Refresh").click()
    expect(here.page.get_by_label("API key", exact=True)).to_be_visible()
    expect(here.page.get_by_role("alert")).to_contain_text("This key is not valid.")
    here.enter("another")
    expect(here.page.locator(".card")).to_have_count(1)


def test_what_callers_write_is_text(api: FakeApi, visit: VisitPage) -> None:
    """Markup in prompts, tags, errors, facts and addresses is shown letter by letter and does nothing."""
    task = api.add("failed", prompt=HOSTILE, tags={"<b>x</b>": "<i>y</i>", "__proto__": "constructor"})
    clip = task["clips"][0]
    clip["error"] = {"code": "constructor", "message": HOSTILE}
    clip["timeline"] += [{"at": "never", "fact": "constructor", "source": "toString", "key": HOSTILE}]
    sneaky = api.add("stored", prompt="sneaky", clip={"videoURL": "javascript:alert(1)", "manifestURL": "data:,x"})
    here = visit()
    page = here.page
    card = page.locator(f".card[data-task='{task['taskUUID']}']")
    expect(card.locator(".prompt")).to_contain_text("<script>document.title='gone'</script>")
    expect(card.locator(".state-text")).to_contain_text("<img src=x")
    expect(card.get_by_role("button", name="<b>x</b>:<i>y</i>")).to_be_visible()
    card.locator(".prompt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".whole-prompt")).to_contain_text(HOSTILE.split("\u202e")[0].strip())
    dialog.get_by_text("The request as sent").click()
    expect(dialog.locator("pre")).to_contain_text("<b>x</b>")
    expect(dialog.locator(".timeline")).to_contain_text("constructor <")
    page.keyboard.press("Escape")
    here.card("sneaky").locator(".prompt").click()
    expect(dialog.locator(".timeline")).to_contain_text("Stored in the bucket")
    expect(dialog.get_by_role("link")).to_have_count(0)
    assert page.locator("main img, dialog img, main script, dialog script, dialog style").count() == 0
    assert page.locator(f"[data-task='{sneaky['taskUUID']}'] video[src]").count() == 0
    assert page.title() == "Rushes"


def test_a_clip_plays_on_hover_and_with_controls_after_a_click(api: FakeApi, visit: VisitPage) -> None:
    """At first the first frame; under the pointer a silent loop; after a click a player."""
    api.add("stored", prompt="a lighthouse")
    here = visit()
    video = here.page.locator(".card video")
    expect(video).to_have_js_property("readyState", 4)
    assert video.evaluate("v => [v.paused, v.muted, v.loop, v.controls]") == [True, True, True, False]
    play = here.page.get_by_role("button", name="Play the clip: a lighthouse")
    play.hover()
    assert is_playing(video)
    here.page.get_by_role("heading", name="Rushes").hover()
    expect(video).to_have_js_property("paused", True)
    expect(video).to_have_js_property("currentTime", 0)
    play.focus()
    assert is_playing(video)
    here.page.keyboard.press("Enter")
    expect(video).to_have_js_property("controls", True)
    expect(video).to_be_focused()
    assert is_playing(video)


def test_nothing_moves_by_itself_for_those_who_ask_for_that(api: FakeApi, visit: VisitPage) -> None:
    """With reduced motion a clip plays only when it is told to."""
    api.add("stored", prompt="a lighthouse")
    here = visit(reduced_motion="reduce")
    video = here.page.locator(".card video")
    expect(video).to_have_js_property("readyState", 4)
    play = here.page.get_by_role("button", name="Play the clip")
    play.hover()
    expect(video).to_have_js_property("paused", True)
    play.click()
    assert is_playing(video)


def test_a_flagged_clip_is_blurred_until_somebody_asks(api: FakeApi, visit: VisitPage) -> None:
    """Hovering does not play it, the first press shows it, and the detail view keeps the veil as well."""
    api.add("stored", prompt="shady", clip={"NSFWContent": True})
    here = visit()
    page, video = here.page, here.page.locator(".card video")
    expect(video).to_have_css("filter", re.compile("blur"))
    here.card("shady").locator(".prompt").click()
    expect(page.locator("dialog video")).to_have_css("filter", re.compile("blur"))
    page.keyboard.press("Escape")
    show = page.get_by_role("button", name="Flagged as not safe for work. Show the clip")
    show.hover()
    expect(video).to_have_js_property("paused", True)
    show.click()
    expect(video).to_have_css("filter", "none")
    page.get_by_role("button", name="Play the clip: shady").click()
    assert is_playing(video)


def test_several_clips_of_a_task_share_a_card(api: FakeApi, visit: VisitPage) -> None:
    """The first stored one is shown, the others a press away, each with its own state."""
    api.add("failed", "stored", "running", prompt="three takes")
    here = visit()
    card = here.card("three takes")
    takes = card.get_by_role("group", name="Clips of this task")
    expect(takes.get_by_role("button", name="Clip 2: Stored")).to_have_attribute("aria-pressed", "true")
    expect(card.locator(".status")).to_have_text("Running 1/3")
    takes.get_by_role("button", name="Clip 1: Failed").click()
    expect(card.locator(".state")).to_contain_text("content policy")
    takes.get_by_role("button", name="Clip 3: Rendering").click()
    expect(card.locator(".state")).to_contain_text(re.compile(r"Rendering, \d+:\d\d"))


def test_progress_comes_by_itself(api: FakeApi, visit: VisitPage) -> None:
    """A running task turns into its clip without a reload, is announced, and then nobody asks any more."""
    task = api.add("running", prompt="a lighthouse")
    here = visit(own_clock=True)
    expect(here.page).to_have_title(re.compile("^1 running . Rushes$"))
    api.become(task, "rendered")
    here.page.clock.run_for(3_000)
    expect(here.card("a lighthouse").locator(".state")).to_contain_text("Saving")
    api.become(task, "stored")
    here.page.clock.run_for(3_000)
    expect(here.page.get_by_role("button", name="Play the clip: a lighthouse")).to_be_visible()
    expect(here.page.get_by_text("Succeeded: a lighthouse")).to_be_attached()
    expect(here.page).to_have_title("Rushes")
    before = len(api.asked("/tasks"))
    here.page.clock.run_for(600_000)
    assert len(api.asked("/tasks")) == before


def test_polling_gets_slower_while_nothing_changes(api: FakeApi, visit: VisitPage) -> None:
    """From three seconds the pauses grow to half a minute."""
    api.add("running")
    page = visit().page
    # The page's timers run ahead, so that a minute of polling takes no minute.
    page.evaluate(
        "() => { window.pauses = []; const later = setTimeout;"
        " window.setTimeout = (f, ms) => { pauses.push(ms); return later(f, ms >= 3000 && ms < 30000 ? 1 : ms); };"
        " pollOnce(); }"
    )
    grown = [4500, 6750, 10125, 15187.5, 22781.25]
    wait_for(lambda: [ms for ms in page.evaluate("pauses") if 3000 <= ms < 30_000] == grown)


def test_a_hidden_tab_asks_nothing(api: FakeApi, visit: VisitPage) -> None:
    """Out of sight the page is silent, however much runs; seen again, it asks at once."""
    api.add("running")
    page = visit(own_clock=True).page
    turn = (
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    before = len(api.asked("/tasks"))
    answered = threading.Event()
    api.intercept = lambda _: None if answered.wait(10) else (503, {})
    page.clock.run_for(3_000)
    wait_for(lambda: len(api.asked("/tasks")) == before + 1)
    page.evaluate(turn, True)  # while an answer is still out
    answered.set()
    wait_for(lambda: not page.evaluate("poll.busy"))
    page.clock.run_for(600_000)
    assert len(api.asked("/tasks")) == before + 1
    page.evaluate(turn, False)
    wait_for(lambda: len(api.asked("/tasks")) == before + 2)


def test_a_running_task_further_down_is_asked_for_by_itself(api: FakeApi, visit: VisitPage) -> None:
    """Progress reaches tasks that are not on the newest page; one that was erased meanwhile goes."""
    old, erased = api.add("running", prompt="old", ago=9000), api.add("running", prompt="erased", ago=9001)
    for number in range(30):
        api.add("failed", prompt=f"take {number}", ago=60 + number)
    here = visit(own_clock=True)
    here.page.mouse.wheel(0, 20_000)
    expect(here.card("old")).to_be_visible()
    here.expected.append("status of 404")
    api.become(old, "stored")
    del api.tasks[erased["taskUUID"]]
    here.page.clock.run_for(3_000)
    expect(here.card("old").locator(".status")).to_have_text("Succeeded")
    expect(here.card("erased")).to_have_count(0)


def test_sixty_tasks_come_by_scrolling(api: FakeApi, visit: VisitPage) -> None:
    """The first page fills the screen, the rest comes when it is scrolled to, newest first and each once."""
    for number in range(60):
        api.add("failed", prompt=f"take {number}", ago=60 * number)
    page = visit(viewport={"width": 1280, "height": 500}).page
    assert len(api.asked("/tasks")) == 1
    for seen in (48, 60):
        page.mouse.wheel(0, 20_000)
        expect(page.locator(".card")).to_have_count(seen)
    assert page.locator(".prompt").all_inner_texts() == [f"take {number}" for number in range(60)]
    expect(page.get_by_text("That is all.")).to_be_visible()


def test_short_pages_go_on_by_themselves(api: FakeApi, visit: VisitPage) -> None:
    """Where filters leave nothing of a page, the next ones follow without anybody scrolling."""
    for number in range(100):
        api.add("failed" if number % 50 else "stored", prompt=f"take {number}", ago=60 * number)
    here = visit()
    here.choose("Status", "Succeeded")
    expect(here.page.locator(".prompt")).to_have_text(["take 0", "take 50"])
    wait_for(lambda: [r.query.get("cursor") for r in api.asked("/tasks")][-5:] == [None, "24", "48", "72", "96"])


def test_filters_by_status_day_and_tag(api: FakeApi, visit: VisitPage) -> None:
    """Each narrows the list, they work together, a press on a tag filters by it, and all can be cleared."""
    api.add("stored", prompt="fresh", tags={"project": "fox"})
    api.add("failed", prompt="broken", ago=120, tags={"project": "fox"})
    old = api.add("stored", prompt="old", ago=3 * 86_400, tags={"project": "owl"})
    here = visit()
    page, prompts = here.page, here.page.locator(".prompt")
    here.choose("Status", "Failed")
    expect(prompts).to_have_text(["broken"])
    here.choose("Status", "All")
    here.card("fresh").get_by_role("button", name="project:fox").click()
    expect(page.get_by_label("Tag", exact=True)).to_have_value("project:fox")
    expect(prompts).to_have_text(["fresh", "broken"])
    here.choose("Status", "Succeeded")
    expect(prompts).to_have_text(["fresh"])
    page.get_by_role("button", name="Clear filters").click()
    expect(prompts).to_have_count(3)
    page.get_by_label("Day (UTC)").fill(old["createdAt"][:10])
    expect(prompts).to_have_text(["old"])
    page.get_by_label("Tag", exact=True).fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Write the tag as name:value.")).to_be_visible()
    page.get_by_label("Tag", exact=True).fill("project:owl")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Write the tag as name:value.")).to_be_hidden()
    page.get_by_label("Tag", exact=True).fill("project:none")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def test_an_empty_gallery_says_what_to_do(api: FakeApi, visit: VisitPage) -> None:
    """Without a task there is a sentence and a way to the first one."""
    page = visit().page
    expect(page.get_by_role("heading", name="No clips yet")).to_be_visible()
    page.get_by_role("button", name="Make the first one").click()
    expect(page.get_by_role("dialog", name="New clip")).to_be_visible()


def test_a_list_that_will_not_load_can_be_tried_again(api: FakeApi, visit: VisitPage) -> None:
    """Trouble is said in words, and a press tries again."""
    api.add("stored", prompt="a lighthouse")
    broken = threading.Event()
    broken.set()
    api.intercept = lambda request: (503, {}) if broken.is_set() and request.path == "/tasks" else None
    here = visit()
    here.expected.append("status of 503")
    expect(here.page.get_by_text("The list could not be loaded.")).to_be_visible()
    broken.clear()
    here.page.get_by_role("button", name="Try again").click()
    expect(here.card("a lighthouse")).to_be_visible()


def test_an_answer_that_comes_too_late_changes_nothing(api: FakeApi, visit: VisitPage) -> None:
    """When another filter is chosen meanwhile, the slower answer to the first one is not shown."""
    api.add("stored", prompt="stored")
    api.add("failed", prompt="failed")
    here = visit()
    gate = threading.Event()

    def hold(request: Request) -> tuple[int, Any] | None:
        if request.query.get("status") == "succeeded":
            gate.wait(10)
        return None

    api.intercept = hold
    here.choose("Status", "Succeeded")
    wait_for(lambda: any(request.query.get("status") == "succeeded" for request in api.asked("/tasks")))
    here.choose("Status", "Failed")
    expect(here.page.locator(".prompt")).to_have_text(["failed"])
    gate.set()
    here.page.wait_for_timeout(200)  # nothing tells when an answer has arrived that is thrown away
    expect(here.page.locator(".prompt")).to_have_text(["failed"])


def test_an_expired_link_is_fetched_again_once(api: FakeApi, visit: VisitPage) -> None:
    """A clip whose link has run out plays through a new one; one that never comes is asked for once, and said so."""
    task = api.add("stored", prompt="a lighthouse")
    lost = api.add("stored", prompt="lost")
    del api.rendering[lost["clips"][0]["objectKey"]]
    api.lists_are_old = True
    here = visit()
    here.expected.append("status of 403")
    expect(here.card("a lighthouse").locator("video")).to_have_js_property("readyState", 4)
    expect(here.card("lost").locator(".state")).to_contain_text("Cannot be played here")
    for each in (task, lost):
        assert len(api.asked(f"/tasks/{each['taskUUID']}")) == 1


def test_the_details_tell_the_story(api: FakeApi, visit: VisitPage) -> None:
    """Timeline in words, facts, request and links; the address leads there again, and "back" leads away."""
    task = api.add("stored", "failed", prompt="a lighthouse\nin two lines", tags={"project": "fox"})
    here = visit()
    page = here.page
    page.locator(".prompt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".timeline li")).to_contain_text(
        ["Recorded, with its cost reserved", "Runware accepted the order", "Rendered", "Stored in the bucket"]
    )
    expect(dialog).to_contain_text("3:12 min later")
    expect(dialog).to_contain_text(re.compile("from Runware.s webhook"))
    expect(dialog).to_contain_text(task["clips"][0]["objectKey"])
    download = dialog.get_by_role("link", name="Download the clip")
    assert re.match(r"http://127\.0\.0\.1:\d+/videos/alice/", download.get_attribute("href") or "")
    assert download.get_attribute("rel") == "noopener noreferrer"
    expect(dialog.get_by_role("link", name="Manifest")).to_be_visible()
    dialog.get_by_role("button", name="Clip 2: Failed").click()
    expect(dialog.locator(".callout")).to_contain_text("content policy")
    expect(dialog.get_by_role("heading", name="Timeline of clip 2")).to_be_visible()
    dialog.get_by_text("The request as sent").click()
    expect(dialog.locator("pre")).to_contain_text('"project": "fox"')
    assert page.url.endswith(f"#{task['taskUUID']}")
    page.go_back()
    expect(dialog).to_be_hidden()
    expect(page.locator(".prompt")).to_be_focused()
    page.goto(f"{api.url}/#{task['taskUUID']}")
    expect(dialog).to_be_visible()


@pytest.mark.parametrize("listener", ["hashchange", "close"], ids=["before-it-is-told", "after"])
def test_back_and_forth_at_once_ends_in_the_details(api: FakeApi, visit: VisitPage, listener: str) -> None:
    """The address alone decides whether a task is open, also when it changes while the closing is still being told."""
    task = api.add("stored", prompt="a lighthouse")
    here = visit()
    here.page.locator(".prompt").click()
    dialog = here.page.get_by_role("dialog")
    expect(dialog.locator(".timeline li")).not_to_have_count(0)
    here.page.evaluate(
        """([listener, hash]) => {
          const target = listener === "close" ? document.getElementById("detail") : window;
          target.addEventListener(listener, () => { location.hash = hash; }, { once: true });
          window.changes = 0;
          window.addEventListener("hashchange", () => { changes += 1; });
          location.hash = "";
        }""",
        [listener, task["taskUUID"]],
    )
    here.page.wait_for_function("changes === 2")
    expect(dialog.locator(".timeline li")).not_to_have_count(0)
    expect(here.page).to_have_url(re.compile(f"#{task['taskUUID']}$"))
    here.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(here.page).to_have_url(f"{api.url}/")


@pytest.mark.parametrize("status", ["review", "running"])
def test_the_details_say_what_comes_next(api: FakeApi, visit: VisitPage, status: str) -> None:
    """What is open says when it is looked at, what is parked says that a person decides."""
    task = api.add(status, prompt="a lighthouse")
    task["clips"][0]["possiblySentAt"] = task["createdAt"]
    page = visit().page
    page.locator(".prompt").click()
    dialog = page.get_by_role("dialog")
    words = "Waits for an operator to decide" if status == "review" else re.compile(r"Next check in 1:\d\d")
    expect(dialog.locator(".timeline li").last).to_contain_text(words)
    expect(dialog).to_contain_text("it may have been bought")


def test_a_forgotten_request_is_said_to_be_gone(api: FakeApi, visit: VisitPage) -> None:
    """A task whose request was erased still has its card, and offers nothing that needs the request."""
    api.add("stored")["request"] = {}
    page = visit().page
    page.get_by_role("button", name="The request is no longer kept").click()
    expect(page.get_by_role("dialog")).to_contain_text("The request is no longer kept.")
    expect(page.get_by_role("button", name="Use again")).to_be_hidden()

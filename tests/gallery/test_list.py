"""The list: progress, filters, scrolling, playback and errors."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.gallery.browsers import Visit, is_playing, wait_for
from tests.gallery.conftest import StartVisit
from tests.gallery.fake_api import FakeApi, Request, iso

VisitPage = Callable[..., Visit]

HOSTILE = (
    "</textarea><img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
    "<style>body{display:none}</style> {{7*7}} ${7*7} \u202e\u0000 &lt;b&gt;"
)


def test_the_key_is_asked_for_once_and_kept_for_the_tab(api: FakeApi, start_visit: StartVisit) -> None:
    """A wrong key is refused at its field; a valid one survives a reload and is stored for this tab only."""
    visit = start_visit(api.url)
    visit.expected.append("status of 401")
    page = visit.page
    page.get_by_label("API key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid.")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    visit.enter_key(api.key)
    page.reload()
    expect(page.get_by_role("button", name="New clip")).to_be_visible()
    assert page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
    assert api.key not in page.url + page.content()
    other = start_visit(api.url)
    expect(other.page.get_by_label("API key", exact=True)).to_be_visible()


def test_forgetting_the_key_leaves_nothing_behind(api: FakeApi, visit: VisitPage) -> None:
    """One button removes the key and all content loaded with it from the tab."""
    api.add("stored", prompt="a secret lighthouse")
    page = visit().page
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.get_by_label("API key", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("API key", exact=True)).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    assert "secret lighthouse" not in page.content()


def test_a_link_with_the_key_opens_the_gallery(api: FakeApi, start_visit: StartVisit) -> None:
    """The key is taken out of the address at once, also if the link is pasted into an open tab or is wrong."""
    api.add("stored", prompt="a lighthouse")
    here = start_visit(f"{api.url}/#key={api.key}")
    expect(here.card("a lighthouse")).to_be_visible()
    assert here.page.url == f"{api.url}/"
    here.page.reload()
    expect(here.card("a lighthouse")).to_be_visible()  # signed in for the tab
    here.expected.append("status of 401")
    here.page.evaluate("location.hash = 'key=wrong'")
    expect(here.page.get_by_text("This key is not valid.")).to_be_visible()
    assert here.page.url == f"{api.url}/"
    here.page.evaluate(f"location.hash = 'key={api.key}'")
    expect(here.card("a lighthouse")).to_be_visible()
    assert here.page.url == f"{api.url}/"


def test_a_revoked_key_leads_back_to_the_key_form(api: FakeApi, visit: VisitPage) -> None:
    """If the service refuses the key, the page reports that and asks for another key."""
    api.add("stored")
    here = visit()
    here.expected.append("status of 401")
    api.key = "another"
    here.page.get_by_role("button", name="Refresh").click()
    expect(here.page.get_by_label("API key", exact=True)).to_be_visible()
    expect(here.page.get_by_role("alert")).to_contain_text("This key is not valid.")
    here.enter_key("another")
    expect(here.page.locator(".card")).to_have_count(1)


def test_callers_text_is_not_markup(api: FakeApi, visit: VisitPage) -> None:
    """Markup in prompts, tags, errors, facts and addresses is displayed as text and has no effect."""
    task = api.add("failed", prompt=HOSTILE, tags={"<b>x</b>": "<i>y</i>", "__proto__": "constructor"})
    clip = task["clips"][0]
    clip["error"] = {"code": "constructor", "message": HOSTILE}
    clip["timeline"] += [{"at": "never", "fact": "constructor", "source": "toString", "key": f"again {HOSTILE}"}]
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
    expect(dialog.locator(".timeline")).to_contain_text("constructor again <")
    page.keyboard.press("Escape")
    here.card("sneaky").locator(".prompt").click()
    expect(dialog.locator(".timeline")).to_contain_text("Stored in the bucket")
    expect(dialog.get_by_role("link")).to_have_count(0)
    assert page.locator("main img, dialog img, main script, dialog script, dialog style").count() == 0
    assert page.locator(f"[data-task='{sneaky['taskUUID']}'] video[src]").count() == 0
    assert page.title() == "Rushes"


def test_a_clip_plays_on_hover_and_with_controls_after_a_click(api: FakeApi, visit: VisitPage) -> None:
    """A clip shows its first frame, plays silently in a loop under the pointer, and has controls after a click."""
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


def test_reduced_motion_stops_playback_on_hover(api: FakeApi, visit: VisitPage) -> None:
    """With reduced motion a clip plays only after a click."""
    api.add("stored", prompt="a lighthouse")
    here = visit(reduced_motion="reduce")
    video = here.page.locator(".card video")
    expect(video).to_have_js_property("readyState", 4)
    play = here.page.get_by_role("button", name="Play the clip")
    play.hover()
    expect(video).to_have_js_property("paused", True)
    play.click()
    assert is_playing(video)


def test_a_flagged_clip_is_blurred_until_a_click(api: FakeApi, visit: VisitPage) -> None:
    """Hovering does not play a flagged clip, the first click shows it, and the details blur it too."""
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
    """The first stored clip is shown, and a button with its status leads to each other one."""
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


def test_progress_is_displayed_without_a_reload(api: FakeApi, visit: VisitPage) -> None:
    """A running task becomes its clip without a reload, with an announcement, and polling stops."""
    task = api.add("running", prompt="a lighthouse")
    here = visit(own_clock=True)
    expect(here.page).to_have_title(re.compile("^1 running . Rushes$"))
    api.set_status(task, "rendered")
    here.page.clock.run_for(3_000)
    expect(here.card("a lighthouse").locator(".state")).to_contain_text("Saving")
    api.set_status(task, "stored")
    here.page.clock.run_for(3_000)
    expect(here.page.get_by_role("button", name="Play the clip: a lighthouse")).to_be_visible()
    expect(here.page.get_by_text("Succeeded: a lighthouse")).to_be_attached()
    expect(here.page).to_have_title("Rushes")
    before = len(api.requests_for("/tasks"))
    here.page.clock.run_for(600_000)
    assert len(api.requests_for("/tasks")) == before


def test_polling_gets_slower_while_nothing_changes(api: FakeApi, visit: VisitPage) -> None:
    """The pauses between polls grow from three seconds to half a minute."""
    api.add("running")
    page = visit().page
    # The page's timers are shortened, so that the test takes less than a minute.
    page.evaluate(
        "() => { window.pauses = []; const later = setTimeout;"
        " window.setTimeout = (f, ms) => { pauses.push(ms); return later(f, ms >= 3000 && ms < 30000 ? 1 : ms); };"
        " pollOnce(); }"
    )
    grown = [4500, 6750, 10125, 15187.5, 22781.25]
    wait_for(lambda: [ms for ms in page.evaluate("pauses") if 3000 <= ms < 30_000] == grown)


def test_a_hidden_tab_does_not_poll(api: FakeApi, visit: VisitPage) -> None:
    """A hidden tab sends no requests while a task runs, and polls at once when it is visible again."""
    api.add("running")
    page = visit(own_clock=True).page
    turn = (
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    before = len(api.requests_for("/tasks"))
    answered = threading.Event()
    api.intercept = lambda _: None if answered.wait(10) else (503, {})
    page.clock.run_for(3_000)
    wait_for(lambda: len(api.requests_for("/tasks")) == before + 1)
    page.evaluate(turn, True)  # before the response
    answered.set()
    wait_for(lambda: not page.evaluate("poll.busy"))
    page.clock.run_for(600_000)
    assert len(api.requests_for("/tasks")) == before + 1
    page.evaluate(turn, False)
    wait_for(lambda: len(api.requests_for("/tasks")) == before + 2)


def test_a_running_task_below_the_first_page_is_polled(api: FakeApi, visit: VisitPage) -> None:
    """Running tasks below the newest page are polled, and an erased one is removed."""
    old, erased = api.add("running", prompt="old", ago=9000), api.add("running", prompt="erased", ago=9001)
    for number in range(30):
        api.add("failed", prompt=f"take {number}", ago=60 + number)
    here = visit(own_clock=True)
    here.page.mouse.wheel(0, 20_000)
    expect(here.card("old")).to_be_visible()
    here.expected.append("status of 404")
    api.set_status(old, "stored")
    del api.tasks[erased["taskUUID"]]
    here.page.clock.run_for(3_000)
    expect(here.card("old").locator(".status")).to_have_text("Succeeded")
    expect(here.card("erased")).to_have_count(0)


def test_sixty_tasks_load_by_scrolling(api: FakeApi, visit: VisitPage) -> None:
    """The first page fills the screen and scrolling loads the rest, newest first and each once."""
    for number in range(60):
        api.add("failed", prompt=f"take {number}", ago=60 * number)
    page = visit(viewport={"width": 1280, "height": 500}).page
    assert len(api.requests_for("/tasks")) == 1
    for count in (48, 60):
        page.mouse.wheel(0, 20_000)
        expect(page.locator(".card")).to_have_count(count)
    assert page.locator(".prompt").all_inner_texts() == [f"take {number}" for number in range(60)]
    expect(page.get_by_text("That is all.")).to_be_visible()


def test_short_pages_load_the_next_one(api: FakeApi, visit: VisitPage) -> None:
    """If a filter leaves few tasks of a page, the next page is loaded without scrolling."""
    for number in range(250):
        api.add("failed" if number % 150 else "stored", prompt=f"take {number}", ago=60 * number)
    here = visit()
    here.choose("Status", "Succeeded")
    expect(here.page.locator(".prompt")).to_have_text(["take 0", "take 150"])
    wait_for(lambda: [r.query.get("cursor") for r in api.requests_for("/tasks")][-3:] == [None, "100", "200"])
    expect(here.page.get_by_text("Searched all 250 tasks.")).to_be_visible()


def test_a_search_reports_how_far_it_went(api: FakeApi, visit: VisitPage) -> None:
    """The service searches prompts page by page; the page counts the searched tasks and continues on request."""
    api.add("failed", prompt="An Owl in the barn", ago=90_000)
    for number in range(620):
        api.add("failed", prompt=f"take {number}", ago=60 + number)
    here = visit()
    page = here.page
    page.get_by_label("Search prompts").fill("  owl in")
    page.keyboard.press("Enter")
    expect(page.locator("#end-text")).to_have_text("Searched the latest 600 tasks.")
    assert api.requests_for("/tasks")[-1].query["prompt"] == "owl in"
    page.get_by_role("button", name="Search further").click()
    expect(page.locator(".prompt")).to_have_text(["An Owl in the barn"])
    expect(page.locator("#end-text")).to_have_text("Searched all 621 tasks.")
    page.get_by_label("Search prompts").fill("ostrich")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Search further").click()
    expect(page.get_by_text("Searched all 621 tasks: none of them matches.")).to_be_visible()
    page.locator("#clear").click()
    expect(page.locator(".prompt").first).to_have_text("take 0")


def test_a_filtered_poll_keeps_older_matches(api: FakeApi, visit: VisitPage) -> None:
    """If no task of the newest page matches, a poll does not load the list anew."""
    api.add("running", prompt="old", ago=9000)
    for number in range(120):
        api.add("failed", prompt=f"take {number}", ago=60 + number)
    here = visit(own_clock=True)
    here.choose("Status", "Running")
    expect(here.card("old")).to_be_visible()
    here.page.evaluate("document.querySelector('.card').dataset.mark = 'kept'")
    before = len(api.requests_for("/tasks"))
    here.page.clock.run_for(3_000)
    wait_for(lambda: len(api.requests_for("/tasks")) > before and not here.page.evaluate("poll.busy"))
    expect(here.page.locator(".card[data-mark=kept]")).to_have_count(1)


def test_filters_by_status_day_and_tag(api: FakeApi, visit: VisitPage) -> None:
    """Each filter narrows the list, filters combine, a click on a tag filters by it, and all can be cleared."""
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
    page.get_by_label("Tag", exact=True).fill("project=owl")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Write the tag as name:value.")).to_be_hidden()
    page.get_by_label("Tag", exact=True).fill("project:none")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def test_an_empty_gallery_leads_to_the_form(api: FakeApi, visit: VisitPage) -> None:
    """Without tasks the page has a sentence and a button for the first order."""
    page = visit().page
    expect(page.get_by_role("heading", name="No clips yet")).to_be_visible()
    page.get_by_role("button", name="A lighthouse at dusk").click()
    expect(page.locator("#positivePrompt")).to_have_value(re.compile("^A lighthouse at dusk"))
    expect(page.get_by_role("button", name="Buy 1 clip for $0.924")).to_be_enabled()
    page.keyboard.press("Escape")
    assert api.ordered() == []
    page.get_by_role("button", name="Make the first one").click()
    expect(page.get_by_role("dialog", name="New clip")).to_be_visible()


def test_a_failed_list_can_be_retried(api: FakeApi, visit: VisitPage) -> None:
    """An error in loading the list is displayed with a button that retries."""
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


def test_a_late_response_is_ignored(api: FakeApi, visit: VisitPage) -> None:
    """The slow response for a former filter is not displayed."""
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
    wait_for(lambda: any(request.query.get("status") == "succeeded" for request in api.requests_for("/tasks")))
    here.choose("Status", "Failed")
    expect(here.page.locator(".prompt")).to_have_text(["failed"])
    gate.set()
    here.page.wait_for_timeout(200)  # an ignored response leaves no sign of its arrival
    expect(here.page.locator(".prompt")).to_have_text(["failed"])


def test_an_expired_link_is_fetched_again_once(api: FakeApi, visit: VisitPage) -> None:
    """A clip with an expired link plays through a new one; if that fails too, the page reports it after one request."""
    task = api.add("stored", prompt="a lighthouse")
    lost = api.add("stored", prompt="lost")
    del api.rendering[lost["clips"][0]["objectKey"]]
    api.list_links_expired = True
    here = visit()
    here.expected.append("status of 403")
    expect(here.card("a lighthouse").locator("video")).to_have_js_property("readyState", 4)
    expect(here.card("lost").locator(".state")).to_contain_text("Cannot be played here")
    for each in (task, lost):
        assert len(api.requests_for(f"/tasks/{each['taskUUID']}")) == 1


def test_the_details_are_complete(api: FakeApi, visit: VisitPage) -> None:
    """Timeline, facts, request and links are displayed; the URL opens the details again, and "back" closes them."""
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
    expect(dialog.get_by_role("heading", level=2)).to_have_text("a lighthouse\nin two lines")
    expect(dialog.locator("#detail-status")).to_have_text("Partial 1/2")
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


@pytest.mark.parametrize("listener", ["hashchange", "close"], ids=["before-the-event", "after"])
def test_back_and_forth_at_once_ends_in_the_details(api: FakeApi, visit: VisitPage, listener: str) -> None:
    """The URL alone decides if a task is open, also if it changes before the event of the closing."""
    task = api.add("stored", prompt="a lighthouse")
    here = visit()
    here.page.locator(".prompt").click()
    dialog = here.page.get_by_role("dialog")
    expect(dialog.locator(".timeline li")).not_to_have_count(0)
    here.page.evaluate(
        """([listener, hash]) => {
          const target = listener === "close" ? document.getElementById("detail") : window;
          target.addEventListener(listener, () => { location.hash = hash; }, { once: true });
          let changes = 0;
          const both = new Promise((resolve) => {
            window.addEventListener("hashchange", () => { if (++changes === 2) resolve(); });
          });
          location.hash = "";
          return both;
        }""",
        [listener, task["taskUUID"]],
    )
    expect(dialog.locator(".timeline li")).not_to_have_count(0)
    expect(here.page).to_have_url(re.compile(f"#{task['taskUUID']}$"))
    here.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(here.page).to_have_url(f"{api.url}/")


@pytest.mark.parametrize("status", ["review", "running"])
def test_the_details_have_the_next_step(api: FakeApi, visit: VisitPage, status: str) -> None:
    """An open clip has the time of its next check, and a clip in review the operator's decision."""
    task = api.add(status, prompt="a lighthouse")
    task["clips"][0]["possiblySentAt"] = task["createdAt"]
    page = visit().page
    page.locator(".prompt").click()
    dialog = page.get_by_role("dialog")
    words = "Waits for an operator to decide" if status == "review" else re.compile(r"Next check in 1:\d\d")
    expect(dialog.locator(".timeline li").last).to_contain_text(words)
    expect(dialog).to_contain_text("it may have been bought")


def test_the_details_have_the_last_attempt_at_the_webhook(api: FakeApi, visit: VisitPage) -> None:
    """A task with a receiver shows the state of its clip's webhook; another task has no such line."""
    task = api.add("stored", prompt="a lighthouse")
    attempt = {"clip": 0, "id": "1", "attempt": 1, "at": task["createdAt"], "outcome": "retry", "status": 503}
    second = {**attempt, "attempt": 2, "nextAt": task["createdAt"], "failure": "timeout"}
    task["webhooks"] = [attempt, second, {**attempt, "clip": 1}]
    page = visit().page
    page.locator(".prompt").click()
    facts = page.get_by_role("dialog").locator("dl")
    expect(facts).to_contain_text(re.compile("Webhooktimeout, attempt 2; next "))
    task["webhooks"] = [{**attempt, "outcome": "delivered", "status": 204}]
    page.reload()
    expect(facts).to_contain_text(re.compile("Webhookdelivered .*, attempt 1"))
    del task["webhooks"]
    page.reload()
    expect(facts).to_contain_text("Cost")
    expect(facts).not_to_contain_text("Webhook")


def test_an_erased_task_is_shown_as_such(api: FakeApi, visit: VisitPage) -> None:
    """Card, details, timeline and filter have the erasure; there is nothing to play, download or order again."""
    api.add("erased", "erased")
    api.add("stored")
    here = visit()
    page = here.page
    card = page.locator(".card").filter(has_text="The request was erased")
    expect(card).to_contain_text("Erased")
    expect(card).to_contain_text("An operator has deleted the clip and its request on ")
    expect(card.get_by_role("button", name=re.compile("Play|Retry"))).to_have_count(0)
    card.get_by_role("button", name="The request was erased").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The request was erased.")
    expect(dialog.locator(".timeline li").last).to_contain_text("Erased, with the request and the manifest")
    expect(dialog.get_by_role("link", name=re.compile("Download"))).to_have_count(0)
    expect(page.get_by_role("button", name="Use again")).to_be_hidden()
    page.keyboard.press("Escape")
    here.choose("Status", "Erased")
    expect(page.locator(".card")).to_have_count(1)


def test_an_erased_request_is_explained(api: FakeApi, visit: VisitPage) -> None:
    """A task with an erased request keeps its card, without the actions that need the request."""
    api.add("stored")["request"] = {}
    page = visit().page
    page.get_by_role("button", name="The request is no longer kept").click()
    expect(page.get_by_role("dialog")).to_contain_text("The request is no longer kept.")
    expect(page.get_by_role("button", name="Use again")).to_be_hidden()


def test_a_player_stops_when_its_clip_is_erased(api: FakeApi, visit: VisitPage) -> None:
    """After the next refresh the card has the state, and its file is unloaded."""
    task = api.add("stored", prompt="gone soon")
    here = visit()
    video = here.page.locator(".card video")
    expect(video).to_have_attribute("src", re.compile("mp4"))
    api.set_status(task, "erased")
    here.page.get_by_role("button", name="Refresh").click()
    expect(here.page.locator(".card .status")).to_have_text("Erased")
    expect(video).not_to_have_attribute("src", re.compile("mp4"))


def test_the_parts_of_cards_line_up(api: FakeApi, visit: VisitPage) -> None:
    """Pictures, titles, clip buttons and facts of a row have the same height, whatever a card has of them."""
    api.add("stored", "failed", prompt="two takes", tags={"project": "fox"})
    api.add("failed", prompt="a long prompt " * 20, ago=120)
    api.add("stored", prompt="short", ago=180)
    page = visit().page

    def tops(selector: str) -> list[float]:
        found: list[float] = page.locator(f".card > {selector}:visible").evaluate_all(
            "all => all.map((each) => each.getBoundingClientRect().top)"
        )
        return found

    for selector in (".title", ".facts", ".stage"):
        assert len(tops(selector)) == 3
        assert len(set(tops(selector))) == 1, selector
    stage, buttons = page.locator(".stage").first.bounding_box(), page.locator(".clip-buttons:visible").bounding_box()
    assert stage
    assert buttons
    assert buttons["y"] >= stage["y"] + stage["height"]
    title, status = page.locator(".prompt").first.bounding_box(), page.locator(".card .status").first.bounding_box()
    assert title
    assert status
    assert status["x"] > title["x"] + title["width"]
    assert abs(status["y"] - title["y"]) < 8


def test_arrow_keys_and_buttons_lead_to_the_next_task(api: FakeApi, visit: VisitPage) -> None:
    """The details lead to the neighbours in the list, also beyond the loaded page, and "back" leads to the list."""
    for number in range(30):
        api.add("failed", prompt=f"take {number}", ago=60 + number)
    here = visit(viewport={"width": 1280, "height": 500})
    page = here.page
    here.card("take 1").locator(".prompt").click()
    title = page.get_by_role("dialog").get_by_role("heading", level=2)
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("take 2")
    page.get_by_role("button", name="Previous task").click()
    expect(title).to_have_text("take 1")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("take 0")
    expect(page.get_by_role("button", name="Previous task")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    for number in range(1, 30):
        page.keyboard.press("ArrowRight")
        expect(title).to_have_text(f"take {number}")
    expect(page.get_by_role("button", name="Next task")).to_be_disabled()
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(here.card("take 29").locator(".prompt")).to_be_focused()


def test_ids_are_copied(api: FakeApi, visit: VisitPage) -> None:
    """A button copies each ID; without access to the clipboard, the text appears in its place."""
    task = api.add("stored")
    here = visit(permissions=["clipboard-read", "clipboard-write"])
    page = here.page
    page.locator(".prompt").click()
    dialog = page.get_by_role("dialog")
    copy = dialog.get_by_role("button", name="Copy: Object key")
    copy.click()
    expect(copy).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == task["clips"][0]["objectKey"]
    expect(dialog.get_by_role("status")).to_have_text("Copied: Object key")
    assert task["taskUUID"] not in dialog.inner_text()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    dialog.get_by_role("button", name="Copy: Task ID").click()
    expect(dialog.get_by_text(task["taskUUID"], exact=True)).to_be_visible()
    assert page.evaluate("getSelection().toString()") == task["taskUUID"]


def test_a_failure_has_its_reason_once(api: FakeApi, visit: VisitPage) -> None:
    """The card and the details each have the reason in one place."""
    api.add("failed", prompt="boats")
    here = visit()
    reason = "turned down by the provider"
    assert here.card("boats").inner_text().count(reason) == 1
    here.card("boats").locator(".prompt").click()
    dialog = here.page.get_by_role("dialog")
    expect(dialog.locator(".timeline")).to_contain_text("The render failed")
    assert dialog.inner_text().count(reason) == 1


def test_a_partial_result_is_not_green(api: FakeApi, visit: VisitPage) -> None:
    """The status of a task with a failed clip has a colour of its own."""
    for statuses in (("stored",), ("stored", "failed"), ("failed",)):
        api.add(*statuses)
    colours = (
        visit().page.locator(".card .status").evaluate_all("all => all.map((each) => getComputedStyle(each).color)")
    )
    assert len(set(colours)) == 3


def test_the_pause_after_a_failed_poll_counts_down(api: FakeApi, visit: VisitPage) -> None:
    """The seconds until the next try are counted, out of sight of screen readers."""
    api.add("running")
    here = visit(own_clock=True)
    here.expected.append("status of 503")
    api.intercept = lambda request: (503, {}) if request.path == "/tasks" else None
    here.page.clock.run_for(3_000)
    count = here.page.locator("#notice-count")
    expect(count).to_have_text("Trying again in 6 s.")
    here.page.clock.run_for(2_000)
    expect(count).to_have_text("Trying again in 4 s.")
    expect(count).to_have_attribute("aria-hidden", "true")


def test_the_last_look_is_followed(api: FakeApi, visit: VisitPage) -> None:
    """The details of a failed clip are requested again when the time of its next check has come."""
    task = api.add("failed", prompt="boats")
    task["clips"][0] |= {"open": True, "nextCheckAt": iso(time.time() + 50)}
    here = visit(own_clock=True)
    here.page.locator(".prompt").click()
    dialog = here.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Next check in 0:")
    expect(dialog.get_by_role("button", name="Retry")).to_be_hidden()
    api.set_status(task, "stored")
    here.page.clock.run_for(70_000)
    expect(dialog.locator("#detail-status")).to_have_text("Succeeded")


def test_money_has_one_precision_in_each_place(api: FakeApi, visit: VisitPage) -> None:
    """The bar and the cards have cents, the details and the form a tenth of a cent."""
    api.add("stored", prompt="one", duration=5)
    api.add("stored", "stored", prompt="two", ago=120, clip={"cost": 1.85})
    here = visit()
    page = here.page
    amounts = " ".join(page.locator(".budget, .money").all_inner_texts())
    assert re.findall(r"\$[\d.]+", amounts) == ["$12.94", "$37.06", "$0.92", "$3.70"]
    here.card("two").locator(".prompt").click()
    expect(page.locator("dialog .table")).to_contain_text("$1.850 of $3.700")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New clip").click()
    expect(page.locator("#sum")).to_have_text("$0.924")
    assert set(re.findall(r"\$\d+\.(\d+)", page.locator(".checkout").inner_text())) == {"924", "060", "136"}


def test_a_large_seed_is_shown_exactly(api: FakeApi, visit: VisitPage) -> None:
    """A seed above 2^53 is shown from its text, because the browser rounds numbers."""
    seed = 2**64 - 3
    api.add("stored")["clips"][0] |= {"seed": seed, "seedText": str(seed)}
    page = visit().page
    page.locator(".prompt").click()
    expect(page.locator("dialog .table")).to_contain_text(str(seed))

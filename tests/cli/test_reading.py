"""`list`, `show`, `explain`, `cost` and `watch`: what is shown, and that it cannot be made to do anything."""

import csv
import io
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from rushes.domain.clip import Kind, Status
from rushes_cli import explaining, watching
from rushes_cli.output import age, money, plain, size
from tests.cli.conftest import FakeService, Json, Run, answer, cut, made, stamp

TODAY = datetime.now(UTC)


def test_list_in_a_pipe(fake: FakeService, run: Run) -> None:
    """In a pipe a list is tab-separated under a head, whole, the newest task first."""
    old = fake.add(createdAt=stamp(TODAY - timedelta(hours=3)))
    new = fake.add("failed")
    head, first, second = (line.split("\t") for line in run("list").out.splitlines())
    assert head == ["task", "status", "clips", "cost", "age", "prompt"]
    assert first[:4] == [new["taskUUID"], "failed", "0/1", "$0.924"]
    assert second == [old["taskUUID"], "succeeded", "1/1", "$0.924", "3 h", "a lighthouse"]


def test_list_goes_through_pages(fake: FakeService, run: Run) -> None:
    """A page may be short or empty and still have a next one; --limit ends where it says."""
    for number in range(30):
        fake.add("running" if number == 0 else "stored", createdAt=stamp(TODAY - timedelta(seconds=100 - number)))
    fake.most_per_page = 7
    assert len(run("list", "--json").json["tasks"]) == 20
    assert len(run("list", "--json", "--all").json["tasks"]) == 30
    (only,) = run("list", "--json", "--status", "running").json["tasks"]
    assert only["status"] == "running"


def test_filters(fake: FakeService, run: Run) -> None:
    """Status, day and tag reach the service; what cannot be one is said at once."""
    fake.add(request={"positivePrompt": "x", "tags": {"a": "b"}})
    assert run("list", "--tag", "a=b", "--day", TODAY.strftime("%Y-%m-%d"), "--json").json["tasks"]
    assert run("list", "--tag", "a=c", "--json").json == {"tasks": []}
    assert run("list", "--tag", "a").status == 2
    assert run("list", "--tag", "a:b=c").status == run("cost", "--tag", "a:b=c").status == 2
    assert run("list", "--tag", "a=b=c", "--json").json == {"tasks": []}
    assert run("list", "--status", "lost").status == 2


def test_show(fake: FakeService, run: Run) -> None:
    """One task is shown with its clips and errors; with --json it is the service's own word."""
    error = {"code": "timeoutProvider", "message": "Too late."}
    task = fake.add("failed", clip={"error": error})
    assert run("show", task["taskUUID"].upper(), "--json").json == task
    shown = run("show", task["taskUUID"]).out
    assert all(text in shown for text in (task["taskUUID"], "a lighthouse", "failed", "timeoutProvider: Too late."))
    assert run("show", str(uuid.uuid4())).err == f"rushes: You have no task {fake.asked[-1][1][7:]}.\n"


def test_what_people_wrote_steers_no_terminal(fake: FakeService, run: Run) -> None:
    """Control sequences, markup and reversed text in a prompt come out as harmless characters."""
    evil = "\x1b]0;owned\x07[bold]x[/bold]\u202egnp.exe\r\nnext\tcell"
    task = fake.add(request={"positivePrompt": evil, "destination": evil})
    for command in (["list"], ["show", task["taskUUID"]], ["explain", task["taskUUID"]]):
        out = run(*command).out
        assert not set("\x1b\x07\u202e\r") & set(out)
    assert "[bold]x[/bold]" in run("list").out
    assert plain(evil).count("\ufffd") == 4


@pytest.mark.parametrize("status", [status for status in Status if status not in ("succeeded", "partial")])
@pytest.mark.parametrize("is_open", [True, False])
def test_every_state_has_an_outlook(status: Status, is_open: bool) -> None:
    """Whatever a clip's state, there is a sentence on what comes next, and it names no placeholder."""
    clip = {"status": status, "open": is_open, "nextCheckAt": "2026-11-24T10:00:00.000Z"}
    for more in ({}, {"possiblySentAt": "2026-11-24T09:00:00.000Z"}):
        text = explaining.next_step({**clip, **more})
        assert text.endswith(".")
        assert "{" not in text


@pytest.mark.parametrize("kind", list(Kind))
def test_every_fact_has_a_sentence(kind: Kind) -> None:
    """Every kind of fact that can be recorded is told in words of its own."""
    fact = {"fact": kind, "key": "k", "source": "poll", "fields": {"message": "why.", "cost": 0.924, "size": 7}}
    text = explaining.describe_fact(fact)
    assert text.endswith(".")
    assert "{" not in text
    assert not text.startswith(str(kind))


def test_explain_tells_the_story_in_order(fake: FakeService, run: Run) -> None:
    """Steps come in the order of their times, beginning with the record, and end with what is next."""
    at = [stamp(TODAY + timedelta(hours=hour)) for hour in (1, 2, 3)]
    timeline = [
        {"at": at[1], "fact": "rendered", "key": "v", "source": "webhook", "fields": {"cost": 0.924, "seed": 7}},
        {"at": at[2], "fact": "stored", "key": "1", "source": "bucket", "fields": {"size": 2_000_000}},
    ]
    task = fake.add(clip={"timeline": timeline, "possiblySentAt": at[0]})
    (told,) = run("explain", task["taskUUID"], "--json").json["clips"]
    assert [step["at"] for step in told["story"]] == [task["createdAt"], *at]
    assert "Rendered for $0.924 as video v, seed 7. Source: webhook." in told["story"][2]["text"]
    assert "2.0 MB" in told["story"][3]["text"]
    assert told["next"] == "none; the clip is ready."
    assert run("explain", task["taskUUID"], "--clip", "3").status == 2


def spent(fake: FakeService, days: int, cost: float, **request: Any) -> Json:
    at = stamp(TODAY.replace(hour=0, minute=0, second=1) - timedelta(days=days))
    sent = {"positivePrompt": "x", "model": "klingai:5@3", **request}
    return fake.add(createdAt=at, cost=cost, request=sent, clip={"cost": cost})


def test_cost(fake: FakeService, run: Run) -> None:
    """Costs are summed by day, tag or model between two days, in whole micro-dollars, as table, CSV and JSON."""
    fake.most_per_page = 2
    spent(fake, 0, 0.924, tags={"project": "a"})
    spent(fake, 0, 1.848, tags={"project": "b", "x": "y"})
    spent(fake, 1, 0.1, tags={"project": "a"})
    spent(fake, 9, 99.0)
    since = ("--since", (TODAY - timedelta(days=1)).strftime("%Y-%m-%d"))
    found = run("cost", *since, "--json").json
    assert [group["cost"] for group in found["groups"]] == [0.1, 2.772]
    assert found["total"] == {"tasks": 3, "clips": 3, "cost": 2.872}
    assert found["budget"]["limit"] == 50.0
    by_tag = run("cost", *since, "--by", "tag", "--csv").out
    assert list(csv.reader(io.StringIO(by_tag))) == [
        ["tag", "tasks", "clips", "cost"],
        ["project=b", "1", "1", "1.848000"],
        ["x=y", "1", "1", "1.848000"],
        ["project=a", "2", "2", "1.024000"],
    ]
    named = run("cost", *since, "--by", "tag", "--tag-name", "x", "--json").json["groups"]
    assert {group["name"]: group["tasks"] for group in named} == {"y": 1, "(none)": 2}
    assert run("cost", "--by", "model", *since).out.splitlines()[-1] == "total\t3\t3\t$2.872"
    only = run("cost", *since, "--tag", "project=a", "--json").json
    assert (only["total"]["tasks"], only["total"]["cost"]) == (2, 1.024)
    assert run("cost", "--tag-name", "x").status == 2
    assert run("cost", "--stack", "rushes-dev").status == 2
    assert run("cost", "--since", "yesterday").status == 2
    assert run("cost", "--since", "2026-02-01", "--until", "2026-01-01").status == 2


def test_a_tag_is_no_formula(fake: FakeService, run: Run) -> None:
    """A value that a spreadsheet would compute is told as text."""
    spent(fake, 0, 1.0, tags={"=cmd": "1"})
    assert "'=cmd=1," in run("cost", "--by", "tag", "--csv").out


def progress(fake: FakeService, task: Json, *statuses: str) -> None:
    """At each question the task's clip moves on by one; the last status stays."""
    left = list(statuses)

    def move(request: Request) -> Response | None:
        if request.path == f"/tasks/{task['taskUUID']}" and left:
            match left.pop(0):
                case "cut":
                    return cut(request)
                case "busy":
                    return answer({}, 503)
                case status:
                    task["clips"][0]["status"] = status
                    task["status"] = {"stored": "succeeded", "failed": "failed"}.get(status, "running")
        return None

    fake.trouble = move


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.0)


@pytest.mark.usefixtures("hasty")
def test_watch_tells_each_change(fake: FakeService, run: Run) -> None:
    """Without a TASK all that run are watched; each change is a line, and success ends with 0."""
    task = fake.add("running")
    progress(fake, task, "running", "running", "rendered", "stored")
    ran = run("watch")
    assert ran.status == 0
    assert [line.split("\t")[1:3] for line in ran.out.splitlines()] == [
        ["running", "running"],
        ["running", "rendered"],
        ["succeeded", "stored"],
    ]
    assert run("watch").err == "No running tasks.\n"


@pytest.mark.usefixtures("hasty")
def test_watch_outlasts_a_lost_connection(fake: FakeService, run: Run) -> None:
    """Answers that do not come are told once, and the watch goes on."""
    task = fake.add("running")
    progress(fake, task, "running", *["cut"] * 4, *["busy"] * 3, "failed")
    ran = run("watch", task["taskUUID"], "--json")
    assert ran.status == 1
    assert [json.loads(line)["status"] for line in ran.out.splitlines()] == ["running", "failed"]
    assert ran.err.count("Retrying.") == 1


def test_watch_ends_when_its_time_is_over(fake: FakeService, run: Run) -> None:
    """A time that runs out has an exit status of its own, and the command can be given again."""
    fake.add("running")
    ran = run("watch", "--timeout", "0")
    assert ran.status == 3
    assert "1 of 1 tasks are still in progress" in ran.err


@pytest.mark.usefixtures("hasty")
def test_submit_and_watch(fake: FakeService, run: Run) -> None:
    """--watch stays with what was ordered."""

    def finish(request: Request) -> None:
        for uuid_, task in list(fake.tasks.items()):
            fake.tasks[uuid_] = made(task["request"], "stored")

    fake.after = finish
    ran = run("submit", "a lighthouse", "--watch")
    assert ran.status == 0
    assert "succeeded\tstored" in ran.out


def test_figures_for_people() -> None:
    """Money, sizes and ages are short, and right at their edges."""
    assert [money(amount) for amount in (0, 924_000, 1_234_567_890, -500)] == [
        "$0.000",
        "$0.924",
        "$1,234.567",
        "-$0.000",
    ]
    assert [size(count) for count in (0, 999, 1000, 2_500_000, None)] == ["0 B", "999 B", "1.0 kB", "2.5 MB", "-"]
    ages = [age(stamp(TODAY - timedelta(seconds=seconds)), TODAY) for seconds in (0.4, 59, 60, 7200, 200_000)]
    assert ages == ["0 s", "59 s", "1 min", "2 h", "2 d"]

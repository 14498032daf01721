"""`list`, `show`, `explain`, `cost` and `watch`: their output, and that no content in it can do harm."""

import csv
import io
import json
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from rushes.domain.clip import Kind, Status
from rushes_cli import explaining, watching
from rushes_cli.output import age, money, plain, size
from tests.cli.conftest import FakeService, Json, Run, answer, cut, make_task, stamp

TODAY = datetime.now(UTC)


def test_list_in_a_pipe(fake: FakeService, run: Run) -> None:
    """In a pipe a list is tab-separated with a header, newest task first; nothing is cut and times are exact."""
    long = "a lighthouse at dusk " * 20
    old = fake.add(createdAt=stamp(TODAY - timedelta(hours=3)), request={"positivePrompt": long})
    new = fake.add("failed")
    head, first, second = (line.split("\t") for line in run("list").out.splitlines())
    assert head == ["prompt", "task", "status", "clips", "cost", "created"]
    assert first == ["a lighthouse", new["taskUUID"], "failed", "0/1", "$0.924", new["createdAt"]]
    assert second == [long, old["taskUUID"], "succeeded", "1/1", "$0.924", old["createdAt"]]


def test_show_in_a_pipe(fake: FakeService, run: Run) -> None:
    """In a pipe the inputs are uncut, sizes are in bytes, and times are exact."""
    image = "data:image/png;base64," + "A" * 500
    request = {"positivePrompt": "a lighthouse", "inputs": {"frameImages": [image]}}
    task = fake.add(request=request, clip={"size": 4_200_123})
    lines = run("show", task["taskUUID"]).out.splitlines()
    assert lines[0] == "a lighthouse"
    assert f"ordered  {task['createdAt']}" in lines
    assert f"inputs   frameImages={image}" in lines
    assert lines[-1].split("\t")[3] == "4200123"


# ----------------------------------------------------------------------------------------------------------------------
# Names of tasks
# ----------------------------------------------------------------------------------------------------------------------


def add_named(fake: FakeService, uuid_: str, prompt: str) -> Json:
    task = make_task({"taskUUID": uuid_, "positivePrompt": prompt}, "failed")
    fake.tasks[uuid_] = task
    return task


HARBOUR, CANAL = "3fa85f64-5717-4562-b3fc-2c963f66afa6", "3fa85f64-5717-4562-a000-000000000000"


@pytest.mark.parametrize("verb", ["show", "explain", "watch", "retry"])
def test_a_task_is_named_by_its_first_characters(fake: FakeService, run: Run, verb: str) -> None:
    """Every verb takes the beginning of a taskUUID that no other task has, in any case and with or without hyphens."""
    add_named(fake, HARBOUR, "a harbour")
    add_named(fake, str(uuid.uuid4()).replace("3fa8", "0000"), "a canal")
    for name in ("3fa8", "3FA85F64", "3fa85f6457", "3fa85f64-5717-4562-b3fc-2c963f66afa"):
        result = run(verb, name)
        assert HARBOUR in result.out + str(fake.tasks), (name, result.err)
        assert result.status != 2, result.err


def test_an_ambiguous_name_lists_the_tasks(fake: FakeService, run: Run) -> None:
    """A beginning that several tasks have is refused with these tasks; more characters name one of them."""
    add_named(fake, HARBOUR, "a harbour \x1b[31m")
    add_named(fake, CANAL, "a canal")
    result = run("show", "3fa85f64")
    assert (result.status, result.out) == (2, "")
    assert f"  {HARBOUR}  a harbour " in result.err
    assert f"  {CANAL}  a canal" in result.err
    assert "\x1b" not in result.err
    assert run("show", "3fa85f64-5717-4562-a").out.startswith("a canal\n")
    for number in range(9):
        add_named(fake, f"3fa85f64-0000-4000-8000-00000000000{number}", "x")
    assert len(run("show", "3fa8").err.splitlines()) == 7


def test_an_unknown_name_is_an_error(fake: FakeService, run: Run) -> None:
    """No task with this beginning, and text that begins no UUID, have their own errors."""
    result = run("show", "abcd")
    assert (result.status, result.err) == (1, "rushes: There is no task whose taskUUID begins with abcd.\n")
    for text in ("abc", "a harbour", "3fa85f64-5717-4562-b3fc-2c963f66afa6aa", ""):
        assert run("show", text).status == 2
    assert "is not a taskUUID, nor the first 4 or more characters of one" in run("show", "abc").err


def test_a_whole_uuid_costs_no_further_request(fake: FakeService, run: Run) -> None:
    """The task is requested at once; only a beginning is looked up first."""
    add_named(fake, HARBOUR, "a harbour")
    run("show", HARBOUR)
    assert [path for _, path, _ in fake.requests] == [f"/tasks/{HARBOUR}"]
    fake.requests.clear()
    run("show", "3fa8")
    assert [path for _, path, _ in fake.requests] == ["/tasks", f"/tasks/{HARBOUR}"]


def test_since(fake: FakeService, run: Run) -> None:
    """`--since` selects tasks from a day or a time on, and reads the list no further."""
    at = TODAY.replace(microsecond=0)
    tasks = [fake.add(createdAt=stamp(at - timedelta(hours=12 * number))) for number in range(30)]
    fake.max_per_page = 2
    since = (at - timedelta(hours=24)).isoformat()
    listed = run("list", "--since", since, "--json").json["tasks"]
    assert [task["taskUUID"] for task in listed] == [task["taskUUID"] for task in tasks[:3]]
    assert len(fake.requests) == 2
    assert len(run("list", "--since", since, "--json", "-n", "2").json["tasks"]) == 2
    assert len(run("list", "--since", "2026-01-01", "--all", "--json").json["tasks"]) == 30
    assert run("list", "--since", "yesterday").status == 2


def test_list_goes_through_pages(fake: FakeService, run: Run) -> None:
    """Short and empty pages are followed to the next one, up to `--limit`."""
    for number in range(30):
        fake.add("running" if number == 0 else "stored", createdAt=stamp(TODAY - timedelta(seconds=100 - number)))
    fake.max_per_page = 7
    assert len(run("list", "--json").json["tasks"]) == 20
    assert len(run("list", "--json", "--all").json["tasks"]) == 30
    (only,) = run("list", "--json", "--status", "running").json["tasks"]
    assert only["status"] == "running"


def test_filters(fake: FakeService, run: Run) -> None:
    """Status, day and tag are sent to the service, and an invalid filter is refused before that."""
    fake.add(request={"positivePrompt": "x", "tags": {"a": "b"}})
    assert run("list", "--tag", "a=b", "--day", TODAY.strftime("%Y-%m-%d"), "--json").json["tasks"]
    assert run("list", "--tag", "a=c", "--json").json == {"tasks": []}
    assert run("list", "--tag", "a").status == 2
    assert run("list", "--tag", "a:b", "--json").json["tasks"]  # as the gallery and the API write it
    assert run("list", "--tag", "a:b=c", "--json").json == {"tasks": []}
    assert run("list", "--tag", "a=b=c", "--json").json == {"tasks": []}
    assert run("list", "--status", "lost").status == 2


def test_show(fake: FakeService, run: Run) -> None:
    """One task is shown with its clips and errors; with `--json` it is the service's JSON unchanged."""
    error = {"code": "timeoutProvider", "message": "Too late."}
    task = fake.add("failed", clip={"error": error})
    assert run("show", task["taskUUID"].upper(), "--json").json == task
    output = run("show", task["taskUUID"]).out
    assert all(text in output for text in (task["taskUUID"], "a lighthouse", "failed", "timeoutProvider: Too late."))
    assert run("show", str(uuid.uuid4())).err == f"rushes: You have no task {fake.requests[-1][1][7:]}.\n"


def test_control_characters_are_replaced(fake: FakeService, run: Run) -> None:
    """Control sequences, markup and reversed text in a prompt are printed as harmless characters."""
    evil = "\x1b]0;owned\x07[bold]x[/bold]\u202egnp.exe\r\nnext\tcell"
    task = fake.add(request={"positivePrompt": evil, "destination": evil})
    for command in (["list"], ["show", task["taskUUID"]], ["explain", task["taskUUID"]]):
        out = run(*command).out
        assert not set("\x1b\x07\u202e\r") & set(out)
    assert "[bold]x[/bold]" in run("list").out
    assert plain(evil).count("\ufffd") == 4


@pytest.mark.parametrize("status", [status for status in Status if status not in ("succeeded", "partial")])
@pytest.mark.parametrize("is_open", [True, False])
def test_every_state_has_a_next_step(status: Status, is_open: bool) -> None:
    """Every state of a clip has a sentence about the next step, without a placeholder."""
    clip = {"status": status, "open": is_open, "nextCheckAt": "2026-11-24T10:00:00.000Z"}
    for more in ({}, {"possiblySentAt": "2026-11-24T09:00:00.000Z"}):
        text = explaining.next_step({**clip, **more})
        assert text.endswith(".")
        assert "{" not in text


@pytest.mark.parametrize("kind", list(Kind))
def test_every_fact_has_a_sentence(kind: Kind) -> None:
    """Every kind of fact has a sentence of its own."""
    fact = {"fact": kind, "key": "k", "source": "poll", "fields": {"message": "why.", "cost": 0.924, "size": 7}}
    text = explaining.describe_fact(fact)
    assert text.endswith(".")
    assert "{" not in text
    assert not text.startswith(str(kind))


def test_an_erased_task_says_so_with_its_time(fake: FakeService, run: Run, no_pauses: None) -> None:
    """`list`, `show` and `explain` have the status and its time; a watch ends; nothing is downloaded or repeated."""
    at, in_text = "2026-11-24T10:00:00.000Z", "2026-11-24 10:00:00Z"
    timeline = [{"at": at, "fact": "erased", "source": "operator"}]
    clip = {"status": "erased", "erasedAt": at, "open": False, "timeline": timeline}
    task = fake.add("erased", clip=clip)
    task |= {"request": {}, "erasedAt": at}
    uuid_ = task["taskUUID"]
    assert f"(erased {in_text})" in run("list", "--status", "erased").out
    assert all(text in run("show", uuid_).out for text in ("erased", at))
    explained = run("explain", uuid_).out
    assert "clip 0: erased" in explained
    assert f"{in_text}  Erased by an operator: the clip, its manifest" in explained
    assert f"Next: none; the clip was erased at {in_text}. Its cost stays recorded." in explained
    assert "stored" not in explained
    assert run("watch", uuid_).status == 1
    assert "1 clip is not stored" in run("download", uuid_).err
    assert "clip 0 is erased" in run("retry", uuid_).err


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("ambiguous: RemoteProtocolError", "is unknown: the connection was closed before the answer."),
        ("ambiguous: no outcome recorded", "is unknown: no outcome recorded."),
        (
            "never arrived: HTTP 429 rateLimitExceeded",
            "did not take effect: HTTP 429 rateLimitExceeded. It is repeated.",
        ),
        ("refused: invalidApiKey", "Runware refused an attempt to buy: invalidApiKey."),
        ("of a later version", "is unknown: of a later version."),
    ],
)
def test_an_attempt_is_explained_by_its_outcome(key: str, text: str) -> None:
    """An attempt that certainly had no effect is not called unknown, and the names of Python's errors are words."""
    assert explaining.describe_fact({"fact": "attempted", "key": key, "source": "submission"}).endswith(text)


def test_explain_shows_that_an_order_was_sent_again(fake: FakeService, run: Run) -> None:
    """The answer to a repeated attempt follows the sentence about the repeat and the reason for its safety."""
    at = [stamp(TODAY + timedelta(hours=hour)) for hour in (1, 2, 3)]
    timeline = [
        {"at": at[0], "fact": "attempted", "key": "ambiguous: ReadTimeout", "source": "submission"},
        {"at": at[1], "fact": "accepted", "key": "acknowledged", "source": "submission"},
        {"at": at[2], "fact": "accepted", "source": "webhook"},
    ]
    task = fake.add("running", clip={"timeline": timeline})
    (explained,) = run("explain", task["taskUUID"], "--json").json["clips"]
    texts = [step["text"] for step in explained["story"]]
    assert texts[2].startswith(
        "Sent again under the same UUID, after the bucket and Runware had confirmed its absence. Runware has the order"
    )
    assert sum("again" in text for text in texts) == 1
    task["clips"][0]["timeline"][0]["key"] = "never arrived: ConnectError"
    (explained,) = run("explain", task["taskUUID"], "--json").json["clips"]
    assert explained["story"][2]["text"].startswith("Sent again under the same UUID. Runware has the order")


def test_explain_lists_events_in_order(fake: FakeService, run: Run) -> None:
    """The events are in the order of their times, from the record to the next step."""
    at = [stamp(TODAY + timedelta(hours=hour)) for hour in (1, 2, 3)]
    timeline = [
        {"at": at[1], "fact": "rendered", "key": "v", "source": "webhook", "fields": {"cost": 0.924, "seed": 7}},
        {"at": at[2], "fact": "stored", "key": "1", "source": "bucket", "fields": {"size": 2_000_000}},
    ]
    task = fake.add(clip={"timeline": timeline, "possiblySentAt": at[0]})
    (explained,) = run("explain", task["taskUUID"], "--json").json["clips"]
    assert [step["at"] for step in explained["story"]] == [task["createdAt"], *at]
    assert "Rendered for $0.924 as video v, seed 7. Source: webhook." in explained["story"][2]["text"]
    assert "2.0 MB" in explained["story"][3]["text"]
    assert explained["next"] == "none; the clip is ready."
    assert run("explain", task["taskUUID"], "--clip", "3").status == 2


def test_explain_shows_each_model_of_a_chain(fake: FakeService, run: Run) -> None:
    """With fallback, the steps of all models' clips are listed in order, each with its model."""
    at = [stamp(TODAY + timedelta(hours=hour)) for hour in (1, 2, 3)]
    refused = {"at": at[0], "fact": "refused", "key": "invalidModel", "source": "submission"}
    superseded = {"at": at[1], "fact": "superseded", "key": "u", "source": "clock", "fields": {"model": "b:2@2"}}
    fields = {"model": "a:1@1", "code": "invalidModel"}
    follows = {"at": at[1], "fact": "fallback", "key": "v", "source": "clock", "fields": fields}
    accepted = {"at": at[2], "fact": "accepted", "key": "acknowledged", "source": "submission"}
    earlier = {"model": "a:1@1", "status": "failed", "timeline": [refused, superseded]}
    task = fake.add("running", clip={"model": "b:2@2", "chain": [earlier], "timeline": [follows, accepted]})
    (explained,) = run("explain", task["taskUUID"], "--json").json["clips"]
    assert [step["text"].partition(": ")[0] for step in explained["story"][1:]] == ["a:1@1"] * 2 + ["b:2@2"] * 2
    assert "the clip of the next model, b:2@2, was recorded" in explained["story"][2]["text"]
    assert "the clip of a:1@1, which ended with invalidModel" in explained["story"][3]["text"]
    assert "Runware renders it" in explained["next"]
    waiting = fake.add("running", clip={"model": "a:1@1", "timeline": [refused]})
    (explained,) = run("explain", waiting["taskUUID"], "--json").json["clips"]
    assert "the next model's clip is recorded" in explained["next"]


def spent(fake: FakeService, days: int, cost: float, **request: Any) -> Json:
    at = stamp(TODAY.replace(hour=0, minute=0, second=1) - timedelta(days=days))
    sent = {"positivePrompt": "x", "model": "klingai:5@3", **request}
    return fake.add(createdAt=at, cost=cost, request=sent, clip={"cost": cost})


def test_cost(fake: FakeService, run: Run) -> None:
    """Costs are summed by day, tag or model between two days, in whole micro-dollars, as table, CSV and JSON."""
    fake.max_per_page = 2
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
    by_value = run("cost", *since, "--by", "tag", "--tag-name", "x", "--json").json["groups"]
    assert {group["name"]: group["tasks"] for group in by_value} == {"y": 1, "(none)": 2}
    assert run("cost", "--by", "model", *since).out.splitlines()[-1] == "total\t3\t3\t$2.872"
    only = run("cost", *since, "--tag", "project=a", "--json").json
    assert (only["total"]["tasks"], only["total"]["cost"]) == (2, 1.024)
    assert run("cost", "--tag-name", "x").status == 2
    assert run("cost", "--stack", "rushes-dev").status == 2
    assert run("cost", "--since", "yesterday").status == 2
    assert run("cost", "--since", "2026-02-01", "--until", "2026-01-01").status == 2


def test_a_tag_is_no_formula(fake: FakeService, run: Run) -> None:
    """A value that a spreadsheet would evaluate is written as text."""
    spent(fake, 0, 1.0, tags={"=cmd": "1"})
    assert "'=cmd=1," in run("cost", "--by", "tag", "--csv").out


def progress(fake: FakeService, task: Json, *statuses: str) -> None:
    """Moves the task's clip on by one status at each request; the last one stays."""
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

    fake.intercept_request = move


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.0)


@pytest.mark.usefixtures("no_pauses")
def test_watch_prints_each_change(fake: FakeService, run: Run) -> None:
    """Without a TASK all running tasks are watched; each change is a line, and success exits with 0."""
    task = fake.add("running")
    progress(fake, task, "running", "running", "rendered", "stored")
    result = run("watch")
    assert result.status == 0
    assert [line.split("\t")[1:3] for line in result.out.splitlines()] == [
        ["running", "running"],
        ["running", "rendered"],
        ["succeeded", "stored"],
    ]
    assert run("watch").err == "No running tasks.\n"


@pytest.mark.usefixtures("no_pauses")
def test_watch_outlasts_a_lost_connection(fake: FakeService, run: Run) -> None:
    """A run of failed requests is reported once, and the watch continues."""
    task = fake.add("running")
    progress(fake, task, "running", *["cut"] * 4, *["busy"] * 3, "failed")
    result = run("watch", task["taskUUID"], "--json")
    assert result.status == 1
    assert [json.loads(line)["status"] for line in result.out.splitlines()] == ["running", "failed"]
    assert result.err.count("Retrying.") == 1


@pytest.mark.parametrize("problem", [500, 502, 503, 504, "cut"])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_reads_outlast_failed_responses(fake: FakeService, run: Run, verb: str, problem: int | str) -> None:
    """A read whose first two responses are errors or lost is repeated, and ends with the outcome of the task."""
    task = fake.add("running")
    progress(fake, task, "running", "running", "stored")
    seen: Counter[str] = Counter()

    def fail(request: Request) -> Response | None:
        seen[request.path] += 1
        if seen[request.path] > 2:
            return None
        return cut(request) if problem == "cut" else Response("<html>", int(problem))

    fake.intercept_response = fail
    result = run(verb)
    assert result.status == 0, result.err
    assert task["taskUUID"] in result.out
    assert set(seen.values()) == {3}


@pytest.mark.usefixtures("no_pauses")
def test_watch_ends_after_its_timeout(fake: FakeService, run: Run) -> None:
    """A timeout has its own exit status and reports the tasks still in progress."""
    fake.add("running")
    result = run("watch", "--timeout", "0")
    assert result.status == 3
    assert "1 of 1 tasks are still in progress" in result.err


@pytest.mark.usefixtures("no_pauses")
def test_submit_and_watch(fake: FakeService, run: Run) -> None:
    """`--watch` follows the submitted tasks to their end."""

    def finish(request: Request) -> None:
        for uuid_, task in list(fake.tasks.items()):
            fake.tasks[uuid_] = make_task(task["request"], "stored")

    fake.intercept_response = finish
    result = run("submit", "a lighthouse", "--watch")
    assert result.status == 0
    assert "succeeded\tstored" in result.out


def test_figures_are_short() -> None:
    """Money, sizes and ages are short, and correct at the edges of their units."""
    assert [money(amount) for amount in (0, 924_000, 1_234_567_890, -500)] == [
        "$0.000",
        "$0.924",
        "$1,234.567",
        "-$0.000",
    ]
    assert [size(count) for count in (0, 999, 1000, 2_500_000, None)] == ["0 B", "999 B", "1.0 kB", "2.5 MB", "-"]
    ages = [age(stamp(TODAY - timedelta(seconds=seconds)), TODAY) for seconds in (0.4, 59, 60, 7200, 200_000)]
    assert ages == ["0 s", "59 s", "1 min", "2 h", "2 d"]

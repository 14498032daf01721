"""`rushes submit`: what is sent, what it says before, and that a lost answer buys nothing twice."""

import base64
import json
import uuid
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from rushes_cli import task_files
from tests.cli.conftest import FakeService, Run, answer, cut

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def dry(request: Request) -> bool:
    return request.headers.get("X-Runware-Dry-Run") == "1"


def lost(request: Request) -> Response | None:
    """The connection ends before an order is answered; a dry run is."""
    return cut(request) if request.path == "/v1" and not dry(request) else None


def test_a_prompt_and_options_become_a_task(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Every option lands where the service expects it, and the task's UUID is all that is printed."""
    image = tmp_path / "first.png"
    image.write_bytes(PNG)
    ran = run(
        *("submit", "a lighthouse", "--negative", "people", "--duration", "10", "--size", "1080x1920", "--count", "2"),
        *("--format", "webm", "--destination", "campaign/autumn", "--tag", "project=lighthouse", "--image", str(image)),
    )
    (task,) = fake.tasks.values()
    assert ran.status == 0, ran.err
    assert ran.out == f"{task['taskUUID']}\n"
    data = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert task["request"] == {
        "taskType": "videoInference",
        "taskUUID": task["taskUUID"],
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse",
        "negativePrompt": "people",
        "duration": 10,
        "width": 1080,
        "height": 1920,
        "numberResults": 2,
        "outputFormat": "WEBM",
        "destination": "campaign/autumn",
        "tags": {"project": "lighthouse"},
        "inputs": {"frameImages": [data]},
    }
    assert "1 task, 2 clips: $3.696, of $50.000 left this month" in ran.err


@pytest.mark.parametrize(
    "given", ["https://example.com/a.png", "s3://bucket/a.png", "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c"]
)
def test_an_image_elsewhere_is_named_as_it_is(fake: FakeService, run: Run, given: str) -> None:
    """An address or a UUID is for the service to look at."""
    assert run("submit", "a lighthouse", "--image", given).status == 0
    (task,) = fake.tasks.values()
    assert task["request"]["inputs"]["frameImages"] == [given]


def test_json_for_scripts(fake: FakeService, run: Run) -> None:
    """With --json standard output is one value of a shape that does not change."""
    given = run("submit", "a lighthouse", "--json").json
    assert given == {
        "taskUUIDs": list(fake.tasks),
        "refused": [],
        "price": 0.924,
        "repeated": False,
        "dryRun": False,
    }


def test_a_file_of_tasks(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A file may hold an array or lines; options fill in what its tasks leave open, and a task's own word stands."""
    mine = str(uuid.uuid4())
    lines = [{"positivePrompt": "one", "taskUUID": mine}, {"positivePrompt": "two", "duration": 10, "tags": {"b": "2"}}]
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert run("submit", "--file", str(file), "--duration", "5", "--tag", "a=1").status == 0
    requests = {task["request"]["positivePrompt"]: task["request"] for task in fake.tasks.values()}
    assert (requests["one"]["taskUUID"], requests["one"]["duration"], requests["one"]["tags"]) == (mine, 5, {"a": "1"})
    assert (requests["two"]["duration"], requests["two"]["tags"]) == (10, {"a": "1", "b": "2"})


@pytest.mark.parametrize("text", ["a lighthouse\nat dusk", '{"positivePrompt": "a lighthouse"}'])
def test_standard_input(fake: FakeService, run: Run, text: str) -> None:
    """What is piped in is tasks, or, if it is no JSON, one prompt."""
    assert run("submit", stdin=text).status == 0
    (task,) = fake.tasks.values()
    assert task["request"]["positivePrompt"].startswith("a lighthouse")


def test_a_file_of_tasks_is_never_a_prompt(fake: FakeService, run: Run) -> None:
    """Where tasks were to be piped in and something else came, an error's page for one, nothing is bought."""
    ran = run("submit", "--file", "-", stdin="<html>502 Bad Gateway</html>")
    assert (ran.status, fake.tasks) == (2, {})
    assert "standard input is not valid JSON" in ran.err


@pytest.mark.parametrize(
    ("arguments", "content", "says"),
    [
        (["--size", "big"], None, "--size must have the form WIDTHxHEIGHT"),
        (["--tag", "x"], None, "--tag must have the form name=value"),
        (["--image", "no-such.png"], None, "No such file"),
        (["--image", "FILE"], b"GIF89a", "is not a PNG, JPEG or WEBP image"),
        (["--file", "FILE"], b'{"positivePrompt": ', "is not valid JSON"),
        (["--file", "FILE"], b'{"a": 1}\n[', "line 2 is not valid JSON"),
        (["--file", "FILE"], b"[1]", "must contain a JSON object"),
        (["--file", "FILE"], b"\xff\xfe", "is not UTF-8"),
        (["--file", "FILE"], b"", "is empty"),
        (["--uuid", "x"], None, "is not a taskUUID"),
        (["--ask-above", "much"], None, "an amount in dollars"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_sent(
    fake: FakeService, run: Run, tmp_path: Path, arguments: list[str], content: bytes | None, says: str
) -> None:
    """A bad option or file ends with 2 and one line that names it; the service hears nothing."""
    file = tmp_path / "given"
    if content is not None:
        file.write_bytes(content)
    arguments = [str(file) if each == "FILE" else each for each in arguments]
    ran = run("submit", *(arguments if "--file" in arguments else ["a lighthouse", *arguments]))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("rushes: ")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert fake.asked == []


def test_a_refused_task_stops_all(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """One bad task among good ones: nothing is bought, the fault is named, unless it was said to go on without it."""
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([{"positivePrompt": "fine"}, {"positivePrompt": "x"}]))
    ran = run("submit", "-f", str(file))
    assert (ran.status, ran.out, fake.tasks) == (1, "", {})
    assert "invalidPositivePromptLength (positivePrompt): Too short." in ran.err
    assert "Nothing was bought." in ran.err
    ran = run("submit", "-f", str(file), "--skip-refused")
    assert ran.status == 1
    assert [task["request"]["positivePrompt"] for task in fake.tasks.values()] == ["fine"]


def test_a_dry_run_buys_nothing(fake: FakeService, run: Run) -> None:
    """A dry run tells the price and leaves no trace, in the service or at home."""
    ran = run("submit", "a lighthouse", "--dry-run", "--json")
    assert (ran.status, ran.json["price"], ran.json["taskUUIDs"]) == (0, 0.924, [])
    assert fake.tasks == {}
    fake.after = lost
    run("submit", "a lighthouse")
    (journal,) = fake.tasks
    fake.after = None
    assert run("submit", "a lighthouse", "--dry-run").status == 0
    run("submit", "a lighthouse")
    assert list(fake.tasks) == [journal]


def test_a_high_price_needs_a_yes(fake: FakeService, run: Run) -> None:
    """Above the threshold, where nobody can be asked, nothing is bought without --yes."""
    dear = ("submit", "a lighthouse", "--count", "3", "--duration", "10")
    ran = run(*dear)
    assert (ran.status, fake.tasks) == (6, {})
    assert "$5.544 is above the threshold of $5.000" in ran.err
    assert run(*dear, "--ask-above", "6").status == 0
    assert run(*dear, "--yes").status == 0
    assert run("submit", "a lighthouse", "--ask-above", "0").status == 6


def test_a_lost_answer_buys_nothing_twice(fake: FakeService, run: Run) -> None:
    """The order arrives and its answer does not: the same command again finds its taskUUID, and says so."""
    fake.after = lost
    ran = run("submit", "a lighthouse")
    assert (ran.status, ran.out) == (4, "")
    assert "Repeat the same command" in ran.err
    assert len(fake.tasks) == 1
    fake.after = None
    again = run("submit", "a lighthouse")
    assert again.status == 0
    assert again.out.split() == list(fake.tasks)
    assert "had no response" in again.err
    assert len(fake.tasks) == 1


def test_a_repeat_that_gets_nowhere_forgets_nothing(fake: FakeService, run: Run) -> None:
    """Before the repeat that is heard, others may fail or be called off; still nothing is bought twice."""
    fake.after = lost
    run("submit", "a lighthouse")
    fake.after, fake.trouble = None, cut
    assert run("submit", "a lighthouse").status == 4
    fake.trouble = None
    assert run("submit", "a lighthouse", "--ask-above", "0").status == 6
    assert run("submit", "a lighthouse").out.split() == list(fake.tasks)
    assert len(fake.tasks) == 1


def test_after_an_answer_the_same_command_is_a_new_order(fake: FakeService, run: Run) -> None:
    """Whoever was answered and gives the command again wants another clip; --new says so without an answer."""
    run("submit", "a lighthouse")
    run("submit", "a lighthouse")
    assert len(fake.tasks) == 2
    fake.after = lost
    run("submit", "a lighthouse")
    fake.after = None
    assert "had no response" not in run("submit", "a lighthouse", "--new").err
    assert len(fake.tasks) == 4


def test_another_submission_is_not_a_repeat(fake: FakeService, run: Run) -> None:
    """A lost answer to one prompt says nothing about another."""
    fake.after = lost
    run("submit", "a lighthouse")
    fake.after = None
    ran = run("submit", "a harbour")
    assert "had no response" not in ran.err
    assert len(fake.tasks) == 2


def test_many_tasks_go_in_as_few_requests_as_they_fit(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Fifty clips take three requests of at most twenty; a busy moment is waited out."""
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([{"positivePrompt": f"clip {number}", "numberResults": 2} for number in range(25)]))
    answers = iter([answer({"message": "slow down"}, 429)])
    fake.trouble = lambda request: None if dry(request) or request.method == "GET" else next(answers, None)
    assert run("submit", "-f", str(file), "--yes").status == 0
    assert fake.bought() == 50
    sizes = [len(order) for order in fake.orders()]
    assert sizes == [10, 10, 5, 10, 10, 10, 5]  # priced, turned away once, ordered


def test_a_busy_answer_to_one_task_is_tried_again(fake: FakeService, run: Run) -> None:
    """`serviceUnavailable` says nothing about the task, so it is sent once more under the same UUID."""
    seen: list[Request] = []

    def busy_once(request: Request) -> Response | None:
        if request.path != "/v1" or dry(request) or seen:
            return None
        seen.append(request)
        (task,) = json.loads(request.get_data())
        error = {"code": "serviceUnavailable", "message": "Busy.", "taskUUID": task["taskUUID"]}
        return answer({"data": [], "errors": [error]})

    fake.trouble = busy_once
    assert run("submit", "a lighthouse").status == 0
    _, first, second = fake.orders()
    assert first == second


def test_batches_hold_what_one_request_may() -> None:
    """Neither tasks, clips nor bytes of a request pass their limits, and the order is kept."""
    tasks = [{"n": number, "numberResults": 1 + number % 4, "x": "y" * 900_000} for number in range(12)]
    batches = list(task_files.batches(tasks))
    assert [task for batch in batches for task in batch] == tasks
    assert all(len(json.dumps(batch)) <= task_files.MAX_BYTES + 100_000 for batch in batches)
    assert all(sum(map(task_files.clips, batch)) <= task_files.MAX_CLIPS for batch in batches)
    assert [len(batch) for batch in task_files.batches([{}] * 45)] == [20, 20, 5]

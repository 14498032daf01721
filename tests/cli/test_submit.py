"""`rushes submit`: its requests, its checks before them, and that a lost response buys nothing twice."""

import base64
import io
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
from rich.console import Console
from werkzeug.wrappers import Request, Response

from rushes_cli import task_files
from rushes_cli.api_client import ApiClient, OrderResponse
from rushes_cli.exits import UnavailableError
from rushes_cli.ordering import ClipOrder
from rushes_cli.output import Screen
from rushes_cli.profiles import Target
from tests.cli.conftest import KEY, FakeService, Run, answer, cut
from tests.object_keys import OBJECT_NAMES

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def dry(request: Request) -> bool:
    return request.headers.get("X-Runware-Dry-Run") == "1"


def lost(request: Request) -> Response | None:
    """Cuts the connection before the response to an order, but not to a dry run."""
    return cut(request) if request.path == "/v1" and not dry(request) else None


def test_a_prompt_and_options_become_a_task(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Every option sets its field of the request, and only the task's UUID is printed on standard output."""
    image = tmp_path / "first.png"
    image.write_bytes(PNG)
    result = run(
        *("submit", "a lighthouse", "--negative", "people", "--duration", "10", "--size", "1080x1920", "--count", "2"),
        *("--format", "webm", "--destination", "campaign/autumn", "--tag", "project=lighthouse", "--image", str(image)),
    )
    (task,) = fake.tasks.values()
    assert result.status == 0, result.err
    assert result.out == f"{task['taskUUID']}\n"
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
    assert "1 task, 2 clips: $3.696, of $50.000 left this month" in result.err


@pytest.mark.parametrize(
    "given",
    [
        "https://example.com/a.png",
        "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c",
        *(f"s3://bucket/{name}" for name in OBJECT_NAMES.values()),
    ],
)
def test_an_image_url_is_sent_unchanged(fake: FakeService, run: Run, given: str) -> None:
    """A URL or a UUID of an image is sent unchanged."""
    assert run("submit", "a lighthouse", "--image", given).status == 0
    (task,) = fake.tasks.values()
    assert task["request"]["inputs"]["frameImages"] == [given]


def test_json_for_scripts(fake: FakeService, run: Run) -> None:
    """With `--json` standard output is one value with a fixed set of fields."""
    given = run("submit", "a lighthouse", "--json").json
    assert given == {
        "taskUUIDs": list(fake.tasks),
        "orderedBefore": [],
        "refused": [],
        "price": 0.924,
        "repeated": False,
        "dryRun": False,
    }


def test_an_order_that_the_service_had_already_is_named(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A repeat under the same taskUUID differs from a purchase: a sentence, `orderedBefore`, and no price."""
    given = str(uuid.uuid4())
    first = run("submit", "a lighthouse", "--uuid", given)
    assert "ordered before" not in first.err
    again = run("submit", "a lighthouse", "--uuid", given)
    assert (again.status, again.out) == (0, f"{given}\n")
    assert "It was ordered before under the same taskUUID, and not bought again" in again.err
    found = run("submit", "a lighthouse", "--uuid", given, "--json").json
    assert (found["orderedBefore"], found["price"], found["repeated"]) == ([given], 0.0, False)
    lines = [{"positivePrompt": "a lighthouse", "taskUUID": given}, {"positivePrompt": "a harbour"}]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(lines))
    found = run("submit", "--file", str(file), "--json").json
    assert (len(found["taskUUIDs"]), found["orderedBefore"], found["price"]) == (2, [given], 0.924)


def test_a_file_of_tasks(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A file holds an array or lines of tasks; options fill in missing fields and never replace a task's own."""
    given = str(uuid.uuid4())
    lines = [
        {"positivePrompt": "one", "taskUUID": given},
        {"positivePrompt": "two", "duration": 10, "tags": {"b": "2"}},
    ]
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert run("submit", "--file", str(file), "--duration", "5", "--tag", "a:1").status == 0
    requests = {task["request"]["positivePrompt"]: task["request"] for task in fake.tasks.values()}
    assert (requests["one"]["taskUUID"], requests["one"]["duration"], requests["one"]["tags"]) == (given, 5, {"a": "1"})
    assert (requests["two"]["duration"], requests["two"]["tags"]) == (10, {"a": "1", "b": "2"})


@pytest.mark.parametrize("text", ["a lighthouse\nat dusk", '{"positivePrompt": "a lighthouse"}'])
def test_standard_input(fake: FakeService, run: Run, text: str) -> None:
    """Standard input is parsed as tasks, or as one prompt if it is not JSON."""
    assert run("submit", stdin=text).status == 0
    (task,) = fake.tasks.values()
    assert task["request"]["positivePrompt"].startswith("a lighthouse")


def test_a_file_of_tasks_is_never_a_prompt(fake: FakeService, run: Run) -> None:
    """With `--file -` other content, such as an HTML error page, is refused and nothing is bought."""
    result = run("submit", "--file", "-", stdin="<html>502 Bad Gateway</html>")
    assert (result.status, fake.tasks) == (2, {})
    assert "standard input is not valid JSON" in result.err


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["--size", "big"], None, "--size must have the form WIDTHxHEIGHT"),
        (["--tag", "x"], None, "--tag must have the form name=value"),
        (["--image", "no-such.png"], None, "No such file"),
        (["--image", "FILE"], b"GIF89a", "is not a PNG, JPEG or WEBP image"),
        (["--file", "FILE"], b'{"positivePrompt": ', "is not valid JSON"),
        (["--file", "FILE"], b'{"a": 1}\n[', "line 2: not valid JSON (Expecting value at column 2)"),
        (["--file", "FILE"], b'\n{"a": 1}\nx\r\n2\ny\n', "lines 3 and 5: not valid JSON"),
        (["--file", "FILE"], b'[\n{"a": 1},\n{"b": 2}\n', "is not valid JSON: Expecting ',' delimiter: line 4"),
        (["--file", "FILE"], b"[1]", "must contain a JSON object"),
        (["--file", "FILE"], b"\xff\xfe", "is not UTF-8"),
        (["--file", "FILE"], b"", "is empty"),
        (["--uuid", "x"], None, "is not a taskUUID"),
        (["--ask-above", "much"], None, "an amount in dollars"),
    ],
)
def test_an_invalid_option_is_refused_before_any_request(
    fake: FakeService, run: Run, tmp_path: Path, arguments: list[str], content: bytes | None, message: str
) -> None:
    """An invalid option or file exits with 2 and one line that names it, before any request."""
    file = tmp_path / "given"
    if content is not None:
        file.write_bytes(content)
    arguments = [str(file) if each == "FILE" else each for each in arguments]
    result = run("submit", *(arguments if "--file" in arguments else ["a lighthouse", *arguments]))
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("rushes: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert fake.requests == []


def test_a_refused_task_stops_all(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """One invalid task in a file prevents all purchases and is named; `--skip-refused` buys the others."""
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([{"positivePrompt": "fine"}, {"positivePrompt": "x"}]))
    result = run("submit", "-f", str(file))
    assert (result.status, result.out, fake.tasks) == (1, "", {})
    assert "invalidPositivePromptLength (positivePrompt): Too short." in result.err
    assert "Nothing was bought." in result.err
    result = run("submit", "-f", str(file), "--skip-refused")
    assert result.status == 1
    assert [task["request"]["positivePrompt"] for task in fake.tasks.values()] == ["fine"]


def lines_of(tmp_path: Path, tasks: list[object]) -> str:
    """The path of a file with these tasks, one per line."""
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in tasks) + "\n")
    return str(file)


def test_a_taskuuid_twice_in_a_file_is_refused(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Tasks with one taskUUID, in requests of their own too, are named by their lines, and neither priced nor sent."""
    twice = str(uuid.uuid4())
    tasks: list[object] = [{"positivePrompt": f"clip {number}"} for number in range(25)]
    tasks[2], tasks[23] = ({"positivePrompt": "one of two", "taskUUID": each} for each in (twice, twice.upper()))
    result = run("submit", "-f", lines_of(tmp_path, tasks), "--json", "--yes", "--dry-run")
    assert (result.status, result.json["price"]) == (1, round(23 * 0.924, 3))
    assert [(error["code"], error["line"]) for error in result.json["refused"]] == [
        ("duplicateTaskUUID", 3),
        ("duplicateTaskUUID", 24),
    ]
    assert "23 tasks, 23 clips: $21.252" in result.err
    assert (
        f"refused: lines 3 and 24: duplicateTaskUUID (taskUUID): Several tasks have the taskUUID {twice}" in result.err
    )
    assert "23 of 25 tasks valid, for $21.252." in result.err
    assert twice not in json.dumps(fake.orders()).lower()
    assert run("submit", "-f", lines_of(tmp_path, tasks), "--yes").status == 1
    assert fake.tasks == {}


def test_refused_tasks_are_named_by_lines_with_the_allowed_values(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Equal refusals are one line of output; a line that is no JSON is refused like the others if they are skipped."""
    long, fine = {"positivePrompt": "too long", "duration": 7}, {"positivePrompt": "fine \u2028"}
    file = lines_of(tmp_path, [fine, "", long, long, "{", fine, long, {"positivePrompt": "x"}])
    raw = Path(file).read_text().replace("\\u2028", "\u2028")
    Path(file).write_text(raw)
    result = run("submit", "-f", file, "--skip-refused", "--json")
    assert result.status == 1
    assert [line for line in result.err.splitlines() if line.startswith("refused")] == [
        "refused: lines 3, 4 and 7: duration 7: 5 or 10",
        "refused: line 5: invalidTask: not valid JSON (Expecting property name enclosed in double quotes at column 2)",
        "refused: line 8: invalidPositivePromptLength (positivePrompt): Too short.",
    ]
    assert "2 of 7 tasks ordered, for $1.848." in result.err
    assert sorted(error["line"] for error in result.json["refused"]) == [3, 4, 5, 7, 8]
    assert result.json["taskUUIDs"] == list(fake.tasks)


def test_the_price_is_of_the_accepted_tasks(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Tasks beyond the budget are one range of lines, and the price in the result excludes them."""
    fake.limit = 17 * 0.924 + 0.1
    result = run("submit", "-f", lines_of(tmp_path, [{"positivePrompt": "fine"}] * 200), "--yes", "--json")
    assert (result.status, len(result.json["taskUUIDs"]), result.json["price"]) == (1, 17, round(17 * 0.924, 3))
    assert "200 tasks, 200 clips: $184.800, of $15.808 left this month" in result.err
    assert "refused: lines 18 to 200: budgetExceeded (numberResults): Your limit has $0.100 left.\n" in result.err
    assert "17 of 200 tasks ordered, for $15.708." in result.err


def test_a_dry_run_buys_nothing(fake: FakeService, run: Run) -> None:
    """A dry run prints the price and changes nothing, in the service or in the local journal."""
    result = run("submit", "a lighthouse", "--dry-run", "--json")
    assert (result.status, result.json["price"], result.json["taskUUIDs"]) == (0, 0.924, [])
    assert fake.tasks == {}
    fake.intercept_response = lost
    run("submit", "a lighthouse")
    (journal,) = fake.tasks
    fake.intercept_response = None
    assert run("submit", "a lighthouse", "--dry-run").status == 0
    run("submit", "a lighthouse")
    assert list(fake.tasks) == [journal]


def test_a_high_price_needs_a_yes(fake: FakeService, run: Run) -> None:
    """Above the threshold, without a terminal for the question, nothing is bought unless `--yes` is given."""
    dear = ("submit", "a lighthouse", "--count", "3", "--duration", "10")
    result = run(*dear)
    assert (result.status, fake.tasks) == (6, {})
    assert "$5.544 is above the threshold of $5.000" in result.err
    assert run(*dear, "--ask-above", "6").status == 0
    assert run(*dear, "--yes").status == 0
    assert run("submit", "a lighthouse", "--ask-above", "0").status == 6


def test_a_lost_answer_buys_nothing_twice(fake: FakeService, run: Run) -> None:
    """If only the response to an order is lost, the same command again finds its taskUUID and reports that."""
    fake.intercept_response = lost
    result = run("submit", "a lighthouse")
    assert (result.status, result.out) == (4, "")
    assert "Repeat the same command" in result.err
    assert len(fake.tasks) == 1
    fake.intercept_response = None
    again = run("submit", "a lighthouse")
    assert again.status == 0
    assert again.out.split() == list(fake.tasks)
    assert "had no response" in again.err
    assert len(fake.tasks) == 1


def test_failed_repeats_keep_the_journal(fake: FakeService, run: Run) -> None:
    """Repeats that fail or are declined do not discard the taskUUID, so that nothing is bought twice."""
    fake.intercept_response = lost
    run("submit", "a lighthouse")
    fake.intercept_response, fake.intercept_request = None, cut
    assert run("submit", "a lighthouse").status == 4
    fake.intercept_request = None
    assert run("submit", "a lighthouse", "--ask-above", "0").status == 6
    assert run("submit", "a lighthouse").out.split() == list(fake.tasks)
    assert len(fake.tasks) == 1


def test_after_an_answer_the_same_command_is_a_new_order(fake: FakeService, run: Run) -> None:
    """The same command after a response is a new order; `--new` makes one after a lost response too."""
    run("submit", "a lighthouse")
    run("submit", "a lighthouse")
    assert len(fake.tasks) == 2
    fake.intercept_response = lost
    run("submit", "a lighthouse")
    fake.intercept_response = None
    assert "had no response" not in run("submit", "a lighthouse", "--new").err
    assert len(fake.tasks) == 4


def test_another_submission_is_not_a_repeat(fake: FakeService, run: Run) -> None:
    """A lost response for one prompt does not affect another prompt."""
    fake.intercept_response = lost
    run("submit", "a lighthouse")
    fake.intercept_response = None
    result = run("submit", "a harbour")
    assert "had no response" not in result.err
    assert len(fake.tasks) == 2


def test_many_tasks_are_sent_in_full_batches(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Fifty clips take three requests of at most twenty clips, and a 429 is retried."""
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([{"positivePrompt": f"clip {number}", "numberResults": 2} for number in range(25)]))
    answers = iter([answer({"message": "slow down"}, 429)])
    fake.intercept_request = lambda request: None if dry(request) or request.method == "GET" else next(answers, None)
    assert run("submit", "-f", str(file), "--yes").status == 0
    assert fake.bought() == 50
    sizes = [len(order) for order in fake.orders()]
    assert sizes == [10, 10, 5, 10, 10, 10, 5]  # dry run, refused once, ordered


def test_a_busy_answer_to_one_task_is_retried(fake: FakeService, run: Run) -> None:
    """A task with the error `serviceUnavailable` is sent once more under the same UUID."""
    refused: list[Request] = []

    def busy_once(request: Request) -> Response | None:
        if request.path != "/v1" or dry(request) or refused:
            return None
        refused.append(request)
        (task,) = json.loads(request.get_data())
        error = {"code": "serviceUnavailable", "message": "Busy.", "taskUUID": task["taskUUID"]}
        return answer({"data": [], "errors": [error]})

    fake.intercept_request = busy_once
    assert run("submit", "a lighthouse").status == 0
    _, first, second = fake.orders()
    assert first == second


# ----------------------------------------------------------------------------------------------------------------------
# Advice: each of these tests follows it
# ----------------------------------------------------------------------------------------------------------------------

REFUSED = {"code": "providerAccountRefused", "message": "Runware refused this service's own account (noCredit)."}
BUSY = {"code": "serviceUnavailable", "message": "The service is busy."}


def test_after_a_refusal_the_same_command_orders_again(fake: FakeService, run: Run) -> None:
    """A refusal is the outcome: it is named, and the same command orders again under a new taskUUID."""
    fake.refusals = {"a lighthouse": REFUSED}
    result = run("submit", "a lighthouse")
    assert (result.status, result.out) == (1, "")
    assert "providerAccountRefused: Runware refused this service's own account (noCredit)." in result.err
    assert "A refusal is final for its taskUUID. Order again with the same command" in result.err
    fake.refusals.clear()
    again = run("submit", "a lighthouse")
    assert again.status == 0, again.err
    assert "had no response" not in again.err
    assert not set(fake.tasks) & set(fake.refused)


def test_a_refusal_ends_an_earlier_submission(fake: FakeService, run: Run) -> None:
    """The refusal of a repeat ends the submission whose response was lost."""
    fake.refusals, fake.intercept_response = {"a lighthouse": REFUSED}, lost
    assert run("submit", "a lighthouse").status == 4
    fake.intercept_response = None
    result = run("submit", "a lighthouse")
    assert (result.status, len(fake.refused)) == (1, 1)
    fake.refusals.clear()
    assert run("submit", "a lighthouse").status == 0


def test_after_a_refusal_in_part_only_the_refused_tasks_are_ordered_again(
    fake: FakeService, run: Run, tmp_path: Path
) -> None:
    """Beside accepted tasks the same command is not advised, since it would buy them again."""
    fake.refusals = {"a harbour": REFUSED}
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"positivePrompt": "a lighthouse"}\n{"positivePrompt": "a harbour"}')
    result = run("submit", "-f", str(file))
    assert (result.status, result.out.split()) == (1, list(fake.tasks))
    assert "Order again without the accepted tasks, which the same command would buy again." in result.err


def test_a_refused_uuid_of_the_users_needs_a_new_one(fake: FakeService, run: Run) -> None:
    """With a taskUUID of the user's the same command would be refused for ever."""
    fake.refusals = {"a lighthouse": REFUSED}
    result = run("submit", "a lighthouse", "--uuid", str(uuid.uuid4()))
    assert "Order again with new taskUUIDs." in result.err
    fake.refusals.clear()
    assert run("submit", "a lighthouse", "--uuid", str(uuid.uuid4())).status == 0


def test_a_refusal_that_is_not_recorded_is_not_final(fake: FakeService, run: Run) -> None:
    """A task above the budget is not recorded, so its taskUUID may be used again."""
    fake.refusals = {"a lighthouse": {"code": "budgetExceeded", "message": "Nothing was bought."}}
    result = run("submit", "a lighthouse")
    assert result.status == 1
    assert "final" not in result.err


def test_a_busy_service_keeps_the_uuids_of_all_tasks(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A task without an outcome beside an accepted one is unavailability: the repeat buys only the missing one."""
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"positivePrompt": "a lighthouse"}\n{"positivePrompt": "a harbour"}')

    def busy(request: Request) -> Response | None:
        if request.path != "/v1" or dry(request):
            return None
        accepted, other = (task["taskUUID"] for task in json.loads(request.get_data()))
        fake.tasks.pop(other, None)
        return answer({"data": [{"taskUUID": accepted}], "errors": [{**BUSY, "taskUUID": other}]})

    fake.intercept_response = busy
    result = run("submit", "-f", str(file))
    assert (result.status, result.out, len(fake.tasks)) == (4, "", 1)
    assert "The service is busy. Repeat the same command" in result.err
    fake.intercept_response = None
    again = run("submit", "-f", str(file))
    assert (again.status, set(again.out.split())) == (0, set(fake.tasks))
    assert len(fake.tasks) == 2


def test_a_repeat_without_new_finds_a_lost_order(fake: FakeService, run: Run) -> None:
    """After a lost response to an order with `--new`, the advice leaves `--new` out, which would buy again."""
    fake.intercept_response = lost
    result = run("submit", "a lighthouse", "--new")
    assert "Repeat the command without --new: it uses the same taskUUIDs" in result.err
    fake.intercept_response = None
    assert run("submit", "a lighthouse").out.split() == list(fake.tasks)


def test_an_order_that_was_not_sent(fake: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no connection was made nothing was sent, and the same command is the first order."""

    def refuse(self: ApiClient, _: object) -> OrderResponse:
        raise UnavailableError("It is unavailable: the connection failed.", sent=False)

    with monkeypatch.context() as patched:
        patched.setattr(ApiClient, "submit", refuse)
        result = run("submit", "a lighthouse")
    assert result.status == 4
    assert result.err.endswith("the connection failed. Nothing was sent; the same command orders.\n")
    again = run("submit", "a lighthouse")
    assert (again.status, len(fake.tasks)) == (0, 1)
    assert "had no response" not in again.err


def test_a_refused_repeat_does_not_discard_an_earlier_order(fake: FakeService, run: Run) -> None:
    """A repeat that is refused at pricing sends nothing, and so proves nothing about the submission before it."""
    fake.intercept_response = lost
    run("submit", "a lighthouse")
    fake.intercept_response = None
    invalid = {"code": "invalidPositivePrompt", "message": "No longer allowed."}
    fake.intercept_request = lambda request: answer({"errors": [invalid]}, 400) if request.path == "/v1" else None
    result = run("submit", "a lighthouse")
    assert result.status == 1
    assert "The service may have received the earlier submission: see `rushes list`." in result.err
    assert "It is sent again" not in result.err
    fake.intercept_request = None
    assert run("submit", "a lighthouse").out.split() == list(fake.tasks)


def test_equal_orders_at_the_same_time_are_separate_orders(
    fake: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Four equal orders side by side buy four clips, and leave nothing in the journal."""
    together = threading.Barrier(4, timeout=30)

    def wait(request: Request) -> None:
        if request.path == "/v1" and not dry(request):
            together.wait()

    fake.intercept_request = wait
    target = Target("test", fake.url, KEY)

    def order(_: int) -> list[str]:
        with closing(ApiClient(target)) as service:
            screen = Screen(out=Console(file=io.StringIO()), err=Console(file=io.StringIO()))
            task = {"taskType": "videoInference", "positivePrompt": "a lighthouse"}
            return ClipOrder(screen, service, ask_above=None).run([task])[0]

    with ThreadPoolExecutor(4) as executor:
        accepted = list(executor.map(order, range(4)))
    assert sorted(chain(*accepted)) == sorted(fake.tasks)
    assert len(fake.tasks) == 4
    assert list(tmp_path.rglob("*.json")) == []


def test_batches_stay_within_a_requests_limits() -> None:
    """No batch exceeds a request's limits of tasks, clips and bytes, and the order is kept."""
    tasks = [{"n": number, "numberResults": 1 + number % 4, "x": "y" * 900_000} for number in range(12)]
    batches = list(task_files.batches(tasks))
    assert [task for batch in batches for task in batch] == tasks
    assert all(len(json.dumps(batch)) <= task_files.MAX_BYTES + 100_000 for batch in batches)
    assert all(sum(map(task_files.clips, batch)) <= task_files.MAX_CLIPS for batch in batches)
    assert [len(batch) for batch in task_files.batches([{}] * 45)] == [20, 20, 5]

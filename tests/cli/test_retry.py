"""`rushes retry`: failed clips are bought again, and never twice by mistake."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from rushes.runware.request import UUID4
from rushes_cli import task_files
from tests.cli.conftest import FakeService, Json, Run, make_task


def partly_failed(fake: FakeService) -> Json:
    """A task of four clips, two of which have failed permanently."""
    request = {"taskUUID": str(uuid.uuid4()), "positivePrompt": "a lighthouse", "numberResults": 4, "duration": 5}
    task = make_task(request, "stored")
    for number in (1, 3):
        task["clips"][number] |= {"status": "failed", "open": False}
    fake.tasks[task["taskUUID"]] = task | {"status": "partial"}
    return task


def test_a_retry_repeats_the_failed_clips(fake: FakeService, run: Run) -> None:
    """The new task has the old one's request with as many clips as failed."""
    task = partly_failed(fake)
    result = run("retry", task["taskUUID"].upper())
    assert result.status == 0, result.err
    (new,) = (each for key, each in fake.tasks.items() if key != task["taskUUID"])
    assert result.out == f"{new['taskUUID']}\n"
    assert new["request"] == {**task["request"], "numberResults": 2, "taskUUID": new["taskUUID"]}
    assert UUID4.fullmatch(new["taskUUID"])


def test_the_same_retry_buys_nothing_twice(fake: FakeService, run: Run) -> None:
    """The same retry again finds the same task; another `--attempt` is another task."""
    task = partly_failed(fake)
    first = run("retry", task["taskUUID"])
    again = run("retry", task["taskUUID"], "--json")
    assert again.status == 0
    assert again.json == {
        "taskUUIDs": first.out.split(),
        "orderedBefore": first.out.split(),
        "refused": [],
        "price": 0.0,
        "repeated": True,
        "dryRun": False,
    }
    assert "Already retried as" in again.err
    assert len(fake.tasks) == 2
    assert run("retry", task["taskUUID"], "--attempt", "2").status == 0
    assert len(fake.tasks) == 3


def test_the_uuid_follows_from_task_attempt_and_clips() -> None:
    """Equal retries have equal UUIDs in any spelling, and any difference makes another UUID."""
    old = str(uuid.uuid4())
    assert task_files.derived_uuid(old, 1, [1, 3]) == task_files.derived_uuid(old.upper(), 1, [3, 1, 1])
    others = [(old, 1, [1]), (old, 2, [1, 3]), (str(uuid.uuid4()), 1, [1, 3]), (old, 1, [13])]
    with ThreadPoolExecutor() as executor:
        found = set(executor.map(lambda given: task_files.derived_uuid(*given), [*others, (old, 1, [1, 3])]))
    assert len(found) == 5


@pytest.mark.parametrize(
    ("clip", "arguments", "status", "message"),
    [
        ({"status": "running", "open": True}, [], 1, "is running"),
        ({"status": "stored", "open": False}, [], 1, "is stored"),
        ({"status": "failed", "open": True}, [], 1, "checked once more"),
        ({"status": "review", "open": False}, [], 1, "--accept-second-charge"),
        ({"status": "failed", "open": False}, ["--clip", "7"], 2, "no clip 7"),
        ({"status": "review", "open": False}, ["--accept-second-charge"], 0, "1 clip"),
        ({"status": "failed", "open": False}, ["--clip", "0"], 0, "1 clip"),
    ],
)
def test_only_finished_unpaid_clips_are_repeated(
    fake: FakeService, run: Run, clip: Json, arguments: list[str], status: int, message: str
) -> None:
    """Clips that are open, stored or possibly paid for are not bought again without `--accept-second-charge`."""
    task = fake.add(clip=clip)
    result = run("retry", task["taskUUID"], *arguments)
    assert (result.status, len(fake.tasks)) == (status, 1 if status else 2)
    assert message in result.err


def test_all_reasons_are_one_sentence(fake: FakeService, run: Run) -> None:
    """The reasons of several clips are one sentence with one full stop."""
    task = partly_failed(fake)
    del task["clips"][2:]
    task["clips"][1] |= {"status": "running", "open": True}
    result = run("retry", task["taskUUID"])
    assert result.err == "rushes: No clip can be repeated: clip 0 is stored; clip 1 is running.\n"
    assert run("retry", task["taskUUID"], "--clip", "1").err == "rushes: Clip 1 is running.\n"


def test_after_a_refusal_another_attempt_orders_again(fake: FakeService, run: Run) -> None:
    """The advice after a refused retry names an attempt that was not made yet."""
    task = partly_failed(fake)
    fake.refusals = {"a lighthouse": {"code": "providerAccountRefused", "message": "No credit."}}
    for attempt in (1, 2):
        result = run("retry", task["taskUUID"], "--attempt", str(attempt))
        assert result.status == 1
        assert f"Order again with --attempt {attempt + 1}." in result.err
    fake.refusals.clear()
    assert run("retry", task["taskUUID"], "--attempt", "3").status == 0
    assert "--attempt 4 buys again" in run("retry", task["taskUUID"], "--attempt", "3").err


def test_an_erased_request_cannot_be_repeated(fake: FakeService, run: Run) -> None:
    """A task whose request was erased, or an unknown task, is refused with a reason."""
    task = fake.add("failed", request={})
    assert "no longer stored" in run("retry", task["taskUUID"]).err
    assert run("retry", str(uuid.uuid4())).status == 1
    assert len(fake.tasks) == 1

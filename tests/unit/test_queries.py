"""What a caller is told of its tasks: the rules, without I/O."""

import json
from typing import Any

import pytest

from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, FactSource, Kind, Lease, Status
from rushes.domain.formats import iso
from rushes.domain.task import Task
from rushes.domain.views import timeline
from rushes.errors import BucketError, UnreadableError
from rushes.runware.facts import webhook_facts
from rushes.runware.response import read
from rushes.services.queries import CostsQuery, Query, cursor, position_of, read_costs_query, read_query
from rushes.services.request_validation import Poll, WireResponse, validate
from rushes.services.submit import price
from tests.fakes.builders import CLIP_UUID, START, TASK_UUID, clip, fact, request, uuid4
from tests.fakes.use_cases import UseCases

ANN = Caller("ann", 5_000_000)
RENDERED = fact(Kind.RENDERED, "video", seed=7, NSFWContent=False, cost=900_000, videoURL="https://vm.example/x.mp4")
STORED = fact(Kind.STORED, "v7", source=FactSource.BUCKET, size=1234, container="mp4")


def world(*clips: Clip, **changes: Any) -> UseCases:
    """A table with one task of ann's; None for the request means that it is gone."""
    made = UseCases()
    for each in clips:
        made.table.put(each)
    task = Task(
        caller="ann",
        task_uuid=TASK_UUID,
        request=request(**changes),
        fingerprint="f",
        clips=len(clips),
        created_at=START,
    )
    made.table.tasks["ann", TASK_UUID] = task
    return made


def told(*facts: Any, **changes: Any) -> dict[str, Any]:
    """The only clip of a task, as the caller sees it."""
    found = world(clip(*facts), **changes).query_service.task(ANN, TASK_UUID)
    assert found is not None
    (only,) = found["clips"]
    return dict(only)


def polled(*clips: Clip, **changes: Any) -> tuple[list[Any], list[Any]]:
    return world(*clips, **changes).query_service.poll("ann", TASK_UUID)


# ----------------------------------------------------------------------------------------------------------------------
# getResponse
# ----------------------------------------------------------------------------------------------------------------------


def test_a_stored_clip_with_its_details_is_a_success() -> None:
    """All that Runware would tell is told, with a link to our own pinned copy."""
    (item,), errors = polled(clip(RENDERED, STORED, budgeted=900_000), includeCost=True)
    assert errors == []
    link = item.pop("videoURL")
    assert link.startswith(f"https://bucket.example/videos/ann/2026/09/21/{TASK_UUID}-0.mp4?versionId=v7&")
    assert item == {
        "taskType": "videoInference",
        "taskUUID": TASK_UUID,
        "status": "success",
        "videoUUID": "video",
        "seed": 7,
        "NSFWContent": False,
        "cost": 0.9,
    }


def test_a_stored_clip_waits_for_its_details() -> None:
    """A clip keeps one name for good: until its details are known, or known to be lost, it is still processing."""
    ((item,), errors) = polled(clip(STORED))
    assert (item["status"], errors) == ("processing", [])
    ((item,), errors) = polled(clip(STORED, fact(Kind.DETAILS_UNKNOWN)))
    assert (item["status"], item["videoUUID"]) == ("success", CLIP_UUID)
    assert "seed" not in item


@pytest.mark.parametrize("kind", [None, Kind.ACCEPTED, Kind.RENDERED, Kind.FAILED])
def test_what_is_undecided_is_processing(kind: Kind | None) -> None:
    """Pending, running and rendered clips are the same to a poll, and so are failures until the last look at them."""
    facts = [fact(kind, "video" if kind == Kind.RENDERED else "")] if kind else []
    data, errors = polled(clip(*facts), clip(*facts, index=1))
    assert ([item["status"] for item in data], errors) == (["processing"], [])


@pytest.mark.parametrize(
    ("known", "code"),
    [
        (fact(Kind.FAILED, "taskFailed", message="no", error='{"code":"taskFailed","message":"no"}'), "taskFailed"),
        (fact(Kind.UNPROVEN), "purchaseUnproven"),
        (fact(Kind.REFUSED, "badModel", httpStatus=400, error='{"code":"badModel","message":"no"}'), "badModel"),
        (fact(Kind.REFUSED, "invalidApiKey", httpStatus=401, error="{}"), "providerAccountRefused"),
    ],
)  # fmt: skip
def test_what_ended_otherwise_is_an_error(known: Any, code: str) -> None:
    """Failed, refused and parked clips are errors of an accepted task, answered with 200."""
    data, ((status, error),) = polled(clip(known, fact(Kind.LAST_LOOK)))
    assert (data, status, error["code"], error["status"]) == ([], 200, code, "error")
    assert (error["taskUUID"], error["taskType"]) == (TASK_UUID, "videoInference")
    assert error["message"]


def test_a_clip_whose_bytes_were_lost_is_not_called_unproven() -> None:
    """It is known to be bought; what is missing is the copy."""
    _, ((_, error),) = polled(clip(RENDERED, fact(Kind.UNSAVED)))
    assert error["code"] == "clipNotSaved"


def test_errors_wait_for_the_last_clip() -> None:
    """The official client takes the first error for the end, so none is told while results may still come."""
    failed = clip(fact(Kind.FAILED, "taskFailed", message="no"), fact(Kind.LAST_LOOK))
    data, errors = polled(failed, clip(fact(Kind.ACCEPTED), index=1))
    assert ([item["status"] for item in data], errors) == (["processing"], [])
    data, errors = polled(failed, clip(RENDERED, STORED, index=1))
    assert ([item["status"] for item in data], len(errors)) == (["success"], 1)


@pytest.mark.parametrize("name", ["", "a film", TASK_UUID + "x", f"{TASK_UUID}#clip", TASK_UUID.replace("-4", "-1", 1)])
def test_nothing_but_a_uuid_reaches_the_table(name: str) -> None:
    """What is no UUID is not looked up, and is answered as unknown without being repeated."""
    made = world(clip())
    made.table.busy.add("clips")
    data, ((status, error),) = made.query_service.poll("ann", name)
    assert (data, status, error["code"]) == ([], 404, "taskNotFound")
    assert "taskUUID" not in error
    assert made.query_service.task(ANN, name) is None


def test_letters_of_a_uuid_may_be_of_either_case() -> None:
    """As in an order."""
    assert world(clip()).query_service.poll("ann", TASK_UUID.upper())[0]


# ----------------------------------------------------------------------------------------------------------------------
# Polls among the tasks of a request
# ----------------------------------------------------------------------------------------------------------------------


def test_polls_cost_nothing() -> None:
    """A dry run validates polls, too; of the clips that a request may ask for they are none."""
    polls = [{"taskType": "getResponse", "taskUUID": uuid4(number)} for number in range(1, 15)]
    orders = [request(numberResults=4, taskUUID=uuid4(100 + number)) for number in range(5)]
    assert len(validate([*polls, *orders], WireResponse())) == 19
    made = UseCases()
    assert [item["cost"] for item in price([polls[0], orders[0]], made.caller, made.bucket).data] == [0.0, 3.696]


def test_too_many_clips_leave_the_polls() -> None:
    """Where the orders are refused together, what became of others is told all the same."""
    orders = [request(numberResults=4, taskUUID=uuid4(100 + number)) for number in range(6)]
    answer = WireResponse()
    assert validate([*orders, {"taskType": "getResponse", "taskUUID": TASK_UUID}], answer) == [Poll(TASK_UUID)]
    assert len(answer.errors) == 6


@pytest.mark.parametrize("trouble", ["table", "bucket"])
def test_a_poll_that_cannot_be_answered_takes_nothing_along(trouble: str) -> None:
    """When the table is away, or nothing can be signed, that poll says busy, and the order beside it is bought."""
    made = world(clip(RENDERED, STORED))
    made.table.busy |= {"clips"} if trouble == "table" else set()
    made.bucket.no_links = trouble == "bucket"
    tasks = [{"taskType": "getResponse", "taskUUID": TASK_UUID}, request(taskUUID=uuid4(5))]
    answer = made.submit_service.submit(tasks, made.call())
    assert [(status, error["code"], error["taskUUID"]) for status, error in answer.errors] == [
        (503, "serviceUnavailable", TASK_UUID)
    ]
    assert [item["taskUUID"] for item in answer.data] == [uuid4(5)]


# ----------------------------------------------------------------------------------------------------------------------
# A clip, whole
# ----------------------------------------------------------------------------------------------------------------------


def test_a_clip_that_is_pending() -> None:
    """What is not known is not there."""
    assert told() == {
        "clip": 0,
        "status": "pending",
        "open": True,
        "cost": 0.924,
        "objectKey": f"videos/ann/2026/09/21/{TASK_UUID}-0.mp4",
        "clipUUID": CLIP_UUID,
        "timeline": [],
    }


def test_the_newest_fact_is_when_it_changed() -> None:
    """Of all facts and all their witnesses."""
    shown = told(fact(Kind.ACCEPTED, at=START), fact(Kind.ACCEPTED, at=START + 5000, source=FactSource.WEBHOOK))
    assert shown["updatedAt"] == iso(START + 5000)


def test_a_doubtful_purchase_says_since_when() -> None:
    """Only where a single task is asked for."""
    made = world(clip(possibly_sent_at=START + 7))
    found, page = made.query_service.task(ANN, TASK_UUID), made.query_service.tasks(ANN, {})
    assert found is not None
    assert isinstance(page, dict)
    assert found["clips"][0]["possiblySentAt"] == iso(START + 7)
    assert not {"possiblySentAt", "timeline"} & page["tasks"][0]["clips"][0].keys()


def test_a_clip_in_review_is_not_looked_at_again() -> None:
    """It is listed under the time it was parked, for people; that is no next look."""
    assert "nextCheckAt" not in told(fact(Kind.UNPROVEN)) | {}
    shown = world(clip(fact(Kind.UNPROVEN), next_check_at=START)).query_service.task(ANN, TASK_UUID)
    assert shown is not None
    assert "nextCheckAt" not in shown["clips"][0]


@pytest.mark.parametrize(("ttl", "seconds"), [(..., 3600), (60, 60), (86_400, 3600)])
def test_links_live_an_hour_at_most_and_as_short_as_the_caller_says(ttl: Any, seconds: int) -> None:
    """The bucket's policy refuses what is older than the deadline; `ttl` only shortens."""
    shown = told(RENDERED, STORED, ttl=ttl)
    assert shown["videoURL"].endswith(f"X-Amz-Expires={seconds}")
    assert shown["manifestURL"].partition("?")[0].endswith(f"{TASK_UUID}-0.json")


def test_without_a_request_there_are_no_links() -> None:
    """What was forgotten or has expired has no objects to lead to; the record and its money stay."""
    made = world(clip(RENDERED, STORED))
    made.table.tasks.clear()
    found = made.query_service.task(ANN, TASK_UUID)
    assert found is not None
    assert (found["request"], found["cost"], found["status"]) == ({}, 0.924, Status.SUCCEEDED)
    assert not {"videoURL", "manifestURL"} & found["clips"][0].keys()
    data, ((status, error),) = made.query_service.poll("ann", TASK_UUID)
    assert (data, status, error["code"]) == ([], 404, "taskExpired")


@pytest.mark.parametrize(
    "message",
    [
        'could not PUT to "https://bucket.example/key?X-Amz-Signature=abc"',
        'wrong token: "abc"',
        'the header "Authorization: "Bearer abc"" is wrong',
        'https://h.example/?token=abc\\"',
    ],
)
def test_quotation_marks_around_what_is_removed_break_no_story(message: str) -> None:
    """An error that quotes our links is told with its text, without them, as often as it is told."""
    said = read(json.dumps({"errors": [{"taskUUID": CLIP_UUID, "code": "taskFailed", "message": message}]}))
    facts = list(webhook_facts(said.about(CLIP_UUID), START))
    (entry,) = told(*facts)["timeline"]
    assert entry["fields"]["error"]["message"] == entry["fields"]["message"]
    assert "abc" not in json.dumps(entry)


def test_a_timeline_is_in_the_order_learned_and_in_the_apis_own_units() -> None:
    """Each witness has its entry; fields stand with the first, money in dollars, errors as objects."""
    known = clip(
        fact(Kind.STORED, "v7", at=START + 30, source=FactSource.BUCKET, size=5),
        fact(Kind.RENDERED, "video", at=START + 20, source=FactSource.WEBHOOK, cost=924_000),
        fact(Kind.RENDERED, "video", at=START + 40, source=FactSource.POLL),
        fact(Kind.FAILED, "oops", at=START + 10, error='{"code":"x"}'),
        fact(Kind.ACCEPTED, at=START + 10),
    )
    assert timeline(known) == [
        {"at": iso(START + 10), "fact": "accepted", "source": "poll"},
        {"at": iso(START + 10), "fact": "failed", "key": "oops", "source": "poll", "fields": {"error": {"code": "x"}}},
        {"at": iso(START + 20), "fact": "rendered", "key": "video", "source": "webhook", "fields": {"cost": 0.924}},
        {"at": iso(START + 30), "fact": "stored", "key": "v7", "source": "bucket", "fields": {"size": 5}},
        {"at": iso(START + 40), "fact": "rendered", "key": "video", "source": "poll"},
    ]  # fmt: skip
    assert json.dumps(timeline(known))


def test_a_link_that_cannot_be_signed_is_no_answer() -> None:
    """An answer without the link would say that there is no video."""
    made = world(clip(RENDERED, STORED))
    made.bucket.no_links = True
    with pytest.raises(BucketError):
        made.query_service.task(ANN, TASK_UUID)


# ----------------------------------------------------------------------------------------------------------------------
# Pages
# ----------------------------------------------------------------------------------------------------------------------


def many(number: int, **changes: Any) -> UseCases:
    """That many tasks of ann's, each a second younger than the one before."""
    made = UseCases()
    for index in range(number):
        name = uuid4(index + 1)
        made.table.put(clip(task_uuid=name, clip_uuid=uuid4(1000 + index)))
        made.table.tasks["ann", name] = Task(
            caller="ann",
            task_uuid=name,
            request=request(taskUUID=name, **changes),
            fingerprint="f",
            clips=1,
            created_at=START + 1000 * index,
        )
    return made


def page(made: UseCases, **parameters: str) -> dict[str, Any]:
    found = made.query_service.tasks(ANN, parameters)
    assert isinstance(found, dict), found
    return found


def test_filters_leave_the_cursor() -> None:
    """A page from which everything was filtered out still leads on."""
    first = page(many(3), limit="2", status="succeeded")
    assert first["tasks"] == []
    assert page(many(3), limit="2", cursor=first["cursor"])["tasks"][0]["taskUUID"] == uuid4(1)


def test_a_page_ends_before_it_outgrows_an_answer() -> None:
    """Tasks of megabytes are given out a few at a time, and none is left out."""
    made = many(5, tags={"long": "ä" * 1_500_000})
    seen: list[str] = []
    parameters: dict[str, str] = {}
    for _ in range(5):
        told = page(made, **parameters)
        assert len(json.dumps(told, ensure_ascii=False).encode()) < 10_000_000
        seen += [task["taskUUID"] for task in told["tasks"]]
        if "cursor" not in told:
            break
        parameters = {"cursor": told["cursor"]}
    assert seen == [uuid4(number) for number in (5, 4, 3, 2, 1)]


def test_a_day_narrows_what_the_table_is_asked_for() -> None:
    """The index is read for that day alone; the default page has twenty tasks."""
    made = many(1)
    page(made, day="2026-09-21")
    assert made.table.asked == [("ann", 20, None, "2026-09-21")]


def test_a_cursor_is_its_callers_own() -> None:
    """Cut, altered, made up or another's: each is refused, and none is a position in anybody's list."""
    mine = cursor("ann", "2026-09-21T00:00:00.000Z#x")
    assert position_of(mine, "ann") == "2026-09-21T00:00:00.000Z#x"
    for other in (mine[:-1], mine[1:], mine + "A", mine.swapcase(), "", "=", "ä", "A" * 500, "!" + mine):
        with pytest.raises(UnreadableError):
            position_of(other, "ann")
    with pytest.raises(UnreadableError):
        position_of(mine, "bob")


def test_every_fault_of_a_query_is_told() -> None:
    """All at once, by parameter; a name that is none is cut."""
    faults = read_query({"limit": "0", "status": "x", "day": "x", "tag": "x", "cursor": "x", "y" * 200: ""}, "ann")
    assert isinstance(faults, list)
    assert [fault["parameter"] for fault in faults] == ["limit", "status", "day", "tag", "cursor", "y" * 100]


def test_tags_are_split_at_the_first_colon() -> None:
    """A value may hold colons, and be empty."""
    assert read_query({"tag": "a:b:c"}, "ann") == Query(tag=("a", "b:c"))
    assert read_query({"tag": "a:"}, "ann") == Query(tag=("a", ""))


def test_a_budget_is_of_the_month_that_is() -> None:
    """The caller's limit as it is set, what the month's item counts, and never less than nothing left."""
    made = UseCases()
    made.table.budgets["ann", "2026-09"] = (6_000_000, 4_000_000)
    assert made.query_service.budget(ANN) == {"month": "2026-09", "spent": 6.0, "limit": 5.0, "left": 0.0}
    made.clock.now += 31 * 86_400_000
    assert made.query_service.budget(ANN) == {"month": "2026-10", "spent": 0.0, "limit": 5.0, "left": 5.0}


def costs(made: UseCases, **parameters: str) -> dict[str, Any]:
    found = made.query_service.costs(ANN, parameters)
    assert isinstance(found, dict), found
    return found


def test_costs_are_told_a_line_a_clip() -> None:
    """What each clip counts, and what it can be summed by; nothing of what was learned about it."""
    made = world(clip(budgeted=900_000), clip(index=1), tags={"project": "fox"})
    about = {"taskUUID": TASK_UUID, "createdAt": iso(START), "model": "klingai:5@3", "tags": {"project": "fox"}}
    assert costs(made) == {"costs": [{**about, "clip": 1, "cost": 0.924}, {**about, "clip": 0, "cost": 0.9}]}
    made.table.put(clip(caller="bob", index=2))
    assert len(costs(made)["costs"]) == 2


def test_a_cost_without_its_request_is_still_told() -> None:
    """Money outlives what the caller wrote."""
    made = world(clip())
    made.table.tasks.clear()
    assert costs(made)["costs"] == [{"taskUUID": TASK_UUID, "clip": 0, "createdAt": iso(START), "cost": 0.924}]


def test_costs_come_in_pages() -> None:
    """Each cursor leads on, the last page has none, and a cursor of the other list is refused."""
    made = world(*(clip(index=index) for index in range(3)))
    first = costs(made, limit="2")
    assert [line["clip"] for line in first["costs"]] == [2, 1]
    rest = costs(made, cursor=first["cursor"])
    assert [line["clip"] for line in rest["costs"]] == [0]
    assert "cursor" not in rest


def test_costs_are_of_this_month_unless_said_otherwise() -> None:
    """From the month's first to today, both days whole."""
    assert read_costs_query({}, "ann", "2026-09-21") == CostsQuery("2026-09-01", "2026-09-21")
    day = CostsQuery("2026-09-21", "2026-09-21")
    assert [iso(at) for at in day.span] == ["2026-09-21T00:00:00.000Z", "2026-09-21T23:59:59.999Z"]
    made = world(clip())
    assert len(costs(made, since="2026-09-21", until="2026-09-21")["costs"]) == 1
    assert costs(made, since="2026-09-22", until="2026-09-30")["costs"] == []
    assert costs(made, since="2026-08-01", until="2026-09-20")["costs"] == []


def test_every_fault_of_a_question_about_costs_is_told() -> None:
    """All at once, by parameter; days in the wrong order are a fault of the second."""
    faults = read_costs_query({"limit": "1001", "since": "x", "until": "2026-13-01", "tag": "x"}, "ann", "2026-09-21")
    assert isinstance(faults, list)
    assert [fault["parameter"] for fault in faults] == ["limit", "since", "until", "tag"]
    faults = read_costs_query({"until": "2026-08-31"}, "ann", "2026-09-21")
    assert isinstance(faults, list)
    assert [(fault["code"], "2026-09-01" in str(fault["message"])) for fault in faults] == [("invalidUntil", True)]


def test_nobody_is_shown_into_which_account_a_clip_was_sent() -> None:
    """Lease and account are the service's own affair."""
    made = world(
        clip(lease=Lease("me", START, START + 1, "4cc0un7"), possibly_sent_at=START, possibly_sent_to="4cc0un7")
    )
    task = made.query_service.task(ANN, TASK_UUID)
    assert task is not None
    assert "4cc0un7" not in str(task)

"""The answers about a caller's tasks, as rules without I/O."""

import json
from dataclasses import replace
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
    """The fakes with one task of ann and these clips."""
    fakes = UseCases()
    for each in clips:
        fakes.table.put(each)
    task = Task(
        caller="ann",
        task_uuid=TASK_UUID,
        request=request(**changes),
        fingerprint="f",
        clips=len(clips),
        created_at=START,
    )
    fakes.table.tasks["ann", TASK_UUID] = task
    return fakes


def clip_view(*facts: Any, **changes: Any) -> dict[str, Any]:
    """The only clip of a task, as the caller sees it."""
    found = world(clip(*facts), **changes).query_service.task(ANN, TASK_UUID)
    assert found is not None
    (only,) = found["clips"]
    return dict(only)


def poll(*clips: Clip, **changes: Any) -> tuple[list[Any], list[Any]]:
    return world(*clips, **changes).query_service.poll("ann", TASK_UUID)


# ----------------------------------------------------------------------------------------------------------------------
# getResponse
# ----------------------------------------------------------------------------------------------------------------------


def test_a_stored_clip_with_its_details_is_a_success() -> None:
    """The item has everything that Runware's would have, with a link to our own pinned copy."""
    (item,), errors = poll(clip(RENDERED, STORED, budgeted=900_000), includeCost=True)
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
    """A clip's `videoUUID` is final, so without details it stays processing until they are found or certainly lost."""
    ((item,), errors) = poll(clip(STORED))
    assert (item["status"], errors) == ("processing", [])
    ((item,), errors) = poll(clip(STORED, fact(Kind.DETAILS_UNKNOWN)))
    assert (item["status"], item["videoUUID"]) == ("success", CLIP_UUID)
    assert "seed" not in item


@pytest.mark.parametrize("kind", [None, Kind.ACCEPTED, Kind.RENDERED, Kind.FAILED])
def test_an_undecided_clip_is_processing(kind: Kind | None) -> None:
    """Pending, running and rendered clips are processing to a poll, and so are failures until their last look."""
    facts = [fact(kind, "video" if kind == Kind.RENDERED else "")] if kind else []
    data, errors = poll(clip(*facts), clip(*facts, index=1))
    assert ([item["status"] for item in data], errors) == (["processing"], [])


@pytest.mark.parametrize(
    ("recorded", "code"),
    [
        (fact(Kind.FAILED, "taskFailed", message="no", error='{"code":"taskFailed","message":"no"}'), "taskFailed"),
        (fact(Kind.UNPROVEN), "purchaseUnproven"),
        (fact(Kind.REFUSED, "badModel", httpStatus=400, error='{"code":"badModel","message":"no"}'), "badModel"),
        (fact(Kind.REFUSED, "invalidApiKey", httpStatus=401, error="{}"), "providerAccountRefused"),
    ],
)  # fmt: skip
def test_other_ends_are_errors(recorded: Any, code: str) -> None:
    """Failed, refused and reviewed clips are errors of an accepted task, answered with 200."""
    data, ((status, error),) = poll(clip(recorded, fact(Kind.LAST_LOOK)))
    assert (data, status, error["code"], error["status"]) == ([], 200, code, "error")
    assert (error["taskUUID"], error["taskType"]) == (TASK_UUID, "videoInference")
    assert error["message"]


def test_a_clip_without_a_copy_is_not_unproven() -> None:
    """The clip was certainly bought; only its copy is missing."""
    _, ((_, error),) = poll(clip(RENDERED, fact(Kind.UNSAVED)))
    assert error["code"] == "clipNotSaved"


def test_errors_wait_for_the_last_clip() -> None:
    """The official client stops at the first error, so no error is given while results may still come."""
    failed = clip(fact(Kind.FAILED, "taskFailed", message="no"), fact(Kind.LAST_LOOK))
    data, errors = poll(failed, clip(fact(Kind.ACCEPTED), index=1))
    assert ([item["status"] for item in data], errors) == (["processing"], [])
    data, errors = poll(failed, clip(RENDERED, STORED, index=1))
    assert ([item["status"] for item in data], len(errors)) == (["success"], 1)


@pytest.mark.parametrize(
    "task_uuid", ["", "a film", TASK_UUID + "x", f"{TASK_UUID}#clip", TASK_UUID.replace("-4", "-1", 1)]
)
def test_nothing_but_a_uuid_reaches_the_table(task_uuid: str) -> None:
    """Any other name is not looked up, and is answered as unknown without being repeated."""
    fakes = world(clip())
    fakes.table.busy.add("clips")
    data, ((status, error),) = fakes.query_service.poll("ann", task_uuid)
    assert (data, status, error["code"]) == ([], 404, "taskNotFound")
    assert "taskUUID" not in error
    assert fakes.query_service.task(ANN, task_uuid) is None


def test_the_case_of_a_uuid_does_not_matter() -> None:
    """A poll finds its task also by its UUID in capitals."""
    assert world(clip()).query_service.poll("ann", TASK_UUID.upper())[0]


# ----------------------------------------------------------------------------------------------------------------------
# Polls among the tasks of a request
# ----------------------------------------------------------------------------------------------------------------------


def test_polls_are_free() -> None:
    """A dry run validates polls as well, and they do not count as clips of the request."""
    polls = [{"taskType": "getResponse", "taskUUID": uuid4(number)} for number in range(1, 15)]
    orders = [request(numberResults=4, taskUUID=uuid4(100 + number)) for number in range(5)]
    assert len(validate([*polls, *orders], WireResponse())) == 19
    fakes = UseCases()
    assert [item["cost"] for item in price([polls[0], orders[0]], fakes.caller, fakes.bucket).data] == [0.0, 3.696]


def test_too_many_clips_do_not_affect_polls() -> None:
    """If the orders are refused together, polls are answered all the same."""
    orders = [request(numberResults=4, taskUUID=uuid4(100 + number)) for number in range(6)]
    answer = WireResponse()
    assert validate([*orders, {"taskType": "getResponse", "taskUUID": TASK_UUID}], answer) == [Poll(TASK_UUID)]
    assert len(answer.errors) == 6


@pytest.mark.parametrize("unavailable", ["table", "bucket"])
def test_a_poll_that_cannot_be_answered_affects_no_order(unavailable: str) -> None:
    """Without the table or links a poll is answered 503, and the order beside it is bought."""
    fakes = world(clip(RENDERED, STORED))
    fakes.table.busy |= {"clips"} if unavailable == "table" else set()
    fakes.bucket.no_links = unavailable == "bucket"
    tasks = [{"taskType": "getResponse", "taskUUID": TASK_UUID}, request(taskUUID=uuid4(5))]
    answer = fakes.submit_service.submit(tasks, fakes.call())
    assert [(status, error["code"], error["taskUUID"]) for status, error in answer.errors] == [
        (503, "serviceUnavailable", TASK_UUID)
    ]
    assert [item["taskUUID"] for item in answer.data] == [uuid4(5)]


# ----------------------------------------------------------------------------------------------------------------------
# The JSON of a clip


def test_a_pending_clip() -> None:
    """Unknown fields are left out."""
    assert clip_view() == {
        "clip": 0,
        "status": "pending",
        "open": True,
        "cost": 0.924,
        "objectKey": f"videos/ann/2026/09/21/{TASK_UUID}-0.mp4",
        "clipUUID": CLIP_UUID,
        "timeline": [],
    }


def test_updatedat_is_the_time_of_the_newest_fact() -> None:
    """`updatedAt` is the newest time over all facts and their sources."""
    view = clip_view(fact(Kind.ACCEPTED, at=START), fact(Kind.ACCEPTED, at=START + 5000, source=FactSource.WEBHOOK))
    assert view["updatedAt"] == iso(START + 5000)


def test_an_uncertain_purchase_has_its_time() -> None:
    """The time of an uncertain purchase is only in the answer about a single task."""
    fakes = world(clip(possibly_sent_at=START + 7))
    found, page = fakes.query_service.task(ANN, TASK_UUID), fakes.query_service.tasks(ANN, {})
    assert found is not None
    assert isinstance(page, dict)
    assert found["clips"][0]["possiblySentAt"] == iso(START + 7)
    assert not {"possiblySentAt", "timeline"} & page["tasks"][0]["clips"][0].keys()


def test_a_clip_in_review_has_no_next_check() -> None:
    """The index lists a clip in review under the time of the review, which is no next check."""
    assert "nextCheckAt" not in clip_view(fact(Kind.UNPROVEN)) | {}
    view = world(clip(fact(Kind.UNPROVEN), next_check_at=START)).query_service.task(ANN, TASK_UUID)
    assert view is not None
    assert "nextCheckAt" not in view["clips"][0]


@pytest.mark.parametrize(("ttl", "seconds"), [(..., 3600), (60, 60), (86_400, 3600)])
def test_links_are_valid_for_an_hour_at_most(ttl: Any, seconds: int) -> None:
    """The bucket's policy refuses links older than the deadline; `ttl` only shortens the hour."""
    view = clip_view(RENDERED, STORED, ttl=ttl)
    assert view["videoURL"].endswith(f"X-Amz-Expires={seconds}")
    assert view["manifestURL"].partition("?")[0].endswith(f"{TASK_UUID}-0.json")


def test_without_a_request_there_are_no_links() -> None:
    """An erased or expired request has no objects to link to; the record and its money stay."""
    fakes = world(clip(RENDERED, STORED))
    fakes.table.tasks.clear()
    found = fakes.query_service.task(ANN, TASK_UUID)
    assert found is not None
    assert (found["request"], found["cost"], found["status"]) == ({}, 0.924, Status.SUCCEEDED)
    assert not {"videoURL", "manifestURL"} & found["clips"][0].keys()
    data, ((status, error),) = fakes.query_service.poll("ann", TASK_UUID)
    assert (data, status, error["code"]) == ([], 404, "taskExpired")


@pytest.mark.parametrize("facts", [[RENDERED, STORED], [fact(Kind.REFUSED, "badModel")], [fact(Kind.UNPROVEN)]])
def test_an_erased_clip_has_a_state_of_its_own(facts: list[Any]) -> None:
    """The task, the clip and a poll have the erasure, whatever was before; there are no links, also with a request."""
    fakes = world(clip(*facts, fact(Kind.ERASED, at=START + 5, source=FactSource.OPERATOR)))
    found = fakes.query_service.task(ANN, TASK_UUID)
    assert found is not None
    (view,) = found["clips"]
    assert (found["status"], view["status"], view["open"]) == ("erased", "erased", False)
    assert view["erasedAt"] == iso(START + 5)
    assert not {"videoURL", "manifestURL", "versionId", "error"} & view.keys()
    data, ((status, error),) = fakes.query_service.poll("ann", TASK_UUID)
    assert (data, status, error["code"]) == ([], 404, "taskErased")
    listed = fakes.query_service.tasks(ANN, {"status": "erased"})
    assert isinstance(listed, dict)
    assert [task["taskUUID"] for task in listed["tasks"]] == [TASK_UUID]


@pytest.mark.parametrize(
    "message",
    [
        'could not PUT to "https://bucket.example/key?X-Amz-Signature=abc"',
        'wrong token: "abc"',
        'the header "Authorization: "Bearer abc"" is wrong',
        'https://h.example/?token=abc\\"',
    ],
)
def test_redaction_leaves_valid_errors(message: str) -> None:
    """An error that quotes our links keeps its text without them, the same in every field."""
    envelope = read(json.dumps({"errors": [{"taskUUID": CLIP_UUID, "code": "taskFailed", "message": message}]}))
    facts = list(webhook_facts(envelope.about(CLIP_UUID), START))
    (entry,) = clip_view(*facts)["timeline"]
    assert entry["fields"]["error"]["message"] == entry["fields"]["message"]
    assert "abc" not in json.dumps(entry)


def test_a_timeline_is_ordered_and_in_the_apis_units() -> None:
    """Each source has its entry; fields are in the first, money in dollars, errors as objects."""
    recorded = clip(
        fact(Kind.STORED, "v7", at=START + 30, source=FactSource.BUCKET, size=5),
        fact(Kind.RENDERED, "video", at=START + 20, source=FactSource.WEBHOOK, cost=924_000),
        fact(Kind.RENDERED, "video", at=START + 40, source=FactSource.POLL),
        fact(Kind.FAILED, "oops", at=START + 10, error='{"code":"x"}'),
        fact(Kind.ACCEPTED, at=START + 10),
    )
    assert timeline(recorded) == [
        {"at": iso(START + 10), "fact": "accepted", "source": "poll"},
        {"at": iso(START + 10), "fact": "failed", "key": "oops", "source": "poll", "fields": {"error": {"code": "x"}}},
        {"at": iso(START + 20), "fact": "rendered", "key": "video", "source": "webhook", "fields": {"cost": 0.924}},
        {"at": iso(START + 30), "fact": "stored", "key": "v7", "source": "bucket", "fields": {"size": 5}},
        {"at": iso(START + 40), "fact": "rendered", "key": "video", "source": "poll"},
    ]  # fmt: skip
    assert json.dumps(timeline(recorded))


def test_a_link_that_cannot_be_signed_is_an_error() -> None:
    """An answer without the link would mean that there is no video."""
    fakes = world(clip(RENDERED, STORED))
    fakes.bucket.no_links = True
    with pytest.raises(BucketError):
        fakes.query_service.task(ANN, TASK_UUID)


# ----------------------------------------------------------------------------------------------------------------------
# Pages
# ----------------------------------------------------------------------------------------------------------------------


def many(number: int, **changes: Any) -> UseCases:
    """Tasks of ann, each a second younger than the one before."""
    fakes = UseCases()
    for index in range(number):
        name = uuid4(index + 1)
        fakes.table.put(clip(task_uuid=name, clip_uuid=uuid4(1000 + index)))
        fakes.table.tasks["ann", name] = Task(
            caller="ann",
            task_uuid=name,
            request=request(taskUUID=name, **changes),
            fingerprint="f",
            clips=1,
            created_at=START + 1000 * index,
        )
    return fakes


def page(fakes: UseCases, **parameters: str) -> dict[str, Any]:
    found = fakes.query_service.tasks(ANN, parameters)
    assert isinstance(found, dict), found
    return found


def test_a_filtered_page_has_a_cursor() -> None:
    """A page from which everything was filtered out still has a cursor."""
    first = page(many(3), limit="2", status="succeeded")
    assert first["tasks"] == []
    assert page(many(3), limit="2", cursor=first["cursor"])["tasks"][0]["taskUUID"] == uuid4(1)


def test_a_page_fits_into_an_answer() -> None:
    """Tasks of megabytes are returned a few at a time, and none is left out."""
    fakes = many(5, tags={"long": "ä" * 1_500_000})
    seen: list[str] = []
    parameters: dict[str, str] = {}
    for _ in range(5):
        listed = page(fakes, **parameters)
        assert len(json.dumps(listed, ensure_ascii=False).encode()) < 10_000_000
        seen += [task["taskUUID"] for task in listed["tasks"]]
        if "cursor" not in listed:
            break
        parameters = {"cursor": listed["cursor"]}
    assert seen == [uuid4(number) for number in (5, 4, 3, 2, 1)]


def test_a_day_is_read_alone() -> None:
    """The index is read for that day alone; the default page has twenty tasks."""
    fakes = many(1)
    page(fakes, day="2026-09-21")
    assert fakes.table.page_calls == [("ann", 20, None, "2026-09-21", "")]


def test_a_prefix_selects_tasks_by_uuid() -> None:
    """Tasks are found by the beginning of their UUID, in letters of either case, and the other filters apply too."""
    fakes = many(3)
    assert [task["taskUUID"] for task in page(fakes, prefix=uuid4(2).upper())["tasks"]] == [uuid4(2)]
    assert [task["taskUUID"] for task in page(fakes, prefix=uuid4(2)[:9])["tasks"]] == [uuid4(3), uuid4(2), uuid4(1)]
    assert page(fakes, prefix=uuid4(2), status="failed")["tasks"] == []


@pytest.mark.parametrize("text", ["", "000", "0000_", "a film", TASK_UUID + "0", TASK_UUID.replace("-4", "-1", 1)])
def test_nothing_but_the_beginning_of_a_uuid_is_a_prefix(text: str) -> None:
    """A prefix has at least four characters, and only those of a version 4 UUID at their places."""
    (fault,) = read_query({"prefix": text}, "ann")
    assert isinstance(fault, dict)
    assert (fault["code"], fault["parameter"]) == ("invalidPrefix", "prefix")


def test_a_cursor_belongs_to_its_caller() -> None:
    """A cursor that is cut, altered, invented or another caller's is refused."""
    own = cursor("ann", "2026-09-21T00:00:00.000Z#x")
    assert position_of(own, "ann") == "2026-09-21T00:00:00.000Z#x"
    for other in (own[:-1], own[1:], own + "A", own.swapcase(), "", "=", "ä", "A" * 500, "!" + own):
        with pytest.raises(UnreadableError):
            position_of(other, "ann")
    with pytest.raises(UnreadableError):
        position_of(own, "bob")


def test_every_fault_of_a_query_is_listed() -> None:
    """All faults are listed at once, by parameter; an unknown name is cut."""
    faults = read_query({"limit": "0", "status": "x", "day": "x", "tag": "x", "cursor": "x", "y" * 200: ""}, "ann")
    assert isinstance(faults, list)
    assert [fault["parameter"] for fault in faults] == ["limit", "status", "day", "tag", "cursor", "y" * 100]


def test_tags_are_split_at_the_first_separator() -> None:
    """A value may have colons, and be empty."""
    assert read_query({"tag": "a:b:c"}, "ann") == Query(tag=("a", "b:c"))
    assert read_query({"tag": "a=b:c"}, "ann") == Query(tag=("a", "b:c"))
    assert read_query({"tag": "a:"}, "ann") == Query(tag=("a", ""))


@pytest.mark.parametrize("text", ["LIGHTHOUSE at", "  Lighthouse   at ", "strasse", "e\u0301te\u0301"])
def test_a_search_finds_prompts_in_any_case_and_composition(text: str) -> None:
    """A search finds a part of a prompt, whatever its case, its spaces and the composition of its characters."""
    fakes = many(3, positivePrompt="A lighthouse\nat dusk, STRA\u00dfE, \u00c9t\u00e9")
    assert len(page(fakes, prompt=text)["tasks"]) == 3
    assert page(fakes, prompt="fox")["tasks"] == []


def test_a_filtered_page_has_the_number_of_searched_tasks() -> None:
    """`searched` counts the tasks that were read for the page, so that a client can report how far it searched."""
    assert page(many(3), limit="2", prompt="nothing")["searched"] == 2
    assert page(many(3), status="succeeded")["searched"] == 3
    assert "searched" not in page(many(3))
    large = many(5, tags={"long": "\u00e4" * 1_500_000}, positivePrompt="a fox")
    cut = page(large, prompt="fox")
    assert cut["searched"] == len(cut["tasks"]) < 5


@pytest.mark.parametrize("text", ["", " \n", "a" * 201])
def test_a_search_needs_a_text(text: str) -> None:
    """A blank or very long search is refused."""
    assert read_query({"prompt": text}, "ann") != Query()
    faults = read_query({"prompt": text}, "ann")
    assert isinstance(faults, list)
    assert [fault["code"] for fault in faults] == ["invalidPrompt"]


def test_a_large_seed_is_also_a_text() -> None:
    """A parser that reads numbers as floats rounds a seed above 2^53; the text beside it stays exact."""
    large = 2**64 - 1
    rendered = fact(Kind.RENDERED, "video", seed=large, cost=900_000, videoURL="https://vm.example/x.mp4")
    task = world(clip(rendered)).query_service.task(ANN, TASK_UUID)
    assert task is not None
    (view,) = task["clips"]
    assert (view["seed"], view["seedText"]) == (large, str(large))
    assert [entry["fields"]["seedText"] for entry in view["timeline"] if entry["fact"] == "rendered"] == [str(large)]


def test_a_budget_is_of_the_current_month() -> None:
    """The answer has the caller's current limit, the month's sum, and at least zero left."""
    fakes = UseCases()
    fakes.table.budgets["ann", "2026-09"] = (6_000_000, 4_000_000)
    assert fakes.query_service.budget(ANN) == {"month": "2026-09", "spent": 6.0, "limit": 5.0, "left": 0.0}
    fakes.clock.now += 31 * 86_400_000
    assert fakes.query_service.budget(ANN) == {"month": "2026-10", "spent": 0.0, "limit": 5.0, "left": 5.0}


@pytest.mark.parametrize(
    ("of_all", "left"),
    [((0, 3_000_000), 3.0), ((7_000_000, 10_000_000), 3.0), ((7_000_000, 100_000_000), 4.0), ((2, 1), 0.0)],
)
def test_the_rest_of_a_budget_is_within_the_limit_of_all_callers(of_all: tuple[int, int], left: float) -> None:
    """The amount left is the smaller rest of the caller's limit and of all callers' present limit, also before the
    month's first order and after a change of that limit; it is not shown."""
    fakes = UseCases()
    spent, limit = of_all
    old_limit = (spent, 999_000_000) if spent else (0, None)
    fakes.table.budgets |= {("ann", "2026-09"): (1_000_000, 5_000_000), ("all", "2026-09"): old_limit}
    service = replace(fakes.query_service, monthly_limit=limit)
    assert service.budget(ANN) == {"month": "2026-09", "spent": 1.0, "limit": 5.0, "left": left}


def costs(fakes: UseCases, **parameters: str) -> dict[str, Any]:
    found = fakes.query_service.costs(ANN, parameters)
    assert isinstance(found, dict), found
    return found


def test_costs_have_a_line_per_clip() -> None:
    """Each line has the clip's cost and the fields for sums, but none of its facts."""
    fakes = world(clip(budgeted=900_000), clip(index=1), tags={"project": "fox"})
    about = {"taskUUID": TASK_UUID, "createdAt": iso(START), "model": "klingai:5@3", "tags": {"project": "fox"}}
    assert costs(fakes) == {"costs": [{**about, "clip": 1, "cost": 0.924}, {**about, "clip": 0, "cost": 0.9}]}
    fakes.table.put(clip(caller="bob", index=2))
    assert len(costs(fakes)["costs"]) == 2


def test_a_cost_without_its_request_is_listed() -> None:
    """A cost stays when its request has expired."""
    fakes = world(clip())
    fakes.table.tasks.clear()
    assert costs(fakes)["costs"] == [{"taskUUID": TASK_UUID, "clip": 0, "createdAt": iso(START), "cost": 0.924}]


def test_costs_come_in_pages() -> None:
    """Each cursor leads to the next page, the last page has none, and a cursor of another list is refused."""
    fakes = world(*(clip(index=index) for index in range(3)))
    first = costs(fakes, limit="2")
    assert [line["clip"] for line in first["costs"]] == [2, 1]
    rest = costs(fakes, cursor=first["cursor"])
    assert [line["clip"] for line in rest["costs"]] == [0]
    assert "cursor" not in rest


def test_costs_are_of_this_month_by_default() -> None:
    """The default is from the first of the month to today, both days included."""
    assert read_costs_query({}, "ann", "2026-09-21") == CostsQuery("2026-09-01", "2026-09-21")
    day = CostsQuery("2026-09-21", "2026-09-21")
    assert [iso(at) for at in day.span] == ["2026-09-21T00:00:00.000Z", "2026-09-21T23:59:59.999Z"]
    fakes = world(clip())
    assert len(costs(fakes, since="2026-09-21", until="2026-09-21")["costs"]) == 1
    assert costs(fakes, since="2026-09-22", until="2026-09-30")["costs"] == []
    assert costs(fakes, since="2026-08-01", until="2026-09-20")["costs"] == []


def test_every_fault_of_a_costs_query_is_listed() -> None:
    """All faults are listed at once, by parameter; days in the wrong order are a fault of the second."""
    faults = read_costs_query({"limit": "1001", "since": "x", "until": "2026-13-01", "tag": "x"}, "ann", "2026-09-21")
    assert isinstance(faults, list)
    assert [fault["parameter"] for fault in faults] == ["limit", "since", "until", "tag"]
    faults = read_costs_query({"until": "2026-08-31"}, "ann", "2026-09-21")
    assert isinstance(faults, list)
    assert [(fault["code"], "2026-09-01" in str(fault["message"])) for fault in faults] == [("invalidUntil", True)]


def test_the_account_of_a_clip_is_not_shown() -> None:
    """Lease and account are internal to the service."""
    fakes = world(
        clip(lease=Lease("me", START, START + 1, "4cc0un7"), possibly_sent_at=START, possibly_sent_to="4cc0un7")
    )
    task = fakes.query_service.task(ANN, TASK_UUID)
    assert task is not None
    assert "4cc0un7" not in str(task)

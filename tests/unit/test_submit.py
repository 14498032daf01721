"""Request bodies, orders, purchases and the caller's answer, on fakes."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.budget import OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import Kind, Lease, Status
from rushes.domain.formats import canonical
from rushes.domain.task import Existing, Recorded
from rushes.errors import BusyError, UnreadableError
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived
from rushes.runware.request import Order
from rushes.services.metric import Metric
from rushes.services.request_validation import (
    MAX_BODY_BYTES,
    REPEATED_HEADER,
    WireResponse,
    bearer_in,
    parse,
    validate,
    without_authentication,
)
from rushes.services.submit import price
from tests.fakes.builders import MONTH, PRICE, START, TASK_UUID, TIMES, refusal, request, uuid4
from tests.fakes.use_cases import FakeBucket, UseCases
from tests.unit.pictures import data_uri, picture

ACK = {"taskType": "videoInference", "taskUUID": TASK_UUID}


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def submit(world: UseCases, *tasks: object, lasts: int = TIMES.function) -> WireResponse:
    """The answer to these tasks, or to one valid task."""
    return world.submit_service.submit(tasks or [request()], world.call(lasts))


def codes(answer: WireResponse) -> list[tuple[int, str]]:
    """The errors of an answer, each of which must have its task's UUID."""
    assert all(error.get("taskUUID", "unnamed") for _, error in answer.errors)
    return [(status, error["code"]) for status, error in answer.errors]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        dumped([{}] * 21),
        b'[{"taskUUID": "\xff"}]',
        b"\xff\xfe[\x00]\x00",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'[{"a":' * 30_000,
        b'[{"CFGScale": NaN}]',
        b'[{"CFGScale": Infinity}]',
        b'[{"CFGScale": -Infinity}]',
        b'[{"CFGScale": 1e400}]',
        b'[{"ttl": 1' + b"0" * 5000 + b"}]",
        b'[{"positivePrompt": "\\ud800"}]',
        b'[{"\\udfff": 1}]',
        b"[{}]" + b" " * MAX_BODY_BYTES,
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_a_body_that_is_no_array_of_tasks_is_unreadable(body: bytes) -> None:
    """A body without tasks raises the one error, whose message never repeats the input."""
    with pytest.raises(UnreadableError, match=r"^The (body must |array must |body is UTF-16)"):
        parse(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xef\xbb\xbf[{}]", "begins with a byte order mark"),
        (b"\xff\xfe[\x00]\x00", "is UTF-16"),
        (b"\x1f\x8b\x08\x00", "is compressed (gzip)"),
        (b'[{"CFGScale": 1e400}]', "no number beyond 1.8e308, such as 1e400"),
        (b'[{"CFGScale": -1e400}]', "no number beyond 1.8e308, such as 1e400"),
        (b'[{"ttl": 1' + b"0" * 5000 + b"}]", "no number beyond 1.8e308"),
        (b'[{"CFGScale": NaN}]', "without NaN"),
        (b'[{"CFGScale": -Infinity}]', "without -Infinity"),
        (b'[{"positivePrompt": "\\ud800"}]', "in UTF-8"),
        (b'[{"positivePrompt": }]', "must be JSON; unexpected at character 21"),
        (b'[{"positivePrompt": "a\x00b"}]', "must be JSON; unexpected at character 23"),
        (b'[{"x": ' + b"[" * 30 + b"]" * 30 + b"}]", "more than 20 levels deep"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_each_kind_of_unreadable_body_has_its_own_message(body: bytes, words: str) -> None:
    """The message names the fault, for a body and for a line alike."""
    for what in ("body", "line"):
        with pytest.raises(UnreadableError, match=rf"^The {what} .*{re.escape(words)}"):
            parse(body, what)


@pytest.mark.parametrize(
    ("body", "tasks"),
    [
        (b"{}", [{}]),
        (b'[1, "a", null]', [1, "a", None]),
        (dumped([{}] * 20), [{}] * 20),
        (b"\n [ { } ] \n", [{}]),
        ('[{"positivePrompt": "\U0001f3ac ä"}]'.encode(), [{"positivePrompt": "\U0001f3ac ä"}]),
    ],
)
def test_a_bare_object_counts_as_an_array_of_one(body: bytes, tasks: list[object]) -> None:
    """One to twenty tasks are read, a single one with or without its array."""
    assert parse(body) == tasks


def test_the_largest_body_is_read() -> None:
    """The size limit is inclusive."""
    assert parse(b"[{}]".ljust(MAX_BODY_BYTES)) == [{}]


def test_nesting_is_unreadable_or_a_fault_at_any_depth() -> None:
    """`validate` accepts any depth that `parse` accepts."""

    def judge(body: bytes) -> None:
        # Handlers call both at one depth of the stack; validate is called two functions deeper.
        try:
            tasks = parse(body)
        except UnreadableError:
            return
        (lambda: (lambda: validate(tasks, WireResponse()))())()

    for depth in range(300, 1000):
        judge(dumped(request())[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}")


LOGIN = {"taskType": "authentication", "apiKey": "rushes_key"}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (dumped([LOGIN, request()]), True),
        (dumped([{"apiKey": "rushes_key", "taskType": "authentication", "more": [1]}]), True),
        (dumped(LOGIN), True),
        (b" \n [ \t " + dumped(LOGIN) + b", {" + b"\xff" * 10_000, True),
        (dumped([request(), LOGIN]), False),
        (dumped([{**LOGIN, "apiKey": 5}]), False),
        (dumped([{"taskType": "authentication"}]), False),
        (dumped([{**LOGIN, "taskType": "Authentication"}]), False),
        (dumped([[LOGIN]]), False),
        (b" " * 4096 + dumped([LOGIN]), False),
        (dumped([{"more": "x" * 4096, **LOGIN}]), False),
        (b"[" * 4096, False),
        (b'{"a":' * 1000, False),
        (b"[1" + b"0" * 4400, False),
        (b"[", False),
        (b"\xff\xfe", False),
        (b"", False),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else "",
)
def test_a_key_is_read_from_the_first_task_alone(body: bytes, found: bool) -> None:
    """An `authentication` task at the beginning is a credential; nothing behind it is read."""
    assert bearer_in(body) == ("Bearer rushes_key" if found else None)


@given(st.binary(max_size=60))
def test_any_bytes_hold_a_key_or_none(body: bytes) -> None:
    """Bytes of an unknown sender raise nothing."""
    assert bearer_in(body) is None


def test_an_authentication_task_is_no_order() -> None:
    """An authentication task is removed, does not count among the twenty, and is refused beside a key in the header."""
    tasks = [request(taskUUID=uuid4(number)) for number in range(20)]
    assert without_authentication(parse(dumped([LOGIN, *tasks])), mixed=False) == tasks
    assert without_authentication(tasks, mixed=True) == tasks
    assert without_authentication([LOGIN], mixed=False) == []
    with pytest.raises(
        UnreadableError, match=r"^The body must not hold an authentication task beside the Authorization header\.$"
    ):
        without_authentication([LOGIN, *tasks], mixed=True)
    with pytest.raises(UnreadableError, match="1 to 20 tasks"):
        parse(dumped([LOGIN, *tasks, request()]))


def test_an_authentication_task_elsewhere_is_refused_without_its_key() -> None:
    """A second authentication task, or one in a file, is a fault, and its key is not repeated."""
    answer = WireResponse()
    assert len(validate([request(), LOGIN], answer)) == 1
    ((status, error),) = answer.errors
    assert (status, error["code"]) == (400, "unsupportedTaskType")
    assert "before all others" in error["message"]
    assert "rushes_key" not in json.dumps(answer.body)


@pytest.mark.parametrize("task", [None, 5, "text", [], [[]], True])
def test_a_task_that_is_no_object_is_a_fault(task: object) -> None:
    """Any other value in the array is a fault of its own."""
    answer = WireResponse()
    assert validate([task], answer) == []
    assert codes(answer) == [(400, "invalidTask")]


@pytest.mark.parametrize(
    ("task_type", "code"), [("imageInference", "unsupportedTaskType"), ("", "unsupportedTaskType")]
)
def test_other_task_types_are_refused_as_one_fault(task_type: str, code: str) -> None:
    """A task of another type is not validated as a video."""
    answer = WireResponse()
    validate([{"taskType": task_type, "taskUUID": TASK_UUID.upper()}], answer)
    ((_, error),) = answer.errors
    assert (error["code"], error["taskUUID"]) == (code, TASK_UUID)


def test_a_task_too_large_for_the_table_is_refused() -> None:
    """The limit is for the task without its inline image, however large that is."""
    image = "data:image/png;base64," + "iVBORw0KGgoAAAAN" + "A" * 1_000_000
    framed = request(inputs={"frameImages": [image]})
    answer = WireResponse()
    assert len(validate([framed], answer)) == 1
    validate([framed | {"tags": {"a": "x" * 350_000}}], answer)
    ((_, error),) = answer.errors
    assert (error["code"], error["parameter"], error["taskUUID"]) == ("valueTooLarge", "body", TASK_UUID)


def test_every_fault_names_its_task() -> None:
    """Every fault of a task has its UUID and type, so that the caller can distinguish tasks."""
    answer = WireResponse()
    validate([request(duration=7, seed=1)], answer)
    assert [(error["taskUUID"], error["taskType"]) for _, error in answer.errors] == [(TASK_UUID, "videoInference")] * 2


def test_one_uuid_twice_in_a_request_buys_neither(world: UseCases) -> None:
    """Two tasks under one UUID, capitals or not, are one fault, and the third task is bought."""
    answer = submit(world, request(), request(taskUUID=TASK_UUID.upper()), request(taskUUID=uuid4(99)))
    assert codes(answer) == [(400, "duplicateTaskUUID")]
    assert [item["taskUUID"] for item in answer.data] == [uuid4(99)]
    assert len(world.runware.sent) == 1


@pytest.mark.parametrize("bad", [request(duration=7), {"taskType": "other", "taskUUID": TASK_UUID}])
def test_no_error_stands_beside_an_accepted_task_of_the_same_uuid(world: UseCases, bad: dict[str, Any]) -> None:
    """A UUID that a request uses twice is never both accepted and refused in one answer."""
    answer = submit(world, request(), bad)
    assert not {item["taskUUID"] for item in answer.data} & {error.get("taskUUID") for _, error in answer.errors}


@pytest.mark.parametrize(("clips", "bought"), [((4,) * 5, 20), ((4, 4, 4, 4, 3, 1), 20), ((4, 4, 4, 4, 4, 1), 0)])
def test_a_request_has_at_most_twenty_clips(world: UseCases, clips: tuple[int, ...], bought: int) -> None:
    """A request for more than twenty clips in all buys none of them."""
    answer = submit(world, *(request(taskUUID=uuid4(90 + n), numberResults=many) for n, many in enumerate(clips)))
    assert len(world.runware.sent) == bought
    assert bool(answer.errors) is not bool(bought)


RECEIVER = "https://hooks.example/runware?token=1"
SIGNING = Caller("ann", 100_000_000, signs_webhooks=True)


def test_an_order_with_a_receiver_needs_a_secret(world: UseCases) -> None:
    """Without a secret an order that names a receiver is refused before anything is recorded; others are bought."""
    answer = submit(world, request(webhookURL=RECEIVER), request(taskUUID=uuid4(2)))
    assert codes(answer) == [(400, "missingWebhookSecret")]
    assert [item["taskUUID"] for item in answer.data] == [uuid4(2)]
    assert list(world.table.tasks) == [("ann", uuid4(2))]
    assert codes(price([request(webhookURL=RECEIVER)], world.caller, world.bucket)) == [(400, "missingWebhookSecret")]
    assert price([request(webhookURL=RECEIVER)], SIGNING, world.bucket).data


def test_the_receiver_is_recorded_and_never_sent(world: UseCases) -> None:
    """The task has its receiver; Runware gets the service's own callback and nothing of the caller's address."""
    world.caller = SIGNING
    submit(world, request(webhookURL=RECEIVER))
    assert world.table.tasks["ann", TASK_UUID].webhook_url == RECEIVER
    (sent,) = world.runware.sent
    assert sent["webhookURL"].startswith("https://hooks.example/webhooks/runware/ann/")
    assert RECEIVER not in str(sent)


@pytest.mark.parametrize(("signs", "expected"), [(True, "https://default.example/"), (False, "")])
def test_a_callers_default_receiver_is_for_tasks_that_name_none(world: UseCases, signs: bool, expected: str) -> None:
    """The receiver that an operator has set is used once there is a secret; a task's own receiver precedes it."""
    world.caller = Caller("ann", 100_000_000, webhook_url="https://default.example/", signs_webhooks=signs)
    submit(world)
    assert world.table.tasks["ann", TASK_UUID].webhook_url == expected
    if signs:
        submit(world, request(taskUUID=uuid4(2), webhookURL=RECEIVER))
        assert world.table.tasks["ann", uuid4(2)].webhook_url == RECEIVER


def test_a_repeat_after_the_secret_was_revoked_is_acknowledged(world: UseCases) -> None:
    """A recorded task is acknowledged as before: its clip is bought, which an error would deny."""
    world.caller = SIGNING
    submit(world, request(webhookURL=RECEIVER))
    world.caller = SIGNING._replace(signs_webhooks=False)
    answer = submit(world, request(webhookURL=RECEIVER))
    assert (answer.data, answer.errors, len(world.runware.sent)) == ([ACK], [], 1)


def priced(*tasks: object) -> WireResponse:
    return price(tasks, UseCases().caller, FakeBucket())


def test_a_dry_run_only_prices() -> None:
    """A dry run returns the cost in dollars of valid tasks and the faults of others."""
    no_image = request(taskUUID=uuid4(2), inputs={"frameImages": ["s3://clips/inputs/ann/a.png"]})
    poll = {"taskType": "getResponse", "taskUUID": uuid4(3)}
    answer = priced(request(taskUUID=uuid4(1), duration=7), no_image, request(duration=10, numberResults=2), poll)
    assert answer.data == [{**ACK, "dryRun": True, "cost": 3.696}, {**poll, "dryRun": True, "cost": 0.0}]
    assert [error["taskUUID"] for _, error in answer.errors] == [uuid4(1), uuid4(2)]
    assert codes(answer)[0] == (400, "unsupportedDuration")


@pytest.mark.parametrize(
    ("data", "statuses", "status", "keys"),
    [
        ([ACK], [], 200, {"data"}),
        ([], [], 200, {"data"}),
        ([ACK], [400], 200, {"data", "errors"}),
        ([], [402, 402], 402, {"data", "errors"}),
        ([], [503], 503, {"data", "errors"}),
        ([], [402, 503], 400, {"data", "errors"}),
    ],
)
def test_the_answers_status_follows_from_its_items(
    data: list[dict[str, Any]], statuses: list[int], status: int, keys: set[str]
) -> None:
    """The status is 200 if any task was accepted, else the common status; no `errors` key without errors."""
    answer = WireResponse(data, [(number, {"code": "x"}) for number in statuses])
    assert answer.status == status
    assert set(answer.body) == keys


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
mutated = st.builds(
    lambda changes, left_out: {name: value for name, value in {**request(), **changes}.items() if name != left_out},
    st.dictionaries(
        st.sampled_from([*request(), "duration", "ttl", "inputs", "tags", "numberResults", "width", "height", ""]),
        json_values | st.sampled_from([5, 10, 5.0, 4, "klingai:5@3", uuid4(5)]),
        max_size=2,
    ),
    st.sampled_from([None, *request()]),
)


@given(json_values | st.lists(json_values | mutated, max_size=5))
def test_any_json_is_unreadable_faulty_or_an_order(body: object) -> None:
    """Any JSON is unreadable, faulty or an order with a price; nothing else can happen."""
    try:
        tasks = parse(dumped(body))
    except UnreadableError:
        return
    answer = WireResponse()
    orders = validate(tasks, answer)
    assert len(orders) + len(answer.errors) >= 1
    assert all(order.price in (PRICE, 2 * PRICE) for order in orders)
    assert [item["cost"] > 0 for item in priced(*tasks).data] == [True] * len(orders)
    json.dumps(answer.body, allow_nan=False)


@given(st.binary(max_size=40))
def test_any_bytes_are_tasks_or_unreadable(body: bytes) -> None:
    """Any bytes are tasks or raise the one error."""
    with suppress(UnreadableError):
        parse(body)


def test_the_intent_is_recorded_before_anything_is_sent(world: UseCases) -> None:
    """When Runware receives the first clip, the task, its clips with their leases, and the money are in the table."""
    seen: list[Mapping[str, Any]] = []

    def look(task: Mapping[str, Any]) -> None:
        seen.append(task)
        rows = [world.row(index) for index in range(3)]
        assert ("ann", TASK_UUID) in world.table.tasks
        assert task["taskUUID"] in {row.clip_uuid for row in rows}
        assert rows[len(seen) - 1].lease == Lease(
            "holder", START, START + TIMES.lease, world.buyer().credentials.account
        )
        assert rows[-1].next_check_at == START + TIMES.lease  # in case this process ends here
        assert world.table.budgets["all", MONTH][0] == world.table.budgets["ann", MONTH][0] == 3 * PRICE

    world.runware.on_send = look
    assert submit(world, request(numberResults=3)).body == {"data": [ACK]}
    assert len(seen) == 3


def test_each_clip_is_bought_separately(world: UseCases) -> None:
    """Every result is its own purchase, with its own UUID, object and callback."""
    submit(world, request(numberResults=4, destination="film", outputFormat="WEBM"))
    assert len({sent["taskUUID"] for sent in world.runware.sent}) == 4
    assert len({sent["webhookURL"] for sent in world.runware.sent}) == 4
    keys = [world.row(index).object_key for index in range(4)]
    assert keys == [f"videos/ann/film/{TASK_UUID}-{index}.webm" for index in range(4)]


@pytest.mark.usefixtures("ahead_of_utc")
def test_a_bought_clip_is_recorded_as_such(world: UseCases) -> None:
    """After an acknowledgement the clip runs without a lease, under the key of its day in UTC, at its estimate."""
    submit(world)
    row = world.row()
    assert (row.status, row.lease, row.budgeted, row.month) == (Status.RUNNING, None, PRICE, MONTH)
    assert row.object_key == f"videos/ann/2026/09/21/{TASK_UUID}-0.mp4"
    assert row.next_check_at == START + TIMES.usual_render
    assert world.telemetry.counted == {Metric.CLIPS_BOUGHT: 1}


@pytest.mark.parametrize(
    "repeat",
    [
        request(),
        request(taskUUID=TASK_UUID.upper()),
        dict(reversed(request().items())),
    ],
)
def test_a_repeat_gets_the_stored_answer_and_buys_nothing(world: UseCases, repeat: dict[str, Any]) -> None:
    """The same request under the same UUID has the same answer, in any order of keys and any case of the UUID."""
    first, again = submit(world), submit(world, repeat)
    assert first.body == again.body == {"data": [ACK]}
    assert (first.headers, again.headers) == ({}, {REPEATED_HEADER: TASK_UUID})
    assert len(world.runware.sent) == 1
    assert world.table.budgets["all", MONTH][0] == PRICE


def test_an_equal_number_is_the_same_request(world: UseCases) -> None:
    """5 and 5.0 are equal, so the second request is a repeat."""
    submit(world, request(duration=5))
    assert submit(world, request(duration=5.0)).body == {"data": [ACK]}


@pytest.mark.parametrize("changes", [{"positivePrompt": "another"}, {"duration": 5}, {"tags": {"a": "b"}}])
def test_another_request_under_a_used_uuid_is_a_conflict(world: UseCases, changes: dict[str, Any]) -> None:
    """A different request under a used UUID buys nothing, even if it only adds a default."""
    submit(world)
    answer = submit(world, request(**changes))
    assert codes(answer) == [(400, "conflictTaskUUID")]
    assert answer.data == []
    assert len(world.runware.sent) == 1


def test_callers_have_uuids_of_their_own(world: UseCases) -> None:
    """Another caller's task under the same UUID is another task."""
    submit(world)
    world.caller = Caller("bob", 100_000_000)
    assert submit(world).body == {"data": [ACK]}
    assert len({sent["taskUUID"] for sent in world.runware.sent}) == 2


def test_one_faulty_task_does_not_affect_others(world: UseCases) -> None:
    """An array may be accepted in part; the answer lists accepted and refused tasks."""
    answer = submit(world, request(duration=7), request(taskUUID=uuid4(50)), 5)
    assert (answer.status, [item["taskUUID"] for item in answer.data]) == (200, [uuid4(50)])
    assert codes(answer) == [(400, "unsupportedDuration"), (400, "invalidTask")]
    assert len(world.runware.sent) == 1


@pytest.mark.parametrize("scope", ["all", "ann"])
@pytest.mark.parametrize(("limit", "bought"), [(2 * PRICE, 2), (2 * PRICE - 1, 1), (0, 0), (PRICE - 1, 0)])
def test_nothing_is_bought_beyond_a_limit(world: UseCases, scope: str, limit: int, bought: int) -> None:
    """Both limits hold to the micro-dollar, and a refused task is neither recorded nor sent."""
    if scope == "all":
        world.monthly_limit = limit
    else:
        world.caller = Caller("ann", limit)
    answer = submit(world, *(request(taskUUID=uuid4(60 + number)) for number in range(5)))
    assert (len(answer.data), len(world.runware.sent), len(world.table.tasks)) == (bought,) * 3
    assert codes(answer) == [(402, "budgetExceeded")] * (5 - bought)
    assert answer.status == (200 if bought else 402)
    assert world.table.budgets.get((scope, MONTH), (0, 0))[0] == bought * PRICE
    assert world.telemetry.counted[Metric.BUDGET_REFUSED] == 5 - bought


def test_a_task_is_within_the_budget_as_a_whole_or_not_at_all(world: UseCases) -> None:
    """Four clips within a budget for three buy none."""
    world.caller = Caller("ann", 3 * PRICE)
    assert codes(submit(world, request(numberResults=4))) == [(402, "budgetExceeded")]
    assert world.runware.sent == []


def test_a_repeat_needs_no_budget(world: UseCases) -> None:
    """A bought task is acknowledged again although the budget is used up."""
    world.caller = Caller("ann", PRICE)
    submit(world)
    assert submit(world).body == {"data": [ACK]}


@pytest.mark.parametrize(
    ("callers_limit", "services_limit", "sum_before", "message"),
    [
        (
            2_500_000,
            10**9,
            PRICE,
            "Your limit of $2.50 for this month has $1.576 left, this task needs $1.848. Nothing was bought.",
        ),
        (
            0,
            10**9,
            PRICE,
            "Your limit of $0.00 for this month has $0.000 left, this task needs $1.848. Nothing was bought.",
        ),
        (
            10**9,
            77,
            0,
            "The service's limit for this month is reached: this task needs $1.848. Nothing was bought.",
        ),
    ],
)
def test_the_error_has_the_callers_limit_but_not_the_services(
    world: UseCases, callers_limit: int, services_limit: int, sum_before: int, message: str
) -> None:
    """A caller gets its own figures; the limit of all callers together is the operator's."""
    world.caller, world.monthly_limit = Caller("ann", callers_limit), services_limit
    world.table.budgets["ann", MONTH] = sum_before, callers_limit
    ((_, error),) = submit(world, request(numberResults=2)).errors
    assert (error["code"], error["parameter"], error["message"]) == ("budgetExceeded", "numberResults", message)


@pytest.mark.parametrize(("limit", "bought"), [(2 * PRICE, True), (PRICE, False), (0, False)])
def test_a_changed_limit_decides_for_the_whole_month(world: UseCases, limit: int, bought: bool) -> None:
    """The caller's current limit decides; the one in the month's item is only a record of the last order."""
    world.table.budgets["ann", MONTH] = PRICE, 50 * PRICE
    world.caller = Caller("ann", limit)
    answer = submit(world)
    assert bool(answer.data) is bought is bool(world.runware.sent)
    assert codes(answer) == ([] if bought else [(402, "budgetExceeded")])
    assert world.table.budgets["ann", MONTH] == ((2 * PRICE, 2 * PRICE) if bought else (PRICE, 50 * PRICE))


def test_a_table_busy_before_the_record_sends_nothing(world: UseCases) -> None:
    """Without a record nothing is bought, and the caller may send the same request again."""
    world.table.busy = {"record"}
    answer = submit(world)
    assert (codes(answer), answer.status) == ([(503, "serviceUnavailable")], 503)
    assert world.runware.sent == []
    assert world.telemetry.logs == []  # without a record there is no lease to give back
    world.table.busy = set()
    assert submit(world).body == {"data": [ACK]}


def test_a_table_busy_after_the_send_changes_nothing_for_the_caller(world: UseCases) -> None:
    """A recorded task is acknowledged although its outcome could not be saved; the lease stays as evidence."""
    world.table.busy = {"save"}
    assert submit(world).body == {"data": [ACK]}
    assert world.row().lease == Lease("holder", START, START + TIMES.lease, world.buyer().credentials.account)
    world.table.busy = set()
    assert submit(world).body == {"data": [ACK]}
    assert len(world.runware.sent) == 1


def test_a_table_busy_at_a_repeat_is_a_503(world: UseCases) -> None:
    """A repeat whose clips cannot be read gets a 503 rather than a wrong answer."""
    submit(world)
    world.table.busy = {"clips"}
    assert codes(submit(world)) == [(503, "serviceUnavailable")]


def test_a_bucket_that_cannot_sign_changes_nothing_for_the_caller(world: UseCases) -> None:
    """A recorded task is acknowledged without an upload link, since the reconciler sends it later."""
    world.bucket.no_links = True
    assert submit(world).body == {"data": [ACK]}


@pytest.mark.parametrize("outcome", [Accepted("conflict"), NeverArrived("ConnectError"), Ambiguous("ReadTimeout")])
def test_a_recorded_task_is_acknowledged_after_any_outcome(world: UseCases, outcome: Any) -> None:
    """An uncertain purchase is the service's concern, not the caller's."""
    world.runware.script = [outcome]
    assert submit(world).body == {"data": [ACK]}
    assert world.row().open
    assert world.row().possibly_sent_at == (START if isinstance(outcome, Ambiguous) else None)


@pytest.mark.parametrize("lasts", [TIMES.http - 1, 0])
def test_without_time_to_send_nothing_is_recorded(world: UseCases, lasts: int) -> None:
    """A function that is about to end neither records nor sends, and the caller may retry."""
    answer = submit(world, lasts=lasts)
    assert (codes(answer), answer.status) == ([(503, "serviceUnavailable")], 503)
    assert answer.errors[0][1]["taskUUID"] == TASK_UUID
    assert (world.runware.sent, world.table.tasks) == ([], {})
    assert submit(world).body == {"data": [ACK]}


def test_a_repeat_needs_no_time(world: UseCases) -> None:
    """Time for a send is needed only to record a task."""
    world.bucket.others["photos", "cat.png"] = picture()
    world.caller = Caller("ann", 100 * PRICE, ("photos/",))
    with_image = request(inputs={"frameImages": ["s3://photos/cat.png"]})
    assert submit(world, with_image).data
    assert submit(world, with_image, lasts=0).data


@pytest.mark.parametrize(("clips", "lasts", "recorded"), [(8, 0, True), (9, 0, False), (9, 1, True), (17, 1, False)])
def test_time_is_left_for_every_round_of_clips(world: UseCases, clips: int, lasts: int, recorded: bool) -> None:
    """Many clips are sent in rounds: the first may take its full time, the clips of the others are given back."""
    names = [uuid4(number) for number in range(clips)]
    time = TIMES.http + lasts * TIMES.to_finish
    answer = world.submit_service.submit([request(taskUUID=name) for name in names], world.call(time))
    assert ("ann", names[-1]) in world.table.tasks if recorded else codes(answer) == [(503, "serviceUnavailable")]
    assert len(world.table.tasks) == clips - (not recorded)


@pytest.mark.parametrize("slowness", [500, 2_000, 4_000, 6_000, 12_000])
def test_a_slow_table_leaves_no_lease_of_an_unsent_clip(world: UseCases, slowness: int) -> None:
    """Recording ends while there is time to send: an unrecorded task is a 503, a recorded clip sent or given back."""
    genuine = world.table.record

    def slow(*arguments: Any, **options: Any) -> Any:
        world.clock.now += slowness
        return genuine(*arguments, **options)

    world.table.record = slow  # type: ignore[method-assign]
    names = [uuid4(number) for number in range(20)]
    call = world.call(TIMES.function - TIMES.to_finish)
    answer = world.submit_service.submit([request(taskUUID=name) for name in names], call)
    assert world.clock.now <= call.buyer.ends_at
    assert len(world.table.tasks) + len(codes(answer)) == 20
    assert set(codes(answer)) <= {(503, "serviceUnavailable")}
    assert [item["taskUUID"] for item in answer.data] == [uuid for _, uuid in world.table.tasks]
    sent = {task["taskUUID"] for task in world.runware.sent}
    assert sent
    for row in world.table.rows.values():
        assert row.clip_uuid in sent or row.lease is None
        assert row.possibly_sent_at is None


def test_a_record_whose_answer_was_lost_leaves_no_lease(world: UseCases) -> None:
    """Nothing is sent after such a record, so its clips must not look sent."""
    world.table.lost_answers = {"record"}
    assert codes(submit(world, request(numberResults=2))) == [(503, "serviceUnavailable")]
    assert world.runware.sent == []
    for index in range(2):
        row = world.row(index)
        assert (row.lease, row.possibly_sent_at, row.status) == (None, None, Status.PENDING)
        assert row.next_check_at is not None


def test_a_repeat_whose_record_had_no_answer_keeps_the_first_requests_lease(world: UseCases) -> None:
    """The repeat does not know that nothing of its own was written; the first request is sending under its lease."""

    def repeat(_: object) -> None:
        world.runware.on_send = lambda _: None
        world.table.lost_answers = {"record"}
        lease = world.row().lease
        call = world.call()
        other = call._replace(buyer=call.buyer._replace(holder="other"))
        assert codes(world.submit_service.submit([request()], other)) == [(503, "serviceUnavailable")]
        assert lease is not None
        assert world.row().lease == lease

    world.runware.on_send = repeat
    assert submit(world).body == {"data": [ACK]}
    assert [task["taskUUID"] for task in world.runware.sent] == [world.row().clip_uuid]
    assert world.row().status == Status.RUNNING


@pytest.mark.parametrize("unattended", [False, True])
def test_refusals_are_saved_while_the_budgets_are_contended(world: UseCases, unattended: bool) -> None:
    """Contention delays the money but not the refusal: each caller gets its error, and the money is released later."""
    world.table.contended = True
    for number in range(100):
        world.runware.script = [refusal()]
        call = world.call()._replace(buyer=world.buyer(unattended=unattended))
        answer = world.submit_service.submit([request(taskUUID=uuid4(number))], call)
        assert codes(answer) == [(400, "invalidModel")]
    for row in world.table.rows.values():
        assert (row.status, row.lease, row.possibly_sent_at, row.budgeted) == (Status.FAILED, None, None, PRICE)
        assert (row.budget_is_current, row.open) == (False, False)
        assert row.next_check_at == START + TIMES.check
    assert world.table.budgets["all", MONTH][0] == 100 * PRICE


def test_a_clip_without_time_is_given_back(world: UseCases) -> None:
    """The lease of a clip without time for its send ends, the task is acknowledged, and a sweep sends the clip."""
    world.runware.on_send = lambda _: setattr(world.clock, "now", world.clock.now + 2 * TIMES.http)
    assert submit(world, request(numberResults=2)).body == {"data": [ACK]}
    assert len(world.runware.sent) == 1
    row = world.row(1)
    assert (row.lease, row.possibly_sent_at, row.status) == (None, None, Status.PENDING)
    assert row.next_check_at is not None


def test_clips_that_waited_too_long_for_their_turn_are_not_sent(world: UseCases) -> None:
    """The time is checked before every single clip, not once for all."""
    world.runware.on_send = lambda _: setattr(world.clock, "now", world.clock.now + TIMES.http)
    submit(world, request(numberResults=4))
    assert len(world.runware.sent) == 2
    assert [world.row(index).status for index in range(4)] == [Status.RUNNING] * 2 + [Status.PENDING] * 2


def test_a_refused_task_is_answered_with_its_errors(world: UseCases) -> None:
    """If Runware refused every clip the caller gets the errors, on repeats too, and the money is released."""
    world.runware.script = [refusal(), refusal(code="promptBlocked")]
    for _ in range(2):
        answer = submit(world, request(numberResults=2))
        assert (answer.status, answer.data) == (400, [])
        assert codes(answer) == [(400, "invalidModel"), (400, "promptBlocked")]
        assert all(error["taskUUID"] == TASK_UUID for _, error in answer.errors)
    assert len(world.runware.sent) == 2
    assert world.table.budgets["all", MONTH][0] == world.table.budgets["ann", MONTH][0] == 0


def test_a_task_refused_in_part_is_accepted(world: UseCases) -> None:
    """With one clip that was not refused the task is accepted without an error."""
    world.runware.script = [refusal(), Accepted("acknowledged")]
    assert submit(world, request(numberResults=2)).body == {"data": [ACK]}
    assert world.table.budgets["ann", MONTH][0] == PRICE


@pytest.mark.parametrize("status", [401, 402, 403])
def test_an_account_refusal_is_answered_with_503(world: UseCases, status: int) -> None:
    """An account refusal is the operator's concern: a 503 with its own code, an alarm, and no money budgeted."""
    world.runware.script = [refusal(status, "invalidApiKey", None)]
    answer = submit(world)
    assert (answer.status, codes(answer)) == (503, [(503, "providerAccountRefused")])
    assert world.telemetry.counted[Metric.ACCOUNT_REFUSED] == 1
    assert world.row().has(Kind.REFUSED)
    assert world.table.budgets["all", MONTH][0] == 0


def test_the_fake_table_answers_as_the_real_one(world: UseCases) -> None:
    """The fake returns recorded, existing and over budget as the real table would, and raises for a busy call."""
    submit(world)
    task, row = world.table.tasks["ann", TASK_UUID], world.row()
    assert isinstance(world.table.record(task._replace(), [row], []), Existing)  # another call's record, not a retry
    other = task._replace(task_uuid=uuid4(1))
    wanted = Reservation("ann", MONTH, PRICE, PRICE)
    assert world.table.record(other, [], [wanted]) == OverBudget("ann", PRICE, PRICE)
    assert isinstance(world.table.record(other, [], []), Recorded)
    world.table.busy = {"record"}
    with pytest.raises(BusyError):
        world.table.record(other, [], [])


def test_orders_keep_the_order_of_the_request() -> None:
    """Tasks are bought in the order of the request."""
    uuids = [uuid4(number) for number in (9, 3, 7)]
    orders = validate([request(taskUUID=name) for name in uuids], WireResponse())
    assert all(isinstance(order, Order) for order in orders)
    assert [order.task_uuid for order in orders] == uuids


@pytest.mark.parametrize(
    ("retention", "expires"),
    [(None, None), (86_400_000, START + TIMES.longest_open + 86_400_000)],
    ids=["kept", "dropped"],
)
def test_a_request_expires_only_after_its_clips_are_closed(retention: int | None, expires: int | None) -> None:
    """A request never expires while a clip can be open, and never without a retention."""
    world = UseCases(retention=retention)
    submit(world)
    assert world.table.tasks["ann", TASK_UUID].expires_at == expires


# ----------------------------------------------------------------------------------------------------------------------
# Images
# ----------------------------------------------------------------------------------------------------------------------


def with_image(**changes: Any) -> dict[str, Any]:
    return request(inputs={"frameImages": [data_uri(picture())]}, **changes)


def test_an_images_address_is_recorded_and_sent(world: UseCases) -> None:
    """The table has an address, Runware gets a link, and the fingerprint is of the caller's request."""
    submit(world, with_image(numberResults=2))
    ((key, content),) = world.bucket.objects.items()
    assert content == picture()
    recorded = world.table.tasks["ann", TASK_UUID]
    assert recorded.request == {**with_image(numberResults=2), "inputs": {"frameImages": [f"s3://clips/{key}"]}}
    assert recorded.clips == 2
    assert len(canonical(recorded.request)) < 1000
    links = [sent["inputs"]["frameImages"] for sent in world.runware.sent]
    assert links == [[f"https://clips.example/{key}?X-Amz-Expires=7200"]] * 2
    assert submit(world, recorded.request | {"numberResults": 2}).errors[0][1]["code"] == "conflictTaskUUID"


def test_images_are_stored_before_their_task_is_recorded(world: UseCases) -> None:
    """Without its image a task is not recorded, so that no clip is sent that Runware would refuse."""
    stored: list[int] = []
    record = world.table.record

    def look(*arguments: Any, **options: Any) -> Any:
        stored.append(len(world.bucket.objects))
        return record(*arguments, **options)

    world.table.record = look  # type: ignore[method-assign]
    submit(world, with_image())
    assert stored == [1]


def test_an_unavailable_bucket_buys_nothing(world: UseCases) -> None:
    """While an image cannot be stored its task is a 503; other tasks are bought, and so is a later retry."""
    world.bucket.down = True
    answer = submit(world, with_image(), request(taskUUID=uuid4(70)))
    assert codes(answer) == [(503, "serviceUnavailable")]
    assert ("images could not be stored", True, {"reason": "SlowDown", "taskUUID": TASK_UUID}) in world.telemetry.logs
    assert answer.errors[0][1]["taskUUID"] == TASK_UUID
    assert [item["taskUUID"] for item in answer.data] == [uuid4(70)]
    assert ("ann", TASK_UUID) not in world.table.tasks
    world.bucket.down = False
    assert submit(world, with_image()).body == {"data": [ACK]}
    assert len(world.runware.sent) == 2


def test_a_repeat_needs_no_bucket(world: UseCases) -> None:
    """A recorded task is acknowledged, and a conflict refused, without a request to S3 about the image."""
    submit(world, with_image())
    world.bucket.down = True
    world.table.busy = {"record"}  # with its inline image the request may be larger than an item
    calls_before = world.bucket.calls.copy()
    assert submit(world, with_image()).body == {"data": [ACK]}
    assert codes(submit(world, with_image(duration=10))) == [(400, "conflictTaskUUID")]
    assert world.bucket.calls == calls_before
    assert len(world.runware.sent) == 1


def test_a_task_without_images_is_not_read_first(world: UseCases) -> None:
    """A task that needs no S3 costs no extra read of the table."""
    world.table.busy = {"get_tombstone"}
    image = "https://example.com/a.png"
    assert submit(world, request(inputs={"frameImages": [image]})).body == {"data": [ACK]}
    assert world.bucket.calls == {}


def test_no_fault_hides_another(world: UseCases) -> None:
    """Every task has its faults, of its parameters, its image or its UUID."""
    no_image = "s3://clips/inputs/ann/a.png"
    poll = {"taskType": "getResponse", "taskUUID": uuid4(2)}
    faulty = [request(duration=4), request(taskUUID=uuid4(1), inputs={"frameImages": [no_image]}), poll]
    uuids_at_fault = [error["taskUUID"] for _, error in submit(world, *faulty, {**poll, "taskUUID": uuid4(3)}).errors]
    assert uuids_at_fault == [TASK_UUID, uuid4(1), uuid4(2), uuid4(3)]


def test_faults_of_an_image_are_the_tasks_faults(world: UseCases) -> None:
    """Faults of an image have the task's UUID, also in a dry run; the task is not recorded, and others are bought."""
    bad = request(inputs={"frameImages": [data_uri(picture(299, 2049))]})
    answer = submit(world, bad, request(taskUUID=uuid4(70)))
    expected = [(400, "invalidFrameImageWidth"), (400, "invalidFrameImageHeight")]
    assert codes(answer) == codes(priced(bad)) == expected
    assert all(error["taskUUID"] == TASK_UUID and error["taskType"] for _, error in answer.errors)
    assert list(world.table.tasks) == [("ann", uuid4(70))]


def test_a_dry_run_without_the_bucket_is_a_503() -> None:
    """Without the bucket an image is not called wrong, and another task has its price all the same."""
    bucket = FakeBucket()
    bucket.down = True
    with_s3_image = request(inputs={"frameImages": ["s3://clips/inputs/ann/a.png"]})
    answer = price([with_s3_image, request(taskUUID=uuid4(1))], UseCases().caller, bucket)
    assert codes(answer) == [(503, "serviceUnavailable")]
    assert [item["taskUUID"] for item in answer.data] == [uuid4(1)]


def test_images_are_not_stored_without_time_to_send(world: UseCases) -> None:
    """A function that is about to end makes no request to S3, which may be slow; the caller may retry."""
    assert codes(submit(world, with_image(), lasts=TIMES.http - 1)) == [(503, "serviceUnavailable")]
    assert (world.table.tasks, world.bucket.calls) == ({}, {})
    ((_, _, details),) = world.telemetry.logs
    assert details["reason"] == "no time is left to send the order"
    assert submit(world, with_image(), lasts=TIMES.http).body == {"data": [ACK]}


def test_contended_budgets_are_retried_for_a_quarter_of_the_time(world: UseCases) -> None:
    """The time for retries is a share of the caller's time and leaves most of it for the send."""
    submit(world, lasts=20_000)
    assert world.table.patience == 5.0

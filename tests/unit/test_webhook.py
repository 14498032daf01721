"""The facts that a webhook or a poll proves about a clip, and the webhook's use case on fakes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rushes.domain.clip import Fact, FactSource, Kind, Status, billable_amount, merge_all
from rushes.errors import BusyError, UnknownClipError, UnreadableError
from rushes.runware.facts import details_facts, evidence, poll_facts, webhook_facts
from rushes.runware.response import read
from rushes.services.metric import Metric
from tests.fakes.builders import CLIP_UUID, MP4, PRICE, START, TASK_UUID, WEBM, clip, fact
from tests.fakes.use_cases import UseCases

DONE = {"taskUUID": CLIP_UUID, "videoUUID": "v", "videoURL": "https://vm.runware.ai/v.mp4", "seed": 7, "cost": 0.924}
RUNNING = {"taskUUID": CLIP_UUID, "status": "processing"}


def problem(code: str, **more: Any) -> dict[str, Any]:
    return {"errors": [{"taskUUID": CLIP_UUID, "code": code, "message": "m", **more}]}


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def receive(world: UseCases, body: object) -> Any:
    """The clip after a webhook with this body."""
    return world.webhook_service.receive(
        body if isinstance(body, bytes) else dumped(body), "ann", TASK_UUID, 0, "token"
    )


@pytest.fixture
def running(world: UseCases) -> UseCases:
    """The fakes with one running clip."""
    world.table.put(clip(fact(Kind.ACCEPTED)))
    return world


@pytest.mark.parametrize("body", [DONE, {"data": [DONE]}, [DONE], {"data": [DONE], "errors": []}])
def test_a_result_is_recorded_in_every_shape(running: UseCases, body: object) -> None:
    """A finished render is recorded under its video with address, seed and cost, with the webhook as its source."""
    after = receive(running, body)
    recorded = after.of(Kind.RENDERED)["v"]
    assert after == running.row()
    assert after.status == Status.RENDERED
    assert recorded.seen == {FactSource.WEBHOOK: START}
    assert recorded.fields == {"videoURL": "https://vm.runware.ai/v.mp4", "seed": 7, "cost": 924_000}
    assert after.budgeted == 924_000


def test_a_result_with_its_copy_in_the_bucket_is_stored(running: UseCases) -> None:
    """The webhook probes the bucket at once, so that an earlier upload is found."""
    running.bucket.objects[clip().object_key] = MP4
    after = receive(running, DONE)
    assert after.status == Status.STORED
    assert after.of(Kind.STORED)["v1"].fields == {"size": len(MP4), "etag": "etag", "container": "mp4"}
    assert after.next_check_at is None


def test_a_video_of_another_kind_is_a_copy(running: UseCases) -> None:
    """Another container than ordered was paid for as well, and the record has it."""
    running.bucket.objects[clip().object_key] = WEBM
    after = receive(running, DONE)
    assert after.status == Status.STORED
    assert {"container": "webm", "ordered": "mp4"}.items() <= after.of(Kind.STORED)["v1"].fields.items()


@pytest.mark.parametrize("content", [b"", b"<Error>", b"\x1aE\xdf\xa3webm", b"<!--ftypmp42--><script>"])
def test_an_object_without_a_video_is_no_copy(running: UseCases, content: bytes) -> None:
    """An empty or foreign object does not store a clip."""
    running.bucket.objects[clip().object_key] = content
    assert receive(running, DONE).status == Status.RENDERED


def test_the_webhook_counts_though_the_bucket_is_down(running: UseCases) -> None:
    """A result is recorded although S3 is unavailable."""
    running.bucket.down = True
    assert receive(running, DONE).status == Status.RENDERED
    details = {"reason": "SlowDown", "clipUUID": CLIP_UUID}
    assert running.telemetry.logs[0] == ("copy in the bucket could not be probed", True, details)


@pytest.mark.parametrize("body", [DONE, problem("timeoutProvider", status="error")])
def test_a_repeated_webhook_changes_nothing(running: UseCases, body: object) -> None:
    """The same webhook again returns the same clip, and nothing is written."""
    first = receive(running, body)
    running.clock.now += 60_000
    assert receive(running, body) == first
    assert running.table.saves == 1


def test_a_stored_clip_is_not_probed_again(running: UseCases) -> None:
    """Late webhooks of a stored clip cost no request to the bucket."""
    running.bucket.objects[clip().object_key] = MP4
    receive(running, DONE)
    receive(running, {**DONE, "NSFWContent": True})
    assert running.bucket.probes == 1
    assert running.row().of(Kind.RENDERED)["v"].fields["NSFWContent"] is True


@pytest.mark.parametrize("body", [RUNNING, {"data": [RUNNING]}, {"data": [{**RUNNING, "progress": 40}]}])
def test_progress_is_accepted_and_not_recorded(running: UseCases, body: object) -> None:
    """A progress report raises no error and is not recorded."""
    assert receive(running, body) == clip(fact(Kind.ACCEPTED))
    assert (running.table.saves, running.bucket.probes) == (0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"junk",
        {"data": []},
        {**DONE, "taskUUID": "00000000-0000-4000-8000-00000000ffff"},
        {key: value for key, value in DONE.items() if key != "taskUUID"} | {"taskType": "videoInference"},
        {"errors": [{"taskUUID": "other", "code": "x"}]},
    ],
    ids=lambda body: str(body)[:40],
)
def test_a_body_without_this_clip_is_unreadable(running: UseCases, body: object) -> None:
    """Other bytes, and items of any other clip, add nothing to this one."""
    words = "^the body is not JSON$" if body == b"junk" else "^the body has no item for this clip$"
    with pytest.raises(UnreadableError, match=words):
        receive(running, body)
    assert running.row() == clip(fact(Kind.ACCEPTED))


def test_only_items_of_this_clip_are_used(running: UseCases) -> None:
    """In a mixed body the items of other clips are ignored."""
    other = {**DONE, "taskUUID": "other", "videoUUID": "w"}
    assert set(receive(running, {"data": [other, DONE]}).of(Kind.RENDERED)) == {"v"}


def test_an_error_without_a_uuid_is_about_this_clip(running: UseCases) -> None:
    """Some errors have no task; the callback's path identifies the clip."""
    assert receive(running, {"errors": [{"code": "timeoutProvider"}]}).status == Status.FAILED


def test_an_unknown_clip_has_its_own_error(world: UseCases) -> None:
    """A webhook for a clip that is not recorded writes nothing."""
    with pytest.raises(UnknownClipError):
        receive(world, DONE)
    assert world.table.rows == {}


@pytest.mark.parametrize("call", ["clip", "save"])
def test_a_failed_save_raises(running: UseCases, call: str) -> None:
    """The provider must get an error, so that it tries again."""
    running.table.busy = {call}
    with pytest.raises(BusyError):
        receive(running, DONE)


def test_two_results_are_two_renders(running: UseCases) -> None:
    """Two videos for one clip are both recorded and both counted, since both were paid."""
    after = receive(running, {"data": [DONE, {**DONE, "videoUUID": "w"}]})
    assert after.budgeted == 2 * 924_000


def test_forged_renders_do_not_displace_the_genuine_one(running: UseCases) -> None:
    """Of many forged renders few are recorded and counted, alarms ring, and the genuine result is recorded."""
    for call in range(7):
        forged = [{**DONE, "videoUUID": f"0{call}{number:02}", "cost": 10_000} for number in range(16)]
        after = receive(running, {"data": forged})
        assert after.budgeted <= 4 * PRICE
    running.bucket.objects[clip().object_key] = MP4
    after = receive(running, DONE)
    assert after.status == Status.STORED
    merged = merge_all(after, poll_facts(read(dumped(DONE)), START + 9))
    assert "v" in merged.of(Kind.RENDERED)
    assert running.telemetry.counted[Metric.IMPLAUSIBLE_COST] == running.telemetry.counted[Metric.TOO_MANY_FACTS] == 1


def test_a_large_cost_counts_only_from_a_poll(running: UseCases) -> None:
    """A webhook's cost of many times the price does not count until a poll has the same."""
    after = receive(running, {**DONE, "cost": 4.62})
    assert (after.budgeted, after.of(Kind.RENDERED)["v"].fields["cost"]) == (PRICE, 5 * PRICE)
    assert billable_amount(merge_all(after, poll_facts(read(dumped({**DONE, "cost": 4.62})), START))) == 5 * PRICE


def test_a_late_result_outranks_a_failure(running: UseCases) -> None:
    """A render that comes after a failure is a render."""
    assert receive(running, problem("timeoutProvider")).status == Status.FAILED
    assert receive(running, DONE).status == Status.RENDERED


def test_an_errors_evidence_is_scrubbed(running: UseCases) -> None:
    """An error's echo of our links is not recorded."""
    body = problem("inferenceError", responseContent=["PUT https://b.example/k?X-Amz-Signature=secret failed"])
    body["errors"][0]["message"] = "calling https://h.example/w?token=secret"
    (recorded,) = receive(running, body).of(Kind.FAILED).values()
    assert recorded.fields["category"] == "provider"
    assert "secret" not in str(recorded.fields)


def test_the_webhooks_own_token_is_not_recorded(running: UseCases) -> None:
    """An error that echoes the token is recorded without it, whatever the token's shape."""
    body = problem("inferenceError", message="no answer from opensesame")
    after = running.webhook_service.receive(dumped(body), "ann", TASK_UUID, 0, token="opensesame")
    assert after.of(Kind.FAILED)["inferenceError"].fields["message"] == "no answer from [removed]"


HOSTILE = [
    {**DONE, "cost": 10**9},
    {**DONE, "cost": -1},
    {**DONE, "cost": "0.924"},
    {**DONE, "seed": True},
    {**DONE, "seed": 2**70},
    {**DONE, "videoURL": "u" * 10**5},
    {**DONE, "videoUUID": "\ud800"},
    {"errors": [{"taskUUID": CLIP_UUID, "error": {"error": {"code": "x"}}, "code": {"a": 1}, "message": "\ud800"}]},
    {"errors": [{"taskUUID": CLIP_UUID, "code": "\udfff" * 10**5, "allowedValues": [{"a": ["\ud800"]}] * 10**3}]},
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: str(body)[:60])
def test_hostile_values_leave_a_record_that_can_be_stored(running: UseCases, body: object) -> None:
    """Invalid values are left out or cut: the money stays plausible, the texts encodable, the record small."""
    after = receive(running, body)
    assert after.budgeted == clip().estimate
    for (_, key), recorded in after.facts.items():
        texts = [key, *(value for value in recorded.fields.values() if isinstance(value, str))]
        assert sum(len(text.encode()) for text in texts) < 200_000
        assert all(type(value) in (str, int, bool) and abs(value) < 10**38 for value in recorded.fields.values()
                   if not isinstance(value, str))  # fmt: skip


def test_an_infinite_limit_in_an_error_is_no_exception(running: UseCases) -> None:
    """An error whose `min` is beyond any float is still that error."""
    body = f'{{"errors": [{{"taskUUID": "{CLIP_UUID}", "code": "inferenceError", "min": 1e400}}]}}'
    assert receive(running, body.encode()).status == Status.FAILED


WEBHOOK, POLL = "webhook", "poll"


@pytest.mark.parametrize(
    ("code", "final", "by_webhook", "by_poll"),
    [
        ("timeoutProvider", False, Kind.FAILED, Kind.FAILED),
        ("inferenceError", True, Kind.FAILED, Kind.FAILED),
        ("invalidProviderContent", True, Kind.FAILED, Kind.FAILED),
        ("somethingNew", False, Kind.FAILED, Kind.FAILED),
        ("uploadFailed", True, Kind.UNDELIVERED, Kind.UNDELIVERED),
        ("mediaStorageFileCouldNotBeMoved", False, Kind.UNDELIVERED, Kind.UNDELIVERED),
        ("webhookTimeout", False, Kind.ACCEPTED, Kind.ACCEPTED),
        ("conflictTaskUUID", False, Kind.ACCEPTED, Kind.ACCEPTED),
        ("taskNotFound", False, Kind.ACCEPTED, None),
        ("taskExpired", True, Kind.ACCEPTED, None),
        ("invalidApiKey", False, Kind.ACCEPTED, None),
        ("rateLimitExceeded", False, Kind.FAILED, None),
        ("internalServerError", False, Kind.FAILED, None),
        ("insufficientCredits", False, Kind.FAILED, None),
        ("thirdPartyInsufficientCredits", True, Kind.FAILED, Kind.FAILED),
        ("internalServerError", True, Kind.FAILED, Kind.FAILED),
        ("providerRateLimitExceeded", True, Kind.FAILED, Kind.FAILED),
    ],
)
def test_each_error_proves_its_fact(code: str, final: bool, by_webhook: Kind, by_poll: Kind | None) -> None:
    """Any error in a webhook proves the purchase, an error of the poll itself nothing, and only a render fails."""
    envelope = read(dumped(problem(code, **({"status": "error"} if final else {}))))
    assert [fact.kind for fact in webhook_facts(envelope, START)] == [by_webhook]
    assert [fact.kind for fact in poll_facts(envelope, START)] == ([by_poll] if by_poll else [])


@pytest.mark.parametrize("number", ["1e400", "1e99999999999999999999", "9" * 5000])
def test_an_odd_webhook_is_read(running: UseCases, number: str) -> None:
    """A byte order mark or a huge number in the body of a paid render does not matter."""
    body = b"\xef\xbb\xbf" + dumped(DONE)[:-1] + f', "NSFWContent": {number}, "progress": {number}}}'.encode()
    after = receive(running, body)
    assert (after.status, after.budgeted) == (Status.RENDERED, 924_000)


@pytest.mark.parametrize("status", [None, "error"])
def test_a_polls_error_that_names_no_task_fails_none(status: str | None) -> None:
    """Many clips share a poll, so an error of the whole must not fail each of them."""
    body = {"errors": [{"code": "valueTooLarge", "message": "too many tasks", "status": status}]}
    assert list(poll_facts(read(dumped(body)).about(CLIP_UUID), START)) == []


@pytest.mark.parametrize(
    ("item", "by_webhook", "by_poll"),
    [
        (DONE, Kind.RENDERED, Kind.RENDERED),
        ({"taskUUID": CLIP_UUID, "videoUUID": "v"}, Kind.RENDERED, Kind.RENDERED),
        ({"taskUUID": CLIP_UUID, "videoURL": "u"}, Kind.ACCEPTED, Kind.ACCEPTED),
        ({"taskUUID": CLIP_UUID, "videoBase64Data": "AAAA"}, Kind.ACCEPTED, Kind.ACCEPTED),
        (RUNNING, None, Kind.ACCEPTED),
        ({"taskUUID": CLIP_UUID, "taskType": "videoInference"}, None, Kind.ACCEPTED),
    ],
)
def test_each_item_proves_its_fact(item: dict[str, Any], by_webhook: Kind | None, by_poll: Kind) -> None:
    """A `videoUUID` proves a render, anything less at most the purchase, and progress in a webhook nothing new."""
    envelope = read(dumped({"data": [item]}))
    assert [fact.kind for fact in webhook_facts(envelope, START)] == ([by_webhook] if by_webhook else [])
    assert [(fact.kind, fact.source) for fact in poll_facts(envelope, START)] == [(by_poll, FactSource.POLL)]


def test_an_address_without_a_videouuid_is_recorded() -> None:
    """A result without `videoUUID` is no render, as it could not be distinguished from a second one.

    Its address is recorded all the same, for operators who look for a missing upload.
    """
    envelope = read(dumped({"data": [{"taskUUID": CLIP_UUID, "videoURL": "https://vm.runware.ai/v.mp4"}]}))
    for facts in (webhook_facts(envelope, START), poll_facts(envelope, START)):
        (recorded,) = facts
        assert (recorded.kind, recorded.key) == (Kind.ACCEPTED, "result without videoUUID")
        assert recorded.fields == {"videoURL": "https://vm.runware.ai/v.mp4"}


def test_inline_data_never_becomes_a_field() -> None:
    """Base64 results are not recorded."""
    envelope = read(dumped({"data": [{**DONE, "videoBase64Data": "QUJD" * 100}]}))
    (recorded,) = webhook_facts(envelope, START)
    assert "QUJD" not in str(recorded)


@pytest.mark.parametrize(
    ("response", "kinds"),
    [
        ({"data": [DONE]}, [Kind.RENDERED]),
        ({"errors": [{"taskUUID": CLIP_UUID, "code": "conflictTaskUUID"}]}, [Kind.ACCEPTED]),
        ({"errors": [{"taskUUID": CLIP_UUID, "code": "uploadFailed"}]}, [Kind.UNDELIVERED]),
        ({"errors": [{"taskUUID": CLIP_UUID, "code": "invalidModel"}]}, []),
        ({"data": [{**DONE, "taskUUID": "other"}]}, []),
        (5, []),
    ],
)
def test_a_tasks_details_prove_its_purchase(response: object, kinds: list[Kind]) -> None:
    """A task with details was executed; the last response proves results and conflicts, and never a failure."""
    envelope = read(dumped({"data": [{"taskUUID": CLIP_UUID, "response": response}]}))
    first, *others = details_facts(envelope, CLIP_UUID, START)
    assert first == fact(Kind.ACCEPTED, "details")
    assert [fact.kind for fact in others] == kinds


@pytest.mark.parametrize(
    ("body", "kind", "key", "fields"),
    [
        (problem("uploadFailed"), Kind.UNDELIVERED, "uploadFailed", {}),
        (problem("webhookFailed"), Kind.ACCEPTED, "webhookFailed", {}),
        (problem("conflictTaskUUID"), Kind.ACCEPTED, "conflictTaskUUID", {}),
        ({"taskUUID": CLIP_UUID, "videoURL": "u"}, Kind.ACCEPTED, "result without videoUUID", {"videoURL": "u"}),
        ({"taskUUID": CLIP_UUID, "videoBase64Data": "QUJD"}, Kind.ACCEPTED, "result without videoUUID", {}),
    ],
)
def test_a_fact_has_its_key_time_and_source(body: Any, kind: Kind, key: str, fields: dict[str, Any]) -> None:
    """Each fact is recorded under its code, with the time of the report and its source."""
    envelope = read(dumped(body))
    for facts, source in (
        (webhook_facts(envelope, START + 7), FactSource.WEBHOOK),
        (poll_facts(envelope, START + 7), FactSource.POLL),
    ):
        assert list(facts) == [Fact(kind=kind, key=key, at=START + 7, source=source, fields=fields)]
    details = read(dumped({"data": [{"taskUUID": CLIP_UUID, "response": body}]}))
    _, inner = details_facts(details, CLIP_UUID, START + 7)
    assert inner == Fact(kind=kind, key=key, at=START + 7, source=FactSource.POLL, fields=fields)


def test_a_failure_has_its_key_time_source_and_evidence() -> None:
    """A failure has Runware's error as well."""
    envelope = read(dumped(problem("timeoutProvider")))
    failure = fact(Kind.FAILED, "timeoutProvider", START + 7, **evidence(envelope.problems[0]))
    assert list(poll_facts(envelope, START + 7)) == [failure]
    assert list(webhook_facts(envelope, START + 7)) == [replace(failure, source=FactSource.WEBHOOK)]


def test_a_poll_that_names_the_clip_proves_the_purchase() -> None:
    """Progress is a fact of its own, with the time of the poll."""
    assert list(poll_facts(read(dumped({"data": [RUNNING]})), START + 7)) == [fact(Kind.ACCEPTED, "known", START + 7)]


def test_an_error_of_the_poll_does_not_hide_one_of_the_clip() -> None:
    """Each error is read separately, whatever is before it in the list."""
    body = {"errors": problem("rateLimitExceeded")["errors"] + problem("timeoutProvider")["errors"]}
    assert [(fact.kind, fact.key) for fact in poll_facts(read(dumped(body)), START)] == [
        (Kind.FAILED, "timeoutProvider")
    ]


def test_a_copy_is_dated_when_the_webhook_found_it(running: UseCases) -> None:
    """The time of a copy decides which one is the clip's."""
    running.bucket.objects[clip().object_key] = MP4
    running.clock.now += 5
    assert receive(running, DONE).of(Kind.STORED)["v1"].seen == {FactSource.BUCKET: START + 5}

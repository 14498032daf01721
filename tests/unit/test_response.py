"""Runware's answers and webhooks, in every shape and with hostile values."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.formats import canonical
from rushes.errors import ProviderError, UnreadableError
from rushes.runware.response import Envelope, Problem, Result, read, read_lookup

UUID = "6f3c8f5e-9a4b-4a53-8f0e-2b1c5d7e9a10"
DONE = {
    "taskType": "videoInference",
    "taskUUID": UUID,
    "videoUUID": "0b1d",
    "videoURL": "https://vm.runware.ai/a.mp4",
    "seed": 169984304,
    "cost": 0.924,
}
RESULT = Result(UUID, "0b1d", "https://vm.runware.ai/a.mp4", 169984304, None, 924_000)
ERROR = {"code": "timeoutProvider", "message": "too slow", "status": "error", "taskUUID": UUID}
NESTED = {"taskUUID": UUID, "status": "error", "error": {"code": "timeoutProvider", "message": "too slow"}}


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "body",
    [
        DONE,
        {"data": [DONE]},
        {"data": DONE},
        {"data": [DONE], "errors": []},
        {"data": [DONE], "errors": None},
        [DONE],
        {"data": [{**DONE, "status": "success"}]},
        {"data": [{**DONE, "taskUUID": UUID.upper()}]},
        {"data": [{**DONE, "status": "error", "code": "uploadFailed"}]},
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_a_success_is_read_in_every_shape(body: object) -> None:
    """A result is the same flat, in an envelope or in a bare array, and an error beside its video is ignored."""
    assert read(dumped(body)) == Envelope((RESULT,), ())


@pytest.mark.parametrize(
    "body",
    [
        ERROR,
        {"errors": [ERROR]},
        {"error": ERROR},
        {"error": [ERROR]},
        {"data": [], "errors": [ERROR]},
        {"data": [ERROR]},
        {"data": [NESTED]},
        {"taskType": "videoInference", **NESTED},
        [ERROR],
        [NESTED],
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_a_failure_is_read_in_every_shape(body: object) -> None:
    """An error is the same wherever it is in the body."""
    envelope = read(dumped(body))
    (problem,) = envelope.problems
    assert envelope.results == ()
    assert (problem.task_uuid, problem.code, problem.message, problem.final) == (
        UUID,
        "timeoutProvider",
        "too slow",
        True,
    )


def test_a_mixed_answer_keeps_both_sides() -> None:
    """Results and errors of one answer are both read, each under its own task."""
    other = {**ERROR, "taskUUID": "other"}
    envelope = read(dumped({"data": [DONE], "errors": [other, {"code": "invalidApiKey"}]}))
    assert envelope.about(UUID).results == (RESULT,)
    assert [problem.code for problem in envelope.about(UUID).problems] == ["invalidApiKey"]
    assert [problem.code for problem in envelope.about("other").problems] == ["timeoutProvider", "invalidApiKey"]
    assert envelope.about("other").results == ()


@pytest.mark.parametrize(
    "item",
    [
        {"taskType": "videoInference", "taskUUID": UUID},
        {"taskType": "videoInference", "taskUUID": UUID, "status": "processing"},
        {"taskType": "videoInference", "taskUUID": UUID, "status": "pending", "progress": 40},
    ],
)
def test_progress_is_an_empty_result(item: dict[str, Any]) -> None:
    """An acknowledgement or a running task is a result with nothing but its UUID."""
    assert read(dumped({"data": [item]})) == Envelope((Result(UUID),), ())


@pytest.mark.parametrize("absent", ["error", "code"])
def test_null_is_absent(absent: str) -> None:
    """A running task with `error: null` is running."""
    body = {"data": [{"taskType": "videoInference", "taskUUID": UUID, "status": "processing", absent: None}]}
    assert read(dumped(body)) == Envelope((Result(UUID),), ())


@pytest.mark.parametrize("field", ["videoBase64Data", "videoDataURI"])
def test_inline_video_is_kept_whole(field: str) -> None:
    """Base64 results are never cut like other texts."""
    assert read(dumped({"data": [{"taskUUID": UUID, field: "A" * 10_000}]})).results[0].data == "A" * 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"null",
        b"5",
        b'"text"',
        b"{}",
        b'{"message": "hello"}',
        b"[1]",
        b"[null]",
        b'{"data": [1]}',
        b'{"data": "text"}',
        b'{"error": "text"}',
        b'{"errors": [[]]}',
        b'{"taskUUID": NaN}',
        b'{"taskUUID": Infinity}',
        b'{"data": [' + b"9" * 5000 + b"]}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"data":' * 50_000,
        b"<html>Bad gateway</html>",
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
def test_other_bodies_are_unreadable(body: bytes) -> None:
    """Any other body raises the one error and no other exception."""
    with pytest.raises(UnreadableError):
        read(body)


def test_the_number_of_items_is_bounded() -> None:
    """A thousand items are read; one more is refused."""
    assert len(read(dumped({"data": [{"taskUUID": UUID}] * 1000})).results) == 1000
    bodies: list[object] = [{"data": [{}] * 1001}, {"data": [{}] * 500, "errors": [{}] * 501}, [{}] * 1001]
    for body in bodies:
        with pytest.raises(UnreadableError):
            read(dumped(body))


@pytest.mark.parametrize(
    ("cost", "read_as"),
    [
        ("0.924", 924_000),
        ("1.848", 1_848_000),
        ("0.9240004", 924_000),
        ("1", 1_000_000),
        ("10000", 10_000_000_000),
        ("10000.01", None),
        ("1e300", None),
        ("1e999999999", None),
        ("1e-999999999", None),
        ("0", None),
        ("0.0", None),
        ("-0.924", None),
        ('"0.924"', None),
        ("true", None),
        ("null", None),
        ("[1]", None),
        ("{}", None),
        ("9" * 4000, None),
    ],
)
def test_only_a_price_is_a_cost(cost: str, read_as: int | None) -> None:
    """A missing, negative, zero, excessive or wrongly typed cost is no price; real prices are exact."""
    body = f'{{"data": [{{"taskUUID": "{UUID}", "videoUUID": "v", "cost": {cost}}}]}}'
    assert read(body).results[0].cost == read_as


@pytest.mark.parametrize("number", ["1e99999999999999999999", "1e-99999999999999999999"])
def test_a_huge_exponent_raises_no_other_error(number: str) -> None:
    """A number beyond any decimal is unreadable or no price."""
    with suppress(UnreadableError):
        assert read(f'{{"data": [{{"taskUUID": "{UUID}", "cost": {number}}}]}}').results[0].cost is None


@pytest.mark.parametrize(
    ("seed", "read_as"),
    [(0, 0), (2**64 - 1, 2**64 - 1), (2**64, None), (-(2**64), None), (True, None), ("5", None), (1.5, None)],
)
def test_only_a_64_bit_integer_is_a_seed(seed: object, read_as: int | None) -> None:
    """A seed that the table could not store, or of another type, is left out."""
    assert read(dumped({**DONE, "seed": seed})).results[0].seed == read_as


@pytest.mark.parametrize(("flag", "read_as"), [(True, True), (False, False), (1, None), ("true", None), (None, None)])
def test_only_a_boolean_is_a_flag(flag: object, read_as: bool | None) -> None:
    """The NSFW flag is a boolean or absent."""
    assert read(dumped({**DONE, "NSFWContent": flag})).results[0].nsfw is read_as


@pytest.mark.parametrize("name", ["videoUUID", "videoURL", "taskUUID"])
@pytest.mark.parametrize("value", [5, "", None, [], {"a": 1}, True])
def test_a_text_of_another_type_is_absent(name: str, value: object) -> None:
    """Identifiers and addresses are non-empty texts or absent."""
    result = read(dumped({**DONE, name: value})).results[0]
    assert (result.task_uuid, result.video_uuid, result.video_url).count(None) == 1


def test_texts_are_cut_and_can_be_stored() -> None:
    """Long texts are cut, and a lone surrogate, legal in JSON, is replaced before it is stored."""
    (problem,) = read(
        dumped(
            {"errors": [{"taskUUID": UUID, "code": "x" * 500, "message": "m\ud800" * 5000, "parameter": ["\ud800"]}]}
        )
    ).problems
    assert (len(problem.code), len(problem.message)) == (100, 2048)
    canonical(dict(problem.wire)).encode()
    (result,) = read(dumped({**DONE, "videoUUID": "\udfff", "videoURL": "u" * 9999})).results
    assert (result.video_uuid, len(result.video_url or "")) == ("?", 2048)


def test_an_error_given_as_text_is_cut_and_can_be_stored() -> None:
    """A text in the place of an error object is a message like any other."""
    (problem,) = read(dumped({"data": [{"taskUUID": UUID, "error": "\ud800" * 5000}]})).problems
    assert len(problem.message) <= 2048
    problem.message.encode()


def test_only_documented_fields_of_an_error_are_shown() -> None:
    """An error is shown by its documented fields alone, cut to limits and of plain types."""
    error = {
        **ERROR, "parameter": ["width", "height"], "min": 0.5, "max": 3, "allowedValues": list(range(80)),
        "responseContent": {"odd": 1}, "secret": "x",
    }  # fmt: skip
    (problem,) = read(dumped({"errors": [error]})).problems
    assert problem.wire == {
        "code": "timeoutProvider", "message": "too slow", "parameter": ["width", "height"], "min": 0.5, "max": 3,
        "allowedValues": list(range(50)), "responseContent": "…",
    }  # fmt: skip


def test_an_error_is_always_shown_as_json() -> None:
    """A hostile limit in an error cannot make its fact invalid."""
    (problem,) = read('{"errors": [{"code": "x", "min": 1e400}]}').problems
    canonical(dict(problem.wire))


def test_deep_values_inside_an_error_raise_no_other_error() -> None:
    """Deep nesting inside a shown value is unreadable or cut."""
    for depth in (300, 600, 900, 985):
        with suppress(UnreadableError):
            read('{"errors": [{"code": "x", "allowedValues": ' + "[" * depth + "]" * depth + "}]}")


def test_an_empty_error_is_an_error() -> None:
    """An empty error object is an unknown error with a message, and not a final one."""
    (problem,) = read(b'{"errors": [{}]}').problems
    assert (problem.task_uuid, problem.code, problem.final) == (None, "unknownError", False)
    assert problem.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(
    [
        "taskUUID",
        "videoUUID",
        "videoURL",
        "videoDataURI",
        "cost",
        "seed",
        "NSFWContent",
        "status",
        "error",
        "code",
        "message",
        "min",
        "allowedValues",
        "responseContent",
        "response",
        "data",
        "errors",
    ]
)
items = st.dictionaries(names, json_values, max_size=6)
bodies = json_values | st.fixed_dictionaries(
    {}, optional={"data": st.lists(items) | json_values, "errors": st.lists(items), "error": items | json_values}
)


@given(bodies)
def test_any_json_is_an_envelope_or_unreadable(body: object) -> None:
    """Any JSON gives typed values or the one error."""
    try:
        envelope = read(dumped(body))
    except UnreadableError:
        return
    assert all(isinstance(result, Result) for result in envelope.results)
    assert all(isinstance(problem, Problem) and problem.code for problem in envelope.problems)
    for result in envelope.results:
        assert result.cost is None or 0 < result.cost <= 10_000_000_000


@given(st.binary())
def test_any_bytes_are_an_envelope_or_unreadable(body: bytes) -> None:
    """Any bytes are read or raise the one error."""
    with suppress(UnreadableError):
        read(body)


@pytest.mark.parametrize(
    ("status", "body", "is_complete", "absent"),
    [
        (200, {"data": []}, True, True),
        (200, {"data": [{"taskUUID": "another"}]}, True, True),
        (200, {"data": [{"taskUUID": UUID, "status": "processing"}]}, True, False),
        (200, {"data": [DONE]}, True, False),
        (200, {"data": [{"status": "processing"}]}, True, False),
        (200, {"data": {"taskType": "getTaskDetails", "request": [{"taskUUID": UUID}]}}, True, False),
        (200, {"data": [], "errors": [{"code": "taskNotFound", "taskUUID": UUID}]}, False, False),
        (200, {"data": [], "errors": [{"code": "x", "taskUUID": "another"}]}, False, False),
        (400, {"data": []}, False, False),
        (400, {"data": [], "errors": [ERROR]}, False, False),
        (204, {"data": []}, False, False),
        (302, {"data": []}, False, False),
    ],
)
def test_only_a_complete_answer_confirms_an_absence(status: int, body: object, is_complete: bool, absent: bool) -> None:
    """Only a 200 without any error confirms an absence."""
    response = read_lookup(status, dumped(body))
    assert (response.is_complete, response.confirms_absent(UUID)) == (is_complete, absent)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_failed_lookup_is_no_response(status: int) -> None:
    """Server errors, throttling and timeouts prove nothing about a task, even in Runware's envelope."""
    with pytest.raises(ProviderError):
        read_lookup(status, dumped({"data": []}))


@pytest.mark.parametrize("status", [401, 402, 403])
def test_an_account_refusal_is_no_response(status: int) -> None:
    """A refused key proves nothing about a task, whatever the code; the failure of a task is read all the same."""
    with pytest.raises(ProviderError):
        read_lookup(status, dumped({"errors": [{"code": "somethingNew", "message": "no"}]}))
    assert read_lookup(status, dumped({"errors": [ERROR]})).envelope.problems


@pytest.mark.parametrize(
    ("status", "body", "answers"),
    [
        (200, {"data": []}, True),
        (200, {"data": [{"taskUUID": UUID, "status": "processing"}], "errors": [{"code": "x"}]}, True),
        (400, {"errors": [ERROR]}, True),
        (400, {"errors": [{**ERROR, "code": "insufficientCredits"}]}, True),
        (400, {"errors": [{"code": "taskNotFound", "taskUUID": UUID}]}, True),
        (400, {"errors": [{"code": "insufficientCredits", "taskUUID": UUID}]}, False),
        (400, {"errors": [{"code": "unsupportedParameter"}]}, False),
        (400, {"errors": [{**ERROR, "taskUUID": "another"}]}, False),
    ],
)
def test_a_refused_lookup_is_no_answer(status: int, body: object, answers: bool) -> None:
    """Only an item or error about the task, or a complete answer, is an answer."""
    assert read_lookup(status, dumped(body)).answers(UUID) is answers


def test_an_unreadable_response_is_a_provider_error() -> None:
    """A 200 without Runware's envelope proves nothing."""
    with pytest.raises(ProviderError):
        read_lookup(200, b"<html>")


def test_the_last_response_inside_details_is_read_once() -> None:
    """Details have the last response, one level deep; an unreadable one is left out."""
    details = {"taskType": "getTaskDetails", "taskUUID": UUID, "request": [{}], "response": {"data": [DONE]}}
    (result,) = read(dumped({"data": [details]})).results
    assert result.response == Envelope((RESULT,), ())
    (result,) = read(dumped({"data": [{**details, "response": {"data": [details]}}]})).results
    assert result.response is not None
    assert result.response.results[0].response is None
    assert read(dumped({"data": [{**details, "response": 5}]})).results[0].response is None


def test_a_byte_order_mark_is_ignored() -> None:
    """Some programs begin every text with a byte order mark."""
    assert read(b"\xef\xbb\xbf" + dumped({"data": [DONE]})) == read(dumped({"data": [DONE]}))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e99999999999999999999", "1e-99999999999999999999", "9" * 5000])
@pytest.mark.parametrize("name", ["cost", "seed", "NSFWContent", "videoUUID", "min", "x"])
def test_a_huge_number_affects_no_other_field(number: str, name: str) -> None:
    """Every other field of the body is read."""
    done = json.dumps({"taskUUID": UUID, "videoURL": "u", "cost": 0.924})[:-1] + f', "{name}": {number}}}'
    failed = f'{{"taskUUID": "{UUID}", "code": "inferenceError", "{name}": {number}}}'
    envelope = read(f'{{"data": [{done}], "errors": [{failed}]}}').about(UUID)
    assert envelope.results[0].video_url == "u"
    assert envelope.results[0].cost == (None if name == "cost" else 924_000)
    assert envelope.problems[0].code == "inferenceError"

"""The outcome of an attempt by Runware's HTTP answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome, Refused, read_answer

CLIP = "6f3c8f5e-9a4b-4a53-8f0e-2b1c5d7e9a10"
OTHER = "0b1d8f5e-9a4b-4a53-8f0e-2b1c5d7e9a10"
ACK = {"data": [{"taskType": "videoInference", "taskUUID": CLIP}]}


def error(code: str, task_uuid: str | None = CLIP) -> dict[str, Any]:
    about = {"taskUUID": task_uuid} if task_uuid else {}
    return {"data": [], "errors": [{"code": code, "message": "m", **about}]}


def outcome(status: int, body: object) -> Outcome:
    return read_answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), CLIP)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_an_acknowledgement_of_this_clip_is_a_purchase(status: int) -> None:
    """A success with the clip's own UUID in `data` means accepted."""
    assert outcome(status, ACK) == Accepted("acknowledged")
    assert outcome(status, {"data": [{"taskUUID": CLIP.upper(), "status": "processing"}]}) == Accepted("acknowledged")


@pytest.mark.parametrize("status", [200, 400, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("task_uuid", [CLIP, None])
def test_a_conflict_is_a_purchase_whatever_the_status(status: int, task_uuid: str | None) -> None:
    """Our UUIDs are unique, so a conflict always means that this very clip was bought before."""
    assert outcome(status, error("conflictTaskUUID", task_uuid)) == Accepted("conflict")


def test_a_conflict_beside_another_error_is_a_purchase() -> None:
    """A conflict counts anywhere in the list."""
    body = error("invalidModel")
    body["errors"] += error("conflictTaskUUID")["errors"]
    assert outcome(400, body) == Accepted("conflict")


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 413, 415, 422, 451, 499])
@pytest.mark.parametrize("task_uuid", [CLIP, None])
def test_a_4xx_in_runwares_envelope_is_a_refusal(status: int, task_uuid: str | None) -> None:
    """A client error about this clip, or about no clip, proves that this attempt bought nothing."""
    found = outcome(status, error("invalidModel", task_uuid))
    assert isinstance(found, Refused)
    assert (found.status, found.problem.code) == (status, "invalidModel")


def test_a_429_in_runwares_envelope_never_arrived() -> None:
    """Throttling by Runware itself means that the task was not accepted; it may be sent again."""
    assert outcome(429, error("rateLimitExceeded")) == NeverArrived("HTTP 429 rateLimitExceeded")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, b""),
        (429, b"slow down"),
        (429, {"data": []}),
        (429, error("rateLimitExceeded", OTHER)),
        (408, error("requestTimeout")),
        (408, b""),
        (400, b""),
        (400, b"<html>"),
        (400, {"data": []}),
        (400, error("invalidModel", OTHER)),
        (401, b"Unauthorized"),
        (400, {**ACK, "errors": error("invalidModel")["errors"]}),
        (200, b""),
        (200, b"<html>"),
        (200, {"data": []}),
        (200, {"data": [{"taskType": "videoInference"}]}),
        (200, {"data": [{"taskUUID": OTHER}]}),
        (200, error("invalidModel", OTHER)),
        (200, error("invalidModel", None)),
        (200, error("internalServerError")),
        (200, error("timeoutProvider")),
        (200, error("conflictTaskUUID", OTHER)),
        (204, b""),
        (100, ACK),
        *[(status, body) for status in (301, 302, 307, 308) for body in (b"", ACK, error("invalidModel"))],
        *[(status, body) for status in (500, 502, 503, 504) for body in (b"", ACK, error("serviceUnavailable"))],
    ],
    ids=lambda value: str(value)[:50],
)
def test_everything_else_is_ambiguous(status: int, body: object) -> None:
    """Any other answer proves nothing, so that no clip is bought twice by mistake."""
    assert isinstance(outcome(status, body), Ambiguous)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (502, b"<html>", "HTTP 502 without Runware's envelope"),
        (503, error("serviceUnavailable"), "HTTP 503"),
        (408, error("requestTimeout"), "HTTP 408"),
        (200, {"data": []}, "a success without an acknowledgement"),
    ],
)
def test_an_ambiguous_outcome_has_its_reason(status: int, body: object, reason: str) -> None:
    """The timeline of an ambiguous clip has a short description of the answer, for operators."""
    assert outcome(status, body) == Ambiguous(reason)


@pytest.mark.parametrize("code", ["invalidModel", "promptBlocked", "insufficientCredits", "invalidApiKey"])
def test_a_success_with_an_error_about_this_clip_is_a_refusal(code: str) -> None:
    """A partial answer may refuse with 200; only an error that names this clip and is about the request counts."""
    found = outcome(200, error(code))
    assert isinstance(found, Refused)
    assert (found.status, found.problem.code) == (200, code)


@given(st.integers(100, 599), st.binary(max_size=30))
def test_bytes_that_are_no_envelope_prove_nothing(status: int, body: bytes) -> None:
    """Other bytes are never read as a purchase, a refusal or a request that never arrived."""
    assert isinstance(outcome(status, b"\x00" + body), Ambiguous)


@given(st.integers(300, 399) | st.integers(500, 599), st.sampled_from(["invalidModel", "rateLimitExceeded", "x"]))
def test_redirects_and_server_errors_never_refuse(status: int, code: str) -> None:
    """Outside 2xx and 4xx only a conflict proves anything."""
    assert isinstance(outcome(status, error(code)), Ambiguous)

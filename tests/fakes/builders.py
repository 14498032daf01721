"""Requests, clips, facts and refusals for tests, and the values that they share."""

from typing import Any

from rushes.domain.clip import Clip, Fact, FactSource, Kind, Scalar, merge_all
from rushes.domain.timings import Timings
from rushes.runware.outcome import Refused
from rushes.runware.response import Problem

START = 1_790_000_000_000  # 2026-09-21, in milliseconds


MONTH = "2026-09"


PRICE = 924_000  # of five seconds, in micro-dollars


TASK_UUID = "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c"


CLIP_UUID = "00000000-0000-4000-8000-000000000001"


MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x48mdat" + bytes(64)


WEBM = b"\x1aE\xdf\xa3\x87\x42\x82\x84webm\x18\x53\x80\x67" + bytes(64)


TIMES = Timings(
    http=10_000,
    function=25_000,
    lease=60_000,
    resend_window=120_000,
    deadline=7_200_000,
    last_look=900_000,
    copy_deadline=21_600_000,
    usual_render=240_000,
    rescue_after=60_000,
)


def request(**changes: Any) -> dict[str, Any]:
    """A valid task; a parameter given as Ellipsis is left out."""
    task = {
        "taskType": "videoInference",
        "taskUUID": TASK_UUID,
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
        **changes,
    }
    return {name: value for name, value in task.items() if value is not ...}


def uuid4(number: int) -> str:
    """A UUID v4 for each number."""
    return f"00000000-0000-4000-8000-{number:012x}"


def clip(*facts: Fact, **changes: Any) -> Clip:
    """A clip as `submit` records it, without a lease, merged with the given facts."""
    values: dict[str, Any] = {
        "caller": "ann",
        "task_uuid": TASK_UUID,
        "index": 0,
        "clip_uuid": CLIP_UUID,
        "object_key": f"videos/ann/2026/09/21/{TASK_UUID}-0.mp4",
        "estimate": PRICE,
        "month": MONTH,
        "created_at": START,
        "budgeted": PRICE,
        **changes,
    }
    return merge_all(Clip(**values), facts)


def fact(kind: Kind, key: str = "", at: int = START, source: FactSource = FactSource.POLL, **fields: Scalar) -> Fact:
    """A fact with short defaults."""
    return Fact(kind=kind, key=key, at=at, source=source, fields=fields)


def refusal(status: int = 400, code: str = "invalidModel", task_uuid: str | None = CLIP_UUID) -> Refused:
    """A definite refusal by Runware."""
    return Refused(status, Problem(task_uuid, code, "no", False, {"code": code, "message": "no"}))

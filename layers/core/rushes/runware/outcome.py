"""The outcome of one attempt to buy. A clip is not bought twice because of this module: read it slowly. Pure.

`Accepted`     Runware has the task.
`Refused`      a definite refusal of this attempt, which bought nothing.
`NeverArrived` it is certain that Runware did not accept the request; it may be sent again.
`Ambiguous`    the clip may or may not be bought. This is the outcome of all that is not clearly one of the others.
"""

from dataclasses import dataclass
from typing import TypeAlias

from rushes.domain.failure import Category
from rushes.domain.redaction import BY_SHAPE, Redactor
from rushes.errors import UnreadableError
from rushes.runware.response import Envelope, Problem, read


@dataclass(frozen=True, slots=True)
class Accepted:
    how: str  # acknowledged or conflict


@dataclass(frozen=True, slots=True)
class Refused:
    status: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class NeverArrived:
    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    reason: str


Outcome: TypeAlias = Accepted | Refused | NeverArrived | Ambiguous

# In a response with status 200, only these categories mean that the request itself was rejected before execution.
_REJECTIONS = {Category.VALIDATION, Category.SAFETY, Category.QUOTA, Category.AUTH}


def read_answer(status: int, body: bytes, clip_uuid: str, redactor: Redactor = BY_SHAPE) -> Outcome:
    """Returns the outcome of one clip's submission by its HTTP response. `redactor` has the secrets of the order."""
    try:
        envelope = read(body, redactor)
    except UnreadableError:
        return Ambiguous(f"HTTP {status} without Runware's envelope")
    about_clip = envelope.about(clip_uuid)
    # A conflict is about our own random UUID, so Runware already has this clip, whatever the status.
    if any(problem.category == Category.CONFLICT for problem in about_clip.problems):
        return Accepted("conflict")
    if 200 <= status < 300:
        return _read_success(about_clip, clip_uuid)
    problem = about_clip.problems[0] if about_clip.problems and not about_clip.results else None
    if status == 429 and problem:
        return NeverArrived(f"HTTP 429 {problem.code}")
    if 400 <= status < 500 and status != 408 and problem:
        return Refused(status, problem)
    return Ambiguous(f"HTTP {status}")


def _read_success(about_clip: Envelope, clip_uuid: str) -> Outcome:
    if about_clip.results:
        return Accepted("acknowledged")
    for problem in about_clip.problems:
        # A final error is the end of an accepted task, so it does not reject the request.
        if problem.task_uuid == clip_uuid and problem.category in _REJECTIONS and not problem.final:
            return Refused(200, problem)
    return Ambiguous("a success without an acknowledgement")

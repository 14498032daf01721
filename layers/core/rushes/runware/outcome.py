"""What one attempt to buy proves. Pure, and the reason why a clip is not bought twice: read it slowly.

`Accepted`     Runware has it.
`Refused`      a definite no to this attempt: nothing was bought by it.
`NeverArrived` it is certain that Runware never took the request; it may be sent again.
`Ambiguous`    nobody can say. This is the answer to everything that is not clearly one of the others.
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

# In a successful answer, only these say that the request itself was turned down before anything was made of it.
_TURNED_DOWN = {Category.VALIDATION, Category.SAFETY, Category.QUOTA, Category.AUTH}


def read_answer(status: int, body: bytes, clip_uuid: str, redactor: Redactor = BY_SHAPE) -> Outcome:
    """What an HTTP answer to the submission of one clip proves. `redactor` knows what was secret about the order."""
    try:
        everything = read(body, redactor)
    except UnreadableError:
        return Ambiguous(f"HTTP {status} without Runware's envelope")
    said = everything.about(clip_uuid)
    # A conflict names our own UUID, which nobody else can have chosen: this clip is there already, whatever the status.
    if any(problem.category == Category.CONFLICT for problem in said.problems):
        return Accepted("conflict")
    if 200 <= status < 300:
        return _read_success(said, clip_uuid)
    problem = said.problems[0] if said.problems and not said.results else None
    if status == 429 and problem:
        return NeverArrived(f"HTTP 429 {problem.code}")
    if 400 <= status < 500 and status != 408 and problem:
        return Refused(status, problem)
    return Ambiguous(f"HTTP {status}")


def _read_success(said: Envelope, clip_uuid: str) -> Outcome:
    if said.results:
        return Accepted("acknowledged")
    for problem in said.problems:
        # A final error is the end of something that was accepted, so it turns nothing down.
        if problem.task_uuid == clip_uuid and problem.category in _TURNED_DOWN and not problem.final:
            return Refused(200, problem)
    return Ambiguous("a success without an acknowledgement")

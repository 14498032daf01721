"""What comes from Runware, read in every shape it has been seen in: answers, poll results and webhooks alike.

The shapes are a flat object, `{"data": […]}`, `{"errors": […]}`, both, `{"error": {…}}` and a bare array, with an error
item in `errors` or inside `data`, flat or nested (docs/runware.md). This module hides them all behind `Envelope`. It
uses no pydantic, since `webhook` needs nothing else of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from rushes.domain.failure import ACCOUNT_STATUSES, Category
from rushes.domain.formats import canonical
from rushes.domain.redaction import BY_SHAPE, Redactor
from rushes.errors import ProviderError, UnreadableError
from rushes.runware.error_codes import categorise

# What is kept must fit into an item of the table, as many facts of it as `clip.MEANINGS` allows: 400 KB in all.
_MAX_LENGTH = 2048  # bytes kept of any text of the provider's
_MAX_NAME_LENGTH = 100  # bytes of a code, and of what a video is called
_MAX_READ_LENGTH = 16_384  # characters of a text that are looked through for secrets; what is beyond them is cut
_MAX_SECRET_LENGTH = 4_096  # characters, encoded
_MAX_DETAILS_BYTES = 8192  # bytes of JSON, of what an error says besides its message
_MAX_INTEGER_DIGITS = 100  # digits; what is longer is a number all the same, but no count or seed of anything
_MAX_ITEMS = 1000
_MAX_ITEM_BYTES = 16  # items about one task, which has one result
_MAX_COST = Decimal(10_000)  # dollars for one clip: above it a cost is noise, not a price
# Kinds of trouble that whoever asks may have as well as a task; of a task that failed they are `final`.
_OF_ASKING = {Category.AUTH, Category.QUOTA, Category.RATE_LIMIT, Category.SERVER}
_DATA_FIELDS = ("videoBase64Data", "videoDataURI")
_SHOWN = ("parameter", "type", "responseContent", "documentation", "min", "max", "multiplier", "allowedValues")
_RESULT_FIELDS = ("videoUUID", "videoURL", *_DATA_FIELDS)


@dataclass(frozen=True, slots=True)
class Result:
    """One item of `data`. Without any video field it says only that the task is known (accepted or processing).

    `cost` is in micro-dollars, None when missing or not a price. `data` is the video itself when it came inline, as
    the provider's base64 text.
    """

    task_uuid: str | None
    video_uuid: str | None = None
    video_url: str | None = None
    seed: int | None = None
    nsfw: bool | None = None
    cost: int | None = None
    data: str | None = None
    response: "Envelope | None" = None  # of getTaskDetails: the last response about the task


@dataclass(frozen=True, slots=True)
class Problem:
    """One error item. `wire` is what may be shown of it, its texts cut to a sane length; what is too much is left out.

    `final` means that the item itself has `status: error`, the mark of a task that was accepted and failed.
    """

    task_uuid: str | None
    code: str
    message: str
    final: bool
    wire: Mapping[str, Any]

    @property
    def category(self) -> Category:
        return categorise(self.code)

    @property
    def of_asking(self) -> bool:
        """Whether, in the answer to a question, it may be about who asked or how: then it proves nothing of a task."""
        return self.task_uuid is None or (not self.final and self.category in _OF_ASKING)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything one answer said."""

    results: tuple[Result, ...]
    problems: tuple[Problem, ...]

    def about(self, task_uuid: str) -> "Envelope":
        """The part that names this task, and the problems that name none; no more of it than a record can hold."""
        return Envelope(
            tuple(result for result in self.results if result.task_uuid == task_uuid)[:_MAX_ITEM_BYTES],
            tuple(problem for problem in self.problems if problem.task_uuid in (task_uuid, None))[:_MAX_ITEM_BYTES],
        )


@dataclass(frozen=True, slots=True)
class LookupResponse:
    """The answer to a question. `proper` means HTTP 200 without any error: then absence is an answer, too."""

    envelope: Envelope
    proper: bool

    def confirms_absent(self, task_uuid: str) -> bool:
        """Whether Runware answered properly and knows nothing of this task.

        An item that names no task may be about this one, of which alone it was asked.
        """
        return self.proper and all(result.task_uuid not in (task_uuid, None) for result in self.envelope.results)

    @property
    def turned_away(self) -> bool:
        """Whether the question as a whole met with an error, so that what it does not name was not answered at all."""
        return not self.proper and not self.envelope.results

    def answers(self, task_uuid: str) -> bool:
        """Whether this says what Runware knows of the task, be it nothing; otherwise the question was turned away."""
        said = self.envelope.about(task_uuid)
        return self.proper or bool(said.results) or not all(problem.of_asking for problem in said.problems)


def read_lookup(status: int, body: bytes, redactor: Redactor = BY_SHAPE) -> LookupResponse:
    """The answer to `getResponse` or `getTaskDetails`; raises `ProviderError` unless it is Runware's own.

    A 4xx is read, since a task that failed for good has been seen answered with 400; a 5xx is the poll's own trouble.
    So is what is said of our account, whatever its code, unless it is the end of a task.
    """
    if status >= 500 or status in (408, 429):
        raise ProviderError(f"HTTP {status}")
    try:
        envelope = read(body, redactor)
    except UnreadableError:
        raise ProviderError(f"HTTP {status} without Runware's envelope") from None
    if status in ACCOUNT_STATUSES and not any(problem.final for problem in envelope.problems):
        raise ProviderError(f"HTTP {status}")
    return LookupResponse(envelope, proper=status == 200 and not envelope.problems)


def read(body: bytes | str, redactor: Redactor = BY_SHAPE) -> Envelope:
    """An answer or webhook body; raises `UnreadableError` for anything that is not Runware's envelope.

    Its texts may echo what we sent, so `redactor` goes over each, before it is cut: half a secret would not be found.
    """
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
        value = json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        raise UnreadableError("the body is not JSON") from None
    return _envelope(value, redactor)


def _number(text: str) -> int | Decimal | None:
    """A number, None for one that no computer holds: what else the body says is worth too much to refuse it."""
    if len(text) <= _MAX_INTEGER_DIGITS and text.lstrip("-").isdigit():
        return int(text)
    try:
        return Decimal(text)
    except ArithmeticError:
        return None


def _refuse(_: str) -> None:
    raise ValueError("not JSON")


def _envelope(value: object, redactor: Redactor, inner: bool = False) -> Envelope:
    if isinstance(value, list):
        items, errors = value, []
    elif isinstance(value, dict) and {"data", "errors", "error"} & value.keys() and "taskType" not in value:
        items = _listed(value.get("data"))
        errors = _listed(value.get("errors")) + _listed(value.get("error"))
    elif isinstance(value, dict) and ({"taskUUID", "taskType", "code"} & value.keys()):
        items, errors = [value], []
    else:
        raise UnreadableError("the body is not Runware's envelope")
    if len(items) + len(errors) > _MAX_ITEMS:
        raise UnreadableError("the body has too many items")
    if not all(isinstance(item, dict) for item in (*items, *errors)):
        raise UnreadableError("the body's items are not objects")
    failed = [item for item in items if _is_error(item)]
    return Envelope(
        tuple(_result(item, redactor, inner) for item in items if not _is_error(item)),
        tuple(_problem(item, redactor) for item in (*errors, *failed)),
    )


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _is_error(item: Mapping[str, Any]) -> bool:
    if any(item.get(name) for name in _RESULT_FIELDS):
        return False
    return item.get("status") == "error" or item.get("error") is not None or item.get("code") is not None


def _result(item: Mapping[str, Any], redactor: Redactor, inner: bool) -> Result:
    seed, nsfw = item.get("seed"), item.get("NSFWContent")
    data = next((item[name] for name in _DATA_FIELDS if isinstance(item.get(name), str) and item[name]), None)
    return Result(
        task_uuid=_uuid(item),
        video_uuid=_address(item, "videoUUID", redactor, _MAX_NAME_LENGTH),
        video_url=_address(item, "videoURL", redactor),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**64 else None,
        nsfw=nsfw if isinstance(nsfw, bool) else None,
        cost=_micro_dollars(item.get("cost")),
        data=data,
        response=None if inner else _response(item, redactor),
    )


def _response(item: Mapping[str, Any], redactor: Redactor) -> Envelope | None:
    """The last response inside an item of `getTaskDetails`, if it can be read."""
    try:
        return _envelope(item["response"], redactor, inner=True) if "response" in item else None
    except UnreadableError:
        return None


def _problem(item: Mapping[str, Any], redactor: Redactor) -> Problem:
    nested = item.get("error")
    error = {**item, **nested} if isinstance(nested, dict) else item
    code = _code(error, redactor) or "unknownError"
    message = _text(error, "message", redactor) or _text(item, "error", redactor) or "Runware gave no reason."
    final = error.get("status") == "error"
    return Problem(_uuid(error), code, message, final, {"code": code, "message": message, **_details(error, redactor)})


def _details(error: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    """What may be shown of an error besides its message, as far as there is room for it."""
    details: dict[str, Any] = {}
    room = _MAX_DETAILS_BYTES
    for name in _SHOWN:
        if error.get(name) is None:
            continue
        value = _shown(error[name], redactor)
        size = len(canonical(value).encode())
        if size <= room:
            details[name] = value
            room -= size
    return details


def _uuid(item: Mapping[str, Any]) -> str | None:
    value = item.get("taskUUID")
    return _cut(value).lower() if isinstance(value, str) and value else None


def _code(error: Mapping[str, Any], redactor: Redactor) -> str | None:
    """A code is a word, on which money may depend: no caller's link may make it into something else."""
    value = error.get("code")
    if isinstance(value, str) and value.isalpha() and value.isascii():
        return _cut(value, _MAX_NAME_LENGTH)
    return _text(error, "code", redactor, _MAX_NAME_LENGTH)


def _address(item: Mapping[str, Any], name: str, redactor: Redactor, longest: int = _MAX_LENGTH) -> str | None:
    """A text that is only good whole: as it is, or not at all if it holds what we sent."""
    value = item.get(name)
    if not isinstance(value, str) or not value or redactor.holds(value[:_MAX_READ_LENGTH]):
        return None
    return _cut(value, longest)


def _text(item: Mapping[str, Any], name: str, redactor: Redactor, longest: int = _MAX_LENGTH) -> str | None:
    value = item.get(name)
    return _told(value, redactor, longest) if isinstance(value, str) and value else None


def _told(text: str, redactor: Redactor, longest: int = _MAX_LENGTH) -> str:
    """The beginning of a text, without secrets."""
    if len(text) > _MAX_READ_LENGTH:
        # The cut may go through a secret, which holds no blank; half of one could not be recognised.
        text = text[: max(text.rfind(" ", 0, _MAX_READ_LENGTH), _MAX_READ_LENGTH - _MAX_SECRET_LENGTH)]
    return _cut(redactor.text(text), longest)


def _cut(text: str, longest: int = _MAX_LENGTH) -> str:
    """The beginning of a text, in so many bytes, as it can be stored."""
    # A lone surrogate is legal in JSON's escapes and illegal everywhere we would store it.
    return text[:longest].encode(errors="replace")[:longest].decode(errors="ignore")


def _shown(value: object, redactor: Redactor) -> object:
    """A wire value of unknown shape, made small and plain: a scalar, or a list of texts and numbers."""
    if isinstance(value, list):
        return [_scalar(member, redactor) for member in value[:50]]
    return _scalar(value, redactor)


def _scalar(value: object, redactor: Redactor) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, Decimal):
        return float(value) if isfinite(float(value)) else _cut(str(value))
    return _told(value, redactor) if isinstance(value, str) else "…"


def _micro_dollars(value: object) -> int | None:
    """A missing, negative, zero or absurd cost is not a price."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or not 0 < amount <= _MAX_COST:
        return None
    return int((amount * 1_000_000).to_integral_value()) or None

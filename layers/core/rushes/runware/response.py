"""Parses Runware's responses, poll results and webhooks, in all shapes that have been observed.

The shapes are a flat object, `{"data": […]}`, `{"errors": […]}`, both, `{"error": {…}}` and a bare array, with an error
item in `errors` or inside `data`, flat or nested (docs/runware.md). This module hides them behind `Envelope`. It does
without pydantic, which `webhook` would need for nothing else.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, NamedTuple

from rushes.domain.failure import ACCOUNT_STATUSES, Category
from rushes.domain.formats import canonical
from rushes.domain.redaction import BY_SHAPE, Redactor
from rushes.errors import ProviderError, UnreadableError
from rushes.runware.error_codes import categorise

# As many facts as `clip.KIND_RULES` allows must fit into an item of the table, which has 400 KB.
_MAX_TEXT_BYTES = 2048  # of each text of the provider that is kept
_MAX_NAME_BYTES = 100  # of a code or a videoUUID
_MAX_READ_LENGTH = 16_384  # characters of a text that are searched for secrets; the rest is dropped
_MAX_SECRET_LENGTH = 4_096  # characters, encoded
_MAX_DETAILS_BYTES = 8192  # of an error's fields besides its message, in JSON
_MAX_INTEGER_DIGITS = 100  # a longer integer is read as a Decimal: it cannot be a count or a seed
_MAX_ITEMS = 1000
_MAX_ITEMS_OF_TASK = 16  # a task has one result
_MAX_COST = Decimal(10_000)  # dollars for one clip: a larger cost is an error
# Categories of errors that a poll can have as well as a task; those of a failed task are `final`.
_POLL_CATEGORIES = {Category.AUTH, Category.QUOTA, Category.RATE_LIMIT, Category.SERVER}
_DATA_FIELDS = ("videoBase64Data", "videoDataURI")
_DETAIL_FIELDS = ("parameter", "type", "responseContent", "documentation", "min", "max", "multiplier", "allowedValues")
_RESULT_FIELDS = ("videoUUID", "videoURL", *_DATA_FIELDS)


class Result(NamedTuple):
    """One item of `data`. Without a video field it only proves that Runware has the task (accepted or processing).

    `cost` is in micro-dollars, None if it is missing or not a price. `data` is the base64 text of an inline video.
    """

    task_uuid: str | None
    video_uuid: str | None = None
    video_url: str | None = None
    seed: int | None = None
    nsfw: bool | None = None
    cost: int | None = None
    data: str | None = None
    response: "Envelope | None" = None  # of getTaskDetails: the task's last response


class Problem(NamedTuple):
    """One error item. `wire` has the fields that callers may see, with truncated texts and without those too large.

    `final` is True if the item itself has `status: error`, the mark of an accepted task that failed.
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
    def about_lookup(self) -> bool:
        """True if the error, in a poll's response, may be about the poll itself: then it proves nothing of a task."""
        return self.task_uuid is None or (not self.final and self.category in _POLL_CATEGORIES)


class Envelope(NamedTuple):
    """The items of one response or webhook."""

    results: tuple[Result, ...]
    problems: tuple[Problem, ...]

    def about(self, task_uuid: str) -> "Envelope":
        """Returns the items of this task and the problems without a task, at most as many as a record can hold."""
        return Envelope(
            tuple(result for result in self.results if result.task_uuid == task_uuid)[:_MAX_ITEMS_OF_TASK],
            tuple(problem for problem in self.problems if problem.task_uuid in (task_uuid, None))[:_MAX_ITEMS_OF_TASK],
        )


class LookupResponse(NamedTuple):
    """The response to a poll. `is_complete` means HTTP 200 without any error: only then absence is proven."""

    envelope: Envelope
    is_complete: bool

    def confirms_absent(self, task_uuid: str) -> bool:
        """True if the response is complete and has no item for this task.

        An item without a task may be for this one, if the poll was for this one alone.
        """
        return self.is_complete and all(result.task_uuid not in (task_uuid, None) for result in self.envelope.results)

    @property
    def rejected_whole(self) -> bool:
        """True if the poll as a whole met with an error, so that it has no answer for tasks without an item."""
        return not self.is_complete and not self.envelope.results

    def answers(self, task_uuid: str) -> bool:
        """True if the response has the state of this task, which may be absence; otherwise the poll was rejected."""
        about_task = self.envelope.about(task_uuid)
        return (
            self.is_complete
            or bool(about_task.results)
            or not all(problem.about_lookup for problem in about_task.problems)
        )


def read_lookup(status: int, body: bytes, redactor: Redactor = BY_SHAPE) -> LookupResponse:
    """Parses the response to `getResponse` or `getTaskDetails`; raises `ProviderError` if the poll itself failed.

    A 4xx is parsed, since 400 has been observed for a task that failed permanently; a 5xx is an error of the poll. So
    is a problem of our account, whatever its code, unless a task has ended.
    """
    if status >= 500 or status in (408, 429):
        raise ProviderError(f"HTTP {status}")
    try:
        envelope = read(body, redactor)
    except UnreadableError:
        raise ProviderError(f"HTTP {status} without Runware's envelope") from None
    if status in ACCOUNT_STATUSES and not any(problem.final for problem in envelope.problems):
        raise ProviderError(f"HTTP {status}")
    return LookupResponse(envelope, is_complete=status == 200 and not envelope.problems)


def read(body: bytes | str, redactor: Redactor = BY_SHAPE) -> Envelope:
    """Parses a response or webhook body; raises `UnreadableError` if it is not Runware's envelope.

    Its texts may echo our request, so `redactor` is applied before a text is truncated: it cannot find half a secret.
    """
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
        value = json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_reject_constant)
    except (ValueError, ArithmeticError, RecursionError):
        raise UnreadableError("the body is not JSON") from None
    return _envelope(value, redactor)


def _number(text: str) -> int | Decimal | None:
    """A number, or None for one out of range: the rest of the body is too valuable to reject it."""
    if len(text) <= _MAX_INTEGER_DIGITS and text.lstrip("-").isdigit():
        return int(text)
    try:
        return Decimal(text)
    except ArithmeticError:
        return None


def _reject_constant(_: str) -> None:
    raise ValueError("not JSON")


def _envelope(value: object, redactor: Redactor, inner: bool = False) -> Envelope:
    if isinstance(value, list):
        items, errors = value, []
    elif isinstance(value, dict) and {"data", "errors", "error"} & value.keys() and "taskType" not in value:
        items = _as_list(value.get("data"))
        errors = _as_list(value.get("errors")) + _as_list(value.get("error"))
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


def _as_list(value: object) -> list[Any]:
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
        video_uuid=_unredacted_text(item, "videoUUID", redactor, _MAX_NAME_BYTES),
        video_url=_unredacted_text(item, "videoURL", redactor),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**64 else None,
        nsfw=nsfw if isinstance(nsfw, bool) else None,
        cost=_micro_dollars(item.get("cost")),
        data=data,
        response=None if inner else _response(item, redactor),
    )


def _response(item: Mapping[str, Any], redactor: Redactor) -> Envelope | None:
    """The last response inside an item of `getTaskDetails`, or None if it is not an envelope."""
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
    """The fields of an error besides its message that callers may see, up to the limit in bytes."""
    details: dict[str, Any] = {}
    room = _MAX_DETAILS_BYTES
    for name in _DETAIL_FIELDS:
        if error.get(name) is None:
            continue
        value = _detail_value(error[name], redactor)
        size = len(canonical(value).encode())
        if size <= room:
            details[name] = value
            room -= size
    return details


def _uuid(item: Mapping[str, Any]) -> str | None:
    value = item.get("taskUUID")
    return _truncate(value).lower() if isinstance(value, str) and value else None


def _code(error: Mapping[str, Any], redactor: Redactor) -> str | None:
    """A code is one word, on which money may depend, so it is not redacted: a caller's link must not change it."""
    value = error.get("code")
    if isinstance(value, str) and value.isalpha() and value.isascii():
        return _truncate(value, _MAX_NAME_BYTES)
    return _text(error, "code", redactor, _MAX_NAME_BYTES)


def _unredacted_text(
    item: Mapping[str, Any], name: str, redactor: Redactor, max_bytes: int = _MAX_TEXT_BYTES
) -> str | None:
    """A text that is useless when redacted: unchanged, or None if it contains a secret of our request."""
    value = item.get(name)
    if not isinstance(value, str) or not value or redactor.contains_secret(value[:_MAX_READ_LENGTH]):
        return None
    return _truncate(value, max_bytes)


def _text(item: Mapping[str, Any], name: str, redactor: Redactor, max_bytes: int = _MAX_TEXT_BYTES) -> str | None:
    value = item.get(name)
    return _redacted_text(value, redactor, max_bytes) if isinstance(value, str) and value else None


def _redacted_text(text: str, redactor: Redactor, max_bytes: int = _MAX_TEXT_BYTES) -> str:
    """The beginning of a text, without secrets."""
    if len(text) > _MAX_READ_LENGTH:
        # Half a secret would not be recognized. A secret has no blank, so the text is truncated at one.
        text = text[: max(text.rfind(" ", 0, _MAX_READ_LENGTH), _MAX_READ_LENGTH - _MAX_SECRET_LENGTH)]
    return _truncate(redactor.text(text), max_bytes)


def _truncate(text: str, max_bytes: int = _MAX_TEXT_BYTES) -> str:
    """The first bytes of a text, in a form that can be stored."""
    # A lone surrogate is valid in JSON's escapes, but cannot be stored.
    return text[:max_bytes].encode(errors="replace")[:max_bytes].decode(errors="ignore")


def _detail_value(value: object, redactor: Redactor) -> object:
    """A wire value of unknown shape, reduced to a scalar or a short list of texts and numbers."""
    if isinstance(value, list):
        return [_scalar(member, redactor) for member in value[:50]]
    return _scalar(value, redactor)


def _scalar(value: object, redactor: Redactor) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, Decimal):
        return float(value) if isfinite(float(value)) else _truncate(str(value))
    return _redacted_text(value, redactor) if isinstance(value, str) else "…"


def _micro_dollars(value: object) -> int | None:
    """A cost in micro-dollars; None if it is missing, negative, zero or too large for a price."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or not 0 < amount <= _MAX_COST:
        return None
    return int((amount * 1_000_000).to_integral_value()) or None

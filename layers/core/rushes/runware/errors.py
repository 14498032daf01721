"""The provider's many error codes, folded into a few categories.

Runware's codes are an open list that it says may change at any time, so they are classified by rules, first match
wins, and the raw code is kept for people. The rules follow the official clients', with two mends: `timeoutProvider`,
which is documented, counts as a timeout, and a conflict has a category of its own because it proves a purchase.
"""

from collections.abc import Callable
from enum import StrEnum


class Category(StrEnum):
    """What kind of trouble a code names."""

    CONFLICT = "conflict"  # the UUID is known: an earlier submission arrived
    DELIVERY = "delivery"  # the render went well, handing it over did not
    QUOTA = "quota"
    RATE_LIMIT = "rateLimit"
    SAFETY = "safety"
    AUTH = "auth"
    TIMEOUT = "timeout"
    NOT_FOUND = "notFound"
    SERVER = "server"
    PROVIDER = "provider"
    VALIDATION = "validation"
    UNKNOWN = "unknown"


_DELIVERY = {"uploadFailed", "webhookTimeout", "webhookFailed", "mediaStorageFileCouldNotBeMoved"}
_SAFETY = {
    "contentPolicyViolation",
    "imageBlocked",
    "invalidProviderContent",
    "moderationFailed",
    "nsfwContentDetected",
    "promptBlocked",
    "providerContentPolicyViolation",
    "sensitiveContentDetected",
    "unsafeContentDetected",
}
_AUTH = {"unauthorized", "forbidden", "permissionDenied", "insufficientPermissions"}
_AUTH_SUFFIXES = ("TokenExpired", "TokenInvalid", "TokenMissing", "TokenRevoked", "Suspended", "Disabled")
_SERVER = {
    "defaultError",
    "errorRetrievingAccountManagement",
    "internalServerError",
    "serverUnavailable",
    "serviceUnavailable",
    "standardError",
    "undefinedError",
    "unknownError",
    "unrecognizedResponse",
}
_PROVIDER = {
    "downloadFailed",
    "inferenceError",
    "modelDisabled",
    "modelNotReady",
    "modelUnavailable",
    "noAvailableServer",
    "processingFailed",
    "taskFailed",
}
_VALIDATION = (
    "array",
    "conflict",
    "duplicate",
    "incompatible",
    "invalid",
    "max",
    "min",
    "mismatch",
    "missing",
    "unknownParameter",
    "unknownProviderSettings",
    "unsupported",
    "validation",
    "value",
)

ABOUT_ACCOUNTS = (Category.AUTH, Category.QUOTA)
"""Account trouble in words. Which status they come with is not documented, and an answer in parts is a 200."""

ACCOUNT_TROUBLE = (401, 402, 403)
"""Statuses of an answer that refuse us, whatever its code says: a wrong key, no money, no permission."""

_RULES: tuple[tuple[Category, Callable[[str], bool]], ...] = (
    (Category.CONFLICT, lambda code: code == "conflictTaskUUID"),
    (Category.DELIVERY, lambda code: code in _DELIVERY),
    (Category.QUOTA, lambda code: code == "paymentRequired" or _holds(code, "Credits", "Quota", "Balance")),
    (Category.RATE_LIMIT, lambda code: _holds(code, "rateLimit", "RateLimit")),
    (Category.SAFETY, lambda code: code in _SAFETY),
    (Category.PROVIDER, lambda code: code in _PROVIDER),
    (Category.AUTH, lambda code: "ApiKey" in code or code in _AUTH or code.endswith(_AUTH_SUFFIXES)),
    (Category.TIMEOUT, lambda code: code == "timeoutProvider" or "Timeout" in code),
    (Category.NOT_FOUND, lambda code: code == "taskCancelled" or code.endswith(("NotFound", "Expired"))),
    (Category.SERVER, lambda code: code in _SERVER),
    (Category.PROVIDER, lambda code: code.startswith("provider")),
    (Category.VALIDATION, lambda code: code.startswith(_VALIDATION)),
)


def categorise(code: str) -> Category:
    """The category of a code, `UNKNOWN` for one that no rule knows. Never raises."""
    return next((category for category, rule in _RULES if rule(code)), Category.UNKNOWN)


def _holds(code: str, *words: str) -> bool:
    return any(word in code for word in words)

"""Maps the provider's many error codes to a few categories.

Runware's codes are an open list that may change at any time. So they are classified by rules, of which the first match
applies, and the raw code is kept for people. The rules are those of the official clients with two changes:
`timeoutProvider`, which is documented, is a timeout, and a conflict has its own category since it proves a purchase.
"""

from collections.abc import Callable

from rushes.domain.failure import Category

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


_RULES: tuple[tuple[Category, Callable[[str], bool]], ...] = (
    (Category.CONFLICT, lambda code: code == "conflictTaskUUID"),
    (Category.DELIVERY, lambda code: code in _DELIVERY),
    (Category.QUOTA, lambda code: code == "paymentRequired" or _contains(code, "Credits", "Quota", "Balance")),
    (Category.RATE_LIMIT, lambda code: _contains(code, "rateLimit", "RateLimit")),
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
    """Returns the category of a code, `UNKNOWN` if no rule matches. Never raises."""
    return next((category for category, rule in _RULES if rule(code)), Category.UNKNOWN)


def _contains(code: str, *words: str) -> bool:
    return any(word in code for word in words)

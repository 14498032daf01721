"""The reasons of refusals and failures: a dozen categories of trouble, and the text that callers may read.

It hides one rule: trouble with the service's own account at Runware is the operator's, and its words stay out of
callers' sight. The provider's codes are mapped to categories in `runware.error_codes`. Pure.
"""

from collections.abc import Mapping
from enum import StrEnum

from rushes.domain.clip import Scalar
from rushes.domain.redaction import scrub


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


ACCOUNT_CATEGORIES = (Category.AUTH, Category.QUOTA)
"""Account trouble in words. Which status they come with is not documented, and an answer in parts is a 200."""


ACCOUNT_STATUSES = (401, 402, 403)
"""Statuses of an answer that refuse us, whatever its code says: a wrong key, no money, no permission."""


def is_account_failure(fields: Mapping[str, Scalar]) -> bool:
    """Whether a refusal or failure was about this service's own account at Runware rather than the clip."""
    return fields.get("httpStatus") in ACCOUNT_STATUSES or fields.get("category") in ACCOUNT_CATEGORIES


def failure_reason(fields: Mapping[str, Scalar]) -> str:
    """Why a clip was refused or failed, as callers may read it. Our account's trouble is none of theirs."""
    if is_account_failure(fields):
        return "This service's own account at Runware is in trouble. The operator has to act."
    return scrub(str(fields.get("message", "Runware gave no reason.")))

"""The reasons of refusals and failures: a dozen categories, and the text that callers may read.

It hides one rule: problems of the service's own account at Runware are the operator's, and callers do not see their
text. The provider's codes are mapped to categories in `runware.error_codes`. Pure.
"""

from collections.abc import Mapping
from enum import StrEnum

from rushes.domain.redaction import scrub


class Category(StrEnum):
    """The category of an error code."""

    CONFLICT = "conflict"  # the UUID is in use: an earlier submission arrived
    DELIVERY = "delivery"  # the render succeeded, its upload or webhook failed
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
"""The categories of account problems. Their status is not documented, and a mixed response has 200."""


ACCOUNT_STATUSES = (401, 402, 403)
"""The statuses of account problems, whatever the code: an invalid key, no money, no permission."""


def is_account_failure(fields: Mapping[str, object]) -> bool:
    """True if a refusal or failure concerns this service's own account at Runware and not the clip."""
    return fields.get("httpStatus") in ACCOUNT_STATUSES or fields.get("category") in ACCOUNT_CATEGORIES


def failure_reason(fields: Mapping[str, object]) -> str:
    """Returns the reason of a refusal or failure for callers. It hides the details of an account problem."""
    if is_account_failure(fields):
        return "There is a problem with this service's own account at Runware. The operator has to act."
    return scrub(str(fields.get("message", "Runware gave no reason.")))

"""The token that proves that a callback is about the clip in its path. Pure: keys and time are passed in.

Runware authenticates a webhook only by its URL, so the URL contains a signature over `<caller>/<taskUUID>/<clip>`, its
own path segments. Several keys may be valid at once, for rotation.
"""

import hashlib
from collections.abc import Sequence

from itsdangerous import BadData, TimestampSigner

from rushes.errors import BadTokenError

VALID_SECONDS = 7 * 24 * 3600
_SKEW_SECONDS = 60  # the signer's clock may be ahead of ours, and a webhook may arrive immediately
_MAX_LENGTH = 200


class _Signer(TimestampSigner):
    """itsdangerous' signer with the time passed in instead of read from the clock."""

    def __init__(self, keys: Sequence[str], now: int) -> None:
        # itsdangerous signs with the last key and accepts all of them.
        super().__init__(list(keys), salt="webhook", digest_method=hashlib.sha256)
        self._now = now // 1000

    def get_timestamp(self) -> int:
        return self._now


def sign(subject: str, keys: Sequence[str], now: int) -> str:
    """Returns a token for `subject`; `keys` are newest first, `now` is in milliseconds."""
    signed = _Signer(list(reversed(keys)), now).sign(subject).decode()
    return signed[len(subject) + 1 :]


def verify(token: str, subject: str, keys: Sequence[str], now: int) -> None:
    """Raises `BadTokenError` unless one of `keys` signed `subject` within the last seven days."""
    try:
        if len(token) > _MAX_LENGTH:
            raise BadTokenError
        signer = _Signer(keys, now + _SKEW_SECONDS * 1000)
        signed: bytes = signer.unsign(f"{subject}.{token}", max_age=VALID_SECONDS + _SKEW_SECONDS)
    except (BadData, UnicodeError):
        raise BadTokenError from None
    # A token may contain the end of a longer subject.
    if signed != subject.encode():
        raise BadTokenError


def subject(caller: str, task_uuid: str, index: int | str) -> str:
    """Returns the text that a token signs, for one clip."""
    return f"{caller}/{task_uuid}/{index}"

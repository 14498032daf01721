"""What must not be in a log line, by its shape: for the watch over what the tests log, and for the judge of a chaos."""

import re
from collections.abc import Iterable

from rushes_local.stack import EMULATOR_KEY

# `[removed]` is what stands in the place of what was there.
_SECRETS = {
    "a webhook token": re.compile(r"\b[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])|[?&]token=(?!\[removed\])"),
    "an API key": re.compile(r"rushes_[A-Za-z0-9_-]{20}"),
    "a Runware key": re.compile(EMULATOR_KEY),
    "a presigned query": re.compile(r"X-Amz-(Signature|Credential|Security-Token)[\"'\s=:]+(?!\[removed\])\w", re.I),
    "an authorization": re.compile(r"\bBearer[\"'\s=:]+(?!\[removed\])\w", re.I),
    "an AWS credential": re.compile(r"local-(secret-key|session-token)"),
}


def leaks(lines: Iterable[str]) -> list[str]:
    """What the lines hold that nobody may read there, each with its line."""
    return [f"{name} was logged: {line}" for line in lines for name, shape in _SECRETS.items() if shape.search(line)]

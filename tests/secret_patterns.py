"""Patterns of secrets that no log line may contain, for the check of the tests' logs and of the chaos runs."""

import re
from collections.abc import Iterable

from rushes_local.stack import EMULATOR_KEY

# `[removed]` replaces a secret that was removed.
_SECRETS = {
    "a webhook token": re.compile(r"\b[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])|[?&]token=(?!\[removed\])"),
    "an API key": re.compile(r"rushes_[A-Za-z0-9_-]{20}"),
    "a Runware key": re.compile(EMULATOR_KEY),
    "a presigned query": re.compile(r"X-Amz-(Signature|Credential|Security-Token)[\"'\s=:]+(?!\[removed\])\w", re.I),
    "an authorization": re.compile(r"\bBearer[\"'\s=:]+(?!\[removed\])\w", re.I),
    "an AWS credential": re.compile(r"local-(secret-key|session-token)"),
}


def leaks(lines: Iterable[str]) -> list[str]:
    """The secrets that the lines contain, each with its line."""
    return [f"{name} was logged: {line}" for line in lines for name, shape in _SECRETS.items() if shape.search(line)]

"""What is taken out of any text before evidence, a log or a caller sees it: whatever could be used to act as us.

Provider messages may echo our URLs, and those carry callback tokens and presigned signatures in their queries.
"""

import re

_QUERY = re.compile(r"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*", re.IGNORECASE)
_NAMES = r"token|x-amz-[a-z-]+|api_?key|authorization"
_PAIR = re.compile(
    rf"\b((?:{_NAMES})[\"']?\s*(?:=|:|%3D)\s*[\"']?(?:bearer\s+)?|bearer\s+)[^\s\"'&,}}]+", re.IGNORECASE
)


def scrub(text: str) -> str:
    """The text without query strings of URLs, tokens, keys and signatures."""
    return _PAIR.sub(r"\1[removed]", _QUERY.sub(r"\1?[removed]", text))


def scrub_all(value: object) -> object:
    """`scrub` for every text inside a JSON value."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [scrub_all(member) for member in value]
    if isinstance(value, dict):
        return {name: scrub_all(member) for name, member in value.items()}
    return value

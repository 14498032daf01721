"""Removes secrets from a text before it reaches evidence, a log or a caller.

Provider messages may echo parts of our requests: our key, and URLs whose queries contain callback tokens and presigned
signatures. Given secrets are found by value and all others by shape, in the text and in its decoded forms: an echo may
be percent-encoded, escaped for JSON or HTML, or several of these in turn.
"""

import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

REMOVED = "[removed]"
_MAX_DEPTH = 8  # nested encodings; a text with more is removed
_MIN_LENGTH = 6  # characters of a secret: a shorter one would match ordinary words
_MIN_VALUE_LENGTH = 16  # characters of a query value that may be a secret
_URL = re.compile(r"(https?://[^\s\"'<>?]*)(\?[^\s\"'<>]*)?", re.IGNORECASE)
_NAMES = r"token|x-amz-[a-z-]{1,40}|api_?key|authorization"
_PAIR = re.compile(
    rf"(?<![a-z])((?:{_NAMES})[\"']?\s*[=:]\s*[\"']?(?:bearer\s+)?|bearer\s+)[^\s\"'&,}}]+", re.IGNORECASE
)
_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
# A text that mentions secrets may contain one in any phrase, so everything in it that is too random for a word goes.
_MENTIONS_SECRETS = re.compile(r"key|token|secret|signature|credential|auth|bearer|password", re.IGNORECASE)
_RANDOM_TEXT = re.compile(r"(?<![A-Za-z0-9_-])(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[A-Za-z0-9_-]{16,}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9])?", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([\\/\"'bfnrt]))")


class Redactor:
    """Removes the given secrets, and everything with the shape of a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if forms else None

    def text(self, text: str) -> str:
        """Returns the text without secrets. It comes back decoded only if an encoding hid one."""
        redacted = text
        for _ in range(_MAX_DEPTH):
            cleaned = self._cleaned(text)
            if cleaned != text:
                redacted = cleaned
            text = _decoded(cleaned)
            if text == cleaned:
                return redacted
        return REMOVED

    def all(self, value: object) -> object:
        """Returns a JSON value with all of its texts redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.all(member) for member in value]
        if isinstance(value, dict):
            return {name: self.all(member) for name, member in value.items()}
        return value

    def contains_secret(self, text: str) -> bool:
        """True if a text contains one of the given secrets, in any encoding."""
        for _ in range(_MAX_DEPTH):
            if self._values and self._values.search(text):
                return True
            decoded = _decoded(text)
            if decoded == text:
                return False
            text = decoded
        return True

    def _cleaned(self, text: str) -> str:
        if self._values:
            text = self._values.sub(REMOVED, text)
        text = _URL.sub(lambda match: f"{match[1]}?{REMOVED}" if match[2] else match[0], text)
        text = _TOKEN.sub(REMOVED, _PAIR.sub(rf"\1{REMOVED}", text))
        if _MENTIONS_SECRETS.search(text):
            text = _RANDOM_TEXT.sub(lambda match: match[0] if _UUID.fullmatch(match[0]) else REMOVED, text)
        return text


BY_SHAPE = Redactor()
"""The redactor for texts whose secrets are not at hand."""


def scrub(text: str) -> str:
    """Returns the text without query strings of URLs, tokens, keys and signatures."""
    return BY_SHAPE.text(text)


def scrub_all(value: object) -> object:
    """Returns a JSON value with `scrub` applied to all of its texts."""
    return BY_SHAPE.all(value)


def secrets_in(value: object) -> Iterator[str]:
    """Yields the secrets of the links in a JSON value: their queries, and the longer values in these."""
    if isinstance(value, str) and value[:8].lower().startswith(("http://", "https://")):
        try:
            query = urlsplit(value).query
        except ValueError:
            return
        yield query
        yield from (member for _, member in parse_qsl(query) if len(member) >= _MIN_VALUE_LENGTH)
    elif isinstance(value, list | dict):
        for member in value.values() if isinstance(value, dict) else value:
            yield from secrets_in(member)


def _forms(secret: str) -> Iterator[str]:
    """The forms by which a secret is found: itself, decoded, and the parts of a signed token."""
    decoded = secret
    for _ in range(_MAX_DEPTH):
        decoded = _decoded(decoded)
    yield from (form for form in (secret, decoded) if len(form) >= _MIN_LENGTH)
    yield from (part for part in secret.split(".") if len(part) >= _MIN_VALUE_LENGTH)


def _decoded(text: str) -> str:
    """The text with one layer of each encoding removed."""
    if "%" in text:
        text = unquote(text)
    if "\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
        # JSON escapes write a character beyond U+FFFF as two surrogates; one alone is not a character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.unescape(text) if "&" in text else text


def _unescaped(match: re.Match[str]) -> str:
    number = match[1] or match[2]
    if number:
        return chr(int(number, 16))
    return match[3] if match[3] in "\\/\"'" else " "

"""What is taken out of any text before evidence, a log or a caller sees it: whatever could be used to act as us.

Provider messages may echo what we sent: our key, and URLs whose queries carry callback tokens and presigned signatures.
Known secrets are found by value and all others by shape, in the text as it is and as it reads decoded: an echo may be
percent-encoded, escaped for JSON or HTML, or several of these in turn.
"""

import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

REMOVED = "[removed]"
_MAX_DEPTH = 8  # encodings one inside the other; a text with more is not worth reading
_MIN_LENGTH = 6  # characters of a secret: a shorter one would be found in ordinary words
_MIN_VALUE_LENGTH = 16  # characters of a query's value that may be secret
_URL = re.compile(r"(https?://[^\s\"'<>?]*)(\?[^\s\"'<>]*)?", re.IGNORECASE)
_NAMES = r"token|x-amz-[a-z-]{1,40}|api_?key|authorization"
_PAIR = re.compile(
    rf"(?<![a-z])((?:{_NAMES})[\"']?\s*[=:]\s*[\"']?(?:bearer\s+)?|bearer\s+)[^\s\"'&,}}]+", re.IGNORECASE
)
_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
# A text that speaks of secrets may name them in any phrase, so there everything goes that is too random for a word.
_SPEAKS_OF_SECRETS = re.compile(r"key|token|secret|signature|credential|auth|bearer|password", re.IGNORECASE)
_RUN = re.compile(r"(?<![A-Za-z0-9_-])(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[A-Za-z0-9_-]{16,}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9])?", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([\\/\"'bfnrt]))")


class Redactor:
    """Takes out these secrets, and whatever has the shape of one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if forms else None

    def text(self, text: str) -> str:
        """The text without secrets. Where none is hidden by an encoding, the rest of it stays as it is."""
        shown = text
        for _ in range(_MAX_DEPTH):
            cleaned = self._cleaned(text)
            if cleaned != text:
                shown = cleaned
            text = _decoded(cleaned)
            if text == cleaned:
                return shown
        return REMOVED

    def all(self, value: object) -> object:
        """The same for every text inside a JSON value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.all(member) for member in value]
        if isinstance(value, dict):
            return {name: self.all(member) for name, member in value.items()}
        return value

    def holds(self, text: str) -> bool:
        """Whether one of the known secrets is in a text, however encoded."""
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
        if _SPEAKS_OF_SECRETS.search(text):
            text = _RUN.sub(lambda match: match[0] if _UUID.fullmatch(match[0]) else REMOVED, text)
        return text


BY_SHAPE = Redactor()
"""For texts with which no secret is at hand."""


def scrub(text: str) -> str:
    """The text without query strings of URLs, tokens, keys and signatures."""
    return BY_SHAPE.text(text)


def scrub_all(value: object) -> object:
    """`scrub` for every text inside a JSON value."""
    return BY_SHAPE.all(value)


def secrets_in(value: object) -> Iterator[str]:
    """What is secret about the links in a JSON value: their queries, and what these hold."""
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
    """A secret as it is, as it reads decoded, and the parts of a signed token."""
    decoded = secret
    for _ in range(_MAX_DEPTH):
        decoded = _decoded(decoded)
    yield from (form for form in (secret, decoded) if len(form) >= _MIN_LENGTH)
    yield from (part for part in secret.split(".") if len(part) >= _MIN_VALUE_LENGTH)


def _decoded(text: str) -> str:
    """The text with one layer of each encoding taken off."""
    if "%" in text:
        text = unquote(text)
    if "\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
        # JSON writes one character as two surrogates; half of one is none.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.unescape(text) if "&" in text else text


def _unescaped(match: re.Match[str]) -> str:
    number = match[1] or match[2]
    if number:
        return chr(int(number, 16))
    return match[3] if match[3] in "\\/\"'" else " "

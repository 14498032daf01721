"""The one static page and the policy that a browser holds it to. Pure.

Nothing on it may run, be styled or be fetched but what the file itself holds and this service gives: scripts and styles
are named by their hashes, so that nothing that is written into a prompt could ever become one.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser


class _Inline(HTMLParser):
    """Collects the contents of inline `<script>` and `<style>` elements, as a browser would hash them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self._within: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag if tag in self.found and "src" not in dict(attrs) else None
        if self._within:
            self.found[tag].append("")

    def handle_endtag(self, _: str) -> None:
        self._within = None

    def handle_data(self, data: str) -> None:
        if self._within:
            self.found[self._within][-1] += data


def headers(html: str, videos: str) -> Mapping[str, str]:
    """What the page is sent with. `videos` is scheme and host of the links to clips."""
    inline = _Inline()
    inline.feed(html)
    inline.close()
    policy = {
        "default-src": "'none'",
        "script-src": _sources(inline.found["script"]),
        "style-src": _sources(inline.found["style"]),
        "connect-src": "'self'",
        "media-src": videos,
        "img-src": f"{videos} data:",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return {
        "Cache-Control": "public, max-age=300",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        **PROTECTIVE,
    }


PROTECTIVE: Mapping[str, str] = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
"""Headers that every answer to a browser has."""


def _sources(contents: list[str]) -> str:
    return " ".join(_hashes(contents)) or "'none'"


def _hashes(contents: list[str]) -> Iterator[str]:
    for content in contents:
        # A browser's parser has made single line feeds of all line ends before anything is hashed.
        text = content.replace("\r\n", "\n").replace("\r", "\n")
        yield f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""The HTTP headers of the static page, with its content security policy. Pure.

The policy allows only the file's own script and style, by their hashes, and content from this service. So no text in a
prompt can become a script or a style.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser


class _Inline(HTMLParser):
    """Collects the contents of inline `<script>` and `<style>` elements, as a browser hashes them."""

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
    """Returns the page's headers. `videos` is the origin of the links to clips, scheme and host."""
    inline = _Inline()
    inline.feed(html)
    inline.close()
    policy = {
        "default-src": "'none'",
        "script-src": _sources(inline.found["script"]),
        "style-src": _sources(inline.found["style"]),
        "connect-src": "'self'",
        "media-src": videos,
        "img-src": "data:",
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
"""The headers of all responses to a browser."""


def _sources(contents: list[str]) -> str:
    return " ".join(_hashes(contents)) or "'none'"


def _hashes(contents: list[str]) -> Iterator[str]:
    for content in contents:
        # A browser's parser converts all line ends to line feeds before it hashes.
        text = content.replace("\r\n", "\n").replace("\r", "\n")
        yield f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

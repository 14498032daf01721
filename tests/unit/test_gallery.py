"""The page's policy: what a browser may run is what the file holds."""

import base64
import hashlib

from rushes.gallery import headers

ORIGIN = "https://bucket.s3.eu-central-1.amazonaws.com"


def policy(html: str) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in headers(html, ORIGIN)["Content-Security-Policy"].split("; "))


def source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_inline_scripts_and_styles_are_named_by_their_hashes() -> None:
    """Each as the browser's parser sees it, whatever it holds and however its tag is written."""
    first, second = "if (1 < 2 && '<b>') {}\n", "ä"
    scripts = f"<script type=module>{first}</script><script>{second}</script>".replace("\n", "\r\n")
    found = policy(f"<STYLE media='all'>a > b {{ }}</STYLE>{scripts}")
    assert found["style-src"] == source("a > b { }")
    assert found["script-src"] == f"{source(first)} {source(second)}"


def test_what_is_not_inline_is_not_allowed() -> None:
    """A script from elsewhere gets no hash, and a page without any may run none."""
    found = policy("<script src='https://example.com/x.js'></script><p>script</p>")
    assert (found["script-src"], found["style-src"]) == ("'none'", "'none'")


def test_everything_else_is_shut() -> None:
    """Clips come from the bucket, data from this service, and nobody frames the page."""
    found = policy("")
    assert found["default-src"] == "'none'"
    assert found["connect-src"] == "'self'"
    assert found["media-src"] == ORIGIN
    assert found["img-src"] == f"{ORIGIN} data:"
    assert {found[name] for name in ("frame-ancestors", "base-uri", "form-action")} == {"'none'"}

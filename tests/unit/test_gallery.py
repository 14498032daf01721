"""The page's content security policy allows exactly the file's own scripts and styles."""

import base64
import hashlib

from rushes.gallery import headers

ORIGIN = "https://bucket.s3.eu-central-1.amazonaws.com"


def policy(html: str) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in headers(html, ORIGIN)["Content-Security-Policy"].split("; "))


def source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_inline_scripts_and_styles_are_allowed_by_hash() -> None:
    """Each hash is of the content as the browser's parser sees it, however the tag is written."""
    first, second = "if (1 < 2 && '<b>') {}\n", "ä"
    scripts = f"<script type=module>{first}</script><script>{second}</script>".replace("\n", "\r\n")
    found = policy(f"<STYLE media='all'>a > b {{ }}</STYLE>{scripts}")
    assert found["style-src"] == source("a > b { }")
    assert found["script-src"] == f"{source(first)} {source(second)}"


def test_external_scripts_are_not_allowed() -> None:
    """An external script has no hash, and a page without inline scripts may run none."""
    found = policy("<script src='https://example.com/x.js'></script><p>script</p>")
    assert (found["script-src"], found["style-src"]) == ("'none'", "'none'")


def test_everything_else_is_forbidden() -> None:
    """Clips come from the bucket, data from this service, and no other page may frame this one."""
    found = policy("")
    assert found["default-src"] == "'none'"
    assert found["connect-src"] == "'self'"
    assert found["media-src"] == ORIGIN
    assert found["img-src"] == "data:"  # the icon
    assert {found[name] for name in ("frame-ancestors", "base-uri", "form-action")} == {"'none'"}

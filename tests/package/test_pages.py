"""The pages against the repository: links, headings, paths in the text, the index, and the stack's parameters."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "out" for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\(\s*<?([^()\s>]+)>?\s*\)")


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text()))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, dashes for spaces, numbers for repeats."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"(?m)^#+ +(.+?)\s*$", text):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def link_error(page: Path, link: str) -> str | None:
    """The reason why a link of this page is broken, or None."""
    if re.match(r"[a-z]+:", link):
        return None  # a web address
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{link}: no such file"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path) -> None:
    """The files and headings in the page's links exist."""
    assert [found for link in LINK.findall(prose(page)) if (found := link_error(page, link))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_in_the_text_exists(page: Path) -> None:
    """The files and folders named as code exist, except in the log of past decisions."""
    if page.name == "decisions.md":
        pytest.skip("a log names former files")
    paths = re.findall(r"`((?:functions|layers|local|scripts|tests)/[\w./-]+)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_is_in_the_index() -> None:
    """Each page of docs/ and each of the top folder is linked in the README."""
    linked = {(ROOT / link).resolve() for link in LINK.findall(prose(ROOT / "README.md"))}
    pages = {page for page in PAGES if page.parent in (ROOT, ROOT / "docs")} - {ROOT / "README.md"}
    assert {str(page.relative_to(ROOT)) for page in pages - linked} == set()


@pytest.mark.parametrize("link", ["docs/gone.md", "docs/runbook.md#gone", "#gone", "Makefile#gone", "../elsewhere"])
def test_a_broken_link_is_found(link: str) -> None:
    """A missing file, a missing heading, and a path outside the repository are broken links."""
    assert link_error(ROOT / "README.md", link)


def test_every_parameter_has_a_row(template: dict[str, Any]) -> None:
    """docs/parameters.md has the stack's parameters with the template's defaults."""
    rows = re.findall(r"(?m)^\| `(\w+)` \| (?:`([^`]+)`)? ?\|", (ROOT / "docs" / "parameters.md").read_text())
    assert dict(rows) == {name: str(each.get("Default", "")) for name, each in template["Parameters"].items()}

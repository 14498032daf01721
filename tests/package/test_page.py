"""The gallery's page as a file: its content security policy, and the safety of its script."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "functions" / "tasks" / "page.html").read_text()

# Functions that turn text into markup or code, store data, or open an address not checked by `webAddress`.
SINKS = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML\w*|createContextualFragment|DOMParser|srcdoc"
    r"|eval|Function|importScripts)\b|\bimport\(|localStorage|document\.cookie|window\.open|postMessage"
)


class Markup(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


TAGS = Markup(PAGE).tags


@pytest.mark.parametrize("name", ["script", "style"])
def test_there_is_one_script_and_one_style_sheet(name: str) -> None:
    """The page has one inline script and one inline style sheet, which the policy allows by their hashes."""
    assert [attributes for tag, attributes in TAGS if tag == name] == [{}]
    assert PAGE.count(f"<{name}") == PAGE.count(f"</{name}>") == 1


def test_nothing_in_the_markup_needs_a_looser_policy() -> None:
    """The page has no event handlers, style attributes or frames, and loads nothing but its inline icon."""
    (icon,) = [attributes for tag, attributes in TAGS if tag == "link"]
    assert icon["rel"] == "icon"
    assert (icon["href"] or "").startswith("data:image/svg+xml,")
    allowed = re.compile(r"#[\w-]+")  # within the page
    for tag, attributes in TAGS:
        assert tag not in ("base", "iframe", "object", "embed", "img"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "src", "srcset", "action", "formaction", "poster", "srcdoc"), (tag, name)
            assert name != "href" or tag == "link" or allowed.fullmatch(value or ""), (tag, value)
    assert "@import" not in PAGE
    assert "url(" not in PAGE


def test_foreign_text_stays_text() -> None:
    """The script cannot turn text into markup or code, and keeps the key in the tab only."""
    assert SINKS.findall(PAGE) == []
    assigned = re.findall(r"\.(?:src|href)\s*=\s*([^;]+);", PAGE)
    assert assigned == ["`${this.url}#t=0.001`", "href", "href"]  # all come from `webAddress`


def test_every_named_id_exists() -> None:
    """IDs are unique, and each one that the script, a label or a description names exists."""
    ids = [name for _, attributes in TAGS if (name := attributes.get("id"))]
    assert sorted(set(ids)) == sorted(ids)
    named = set(re.findall(r"""(?:byId|copyOf)\("([\w-]+)"\)""", PAGE))
    for _, attributes in TAGS:
        for name in ("for", "aria-labelledby", "aria-describedby", "list"):
            named |= set((attributes.get(name) or "").split())
    assert named <= set(ids)


def test_the_page_is_small() -> None:
    """The page is below 140 kB, because it is sent at every visit."""
    assert len(PAGE.encode()) < 140_000

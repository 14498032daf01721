"""The gallery's page as a file: what its content security policy and its promises need it to be."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "functions" / "tasks" / "page.html").read_text()

# Everything that makes markup or code out of text, or an address out of anything but `webAddress`.
SINKS = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML\w*|createContextualFragment|DOMParser|srcdoc"
    r"|eval|Function|importScripts)\b|\bimport\(|localStorage|document\.cookie|window\.open|postMessage"
)


class Markup(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


TAGS = Markup(PAGE).tags


@pytest.mark.parametrize("name", ["script", "style"])
def test_there_is_one_of_each_for_the_policy_to_name(name: str) -> None:
    """One script and one style sheet, both inline and plain, which the policy can allow by their hashes."""
    assert [attributes for tag, attributes in TAGS if tag == name] == [{}]
    assert PAGE.count(f"<{name}") == PAGE.count(f"</{name}>") == 1


def test_nothing_in_the_markup_needs_a_looser_policy() -> None:
    """No handlers, no style attributes, no frames, and nothing that is fetched from anywhere."""
    allowed = re.compile(r"#[\w-]+")  # within the page
    for tag, attributes in TAGS:
        assert tag not in ("base", "iframe", "object", "embed", "link", "img"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "src", "srcset", "action", "formaction", "poster", "srcdoc"), (tag, name)
            assert name != "href" or allowed.fullmatch(value or ""), (tag, value)
    assert "@import" not in PAGE
    assert "url(" not in PAGE


def test_text_from_outside_can_only_become_text() -> None:
    """The script has no way to turn a text into markup or code, and keeps the key nowhere but in the tab."""
    assert SINKS.findall(PAGE) == []
    assigned = re.findall(r"\.(?:src|href)\s*=\s*([^;]+);", PAGE)
    assert assigned == ["`${this.url}#t=0.001`", "href"]  # both come from `webAddress`


def test_every_part_that_the_script_names_is_there() -> None:
    """Ids are unique, and each one that the script, a label or a description names exists."""
    ids = [name for _, attributes in TAGS if (name := attributes.get("id"))]
    assert sorted(set(ids)) == sorted(ids)
    named = set(re.findall(r"""(?:byId|copyOf)\("([\w-]+)"\)""", PAGE))
    for _, attributes in TAGS:
        for name in ("for", "aria-labelledby", "aria-describedby", "list"):
            named |= set((attributes.get(name) or "").split())
    assert named <= set(ids)


def test_it_stays_small() -> None:
    """The page is read by people and sent on every visit."""
    assert len(PAGE.encode()) < 120_000

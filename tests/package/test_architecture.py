"""docs/architecture.md against the code: every named function and test exists, and its lists are chains of calls."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
WAYS = ("A request", "A webhook", "A sweep")
RULES = "Where a clip cannot be bought twice"
# [`path: name`](link) or [`path::test`](link): the path is the end of the link's, without the folders of the core.
REFERENCE = re.compile(r"\[`([\w/]+\.py)(: |::)([\w.]+)(?:\[(\w+)\])?`\]\(([^)]+)\)")

Function = ast.FunctionDef | ast.ClassDef


def references(text: str) -> list[tuple[str, str, str, str]]:
    """File, separator, name and parameter of every reference; a path that does not match its link is an error."""
    found = []
    for path, separator, name, parameter, link in REFERENCE.findall(text):
        target = (PAGE.parent / link).resolve()
        assert target.is_file(), link
        assert str(target).endswith(f"/{path}"), (path, link)
        found.append((str(target.relative_to(ROOT)), separator, name, parameter))
    return found


def section(title: str) -> str:
    """The text of a section of the page, by its heading."""
    _, heading, rest = PAGE.read_text().partition(f"\n## {title}\n")
    assert heading, title
    return rest.partition("\n## ")[0]


@cache
def definitions(file: str) -> dict[str, Function]:
    """The functions, methods and classes of a file by their qualified names."""

    def inside(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from inside(node.body, f"{prefix}{node.name}.")

    return dict(inside(ast.parse((ROOT / file).read_text()).body, ""))


def reached(file: str, name: str) -> set[str]:
    """The names that a function uses, itself or through other functions of its file."""
    by_last_name: dict[str, list[Function]] = {}
    for qualified, node in definitions(file).items():
        by_last_name.setdefault(qualified.rpartition(".")[2], []).append(node)
    used: set[str] = set()
    waiting: list[ast.AST] = [definitions(file)[name]]
    while waiting:
        for node in ast.walk(waiting.pop()):
            word = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if word and word not in used:
                used.add(word)
                waiting += by_last_name.get(word, [])
    return used


@pytest.mark.parametrize("reference", references(PAGE.read_text()), ids=lambda reference: "".join(reference))
def test_every_name_of_the_page_exists(reference: tuple[str, str, str, str]) -> None:
    """Every named function, test and planted fault is defined in its file."""
    file, separator, name, parameter = reference
    assert name in definitions(file)
    assert not parameter or parameter in definitions(file)
    assert separator == ": " or (file.startswith("tests/") and name.startswith("test_"))


@pytest.mark.parametrize("title", WAYS)
def test_a_way_is_a_chain_of_calls(title: str) -> None:
    """Each step names one function first, which an earlier step of the same list uses."""
    lines = re.findall(r"(?m)^(\d+)\. (.*(?:\n   .*)*)$", section(title))
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    used: set[str] = set()
    for number, text in lines:
        file, separator, name, _ = references(text)[0]
        assert text.startswith("[`"), text
        assert separator == ": ", text
        assert number == "1" or name.rpartition(".")[2] in used, f"no step before {number} uses {name}"
        used |= reached(file, name)


def test_every_rule_has_code_and_a_test() -> None:
    """Each rule about money names its code and a test that `make check` runs."""
    rows = [line for line in section(RULES).splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 20
    for row in rows:
        rule, code, tests = row.strip("| ").split(" | ")
        assert rule.endswith("."), rule
        assert {separator for _, separator, _, _ in references(code)} == {": "}, rule
        assert {separator for _, separator, _, _ in references(tests)} == {"::"}, rule
        for file, _, name, _ in references(tests):
            decorators = "".join(ast.unparse(each) for each in definitions(file)[name].decorator_list)
            assert not re.search(r"mark\.(batch|browser|sam)\b", decorators), name


def test_every_folder_has_a_line() -> None:
    """Every top-level folder and every folder of the core is in the list of folders."""
    named = set(re.findall(r"(?m)^\| (?:\[|`)([\w/]+/)", section("The folders"))) | {"docs/"}
    core = ROOT / "layers" / "core" / "rushes"
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in core.glob("*/__init__.py")}
    top = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name[0].isalnum()} - {"out/"}
    missing = {folder for folder in folders | top if not any(name.startswith(folder) for name in named)}
    assert missing == set()


def test_the_names_of_the_glossary_are_in_use() -> None:
    """Every name in the glossary's code column occurs in the code or the template."""
    folders = ("functions", "layers", "local", "cli")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")] + [ROOT / "template.yaml"]
    used = {word for path in sources for word in re.findall(r"\w+", path.read_text())}
    column = [
        line.split(" | ")[1] for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if " | " in line
    ]
    words = {word for names in column for code in re.findall("`([^`]+)`", names) for word in re.findall(r"\w+", code)}
    assert len(words) > 50
    assert words - used == set()


@pytest.mark.parametrize(
    "text",
    [
        "[`functions/webhook/app.py: handler`](../functions/submit/app.py)",
        "[`functions/webhook/app.py: handler`](../functions/gone/app.py)",
    ],
)
def test_a_wrong_link_is_found(text: str) -> None:
    """A link to another file, or to none, is an error."""
    with pytest.raises(AssertionError):
        references(text)

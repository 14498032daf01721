"""The reference page of the command against the command."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rushes_cli.main import app
from scripts import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/api.md",
    "docs/files-and-events.md",
    "docs/tutorial.md",
    "docs/recipes.md",
    "docs/runbook.md",
    "docs/deploying.md",
)


def test_the_reference_is_up_to_date() -> None:
    """docs/cli.md equals the output of `make reference`."""
    assert (ROOT / "docs" / "cli.md").read_text() == reference.reference()


def test_every_option_is_explained() -> None:
    """Every option has its sentence, and every verb with `--json` the shape of its output."""
    page = reference.reference()
    assert re.findall(r"^\| `[^|]+` \|  ?\|$", page, re.MULTILINE) == []
    verbs = [each for each in re.split(r"\n##+ ", page) if each.startswith("rushes ")]
    assert [each.split("\n")[0] for each in verbs if "`--json`" in each and "--json prints" not in each] == []


def verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with its words."""
    yield words, command
    for word, member in getattr(command, "commands", {}).items():
        yield from verbs(member, (*words, word))


def test_help_equals_the_reference() -> None:
    """`--help` prints the reference's text of each verb, on a narrow terminal too."""
    for words, command in verbs(typer.main.get_command(app)):
        output = " ".join(CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "60"}).output.split())
        assert " ".join(command.help.replace("`", "").split()) in output
        usage = output.partition(command.help.split()[0])[0]
        assert not re.search(r"\[\[|[{ ][a-z_]+[}\]]", usage), usage


def blocks(page: str) -> Iterator[str]:
    """The bash blocks of a page, with continued lines joined."""
    for block in re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        yield block.replace("\\\n", " ")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_pages_exists(page: str) -> None:
    """Every bash block has valid syntax, and its verbs and options of `rushes` exist."""
    command: Any = typer.main.get_command(app)
    for block in blocks(page):
        assert subprocess.run(["bash", "-n"], input=block, text=True, timeout=30).returncode == 0
        for words in re.findall(r"\brushes ((?:[a-z-]+ )*[a-z-]+.*)", block):
            if words.split()[0] in command.commands:
                assert unknown_options(command, words) == set(), words


def unknown_options(command: Any, words: str) -> set[str]:
    """The options in this command line that the verb does not have."""
    found = command
    for word in words.split():
        if word in getattr(found, "commands", {}):
            found = found.commands[word]
    known = {spelling for parameter in found.params for spelling in parameter.opts}
    return set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", re.split(r"[|>;)#]", words)[0])) - known

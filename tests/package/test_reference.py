"""The reference of the command is what the command says."""

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
    """docs/cli.md is written from the code: whoever changes a verb runs `make reference`."""
    assert (ROOT / "docs" / "cli.md").read_text() == reference.reference()


def test_every_option_is_explained() -> None:
    """No row of the reference is without its sentence, and no verb without its shape of JSON where it has any."""
    page = reference.reference()
    assert re.findall(r"^\| `[^|]+` \|  ?\|$", page, re.MULTILINE) == []
    verbs = [each for each in re.split(r"\n##+ ", page) if each.startswith("rushes ")]
    assert [each.split("\n")[0] for each in verbs if "`--json`" in each and "--json prints" not in each] == []


def verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb and the words that lead to it."""
    yield words, command
    for word, member in getattr(command, "commands", {}).items():
        yield from verbs(member, (*words, word))


def test_help_says_the_same() -> None:
    """What the reference says of a verb, `--help` says to the letter, on a narrow terminal too."""
    for words, command in verbs(typer.main.get_command(app)):
        shown = " ".join(CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "60"}).output.split())
        assert " ".join(command.help.replace("`", "").split()) in shown
        usage = shown.partition(command.help.split()[0])[0]
        assert not re.search(r"\[\[|[{ ][a-z_]+[}\]]", usage), usage


def blocks(page: str) -> Iterator[str]:
    """The bash blocks of a page, lines that go on joined."""
    for block in re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        yield block.replace("\\\n", " ")


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_tell_to_type_exists(page: str) -> None:
    """Every block is bash, and every verb and option of `rushes` in it is one."""
    command: Any = typer.main.get_command(app)
    for block in blocks(page):
        assert subprocess.run(["bash", "-n"], input=block, text=True, timeout=30).returncode == 0
        for words in re.findall(r"\brushes ((?:[a-z-]+ )*[a-z-]+.*)", block):
            if words.split()[0] in command.commands:
                assert unknown_options(command, words) == set(), words


def unknown_options(command: Any, words: str) -> set[str]:
    """The options among these words that the verb does not have."""
    found = command
    for word in words.split():
        if word in getattr(found, "commands", {}):
            found = found.commands[word]
    known = {spelling for parameter in found.params for spelling in parameter.opts}
    return set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", re.split(r"[|>;)#]", words)[0])) - known

"""The command in a pipe: colours, encodings, and that the layout depends on nothing but the pipe."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import FakeService
from tests.cli.test_terminal import RUSHES, environment

PROMPT = "une tête à l'aube, 灯台 🎬 …"


def piped(
    fake: FakeService, folder: Path, *arguments: str, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """One run of the command with pipes, and more environment variables."""
    return subprocess.run(
        [RUSHES, *arguments],
        env={**environment(fake, folder), **variables},
        input=stdin.encode(),
        capture_output=True,
        timeout=30,
        cwd=folder,
    )


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"CLICOLOR_FORCE": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_forced_colours_change_no_layout(fake: FakeService, tmp_path: Path, variables: dict[str, str]) -> None:
    """With forced colours a pipe gets the same text as without, and the same JSON."""
    fake.add("failed", request={"positivePrompt": "a lighthouse " * 20})
    for arguments in (["list"], ["list", "--json"]):
        plain, forced = piped(fake, tmp_path, *arguments), piped(fake, tmp_path, *arguments, **variables)
        assert re.sub(rb"\x1b\[[0-9;]*m", b"", forced.stdout) == plain.stdout
        assert b"\x1b" not in plain.stdout
    coloured = b"\x1b[31mfailed\x1b[0m" in piped(fake, tmp_path, "list", **variables).stdout
    assert coloured == ("TTY_COMPATIBLE" not in variables)


def test_forced_colours_draw_no_live_table(fake: FakeService, tmp_path: Path) -> None:
    """A pipe gets one line per change and no control sequences but colours."""
    task = fake.add(content=b"video")
    for arguments in (["watch", task["taskUUID"]], ["download", task["taskUUID"], "-o", "out"]):
        done = piped(fake, tmp_path, *arguments, FORCE_COLOR="1")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 1
        assert not re.search(rb"\x1b\[[^m]*[A-Za-ln-z]", done.stdout + done.stderr)


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252"])
def test_a_narrow_encoding_fails_no_verb(fake: FakeService, tmp_path: Path, encoding: str) -> None:
    """Characters that the encoding lacks are escaped in text, and in JSON as JSON does."""
    error = {"code": "timeoutProvider", "message": "Trop tard : 灯台"}
    task = fake.add(
        request={"positivePrompt": PROMPT, "tags": {"ville": "東京"}}, content=b"video", clip={"error": error}
    )
    uuid = task["taskUUID"]
    for arguments in (
        *(["list"], ["show", uuid], ["explain", uuid], ["watch", uuid], ["cost", "--by", "tag"], ["submit", PROMPT]),
        *(["cost", "--by", "tag", "--csv"], ["--help"], ["submit", "--help"], ["download", uuid, "-o", "été 灯"]),
        *(["download", uuid, "--name", "{prompt}"], ["list", "--tag", "東京"], ["submit", "--file", "灯.json"]),
    ):
        done = piped(fake, tmp_path, *arguments, PYTHONIOENCODING=encoding)
        assert done.returncode == (2 if arguments[-1] in ("東京", "灯.json") else 0), done.stderr
        assert b"Traceback" not in done.stderr
    listed = piped(fake, tmp_path, "list", PYTHONIOENCODING=encoding).stdout.decode(encoding.partition(":")[0])
    assert PROMPT.encode(encoding.partition(":")[0], "backslashreplace").decode(encoding.partition(":")[0]) in listed
    found = json.loads(piped(fake, tmp_path, "show", uuid, "--json", PYTHONIOENCODING=encoding).stdout.decode("ascii"))
    assert found == task


def test_json_has_every_text(fake: FakeService, tmp_path: Path) -> None:
    """A text that no encoding has, such as half of a surrogate pair, is escaped; other JSON is readable as it is."""
    task = fake.add(request={"positivePrompt": "half \ud83c"})
    assert json.loads(piped(fake, tmp_path, "show", task["taskUUID"], "--json").stdout) == task
    fake.tasks.clear()
    fake.add(request={"positivePrompt": PROMPT})
    assert PROMPT in piped(fake, tmp_path, "list", "--json").stdout.decode()


@pytest.mark.parametrize(
    "text", ["[wide shot] a lighthouse", "{slow} a lighthouse", "[wide]\n{slow}\na lighthouse", '"a lighthouse', "42"]
)
def test_text_on_standard_input_is_a_prompt(fake: FakeService, tmp_path: Path, text: str) -> None:
    """Text that is not JSON is one prompt, also if it begins as JSON does."""
    done = piped(fake, tmp_path, "submit", stdin=text)
    assert done.returncode == 0, done.stderr
    (task,) = fake.tasks.values()
    assert task["request"]["positivePrompt"] == text


@pytest.mark.parametrize(
    "text", ['{"positivePrompt": "x y"}\n{"positivePrompt": ', 'oops\n{"positivePrompt": "x y"}', "[1]"]
)
def test_damaged_tasks_on_standard_input_are_no_prompt(fake: FakeService, tmp_path: Path, text: str) -> None:
    """Lines of tasks with one that cannot be read, and JSON other than tasks, are refused and buy nothing."""
    done = piped(fake, tmp_path, "submit", stdin=text)
    assert (done.returncode, fake.tasks) == (2, {})

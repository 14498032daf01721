"""The command as a process: on a terminal, in a pipe, interrupted, and for shell completion."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from tests.cli.conftest import KEY, FakeService

RUSHES = str(Path(sys.executable).with_name("rushes"))
PATIENCE = 30.0


def environment(fake: FakeService, tmp_path: Path) -> dict[str, str]:
    homes = {name: str(tmp_path) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME")}
    return {
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "COLUMNS": "80",
        "LANG": "C.UTF-8",
        **homes,
        "RUSHES_URL": fake.url,
        "RUSHES_API_KEY": KEY,
    }


class Terminal:
    """A command on a pseudo-terminal: its output so far, and its input."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.process, self._controller = process, controller
        self.output = ""

    def wait_for(self, text: str) -> None:
        """Reads until this text was printed."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            assert self._read(), self.output

    def type(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def end(self) -> int:
        """Reads to the end and returns the exit status."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        if not select.select([self._controller], [], [], PATIENCE)[0]:
            return False
        try:
            piece = os.read(self._controller, 65536)
        except OSError:  # on Linux: the other end is closed
            return False
        self.output += piece.decode(errors="replace")
        return bool(piece)


@contextmanager
def on_terminal(fake: FakeService, tmp_path: Path, *arguments: str, **variables: str) -> Iterator[Terminal]:
    """The command with a terminal as its input, output and error output, and more environment variables."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [RUSHES, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environment(fake, tmp_path), **variables},
        start_new_session=True,
    )
    os.close(terminal)
    try:
        yield Terminal(process, controller)
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def test_a_terminal_gets_a_table(fake: FakeService, tmp_path: Path) -> None:
    """On a terminal a list is a coloured table with short ids; in a pipe it has no colours and nothing is cut."""
    task = fake.add("failed", request={"positivePrompt": "a lighthouse " * 20})
    with on_terminal(fake, tmp_path, "list") as terminal:
        assert terminal.end() == 0
        assert "\x1b[31mfailed" in terminal.output
        assert "\t" not in terminal.output
        assert f"  {task['taskUUID'][:8]}  " in terminal.output
        assert task["taskUUID"][:9] not in terminal.output
    piped = subprocess.run(
        [RUSHES, "list"], env=environment(fake, tmp_path), capture_output=True, text=True, timeout=30
    )
    assert "\x1b" not in piped.stdout
    assert f"{'a lighthouse ' * 20}\t{task['taskUUID']}\tfailed\t" in piped.stdout


def test_a_list_fits_a_narrow_terminal(fake: FakeService, tmp_path: Path) -> None:
    """In 60 columns each task has one line: the prompt, cut, the short id, the status, the cost and the age."""
    fake.add(request={"positivePrompt": "a lighthouse at dusk " * 9, "numberResults": 4}, cost=1234.5)
    (clip,) = next(iter(fake.tasks.values()))["clips"]
    next(iter(fake.tasks.values()))["clips"] = [clip, {**clip, "status": "failed"}, clip, clip]
    for verb in ("list", "watch"):
        (task_uuid,) = fake.tasks
        arguments = [verb, task_uuid] if verb == "watch" else [verb]
        with on_terminal(fake, tmp_path, *arguments, COLUMNS="60") as terminal:
            assert terminal.end() == 0
        lines = [plain_text(line) for line in terminal.output.splitlines()]
        (line,) = [line.strip() for line in lines if task_uuid[:8] in line][-1:]
        assert len(line) <= 60
        assert re.fullmatch(r"a lighthouse.*…  [0-9a-f]{8}  succeeded 3/4  \$1,234\.500  \d+ s", line), line


def plain_text(text: str) -> str:
    """A terminal's line without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_details_on_a_terminal(fake: FakeService, tmp_path: Path) -> None:
    """`show` and `explain` begin with the prompt and the short id; `show` has the whole taskUUID among the details."""
    task = fake.add()
    for verb in ("show", "explain"):
        with on_terminal(fake, tmp_path, verb, task["taskUUID"][:8]) as terminal:
            assert terminal.end() == 0
        first, second, *others = [plain_text(line) for line in terminal.output.splitlines()]
        assert first == "a lighthouse"
        assert second.split()[0] == task["taskUUID"][:8]
        assert (f"task     {task['taskUUID']}" in others) == (verb == "show")


def test_a_progress_bar_fits_a_narrow_terminal(fake: FakeService, tmp_path: Path) -> None:
    """In 60 columns a download is one line, which begins with the prompt and the short id."""
    task = fake.add(content=b"x" * 3_000_000, request={"positivePrompt": "a [bold] lighthouse at dusk " * 5})
    with on_terminal(fake, tmp_path, "download", "-o", str(tmp_path / "out"), COLUMNS="60") as terminal:
        assert terminal.end() == 0
    *_, bar, result = re.findall(r"^.*MB.*$", plain_text(terminal.output).replace("\r", "\n"), re.MULTILINE)
    assert re.match(rf"a \[bol.*…  {task['taskUUID'][:8]}  0 .* 3\.0/3\.0 MB ", bar), bar
    assert result.startswith("a [bold] lighthouse at dusk")
    assert "\x1b[1A" not in terminal.output  # a second line would be drawn over again


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"CLICOLOR": "0"}, False),
        ({"CLICOLOR": "0", "CLICOLOR_FORCE": "1"}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
    ],
)
def test_colours_on_a_terminal(fake: FakeService, tmp_path: Path, variables: dict[str, str], coloured: bool) -> None:
    """The variables decide about colours alone: the table stays a table. The help follows the same variables."""
    fake.add("failed")
    with on_terminal(fake, tmp_path, "list", **variables) as terminal:
        assert terminal.end() == 0
    assert "failed" in terminal.output
    assert "\t" not in terminal.output
    assert ("\x1b[" in terminal.output) == coloured
    with on_terminal(fake, tmp_path, "list", "--help", **variables) as terminal:
        assert terminal.end() == 0
    assert bool(re.search(r"\x1b\[(1;)?3\dm", terminal.output)) == coloured


def test_json_on_a_terminal(fake: FakeService, tmp_path: Path) -> None:
    """Each JSON object is on one line, on a terminal too."""
    task = fake.add()
    for arguments in (["list"], ["show", task["taskUUID"]], ["explain", task["taskUUID"]], ["cost"]):
        with on_terminal(fake, tmp_path, *arguments, "--json") as terminal:
            assert terminal.end() == 0
        (line,) = terminal.output.splitlines()
        assert json.loads(line)


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_a_full_disk_is_one_line(fake: FakeService, tmp_path: Path, arguments: list[str]) -> None:
    """If the result cannot be written, the command prints one line of error and exits with 1."""
    fake.add()
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [RUSHES, *arguments],
            env=environment(fake, tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert (result.returncode, result.stderr) == (1, "rushes: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(("typed", "status", "bought"), [("y\n", 0, 1), ("n\n", 6, 0), ("\x04", 6, 0)])
def test_a_high_price_is_confirmed(fake: FakeService, tmp_path: Path, typed: str, status: int, bought: int) -> None:
    """On a terminal a high price is confirmed by a question; any answer but yes buys nothing."""
    with on_terminal(fake, tmp_path, "submit", "a lighthouse", "--ask-above", "0.5") as terminal:
        terminal.wait_for("Buy for $0.924? [y/N]")
        terminal.type(typed)
        assert terminal.end() == status
    assert len(fake.tasks) == bought


def test_watch_on_a_terminal(fake: FakeService, tmp_path: Path) -> None:
    """A live table is shown while a task runs, and its last state remains."""
    task = fake.add("running")
    requested = threading.Event()

    def finish(request: Request) -> Response | None:
        if request.path.startswith("/tasks/"):
            if requested.is_set():
                task["status"] = "succeeded"
                task["clips"][0]["status"] = "stored"
            requested.set()
        return None

    fake.intercept_request = finish
    with on_terminal(fake, tmp_path, "watch") as terminal:
        terminal.wait_for("0 of 1 clips stored")
        assert terminal.end() == 0
        assert "1 of 1 clips stored" in terminal.output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_watch_ends_quietly(
    fake: FakeService, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Ctrl-C and SIGTERM end a watch with their own exit statuses and without a traceback."""
    fake.add("running")
    with on_terminal(fake, tmp_path, "watch") as terminal:
        terminal.wait_for("0 of 1 clips stored")
        terminal.process.send_signal(number)
        assert terminal.end() == status
        assert "Traceback" not in terminal.output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_order_can_be_repeated(
    fake: FakeService, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """An order interrupted before its response prints that it can be repeated, and the repeat buys nothing twice."""
    ordered, ended = threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        if request.path == "/v1" and "X-Runware-Dry-Run" not in request.headers:
            ordered.set()
            ended.wait(PATIENCE)
        return None

    fake.intercept_response = hold
    with on_terminal(fake, tmp_path, "submit", "a lighthouse") as terminal:
        assert ordered.wait(PATIENCE)
        terminal.process.send_signal(number)
        assert terminal.end() == status
        assert "Repeat the same command" in terminal.output
        assert "Traceback" not in terminal.output
    ended.set()
    with on_terminal(fake, tmp_path, "submit", "a lighthouse") as terminal:
        assert terminal.end() == 0
    assert len(fake.tasks) == 1


def test_a_closed_pipe_is_no_error(fake: FakeService, tmp_path: Path) -> None:
    """`rushes list | head` prints no error about the closed pipe."""
    for _ in range(300):
        fake.add(request={"positivePrompt": "a lighthouse " * 5})
    with subprocess.Popen(
        [RUSHES, "list", "--all"],
        env=environment(fake, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = process.stdout, process.stderr
        assert out is not None
        assert err is not None
        assert out.readline().startswith("prompt\t")
        out.close()
        assert err.read() == ""


def complete(fake: FakeService, tmp_path: Path, words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """What the shell's completion gets for these words, of which the last is being typed."""
    asked = {"_RUSHES_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return subprocess.run(
        [RUSHES], env={**environment(fake, tmp_path), **asked, **changes}, capture_output=True, text=True, timeout=30
    )


def test_completion(fake: FakeService, tmp_path: Path) -> None:
    """The shell's completion lists the verbs, statuses and recent tasks that begin with the typed text."""
    assert complete(fake, tmp_path, "rushes tr").stdout.split() == ["trigger"]
    assert complete(fake, tmp_path, "rushes list --status r").stdout.split() == ["running", "review"]
    assert complete(fake, tmp_path, "rushes list --status e").stdout.split() == ["erased"]
    first, second = (fake.add()["taskUUID"][:8] for _ in range(2))
    for verb in ("show", "watch", "download", "explain"):
        assert set(complete(fake, tmp_path, f"rushes {verb} ").stdout.split()) >= {first, second}
    assert complete(fake, tmp_path, f"rushes show {second}").stdout.split()[:1] == [second]


@pytest.mark.parametrize("changes", [{"RUSHES_URL": "http://127.0.0.1:9"}, {"RUSHES_API_KEY": "", "RUSHES_URL": ""}])
def test_completion_is_silent_on_any_fault(fake: FakeService, tmp_path: Path, changes: dict[str, str]) -> None:
    """Without a service nothing is offered, and nothing is printed into the line that is being typed."""
    done = complete(fake, tmp_path, "rushes show ", **changes)
    assert (done.stdout.strip(), done.stderr) == ("", "")

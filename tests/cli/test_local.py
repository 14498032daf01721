"""The tutorial, to the letter: every command of docs/tutorial.md in its order, against `rushes dev`."""

import os
import re
import subprocess
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rushes_cli.local_stack import RunningStack, registered
from rushes_local.aws.application import CREDENTIALS
from rushes_local.stack import STACK_NAME, Stack
from rushes_local.trigger import forged
from tests.cli.conftest import Run, alone
from tests.conftest import PATIENCE, children

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BIN = Path(sys.executable).parent


@dataclass
class Machine:
    """Where `rushes dev` runs: its folder, and the environment in which the other verbs find it."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """`rushes dev`, running and found by whoever asks, with renders that wait for nothing.

    When it is ended it leaves no process, no port and no file.
    """
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(BIN)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUSHES_", "RUNWARE_", "AWS_"))}
    homes = {f"XDG_{name}": str(folder / name.lower()) for name in ("CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR")}
    for home in homes.values():
        Path(home).mkdir()
    temporary = folder / "temporary"
    temporary.mkdir()
    environment = {**kept, **homes, "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "TMPDIR": str(temporary)}
    command = [str(BIN / "rushes"), "dev", "--render-seconds", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder) as process:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            if line.startswith("API  "):
                url = line.split()[1]
            if "rushes submit" in line:
                break
        try:
            yield Machine(folder, environment)
        finally:
            functions = children(process.pid)
            process.terminate()
            process.communicate(timeout=30)  # what it logged meanwhile is read, or it could not end
    assert process.returncode == 143
    assert len(functions) >= 6  # one of each function
    for pid in functions:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(httpx.ConnectError):
        httpx.post(url)
    assert [*Path(homes["XDG_RUNTIME_DIR"]).iterdir(), *temporary.iterdir()] == []


@pytest.fixture
def here(machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command in this process, where it finds the running stack."""
    alone(monkeypatch, tmp_path)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, machine.environment[name])
    return run


@pytest.mark.batch
@pytest.mark.timeout(300)
def test_every_command_of_the_tutorial(machine: Machine, here: Run) -> None:
    """Typed one after the other in one shell, every command does what the tutorial says."""
    first, *others = re.findall(r"^```bash\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    assert first == "make dev\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(["set -x", *others])],
        cwd=machine.folder,
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    typed = [line for block in others for line in block.splitlines() if "rushes " in line]
    assert len(re.findall(r"^\++ rushes ", done.stderr, re.MULTILINE)) == len(typed)
    assert len(list((machine.folder / "clips").glob("*.mp4"))) == 2
    assert "day,tasks,clips,cost" in (machine.folder / "costs.csv").read_text()
    assert "ended with 1" in done.stdout
    assert "Already retried as" in done.stderr
    assert "No findings." in done.stderr
    tasks = here("list", "--all", "--json").json["tasks"]
    assert sorted(task["status"] for task in tasks) == ["failed", "succeeded", "succeeded", "succeeded"]


def test_triggers(here: Run) -> None:
    """Each canned webhook is answered as it should be, and changes what it should."""
    (uuid,) = here("submit", "a canal", "--json").json["taskUUIDs"]
    assert here("watch", uuid).status == 0
    for kind, answers in {"forged": [401], "duplicate": [200, 200], "late": [200]}.items():
        sent = here("trigger", kind, uuid, "--json").json
        assert (sent["answers"], sent["before"], sent["after"]) == (answers, "stored", "stored")
    assert "needs a running clip" in here("trigger", "processing", uuid).err
    assert here("trigger", "fault", "nonsense").status == 2
    assert "The switches are: " in here("trigger", "fault", "nonsense=1").err


def test_faults_by_name(here: Run) -> None:
    """Every named fault is one that the emulator knows; once means the next order only; healing ends them."""
    names = here("trigger", "faults", "--json").json["faults"]
    assert here("trigger", "fault", *names, "--json").json["failure"] == "invalidProviderContent"
    assert here("trigger", "heal", "--json").json["webhook_copies"] == 1
    shown = here("trigger", "fault", "moderated", "--once", "--json").json
    assert (shown["failure"], shown["next_submissions"]) == ("", [{"match": "", "failure": "invalidProviderContent"}])
    (uuid,) = here("submit", "something else", "--json").json["taskUUIDs"]
    assert here("watch", uuid).out.splitlines()[-1].split("\t")[1] == "failed"
    assert "checked once more" in here("retry", uuid).err
    assert "the bucket and Runware are checked once more" in here("explain", uuid).out


def test_a_forged_signature_is_another_one() -> None:
    """Whatever a signature is, the forged one is made of other bytes."""
    for number in range(256):
        signature = bytes([number]) * 32
        url = f"http://127.0.0.1/webhooks?token=time.{urlsafe_b64encode(signature).decode().rstrip('=')}"
        assert urlsafe_b64decode(forged(url).rpartition(".")[2] + "=") != signature


def test_steps(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where renders wait, progress changes nothing, a failure is believed, and a success outranks it."""
    alone(monkeypatch, tmp_path)
    where = RunningStack(
        pid=os.getpid(),
        url=stack.url,
        api_key=stack.create_key("dev"),
        emulator_url=stack.emulator_url,
        aws_url=stack.aws_url,
        access_key=CREDENTIALS.access_key,
        secret_key=CREDENTIALS.secret_key,
        region="us-east-1",
        table=stack.table_name,
        bucket=stack.bucket_name,
        stack=STACK_NAME,
    )
    with registered(where, os.environ):
        (uuid,) = run("submit", "a canal", "--json").json["taskUUIDs"]
        for kind, after in {"processing": "running", "failure": "failed"}.items():
            assert run("trigger", kind, "--json").json["after"] == after
        assert run("trigger", "success", uuid, "--json").json["answers"] == [200]
        assert stack.emulator.idle(PATIENCE)
        assert run("watch", uuid, "--timeout", "20").status == 0
        assert [key["name"] for key in run("keys", "list", "dev", "--json").json["keys"]] == ["made locally for dev"]


def test_what_is_not_there_cannot_be_triggered(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a local stack the sentence says how to start one."""
    alone(monkeypatch, tmp_path)
    ran = run("trigger", "heal")
    assert (ran.status, ran.err) == (5, "rushes: No local stack is running: start one with `rushes dev`.\n")


def test_a_stack_that_is_silent_cannot_be_triggered(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stack that was killed leaves its word behind; that it does not answer is one line, and worth another try."""
    alone(monkeypatch, tmp_path)
    nowhere = dict.fromkeys(RunningStack.__slots__, "http://127.0.0.1:1") | {"pid": os.getpid()}
    with registered(RunningStack(**nowhere), os.environ):
        ran = run("trigger", "heal")
    assert (ran.status, ran.err.count("\n")) == (4, 1)

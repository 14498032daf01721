"""Every command of docs/tutorial.md, in its order, against `rushes dev`; and `rushes trigger`."""

import json
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
from tests.cli.conftest import Run, isolate_environment
from tests.conftest import PATIENCE, children
from tests.unit.pictures import picture

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BIN = Path(sys.executable).parent


@dataclass
class Machine:
    """The folder in which `rushes dev` runs, and the environment in which the other verbs find it."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running `rushes dev` without render times, registered for the other verbs.

    At its end it leaves no process, no port and no file.
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
            process.communicate(timeout=30)  # reads its log: a full pipe would block its end
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
    """Runs the command in this process, in an environment where it finds the running stack."""
    isolate_environment(monkeypatch, tmp_path)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, machine.environment[name])
    return run


@pytest.mark.batch
@pytest.mark.timeout(300)
def test_every_command_of_the_tutorial(machine: Machine, here: Run) -> None:
    """Run one after the other in one shell, the tutorial's commands have the described results."""
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


def recipe(machine: Machine, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the recipe whose first comment names this script in the machine's folder."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE | re.DOTALL)
    (script,) = [block for block in blocks if re.search(rf"^# {re.escape(name)}[ :]", block, re.MULTILINE)]
    return subprocess.run(
        ["bash", "-c", script, name, *arguments],
        cwd=machine.folder,
        env={**machine.environment, **variables},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.batch
@pytest.mark.timeout(300)
def test_the_photo_recipe(machine: Machine, here: Run) -> None:
    """The recipe orders each photo once and fetches its own clips under the photos' names."""
    photos = machine.folder / "photos"
    photos.mkdir()
    for name, kind in {"Mug.JPG": "JPEG", "tea cup.png": "PNG", "bowl.WebP": "WEBP"}.items():
        (photos / name).write_bytes(picture(kind=kind))
    (photos / "notes.txt").write_text("notes")
    for _ in range(2):
        done = recipe(machine, "photos.sh", "photos", "autumn")
        assert done.returncode == 0, done.stderr
        assert "3 ordered, 1 skipped" in done.stderr
        found = sorted(path.name for path in (machine.folder / "clips/autumn").iterdir())
        assert found == ["Mug-0.mp4", "bowl-0.mp4", "tea cup-0.mp4"]
    assert len(here("list", "--tag", "batch=autumn", "--all", "--json").json["tasks"]) == 3


@pytest.mark.batch
@pytest.mark.timeout(300)
def test_the_nightly_recipe(machine: Machine) -> None:
    """The recipe orders the file within the budget and fetches the night's clips."""
    prompts = ("a lighthouse at night", "a harbour at night")
    (machine.folder / "tonight.jsonl").write_text(
        "".join(json.dumps({"positivePrompt": each}) + "\n" for each in prompts)
    )
    done = recipe(machine, "nightly.sh", RUSHES_PROFILE="local")
    assert done.returncode == 0, done.stdout + done.stderr
    (night,) = [path for path in (machine.folder / "clips").iterdir() if re.fullmatch(r"\d{4}-\d\d-\d\d", path.name)]
    assert len(list(night.glob("*.mp4"))) == len(prompts)
    assert len((machine.folder / "tasks.txt").read_text().split()) == len(prompts)


def test_triggers(here: Run) -> None:
    """Each canned webhook gets its expected answer and has only its expected effect."""
    (uuid,) = here("submit", "a canal", "--json").json["taskUUIDs"]
    assert here("watch", uuid).status == 0
    for kind, answers in {"forged": [401], "duplicate": [200, 200], "late": [200]}.items():
        sent = here("trigger", kind, uuid, "--json").json
        assert (sent["answers"], sent["before"], sent["after"]) == (answers, "stored", "stored")
    assert "needs a running clip" in here("trigger", "processing", uuid).err
    assert here("trigger", "fault", "nonsense").status == 2
    assert "The switches are: " in here("trigger", "fault", "nonsense=1").err


def test_faults_by_name(here: Run) -> None:
    """Every named fault exists in the emulator, `--once` applies to the next order only, and `heal` ends all."""
    names = here("trigger", "faults", "--json").json["faults"]
    assert here("trigger", "fault", *names, "--json").json["failure"] == "invalidProviderContent"
    assert here("trigger", "heal", "--json").json["webhook_copies"] == 1
    state = here("trigger", "fault", "moderated", "--once", "--json").json
    assert (state["failure"], state["next_submissions"]) == ("", [{"match": "", "failure": "invalidProviderContent"}])
    (uuid,) = here("submit", "something else", "--json").json["taskUUIDs"]
    assert here("watch", uuid).out.splitlines()[-1].split("\t")[1] == "failed"
    assert "checked once more" in here("retry", uuid).err
    assert "the bucket and Runware are checked once more" in here("explain", uuid).out


def test_the_advice_after_a_refusal_of_the_account(here: Run) -> None:
    """Without credit at Runware an order ends with its reason; the same command then is an order that is accepted."""
    here("trigger", "fault", "no-credit", "--once")
    refused = here("submit", "a canal without credit", "--json")
    assert refused.status == 1
    assert [error["code"] for error in refused.json["refused"]] == ["providerAccountRefused"]
    assert "Order again with the same command, which uses new taskUUIDs." in refused.err
    again = here("submit", "a canal without credit", "--json")
    assert again.status == 0, again.err
    assert (again.json["refused"], again.json["repeated"]) == ([], False)


def test_a_forged_signature_differs() -> None:
    """A forged signature never equals the original, whatever its bytes."""
    for number in range(256):
        signature = bytes([number]) * 32
        url = f"http://127.0.0.1/webhooks?token=time.{urlsafe_b64encode(signature).decode().rstrip('=')}"
        assert urlsafe_b64decode(forged(url).rpartition(".")[2] + "=") != signature


def test_webhooks_step_by_step(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Progress does not change a running clip, a failure fails it, and a success outranks the failure."""
    isolate_environment(monkeypatch, tmp_path)
    running = RunningStack(
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
    with registered(running, os.environ):
        (uuid,) = run("submit", "a canal", "--json").json["taskUUIDs"]
        for kind, after in {"processing": "running", "failure": "failed"}.items():
            assert run("trigger", kind, "--json").json["after"] == after
        assert run("trigger", "success", uuid, "--json").json["answers"] == [200]
        assert stack.emulator.idle(PATIENCE)
        assert run("watch", uuid, "--timeout", "20").status == 0
        assert [key["name"] for key in run("keys", "list", "dev", "--json").json["keys"]] == ["made locally for dev"]


def test_a_trigger_needs_a_local_stack(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a local stack the error names the command that starts one."""
    isolate_environment(monkeypatch, tmp_path)
    result = run("trigger", "heal")
    assert (result.status, result.err) == (5, "rushes: No local stack is running: start one with `rushes dev`.\n")


def test_a_trigger_to_a_killed_stack_can_be_retried(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A registered stack that does not answer is one line of error and the exit status for a retry."""
    isolate_environment(monkeypatch, tmp_path)
    nowhere = dict.fromkeys(RunningStack.__slots__, "http://127.0.0.1:1") | {"pid": os.getpid()}
    with registered(RunningStack(**nowhere), os.environ):
        result = run("trigger", "heal")
    assert (result.status, result.err.count("\n")) == (4, 1)

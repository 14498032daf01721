"""The built application, and its functions in Lambda containers against the local stack.

`make test-sam` puts SAM CLI on the PATH. What an engine has to offer, and that there is one run at a time on it, is
said where SAM CLI is driven: rushes_local/sam.py.

Most events go through one `sam local start-lambda`, whose containers stay; `sam local invoke` makes its image and its
container anew for every event, which takes more than ten times as long, so each function gets one of those.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rushes_local import sam
from rushes_local.stack import Stack, StackError

ROOT = Path(__file__).resolve().parents[2]
MAX_INVOCATION = 120


@pytest.fixture(scope="session")
def engine() -> None:
    """Without a container engine nothing runs in containers, and one sentence is enough to say it."""
    try:
        sam.require_engine()
    except StackError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds for an architecture, once, and returns the folder."""
    folders: dict[str, Path] = {}

    def of(architecture: str) -> Path:
        if architecture not in folders:
            folder = tmp_path_factory.mktemp("build") / architecture
            sam.build(ROOT, folder, architecture)
            folders[architecture] = folder
        return folders[architecture]

    return of


@pytest.fixture(scope="session")
def containers(engine: None, build: Callable[[str], Path]) -> sam.Containers:
    """Where the functions of the stack run."""
    return sam.Containers(build(sam.MACHINE))


@pytest.fixture(scope="session")
def running(containers: sam.Containers) -> Iterator[Stack]:
    """The local services, the functions in containers. Nothing is rendered and nobody sweeps until a test says so."""
    with Stack(ROOT, render_seconds=None, schedule=False, queues=False, streams=False, host=containers) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """The same, with a Runware that has no faults but the test's own."""
    yield running
    running.emulator.faults.replace({})


@dataclass(frozen=True)
class Answer:
    """What a function in a container returned."""

    payload: dict[str, Any]

    @property
    def status(self) -> int:
        """Of an HTTP function's answer."""
        return int(self.payload["statusCode"])

    @property
    def body(self) -> Any:
        """The JSON of an HTTP function's answer."""
        return json.loads(self.payload["body"] or "null")


def answer(payload: Any) -> Answer:
    """A function's answer; one that failed fails the test, with what its containers need."""
    if "errorMessage" in payload or payload.get("statusCode", 200) >= 500:
        hint = "Can functions reach this host's 127.0.0.1? The engine has to share the host's network with them."
        pytest.fail(f"{payload}\n{hint}", pytrace=False)
    return Answer(payload)


@pytest.fixture
def invoke(stack: Stack, containers: sam.Containers) -> Callable[[str, dict[str, Any]], Answer]:
    """Sends an event to a function of the template through `sam local start-lambda`."""
    return lambda name, event: answer(containers.running[name].invoke(event, timeout=MAX_INVOCATION).payload)


@pytest.fixture
def invoke_anew(stack: Stack, containers: sam.Containers, tmp_path: Path) -> Callable[[str, dict[str, Any]], Answer]:
    """Sends an event to a function of the template with `sam local invoke`."""

    def send(name: str, event: dict[str, Any]) -> Answer:
        file = tmp_path / "event.json"
        file.write_text(json.dumps(event))
        template = ("--template", str(containers.template), "--skip-pull-image")
        result = sam.run(
            ROOT,
            *("local", "invoke", name, "--event", str(file), *template, *containers.options),
            timeout=MAX_INVOCATION,
            environment=containers.credentials,
        )
        return answer(json.loads(result.stdout.strip().splitlines()[-1]))

    return send

"""The built application, and its functions in Lambda containers against the local stack.

`make test-sam` puts SAM CLI on the PATH. The requirements for the container engine, and the lock that allows one run at
a time, are documented in rushes_local/sam.py.

Most events go through one `sam local start-lambda`, whose containers are reused. `sam local invoke` makes its image and
its container for every event, which takes more than ten times as long, so each function gets one of those.
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
    """Ends the run with one sentence if there is no container engine."""
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
    """The containers in which the stack's functions run."""
    return sam.Containers(build(sam.MACHINE))


@pytest.fixture(scope="session")
def running(containers: sam.Containers) -> Iterator[Stack]:
    """The local stack with its functions in containers, without renders and sweeps except those of a test."""
    with Stack(ROOT, render_seconds=None, schedule=False, queues=False, streams=False, host=containers) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """The running stack, with the emulator's faults reset after each test."""
    yield running
    running.emulator.faults.replace({})


@dataclass(frozen=True)
class Answer:
    """The response of a function in a container."""

    payload: dict[str, Any]

    @property
    def status(self) -> int:
        """The status of an HTTP function's response."""
        return int(self.payload["statusCode"])

    @property
    def body(self) -> Any:
        """The parsed JSON of an HTTP function's response."""
        return json.loads(self.payload["body"] or "null")


def answer(payload: Any) -> Answer:
    """A function's response; a failed function fails the test, with a hint about its containers."""
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

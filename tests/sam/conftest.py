"""The built application, and functions in Lambda containers against the local stack.

`make test-sam` puts SAM CLI on the PATH and makes sure that a container engine answers. The containers have to reach
this host's 127.0.0.1, where the stack listens and what its presigned links name: the engine must share the host's
network with them. One run at a time on an engine: SAM CLI names its images after the layers' names, not their content.
"""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rushes_local.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
MACHINE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
LONGEST_BUILD = 300
LONGEST_INVOCATION = 120


def sam(*arguments: str, timeout: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs SAM CLI at the root of the project; a failure shows what it printed."""
    result = subprocess.run(
        ["sam", *arguments],
        cwd=ROOT,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"sam {' '.join(arguments)}\n{result.stdout}\n{result.stderr}", pytrace=False)
    return result


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds for an architecture, once, and returns the folder."""
    folders: dict[str, Path] = {}

    def of(architecture: str) -> Path:
        if architecture not in folders:
            folder = tmp_path_factory.mktemp("build") / architecture
            override = f"Architecture={architecture}"
            sam("build", "--build-dir", str(folder), "--parameter-overrides", override, timeout=LONGEST_BUILD)
            folders[architecture] = folder
        return folders[architecture]

    return of


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The local services. Nothing is rendered and nobody sweeps until a test says so, so that nothing comes unasked."""
    with Stack(ROOT, render_seconds=None, schedule=False, queues=False) as running:
        yield running


@dataclass(frozen=True)
class Answer:
    """What a function in a container returned, and everything it and SAM CLI logged."""

    payload: dict[str, Any]
    logs: str

    @property
    def status(self) -> int:
        """Of an HTTP function's answer."""
        return int(self.payload["statusCode"])

    @property
    def body(self) -> Any:
        """The JSON of an HTTP function's answer."""
        return json.loads(self.payload["body"] or "null")


@pytest.fixture(scope="session")
def invoke(
    build: Callable[[str], Path], stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Answer]:
    """Sends an event to a function of the template with `sam local invoke`, against the local stack."""
    folder = tmp_path_factory.mktemp("invoke")
    environments = {
        f"{name.title()}Function": dict(pool.function.environment) for name, pool in stack.functions.items()
    }
    # Every function has the same ones. SAM CLI takes them from its own environment, not from the file.
    credentials = {name: value for name, value in environments["SubmitFunction"].items() if is_credential(name)}
    for each in environments.values():
        for name in credentials:
            del each[name]
    variables = folder / "variables.json"
    variables.write_text(json.dumps(environments))

    def send(function: str, event: dict[str, Any]) -> Answer:
        path = folder / "event.json"
        path.write_text(json.dumps(event))
        template, override = str(build(MACHINE) / "template.yaml"), f"Architecture={MACHINE}"
        result = sam(
            *("local", "invoke", function, "--template", template, "--event", str(path)),
            # A built template is not beside samconfig.toml, so its settings for this command do not count.
            *("--env-vars", str(variables), "--parameter-overrides", override, "--skip-pull-image"),
            timeout=LONGEST_INVOCATION,
            AWS_DEFAULT_REGION="us-east-1",
            **credentials,
        )
        answer = json.loads(result.stdout.strip().splitlines()[-1])
        if "errorMessage" in answer or answer.get("statusCode", 200) >= 500:
            hint = "Can functions reach this host's 127.0.0.1? The engine has to share the host's network with them."
            pytest.fail(f"{answer}\n{result.stderr}\n{hint}", pytrace=False)
        return Answer(answer, result.stderr)

    return send


def is_credential(name: str) -> bool:
    return name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

"""The functions as built by `sam build`, in Lambda containers.

Hides SAM CLI: the arguments of its commands, the start, supervision and end of its servers, and the invocation of a
function through them. `sam` must be on the PATH, as it is in the Makefile's verbs.

The containers must reach 127.0.0.1 of this host, where the stack listens and to which its presigned links point: the
engine must share the host's network with them. Only one run at a time can use an engine, because SAM CLI names its
images by the layers' names and not by their content.
"""

import contextlib
import json
import os
import platform
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from rushes_local.api_gateway import Invocable
from rushes_local.lambda_runtime import REGION, Function, Kind, Log, Outcome
from rushes_local.stack import StackError

MACHINE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"

_MAX_BUILD = 300.0  # seconds
# Before a server listens, it builds an image with the layers.
_MAX_START = 180.0  # seconds
# A server removes its containers, each of which has ten seconds to end.
_MAX_END = 60.0  # seconds
_POLL_SECONDS = 0.1

# The query string in the access log of SAM CLI's servers. It contains the webhook's token, which must not be logged.
_QUERY = re.compile(r'("[A-Z]+ [^ ?"]*)\?[^ "]*')

# SAM CLI passes its own credentials to the containers and ignores these in the file of variables.
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def require_engine() -> None:
    """Raise StackError unless a container engine is running."""
    import docker  # type: ignore[import-untyped]  # not at the top: only containers need it

    try:
        docker.from_env(timeout=10).ping()
    except docker.errors.DockerException:
        raise StackError(
            "no container engine is running, and Lambda containers need one: install and start Docker, or set "
            "DOCKER_HOST to a running engine"
        ) from None


def remove_containers(folder: Path) -> None:
    """Remove the containers that run code in `folder`. SAM CLI leaves some if it is ended while one starts."""
    import docker

    client = docker.from_env()
    with contextlib.closing(client):
        for container in client.containers.list(all=True, filters={"label": "sam.cli.container.type=lambda"}):
            if any(
                Path(mount.get("Source", "")).is_relative_to(folder.resolve()) for mount in container.attrs["Mounts"]
            ):
                with contextlib.suppress(docker.errors.APIError):  # it is being removed already
                    container.remove(force=True)


def _remove_stale_locks() -> None:
    """Remove SAM CLI's locks of image builds. One that was ended during a build leaves its lock, and the next waits."""
    for lock in Path(tempfile.gettempdir()).glob("samcli_*.building.*"):
        lock.unlink(missing_ok=True)


def build(root: Path, folder: Path, architecture: str = MACHINE) -> None:
    """Run `sam build` for the project at `root` into `folder`, then scripts/pack.py, as `make build` does."""
    override = f"Architecture={architecture}"
    run(root, "build", "--build-dir", str(folder), "--parameter-overrides", override, timeout=_MAX_BUILD)
    _run(root, ["python3.13", "scripts/pack.py", str(folder)], _MAX_BUILD, {})


def run(
    root: Path, *arguments: str, timeout: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run SAM CLI in `root` to its end. Raises StackError, with its output, if it fails or takes too long."""
    return _run(root, ["sam", *arguments], timeout, environment or {})


def _run(
    root: Path, command: Sequence[str], timeout: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        result = subprocess.run(
            command,
            cwd=root,
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"{' '.join(command)} did not end within {timeout:g} s") from None
    if result.returncode != 0:
        raise StackError(
            f"{' '.join(command)} ended with status {result.returncode}:\n{result.stdout}\n{result.stderr}"
        )
    return result


def _environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The environment for SAM CLI: the developer's, without AWS credentials and profiles, plus `additions`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    return {**inherited, **nowhere, "AWS_DEFAULT_REGION": REGION, "SAM_CLI_TELEMETRY": "0", **additions}


class SamServer:
    """`sam local <command>` on a port of 127.0.0.1 until `stop`, which must be called.

    The port is chosen on construction, because other components need it earlier. `start` starts the server and `wait`
    waits until it listens.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.port = _free_port()
        self._process: subprocess.Popen[str] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def start(
        self, template: Path, arguments: Sequence[str], *, log: Callable[[str], None], environment: Mapping[str, str]
    ) -> None:
        """Start the server with a template; `log` receives the lines that it and the functions print."""
        # samconfig.toml does not apply: it is not in the folder of the built template.
        common = ["--template", str(template), "--host", "127.0.0.1", "--port", str(self.port), "--skip-pull-image"]
        self._process = subprocess.Popen(
            ["sam", "local", self.command, *common, *arguments],
            cwd=template.parent,
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C must reach this process only, which stops the server
        )
        self._reader = threading.Thread(target=self._read, args=(log,), name=f"sam-{self.command}", daemon=True)
        self._reader.start()

    def _read(self, log: Callable[[str], None]) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for printed in self._process.stdout:
            line = _QUERY.sub(r"\1", printed.rstrip())
            self._last_lines.append(line)
            log(line)

    def wait(self) -> None:
        """Wait until the server listens. Raises StackError, with its last lines, if it ends or takes too long."""
        deadline = time.monotonic() + _MAX_START
        while True:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > deadline:
                raise StackError(f"{self._output()}\nsam local {self.command} did not listen within {_MAX_START:g} s")
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raise StackError, with the server's last lines, if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise StackError(f"{self._output()}\nsam local {self.command} ended with status {self._process.returncode}")

    def _output(self) -> str:
        return "\n".join(self._last_lines)

    def stop(self) -> None:
        """End the server and wait for it. It removes its containers if it can. Idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_MAX_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process = None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Containers:
    """Runs the functions of a stack: routes through `sam local start-api`, everything else through `start-lambda`.

    `folder` contains the output of `build`. After the start, `functions` has the stack's functions and `running` the
    objects that invoke them in their containers, both by logical id.
    """

    def __init__(self, folder: Path) -> None:
        self.template = folder.resolve() / "template.yaml"
        self.functions: dict[str, Function] = {}
        self.running: dict[str, InvokedFunction] = {}
        self._api = SamServer("start-api")
        self._lambda = SamServer("start-lambda")
        self._closing = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The address of the routes of all APIs."""
        return self._api.url

    def start(self, functions: Mapping[str, Function], log: Log) -> Mapping[str, Invocable]:
        """Start both servers and wait for them; returns the functions, ready to be invoked, by logical id."""
        self.functions = dict(functions)
        files = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="rushes-sam-")))
        self._variables = files / "variables.json"
        self._variables.write_text(json.dumps({name: variables(each) for name, each in functions.items()}))
        # The sender of a webhook waits for five seconds, so the containers of routes are created now. A function that
        # only messages and schedules invoke can wait for its container.
        self._closing.callback(remove_containers, self.template.parent)  # called last, after the servers' end
        _remove_stale_locks()
        for server, mode in ((self._api, "EAGER"), (self._lambda, "LAZY")):
            self._closing.callback(server.stop)
            server.start(
                self.template,
                [*self.options, "--no-watch", "--warm-containers", mode],
                log=lambda line, name=server.command: log(name, line),  # type: ignore[misc]
                environment=self.credentials,
            )
        for server in (self._api, self._lambda):
            server.wait()
        self.running = {name: InvokedFunction(self._lambda.url, name) for name in functions}
        return self.running

    @property
    def options(self) -> list[str]:
        """The options about these functions for every `sam local` command."""
        return ["--env-vars", str(self._variables), "--parameter-overrides", f"Architecture={MACHINE}"]

    @property
    def credentials(self) -> dict[str, str]:
        """The functions' credentials, for SAM CLI's own environment; all functions have the same."""
        environment = next(iter(self.functions.values())).environment
        return {name: environment[name] for name in _CREDENTIALS}

    def check(self) -> None:
        """Raise StackError if a server has ended."""
        self._api.check()
        self._lambda.check()

    def stop(self) -> None:
        """End the servers and their containers. Idempotent."""
        self._closing.close()


def variables(function: Function) -> dict[str, str]:
    """A function's variables for `--env-vars`, without the credentials."""
    return {name: value for name, value in function.environment.items() if name not in _CREDENTIALS}


class InvokedFunction:
    """A function behind `sam local start-lambda`."""

    def __init__(self, url: str, name: str) -> None:
        self._url = f"{url}/2015-03-31/functions/{name}/invocations"

    def invoke(self, event: Mapping[str, Any], *, timeout: float | None = None) -> Outcome:
        """Run the function on an event and wait for its outcome, at most `timeout` seconds."""
        try:
            response = httpx.post(self._url, json=event, timeout=timeout, trust_env=False)
            payload = response.json()
        except httpx.TimeoutException:
            return _failure("unanswered", f"no answer after {timeout:g} s")
        except (httpx.HTTPError, ValueError) as error:
            return _failure("crashed", str(error))
        failed = response.status_code != httpx.codes.OK or (isinstance(payload, dict) and "errorMessage" in payload)
        return Outcome("error", payload) if failed else Outcome("ok", payload)


def _failure(kind: Kind, message: str) -> Outcome:
    return Outcome(kind, {"errorMessage": message, "errorType": "Sam.Unanswered"})

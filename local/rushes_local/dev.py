"""`dev` and `demo`: the whole system on this machine."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from rushes_cli import local_stack
from rushes_cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from rushes_local.sam import Containers
    from rushes_local.stack import Stack

# The checkout that contains this file: the stack uses its template.yaml, functions/ and core package.
ROOT = Path(__file__).parents[2]

_CHECK_EVERY = 0.3  # seconds
_PORT = 8750  # the first of those that are tried for the API
_PORTS = 20


def demo(
    request: Annotated[
        Path | None, typer.Argument(metavar="REQUEST", help="JSON file with one task or an array of tasks.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the clips.")] = Path("out"),
    render_seconds: Annotated[float, typer.Option(min=0, help="Seconds that an emulated render takes.")] = 2.0,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the clips.")] = 300.0,
    sam: Annotated[
        bool, typer.Option("--sam", help="Run the functions in Lambda containers, as SAM builds them.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the functions' logs.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the tasks and files as one JSON object instead of the summary.")
    ] = False,
) -> None:
    """Order clips from the whole system on this machine, and download them.

    Without REQUEST, an example is ordered over HTTP, and another by a request file in the bucket.

    Runware is always emulated here: nothing is bought and nothing leaves the machine.

    --json prints {"tasks": [as the service returns them], "files": [the paths], "picture": the path of their sheet}.
    """
    from rushes_local import demo as demonstration
    from rushes_local.stack import Stack

    console = Console(stderr=as_json)
    with _failures(Exit.USAGE):
        tasks = demonstration.read_request(request or demonstration.EXAMPLE)
    with _failures(), ExitStack() as closing:
        stack = Stack(
            ROOT,
            render_seconds=render_seconds,
            parameters={"MonthlyLimitUsd": str(demonstration.LIMIT_USD)},
            host=closing.enter_context(_built(console)) if sam else None,
            sink=_show if verbose else lambda *_: None,
        )
        closing.enter_context(_started(stack, console))
        run = demonstration.Demo(stack, out, timeout, console)
        closing.callback(run.summarize, as_json)
        run.order(tasks)
        if request is None:
            run.order_by_file(demonstration.EXAMPLE_FILE)


def dev(
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the API; 0 takes any free one.",
            show_default=f"{_PORT}, or the next free one",
        ),
    ] = None,
    render_seconds: Annotated[float, typer.Option(min=0, help="Seconds that an emulated render takes.")] = 5.0,
    stepped: Annotated[
        bool, typer.Option("--stepped", help="Renders wait until `rushes trigger success` finishes them.")
    ] = False,
    limit_usd: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Monthly limit of the key and of the service, in US dollars.")
    ] = 50,
) -> None:
    """Run the whole system on this machine until Ctrl-C. Prints a line per event; the raw logs are in a file.

    Meanwhile the other verbs use it without any configuration, as the profile local. Of several local stacks they use
    the newest, or with the profile local:PORT the one on this port.

    With RUNWARE_API_KEY set, clips are bought from Runware itself.
    """
    from rushes.domain.caller import Caller
    from rushes_local.event_lines import EventLines
    from rushes_local.stack import ProviderEndpoint, Stack

    console, lines = Console(), EventLines()
    key = os.environ.get("RUNWARE_API_KEY")
    provider = ProviderEndpoint(key, os.environ.get("RUNWARE_BASE_URL") or None) if key else None
    with _failures():
        stack = Stack(
            ROOT,
            render_seconds=None if stepped else render_seconds,
            provider=provider,
            port=free_port() if port is None else port,
            parameters={"MonthlyLimitUsd": str(limit_usd)},
            sink=lines.add,
        )
        with _started(stack, console):
            api_key = stack.create_key("dev", limit_usd)
            # That of the event bus, which needs no key.
            stack.store.set_caller(Caller("events", limit_usd * 1_000_000))
            others = [each.url for each in local_stack.running(os.environ)]
            with local_stack.registered(_registration(stack, api_key), os.environ):
                moved = port is None and urlsplit(stack.url).port != _PORT
                _describe(stack, api_key, others, bought=provider is not None, moved=moved)
                while True:
                    stack.check()
                    for line in lines.read(stack.store):
                        print(line, flush=True)
                    time.sleep(_CHECK_EVERY)


def free_port(first: int = _PORT) -> int:
    """The first free port from this one on; 0, for any port, if there is none among the next ones."""
    for port in range(first, first + _PORTS):
        with socket.socket() as attempt, suppress(OSError):
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(("127.0.0.1", port))
            return port
    return 0


@contextmanager
def _failures(status: Exit = Exit.FAILED) -> Iterator[None]:
    """Turn the errors of the stack and the demo into the command's own, with this exit status."""
    from rushes_local.demo import DemoError
    from rushes_local.stack import StackError

    try:
        yield
    except (StackError, DemoError) as error:
        raise CommandError(str(error), status) from None


def _registration(stack: "Stack", api_key: str) -> local_stack.RunningStack:
    from rushes_local.aws.application import CREDENTIALS
    from rushes_local.lambda_runtime import REGION
    from rushes_local.stack import STACK_NAME

    return local_stack.RunningStack(
        pid=os.getpid(),
        url=stack.url,
        api_key=api_key,
        emulator_url=stack.emulator_url,
        aws_url=stack.aws_url,
        access_key=CREDENTIALS.access_key,
        secret_key=CREDENTIALS.secret_key,
        region=REGION,
        table=stack.table_name,
        bucket=stack.bucket_name,
        stack=STACK_NAME,
    )


def _show(name: str, line: str) -> None:
    """Print one line of a component's log on standard error."""
    print(f"{name:<8} {line}", file=sys.stderr, flush=True)


@contextmanager
def _built(console: Console) -> "Iterator[Containers]":
    """Build the functions; yields containers that run them."""
    from rushes_local.sam import Containers, build, require_engine

    require_engine()
    with tempfile.TemporaryDirectory(prefix="rushes-build-") as folder:
        console.print("Building the functions with SAM.")
        build(ROOT, Path(folder))
        console.print("Starting Lambda containers. The first start takes some minutes.")
        yield Containers(Path(folder))


@contextmanager
def _started(stack: "Stack", console: Console) -> Iterator[None]:
    """Run the stack, and print how long its start took."""
    with ExitStack() as closing:
        with console.status("Starting the stack"):
            closing.enter_context(stack)
        console.print(f"The stack is ready after {stack.started_in['functions']:.1f} s.")
        yield


def _describe(stack: "Stack", key: str, others: list[str], *, bought: bool, moved: bool) -> None:
    """Print the running stack's addresses and key, and commands to try."""
    port = urlsplit(stack.url).port
    if bought:
        print("RUNWARE_API_KEY is set: clips are bought from Runware itself and cost money.")
    if others:
        print(f"Another local stack runs at {', '.join(others)}, with its own data. Commands use the newest stack.")
        print(f"To bind a terminal to this one: export RUSHES_PROFILE={local_stack.PREFIX}{port}")
    if moved:
        print(f"Port {_PORT} is taken: the API is on {port}.")
    print(f"Gallery  {stack.url}/#key={key}")
    print(f"API key  {key}")
    print(f"API      {stack.url}/v1")
    print(f"AWS      {stack.aws_url} (table {stack.table_name}, bucket {stack.bucket_name})")
    if not bought:
        print(f"Ledger   {stack.emulator_url}/_emulator/ledger")
    print(f"Log      {stack.log_path} (every component's lines; removed at the end)")
    print("\nOpen the gallery by its link, or order from another terminal, in this folder:\n")
    print(f"  {os.path.relpath(sys.argv[0])} submit 'a lighthouse at dusk' --watch")
    print("\nor with curl (each taskUUID buys once):\n")
    print(
        f"  curl -s {stack.url}/v1 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '"
        '[{"taskType":"videoInference","taskUUID":"\'$(python3 -c "import uuid; print(uuid.uuid4())")\'",'
        '"model":"klingai:5@3","positivePrompt":"a lighthouse at dusk","width":1920,"height":1080,"duration":5}]'
        "'\n\nCtrl-C ends the stack. Its events:\n",
        flush=True,
    )

"""`dev` and `demo`: the whole system on this machine."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rushes_cli import local_stack
from rushes_cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from rushes_local.sam import Containers
    from rushes_local.stack import Stack

# The checkout that contains this file: the stack uses its template.yaml, functions/ and core package.
ROOT = Path(__file__).parents[2]

_CHECK_EVERY = 1.0  # seconds


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
) -> None:
    """Order clips from the whole system on this machine, and download them.

    Without REQUEST, an example is ordered over HTTP, and another by a request file in the bucket.

    Runware is always emulated here: nothing is bought and nothing leaves the machine.
    """
    from rushes_local import demo as demonstration
    from rushes_local.stack import Stack

    console = Console()
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
        run = demonstration.Demo(stack, out, timeout)
        run.order(tasks)
        if request is None:
            run.order_by_file(demonstration.EXAMPLE_FILE)


def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 0,
    render_seconds: Annotated[float, typer.Option(min=0, help="Seconds that an emulated render takes.")] = 5.0,
    stepped: Annotated[
        bool, typer.Option("--stepped", help="Renders wait until `rushes trigger success` finishes them.")
    ] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C.

    Meanwhile the other verbs use it without any configuration, as the profile local.

    With RUNWARE_API_KEY set, clips are bought from Runware itself.
    """
    from rushes.domain.caller import Caller
    from rushes_local.stack import ProviderEndpoint, Stack

    console = Console()
    key = os.environ.get("RUNWARE_API_KEY")
    provider = ProviderEndpoint(key, os.environ.get("RUNWARE_BASE_URL") or None) if key else None
    with _failures():
        stack = Stack(
            ROOT, render_seconds=None if stepped else render_seconds, provider=provider, port=port, sink=_show
        )
        with _started(stack, console):
            api_key = stack.create_key("dev")
            stack.store.set_caller(Caller("events", 50_000_000))  # that of the event bus, which needs no key
            with local_stack.registered(_registration(stack, api_key), os.environ):
                _describe(stack, api_key, bought=provider is not None)
                while True:
                    stack.check()
                    time.sleep(_CHECK_EVERY)


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
    """Print one line of a component's log."""
    print(f"{name:<8} {line}", flush=True)


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


def _describe(stack: "Stack", key: str, *, bought: bool) -> None:
    """Print the running stack's addresses and key, and commands to try."""
    if bought:
        print("RUNWARE_API_KEY is set: clips are bought from Runware itself and cost money.")
    print(f"Gallery  {stack.url}/")
    print(f"API key  {key}")
    print(f"API      {stack.url}/v1")
    print(f"AWS      {stack.aws_url} (table {stack.table_name}, bucket {stack.bucket_name})")
    if not bought:
        print(f"Ledger   {stack.emulator_url}/_emulator/ledger")
    print(f"Log      {stack.log_path}")
    print("\nOpen the gallery and enter the key, or order from another terminal, in this folder:\n")
    print(f"  {os.path.relpath(sys.argv[0])} submit 'a lighthouse at dusk' --watch")
    print("\nor with curl (each taskUUID buys once):\n")
    print(
        f"  curl -s {stack.url}/v1 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '"
        '[{"taskType":"videoInference","taskUUID":"\'$(python3 -c "import uuid; print(uuid.uuid4())")\'",'
        '"model":"klingai:5@3","positivePrompt":"a lighthouse at dusk","width":1920,"height":1080,"duration":5}]'
        "'\n",
        flush=True,
    )

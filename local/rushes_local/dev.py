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

# The stack is made of the checkout that this file is in: template.yaml, functions/ and the core package.
ROOT = Path(__file__).parents[2]

_CHECK_EVERY = 1.0  # seconds


def demo(
    request: Annotated[
        Path | None, typer.Argument(metavar="REQUEST", help="JSON file with one task or an array of tasks.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the clips are put.")] = Path("out"),
    render_seconds: Annotated[float, typer.Option(min=0, help="How long the emulated Runware takes.")] = 2.0,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the clips.")] = 300.0,
    sam: Annotated[
        bool, typer.Option("--sam", help="Run the functions in Lambda containers, as SAM builds them.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the functions log.")] = False,
) -> None:
    """Send a request through the whole system on this machine, and fetch the clips.

    Without a file of your own, one is dropped into the bucket as well, and its report shown.

    Runware is emulated here, always: nothing is bought and nothing leaves the machine.
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
        shown = demonstration.Demo(stack, out, timeout)
        shown.order(tasks)
        if request is None:
            shown.drop(demonstration.DROP)


def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 0,
    render_seconds: Annotated[float, typer.Option(min=0, help="How long the emulated Runware takes.")] = 5.0,
    stepped: Annotated[
        bool, typer.Option("--stepped", help="The emulated Runware finishes nothing until `rushes trigger success`.")
    ] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C.

    Meanwhile the other verbs find it without any configuration, as the profile local.

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
            with local_stack.registered(_whereabouts(stack, api_key), os.environ):
                _describe(stack, api_key, bought=provider is not None)
                while True:
                    stack.check()
                    time.sleep(_CHECK_EVERY)


@contextmanager
def _failures(status: Exit = Exit.FAILED) -> Iterator[None]:
    """What the stack and the demo have to say becomes the command's own error."""
    from rushes_local.demo import DemoError
    from rushes_local.stack import StackError

    try:
        yield
    except (StackError, DemoError) as error:
        raise CommandError(str(error), status) from None


def _whereabouts(stack: "Stack", api_key: str) -> local_stack.RunningStack:
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
    """Print a line of a part's log."""
    print(f"{name:<8} {line}", flush=True)


@contextmanager
def _built(console: Console) -> "Iterator[Containers]":
    """Containers for the functions, which are built for them first."""
    from rushes_local.sam import Containers, build, require_engine

    require_engine()
    with tempfile.TemporaryDirectory(prefix="rushes-build-") as folder:
        console.print("Building the functions for Lambda.")
        build(ROOT, Path(folder))
        console.print("Starting Lambda containers, which takes a while.")
        yield Containers(Path(folder))


@contextmanager
def _started(stack: "Stack", console: Console) -> Iterator[None]:
    """The stack, running, with a word on how long it took."""
    with ExitStack() as closing:
        with console.status("starting"):
            closing.enter_context(stack)
        console.print(f"The stack is ready after {stack.started_in['functions']:.1f} s.")
        yield


def _describe(stack: "Stack", key: str, *, bought: bool) -> None:
    """Say how to reach a running stack."""
    if bought:
        print("Clips are bought from Runware itself and cost money.")
    print(f"Gallery  {stack.url}/")
    print(f"API key  {key}")
    print(f"API      {stack.url}/v1")
    print(f"AWS      {stack.aws_url} (table {stack.table_name}, bucket {stack.bucket_name})")
    if not bought:
        print(f"Ledger   {stack.emulator_url}/_emulator/ledger")
    print(f"Log      {stack.log_path}")
    print("\nOpen the gallery and give it the key, or try it from another terminal, in this folder:\n")
    print(f"  {os.path.relpath(sys.argv[0])} submit 'a lighthouse at dusk' --watch")
    print("\nor without the command (each taskUUID buys once):\n")
    print(
        f"  curl -s {stack.url}/v1 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '"
        '[{"taskType":"videoInference","taskUUID":"\'$(python3 -c "import uuid; print(uuid.uuid4())")\'",'
        '"model":"klingai:5@3","positivePrompt":"a lighthouse at dusk","width":1920,"height":1080,"duration":5}]'
        "'\n",
        flush=True,
    )

"""The `rushes` command: what people type. Translates arguments, signals and errors; the work is elsewhere."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import boto3
import typer
from rich.console import Console

from rushes.callers import Caller, hash_key, is_name, new_key
from rushes.config import micro_dollars
from rushes.store import Store
from rushes_local import demo as demonstration
from rushes_local.sam import Containers, build, require_engine
from rushes_local.stack import Provider, Stack, StackError

# The stack is made of the checkout that this file is in: template.yaml, functions/ and the core package.
ROOT = Path(__file__).parents[2]

_CHECK_EVERY = 1.0  # seconds

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Rushes: video requests become clips in your own bucket, each bought once.",
)


keys = typer.Typer(no_args_is_help=True, help="API keys of a deployed stack.")
app.add_typer(keys, name="keys")


@app.callback()
def rushes() -> None:
    """Rushes: video requests become clips in your own bucket, each bought once."""


@app.command()
def demo(
    request: Annotated[Path | None, typer.Argument(help="JSON file with one task or an array of tasks.")] = None,
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
    console = Console()
    tasks = demonstration.read_request(request or demonstration.EXAMPLE)
    with ExitStack() as closing:
        stack = Stack(
            ROOT,
            render_seconds=render_seconds,
            parameters={"MonthlyLimitUsd": str(demonstration.LIMIT_USD)},
            host=closing.enter_context(built(console)) if sam else None,
            sink=show if verbose else lambda *_: None,
        )
        closing.enter_context(started(stack, console))
        demonstration.run(stack, tasks, out, timeout, console)
        if request is None:
            demonstration.drop(stack, demonstration.DROP, out, timeout, console)


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 0,
    render_seconds: Annotated[float, typer.Option(min=0, help="How long the emulated Runware takes.")] = 5.0,
) -> None:
    """Run the whole system on this machine until Ctrl-C.

    With RUNWARE_API_KEY set, clips are bought from Runware itself.
    """
    console = Console()
    key = os.environ.get("RUNWARE_API_KEY")
    provider = Provider(key, os.environ.get("RUNWARE_BASE_URL") or None) if key else None
    stack = Stack(ROOT, render_seconds=render_seconds, provider=provider, port=port, sink=show)
    with started(stack, console):
        describe(stack, bought=provider is not None)
        while True:
            stack.check()
            time.sleep(_CHECK_EVERY)


@keys.command()
def create(
    caller: Annotated[str, typer.Argument(help="Whose key: lower-case letters, digits and hyphens.")],
    limit_usd: Annotated[float, typer.Option(min=0, help="What the caller may spend in a month.")],
    table: Annotated[str, typer.Option(envvar="TABLE_NAME", help="The deployed stack's table.")],
    images: Annotated[
        list[str] | None,
        typer.Option(help="Where its images may lie besides our bucket, as s3://photos/alice/; may be repeated."),
    ] = None,
) -> None:
    """Make an API key for a caller of a deployed stack. It is shown once; only its hash is kept.

    Without --images a caller that is known keeps the places of its images.
    """
    if not is_name(caller):
        raise typer.BadParameter("a caller is named by at most 64 lower-case letters, digits and hyphens")
    store, key = Store(boto3.client("dynamodb"), table), new_key()
    before = store.caller_named(caller)
    sources = tuple(map(image_source, images)) if images else before.image_sources if before else ()
    known = Caller(caller, micro_dollars(str(limit_usd)), sources)
    store.add_key(hash_key(key), known, caller, int(time.time() * 1000))
    print(key)


def image_source(address: str) -> str:
    """A place of images as a caller's record has it: `bucket/prefix`, from `s3://bucket/prefix`."""
    scheme, _, place = address.partition("://")
    bucket, slash, prefix = place.partition("/")
    if scheme != "s3" or not bucket or not slash:
        raise typer.BadParameter(f"{address} is not s3://bucket/ with a prefix or none", param_hint="--images")
    return f"{bucket}/{prefix}"


def show(name: str, line: str) -> None:
    """Print a line of a part's log."""
    print(f"{name:<8} {line}", flush=True)


@contextmanager
def built(console: Console) -> Iterator[Containers]:
    """Containers for the functions, which are built for them first."""
    require_engine()
    with tempfile.TemporaryDirectory(prefix="rushes-build-") as folder:
        console.print("Building the functions for Lambda.")
        build(ROOT, Path(folder))
        console.print("Starting Lambda containers, which takes a while.")
        yield Containers(Path(folder))


@contextmanager
def started(stack: Stack, console: Console) -> Iterator[None]:
    """The stack, running, with a word on how long it took."""
    with ExitStack() as closing:
        with console.status("starting"):
            closing.enter_context(stack)
        console.print(f"The stack is ready after {stack.started_in['functions']:.1f} s.")
        yield


def describe(stack: Stack, *, bought: bool) -> None:
    """Say how to reach a running stack."""
    key = stack.create_key("dev")
    if bought:
        print("Clips are bought from Runware itself and cost money.")
    else:
        print(f"Ledger   {stack.emulator_url}/_emulator/ledger")
    print(f"AWS      {stack.aws_url} (table {stack.table_name}, bucket {stack.bucket_name})")
    print(f"Log      {stack.log_path}")
    print(f"API      {stack.url}/v1")
    print(f"API key  {key}")
    print("\nTry it (each taskUUID buys once):\n")
    print(
        f"  curl -s {stack.url}/v1 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '"
        '[{"taskType":"videoInference","taskUUID":"\'$(python3 -c "import uuid; print(uuid.uuid4())")\'",'
        '"model":"klingai:5@3","positivePrompt":"a lighthouse at dusk","width":1920,"height":1080,"duration":5}]'
        "'\n",
        flush=True,
    )


def main() -> None:
    """Run the command; what goes wrong in a way that has a name becomes one line and exit status 1."""
    # A polite end by another program unwinds like an error, so that the stack is stopped.
    signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except (StackError, demonstration.DemoError) as error:
        sys.exit(f"rushes: {error}")


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)

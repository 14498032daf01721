"""The `rushes` command: puts the verbs together, and turns signals and errors into exit statuses."""

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from rushes_local.command import (
    buying,
    callers,
    downloading,
    explaining,
    keys,
    local,
    operators,
    reading,
    spending,
    triggering,
    watching,
)
from rushes_local.command.outcomes import CommandError, Exit
from rushes_local.command.shown import plain

app = typer.Typer(
    name="rushes",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # its own markup would take what stands in brackets for a style
    context_settings={"help_option_names": ["--help", "-h"]},
)

_CALLERS, _OPERATORS, _LOCAL = "Your clips", "Operating a deployed stack", "On this machine"


@app.callback()
def rushes() -> None:
    """Rushes: video requests become clips in your own bucket, each bought once.

    Which service is meant, and the key: --profile NAME of the configuration file; or RUSHES_URL and RUSHES_API_KEY; or
    RUSHES_PROFILE; or the configuration's default; or the local stack that `rushes dev` runs.
    """


app.command("submit", rich_help_panel=_CALLERS)(buying.submit)
app.command("watch", rich_help_panel=_CALLERS)(watching.watch)
app.command("list", rich_help_panel=_CALLERS)(reading.list_tasks)
app.command("show", rich_help_panel=_CALLERS)(reading.show)
app.command("explain", rich_help_panel=_CALLERS)(explaining.explain)
app.command("download", rich_help_panel=_CALLERS)(downloading.download)
app.command("retry", rich_help_panel=_CALLERS)(buying.retry)
app.command("cost", rich_help_panel=_CALLERS)(spending.cost)
app.add_typer(operators.review, name="review", rich_help_panel=_OPERATORS)
app.command("check", rich_help_panel=_OPERATORS)(operators.check)
app.command("forget", rich_help_panel=_OPERATORS)(operators.forget)
app.add_typer(keys.keys, name="keys", rich_help_panel=_OPERATORS)
app.add_typer(callers.callers, name="callers", rich_help_panel=_OPERATORS)
app.command("configure", rich_help_panel=_OPERATORS)(operators.configure)
app.command("rotate", rich_help_panel=_OPERATORS)(operators.rotate)
app.command("announce", rich_help_panel=_OPERATORS)(operators.announce)
app.command("redrive", rich_help_panel=_OPERATORS)(operators.redrive)
app.command("output", rich_help_panel=_OPERATORS)(operators.output)
app.command("demo", rich_help_panel=_LOCAL)(local.demo)
app.command("dev", rich_help_panel=_LOCAL)(local.dev)
app.add_typer(triggering.trigger, name="trigger", rich_help_panel=_LOCAL)


def main() -> None:
    """Run the command; what goes wrong in a way that has a name becomes one line and its exit status."""
    # A polite end by another program unwinds like an error, so that the stack is stopped.
    signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except CommandError as error:
        print(f"rushes: {plain(str(error), lines=True)}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:  # a full disk under standard output, for one
        print(f"rushes: {plain(str(error))}", file=sys.stderr)
        sys.stdout = None  # or Python tries once more to write what is left, and ends with a status of its own
        sys.exit(Exit.FAILED)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)

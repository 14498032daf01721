"""The `rushes` command: assembles the verbs and turns signals and errors into exit statuses.

Callers' verbs are always available. Operators' verbs need the extra `operator`. Other packages add verbs through the
entry point group `rushes.commands`. A verb that is not installed is listed too; running it prints how to install it.
"""

import os
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points, version
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from rushes_cli import catalog, downloading, explaining, listing, login, ordering, spending, watching
from rushes_cli.exits import CommandError, Exit
from rushes_cli.extras import refuse_local, require_operator
from rushes_cli.operator import callers, commands, keys, smoke, webhooks
from rushes_cli.output import plain, prepare_streams

ENTRY_POINTS = "rushes.commands"
_OPERATOR_VERBS = frozenset(
    (
        *("review", "check", "forget", "keys", "callers", "webhooks"),
        *("configure", "rotate", "publish", "redrive", "output", "smoke"),
    )
)
_LOCAL_VERBS: Mapping[str, str] = {
    "demo": "Send a request through the whole system on this machine, and fetch the clips.",
    "dev": "Run the whole system on this machine until Ctrl-C.",
    "trigger": "Trigger webhooks, faults and other behaviour of Runware on the local stack.",
}

_CALLERS, _OPERATORS, _LOCAL = "Your clips", "Operating a deployed stack", "On this machine"


class VerbGroup(TyperGroup):
    """The verbs. A verb whose packages are not installed is refused before its arguments are parsed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb for these arguments. Raises `UsageError` with installation instructions."""
        verb, *rest = args
        if verb in _OPERATOR_VERBS and not {"--help", "-h"} & set(rest):
            require_operator(verb)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="rushes",
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # rich's markup would read brackets as styles
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"rushes {version('rushes-cli')}")
        raise typer.Exit


@app.callback()
def rushes(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rushes: video requests become clips in your own bucket, each bought once.

    The service's URL and your key come from the first of: the profile that --profile names, in the configuration file
    that `rushes login` writes; RUSHES_URL and RUSHES_API_KEY; the profile in RUSHES_PROFILE; the configuration's
    default profile; the running local stack of `rushes dev`.
    """


app.command("login", rich_help_panel=_CALLERS)(login.login)
app.command("submit", rich_help_panel=_CALLERS)(ordering.submit)
app.command("watch", rich_help_panel=_CALLERS)(watching.watch)
app.command("list", rich_help_panel=_CALLERS)(listing.list_tasks)
app.command("show", rich_help_panel=_CALLERS)(listing.show)
app.command("explain", rich_help_panel=_CALLERS)(explaining.explain)
app.command("download", rich_help_panel=_CALLERS)(downloading.download)
app.command("retry", rich_help_panel=_CALLERS)(ordering.retry)
app.command("cost", rich_help_panel=_CALLERS)(spending.cost)
app.add_typer(catalog.models, name="models", rich_help_panel=_CALLERS)
app.add_typer(commands.review, name="review", rich_help_panel=_OPERATORS)
app.command("check", rich_help_panel=_OPERATORS)(commands.check)
app.command("forget", rich_help_panel=_OPERATORS)(commands.forget)
app.add_typer(keys.keys, name="keys", rich_help_panel=_OPERATORS)
app.add_typer(callers.callers, name="callers", rich_help_panel=_OPERATORS)
app.add_typer(webhooks.webhooks, name="webhooks", rich_help_panel=_OPERATORS)
app.command("configure", rich_help_panel=_OPERATORS)(commands.configure)
app.command("rotate", rich_help_panel=_OPERATORS)(commands.rotate)
app.command("publish", rich_help_panel=_OPERATORS)(commands.publish)
app.command("redrive", rich_help_panel=_OPERATORS)(commands.redrive)
app.command("smoke", rich_help_panel=_OPERATORS)(smoke.smoke)
app.command("output", rich_help_panel=_OPERATORS)(commands.output)


def _add_installed_verbs() -> None:
    """Adds the verbs of other packages, and a placeholder for each verb of the local package that is not installed."""
    found = {each.name: each for each in entry_points(group=ENTRY_POINTS)}
    for name in sorted(found.keys() | _LOCAL_VERBS.keys()):
        verb = found[name].load() if name in found else _not_installed(name)
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=_LOCAL)
        else:
            any_arguments = {} if name in found else {"allow_extra_args": True, "ignore_unknown_options": True}
            app.command(name, rich_help_panel=_LOCAL, context_settings=any_arguments)(verb)


def _not_installed(name: str) -> Any:
    def refuse() -> None:
        refuse_local(name)

    refuse.__doc__ = _LOCAL_VERBS[name]
    return refuse


_add_installed_verbs()


def main() -> None:
    """Runs the command. An expected error becomes one line on standard error and its exit status."""
    # SIGTERM unwinds like an error, so that a local stack is stopped.
    signal.signal(signal.SIGTERM, _exit)
    prepare_streams(os.environ)
    try:
        app()
    except CommandError as error:
        print(f"rushes: {plain(str(error), lines=True)}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:  # such as a full disk under standard output
        print(f"rushes: {plain(str(error))}", file=sys.stderr)
        sys.stdout = None  # otherwise Python flushes it again at exit and ends with another status
        sys.exit(Exit.FAILED)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)

"""Confirmation of what cannot be undone."""

import sys

import typer

from rushes_cli.exits import CommandError, Exit, UsageError


def confirm_removal(question: str, *, yes: bool) -> None:
    """Asks on standard error, unless `yes`. Without a terminal to ask on raises `UsageError`.

    Raises `CommandError` for any answer but yes.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask for a confirmation on: use --yes")
    if not is_confirmed(question):
        raise CommandError("Not confirmed; nothing was changed.", Exit.NOT_CONFIRMED)


def is_confirmed(question: str) -> bool:
    """Asks a yes-or-no question on standard error. Ctrl-C and the end of the input mean no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False

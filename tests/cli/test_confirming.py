"""Confirmation of what cannot be undone: on a terminal by an answer, in a script by --yes."""

import sys
from typing import Any

import pytest
import typer

from rushes_cli import confirming
from rushes_cli.exits import CommandError, Exit
from rushes_local.stack import STACK_NAME
from tests.cli.conftest import Run
from tests.conftest import User, order

STACK = ("--stack", STACK_NAME)


@pytest.mark.parametrize(("answer", "status"), [("y", None), ("n", Exit.NOT_CONFIRMED), ("", Exit.NOT_CONFIRMED)])
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, status: Exit | None) -> None:
    """Only yes confirms; no, and the end of the input, end with a status of their own."""
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)

    def confirm(_: str, **__: Any) -> bool:
        if not answer:
            raise typer.Abort
        return answer == "y"

    monkeypatch.setattr(typer, "confirm", confirm)
    if status is None:
        confirming.confirm_removal("Erase?", yes=False)
        return
    with pytest.raises(CommandError) as refused:
        confirming.confirm_removal("Erase?", yes=False)
    assert refused.value.status == status


@pytest.mark.usefixtures("account")
def test_nothing_is_removed_without_a_terminal(user: User, run: Run) -> None:
    """Without a terminal and --yes, erasing and revoking are usage errors that change nothing."""
    task = order()
    user.post(task)
    for verb in (
        ("forget", user.name, task["taskUUID"]),
        ("keys", "revoke", user.name),
        ("webhooks", "secret", "revoke", user.name),
    ):
        refused = run(*verb, *STACK)
        assert (refused.status, "use --yes" in refused.err) == (Exit.USAGE, True)
    assert user.get("/budget").status_code == 200
    found = user.stack.store.task(user.name, task["taskUUID"])
    assert found is not None
    assert found.request["positivePrompt"] == task["positivePrompt"]

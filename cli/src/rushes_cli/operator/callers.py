"""`callers`: the callers of a deployed stack, and whether they may order at all."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from rushes_cli.exits import CommandError
from rushes_cli.operator.deployment import operated
from rushes_cli.options import AsJson, Stack
from rushes_cli.output import Screen, money

callers = typer.Typer(no_args_is_help=True, help="Callers of a deployed stack, and whether they may order.")

Named = Annotated[str, typer.Argument(metavar="CALLER", help="The caller.", show_default=False)]


@callers.command("list")
def list_callers(stack: Stack = None, as_json: AsJson = False) -> None:
    """List the callers with their limits and what they have spent this month. `keys limit` makes one without a key.

    --json prints {"callers": [{"caller", "disabled", "limit", "spent": dollars}]}.
    """
    screen = Screen(as_json)
    month = datetime.now(UTC).strftime("%Y-%m")
    with operated(stack) as deployment:
        found = [(each, deployment.store.budget(each.name, month)[0]) for each in deployment.store.all_callers()]
    screen.give(
        {
            "callers": [
                {
                    "caller": each.name,
                    "disabled": each.disabled,
                    "limit": each.monthly_limit / 1_000_000,
                    "spent": spent / 1_000_000,
                }
                for each, spent in found
            ]
        }
    )
    screen.table(
        ("caller", "state", "limit", "spent"),
        [
            (each.name, "disabled" if each.disabled else "enabled", money(each.monthly_limit), money(spent))
            for each, spent in found
        ],
    )


@callers.command()
def disable(caller: Named, stack: Stack = None) -> None:
    """Close every door of a caller within a minute: its keys, its folder under requests/, and the event bus if it is
    the caller of events. Orders that wait are refused with a report. What was bought is seen through.
    """
    _set(caller, disabled=True, stack=stack)
    Screen().say(f"{caller} is disabled.")


@callers.command()
def enable(caller: Named, stack: Stack = None) -> None:
    """Open a caller's doors again. Its keys are valid as before; what was refused has to be ordered again."""
    _set(caller, disabled=False, stack=stack)
    Screen().say(f"{caller} is enabled.")


def _set(caller: str, *, disabled: bool, stack: str | None) -> None:
    with operated(stack) as deployment:
        if not deployment.store.disable_caller(caller, disabled):
            raise CommandError(f"{caller} is no caller: `rushes callers list` shows those that there are.")

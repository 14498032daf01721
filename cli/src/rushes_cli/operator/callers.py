"""`callers`: lists, disables and enables the callers of a deployed stack."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from rushes_cli.exits import CommandError
from rushes_cli.operator.deployment import operated
from rushes_cli.options import AsJson, Stack
from rushes_cli.output import Screen, money

callers = typer.Typer(no_args_is_help=True, help="List, disable and enable the callers of a deployed stack.")

CallerName = Annotated[str, typer.Argument(metavar="CALLER", help="The caller's name.", show_default=False)]


@callers.command("list")
def list_callers(stack: Stack = None, as_json: AsJson = False) -> None:
    """List the callers with their monthly limits and this month's spending. `keys limit` creates one without a key.

    --json prints {"callers": [{"caller", "disabled", "limit", "spent": dollars}]}.
    """
    screen = Screen(as_json)
    month = datetime.now(UTC).strftime("%Y-%m")
    with operated(stack) as deployment:
        found = [(each, deployment.store.budget(each.name, month)[0]) for each in deployment.store.all_callers()]
    screen.print_json(
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
def disable(caller: CallerName, stack: Stack = None) -> None:
    """Disable a caller within a minute: its keys, its folder under requests/, and the event bus if it is EventsCaller.
    Orders in the inbox are refused with a report. Clips already bought are completed.
    """
    _set(caller, disabled=True, stack=stack)
    Screen().print(f"{caller} is disabled.")


@callers.command()
def enable(caller: CallerName, stack: Stack = None) -> None:
    """Enable a caller again. Its keys become valid as before; refused orders have to be ordered again."""
    _set(caller, disabled=False, stack=stack)
    Screen().print(f"{caller} is enabled.")


def _set(caller: str, *, disabled: bool, stack: str | None) -> None:
    with operated(stack) as deployment:
        if not deployment.store.disable_caller(caller, disabled):
            raise CommandError(f"There is no caller {caller}: `rushes callers list` shows all of them.")

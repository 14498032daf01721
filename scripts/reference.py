"""Writes docs/cli.md, the reference of the `rushes` command, from the command itself.

reference.py             writes it
reference.py --check     says whether it is up to date, and changes nothing
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from rushes_cli.exits import MEANINGS, Exit
from rushes_cli.main import app
from rushes_cli.operator.consistency import MEANINGS as FLAWS

PATH = Path(__file__).parents[1] / "docs" / "cli.md"

_HEAD = """\
# The `rushes` command

Written by `make reference` from the command itself; do not edit. `rushes COMMAND --help` says the same.
[tutorial.md](tutorial.md) is where to begin, [recipes.md](recipes.md) puts the verbs together.

## Which service, and the key

In this order:

1. `--profile NAME` (or `-p NAME`), where `local` is the stack that `rushes dev` runs;
2. `RUSHES_URL` and `RUSHES_API_KEY`, which go together;
3. the profile that `RUSHES_PROFILE` names;
4. the configuration's `default`;
5. the local stack, if one is running.

`rushes login` asks for address and key, and writes them into a profile once the service accepts them. The
configuration is `$XDG_CONFIG_HOME/rushes/config.toml`, by default `~/.config/rushes/config.toml`:

```toml
default = "prod"

[profiles.prod]
url = "https://abc123.execute-api.eu-central-1.amazonaws.com"
api_key = "rushes_…"
ask_above = 5.0  # dollars; a purchase of more is confirmed first
```

It holds a key, so let nobody else read it (`chmod 600`); the command warns otherwise. A key is never an argument: it
would be in the shell's history and in the list of processes. It is sent over https only, or to this machine.

An operator's verbs come with the extra `operator` (`pipx install './cli[operator]'`); `demo`, `dev` and `trigger` come
with the environment that `make demo` makes. A verb that is not installed says so, and ends with 2.

An operator's verbs use AWS credentials and region as the AWS tools find them, and `--stack NAME` of the deployed stack;
or `TABLE_NAME` and `BUCKET_NAME`; or the running local stack.

## Output

On a terminal there are tables and colours. In a pipe there are lines of tab-separated columns under a head, and
nothing is cut. `--json` prints JSON whose keys stay as they are; new ones may come. The result goes to standard output,
all else to standard error. Times are UTC.

## Exit status

| Status | Meaning |
| --- | --- |
{statuses}
| 130, 143 | ended by Ctrl-C, by SIGTERM |

## Completion

`rushes --install-completion` teaches the shell that it is run from to complete verbs and options.
"""

_FLAWS = """\
## What `rushes check` finds

| Flaw | Meaning |
| --- | --- |
{flaws}
"""


def reference() -> str:
    """The whole page."""
    statuses = "\n".join(f"| {int(status)} | {MEANINGS[status]} |" for status in Exit)
    flaws = "\n".join(f"| `{flaw}` | {meaning} |" for flaw, meaning in FLAWS.items())
    commands = _commands(typer.main.get_command(app), "rushes", 2)
    return "\n".join([_HEAD.format(statuses=statuses), *commands, _FLAWS.format(flaws=flaws)])


def _commands(command: Any, name: str, level: int) -> Iterator[str]:
    for word, member in command.commands.items():
        yield from _command(member, f"{name} {word}", level)
        if hasattr(member, "commands"):
            yield from _commands(member, f"{name} {word}", level + 1)


def _command(command: Any, name: str, level: int) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    words = " ".join(_metavar(each) for each in arguments)
    tail = " COMMAND" if hasattr(command, "commands") and not getattr(command, "invoke_without_command", False) else ""
    shown = " [OPTIONS]" if options else ""
    yield f"{'#' * level} {name}\n"
    yield f"```text\n{name}{shown}{f' {words}' if words else ''}{tail}\n```\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    rows = [
        *(_row(f"`{_metavar(each)}`", each) for each in arguments),
        *(_row(_spelled(each), each) for each in options),
    ]
    if rows:
        yield "\n".join(["| | |", "| --- | --- |", *rows]) + "\n"


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return f"{name if argument.required else f'[{name}]'}{'...' if argument.nargs != 1 else ''}"


def _spelled(option: Any) -> str:
    value = "" if option.is_flag else f" {_value(option)}"
    return ", ".join(f"`{spelling}{value}`".replace("|", "\\|") for spelling in option.opts)


def _value(option: Any) -> str:
    choices = getattr(option.type, "choices", None)
    if choices:
        return "|".join(str(getattr(each, "value", each)) for each in choices)
    kinds = {"int": "N", "float": "N", "path": "PATH", "file": "PATH"}
    return kinds.get(option.type.name.partition(" ")[0], "TEXT")


def _row(name: str, parameter: Any) -> str:
    said = (parameter.help or "").replace("|", "\\|")
    return f"| {name} | {said}{_default(parameter)} |"


def _default(parameter: Any) -> str:
    shown, default = parameter.show_default, parameter.default
    if isinstance(shown, str):
        default = shown
    elif not shown or default in (None, False, ()):
        return ""
    text = f"{default:g}" if isinstance(default, float) else str(getattr(default, "value", default))
    return f" Default: {text.rstrip('.')}."


def main(arguments: list[str]) -> int:
    page = reference()
    if arguments == ["--check"]:
        if not PATH.exists() or PATH.read_text(encoding="utf-8") != page:
            print("docs/cli.md is not what the command says: run make reference")
            return 1
        return 0
    PATH.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`login`: address and key, checked against the service, and kept as a profile."""

import getpass
import json
import os
import re
import sys
import tomllib
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from rushes_cli.api_client import ApiClient
from rushes_cli.exits import CommandError, UsageError
from rushes_cli.output import Screen, micros, money
from rushes_cli.profiles import LOCAL, Target, config_path, read_config, target_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def login(
    url: Annotated[
        str | None, typer.Option(help="The service's address; asked for otherwise.", show_default=False)
    ] = None,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the key from standard input instead of asking for it.")
    ] = False,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="The profile to write; one that is there is replaced.")
    ] = "default",
) -> None:
    """Ask for the service's address and your key, check both, and write them into a profile of the configuration.

    The key is typed without echo. The first profile becomes the default. Nothing is written unless the service accepts
    the key.
    """
    if profile == LOCAL or not _NAME.fullmatch(profile):
        raise UsageError(
            f"a profile is named by at most 64 letters, digits, _ and -; {LOCAL} always is the local stack"
        )
    screen, path = Screen(), config_path(os.environ)
    if not key_stdin and not sys.stdin.isatty():
        raise UsageError("nobody can be asked here: give --url, and the key with --key-stdin")
    if url is None:
        if key_stdin:
            raise UsageError("--key-stdin goes with --url")
        url = input("Address of the service: ")
    key = sys.stdin.readline() if key_stdin else getpass.getpass("API key: ")
    read_config(path, screen.warn)  # one that cannot be read is refused before the service is asked
    target = target_of(f"profile {profile}", {"url": url.strip(), "api_key": key.strip()})
    client = ApiClient(target)
    try:
        budget = client.budget()
    finally:
        client.close()
    if budget is None or "left" not in budget:
        raise CommandError(f"{target.url}/budget is no budget: is that the address of a Rushes service?")
    write_profile(path, profile, target)
    left = money(micros(budget["left"]))
    screen.say(f"Profile {profile} is written to {path}. {left} of this month's limit are left.")


def write_profile(path: Path, name: str, target: Target) -> None:
    """Adds or replaces a profile; all else in the file stays. Nobody but this user can read what is written.

    Raises `UsageError` where that cannot be done.
    """
    path = path.resolve()  # what a link leads to is replaced, not the link
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = with_profile(before, name, {"url": target.url, "api_key": target.api_key})
    if after is None:
        raise UsageError(f"{path} cannot be changed safely; write profile {name} into it by hand")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(after)
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}") from None


def with_profile(text: str, name: str, values: dict[str, str]) -> str | None:
    """The configuration's text with this profile in it; None if that text would not say exactly this."""
    config = tomllib.loads(text)
    known = config.get("profiles", {})
    if not isinstance(known, dict) or not isinstance(known.get(name, {}), dict):
        return None
    kept = [line for line in _section(text, name) if not re.match(r"\s*(url|api_key)\s*=", line)]
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]
    rest = text.replace("".join([_header(name), *_section(text, name)]), "").rstrip("\n")
    default = "" if "default" in config else f'default = "{name}"\n'
    after = f"{default}{rest}\n\n{_header(name)}{''.join([*lines, *kept])}".lstrip("\n")
    wanted = {"default": name, **config, "profiles": {**known, name: {**known.get(name, {}), **values}}}
    try:
        return after if tomllib.loads(after) == wanted else None
    except tomllib.TOMLDecodeError:
        return None


def _header(name: str) -> str:
    return f"[profiles.{name}]\n"


def _section(text: str, name: str) -> list[str]:
    """The lines below the profile's header, up to the next one."""
    lines = text.splitlines(keepends=True)
    if _header(name) not in lines:
        return []
    return list(takewhile(lambda line: not line.startswith("["), lines[lines.index(_header(name)) + 1 :]))

"""`login`: checks a URL and an API key against the service and stores them as a profile."""

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
from rushes_cli.exits import UsageError
from rushes_cli.output import Screen, micros, money
from rushes_cli.profiles import LOCAL, Target, config_path, read_config, target_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def login(
    url: Annotated[
        str | None, typer.Option(help="The service's URL; prompted for if not given.", show_default=False)
    ] = None,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the key from standard input instead of prompting for it.")
    ] = False,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="The profile to write; an existing one is replaced.")
    ] = "default",
) -> None:
    """Prompt for the service's URL and your API key, check both, and write them into a profile of the configuration.

    The key is not echoed. The first profile becomes the default. Nothing is written unless the service accepts the key.
    """
    if profile == LOCAL or not _NAME.fullmatch(profile):
        raise UsageError(
            f"a profile's name has 1 to 64 letters, digits, _ and -; {LOCAL} is reserved for the local stack"
        )
    screen, path = Screen(), config_path(os.environ)
    if not key_stdin and not sys.stdin.isatty():
        raise UsageError("no terminal to prompt on: use --url, and --key-stdin for the key")
    if url is None:
        if key_stdin:
            raise UsageError("--key-stdin requires --url")
        url = input("URL of the service: ")
    key = sys.stdin.readline() if key_stdin else getpass.getpass("API key: ")
    read_config(path, screen.warn)  # an unreadable file is refused before the service is called
    target = target_of(f"profile {profile}", {"url": url.strip(), "api_key": key.strip()})
    client = ApiClient(target)
    try:
        budget = client.budget()
    finally:
        client.close()
    write_profile(path, profile, target)
    left = money(micros(budget["left"]))
    screen.print(f"Profile {profile} was written to {path}. {left} of this month's limit is left.")


def write_profile(path: Path, name: str, target: Target) -> None:
    """Adds or replaces a profile and keeps the rest of the file. Only this user can read the file.

    Raises `UsageError` if the file cannot be changed.
    """
    path = path.resolve()  # replaces the target of a link, not the link
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = with_profile(before, name, {"url": target.url, "api_key": target.api_key})
    if after is None:
        raise UsageError(f"{path} cannot be changed safely; add profile {name} by hand")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(after)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}") from None


def with_profile(text: str, name: str, values: dict[str, str]) -> str | None:
    """The configuration's text with this profile; None if the result would not parse to exactly that."""
    config = tomllib.loads(text)
    profiles = config.get("profiles", {})
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name, {}), dict):
        return None
    kept = [line for line in _section(text, name) if not re.match(r"\s*(url|api_key)\s*=", line)]
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]
    rest = text.replace("".join([_header(name), *_section(text, name)]), "").rstrip("\n")
    default = "" if "default" in config else f'default = "{name}"\n'
    after = f"{default}{rest}\n\n{_header(name)}{''.join([*lines, *kept])}".lstrip("\n")
    expected = {"default": name, **config, "profiles": {**profiles, name: {**profiles.get(name, {}), **values}}}
    try:
        return after if tomllib.loads(after) == expected else None
    except tomllib.TOMLDecodeError:
        return None


def _header(name: str) -> str:
    return f"[profiles.{name}]\n"


def _section(text: str, name: str) -> list[str]:
    """The lines from the profile's header to the next one, without either."""
    lines = text.splitlines(keepends=True)
    if _header(name) not in lines:
        return []
    return list(takewhile(lambda line: not line.startswith("["), lines[lines.index(_header(name)) + 1 :]))

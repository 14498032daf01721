"""The choice of the service and its key. A key comes from the environment or a file, never from an argument.

The first of these is used: the profile of `--profile`; `RUSHES_URL` with `RUSHES_API_KEY`; the profile in
`RUSHES_PROFILE`; the configuration's `default`; the running local stack of `rushes dev`.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rushes_cli import local_stack
from rushes_cli.exits import NotAllowedError, UsageError
from rushes_cli.limits import MAX_DOLLARS, micro_dollars

LOCAL = "local"  # the reserved profile of the running local stack
ASK_ABOVE = 5_000_000  # micro-dollars; a purchase above this amount needs a confirmation

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Target:
    """A service and its key. `name` is for messages; `ask_above` is in micro-dollars."""

    name: str
    url: str
    api_key: str = field(repr=False)
    ask_above: int = ASK_ABOVE

    @property
    def is_here(self) -> bool:
        """True if the service is on this machine."""
        return urlsplit(self.url).hostname in _LOOPBACK


def config_path(environment: Mapping[str, str]) -> Path:
    """The path of the configuration file."""
    home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "rushes" / "config.toml"


def choose(profile: str | None, environment: Mapping[str, str], warn: Callable[[str], None]) -> Target:
    """The chosen service. Raises `UsageError` for an invalid configuration, `NotAllowedError` without one."""
    url, key = environment.get("RUSHES_URL", "").strip(), environment.get("RUSHES_API_KEY", "").strip()
    if profile is None and (url or key):
        if not (url and key):
            missing = "RUSHES_API_KEY" if url else "RUSHES_URL"
            raise NotAllowedError(f"{missing} is not set; RUSHES_URL and RUSHES_API_KEY must be set together.")
        return target_of("the environment", {"url": url, "api_key": key})
    name = profile or environment.get("RUSHES_PROFILE") or None
    path = config_path(environment)
    if name is not None and (name == LOCAL or name.startswith(local_stack.PREFIX)):
        return _local(environment, name, path)
    config = read_config(path, warn)
    name = name or config.get("default")
    if name is None or name == LOCAL:
        return _local(environment, name, path)
    profiles = config.get("profiles", {})
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
        raise UsageError(f"{path} has no profile {name}.")
    return target_of(f"profile {name}", profiles[name])


def _local(environment: Mapping[str, str], name: str | None, path: Path) -> Target:
    found = local_stack.find(environment, name)
    if found:
        return target_of("the local stack", {"url": found.url, "api_key": found.api_key})
    if name is not None and name != LOCAL:
        ports = ", ".join(each.url for each in local_stack.running(environment)) or "none"
        raise NotAllowedError(f"No local stack is running as {name}. Running: {ports}.")
    if name is not None:
        raise NotAllowedError("No local stack is running. Start one with `rushes dev`.")
    raise NotAllowedError(
        "No service is configured. Run `rushes login`, set RUSHES_URL and RUSHES_API_KEY, add a profile to "
        f"{path}, or start a local stack with `rushes dev`."
    )


def read_config(path: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The configuration; warns if other users can read the file. Raises `UsageError` if it cannot be parsed."""
    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        warn(f"{path} can be read by other users and may contain a key: chmod 600 {path}")
    try:
        return tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def target_of(name: str, profile: Mapping[str, Any]) -> Target:
    """The service of a profile. Raises `UsageError` for an invalid URL, key or threshold."""
    url, key = profile.get("url"), profile.get("api_key")
    if not isinstance(url, str) or not isinstance(key, str) or not url or not key:
        raise UsageError(f"{name} must have a url and an api_key")
    target = Target(name, url.rstrip("/").removesuffix("/v1"), key.strip(), _ask_above(name, profile))
    try:
        parts = urlsplit(target.url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_web = False
    if not is_web or parts.query or parts.username or parts.password:
        raise UsageError(
            f"{name}: {url!r} is not a valid URL; it must be http(s)://host without query string and user name"
        )
    if parts.scheme != "https" and not target.is_here:
        raise UsageError(f"{name}: the URL must be https, or on this machine")
    if not key.isascii() or not key.strip().isprintable():
        raise UsageError(f"{name}: api_key must consist of printable ASCII characters")
    return target


def _ask_above(name: str, profile: Mapping[str, Any]) -> int:
    try:
        return micro_dollars(str(profile["ask_above"])) if "ask_above" in profile else ASK_ABOVE
    except ValueError:
        raise UsageError(f"{name}: ask_above must be an amount in dollars from 0 to {MAX_DOLLARS}") from None

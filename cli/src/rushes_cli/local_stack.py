"""The discovery file of a running local stack (`rushes dev`), deleted when the stack stops.

It contains a key, so it is in the user's runtime directory and readable by this user alone. Without a runtime directory
it is in a directory of this user below the temporary one; files that another user may have written are ignored.
"""

import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "local:"  # with a port: the profile of one of several local stacks


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """A running local stack. `emulator_url` is empty if clips are bought from Runware itself."""

    pid: int
    url: str
    api_key: str = field(repr=False)
    emulator_url: str
    aws_url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str
    table: str
    bucket: str
    stack: str


def folder(environment: Mapping[str, str]) -> Path:
    """The directory of the discovery files."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "rushes"
    return Path(environment.get("TMPDIR") or tempfile.gettempdir()) / f"rushes-{os.getuid()}"


@contextmanager
def registered(running: RunningStack, environment: Mapping[str, str]) -> Iterator[None]:
    """Writes the discovery file for the duration of the block. Of several stacks `find` returns the newest."""
    path = folder(environment) / f"{running.pid}.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_owned(path.parent):
        yield  # no safe place for the key: the stack runs without a discovery file
        return
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(running), file)
    os.utime(temporary, ns=(time.time_ns(),) * 2)  # finer than the file system's own clock
    temporary.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: another stack's file is in it
            path.parent.rmdir()


def find(environment: Mapping[str, str], profile: str | None = None) -> RunningStack | None:
    """The running local stack that was started last, or None; with a profile `local:<port>`, that on this port.

    Without `profile`, the environment's RUSHES_PROFILE is used.
    """
    name = profile or environment.get("RUSHES_PROFILE", "")
    return next((each for each in running(environment) if _is_meant(each, name)), None)


def running(environment: Mapping[str, str]) -> Iterator[RunningStack]:
    """The running local stacks, the newest first."""
    parent = folder(environment)
    if not _is_owned(parent):
        return
    for path in sorted(parent.glob("*.json"), key=_modified_at, reverse=True):
        found = _read(path) if _is_owned(path) else None
        if found and _is_alive(found.pid):
            yield found


def _is_meant(found: RunningStack, name: str) -> bool:
    return not name.startswith(PREFIX) or name == f"{PREFIX}{urlsplit(found.url).port}"


def _modified_at(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:  # the stack has just stopped
        return 0


def _read(path: Path) -> RunningStack | None:
    try:
        return RunningStack(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_owned(path: Path) -> bool:
    """True if only this user can have written the path."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not stat.S_ISLNK(status.st_mode) and not status.st_mode & 0o022


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

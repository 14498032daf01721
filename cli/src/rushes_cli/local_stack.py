"""Where a local stack of `rushes dev` is: a file that other runs of the command find, gone when the stack is.

It holds a key, so it lies in the user's own runtime directory, readable by nobody else. Where there is none, a
directory of this user's in the temporary one must do, and nothing is believed that somebody else may have put there.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """A running local stack. `emulator_url` is empty when clips are bought from Runware itself."""

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
    """Where the file lies."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "rushes"
    return Path(environment.get("TMPDIR") or tempfile.gettempdir()) / f"rushes-{os.getuid()}"


@contextmanager
def registered(running: RunningStack, environment: Mapping[str, str]) -> Iterator[None]:
    """Keeps the file while the block runs. Of several stacks the one that started last is found."""
    path = folder(environment) / f"{running.pid}.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(path.parent):
        yield  # nobody can be told safely; the stack runs all the same
        return
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(running), file)
    os.utime(fresh, ns=(time.time_ns(),) * 2)  # finer than a file system's own clock
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # another stack's file may be in it
            path.parent.rmdir()


def find(environment: Mapping[str, str]) -> RunningStack | None:
    """The local stack that started last, of those that run."""
    parent = folder(environment)
    if not _is_ours(parent):
        return None
    for path in sorted(parent.glob("*.json"), key=_written, reverse=True):
        found = _read(path) if _is_ours(path) else None
        if found and _is_alive(found.pid):
            return found
    return None


def _written(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:  # it has just ended
        return 0


def _read(path: Path) -> RunningStack | None:
    try:
        return RunningStack(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_ours(path: Path) -> bool:
    """Whether nobody but this user can have written it."""
    try:
        about = path.lstat()
    except OSError:
        return False
    return about.st_uid == os.getuid() and not stat.S_ISLNK(about.st_mode) and not about.st_mode & 0o022


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

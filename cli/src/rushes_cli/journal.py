"""The taskUUIDs of unfinished submissions, so that a repeat after a lost response buys nothing twice.

Before the first byte is sent, the generated UUIDs are stored in an entry: a file named by a digest of the submission.
It is deleted once the service has answered. If the response is lost or the command is killed, the same submission
reuses the UUIDs: the service then recognises the tasks that it has and records only the others.

Each run has its own entry and locks it until it ends. An entry is therefore reused only if its process is gone, and
equal submissions at the same time are separate orders. A process ID would not prove that: the system assigns it again.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TextIO

from rushes_cli.exits import UsageError

if sys.platform == "win32":
    import msvcrt

    def _lock(file: TextIO, *, wait: bool) -> bool:
        file.seek(1 << 30)  # beyond the content, because the lock also excludes readers
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(0)
        return True

else:
    import fcntl

    def _lock(file: TextIO, *, wait: bool) -> bool:
        """Locks the file until it is closed; returns False if another process has the lock."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


class Journal:
    """The entry of one run of a submission, stored in the user's state directory.

    A context manager that unlocks the entry: a later run of the same submission reuses it, unless it was deleted.
    """

    def __init__(self, environment: Mapping[str, str], digest: str) -> None:
        home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        self._folder, self._digest = Path(home) / "rushes" / "submissions", digest[:40]
        self._path: Path | None = None
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def open(self, count: int, *, fresh: bool = False) -> tuple[list[str], float | None]:
        """Returns `count` UUIDs, and the time (Unix seconds) of the earlier run without a response that stored them.

        The time is None for new UUIDs. `fresh` deletes the entries of earlier runs. Raises `UsageError` if the entry
        cannot be written: without it nothing is bought.
        """
        for path in sorted(self._folder.glob(f"{self._digest}*.json")):
            found = self._adopt(path, count)
            if found and not fresh:
                return found
            if found:
                self.close()
        return self._create(count), None

    def close(self) -> None:
        """Deletes the entry after an answer, so that the same submission becomes a new order."""
        if self._file is not None and self._path is not None:
            self._file.truncate(0)  # for a run that has opened the file already and waits for the lock
            self._release()
            with suppress(PermissionError):  # on Windows, while another run has the file open
                self._path.unlink(missing_ok=True)

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _adopt(self, path: Path, count: int) -> tuple[list[str], float] | None:
        """Locks and reads the entry of an earlier run; None if that run has not ended or the entry is unusable."""
        try:
            file = path.open("r+")
        except OSError:
            return None
        found = _read(file, count) if _lock(file, wait=False) else None
        if found is None:
            file.close()
            return None
        self._path, self._file = path, file
        return found

    def _create(self, count: int) -> list[str]:
        uuids = [str(uuid.uuid4()) for _ in range(count)]
        path = self._folder / f"{self._digest}.{uuid.uuid4()}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path, self._file = path, path.open("x+")
            _lock(self._file, wait=True)  # another run may have it for the moment of its reading
            _write(self._file, uuids)
        except OSError as error:
            with suppress(OSError):
                self._release()
                path.unlink(missing_ok=True)
            raise UsageError(f"{self._folder}: {error.strerror}; the taskUUIDs have to be stored there") from None
        return uuids


def _read(file: TextIO, count: int) -> tuple[list[str], float] | None:
    try:
        content = json.load(file)
        uuids, at = [str(uuid.UUID(each)) for each in content["taskUUIDs"]], float(content["at"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return (uuids, at) if len(uuids) == count else None


def _write(file: TextIO, uuids: Sequence[str]) -> None:
    json.dump({"at": time.time(), "taskUUIDs": uuids}, file)
    file.flush()
    os.fsync(file.fileno())

"""The taskUUIDs of submissions that are under way, so that a repeat after a lost answer buys nothing twice.

Before the first byte is sent, the UUIDs that the command chose are written down under a digest of the submission, and
struck out once the service has answered. If the answer is lost, or the command dies, the same submission finds them
again: the service then recognises the tasks that it has, and takes in only those that never arrived.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rushes_cli.exits import UsageError


class Journal:
    """One submission's UUIDs, kept in the user's state directory."""

    def __init__(self, environment: Mapping[str, str], digest: str) -> None:
        home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        self._path = Path(home) / "rushes" / "submissions" / f"{digest[:40]}.json"

    def open(self, count: int, *, fresh: bool = False) -> tuple[list[str], float | None]:
        """So many UUIDs, and when they were written down by an earlier run that never heard an answer.

        `fresh` forgets that run. Raises `UsageError` where nothing can be written: without it nothing is bought.
        """
        found = None if fresh else self._read(count)
        if found:
            return found
        uuids = [str(uuid.uuid4()) for _ in range(count)]
        self._write(uuids)
        return uuids, None

    def close(self) -> None:
        """The service has answered: the same submission given again is a new one."""
        self._path.unlink(missing_ok=True)

    def _read(self, count: int) -> tuple[list[str], float] | None:
        try:
            kept = json.loads(self._path.read_text())
            uuids, at = [str(uuid.UUID(each)) for each in kept["taskUUIDs"]], float(kept["at"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return (uuids, at) if len(uuids) == count else None

    def _write(self, uuids: Sequence[str]) -> None:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with fresh.open("w") as file:
                json.dump({"at": time.time(), "taskUUIDs": uuids}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise UsageError(f"{self._path.parent}: {error.strerror}; the taskUUIDs have to be kept there") from None

"""The taskUUIDs of unfinished submissions, so that a repeat after a lost response buys nothing twice.

Before the first byte is sent, the generated UUIDs are stored under a digest of the submission. They are deleted once
the service has responded. If the response is lost or the command is killed, the same submission reuses them: the
service then recognises the tasks that it has and records only the others.
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
    """The UUIDs of one submission, stored in the user's state directory."""

    def __init__(self, environment: Mapping[str, str], digest: str) -> None:
        home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        self._path = Path(home) / "rushes" / "submissions" / f"{digest[:40]}.json"

    def open(self, count: int, *, fresh: bool = False) -> tuple[list[str], float | None]:
        """Returns `count` UUIDs, and the time (Unix seconds) of the earlier run without a response that stored them.

        The time is None for new UUIDs. `fresh` ignores an earlier run. Raises `UsageError` if the file cannot be
        written: without it nothing is bought.
        """
        found = None if fresh else self._read(count)
        if found:
            return found
        uuids = [str(uuid.uuid4()) for _ in range(count)]
        self._write(uuids)
        return uuids, None

    def close(self) -> None:
        """Deletes the UUIDs after a response, so that the same submission becomes a new order."""
        self._path.unlink(missing_ok=True)

    def _read(self, count: int) -> tuple[list[str], float] | None:
        try:
            content = json.loads(self._path.read_text())
            uuids, at = [str(uuid.UUID(each)) for each in content["taskUUIDs"]], float(content["at"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return (uuids, at) if len(uuids) == count else None

    def _write(self, uuids: Sequence[str]) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("w") as file:
                json.dump({"at": time.time(), "taskUUIDs": uuids}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise UsageError(f"{self._path.parent}: {error.strerror}; the taskUUIDs have to be stored there") from None

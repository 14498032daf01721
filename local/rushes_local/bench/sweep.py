"""One sweep of `reconcile` over many due clips, in memory: how often it asks Runware, how fast, and in how much memory.

The table makes each clip when it is read and forgets it when it is saved, so that what grows is the sweep's own.
`python -m rushes_local.bench.sweep 10000` prints the figures as JSON.
"""

import json
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from rushes.clip import Clip, Fact, Kind, Task, Witness, merge
from rushes.concurrency import side_by_side
from rushes.media import Probed
from rushes.observability import Metric
from rushes.purchasing import Buyer, Credentials, Purchasing
from rushes.reconciling import Reconciling
from rushes.rescue import Rescue
from rushes.runware.answers import Envelope, Report, Result
from rushes_local.bench.cases import timings

_HOUR = 3_600_000  # milliseconds


@dataclass(frozen=True)
class Swept:
    """What a sweep did. `seconds` are of processor time, `peak_mb` is the whole process's memory at its largest."""

    clips: int
    requests: int
    seconds: float
    peak_mb: float

    @property
    def requests_a_clip(self) -> float:
        return self.requests / self.clips

    @property
    def clips_a_second(self) -> float:
        return self.clips / self.seconds


class _Table:
    """So many clips, all of them running and due, each listed once."""

    def __init__(self, clips: int) -> None:
        self._clips, self._listed = clips, 0

    def due(self, now: int, most: int) -> Sequence[tuple[str, str, int]]:
        first, self._listed = self._listed, min(self._listed + most, self._clips)
        return [("alice", _uuid(number), 0) for number in range(first, self._listed)]

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        created_at = _now() - _HOUR // 4
        clip = Clip(
            caller=caller,
            task_uuid=task_uuid,
            index=index,
            clip_uuid=task_uuid,
            object_key=f"videos/{caller}/2026/11/24/{task_uuid}-{index}.mp4",
            estimate=924_000,
            month="2026-11",
            created_at=created_at,
            counted=924_000,
            next_check_at=created_at,
        )
        return merge(clip, Fact(kind=Kind.ACCEPTED, key="acknowledged", at=created_at, witness=Witness.SUBMISSION))

    def save(self, before: Clip, after: Clip) -> Clip:
        return replace(after, version=before.version + 1)

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        return 0, None

    def task(self, caller: str, task_uuid: str) -> Task | None:
        return None

    def postpone(self, name: tuple[str, str, int], now: int, until: int) -> None:
        raise AssertionError("every clip can be read")


class _Bucket:
    """Nothing has been uploaded."""

    def probe(self, key: str, version: str | None = None) -> Probed | None:
        return None


class _Runware:
    """Everything is being rendered."""

    def __init__(self) -> None:
        self.requests = 0

    def poll(self, task_uuids: Sequence[str], key: str) -> Report:
        self.requests += 1
        return Report(Envelope(tuple(Result(task_uuid) for task_uuid in task_uuids), ()), proper=True)

    def details(self, task_uuid: str, key: str) -> Report:
        raise AssertionError("running clips are polled")


class _Silent:
    """Telemetry that nobody reads."""

    def count(self, metric: Metric, amount: int = 1) -> None: ...

    def note(self, message: str, *, warn: bool = False, **details: object) -> None:
        if warn:
            raise AssertionError(f"{message}: {details}")


def sweep(clips: int) -> Swept:
    """The use case as `reconcile` wires it, on a table of so many due clips."""
    runware, telemetry = _Runware(), _Silent()
    reconciling = Reconciling(
        table=_Table(clips),
        bucket=_Bucket(),
        provider=runware,
        rescuer=cast(Rescue, None),  # nothing is rendered, so nothing is rescued
        purchasing=cast(Purchasing, None),  # everything is running, so nothing is sent
        telemetry=telemetry,
        times=timings(),
        when_ambiguous="resend",
        clock=_now,
        side_by_side=side_by_side,
    )
    before = time.process_time()
    taken = reconciling.sweep(Buyer("bench", _now() + _HOUR, Credentials("key", ["key"]), patient=True))
    seconds = time.process_time() - before
    if taken != clips:
        raise AssertionError(f"took {taken} of {clips}")
    return Swept(clips, runware.requests, seconds, _peak_mb())


def _uuid(number: int) -> str:
    return f"{number % 2**32:08x}-0000-4000-8000-{number:012x}"


def _now() -> int:
    return time.time_ns() // 1_000_000


def _peak_mb() -> float:
    """Of this program: what `getrusage` says on Linux begins with the size of the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(sweep(int(sys.argv[1])))))

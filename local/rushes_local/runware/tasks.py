"""The tasks that the emulated Runware knows, what they turned into, and what it charged for them.

Everything is in memory, under one lock, and every change is one method. What is hidden here: how a task's record is
kept. What is *not* here: HTTP in either direction and waiting of any kind.
"""

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rushes_local.runware.faults import Faults, Switches
from rushes_local.runware.rendering import CONTAINERS, Container

Json = dict[str, Any]

MICRO_DOLLARS_PER_SECOND = 184_800


@dataclass(frozen=True)
class Charge:
    """One render that Runware would have put on the bill. `at` is in seconds since the epoch."""

    task_uuid: str
    video_uuid: str
    micro_dollars: int
    at: float


@dataclass
class Video:
    """What videoURL serves, until `expires` (seconds since the epoch), if it ever does."""

    content: bytes
    container: Container
    expires: float | None
    reads: int = 0


@dataclass
class Execution:
    """One execution of a task: several only when a switch lets a UUID be bought again."""

    task: Json
    overrides: Json
    accepted_at: float
    released: bool = False
    results: list[Json] = field(default_factory=list)
    failure: Json | None = None
    delivery_failures: list[Json] = field(default_factory=list)
    finished_at: float | None = None
    # How many results and failures are to be called in, the webhooks about them that the switch webhook_reordered
    # keeps back, and the sign that the first one was sent.
    calls_due: int = 0
    kept_calls: list[Any] = field(default_factory=list)
    called: threading.Event = field(default_factory=threading.Event)

    @property
    def uuid(self) -> str:
        return str(self.task["taskUUID"])

    @property
    def wanted(self) -> int:
        return int(self.task.get("numberResults", 1))

    @property
    def seconds(self) -> int:
        return int(self.task.get("duration", 5))

    @property
    def status(self) -> str:
        if len(self.results) == self.wanted:
            return "success"
        return "error" if self.failure else "processing"

    def item(self, **fields: Any) -> Json:
        """An item about this task, as it is on the wire."""
        return {"taskType": self.task["taskType"], "taskUUID": self.task["taskUUID"], **fields}


class Book:
    """All tasks by UUID, all videos, all charges."""

    def __init__(self, clock: Callable[[], float], faults: Faults) -> None:
        self._clock = clock
        self._faults = faults
        self._lock = threading.RLock()
        self._runs: dict[str, list[Execution]] = {}
        self._last_answers: dict[str, Json] = {}
        self._videos: dict[str, Video] = {}
        self._charges: list[Charge] = []

    def switches(self, run: Execution) -> Switches:
        """What applies to this task now: the permanent switches, under its own one-shot ones."""
        return self._faults.over(run.overrides)

    def accept(self, task: Json, overrides: Json) -> Execution | None:
        """Take the task in; None when its UUID is refused as known."""
        with self._lock:
            runs = self._runs.setdefault(task["taskUUID"].lower(), [])
            if runs and self._refuses(runs[-1]):
                return None
            run = Execution(task, overrides, self._clock())
            runs.append(run)
            self._last_answers[run.uuid.lower()] = {"data": [run.item()]}
            return run

    def _refuses(self, known: Execution) -> bool:
        switches = self.switches(known)
        return switches.refuses_running if known.finished_at is None else switches.refuses_finished

    def remember_refusal(self, task_uuid: str, refusal: Json) -> None:
        """A refused repeat is what getTaskDetails shows from then on as the last response."""
        with self._lock:
            self._last_answers[task_uuid.lower()] = {"data": [], "errors": [refusal]}

    def release(self, task_uuid: str | None) -> list[Execution]:
        """The runs that had not been let go yet: those of this UUID, or all."""
        with self._lock:
            found = [run for runs in self._runs.values() for run in runs]
            fresh = [run for run in found if not run.released and task_uuid in (None, run.uuid.lower())]
            for run in fresh:
                run.released = True
            return fresh

    def format(self, run: Execution) -> str:
        """The outputFormat that this task's renders have."""
        return self.switches(run).result_format or str(run.task.get("outputFormat", "MP4"))

    def rendered(self, run: Execution, content: bytes, base_url: str) -> tuple[Json, Video]:
        """Charge for a render and make its result item; polls do not see it before `publish`."""
        switches = self.switches(run)
        video_uuid = str(uuid.uuid4())
        now = self._clock()
        price = MICRO_DOLLARS_PER_SECOND * run.seconds * switches.price_percent // 100
        ttl = run.task.get("ttl")
        container = CONTAINERS[self.format(run)]
        video = Video(content, container, None if ttl is None else now + ttl)
        with self._lock:
            self._charges.append(Charge(run.uuid, video_uuid, price, now))
            self._videos[video_uuid] = video
        result = run.item(videoUUID=video_uuid)
        if switches.result_url:
            result["videoURL"] = f"{base_url}/video/os/a02d21/ws/5/vi/{video_uuid}{container.suffix}"
        result["seed"] = random.Random(video_uuid).randrange(1, 2**31)
        if _checks_safety(run.task) or switches.result_nsfw:
            result["NSFWContent"] = switches.result_nsfw
        if run.task.get("includeCost") and switches.result_cost:
            result["cost"] = price / 1_000_000
        return result, video

    def publish(self, run: Execution, result: Json) -> None:
        """From now on polls and getTaskDetails tell this result."""
        with self._lock:
            run.calls_due += 1
            run.failure = None
            run.results.append(result)
            if len(run.results) == run.wanted:
                run.finished_at = self._clock()
            self._last_answers[run.uuid.lower()] = {"data": list(run.results)}

    def fail(self, run: Execution, failure: Json) -> None:
        """From now on polls and getTaskDetails tell this failure."""
        with self._lock:
            run.calls_due += self.switches(run).webhook_on_failure
            run.failure = failure
            run.finished_at = self._clock()
            self._last_answers[run.uuid.lower()] = {"data": [], "errors": [failure]}

    def delivery_failed(self, run: Execution, failure: Json) -> None:
        """Note that an upload or a webhook came to nothing."""
        with self._lock:
            run.delivery_failures.append(failure)

    def keep_call(self, run: Execution, body: Any) -> list[Any]:
        """Keep a webhook back until the task is over; then all that were kept, last first."""
        with self._lock:
            run.kept_calls.append(body)
            may_recover = run.failure is not None and self.switches(run).recovers_seconds is not None
            if run.status == "processing" or may_recover or len(run.kept_calls) < run.calls_due:
                return []
            calls, run.kept_calls = run.kept_calls[::-1], []
            return calls

    def polled(self, task_uuid: str) -> tuple[list[Json], list[Json]] | None:
        """What getResponse tells of this UUID, as data and errors; None when it does not know it."""
        with self._lock:
            runs = self._runs.get(task_uuid.lower())
            if not runs or self._is_forgotten(runs[-1]):
                return None
            run = runs[-1]
            data = [{**result, "status": "success"} for result in run.results]
            errors = [run.failure] if run.failure else []
            if (tells := self.switches(run).reports_delivery_failure) != "no" and run.delivery_failures:
                errors = errors + run.delivery_failures
                data = [] if tells == "instead" else data
            if not errors and run.status == "processing":
                data.append(run.item(status="processing"))
            return data, errors

    def _is_forgotten(self, run: Execution) -> bool:
        switches = self.switches(run)
        if run.finished_at is None:
            return not switches.finds_running
        kept = switches.finds_finished_seconds
        return kept is not None and self._clock() - run.finished_at > kept

    def details(self, task_uuid: str) -> Json | None:
        """The stored request and the last answer about it."""
        with self._lock:
            runs = self._runs.get(task_uuid.lower())
            if not runs:
                return None
            return {"request": [runs[-1].task], "response": self._last_answers[task_uuid.lower()]}

    def video(self, video_uuid: str) -> Video | None:
        """The video to serve; None when there is none or its time is over."""
        with self._lock:
            video = self._videos.get(video_uuid)
            if video is None or (video.expires is not None and self._clock() > video.expires):
                return None
            video.reads += 1
            return video

    def charges(self) -> list[Charge]:
        with self._lock:
            return list(self._charges)

    def runs(self) -> list[Execution]:
        """All runs, in the order in which they were accepted."""
        with self._lock:
            return sorted((run for runs in self._runs.values() for run in runs), key=lambda run: run.accepted_at)

    def clear(self) -> None:
        with self._lock:
            for records in (self._runs, self._last_answers, self._videos):
                records.clear()
            self._charges.clear()


def _checks_safety(task: Json) -> bool:
    safety = task.get("safety", {})
    # Given both, the mode wins.
    if "mode" in safety:
        return bool(safety["mode"] != "none")
    return bool(safety.get("checkContent", False))

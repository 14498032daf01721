"""The emulator's tasks, with their results, failures and charges.

Everything is in memory, under one lock, and every change is one method. Hides the storage of the tasks. Does no HTTP
requests and never waits.
"""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rushes_local.runware.faults import Faults, Switches
from rushes_local.runware.rendering import CONTAINERS, Container
from rushes_local.runware.validation import price as price_of

Json = dict[str, Any]


@dataclass(frozen=True)
class Charge:
    """The charge for one render. `at` is in seconds since the epoch."""

    task_uuid: str
    video_uuid: str
    micro_dollars: int
    at: float


@dataclass
class Video:
    """A rendered video, available at videoURL until `expires`, in seconds since the epoch; None: permanently."""

    content: bytes
    container: Container
    expires: float | None
    reads: int = 0


@dataclass
class Execution:
    """One execution of a task. A task has several only if a switch allows that its UUID is bought again."""

    task: Json
    overrides: Json
    accepted_at: float
    released: bool = False
    results: list[Json] = field(default_factory=list)
    failure: Json | None = None
    delivery_failures: list[Json] = field(default_factory=list)
    finished_at: float | None = None
    # The number of webhooks to send, those delayed by the switch webhook_reordered, and an event that is set when the
    # first one has been sent.
    calls_due: int = 0
    delayed_calls: list[Any] = field(default_factory=list)
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
        """An item of a response or webhook about this task."""
        return {"taskType": self.task["taskType"], "taskUUID": self.task["taskUUID"], **fields}


class TaskBook:
    """All tasks by UUID, all videos and all charges."""

    def __init__(self, clock: Callable[[], float], faults: Faults) -> None:
        self._clock = clock
        self._faults = faults
        self._lock = threading.RLock()
        self._runs: dict[str, list[Execution]] = {}
        self._last_answers: dict[str, Json] = {}
        self._videos: dict[str, Video] = {}
        self._charges: list[Charge] = []

    def switches(self, run: Execution) -> Switches:
        """The task's current switches: the permanent ones, overridden by its one-shot ones."""
        return self._faults.with_overrides(run.overrides)

    def accept(self, task: Json, overrides: Json) -> Execution | None:
        """Record the task and return its execution; None if its UUID is refused as a repeat."""
        with self._lock:
            runs = self._runs.setdefault(task["taskUUID"].lower(), [])
            if runs and self._refuses(runs[-1]):
                return None
            run = Execution(task, overrides, self._clock())
            runs.append(run)
            self._last_answers[run.uuid.lower()] = {"data": [run.item()]}
            return run

    def _refuses(self, earlier: Execution) -> bool:
        switches = self.switches(earlier)
        return switches.refuses_running if earlier.finished_at is None else switches.refuses_finished

    def remember_refusal(self, task_uuid: str, refusal: Json) -> None:
        """Store the refusal of a repeat as the last response for getTaskDetails."""
        with self._lock:
            self._last_answers[task_uuid.lower()] = {"data": [], "errors": [refusal]}

    def release(self, task_uuid: str | None) -> list[Execution]:
        """Mark the waiting runs of this UUID as released, or all waiting runs; returns them."""
        with self._lock:
            found = [run for runs in self._runs.values() for run in runs]
            fresh = [run for run in found if not run.released and task_uuid in (None, run.uuid.lower())]
            for run in fresh:
                run.released = True
            return fresh

    def format(self, run: Execution) -> str:
        """The outputFormat of this task's renders."""
        return self.switches(run).result_format or str(run.task.get("outputFormat", "MP4"))

    def rendered(self, run: Execution, content: bytes, base_url: str, seed: int) -> tuple[Json, Video]:
        """Record a render and its charge; returns its result item and video. Polls find it after `publish`."""
        switches = self.switches(run)
        video_uuid = str(uuid.uuid4())
        now = self._clock()
        price = price_of(run.task, run.seconds) * switches.price_percent // 100
        ttl = run.task.get("ttl")
        container = CONTAINERS[self.format(run)]
        video = Video(content, container, None if ttl is None else now + ttl)
        with self._lock:
            self._charges.append(Charge(run.uuid, video_uuid, price, now))
            self._videos[video_uuid] = video
        result = run.item(videoUUID=video_uuid)
        if switches.result_url:
            result["videoURL"] = f"{base_url}/video/os/a02d21/ws/5/vi/{video_uuid}{container.suffix}"
        result["seed"] = seed
        if _checks_safety(run.task) or switches.result_nsfw:
            result["NSFWContent"] = switches.result_nsfw
        if run.task.get("includeCost") and switches.result_cost:
            result["cost"] = price / 1_000_000
        return result, video

    def publish(self, run: Execution, result: Json) -> None:
        """Add this result to the responses of polls and getTaskDetails."""
        with self._lock:
            run.calls_due += 1
            run.failure = None
            run.results.append(result)
            if len(run.results) == run.wanted:
                run.finished_at = self._clock()
            self._last_answers[run.uuid.lower()] = {"data": list(run.results)}

    def fail(self, run: Execution, failure: Json) -> None:
        """Record this failure for the responses of polls and getTaskDetails."""
        with self._lock:
            run.calls_due += self.switches(run).webhook_on_failure
            run.failure = failure
            run.finished_at = self._clock()
            self._last_answers[run.uuid.lower()] = {"data": [], "errors": [failure]}

    def delivery_failed(self, run: Execution, failure: Json) -> None:
        """Record a failed upload or webhook."""
        with self._lock:
            run.delivery_failures.append(failure)

    def delay_call(self, run: Execution, body: Any) -> list[Any]:
        """Delay a webhook until the task's end. Returns the webhooks to send now: none, or all of them, last first."""
        with self._lock:
            run.delayed_calls.append(body)
            may_recover = run.failure is not None and self.switches(run).recovers_seconds is not None
            if run.status == "processing" or may_recover or len(run.delayed_calls) < run.calls_due:
                return []
            calls, run.delayed_calls = run.delayed_calls[::-1], []
            return calls

    def polled(self, task_uuid: str) -> tuple[list[Json], list[Json]] | None:
        """The data and errors of getResponse for this UUID; None if it does not find the task."""
        with self._lock:
            runs = self._runs.get(task_uuid.lower())
            if not runs or self._is_forgotten(runs[-1]):
                return None
            run = runs[-1]
            data = [{**result, "status": "success"} for result in run.results]
            errors = [run.failure] if run.failure else []
            if (reports := self.switches(run).reports_delivery_failure) != "no" and run.delivery_failures:
                errors = errors + run.delivery_failures
                data = [] if reports == "instead" else data
            if not errors and run.status == "processing":
                data.append(run.item(status="processing"))
            return data, errors

    def _is_forgotten(self, run: Execution) -> bool:
        switches = self.switches(run)
        if run.finished_at is None:
            return not switches.finds_running
        limit = switches.finds_finished_seconds
        return limit is not None and self._clock() - run.finished_at > limit

    def details(self, task_uuid: str) -> Json | None:
        """The stored request and the last response about it; None for an unknown task."""
        with self._lock:
            runs = self._runs.get(task_uuid.lower())
            if not runs:
                return None
            return {"request": [runs[-1].task], "response": self._last_answers[task_uuid.lower()]}

    def video(self, video_uuid: str) -> Video | None:
        """The video; None if it does not exist or has expired. Counts as a download."""
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
        """All runs, in the order of their acceptance."""
        with self._lock:
            return sorted((run for runs in self._runs.values() for run in runs), key=lambda run: run.accepted_at)

    def clear(self) -> None:
        with self._lock:
            for records in (self._runs, self._last_answers, self._videos):
                records.clear()
            self._charges.clear()


def _checks_safety(task: Json) -> bool:
    safety = task.get("safety", {})
    # With both parameters, the mode takes precedence.
    if "mode" in safety:
        return bool(safety["mode"] != "none")
    return bool(safety.get("checkContent", False))

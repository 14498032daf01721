"""Callers that order continuously during failures, and record the answers.

Hides their requests: new tasks, repeats, the same task twice at once, conflicts, and invalid tasks. `judgement`
compares the answers with the table later.
"""

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from rushes_local.stack import Stack

Json = dict[str, Any]
TaskName = tuple[str, str]
"""Caller and taskUUID."""

PROMPTS = ("a lighthouse at dusk", "rain on a tin roof", "a fox crossing a frozen river")
FORMATS = ("MP4", "MP4", "WEBM", "MOV")
_TIMEOUT = 35.0  # seconds; the gateway's own timeout is 30

# Each makes a valid task invalid.
_FLAWS: tuple[Json, ...] = (
    {"duration": 7},
    {"positivePrompt": "x"},
    {"numberResults": 5},
    {"model": "klingai:5@4"},
    {"webhookURL": "https://example.test/mine"},
)


@dataclass(frozen=True)
class Caller:
    """A caller with its API key and its monthly limit in micro-dollars."""

    name: str
    key: str = field(repr=False)
    limit: int


@dataclass
class CallerHistory:
    """The requests of all callers, and the answers that they got.

    `withdrawn` are accepted tasks whose repeat, sent after the end of the failures, was not accepted. `contradictions`
    are descriptions of answers that no caller may get.
    """

    requests: dict[TaskName, Json] = field(default_factory=dict)
    accepted: set[TaskName] = field(default_factory=set)
    withdrawn: set[TaskName] = field(default_factory=set)
    invalid: set[TaskName] = field(default_factory=set)
    contradictions: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Threads that send about `pace` orders a second in total, from `start` to `stop`."""

    def __init__(self, stack: Stack, callers: Sequence[Caller], seed: int, *, pace: float, threads: int = 3) -> None:
        self.history = CallerHistory()
        self._client = httpx.Client(base_url=stack.url, timeout=_TIMEOUT, trust_env=False)
        self._callers = callers
        self._pause = threads / pace
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._order, args=(random.Random(f"{seed}-{number}"),), name=f"caller-{number}")
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no further order, and wait for the outstanding answers."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT)

    def repeat_accepted(self, limit: int) -> None:
        """Repeat at most `limit` accepted tasks after the end of the failures."""
        callers = {caller.name: caller for caller in self._callers}
        for name in sorted(self.history.accepted)[:limit]:
            answer = self._post(callers[name[0]], [self.history.requests[name]])
            if not _items_of(answer.get("data", []), name[1]):
                self.history.withdrawn.add(name)

    def _order(self, chance: random.Random) -> None:
        while not self._stopping.wait(chance.uniform(0, 2 * self._pause)):
            self._pick(chance)(chance.choice(self._callers), chance)

    def _pick(self, chance: random.Random) -> Callable[[Caller, random.Random], None]:
        kinds = {
            self._new: 10,
            self._several: 2,
            self._at_once: 2,
            self._repeat: 4,
            self._conflict: 1,
            self._invalid: 2,
        }
        return chance.choices(list(kinds), list(kinds.values()))[0]

    def _new(self, caller: Caller, chance: random.Random) -> None:
        self._send(caller, [self._task(caller, chance)])

    def _several(self, caller: Caller, chance: random.Random) -> None:
        """Two valid tasks and an invalid one, which must not affect the others."""
        self._send(caller, [self._task(caller, chance), self._invalid_task(caller, chance), self._task(caller, chance)])

    def _at_once(self, caller: Caller, chance: random.Random) -> None:
        task = self._task(caller, chance)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: self._send(caller, [task]), range(2)))

    def _repeat(self, caller: Caller, chance: random.Random) -> None:
        """A repeat of an earlier task of the caller, answered or not."""
        with self._lock:
            earlier = [request for (name, _), request in self.history.requests.items() if name == caller.name]
        if earlier:
            self._send(caller, [chance.choice(earlier)])

    def _conflict(self, caller: Caller, chance: random.Random) -> None:
        """A different task under the UUID of an accepted one."""
        with self._lock:
            accepted = [uuid for name, uuid in self.history.accepted if name == caller.name]
        if not accepted:
            return
        order = {
            **self._new_task(chance),
            "taskUUID": chance.choice(sorted(accepted)),
            "positivePrompt": "another order",
        }
        if _items_of(self._post(caller, [order]).get("data", []), order["taskUUID"]):
            self._contradict("a conflicting task was accepted", order)

    def _invalid(self, caller: Caller, chance: random.Random) -> None:
        self._send(caller, [self._invalid_task(caller, chance)])

    def _new_task(self, chance: random.Random) -> Json:
        return {
            "taskType": "videoInference",
            "taskUUID": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "model": "klingai:5@3",
            "positivePrompt": chance.choice(PROMPTS),
            "duration": chance.choice((5, 5, 10)),
            "outputFormat": chance.choice(FORMATS),
            "numberResults": chance.choice((1, 1, 1, 2, 4)),
        }

    def _task(self, caller: Caller, chance: random.Random) -> Json:
        task = self._new_task(chance)
        with self._lock:
            self.history.requests[caller.name, task["taskUUID"]] = task
        return task

    def _invalid_task(self, caller: Caller, chance: random.Random) -> Json:
        task = {**self._new_task(chance), **chance.choice(_FLAWS)}
        with self._lock:
            self.history.invalid.add((caller.name, task["taskUUID"]))
        return task

    def _send(self, caller: Caller, tasks: Sequence[Json]) -> None:
        answer = self._post(caller, tasks)
        data, errors = answer.get("data", []), answer.get("errors", [])
        for task in tasks:
            name = caller.name, task["taskUUID"]
            accepted, refused = _items_of(data, name[1]), _items_of(errors, name[1])
            with self._lock:
                self.history.counts.update({"accepted": bool(accepted), "refused": bool(refused)})
                if accepted:
                    self.history.accepted.add(name)
            if accepted and refused:
                self._contradict("accepted and refused in one answer", task)
            if accepted and name in self.history.invalid:
                self._contradict("an invalid task was accepted", task)

    def _post(self, caller: Caller, tasks: Sequence[Json]) -> Json:
        """The answer's envelope; empty if there was none."""
        with self._lock:
            self.history.counts["requests"] += 1
        headers = {"Authorization": f"Bearer {caller.key}"}
        try:
            answer = self._client.post("/v1", json=list(tasks), headers=headers).json()
        except (httpx.HTTPError, ValueError):
            answer = {}
        if isinstance(answer, dict) and {"data", "errors"} & answer.keys():
            return answer
        with self._lock:
            self.history.counts["unanswered"] += 1
        return {}

    def _contradict(self, text: str, task: Json) -> None:
        with self._lock:
            self.history.contradictions.append(f"{text}: task {task['taskUUID']}")


def _items_of(items: Sequence[Json], task_uuid: str) -> list[Json]:
    return [item for item in items if item.get("taskUUID") == task_uuid]

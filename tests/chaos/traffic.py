"""Callers who keep ordering while everything around them fails, and who remember what they were told.

Hides what they send: good tasks, the same task again or twice at once, other tasks under a known UUID, and nonsense.
What they were told is held against the records later, by `judgement`.
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
_PATIENCE = 35.0  # seconds; the gateway gives up after 30

# Each makes a good task into one that must be refused.
_FLAWS: tuple[Json, ...] = (
    {"duration": 7},
    {"positivePrompt": "x"},
    {"numberResults": 5},
    {"model": "klingai:5@4"},
    {"webhookURL": "https://example.test/mine"},
)


@dataclass(frozen=True)
class Caller:
    """Who orders, with which key, and what a month may cost, in micro-dollars."""

    name: str
    key: str = field(repr=False)
    limit: int


@dataclass
class Heard:
    """What callers sent and were told.

    `taken_back` are accepted tasks of which a repeat, sent when all was well, was not told so again. `contradictions`
    are answers that no caller should ever get, in words.
    """

    requests: dict[TaskName, Json] = field(default_factory=dict)
    accepted: set[TaskName] = field(default_factory=set)
    taken_back: set[TaskName] = field(default_factory=set)
    nonsense: set[TaskName] = field(default_factory=set)
    contradictions: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Threads that order about `pace` times a second in all, from the first `start` until `stop`."""

    def __init__(self, stack: Stack, callers: Sequence[Caller], seed: int, *, pace: float, threads: int = 3) -> None:
        self.heard = Heard()
        self._client = httpx.Client(base_url=stack.url, timeout=_PATIENCE, trust_env=False)
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
        """Order nothing more, and wait for the answers that are still to come."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * _PATIENCE)

    def ask_again(self, most: int) -> None:
        """Repeat accepted tasks, at most so many, once everything is well."""
        callers = {caller.name: caller for caller in self._callers}
        for name in sorted(self.heard.accepted)[:most]:
            answer = self._post(callers[name[0]], [self.heard.requests[name]])
            if not _named(answer.get("data", []), name[1]):
                self.heard.taken_back.add(name)

    def _order(self, chance: random.Random) -> None:
        while not self._stopping.wait(chance.uniform(0, 2 * self._pause)):
            self._pick(chance)(chance.choice(self._callers), chance)

    def _pick(self, chance: random.Random) -> Callable[[Caller, random.Random], None]:
        kinds = {self._new: 10, self._several: 2, self._at_once: 2, self._again: 4, self._other: 1, self._nonsense: 2}
        return chance.choices(list(kinds), list(kinds.values()))[0]

    def _new(self, caller: Caller, chance: random.Random) -> None:
        self._send(caller, [self._task(caller, chance)])

    def _several(self, caller: Caller, chance: random.Random) -> None:
        """Two good tasks, and one that must not take them along."""
        self._send(caller, [self._task(caller, chance), self._flawed(caller, chance), self._task(caller, chance)])

    def _at_once(self, caller: Caller, chance: random.Random) -> None:
        task = self._task(caller, chance)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: self._send(caller, [task]), range(2)))

    def _again(self, caller: Caller, chance: random.Random) -> None:
        """What a caller does who got no answer, or has forgotten that it got one."""
        with self._lock:
            known = [request for (name, _), request in self.heard.requests.items() if name == caller.name]
        if known:
            self._send(caller, [chance.choice(known)])

    def _other(self, caller: Caller, chance: random.Random) -> None:
        """Another order under a UUID that is taken."""
        with self._lock:
            taken = [uuid for name, uuid in self.heard.accepted if name == caller.name]
        if not taken:
            return
        order = {**self._good(chance), "taskUUID": chance.choice(sorted(taken)), "positivePrompt": "another order"}
        if _named(self._post(caller, [order]).get("data", []), order["taskUUID"]):
            self._contradict("another order was accepted under a taken UUID", order)

    def _nonsense(self, caller: Caller, chance: random.Random) -> None:
        self._send(caller, [self._flawed(caller, chance)])

    def _good(self, chance: random.Random) -> Json:
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
        task = self._good(chance)
        with self._lock:
            self.heard.requests[caller.name, task["taskUUID"]] = task
        return task

    def _flawed(self, caller: Caller, chance: random.Random) -> Json:
        task = {**self._good(chance), **chance.choice(_FLAWS)}
        with self._lock:
            self.heard.nonsense.add((caller.name, task["taskUUID"]))
        return task

    def _send(self, caller: Caller, tasks: Sequence[Json]) -> None:
        answer = self._post(caller, tasks)
        data, errors = answer.get("data", []), answer.get("errors", [])
        for task in tasks:
            name = caller.name, task["taskUUID"]
            accepted, refused = _named(data, name[1]), _named(errors, name[1])
            with self._lock:
                self.heard.counts.update({"accepted": bool(accepted), "refused": bool(refused)})
                if accepted:
                    self.heard.accepted.add(name)
            if accepted and refused:
                self._contradict("accepted and refused in one answer", task)
            if accepted and name in self.heard.nonsense:
                self._contradict("nonsense was accepted", task)

    def _post(self, caller: Caller, tasks: Sequence[Json]) -> Json:
        """The answer's envelope; empty when there was none."""
        with self._lock:
            self.heard.counts["requests"] += 1
        headers = {"Authorization": f"Bearer {caller.key}"}
        try:
            answer = self._client.post("/v1", json=list(tasks), headers=headers).json()
        except (httpx.HTTPError, ValueError):
            answer = {}
        if isinstance(answer, dict) and {"data", "errors"} & answer.keys():
            return answer
        with self._lock:
            self.heard.counts["unanswered"] += 1
        return {}

    def _contradict(self, what: str, task: Json) -> None:
        with self._lock:
            self.heard.contradictions.append(f"{what}: task {task['taskUUID']}")


def _named(items: Sequence[Json], task_uuid: str) -> list[Json]:
    return [item for item in items if item.get("taskUUID") == task_uuid]

"""The time from a render's end to `Clip Stored` on the event bus, on the local stack, for each way to a stored clip.

Real time passes, with the template's own intervals, so that a run takes minutes, most of them waiting. Hides the
stacks, the faults, and the two ends of the measured time.
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rushes_local.aws.application import Access
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import Stack

_CALLER = "whole-way"
_LIMIT_USD = 10_000
_TRIES = 10
_STORED = "Clip Stored"
_PATIENCE = 600.0  # seconds after the usual render, before a clip counts as missing
# Of a short run.
_CALL_SECONDS = {"HTTP_TIMEOUT": 5.0, "FUNCTION_TIMEOUT": 20.0, "LEASE": 25.0, "RESEND_WINDOW": 30.0}
_USUAL_RENDER = 240.0  # seconds, the template's default


class DelayError(Exception):
    """A clip was not stored in time, so the figures are worthless."""


@dataclass(frozen=True)
class Way:
    """A way to a stored clip, and the emulator's faults that lead to it."""

    title: str
    switches: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """A stack with clips of several ways. Their renders take between `renders` seconds. `options` are the stack's."""

    ways: Sequence[Way]
    renders: tuple[float, float]
    options: Mapping[str, Any] = field(default_factory=dict)


_NO_WEBHOOK = {"webhook_copies": 0}
_RUNS = (
    _Run(
        ways=(
            Way("webhook"),
            Way("webhook lost: the bucket's event", _NO_WEBHOOK),
            Way("upload lost: rescue after the webhook", {"upload": "never"}),
        ),
        # Over a minute, so that the renders end at any time between two sweeps.
        renders=(5.0, 65.0),
    ),
    _Run(
        ways=(Way("webhook and the bucket's event lost: poll", _NO_WEBHOOK),),
        # The last minute before the first poll, which comes after the usual render.
        renders=(_USUAL_RENDER - 60, _USUAL_RENDER),
        options={"queues": False},
    ),
)

WAYS = [way for run in _RUNS for way in run.ways]


def measure(root: Path, clips: int, scale: float = 1.0) -> dict[str, list[float]]:
    """Seconds of each clip, sorted, by the way's title; `clips` of each way. `scale` shortens every interval."""
    return {title: sorted(seconds) for run in _RUNS for title, seconds in _measure(root, run, clips, scale).items()}


def percentile(seconds: Sequence[float], percent: int) -> float:
    """The smallest of these sorted times within which this share of the clips is stored."""
    return seconds[max(0, -(-len(seconds) * percent // 100) - 1)]


def _measure(root: Path, run: _Run, clips: int, scale: float) -> dict[str, list[float]]:
    chance = random.Random(7)
    shortest, longest = (scale * seconds for seconds in run.renders)
    shortened: dict[str, Any] = {} if scale == 1 else _shortened(scale)
    stack = Stack(
        root,
        time_scale=scale,
        emulator_options={"small": True, "render_seconds": lambda: chance.uniform(shortest, longest)},
        parameters={"MonthlyLimitUsd": str(_LIMIT_USD), **shortened.pop("parameters", {})},
        **shortened,
        **run.options,
    )
    stored = _StoredClips()
    with stack:
        stack.aws.observer = stored.observe
        ordered = {way.title: _order(stack, way, clips) for way in run.ways}
        wanted = set().union(*ordered.values())
        if not stored.wait_for(wanted, scale * _USUAL_RENDER + _PATIENCE):
            missing = {title: sorted(found - stored.at.keys()) for title, found in ordered.items()}
            raise DelayError(f"without `{_STORED}`, of {len(wanted)} clips: {missing}")
        ended = {charge.task_uuid: charge.at for charge in stack.emulator.ledger()}
        return {title: [stored.at[each] - ended[each] for each in found] for title, found in ordered.items()}


def _shortened(scale: float) -> dict[str, Any]:
    """A stack's options for a short run: the time for a call and the leases around it are not shortened with the rest.

    With `resend` they would have to be shorter than the shortened renders.
    """
    return {
        "parameters": {"WhenAmbiguous": "review"},
        "timings": {f"{name}_SECONDS": seconds / scale for name, seconds in _CALL_SECONDS.items()},
    }


class _StoredClips:
    """The times, in Unix seconds, at which the bus accepted the first `Clip Stored` of each clip, by its UUID."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._changed = threading.Condition()

    def observe(self, access: Access) -> None:
        """Reads a request to AWS that has just been answered."""
        if access.operation != "PutEvents" or access.status != 200:
            return
        now = time.time()
        for entry in json.loads(access.request)["Entries"]:
            if entry["DetailType"] == _STORED:
                with self._changed:
                    self.at.setdefault(json.loads(entry["Detail"])["clipUUID"], now)
                    self._changed.notify_all()

    def wait_for(self, wanted: set[str], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: wanted <= self.at.keys(), seconds)


def _order(stack: Stack, way: Way, clips: int) -> set[str]:
    """Orders the clips of a way, one a task; returns their UUIDs."""
    prompt = f"a lighthouse at dusk, {way.title}"
    if way.switches:
        stack.emulator.faults.next_submissions += [OneShot(prompt, **way.switches) for _ in range(clips)]
    headers = {"Authorization": f"Bearer {stack.create_key(_CALLER, _LIMIT_USD)}"}
    tasks = [
        {
            "taskType": "videoInference",
            "taskUUID": str(uuid.uuid4()),
            "model": "klingai:5@3",
            "positivePrompt": prompt,
        }
        for _ in range(clips)
    ]
    for task in tasks:
        _send(f"{stack.url}/v1", task, headers)
    return {clip.clip_uuid for task in tasks for clip in stack.store.clips(_CALLER, task["taskUUID"])}


def _send(url: str, task: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Sends one task, and again while the service is busy, which buys it once all the same."""
    for _ in range(_TRIES):
        answer = httpx.post(url, json=[task], headers=headers, timeout=60, trust_env=False)
        if answer.status_code == 200:
            return
        if answer.status_code != 503:
            break
    raise DelayError(f"an order was answered {answer.status_code}: {answer.text}")

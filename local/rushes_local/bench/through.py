"""Through the whole local stack: tasks from submission to stored, and webhooks at a steady pace.

Everything but the functions' own processes and the sender shares one Python process here: gateway, moto and emulator.
So these figures say how the functions compare under the same load, not what AWS would make of them.
"""

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rushes import webhook_token
from rushes.clip import Clip, Fact, Kind, Task, Witness, merge
from rushes_local.bench.packages import ROOT
from rushes_local.gateway import Route
from rushes_local.runtime import Function, FunctionPool
from rushes_local.stack import Stack

_CALLER = "bench"
_BUYERS = 8
_SENDER_WAITS = 5.0  # seconds: after that Runware has hung up
_PATIENCE = 120.0  # seconds
_MOST_TIMES_SLOWER = 10  # a machine that cannot keep the pace answers in the end, and the table shows how late
_OBJECT = "videos/bench/2026/11/24/shared.mp4"
_MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x01\xfcmdat" + bytes(500)
_REFERENCES = Path(__file__).parent / "references"


@dataclass(frozen=True)
class Answered:
    """Requests at a steady pace: how many of them had no 200 in time, and seconds until each answer.

    `services` is the processor time that gateway and local AWS took for one of them, in seconds.
    """

    lost: int
    seconds: Sequence[float]
    services: float

    def percentile(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


class _Journal:
    """Counts the clips that the functions say are stored."""

    def __init__(self) -> None:
        self._stored: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, _: str, line: str) -> None:
        if '"clip is stored"' in line:
            with self._changed:
                self._stored.add(json.loads(line)["clipUUID"])
                self._changed.notify_all()

    def wait_for(self, clips: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._stored) >= clips, _PATIENCE):
                raise RuntimeError(f"{len(self._stored)} of {clips} clips were stored")


def tasks_a_second(tasks: int) -> float:
    """From the first submission to the last clip stored, with renders that take no time."""
    journal = _Journal()
    plenty = {"MonthlyLimitUsd": "1000000"}
    with Stack(ROOT, render_seconds=0.0, emulator_options={"small": True}, parameters=plenty, sink=journal) as stack:
        headers = {"Authorization": f"Bearer {stack.create_key(_CALLER, limit_usd=1_000_000)}"}
        with httpx.Client(base_url=stack.url, headers=headers, timeout=_PATIENCE, trust_env=False) as client:
            began = time.perf_counter()
            with ThreadPoolExecutor(_BUYERS) as buyers:
                list(buyers.map(lambda _: _buy(client), range(tasks)))
            journal.wait_for(tasks)
            return tasks / (time.perf_counter() - began)


def _buy(client: httpx.Client) -> None:
    task = {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
    }
    client.post("/v1", json=[task]).raise_for_status()


def webhooks(count: int, per_second: int) -> tuple[Answered, Answered, Answered]:
    """Webhooks of finished clips, each of a clip of its own; then as many requests to two receivers in the same stack.

    The first writes down what it is sent, the second asks the local AWS as much as `webhook` does.
    """
    with Stack(ROOT, render_seconds=None, schedule=False, queues=False, streams=False) as stack:
        stack.client("s3").put_object(Bucket=stack.bucket_name, Key=_OBJECT, Body=_MP4)
        keys = _signing_keys(stack)
        requests = [_webhook(clip, keys) for clip in _record(stack, count)]
        ours = _answers(stack.url, requests, per_second)
        with _receiver(stack, "floor"):
            bare = _answers(stack.url, [(f"/floor{path}", body) for path, body in requests], per_second)
        with _receiver(stack, "webhook"):
            same = _answers(stack.url, [(f"/webhook{path}", body) for path, body in requests], per_second)
    return ours, bare, same


def _record(stack: Stack, count: int) -> list[Clip]:
    """Running clips, put into the table as `submit` leaves them."""
    now = int(time.time() * 1000)

    def record(number: int) -> Clip:
        task_uuid, clip_uuid = str(uuid.uuid4()), str(uuid.uuid4())
        task = Task(caller=_CALLER, task_uuid=task_uuid, request={}, fingerprint=str(number), clips=1, created_at=now)
        clip = Clip(
            caller=_CALLER,
            task_uuid=task_uuid,
            index=0,
            clip_uuid=clip_uuid,
            object_key=_OBJECT,
            estimate=924_000,
            month="2026-11",
            created_at=now,
            counted=924_000,
            next_check_at=now + 240_000,
        )
        clip = merge(clip, Fact(kind=Kind.ACCEPTED, key="acknowledged", at=now, witness=Witness.SUBMISSION))
        stack.store.record(task, [clip], [])
        return clip

    with ThreadPoolExecutor(_BUYERS) as threads:
        return list(threads.map(record, range(count)))


def _signing_keys(stack: Stack) -> list[str]:
    arn = stack.functions["webhook"].function.environment["WEBHOOK_SECRET"]
    pair = json.loads(stack.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    return [pair["current"]]


def _webhook(clip: Clip, keys: Sequence[str]) -> tuple[str, str]:
    subject = webhook_token.subject(clip.caller, clip.task_uuid, clip.index)
    result = {
        "taskType": "videoInference",
        "taskUUID": clip.clip_uuid,
        "videoUUID": str(uuid.uuid4()),
        "videoURL": "https://vm.runware.ai/video/1.mp4",
        "seed": 169984304,
        "cost": 0.924,
    }
    token = webhook_token.sign(subject, keys, int(time.time() * 1000))
    return f"/webhooks/runware/{subject}?token={token}", json.dumps(result)


@contextmanager
def _receiver(stack: Stack, name: str) -> Iterator[None]:
    """A reference as a function of the stack, with as many processes as `webhook` has, under a path of its own."""
    webhook = stack.functions["webhook"].function
    pool = FunctionPool(Function(name, _REFERENCES, f"{name}.handler", webhook.environment, 15.0), log=stack.log)
    try:
        pool.wait_ready(_PATIENCE)
        route = Route("POST", f"/{name}/webhooks/runware/{{caller}}/{{taskUUID}}/{{clip}}", pool)
        stack.gateway.routes = [*stack.gateway.routes, route]
        yield
    finally:
        pool.stop()


def _answers(url: str, requests: Sequence[tuple[str, str]], per_second: int) -> Answered:
    before = time.process_time()
    load: dict[str, Any] = {"url": url, "requests": requests, "per_second": per_second}
    result = subprocess.run(
        [sys.executable, "-m", "rushes_local.bench.load"],
        input=json.dumps(load),
        capture_output=True,
        text=True,
        timeout=_MOST_TIMES_SLOWER * len(requests) / per_second + _PATIENCE,
        check=True,
    )
    services = (time.process_time() - before) / len(requests)
    answers = json.loads(result.stdout)
    in_time = sum(status == httpx.codes.OK and seconds <= _SENDER_WAITS for status, seconds in answers)
    return Answered(len(requests) - in_time, sorted(seconds for _, seconds in answers), services)

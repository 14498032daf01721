"""Injects failures at random: kills processes, makes AWS and Runware fail, and sends forged webhooks.

Hides the random choices. Faults of a submission are chosen for it alone and apply to its clip permanently; outages
affect every request for a while. Runware's behaviour (the shape of its webhooks, its response to an unknown UUID) is
chosen once a run. No fault breaks an assumption about Runware on which the service relies under its setting.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from rushes_local.aws.application import Service
from rushes_local.stack import Stack

Json = dict[str, Any]

_TICK = 0.25  # seconds
_ONE_SHOTS = 12  # sets of faults for submissions: more than there are submissions in a tick
_MAX_OUTAGE = 1.8  # seconds

_SERVER_ERRORS = (500, 503, 504)
_TABLE_FAULTS = ("InternalServerError", "ThrottlingException", "ProvisionedThroughputExceededException")
_BUCKET_FAULTS = ("InternalError", "SlowDown")


@dataclass(frozen=True)
class FaultLimits:
    """The limits of the faults, in seconds.

    `slow_answer` is longer than the functions' HTTP timeout, `max_delay` the longest delay of a request to Runware.
    `breaks_assumptions`: Runware may accept a UUID twice and render at once. `resend` assumes that it never does.
    """

    slow_answer: float
    max_delay: float
    breaks_assumptions: bool


@dataclass
class FaultInjector:
    """Injects faults in its own thread from `start` to `stop`, which removes them."""

    stack: Stack
    seed: int
    limits: FaultLimits
    counts: Counter[str] = field(default_factory=Counter)
    accepted_forgeries: list[str] = field(default_factory=list)
    """Descriptions of forged webhooks that got a 2xx."""

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed}-weather")
        self._behaviour = _behaviour(self._chance, self.limits)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-injector")
        self._runware_until = self._aws_until = 0.0
        self._outage: Json = {}
        self._client = httpx.Client(timeout=10, trust_env=False)

    @property
    def behaviour(self) -> str:
        """Runware's behaviour in this run, in one line."""
        return f"  Runware: {', '.join(f'{name}={value!r}' for name, value in self._behaviour.items())}"

    def start(self) -> None:
        self._set_runware()
        self._thread.start()

    def stop(self) -> None:
        """End the faults, except those that apply to a clip permanently."""
        self._stopping.set()
        self._thread.join()
        self.stack.emulator.faults.replace(dict(self._behaviour))
        self.stack.aws.faults.clear()

    def _run(self) -> None:
        while not self._stopping.wait(self._chance.uniform(0, 2 * _TICK)):
            self._end_outages(time.monotonic())
            for inject, probability in self._failures().items():
                if self._chance.random() < probability:
                    inject()
            self._set_runware()

    def _failures(self) -> Mapping[Callable[[], None], float]:
        return {self._kill: 0.12, self._runware_outage: 0.15, self._aws_outage: 0.15, self._forge: 0.3}

    def _end_outages(self, now: float) -> None:
        if now > self._runware_until:
            self._outage = {}
        if now > self._aws_until:
            self.stack.aws.faults.clear()

    def _set_runware(self) -> None:
        one_shots = [_one_shot(self._chance, self.limits) for _ in range(_ONE_SHOTS)]
        self.stack.emulator.faults.replace({**self._behaviour, **self._outage, "next_submissions": one_shots})

    def _kill(self) -> None:
        name = self._chance.choice(sorted(self.stack.functions))
        pids = self.stack.functions[name].pids()
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), signal.SIGKILL)
            self.counts[f"killed: {name}"] += 1

    def _runware_outage(self) -> None:
        chance = self._chance
        status = chance.choice((*_SERVER_ERRORS, 429))
        self._outage = chance.choice(
            (
                {"poll_status": status, "poll_bare": chance.random() < 0.5},
                {"details_status": status},
                {"poll_status": status, "details_status": status},
                {"submit_status": status, "submit_bare": chance.random() < 0.5},
                {"finds_running": False},
                {"finds_details": False},
                {"reports_delivery_failure": "instead"},
                {"video_url_status": chance.choice((404, 500))},
                {"video_url_empty_reads": 2},
            )
        )
        self._runware_until = time.monotonic() + chance.uniform(0.3, _MAX_OUTAGE)
        self.counts[f"outage of Runware: {', '.join(self._outage)}"] += 1

    def _aws_outage(self) -> None:
        chance = self._chance
        service: Service = chance.choice(("dynamodb", "dynamodb", "s3"))
        code = chance.choice(_TABLE_FAULTS if service == "dynamodb" else _BUCKET_FAULTS)
        after = code.startswith("Internal") and chance.random() < 0.5
        self.stack.aws.faults.fail(service, code, fraction=chance.choice((0.1, 0.3, 0.6)), after=after)
        self._aws_until = time.monotonic() + chance.uniform(0.3, _MAX_OUTAGE)
        self.counts[f"outage of {service}: {code}{', answer lost' if after else ''}"] += 1

    def _forge(self) -> None:
        """Send a forged webhook to a clip's callback URL, without its token or with another clip's."""
        orders = [each.task for each in self.stack.emulator.requests() if "webhookURL" in each.task]
        if len(orders) < 2:
            return
        order, other = self._chance.sample(orders, 2)
        if urlsplit(order["webhookURL"]).path == urlsplit(other["webhookURL"]).path:
            return  # two attempts at the same clip: the token would be valid
        kind, query = _forged_query(
            self._chance, urlsplit(order["webhookURL"]).query, urlsplit(other["webhookURL"]).query
        )
        url = urlunsplit(urlsplit(order["webhookURL"])._replace(query=query))
        try:
            status = self._client.post(url, json=_forged_body(self._chance, order["taskUUID"])).status_code
        except httpx.HTTPError:
            return
        self.counts[f"forged: {kind}"] += 1
        if status < 300:
            self.accepted_forgeries.append(f"a webhook with a {kind} token got status {status}")


def _behaviour(chance: random.Random, limits: FaultLimits) -> Json:
    """Runware's behaviour throughout this run."""
    return {
        "conflict_status": chance.choice((400, 409)),
        "unknown_uuid": chance.choice(("empty", "empty", "taskNotFound")),
        "poll_failure_status": chance.choice((200, 400)),
        "poll_failure_shape": chance.choice(("errors", "flat", "nested")),
        "webhook_shape": chance.choice(("envelope", "full", "flat", "array", "singular")),
        "webhook_on_failure": chance.random() < 0.7,
        "webhook_progress": chance.random() < 0.5,
        "reports_delivery_failure": chance.choice(("no", "beside")),
        "upload": chance.choice(("before", "after")),
        "upload_content_type": chance.choice(("", "video/mp4", "application/octet-stream")),
        "refuses_running": not limits.breaks_assumptions,
        "refuses_finished": False,
    }


def _one_shot(chance: random.Random, limits: FaultLimits) -> Json:
    """The faults of one submission and its clip: none, one or several."""
    return {
        **(_submission(chance, limits) if chance.random() < 0.4 else {}),
        **(_webhook(chance, limits) if chance.random() < 0.4 else {}),
        **(_upload(chance) if chance.random() < 0.4 else {}),
        **(_render(chance) if chance.random() < 0.2 else {}),
    }


def _submission(chance: random.Random, limits: FaultLimits) -> Json:
    server_error = {"submit_status": chance.choice(_SERVER_ERRORS), "submit_bare": chance.random() < 0.5}
    return chance.choice(
        (
            server_error,
            {**server_error, "submit_accepts": True},
            {**server_error, "submit_accepts": True},
            {"submit_status": 429},
            {"submit_status": 429, "submit_bare": True, "submit_accepts": chance.random() < 0.5},
            {"submit_status": 408, "submit_bare": True, "submit_accepts": chance.random() < 0.5},
            {"submit_status": 400, "submit_code": "invalidValueUploadFailed"},
            {"submit_status": 402},
            {"submit_cut": "before"},
            {"submit_cut": "after"},
            {"submit_cut": "after"},
            {"submit_late_seconds": chance.uniform(0.1, limits.max_delay)},
            {"submit_late_seconds": chance.uniform(0.1, limits.max_delay)},
            {"submit_seconds": limits.slow_answer},
            {"submit_garbage": True},
            {"submit_empty": True},
        )
    )


def _webhook(chance: random.Random, limits: FaultLimits) -> Json:
    early = {"webhook_before_answer": True} if limits.breaks_assumptions else {"webhook_copies": 2}
    return chance.choice(
        (
            {"webhook_copies": 0},
            {"webhook_copies": 0},
            {"webhook_copies": 3, "webhook_seconds": chance.uniform(0, 1)},
            {"webhook_reordered": True},
            {"webhook_seconds": chance.uniform(0.5, 4)},
            {"webhook_retries": 0},
            early,
        )
    )


def _upload(chance: random.Random) -> Json:
    return chance.choice(
        (
            {"upload": "never"},
            {"upload_fails": True},
            {"upload_content": "garbage"},
            {"upload_content": "empty"},
            {"upload": "after", "upload_seconds": chance.uniform(0, 3)},
            {"upload": "before", "upload_seconds": chance.uniform(0, 1.5)},
        )
    )


def _render(chance: random.Random) -> Json:
    return chance.choice(
        (
            {"failure": "invalidProviderContent"},
            {"failure": "providerError"},
            {"failure": "providerError", "recovers_seconds": chance.uniform(0.1, 1), "upload_seconds": 0.0},
            {"result_cost": False},
            {"result_base64": "videoDataURI", "result_url": False},
            {"result_url": False},
            {"result_nsfw": True},
        )
    )


def _forged_query(chance: random.Random, right: str, other: str) -> tuple[str, str]:
    kinds = {
        "missing": "",
        "wrong": "token=AAAAAA.AAAA",
        "swapped": other,
        "truncated": right[:-2],
        "longer": f"{right}A",
    }
    return chance.choice(list(kinds.items()))


def _forged_body(chance: random.Random, task_uuid: str) -> Json:
    about = {"taskType": "videoInference", "taskUUID": task_uuid}
    return chance.choice(
        (
            {"data": [{**about, "videoUUID": "forged", "videoURL": "http://127.0.0.1:9/forged.mp4", "cost": 99.0}]},
            {"errors": [{**about, "code": "providerError", "message": "forged", "status": "error"}]},
        )
    )

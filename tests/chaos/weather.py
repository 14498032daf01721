"""What goes wrong, when: processes killed, AWS and Runware failing, callbacks forged.

Hides the dice. A submission's fate is thrown for it alone and holds for its clip's whole life; storms come over
everything for a while. How Runware behaves throughout (the shape of its webhooks, its words for "unknown") is thrown
once a run. Nothing here breaks what the service assumes of Runware under the setting that it runs with.
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
_WAITING = 12  # fates kept ready: more than there are submissions in a tick
_MAX_STORM = 1.8  # seconds

_SERVER_ERRORS = (500, 503, 504)
_TABLE_FAULTS = ("InternalServerError", "ThrottlingException", "ProvisionedThroughputExceededException")
_BUCKET_FAULTS = ("InternalError", "SlowDown")


@dataclass(frozen=True)
class Climate:
    """What the weather may do, in seconds.

    `slow_answer` is longer than the functions wait for Runware. `latest` is how long a request may be on its way.
    `lawless`: Runware may take a known UUID twice and render in no time, since nobody relies on the contrary.
    """

    slow_answer: float
    latest: float
    lawless: bool


@dataclass
class Weather:
    """Goes on in a thread of its own from `start` until `clear`, which puts everything right again."""

    stack: Stack
    seed: int
    climate: Climate
    counts: Counter[str] = field(default_factory=Counter)
    believed: list[str] = field(default_factory=list)
    """Forged callbacks that were answered with a 2xx."""

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed}-weather")
        self._manners = _manners(self._chance, self.climate)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="weather")
        self._runware_until = self._aws_until = 0.0
        self._storm: Json = {}
        self._client = httpx.Client(timeout=10, trust_env=False)

    @property
    def told(self) -> str:
        """How Runware is throughout this run, in a line."""
        return f"  Runware: {', '.join(f'{name}={value!r}' for name, value in self._manners.items())}"

    def start(self) -> None:
        self._set_runware()
        self._thread.start()

    def clear(self) -> None:
        """Nothing fails any more; what has befallen a clip already stays with it."""
        self._stopping.set()
        self._thread.join()
        self.stack.emulator.faults.replace(dict(self._manners))
        self.stack.aws.faults.clear()

    def _go_on(self) -> None:
        while not self._stopping.wait(self._chance.uniform(0, 2 * _TICK)):
            self._end_storms(time.monotonic())
            for happens, odds in self._events().items():
                if self._chance.random() < odds:
                    happens()
            self._set_runware()

    def _events(self) -> Mapping[Callable[[], None], float]:
        return {self._kill: 0.12, self._storm_runware: 0.15, self._storm_aws: 0.15, self._forge: 0.3}

    def _end_storms(self, now: float) -> None:
        if now > self._runware_until:
            self._storm = {}
        if now > self._aws_until:
            self.stack.aws.faults.clear()

    def _set_runware(self) -> None:
        fates = [_fate(self._chance, self.climate) for _ in range(_WAITING)]
        self.stack.emulator.faults.replace({**self._manners, **self._storm, "next_submissions": fates})

    def _kill(self) -> None:
        name = self._chance.choice(sorted(self.stack.functions))
        pids = self.stack.functions[name].pids()
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), signal.SIGKILL)
            self.counts[f"killed: {name}"] += 1

    def _storm_runware(self) -> None:
        chance = self._chance
        status = chance.choice((*_SERVER_ERRORS, 429))
        self._storm = chance.choice(
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
        self._runware_until = time.monotonic() + chance.uniform(0.3, _MAX_STORM)
        self.counts[f"storm at Runware: {', '.join(self._storm)}"] += 1

    def _storm_aws(self) -> None:
        chance = self._chance
        service: Service = chance.choice(("dynamodb", "dynamodb", "s3"))
        code = chance.choice(_TABLE_FAULTS if service == "dynamodb" else _BUCKET_FAULTS)
        after = code.startswith("Internal") and chance.random() < 0.5
        self.stack.aws.faults.fail(service, code, fraction=chance.choice((0.1, 0.3, 0.6)), after=after)
        self._aws_until = time.monotonic() + chance.uniform(0.3, _MAX_STORM)
        self.counts[f"storm in {service}: {code}{', answer lost' if after else ''}"] += 1

    def _forge(self) -> None:
        """Somebody who knows where a clip's callback is, and even another clip's token, but not this one's."""
        orders = [each.task for each in self.stack.emulator.requests() if "webhookURL" in each.task]
        if len(orders) < 2:
            return
        order, other = self._chance.sample(orders, 2)
        if urlsplit(order["webhookURL"]).path == urlsplit(other["webhookURL"]).path:
            return  # two attempts at the same clip: the token would be right
        kind, query = _forged_query(
            self._chance, urlsplit(order["webhookURL"]).query, urlsplit(other["webhookURL"]).query
        )
        url = urlunsplit(urlsplit(order["webhookURL"])._replace(query=query))
        try:
            status = self._client.post(url, json=_lie(self._chance, order["taskUUID"])).status_code
        except httpx.HTTPError:
            return
        self.counts[f"forged: {kind}"] += 1
        if status < 300:
            self.believed.append(f"a callback with a {kind} token was answered {status}")


def _manners(chance: random.Random, climate: Climate) -> Json:
    """How Runware is in this run, come rain or shine."""
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
        "refuses_running": not climate.lawless,
        "refuses_finished": False,
    }


def _fate(chance: random.Random, climate: Climate) -> Json:
    """What befalls one submission and the clip that it starts: nothing at all, or several things at once."""
    return {
        **(_on_the_way(chance, climate) if chance.random() < 0.4 else {}),
        **(_webhook(chance, climate) if chance.random() < 0.4 else {}),
        **(_upload(chance) if chance.random() < 0.4 else {}),
        **(_render(chance) if chance.random() < 0.2 else {}),
    }


def _on_the_way(chance: random.Random, climate: Climate) -> Json:
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
            {"submit_late_seconds": chance.uniform(0.1, climate.latest)},
            {"submit_late_seconds": chance.uniform(0.1, climate.latest)},
            {"submit_seconds": climate.slow_answer},
            {"submit_garbage": True},
            {"submit_empty": True},
        )
    )


def _webhook(chance: random.Random, climate: Climate) -> Json:
    hasty = {"webhook_before_answer": True} if climate.lawless else {"webhook_copies": 2}
    return chance.choice(
        (
            {"webhook_copies": 0},
            {"webhook_copies": 0},
            {"webhook_copies": 3, "webhook_seconds": chance.uniform(0, 1)},
            {"webhook_reordered": True},
            {"webhook_seconds": chance.uniform(0.5, 4)},
            {"webhook_retries": 0},
            hasty,
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


def _lie(chance: random.Random, task_uuid: str) -> Json:
    about = {"taskType": "videoInference", "taskUUID": task_uuid}
    return chance.choice(
        (
            {"data": [{**about, "videoUUID": "forged", "videoURL": "http://127.0.0.1:9/forged.mp4", "cost": 99.0}]},
            {"errors": [{**about, "code": "providerError", "message": "forged", "status": "error"}]},
        )
    )

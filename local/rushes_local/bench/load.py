"""Sends requests at a steady pace and keeps how long each answer took. A process of its own, so that it takes no turn
of what it measures.

Reads what to send from standard input, prints each answer's status and seconds. The pace does not wait for answers,
and an answer's time counts from when its request was due: a server that falls behind is seen to.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

_SENDERS = 64
_PATIENCE = 30.0  # seconds: API Gateway's


def main() -> None:
    load = json.load(sys.stdin)
    waiting: SimpleQueue[tuple[float, str, str]] = SimpleQueue()
    answered: SimpleQueue[tuple[int, float]] = SimpleQueue()
    address = urlsplit(load["url"])
    threads = [
        threading.Thread(target=_send, args=(address.netloc, waiting, answered), daemon=True) for _ in range(_SENDERS)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for number, (path, body) in enumerate(load["requests"]):
        due = began + number / load["per_second"]
        time.sleep(max(0.0, due - time.monotonic()))
        waiting.put((due, path, body))
    for _ in threads:
        waiting.put((0.0, "", ""))
    for thread in threads:
        thread.join()
    print(json.dumps(list(_drained(answered))))


def _send(
    host: str, waiting: "SimpleQueue[tuple[float, str, str]]", answered: "SimpleQueue[tuple[int, float]]"
) -> None:
    connection = http.client.HTTPConnection(host, timeout=_PATIENCE)
    while True:
        due, path, body = waiting.get()
        if not path:
            connection.close()
            return
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        answered.put((status, time.monotonic() - due))


def _drained(answered: "SimpleQueue[tuple[int, float]]") -> Iterator[tuple[int, float]]:
    try:
        while True:
            yield answered.get_nowait()
    except Empty:
        return


if __name__ == "__main__":
    main()

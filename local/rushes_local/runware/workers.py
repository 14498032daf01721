"""Background work: timed jobs in a fixed number of threads.

Renders and deliveries have separate lanes, so that a slow webhook receiver delays no render. Hides the threads, the
order of the queue, and the state in which no work is left.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

Job = Callable[[], object]


class Workers:
    """Runs jobs at their time; each lane has its own number of threads."""

    def __init__(self, lanes: Mapping[str, int]) -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, list[tuple[float, int, Job]]] = {lane: [] for lane in lanes}
        self._order = itertools.count()
        self._running = 0
        self._dropping = False
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"emulator-{lane}-{number}", daemon=True)
            for lane, count in lanes.items()
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def at(self, lane: str, delay: float, job: Job) -> None:
        """Run the job in this lane in `delay` seconds."""
        with self._changed:
            if self._closed or self._dropping:
                return
            heapq.heappush(self._queues[lane], (time.monotonic() + delay, next(self._order), job))
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait until no job is queued or running. Returns False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def drain(self, timeout: float) -> bool:
        """Drop the queued jobs, and those queued meanwhile, and wait for the running ones. Returns False on timeout."""
        with self._changed:
            self._drop_queued()
            self._dropping = True
            try:
                return self._changed.wait_for(self._is_idle, timeout)
            finally:
                self._dropping = False

    def close(self, timeout: float) -> None:
        """Drop the queued jobs and join the threads, for at most `timeout` seconds in total."""
        with self._changed:
            self._closed = True
            self._drop_queued()
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _drop_queued(self) -> None:
        for queue in self._queues.values():
            queue.clear()

    def _is_idle(self) -> bool:
        return self._running == 0 and not any(self._queues.values())

    def _work(self, lane: str) -> None:
        while (job := self._next(lane)) is not None:
            try:
                job()
            except Exception:
                # A failed job must not end its worker; the traceback is for the emulator's developer.
                logger.exception("background job failed")
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _next(self, lane: str) -> Job | None:
        queue = self._queues[lane]
        with self._changed:
            while not self._closed:
                pause = queue[0][0] - time.monotonic() if queue else None
                if pause is not None and pause <= 0:
                    self._running += 1
                    return heapq.heappop(queue)[2]
                self._changed.wait(pause)
        return None

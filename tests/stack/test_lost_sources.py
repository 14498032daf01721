"""Many clips whose webhook, whose upload, or both are lost, and purchases whose answer is cut off, on real parts."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rushes.config import WhenAmbiguous
from rushes.domain.clip import Clip, FactSource, Kind, Status
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import Stack
from tests.chaos.judgement import Books, judge
from tests.chaos.run import all_told, wait_until
from tests.chaos.traffic import Caller, Heard
from tests.event_listener import Listener

ROOT = Path(__file__).parents[2]

# A stack of its own cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")

# How many clips each loss befalls, in `make test` and in `make test-batch`; LOST_CLIPS=200 takes minutes.
FEW = 5
MANY = int(os.environ.get("LOST_CLIPS", "20"))
PATIENCE = 30 + MANY  # seconds

SCALE = 0.01  # of the schedule: a sweep every 0.6 s
TIMES = {
    "HTTP_TIMEOUT_SECONDS": 1.0,
    "FUNCTION_TIMEOUT_SECONDS": 8.0,
    "LEASE_SECONDS": 8.5,
    "RESEND_WINDOW_SECONDS": 9.0,
    "DEADLINE_SECONDS": 300.0,
    "LAST_LOOK_SECONDS": 3.0,
    "COPY_DEADLINE_SECONDS": 300.0,
    "USUAL_RENDER_SECONDS": 0.2,
    "RESCUE_AFTER_SECONDS": 0.2,
}

NO_WEBHOOK = {"webhook_copies": 0}
NO_UPLOAD = {"upload": "never"}
CUT = {"submit_cut": "after"}


class Orders:
    """A stack and a caller whose clips each meet the fate that their prompt names."""

    def __init__(self, stack: Stack, logged: list[str]) -> None:
        self.stack, self._logged = stack, logged
        self.books, self.listener = Books(stack), Listener(stack)
        self.caller = Caller("ada", stack.create_key("ada", 10_000), 10_000_000_000)

    def buy(self, fate: str, switches: Mapping[str, Any], clips: int) -> list[str]:
        """Orders so many clips in tasks of four, and returns the tasks' UUIDs."""
        prompt = f"a clip with {fate}"
        self.stack.emulator.faults.next_submissions += [OneShot(prompt, **switches) for _ in range(clips)]
        tasks = [
            {
                "taskType": "videoInference",
                "taskUUID": str(uuid.uuid4()),
                "model": "klingai:5@3",
                "positivePrompt": prompt,
                "numberResults": min(4, clips - number),
            }
            for number in range(0, clips, 4)
        ]
        headers = {"Authorization": f"Bearer {self.caller.key}"}
        for start in range(0, len(tasks), 5):
            url, body = f"{self.stack.url}/v1", tasks[start : start + 5]
            answer = httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
            assert answer.json().keys() == {"data"}, answer.text
        return [str(task["taskUUID"]) for task in tasks]

    def clips(self, tasks: list[str]) -> list[Clip]:
        """The clips of these tasks, as they are in the table now."""
        return [clip for task_uuid in tasks for clip in self.stack.store.clips("ada", task_uuid)]

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until something holds; the wait is bounded."""
        took = wait_until(reached, PATIENCE)
        assert took < PATIENCE, self.books.find().all_clips

    def broken(self) -> list[str]:
        """Every promise that was not kept, by the ledger, the table, the bucket, what was told, and the log."""
        found = self.books.find()
        wait_until(lambda: all_told(self.books, found, self.listener), PATIENCE)
        broken = judge(self.books, found, [self.caller], Heard(), self.listener.listen(), self._logged)
        return [each.what for each in broken]


@contextmanager
def orders(logged: list[str], when_ambiguous: WhenAmbiguous, **times: float) -> Iterator[Orders]:
    """A fresh stack under this setting, with some intervals of its own."""
    stack = Stack(
        ROOT,
        time_scale=SCALE,
        timings={name: seconds / SCALE for name, seconds in {**TIMES, **times}.items()},
        emulator_options={"small": True, "retry_delays": (0.1,)},
        parameters={"MonthlyLimitUsd": "10000", "WhenAmbiguous": when_ambiguous},
        sink=lambda name, line: logged.append(f"{name}\t{line}"),
    )
    with stack:
        yield Orders(stack, logged)


def rescued(clip: Clip) -> bool:
    return clip.copy is not None and clip.copy[1].fields.get("rescued", False) is True


def sources(clips: list[Clip]) -> set[FactSource]:
    """Through whom these clips' renders were learned."""
    return {source for clip in clips for known in clip.of(Kind.RENDERED).values() for source in known.seen}


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("clips", [FEW, pytest.param(MANY, marks=pytest.mark.batch)])
def test_every_clip_is_stored_and_paid_once(clips: int, logged: list[str]) -> None:
    """With every webhook lost, with every upload failing, and with both, each clip ends stored, for one charge.

    So does each whose purchase was cut off after Runware had accepted it.
    """
    with orders(logged, "review") as ordered:  # `resend` would have the first poll wait until no repeat can come
        unheard = ordered.buy("no webhook", NO_WEBHOOK, clips)
        unsent = ordered.buy("no upload", NO_UPLOAD, clips)
        neither = ordered.buy("no webhook and no upload", {**NO_WEBHOOK, **NO_UPLOAD}, clips)
        cut = ordered.buy("an answer cut off", CUT, 4)
        ordered.wait(lambda: ordered.books.open_clips() == 0)

        everything = ordered.books.find().all_clips
        assert {clip.status for clip in everything} == {Status.STORED}
        assert len(everything) == len(ordered.stack.emulator.ledger()) == 3 * clips + 4
        assert sources(ordered.clips(unheard) + ordered.clips(neither)) == {FactSource.POLL}
        assert all(rescued(clip) for clip in ordered.clips(unsent) + ordered.clips(neither))
        assert all(clip.possibly_sent_at is not None for clip in ordered.clips(cut))
        assert ordered.broken() == []


def test_what_nobody_can_prove_is_not_bought_again(logged: list[str]) -> None:
    """Under `review` a purchase cut off after acceptance is stored when one witness shows it, and else in review."""
    with orders(
        logged,
        "review",
        FUNCTION_TIMEOUT_SECONDS=4.0,
        LEASE_SECONDS=4.5,
        RESEND_WINDOW_SECONDS=5.0,
        DEADLINE_SECONDS=6.0,
    ) as ordered:
        ordered.stack.emulator.faults.poll_status = ordered.stack.emulator.faults.details_status = 503
        told = ordered.buy("a webhook alone", {**CUT, "upload": "after"}, 2)
        uploaded = ordered.buy("an upload alone", {**CUT, **NO_WEBHOOK}, 2)
        unknown = ordered.buy("no witness at all", {**CUT, **NO_WEBHOOK, **NO_UPLOAD}, 2)

        ordered.wait(lambda: all(clip.status == Status.REVIEW for clip in ordered.clips(unknown)))
        assert all(clip.decisive == Kind.UNPROVEN and not clip.open for clip in ordered.clips(unknown))
        assert sources(ordered.clips(told)) == {FactSource.WEBHOOK}
        assert {clip.status for clip in ordered.clips(told + uploaded)} == {Status.STORED}

        ordered.stack.emulator.faults.poll_status = ordered.stack.emulator.faults.details_status = 0
        ordered.wait(lambda: ordered.books.open_clips() == 0)
        assert all(clip.decisive == Kind.UNPROVEN for clip in ordered.clips(unknown))
        assert len(ordered.stack.emulator.ledger()) == 6
        assert ordered.broken() == []

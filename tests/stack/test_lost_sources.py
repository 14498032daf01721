"""Many clips with a lost webhook, a lost upload or both, and purchases with a cut response, on the whole stack."""

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
from tests.chaos.judgement import StackInspector, judge
from tests.chaos.run import all_published, wait_until
from tests.chaos.traffic import Caller, CallerHistory
from tests.event_listener import Listener

ROOT = Path(__file__).parents[2]

# A separate stack cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")

# The number of clips for each loss, in `make test-stack` and in `make test-batch`; LOST_CLIPS=200 takes minutes.
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
    """A stack and a caller, whose clips get faults by their prompts."""

    def __init__(self, stack: Stack, logged: list[str]) -> None:
        self.stack, self._logged = stack, logged
        self.inspector, self.listener = StackInspector(stack), Listener(stack)
        self.caller = Caller("ada", stack.create_key("ada", 10_000), 10_000_000_000)

    def buy(self, fault: str, switches: Mapping[str, Any], clips: int) -> list[str]:
        """Order `clips` clips with these faults in tasks of four; returns the tasks' UUIDs."""
        prompt = f"a clip with {fault}"
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
        """The clips of these tasks, from the table."""
        return [clip for task_uuid in tasks for clip in self.stack.store.clips("ada", task_uuid)]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` is true, at most PATIENCE seconds."""
        took = wait_until(condition, PATIENCE)
        assert took < PATIENCE, self.inspector.find().all_clips

    def broken(self) -> list[str]:
        """The descriptions of all broken promises, by the ledger, the table, the bucket, the events and the log."""
        final = self.inspector.find()
        wait_until(lambda: all_published(self.inspector, final, self.listener), PATIENCE)
        broken = judge(self.inspector, final, [self.caller], CallerHistory(), self.listener.listen(), self._logged)
        return [each.text for each in broken]


@contextmanager
def orders(logged: list[str], when_ambiguous: WhenAmbiguous, **times: float) -> Iterator[Orders]:
    """A new stack under this setting; `times` overrides some of TIMES."""
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
    """The sources of these clips' renders."""
    return {source for clip in clips for render in clip.of(Kind.RENDERED).values() for source in render.seen}


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("clips", [FEW, pytest.param(MANY, marks=pytest.mark.batch)])
def test_every_clip_is_stored_and_paid_once(clips: int, logged: list[str]) -> None:
    """With every webhook lost, with every upload lost, and with both, each clip ends stored, with one charge.

    So does each clip whose purchase was cut off after Runware's acceptance.
    """
    with orders(logged, "review") as ordered:  # under `resend` the first poll waits until no resend can come
        no_webhook = ordered.buy("no webhook", NO_WEBHOOK, clips)
        no_upload = ordered.buy("no upload", NO_UPLOAD, clips)
        neither = ordered.buy("no webhook and no upload", {**NO_WEBHOOK, **NO_UPLOAD}, clips)
        cut = ordered.buy("a cut response", CUT, 4)
        ordered.wait(lambda: ordered.inspector.open_clips() == 0)

        all_clips = ordered.inspector.find().all_clips
        assert {clip.status for clip in all_clips} == {Status.STORED}
        assert len(all_clips) == len(ordered.stack.emulator.ledger()) == 3 * clips + 4
        assert sources(ordered.clips(no_webhook) + ordered.clips(neither)) == {FactSource.POLL}
        assert all(rescued(clip) for clip in ordered.clips(no_upload) + ordered.clips(neither))
        assert all(clip.possibly_sent_at is not None for clip in ordered.clips(cut))
        assert ordered.broken() == []


def test_an_uncertain_purchase_is_not_bought_again(logged: list[str]) -> None:
    """Under `review`, a purchase cut off after acceptance is stored if one source reports it, and else needs review."""
    with orders(
        logged,
        "review",
        FUNCTION_TIMEOUT_SECONDS=4.0,
        LEASE_SECONDS=4.5,
        RESEND_WINDOW_SECONDS=5.0,
        DEADLINE_SECONDS=6.0,
    ) as ordered:
        ordered.stack.emulator.faults.poll_status = ordered.stack.emulator.faults.details_status = 503
        reported = ordered.buy("a webhook only", {**CUT, "upload": "after"}, 2)
        uploaded = ordered.buy("an upload only", {**CUT, **NO_WEBHOOK}, 2)
        uncertain = ordered.buy("no source", {**CUT, **NO_WEBHOOK, **NO_UPLOAD}, 2)

        ordered.wait(lambda: all(clip.status == Status.REVIEW for clip in ordered.clips(uncertain)))
        assert all(clip.decisive == Kind.UNPROVEN and not clip.open for clip in ordered.clips(uncertain))
        assert sources(ordered.clips(reported)) == {FactSource.WEBHOOK}
        assert {clip.status for clip in ordered.clips(reported + uploaded)} == {Status.STORED}

        ordered.stack.emulator.faults.poll_status = ordered.stack.emulator.faults.details_status = 0
        ordered.wait(lambda: ordered.inspector.open_clips() == 0)
        assert all(clip.decisive == Kind.UNPROVEN for clip in ordered.clips(uncertain))
        assert len(ordered.stack.emulator.ledger()) == 6
        assert ordered.broken() == []

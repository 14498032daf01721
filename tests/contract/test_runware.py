"""One suite for the simulation's RunwareClient and for the emulator behind the real client: both behave alike."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from rushes.adapters.runware_api import RunwareClient
from rushes.runware.facts import details_facts, poll_facts
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome, Refused
from rushes.runware.response import LookupResponse
from rushes_local.runware.emulator import Emulator, OneShot
from tests.fakes.simulated import SimulatedBucket, SimulatedRunware, Switches
from tests.simulation.world import World


def order() -> dict[str, Any]:
    """The request for one clip."""
    return {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
        "includeCost": True,
        "webhookURL": "https://hooks.example/webhooks/runware/me/task/0?token=t",
        "uploadEndpoint": "https://bucket.example/videos/me/a.mp4?signed",
    }


class RunwareUnderTest:
    """The calls of both implementations, with the same key."""

    api: SimulatedRunware | RunwareClient

    def submit(self, task: Mapping[str, Any]) -> Outcome:
        return self.api.submit(task, "emulator-key")

    def poll(self, *uuids: str) -> LookupResponse:
        return self.api.poll(uuids, "emulator-key")

    def details(self, task_uuid: str) -> LookupResponse:
        return self.api.details(task_uuid, "emulator-key")


@dataclass
class Simulated(RunwareUnderTest):
    """The fake, in a world in which time stands still."""

    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.api = SimulatedRunware(self.world, SimulatedBucket(self.world))

    def set_fate(self, fate: str) -> None:
        self.api.fates.append(fate)

    def fail_renders(self, code: str) -> None:
        self.api.switches = Switches(render_fails=code)

    def accept_finished_uuids(self) -> None:
        self.api.switches = replace(self.api.switches, finished_uuid_refused=False)

    def finish(self) -> None:
        for execution in self.api.executions:
            self.api.finish(execution)

    def charges(self, task_uuid: str) -> int:
        return self.api.charged(task_uuid)


FATES = {
    "500": OneShot(submit_status=500),
    "503": OneShot(submit_status=503),
    "500 after": OneShot(submit_status=500, submit_accepts=True),
    "503 after": OneShot(submit_status=503, submit_accepts=True),
    "garbled after": OneShot(submit_garbage=True),
    "bare 429": OneShot(submit_status=429, submit_bare=True),
    "429": OneShot(submit_status=429),
    "no": OneShot(submit_status=400),
    "no account": OneShot(submit_status=402),
    "cut after": OneShot(submit_cut="after"),
    "lost": OneShot(submit_cut="before"),
}


class Emulated(RunwareUnderTest):
    """The emulator behind the client that runs in Lambda."""

    def __init__(self) -> None:
        self.emulator = Emulator(render_seconds=None, small=True)
        self.emulator.faults.webhook_copies = 0
        self.emulator.faults.upload = "never"
        http = httpx.Client(transport=httpx.WSGITransport(self.emulator.wsgi))
        self.api = RunwareClient(http, "http://runware.test/v1")

    def set_fate(self, fate: str) -> None:
        self.emulator.faults.next_submissions.append(FATES[fate])

    def fail_renders(self, code: str) -> None:
        self.emulator.faults.failure = code

    def accept_finished_uuids(self) -> None:
        self.emulator.faults.refuses_finished = False

    def finish(self) -> None:
        self.emulator.finish_all()
        assert self.emulator.idle(30)

    def charges(self, task_uuid: str) -> int:
        return sum(1 for charge in self.emulator.ledger() if charge.task_uuid == task_uuid)


@pytest.fixture(params=[Simulated, Emulated], ids=["simulated", "emulated"])
def runware(request: pytest.FixtureRequest) -> Iterator[Simulated | Emulated]:
    """Each of the two in turn."""
    implementation = request.param()
    yield implementation
    if isinstance(implementation, Emulated):
        implementation.emulator.close()


def kinds(report: LookupResponse, task_uuid: str) -> list[str]:
    """The kinds of facts that a poll gives about a clip."""
    return sorted(str(fact.kind) for fact in poll_facts(report.envelope.about(task_uuid), 0))


def test_a_valid_order_is_acknowledged_and_charged_once(runware: Simulated | Emulated) -> None:
    """A valid order is accepted, rendered and charged once."""
    task = order()
    assert runware.submit(task) == Accepted("acknowledged")
    runware.finish()
    assert runware.charges(task["taskUUID"]) == 1


@pytest.mark.parametrize("finished", [False, True])
def test_a_repeated_uuid_is_a_conflict_and_not_charged_again(runware: Simulated | Emulated, finished: bool) -> None:
    """A repeated UUID is refused with a conflict, running or finished, and bought once."""
    task = order()
    runware.submit(task)
    if finished:
        runware.finish()
    assert runware.submit(task) == Accepted("conflict")
    runware.finish()
    assert runware.charges(task["taskUUID"]) == 1


def test_a_finished_uuid_may_be_accepted_again(runware: Simulated | Emulated) -> None:
    """With the switch that accepts finished UUIDs a finished task is charged twice, and a running one once."""
    runware.accept_finished_uuids()
    task = order()
    runware.submit(task)
    assert runware.submit(task) == Accepted("conflict")
    runware.finish()
    assert runware.submit(task) == Accepted("acknowledged")
    runware.finish()
    assert runware.charges(task["taskUUID"]) == 2


@pytest.mark.parametrize(
    ("fate", "outcome", "charged"),
    [
        ("500", Ambiguous, 0),
        ("503", Ambiguous, 0),
        ("500 after", Ambiguous, 1),
        ("503 after", Ambiguous, 1),
        ("garbled after", Ambiguous, 1),
        ("cut after", Ambiguous, 1),
        ("lost", Ambiguous, 0),
        ("bare 429", Ambiguous, 0),
        ("429", NeverArrived, 0),
        ("no", Refused, 0),
        ("no account", Refused, 0),
    ],
)
def test_each_fate_has_one_outcome(
    runware: Simulated | Emulated, fate: str, outcome: type[object], charged: int
) -> None:
    """Each fate of a submission has one outcome for the buyer and one in the ledger."""
    task = order()
    runware.set_fate(fate)
    assert isinstance(runware.submit(task), outcome)
    runware.finish()
    assert runware.charges(task["taskUUID"]) == charged


def test_unknown_tasks_are_absent(runware: Simulated | Emulated) -> None:
    """Both lookups of an unknown task are proper answers without an item."""
    unknown = str(uuid.uuid4())
    assert runware.poll(unknown).confirms_absent(unknown)
    assert runware.details(unknown).confirms_absent(unknown)


def test_a_running_task_is_found(runware: Simulated | Emulated) -> None:
    """A poll of a running task has no result yet, and its details exist."""
    task = order()
    runware.submit(task)
    assert kinds(runware.poll(task["taskUUID"]), task["taskUUID"]) == ["accepted"]
    assert not runware.details(task["taskUUID"]).confirms_absent(task["taskUUID"])


def test_a_finished_task_is_described(runware: Simulated | Emulated) -> None:
    """Poll and details have video, seed and cost; a shared poll has each task's own state."""
    task, other = order(), order()
    runware.submit(task)
    runware.finish()
    runware.submit(other)
    report = runware.poll(task["taskUUID"], other["taskUUID"])
    assert (kinds(report, task["taskUUID"]), kinds(report, other["taskUUID"])) == (["rendered"], ["accepted"])
    (fact,) = poll_facts(report.envelope.about(task["taskUUID"]), 0)
    assert (fact.fields["cost"], set(fact.fields) >= {"videoURL", "seed"}) == (924_000, True)
    item = runware.details(task["taskUUID"]).envelope.about(task["taskUUID"])
    assert [str(each.kind) for each in details_facts(item, task["taskUUID"], 0)] == ["accepted", "rendered"]


def test_a_failed_task_costs_nothing(runware: Simulated | Emulated) -> None:
    """A poll reports the failure, which does not confirm absence."""
    runware.fail_renders("timeoutProvider")
    task = order()
    runware.submit(task)
    runware.finish()
    report = runware.poll(task["taskUUID"])
    assert kinds(report, task["taskUUID"]) == ["failed"]
    assert not report.confirms_absent(task["taskUUID"])
    assert runware.charges(task["taskUUID"]) == 0

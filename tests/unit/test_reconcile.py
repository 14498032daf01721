"""The sweep's rules, each at its edge: when to buy, to ask, to fetch, to wait and to give up."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rushes.config import WhenAmbiguous
from rushes.domain.clip import Clip, Fact, FactRecord, FactSource, Kind, Lease, Status, merge, merge_all
from rushes.domain.media import ProbeResult
from rushes.domain.task import Task
from rushes.errors import ProviderError, RescueError, UnreadableClipError
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived
from rushes.runware.response import LookupResponse, read_lookup
from rushes.services.metric import Metric
from rushes.services.reconcile import BATCH, MAX_POLLED, LookupResult, ReconcileService
from tests.fakes.builders import CLIP_UUID, MP4, START, TASK_UUID, TIMES, clip, fact, refusal, request, uuid4
from tests.fakes.table import FakeTable
from tests.fakes.telemetry import FakeClock
from tests.fakes.use_cases import FakeBucket, UseCases, one_after_another

Name = tuple[str, str, int]
SWEEP = 48_000  # milliseconds that a sweep has
ACCEPTED = fact(Kind.ACCEPTED, "acknowledged")
RENDERED = fact(Kind.RENDERED, "v", videoURL="https://vm.runware.ai/v.mp4")
STORED = fact(Kind.STORED, "v1", source=FactSource.BUCKET)
FAILED = fact(Kind.FAILED, "timeoutProvider")


class SweptTable(FakeTable):
    """With an index of due clips. `lagging` are names that it still has; `unreadable` those that cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.lagging: list[Name] = []
        self.mosts: list[int] = []  # how many names it was asked for, each time
        self.unreadable: dict[Name, int] = {}  # and when they are due

    def due(self, now: int, most: int) -> list[Name]:
        self.mosts.append(most)
        rows = {key: row.next_check_at for key, row in self.rows.items() if row.open and row.next_check_at is not None}
        found = sorted((at, key) for key, at in (rows | self.unreadable).items() if at <= now)
        return (self.lagging + [key for _, key in found if key not in self.lagging])[:most]

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        if (caller, task_uuid, index) in self.unreadable:
            raise UnreadableClipError("KeyError")
        return super().clip(caller, task_uuid, index)

    def task(self, caller: str, task_uuid: str) -> Task | None:
        return Task(caller=caller, task_uuid=task_uuid, request=request(), fingerprint="", clips=1, created_at=START)

    def postpone(self, name: Name, now: int, until: int) -> None:
        assert self.unreadable[name] <= now
        self.unreadable[name] = until


@dataclass
class Runware:
    """Answers questions: of `rendering` and `rendered` it knows, of all else nothing.

    Each question takes `takes` milliseconds. `down` answers none; of more than `most` at once it takes none, and none
    that asks about one of `spoilers`, which it names in its error or not.
    """

    clock: FakeClock
    rendering: set[str] = field(default_factory=set)
    rendered: set[str] = field(default_factory=set)
    spoilers: set[str] = field(default_factory=set)
    names_spoilers: bool = False
    most: int = 1000
    takes: int = 0
    down: bool = False
    details_down: bool = False
    detailed: list[dict[str, Any]] = field(default_factory=list)  # what `getTaskDetails` answers
    fault: str = "taskNotFound"  # of a spoiler that is named
    detailed_of: list[str] = field(default_factory=list)
    polls: list[list[str]] = field(default_factory=list)

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse:
        assert key == "runware-key"
        self.polls.append(list(task_uuids))
        self.clock.now += self.takes
        if self.down:
            raise ProviderError("HTTP 503")
        if len(task_uuids) > self.most:
            return answer(400, errors=[{"code": "arrayTooLarge", "message": "too many"}])
        if spoiled := sorted(self.spoilers & set(task_uuids)):
            named = [{"code": self.fault, "message": "unknown", "taskUUID": uuid} for uuid in spoiled]
            unnamed = [{"code": "invalidValue", "message": "no"}]
            return answer(404, errors=named if self.names_spoilers else unnamed)
        data = [{"taskUUID": uuid, "status": "processing"} for uuid in task_uuids if uuid in self.rendering]
        data += [
            {"taskUUID": uuid, "videoUUID": f"video-{uuid}", "videoURL": "https://vm.runware.ai/v.mp4"}
            for uuid in task_uuids
            if uuid in self.rendered
        ]
        return answer(200, data=data)

    def details(self, task_uuid: str, key: str) -> LookupResponse:
        assert key == "runware-key"
        self.detailed_of.append(task_uuid)
        self.clock.now += self.takes
        if self.down or self.details_down:
            raise ProviderError("HTTP 503")
        return answer(200, data=self.detailed)

    @property
    def alone(self) -> list[str]:
        """Whom it was asked about alone."""
        return [uuids[0] for uuids in self.polls if len(uuids) == 1]


def answer(status: int, **body: Any) -> LookupResponse:
    return read_lookup(status, json.dumps(body).encode())


class Rescuer:
    """Brings what it is asked for, or fails."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.fails = False

    def fetch(self, url: str, key: str, ends_at: int) -> ProbeResult:
        self.fetched.append(url)
        if self.fails:
            raise RescueError("HTTP 404")
        return ProbeResult("rescued", len(MP4), "etag", "mp4")

    def save_inline(self, data: str, key: str) -> ProbeResult:
        raise AssertionError("nothing came inline")


class Service:
    """A sweep and everything around it."""

    def __init__(self) -> None:
        self.world = UseCases(table=SweptTable())
        self.clock = self.world.clock
        self.runware = Runware(self.clock)
        self.rescuer = Rescuer()
        self.versions = Versions(self.world.bucket)
        self.when_ambiguous: WhenAmbiguous = "resend"

    @property
    def table(self) -> SweptTable:
        assert isinstance(self.world.table, SweptTable)
        return self.world.table

    @property
    def sent(self) -> int:
        return len(self.world.runware.sent)

    @property
    def reconcile_service(self) -> ReconcileService:
        return ReconcileService(
            table=self.table,
            bucket=self.versions,
            provider=self.runware,
            rescuer=self.rescuer,
            purchase_service=self.world.purchase_service,
            telemetry=self.world.telemetry,
            times=TIMES,
            when_ambiguous=self.when_ambiguous,
            clock=self.clock,
            concurrent_map=one_after_another,
        )

    def sweep(self, at: int | None = None, lasts: int = SWEEP) -> int:
        """One sweep, so many milliseconds after START."""
        if at is not None:
            self.clock.now = START + at
        return self.reconcile_service.sweep(self.world.buyer(lasts, unattended=True))

    def put(self, *facts: Fact, **changes: Any) -> Clip:
        """A due clip."""
        return self.table.put(clip(*facts, **{"next_check_at": START, **changes}))

    def many(self, count: int, *facts: Fact) -> list[str]:
        """So many due clips, in the order in which they come; returns their UUIDs."""
        uuids = [uuid4(number) for number in range(1, count + 1)]
        for number, uuid in enumerate(uuids):
            self.put(*facts, task_uuid=uuid, clip_uuid=uuid, next_check_at=START - count + number)
        return uuids

    def row(self, task_uuid: str = TASK_UUID) -> Clip:
        return self.table.rows["ann", task_uuid, 0]


@dataclass
class Versions:
    """The bucket, with the one version that each object has. `asked` are the questions about a certain version."""

    bucket: FakeBucket
    asked: list[tuple[str, str]] = field(default_factory=list)

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None:
        if version:
            self.asked.append((key, version))
        return self.bucket.probe(key)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    noted = [note for note in made.world.telemetry.notes if note[0] == "clip check failed"]
    assert not noted, noted


# ----------------------------------------------------------------------------------------------------------------------
# buying
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passed", [0, TIMES.resend_window, TIMES.deadline - 1])
def test_what_was_never_sent_is_sent_until_the_deadline(service: Service, passed: int) -> None:
    """The resend window is about attempts that may have arrived; without one a clip is tried until its deadline."""
    service.put()
    service.sweep(passed)
    assert service.sent == 1
    assert service.row().decisive == Kind.ACCEPTED


def test_what_was_never_sent_is_given_up_at_the_deadline(service: Service) -> None:
    """At the deadline it is certain that nothing was bought, and the money is released."""
    service.put()
    service.sweep(TIMES.deadline)
    assert (service.sent, service.row().decisive, service.row().budgeted) == (0, Kind.REFUSED, 0)
    fields = service.row().of(Kind.REFUSED)["providerUnreachable"].fields
    error = json.loads(str(fields["error"]))
    assert (fields["httpStatus"], fields["category"]) == (503, "provider")
    message = "Runware could not be reached, or refused our account, until the deadline. Nothing was bought."
    assert error == {"code": "providerUnreachable", "message": message}
    assert fields["message"] == message


@pytest.mark.parametrize(("passed", "is_sent"), [(TIMES.resend_window - 1, True), (TIMES.resend_window, False)])
def test_a_doubtful_clip_is_sent_again_within_the_window(service: Service, passed: int, is_sent: bool) -> None:
    """Every witness denies it: young enough, it is sent again; later it waits for its deadline, and is not parked."""
    service.put(possibly_sent_at=START)
    service.sweep(passed)
    assert (service.sent == 1) is is_sent
    assert service.row().status == (Status.RUNNING if is_sent else Status.PENDING)


def test_the_window_is_judged_after_the_witnesses_were_asked(service: Service) -> None:
    """What was young when the questions began may be too old when they are answered."""
    service.put(possibly_sent_at=START)
    service.runware.takes = 1_000
    service.sweep(TIMES.resend_window - 1_500)
    assert (service.sent, service.row().status) == (0, Status.PENDING)


def test_the_lease_begins_when_the_window_is_judged(service: Service) -> None:
    """So a repeat takes effect within the window and one lease, however long the questions took."""
    leases: list[Lease | None] = []
    service.put(possibly_sent_at=START)
    service.runware.takes = 1_000
    service.world.runware.on_send = lambda _: leases.append(service.row().lease)
    service.sweep(TIMES.resend_window - 2_001)
    assert [lease and lease.since for lease in leases] == [START + TIMES.resend_window - 1]


@pytest.mark.parametrize("spoil", ["poll", "details", "bucket", "policy", "later version"])
def test_a_doubtful_clip_is_not_sent_unless_all_deny_it(service: Service, spoil: str) -> None:
    """A witness without an answer denies nothing, under `review` nothing is sent, nor what cannot be judged whole."""
    known = service.put(possibly_sent_at=START)
    service.runware.down = spoil == "poll"
    service.runware.details_down = spoil == "details"
    service.world.bucket.down = spoil == "bucket"
    service.when_ambiguous = "review" if spoil == "policy" else "resend"
    if spoil == "later version":
        service.table.put(
            replace(known, possibly_sent_at=None, facts={("bought", ""): FactRecord.of_all({"oracle": START}, {})})
        )
    service.sweep(20_000)
    assert (service.sent, service.row().status) == (0, Status.PENDING)


def test_a_clip_with_a_fact_of_a_later_version_is_never_called_unbought(service: Service) -> None:
    """At the deadline it is parked: nobody here can say what the fact means."""
    service.table.put(clip(next_check_at=START, facts={("bought", ""): FactRecord.of_all({"oracle": START}, {})}))
    service.sweep(TIMES.deadline)
    reason = "it has facts of a later version: every source confirms its absence"
    assert service.row().of(Kind.UNPROVEN)[""].fields["reason"] == reason


def test_a_tasks_details_prove_a_doubtful_purchase(service: Service) -> None:
    """A clip that the poll has forgotten is not sent again: the details have its render, and another clip's."""
    service.put(possibly_sent_at=START)
    service.runware.detailed = [
        {"taskUUID": uuid, "response": {"data": [{"taskUUID": uuid, "videoUUID": f"video-{uuid}"}]}}
        for uuid in (uuid4(9), CLIP_UUID)
    ]
    service.sweep(20_000)
    assert service.sent == 0
    assert service.row().of(Kind.RENDERED)[f"video-{CLIP_UUID}"].seen == {FactSource.POLL: START + 20_000}
    assert len(service.row().of(Kind.RENDERED)) == 1
    assert service.runware.detailed_of == [CLIP_UUID]


def test_a_lease_left_behind_is_a_doubtful_attempt(service: Service) -> None:
    """The buyer that took it is gone: the sweep asks, as after any attempt that may have arrived."""
    service.when_ambiguous = "review"
    service.put(lease=Lease("gone", START - 5, START + 10, "account"))
    assert service.sweep(9) == 1
    assert (service.row().possibly_sent_at, len(service.runware.polls)) == (None, 0)
    service.sweep(TIMES.check + 9)
    assert (service.row().lease, service.row().possibly_sent_at, service.row().possibly_sent_to) == (
        None,
        START - 5,
        "account",
    )
    assert (service.sent, len(service.runware.polls)) == (0, 1)


@pytest.mark.parametrize("outcome", [Ambiguous("ReadTimeout"), NeverArrived("ConnectError"), refusal(401)])
def test_a_sweep_stops_buying_when_runware_is_down(service: Service, outcome: Any) -> None:
    """After three failures in a row nothing more is sent, and every other clip keeps its certainty."""
    service.many(5)
    service.world.runware.script = [outcome] * 5
    service.sweep(20_000)
    assert service.sent == 3
    assert sum(row.possibly_sent_at is None and not row.facts for row in service.table.rows.values()) == 2


def test_failures_with_a_success_between_them_stop_nothing(service: Service) -> None:
    """Only what fails in a row says that Runware is down."""
    service.many(6)
    lost, taken = Ambiguous("ReadTimeout"), Accepted("acknowledged")
    service.world.runware.script = [lost, lost, taken, lost, lost, taken]
    service.sweep(20_000)
    assert service.sent == 6


def test_a_sweep_stops_asking_when_runware_is_down(service: Service) -> None:
    """After three failures in a row nobody is asked about, and nothing is sent."""
    service.many(5, STORED)
    service.put(next_check_at=START)
    service.runware.down = True
    service.sweep(20_000)
    assert (len(service.runware.polls), service.sent) == (3, 0)
    assert service.world.telemetry.notes == [("Runware lookup failed", True, {"reason": "HTTP 503"})] * 3


def test_a_doubtful_clip_that_was_denied_is_parked_with_that_reason(service: Service) -> None:
    """An attempt into this very account is not called one into another."""
    service.put(possibly_sent_at=START, possibly_sent_to=service.world.buyer().credentials.account)
    service.sweep(TIMES.deadline)
    reason = "an attempt may have arrived: every source confirms its absence"
    assert service.row().of(Kind.UNPROVEN)[""].fields["reason"] == reason


@pytest.mark.parametrize(
    ("reports", "absent"),
    [
        ([answer(200, data=[])], True),
        ([answer(200, data=[{"taskUUID": uuid4(9)}])], True),
        ([answer(200, data=[{"taskUUID": CLIP_UUID}])], False),
        ([answer(200, data=[{}])], False),
        ([answer(404, errors=[{"code": "invalidValue"}])], False),
        ([None], False),
        ([None, answer(200, data=[])], False),
        ([answer(200, data=[]), answer(200, data=[])], True),
    ],
)
def test_only_answers_that_lack_the_clip_deny_it(reports: list[LookupResponse | None], absent: bool) -> None:
    """One that names it, one that names no task, one that was turned away or none at all denies nothing."""
    lookup = LookupResult()
    for report in reports:
        lookup.add_response(report, CLIP_UUID)
    assert lookup.all_absent is absent


@pytest.mark.parametrize(
    ("content", "kind", "key"),
    [(MP4, Kind.STORED, "v1"), (b"<Error>", Kind.ACCEPTED, "an object was uploaded")],
)
def test_an_upload_proves_a_doubtful_purchase(service: Service, content: bytes, kind: Kind, key: str) -> None:
    """Only Runware was given the link, so whatever came through it means that the clip is not sent again."""
    service.put(possibly_sent_at=START)
    service.world.bucket.objects[clip().object_key] = content
    service.sweep(20_000)
    assert (service.sent, service.row().decisive) == (0, kind)
    assert {name: known.seen for name, known in service.row().of(kind).items()} == {
        key: {FactSource.BUCKET: START + 20_000}
    }


@pytest.mark.parametrize("facts", [[ACCEPTED], [RENDERED], [FAILED]])
def test_a_copy_in_the_bucket_is_found(service: Service, facts: list[Fact]) -> None:
    """Though its event was lost, and whatever Runware says."""
    service.put(*facts)
    service.world.bucket.objects[clip().object_key] = MP4
    service.sweep(TIMES.last_look)
    assert service.row().status == Status.STORED
    assert service.row().of(Kind.STORED)["v1"].seen == {FactSource.BUCKET: START + TIMES.last_look}
    assert service.rescuer.fetched == []


# ----------------------------------------------------------------------------------------------------------------------
# which clips
# ----------------------------------------------------------------------------------------------------------------------


def test_a_clip_that_is_not_due_in_truth_is_left_alone(service: Service) -> None:
    """The index may lag behind: what the clip itself says of its next look counts."""
    service.put(next_check_at=START + 1)
    service.table.lagging = [("ann", TASK_UUID, 0)]
    assert service.sweep(0) == 0
    assert service.sent == 0


@pytest.mark.parametrize(("lasts", "taken"), [(2 * TIMES.http, 1), (2 * TIMES.http - 1, 0)])
def test_a_sweep_takes_nothing_that_it_cannot_work_on(service: Service, lasts: int, taken: int) -> None:
    """A clip is moved forward when it is taken: with less than two requests' time left it waits for the next sweep."""
    service.put()
    assert service.sweep(0, lasts) == service.sent == taken


def test_the_index_may_name_what_is_gone_or_closed(service: Service) -> None:
    """Neither is worked on, and nothing is wrong with them."""
    before = service.put(fact(Kind.REFUSED), budgeted=0, next_check_at=None)
    service.table.lagging = [("ann", uuid4(9), 0), ("ann", TASK_UUID, 0)]
    assert service.sweep(0) == 0
    assert service.row() == before


@pytest.mark.parametrize(("left", "asked"), [(TIMES.http, 2), (TIMES.http - 1, 1)])
def test_nothing_is_asked_without_time_for_the_answer(service: Service, left: int, asked: int) -> None:
    """To the millisecond."""
    service.many(2, STORED)
    service.runware.takes = SWEEP - left
    service.sweep(0)
    assert len(service.runware.polls) == asked


@pytest.mark.parametrize(
    ("facts", "rendered", "found"), [([ACCEPTED], False, 0), ([ACCEPTED], True, 1), ([RENDERED], True, 0)]
)
def test_a_render_that_a_poll_found_first_is_counted(
    service: Service, facts: list[Fact], rendered: bool, found: int
) -> None:
    """The metric shows how many webhooks were lost: a render that is known already was found by none."""
    service.put(*facts)
    service.rescuer.fails = True
    service.runware.rendered = {CLIP_UUID} if rendered else set()
    service.sweep(TIMES.usual_render)
    assert service.runware.polls
    assert service.world.telemetry.counted[Metric.FOUND_BY_POLL] == found


def test_a_sweep_tells_how_many_it_took(service: Service) -> None:
    """All of them, however often it went to the index."""
    service.many(BATCH + 1, STORED)
    assert service.sweep(0) == BATCH + 1


def test_an_index_that_lags_does_not_end_the_sweep(service: Service) -> None:
    """Names of clips that others have taken stay ahead in the index; the clips behind them are reached."""
    uuids = service.many(350, ACCEPTED, fact(Kind.LAST_LOOK))
    service.table.lagging = [("ann", uuid, 0) for uuid in uuids[: 2 * BATCH + 50]]
    for _, uuid, _ in service.table.lagging:
        service.table.put(replace(service.row(uuid), next_check_at=START + 10**9))
    assert service.sweep(0) == 100
    assert service.table.mosts[:3] == [BATCH, 2 * BATCH, 3 * BATCH]  # for no more than it has to
    assert len({uuid for uuids in service.runware.polls for uuid in uuids}) == 100


def test_an_error_that_was_not_foreseen_stays_with_its_clip(service: Service) -> None:
    """The next clip is worked on, and the log names the first one and the error."""
    first, second = service.many(2)
    genuine = service.table.task

    def task(caller: str, task_uuid: str) -> Task | None:
        if task_uuid == first:
            raise ValueError("boom")
        return genuine(caller, task_uuid)

    service.table.task = task  # type: ignore[method-assign]
    service.sweep(0)
    assert [sent["taskUUID"] for sent in service.world.runware.sent] == [second]
    ((message, _, details),) = [note for note in service.world.telemetry.notes if note[1]]
    assert (message, details["reason"]) == ("clip check failed", "ValueError: boom")
    assert first in str(details["item"])
    assert len(str(details["item"])) == 300
    service.world.telemetry.notes.clear()


def test_clips_that_cannot_be_read_are_moved_aside(service: Service) -> None:
    """More of them than a sweep takes at a time starve nobody, and an alarm rings for each until it can be read."""
    for number in range(BATCH + 1):
        service.table.unreadable["ann", uuid4(number), 0] = START - 1
    service.put()
    assert service.sweep(0) == 1
    assert service.sent == 1
    assert service.world.telemetry.counted[Metric.UNREADABLE_CLIPS] == BATCH + 1
    noted = ("clip unreadable by this version", True, {"caller": "ann", "taskUUID": uuid4(0), "clip": 0})
    assert noted in service.world.telemetry.notes
    assert set(service.table.unreadable.values()) == {START + TIMES.last_look}
    service.sweep(TIMES.last_look)
    assert service.world.telemetry.counted[Metric.UNREADABLE_CLIPS] == 2 * (BATCH + 1)


# ----------------------------------------------------------------------------------------------------------------------
# shared polls
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("spoiler", [0, 13, 29])
def test_one_clip_does_not_hide_the_others(service: Service, spoiler: int, named: bool) -> None:
    """Runware answers the whole question with an error because of one clip: the others are found all the same."""
    uuids = service.many(30, ACCEPTED)
    service.runware.rendered, service.runware.names_spoilers = set(uuids), named
    service.runware.spoilers = {uuids[spoiler]}
    service.sweep(TIMES.usual_render)
    found = {uuid for uuid in uuids if service.row(uuid).has(Kind.RENDERED)}
    assert found == {*uuids} - {uuids[spoiler]}
    assert len(service.runware.polls) <= (2 if named else 12)


@pytest.mark.parametrize("most", [1, 7, 10, 49])
def test_the_most_that_runware_takes_is_learned(service: Service, most: int) -> None:
    """A question about too many is asked in halves, and later ones are no larger than what was answered."""
    uuids = service.many(2 * MAX_POLLED, ACCEPTED)
    service.runware.rendered, service.runware.most = set(uuids), most
    service.sweep(TIMES.usual_render)
    assert all(service.row(uuid).has(Kind.RENDERED) for uuid in uuids)
    refused = [uuids for uuids in service.runware.polls if len(uuids) > most]
    assert len(refused) <= 6


def test_a_runware_that_answers_nothing_is_not_asked_for_ever(service: Service) -> None:
    """When every question is turned away the halving ends, and no clip is the worse for it."""
    uuids = service.many(2 * MAX_POLLED, ACCEPTED)
    service.runware.spoilers = set(uuids)
    service.sweep(TIMES.usual_render)
    assert len(service.runware.polls) == 2 + 2 * 16  # sixteen questions are asked again in halves
    assert {service.row(uuid).status for uuid in uuids} == {Status.RUNNING}


def test_an_answer_that_mentions_some_is_not_asked_again(service: Service) -> None:
    """Beside results, absence means that a clip is not known yet."""
    uuids = service.many(3, ACCEPTED)
    service.runware.rendering = {uuids[0]}
    service.sweep(TIMES.usual_render)
    assert service.runware.polls == [uuids]


# ----------------------------------------------------------------------------------------------------------------------
# giving up
# ----------------------------------------------------------------------------------------------------------------------

GIVEN_UP: dict[str, tuple[list[Fact], dict[str, Any], int, Kind]] = {
    "doubtful": ([], {"possibly_sent_at": START}, TIMES.deadline, Kind.UNPROVEN),
    "running": ([ACCEPTED], {}, TIMES.deadline, Kind.UNPROVEN),
    "failed": ([FAILED], {}, TIMES.last_look, Kind.LAST_LOOK),
    "stored": ([STORED], {}, TIMES.last_look, Kind.DETAILS_UNKNOWN),
    "rendered": ([RENDERED], {}, TIMES.copy_deadline, Kind.UNSAVED),
    "undelivered": ([fact(Kind.UNDELIVERED, "uploadFailed")], {}, TIMES.copy_deadline, Kind.UNSAVED),
}
each_case = pytest.mark.parametrize("case", GIVEN_UP)


def put_case(service: Service, case: str) -> tuple[int, Callable[[], bool]]:
    """Puts the clip there; returns its limit, and whether it has been given up by now."""
    facts, changes, limit, kind = GIVEN_UP[case]
    service.put(*facts, **changes)
    service.rescuer.fails = True
    return limit, lambda: service.row().has(kind)


@each_case
def test_an_answered_look_gives_up_at_the_limit(service: Service, case: str) -> None:
    """Every witness has answered and knows nothing: a millisecond before its limit a clip goes on, then it ends."""
    limit, is_over = put_case(service, case)
    service.sweep(limit - 1)
    assert not is_over()
    service.clock.now = service.row().next_check_at or 0
    service.sweep()
    assert is_over()


@pytest.mark.parametrize("case", [case for case in GIVEN_UP if case != "doubtful"])
def test_a_limit_counts_from_what_the_clip_waits_for(service: Service, case: str) -> None:
    """Time that passed before the purchase, the render or the failure became known shortens no later limit."""
    facts, changes, limit, _ = GIVEN_UP[case]
    _, is_over = put_case(service, case)
    service.put(*facts, **changes, created_at=START - 10 * limit)
    service.sweep(limit - 1)
    assert not is_over()


GIVEN_UP_AT_ONCE = {
    "never sent": ([], {}, TIMES.deadline, Kind.REFUSED),
    **GIVEN_UP,
    "asked": ([ACCEPTED, fact(Kind.UNPROVEN), fact(Kind.ASKED, "a")], {}, 0, Kind.ANSWERED),
}


@pytest.mark.parametrize("case", GIVEN_UP_AT_ONCE)
def test_what_the_clock_decides_is_on_record_as_its_decision(service: Service, case: str) -> None:
    """A clip that was given up says when, and that it was no witness outside who said so."""
    facts, changes, limit, kind = GIVEN_UP_AT_ONCE[case]
    service.put(*facts, **changes)
    service.rescuer.fails = True
    service.sweep(limit)
    (known,) = service.row().of(kind).values()
    assert known.seen == {FactSource.CLOCK: START + limit}


def test_a_render_described_at_the_last_moment_is_described(service: Service) -> None:
    """What the last look brings ends the looking; nothing is said to be unknown beside it."""
    service.put(STORED)
    service.runware.rendered = {CLIP_UUID}
    service.sweep(TIMES.last_look)
    assert service.row().has(Kind.RENDERED)
    assert not service.row().has(Kind.DETAILS_UNKNOWN)


def test_a_copy_found_at_the_last_moment_is_a_copy(service: Service) -> None:
    """Nothing is said to be unsaved beside it."""
    service.put(RENDERED)
    service.world.bucket.objects[clip().object_key] = MP4
    service.sweep(TIMES.copy_deadline)
    assert service.row().status == Status.STORED
    assert not service.row().has(Kind.UNSAVED)


@each_case
def test_without_an_answer_the_limit_moves_by_one_deadline(service: Service, case: str) -> None:
    """A Runware that is deaf around the limit ends nothing that it may know; the hard limit ends it all the same."""
    limit, is_over = put_case(service, case)
    service.runware.down = True
    service.sweep(limit)
    assert not is_over()
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.hard(limit) - 1)
    assert not is_over()
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.hard(limit))
    assert is_over()


@pytest.mark.parametrize("case", ["doubtful", "running", "failed", "rendered"])
def test_a_bucket_without_an_answer_moves_the_limit_as_well(service: Service, case: str) -> None:
    """The copy may be there: only S3 can say."""
    limit, is_over = put_case(service, case)
    service.world.bucket.down = True
    service.sweep(limit)
    assert not is_over()
    service.table.put(replace(service.row(), next_check_at=START))
    service.world.bucket.down = False
    service.sweep(limit + 1)
    assert is_over()


@each_case
def test_a_sweep_without_time_gives_nothing_up(service: Service, case: str) -> None:
    """What could not be asked about waits for the next sweep, even past the hard limit."""
    limit, is_over = put_case(service, case)
    service.runware.takes = SWEEP  # and the first question takes all the time
    service.many(1, STORED)
    service.sweep(TIMES.hard(limit))
    assert service.runware.alone == [uuid4(1)]
    assert not is_over()


def test_a_shared_answer_is_kept_though_no_time_is_left_for_more(service: Service) -> None:
    """What the shared question brought is on record; the question about the clip alone is left to the next sweep."""
    service.put(ACCEPTED)
    service.runware.rendering, service.runware.takes = {CLIP_UUID}, SWEEP - TIMES.http + 1
    service.sweep(TIMES.deadline)
    assert len(service.runware.polls) == 1
    assert service.row().of(Kind.ACCEPTED).keys() == {"acknowledged", "known"}


def test_clips_past_their_deadline_are_each_asked_about_alone(service: Service) -> None:
    """A sweep that runs out of time parks only those of which it has asked; the others are found by the next."""
    uuids = service.many(20, ACCEPTED)
    service.runware.takes = 3_000
    service.sweep(TIMES.deadline)
    parked = {uuid for uuid in uuids if service.row(uuid).status == Status.REVIEW}
    assert 0 < len(parked) < 20
    assert parked <= set(service.runware.alone)


def test_a_failure_that_is_told_with_a_4xx_is_an_answer(service: Service) -> None:
    """Runware has answered about this very clip: the failure is believed at its last look."""
    service.put(FAILED)
    service.runware.spoilers, service.runware.names_spoilers = {CLIP_UUID}, True
    service.runware.fault = "timeoutProvider"
    service.sweep(TIMES.last_look)
    assert service.row().has(Kind.LAST_LOOK)


def test_a_failure_that_still_renders_is_not_believed_at_the_last_look(service: Service) -> None:
    """Runware contradicts itself: the failure stands only at the hard limit."""
    service.put(FAILED)
    service.runware.rendering = {CLIP_UUID}
    service.sweep(TIMES.last_look)
    assert service.row().open
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.hard(TIMES.last_look))
    assert not service.row().open


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "bought, but no result: every source confirms its absence"),
        ({"rendering": {CLIP_UUID}}, "bought, but no result: Runware reports it in progress"),
        ({"down": True}, "bought, but no result: no answer from getResponse and getTaskDetails"),
        ({"bucket_down": True}, "bought, but no result: no answer from the bucket"),
        ({"objects": [b"<Error>"]}, "bought, but no result: no source has its outcome"),
        ({"detailed": [{"taskUUID": CLIP_UUID}]}, "bought, but no result: no source has its outcome"),
        ({"detailed": [{"taskUUID": uuid4(9)}]}, "bought, but no result: every source confirms its absence"),
    ],
)
def test_the_reason_for_parking_is_true(service: Service, change: dict[str, Any], reason: str) -> None:
    """The record says what the last look came to."""
    service.put(ACCEPTED)
    service.world.bucket.objects |= {clip().object_key: content for content in change.get("objects", [])}
    service.world.bucket.down = change.get("bucket_down", False)
    for name in change.keys() - {"objects", "bucket_down"}:
        setattr(service.runware, name, change[name])
    service.sweep(TIMES.hard(TIMES.deadline))
    assert service.row().of(Kind.UNPROVEN)[""].fields["reason"] == reason


# ----------------------------------------------------------------------------------------------------------------------
# rescue, and what comes late
# ----------------------------------------------------------------------------------------------------------------------


def test_an_upload_is_waited_for_before_a_rescue(service: Service) -> None:
    """Runware's upload usually follows its webhook: fetching at once would store most clips twice."""
    service.put(RENDERED)
    service.sweep(TIMES.rescue_after - 1)
    assert service.rescuer.fetched == []
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.rescue_after)
    assert service.rescuer.fetched == ["https://vm.runware.ai/v.mp4"]
    assert service.row().status == Status.STORED


def test_an_upload_that_failed_proves_a_render(service: Service) -> None:
    """Even after a failure was closed and its money released: the clip is open and paid for, and its copy fetched."""
    ended = merge_all(clip(next_check_at=START, budgeted=0), [FAILED, fact(Kind.LAST_LOOK)])
    assert not ended.open
    service.table.put(merge(ended, fact(Kind.UNDELIVERED, "uploadFailed")))
    service.runware.rendered = {CLIP_UUID}
    service.sweep(TIMES.rescue_after)
    assert service.row().status == Status.STORED
    assert service.row().budgeted == clip().estimate
    assert service.row().has(Kind.RENDERED)  # which the poll knew that was asked for an address


def test_a_render_without_a_copy_is_parked_with_what_is_missing(service: Service) -> None:
    """Both are for people to read: what is wanting, and which witness did not answer."""
    service.put(RENDERED)
    service.rescuer.fails = service.runware.down = True
    service.sweep(TIMES.hard(TIMES.copy_deadline))
    reason = "rendered, but no copy was obtained by the deadline: no answer from getResponse"
    assert service.row().of(Kind.UNSAVED)[""].fields["reason"] == reason


KEY = clip().object_key


def test_an_object_that_was_created_stores_its_clip(service: Service) -> None:
    """Whatever the clip waits for, its copy is learned at the version that S3 names, as of now."""
    service.put(fact(Kind.UNPROVEN, source=FactSource.CLOCK))
    service.world.bucket.objects[KEY] = MP4
    service.clock.now += 5
    service.reconcile_service.check_upload(KEY, "v1")
    assert service.row().status == Status.STORED
    assert service.row().of(Kind.STORED)["v1"].seen == {FactSource.BUCKET: START + 5}
    assert service.versions.asked == [(KEY, "v1")]


@pytest.mark.parametrize(
    "key",
    [
        KEY.replace("ann", "bob"),
        KEY.replace("-0.mp4", "-1.mp4"),
        KEY.replace("-0.mp4", "-0.webm"),
        KEY.replace("-0.mp4", "-4.mp4"),
        KEY.replace("2026/09/21/", "elsewhere/"),
        "inputs/ann/a.png",
    ],
)
def test_an_object_of_no_clip_is_noted(service: Service, key: str) -> None:
    """A key that is not exactly a recorded clip's changes nothing and is not even looked at."""
    before = service.put()
    service.world.bucket.objects[key] = MP4
    service.reconcile_service.check_upload(key, "v1")
    assert service.row() == before
    assert service.versions.asked == []
    assert service.world.telemetry.notes == [("uploaded object belongs to no clip", True, {"key": key})]


@pytest.mark.parametrize(("facts", "content"), [([STORED], MP4), ([RENDERED], b"<Error>"), ([RENDERED], None)])
def test_a_created_object_that_teaches_nothing(service: Service, facts: list[Fact], content: bytes | None) -> None:
    """A version known already is not read again; one that is gone or no video is no copy."""
    before = service.put(*facts)
    if content is not None:
        service.world.bucket.objects[KEY] = content
    service.reconcile_service.check_upload(KEY, "v1")
    assert service.row() == before
    assert len(service.versions.asked) == (0 if facts == [STORED] else 1)


# ----------------------------------------------------------------------------------------------------------------------
# asking once more
# ----------------------------------------------------------------------------------------------------------------------

PARKED = {
    "unproven": [ACCEPTED, fact(Kind.UNPROVEN, source=FactSource.CLOCK)],
    "unsaved": [RENDERED, fact(Kind.UNSAVED, source=FactSource.CLOCK)],
}
ASKED = fact(Kind.ASKED, "2026-09-21", START + 10**7, FactSource.OPERATOR)


@pytest.mark.parametrize("case", PARKED)
def test_a_clip_in_review_is_looked_at_when_a_person_asks(service: Service, case: str) -> None:
    """What Runware has by now ends the review."""
    service.put(*PARKED[case], ASKED)
    service.runware.rendered = {CLIP_UUID}
    service.sweep(10**7)
    assert service.runware.alone == [CLIP_UUID] or service.rescuer.fetched
    assert service.row().status in (Status.RENDERED, Status.STORED)


@pytest.mark.parametrize("case", PARKED)
def test_an_ask_is_answered_once(service: Service, case: str) -> None:
    """When nobody knows anything new the clip waits for a person again, with what the look came to."""
    service.put(*PARKED[case], ASKED)
    service.rescuer.fails = True
    service.sweep(10**7)
    assert (service.row().status, service.row().open) == (Status.REVIEW, False)
    assert service.row().of(Kind.ANSWERED)[ASKED.key].fields["reason"] == "every source confirms its absence"


def test_a_render_that_cannot_be_had_is_not_denied(service: Service) -> None:
    """The answer to the person tells a clip that Runware lacks from one whose copy it does not give."""
    service.put(*PARKED["unsaved"], ASKED)
    service.rescuer.fails, service.runware.rendered = True, {CLIP_UUID}
    service.sweep(10**7)
    assert service.row().of(Kind.ANSWERED)[ASKED.key].fields["reason"] == "no source has its outcome"


def test_an_ask_waits_for_an_answer(service: Service) -> None:
    """A deaf Runware is asked again, for one more deadline at most."""
    service.put(*PARKED["unproven"], ASKED)
    service.runware.down = True
    service.sweep(10**7)
    assert service.row().open
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(10**7 + TIMES.deadline)
    assert not service.row().open


def test_a_doubtful_clip_is_not_sent_into_another_account(service: Service) -> None:
    """The account of the key that is now set was never asked for it: it is parked at the deadline, and says why."""
    service.put(possibly_sent_at=START, possibly_sent_to="another")
    service.sweep(TIMES.check)
    assert service.sent == 0
    service.sweep(TIMES.deadline)
    known = service.world.row()
    assert (service.sent, known.status) == (0, Status.REVIEW)
    reason = "an attempt may have arrived in another Runware account: every source confirms its absence"
    assert known.of(Kind.UNPROVEN)[""].fields["reason"] == reason


def test_a_doubtful_clip_is_sent_into_the_same_account(service: Service) -> None:
    """As long as the key stays what it was."""
    service.put(possibly_sent_at=START, possibly_sent_to=service.world.buyer().credentials.account)
    service.sweep(TIMES.check)
    assert service.sent == 1

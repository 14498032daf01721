"""The sweep's rules, each at its limit: buying, lookups, rescue, waiting and giving up."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rushes.config import WhenAmbiguous
from rushes.domain.clip import (
    SLOTS,
    Chain,
    Clip,
    Fact,
    FactRecord,
    FactSource,
    FallbackModel,
    Kind,
    Lease,
    Status,
    merge,
    merge_all,
)
from rushes.domain.media import ProbeResult
from rushes.domain.task import Task
from rushes.errors import ProviderError, RescueError, UnreadableClipError
from rushes.runware import models
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived
from rushes.runware.response import LookupResponse, read_lookup
from rushes.services.metric import Metric
from rushes.services.reconcile import BATCH, MAX_POLLED, LookupResult, ReconcileService
from tests.fakes.builders import CLIP_UUID, MP4, PRICE, START, TASK_UUID, TIMES, clip, fact, refusal, request, uuid4
from tests.fakes.table import FakeTable
from tests.fakes.telemetry import FakeClock
from tests.fakes.use_cases import FakeBucket, UseCases, sequential_map

Name = tuple[str, str, int]
SWEEP_TIME = 48_000  # milliseconds of a sweep
ACCEPTED = fact(Kind.ACCEPTED, "acknowledged")
RENDERED = fact(Kind.RENDERED, "v", videoURL="https://vm.runware.ai/v.mp4")
STORED = fact(Kind.STORED, "v1", source=FactSource.BUCKET)
FAILED = fact(Kind.FAILED, "timeoutProvider")


class SweptTable(FakeTable):
    """A table with an index of due clips.

    `lagging` are names that the index still lists; `unreadable` clips cannot be read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lagging: list[Name] = []
        self.limits: list[int] = []  # of each read of the index
        self.unreadable: dict[Name, int] = {}  # the time at which each is due

    def due(self, now: int, limit: int) -> list[Name]:
        self.limits.append(limit)
        rows = {key: row.next_check_at for key, row in self.rows.items() if row.open and row.next_check_at is not None}
        found = sorted((at, key) for key, at in (rows | self.unreadable).items() if at <= now)
        return (self.lagging + [key for _, key in found if key not in self.lagging])[:limit]

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
    """Answers lookups about `rendering` and `rendered`; any other clip is absent.

    Each lookup takes `takes` milliseconds. With `down` all fail. A poll for more than `max_polled` clips is refused,
    and so is one for any of `spoilers`; `names_spoilers` puts them into its error.
    """

    clock: FakeClock
    rendering: set[str] = field(default_factory=set)
    rendered: set[str] = field(default_factory=set)
    spoilers: set[str] = field(default_factory=set)
    names_spoilers: bool = False
    max_polled: int = 1000
    takes: int = 0
    down: bool = False
    details_down: bool = False
    detailed: list[dict[str, Any]] = field(default_factory=list)  # the items of `getTaskDetails`
    fault: str = "taskNotFound"  # code of the error about a named spoiler
    detailed_of: list[str] = field(default_factory=list)
    polls: list[list[str]] = field(default_factory=list)

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse:
        assert key == "runware-key"
        self.polls.append(list(task_uuids))
        self.clock.now += self.takes
        if self.down:
            raise ProviderError("HTTP 503")
        if len(task_uuids) > self.max_polled:
            return answer(400, errors=[{"code": "arrayTooLarge", "message": "too many"}])
        if spoiled := sorted(self.spoilers & set(task_uuids)):
            about = [{"code": self.fault, "message": "unknown", "taskUUID": uuid} for uuid in spoiled]
            general = [{"code": "invalidValue", "message": "no"}]
            return answer(404, errors=about if self.names_spoilers else general)
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
    def polled_alone(self) -> list[str]:
        """The clips that were polled alone."""
        return [uuids[0] for uuids in self.polls if len(uuids) == 1]


def answer(status: int, **body: Any) -> LookupResponse:
    return read_lookup(status, json.dumps(body).encode())


class Rescuer:
    """Fetches a video, or fails."""

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
    """A sweep on fakes."""

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
            concurrent_map=sequential_map,
        )

    def sweep(self, at: int | None = None, lasts: int = SWEEP_TIME) -> int:
        """Runs one sweep, `at` milliseconds after START; returns the number of its clips."""
        if at is not None:
            self.clock.now = START + at
        return self.reconcile_service.sweep(self.world.buyer(lasts, unattended=True))

    def put(self, *facts: Fact, **changes: Any) -> Clip:
        """Puts a due clip."""
        return self.table.put(clip(*facts, **{"next_check_at": START, **changes}))

    def many(self, count: int, *facts: Fact) -> list[str]:
        """Puts due clips, in the order in which they are due; returns their UUIDs."""
        uuids = [uuid4(number) for number in range(1, count + 1)]
        for number, uuid in enumerate(uuids):
            self.put(*facts, task_uuid=uuid, clip_uuid=uuid, next_check_at=START - count + number)
        return uuids

    def row(self, task_uuid: str = TASK_UUID) -> Clip:
        return self.table.rows["ann", task_uuid, 0]


@dataclass
class Versions:
    """The bucket, with one version of each object. `version_probes` are the probes of a certain version."""

    bucket: FakeBucket
    version_probes: list[tuple[str, str]] = field(default_factory=list)

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None:
        if version:
            self.version_probes.append((key, version))
        return self.bucket.probe(key)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    failures = [entry for entry in service.world.telemetry.logs if entry[0] == "clip check failed"]
    assert not failures, failures


# ----------------------------------------------------------------------------------------------------------------------
# buying
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elapsed", [0, TIMES.resend_window, TIMES.deadline - 1])
def test_an_unsent_clip_is_sent_until_the_deadline(service: Service, elapsed: int) -> None:
    """The resend window is for possible sends; without one a clip is tried until its deadline."""
    service.put()
    service.sweep(elapsed)
    assert service.sent == 1
    assert service.row().decisive == Kind.ACCEPTED


def test_an_unsent_clip_is_given_up_at_the_deadline(service: Service) -> None:
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


@pytest.mark.parametrize(("elapsed", "is_sent"), [(TIMES.resend_window - 1, True), (TIMES.resend_window, False)])
def test_an_uncertain_clip_is_sent_again_within_the_window(service: Service, elapsed: int, is_sent: bool) -> None:
    """Within the window an absent clip is sent again; after it the clip waits for its deadline without a review."""
    service.put(possibly_sent_at=START)
    service.sweep(elapsed)
    assert (service.sent == 1) is is_sent
    assert service.row().status == (Status.RUNNING if is_sent else Status.PENDING)


def test_the_window_is_checked_after_the_lookups(service: Service) -> None:
    """A clip within the window before the lookups may be beyond it after them."""
    service.put(possibly_sent_at=START)
    service.runware.takes = 1_000
    service.sweep(TIMES.resend_window - 1_500)
    assert (service.sent, service.row().status) == (0, Status.PENDING)


def test_the_lease_begins_when_the_window_is_checked(service: Service) -> None:
    """A resend takes effect within the window and one lease, however long the lookups took."""
    leases: list[Lease | None] = []
    service.put(possibly_sent_at=START)
    service.runware.takes = 1_000
    service.world.runware.on_send = lambda _: leases.append(service.row().lease)
    service.sweep(TIMES.resend_window - 2_001)
    assert [lease and lease.since for lease in leases] == [START + TIMES.resend_window - 1]


@pytest.mark.parametrize("obstacle", ["poll", "details", "bucket", "policy", "later version"])
def test_a_resend_needs_every_source_to_confirm_absence(service: Service, obstacle: str) -> None:
    """A missing answer confirms nothing; under `review`, or with a fact of an unknown kind, nothing is sent."""
    before = service.put(possibly_sent_at=START)
    service.runware.down = obstacle == "poll"
    service.runware.details_down = obstacle == "details"
    service.world.bucket.down = obstacle == "bucket"
    service.when_ambiguous = "review" if obstacle == "policy" else "resend"
    if obstacle == "later version":
        service.table.put(
            replace(before, possibly_sent_at=None, facts={("bought", ""): FactRecord.of_all({"oracle": START}, {})})
        )
    service.sweep(20_000)
    assert (service.sent, service.row().status) == (0, Status.PENDING)


@pytest.mark.parametrize(
    ("usual_render", "is_sent"),
    [(None, False), (TIMES.latest_repeat, False), (TIMES.latest_repeat + 1, True)],
)
def test_a_resend_needs_a_model_that_renders_longer(
    service: Service, usual_render: int | None, is_sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeat that could take effect after the first render would buy a second clip; an unknown duration counts."""
    kling = replace(models.get(models.DEFAULT), usual_render=usual_render)
    monkeypatch.setattr(models, "find", {kling.air: kling}.get)
    service.put(possibly_sent_at=START)
    service.sweep(20_000)
    assert (service.sent == 1) is is_sent


def test_a_clip_with_a_fact_of_a_later_version_is_never_refused(service: Service) -> None:
    """At the deadline it goes to review, since this version cannot interpret the fact."""
    service.table.put(clip(next_check_at=START, facts={("bought", ""): FactRecord.of_all({"oracle": START}, {})}))
    service.sweep(TIMES.deadline)
    reason = "it has facts of a later version: every source confirms its absence"
    assert service.row().of(Kind.UNPROVEN)[""].fields["reason"] == reason


def test_a_tasks_details_prove_an_uncertain_purchase(service: Service) -> None:
    """A clip missing from the poll is not sent again if its details have its render; other clips' items are ignored."""
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


def test_an_expired_lease_is_an_ambiguous_attempt(service: Service) -> None:
    """The buyer is gone, so the sweep looks the clip up as after any possible send."""
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
    """After three failures in a row no further clip is sent, and the others are not made ambiguous."""
    service.many(5)
    service.world.runware.script = [outcome] * 5
    service.sweep(20_000)
    assert service.sent == 3
    assert sum(row.possibly_sent_at is None and not row.facts for row in service.table.rows.values()) == 2


def test_failures_with_a_success_between_them_do_not_stop_a_sweep(service: Service) -> None:
    """Only failures in a row mean that Runware is down."""
    service.many(6)
    lost, accepted = Ambiguous("ReadTimeout"), Accepted("acknowledged")
    service.world.runware.script = [lost, lost, accepted, lost, lost, accepted]
    service.sweep(20_000)
    assert service.sent == 6


def test_a_sweep_stops_asking_when_runware_is_down(service: Service) -> None:
    """After three failures in a row no further lookup is made, and nothing is sent."""
    service.many(5, STORED)
    service.put(next_check_at=START)
    service.runware.down = True
    service.sweep(20_000)
    assert (len(service.runware.polls), service.sent) == (3, 0)
    assert service.world.telemetry.logs == [("Runware lookup failed", True, {"reason": "HTTP 503"})] * 3


def test_an_absent_uncertain_clip_goes_to_review_with_that_reason(service: Service) -> None:
    """An attempt in this very account is not described as one in another account."""
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
def test_only_answers_without_the_clip_confirm_its_absence(reports: list[LookupResponse | None], absent: bool) -> None:
    """An answer with the clip, one without any task, a refused lookup and a missing answer confirm nothing."""
    lookup = LookupResult()
    for report in reports:
        lookup.add_response(report, CLIP_UUID)
    assert lookup.all_absent is absent


@pytest.mark.parametrize(
    ("content", "kind", "key"),
    [(MP4, Kind.STORED, "v1"), (b"<Error>", Kind.ACCEPTED, "an object was uploaded")],
)
def test_an_upload_proves_an_uncertain_purchase(service: Service, content: bytes, kind: Kind, key: str) -> None:
    """Only Runware has the upload link, so any object means that the clip is not sent again."""
    service.put(possibly_sent_at=START)
    service.world.bucket.objects[clip().object_key] = content
    service.sweep(20_000)
    assert (service.sent, service.row().decisive) == (0, kind)
    assert {name: record.seen for name, record in service.row().of(kind).items()} == {
        key: {FactSource.BUCKET: START + 20_000}
    }


@pytest.mark.parametrize("facts", [[ACCEPTED], [RENDERED], [FAILED]])
def test_a_copy_in_the_bucket_is_found(service: Service, facts: list[Fact]) -> None:
    """The bucket is probed although the upload's event was lost, whatever Runware answers."""
    service.put(*facts)
    service.world.bucket.objects[clip().object_key] = MP4
    service.sweep(TIMES.last_look)
    assert service.row().status == Status.STORED
    assert service.row().of(Kind.STORED)["v1"].seen == {FactSource.BUCKET: START + TIMES.last_look}
    assert service.rescuer.fetched == []


# ----------------------------------------------------------------------------------------------------------------------
# which clips
# ----------------------------------------------------------------------------------------------------------------------


def test_a_clip_that_is_due_only_in_the_index_is_left_alone(service: Service) -> None:
    """The index may lag, so the clip's own next check decides."""
    service.put(next_check_at=START + 1)
    service.table.lagging = [("ann", TASK_UUID, 0)]
    assert service.sweep(0) == 0
    assert service.sent == 0


@pytest.mark.parametrize(("lasts", "worked_on"), [(2 * TIMES.http, 1), (2 * TIMES.http - 1, 0)])
def test_a_sweep_begins_no_clip_without_time(service: Service, lasts: int, worked_on: int) -> None:
    """With less than two requests' time left a due clip stays due for the next sweep."""
    service.put()
    assert service.sweep(0, lasts) == service.sent == worked_on


def test_the_index_may_list_missing_or_closed_clips(service: Service) -> None:
    """A missing or closed clip is not worked on and is no error."""
    before = service.put(fact(Kind.REFUSED), budgeted=0, next_check_at=None)
    service.table.lagging = [("ann", uuid4(9), 0), ("ann", TASK_UUID, 0)]
    assert service.sweep(0) == 0
    assert service.row() == before


@pytest.mark.parametrize(("left", "lookups"), [(TIMES.http, 2), (TIMES.http - 1, 1)])
def test_no_lookup_begins_without_time_for_its_answer(service: Service, left: int, lookups: int) -> None:
    """No lookup begins with a millisecond less than its own time."""
    service.many(2, STORED)
    service.runware.takes = SWEEP_TIME - left
    service.sweep(0)
    assert len(service.runware.polls) == lookups


@pytest.mark.parametrize(
    ("facts", "rendered", "found"), [([ACCEPTED], False, 0), ([ACCEPTED], True, 1), ([RENDERED], True, 0)]
)
def test_a_render_that_a_poll_found_first_is_counted(
    service: Service, facts: list[Fact], rendered: bool, found: int
) -> None:
    """The metric counts lost webhooks, so a render that was recorded before is not counted."""
    service.put(*facts)
    service.rescuer.fails = True
    service.runware.rendered = {CLIP_UUID} if rendered else set()
    service.sweep(TIMES.usual_render)
    assert service.runware.polls
    assert service.world.telemetry.counted[Metric.FOUND_BY_POLL] == found


def test_a_sweep_returns_the_number_of_its_clips(service: Service) -> None:
    """A sweep returns the number of its clips over all reads of the index."""
    service.many(BATCH + 1, STORED)
    assert service.sweep(0) == BATCH + 1


def test_an_index_that_lags_does_not_end_the_sweep(service: Service) -> None:
    """The clips behind outdated names in the index are reached."""
    uuids = service.many(350, ACCEPTED, fact(Kind.LAST_LOOK))
    service.table.lagging = [("ann", uuid, 0) for uuid in uuids[: 2 * BATCH + 50]]
    for _, uuid, _ in service.table.lagging:
        service.table.put(replace(service.row(uuid), next_check_at=START + 10**9))
    assert service.sweep(0) == 100
    assert service.table.limits[:3] == [BATCH, 2 * BATCH, 3 * BATCH]  # no more than needed
    assert len({uuid for uuids in service.runware.polls for uuid in uuids}) == 100


def test_an_unexpected_error_affects_only_its_clip(service: Service) -> None:
    """The next clip is worked on, and the log has the first one and the error."""
    first, second = service.many(2)
    genuine = service.table.task

    def task(caller: str, task_uuid: str) -> Task | None:
        if task_uuid == first:
            raise ValueError("boom")
        return genuine(caller, task_uuid)

    service.table.task = task  # type: ignore[method-assign]
    service.sweep(0)
    assert [sent["taskUUID"] for sent in service.world.runware.sent] == [second]
    ((message, _, details),) = [entry for entry in service.world.telemetry.logs if entry[1]]
    assert (message, details["reason"]) == ("clip check failed", "ValueError: boom")
    assert first in str(details["item"])
    assert len(str(details["item"])) == 300
    service.world.telemetry.logs.clear()


def test_unreadable_clips_are_postponed(service: Service) -> None:
    """More than a batch of unreadable clips block no other clip, and an alarm rings for each until it can be read."""
    for number in range(BATCH + 1):
        service.table.unreadable["ann", uuid4(number), 0] = START - 1
    service.put()
    assert service.sweep(0) == 1
    assert service.sent == 1
    assert service.world.telemetry.counted[Metric.UNREADABLE_CLIPS] == BATCH + 1
    logged = ("clip unreadable by this version", True, {"caller": "ann", "taskUUID": uuid4(0), "clip": 0})
    assert logged in service.world.telemetry.logs
    assert set(service.table.unreadable.values()) == {START + TIMES.last_look}
    service.sweep(TIMES.last_look)
    assert service.world.telemetry.counted[Metric.UNREADABLE_CLIPS] == 2 * (BATCH + 1)


# ----------------------------------------------------------------------------------------------------------------------
# shared polls
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_spoilers", [True, False])
@pytest.mark.parametrize("spoiler", [0, 13, 29])
def test_one_clip_does_not_fail_the_poll_of_others(service: Service, spoiler: int, names_spoilers: bool) -> None:
    """Runware answers the whole poll with an error because of one clip; the others are found all the same."""
    uuids = service.many(30, ACCEPTED)
    service.runware.rendered, service.runware.names_spoilers = set(uuids), names_spoilers
    service.runware.spoilers = {uuids[spoiler]}
    service.sweep(TIMES.usual_render)
    found = {uuid for uuid in uuids if service.row(uuid).has(Kind.RENDERED)}
    assert found == {*uuids} - {uuids[spoiler]}
    assert len(service.runware.polls) <= (2 if names_spoilers else 12)


@pytest.mark.parametrize("max_polled", [1, 7, 10, 49])
def test_a_poll_adapts_to_runwares_limit(service: Service, max_polled: int) -> None:
    """A refused poll is repeated in halves, and later ones are no larger than an answered one."""
    uuids = service.many(2 * MAX_POLLED, ACCEPTED)
    service.runware.rendered, service.runware.max_polled = set(uuids), max_polled
    service.sweep(TIMES.usual_render)
    assert all(service.row(uuid).has(Kind.RENDERED) for uuid in uuids)
    refused = [uuids for uuids in service.runware.polls if len(uuids) > max_polled]
    assert len(refused) <= 6


def test_the_halving_of_refused_polls_is_bounded(service: Service) -> None:
    """If every poll is refused the halving ends, and no clip changes."""
    uuids = service.many(2 * MAX_POLLED, ACCEPTED)
    service.runware.spoilers = set(uuids)
    service.sweep(TIMES.usual_render)
    assert len(service.runware.polls) == 2 + 2 * 16  # sixteen polls are repeated in halves
    assert {service.row(uuid).status for uuid in uuids} == {Status.RUNNING}


def test_an_answer_with_some_clips_is_not_repeated(service: Service) -> None:
    """Beside results, a missing clip means that Runware does not have it yet."""
    uuids = service.many(3, ACCEPTED)
    service.runware.rendering = {uuids[0]}
    service.sweep(TIMES.usual_render)
    assert service.runware.polls == [uuids]


# ----------------------------------------------------------------------------------------------------------------------
# giving up
# ----------------------------------------------------------------------------------------------------------------------

GIVEN_UP: dict[str, tuple[list[Fact], dict[str, Any], int, Kind]] = {
    "uncertain": ([], {"possibly_sent_at": START}, TIMES.deadline, Kind.UNPROVEN),
    "running": ([ACCEPTED], {}, TIMES.deadline, Kind.UNPROVEN),
    "failed": ([FAILED], {}, TIMES.last_look, Kind.LAST_LOOK),
    "stored": ([STORED], {}, TIMES.last_look, Kind.DETAILS_UNKNOWN),
    "rendered": ([RENDERED], {}, TIMES.copy_deadline, Kind.UNSAVED),
    "undelivered": ([fact(Kind.UNDELIVERED, "uploadFailed")], {}, TIMES.copy_deadline, Kind.UNSAVED),
}
each_case = pytest.mark.parametrize("case", GIVEN_UP)


def put_case(service: Service, case: str) -> tuple[int, Callable[[], bool]]:
    """Puts the clip of a case; returns its limit, and a function that returns True once it was given up."""
    facts, changes, limit, kind = GIVEN_UP[case]
    service.put(*facts, **changes)
    service.rescuer.fails = True
    return limit, lambda: service.row().has(kind)


@each_case
def test_with_all_answers_a_clip_is_given_up_at_its_limit(service: Service, case: str) -> None:
    """If no source has the clip, it stays open a millisecond before its limit and ends at the next check."""
    limit, is_over = put_case(service, case)
    service.sweep(limit - 1)
    assert not is_over()
    service.clock.now = service.row().next_check_at or 0
    service.sweep()
    assert is_over()


@pytest.mark.parametrize("case", [case for case in GIVEN_UP if case != "uncertain"])
def test_a_limit_counts_from_the_decisive_fact(service: Service, case: str) -> None:
    """Time before the purchase, the render or the failure was recorded shortens no later limit."""
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
def test_a_decision_of_the_clock_is_recorded_as_one(service: Service, case: str) -> None:
    """A clip that was given up has the time and the clock as the source."""
    facts, changes, limit, kind = GIVEN_UP_AT_ONCE[case]
    service.put(*facts, **changes)
    service.rescuer.fails = True
    service.sweep(limit)
    (record,) = service.row().of(kind).values()
    assert record.seen == {FactSource.CLOCK: START + limit}


def test_a_last_look_may_find_the_details(service: Service) -> None:
    """Details found by the last look end the checks, without a fact that they are unknown."""
    service.put(STORED)
    service.runware.rendered = {CLIP_UUID}
    service.sweep(TIMES.last_look)
    assert service.row().has(Kind.RENDERED)
    assert not service.row().has(Kind.DETAILS_UNKNOWN)


def test_a_last_look_may_find_the_copy(service: Service) -> None:
    """A copy found by the last look leaves no fact that the clip is unsaved."""
    service.put(RENDERED)
    service.world.bucket.objects[clip().object_key] = MP4
    service.sweep(TIMES.copy_deadline)
    assert service.row().status == Status.STORED
    assert not service.row().has(Kind.UNSAVED)


@each_case
def test_without_an_answer_the_limit_moves_by_one_deadline(service: Service, case: str) -> None:
    """While Runware is down at the limit the clip stays open; the hard limit ends it all the same."""
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


@pytest.mark.parametrize("case", ["uncertain", "running", "failed", "rendered"])
def test_a_bucket_without_an_answer_moves_the_limit_as_well(service: Service, case: str) -> None:
    """Only S3 can show whether the copy exists."""
    limit, is_over = put_case(service, case)
    service.world.bucket.down = True
    service.sweep(limit)
    assert not is_over()
    service.table.put(replace(service.row(), next_check_at=START))
    service.world.bucket.down = False
    service.sweep(limit + 1)
    assert is_over()


@each_case
def test_a_sweep_without_time_gives_no_clip_up(service: Service, case: str) -> None:
    """A clip without a lookup waits for the next sweep, even past the hard limit."""
    limit, is_over = put_case(service, case)
    service.runware.takes = SWEEP_TIME  # the first lookup takes all the time
    service.many(1, STORED)
    service.sweep(TIMES.hard(limit))
    assert service.runware.polled_alone == [uuid4(1)]
    assert not is_over()


def test_a_shared_answer_is_recorded_without_time_for_more(service: Service) -> None:
    """The result of the shared poll is recorded; the poll for the clip alone is left to the next sweep."""
    service.put(ACCEPTED)
    service.runware.rendering, service.runware.takes = {CLIP_UUID}, SWEEP_TIME - TIMES.http + 1
    service.sweep(TIMES.deadline)
    assert len(service.runware.polls) == 1
    assert service.row().of(Kind.ACCEPTED).keys() == {"acknowledged", "known"}


def test_clips_past_their_deadline_are_each_polled_alone(service: Service) -> None:
    """A sweep that runs out of time sends only polled clips to review; the others wait for the next sweep."""
    uuids = service.many(20, ACCEPTED)
    service.runware.takes = 3_000
    service.sweep(TIMES.deadline)
    in_review = {uuid for uuid in uuids if service.row(uuid).status == Status.REVIEW}
    assert 0 < len(in_review) < 20
    assert in_review <= set(service.runware.polled_alone)


def test_a_failure_in_a_4xx_is_an_answer(service: Service) -> None:
    """The answer is about this very clip, so the failure stands at its last look."""
    service.put(FAILED)
    service.runware.spoilers, service.runware.names_spoilers = {CLIP_UUID}, True
    service.runware.fault = "timeoutProvider"
    service.sweep(TIMES.last_look)
    assert service.row().has(Kind.LAST_LOOK)


def test_a_failure_that_still_renders_stays_open_at_the_last_look(service: Service) -> None:
    """Runware contradicts itself, so the failure stands only at the hard limit."""
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
def test_the_reason_for_review_is_true(service: Service, change: dict[str, Any], reason: str) -> None:
    """The record has the result of the last look."""
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
    """Runware's upload usually follows its webhook; fetching at once would store most clips twice."""
    service.put(RENDERED)
    service.sweep(TIMES.rescue_after - 1)
    assert service.rescuer.fetched == []
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.rescue_after)
    assert service.rescuer.fetched == ["https://vm.runware.ai/v.mp4"]
    assert service.row().status == Status.STORED


def test_an_upload_that_failed_proves_a_render(service: Service) -> None:
    """Even after a closed failure and released money the clip is open and paid for, and its copy is fetched."""
    ended = merge_all(clip(next_check_at=START, budgeted=0), [FAILED, fact(Kind.LAST_LOOK)])
    assert not ended.open
    service.table.put(merge(ended, fact(Kind.UNDELIVERED, "uploadFailed")))
    service.runware.rendered = {CLIP_UUID}
    service.sweep(TIMES.rescue_after)
    assert service.row().status == Status.STORED
    assert service.row().budgeted == clip().estimate
    assert service.row().has(Kind.RENDERED)  # from the poll for an address


def test_a_render_without_a_copy_goes_to_review_with_its_reason(service: Service) -> None:
    """The reason has the missing copy and the source without an answer."""
    service.put(RENDERED)
    service.rescuer.fails = service.runware.down = True
    service.sweep(TIMES.hard(TIMES.copy_deadline))
    reason = "rendered, but no copy was obtained by the deadline: no answer from getResponse"
    assert service.row().of(Kind.UNSAVED)[""].fields["reason"] == reason


KEY = clip().object_key


def test_an_object_that_was_created_stores_its_clip(service: Service) -> None:
    """Whatever its status, a clip's copy is recorded at the version of the event, with the current time."""
    service.put(fact(Kind.UNPROVEN, source=FactSource.CLOCK))
    service.world.bucket.objects[KEY] = MP4
    service.clock.now += 5
    service.reconcile_service.check_upload(KEY, "v1")
    assert service.row().status == Status.STORED
    assert service.row().of(Kind.STORED)["v1"].seen == {FactSource.BUCKET: START + 5}
    assert service.versions.version_probes == [(KEY, "v1")]


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
def test_an_object_of_no_clip_is_logged(service: Service, key: str) -> None:
    """A key that is not exactly a recorded clip's changes nothing and is not probed."""
    before = service.put()
    service.world.bucket.objects[key] = MP4
    service.reconcile_service.check_upload(key, "v1")
    assert service.row() == before
    assert service.versions.version_probes == []
    assert service.world.telemetry.logs == [("uploaded object belongs to no clip", True, {"key": key})]


def test_an_upload_for_an_erased_clip_rings_the_alarm(service: Service) -> None:
    """The object is recorded and is no copy of the clip; `check` reports it until it is deleted."""
    service.put(RENDERED, fact(Kind.ERASED, at=START - 1, source=FactSource.OPERATOR))
    service.world.bucket.objects[KEY] = MP4
    service.reconcile_service.check_upload(KEY, "v2")
    assert (service.row().status, service.row().copy) == (Status.ERASED, None)
    assert service.world.telemetry.counted == {Metric.OVERWRITTEN_CLIPS: 1}


@pytest.mark.parametrize(("facts", "content"), [([STORED], MP4), ([RENDERED], b"<Error>"), ([RENDERED], None)])
def test_a_created_object_that_adds_no_fact(service: Service, facts: list[Fact], content: bytes | None) -> None:
    """A recorded version is not read again; a missing object and one that is no video are no copy."""
    before = service.put(*facts)
    if content is not None:
        service.world.bucket.objects[KEY] = content
    service.reconcile_service.check_upload(KEY, "v1")
    assert service.row() == before
    assert len(service.versions.version_probes) == (0 if facts == [STORED] else 1)


# ----------------------------------------------------------------------------------------------------------------------
# another look on request

IN_REVIEW = {
    "unproven": [ACCEPTED, fact(Kind.UNPROVEN, source=FactSource.CLOCK)],
    "unsaved": [RENDERED, fact(Kind.UNSAVED, source=FactSource.CLOCK)],
}
ASKED = fact(Kind.ASKED, "2026-09-21", START + 10**7, FactSource.OPERATOR)


@pytest.mark.parametrize("case", IN_REVIEW)
def test_a_clip_in_review_is_checked_on_request(service: Service, case: str) -> None:
    """A render that Runware has by now ends the review."""
    service.put(*IN_REVIEW[case], ASKED)
    service.runware.rendered = {CLIP_UUID}
    service.sweep(10**7)
    assert service.runware.polled_alone == [CLIP_UUID] or service.rescuer.fetched
    assert service.row().status in (Status.RENDERED, Status.STORED)


@pytest.mark.parametrize("case", IN_REVIEW)
def test_a_request_for_a_look_is_answered_once(service: Service, case: str) -> None:
    """Without a new fact the clip is in review again, with the result of the look."""
    service.put(*IN_REVIEW[case], ASKED)
    service.rescuer.fails = True
    service.sweep(10**7)
    assert (service.row().status, service.row().open) == (Status.REVIEW, False)
    assert service.row().of(Kind.ANSWERED)[ASKED.key].fields["reason"] == "every source confirms its absence"


def test_a_render_that_cannot_be_fetched_is_not_absent(service: Service) -> None:
    """The result distinguishes a clip that Runware does not have from one whose copy cannot be fetched."""
    service.put(*IN_REVIEW["unsaved"], ASKED)
    service.rescuer.fails, service.runware.rendered = True, {CLIP_UUID}
    service.sweep(10**7)
    assert service.row().of(Kind.ANSWERED)[ASKED.key].fields["reason"] == "no source has its outcome"


def test_a_request_for_a_look_waits_for_an_answer(service: Service) -> None:
    """While Runware is down the look is repeated, for one more deadline at most."""
    service.put(*IN_REVIEW["unproven"], ASKED)
    service.runware.down = True
    service.sweep(10**7)
    assert service.row().open
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(10**7 + TIMES.deadline)
    assert not service.row().open


def test_an_uncertain_clip_is_not_sent_into_another_account(service: Service) -> None:
    """The current key's account cannot confirm its absence, so the clip goes to review with that reason."""
    service.put(possibly_sent_at=START, possibly_sent_to="another")
    service.sweep(TIMES.check)
    assert service.sent == 0
    service.sweep(TIMES.deadline)
    row = service.world.row()
    assert (service.sent, row.status) == (0, Status.REVIEW)
    reason = "an attempt may have arrived in another Runware account: every source confirms its absence"
    assert row.of(Kind.UNPROVEN)[""].fields["reason"] == reason


def test_an_uncertain_clip_is_sent_into_the_same_account(service: Service) -> None:
    """Under an unchanged key it is sent again."""
    service.put(possibly_sent_at=START, possibly_sent_to=service.world.buyer().credentials.account)
    service.sweep(TIMES.check)
    assert service.sent == 1


# ----------------------------------------------------------------------------------------------------------------------
# fallback
# ----------------------------------------------------------------------------------------------------------------------


NEXT = FallbackModel("b:2@2", uuid4(2), f"videos/ann/2026/09/21/{TASK_UUID}-20.mp4", 2 * PRICE)
CHAINED: dict[str, Any] = {"chain": Chain("a:1@1", (NEXT,)), "budgeted": 2 * PRICE}
NO_FACES = fact(Kind.FAILED, "noFaces", category="provider")
REFUSED = fact(Kind.REFUSED, "invalidModel", source=FactSource.SUBMISSION, category="validation")


def successor(service: Service) -> Clip | None:
    return service.table.rows.get(("ann", TASK_UUID, SLOTS))


def test_the_next_model_follows_a_refusal_and_is_sent_by_a_sweep(service: Service) -> None:
    """The first sweep records the next model's clip; the next one sends it, with its own model, UUID and key."""
    service.put(REFUSED, **CHAINED)
    service.sweep(0)
    assert (service.row().has(Kind.SUPERSEDED), service.row().budgeted, service.sent) == (True, 0, 0)
    following = successor(service)
    assert following
    assert (following.status, following.budgeted) == (Status.PENDING, 2 * PRICE)
    service.sweep(60_000)
    (sent,) = service.world.runware.sent
    assert (sent["taskUUID"], sent["model"]) == (NEXT.clip_uuid, NEXT.model)
    assert NEXT.object_key in sent["uploadEndpoint"]
    assert f"/{SLOTS}?token=" in sent["webhookURL"]


def test_the_next_model_follows_a_failure_after_its_last_look(service: Service) -> None:
    """Not a millisecond earlier, and with the last look in the same sweep."""
    service.put(ACCEPTED, NO_FACES, **CHAINED)
    service.sweep(TIMES.last_look - 1)
    assert successor(service) is None
    assert service.row().budgeted == 2 * PRICE
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.last_look)
    assert successor(service)
    assert service.row().of(Kind.LAST_LOOK)[""].fields == {}


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("doubt", ["down", "in progress"])
def test_a_last_look_in_doubt_is_followed_by_nothing(service: Service, doubt: str, chained: bool) -> None:
    """At the hard limit the clip fails for good, and its record has the doubt only if it prevented a fallback."""
    service.put(ACCEPTED, NO_FACES, **(CHAINED if chained else {}))
    if doubt == "down":
        service.runware.details_down = True
    else:
        service.runware.rendering = {CLIP_UUID}
    service.sweep(TIMES.hard(TIMES.last_look) - 1)
    service.table.put(replace(service.row(), next_check_at=START))
    service.sweep(TIMES.hard(TIMES.last_look))
    assert successor(service) is None
    assert (service.row().status, service.row().open, service.row().budgeted) == (Status.FAILED, False, 0)
    assert ("reason" in service.row().of(Kind.LAST_LOOK)[""].fields) is chained


def test_a_render_found_by_the_last_look_prevents_the_fallback(service: Service) -> None:
    """The failure was not the clip's end."""
    service.put(ACCEPTED, NO_FACES, **CHAINED)
    service.runware.rendered = {CLIP_UUID}
    service.sweep(TIMES.last_look)
    assert successor(service) is None
    assert service.row().has(Kind.RENDERED)


def test_a_fact_saved_meanwhile_prevents_the_fallback(service: Service) -> None:
    """The transaction is conditional on the version that was judged."""
    service.put(REFUSED, **CHAINED)
    saves = []

    def save_concurrently() -> None:
        saves.append(1)
        if len(saves) == 2:  # after the claim, before the fallback
            service.table.save_concurrently(replace(merge(service.row(), ACCEPTED), version=service.row().version + 1))

    service.table.before_save = save_concurrently
    service.sweep(0)
    assert successor(service) is None
    assert service.row().decisive == Kind.ACCEPTED


def test_a_lease_delays_the_fallback(service: Service) -> None:
    """While another buyer may be sending, nothing is decided; a lease that ran out is doubt."""
    service.put(REFUSED, **CHAINED, lease=Lease("other", START, START + TIMES.lease))
    service.sweep(0)
    assert successor(service) is None
    assert service.row().open
    service.sweep(TIMES.lease)
    assert successor(service) is None
    assert service.row().possibly_sent_at == START

"""The rescue of a render without a copy: the fetched addresses, their retries, and the recorded facts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rushes.domain.clip import Clip, Fact, FactSource, Kind, Status, merge, merge_all, refresh_derived
from rushes.domain.media import ProbeResult, container
from rushes.errors import OriginRefusedError, RescueError, UnusableRenderError
from rushes.runware.response import LookupResponse, read_lookup
from rushes.services.metric import Metric
from rushes.services.purchase import Buyer, Credentials
from rushes.services.reconcile import ReconcileService
from tests.fakes.builders import CLIP_UUID, MP4, START, TIMES, WEBM, clip
from tests.fakes.table import FakeTable
from tests.fakes.telemetry import FakeClock, FakeTelemetry
from tests.fakes.use_cases import FakeBucket, sequential_map

URL = "https://vm.runware.ai/1.mp4?sig=secret"
MINUTE = 60_000


class TableOfDue(FakeTable):
    """A table that lists due clips."""

    clock: FakeClock

    def due(self, now: int, limit: int) -> Sequence[tuple[str, str, int]]:
        return [key for key, row in self.rows.items() if row.next_check_at is not None and row.next_check_at <= now]


@dataclass
class Internet:
    """Addresses and their content: bytes for the bucket, or an error."""

    bucket: FakeBucket
    pages: dict[str, bytes | RescueError] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)

    def fetch(self, url: str, key: str, ends_at: int) -> ProbeResult:
        assert key == clip().object_key
        self.fetched.append(url)
        self.deadlines.append(ends_at)
        page = self.pages[url]
        if isinstance(page, RescueError):
            raise page
        self.bucket.objects[key] = page
        return ProbeResult("v1", len(page), "etag", container(page, len(page)))

    def save_inline(self, data: str, key: str) -> ProbeResult:
        assert key == clip().object_key
        page = self.pages[data]
        if isinstance(page, RescueError):
            raise page
        self.bucket.objects[key] = page
        return ProbeResult("v1", len(page), "etag", container(page, len(page)))


@dataclass
class Polls:
    """Runware, which reports one render at the given addresses, or in the answer itself."""

    urls: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    asked: int = 0

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse:
        self.asked += 1
        items = [{"taskUUID": CLIP_UUID, "status": "success", "videoUUID": "v", "videoURL": url} for url in self.urls]
        items += [{"taskUUID": CLIP_UUID, "videoUUID": "v", "videoBase64Data": data} for data in self.inline]
        return read_lookup(200, json.dumps({"data": items}).encode())

    details = poll


class CopyCase:
    """A clip whose render is recorded since START, and sweeps."""

    def __init__(self, **order: Any) -> None:
        self.clock, self.table, self.bucket, self.telemetry = FakeClock(), TableOfDue(), FakeBucket(), FakeTelemetry()
        self.internet, self.polls = Internet(self.bucket), Polls([URL])
        fields = {"videoURL": URL}
        rendered = Fact(kind=Kind.RENDERED, key="v", at=START, source=FactSource.WEBHOOK, fields=fields)
        self.table.put(refresh_derived(clip(rendered, **order), START, TIMES))
        self.reconcile_service = ReconcileService(
            table=self.table,
            bucket=self.bucket,  # type: ignore[arg-type]  # it has one version of each object
            provider=self.polls,
            rescuer=self.internet,
            purchase_service=None,  # type: ignore[arg-type]  # nothing is bought
            telemetry=self.telemetry,
            times=TIMES,
            when_ambiguous="resend",
            clock=self.clock,
            concurrent_map=sequential_map,
        )

    @property
    def clip(self) -> Clip:
        (row,) = self.table.rows.values()
        return row

    def sweep(self, seconds_left: int = 45) -> None:
        self.reconcile_service.sweep(Buyer("me", self.clock.now + seconds_left * 1000, Credentials("key", ()), True))

    def sweep_until_closed(self) -> None:
        """Sweeps once a minute until the clip is closed."""
        while self.clip.open:
            self.clock.now += MINUTE
            self.sweep()

    def reasons(self) -> Mapping[str, Any]:
        return self.clip.of(Kind.ATTEMPTED)


@pytest.mark.parametrize("error", ["no video at the address", "the video is too large"])
def test_an_address_without_a_video_is_fetched_twice(error: str) -> None:
    """It is fetched at first and before the review, and the reason is recorded without the address's secrets."""
    world = CopyCase()
    world.internet.pages[URL] = UnusableRenderError(error)
    world.sweep_until_closed()
    assert world.clip.status == Status.REVIEW
    assert world.internet.fetched == [URL] * 2
    (reason,) = world.reasons()
    assert reason.startswith(f"rescue failed: {error} (")
    assert "secret" not in reason


def test_a_long_reason_is_cut() -> None:
    """A reason is a key of the record, whose size is limited."""
    world = CopyCase()
    world.internet.pages[URL] = RescueError("e" * 500)
    world.clock.now += MINUTE
    world.sweep()
    assert [len(reason) for reason in world.reasons()] == [200]


def test_a_temporary_failure_is_retried_at_every_check() -> None:
    """An address with a status that may change is fetched again, at growing intervals."""
    world = CopyCase()
    world.internet.pages[URL] = RescueError("HTTP 404")
    world.sweep_until_closed()
    assert world.clip.status == Status.REVIEW
    assert len(world.internet.fetched) > 10


def test_a_new_address_is_fetched_at_once() -> None:
    """The result of one address does not count for another."""
    world = CopyCase()
    world.internet.pages[URL] = UnusableRenderError("no video at the address")
    world.clock.now += MINUTE
    world.sweep()
    other = "https://vm.runware.ai/2.mp4"
    world.polls.urls, world.internet.pages[other] = [other], MP4
    world.sweep_until_closed()
    assert world.clip.status == Status.STORED
    assert world.internet.fetched == [URL, other]


def test_a_skipped_address_hides_no_other() -> None:
    """An address without a video is skipped, and the next one is fetched at the same check."""
    world, other = CopyCase(), "https://vm.runware.ai/2.mp4"
    other_render = Fact(kind=Kind.RENDERED, key="w", at=START, source=FactSource.WEBHOOK, fields={"videoURL": other})
    world.table.put(refresh_derived(merge(world.clip, other_render), START, TIMES))
    world.internet.pages = {URL: UnusableRenderError("no video at the address"), other: RescueError("HTTP 404")}
    world.clock.now += MINUTE
    world.sweep()
    world.internet.pages[other] = MP4
    world.sweep_until_closed()
    assert world.clip.status == Status.STORED
    assert world.internet.fetched == [URL, other, other]


def test_an_address_is_fetched_again_at_the_copy_deadline() -> None:
    """A video that is at the address by the copy deadline becomes the copy."""
    world = CopyCase()
    world.internet.pages[URL] = UnusableRenderError("no video at the address")
    world.clock.now += MINUTE
    world.sweep()
    world.internet.pages[URL] = MP4
    world.sweep_until_closed()
    assert world.clip.status == Status.STORED
    assert world.clip.copy is not None
    assert world.clip.copy[1].at >= START + TIMES.copy_deadline


@pytest.mark.parametrize(("early", "fetched"), [(0, 1), (1, 0)])
def test_the_last_fetch_is_exactly_at_the_copy_deadline(early: int, fetched: int) -> None:
    """The check that gives the clip up fetches again, however long the render took."""
    world = CopyCase(created_at=START - TIMES.copy_deadline)
    world.internet.pages[URL] = UnusableRenderError("no video at the address")
    world.clock.now += MINUTE
    world.sweep()
    world.internet.fetched.clear()
    world.clock.now = START + TIMES.copy_deadline - early
    world.sweep()
    assert len(world.internet.fetched) == fetched
    assert (world.clip.status == Status.REVIEW) is bool(fetched)


def test_a_video_of_another_kind_is_stored_at_once() -> None:
    """A WEBM in place of an ordered MP4 takes one download, and the record has its container."""
    world = CopyCase()
    world.internet.pages[URL] = WEBM
    world.sweep_until_closed()
    assert world.clip.status == Status.STORED
    assert world.internet.fetched == [URL]
    assert world.clip.copy is not None
    assert {"container": "webm", "ordered": "mp4", "rescued": True}.items() <= world.clip.copy[1].fields.items()


def test_a_fetch_ends_before_the_sweep_does() -> None:
    """A fetch leaves time to put its last bytes into the bucket."""
    world = CopyCase()
    world.internet.pages[URL] = MP4
    world.clock.now += MINUTE
    world.sweep(seconds_left=45)
    assert world.internet.deadlines == [world.clock.now + 45_000 - TIMES.http // 2]


def test_a_refused_origin_is_logged_and_counted() -> None:
    """The origin is logged at the first refusal, and the clip is fetched once it is allowed."""
    world = CopyCase()
    world.internet.pages[URL] = OriginRefusedError("https://im.runware.ai")
    world.clock.now += MINUTE
    world.sweep()
    assert world.telemetry.counted[Metric.RENDER_ORIGINS_REFUSED] == 1
    details = {"origin": "https://im.runware.ai", "clipUUID": CLIP_UUID}
    assert ("render origin is not in RescueOrigins", True, details) in world.telemetry.logs
    assert list(world.reasons()) == ["rescue failed: https://im.runware.ai is not an allowed origin"]
    world.internet.pages[URL] = MP4
    world.sweep_until_closed()
    assert world.clip.status == Status.STORED


def test_no_fetch_begins_without_time() -> None:
    """With less than the HTTP timeout left nothing is fetched, and no reason is recorded against the address."""
    world = CopyCase()
    world.internet.pages[URL] = MP4
    world.clock.now += MINUTE
    probe = world.bucket.probe

    def slow(key: str) -> ProbeResult | None:
        world.clock.now += 15_000
        return probe(key)

    world.bucket.probe = slow  # type: ignore[method-assign]
    world.sweep(seconds_left=24)
    assert world.internet.fetched == []
    assert not world.reasons()


def test_a_render_inside_the_answer_is_stored() -> None:
    """If no address has a video, the bytes in a poll's answer are the copy."""
    world = CopyCase()
    world.internet.pages = {URL: RescueError("HTTP 404"), "QUJD": MP4}
    world.polls.inline = ["QUJD"]
    world.clock.now += MINUTE
    world.sweep()
    assert world.clip.status == Status.STORED
    assert world.clip.of(Kind.STORED)["v1"].fields["rescued"] is True
    assert list(world.reasons()) == ["rescue failed: HTTP 404"]
    assert world.telemetry.counted[Metric.CLIPS_RESCUED] == 1


@pytest.mark.parametrize("data", ["QUJD", "\ud800"])
def test_inline_data_without_a_video_leaves_a_reason(data: str) -> None:
    """The reason is recorded as for an address, also for data in no encoding."""
    world = CopyCase()
    world.internet.pages = {URL: RescueError("HTTP 404"), data: UnusableRenderError("no video in the answer")}
    world.polls.inline = [data]
    world.clock.now += MINUTE
    world.sweep()
    first, second = sorted(world.reasons())
    assert first == "rescue failed: HTTP 404"
    assert second.startswith("rescue failed: no video in the answer (")


def test_a_rescue_without_a_video_stores_nothing() -> None:
    """The object in the bucket decides, not the success of the fetch."""
    world = CopyCase()
    world.internet.pages[URL] = b"<Error>"
    world.clock.now += MINUTE
    world.sweep()
    assert world.clip.status == Status.RENDERED
    assert list(world.reasons()) == ["rescue failed: the copy in the bucket is not a video"]
    assert [record.seen for record in world.reasons().values()] == [{FactSource.BUCKET: world.clock.now}]
    assert not world.telemetry.counted[Metric.CLIPS_RESCUED]


def test_each_address_leaves_its_reason() -> None:
    """The record has the reason of every address."""
    world, other = CopyCase(), "https://vm.runware.ai/2.mp4"
    world.internet.pages = {
        URL: RescueError("HTTP 404"),
        other: RescueError("HTTP 403"),
        other + "2": RescueError("no"),
    }
    other_render = Fact(kind=Kind.RENDERED, key="w", at=START, source=FactSource.WEBHOOK, fields={"videoURL": other})
    world.table.put(refresh_derived(merge(world.clip, other_render), START, TIMES))
    world.polls.urls = [other + "2"]
    world.clock.now += MINUTE
    world.sweep()
    assert sorted(world.reasons()) == ["rescue failed: HTTP 403", "rescue failed: HTTP 404", "rescue failed: no"]


@pytest.mark.parametrize("kind", [Kind.RENDERED, Kind.ACCEPTED])
def test_an_erased_clip_is_neither_asked_about_nor_rescued(kind: Kind) -> None:
    """Its budget is corrected when that is due, and a late fact brings no object back."""
    world = CopyCase()
    late = Fact(kind=kind, key="late", at=START, source=FactSource.WEBHOOK)
    erased = Fact(kind=Kind.ERASED, at=START, source=FactSource.OPERATOR)
    closed = clip(Fact(kind=Kind.REFUSED, key="code", at=START, source=FactSource.SUBMISSION))
    world.table.put(replace(merge_all(closed, [erased, late]), next_check_at=START, budgeted=0))
    world.clock.now += 90 * MINUTE
    world.internet.pages[URL] = MP4
    world.sweep()
    assert (world.clip.status, world.clip.next_check_at) == (Status.ERASED, None)
    assert world.clip.budgeted == world.clip.estimate
    assert (world.internet.fetched, world.bucket.objects, world.polls.asked) == ([], {}, 0)

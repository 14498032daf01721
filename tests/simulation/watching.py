"""The judge of what happens on the way: each change of a clip, and what a caller is shown after it.

The end of a history may be right although a clip was given up unasked, or a caller was told something else before.
"""

from dataclasses import dataclass, field
from typing import Protocol

from rushes.domain.clip import Clip, FactSource, Kind, Status
from rushes.domain.timings import Timings
from rushes.services.publish import EventType, event_of
from rushes.services.queries import QueryService
from tests.fakes.builders import TIMES
from tests.fakes.simulated import SimulatedBucket, SimulatedRunware, SimulatedTable
from tests.simulation.world import World

# How far apart the clocks of two functions may be, in milliseconds.
SKEW = TIMES.skew


class Watched(Protocol):
    """What of a history is watched."""

    world: World
    table: SimulatedTable
    bucket: SimulatedBucket
    runware: SimulatedRunware
    skew: int


@dataclass(slots=True)
class Shown:
    """What a caller has been shown of a task: each success with its videoUUID, and how many failures for good."""

    successes: dict[str, str] = field(default_factory=dict)
    failures: int = 0


@dataclass(slots=True)
class Watching:
    """Collects what must not happen on the way, in words."""

    watched: Watched
    times: Timings
    improper: list[str] = field(default_factory=list)
    shown: dict[str, Shown] = field(default_factory=dict)
    told_failed: set[str] = field(default_factory=set)
    query_service: QueryService = field(init=False)

    def __post_init__(self) -> None:
        table, links, clock = self.watched.table, self.watched.bucket, self.watched.world.clock
        self.query_service = QueryService(table=table, links=links, times=self.times, clock=clock)

    def changed(self, before: Clip | None, after: Clip) -> None:
        """Judges one change of a clip, and what can be seen of it."""
        if before is not None:
            self._judge_lease(before, after)
            if before.facts == after.facts:
                return  # nothing that is shown goes by anything else
            self._judge_giving_up(before, after)
        self._judge_events(after)
        self._judge_answers(after)

    def fetching(self, object_key: str) -> None:
        """Judges that a render is fetched: not before the upload had its time to arrive."""
        for clip in self.watched.table.rows.values():
            is_its_render = clip.object_key == object_key and clip.has(Kind.RENDERED)
            begins = (clip.first_seen_at(Kind.RENDERED) or 0) + self.times.rescue_after
            if is_its_render and self.watched.world.now + self.watched.skew < begins:
                self.improper.append("fetched before the upload had its time to arrive")

    def _judge_giving_up(self, before: Clip, after: Clip) -> None:
        """Only an answer about this clip alone, given after its limit, may end the looking; or the hard limit."""
        for kind, since, limit in (
            (Kind.UNPROVEN, before.first_seen_at(Kind.ACCEPTED) or before.created_at, self.times.deadline),
            (Kind.UNSAVED, before.first_seen_at(Kind.RENDERED) or before.created_at, self.times.copy_deadline),
            (Kind.LAST_LOOK, before.first_seen_at(Kind.FAILED) or before.created_at, self.times.last_look),
            (Kind.DETAILS_UNKNOWN, before.first_seen_at(Kind.STORED) or before.created_at, self.times.last_look),
        ):
            given_up = after.of(kind).get("")
            if not before.has(kind) and given_up and FactSource.CLOCK in given_up.seen:
                self._judge_limit(kind, since, limit, after)

    def _judge_limit(self, kind: Kind, since: int, limit: int, after: Clip) -> None:
        now, skew = self.watched.world.now, self.watched.skew
        answered_at, told = self.watched.runware.last_polls.get(after.clip_uuid, (-1, False))
        if now + skew < since + limit:
            self.improper.append(f"{kind} before its limit")
        elif answered_at + skew < since + limit and now + skew < since + self.times.hard(limit):
            self.improper.append(f"{kind} without an answer about this clip alone")
        if told and after.decisive == Kind.UNPROVEN:
            self.improper.append(f"{kind} although Runware had told of the render")

    def _judge_lease(self, before: Clip, after: Clip) -> None:
        """A repeat is decided within the window, and the lease that it is sent under begins then."""
        if not after.lease or after.lease == before.lease or after.possibly_sent_at is None:
            return
        if after.lease.since >= after.possibly_sent_at + self.times.resend_window + 2 * self.watched.skew:
            self.improper.append("a repeat was decided after the resend window")

    def _judge_events(self, after: Clip) -> None:
        news = event_of(after)
        if news is None:
            return
        if news.event_type == EventType.FAILED:
            self.told_failed.add(after.clip_uuid)
        elif news.event_type == EventType.STORED:
            if after.clip_uuid in self.told_failed:
                self.improper.append("an event told of a failure that was none")
            if not self._holds_video(after.object_key, news.about):
                self.improper.append("an event tells of a copy that is not there")

    def _judge_answers(self, after: Clip) -> None:
        """`getResponse` may only go forward, unless a person had to decide."""
        data, errors = self.query_service.poll(after.caller, after.task_uuid)
        was = self.shown.setdefault(after.task_uuid, Shown())
        successes = {}
        for item in data:
            if item["status"] == "success":
                key, _, version = item["videoURL"].removeprefix("https://bucket.example/").partition("?versionId=")
                successes[key] = item["videoUUID"]
                if not self._holds_video(key, version):
                    self.improper.append("getResponse tells of a success that is not stored")
        if not was.successes.items() <= successes.items():
            self.improper.append("getResponse took a success back, or gave it another name")
        parked = sum(
            clip.status == Status.REVIEW for clip in self.watched.table.clips_of(after.caller, after.task_uuid)
        )
        failures = len(errors) - parked
        if was.failures and failures < was.failures:
            self.improper.append("getResponse told of a failure that was none")
        # Where a clip waits for a person late truth may set the task going again, its failures notwithstanding.
        self.shown[after.task_uuid] = Shown(successes, failures if not parked else 0)

    def _holds_video(self, key: str, version: str) -> bool:
        versions = self.watched.bucket.objects.get(key, [])
        return version.isdigit() and int(version) <= len(versions) and versions[int(version) - 1][4:8] == b"ftyp"

"""Checks of each change of a clip, and of the API's answers after it.

The end of a history may be right although a clip was given up too early or a caller got a wrong answer in between.
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

# The largest difference between the clocks of two functions, in milliseconds.
SKEW = TIMES.skew


class CheckedSetting(Protocol):
    """The part of a setting that the checks read."""

    @property
    def on_moderation(self) -> bool: ...


class CheckedHistory(Protocol):
    """The part of a history that the checks read."""

    @property
    def setting(self) -> CheckedSetting: ...

    world: World
    table: SimulatedTable
    bucket: SimulatedBucket
    runware: SimulatedRunware
    skew: int


@dataclass(slots=True)
class ReportedResults:
    """The results of a task in answers so far: the videoUUID of each success, and the number of final failures."""

    successes: dict[str, str] = field(default_factory=dict)
    failures: int = 0


@dataclass(slots=True)
class TransitionChecker:
    """Collects violations of the rules during a history, as sentences."""

    history: CheckedHistory
    times: Timings
    violations: list[str] = field(default_factory=list)
    reported: dict[str, ReportedResults] = field(default_factory=dict)
    published_failures: set[str] = field(default_factory=set)
    query_service: QueryService = field(init=False)

    def __post_init__(self) -> None:
        table, links, clock = self.history.table, self.history.bucket, self.history.world.clock
        self.query_service = QueryService(table=table, links=links, times=self.times, clock=clock)

    def on_change(self, before: Clip | None, after: Clip) -> None:
        """Checks one change of a clip and the answers and events that follow from it."""
        if before is not None:
            self._check_lease(before, after)
            if before.facts == after.facts:
                return  # answers and events depend on the facts alone
            self._check_giving_up(before, after)
        else:
            self._check_fallback(after)
        self._check_events(after)
        self._check_answers(after)

    def on_fetch(self, object_key: str) -> None:
        """Checks that a render is fetched only after its upload had time to arrive."""
        for clip in self.history.table.rows.values():
            is_its_render = clip.object_key == object_key and clip.has(Kind.RENDERED)
            begins = (clip.first_seen_at(Kind.RENDERED) or 0) + self.times.rescue_after
            if is_its_render and self.history.world.now + self.history.skew < begins:
                self.violations.append("fetched before the upload had time to arrive")

    def _check_giving_up(self, before: Clip, after: Clip) -> None:
        """A lookup ends only by an answer about this clip alone after its limit, or by the hard limit."""
        for kind, since, limit in (
            (Kind.UNPROVEN, before.first_seen_at(Kind.ACCEPTED) or before.created_at, self.times.deadline),
            (Kind.UNSAVED, before.first_seen_at(Kind.RENDERED) or before.created_at, self.times.copy_deadline),
            (Kind.LAST_LOOK, before.first_seen_at(Kind.FAILED) or before.created_at, self.times.last_look),
            (Kind.DETAILS_UNKNOWN, before.first_seen_at(Kind.STORED) or before.created_at, self.times.last_look),
        ):
            given_up = after.of(kind).get("")
            if not before.has(kind) and given_up and FactSource.CLOCK in given_up.seen:
                self._check_limit(kind, since, limit, after)

    def _check_limit(self, kind: Kind, since: int, limit: int, after: Clip) -> None:
        now, skew = self.history.world.now, self.history.skew
        answered_at, had_render = self.history.runware.last_polls.get(after.clip_uuid, (-1, False))
        if now + skew < since + limit:
            self.violations.append(f"{kind} before its limit")
        elif answered_at + skew < since + limit and now + skew < since + self.times.hard(limit):
            self.violations.append(f"{kind} without an answer about this clip alone")
        if had_render and after.decisive == Kind.UNPROVEN:
            self.violations.append(f"{kind} although a poll had found the render")

    def _check_fallback(self, successor: Clip) -> None:
        """A later model's clip is recorded only after the certain end of the one before, which cost nothing."""
        rows = self.history.table.rows.values()
        closed = next((clip for clip in rows if successor.clip_uuid in clip.of(Kind.SUPERSEDED)), None)
        if not successor.has(Kind.FALLBACK):
            return
        if closed is None:
            self.violations.append("a successor was recorded before the end of its predecessor")
            return
        runware, uuid = self.history.runware, closed.clip_uuid
        executions = [task for task in runware.executions if task.uuid == uuid]
        if any(not task.failed for task in executions):
            self.violations.append("fell over while Runware worked on the clip, or after it was bought")
        if uuid in runware.supervisor.doubts:
            self.violations.append("fell over in doubt")
        if executions:
            answered_at, _ = runware.last_polls.get(uuid, (-1, False))
            failed_at = closed.first_seen_at(Kind.FAILED) or 0
            if answered_at + 2 * self.history.skew < failed_at + self.times.last_look:
                self.violations.append("fell over before the last look")
        code = runware.switches.render_fails if executions else ""
        if code == "timeoutProvider":
            self.violations.append("fell over after a provider's timeout")
        if code == "invalidProviderContent" and not self.history.setting.on_moderation:
            self.violations.append("fell over after a moderation refusal")
        if uuid in self.published_failures:
            self.violations.append("an event reported a failure before the end of the chain")

    def _check_lease(self, before: Clip, after: Clip) -> None:
        """A resend is decided within the resend window, and its lease begins then."""
        if not after.lease or after.lease == before.lease or after.possibly_sent_at is None:
            return
        if after.lease.since >= after.possibly_sent_at + self.times.resend_window + 2 * self.history.skew:
            self.violations.append("a resend was decided after the resend window")

    def _check_events(self, after: Clip) -> None:
        event = event_of(after)
        if event is None:
            return
        if event.event_type == EventType.FAILED:
            self.published_failures.add(after.clip_uuid)
        elif event.event_type == EventType.STORED:
            if after.clip_uuid in self.published_failures:
                self.violations.append("an event reported a failure that was not final")
            if not self._holds_video(after.object_key, event.about):
                self.violations.append("an event reports a copy that does not exist")

    def _check_answers(self, after: Clip) -> None:
        """`getResponse` never takes back a result, except for a clip that a person had to decide about."""
        data, errors = self.query_service.poll(after.caller, after.task_uuid)
        earlier = self.reported.setdefault(after.task_uuid, ReportedResults())
        successes = {}
        for item in data:
            if item["status"] == "success":
                key, _, version = item["videoURL"].removeprefix("https://bucket.example/").partition("?versionId=")
                successes[key] = item["videoUUID"]
                if not self._holds_video(key, version):
                    self.violations.append("getResponse reports a success that is not stored")
        if not earlier.successes.items() <= successes.items():
            self.violations.append("getResponse took a success back or changed its videoUUID")
        in_review = sum(
            clip.status == Status.REVIEW for clip in self.history.table.clips_of(after.caller, after.task_uuid)
        )
        failures = len(errors) - in_review
        if earlier.failures and failures < earlier.failures:
            self.violations.append("getResponse reported a failure that was not final")
        # Late facts may reopen a task with a clip in review, despite its failures.
        self.reported[after.task_uuid] = ReportedResults(successes, failures if not in_review else 0)

    def _holds_video(self, key: str, version: str) -> bool:
        versions = self.history.bucket.objects.get(key, [])
        return version.isdigit() and int(version) <= len(versions) and versions[int(version) - 1][4:8] == b"ftyp"

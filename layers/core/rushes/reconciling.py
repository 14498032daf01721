"""The use case behind the schedule: which clips are due, and what to do about each.

Nothing depends on a webhook. Every open clip lies in the index under the time of its next look; a sweep takes the
oldest, moves each forward before it works on it, asks the witnesses, and learns what they say. It may run twice at
once and die anywhere: what is moved forward comes back, and what is learned is merged under a version condition.

The rules of sending again are design decisions about money; they stand in `_settle`, and nowhere else.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from rushes.buying import is_account_trouble
from rushes.clip import (
    Clip,
    Fact,
    Kind,
    Scalar,
    Task,
    Witness,
    due_for_parking,
    lease_to,
    merge_all,
    settle,
    taken_over,
)
from rushes.concurrency import SideBySide
from rushes.config import Timings, WhenAmbiguous
from rushes.errors import (
    BucketError,
    OriginRefusedError,
    ProviderError,
    RescueError,
    StaleError,
    UnusableRenderError,
)
from rushes.learning import Clips, learn
from rushes.media import Probed, stored_fact
from rushes.observability import Metric, Telemetry
from rushes.purchasing import Buyer, Purchasing
from rushes.receiving import details_facts, poll_facts
from rushes.runware.answers import Report
from rushes.runware.outcomes import Ambiguous, NeverArrived

T = TypeVar("T")
R = TypeVar("R")

BATCH = 100  # clips taken from the index at a time
MOST_POLLED = 50  # clips asked about in one request
_ENOUGH = 3  # failures of Runware in a row after which a sweep leaves it alone
_KEY = re.compile(r"videos/(?P<caller>[^/]+)/.+/(?P<task>[0-9a-f-]{36})-(?P<clip>[0-3])\.[a-z0-9]+")


class Table(Clips, Protocol):
    """What reconciling needs of the table."""

    def due(self, now: int, most: int) -> Sequence[tuple[str, str, int]]: ...

    def task(self, caller: str, task_uuid: str) -> Task | None: ...


class Bucket(Protocol):
    """What reconciling needs of the bucket."""

    def probe(self, key: str, version: str | None = None) -> Probed | None: ...


class Provider(Protocol):
    """What reconciling asks Runware."""

    def poll(self, task_uuids: Sequence[str], key: str) -> Report: ...

    def details(self, task_uuid: str, key: str) -> Report: ...


class Rescuer(Protocol):
    """Brings a render's bytes into the bucket; both raise `RescueError` with the reason."""

    def fetch(self, url: str, key: str, ends_at: int) -> Probed: ...

    def keep(self, data: str, key: str) -> Probed: ...


@dataclass(slots=True)
class Run:
    """One sweep: who buys in it, and how often in a row Runware has failed it."""

    buyer: Buyer
    failures: int = 0

    @property
    def gave_up(self) -> bool:
        """When Runware is down, a sweep that went on asking would only hammer it."""
        return self.failures >= _ENOUGH

    def saw(self, failed: bool) -> None:
        self.failures = self.failures + 1 if failed else 0


@dataclass(slots=True)
class Testimony:
    """What the witnesses said: facts, whether all of them answered, and whether all answered that they know nothing."""

    facts: list[Fact] = field(default_factory=list)
    answered: bool = True
    silent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciling:
    """The use case with its adapters. `clock` gives milliseconds."""

    table: Table
    bucket: Bucket
    provider: Provider
    rescuer: Rescuer
    purchasing: Purchasing
    telemetry: Telemetry
    times: Timings
    when_ambiguous: WhenAmbiguous
    clock: Callable[[], int]
    side_by_side: SideBySide

    def sweep(self, buyer: Buyer) -> int:
        """Works on due clips, oldest first, until none is left or the time is up. Returns how many it took."""
        run, taken = Run(buyer), 0
        while self._has_time(run):
            due = self.table.due(self.clock(), BATCH)
            claimed = [clip for clip in self.side_by_side(self._isolated(self._claim), due) if clip]
            if not claimed:
                break
            taken += len(claimed)
            self._work(claimed, run)
        return taken

    def uploaded(self, object_key: str, version: str) -> None:
        """Looks at one object that S3 says was created, in whatever status its clip is.

        At that very version: one that was put over it meanwhile has an event of its own, and may be worth nothing.
        """
        named = _KEY.fullmatch(object_key)
        clip = self.table.clip(named["caller"], named["task"], int(named["clip"])) if named else None
        if clip is None or clip.object_key != object_key:
            self.telemetry.note("an object that no clip waits for", warn=True, key=object_key)
        elif version not in clip.of(Kind.STORED):
            copy = stored_fact(self.bucket.probe(object_key, version), object_key, self.clock())
            if copy:
                self._learn(clip, [copy])

    def _has_time(self, run: Run) -> bool:
        return self.clock() + 2 * self.times.http <= run.buyer.ends_at

    def _claim(self, key: tuple[str, str, int]) -> Clip | None:
        """Takes a clip if it is due in truth, moving it forward first, so that one poison clip blocks no other."""
        clip, now = self.table.clip(*key), self.clock()
        if clip is None or clip.next_check_at is None or clip.next_check_at > now or not clip.open:
            return None
        return self.table.save(clip, settle(taken_over(clip, now), now, self.times))

    def _isolated(self, work: Callable[[T], R]) -> Callable[[T], R | None]:
        """The same work, but what goes wrong with one clip is noted and stays with that clip."""

        def attempt(item: T) -> R | None:
            try:
                return work(item)
            except StaleError:
                return None  # somebody else is on it
            except Exception as error:  # whatever it is, the other clips are not to blame
                why = f"{type(error).__name__}: {error}"
                self.telemetry.note("a clip could not be looked at", warn=True, why=why, which=str(item)[:300])
                return None

        return attempt

    def _work(self, clips: Sequence[Clip], run: Run) -> None:
        running = [clip for clip in clips if clip.decisive == Kind.ACCEPTED]
        others = [clip for clip in clips if clip.decisive != Kind.ACCEPTED]
        reported: dict[str, Report | None] = {}
        for start in range(0, len(running), MOST_POLLED):
            together = [clip.clip_uuid for clip in running[start : start + MOST_POLLED]]
            reported |= dict.fromkeys(together, self._polled(together, run))

        def look(clip: Clip) -> None:
            self._look(clip, run, reported.get(clip.clip_uuid))

        self.side_by_side(self._isolated(look), [*running, *others])

    def _look(self, clip: Clip, run: Run, report: Report | None) -> None:
        """What one clip needs. Out of time, it is left for the next sweep: it has been moved forward."""
        if self.clock() > run.buyer.ends_at:
            return
        match clip.decisive:
            case None:
                self._settle(clip, run)
            case Kind.ACCEPTED:
                self._follow(clip, report, run)
            case Kind.RENDERED:
                self._save_copy(clip, run)
            case Kind.FAILED:
                self._look_last(clip, run)
            case Kind.STORED:
                self._complete(clip, run)

    def _settle(self, clip: Clip, run: Run) -> None:
        """A clip of which nobody knows whether it was bought. The one place where a clip may be sent again.

        Without an attempt that may have arrived there is nothing to ask: send, or at the deadline give up for certain.
        With one, every witness must deny the clip before it is sent again, and only while that attempt is younger than
        the resend window. The lease is taken under the version that was read before the witnesses were asked: if any
        of them, or anybody else, reports meanwhile, the version has moved and nothing is sent.
        """
        now = self.clock()
        overdue = now >= clip.created_at + self.times.deadline
        if clip.maybe_sent_at is None:
            if overdue:
                self._learn(clip, [_given_up(now)])
            else:
                self._buy(clip, run)
            return
        testimony = self._ask(clip, run)
        young = self.clock() < clip.maybe_sent_at + self.times.resend_window
        if testimony.facts:
            self._learn(clip, testimony.facts)
        elif overdue:
            silent = "every witness denies it" if testimony.silent else "not every witness could be asked"
            why = f"an attempt may have arrived, and {silent}"
            self._learn(clip, [_parked(Kind.UNPROVEN, why, now)])
        elif testimony.silent and young and self.when_ambiguous == "resend":
            self._buy(clip, run)

    def _buy(self, clip: Clip, run: Run) -> None:
        """Sends a clip under a lease, taken over exactly the version in hand."""
        now = self.clock()
        task = self.table.task(clip.caller, clip.task_uuid)
        leased = lease_to(clip, run.buyer.holder, now, self.times)
        if task is None or leased is None or run.gave_up or now + self.times.http > run.buyer.ends_at:
            return
        saved = self.table.save(clip, settle(leased, now, self.times))
        _, outcome = self.purchasing.attempt(saved, task.request, run.buyer)
        if outcome:
            run.saw(failed=isinstance(outcome, Ambiguous | NeverArrived) or is_account_trouble(outcome))

    def _follow(self, clip: Clip, report: Report | None, run: Run) -> None:
        """A running clip. It shared its poll with others; what that does not mention is simply not known yet.

        So before it is parked it is asked about alone, or one clip that spoils the poll would hide all others.
        """
        now = self.clock()
        facts = self._facts_of(report, clip, now) + self._copy_of(clip, now)
        if self._is_to_be_parked(clip, facts, now) and not (report and report.envelope.about(clip.clip_uuid).results):
            facts += self._facts_of(self._polled([clip.clip_uuid], run), clip, now)
        if self._is_to_be_parked(clip, facts, now):
            facts.append(_parked(Kind.UNPROVEN, "bought, but no result by the deadline", now))
        self._learn(clip, facts)

    def _is_to_be_parked(self, clip: Clip, facts: Sequence[Fact], now: int) -> bool:
        """Whether a running clip was waited for long enough, and these facts bring no end of it."""
        return merge_all(clip, facts).decisive == Kind.ACCEPTED and due_for_parking(clip, now, self.times)

    def _save_copy(self, clip: Clip, run: Run) -> None:
        """A render without a copy: the upload may be under way; later it is rescued; at last people decide."""
        now = self.clock()
        facts = self._copy_of(clip, now)
        rendered_at = clip.learned_at(Kind.RENDERED) or clip.created_at
        if not facts and now >= rendered_at + self.times.rescue_after:
            facts = self._rescue(clip, run)
        if not any(fact.kind == Kind.STORED for fact in facts) and now >= rendered_at + self.times.copy_deadline:
            facts.append(_parked(Kind.UNSAVED, "rendered, but no copy could be had by the deadline", now))
        self._learn(clip, facts)

    def _rescue(self, clip: Clip, run: Run) -> list[Fact]:
        """Tries the addresses on record, then what a poll says now, and keeps the reasons of what failed."""
        renders = clip.of(Kind.RENDERED).values()
        urls = {str(known.fields["videoURL"]) for known in renders if "videoURL" in known.fields}
        facts = self._fetched(clip, sorted(urls), run)
        if any(fact.kind == Kind.STORED for fact in facts):
            return facts
        report = self._polled([clip.clip_uuid], run)
        if report is None:
            return facts
        said = report.envelope.about(clip.clip_uuid)
        fresh = {result.video_url for result in said.results if result.video_url} - urls
        facts += self._facts_of(report, clip, self.clock()) + self._fetched(clip, sorted(fresh), run)
        for data in [result.data for result in said.results if result.data]:
            facts += self._saved(clip, partial(self.rescuer.keep, data, clip.object_key), data)
        return facts

    def _fetched(self, clip: Clip, urls: Iterable[str], run: Run) -> list[Fact]:
        """The first address that holds a video is enough.

        One that gave something else is asked again only when the clip's time is over, once more before people are.
        """
        facts: list[Fact] = []
        rendered_at = clip.learned_at(Kind.RENDERED) or clip.created_at
        overdue = self.clock() >= rendered_at + self.times.copy_deadline
        ends_at = run.buyer.ends_at - self.times.http // 2  # the bucket has to take the last part after that
        for url in urls:
            if not overdue and any(key.endswith(_mark(url)) for key in clip.of(Kind.ATTEMPTED)):
                continue
            if self.clock() + self.times.http > run.buyer.ends_at:
                break
            facts += self._saved(clip, partial(self.rescuer.fetch, url, clip.object_key, ends_at), url)
            if facts[-1].kind == Kind.STORED:
                break
        return facts

    def _saved(self, clip: Clip, save: Callable[[], Probed], source: str) -> list[Fact]:
        try:
            copy = stored_fact(save(), clip.object_key, self.clock())
        except UnusableRenderError as error:
            return [_failed_rescue(f"{error} {_mark(source)}", self.clock())]
        except RescueError as error:
            if isinstance(error, OriginRefusedError):
                self.telemetry.count(Metric.RENDER_ORIGINS_REFUSED)
                self.telemetry.note(
                    "RescueOrigins lacks the origin of a render",
                    warn=True,
                    origin=error.origin,
                    clipUUID=clip.clip_uuid,
                )
            return [_failed_rescue(str(error), self.clock())]
        if copy is None:
            return [_failed_rescue("the copy in the bucket is no video", self.clock())]
        self.telemetry.count(Metric.CLIPS_RESCUED)
        return [replace(copy, fields={**copy.fields, "rescued": True})]

    def _look_last(self, clip: Clip, run: Run) -> None:
        """A failure is believed for good after one more look, which every witness has to answer."""
        now = self.clock()
        failed_at = clip.learned_at(Kind.FAILED) or clip.created_at
        testimony = self._ask(clip, run)
        at_work = any(fact.kind == Kind.ACCEPTED and fact.witness == Witness.POLL for fact in testimony.facts)
        settled = testimony.answered and not at_work
        if now >= failed_at + (self.times.last_look if settled else self.times.deadline):
            testimony.facts.append(Fact(kind=Kind.LAST_LOOK, at=now, witness=Witness.CLOCK))
        self._learn(clip, testimony.facts)

    def _complete(self, clip: Clip, run: Run) -> None:
        """A stored clip whose render nobody has described yet: its seed, its cost."""
        now = self.clock()
        stored_at = clip.learned_at(Kind.STORED) or clip.created_at
        report = self._polled([clip.clip_uuid], run)
        facts = self._facts_of(report, clip, now)
        known = merge_all(clip, facts)
        answered = report is not None and report.answers(clip.clip_uuid)
        patience = self.times.last_look if answered else self.times.deadline
        if not known.has(Kind.RENDERED) and now >= stored_at + patience:
            facts.append(Fact(kind=Kind.DETAILS_UNKNOWN, at=now, witness=Witness.CLOCK))
        self._learn(clip, facts)

    def _ask(self, clip: Clip, run: Run) -> Testimony:
        """Every witness about this clip alone: the bucket, `getResponse`, and `getTaskDetails`."""
        testimony = Testimony()
        self._ask_bucket(clip, testimony)
        report = self._polled([clip.clip_uuid], run)
        self._hear(report, clip, testimony)
        # The details may not exist as a question, so only this one has to be answered and not turned away.
        testimony.answered &= report is not None and report.answers(clip.clip_uuid)
        testimony.facts += self._facts_of(report, clip, self.clock())
        details = self._asked(lambda key: self.provider.details(clip.clip_uuid, key), run)
        self._hear(details, clip, testimony)
        if details:
            said = details.envelope.about(clip.clip_uuid)
            testimony.facts += details_facts(said, clip.clip_uuid, self.clock())
        return testimony

    def _ask_bucket(self, clip: Clip, testimony: Testimony) -> None:
        now = self.clock()
        try:
            probed = self.bucket.probe(clip.object_key)
        except BucketError:
            testimony.answered = testimony.silent = False
            return
        if probed is None:
            return
        testimony.silent = False
        copy = stored_fact(probed, clip.object_key, now)
        # Even an object that is no video came through a link that only Runware was given.
        testimony.facts.append(
            copy or Fact(kind=Kind.ACCEPTED, key="an object was uploaded", at=now, witness=Witness.BUCKET)
        )

    def _hear(self, report: Report | None, clip: Clip, testimony: Testimony) -> None:
        testimony.answered &= report is not None
        testimony.silent &= report is not None and report.denies(clip.clip_uuid)

    def _facts_of(self, report: Report | None, clip: Clip, now: int) -> list[Fact]:
        if report is None:
            return []
        facts = list(poll_facts(report.envelope.about(clip.clip_uuid), now))
        if any(fact.kind == Kind.RENDERED for fact in facts) and not clip.has(Kind.RENDERED):
            self.telemetry.count(Metric.FOUND_BY_POLL)
        return facts

    def _copy_of(self, clip: Clip, now: int) -> list[Fact]:
        try:
            copy = stored_fact(self.bucket.probe(clip.object_key), clip.object_key, now)
        except BucketError:
            return []
        return [copy] if copy else []

    def _polled(self, task_uuids: Sequence[str], run: Run) -> Report | None:
        return self._asked(lambda key: self.provider.poll(task_uuids, key), run)

    def _asked(self, ask: Callable[[str], Report], run: Run) -> Report | None:
        """Runware's answer, or None when it has none or there is no time or patience left to ask for one."""
        if run.gave_up or self.clock() + self.times.http > run.buyer.ends_at:
            return None
        try:
            report = ask(run.buyer.credentials.runware_key)
        except ProviderError as error:
            run.saw(failed=True)
            self.telemetry.note("Runware could not be asked", warn=True, why=str(error))
            return None
        run.saw(failed=False)
        return report

    def _learn(self, clip: Clip, facts: Sequence[Fact]) -> None:
        learn(
            self.table,
            clip,
            lambda current: merge_all(current, facts),
            now=self.clock(),
            times=self.times,
            telemetry=self.telemetry,
        )


def _given_up(now: int) -> Fact:
    """No attempt reached Runware, and nobody will try again: certainly not bought."""
    message = "Runware could not be reached, or refused our account, until the deadline. Nothing was bought."
    error = '{"code":"providerUnreachable","message":"' + message + '"}'
    fields: Mapping[str, Scalar] = {"httpStatus": 503, "category": "provider", "message": message, "error": error}
    return Fact(kind=Kind.REFUSED, key="providerUnreachable", at=now, witness=Witness.CLOCK, fields=fields)


def _failed_rescue(why: str, now: int) -> Fact:
    return Fact(kind=Kind.ATTEMPTED, key=f"rescue failed: {why}"[:200], at=now, witness=Witness.BUCKET)


def _mark(source: str) -> str:
    """Stands for an address in the reason of a final failure: short, and without the address's secrets."""
    return f"({hashlib.sha256(source.encode(errors='replace')).hexdigest()[:12]})"


def _parked(kind: Kind, why: str, now: int) -> Fact:
    return Fact(kind=kind, at=now, witness=Witness.CLOCK, fields={"why": why})

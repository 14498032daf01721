"""The table in memory, under the conditions of the real one.

Every rule of the table that the use cases depend on holds here: new items only, one version after another, limits
before budgets, a repeated write recognized as its own. tests/contract runs one suite against it and against moto.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from rushes.domain.budget import Cost, Costs, OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip
from rushes.domain.delivery import Attempt
from rushes.domain.task import Existing, Page, Recorded, Task, TaskWithClips
from rushes.errors import BusyError, StaleError, UnreadableClipError
from tests.fakes.builders import START

T = TypeVar("T")
Name = tuple[str, str, int]  # of a clip: caller, task, index


class FakeTable:
    """Tasks, clips, budgets and callers.

    Calls in `busy` fail as if the table were unavailable; calls in `lost_answers` take effect and then fail. While
    `contended`, no save moves money. `before_save` runs before every save, to make it lose a race. `on_change` is
    called with each changed clip, before and after. Clips in `unreadable` are of a version that the service cannot
    read.
    """

    remembered_writes = 4  # of a clip, by which a repeated write is recognized

    def __init__(self) -> None:
        self.tasks: dict[tuple[str, str], Task] = {}
        self.rows: dict[Name, Clip] = {}
        self.budgets: dict[tuple[str, str], tuple[int, int | None]] = {}  # sum and limit
        self.keys: dict[str, str] = {}  # hash -> caller's name
        self.callers: dict[str, Caller] = {}
        self.changes: list[tuple[Clip, Clip]] = []  # its stream of clips: before and after, in order
        self.busy: set[str] = set()
        self.lost_answers: set[str] = set()
        self.contended = False
        self.before_save: Callable[[], None] = lambda: None
        self.on_change: Callable[[Clip | None, Clip], None] = lambda _before, _after: None
        self.unreadable: set[Name] = set()
        self.saves = 0
        self.patience = 0.0  # seconds for retries, as given to the last `record`
        self.page_calls: list[tuple[str, int, str | None, str, str]] = []  # of `page`: its arguments
        self._own: dict[Name, list[tuple[Clip, Clip]]] = {}  # writes as given and as saved, newest last

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation], *, patience: float = 0
    ) -> Recorded | Existing | OverBudget:
        self.patience = patience
        return self.call("record", lambda: self._record(task, clips, reservations))

    def save(self, before: Clip, after: Clip) -> Clip:
        self.before_save()
        return self.call("save", lambda: self._save(before, after))

    def fall_over(self, before: Clip, closed: Clip, successor: Clip, task: Task | None) -> Clip:
        del task
        self.before_save()
        return self.call("fall_over", lambda: self._save(before, closed, successor))

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None:
        return self.call("clip", lambda: self._read((caller, task_uuid, index)))

    def clips(self, caller: str, task_uuid: str) -> list[Clip]:
        return self.call("clips", lambda: self.clips_of(caller, task_uuid))

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None:
        return self.call("get_tombstone", lambda: self.tasks.get((caller, task_uuid)))

    def task(self, caller: str, task_uuid: str) -> Task | None:
        return self.call("task", lambda: self.tasks.get((caller, task_uuid)))

    def due(self, now: int, limit: int) -> list[Name]:
        return self.call("due", lambda: self._due(now, limit))

    def postpone(self, name: Name, now: int, until: int) -> None:
        self.call("postpone", lambda: self._postpone(name, now, until))

    def budget(self, scope: str, month: str) -> tuple[int, int | None]:
        name = f"budget of {scope}"
        return self.call(name if name in self.busy else "budget", lambda: self.budgets.get((scope, month), (0, None)))

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        clips = self.clips(caller, task_uuid)
        if not clips:
            return None
        task = self.tasks.get((caller, task_uuid)) or Task(
            caller=caller, task_uuid=task_uuid, request={}, fingerprint="", clips=len(clips), created_at=START
        )
        return TaskWithClips(task, tuple(clips), f"{task.created_at}#{task_uuid}")

    def page(self, caller: str, limit: int, *, after: str | None = None, day: str = "", prefix: str = "") -> Page:
        self.page_calls.append((caller, limit, after, day, prefix))
        named = [key for key in self.tasks if key[0] == caller and key[1].startswith(prefix)]
        found = [self.get_task_with_clips(*key) for key in named]
        listed = sorted((each for each in found if each), key=lambda each: each.position, reverse=True)
        rest = [each for each in listed if after is None or each.position < after]
        return Page(tuple(rest[:limit]), rest[limit - 1].position if len(rest) > limit else None)

    def costs(self, caller: str, since: int, until: int, limit: int, after: str | None = None) -> Costs:
        listed = [self._cost(row) for row in self.rows.values() if row.caller == caller]
        found = [each for each in listed if since <= each.created_at <= until]
        found.sort(key=_place, reverse=True)
        rest = [each for each in found if after is None or _place(each) < after]
        return Costs(tuple(rest[:limit]), _place(rest[limit - 1]) if len(rest) > limit else None)

    def attempts(self, caller: str, task_uuid: str) -> list[Attempt]:
        return []

    def caller(self, key_hash: str) -> Caller | None:
        return self.callers.get(self.keys.get(key_hash, ""))

    def caller_named(self, name: str) -> Caller | None:
        return self.callers.get(name)

    def set_caller(self, caller: Caller) -> None:
        self.callers[caller.name] = caller

    def add_key(self, key_hash: str, caller: Caller, name: str, now: int) -> None:
        del name, now
        self.set_caller(caller)
        self.keys[key_hash] = caller.name

    def put(self, row: Clip) -> Clip:
        """Puts a clip without any condition."""
        self.rows[row.caller, row.task_uuid, row.index] = row
        return row

    def save_concurrently(self, row: Clip) -> None:
        """Saves a clip as a concurrent process would; for `before_save`."""
        self.put(row)

    def clips_of(self, caller: str, task_uuid: str) -> list[Clip]:
        """The clips of a task; this read is not a call."""
        return [clip for key, clip in sorted(self.rows.items()) if key[:2] == (caller, task_uuid)]

    def next_due(self) -> int | None:
        """The time of the next check, over clips that are open or whose budgets are not current."""
        due = (row.next_check_at for row in self.rows.values() if row.open or not row.budget_is_current)
        return min(filter(None, due), default=None)

    def call(self, name: str, act: Callable[[], T]) -> T:
        """One call of the service."""
        if name in self.busy:
            raise BusyError("made busy")
        found = act()
        if name in self.lost_answers:
            raise BusyError("the answer was lost", possibly_written=True)
        return found

    def before_change(self, name: Name, before: Clip | None) -> None:
        """Called before a row changes."""

    def indexed_row(self, name: Name, row: Clip) -> Clip | None:
        """A row as the index of open clips has it."""
        del name
        return row

    def check_contention(self) -> None:
        """Raises if the budgets are contended."""
        if self.contended:
            raise BusyError("the budgets are contended")

    def _read(self, name: Name) -> Clip | None:
        if name in self.unreadable:
            raise UnreadableClipError("KeyError")
        return self.rows.get(name)

    def _postpone(self, name: Name, now: int, until: int) -> None:
        row = self.rows[name]
        if row.next_check_at is not None and row.next_check_at <= now:
            self.rows[name] = replace(row, next_check_at=until)

    def _record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation]
    ) -> Recorded | Existing | OverBudget:
        if existing := self.tasks.get((task.caller, task.task_uuid)):
            return Recorded() if existing is task else Existing(existing)  # a transaction's token makes it a repeat
        for wanted in reservations:
            held, _ = self.budgets.get((wanted.scope, wanted.month), (0, None))
            if held + wanted.amount > wanted.limit:
                return OverBudget(wanted.scope, wanted.limit, held)
        for wanted in reservations:
            held, _ = self.budgets.get((wanted.scope, wanted.month), (0, None))
            self.budgets[wanted.scope, wanted.month] = held + wanted.amount, wanted.limit
        self.tasks[task.caller, task.task_uuid] = task
        for clip in clips:
            self.before_change((clip.caller, clip.task_uuid, clip.index), None)
            self.put(clip)
        for clip in clips:
            self.on_change(None, clip)
        return Recorded()

    def _save(self, before: Clip, after: Clip, successor: Clip | None = None) -> Clip:
        name = before.caller, before.task_uuid, before.index
        row = self.rows.get(name)
        if row is None or (row.version, row.clip_uuid) != (before.version, before.clip_uuid):
            latest = self._own.get(name, [])[-self.remembered_writes :] if self.remembered_writes else []
            for given, own in latest:
                if given is after:
                    return own
            raise StaleError
        added = (successor.caller, successor.task_uuid, successor.index) if successor else None
        if added in self.rows:
            raise StaleError
        difference = after.budgeted + (successor.budgeted if successor else 0) - before.budgeted
        if difference:
            self.check_contention()
        saved = replace(after, version=before.version + 1)
        self.saves += 1
        self._own.setdefault(name, []).append((after, saved))
        self.changes.append((row, saved))
        self.before_change(name, row)
        self.rows[name] = saved
        for scope in after.scopes:
            held, limit = self.budgets.get((scope, after.month), (0, None))
            self.budgets[scope, after.month] = held + difference, limit
        if successor and added:
            self.before_change(added, None)
            self.rows[added] = successor
        self.on_change(before, saved)
        if successor:
            self.on_change(None, successor)
        return saved

    def _due(self, now: int, limit: int) -> list[Name]:
        listed = ((name, self.indexed_row(name, row)) for name, row in self.rows.items())
        due = [
            (row.next_check_at, name)
            for name, row in listed
            if row
            and (row.open or not row.budget_is_current)
            and row.next_check_at is not None
            and row.next_check_at <= now
        ]
        return [name for _, name in sorted(due)[:limit]]

    def _cost(self, row: Clip) -> Cost:
        task = self.tasks.get((row.caller, row.task_uuid))
        sent = task.request if task else {}
        model, tags = sent.get("model", ""), sent.get("tags") or {}
        return Cost(row.caller, row.task_uuid, row.index, row.created_at, row.budgeted, model, tags)


def _place(cost: Cost) -> str:
    return f"{cost.created_at}#{cost.task_uuid}#{cost.index}"

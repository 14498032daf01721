"""A world in which a program can be stopped before and after each of its effects.

Time stands still unless it is moved. Every effect of the program (a read or write of the table, a probe, a request)
goes through `World.effect`, which counts it and applies the schedule: stop the program before or after the effect, or
run another process first, as in a race.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

T = TypeVar("T")
FailurePoint = Literal["before", "after"]


MAX_EFFECTS = 20_000  # of a history; more mean an endless loop


class Stopped(BaseException):
    """The program was killed. Not an `Exception`, so that no handler in the program catches it."""


class EndlessError(BaseException):
    """The program does not end while time stands still. Not an `Exception` either."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The disturbances of the program, by the number of the effect.

    It is stopped `before` or `after` an effect. `guests` are other processes that run before an effect, `guests_inside`
    those that run between the effect and its answer. The answers to the `lost` effects do not arrive: "again" if the
    repeat is answered, "busy" if no repeat is.
    """

    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()
    guests: Mapping[int, str] = field(default_factory=dict)
    guests_inside: Mapping[int, str] = field(default_factory=dict)
    lost: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """The clock, the number of effects so far, and the events to come. Times are in milliseconds.

    `offset` is the lead of the current process's clock over the world's; `ends` is the time at which it must end.
    """

    schedule: Schedule = field(default_factory=Schedule)
    now: int = 1_796_000_000_000
    offset: int = 0
    ends: int = 0
    effects: int = 0
    stops: int = 0
    losses: list[str] = field(default_factory=list)  # "again" or "busy", for each answer lost so far
    names: list[str] = field(default_factory=list)
    guests: dict[str, Callable[[], None]] = field(default_factory=dict)
    _later: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _in_guest: bool = False

    def clock(self) -> int:
        """The time according to the current process's clock."""
        return self.now + self.offset

    def effect(self, name: str, act: Callable[[], T], on_lost_answer: Callable[[str], T] | None = None) -> T:
        """Runs one effect of the program under the schedule and returns its result.

        `on_lost_answer` gives the result when the answer is lost; without it no answer of this effect is lost.
        """
        self.effects += 1
        if self.effects > MAX_EFFECTS:
            raise EndlessError
        number = self.effects
        self.names.append(name)
        self._run_guest(self.schedule.guests.get(number))
        if number in self.schedule.before:
            raise Stopped
        result = act()
        self._run_guest(self.schedule.guests_inside.get(number))
        if number in self.schedule.after:
            raise Stopped
        if on_lost_answer and (loss := self.schedule.lost.get(number)):
            self.losses.append(loss)
            return on_lost_answer(loss)
        return result

    def failing_effect(
        self, name: str, act: Callable[[], T], failures: Mapping[int, FailurePoint], error: type[Exception]
    ) -> T:
        """Runs one effect that raises `error` if its number is in `failures`: before it takes place, or after it, when
        only the answer is lost.
        """
        failure_point = failures.get(self.effects + 1)

        def with_failure() -> T:
            if failure_point == "before":
                raise error("made to fail")
            result = act()
            if failure_point == "after":
                raise error("the answer was lost")
            return result

        return self.effect(name, with_failure)

    def at(self, moment: int, act: Callable[[], None]) -> None:
        """Schedules `act` for a future time."""
        heapq.heappush(self._later, (max(moment, self.now), next(self._order), act))

    def next_event(self) -> int | None:
        """The time of the next scheduled event, or None."""
        return self._later[0][0] if self._later else None

    def move_to(self, moment: int) -> None:
        """Moves time forward and runs the events that are due on the way."""
        while self._later and self._later[0][0] <= moment:
            at, _, act = heapq.heappop(self._later)
            self.now = max(self.now, at)
            act()
        self.now = max(self.now, moment)

    def run(self, program: Callable[[], T]) -> T | None:
        """Runs a program and returns its result, or None if it was stopped."""
        try:
            return program()
        except Stopped:
            self.stops += 1
            return None

    def _run_guest(self, guest: str | None) -> None:
        if guest is None or self._in_guest:
            return
        self._in_guest = True
        try:
            self.run(self.guests[guest])
        finally:
            self._in_guest = False

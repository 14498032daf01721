"""A world in which a program can be stopped before and after everything it does.

Time stands still unless it is moved. Every effect of the program (a read or write of the table, a probe, a request)
goes through `World.effect`, which counts it and does there what the schedule says: stop the program before it, stop it
after it, or run something else first, as if another process had been faster.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


MAX_EFFECTS = 20_000  # of a history: one that goes on beyond them goes on for ever


class Stopped(BaseException):
    """The program was killed. Not an `Exception`: nothing in the program may catch it."""


class EndlessError(BaseException):
    """The program does not come to an end while time stands still. No `Exception` either."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is done to the program, by the number of the effect.

    It is stopped before or after one; a guest, another process, is let in before one, or while one is under way: the
    effect has taken place, and the program has not heard of it yet. The answers to the `lost` effects do not arrive:
    "again" if the repeat is answered, "busy" if no repeat is.
    """

    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()
    guests: Mapping[int, str] = field(default_factory=dict)
    guests_inside: Mapping[int, str] = field(default_factory=dict)
    lost: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """The clock, the effects counted so far, and what happens by itself later on. Times are in milliseconds.

    `offset` is how far the clock of the process at work is ahead of the world's, `ends` when that process has to end.
    """

    schedule: Schedule = field(default_factory=Schedule)
    now: int = 1_796_000_000_000
    offset: int = 0
    ends: int = 0
    effects: int = 0
    stops: int = 0
    losses: list[str] = field(default_factory=list)  # the manners of the answers lost so far
    names: list[str] = field(default_factory=list)
    guests: dict[str, Callable[[], None]] = field(default_factory=dict)
    _later: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _guest_inside: bool = False

    def clock(self) -> int:
        """The time as the process at work reads it."""
        return self.now + self.offset

    def effect(self, name: str, act: Callable[[], T], unheard: Callable[[str], T] | None = None) -> T:
        """Runs one effect of the program, unless the schedule has other plans.

        `unheard` is what the program sees instead when the answer is lost in this manner; without it, none can be.
        """
        self.effects += 1
        if self.effects > MAX_EFFECTS:
            raise EndlessError
        number = self.effects
        self.names.append(name)
        self._let_in(self.schedule.guests.get(number))
        if number in self.schedule.before:
            raise Stopped
        result = act()
        self._let_in(self.schedule.guests_inside.get(number))
        if number in self.schedule.after:
            raise Stopped
        if unheard and (manner := self.schedule.lost.get(number)):
            self.losses.append(manner)
            return unheard(manner)
        return result

    def at(self, moment: int, act: Callable[[], None]) -> None:
        """Lets something happen by itself at a time to come."""
        heapq.heappush(self._later, (max(moment, self.now), next(self._order), act))

    def next_event(self) -> int | None:
        """When something happens by itself next."""
        return self._later[0][0] if self._later else None

    def move_to(self, moment: int) -> None:
        """Moves time, and lets happen what happens on the way."""
        while self._later and self._later[0][0] <= moment:
            at, _, act = heapq.heappop(self._later)
            self.now = max(self.now, at)
            act()
        self.now = max(self.now, moment)

    def run(self, program: Callable[[], T]) -> T | None:
        """Runs a program; None if it was stopped."""
        try:
            return program()
        except Stopped:
            self.stops += 1
            return None

    def _let_in(self, guest: str | None) -> None:
        if guest is None or self._guest_inside:
            return
        self._guest_inside = True
        try:
            self.run(self.guests[guest])
        finally:
            self._guest_inside = False

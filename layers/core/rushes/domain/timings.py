"""The intervals of the service, and the order between them that keeps buyers apart.

`config` reads the values; their order is checked here, at start, so that each use case can rely on it. Pure.
"""

from dataclasses import dataclass
from itertools import pairwise

from rushes.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The intervals of the service, in milliseconds. Their order keeps buyers apart, so it is checked here.

    A buyer holds a lease while it sends. It may run until its function's timeout, and its last request may be on the
    wire for one HTTP timeout; after that it has no effect. So

        http < function < lease

    and nothing is sent under a lease with less than `http` and `skew` together left. Hence no two buyers of one clip
    overlap, although each has its own clock: `skew` is the largest allowed difference between two functions' clocks.

    An ambiguous attempt may be repeated while it is younger than `resend_window`, after its lease: `lease <
    resend_window`. A repeat has to take effect before the render ends, so that the provider still refuses its UUID as
    one in flight; see `check_repeats`. An undecided clip goes to review at `deadline`, after the checks that can decide
    it: `resend_window`, `usual_render` and `last_look` are shorter. A paid clip without a copy is looked for until
    `copy_deadline` after the `rendered` fact. A rescue begins `rescue_after` that fact, so that the upload has time to
    arrive by itself.
    """

    http: int
    function: int
    lease: int
    resend_window: int
    deadline: int
    last_look: int
    copy_deadline: int
    usual_render: int
    rescue_after: int

    def __post_init__(self) -> None:
        http, function = ("HTTP_TIMEOUT", self.http), ("FUNCTION_TIMEOUT", self.function)
        lease, window = ("LEASE", self.lease), ("RESEND_WINDOW", self.resend_window)
        deadline = ("DEADLINE", self.deadline)
        for shorter, longer in (
            *pairwise((http, function, lease, window, deadline)),
            (("USUAL_RENDER", self.usual_render), deadline),
            (("LAST_LOOK", self.last_look), deadline),
            (("RESCUE_AFTER", self.rescue_after), ("COPY_DEADLINE", self.copy_deadline)),
        ):
            if shorter[1] >= longer[1]:
                raise SettingsError(f"{shorter[0]}_SECONDS must be less than {longer[0]}_SECONDS")
        if self.http + self.skew >= self.lease:
            raise SettingsError("HTTP_TIMEOUT_SECONDS must be less than half of LEASE_SECONDS")

    def check_repeats(self) -> None:
        """Raises `SettingsError` if a repeated attempt could take effect after the end of the first one's render.

        The services check each model's own `usual_render` in the same way.
        """
        if self.latest_repeat >= self.usual_render:
            raise SettingsError(
                "RESEND_WINDOW_SECONDS, FUNCTION_TIMEOUT_SECONDS and LEASE_SECONDS together must be less than "
                "USUAL_RENDER_SECONDS while WHEN_AMBIGUOUS is resend"
            )

    @property
    def latest_repeat(self) -> int:
        """The longest time from an ambiguous attempt until a repeat of it takes effect.

        A repeat is decided within the window, sent before its function ends, and takes effect before its lease ends.
        The decision is as old as the lease, so only the clock skew of the function's time is ever needed.
        """
        return self.resend_window + max(self.function, self.skew) + self.lease

    @property
    def skew(self) -> int:
        """The largest allowed difference between two functions' clocks; this part of a lease stays unused."""
        return self.lease // 2

    def hard(self, limit: int) -> int:
        """Returns the hard limit: a limit for giving up plus one deadline, while a source does not answer."""
        return limit + self.deadline

    @property
    def to_finish(self) -> int:
        """The part of a function's time that is kept for saving facts and answering."""
        return self.function // 12

    @property
    def longest_open(self) -> int:
        """The longest time for which a clip can be open after its order; later facts are about closed clips.

        It is bought, gets its result, its failure becomes final, and a render that appears then is copied, each by its
        hard limit at the latest. The check that ends a stage is late by at most a third of it (`clip.next_check`).
        """
        failure = self.hard(self.hard(self.last_look))  # two hard limits while Runware is still at work
        return (2 * self.hard(self.deadline) + failure + self.hard(self.copy_deadline)) * 4 // 3

    @property
    def check(self) -> int:
        """The shortest pause between two checks of a clip: the HTTP timeout, which scales with the other intervals."""
        return self.http

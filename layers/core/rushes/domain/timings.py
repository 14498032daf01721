"""Every interval of the service, and the order between them that keeps buyers apart.

`config` reads the values; their relations are checked here, at start, so no use case has to trust them. Pure.
"""

from dataclasses import dataclass
from itertools import pairwise

from rushes.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Every interval of the service, in milliseconds. Their order is what keeps buyers apart, so it is checked here.

    A buyer holds a lease while it sends. It may be alive until its function's timeout, and the last request it sent may
    be on the wire for one HTTP timeout; after that nothing of it moves. So

        http < function < lease

    and nothing is sent under a lease of which less than `http` and `skew` together is left. Hence no two buyers of one
    clip overlap, although each goes by its own clock: `skew` is how far the clocks of two functions may be apart.

    An ambiguous attempt may be repeated while it is younger than `resend_window`, once its lease is over: `lease <
    resend_window`. A repeat has to take effect before the render ends, so that the provider still refuses its UUID as
    one in flight; see `check_repeats`. Whatever is undecided at `deadline` is parked for people, after the looks that
    decide: `resend_window`, `usual_render` and `last_look` are below it. A paid clip whose bytes cannot be had is
    looked for until `copy_deadline` after its render became known; a rescue begins `rescue_after` that moment, to leave
    the upload time to arrive by itself.
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
        """Raises `SettingsError` if a repeated attempt could take effect after the first one's render has ended.

        It is decided within the window, sent before its function ends, and takes effect before its lease is over. The
        decision is as old as the lease, so that of the function's time only the clocks' difference is ever needed.
        """
        if self.resend_window + max(self.function, self.skew) + self.lease >= self.usual_render:
            raise SettingsError(
                "RESEND_WINDOW_SECONDS, FUNCTION_TIMEOUT_SECONDS and LEASE_SECONDS together must be less than "
                "USUAL_RENDER_SECONDS while WHEN_AMBIGUOUS is resend"
            )

    @property
    def skew(self) -> int:
        """How far the clocks of two functions may be apart: so much of a lease is left unused."""
        return self.lease // 2

    def hard(self, limit: int) -> int:
        """How far a limit for giving up may move while some witness does not answer: by one more deadline."""
        return limit + self.deadline

    @property
    def to_finish(self) -> int:
        """What a function keeps back of its own time, for saving what was learned and answering."""
        return self.function // 12

    @property
    def longest_open(self) -> int:
        """How long after its order a clip can still be open; only late facts about a closed one come after that.

        It is bought, its result becomes known, a failure is final, and a render that shows up then is copied, each by
        its hard limit at the latest. The look that ends a stage may be late by a third of it at most
        (`clip.next_check`).
        """
        failure = self.hard(self.hard(self.last_look))  # it waits twice while Runware is still at work
        return (2 * self.hard(self.deadline) + failure + self.hard(self.copy_deadline)) * 4 // 3

    @property
    def check(self) -> int:
        """The shortest pause between two looks at one clip: the HTTP timeout, scaled with everything else."""
        return self.http

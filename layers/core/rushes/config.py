"""Environment to frozen settings, one class per function, and the one place that holds the service's times.

Settings are read at a function's first call, never at import. A missing or senseless value raises `SettingsError`
with the variable's name. There are no local defaults: whoever starts a function says everything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

from rushes.errors import SettingsError

MOST_DOLLARS = 10**9  # of any amount that a person sets: its micro-dollars are exact in JSON and in the table
Environment = Mapping[str, str]
WhenAmbiguous = Literal["resend", "review"]


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

    @classmethod
    def read(cls, environment: Environment) -> "Timings":
        return cls(
            http=_milliseconds(environment, "HTTP_TIMEOUT_SECONDS"),
            function=_milliseconds(environment, "FUNCTION_TIMEOUT_SECONDS"),
            lease=_milliseconds(environment, "LEASE_SECONDS"),
            resend_window=_milliseconds(environment, "RESEND_WINDOW_SECONDS"),
            deadline=_milliseconds(environment, "DEADLINE_SECONDS"),
            last_look=_milliseconds(environment, "LAST_LOOK_SECONDS"),
            copy_deadline=_milliseconds(environment, "COPY_DEADLINE_SECONDS"),
            usual_render=_milliseconds(environment, "USUAL_RENDER_SECONDS"),
            rescue_after=_milliseconds(environment, "RESCUE_AFTER_SECONDS"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyingSettings:
    """What every function that buys needs to know."""

    table: str
    bucket: str
    runware_url: str
    runware_secret: str
    webhook_secret: str
    webhook_url: str
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettings(BuyingSettings):
    """What `submit` needs to know.

    `monthly_limit` is for all callers together, in micro-dollars. `retention` is how long the table keeps requests
    after the last of their clips can be open, in milliseconds; None means for ever. `unknown_callers`: whether a caller
    that no operator has made may order by file and event.
    """

    monthly_limit: int
    retention: int | None
    unknown_callers: bool

    @classmethod
    def read(cls, environment: Environment) -> "SubmitSettings":
        return cls(
            monthly_limit=_micro_dollars(environment, "MONTHLY_LIMIT_USD"),
            retention=_days(environment, "RETENTION_DAYS"),
            unknown_callers=_truth(environment, "ALLOW_UNKNOWN_CALLERS"),
            **_buying(environment),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileSettings(BuyingSettings):
    """What `reconcile` needs to know. `rescue_origins` are where a render may be fetched from."""

    rescue_origins: frozenset[str]
    when_ambiguous: WhenAmbiguous

    @classmethod
    def read(cls, environment: Environment) -> "ReconcileSettings":
        settings = cls(
            rescue_origins=frozenset(_text(environment, "RESCUE_ORIGINS").lower().split(",")),
            when_ambiguous=_when_ambiguous(environment),
            **_buying(environment),
        )
        if settings.when_ambiguous == "resend":
            settings.timings.check_repeats()
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """What `webhook` needs to know."""

    table: str
    bucket: str
    webhook_secret: str
    timings: Timings

    @classmethod
    def read(cls, environment: Environment) -> "WebhookSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            webhook_secret=_text(environment, "WEBHOOK_SECRET"),
            timings=Timings.read(environment),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceSettings:
    """What `announce` needs to know. `bus` is the event bus's name."""

    table: str
    bucket: str
    bus: str
    timings: Timings

    @classmethod
    def read(cls, environment: Environment) -> "AnnounceSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            bus=_text(environment, "EVENT_BUS_NAME"),
            timings=Timings.read(environment),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksSettings:
    """What `tasks` needs to know."""

    table: str
    bucket: str
    timings: Timings

    @classmethod
    def read(cls, environment: Environment) -> "TasksSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            timings=Timings.read(environment),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """What `intake` needs to know. `inbox` is the queue's URL, `unknown_callers` as for `submit`."""

    table: str
    bucket: str
    inbox: str
    unknown_callers: bool

    @classmethod
    def read(cls, environment: Environment) -> "IntakeSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            inbox=_text(environment, "INBOX_URL"),
            unknown_callers=_truth(environment, "ALLOW_UNKNOWN_CALLERS"),
        )


def micro_dollars(text: str) -> int:
    """Dollars as written by a person, as micro-dollars; raises `ValueError` unless it is from 0 to `MOST_DOLLARS`."""
    try:
        amount = Decimal(text)
        if not amount.is_finite() or not 0 <= amount <= MOST_DOLLARS:
            raise ValueError(text)
        return int((amount * 1_000_000).to_integral_value())
    except ArithmeticError:
        raise ValueError(text) from None


def _buying(environment: Environment) -> dict[str, Any]:
    """The values of `BuyingSettings`, by field."""
    return {
        "table": _text(environment, "TABLE_NAME"),
        "bucket": _text(environment, "BUCKET_NAME"),
        "runware_url": _text(environment, "RUNWARE_BASE_URL"),
        "runware_secret": _text(environment, "RUNWARE_SECRET"),
        "webhook_secret": _text(environment, "WEBHOOK_SECRET"),
        "webhook_url": _text(environment, "WEBHOOK_BASE_URL").rstrip("/"),
        "timings": Timings.read(environment),
    }


def _text(environment: Environment, name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _truth(environment: Environment, name: str) -> bool:
    text = _text(environment, name)
    if text not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false")
    return text == "true"


def _milliseconds(environment: Environment, name: str) -> int:
    try:
        seconds = float(_text(environment, name))
    except ValueError:
        raise SettingsError(f"{name} is not a number of seconds") from None
    if not math.isfinite(seconds) or seconds <= 0:
        raise SettingsError(f"{name} must be above zero")
    return max(1, round(seconds * 1000))


def _days(environment: Environment, name: str) -> int | None:
    """In milliseconds; None for 0."""
    text = _text(environment, name)
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(f"{name} is not a whole number of days")
    return int(text) * 86_400_000 or None


def _micro_dollars(environment: Environment, name: str) -> int:
    try:
        return micro_dollars(_text(environment, name))
    except ValueError:
        raise SettingsError(f"{name} is not an amount from 0 to {MOST_DOLLARS} dollars") from None


def _when_ambiguous(environment: Environment) -> WhenAmbiguous:
    match _text(environment, "WHEN_AMBIGUOUS"):
        case "resend":
            return "resend"
        case "review":
            return "review"
    raise SettingsError("WHEN_AMBIGUOUS must be resend or review")

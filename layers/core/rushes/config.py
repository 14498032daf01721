"""Reads the environment into frozen settings, one class for each function, and the service's intervals.

Settings are read at a function's first call, never at import. A missing or invalid value raises `SettingsError` with
the variable's name. There are no defaults: the template or the test sets all variables.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rushes.domain.formats import MAX_DOLLARS, micro_dollars
from rushes.domain.timings import Timings
from rushes.errors import SettingsError

Environment = Mapping[str, str]
WhenAmbiguous = Literal["resend", "review"]


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class BuyingSettings:
    """The settings that all buying functions have."""

    table: str
    bucket: str
    runware_url: str
    runware_secret: str
    webhook_secret: str
    webhook_url: str
    timings: Timings


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class SubmitSettings(BuyingSettings):
    """The settings of `submit`.

    `monthly_limit` is for all callers together, in micro-dollars. `retention` is the time in milliseconds for which the
    table keeps requests, from the latest time at which one of their clips can be open; None means permanently.
    `unknown_callers` is True if callers without a record may order by file and event, `loopback` if webhooks may go to
    receivers on the same machine, `gone_models` if models that Runware has removed may be ordered.
    """

    monthly_limit: int
    retention: int | None
    unknown_callers: bool
    loopback: bool
    gone_models: bool

    @classmethod
    def read(cls, environment: Environment) -> "SubmitSettings":
        return cls(
            monthly_limit=_micro_dollars(environment, "MONTHLY_LIMIT_USD"),
            retention=_days(environment, "RETENTION_DAYS"),
            unknown_callers=_boolean(environment, "ALLOW_UNKNOWN_CALLERS"),
            loopback=_boolean(environment, "ALLOW_LOOPBACK_WEBHOOKS"),
            gone_models=_boolean(environment, "ALLOW_GONE_MODELS"),
            **_buying(environment),
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class ReconcileSettings(BuyingSettings):
    """The settings of `reconcile`. `rescue_origins` are the allowed origins of renders."""

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


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class WebhookSettings:
    """The settings of `webhook`."""

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
            timings=read_timings(environment),
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class PublishSettings:
    """The settings of `publish`. `bus` is the name of the event bus, `deliveries` the URL of a queue."""

    table: str
    bucket: str
    bus: str
    deliveries: str
    timings: Timings

    @classmethod
    def read(cls, environment: Environment) -> "PublishSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            bus=_text(environment, "EVENT_BUS_NAME"),
            deliveries=_text(environment, "DELIVERIES_URL"),
            timings=read_timings(environment),
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class DeliverSettings:
    """The settings of `deliver`. `deliveries` is the URL of the queue; times are in milliseconds.

    `timeout` is for one attempt, `first_pause` between the first two, and `concurrency` for all callers together.
    """

    table: str
    bucket: str
    deliveries: str
    loopback: bool
    timeout: int
    first_pause: int
    concurrency: int
    timings: Timings

    @classmethod
    def read(cls, environment: Environment) -> "DeliverSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            deliveries=_text(environment, "DELIVERIES_URL"),
            loopback=_boolean(environment, "ALLOW_LOOPBACK_WEBHOOKS"),
            timeout=_milliseconds(environment, "DELIVERY_TIMEOUT_SECONDS"),
            first_pause=_milliseconds(environment, "DELIVERY_PAUSE_SECONDS"),
            concurrency=_number(environment, "DELIVERY_CONCURRENCY"),
            timings=read_timings(environment),
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class TasksSettings:
    """The settings of `tasks`. `monthly_limit` is as for `submit`."""

    table: str
    bucket: str
    timings: Timings
    monthly_limit: int

    @classmethod
    def read(cls, environment: Environment) -> "TasksSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            timings=read_timings(environment),
            monthly_limit=_micro_dollars(environment, "MONTHLY_LIMIT_USD"),
        )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class IntakeSettings:
    """The settings of `intake`. `inbox` is the queue's URL; the permissions are those of `submit`."""

    table: str
    bucket: str
    inbox: str
    unknown_callers: bool
    loopback: bool
    gone_models: bool

    @classmethod
    def read(cls, environment: Environment) -> "IntakeSettings":
        return cls(
            table=_text(environment, "TABLE_NAME"),
            bucket=_text(environment, "BUCKET_NAME"),
            inbox=_text(environment, "INBOX_URL"),
            unknown_callers=_boolean(environment, "ALLOW_UNKNOWN_CALLERS"),
            loopback=_boolean(environment, "ALLOW_LOOPBACK_WEBHOOKS"),
            gone_models=_boolean(environment, "ALLOW_GONE_MODELS"),
        )


def read_timings(environment: Environment) -> Timings:
    """Returns the service's intervals; raises `SettingsError` if one is missing or their order is wrong."""
    return Timings(
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


def _buying(environment: Environment) -> dict[str, Any]:
    """The values of `BuyingSettings`, by field."""
    return {
        "table": _text(environment, "TABLE_NAME"),
        "bucket": _text(environment, "BUCKET_NAME"),
        "runware_url": _text(environment, "RUNWARE_BASE_URL"),
        "runware_secret": _text(environment, "RUNWARE_SECRET"),
        "webhook_secret": _text(environment, "WEBHOOK_SECRET"),
        "webhook_url": _text(environment, "WEBHOOK_BASE_URL").rstrip("/"),
        "timings": read_timings(environment),
    }


def _text(environment: Environment, name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _boolean(environment: Environment, name: str) -> bool:
    text = _text(environment, name)
    if text not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false")
    return text == "true"


def _number(environment: Environment, name: str) -> int:
    text = _text(environment, name)
    if not (text.isascii() and text.isdigit() and int(text)):
        raise SettingsError(f"{name} must be a whole number above 0")
    return int(text)


def _milliseconds(environment: Environment, name: str) -> int:
    try:
        seconds = float(_text(environment, name))
    except ValueError:
        raise SettingsError(f"{name} must be a number of seconds above 0") from None
    if not math.isfinite(seconds) or seconds <= 0:
        raise SettingsError(f"{name} must be a number of seconds above 0")
    return max(1, round(seconds * 1000))


def _days(environment: Environment, name: str) -> int | None:
    """A number of days in milliseconds; None for 0."""
    text = _text(environment, name)
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(f"{name} must be a whole number of days; 0 means permanently")
    return int(text) * 86_400_000 or None


def _micro_dollars(environment: Environment, name: str) -> int:
    try:
        return micro_dollars(_text(environment, name))
    except ValueError:
        raise SettingsError(f"{name} must be an amount from 0 to {MAX_DOLLARS} dollars") from None


def _when_ambiguous(environment: Environment) -> WhenAmbiguous:
    match _text(environment, "WHEN_AMBIGUOUS"):
        case "resend":
            return "resend"
        case "review":
            return "review"
    raise SettingsError("WHEN_AMBIGUOUS must be resend or review")

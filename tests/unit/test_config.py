"""Settings from the environment, the order of the times, and amounts of money."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from rushes.config import (
    DeliverSettings,
    IntakeSettings,
    ReconcileSettings,
    SubmitSettings,
    TasksSettings,
    WebhookSettings,
    read_timings,
)
from rushes.domain.clip import Kind, next_check
from rushes.domain.formats import micro_dollars
from rushes.errors import SettingsError
from tests.fakes.builders import CLIP_UUID, START, TIMES, clip, fact

SECONDS = {
    "HTTP_TIMEOUT_SECONDS": "10",
    "FUNCTION_TIMEOUT_SECONDS": "25",
    "LEASE_SECONDS": "60",
    "RESEND_WINDOW_SECONDS": "120",
    "DEADLINE_SECONDS": "7200",
    "LAST_LOOK_SECONDS": "900",
    "COPY_DEADLINE_SECONDS": "21600",
    "USUAL_RENDER_SECONDS": "240",
    "RESCUE_AFTER_SECONDS": "60",
}
ALL_SETTINGS = {
    **SECONDS,
    "TABLE_NAME": "table",
    "BUCKET_NAME": "bucket",
    "RUNWARE_BASE_URL": "https://api.example/v1",
    "RUNWARE_SECRET": "arn:runware",
    "WEBHOOK_SECRET": "arn:webhook",
    "WEBHOOK_BASE_URL": "https://hooks.example/",
    "MONTHLY_LIMIT_USD": "50",
    "RETENTION_DAYS": "30",
    "ALLOW_UNKNOWN_CALLERS": "false",
    "INBOX_URL": "https://queue.example",
    "WHEN_AMBIGUOUS": "resend",
    "RESCUE_ORIGINS": "https://VM.example,http://127.0.0.1:1",
    "ALLOW_LOOPBACK_WEBHOOKS": "false",
    "ALLOW_GONE_MODELS": "false",
    "DELIVERIES_URL": "https://deliveries.example",
    "DELIVERY_TIMEOUT_SECONDS": "15",
    "DELIVERY_PAUSE_SECONDS": "5",
    "DELIVERY_CONCURRENCY": "6",
}
_BUYING = {
    *SECONDS,
    *("TABLE_NAME", "BUCKET_NAME", "RUNWARE_BASE_URL", "RUNWARE_SECRET", "WEBHOOK_SECRET", "WEBHOOK_BASE_URL"),
}
NEEDED = {
    SubmitSettings: {
        *_BUYING,
        *("MONTHLY_LIMIT_USD", "RETENTION_DAYS"),
        *("ALLOW_UNKNOWN_CALLERS", "ALLOW_LOOPBACK_WEBHOOKS", "ALLOW_GONE_MODELS"),
    },
    IntakeSettings: {
        *("TABLE_NAME", "BUCKET_NAME", "INBOX_URL"),
        *("ALLOW_UNKNOWN_CALLERS", "ALLOW_LOOPBACK_WEBHOOKS", "ALLOW_GONE_MODELS"),
    },
    TasksSettings: {*SECONDS, "TABLE_NAME", "BUCKET_NAME", "MONTHLY_LIMIT_USD"},
    WebhookSettings: {*SECONDS, "TABLE_NAME", "BUCKET_NAME", "WEBHOOK_SECRET"},
    ReconcileSettings: {*_BUYING, "WHEN_AMBIGUOUS", "RESCUE_ORIGINS"},
    DeliverSettings: {
        *SECONDS,
        *("TABLE_NAME", "BUCKET_NAME", "DELIVERIES_URL", "ALLOW_LOOPBACK_WEBHOOKS"),
        *("DELIVERY_TIMEOUT_SECONDS", "DELIVERY_PAUSE_SECONDS", "DELIVERY_CONCURRENCY"),
    },
}


def test_settings_are_read_as_given() -> None:
    """Times become milliseconds, dollars micro-dollars, and a trailing slash is dropped."""
    settings = SubmitSettings.read(ALL_SETTINGS)
    assert settings.timings == TIMES
    assert (settings.monthly_limit, settings.webhook_url) == (50_000_000, "https://hooks.example")
    assert (settings.table, settings.bucket, settings.runware_secret) == ("table", "bucket", "arn:runware")
    assert settings.retention == 30 * 86_400_000
    assert SubmitSettings.read({**ALL_SETTINGS, "RETENTION_DAYS": "0"}).retention is None
    assert not settings.unknown_callers
    assert SubmitSettings.read({**ALL_SETTINGS, "ALLOW_UNKNOWN_CALLERS": "true"}).unknown_callers
    reconcile = ReconcileSettings.read(ALL_SETTINGS)
    assert reconcile.rescue_origins == {"https://vm.example", "http://127.0.0.1:1"}
    assert reconcile.when_ambiguous == "resend"
    assert ReconcileSettings.read({**ALL_SETTINGS, "WHEN_AMBIGUOUS": "review"}).when_ambiguous == "review"


@pytest.mark.parametrize(
    ("settings", "name"), [(settings, name) for settings, names in NEEDED.items() for name in sorted(names)]
)
def test_a_missing_setting_is_named(settings: Any, name: str) -> None:
    """A function that lacks a setting, or has an empty one, stops with the variable's name."""
    for broken in ({key: value for key, value in ALL_SETTINGS.items() if key != name}, {**ALL_SETTINGS, name: " "}):
        with pytest.raises(SettingsError, match=name):
            settings.read(broken)


@pytest.mark.parametrize("settings", NEEDED)
def test_a_function_needs_only_its_own_settings(settings: Any) -> None:
    """Each function starts with exactly its own settings."""
    assert settings.read({name: ALL_SETTINGS[name] for name in NEEDED[settings]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "soon"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "-60"),
        ("MONTHLY_LIMIT_USD", "unlimited"),
        ("MONTHLY_LIMIT_USD", "-1"),
        ("MONTHLY_LIMIT_USD", "Infinity"),
        ("MONTHLY_LIMIT_USD", "1e39"),
        ("RETENTION_DAYS", "-1"),
        ("RETENTION_DAYS", "1.5"),
        ("RETENTION_DAYS", "\u0663"),
        ("WHEN_AMBIGUOUS", "Resend"),
        ("ALLOW_UNKNOWN_CALLERS", "True"),
        ("DELIVERY_CONCURRENCY", "0"),
        ("DELIVERY_CONCURRENCY", "1.5"),
    ],
)
def test_an_invalid_setting_is_named(name: str, value: str) -> None:
    """An invalid value stops the function with the variable's name, and never means unlimited."""
    environment: Mapping[str, str] = {**ALL_SETTINGS, name: value}
    settings: Any = next(each for each, names in NEEDED.items() if name in names)
    with pytest.raises(SettingsError, match=name):
        settings.read(environment)


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ("http", "function"),
        ("function", "lease"),
        ("lease", "resend_window"),
        ("resend_window", "deadline"),
        ("usual_render", "deadline"),
        ("last_look", "deadline"),
        ("rescue_after", "copy_deadline"),
    ],
)
def test_the_times_must_be_in_order(shorter: str, longer: str) -> None:
    """Times that would let two buyers overlap, or give up before a look, are refused, equal ones too."""
    for value in (getattr(TIMES, longer), getattr(TIMES, longer) + 1):
        with pytest.raises(SettingsError, match="must be less than"):
            replace(TIMES, **{shorter: value})


def test_the_lease_has_a_margin_for_clock_skew() -> None:
    """A lease that the clock skew would use up before a send is refused."""
    assert TIMES.skew == 30_000
    with pytest.raises(SettingsError, match="half of LEASE_SECONDS"):
        replace(TIMES, http=TIMES.lease - TIMES.skew, function=TIMES.lease - 1)


@pytest.mark.parametrize("window", ["150", "300", "600"])
def test_a_resend_that_could_follow_a_render_is_refused(window: str) -> None:
    """Under `resend`, window, function and lease end before the usual render; under `review` any window is allowed."""
    late = {**ALL_SETTINGS, "RESEND_WINDOW_SECONDS": window}
    with pytest.raises(SettingsError, match="USUAL_RENDER_SECONDS"):
        ReconcileSettings.read(late)
    assert ReconcileSettings.read({**late, "WHEN_AMBIGUOUS": "review"})
    assert ReconcileSettings.read({**late, "RESEND_WINDOW_SECONDS": "149"})


@pytest.mark.parametrize(("deadline", "copy_deadline"), [(7_200_000, 21_600_000), (3_600_000, 604_800_000)])
def test_longest_open_bounds_every_clip(deadline: int, copy_deadline: int) -> None:
    """Each stage begins at the end of the one before and ends at its last check."""
    times = replace(TIMES, deadline=deadline, copy_deadline=copy_deadline)
    stages = (
        (None, times.hard(deadline)),
        (Kind.ACCEPTED, times.hard(deadline)),
        (Kind.FAILED, times.hard(times.hard(times.last_look))),
        (Kind.RENDERED, times.hard(copy_deadline)),
    )
    at = START
    for kind, length in stages:
        waiting = clip(fact(kind, at=at), created_at=at) if kind else clip(clip_uuid="ff" + CLIP_UUID[2:])
        last_unanswered = at + length - 1
        at = next_check(waiting, last_unanswered, times) or pytest.fail("not open")
        assert at > last_unanswered
    assert at - START <= times.longest_open < 2 * (at - START)


@pytest.mark.parametrize("factor", [1, 0.1, 0.02, 0.001])
def test_all_times_can_be_scaled_by_one_factor(factor: float) -> None:
    """One factor on every time keeps their order, and no time becomes zero."""
    scaled = read_timings({name: str(float(value) * factor) for name, value in SECONDS.items()})
    assert scaled.lease == round(TIMES.lease * factor)
    assert scaled.check == scaled.http >= 1


@pytest.mark.parametrize(
    ("text", "amount"),
    [("50", 50_000_000), ("0", 0), ("0.924", 924_000), ("0.0000004", 0), (" 1.5 ", 1_500_000), ("1e9", 10**15)],
)
def test_dollars_become_micro_dollars(text: str, amount: int) -> None:
    """Money is exact to the micro-dollar."""
    assert micro_dollars(text) == amount


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "-0.01", "NaN", "sNaN", "Infinity", "1,5", "$5", "1000000000.01", "1e39"]
)
def test_other_texts_are_no_amount(text: str) -> None:
    """Only amounts from zero to the bound are accepted, so that no sum outgrows the table's numbers."""
    with pytest.raises(ValueError, match=r".*"):
        micro_dollars(text)


def test_a_huge_exponent_is_no_amount() -> None:
    """A huge exponent is refused like any other text that is not an amount."""
    with pytest.raises(ValueError, match=r".*"):
        micro_dollars("1e999999")

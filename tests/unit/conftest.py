"""Shared by all unit tests: Hypothesis's profiles, and fresh fakes for each test."""

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.use_cases import UseCases

common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", common, max_examples=60, derandomize=True)  # the same examples for the same code
settings.register_profile("thorough", common, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture
def ahead_of_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose local time is fourteen hours ahead."""
    monkeypatch.setenv("TZ", "AHEAD-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def world() -> UseCases:
    """Table, bucket, Runware and clock in memory, with the use cases on them."""
    return UseCases()

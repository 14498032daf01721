"""The headers of an HTTP event."""

from typing import Any

import pytest

from rushes.lambda_events import header


@pytest.mark.parametrize("sent", ["authorization", "Authorization", "AUTHORIZATION"])
def test_the_case_of_a_header_does_not_matter(sent: str) -> None:
    """API Gateway lowers the names of headers; `sam local start-api` passes them on as they were sent."""
    assert header({"headers": {"host": "x", sent: "Bearer key"}}, "authorization") == "Bearer key"


@pytest.mark.parametrize("event", [{}, {"headers": None}, {"headers": {"x-authorization": "Bearer key"}}], ids=str)
def test_a_missing_header_is_none(event: dict[str, Any]) -> None:
    """No other header is returned instead."""
    assert header(event, "authorization") is None

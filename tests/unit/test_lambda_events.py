"""What entry points share: how an HTTP event is read."""

from typing import Any

import pytest

from rushes.lambda_events import header


@pytest.mark.parametrize("sent", ["authorization", "Authorization", "AUTHORIZATION"])
def test_a_header_is_found_however_it_is_written(sent: str) -> None:
    """API Gateway lowers the names of headers; `sam local start-api` hands them over as they were sent."""
    assert header({"headers": {"host": "x", sent: "Bearer key"}}, "authorization") == "Bearer key"


@pytest.mark.parametrize("event", [{}, {"headers": None}, {"headers": {"x-authorization": "Bearer key"}}], ids=str)
def test_a_header_that_is_not_there(event: dict[str, Any]) -> None:
    """Nothing is taken for a header but that header."""
    assert header(event, "authorization") is None

"""The service's limits, for help texts and typed amounts. The service validates; a test compares the two."""

from decimal import Decimal

MODEL = "klingai:5@3"
SIZES = ("1920x1080", "1080x1080", "1080x1920")
DURATIONS = (5, 10)  # seconds
CLIPS = (1, 4)  # minimum and maximum of a task
FORMATS = ("mp4", "webm", "mov")
MAX_DOLLARS = 10**9  # of any limit or threshold


def micro_dollars(text: str) -> int:
    """An amount in dollars as micro-dollars. Raises `ValueError` unless it is from 0 to `MAX_DOLLARS`."""
    try:
        amount = Decimal(text)
        if not amount.is_finite() or not 0 <= amount <= MAX_DOLLARS:
            raise ValueError(text)
        return int((amount * 1_000_000).to_integral_value())
    except ArithmeticError:
        raise ValueError(text) from None

"""What the service takes, for help and for typed amounts. The service itself decides; a test compares the two."""

from decimal import Decimal

MODEL = "klingai:5@3"
SIZES = ("1920x1080", "1080x1080", "1080x1920")
DURATIONS = (5, 10)  # seconds
CLIPS = (1, 4)  # of a task, from and to
FORMATS = ("mp4", "webm", "mov")
MAX_DOLLARS = 10**9  # of any amount that a person sets


def micro_dollars(text: str) -> int:
    """Dollars as a person writes them, in micro-dollars. Raises `ValueError` unless it is from 0 to `MAX_DOLLARS`."""
    try:
        amount = Decimal(text)
        if not amount.is_finite() or not 0 <= amount <= MAX_DOLLARS:
            raise ValueError(text)
        return int((amount * 1_000_000).to_integral_value())
    except ArithmeticError:
        raise ValueError(text) from None

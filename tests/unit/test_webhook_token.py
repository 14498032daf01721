"""The callback's token: valid for one clip, for seven days, under any current key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.webhook_token import VALID_SECONDS, sign, subject, verify
from rushes.errors import BadTokenError
from tests.fakes.builders import START, TASK_UUID

SUBJECT = subject("ann", TASK_UUID, 0)
TOKEN = sign(SUBJECT, ["key"], START)


@pytest.mark.parametrize("elapsed", [0, 1000, VALID_SECONDS * 1000])
def test_a_token_is_valid_for_seven_days(elapsed: int) -> None:
    """A token verifies for its clip from the moment of its signature until its last second."""
    verify(TOKEN, SUBJECT, ["key"], START + elapsed)


@pytest.mark.parametrize(
    ("token", "for_subject", "keys", "now"),
    [
        (TOKEN, SUBJECT, ["key"], START + VALID_SECONDS * 1000 + 1000),
        (TOKEN, SUBJECT, ["key"], START - 61_000),
        (TOKEN, SUBJECT, ["other"], START),
        (TOKEN, subject("ann", TASK_UUID, 1), ["key"], START),
        (TOKEN, subject("bob", TASK_UUID, 0), ["key"], START),
        (TOKEN, subject("ann", TASK_UUID, "00"), ["key"], START),
        (TOKEN, "", ["key"], START),
        (TOKEN[:-1], SUBJECT, ["key"], START),
        (TOKEN[1:], SUBJECT, ["key"], START),
        (TOKEN + "A", SUBJECT, ["key"], START),
        (TOKEN.partition(".")[2], SUBJECT, ["key"], START),
        (TOKEN.swapcase(), SUBJECT, ["key"], START),
        ("", SUBJECT, ["key"], START),
        (".", SUBJECT, ["key"], START),
        ("..", SUBJECT, ["key"], START),
        ("\ud800", SUBJECT, ["key"], START),
        ("é.é", SUBJECT, ["key"], START),
        ("A" * 10**6, SUBJECT, ["key"], START),
        (f"{SUBJECT}.{TOKEN}", SUBJECT, ["key"], START),
    ],
    ids=range(19),
)
def test_every_fault_of_a_token_is_the_same_error(token: str, for_subject: str, keys: list[str], now: int) -> None:
    """A wrong, swapped, expired, truncated, early or mangled token raises one error without a message."""
    with pytest.raises(BadTokenError, match=r"^$"):
        verify(token, for_subject, keys, now)


def test_keys_rotate() -> None:
    """The newest key signs, and a signature of the previous key is valid while that key is given."""
    new = sign(SUBJECT, ["new", "key"], START)
    verify(new, SUBJECT, ["new"], START)
    verify(TOKEN, SUBJECT, ["new", "key"], START)
    with pytest.raises(BadTokenError):
        verify(new, SUBJECT, ["key"], START)


def test_a_token_fits_into_a_query() -> None:
    """A token needs no escaping and does not contain its subject."""
    assert all(letter.isalnum() or letter in "-_." for letter in TOKEN)
    assert TASK_UUID not in TOKEN


def test_a_token_is_for_its_whole_subject() -> None:
    """A token for a longer subject is invalid for its beginning, wherever the dots are."""
    longer = sign("ann/task/1.5", ["key"], START)
    with pytest.raises(BadTokenError):
        verify(f"5.{longer}", "ann/task/1", ["key"], START)


@given(st.text(max_size=60))
def test_no_invented_token_is_valid(token: str) -> None:
    """Any invented token raises the one error."""
    with pytest.raises(BadTokenError):
        verify(token, SUBJECT, ["key"], START)


def test_a_signer_may_have_a_clock_ahead() -> None:
    """A webhook may arrive within a second, at a function whose clock is a little behind the signer's."""
    verify(TOKEN, SUBJECT, ["key"], START - 59_000)

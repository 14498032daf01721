"""The benchmark covers every function, judges goals correctly, and its page is complete."""

from pathlib import Path

import pytest

from scripts.cold_start.cases import CASES, functions, items
from scripts.cold_start.page import Row, table, verdict

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def test_every_function_has_a_case() -> None:
    """Every function of the template is measured."""
    assert [function.name for function in functions()] == list(CASES)


def test_the_tables_items_are_complete() -> None:
    """The table has a caller with a limit, its key in both places, and a task with one clip."""
    made = {(item["pk"]["S"].partition("#")[0], item["sk"]["S"].partition("#")[0]): item for item in items()}
    assert made.keys() == {
        ("caller", "caller"),
        ("key", "key"),
        ("caller", "key"),
        ("task", "request"),
        ("task", "clip"),
    }
    assert made["caller", "caller"]["monthlyLimit"] == {"N": "50000000"}


def test_the_page_has_every_function_and_a_verdict() -> None:
    """The page has each function's cold start and ends with the number of goals met."""
    page = PAGE.read_text()
    assert [name for name in CASES if f"| cold `{name}`, floor |" not in page] == []
    assert page.rstrip().splitlines()[-1].endswith(" goals met")


@pytest.mark.parametrize(
    ("value", "goal", "unit", "judgement"),
    [
        (1.25, 1.25, "", "met"),
        (1.2504, 1.25, "", "met"),
        (1.31, 1.25, "", "short by 0.06"),
        (21.5, 20, " MB", "short by 1.5 MB"),
        (5470, 0, " webhooks", "short by 5,470 webhooks"),
        (3, 3, " writes", "met"),
        (1.9, None, "", ""),
    ],
)
def test_a_row_is_judged(value: float, goal: float | None, unit: str, judgement: str) -> None:
    """A goal is met up to and including its value; otherwise the row has the difference."""
    row = Row(what="something", ours="1", value=value, goal=goal, unit=unit)
    assert table([row]).endswith(f"| {judgement} |")


def test_a_row_without_a_goal_is_not_counted() -> None:
    """The last line counts goals, not rows."""
    rows = [Row(what="a", ours="1", value=1, goal=1), Row(what="b", ours="2", value=2, goal=1), Row(what="c", ours="3")]
    assert verdict(rows) == "1 of 2 goals met"

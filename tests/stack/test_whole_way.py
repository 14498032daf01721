"""The measurement of a clip's whole way: a short run on the local stack, and its part of the page."""

import re
from pathlib import Path

import pytest

from scripts.cold_start.__main__ import PAGE
from scripts.cold_start.measure import Measured
from scripts.cold_start.page import WHOLE_WAY, Part
from scripts.whole_way.__main__ import section
from scripts.whole_way.delays import WAYS, measure, percentile
from tests.bursts.__main__ import CASES
from tests.bursts.model import BurstResult

ROOT = Path(__file__).parents[2]
SCALE = 0.1


@pytest.mark.batch
@pytest.mark.timeout(1300)
@pytest.mark.usefixtures("no_shared_stack")
def test_each_way_ends_in_an_event() -> None:
    """Clips of every way are stored and published. No rescue begins before Runware's time for an upload is over."""
    delays = measure(ROOT, clips=2, scale=SCALE)
    assert list(delays) == [way.title for way in WAYS]
    assert {len(seconds) for seconds in delays.values()} == {2}
    webhook, event, rescue, _poll = (seconds[0] for seconds in delays.values())
    assert min(min(seconds) for seconds in delays.values()) > 0
    assert webhook < rescue
    assert event >= 10 * SCALE
    assert rescue >= 60 * SCALE


@pytest.mark.parametrize(("percent", "seconds"), [(50, 2.0), (75, 3.0), (99, 4.0), (100, 4.0)])
def test_percentiles(percent: int, seconds: float) -> None:
    """The smallest time that covers the share, which is a measured one."""
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == seconds


def test_the_part_names_its_figures() -> None:
    """Each way, the webhooks and each burst have a row."""
    delays = {"webhook": [0.1, 0.2, 0.3], "poll": [30.0, 60.0, 90.0]}
    webhooks = {"ours": Measured([0.005]), "same": Measured([0.004])}
    text = section(delays, webhooks, {"40 at once": BurstResult(seconds=[1.0, 2.0], busy=1)}, "2026-11-28")
    assert "Measured on 2026-11-28, with 3 clips of each way." in " ".join(text.split())
    assert "| webhook | 0.20 s | 0.30 s |" in text
    assert "| poll | 60.00 s | 90.00 s |" in text
    assert "| webhooks a second of processor time | 200 | 250 |" in text
    assert "| 40 at once | 50.0 % | 2.00 s | 2.00 s |" in text


def test_the_page_has_every_way_and_burst() -> None:
    """The part in docs/benchmarks.md is that of the present ways and bursts."""
    part = WHOLE_WAY.find(PAGE.read_text())
    titles = re.findall(r"(?m)^\| (.+?) \| .* s \|$", part)
    assert titles == [*(way.title for way in WAYS), *(name for name, _, _ in CASES)]


def test_a_part_is_replaced_alone() -> None:
    """The text around the marks stays, also when the part is written again."""
    part = Part("<!-- a -->", "<!-- b -->")
    page = f"before\n\n{part.marked('old')}\n\nafter\n"
    replaced = part.replace(page, "new")
    assert replaced == f"before\n\n{part.marked('new')}\n\nafter\n"
    assert part.find(replaced) == "new"

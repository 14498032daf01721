"""The moving picture of `rushes watch` in the documentation."""

import re
import xml.etree.ElementTree as ElementTree

from scripts import watch_picture
from tests.conftest import ROOT

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_moves() -> None:
    """Each moment of the order is one picture of a loop, and without animation the last one is shown."""
    frames = list(watch_picture.frames())
    drawn = ElementTree.fromstring(watch_picture.animated(frames))
    shown = drawn.findall(f"{SVG}g")
    assert [each.get("visibility") for each in shown] == ["hidden"] * (len(frames) - 1) + ["visible"]
    assert len(set(frames)) == len(frames) == len(watch_picture.STEPS)
    for each in drawn.iter(f"{SVG}animate"):
        times = [float(time) for time in each.attrib["keyTimes"].split(";")]
        assert times[0] == 0
        assert times == sorted(times)
        assert len(times) == each.attrib["values"].count(";") + 1


def test_the_committed_picture_is_small_and_runs_no_script() -> None:
    """The file is under 1 MB and has animations but no script."""
    committed = (ROOT / "docs" / "watch.svg").read_text(encoding="utf-8")
    assert len(committed) < 1_000_000
    assert len(re.findall("<animate ", committed)) == len(watch_picture.STEPS)
    assert "<script" not in committed

"""A whole drop: a file into the bucket, its report and its clips out of it, with nobody's help."""

import io
from pathlib import Path

from rich.console import Console

from rushes_local import demo
from rushes_local.stack import Stack

ROOT = Path(__file__).parents[2]


def test_a_drop_becomes_clips_and_a_report(tmp_path: Path) -> None:
    """Through rules, queues and functions the good line's clip is stored and shown, and the bad line has its reason."""
    told = io.StringIO()
    with Stack(ROOT, time_scale=0.1, emulator_options={"small": True}) as stack:
        stack.create_key(demo.CALLER)
        demo.drop(stack, demo.DROP, tmp_path, 20.0, Console(file=told, width=200))
        assert len(stack.emulator.ledger()) == 1
    assert "unsupportedDuration" in told.getvalue()
    (clip,) = tmp_path.iterdir()
    assert f"object  videos/demo/drops/{clip.name}" in told.getvalue()

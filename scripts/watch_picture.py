"""Draws `rushes watch` at work into docs/watch.svg, an animated picture: python -m scripts.watch_picture.

The frames are the command's own table at moments of one order. Each is an SVG by rich, visible for its share of a loop.
"""

import io
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from rushes_cli.watching import TaskProgress, _live_table

PICTURE = Path(__file__).parents[1] / "docs" / "watch.svg"
WIDTH = 84  # columns
SECONDS = 1.2  # per frame
LAST_SECONDS = 4.0
CLIP_PRICE = 0.924

TASKS = (
    ("a lighthouse at dusk, slow aerial push-in", 1),
    ("macro shot of espresso pouring into a glass", 4),
    ("a fox trots through fresh snow", 2),
)
# The status of each clip in each frame: pending, running, stored or failed.
STEPS = (
    "p pppp pp",
    "r rrpp pp",
    "r rrrr rr",
    "s rrrr rr",
    "s rsrr rr",
    "s ssrr sr",
    "s sssr sr",
    "s sssr sf",
    "s ssss sf",
)
_STATUSES = {"p": "pending", "r": "running", "s": "stored", "f": "failed"}


def frames() -> Iterator[str]:
    """Each frame as an SVG document."""
    now = datetime.now(UTC)
    for number, step in enumerate(STEPS):
        progress = TaskProgress(service=None, task_uuids=())  # type: ignore[arg-type]
        elapsed = 9 * number + 2
        progress.started -= elapsed
        for index, ((prompt, _), clips) in enumerate(zip(TASKS, step.split(), strict=True)):
            task = _task(index, prompt, clips, now - timedelta(seconds=elapsed + 1))
            progress.latest[task["taskUUID"]] = task
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print("$ rushes watch", style="bold", highlight=False)
        console.print(_live_table(progress))
        yield console.export_svg(title="rushes watch", unique_id=f"f{number}")


def _task(index: int, prompt: str, clips: str, created: datetime) -> dict[str, Any]:
    statuses = [_STATUSES[each] for each in clips]
    is_open = bool({"pending", "running"} & set(statuses))
    whole = "running" if is_open else "succeeded" if set(statuses) == {"stored"} else "partial"
    return {
        "taskUUID": str(uuid.UUID(int=random.Random(index).getrandbits(128), version=4)),
        "status": whole,
        "createdAt": created.isoformat(),
        "request": {"positivePrompt": prompt},
        "cost": CLIP_PRICE * sum(each != "failed" for each in statuses),
        "clips": [{"clip": number, "status": status} for number, status in enumerate(statuses)],
    }


def animated(pictures: Sequence[str]) -> str:
    """One SVG in which the pictures follow each other in a loop. Without animation, the last one is shown."""
    total = SECONDS * (len(pictures) - 1) + LAST_SECONDS
    views = [picture.partition('viewBox="')[2].partition('"')[0] for picture in pictures]
    view = max(views, key=lambda text: float(text.split()[3]))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}">']
    for number, picture in enumerate(pictures):
        is_last = number == len(pictures) - 1
        changes = [(0.0, "hidden"), (SECONDS * number / total, "visible"), (SECONDS * (number + 1) / total, "hidden")]
        changes = changes[1:] if number == 0 else changes[:-1] if is_last else changes
        times, values = (";".join(map(str, each)) for each in zip(*changes, strict=True))
        parts.append(
            f'<g visibility="{"visible" if is_last else "hidden"}"><animate attributeName="visibility" '
            f'calcMode="discrete" repeatCount="indefinite" dur="{total}s" keyTimes="{times}" values="{values}"/>'
        )
        parts += [picture.rstrip(), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(animated(list(frames())), encoding="utf-8")

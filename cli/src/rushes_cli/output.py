"""How things are shown: money, age, status, sizes, tables, and the JSON that scripts read.

What a caller or Runware wrote may hold anything, terminal control sequences too: `plain` takes those out, and nothing
of it is ever read as markup. On a terminal tables are drawn; anywhere else they are lines of tab-separated columns with
a head, so that no column is cut to fit a screen that is not there.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

_STYLES = {
    "pending": "yellow",
    "running": "cyan",
    "rendered": "cyan",
    "stored": "green",
    "succeeded": "green",
    "partial": "magenta",
    "failed": "red",
    "review": "bold magenta",
}
_NUMBERS = ("cost", "price", "size", "tasks", "clips")
_WIDE = 80  # columns of a terminal
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Screen:
    """Standard output and standard error, for people or, with `as_json`, for scripts."""

    as_json: bool = False
    out: Console = field(default_factory=Console)
    err: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def is_live(self) -> bool:
        """Whether somebody is looking at a terminal that can be drawn on."""
        return self.out.is_terminal and not self.as_json

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line of the result, for people only."""
        if not self.as_json:
            self.out.print(Text(plain(text), style or ""), soft_wrap=True)

    def note(self, text: str, style: str | None = None) -> None:
        """A line beside the result, on standard error."""
        self.err.print(Text(plain(text), style or ""), soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line beside the result that should be read."""
        self.note(f"rushes: {text}", "yellow")

    def give(self, value: object) -> None:
        """The result, for scripts only: JSON, on one line where it is not a terminal."""
        if self.as_json:
            indent = 2 if self.out.is_terminal else None
            self.out.file.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
            self.out.file.flush()

    def row(self, cells: Sequence[str]) -> None:
        """A row of texts with tabs between them."""
        self.out.file.write("\t".join(map(plain, cells)) + "\n")
        self.out.file.flush()

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows of texts under a head, for people only."""
        if self.as_json:
            return
        if not self.out.is_terminal:
            for row in (head, *rows):
                self.row(row)
            return
        self.out.print(drawn(head, rows, self.out.width))


def drawn(head: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Table:
    """A table for a terminal; a column headed `status` is coloured, one headed with a number is set to the right.

    Names that people copy are never cut, and a taskUUID stays whole where there is room for it at all.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in head:
        table.add_column(
            name,
            justify="right" if name in _NUMBERS else "left",
            overflow="fold" if name in ("task", "object") else "ellipsis",
            no_wrap=name == "task" and width >= _WIDE,
        )
    for row in rows:
        cells = [
            Text(plain(cell), _style(name, cell), no_wrap=True if name == "prompt" else None)
            for name, cell in zip(head, row, strict=True)
        ]
        table.add_row(*cells)
    return table


def _style(name: str, cell: str) -> str:
    return _STYLES.get(cell.partition(" ")[0], "") if name == "status" else ""


def plain(text: str, *, lines: bool = False) -> str:
    """The text without what steers a terminal or turns its reading direction; on one line, unless `lines`."""
    kept = "\n" if lines else ""
    return "".join(char if char == kept else " " if char in "\n\t" else _shown(char) for char in text)


def _shown(char: str) -> str:
    return "\ufffd" if _steers(char) else char


def _steers(char: str) -> bool:
    return (
        unicodedata.category(char) in ("Cc", "Cs") or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def short(text: str, most: int) -> str:
    """The text, cut with an ellipsis to at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def micros(dollars: object) -> int:
    """An amount in dollars from JSON as integer micro-dollars; 0 for what is none."""
    return round(dollars * 1_000_000) if isinstance(dollars, int | float) else 0


def money(micro_dollars: int) -> str:
    """`$1.848`."""
    sign = "-" if micro_dollars < 0 else ""
    return f"{sign}${abs(micro_dollars) // 1_000_000:,}.{abs(micro_dollars) % 1_000_000 // 1000:03d}"


def moment(text: object) -> datetime | None:
    """A time of the service's JSON."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def iso(at: int | None) -> str | None:
    """Milliseconds since the epoch as the service writes times."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(text: object) -> str:
    """A time of the service's JSON for people, in UTC as everything here."""
    at = moment(text)
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "-"


def age(text: object, now: datetime | None = None) -> str:
    """How long ago a time of the service's JSON was: `4 min`."""
    at = moment(text)
    if at is None:
        return "-"
    return span(max(0.0, ((now or datetime.now(UTC)) - at).total_seconds()))


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "0 s"


def size(count: object) -> str:
    """A number of bytes for people."""
    if not isinstance(count, int):
        return "-"
    for unit, scale in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def prompt_of(task: Json) -> str:
    """What a task asked for, in the caller's words."""
    request = task.get("request") or {}
    return str(request.get("positivePrompt") or ("(no longer kept)" if not request else "(no prompt)"))


def clip_counts(task: Json) -> str:
    """`2/3`: how many clips of a task are stored."""
    clips = task.get("clips", [])
    return f"{sum(clip.get('status') == 'stored' for clip in clips)}/{len(clips)}"

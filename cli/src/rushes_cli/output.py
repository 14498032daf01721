"""Output for people and scripts: formats for money, ages, statuses and sizes, tables, and JSON.

Texts of callers and of Runware may contain terminal control sequences: `plain` removes them, and no such text is
interpreted as markup. The layout depends on the stream, the colours also on the environment. Tables are drawn on a
terminal only. Elsewhere they are tab-separated lines with a header, in which no column is truncated, times are in ISO
8601, and sizes are in bytes.
"""

import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from rich.style import Style
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
    "erased": "dim",
}
_NUMBERS = ("cost", "price", "size", "tasks", "clips")
_SHORT_ID = 8  # characters: the first group of a UUID
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Screen:
    """Standard output and standard error, for people, or with `as_json` for scripts."""

    as_json: bool = False
    out: Console = field(default_factory=lambda: console(sys.stdout, os.environ))
    err: Console = field(default_factory=lambda: console(sys.stderr, os.environ, stderr=True))

    @property
    def is_live(self) -> bool:
        """True if standard output is a terminal and the output is for people."""
        return self.out.is_terminal and not self.as_json

    def print(self, text: str = "", style: str | None = None) -> None:
        """Prints a line of the result on standard output; not with `as_json`."""
        if not self.as_json:
            self.out.print(Text(plain(text), style or ""), soft_wrap=True)

    def info(self, text: str, style: str | None = None) -> None:
        """Prints a message on standard error."""
        self.err.print(Text(plain(text), style or ""), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a warning on standard error."""
        self.info(f"rushes: {text}", "yellow")

    def print_json(self, value: object) -> None:
        """Prints a result as JSON on one line, with `as_json` only."""
        if self.as_json:
            self.out.file.write(_json_line(value, self.out.encoding) + "\n")
            self.out.file.flush()

    def row(self, cells: Sequence[str], head: Sequence[str] = ()) -> None:
        """Prints a tab-separated row; the column `status` of `head` is coloured if colours are forced."""
        texts = [plain(cell) for cell in cells]
        if self.out.color_system and head:
            texts = [_coloured(name, text) for name, text in zip(head, texts, strict=True)]
        self.out.file.write("\t".join(texts) + "\n")
        self.out.file.flush()

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Prints a table; not with `as_json`."""
        if self.as_json:
            return
        if not self.out.is_terminal:
            for row in (head, *rows):
                self.row(row, head)
            return
        self.out.print(terminal_table(head, rows))

    def tasks(self, tasks: Iterable[Json]) -> None:
        """Prints a table of tasks, each with its prompt first; not with `as_json`."""
        if self.out.is_terminal:
            self.table(TASK_COLUMNS, map(task_row, tasks))
        else:
            self.table(
                ("prompt", "task", "status", "clips", "cost", "created"),
                [
                    (
                        prompt_of(task),
                        str(task["taskUUID"]),
                        str(task.get("status")),
                        clip_counts(task),
                        money(micros(task.get("cost"))),
                        str(task.get("createdAt", "-")),
                    )
                    for task in tasks
                ],
            )

    def id(self, task_uuid: object) -> str:
        """A task's short id for a terminal, elsewhere the whole taskUUID."""
        return short_id(task_uuid) if self.out.is_terminal else str(task_uuid)

    def size(self, count: object) -> str:
        """A number of bytes: such as `4.2 MB` on a terminal, elsewhere in digits."""
        return size(count) if self.out.is_terminal or not isinstance(count, int) else str(count)

    def time_of(self, text: object) -> str:
        """A time of the service's JSON: with its age on a terminal, elsewhere unchanged."""
        return f"{utc_time(text)} ({age(text)} ago)" if self.out.is_terminal else str(text)

    def day_of(self, text: object) -> str:
        """A time of the service's JSON: its day on a terminal, elsewhere unchanged."""
        return str(text)[: len("yyyy-mm-dd")] if self.out.is_terminal else str(text)


def console(stream: TextIO | None, environment: Mapping[str, str], *, stderr: bool = False) -> Console:
    """A console for a stream: only a terminal has tables and progress, with FORCE_COLOR too."""
    is_terminal = stream is not None and stream.isatty()
    system: Any = ("auto" if is_terminal else "standard") if wants_colour(environment, is_terminal) else None
    return Console(file=stream, stderr=stderr, force_terminal=is_terminal, color_system=system)


def wants_colour(environment: Mapping[str, str], is_terminal: bool) -> bool:
    """True for colours, by the first of NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE and CLICOLOR that is set."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return is_terminal and environment.get("CLICOLOR") != "0"


def prepare_streams(environment: MutableMapping[str, str]) -> None:
    """Makes output possible in every encoding, and typer's help follow the same variables as other output.

    A character that the encoding lacks is replaced on a terminal, whose columns stay aligned, and escaped elsewhere.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream.isatty() else "backslashreplace")
    if not wants_colour(environment, True):
        environment["NO_COLOR"] = "1"
        environment.pop("FORCE_COLOR", None)
    elif wants_colour(environment, False):
        environment["FORCE_COLOR"] = "1"


def _json_line(value: object, encoding: str) -> str:
    """JSON on one line, escaped if the encoding, or any encoding, lacks one of its characters."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeError:
        return json.dumps(value)
    return text


def _coloured(name: str, text: str) -> str:
    style = _style(name, text)
    return Style.parse(style).render(text) if style else text


TASK_COLUMNS = ("prompt", "task", "status", "cost", "age")


def task_row(task: Json) -> tuple[str, ...]:
    """The row of a task in a terminal's table, with the counts of its clips if there are several."""
    counts = f" {clip_counts(task)}" if len(task.get("clips", [])) > 1 else ""
    return (
        prompt_of(task),
        short_id(task["taskUUID"]),
        f"{task.get('status')}{counts}",
        money(micros(task.get("cost"))),
        age(task.get("createdAt")),
    )


def terminal_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for a terminal; the column `status` is coloured, number columns are right-aligned.

    A prompt is cut to the width of the terminal. Names that people copy are never cut.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in head:
        table.add_column(
            name,
            justify="right" if name in _NUMBERS else "left",
            overflow="fold" if name == "object" else "ellipsis",
            no_wrap=name == "task",
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
    """The text without control and bidirectional characters; on one line, unless `lines`."""
    kept = "\n" if lines else ""
    return "".join(char if char == kept else " " if char in "\n\t" else _printable(char) for char in text)


def _printable(char: str) -> str:
    return "\ufffd" if _is_control(char) else char


def _is_control(char: str) -> bool:
    return (
        unicodedata.category(char) in ("Cc", "Cs") or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def shorten(text: str, length: int) -> str:
    """The text, truncated with an ellipsis to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def micros(dollars: object) -> int:
    """An amount in dollars from JSON as integer micro-dollars; 0 if it is not a number."""
    return round(dollars * 1_000_000) if isinstance(dollars, int | float) else 0


def money(micro_dollars: int) -> str:
    """An amount in micro-dollars for people, such as `$1.848`."""
    sign = "-" if micro_dollars < 0 else ""
    return f"{sign}${abs(micro_dollars) // 1_000_000:,}.{abs(micro_dollars) % 1_000_000 // 1000:03d}"


def parse_time(text: object) -> datetime | None:
    """A time of the service's JSON; None if it is not one."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def iso(at: int | None) -> str | None:
    """Milliseconds since the epoch in the service's time format."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_time(text: object) -> str:
    """A time of the service's JSON for people, in UTC."""
    at = parse_time(text)
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "-"


def age(text: object, now: datetime | None = None) -> str:
    """The time since a time of the service's JSON, such as `4 min`."""
    at = parse_time(text)
    if at is None:
        return "-"
    return duration(max(0.0, ((now or datetime.now(UTC)) - at).total_seconds()))


def duration(seconds: float) -> str:
    """A duration in its largest unit, such as `2 h`."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "0 s"


def size(count: object) -> str:
    """A number of bytes for people, such as `4.2 MB`."""
    if not isinstance(count, int):
        return "-"
    for unit, scale in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def short_id(task_uuid: object) -> str:
    """The first characters of a taskUUID, by which every verb finds the task."""
    return str(task_uuid)[:_SHORT_ID]


def prompt_of(task: Json) -> str:
    """A task's prompt, or a placeholder in parentheses, which has the time of an erasure."""
    if task.get("erasedAt"):
        return f"(erased {utc_time(task['erasedAt'])})"
    request = task.get("request") or {}
    return str(request.get("positivePrompt") or ("(no longer stored)" if not request else "(no prompt)"))


def clip_counts(task: Json) -> str:
    """The stored and all clips of a task, such as `2/3`."""
    clips = task.get("clips", [])
    return f"{sum(clip.get('status') == 'stored' for clip in clips)}/{len(clips)}"

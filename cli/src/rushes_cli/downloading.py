"""`download`: fetches clips into files, several at once. Interrupted downloads are resumed and every file is verified.

A clip's link names one object version, so an earlier partial download has the same bytes. A complete download is
compared with the recorded size and with the manifest's SHA-256 before the file gets its name.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpx
import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from rushes_cli import completing
from rushes_cli.api_client import ApiClient, http_client
from rushes_cli.exits import CommandError, Exit, UsageError
from rushes_cli.file_names import FileName, check_template, file_names
from rushes_cli.options import (
    TASK_HELP,
    AsJson,
    Day,
    Profile,
    Since,
    Status,
    Tag,
    filters,
    newest,
    require_task,
    session,
)
from rushes_cli.output import Screen, plain, prompt_of, short_id, shorten, size

Json = dict[str, Any]
Advance: TypeAlias = Callable[[int, int | None], None]
"""A progress callback with the bytes received and the total; the total may be None."""

_ATTEMPTS = 4
_CHUNK = 256 * 1024
_BAR_COLUMNS = 60  # of a progress bar with its id and numbers, beside the prompt
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """The result for one clip. `outcome` is downloaded, present or failed; `size` is in bytes."""

    task_uuid: str
    clip: int
    file: str
    outcome: str
    size: int | None = None
    sha256: str | None = None
    verified: bool = False  # against the manifest's SHA-256; without a manifest only the size is compared
    problem: str | None = None


def download(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK",
            help=f"Each task's {TASK_HELP}. Without one, all matching tasks.",
            show_default=False,
            autocompletion=completing.recent_tasks,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the files.", show_default="the current one")
    ] = Path(),
    name: Annotated[
        str | None,
        typer.Option(help="The files' names, such as {tag.photo}-{n}.", show_default="{taskUUID}-{n}"),
    ] = None,
    status: Status = None,
    day: Day = None,
    since: Since = None,
    tag: Tag = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="Without a TASK: the maximum number of tasks.")
    ] = 20,
    every: Annotated[bool, typer.Option("--all", help="Without a TASK: all matching tasks, without a limit.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="The number of simultaneous downloads.")] = 4,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Download stored clips into files.

    --name names the files by these fields: {taskUUID} and {id}, its first eight characters; {n}, the clip's number from
    0, and {clipUUID}; {date} of the order; {prompt}, its first 60 characters; {model}, {destination} and {seed};
    {tag.NAME}, the value of a tag. A field without a value is "none". Characters that are unsafe in a file's name
    become _, and the suffix follows the clip. Of two clips with the same name, the one ordered later gets {id} and {n}
    behind its name; so does a clip whose name a file with other content has already.

    Repeat the command to resume after an interruption: complete files are kept, partial ones are continued. A file gets
    its name only if its size, and the SHA-256 in the clip's manifest, are correct.

    Ends with 1 if no clip was found, a clip of a TASK is not stored, or a download failed.

    --json prints {"files": [{"taskUUID", "clip", "file", "outcome": downloaded|present|failed, "size", "sha256",
    "verified", "problem"}]}.
    """
    with session(profile, as_json=as_json) as (screen, service):
        if name is not None:
            check_template(name)
        if tasks:
            by_uuid = {task["taskUUID"]: task for task in (require_task(service, each) for each in tasks)}
            found = list(by_uuid.values())
        else:
            found = list(newest(service, filters(status, day, tag), since, None if every else limit))
        done = fetch(screen, service, found, out, parallel, name)
        screen.print_json({"files": [_as_json(each) for each in done]})
        prompts = {str(task["taskUUID"]): prompt_of(task) for task in found}
        for each in done:
            _print_result(screen, each, prompts[each.task_uuid])
        missing = sum(len(task.get("clips", [])) for task in found) - len(done)
        if not found:
            screen.info("No matching tasks.")
        if missing:
            screen.info(f"{missing} clip{' is' if missing == 1 else 's are'} not stored and cannot be downloaded.")
        if not done or (tasks and missing) or any(each.outcome == "failed" for each in done):
            raise typer.Exit(Exit.FAILED)


def fetch(
    screen: Screen, service: ApiClient, tasks: Sequence[Json], out: Path, parallel: int, template: str | None = None
) -> list[DownloadResult]:
    """Downloads the stored clips of these tasks into `out`; returns a result for each."""
    stored = [
        (task, clip)
        for task in tasks
        for clip in task.get("clips", [])
        if clip.get("status") == "stored" and clip.get("videoURL")
    ]
    links = [str(url) for _, clip in stored for url in (clip["videoURL"], clip.get("manifestURL")) if url]
    _prepare(out)
    with (
        _progress(screen) as bar,
        ThreadPoolExecutor(parallel) as executor,
        http_client(service.target, links, timeout=_TIMEOUT) as http,
    ):
        downloads = [
            ClipDownload(service, http, task, clip, out, name, _advance(bar, task, clip, screen.err.width))
            for (task, clip), name in zip(stored, file_names(template, stored), strict=True)
        ]
        return list(executor.map(ClipDownload.run, downloads))


class ClipDownload:
    """The download of one clip into one file."""

    def __init__(
        self,
        service: ApiClient,
        http: httpx.Client,
        task: Json,
        clip: Json,
        out: Path,
        name: FileName,
        advance: Advance,
    ) -> None:
        self._service, self._http, self._clip, self._advance = service, http, clip, advance
        self._task_uuid, self._number = str(task["taskUUID"]), int(clip["clip"])
        self._file, self._unique = out / name.plain, out / name.unique

    @property
    def _part(self) -> Path:
        version = re.sub(r"[^A-Za-z0-9]", "", str(self._clip.get("versionId", "")))[:16]
        return self._file.with_name(f".{self._file.name}.{version}.part")

    def run(self) -> DownloadResult:
        """Downloads the clip with a limited number of retries. A failure is returned as a result, not raised."""
        result = self._outcome()
        if result.outcome == "failed":
            self._advance(self._bytes_so_far(), None)
        else:
            self._advance(result.size or 0, result.size or 0)
        return result

    def _outcome(self) -> DownloadResult:
        try:
            return self._run()
        except _DownloadError as error:
            return DownloadResult(self._task_uuid, self._number, str(self._file), "failed", problem=str(error))
        except OSError as error:
            reason = f"{self._file}: {error.strerror}"
            return DownloadResult(self._task_uuid, self._number, str(self._file), "failed", problem=reason)

    def _run(self) -> DownloadResult:
        manifest = self._manifest()
        expected_size, expected_hash = _expected(self._clip, manifest)
        for candidate in dict.fromkeys((self._file, self._unique)):
            self._file = candidate
            if not candidate.exists():
                break
            if _matches(candidate, expected_size, expected_hash):
                return self._result("present", expected_hash)
        for attempt in range(_ATTEMPTS):
            problem = self._fetch(expected_size)
            if not problem and _matches(self._part, expected_size, expected_hash):
                self._part.replace(self._file)
                return self._result("downloaded", expected_hash)
            if not problem:
                # Complete but corrupt: the partial file had other bytes, or the transfer changed them.
                self._part.unlink(missing_ok=True)
                problem = "the size or the SHA-256 differs from the record"
            if attempt + 1 < _ATTEMPTS:
                self._renew()
        raise _DownloadError(problem)

    def _bytes_so_far(self) -> int:
        """The size of the partial file in bytes."""
        try:
            return self._part.stat().st_size
        except OSError:
            return 0

    def _result(self, outcome: str, expected_hash: str | None) -> DownloadResult:
        return DownloadResult(
            self._task_uuid,
            self._number,
            str(self._file),
            outcome,
            size=self._file.stat().st_size,
            sha256=expected_hash or sha256(self._file),
            verified=expected_hash is not None,
        )

    def _fetch(self, expected_size: int | None) -> str:
        """Appends the missing bytes to the partial file; returns the problem, or an empty text."""
        have = self._bytes_so_far()
        if expected_size is not None and have > expected_size:
            self._part.unlink()
            have = 0
        if have and have == expected_size:
            return ""
        self._advance(have, expected_size)
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with self._http.stream("GET", self._clip["videoURL"], headers=headers) as response:
                if response.status_code == 403:
                    return "the link has expired or was refused"
                if response.status_code not in (200, 206):
                    return f"S3 responded with status {response.status_code}"
                have = have if response.status_code == 206 else 0
                with self._part.open("ab" if have else "wb") as file:
                    for piece in response.iter_bytes(_CHUNK):
                        file.write(piece)
                        have += len(piece)
                        self._advance(have, expected_size)
        except httpx.HTTPError:
            return "the connection was lost"
        return "" if expected_size in (None, have) else "the connection was closed early"

    def _manifest(self) -> Json | None:
        url = self._clip.get("manifestURL")
        if not url:
            return None
        with suppress(httpx.HTTPError, ValueError):
            response = self._http.get(url)
            found = response.json() if response.status_code == 200 else None
            if isinstance(found, dict):
                return found
        return None

    def _renew(self) -> None:
        """Requests new links, since the old ones may have expired."""
        with suppress(CommandError):
            task = self._service.task(self._task_uuid) or {}
            for clip in task.get("clips", []):
                if clip.get("clip") == self._number and clip.get("versionId") == self._clip.get("versionId"):
                    self._clip = clip


class _DownloadError(Exception):
    """One clip could not be downloaded; the text is the reason."""


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected(clip: Json, manifest: Json | None) -> tuple[int | None, str | None]:
    """The recorded size and SHA-256. A manifest of another object version is ignored."""
    size = clip.get("size") if isinstance(clip.get("size"), int) else None
    if manifest is None or manifest.get("versionId") != clip.get("versionId"):
        return size, None
    sha256 = manifest.get("sha256")
    return size or manifest.get("size"), sha256.lower() if isinstance(sha256, str) else None


def _matches(path: Path, expected_size: int | None, expected_hash: str | None) -> bool:
    if expected_size is not None and path.stat().st_size != expected_size:
        return False
    if expected_hash is None:
        return expected_size is not None or path.stat().st_size > 0
    return sha256(path) == expected_hash


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from None


def _progress(screen: Screen) -> Any:
    if not (screen.is_live and screen.err.is_terminal):
        return nullcontext()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=screen.err)


def _advance(bar: Progress | None, task: Json, clip: Json, width: int) -> Advance:
    if bar is None:
        return lambda _done, _total: None
    total = clip.get("size")
    prompt = shorten(plain(prompt_of(task)), min(max(width - _BAR_COLUMNS, 8), 40))
    name = f"{prompt}  {short_id(task['taskUUID'])}  {clip['clip']}"
    row = bar.add_task(escape(name), total=total if isinstance(total, int) else None)
    return lambda done, total: bar.update(row, completed=done, total=total)


def _as_json(result: DownloadResult) -> Json:
    return {"taskUUID" if name == "task_uuid" else name: value for name, value in asdict(result).items()}


def _print_result(screen: Screen, result: DownloadResult, prompt: str) -> None:
    if result.outcome == "failed":
        name = f"{shorten(plain(prompt), 40)} ({screen.id(result.task_uuid)}, clip {result.clip})"
        screen.info(f"{name}: {result.problem}", "red")
        return
    caveat = "" if result.verified else "; no manifest yet, so only the size was compared"
    line = f"{result.file}: {result.outcome}, {size(result.size)}{caveat}"
    if screen.is_live:
        screen.print(f"{shorten(plain(prompt), 40)}  {line}")
        return
    screen.print(result.file)
    screen.info(line, "dim")

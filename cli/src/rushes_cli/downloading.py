"""`download`: clips into files, several at once, taken up where they stopped, and believed only when they match.

The link of a clip names one version of its object, so a part that was fetched before is a part of the same bytes. What
is complete is compared with the size on record and with the manifest's SHA-256 before the file gets its name.
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
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from rushes_cli.api_client import ApiClient, client
from rushes_cli.exits import CommandError, Exit, UsageError
from rushes_cli.options import AsJson, Day, Profile, Status, Tag, filters, session, task_uuid
from rushes_cli.output import Screen, size

Json = dict[str, Any]
Advance: TypeAlias = Callable[[int, int | None], None]
"""Told of every piece that arrived: how many bytes there are now, and of how many, if that is known."""

_TRIES = 4
_CHUNK = 256 * 1024
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What came of one clip. `outcome` is downloaded, present or failed."""

    task_uuid: str
    clip: int
    file: str
    outcome: str
    size: int | None = None
    sha256: str | None = None
    verified: bool = False  # against the manifest's hash; without a manifest only the size could be compared
    problem: str | None = None


def download(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", help="Their taskUUIDs; otherwise all that match.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the files.", show_default="the current one")
    ] = Path(),
    status: Status = None,
    day: Day = None,
    tag: Tag = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Without a TASK: so many tasks at most.")] = 20,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="So many at once.")] = 4,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Fetch stored clips into files that are named by their taskUUID and number.

    Give the same command again to go on after an interruption: whole files are left alone, parts are completed. A file
    gets its name only when its size and the SHA-256 in the clip's manifest are right.

    Ends with 1 when nothing was found, when a clip of a TASK is not stored, or when one could not be fetched.

    --json prints {"files": [{"taskUUID", "clip", "file", "outcome": downloaded|present|failed, "size", "sha256",
    "verified", "problem"}]}.
    """
    with session(profile, as_json=as_json) as (screen, service):
        if tasks:
            found = [service.known(task_uuid(each)) for each in tasks]
        else:
            found = list(service.tasks(filters(status, day, tag), limit))
        done = fetch(screen, service, found, out, parallel)
        screen.give({"files": [_shown(each) for each in done]})
        for each in done:
            _tell(screen, each)
        missing = sum(len(task.get("clips", [])) for task in found) - len(done)
        if not found:
            screen.note("There are no such tasks.")
        if missing:
            screen.note(f"{missing} clip{' is' if missing == 1 else 's are'} not there to be fetched.")
        if not done or (tasks and missing) or any(each.outcome == "failed" for each in done):
            raise typer.Exit(Exit.FAILED)


def fetch(screen: Screen, service: ApiClient, tasks: Sequence[Json], out: Path, parallel: int) -> list[DownloadResult]:
    """Fetches the stored clips of these tasks into `out`; a result for each."""
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
        client(service.target, links, timeout=_TIMEOUT) as http,
    ):
        downloads = [ClipDownload(service, http, task, clip, out, _advance(bar, clip)) for task, clip in stored]
        return list(executor.map(ClipDownload.run, downloads))


class ClipDownload:
    """One clip on its way into one file."""

    def __init__(
        self, service: ApiClient, http: httpx.Client, task: Json, clip: Json, out: Path, advance: Advance
    ) -> None:
        self._service, self._http, self._clip, self._advance = service, http, clip, advance
        self._task_uuid, self._number = str(task["taskUUID"]), int(clip["clip"])
        self._file = out / file_name(self._task_uuid, clip)
        version = re.sub(r"[^A-Za-z0-9]", "", str(clip.get("versionId", "")))[:16]
        self._part = self._file.with_name(f".{self._file.name}.{version}.part")

    def run(self) -> DownloadResult:
        """Fetches it, whatever that takes within bounds; never raises for what goes wrong with one clip."""
        try:
            return self._run()
        except _Problem as problem:
            return DownloadResult(self._task_uuid, self._number, str(self._file), "failed", problem=str(problem))
        except OSError as error:
            reason = f"{self._file}: {error.strerror}"
            return DownloadResult(self._task_uuid, self._number, str(self._file), "failed", problem=reason)

    def _run(self) -> DownloadResult:
        manifest = self._manifest()
        wanted_size, wanted_hash = _expected(self._clip, manifest)
        if self._file.exists() and _fits(self._file, wanted_size, wanted_hash):
            return self._fetched("present", wanted_hash)
        for attempt in range(_TRIES):
            trouble = self._fetch(wanted_size)
            if not trouble and _fits(self._part, wanted_size, wanted_hash):
                self._part.replace(self._file)
                return self._fetched("downloaded", wanted_hash)
            if not trouble:
                # Complete and wrong: a part of other bytes was under it, or they were changed on the way.
                self._part.unlink(missing_ok=True)
                trouble = "the bytes are not those on record"
            if attempt + 1 < _TRIES:
                self._renew()
        raise _Problem(trouble)

    def _fetched(self, outcome: str, wanted_hash: str | None) -> DownloadResult:
        return DownloadResult(
            self._task_uuid,
            self._number,
            str(self._file),
            outcome,
            size=self._file.stat().st_size,
            sha256=wanted_hash or sha256(self._file),
            verified=wanted_hash is not None,
        )

    def _fetch(self, wanted_size: int | None) -> str:
        """Appends what is missing to the part; returns what went wrong, or nothing."""
        have = self._part.stat().st_size if self._part.exists() else 0
        if wanted_size is not None and have > wanted_size:
            self._part.unlink()
            have = 0
        if have and have == wanted_size:
            return ""
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with self._http.stream("GET", self._clip["videoURL"], headers=headers) as response:
                if response.status_code == 403:
                    return "the link has expired or is refused"
                if response.status_code not in (200, 206):
                    return f"the bucket answered {response.status_code}"
                have = have if response.status_code == 206 else 0
                with self._part.open("ab" if have else "wb") as file:
                    for piece in response.iter_bytes(_CHUNK):
                        file.write(piece)
                        have += len(piece)
                        self._advance(have, wanted_size)
        except httpx.HTTPError:
            return "the connection was lost"
        return "" if wanted_size in (None, have) else "the connection ended early"

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
        """Asks for new links: the old ones may have expired."""
        with suppress(CommandError):
            task = self._service.task(self._task_uuid) or {}
            for clip in task.get("clips", []):
                if clip.get("clip") == self._number and clip.get("versionId") == self._clip.get("versionId"):
                    self._clip = clip


class _Problem(Exception):
    """Why one clip was not fetched."""


def file_name(task_uuid: str, clip: Json) -> str:
    """What a clip's file is called. Only the suffix is taken from the service, and only if it is one.

    It is the content's where that is of another kind than was ordered; MP4 and MOV are as good as one.
    """
    suffix = str(clip.get("objectKey", "")).rpartition(".")[2]
    content = str(clip.get("container") or suffix)
    suffix = content if "webm" in (suffix, content) else suffix
    if suffix not in ("mp4", "webm", "mov") or not _NAME.fullmatch(task_uuid):
        raise UsageError("the service names a file that cannot be one")
    return f"{task_uuid}-{int(clip['clip'])}.{suffix}"


def sha256(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected(clip: Json, manifest: Json | None) -> tuple[int | None, str | None]:
    """Size and hash as on record; a manifest of another version says nothing about this one."""
    size = clip.get("size") if isinstance(clip.get("size"), int) else None
    if manifest is None or manifest.get("versionId") != clip.get("versionId"):
        return size, None
    sha256 = manifest.get("sha256")
    return size or manifest.get("size"), sha256.lower() if isinstance(sha256, str) else None


def _fits(path: Path, wanted_size: int | None, wanted_hash: str | None) -> bool:
    if wanted_size is not None and path.stat().st_size != wanted_size:
        return False
    if wanted_hash is None:
        return wanted_size is not None or path.stat().st_size > 0
    return sha256(path) == wanted_hash


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from None


def _progress(screen: Screen) -> Any:
    if not screen.is_live:
        return nullcontext()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=screen.err)


def _advance(bar: Progress | None, clip: Json) -> Advance:
    if bar is None:
        return lambda _done, _total: None
    total = clip.get("size")
    name = str(clip.get("objectKey", "")).rpartition("/")[2]
    row = bar.add_task(name, total=total if isinstance(total, int) else None)
    return lambda done, total: bar.update(row, completed=done, total=total)


def _shown(each: DownloadResult) -> Json:
    return {"taskUUID" if name == "task_uuid" else name: value for name, value in asdict(each).items()}


def _tell(screen: Screen, each: DownloadResult) -> None:
    if each.outcome == "failed":
        screen.note(f"{each.task_uuid}-{each.clip}: {each.problem}", "red")
        return
    doubts = "" if each.verified else "; it has no manifest yet, so only the size was compared"
    told = f"{each.file}: {each.outcome}, {size(each.size)}{doubts}"
    if screen.is_live:
        screen.say(told)
        return
    screen.say(each.file)
    screen.note(told, "dim")

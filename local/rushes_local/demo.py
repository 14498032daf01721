"""`rushes demo`: one order over HTTP and one request file, each from order to downloaded clip.

Uses the same client code as `rushes submit --watch` and `rushes download`.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import av
import typer
from PIL import Image, ImageOps
from rich.console import Console

from rushes_cli.api_client import ApiClient, refusal
from rushes_cli.downloading import DownloadResult, fetch
from rushes_cli.output import Screen, micros, money, size
from rushes_cli.profiles import Target
from rushes_cli.watching import follow
from rushes_local.stack import Stack

CALLER = "demo"

# Nothing is paid for on this machine, so the limit is higher than any demonstration needs.
LIMIT_USD = 1000
EXAMPLE = Path(__file__).with_name("example.json")
EXAMPLE_FILE = Path(__file__).with_name("example.jsonl")  # one valid line and one invalid line

PICTURE = "demo.png"

_SHEET_SIZE = (640, 640)
_POLL_SECONDS = 0.2
_CONCURRENT_DOWNLOADS = 4


class DemoError(Exception):
    """The order failed, or a clip was not stored. The text is shown to the user."""


def read_request(path: Path) -> list[Any]:
    """The tasks of a JSON file with one task or an array; a missing `taskUUID` is filled in.

    Raises DemoError if the file cannot be read or is not JSON. The service validates the tasks.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DemoError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DemoError(f"{path} is not JSON: {error}") from None
    tasks = content if isinstance(content, list) else [content]
    for task in tasks:
        if isinstance(task, dict):
            task.setdefault("taskUUID", str(uuid.uuid4()))
    return tasks


def contact_sheet(clips: Sequence[Path], path: Path) -> Path:
    """Draw the first picture of each clip, side by side, into a PNG file; returns its path."""
    pictures = []
    for clip in clips:
        with av.open(str(clip)) as container:
            first = next(container.decode(video=0)).to_image()  # type: ignore[no-untyped-call]
            pictures.append(ImageOps.contain(first, _SHEET_SIZE))
    sheet = Image.new("RGB", (sum(each.width for each in pictures), max(each.height for each in pictures)))
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    sheet.save(path)
    return path


class Demo:
    """A caller on a running stack, with its own key; waits at most `timeout` seconds and downloads into `out`."""

    def __init__(self, stack: Stack, out: Path, timeout: float, console: Console) -> None:
        self._stack, self._out, self._timeout = stack, out, timeout
        self._screen = Screen(out=console)
        self._tasks: list[Any] = []
        self._files: list[DownloadResult] = []
        self._refused = 0
        self._key = stack.create_key(CALLER, limit_usd=LIMIT_USD)

    def order(self, tasks: Sequence[Any]) -> None:
        """Order `tasks` and download their clips. Raises DemoError unless all are accepted and every clip is stored."""
        with closing(self._client()) as client:
            response = client.submit(tasks)
            self._screen.print(f"POST /v1: {len(response.accepted)} accepted, {len(response.errors)} refused")
            self._refused += len(response.errors)
            problems = [f"refused: {refusal(error)}" for error in response.errors]
            problems += self._finish(client, response.accepted)
        if problems:
            raise DemoError("\n".join(problems))

    def order_by_file(self, file: Path) -> None:
        """Upload `file` to the bucket's `requests/`, print its report, and download the clips that it orders.

        Raises DemoError unless the report arrives, a line is accepted, and every clip of an accepted line is stored.
        """
        bucket, s3, key = self._stack.bucket_name, self._stack.client("s3"), f"requests/{CALLER}/{file.name}"
        version = s3.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())["VersionId"]
        self._screen.print(f"Request file uploaded: {key}")
        report_key = f"reports/{CALLER}/{file.name}.{version}.json"
        listing = {"Bucket": bucket, "Prefix": report_key}
        missing = f"no report for {key} after {self._timeout:g} s: run again with --verbose to see the functions' logs"
        self._wait(lambda: bool(s3.list_objects_v2(**listing)["KeyCount"]), missing)
        report = json.loads(s3.get_object(Bucket=bucket, Key=report_key)["Body"].read())
        self._screen.print(f"Its report: {report_key}")
        for line in report["lines"]:
            verdict = "accepted" if line.get("accepted") else "; ".join(map(refusal, line.get("errors", [])))
            self._screen.print(f"  line {line['line']}: {verdict}")
        accepted = [line["taskUUID"] for line in report["lines"] if line.get("accepted")]
        self._refused += len(report["lines"]) - len(accepted)
        with closing(self._client()) as client:
            missing = f"an accepted line was not ordered within {self._timeout:g} s"
            self._wait(lambda: all(map(client.task, accepted)), missing)
            problems = list(self._finish(client, accepted))
        if problems or not accepted:
            raise DemoError("\n".join(problems) or f"{file.name}: no line was accepted")

    def summarize(self, as_json: bool) -> None:
        """Print the totals, the picture's path and next steps, or with `as_json` the tasks and files."""
        files = [Path(each.file) for each in self._files if not each.problem]
        picture = contact_sheet(files, self._out / PICTURE) if files else None
        if as_json:
            found = {"tasks": self._tasks, "files": list(map(str, files)), "picture": picture and str(picture)}
            Screen(as_json=True).print_json(found)
            return
        cost = money(sum(micros(task.get("cost")) for task in self._tasks))
        clips = f"{len(files)} clip{'' if len(files) == 1 else 's'}"
        self._screen.print()
        self._screen.print(f"{clips} stored and downloaded, {self._refused} refused. Charged by the emulator: {cost}.")
        if picture:
            self._screen.print(f"Picture: {picture}")
            self._screen.print()
            self._screen.print("Next:")
            self._screen.print(f"  watch a clip        {files[0]}")
            self._screen.print("  keep it running     make dev: the gallery, and orders from a second terminal")
            self._screen.print("  learn the command   docs/tutorial.md, five minutes")

    def _client(self) -> ApiClient:
        return ApiClient(Target("the demo", self._stack.url, self._key))

    def _finish(self, client: ApiClient, accepted: Sequence[str]) -> Iterator[str]:
        """Watch these tasks and download their clips; yields a line with the reason for each missing clip."""
        if not accepted:
            return
        with suppress(typer.Exit):  # failures are reported below, with their reasons
            follow(self._screen, client, accepted, self._timeout)
        tasks = [client.require_task(each) for each in accepted]
        self._tasks += tasks
        clips = {(task["taskUUID"], clip["clip"]): clip for task in tasks for clip in task["clips"]}
        for clip in clips.values():
            if clip["status"] != "stored":
                reason = f" ({refusal(clip['error'])})" if clip.get("error") else ""
                yield f"clip {clip['clip']} is {clip['status']}{reason}, not stored"
        for result in fetch(self._screen, client, tasks, self._out, _CONCURRENT_DOWNLOADS):
            clip = clips[result.task_uuid, result.clip]
            self._files.append(result)
            if result.problem:
                yield f"{result.file}: {result.problem}"
            self._screen.print(
                f"{result.file}  {size(result.size)}, {money(micros(clip.get('cost')))}, from {clip['objectKey']}"
            )

    def _wait(self, condition: Callable[[], bool], error: str) -> None:
        """Wait until `condition` is true. Raises DemoError with `error` on timeout, StackError if the stack fails."""
        deadline = time.monotonic() + self._timeout
        while not condition():
            self._stack.check()
            if time.monotonic() > deadline:
                raise DemoError(error)
            time.sleep(_POLL_SECONDS)

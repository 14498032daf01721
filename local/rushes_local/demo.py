"""One request from order to clip, and one dropped file, over HTTP as `rushes submit --watch` and `download` do."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import typer

from rushes_cli.api_client import ApiClient, refusal
from rushes_cli.downloading import fetch
from rushes_cli.output import Screen, micros, money, size
from rushes_cli.profiles import Target
from rushes_cli.watching import follow
from rushes_local.stack import Stack

CALLER = "demo"

# Nothing is paid on this machine, so the limit is one that a demonstration does not meet.
LIMIT_USD = 1000
EXAMPLE = Path(__file__).with_name("example.json")
DROP = Path(__file__).with_name("example.jsonl")  # one line that can be bought, and one that cannot

_LOOK_EVERY = 0.2  # seconds
_PARALLEL = 4  # downloads


class DemoError(Exception):
    """The request did not end with every clip stored, or could not be made. The text is meant for people."""


def read_request(path: Path) -> list[Any]:
    """The tasks of a request file, which holds one or an array; a missing `taskUUID` is filled in.

    Raises DemoError if the file cannot be read as such. Whether the tasks are valid is for the service to say.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DemoError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DemoError(f"{path} is not JSON: {error}") from None
    tasks = content if isinstance(content, list) else [content]
    for task in tasks:
        if isinstance(task, dict):
            task.setdefault("taskUUID", str(uuid.uuid4()))
    return tasks


class Demo:
    """A caller of its own on a running stack; waits for at most `timeout` seconds and downloads into `out`."""

    def __init__(self, stack: Stack, out: Path, timeout: float) -> None:
        self._stack, self._out, self._timeout = stack, out, timeout
        self._screen = Screen()
        self._key = stack.create_key(CALLER, limit_usd=LIMIT_USD)

    def order(self, tasks: Sequence[Any]) -> None:
        """Order `tasks` and fetch their clips. Raises DemoError unless all were accepted and every clip was stored."""
        with closing(self._client()) as client:
            response = client.submit(tasks)
            self._screen.print(f"POST /v1: {len(response.accepted)} accepted, {len(response.errors)} errors")
            problems = [f"refused: {refusal(error)}" for error in response.errors]
            problems += self._finish(client, response.accepted)
        if problems:
            raise DemoError("\n".join(problems))

    def drop(self, file: Path) -> None:
        """Put `file` into the bucket's `requests/`, show its report, and fetch the clips that it ordered.

        Raises DemoError unless a report comes and every clip of an accepted line is stored.
        """
        bucket, s3, key = self._stack.bucket_name, self._stack.client("s3"), f"requests/{CALLER}/{file.name}"
        version = s3.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())["VersionId"]
        self._screen.print(f"{key} was dropped into the bucket")
        answer = f"reports/{CALLER}/{file.name}.{version}.json"
        listing = {"Bucket": bucket, "Prefix": answer}
        self._wait(lambda: bool(s3.list_objects_v2(**listing)["KeyCount"]), f"{answer} did not come")
        report = json.loads(s3.get_object(Bucket=bucket, Key=answer)["Body"].read())
        self._screen.print(answer)
        for line in report["lines"]:
            said = "accepted" if line.get("accepted") else "; ".join(map(refusal, line.get("errors", [])))
            self._screen.print(f"  line {line['line']}: {said}")
        accepted = [line["taskUUID"] for line in report["lines"] if line.get("accepted")]
        with closing(self._client()) as client:
            self._wait(lambda: all(map(client.task, accepted)), "what the report calls accepted was not ordered")
            problems = list(self._finish(client, accepted))
        if problems or not accepted:
            raise DemoError("\n".join(problems) or f"{file.name}: no line was accepted")

    def _client(self) -> ApiClient:
        return ApiClient(Target("the demo", self._stack.url, self._key))

    def _finish(self, client: ApiClient, accepted: Sequence[str]) -> Iterator[str]:
        """Watches these tasks and fetches their clips; yields why a clip is not there, a line each."""
        if not accepted:
            return
        with suppress(typer.Exit):  # what failed is told with its reason below
            follow(self._screen, client, accepted, self._timeout)
        tasks = [client.require_task(each) for each in accepted]
        clips = {(task["taskUUID"], clip["clip"]): clip for task in tasks for clip in task["clips"]}
        for clip in clips.values():
            if clip["status"] != "stored":
                reason = f" ({refusal(clip['error'])})" if clip.get("error") else ""
                yield f"clip {clip['clip']} is {clip['status']}{reason}, not stored"
        for result in fetch(self._screen, client, tasks, self._out, _PARALLEL):
            clip = clips[result.task_uuid, result.clip]
            if result.problem:
                yield f"{result.file}: {result.problem}"
            self._screen.print(
                f"{result.file}  {size(result.size)}, {money(micros(clip.get('cost')))}, from {clip['objectKey']}"
            )

    def _wait(self, reached: Callable[[], bool], otherwise: str) -> None:
        """Wait until something holds; raises DemoError with `otherwise` when the time is over."""
        deadline = time.monotonic() + self._timeout
        while not reached():
            self._stack.check()
            if time.monotonic() > deadline:
                raise DemoError(otherwise)
            time.sleep(_LOOK_EVERY)

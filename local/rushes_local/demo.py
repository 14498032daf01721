"""One request from order to clip, and one file from its drop, told to whoever watches.

Follows a task in the table itself, whose record is what it shows in the end; `rushes watch` asks over HTTP, like any
caller. Prints lines, so that it reads the same on a terminal and in a file; a terminal also gets a moving line while
there is nothing new to say.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from rushes.domain.clip import Clip, Kind, Scalar, Status
from rushes.domain.task import Task, task_status
from rushes_local.stack import Stack

CALLER = "demo"

# Nothing is paid on this machine, so the limit is one that a demonstration does not meet.
LIMIT_USD = 1000
EXAMPLE = Path(__file__).with_name("example.json")
DROP = Path(__file__).with_name("example.jsonl")  # one line that can be bought, and one that cannot

_LOOK_EVERY = 0.2  # seconds
_SUBMIT_TIMEOUT = 35.0  # API Gateway gives up after 30

# Kinds that say why a clip was not stored, the most telling first.
_REASONS = (Kind.FAILED, Kind.REFUSED, Kind.UNSAVED, Kind.UNPROVEN, Kind.ATTEMPTED)


class DemoError(Exception):
    """The request did not end with every clip stored, or could not be made. The text is meant for people."""


@dataclass(frozen=True)
class Followed:
    """A task that was accepted, as the table has it."""

    task: Task
    clips: tuple[Clip, ...]

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        decided = all(clip.status in (Status.STORED, Status.FAILED, Status.REVIEW) for clip in self.clips)
        return decided and not any(clip.open for clip in self.clips if clip.status == Status.STORED)


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


def run(stack: Stack, tasks: Sequence[Any], out: Path, timeout: float, console: Console) -> None:
    """Submit `tasks`, follow them for at most `timeout` seconds, download the clips into `out` and sum up.

    Raises DemoError unless every task was accepted and every clip was stored.
    """
    accepted, refusals = submit(stack, tasks, console)
    followed = show(stack, accepted, out, timeout, console)
    for one in followed:
        say(console, json.dumps(record(one), indent=2, ensure_ascii=False))
    problems = [*refusals, *(problem for one in followed for problem in shortcomings(one))]
    if problems:
        raise DemoError("\n".join(problems))


def drop(stack: Stack, file: Path, out: Path, timeout: float, console: Console) -> None:
    """Put `file` into the bucket's `requests/`, show its report, and follow what it ordered like a request.

    Raises DemoError unless a report comes and every clip of an accepted line is stored.
    """
    s3, key = stack.client("s3"), f"requests/{CALLER}/{file.name}"
    version = s3.put_object(Bucket=stack.bucket_name, Key=key, Body=file.read_bytes())["VersionId"]
    say(console, f"{key} was dropped into the bucket")
    answer = f"reports/{CALLER}/{file.name}.{version}.json"
    listing = {"Bucket": stack.bucket_name, "Prefix": answer}
    _wait(stack, lambda: bool(s3.list_objects_v2(**listing)["KeyCount"]), timeout, f"{answer} did not come")
    report = json.loads(s3.get_object(Bucket=stack.bucket_name, Key=answer)["Body"].read())
    say(console, f"{answer} says\n{json.dumps(report, indent=2, ensure_ascii=False)}")
    accepted = [line["taskUUID"] for line in report["lines"] if line.get("accepted")]

    def recorded() -> bool:
        return all(stack.store.task(CALLER, task_uuid) for task_uuid in accepted)

    _wait(stack, recorded, timeout, "what the report calls accepted was not ordered")
    problems = [problem for one in show(stack, accepted, out, timeout, console) for problem in shortcomings(one)]
    if problems or not accepted:
        raise DemoError("\n".join(problems) or f"{file.name}: no line was accepted")


def show(stack: Stack, accepted: Sequence[str], out: Path, timeout: float, console: Console) -> list[Followed]:
    """Follow these tasks for at most `timeout` seconds and download their clips into `out`."""
    followed = follow(stack, accepted, timeout, console)
    out.mkdir(parents=True, exist_ok=True)
    for one in followed:
        for clip in one.clips:
            say(console, summary(one.task, clip, download(stack, clip, out)))
    return followed


def _wait(stack: Stack, reached: Callable[[], bool], timeout: float, otherwise: str) -> None:
    """Wait until something holds; raises DemoError with `otherwise` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not reached():
        stack.check()
        if time.monotonic() > deadline:
            raise DemoError(otherwise)
        time.sleep(_LOOK_EVERY)


def say(console: Console, text: str) -> None:
    """Print as it is: rich would break long lines and take brackets for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def submit(stack: Stack, tasks: Sequence[Any], console: Console) -> tuple[list[str], list[str]]:
    """Send the tasks; returns the UUIDs of those accepted, and what was said against the others."""
    key = stack.create_key(CALLER, limit_usd=LIMIT_USD)
    response = httpx.post(
        f"{stack.url}/v1",
        content=json.dumps(tasks),  # not httpx's own encoding: whether NaN is a number is for the service to say
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        timeout=_SUBMIT_TIMEOUT,
        trust_env=False,
    )
    try:
        answer = response.json()
        accepted = [item["taskUUID"].lower() for item in answer.get("data", [])]
        refusals = [_refusal(error) for error in answer.get("errors", [])]
    except (ValueError, AttributeError, KeyError):
        raise DemoError(f"POST /v1 answered {response.status_code}: {response.text[:500]}") from None
    say(console, f"POST /v1 answered {response.status_code}: {len(accepted)} accepted, {len(refusals)} errors")
    if not accepted:
        raise DemoError("\n".join(refusals) or f"POST /v1 answered {response.status_code}: {response.text[:500]}")
    return accepted, refusals


def _refusal(error: dict[str, Any]) -> str:
    where = f" ({error['parameter']})" if error.get("parameter") else ""
    return f"refused: {error.get('code')}{where}: {error.get('message')}"


def follow(stack: Stack, accepted: Sequence[str], timeout: float, console: Console) -> list[Followed]:
    """Wait until every clip is decided, telling each fact as it is learned; gives up after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    told: set[tuple[str, int, str, str, str]] = set()
    with console.status("rendering") as status:
        while True:
            stack.check()
            followed = [_look(stack, task_uuid) for task_uuid in accepted]
            for one in followed:
                for clip in one.clips:
                    _tell(clip, told, console)
            clips = [clip for one in followed for clip in one.clips]
            stored = sum(clip.status == Status.STORED for clip in clips)
            status.update(f"{stored} of {len(clips)} clips stored")
            if all(one.settled for one in followed) or time.monotonic() > deadline:
                return followed
            time.sleep(_LOOK_EVERY)


def _look(stack: Stack, task_uuid: str) -> Followed:
    task = stack.store.task(CALLER, task_uuid)
    if task is None:
        raise DemoError(f"task {task_uuid} was accepted and is not in the table")
    return Followed(task, tuple(stack.store.clips(CALLER, task_uuid)))


def _tell(clip: Clip, told: set[tuple[str, int, str, str, str]], console: Console) -> None:
    for fact in facts(clip):
        name = (clip.task_uuid, clip.index, fact.kind, fact.key, fact.witness)
        if name not in told:
            told.add(name)
            seconds = (fact.at - clip.created_at) / 1000
            say(console, f"{seconds:7.1f} s  {clip.task_uuid}-{clip.index}  {fact.kind}, says the {fact.witness}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A fact as one witness saw it. Of a later version's record it may be of a kind that is not in `Kind`."""

    kind: str
    key: str
    at: int
    witness: str
    fields: Mapping[str, Scalar]


def facts(clip: Clip) -> list[Seen]:
    """All that is known of a clip, one entry a witness, in the order in which it was learned."""
    known = [
        Seen(kind=kind, key=key, at=at, witness=witness, fields=about.fields)
        for (kind, key), about in clip.facts.items()
        for witness, at in about.seen.items()
    ]
    return sorted(known, key=lambda fact: (fact.at, fact.kind, fact.key, fact.witness))


def download(stack: Stack, clip: Clip, out: Path) -> Path | None:
    """Fetch the pinned version of a stored clip into `out`; None for a clip that has no copy."""
    if clip.copy is None:
        return None
    version, _ = clip.copy
    file = out / Path(clip.object_key).name
    stack.client("s3").download_file(stack.bucket_name, clip.object_key, str(file), ExtraArgs={"VersionId": version})
    return file


def summary(task: Task, clip: Clip, file: Path | None) -> str:
    """What came of one clip, for people."""
    rendered = next(iter(clip.of(Kind.RENDERED).values()), None)
    fields = rendered.fields if rendered else {}
    rows = {
        "clip": f"{clip.task_uuid}-{clip.index}",
        "status": str(clip.status),
        "seed": fields.get("seed"),
        "cost": f"${int(fields['cost']) / 1_000_000:.3f}" if "cost" in fields else None,
        "object": clip.object_key if file else None,
        "file": file,
        "size": f"{file.stat().st_size:,} bytes" if file else None,
        "length": f"{task.request.get('duration', 5):g} s" if file else None,
        "took": f"{(clip.copy[1].at - clip.created_at) / 1000:.1f} s" if clip.copy else None,
    }
    return "".join(f"  {name:<8}{'-' if value is None else value}\n" for name, value in rows.items())


def record(one: Followed) -> dict[str, Any]:
    """The task's record in the table: times in milliseconds since the epoch, money in micro-dollars."""
    return {
        "caller": one.task.caller,
        "taskUUID": one.task.task_uuid,
        "status": task_status(one.clips),
        "createdAt": one.task.created_at,
        "request": one.task.request,
        "clips": [
            {
                "clip": clip.index,
                "clipUUID": clip.clip_uuid,
                "status": clip.status,
                "objectKey": clip.object_key,
                "estimate": clip.estimate,
                "counted": clip.budgeted,
                "month": clip.month,
                "version": clip.version,
                "facts": [
                    {
                        "fact": fact.kind,
                        "key": fact.key,
                        "witness": fact.witness,
                        "at": fact.at,
                        **({"fields": dict(fact.fields)} if fact.fields else {}),
                    }
                    for fact in facts(clip)
                ],
            }
            for clip in one.clips
        ],
    }


def shortcomings(one: Followed) -> Iterator[str]:
    """Why clips of a task were not stored, a line each."""
    for clip in one.clips:
        if clip.status != Status.STORED:
            why = next((_reason(fact) for kind in _REASONS for fact in facts(clip) if fact.kind == kind), "")
            yield f"clip {clip.task_uuid}-{clip.index} is {clip.status}{why}, not stored"


def _reason(fact: Seen) -> str:
    said = fact.fields.get("message") or fact.fields.get("code") or fact.key
    return f" ({fact.kind}: {said})" if said else f" ({fact.kind})"

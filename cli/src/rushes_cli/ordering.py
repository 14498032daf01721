"""`submit` and `retry`: the price first, then a question where it is high, then the order."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rushes_cli import limits, task_files, watching
from rushes_cli.api_client import ApiClient, OrderResponse, refusal
from rushes_cli.exits import CommandError, Exit, UnavailableError, UsageError
from rushes_cli.journal import Journal
from rushes_cli.options import AsJson, Profile, TaskUUID, Yes, session, task_uuid
from rushes_cli.output import Screen, clock, micros, money

Json = dict[str, Any]

_SAME_AGAIN = "Give the same command again: it uses the same taskUUIDs, so nothing is bought twice."
_BUSY = "serviceUnavailable"  # the one refusal that says nothing about the task


def submit(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to show.", show_default=False)] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Tasks instead: .json or .jsonl; - reads standard input.", show_default=False
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="The first frame: a file, a URL, or s3://bucket/key.", show_default=False)
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="The model's AIR.")] = limits.MODEL,
    duration: Annotated[
        int | None, typer.Option(help=f"Seconds: {' or '.join(map(str, limits.DURATIONS))}.", show_default=False)
    ] = None,
    size: Annotated[str | None, typer.Option(help=f"{', '.join(limits.SIZES)}.", show_default=False)] = None,
    count: Annotated[
        int | None, typer.Option(help=f"Clips: {limits.CLIPS[0]} to {limits.CLIPS[1]}.", show_default=False)
    ] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        str | None, typer.Option(help=f"{', '.join(limits.FORMATS)}.", show_default=False)
    ] = None,
    destination: Annotated[str | None, typer.Option(help="The clips' folder.", show_default=False)] = None,
    tag: Annotated[list[str] | None, typer.Option(help="name=value, for cost reports; repeatable.")] = None,
    uuid: Annotated[
        str | None, typer.Option(help="The taskUUID of a single task; one is made otherwise.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and price only; buy nothing.")] = False,
    yes: Yes = False,
    ask_above: Annotated[
        str | None, typer.Option(help="Ask before spending more than so many dollars.", show_default="5")
    ] = None,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Buy the valid tasks even if others are refused.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Buy anew even if the same submission never heard its answer.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until every clip is decided.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to stay at most with --watch.")] = 3600.0,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Order clips: one task from a prompt and options, or the tasks of a file or of standard input.

    The price comes first. Above a threshold it has to be confirmed, or given in advance with --yes.

    If the answer is lost, give the same command again: the taskUUIDs were kept and are used again, so that nothing is
    bought twice. After an answer the same command is a new order.

    With a file, the options fill in what its tasks leave open.

    --json prints {"taskUUIDs", "refused": [error], "price": dollars, "repeated": bool, "dryRun": bool}; with --watch,
    `watch --json` follows.
    """
    options: Json = {"taskType": "videoInference", "model": model}
    if duration is not None:
        options["duration"] = duration
    if size is not None:
        options["width"], options["height"] = task_files.size(size)
    given = {
        "negativePrompt": negative,
        "numberResults": count,
        "outputFormat": format.upper() if format else None,
        "destination": destination,
        "tags": task_files.tags(tag or ()) or None,
        "inputs": {"frameImages": [task_files.image(image)]} if image else None,
    }
    options |= {name: value for name, value in given.items() if value is not None}
    tasks = [task_files.completed(task, options) for task in _tasks(prompt, file)]
    if uuid is not None:
        if len(tasks) != 1:
            raise UsageError("--uuid names one task, and here are several")
        tasks[0]["taskUUID"] = task_uuid(uuid)
    with session(profile, as_json=as_json) as (screen, service):
        most = _dollars(ask_above) if ask_above is not None else service.target.ask_above
        purchase = ClipOrder(screen, service, ask_above=None if yes else most, skip_refused=skip_refused)
        accepted, refused = purchase.of(tasks, fresh=new, dry_run=dry_run)
        if watch and accepted:
            watching.follow(screen, service, accepted, timeout)
        if refused or (not accepted and not dry_run):
            raise typer.Exit(Exit.FAILED)


def retry(
    task: TaskUUID,
    clip: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this clip; repeatable. All that failed otherwise.")
    ] = None,
    attempt: Annotated[int, typer.Option(min=1, help="2 for a second new task from the same clips, and so on.")] = 1,
    accept_second_charge: Annotated[
        bool,
        typer.Option("--accept-second-charge", help="Repeat clips in review too, which may have been paid for."),
    ] = False,
    yes: Yes = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until every clip is decided.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to stay at most with --watch.")] = 3600.0,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Order again what failed, as a new task.

    The new task's UUID follows from the old one, the clips and --attempt. So the same retry given twice, or at the same
    time from two places, buys nothing twice. Only clips that have failed for good are repeated; those in review may
    have been bought already, and need --accept-second-charge.

    --json prints the same as `submit --json`.
    """
    with session(profile, as_json=as_json) as (screen, service):
        old = service.known(task_uuid(task))
        chosen = _repeatable(old, clip or [], second_charge=accept_second_charge)
        again = _repeat(old, chosen, attempt)
        purchase = ClipOrder(screen, service, ask_above=None if yes else service.target.ask_above)
        if service.task(again["taskUUID"]) is not None:
            screen.note(f"This was retried before, as {again['taskUUID']}: nothing is bought. --attempt 2 buys again.")
            screen.say(again["taskUUID"])
            screen.give(_given([again["taskUUID"]], [], 0, repeated=True))
            accepted, refused = [str(again["taskUUID"])], False
        else:
            accepted, refused = purchase.of([again])
        if watch and accepted:
            watching.follow(screen, service, accepted, timeout)
        if refused:
            raise typer.Exit(Exit.FAILED)


class ClipOrder:
    """One purchase: priced, confirmed, ordered. `ask_above` is in micro-dollars; None asks nobody."""

    def __init__(
        self, screen: Screen, service: ApiClient, *, ask_above: int | None, skip_refused: bool = False
    ) -> None:
        self._screen, self._service = screen, service
        self._ask_above, self._skip_refused = ask_above, skip_refused

    def of(self, tasks: Sequence[Json], *, fresh: bool = False, dry_run: bool = False) -> tuple[list[str], bool]:
        """Orders the tasks; returns the UUIDs of those accepted, and whether any was refused."""
        service = self._service
        nameless = [{name: value for name, value in task.items() if name != "taskUUID"} for task in tasks]
        own = [task.get("taskUUID") for task in tasks]
        # The place of a task that brought its own name belongs to what was sent.
        named = [{**bare, "taskUUID": mine} if mine else bare for bare, mine in zip(nameless, own, strict=True)]
        journal = Journal(os.environ, task_files.digest(service.target.url, service.target.api_key, named))
        if dry_run:
            uuids, since = _throwaway(len(tasks)), None
        else:
            uuids, since = journal.open(len(tasks), fresh=fresh)
        orderly = [{**task, "taskUUID": task.get("taskUUID") or made} for task, made in zip(tasks, uuids, strict=True)]
        repeated = since is not None
        try:
            valid, refused, price = self._priced(orderly)
            if since is not None:
                at = datetime.fromtimestamp(since, UTC)
                self._screen.note(
                    f"The answer to this submission of {at:%Y-%m-%d %H:%M}Z was never heard. It is sent again under "
                    "the same taskUUIDs, so nothing is bought twice (--new buys anew)."
                )
            if dry_run:
                self._tell(valid, refused, price, repeated=False, dry_run=True)
                return [], bool(refused)
            if refused and not self._skip_refused:
                journal.close()
                self._tell([], refused, 0, repeated=repeated)
                return [], True
            self._confirm(price)
        except BaseException:
            # Nothing was sent by this run; what an earlier one sent stays remembered.
            if not repeated:
                journal.close()
            raise
        try:
            answer = self._order(valid)
        except (KeyboardInterrupt, SystemExit):
            self._screen.warn(f"The order may have arrived. {_SAME_AGAIN}")
            raise
        journal.close()
        refused += answer.errors
        self._tell([{"taskUUID": each} for each in answer.accepted], refused, price, repeated=repeated)
        return answer.accepted, bool(refused)

    def _priced(self, tasks: Sequence[Json]) -> tuple[list[Json], list[Json], int]:
        """The valid tasks, what is said against the others, and the price of the valid ones in micro-dollars."""
        answer = OrderResponse()
        for batch in task_files.batches(tasks):
            said = self._service.price(batch)
            answer.data += said.data
            answer.errors += said.errors
        fine = {item.get("taskUUID"): micros(item.get("cost")) for item in answer.data}
        valid = [task for task in tasks if str(task["taskUUID"]).lower() in fine]
        price = sum(fine.values())
        if valid:
            clips = sum(task_files.clips(task) for task in valid)
            left = (self._service.budget() or {}).get("left")
            of = f", of {money(micros(left))} left this month" if left is not None else ""
            self._screen.note(f"{_several(len(valid), 'task')}, {_several(clips, 'clip')}: {money(price)}{of}")
        return valid, answer.errors, price

    def _confirm(self, price: int) -> None:
        if self._ask_above is None or price <= self._ask_above:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise CommandError(
                f"{money(price)} is more than {money(self._ask_above)}, and nobody can be asked here: "
                "confirm it with --yes. Nothing was bought.",
                Exit.NOT_CONFIRMED,
            )
        if not _agrees(f"Buy for {money(price)}?"):
            raise CommandError("Nothing was bought.", Exit.NOT_CONFIRMED)

    def _order(self, tasks: Sequence[Json]) -> OrderResponse:
        """Sends the tasks; what the service was too busy for is sent again, once all others are through."""
        answer = OrderResponse()
        waiting = list(tasks)
        for last in (False, True):
            busy: list[Json] = []
            for batch in task_files.batches(waiting):
                try:
                    said = self._service.submit(batch)
                except UnavailableError as error:
                    raise UnavailableError(f"{error} {_SAME_AGAIN}") from None
                answer.data += said.data
                put_off = {error.get("taskUUID") for error in said.errors if error.get("code") == _BUSY and not last}
                busy += [task for task in batch if str(task["taskUUID"]).lower() in put_off]
                answer.errors += [error for error in said.errors if error.get("taskUUID") not in put_off]
            waiting = busy
        return answer

    def _tell(
        self, tasks: Sequence[Json], refused: Sequence[Json], price: int, *, repeated: bool, dry_run: bool = False
    ) -> None:
        screen = self._screen
        uuids = [str(task["taskUUID"]) for task in tasks]
        if not dry_run:
            for each in uuids:
                screen.say(each)
        for error in refused:
            screen.note(f"refused: {error.get('taskUUID', '')} {refusal(error)}".replace("  ", " "), "red")
        if refused and not uuids:
            screen.note("Nothing was bought." if not dry_run else "Nothing would be bought.")
        screen.give(_given([] if dry_run else uuids, refused, price, repeated=repeated, dry_run=dry_run))


def _given(uuids: Sequence[str], refused: Sequence[Json], price: int, *, repeated: bool, dry_run: bool = False) -> Json:
    return {
        "taskUUIDs": list(uuids),
        "refused": list(refused),
        "price": price / 1_000_000,
        "repeated": repeated,
        "dryRun": dry_run,
    }


def _tasks(prompt: str | None, file: Path | None) -> list[Json]:
    if prompt is not None and file is not None:
        raise UsageError("give a prompt or a file, not both")
    if prompt is not None:
        return [{"positivePrompt": prompt}]
    if file is not None and str(file) != "-":
        try:
            return task_files.read(file.expanduser().read_bytes(), str(file))
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from None
    if file is None and sys.stdin.isatty():
        raise UsageError("give a prompt, or a file with --file")
    return task_files.read(sys.stdin.buffer.read(), "standard input", prompts=file is None)


def _repeatable(old: Mapping[str, Any], wanted: Sequence[int], *, second_charge: bool) -> list[int]:
    """The clips of a task that may be repeated. Raises `CommandError` with the reason against any that was named."""
    clips = {int(clip["clip"]): clip for clip in old.get("clips", [])}
    reasons = {number: _against(clip, second_charge=second_charge) for number, clip in clips.items()}
    for number in wanted:
        if number not in clips:
            raise UsageError(f"the task has no clip {number}")
        if reasons[number]:
            raise CommandError(f"Clip {number} {reasons[number]}")
    chosen = sorted(set(wanted)) or [number for number, reason in reasons.items() if not reason]
    if not chosen:
        raise CommandError("Nothing to repeat: " + "; ".join(f"clip {n} {reason}" for n, reason in reasons.items()))
    return chosen


def _against(clip: Mapping[str, Any], *, second_charge: bool) -> str:
    match clip.get("status"):
        case "failed" if clip.get("open"):
            return f"failed, and is looked at once more at {clock(clip.get('nextCheckAt'))}; wait until then."
        case "failed":
            return ""
        case "review" if second_charge:
            return ""
        case "review":
            return "may have been bought and paid for: --accept-second-charge repeats it all the same."
    return f"is {clip.get('status')}."


def _repeat(old: Mapping[str, Any], chosen: Sequence[int], attempt: int) -> Json:
    request = old.get("request")
    if not request:
        raise CommandError("What this task asked for is no longer kept, so it cannot be repeated.")
    uuid = task_files.derived_uuid(str(old["taskUUID"]), attempt, chosen)
    return {**request, "taskUUID": uuid, "numberResults": len(chosen)}


def _agrees(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def _throwaway(count: int) -> list[str]:
    """Names for tasks that are only priced."""
    return [task_files.derived_uuid("", number, ()) for number in range(count)]


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _dollars(text: str) -> int:
    try:
        return limits.micro_dollars(text)
    except ValueError:
        raise UsageError("--ask-above is an amount in dollars") from None

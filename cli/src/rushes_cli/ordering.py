"""`submit` and `retry`: price the tasks, ask for confirmation above a threshold, then order."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rushes_cli import limits, task_faults, task_files, watching
from rushes_cli.api_client import ApiClient, OrderResponse
from rushes_cli.confirming import is_confirmed
from rushes_cli.exits import CommandError, Exit, UnavailableError, UsageError
from rushes_cli.journal import Journal
from rushes_cli.options import AsJson, Profile, TaskUUID, Yes, require_task, session, task_uuid
from rushes_cli.output import Screen, micros, money, utc_time

Json = dict[str, Any]

# The refusals that the service does not record, so that they are not final for their taskUUIDs.
_ACCOUNT = "providerAccountRefused"
_UNRECORDED = {"budgetExceeded", "missingWebhookSecret"}


def submit(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="The prompt.", show_default=False)] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            help="A .json or .jsonl file of tasks, instead of a prompt; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="The first frame: a file, a URL or s3://bucket/key.", show_default=False)
    ] = None,
    negative: Annotated[str | None, typer.Option(help="The negative prompt.", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="The model's AIR identifier.")] = limits.MODEL,
    duration: Annotated[
        int | None,
        typer.Option(help=f"The length in seconds: {' or '.join(map(str, limits.DURATIONS))}.", show_default=False),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help=f"Width and height in pixels: {', '.join(limits.SIZES)}.", show_default=False)
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help=f"The number of clips: {limits.CLIPS[0]} to {limits.CLIPS[1]}.", show_default=False),
    ] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        str | None, typer.Option(help=f"The file format: {', '.join(limits.FORMATS)}.", show_default=False)
    ] = None,
    destination: Annotated[
        str | None, typer.Option(help="The folder for the clips, below videos/ and your name.", show_default=False)
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for cost reports, as name=value; repeatable.")] = None,
    uuid: Annotated[
        str | None, typer.Option(help="The taskUUID of a single task; generated if not given.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate and price only; buy nothing.")] = False,
    yes: Yes = False,
    ask_above: Annotated[
        str | None, typer.Option(help="Ask for confirmation above this price, in dollars.", show_default="5")
    ] = None,
    skip_refused: Annotated[
        bool,
        typer.Option(
            "--skip-refused", help="Buy the valid tasks even if others are refused, or lines of a file are no tasks."
        ),
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Buy again even if the same submission has had no response yet.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch until every clip has a final status.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="With --watch: the maximum time to watch, in seconds.")
    ] = 3600.0,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Order clips: one task from a prompt and options, or the tasks of a file or of standard input.

    Text on standard input that is not JSON is a prompt.

    The tasks are priced first. A price above the threshold needs confirmation, or --yes.

    If the response is lost, repeat the command: it uses the same taskUUIDs, so nothing is bought twice. After a
    response, the same command is a new order.

    With a file, the options are defaults for fields that its tasks do not set.

    Refused tasks of a file are named by their lines, or by their numbers in an array. A taskUUID that occurs twice
    refuses all of its tasks.

    --json prints {"taskUUIDs", "orderedBefore", "refused": [error], "price": dollars, "repeated": bool, "dryRun":
    bool}; with --watch, `watch --json` follows. "orderedBefore" has the accepted tasks that the service had already;
    the price is of the others. "repeated" is true if the command has sent an earlier submission again, which had no
    response. An error has the "line" or "task" of its file.
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
    source = _tasks(prompt, file, skip_faults=skip_refused)
    tasks = [task_files.completed(task, options) for task in source.tasks]
    if uuid is not None:
        if len(tasks) != 1:
            raise UsageError(f"--uuid needs exactly one task; there are {len(tasks)}")
        tasks[0]["taskUUID"] = task_uuid(uuid)
    with session(profile, as_json=as_json) as (screen, service):
        threshold = _dollars(ask_above) if ask_above is not None else service.target.ask_above
        purchase = ClipOrder(
            screen, service, ask_above=None if yes else threshold, skip_refused=skip_refused, source=source
        )
        accepted, refused = purchase.run(tasks, fresh=new, dry_run=dry_run)
        if watch and accepted:
            watching.follow(screen, service, accepted, timeout)
        if refused or (not accepted and not dry_run):
            raise typer.Exit(Exit.FAILED)


def retry(
    task: TaskUUID,
    clip: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Only the clip with this number; repeatable. Without it, all failed clips."),
    ] = None,
    attempt: Annotated[
        int, typer.Option(min=1, help="The number of this retry of the same clips; 2 orders them a second time.")
    ] = 1,
    accept_second_charge: Annotated[
        bool,
        typer.Option(
            "--accept-second-charge", help="Also repeat clips in review, which may have been charged already."
        ),
    ] = False,
    yes: Yes = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch until every clip has a final status.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="With --watch: the maximum time to watch, in seconds.")
    ] = 3600.0,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Order failed clips again, as a new task.

    The new taskUUID is derived from the old one, the clips and --attempt. A repeated or simultaneous retry therefore
    buys nothing twice. Only finally failed clips are repeated. Clips in review may have been bought already and need
    --accept-second-charge.

    --json prints the same as `submit --json`.
    """
    with session(profile, as_json=as_json) as (screen, service):
        old = require_task(service, task)
        chosen = _repeatable(old, clip or [], second_charge=accept_second_charge)
        again = _repeat(old, chosen, attempt)
        threshold = None if yes else service.target.ask_above
        purchase = ClipOrder(screen, service, ask_above=threshold, anew=f"with --attempt {attempt + 1}")
        if service.task(again["taskUUID"]) is not None:
            screen.info(
                f"Already retried as {again['taskUUID']}; nothing was bought. --attempt {attempt + 1} buys again."
            )
            screen.print(again["taskUUID"])
            screen.print_json(_as_json([again["taskUUID"]], [], 0, repeated=True, before=[again["taskUUID"]]))
            accepted, refused = [str(again["taskUUID"])], False
        else:
            accepted, refused = purchase.run([again])
        if watch and accepted:
            watching.follow(screen, service, accepted, timeout)
        if refused:
            raise typer.Exit(Exit.FAILED)


class ClipOrder:
    """One purchase: priced, confirmed, ordered. `ask_above` is in micro-dollars; None skips the confirmation.

    `anew` is the way to order tasks again that were refused under UUIDs of the user's.
    """

    def __init__(
        self,
        screen: Screen,
        service: ApiClient,
        *,
        ask_above: int | None,
        skip_refused: bool = False,
        anew: str = "with new taskUUIDs",
        source: task_files.TaskFile | None = None,
    ) -> None:
        self._screen, self._service = screen, service
        self._ask_above, self._skip_refused, self._anew = ask_above, skip_refused, anew
        self._source = source
        self._prices: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._tasks: Sequence[Json] = ()

    def run(self, tasks: Sequence[Json], *, fresh: bool = False, dry_run: bool = False) -> tuple[list[str], bool]:
        """Orders the tasks; returns the accepted taskUUIDs, and True if any task was refused."""
        target = self._service.target
        without_uuid = [{name: value for name, value in task.items() if name != "taskUUID"} for task in tasks]
        given = [task.get("taskUUID") for task in tasks]
        # A taskUUID of the user's is part of the submission, and so of its digest.
        submitted = [
            {**task, "taskUUID": uuid} if uuid else task for task, uuid in zip(without_uuid, given, strict=True)
        ]
        with Journal(os.environ, task_files.digest(target.url, target.api_key, submitted)) as journal:
            return self._run(tasks, journal, fresh=fresh, dry_run=dry_run)

    def _run(self, tasks: Sequence[Json], journal: Journal, *, fresh: bool, dry_run: bool) -> tuple[list[str], bool]:
        if dry_run:
            uuids, since = _placeholder_uuids(len(tasks)), None
        else:
            uuids, since = journal.open(len(tasks), fresh=fresh)
        orders = [{**task, "taskUUID": task.get("taskUUID") or uuid} for task, uuid in zip(tasks, uuids, strict=True)]
        repeated = since is not None
        try:
            valid, refused, price = self._price(orders)
            if dry_run:
                self._print_result(valid, refused, repeated=False, dry_run=True)
                return [], bool(refused)
            if refused and not self._skip_refused:
                if not repeated:
                    journal.close()
                self._print_result([], refused, repeated=repeated)
                if repeated:
                    self._screen.warn("The service may have received the earlier submission: see `rushes list`.")
                return [], True
            if since is not None:
                at = datetime.fromtimestamp(since, UTC)
                self._screen.info(
                    f"The submission of {at:%Y-%m-%d %H:%M}Z had no response. It is sent again with the same "
                    "taskUUIDs, so nothing is bought twice (--new buys again)."
                )
            self._confirm(price)
        except BaseException:
            # This run sent nothing. The UUIDs of an earlier run are kept.
            if not repeated:
                journal.close()
            raise
        response = self._send(valid, journal, repeated=repeated, fresh=fresh)
        self._print_result(
            [{"taskUUID": each} for each in response.accepted], refused + response.errors, repeated=repeated
        )
        self._advise(response, {str(task["taskUUID"]).lower() for task in tasks if task.get("taskUUID")})
        return response.accepted, bool(refused or response.errors)

    def _send(self, tasks: Sequence[Json], journal: Journal, *, repeated: bool, fresh: bool) -> OrderResponse:
        """Orders the tasks and deletes the journal's entry, which is kept if the service may have received them."""
        repeat = "Repeat the command without --new" if fresh else "Repeat the same command"
        hint = f"{repeat}: it uses the same taskUUIDs, so nothing is bought twice."
        try:
            response = self._order(tasks)
        except UnavailableError as error:
            if error.sent or repeated:
                raise UnavailableError(f"{error} {hint}") from None
            journal.close()
            raise UnavailableError(f"{error} Nothing was sent; the same command orders.", sent=False) from None
        except (KeyboardInterrupt, SystemExit):
            self._screen.warn(f"The service may have received the order. {hint}")
            raise
        journal.close()
        return response

    def _advise(self, response: OrderResponse, given: set[str]) -> None:
        """Prints the way to order the refused tasks again. `given` has the taskUUIDs of the user's."""
        final = [error for error in response.errors if error.get("code") not in _UNRECORDED]
        refused = {str(error.get("taskUUID")).lower() for error in final}
        if not refused:
            return
        if any(error.get("code") == _ACCOUNT for error in final):
            self._screen.info("The operator has to act first: until then Runware refuses every order.")
        if refused & given:
            anew = self._anew
        elif response.data:
            anew = "without the accepted tasks, which the same command would buy again"
        else:
            anew = "with the same command, which uses new taskUUIDs"
        self._screen.info(f"A refusal is final for its taskUUID. Order again {anew}.")

    def _price(self, tasks: Sequence[Json]) -> tuple[list[Json], list[Json], int]:
        """The valid tasks, the errors of the others, and the price of the valid ones in micro-dollars."""
        self._tasks = tasks
        self._positions = {str(task["taskUUID"]).lower(): position for position, task in enumerate(tasks)}
        faults = task_faults.uuid_faults(tasks)
        errors = [{**error, **self._place(position)} for position, error in sorted(faults.items())]
        merged = OrderResponse()
        for batch in task_files.batches([task for number, task in enumerate(tasks) if number not in faults]):
            response = self._service.price(batch)
            merged.data += response.data
            merged.errors += response.errors
        self._prices = {str(item.get("taskUUID")).lower(): micros(item.get("cost")) for item in merged.data}
        valid = [task for task in tasks if str(task["taskUUID"]).lower() in self._prices]
        price = sum(self._prices.values())
        if valid:
            clips = sum(task_files.clips(task) for task in valid)
            left = (self._service.budget() or {}).get("left")
            remaining = f", of {money(micros(left))} left this month" if left is not None else ""
            self._screen.info(f"{_plural(len(valid), 'task')}, {_plural(clips, 'clip')}: {money(price)}{remaining}")
        unreadable = self._source.faults if self._source else []
        return valid, [*unreadable, *errors, *merged.errors], price

    def _place(self, position: int) -> Json:
        return self._source.places[position] if self._source else {}

    def _placed(self, error: Json) -> tuple[Json, str]:
        """An error with its place in the file, and its reason as text."""
        position = self._positions.get(str(error.get("taskUUID")).lower())
        if position is None or error.keys() & {"line", "task"}:
            return error, task_faults.reason(error, {})
        return {**error, **self._place(position)}, task_faults.reason(error, self._tasks[position])

    def _confirm(self, price: int) -> None:
        if self._ask_above is None or price <= self._ask_above:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise CommandError(
                f"{money(price)} is above the threshold of {money(self._ask_above)}, and there is no terminal to ask "
                "for confirmation: use --yes. Nothing was bought.",
                Exit.NOT_CONFIRMED,
            )
        if not is_confirmed(f"Buy for {money(price)}?"):
            raise CommandError("Not confirmed; nothing was bought.", Exit.NOT_CONFIRMED)

    def _order(self, tasks: Sequence[Json]) -> OrderResponse:
        """Sends the tasks in batches. Raises `UnavailableError` if one of them got no answer."""
        merged = OrderResponse()
        for batch in task_files.batches(tasks):
            try:
                response = self._service.submit(batch)
            except UnavailableError as error:
                raise UnavailableError(str(error), sent=error.sent or bool(merged.data)) from None
            merged.data += response.data
            merged.errors += response.errors
        return merged

    def _print_result(
        self, tasks: Sequence[Json], refused: Sequence[Json], *, repeated: bool, dry_run: bool = False
    ) -> None:
        screen = self._screen
        uuids = [str(task["taskUUID"]) for task in tasks]
        if not dry_run:
            for each in uuids:
                screen.print(each)
        placed = [self._placed(error) for error in refused]
        for line in task_faults.grouped(placed):
            screen.info(f"refused: {line}", "red")
        before = [each for each in uuids if each.lower() in self._service.repeated]
        if before:
            them = "It was" if len(before) == 1 else f"{len(before)} of them were"
            screen.info(f"{them} ordered before under the same taskUUID, and not bought again: see `rushes show`.")
        price = sum(self._prices.get(each.lower(), 0) for each in uuids if each not in before)
        if refused and not uuids:
            screen.info("Nothing was bought." if not dry_run else "Nothing would be bought.")
        elif refused:
            count = _plural(len(self._tasks) + len(self._source.faults if self._source else ()), "task")
            screen.info(f"{len(uuids)} of {count} {'valid' if dry_run else 'ordered'}, for {money(price)}.")
        errors = [error for error, _ in placed]
        screen.print_json(
            _as_json([] if dry_run else uuids, errors, price, repeated=repeated, dry_run=dry_run, before=before)
        )


def _as_json(
    uuids: Sequence[str],
    refused: Sequence[Json],
    price: int,
    *,
    repeated: bool,
    dry_run: bool = False,
    before: Sequence[str] = (),
) -> Json:
    return {
        "taskUUIDs": list(uuids),
        "orderedBefore": list(before),
        "refused": list(refused),
        "price": price / 1_000_000,
        "repeated": repeated,
        "dryRun": dry_run,
    }


def _tasks(prompt: str | None, file: Path | None, *, skip_faults: bool) -> task_files.TaskFile:
    if prompt is not None and file is not None:
        raise UsageError("use a PROMPT or --file, not both")
    if prompt is not None:
        return task_files.TaskFile([{"positivePrompt": prompt}], [{}], [])
    if file is not None and str(file) != "-":
        try:
            return task_files.read(file.expanduser().read_bytes(), str(file), skip_faults=skip_faults)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from None
    if file is None and sys.stdin.isatty():
        raise UsageError("a PROMPT or --file is required")
    return task_files.read(sys.stdin.buffer.read(), "standard input", prompts=file is None, skip_faults=skip_faults)


def _repeatable(old: Mapping[str, Any], requested: Sequence[int], *, second_charge: bool) -> list[int]:
    """The clips to repeat. Raises `CommandError` if a requested clip, or every clip, cannot be repeated."""
    clips = {int(clip["clip"]): clip for clip in old.get("clips", [])}
    reasons = {number: _obstacle(clip, second_charge=second_charge) for number, clip in clips.items()}
    for number in requested:
        if number not in clips:
            raise UsageError(f"the task has no clip {number}")
        if reasons[number]:
            raise CommandError(f"Clip {number} {reasons[number]}.")
    chosen = sorted(set(requested)) or [number for number, reason in reasons.items() if not reason]
    if not chosen:
        raise CommandError(
            f"No clip can be repeated: {'; '.join(f'clip {n} {reason}' for n, reason in reasons.items())}."
        )
    return chosen


def _obstacle(clip: Mapping[str, Any], *, second_charge: bool) -> str:
    """The reason not to repeat a clip, as the rest of a sentence, or an empty text."""
    match clip.get("status"):
        case "failed" if clip.get("open"):
            return f"failed, but is checked once more at {utc_time(clip.get('nextCheckAt'))}, so wait until then"
        case "failed":
            return ""
        case "review" if second_charge:
            return ""
        case "review":
            return "is in review and may have been charged: --accept-second-charge repeats it anyway"
    return f"is {clip.get('status')}"


def _repeat(old: Mapping[str, Any], chosen: Sequence[int], attempt: int) -> Json:
    request = old.get("request")
    if not request:
        raise CommandError("This task's request is no longer stored, so it cannot be repeated.")
    uuid = task_files.derived_uuid(str(old["taskUUID"]), attempt, chosen)
    return {**request, "taskUUID": uuid, "numberResults": len(chosen)}


def _placeholder_uuids(count: int) -> list[str]:
    """UUIDs for tasks that are only priced."""
    return [task_files.derived_uuid("", number, ()) for number in range(count)]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _dollars(text: str) -> int:
    try:
        return limits.micro_dollars(text)
    except ValueError:
        raise UsageError(f"--ask-above must be an amount in dollars from 0 to {limits.MAX_DOLLARS}") from None

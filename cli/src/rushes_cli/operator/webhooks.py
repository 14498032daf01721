"""`webhooks`: the deliveries of clips' outcomes to callers' receivers, and the secrets that sign them."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from rushes_cli.confirming import confirm_removal
from rushes_cli.exits import CommandError, UsageError
from rushes_cli.operator.deployment import Deployment, operated
from rushes_cli.options import AsJson, Confirmed, Stack, task_uuid
from rushes_cli.output import Screen, iso, parse_time, utc_time

if TYPE_CHECKING:
    from rushes.domain.delivery import Attempt, Delivery, SigningSecret

_HOUR = 3_600_000  # milliseconds
_USUAL_SPAN = 24 * _HOUR

webhooks = typer.Typer(no_args_is_help=True, help="List and repeat webhooks to callers, and manage their secrets.")
secret = typer.Typer(no_args_is_help=True, help="Create, rotate and revoke the secret that signs a caller's webhooks.")
webhooks.add_typer(secret, name="secret")

Caller = Annotated[str, typer.Argument(metavar="CALLER", help="The caller's name.", show_default=False)]
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's taskUUID.", show_default=False)]
Since = Annotated[
    str | None,
    typer.Option(help="Only attempts since this time (UTC), such as 2026-11-24T12:00.", show_default="a day ago"),
]


@secret.command()
def create(caller: Caller, stack: Stack = None, as_json: AsJson = False) -> None:
    """Create the secret for a caller's webhooks. It is printed once; within a minute orders may name a receiver.

    --json prints {"caller", "secret"}.
    """
    with operated(stack) as deployment:
        if _valid(deployment, caller):
            raise CommandError(f"{caller} has a secret already: `rushes webhooks secret rotate {caller}` replaces it.")
        _add(deployment, caller, [], Screen(as_json))


@secret.command()
def rotate(
    caller: Caller,
    overlap: Annotated[float, typer.Option(min=0, help="Hours for which both secrets sign each webhook.")] = 24,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Replace a caller's secret. Until the overlap ends, webhooks have the signatures of the old one and the new one.

    --json prints {"caller", "secret"}.
    """
    with operated(stack) as deployment:
        valid = _valid(deployment, caller)
        if not valid:
            raise CommandError(f"{caller} has no secret: `rushes webhooks secret create {caller}` creates one.")
        ends_at = _now() + round(overlap * _HOUR)
        kept = [each._replace(ends_at=min(each.ends_at or ends_at, ends_at)) for each in valid]
        _add(deployment, caller, kept, Screen(as_json))


@secret.command()
def revoke(
    caller: Caller,
    previous: Annotated[bool, typer.Option("--previous", help="Revoke only secrets that were replaced.")] = False,
    yes: Confirmed = False,
    stack: Stack = None,
) -> None:
    """Revoke a caller's secrets at once. Without a secret nothing is sent, and orders with a receiver are refused.

    Attempts without a secret are recorded and repeated on their schedule, so a new secret within a day loses nothing.
    """
    if not previous:
        confirm_removal(f"Revoke every secret of {caller}? Its webhooks stop until there is a new one.", yes=yes)
    with operated(stack) as deployment:
        kept = [each for each in _valid(deployment, caller) if previous and each.ends_at is None]
        _save(deployment, caller, kept)
    Screen().print(f"{caller} has {len(kept)} valid secrets.")


@webhooks.command()
def url(
    caller: Caller,
    address: Annotated[
        str | None, typer.Argument(metavar="URL", help="An https URL; empty removes it.", show_default=False)
    ] = None,
    stack: Stack = None,
) -> None:
    """Set or print the receiver of a caller's tasks that name none. It takes effect within a minute."""
    from rushes.domain.receiver_url import url_fault

    fault = url_fault(address, loopback=False) if address else None
    if fault:
        raise UsageError(f"the URL {fault}")
    screen = Screen()
    with operated(stack) as deployment:
        found = deployment.store.caller_named(caller)
        if found is None:
            raise _no_caller(caller)
        if address is None:
            screen.print(found.webhook_url or f"{caller} has no default receiver.")
            return
        deployment.store.set_webhook_url(caller, address)
    screen.print(f"Tasks of {caller} without a webhookURL now use {address}." if address else "The URL was removed.")
    if address and not found.signs_webhooks:
        screen.warn(f"nothing is sent before `rushes webhooks secret create {caller}`")


@webhooks.command("list")
def list_deliveries(
    caller: Caller,
    since: Since = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only webhooks that were not delivered.")] = False,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """List a caller's webhooks with the last attempt of each, the latest last.

    --json prints one attempt a line: {"taskUUID", "clip", "id", "replayedAt", "attempt", "at", "receiver", "outcome",
    "status", "failure", "milliseconds", "excerpt", "nextAt"}.
    """
    screen = Screen(as_json)
    with operated(stack) as deployment:
        found = latest(deployment.store.attempts_of_caller(caller, _time(since)))
    _print(screen, [each for each in found if not failed or not each.reply.accepted])


@webhooks.command()
def show(caller: Caller, task: Task, stack: Stack = None, as_json: AsJson = False) -> None:
    """Show every recorded attempt at the webhooks of one task, oldest first. Records expire after 30 days.

    --json prints the same lines as `webhooks list --json`.
    """
    screen = Screen(as_json)
    with operated(stack) as deployment:
        _print(screen, deployment.store.attempts(caller, task_uuid(task)))


@webhooks.command()
def replay(
    caller: Caller,
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Only this task, also if it was delivered.", show_default=False)
    ] = None,
    since: Since = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Send webhooks again, under the same ids: those of one task, or all that failed since a time.

    --json prints {"caller", "replayed": number}.
    """
    from rushes.adapters.sqs import SqsDeliveryQueue

    screen, now = Screen(as_json), _now()
    with operated(stack) as deployment:
        if task:
            deliveries = _of_task(deployment, caller, task_uuid(task))
        else:
            deliveries = _failed(deployment, caller, _time(since))
        queue = SqsDeliveryQueue(lambda: deployment.client("sqs"), deployment.output("DeliveriesUrl"))
        for each in deliveries:
            queue.send(each._replace(run=now, attempt=1, due_at=0, waits=0))
    screen.print_json({"caller": caller, "replayed": len(deliveries)})
    screen.print(f"{len(deliveries)} webhooks were queued again.")


def latest(attempts: Iterable["Attempt"]) -> list["Attempt"]:
    """The last attempt of each delivery, in the order of the attempts."""
    last: dict[tuple[str, int, str], Attempt] = {}
    for each in attempts:
        key = each.delivery.task_uuid, each.delivery.clip, each.delivery.delivery_id
        last.pop(key, None)
        last[key] = each
    return list(last.values())


def _of_task(deployment: Deployment, caller: str, uuid: str) -> list["Delivery"]:
    """The deliveries of a task's present outcomes. Raises `CommandError` if there are none."""
    from rushes.domain.delivery import Delivery
    from rushes.services.publish import delivery_id_of

    task = deployment.store.task(caller, uuid)
    clips = deployment.store.clips(caller, uuid)
    if task is None or not task.webhook_url:
        raise CommandError(f"{caller} has no task {uuid} with a receiver; nothing was sent.")
    found = [(clip, delivery_id_of(clip)) for clip in clips]
    return [Delivery(caller, uuid, clip.index, delivery_id) for clip, delivery_id in found if delivery_id]


def _failed(deployment: Deployment, caller: str, since: int) -> list["Delivery"]:
    """The deliveries whose last attempt failed and is followed by no other one."""
    found = latest(deployment.store.attempts_of_caller(caller, since))
    return [each.delivery for each in found if not each.reply.accepted and each.next_at is None]


def _print(screen: Screen, attempts: Sequence["Attempt"]) -> None:
    from rushes.domain.views import attempt_view

    for each in attempts:
        screen.print_json({"taskUUID": each.delivery.task_uuid, **attempt_view(each)})
    screen.table(
        ("time", "task", "clip", "attempt", "outcome", "status", "ms", "next"),
        [
            (
                utc_time(iso(each.at)),
                each.delivery.task_uuid,
                str(each.delivery.clip),
                str(each.delivery.attempt),
                str(each.outcome),
                each.reply.failure or str(each.reply.status),
                str(each.reply.duration),
                utc_time(iso(each.next_at)),
            )
            for each in attempts
        ],
    )


def _valid(deployment: Deployment, caller: str) -> list["SigningSecret"]:
    from rushes.domain.delivery import valid_secrets

    return valid_secrets(deployment.store.signing_secrets(caller), _now())


def _add(deployment: Deployment, caller: str, kept: Sequence["SigningSecret"], screen: Screen) -> None:
    """Adds a new secret to those that are kept, and prints it."""
    from rushes.domain.delivery import SigningSecret, new_secret

    created = SigningSecret(new_secret(), _now())
    _save(deployment, caller, [created, *kept])
    screen.print_json({"caller": caller, "secret": created.text})
    screen.print(created.text)


def _save(deployment: Deployment, caller: str, secrets: Sequence["SigningSecret"]) -> None:
    if not deployment.store.set_signing_secrets(caller, secrets):
        raise _no_caller(caller)


def _no_caller(caller: str) -> CommandError:
    return CommandError(f"There is no caller {caller}: `rushes callers list` shows all of them.")


def _time(text: str | None) -> int:
    """A time in milliseconds, by default a day ago. Raises `UsageError` for a text that is no time."""
    if text is None:
        return _now() - _USUAL_SPAN
    at = parse_time(text)
    if at is None:
        raise UsageError(f"--since must be a time such as 2026-11-24T12:00, not {text!r}")
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _now() -> int:
    return time.time_ns() // 1_000_000

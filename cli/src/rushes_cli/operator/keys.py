"""`keys`: API keys and monthly limits of a deployed stack's callers."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes_cli.confirming import confirm_removal
from rushes_cli.exits import CommandError, UsageError
from rushes_cli.limits import MAX_DOLLARS, micro_dollars
from rushes_cli.operator.deployment import operated
from rushes_cli.options import AsJson, Confirmed, Stack
from rushes_cli.output import Screen, iso, micros, money

if TYPE_CHECKING:
    from rushes.adapters.dynamodb.admin import AdminTable
    from rushes.domain.caller import ApiKey, Caller

Json = dict[str, Any]

keys = typer.Typer(no_args_is_help=True, help="Manage the API keys of a deployed stack, and their callers' limits.")

CallerName = Annotated[
    str,
    typer.Argument(
        metavar="CALLER", help="The caller's name: lower-case letters, digits and hyphens.", show_default=False
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        help="An S3 prefix for the caller's images besides the stack's bucket, as s3://photos/alice/; repeatable."
    ),
]
Limit = Annotated[str, typer.Option("--limit-usd", help="The caller's monthly limit in dollars.", show_default=False)]


@keys.command()
def create(
    caller: CallerName,
    limit_usd: Limit,
    name: Annotated[str | None, typer.Option(help="The key's name in lists.", show_default="the caller's name")] = None,
    images: Images = None,
    webhook_url: Annotated[
        str | None, typer.Option(help="The receiver of the caller's tasks that name none.", show_default=False)
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key for a caller. It is printed once; only its hash is stored.

    The limit and the receiver apply to the caller, with all its keys. Without --images or --webhook-url an existing
    caller keeps its own. Webhooks need a secret: `rushes webhooks secret create`.

    --json prints {"caller", "limit": dollars, "key"}.
    """
    from rushes.domain.caller import hash_key, new_key
    from rushes.domain.receiver_url import url_fault

    typed, key = _caller(caller, limit_usd, images), new_key()
    if webhook_url and (fault := url_fault(webhook_url, loopback=False)):
        raise UsageError(f"--webhook-url {fault}")
    with operated(stack) as deployment:
        merged = _with_stored_images(deployment.store, typed, images)
        deployment.store.add_key(hash_key(key), merged, name or caller, int(time.time() * 1000))
        if webhook_url:
            deployment.store.set_webhook_url(caller, webhook_url)
    screen = Screen(as_json)
    screen.print_json({"caller": merged.name, "limit": merged.monthly_limit / 1_000_000, "key": key})
    screen.print(key)


@keys.command("list")
def list_keys(
    caller: Annotated[
        str | None, typer.Argument(metavar="CALLER", help="Only the keys of this caller.", show_default=False)
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """List the API keys, with their callers' monthly limits and this month's spending.

    --json prints {"keys": [{"id", "caller", "name", "createdAt", "revokedAt", "limit", "spent": dollars}]}.
    """
    screen = Screen(as_json)
    month = datetime.now(UTC).strftime("%Y-%m")
    with operated(stack) as deployment:
        store = deployment.store
        found = [(caller, key) for key in store.keys(caller)] if caller else store.all_keys()
        names = {name for name, _ in found}
        limits = {name: store.caller_named(name) for name in names}
        spent = {name: store.budget(name, month)[0] for name in names}
    listed = [_as_json(name, key, limits[name], spent[name]) for name, key in found]
    screen.print_json({"keys": listed})
    screen.table(
        ("id", "caller", "name", "created", "state", "limit", "spent"),
        [
            (
                str(key["id"]),
                str(key["caller"]),
                str(key["name"]),
                screen.day_of(key["createdAt"]),
                f"revoked {screen.day_of(key['revokedAt'])}" if key["revokedAt"] else "active",
                money(micros(key["limit"])) if key["limit"] is not None else "-",
                money(micros(key["spent"])),
            )
            for key in listed
        ],
    )


@keys.command()
def limit(
    caller: CallerName,
    limit_usd: Annotated[str, typer.Argument(metavar="LIMIT_USD", help="The monthly limit in dollars.")],
    images: Images = None,
    stack: Stack = None,
) -> None:
    """Set a caller's monthly limit for orders by HTTP, file and event. It takes effect within a minute.

    This also creates a caller without a key, for orders by file or event only. Without --images its image prefixes are
    unchanged.
    """
    typed = _caller(caller, limit_usd, images)
    with operated(stack) as deployment:
        deployment.store.set_caller(_with_stored_images(deployment.store, typed, images))
    Screen().print(f"{caller} may spend {money(typed.monthly_limit)} a month.")


@keys.command()
def revoke(
    caller: CallerName,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The id or the name of the key, from `keys list`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Revoke all keys of the caller.")] = False,
    yes: Confirmed = False,
    stack: Stack = None,
) -> None:
    """Revoke a caller's API key within a minute. Clips already ordered with it are completed.

    The caller can still order by file and event; `rushes callers disable` prevents that.
    """
    with operated(stack) as deployment:
        store = deployment.store
        active = [each for each in store.keys(caller) if each.revoked_at is None]
        chosen = [each for each in active if every or (key and (each.name == key or each.key_hash.startswith(key)))]
        if not chosen and len(active) == 1 and key is None:
            chosen = active
        if not chosen:
            raise CommandError(f"{caller} has no such active key: `rushes keys list {caller}` shows all of them.")
        if len(chosen) > 1 and not every:
            raise UsageError("several keys have this name: use the id, or --all")
        named = ", ".join(f"{_id(each)} ({each.name})" for each in chosen)
        confirm_removal(f"Revoke {named} of {caller}? A revoked key never works again.", yes=yes)
        for each in chosen:
            store.revoke_key(each.key_hash, int(time.time() * 1000))
            Screen().print(f"The key {_id(each)} of {caller} was revoked.")


def _caller(name: str, limit_usd: str, images: Sequence[str] | None) -> "Caller":
    """The caller from arguments. Raises `UsageError` for an invalid name, limit or prefix."""
    from rushes.domain.caller import Caller, is_name

    if not is_name(name):
        raise UsageError("a caller's name has 1 to 64 lower-case letters, digits and hyphens")
    try:
        monthly_limit = micro_dollars(limit_usd)
    except ValueError:
        raise UsageError(f"{limit_usd!r} is not an amount from 0 to {MAX_DOLLARS} dollars") from None
    return Caller(name, monthly_limit, tuple(map(_image_source, images or ())))


def _with_stored_images(store: "AdminTable", caller: "Caller", images: Sequence[str] | None) -> "Caller":
    """The caller with the image prefixes on record, unless `images` replaces them."""
    stored = None if images else store.caller_named(caller.name)
    return caller._replace(image_sources=stored.image_sources) if stored else caller


def _image_source(address: str) -> str:
    """An image prefix in the form of a caller's record: `bucket/prefix`, from `s3://bucket/prefix`."""
    scheme, _, path = address.partition("://")
    bucket, slash, prefix = path.partition("/")
    if scheme != "s3" or not bucket or not slash:
        raise UsageError(f"{address} must have the form s3://bucket/ or s3://bucket/prefix")
    return f"{bucket}/{prefix}"


def _id(key: "ApiKey") -> str:
    """The key's id: the first characters of its hash."""
    return key.key_hash[:12]


def _as_json(caller: str, key: "ApiKey", limit: "Caller | None", spent: int) -> Json:
    return {
        "id": _id(key),
        "caller": caller,
        "name": key.name,
        "createdAt": iso(key.made_at),
        "revokedAt": iso(key.revoked_at),
        "limit": limit.monthly_limit / 1_000_000 if limit else None,
        "spent": spent / 1_000_000,
    }

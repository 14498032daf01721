"""`keys`: who may use a deployed stack, and for how much a month."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rushes_cli.exits import CommandError, UsageError
from rushes_cli.limits import MAX_DOLLARS, micro_dollars
from rushes_cli.operator.deployment import operated
from rushes_cli.options import AsJson, Stack
from rushes_cli.output import Screen, iso, micros, money

if TYPE_CHECKING:
    from rushes.adapters.dynamodb.admin import AdminTable
    from rushes.domain.caller import ApiKey, Caller

Json = dict[str, Any]

keys = typer.Typer(no_args_is_help=True, help="API keys of a deployed stack, and their callers' limits.")

Named = Annotated[
    str,
    typer.Argument(metavar="CALLER", help="The caller: lower-case letters, digits and hyphens.", show_default=False),
]
Images = Annotated[
    list[str] | None,
    typer.Option(help="Where its images may lie besides our bucket, as s3://photos/alice/; may be repeated."),
]
Limit = Annotated[str, typer.Option("--limit-usd", help="What the caller may spend in a month.", show_default=False)]


@keys.command()
def create(
    caller: Named,
    limit_usd: Limit,
    name: Annotated[
        str | None, typer.Option(help="What the key is called, for people.", show_default="its caller")
    ] = None,
    images: Images = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key for a caller. It is shown once; only its hash is kept.

    The limit is the caller's, whatever other keys it has. Without --images a caller that is known keeps the places of
    its images.

    --json prints {"caller", "limit": dollars, "key"}.
    """
    from rushes.domain.caller import hash_key, new_key

    wanted, key = _caller(caller, limit_usd, images), new_key()
    with operated(stack) as deployment:
        known = _completed(deployment.store, wanted, images)
        deployment.store.add_key(hash_key(key), known, name or caller, int(time.time() * 1000))
    screen = Screen(as_json)
    screen.give({"caller": known.name, "limit": known.monthly_limit / 1_000_000, "key": key})
    screen.say(key)


@keys.command("list")
def list_keys(
    caller: Annotated[
        str | None, typer.Argument(metavar="CALLER", help="Only this caller's.", show_default=False)
    ] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """List the API keys, with their callers' limits and what they have spent this month.

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
    shown = [_shown(name, key, limits[name], spent[name]) for name, key in found]
    screen.give({"keys": shown})
    screen.table(
        ("id", "caller", "name", "created", "state", "limit", "spent"),
        [
            (
                str(key["id"]),
                str(key["caller"]),
                str(key["name"]),
                str(key["createdAt"])[:10],
                f"revoked {str(key['revokedAt'])[:10]}" if key["revokedAt"] else "in use",
                money(micros(key["limit"])) if key["limit"] is not None else "-",
                money(micros(key["spent"])),
            )
            for key in shown
        ],
    )


@keys.command()
def limit(
    caller: Named,
    limit_usd: Annotated[str, typer.Argument(metavar="LIMIT_USD", help="Dollars a month.")],
    images: Images = None,
    stack: Stack = None,
) -> None:
    """Set what a caller may spend in a month, by whichever door it comes in. Functions see it within a minute.

    A caller that orders by file or event alone is made so: it needs no key.
    Without --images the places of its images stay as they are.
    """
    wanted = _caller(caller, limit_usd, images)
    with operated(stack) as deployment:
        deployment.store.set_caller(_completed(deployment.store, wanted, images))
    Screen().say(f"{caller} may spend {money(wanted.monthly_limit)} a month.")


@keys.command()
def revoke(
    caller: Named,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="Which key: its id or its name, as `keys list` tells them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of the caller's keys.")] = False,
    stack: Stack = None,
) -> None:
    """Make a caller's key worthless, within a minute. What was ordered with it is seen through.

    Its files and events are still taken: `rushes callers disable` closes those doors as well.
    """
    with operated(stack) as deployment:
        store = deployment.store
        mine = [each for each in store.keys(caller) if each.revoked_at is None]
        chosen = [each for each in mine if every or (key and (each.name == key or each.key_hash.startswith(key)))]
        if not chosen and len(mine) == 1 and key is None:
            chosen = mine
        if not chosen:
            raise CommandError(f"{caller} has no such key in use: `rushes keys list {caller}` shows what there is.")
        if len(chosen) > 1 and not every:
            raise UsageError("that names several keys; name one by its id")
        for each in chosen:
            store.revoke_key(each.key_hash, int(time.time() * 1000))
            Screen().say(f"The key {_id(each)} of {caller} is revoked.")


def _caller(name: str, limit_usd: str, images: Sequence[str] | None) -> "Caller":
    """A caller as typed. Raises `UsageError` for what cannot be one."""
    from rushes.domain.caller import Caller, is_name

    if not is_name(name):
        raise UsageError("a caller is named by at most 64 lower-case letters, digits and hyphens")
    try:
        monthly_limit = micro_dollars(limit_usd)
    except ValueError:
        raise UsageError(f"{limit_usd!r} is not an amount from 0 to {MAX_DOLLARS} dollars") from None
    return Caller(name, monthly_limit, tuple(map(_image_source, images or ())))


def _completed(store: "AdminTable", wanted: "Caller", images: Sequence[str] | None) -> "Caller":
    before = None if images else store.caller_named(wanted.name)
    return replace(wanted, image_sources=before.image_sources) if before else wanted


def _image_source(address: str) -> str:
    """A place of images as a caller's record has it: `bucket/prefix`, from `s3://bucket/prefix`."""
    scheme, _, place = address.partition("://")
    bucket, slash, prefix = place.partition("/")
    if scheme != "s3" or not bucket or not slash:
        raise UsageError(f"{address} is not s3://bucket/ with a prefix or none")
    return f"{bucket}/{prefix}"


def _id(key: "ApiKey") -> str:
    """Enough of the hash to name the key."""
    return key.key_hash[:12]


def _shown(caller: str, key: "ApiKey", limit: "Caller | None", spent: int) -> Json:
    return {
        "id": _id(key),
        "caller": caller,
        "name": key.name,
        "createdAt": iso(key.made_at),
        "revokedAt": iso(key.revoked_at),
        "limit": limit.monthly_limit / 1_000_000 if limit else None,
        "spent": spent / 1_000_000,
    }

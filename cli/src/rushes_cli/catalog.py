"""`models`: what can be ordered and at which prices; `models check`: the same beside Runware's own registry."""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import typer

from rushes_cli.api_client import ApiClient
from rushes_cli.exits import CommandError, Exit, UnavailableError
from rushes_cli.options import AsJson, Profile, session

Json = dict[str, Any]

REGISTRY = "https://schemas.runware.ai/registry.json"
_TIMEOUT = 20.0  # seconds
_MAX_BYTES = 20_000_000
_IN_USE = timedelta(days=35)

models = typer.Typer(invoke_without_command=True)


@models.callback()
def list_models(context: typer.Context, as_json: AsJson = False, profile: Profile = None) -> None:
    """List the models that can be ordered, with their durations, sizes and prices.

    --json prints {"models": [model]}, each as `GET /models` has it.
    """
    if context.invoked_subcommand is not None:
        return
    with session(profile, as_json=as_json) as (screen, service):
        found = service.models()
        screen.print_json({"models": found})
        rows = [(each["air"], each["name"], _status(each), _durations(each), _prices(each)) for each in found]
        screen.table(("model", "name", "status", "seconds", "price of a second"), rows)


class Comparison(NamedTuple):
    """The catalog beside the registry: models that the registry lacks, and video models that only it has."""

    gone: list[str]
    new: list[str]


@models.command("check")
def check(
    registry: Annotated[str, typer.Option(help="The address of Runware's registry.")] = REGISTRY,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Compare the models with Runware's public registry: those that it no longer has, and its new video models.

    Exits with 1 if it lacks a model that you have ordered in the last 35 days. Nothing is changed. The registry has no
    prices: compare them with the models' pages.

    --json prints {"gone": [model], "new": [model], "inUse": [model]}; "inUse" has the models of your recent orders.
    """
    with session(profile, as_json=as_json) as (screen, service):
        found = service.models()
        comparison = compare({str(each["air"]) for each in found}, _fetch(registry, os.environ))
        in_use = sorted(_ordered(service))
        screen.print_json({**comparison._asdict(), "inUse": in_use})
        for air in comparison.gone:
            used = ", and you have ordered it in the last 35 days" if air in in_use else ""
            screen.print(f"gone: {air} is not in Runware's registry{used}", "red")
        for air in comparison.new:
            screen.print(f"new: {air}")
        if not comparison.gone:
            screen.info("Runware's registry has all models of the catalog.")
    if set(comparison.gone) & set(in_use):
        raise typer.Exit(Exit.FAILED)


def compare(catalog: set[str], registry: Mapping[str, object]) -> Comparison:
    """Compares identifiers with the registry's `models`, an object by identifier with each model's `taskType`."""
    videos = {air for air, entry in registry.items() if isinstance(entry, dict) and _is_video(entry)}
    return Comparison(sorted(catalog - videos), sorted(videos - catalog))


def _is_video(entry: Mapping[str, object]) -> bool:
    return entry.get("taskType") == "videoInference"


def _fetch(url: str, environment: Mapping[str, str]) -> Mapping[str, object]:
    """The registry's models. Unchanged content is read from the copy of an earlier call. Raises `CommandError`."""
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = Path(home) / "rushes" / "registry.json"
    kept = _read(path)
    known = kept if kept.get("url") == url else {}
    headers = {"If-None-Match": str(known["etag"])} if known.get("etag") else {}
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            response = client.get(url, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"Runware's registry cannot be reached: {error}", sent=False) from None
    if response.status_code == httpx.codes.NOT_MODIFIED and known:
        return dict(known["models"])
    if not response.is_success or len(response.content) > _MAX_BYTES:
        raise UnavailableError(f"Runware's registry answered {response.status_code}.", sent=False)
    try:
        content = response.json()
    except ValueError:
        content = None
    listed = content.get("models") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise CommandError("Runware's registry has another form than expected; nothing was compared.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"url": url, "etag": response.headers.get("ETag", ""), "models": listed}))
    return listed


def _read(path: Path) -> Json:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("models"), dict) else {}


def _ordered(service: ApiClient) -> set[str]:
    """The models of the caller's recent clips."""
    today = datetime.now(UTC).date()
    lines = service.costs((today - _IN_USE).isoformat(), today.isoformat())
    return {str(line["model"]) for line in lines if line.get("model")}


def _status(model: Mapping[str, Any]) -> str:
    status = model["status"]
    if status["state"] == "live":
        return "live"
    word = {"leaving": "ends", "gone": "ended"}.get(status["state"], status["state"])
    return f"{word}{' ' + status['date'] if status.get('date') else ''}, then {status.get('successor')}"


def _durations(model: Mapping[str, Any]) -> str:
    limits = model["parameters"]["duration"]
    return ", ".join(map(str, limits.get("values") or [f"{limits.get('minimum')} to {limits.get('maximum')}"]))


def _prices(model: Mapping[str, Any]) -> str:
    prices = sorted(_per_second(model))
    low, high = (f"${price / 1_000_000:.4g}" for price in (prices[0], prices[-1]))
    return low if low == high else f"{low} to {high}"


def _per_second(model: Mapping[str, Any]) -> Iterator[int]:
    for row in model["prices"]:
        yield row["perSecond"] if row.get("perSecond") else round(row["perClip"] / min(row["when"]["duration"]))

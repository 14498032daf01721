"""`models`: what can be ordered and at which prices; `models check`: the same beside Runware's own lists."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import typer

from rushes_cli.api_client import ApiClient
from rushes_cli.exits import CommandError, Exit, UnavailableError
from rushes_cli.options import AsJson, Profile, session

Json = dict[str, Any]

REGISTRY = "https://schemas.runware.ai/registry.json"
PRICES = "https://content.runware.ai/models"
_TIMEOUT = 20.0  # seconds
_MAX_BYTES = 20_000_000
_IN_USE = timedelta(days=35)
_DOLLARS = re.compile(r"\$(\d{1,9}(\.\d{1,9})?)")

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


class Dearer(NamedTuple):
    """A price in Runware's list above that of the catalog, in dollars. `configuration` is the list's name for it."""

    model: str
    configuration: str
    catalog: float
    now: float


class PriceComparison(NamedTuple):
    """The catalog beside the price list: higher prices, and models none of whose configurations is in the list."""

    dearer: list[Dearer]
    unlisted: list[str]


@models.command("check")
def check(
    registry: Annotated[str, typer.Option(help="The address of Runware's registry.")] = REGISTRY,
    prices: Annotated[str, typer.Option(help="The address of Runware's price list.")] = PRICES,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Compare the models with Runware's registry and price list: those that are gone, new or dearer.

    Exits with 1 if the registry lacks a model that you have ordered in the last 35 days, or its price has risen.
    Nothing is changed. Without an answer of the price list, only the models are compared.

    --json prints {"gone": [model], "new": [model], "dearer": [price], "unlisted": [model], "inUse": [model]}. A price
    has "model", "configuration", "catalog" and "now" in dollars; the prices of "unlisted" models could not be compared;
    "inUse" has the models of your recent orders.
    """
    with session(profile, as_json=as_json) as (screen, service):
        found = service.models()
        comparison = compare({str(each["air"]) for each in found}, _registry(registry, os.environ))
        try:
            prices_now = compare_prices(found, _fetch(prices, "price list", os.environ))
        except CommandError as error:
            screen.warn(str(error))
            prices_now = compare_prices(found, [])
        in_use = sorted(_ordered(service))
        dearer = [each._asdict() for each in prices_now.dearer]
        screen.print_json({**comparison._asdict(), "dearer": dearer, "unlisted": prices_now.unlisted, "inUse": in_use})
        for air in comparison.gone:
            screen.print(f"gone: {air} is not in Runware's registry{_use(air, in_use)}", "red")
        for air in comparison.new:
            screen.print(f"new: {air}")
        for each in prices_now.dearer:
            change = f"${each.now:g} instead of ${each.catalog:g} for {each.configuration}"
            screen.print(f"dearer: {each.model}, {change}{_use(each.model, in_use)}", "red")
        if not comparison.gone:
            screen.info("Runware's registry has all models of the catalog.")
        if prices_now.unlisted:
            screen.info(f"Prices were not compared of {', '.join(prices_now.unlisted)}.")
    if {*comparison.gone, *(each.model for each in prices_now.dearer)} & set(in_use):
        raise typer.Exit(Exit.FAILED)


def compare(catalog: set[str], registry: Mapping[str, object]) -> Comparison:
    """Compares identifiers with the registry's `models`, an object by identifier with each model's `taskType`."""
    videos = {air for air, entry in registry.items() if isinstance(entry, dict) and _is_video(entry)}
    return Comparison(sorted(catalog - videos), sorted(videos - catalog))


def compare_prices(catalog: Sequence[Json], listed: object) -> PriceComparison:
    """Compares the catalog with Runware's list of models, each with `air` and its `pricingExamples`.

    A configuration that the catalog does not name is left out. Raises `CommandError` for a list of another form.
    """
    if not isinstance(listed, list):
        raise CommandError("Runware's price list has another form than expected.")
    known = {str(each["air"]): each.get("listedPrices", {}) for each in catalog}
    compared, dearer = set(), []
    for air, configuration, price in (example for entry in listed for example in _examples(entry)):
        if before := known.get(air, {}).get(configuration):
            compared.add(air)
            if price > before:
                dearer.append(Dearer(air, configuration, before / 1_000_000, price / 1_000_000))
    return PriceComparison(sorted(dearer), sorted(known.keys() - compared))


def _examples(entry: object) -> Iterator[tuple[str, str, int]]:
    """The identifier, configuration and price in micro-dollars of each price of an entry, which may have any form."""
    if not isinstance(entry, dict):
        return
    examples = entry.get("pricingExamples")
    for example in examples if isinstance(examples, list) else ():
        if isinstance(example, dict) and (price := _DOLLARS.fullmatch(str(example.get("price")))):
            yield str(entry.get("air")), str(example.get("configuration")), int(Decimal(price[1]) * 1_000_000)


def _use(air: str, in_use: Sequence[str]) -> str:
    return ", and you have ordered it in the last 35 days" if air in in_use else ""


def _is_video(entry: Mapping[str, object]) -> bool:
    return entry.get("taskType") == "videoInference"


def _registry(url: str, environment: Mapping[str, str]) -> Mapping[str, object]:
    """The registry's models. Raises `CommandError`."""
    content = _fetch(url, "registry", environment)
    listed = content.get("models") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise CommandError("Runware's registry has another form than expected; nothing was compared.")
    return listed


def _fetch(url: str, name: str, environment: Mapping[str, str]) -> object:
    """One of Runware's lists. Unchanged content is read from the copy of an earlier call. Raises `CommandError`."""
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = Path(home) / "rushes" / f"{name.replace(' ', '-')}.json"
    kept = _read(path)
    known = kept if kept.get("url") == url else {}
    headers = {"If-None-Match": str(known["etag"])} if known.get("etag") else {}
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            response = client.get(url, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"Runware's {name} cannot be reached: {error}", sent=False) from None
    if response.status_code == httpx.codes.NOT_MODIFIED and known:
        return known["content"]
    if not response.is_success or len(response.content) > _MAX_BYTES:
        raise UnavailableError(f"Runware's {name} answered {response.status_code}.", sent=False)
    try:
        content: object = response.json()
    except ValueError:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"url": url, "etag": response.headers.get("ETag", ""), "content": content}))
    return content


def _read(path: Path) -> Json:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "content" in content else {}


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

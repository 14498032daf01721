"""What a clip costs besides Runware's price: what was counted times public prices, as the tables of docs/costs.md.

Responsible for what cannot be measured on one machine (times in Lambda, the lines that AWS itself logs) and for the
month's fixed costs: constants below. `python -m scripts.cost_report` counts, and writes what stands between the page's
two markers; the words around them are kept by hand.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rushes.services.ports import Metric
from rushes_local.template import Template
from scripts.cost_report.metering import ClipUsage, Usage, measure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "costs.md"
_BEGIN, _END = "<!-- written by `make costs`, up to the end mark -->", "<!-- end -->"

MILLION = 1_000_000
_GB = 1_000_000_000

# Billed milliseconds of one warm invocation. Times on a developer's machine say nothing about Lambda, and Runware's
# answer, a TLS handshake included, is most of what `submit` waits for.
# `publish` reads a stored clip as a stream; a change that is no news it only looks at.
MILLISECONDS = {"submit": 350, "webhook": 60, "reconcile": 30, "publish": 5}
DIGEST_MILLISECONDS = 300
# What a clip adds to the sweeps that look at it: a poll; a download and an upload.
SWEEP_MILLISECONDS = {"happy": 0, "polled": 300, "rescued": 2500, "refused": 0}
IDLE_SWEEP_MILLISECONDS = 60

PLATFORM_LOG_BYTES = 360  # START, END and REPORT of one invocation
ACCESS_LOG_BYTES = 370  # one line of an API's access log
# A million clips a month are over a hundred in the five minutes that secrets are kept, on a handful of processes.
CLIPS_A_FETCH = 20
SECRETS_KEPT_MINUTES = 5
MINUTES_A_MONTH = 730 * 60
# A function takes messages from its queue with five long polls at a time, of 20 seconds each.
EMPTY_POLLS_A_MINUTE = 15

_TITLES = {
    "happy": "Happy",
    "polled": "Webhook lost, polled",
    "rescued": "Upload lost, rescued",
    "refused": "Refused by Runware",
}


@dataclass(frozen=True)
class Prices:
    """Public list prices, by what they are for, in dollars for one."""

    each: Mapping[str, float]

    @classmethod
    def read(cls) -> "Prices":
        content = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
        return cls({name: price["dollars"] / price["per"] for name, price in content["prices"].items()})


@dataclass(frozen=True)
class CostLine:
    """So many of something that has a price, and where the number comes from."""

    item: str
    quantity: float
    formula: str = ""

    def dollars(self, prices: Prices) -> float:
        return self.quantity * prices.each[self.item]


def total(lines: Iterable[CostLine], prices: Prices) -> float:
    """In dollars."""
    return sum(line.dollars(prices) for line in lines)


def clip_lines(measured: ClipUsage, path: str) -> list[CostLine]:
    """What one clip on a path uses, with its share of the caches."""
    usage = measured.paths[path]
    seconds = {name: MILLISECONDS[name] * times / 1000 for name, times in usage.invocations.items()}
    seconds["reconcile"] = seconds.get("reconcile", 0) + SWEEP_MILLISECONDS[path] / 1000
    gb_seconds = sum(measured.memory_mb[name] / 1024 * seconds[name] for name in sorted(seconds))
    fetched = measured.caches
    calls = usage.calls
    return [
        CostLine("DynamoDB write unit", usage.write_units),
        CostLine("DynamoDB read unit", usage.read_units + fetched.read_units / CLIPS_A_FETCH),
        CostLine("S3 PUT", calls["s3 PUT"]),
        CostLine("S3 GET", calls["s3 GET"]),
        CostLine("EventBridge event", usage.messages),
        CostLine("SQS request", 3 * usage.messages),
        CostLine("HTTP API request", usage.http_requests),
        CostLine("Lambda request", usage.invocations.total()),
        CostLine("Lambda GB-second", gb_seconds),
        CostLine("Secrets Manager call", fetched.calls["secretsmanager GetSecretValue"] / CLIPS_A_FETCH),
        CostLine("CloudWatch log GB", _rounded(_logged(usage)) / _GB),
    ]


def told_lines(measured: ClipUsage) -> list[CostLine]:
    """What telling of one clip uses, on top of any path that ends with it stored: the event and the manifest."""
    usage = measured.told
    seconds = (usage.invocations.total() * MILLISECONDS["publish"] + DIGEST_MILLISECONDS) / 1000
    # The manifest is an object as well, so S3 has an event for it.
    events = usage.calls["events PutEvents"] + usage.calls["s3 PUT"]
    return [
        CostLine("DynamoDB read unit", usage.read_units),
        CostLine("S3 PUT", usage.calls["s3 PUT"]),
        CostLine("S3 GET", usage.calls["s3 GET"]),
        CostLine("EventBridge event", events),
        CostLine("Lambda request", usage.invocations.total()),
        CostLine("Lambda GB-second", measured.memory_mb["publish"] / 1024 * seconds),
        CostLine("CloudWatch log GB", _rounded(_logged(usage)) / _GB),
    ]


def fixed_lines(measured: ClipUsage, template: Template) -> list[CostLine]:
    """What a month costs without a single clip."""
    sweeps, idle = MINUTES_A_MONTH, measured.idle_sweep
    idle_seconds = sweeps * measured.memory_mb["reconcile"] / 1024 * IDLE_SWEEP_MILLISECONDS / 1000
    sources = sum(len(function.queues) for function in template.functions())
    fetches = 2 * MINUTES_A_MONTH // SECRETS_KEPT_MINUTES
    return [
        CostLine("Secrets Manager secret-month", len(template.secrets()), "secrets"),
        CostLine("Secrets Manager call", fetches, f"two secrets every {SECRETS_KEPT_MINUTES} minutes, by the sweeps"),
        CostLine("Lambda request", sweeps, "a sweep a minute"),
        CostLine("Lambda GB-second", idle_seconds, f"{IDLE_SWEEP_MILLISECONDS} ms a sweep"),
        CostLine(
            "DynamoDB read unit", sweeps * idle.read_units, f"{idle.read_units:g} a sweep, over the index's shards"
        ),
        CostLine("CloudWatch log GB", sweeps * _logged(idle) / _GB, f"{_logged(idle)} bytes a sweep"),
        CostLine(
            "SQS request", sources * EMPTY_POLLS_A_MINUTE * MINUTES_A_MONTH, "polls of the empty queues, by Lambda"
        ),
        CostLine("CloudWatch metric-month", len(Metric), "metrics, if each occurs in the month"),
        CostLine("CloudWatch alarm-month", template.number_of("AWS::CloudWatch::Alarm"), "alarms"),
        CostLine("CloudWatch dashboard-month", template.number_of("AWS::CloudWatch::Dashboard"), "dashboards"),
    ]


def render(text: str, measured: ClipUsage, template: Template, prices: Prices) -> str:
    """The page with its tables as they are now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    tables = [_clips(measured, prices), _told(measured, prices), _month(measured, template, prices)]
    return "\n\n".join([before + _BEGIN, *tables, _END + after])


def _clips(measured: ClipUsage, prices: Prices) -> str:
    paths = measured.paths
    titles = [_TITLES[path] for path in paths]
    counts = [_counts(usage) for usage in paths.values()]
    names = [*sorted({call for usage in paths.values() for call in usage.calls}), *_UNITS]
    counted = [[name, *(f"{count.get(name, 0):g}" for count in counts)] for name in names]
    lines = [clip_lines(measured, path) for path in paths]
    priced = [[row[0].item, *(_million([line], prices) for line in row)] for row in zip(*lines, strict=True)]
    sums = ["**all**", *(f"**{_million(each, prices)}**" for each in lines)]
    return _section(
        "One clip",
        _table(["a clip", *titles], counted),
        _table(["dollars a million", *titles], [*priced, sums]),
    )


def _told(measured: ClipUsage, prices: Prices) -> str:
    counts, lines, happy = _counts(measured.told), told_lines(measured), clip_lines(measured, "happy")
    counted = [[name, f"{count:g}"] for name, count in counts.items() if count]
    sums = [
        ["**told: event and manifest**", f"**{_million(lines, prices)}**"],
        ["bought and recorded, the happy path above", _million(happy, prices)],
        ["**all together**", f"**{_million([*happy, *lines], prices)}**"],
    ]
    priced = [[line.item, _million([line], prices)] for line in lines]
    return _section(
        "Told: event and manifest",
        _table(["a clip", "told"], counted),
        _table(["dollars a million", "told"], [*priced, *sums]),
    )


def _month(measured: ClipUsage, template: Template, prices: Prices) -> str:
    lines = fixed_lines(measured, template)
    rows = [[line.item, f"{line.quantity:,.10g}", line.formula, f"{line.dollars(prices):.2f}"] for line in lines]
    fixed = total(lines, prices)
    clip = total([*clip_lines(measured, "happy"), *told_lines(measured)], prices)
    return _section(
        "A month",
        _table(["without a clip", "how many", "what", "dollars"], [*rows, ["**all**", "", "", f"**{fixed:.2f}**"]]),
        _table(
            ["clips a month, told", "dollars"], [[f"{n:,}", f"{fixed + n * clip:.2f}"] for n in (0, 1_000, 100_000)]
        ),
    )


_UNITS = ("write units", "read units", "invocations", "HTTP requests", "uploads noticed", "log bytes, rounded")


def _counts(usage: Usage) -> dict[str, float]:
    """What is counted of a clip, by the names of the page."""
    units = (
        usage.write_units,
        usage.read_units,
        usage.invocations.total(),
        usage.http_requests,
        usage.messages,
        _rounded(_logged(usage)),
    )
    return {**dict(sorted(usage.calls.items())), **dict(zip(_UNITS, units, strict=True))}


def _logged(usage: Usage) -> int:
    invocations, requests = usage.invocations.total(), usage.http_requests
    return usage.log_bytes + invocations * PLATFORM_LOG_BYTES + requests * ACCESS_LOG_BYTES


def _rounded(size: int) -> int:
    """To hundreds of bytes: a log line's length changes a little from run to run."""
    return round(size, -2)


def _million(lines: Iterable[CostLine], prices: Prices) -> str:
    """Dollars for a million clips."""
    return f"{MILLION * total(lines, prices):.2f}"


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, numbers, *rows])


def main() -> None:
    """Count, write the tables, and print the page."""
    text = render(PAGE.read_text(encoding="utf-8"), measure(ROOT), Template(ROOT / "template.yaml"), Prices.read())
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

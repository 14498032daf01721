"""The cost of a clip besides Runware's price: measured usage times public prices, as the tables of docs/costs.md.

Holds, as constants, everything that cannot be measured on one machine: times in Lambda, the lines that AWS itself logs,
and the month's fixed costs. `python -m scripts.cost_report` measures, and writes the tables between the page's two
markers; the text around them is kept by hand.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rushes.services.metric import Metric
from rushes_local.template import Template
from scripts.cost_report.metering import ClipUsage, Usage, measure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "costs.md"
_BEGIN, _END = "<!-- written by `make costs`, up to the end mark -->", "<!-- end -->"

MILLION = 1_000_000
_GB = 1_000_000_000

# Billed milliseconds of one warm invocation. A developer's machine cannot measure them for Lambda. Most of the time of
# `submit` is Runware's answer, and of `deliver` the receiver's, TLS handshakes included. `publish` reads a stored clip
# as a stream; a change without an event takes it only the time to read the change.
MILLISECONDS = {"submit": 350, "webhook": 60, "reconcile": 30, "publish": 5, "deliver": 250}
DIGEST_MILLISECONDS = 300
# Billed milliseconds that a clip adds to the sweeps that look at it: a poll; a download and an upload.
SWEEP_MILLISECONDS = {"happy": 0, "polled": 300, "rescued": 2500, "refused": 0}
IDLE_SWEEP_MILLISECONDS = 60

PLATFORM_LOG_BYTES = 360  # START, END and REPORT of one invocation
ACCESS_LOG_BYTES = 370  # one line of an API's access log
# A million clips a month are over a hundred in the five minutes that secrets are cached, on a handful of processes.
CLIPS_A_FETCH = 20
SECRETS_KEPT_MINUTES = 5
MINUTES_A_MONTH = 730 * 60
# Lambda polls a function's queue with five concurrent long polls of 20 seconds each.
EMPTY_POLLS_A_MINUTE = 15

_TITLES = {
    "happy": "Happy",
    "polled": "Webhook lost, polled",
    "rescued": "Upload lost, rescued",
    "refused": "Refused by Runware",
}


@dataclass(frozen=True)
class Prices:
    """Public list prices by item, in dollars for one."""

    each: Mapping[str, float]

    @classmethod
    def read(cls) -> "Prices":
        content = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
        return cls({name: price["dollars"] / price["per"] for name, price in content["prices"].items()})


@dataclass(frozen=True)
class CostLine:
    """A quantity of an item that has a price, and the origin of the quantity."""

    item: str
    quantity: float
    formula: str = ""

    def dollars(self, prices: Prices) -> float:
        return self.quantity * prices.each[self.item]


def total(lines: Iterable[CostLine], prices: Prices) -> float:
    """The sum of the lines, in dollars."""
    return sum(line.dollars(prices) for line in lines)


def clip_lines(measured: ClipUsage, path: str) -> list[CostLine]:
    """The usage of one clip on a path, with its share of filling the caches."""
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


def published_lines(measured: ClipUsage) -> list[CostLine]:
    """The usage of publishing one stored clip, on top of its path: the event and the manifest."""
    usage = measured.published
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


def delivered_lines(measured: ClipUsage) -> list[CostLine]:
    """The usage of one webhook to a caller that is accepted at once, on top of purchase and publication."""
    usage = measured.delivered
    return [
        CostLine("DynamoDB write unit", usage.write_units),
        CostLine("DynamoDB read unit", usage.read_units),
        CostLine("SQS request", 3 * usage.messages),
        CostLine("Lambda request", usage.invocations.total()),
        CostLine("Lambda GB-second", measured.memory_mb["deliver"] / 1024 * MILLISECONDS["deliver"] / 1000),
        CostLine("CloudWatch log GB", _rounded(_logged(usage)) / _GB),
    ]


def fixed_lines(measured: ClipUsage, template: Template) -> list[CostLine]:
    """The usage of a month without a single clip."""
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
    """The page with its tables replaced by the current ones."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    tables = [
        _clips(measured, prices),
        _published(measured, prices),
        _delivered(measured, prices),
        _month(measured, template, prices),
    ]
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


def _published(measured: ClipUsage, prices: Prices) -> str:
    counts, lines, happy = _counts(measured.published), published_lines(measured), clip_lines(measured, "happy")
    counted = [[name, f"{count:g}"] for name, count in counts.items() if count]
    sums = [
        ["**published: event and manifest**", f"**{_million(lines, prices)}**"],
        ["bought and recorded, the happy path above", _million(happy, prices)],
        ["**all together**", f"**{_million([*happy, *lines], prices)}**"],
    ]
    priced = [[line.item, _million([line], prices)] for line in lines]
    return _section(
        "Published: event and manifest",
        _table(["a clip", "published"], counted),
        _table(["dollars a million", "published"], [*priced, *sums]),
    )


def _delivered(measured: ClipUsage, prices: Prices) -> str:
    counted = [[name, f"{count:g}"] for name, count in _counts(measured.delivered).items() if count]
    lines = delivered_lines(measured)
    priced = [[line.item, _million([line], prices)] for line in lines]
    return _section(
        "A webhook to the caller, accepted at once",
        _table(["a clip", "delivered"], counted),
        _table(["dollars a million", "delivered"], [*priced, ["**all**", f"**{_million(lines, prices)}**"]]),
    )


def _month(measured: ClipUsage, template: Template, prices: Prices) -> str:
    lines = fixed_lines(measured, template)
    rows = [[line.item, f"{line.quantity:,.10g}", line.formula, f"{line.dollars(prices):.2f}"] for line in lines]
    fixed = total(lines, prices)
    clip = total([*clip_lines(measured, "happy"), *published_lines(measured)], prices)
    return _section(
        "A month",
        _table(["without a clip", "quantity", "origin", "dollars"], [*rows, ["**all**", "", "", f"**{fixed:.2f}**"]]),
        _table(
            ["clips a month, published", "dollars"],
            [[f"{n:,}", f"{fixed + n * clip:.2f}"] for n in (0, 1_000, 100_000)],
        ),
    )


_UNITS = (
    "write units",
    "of these for budgets",
    "read units",
    "invocations",
    "HTTP requests",
    "uploads noticed",
    "log bytes, rounded",
)


def _counts(usage: Usage) -> dict[str, float]:
    """The counts of a clip, by their names on the page."""
    units = (
        usage.write_units,
        usage.budget_units,
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
    """The size in hundreds of bytes, since a log line's length differs a little from run to run."""
    return round(size, -2)


def _million(lines: Iterable[CostLine], prices: Prices) -> str:
    """The dollars for a million clips, with two decimals."""
    return f"{MILLION * total(lines, prices):.2f}"


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, numbers, *rows])


def main() -> None:
    """Measures, writes the tables, and prints the page."""
    text = render(PAGE.read_text(encoding="utf-8"), measure(ROOT), Template(ROOT / "template.yaml"), Prices.read())
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

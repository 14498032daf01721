"""What a clip costs besides Runware's price: what was measured times public prices, as the page docs/costs.md.

Responsible for what cannot be measured on one machine (times in Lambda, the lines that AWS itself logs), for the
month's fixed costs, and for the same task done in other ways, on paper. All of that stands in the constants below and
is printed with the page. `python -m scripts.cost_report` measures, prints the page and writes it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from textwrap import fill

from rushes.services.ports import Metric
from rushes_local.template import Template
from scripts.cost_report.metering import Measured, Usage, measure

ROOT = Path(__file__).parents[2]
PAGE = Path("docs") / "costs.md"
_PRICE_LINK = "../scripts/cost_report/prices.json"

MILLION = 1_000_000
_GB = 1_000_000_000

# Billed milliseconds of one warm invocation. Times on a developer's machine say nothing about Lambda, and Runware's
# answer, a TLS handshake included, is most of what `submit` waits for.
# `announce` reads a stored clip as a stream; a change that is no news it only looks at.
MILLISECONDS = {"submit": 350, "webhook": 60, "reconcile": 30, "announce": 5}
DIGEST_MILLISECONDS = 300
# What a clip adds to the sweeps that look at it: a poll; a download and an upload.
SWEEP_MILLISECONDS = {"happy": 0, "polled": 300, "rescued": 2500, "refused": 0}
IDLE_SWEEP_MILLISECONDS = 60
COLD_START_MILLISECONDS = 1200

PLATFORM_LOG_BYTES = 360  # START, END and REPORT of one invocation
ACCESS_LOG_BYTES = 370  # one line of an API's access log
# A million clips a month are over a hundred in the five minutes that secrets are kept, on a handful of processes.
CLIPS_A_FETCH = 20
SECRETS_KEPT_MINUTES = 5
MINUTES_A_MONTH = 730 * 60
# A function takes messages from its queue with five long polls at a time, of 20 seconds each.
EMPTY_POLLS_A_MINUTE = 15

CLIP_MB = 15
PART_MB = 8  # a rescue copies larger clips in parts
TASK_KB = 2.5  # a task's two items and their index entries, with a prompt as long as those of the model's page

RENDER_SECONDS = 240
WAITING_GB = 0.25  # a function that only waits gets the least memory that loads its libraries in time
DURABLE_KB = 4  # an order and a result, and what is written around them
DURABLE_DAYS = 14

_TITLES = {
    "happy": "Happy",
    "polled": "Webhook lost, polled",
    "rescued": "Upload lost, rescued",
    "refused": "Refused by Runware",
}


@dataclass(frozen=True)
class Prices:
    """Public list prices, by what they are for, in dollars for one."""

    as_of: str
    region: str
    each: Mapping[str, float]

    @classmethod
    def read(cls) -> "Prices":
        content = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
        each = {name: price["dollars"] / price["per"] for name, price in content["prices"].items()}
        return cls(content["as_of"], content["region"], each)


@dataclass(frozen=True)
class Line:
    """So many of something that has a price, and where the number comes from."""

    item: str
    quantity: float
    formula: str = ""

    def dollars(self, prices: Prices) -> float:
        return self.quantity * prices.each[self.item]


def total(lines: Iterable[Line], prices: Prices) -> float:
    """In dollars."""
    return sum(line.dollars(prices) for line in lines)


def clip_lines(measured: Measured, path: str) -> list[Line]:
    """What one clip on a path uses, with its share of the caches."""
    usage = measured.paths[path]
    seconds = {name: MILLISECONDS[name] * times / 1000 for name, times in usage.invocations.items()}
    seconds["reconcile"] = seconds.get("reconcile", 0) + SWEEP_MILLISECONDS[path] / 1000
    gb_seconds = sum(measured.memory_mb[name] / 1024 * seconds[name] for name in sorted(seconds))
    fetched = measured.caches
    calls = usage.calls
    return [
        Line("DynamoDB write unit", usage.write_units),
        Line("DynamoDB read unit", usage.read_units + fetched.read_units / CLIPS_A_FETCH),
        Line("S3 PUT", calls["s3 PUT"]),
        Line("S3 GET", calls["s3 GET"]),
        Line("EventBridge event", usage.messages),
        Line("SQS request", 3 * usage.messages),
        Line("HTTP API request", usage.http_requests),
        Line("Lambda request", usage.invocations.total()),
        Line("Lambda GB-second", gb_seconds),
        Line("Secrets Manager call", fetched.calls["secretsmanager GetSecretValue"] / CLIPS_A_FETCH),
        Line("CloudWatch log GB", _rounded(_logged(usage)) / _GB),
    ]


def told_lines(measured: Measured) -> list[Line]:
    """What telling of one clip uses, on top of any path that ends with it stored: the event and the manifest."""
    usage = measured.told
    seconds = (usage.invocations.total() * MILLISECONDS["announce"] + DIGEST_MILLISECONDS) / 1000
    # The manifest is an object as well, so S3 has an event for it.
    events = usage.calls["events PutEvents"] + usage.calls["s3 PUT"]
    return [
        Line("DynamoDB read unit", usage.read_units),
        Line("S3 PUT", usage.calls["s3 PUT"]),
        Line("S3 GET", usage.calls["s3 GET"]),
        Line("EventBridge event", events),
        Line("Lambda request", usage.invocations.total()),
        Line("Lambda GB-second", measured.memory_mb["announce"] / 1024 * seconds),
        Line("CloudWatch log GB", _rounded(_logged(usage)) / _GB),
    ]


def million(measured: Measured, path: str, prices: Prices) -> float:
    """What a million clips on a path cost, in dollars."""
    return MILLION * total(clip_lines(measured, path), prices)


def fixed_lines(measured: Measured, template: Template) -> list[Line]:
    """What a month costs without a single clip."""
    sweeps, idle = MINUTES_A_MONTH, measured.idle_sweep
    gb = measured.memory_mb["reconcile"] / 1024
    sources = sum(len(function.queues) for function in template.functions())
    fetches = 2 * MINUTES_A_MONTH // SECRETS_KEPT_MINUTES
    return [
        Line("Secrets Manager secret-month", len(template.secrets()), "secrets"),
        Line("Secrets Manager call", fetches, f"two secrets every {SECRETS_KEPT_MINUTES} minutes, by the sweeps"),
        Line("Lambda request", sweeps, "a sweep a minute"),
        Line("Lambda GB-second", sweeps * gb * IDLE_SWEEP_MILLISECONDS / 1000, f"{IDLE_SWEEP_MILLISECONDS} ms a sweep"),
        Line("DynamoDB read unit", sweeps * idle.read_units, f"{idle.read_units:g} a sweep, over the index's shards"),
        Line("CloudWatch log GB", sweeps * _logged(idle) / _GB, f"{_logged(idle)} bytes a sweep"),
        Line("SQS request", sources * EMPTY_POLLS_A_MINUTE * MINUTES_A_MONTH, "polls of the empty queues, by Lambda"),
        Line("CloudWatch metric-month", len(Metric), "metrics, if each occurs in the month"),
        Line("CloudWatch alarm-month", template.number_of("AWS::CloudWatch::Alarm"), "alarms"),
        Line("CloudWatch dashboard-month", template.number_of("AWS::CloudWatch::Dashboard"), "dashboards"),
    ]


def alternatives(measured: Measured) -> dict[str, list[Line]]:
    """The same task done in other ways, at their cheapest: what each uses for one clip."""
    gb = measured.memory_mb["submit"] / 1024
    buy, learn = MILLISECONDS["submit"] / 1000, MILLISECONDS["webhook"] / 1000
    record = Line("DynamoDB write unit", 3, "the order (2), the result (1); no transaction, no index, no budget")
    kept = [Line("S3 PUT", 1, "the clip"), Line("S3 GET", 1, "the probe")]
    two_calls = Line("HTTP API request", 2, "the order, the callback")
    buy_and_learn = f"({buy:g} s to buy + {learn:g} s to learn) x {gb:g} GB"
    durable_gb = DURABLE_KB * 1000 / _GB
    return {
        "A Lambda that waits and polls": [
            Line("Lambda GB-second", RENDER_SECONDS * WAITING_GB, f"{RENDER_SECONDS} s x {WAITING_GB} GB"),
            Line("Lambda request", 2, "the order, and the one that waits"),
            Line("HTTP API request", 1, "the order"),
            record,
            Line("S3 PUT", 1, "the clip"),
        ],
        "Step Functions (standard) with a task token": [
            Line("Step Functions transition", 4, "start, record, buy and wait for the token, store"),
            Line("Lambda GB-second", (buy + learn) * gb, buy_and_learn),
            Line("Lambda request", 2, "buy; callback"),
            two_calls,
            record,
            *kept,
        ],
        "A Lambda durable function": [
            Line("Lambda durable operation", 4, "start, buy, wait for the callback, store"),
            Line("Lambda durable GB written", durable_gb, f"{DURABLE_KB} KB"),
            Line("Lambda durable GB-month", durable_gb * DURABLE_DAYS / 30, f"{DURABLE_KB} KB x {DURABLE_DAYS} days"),
            Line("Lambda GB-second", (buy + 2 * learn) * gb, f"{buy_and_learn}, and {learn:g} s to replay"),
            Line("Lambda request", 3, "before the wait, after it; callback"),
            two_calls,
            record,
            *kept,
        ],
    }


def page(measured: Measured, template: Template, prices: Prices) -> str:
    """The page, in Markdown."""
    parts = [
        _head(prices),
        _paths(measured, prices),
        _told(measured, prices),
        _month(measured, template, prices),
        _beside(measured, prices),
        _assumptions(measured, prices),
    ]
    return "\n\n".join(parts) + "\n"


def _head(prices: Prices) -> str:
    what = f"""What AWS charges for a clip, Runware's own price aside ($0.924 for five seconds at 1080p). `make costs`
        counts every call of the functions on the local stack, multiplies by [the price file]({_PRICE_LINK}) and writes
        this page; a test fails when the page is not what would be written, when the happy path makes one call more, or
        when it costs more than 30 dollars a million clips. What it costs to tell others of a clip is counted apart."""
    source = f"""The prices are public list prices of {prices.region}, noted on {prices.as_of} and to be checked before
        anybody relies on them. Free tiers are left out."""
    return "\n\n".join(["# Costs", _wrapped(what), _wrapped(source)])


def _paths(measured: Measured, prices: Prices) -> str:
    paths = list(measured.paths)
    calls = sorted({call for usage in measured.paths.values() for call in usage.calls})
    counted = [[call, *(str(measured.paths[path].calls[call]) for path in paths)] for call in calls]
    counted += [
        ["write units", *(str(measured.paths[path].write_units) for path in paths)],
        ["read units", *(f"{measured.paths[path].read_units:g}" for path in paths)],
        ["invocations of their own", *(str(measured.paths[path].invocations.total()) for path in paths)],
        ["HTTP requests", *(str(measured.paths[path].http_requests) for path in paths)],
        ["uploads noticed", *(str(measured.paths[path].messages) for path in paths)],
        ["log bytes, rounded", *(str(_rounded(_logged(measured.paths[path]))) for path in paths)],
    ]
    lines = {path: clip_lines(measured, path) for path in paths}
    priced = [
        [row[0].item, *(f"{MILLION * line.dollars(prices):.2f}" for line in row)]
        for row in zip(*lines.values(), strict=True)
    ]
    sums = ["**all**", *(f"**{million(measured, path, prices):.2f}**" for path in paths)]
    titles = [_TITLES[path] for path in paths]
    return f"""## One clip, counted

With warm caches; the sweeps' calls are those beyond what an idle sweep makes. Units hold the index entries that change
and count twice in transactions.

{_table(["a clip", *titles], counted)}

## A million clips, in dollars

{_table(["dollars a million", *titles], [*priced, sums])}"""


def _told(measured: Measured, prices: Prices) -> str:
    usage, lines = measured.told, told_lines(measured)
    counted = [[call, str(count)] for call, count in sorted(usage.calls.items())]
    counted += [
        ["read units", f"{usage.read_units:g}"],
        ["invocations", str(usage.invocations.total())],
        ["log bytes, rounded", str(_rounded(_logged(usage)))],
    ]
    happy, told = million(measured, "happy", prices), MILLION * total(lines, prices)
    priced = [[line.item, f"{MILLION * line.dollars(prices):.2f}"] for line in lines]
    sums = [
        ["**told: event and manifest**", f"**{told:.2f}**"],
        ["bought and recorded, the happy path above", f"{happy:.2f}"],
        ["**all together**", f"**{happy + told:.2f}**"],
    ]
    text = """What the table's stream makes of a clip that is stored, whatever path it came by: its event on the bus,
        and the manifest beside it, for which its bytes are read once. Counted with an invocation for each change;
        changes that come within a second share one. Lambda reads the stream free of charge."""
    return f"""## Told: event and manifest

{_wrapped(text)}

{_table(["a clip", "told"], counted)}

{_table(["dollars a million", "told"], [*priced, *sums])}"""


def _month(measured: Measured, template: Template, prices: Prices) -> str:
    lines = fixed_lines(measured, template)
    rows = [[line.item, f"{line.quantity:,.10g}", line.formula, f"{line.dollars(prices):.2f}"] for line in lines]
    fixed = total(lines, prices)
    happy = million(measured, "happy", prices)
    told = MILLION * total(told_lines(measured), prices)
    months = [[f"{clips:,}", f"{fixed + clips * (happy + told) / MILLION:.2f}"] for clips in (0, 1_000, 100_000)]
    table = MILLION * TASK_KB * 1000 / _GB
    bucket = MILLION * CLIP_MB / 1000
    stored = [
        Line("DynamoDB GB-month", table, f"{TASK_KB} KB a task"),
        Line("DynamoDB recovery GB-month", table, f"{TASK_KB} KB a task"),
        Line("S3 GB-month", bucket, f"{CLIP_MB} MB a clip"),
    ]
    kept = [[line.item, f"{line.quantity:,.10g}", line.formula, f"{line.dollars(prices):,.2f}"] for line in stored]
    return f"""## A month

What is there without a clip:

{_table(["a month", "how many", "what", "dollars"], [*rows, ["**all**", "", "", f"**{fixed:.2f}**"]])}

With clips on the happy path, told:

{_table(["clips a month", "dollars"], months)}

What is kept is charged for as long as it is kept. A million clips, each month:

{_table(["kept", "GB", "what", "dollars a month"], kept)}"""


def _beside(measured: Measured, prices: Prices) -> str:
    ours = [["**Rushes, happy path**", "counted above", f"**{million(measured, 'happy', prices):.2f}**"]]
    rows = []
    for name, lines in alternatives(measured).items():
        rows.append([f"**{name}**", "", f"**{MILLION * total(lines, prices):.2f}**"])
        rows += [[line.item, _product(line, prices), f"{MILLION * line.dollars(prices):.2f}"] for line in lines]
    head = """On paper, from the same prices, each at its cheapest: one order over an HTTP API, one clip in the bucket,
        one record of order and result. Left out in their favour: logs, secrets, and all that would be needed to keep
        the promises of [guarantees.md](guarantees.md) (money set aside, a second witness for a lost webhook, the
        rescue, the index of what is unfinished)."""
    remarks = [
        """A Lambda that waits pays for every second of a render, ends after 15 minutes at the latest, and buys again
        when it is invoked again, unless it records as much as we do.""",
        """Step Functions and durable functions pay for no waiting, as we do, and add a charge for every step. Neither
        knows whether a purchase whose answer was lost took place, and a callback that never comes leaves them
        waiting.""",
    ]
    table = _table(["", "a clip", "dollars a million"], [*ours, *rows])
    return "\n\n".join(["## The same task done in other ways", _wrapped(head), table, _bullets(remarks)])


def _assumptions(measured: Measured, prices: Prices) -> str:
    per_100 = MILLION * 0.1 * measured.memory_mb["submit"] / 1024 * prices.each["Lambda GB-second"]
    happy = measured.paths["happy"]
    cold = sum(measured.memory_mb[name] / 1024 for name in happy.invocations) * COLD_START_MILLISECONDS / 1000
    fetches = measured.caches.calls["secretsmanager GetSecretValue"]
    alone = [
        Line("Lambda GB-second", cold),
        Line("Secrets Manager call", fetches * (1 - 1 / CLIPS_A_FETCH)),
        Line("DynamoDB read unit", measured.caches.read_units * (1 - 1 / CLIPS_A_FETCH)),
    ]
    parts = ceil(CLIP_MB / PART_MB)
    extra_puts = MILLION * (parts + 1) * prices.each["S3 PUT"]
    assumed = [
        f"""Billed time of one warm invocation: `submit` {MILLISECONDS["submit"]} ms, most of it Runware's answer;
        `webhook` {MILLISECONDS["webhook"]} ms; `reconcile` {MILLISECONDS["reconcile"]} ms for an upload,
        {IDLE_SWEEP_MILLISECONDS} ms for an idle sweep, {SWEEP_MILLISECONDS["polled"]} ms more for a poll,
        {SWEEP_MILLISECONDS["rescued"]} ms more for a rescue; `announce` {MILLISECONDS["announce"]} ms for a change, and
        {DIGEST_MILLISECONDS} ms more to read a clip and write its manifest. Each 100 ms more of `submit` add
        {per_100:.2f} dollars to a million clips.""",
        f"""One filling of the caches ({fetches} secrets, an API key and its caller) serves {CLIPS_A_FETCH} clips. A
        clip that comes alone pays for it in full, and for {len(happy.invocations)} cold starts of
        {COLD_START_MILLISECONDS} ms:
        {1000 * total(alone, prices):.2f} dollars more for a thousand of them.""",
        f"""AWS itself logs {PLATFORM_LOG_BYTES} bytes an invocation and {ACCESS_LOG_BYTES} bytes a request.""",
        """An upload is an event (S3's are charged, unlike those of most services) and three requests to the queue: in,
        out, deleted. Messages that share a batch share the last two.""",
        f"""A render takes {RENDER_SECONDS} s. A clip has {CLIP_MB} MB; its rescue is counted as one PUT, but goes up in
        {parts} parts between a beginning and an end: {parts + 1} more, {extra_puts:.2f} dollars a million.""",
        """Reads are counted by the size of their answers, a little above what is charged. Clips come alone in their
        requests, with a prompt as long as those of the model's page; several clips of one task share its request.""",
        """What callers, Runware's upload and the rescue bring in is free of charge; downloads of clips are not
        counted.""",
    ]
    return "\n\n".join(["## What is assumed", _bullets(assumed)])


def _logged(usage: Usage) -> int:
    invocations, requests = usage.invocations.total(), usage.http_requests
    return usage.log_bytes + invocations * PLATFORM_LOG_BYTES + requests * ACCESS_LOG_BYTES


def _rounded(size: int) -> int:
    """To hundreds of bytes: a log line's length changes a little from run to run."""
    return round(size, -2)


def _product(line: Line, prices: Prices) -> str:
    return f"{line.quantity:g} x ${prices.each[line.item]:.10f}".rstrip("0") + f" ({line.formula})"


def _wrapped(text: str, first: str = "", then: str = "") -> str:
    # The width of this project's pages; what is long in itself, as a link, stays whole.
    return fill(
        " ".join(text.split()),
        120,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(_wrapped(text, "- ", "  ") for text in texts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, numbers, *rows])


def main() -> None:
    """Measure, print the page, write it."""
    text = page(measure(ROOT), Template(ROOT / "template.yaml"), Prices.read())
    (ROOT / PAGE).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""The cost of a clip: the calls of each path on the local stack, compared with a limit and the committed page."""

import re
from collections import Counter
from pathlib import Path

import pytest

from rushes_local.aws.application import Access
from rushes_local.template import Template
from scripts.cost_report import __main__ as costs
from scripts.cost_report.metering import ClipUsage, Index, measure, read_units, size_of, write_units

ROOT = Path(__file__).parents[2]

# A separate stack cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")
MAX_DOLLARS_A_MILLION = 30.0

# At most three writes, two reads and one probe a clip. The one PUT is Runware's upload.
HAPPY_CALLS = {
    "dynamodb TransactWriteItems": 1,
    "dynamodb UpdateItem": 2,
    "dynamodb GetItem": 2,
    "s3 GET": 1,
    "s3 PUT": 1,
}

# Also, to publish it: one read of the task, two reads in the bucket, the manifest and the event.
PUBLISH_CALLS = {"dynamodb GetItem": 2, "events PutEvents": 1, "s3 GET": 2, "s3 PUT": 1}
MAX_DOLLARS_TO_PUBLISH_A_MILLION = 15.0

# Also, for a webhook that is accepted at once: four reads, a slot taken and freed, the record of the attempt.
DELIVERY_CALLS = {
    "sqs SendMessage": 1,
    "dynamodb GetItem": 4,
    "dynamodb PutItem": 2,
    "dynamodb DeleteItem": 1,
}
MAX_DOLLARS_TO_DELIVER_A_MILLION = 10.0

# Two indexes like the table's, by their keys.
DUE, RECENT = Index(("dueShard", "nextCheckAt")), Index(("caller", "createdAt"))
KEY = {"pk": {"S": "task#a"}, "sk": {"S": "clip#0"}}


@pytest.fixture(scope="module")
def measured() -> ClipUsage:
    """Every path, run once."""
    return measure(ROOT)


@pytest.fixture(scope="module")
def prices() -> costs.Prices:
    return costs.Prices.read()


def test_the_happy_path_makes_no_call_too_many(measured: ClipUsage) -> None:
    """A clip without failures takes exactly these calls, one invocation of each function, and two requests."""
    happy = measured.paths["happy"]
    assert happy.calls == HAPPY_CALLS
    assert happy.invocations == {"submit": 1, "webhook": 1, "reconcile": 1}
    assert (happy.http_requests, happy.messages) == (2, 1)


def test_the_caches_are_filled_by_few_calls(measured: ClipUsage) -> None:
    """The first clip also reads the secrets to buy, sign and verify, the API key, and its caller."""
    assert measured.caches.calls == {"secretsmanager GetSecretValue": 3, "dynamodb GetItem": 2}


def test_a_clip_costs_little(measured: ClipUsage, prices: costs.Prices) -> None:
    """A million clips on the happy path cost at most 30 dollars besides Runware's price."""
    assert costs.MILLION * costs.total(costs.clip_lines(measured, "happy"), prices) <= MAX_DOLLARS_A_MILLION


def test_publishing_makes_no_call_too_many(measured: ClipUsage) -> None:
    """One of two changes is published: reads of task, record, manifest and clip, writes of manifest and event."""
    assert measured.published.calls == PUBLISH_CALLS
    assert measured.published.invocations == {"publish": 2}
    assert (measured.published.http_requests, measured.published.messages, measured.published.write_units) == (0, 0, 0)


def test_publishing_costs_little(measured: ClipUsage, prices: costs.Prices) -> None:
    """Publishing a million clips costs at most 15 dollars, besides the purchase and the record."""
    assert costs.MILLION * costs.total(costs.published_lines(measured), prices) <= MAX_DOLLARS_TO_PUBLISH_A_MILLION


def test_a_webhook_costs_little_and_only_where_it_is_used(measured: ClipUsage, prices: costs.Prices) -> None:
    """A clip whose task names a receiver adds exactly these calls; the other paths have none of them."""
    assert measured.delivered.calls == DELIVERY_CALLS
    assert measured.delivered.invocations == {"deliver": 1}
    assert costs.MILLION * costs.total(costs.delivered_lines(measured), prices) <= MAX_DOLLARS_TO_DELIVER_A_MILLION


def test_the_page_is_up_to_date(measured: ClipUsage, prices: costs.Prices) -> None:
    """docs/costs.md equals the current output of `make costs`."""
    page = costs.PAGE.read_text()
    assert page == costs.render(page, measured, Template(ROOT / "template.yaml"), prices)


def test_the_page_on_deploying_names_the_same_sums() -> None:
    """The monthly costs in docs/deploying.md are those of docs/costs.md."""
    sums = [
        re.findall(r"(?m)^\| ([\d,]+) \| (\d+\.\d\d) \|", page.read_text())
        for page in (costs.PAGE, ROOT / "docs" / "deploying.md")
    ]
    assert sums[0] == sums[1] != []


def test_sizes_are_those_of_dynamodb() -> None:
    """Names and text count by their bytes, numbers by two digits, and maps and lists add their own overhead."""
    assert size_of({"näme": {"S": "ü"}}) == 5 + 2
    assert size_of({"n": {"N": "1763870400123"}}) == 1 + 8
    assert size_of({"m": {"M": {"a": {"BOOL": True}}}}) == 1 + 3 + 1 + 1 + 1
    assert size_of({"l": {"L": [{"S": "ab"}, {"NULL": True}]}}) == 1 + 3 + 3 + 2


@pytest.mark.parametrize(("size", "units"), [(900, 1), (1100, 2)])
def test_a_write_is_charged_by_the_larger_image(size: int, units: int) -> None:
    """A write costs as much as the larger of the old and the new item; a transaction doubles it."""
    large = {**KEY, "text": {"S": "x" * size}}
    for before, after in ((KEY, large), (large, KEY)):
        assert write_units(before, after, [], transactional=False) == units
        assert write_units(before, after, [], transactional=True) == 2 * units


def test_index_entries_are_charged_when_they_change() -> None:
    """An index entry costs one unit when it is added, removed or changed, two when its key changes, else nothing."""
    listed = {**KEY, "dueShard": {"S": "1"}, "nextCheckAt": {"N": "5"}}
    moved = {**listed, "nextCheckAt": {"N": "6"}}
    indexes = (DUE, RECENT)
    assert write_units(KEY, listed, indexes, transactional=False) == 2
    assert write_units(listed, KEY, indexes, transactional=True) == 3
    assert write_units(listed, moved, indexes, transactional=False) == 3
    assert write_units(listed, {**listed, "version": {"N": "2"}}, indexes, transactional=False) == 1
    holding = Index(DUE.keys, ("counted", "version"))
    assert write_units(listed, {**listed, "version": {"N": "2"}}, [holding], transactional=False) == 2
    assert write_units({**listed, "version": {"N": "2"}}, listed, [holding], transactional=True) == 3


@pytest.mark.parametrize(
    ("operation", "request_body", "size", "units"),
    [
        ("GetItem", b'{"ConsistentRead": true}', 700, 1.0),
        ("GetItem", b"{}", 700, 0.5),
        ("Query", b"{}", 5000, 1.0),
        ("UpdateItem", b"{}", 700, 0.0),
    ],
)
def test_reads_are_charged_by_size_and_consistency(
    operation: str, request_body: bytes, size: int, units: float
) -> None:
    """Four kilobytes are one unit, or half a unit if eventually consistent; a write has no read units."""
    assert read_units(Access("dynamodb", operation, request_body, 200, size)) == units


def test_money_adds_up() -> None:
    """A line's cost is its quantity times the unit price."""
    prices = costs.Prices({"call": 0.5, "byte": 0.25})
    assert costs.total([costs.CostLine("call", 3), costs.CostLine("byte", 2)], prices) == 2.0


def test_usage_is_added_and_subtracted() -> None:
    """Usages are added and subtracted, and calls with a count of zero are left out."""
    one = costs.Usage(calls=Counter(a=2, b=1), write_units=3, read_units=1.5)
    other = costs.Usage(calls=Counter(a=2), write_units=1, read_units=0.5)
    assert (one + other).calls == {"a": 4, "b": 1}
    assert one - other == costs.Usage(calls=Counter(b=1), write_units=2, read_units=1.0)

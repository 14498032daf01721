"""The table on moto, on a moto as unkind as DynamoDB, and the simulation's fake keep one contract.

The tests of the real table alone follow: contention, errors, lost answers, keys.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cache
from random import SystemRandom
from typing import Any, Protocol

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from botocore.stub import Stubber

from rushes.adapters.aws import aws_config
from rushes.adapters.dynamodb import attribute_values
from rushes.adapters.dynamodb.admin import AdminTable
from rushes.adapters.dynamodb.items import SHARDS, fact_value, read_facts
from rushes.domain.budget import ALL_CALLERS, OverBudget, Reservation
from rushes.domain.caller import Caller
from rushes.domain.clip import (
    SLOTS,
    Chain,
    Claim,
    Clip,
    FactRecord,
    FactSource,
    FallbackModel,
    Kind,
    Lease,
    Status,
    defer_budget,
    fall_over,
    merge_all,
    refresh_derived,
)
from rushes.domain.task import Existing, Recorded, Task
from rushes.errors import BusyError, StaleError, UnreadableClipError, UnreadableError
from rushes.runware.facts import poll_facts, webhook_facts
from rushes.runware.response import read
from rushes.services.metric import Metric
from rushes.services.update_clip import update_clip
from rushes_local.aws.behavior import AS_MOTO, AwsBehavior, Chance
from rushes_local.stack import Stack
from tests.fakes.builders import CLIP_UUID, MONTH, PRICE, START, TASK_UUID, TIMES, clip, fact, uuid4
from tests.fakes.simulated import SimulatedTable
from tests.fakes.telemetry import FakeTelemetry
from tests.simulation.world import World


class Table(Protocol):
    """The methods of both tables."""

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation], *, patience: float = 0
    ) -> Recorded | Existing | OverBudget: ...

    def save(self, before: Clip, after: Clip) -> Clip: ...

    def fall_over(self, before: Clip, closed: Clip, successor: Clip, task: Task | None) -> Clip: ...

    def clip(self, caller: str, task_uuid: str, index: int) -> Clip | None: ...

    def clips(self, caller: str, task_uuid: str) -> list[Clip]: ...

    def task(self, caller: str, task_uuid: str) -> Task | None: ...

    def get_tombstone(self, caller: str, task_uuid: str) -> Task | None: ...

    def due(self, now: int, limit: int) -> list[tuple[str, str, int]]: ...

    def budget(self, scope: str, month: str) -> tuple[int, int | None]: ...

    def caller(self, key_hash: str) -> Caller | None: ...

    def caller_named(self, name: str) -> Caller | None: ...

    def set_caller(self, caller: Caller) -> None: ...

    def add_key(self, key_hash: str, caller: Caller, name: str, now: int) -> None: ...


@dataclass
class RealTable:
    """A store on the stack's table, initially empty, with its pauses between tries and the tokens it sent."""

    stack: Stack
    client: Any
    pauses: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def store(self) -> AdminTable:
        return AdminTable(self.client, self.stack.table_name, self.pauses.append)

    def record_token(self, params: dict[str, Any], **_: Any) -> None:
        self.tokens.append(params.get("ClientRequestToken", ""))


@cache
def client_without_retries(stack: Stack) -> Any:
    """A client without retries of its own, so that the retries are the store's."""
    return stack.client("dynamodb", config=Config(retries={"total_max_attempts": 1}))


def check_expressions(params: dict[str, Any], **_: Any) -> None:
    """Fails, as DynamoDB does and moto does not, for an unused name or value in an expression."""
    writes = [write for item in params.get("TransactItems", ()) for write in item.values()]
    for call in writes or [params]:
        given = {**call.get("ExpressionAttributeValues", {}), **call.get("ExpressionAttributeNames", {})}
        used = " ".join(text for name, text in call.items() if name.endswith("Expression"))
        assert given.keys() == set(re.findall(r"[:#]\w+", used)), call


@pytest.fixture
def real(stack: Stack) -> Iterator[RealTable]:
    """The real table."""
    real = RealTable(stack, client_without_retries(stack))
    handlers = {
        "provide-client-params.dynamodb.TransactWriteItems": real.record_token,
        "provide-client-params.dynamodb": check_expressions,
    }
    for event, handler in handlers.items():
        real.client.meta.events.register(event, handler)
    yield real
    for event, handler in handlers.items():
        real.client.meta.events.unregister(event, handler)


# Transactions that hold their items, reads that lag for most of a test, and every tenth request throttled.
UNKIND = AwsBehavior(hold_seconds=0.002, lag_seconds=60, honors_tokens=True, throttled=0.1)


class LaggingTable(AdminTable):
    """The real table where reads lag. Its list of due clips is requested after the index has caught up."""

    def __init__(self, real: RealTable) -> None:
        super().__init__(real.client, real.stack.table_name, real.pauses.append)
        self._aws = real.stack.aws

    def due(self, now: int, limit: int) -> list[tuple[str, str, int]]:
        self._aws.catch_up()
        return super().due(now, limit)


NEEDS_MOTO = pytest.mark.moto("the behavior is made by the local AWS")


@pytest.fixture
def unkind(real: RealTable) -> Iterator[LaggingTable]:
    """The real table on an AWS as unkind as DynamoDB."""
    real.stack.aws.behave(UNKIND)
    yield LaggingTable(real)
    real.stack.aws.behave(AS_MOTO)


@pytest.fixture(params=["real", pytest.param("unkind", marks=NEEDS_MOTO), "fake"])
def table(request: pytest.FixtureRequest) -> Table:
    """Each of the tables, empty."""
    if request.param == "fake":
        return SimulatedTable(World())
    if request.param == "unkind":
        lagging: LaggingTable = request.getfixturevalue("unkind")
        return lagging
    store: AdminTable = request.getfixturevalue("real").store
    return store


def task(number: int = 0, **changes: Any) -> Task:
    """The task of `clip()`, or another one by number."""
    values: dict[str, Any] = {
        "caller": "ann",
        "task_uuid": uuid4(number) if number else TASK_UUID,
        "request": {"taskType": "videoInference", "positivePrompt": "a lighthouse at dusk"},
        "fingerprint": "f" * 64,
        "clips": 1,
        "created_at": START,
        **changes,
    }
    return Task(**values)


def reserve(amount: int = PRICE, limit: int = 10 * PRICE, scope: str = "ann") -> Reservation:
    return Reservation(scope, MONTH, amount, limit)


def both(amount: int = PRICE, own: int = 10 * PRICE, all_callers: int = 10 * PRICE) -> list[Reservation]:
    """The reservations of `submit`: in the month of all callers and in the caller's own."""
    return [reserve(amount, all_callers, ALL_CALLERS), reserve(amount, own)]


def put(table: Table, *clips: Clip) -> None:
    """Records the clips of one task, with their money."""
    one = clips[0]
    new = task(caller=one.caller, task_uuid=one.task_uuid, clips=len(clips))
    assert table.record(new, clips, both(PRICE * len(clips), 100 * PRICE, 100 * PRICE)) == Recorded()


# ----------------------------------------------------------------------------------------------------------------------
# record
# ----------------------------------------------------------------------------------------------------------------------


def test_recorded(table: Table) -> None:
    """A recorded task can be read with its clips and with its money in both budgets, under the given limits."""
    clips = [clip(index=index, clip_uuid=uuid4(index + 1)) for index in range(2)]
    assert table.record(task(clips=2), clips, both(2 * PRICE, 7 * PRICE, 9 * PRICE)) == Recorded()
    assert table.task("ann", TASK_UUID) == task(clips=2)
    assert table.clips("ann", TASK_UUID) == clips
    assert table.clip("ann", TASK_UUID, 1) == clips[1]
    assert table.budget("ann", MONTH) == (2 * PRICE, 7 * PRICE)
    assert table.budget(ALL_CALLERS, MONTH) == (2 * PRICE, 9 * PRICE)


def test_nothing_recorded(table: Table) -> None:
    """Without a record there is no task, clip or caller, and the budget is empty and has no limit."""
    assert table.task("ann", TASK_UUID) is None
    assert table.get_tombstone("ann", TASK_UUID) is None
    assert table.clip("ann", TASK_UUID, 0) is None
    assert table.clips("ann", TASK_UUID) == []
    assert table.budget("ann", MONTH) == (0, None)
    assert table.caller("0" * 64) is None
    assert table.caller_named("ann") is None


@pytest.mark.parametrize("fingerprint", ["f" * 64, "0" * 64])
def test_recorded_already(table: Table, fingerprint: str) -> None:
    """A second record under the same UUID returns the first task, whatever its request, and changes nothing."""
    put(table, clip())
    again = table.record(task(fingerprint=fingerprint, clips=1), [clip(clip_uuid=uuid4(9))], both())
    assert again == Existing(task())
    assert table.clips("ann", TASK_UUID) == [clip()]
    assert table.budget("ann", MONTH)[0] == table.budget(ALL_CALLERS, MONTH)[0] == PRICE


def test_a_tombstone_has_its_fingerprint(table: Table) -> None:
    """A tombstone distinguishes a repeat from a conflict, and belongs to its caller alone."""
    put(table, clip())
    record = table.get_tombstone("ann", TASK_UUID)
    assert record is not None
    assert (record.caller, record.task_uuid, record.fingerprint) == ("ann", TASK_UUID, task().fingerprint)
    assert table.get_tombstone("bob", TASK_UUID) is None


def test_existence_wins_over_the_budget(table: Table) -> None:
    """A repeat returns the existing task even if the budgets would refuse it or have another limit."""
    table.record(task(), [clip()], both(own=PRICE))
    assert table.record(task(), [clip()], both(own=PRICE)) == Existing(task())
    assert table.record(task(), [clip()], both(own=2 * PRICE, all_callers=2 * PRICE)) == Existing(task())


def test_another_callers_task(table: Table) -> None:
    """The same UUID of another caller is another task."""
    put(table, clip())
    put(table, clip(caller="bob", budgeted=0))
    assert table.clips("ann", TASK_UUID) == [clip()]
    assert table.clips("bob", TASK_UUID) == [clip(caller="bob", budgeted=0)]
    assert table.task("bob", TASK_UUID) == task(caller="bob")


@pytest.mark.parametrize("scope", ["ann", ALL_CALLERS])
@pytest.mark.parametrize("before", [0, PRICE], ids=["a missing month", "a month in use"])
def test_the_limit_is_exact(table: Table, scope: str, before: int) -> None:
    """A reservation at the limit is recorded; one micro-dollar more is refused and leaves nothing."""
    enough = before + PRICE
    limits = {"own": 100 * PRICE, "all_callers": 100 * PRICE}
    name = "own" if scope == "ann" else "all_callers"
    if before:
        table.record(task(1), [clip(task_uuid=uuid4(1))], both(**(limits | {name: enough - 1})))
    refused = table.record(task(2), [clip(task_uuid=uuid4(2))], both(**(limits | {name: enough - 1})))
    assert refused == OverBudget(scope, enough - 1, before)
    assert table.task("ann", uuid4(2)) is None
    assert table.clips("ann", uuid4(2)) == []
    assert table.budget("ann", MONTH)[0] == table.budget(ALL_CALLERS, MONTH)[0] == before
    raised = [
        each._replace(limit=enough) if each.scope == scope else each for each in both(**(limits | {name: enough - 1}))
    ]
    assert table.record(task(2), [clip(task_uuid=uuid4(2))], raised) == Recorded()
    assert table.budget(scope, MONTH) == (enough, enough)


def test_a_task_of_several_clips_is_refused_as_a_whole(table: Table) -> None:
    """A refusal has the budget's scope, limit and sum, for any number of clips."""
    put(table, clip(task_uuid=uuid4(1)))
    clips = [clip(index=index) for index in range(4)]
    refused = table.record(task(clips=4), clips, both(4 * PRICE, own=5 * PRICE - 1))
    assert refused == OverBudget("ann", 5 * PRICE - 1, PRICE)
    assert table.clips("ann", TASK_UUID) == []


def test_more_than_the_whole_limit(table: Table) -> None:
    """A task beyond the whole limit of a month is refused, also with a limit of zero."""
    assert table.record(task(), [clip()], [reserve(limit=PRICE - 1)]) == OverBudget("ann", PRICE - 1, 0)
    assert table.record(task(), [clip()], [reserve(limit=0)]) == OverBudget("ann", 0, 0)
    assert table.budget("ann", MONTH) == (0, None)


def test_the_first_budget_that_refuses_is_named(table: Table) -> None:
    """If both budgets refuse, the refusal is about the budget of all callers."""
    assert table.record(task(), [clip()], both(own=0, all_callers=1)) == OverBudget(ALL_CALLERS, 1, 0)


@pytest.mark.parametrize("scope", ["ann", ALL_CALLERS])
@pytest.mark.parametrize("new", [PRICE, 2 * PRICE, 12 * PRICE], ids=["used up", "lowered", "raised"])
def test_a_changed_limit(table: Table, scope: str, new: int) -> None:
    """Each reservation is checked against its own limit; the month records the limit of the last success."""
    put_first = both()
    table.record(task(1), [clip(task_uuid=uuid4(1))], put_first)
    changed = [each._replace(limit=new) if each.scope == scope else each for each in put_first]
    outcome = table.record(task(2), [clip(task_uuid=uuid4(2))], changed)
    if new == PRICE:
        assert outcome == OverBudget(scope, PRICE, PRICE)
        assert table.task("ann", uuid4(2)) is None
        assert table.budget(scope, MONTH) == (PRICE, 10 * PRICE)
    else:
        assert outcome == Recorded()
        assert table.budget(scope, MONTH) == (2 * PRICE, new)


def test_a_budget_made_by_a_correction(table: Table) -> None:
    """A month created by a correction has no limit until the first reservation."""
    put(table, clip(month="2026-08"))
    table.save(clip(month="2026-08"), clip(month="2026-08", budgeted=PRICE + 5))
    assert table.budget("ann", "2026-08") == (5, None)
    reservation = Reservation("ann", "2026-08", PRICE, 2 * PRICE)
    assert table.record(task(1), [clip(task_uuid=uuid4(1))], [reservation]) == Recorded()
    assert table.budget("ann", "2026-08") == (PRICE + 5, 2 * PRICE)


# ----------------------------------------------------------------------------------------------------------------------
# save
# ----------------------------------------------------------------------------------------------------------------------


def test_saved_over_its_version(table: Table) -> None:
    """A save writes the next version; one over an older version raises `StaleError` and changes nothing."""
    put(table, clip())
    running = table.save(clip(), clip(fact(Kind.ACCEPTED, "acknowledged")))
    assert running == clip(fact(Kind.ACCEPTED, "acknowledged"), version=2)
    with pytest.raises(StaleError):
        table.save(clip(), clip(fact(Kind.FAILED, "taskFailed"), budgeted=0))
    assert table.clip("ann", TASK_UUID, 0) == running
    assert table.budget("ann", MONTH)[0] == PRICE


@pytest.mark.parametrize("counted", [PRICE, 0], ids=["without money", "with money"])
def test_saving_over_the_clip_of_another_request(table: Table, counted: int) -> None:
    """A request under the same taskUUID has clips of other clipUUIDs, at the same version; they cannot be saved."""
    put(table, clip())
    with pytest.raises(StaleError):
        table.save(clip(clip_uuid=uuid4(2)), clip(clip_uuid=uuid4(2), budgeted=counted))
    assert table.clip("ann", TASK_UUID, 0) == clip()
    assert table.budget("ann", MONTH)[0] == PRICE


@pytest.mark.parametrize("counted", [PRICE, 0], ids=["without money", "with money"])
def test_saving_an_unrecorded_clip(table: Table, counted: int) -> None:
    """An unrecorded clip cannot be saved, and the budgets do not change."""
    with pytest.raises(StaleError):
        table.save(clip(), clip(budgeted=counted))
    assert table.clip("ann", TASK_UUID, 0) is None
    assert table.budget("ann", MONTH) == (0, None)


@pytest.mark.parametrize("amount", [0, 900_000, 2 * PRICE])
def test_a_save_corrects_the_budgets(table: Table, amount: int) -> None:
    """A save adds the difference in the clip's amount to both budgets, over a limit if necessary."""
    table.record(task(), [clip()], both(own=PRICE))
    saved = table.save(clip(), clip(budgeted=amount))
    assert saved.budgeted == amount
    assert table.budget("ann", MONTH) == (amount, PRICE)
    assert table.budget(ALL_CALLERS, MONTH) == (amount, 10 * PRICE)


def test_a_save_without_a_new_amount(table: Table) -> None:
    """A save with the same amount leaves the budgets unchanged, even a missing one."""
    table.record(task(), [clip()], [reserve()])
    table.save(clip(), clip(fact(Kind.ACCEPTED, "acknowledged")))
    assert table.budget("ann", MONTH) == (PRICE, 10 * PRICE)
    assert table.budget(ALL_CALLERS, MONTH) == (0, None)


CHAIN = Chain("a:1@1", (FallbackModel("b:2@2", uuid4(2), "videos/ann/2026/09/21/b.webm", 2 * PRICE),), True)

EVERYTHING = [
    *(
        fact(kind, key, at=START + number, source=list(FactSource)[number % len(FactSource)])
        for number, (kind, key) in enumerate(
            (kind, key) for kind in Kind for key in ("", "a: key with a colon, ü and \N{CLAPPER BOARD}")
        )
    ),
    fact(Kind.RENDERED, uuid4(1), seed=2**63, cost=924_000, NSFWContent=False, videoURL="https://vm.runware.ai/1.mp4"),
    fact(Kind.RENDERED, uuid4(1), at=START + 9, source=FactSource.WEBHOOK, seed=2**63, NSFWContent=False),
    fact(Kind.RENDERED, uuid4(2), seed=0, NSFWContent=True, videoURL=""),
    fact(Kind.STORED, "version-1", source=FactSource.BUCKET, size=8_000_000, etag="e", container="mp4"),
    fact(Kind.FAILED, "inferenceError", category="provider", message='said "no"', error='{"code":"x"}'),
]


def types_of(clip: Clip) -> dict[tuple[str, str, str], type]:
    """The type of each field of each fact."""
    return {
        (kind, key, name): type(value)
        for (kind, key), record in clip.facts.items()
        for name, value in {**record.fields, "at": record.at}.items()
    }


def test_every_field_is_read_back(table: Table) -> None:
    """A clip with every field and every kind of fact is read as it was saved, and again after their removal."""
    put(table, clip(chain=CHAIN))
    full = merge_all(
        clip(
            chain=CHAIN,
            possibly_sent_at=START + 7,
            possibly_sent_to="a1",
            lease=Lease("holder", START + 1, START + 60_001, "a1"),
            next_check_at=START + 60_001,
            budgeted=PRICE + 1,
        ),
        EVERYTHING,
    )
    empty = {each.name for each in fields(Clip) if not getattr(full, each.name)} - {"index"}
    assert not empty, "the test must set every field"
    saved = table.save(clip(), full)
    found = table.clip("ann", TASK_UUID, 0)
    assert found == saved == replace(full, version=2)
    assert found is not None
    assert types_of(found) == types_of(full)  # since 0 equals False, and 1.0 equals 1
    bare = replace(saved, possibly_sent_at=None, possibly_sent_to="", lease=None, next_check_at=None, facts={})
    assert table.clip("ann", TASK_UUID, 0) == saved
    assert table.save(saved, bare) == table.clip("ann", TASK_UUID, 0) == replace(bare, version=3)


def test_a_recorded_clip_is_read_back(table: Table) -> None:
    """A clip may be recorded with its lease and facts, and a task with any JSON as its request."""
    leased = clip(
        fact(Kind.ACCEPTED, "acknowledged"),
        lease=Lease("holder", START, START + 60_000),
        next_check_at=START + 60_000,
        index=3,
    )
    request = {"CFGScale": 0.57, "n": 10**30, "t": None, "deep": [[{"": "ü\N{CLAPPER BOARD}"}]], "no": [], "b": True}
    table.record(task(request=request), [leased], both())
    assert table.clip("ann", TASK_UUID, 3) == leased
    assert table.task("ann", TASK_UUID) == task(request=request)


def test_a_task_without_fallback_has_no_new_attributes(real: RealTable) -> None:
    """Neither the request's item nor a clip's has an attribute for fallback."""
    real.store.record(task(), [clip()], both())
    found = real.client.scan(TableName=real.stack.table_name)["Items"]
    assert not {"chain", "models"} & {name for item in found for name in item}


# ----------------------------------------------------------------------------------------------------------------------
# fall_over
# ----------------------------------------------------------------------------------------------------------------------


def refused_clip(table: Table, reserved: int = 2 * PRICE, limit: int = 2 * PRICE) -> Clip:
    """Records a clip with a next model, and saves its refusal; returns the clip as saved."""
    ordered = clip(chain=CHAIN, budgeted=reserved)
    request = {"model": "a:1@1", "fallback": ["b:2@2"], "tags": {"team": "x"}}
    table.record(task(request=request), [ordered], both(reserved, limit, limit))
    refused = merge_all(ordered, [fact(Kind.REFUSED, "invalidModel", source=FactSource.SUBMISSION)])
    return table.save(ordered, refresh_derived(refused, START, TIMES))


def superseded(before: Clip) -> tuple[Clip, Clip]:
    """The clip closed, and the next model's."""
    both = fall_over(before, START + 5, TIMES)
    assert both
    return both


@pytest.mark.parametrize("reserved", [2 * PRICE, 3 * PRICE], ids=["without money", "with money"])
def test_the_next_models_clip_is_recorded_with_the_end_of_the_one_before(table: Table, reserved: int) -> None:
    """Both clips are written, and the budgets hold the amount of the new one alone."""
    before = replace(refused_clip(table, limit=3 * PRICE), budgeted=2 * PRICE)
    if reserved > 2 * PRICE:
        before = table.save(before, replace(before, budgeted=reserved))
    both = superseded(before)
    closed, successor = both
    saved = table.fall_over(before, closed, successor, table.task("ann", TASK_UUID))
    assert saved == replace(closed, version=before.version + 1)
    assert table.clips("ann", TASK_UUID) == [saved, successor]
    assert (saved.budgeted, successor.budgeted, successor.index) == (0, 2 * PRICE, SLOTS)
    assert table.budget("ann", MONTH)[0] == table.budget(ALL_CALLERS, MONTH)[0] == 2 * PRICE
    assert table.due(successor.next_check_at or 0, 10) == [("ann", TASK_UUID, SLOTS)]


def test_a_changed_clip_does_not_fall_over(table: Table) -> None:
    """If a fact was saved meanwhile, or the next clip exists, nothing is written."""
    before = refused_clip(table)
    both = superseded(before)
    current = table.save(before, merge_all(before, [fact(Kind.ACCEPTED, "late")]))
    with pytest.raises(StaleError):
        table.fall_over(before, *both, None)
    assert table.clips("ann", TASK_UUID) == [current]
    saved = table.fall_over(current, *both, None)
    with pytest.raises(StaleError):
        table.fall_over(saved, *both, None)
    assert table.clips("ann", TASK_UUID) == [saved, both[1]]
    assert table.budget("ann", MONTH)[0] == 2 * PRICE


def test_a_successor_has_its_own_model_and_the_tags(real: RealTable) -> None:
    """The costs show each clip's own model, and the page has all clips of the task."""
    before = refused_clip(real.store)
    both = superseded(before)
    real.store.fall_over(before, *both, real.store.task("ann", TASK_UUID))
    costs = real.store.costs("ann", START, START + 10, 10).found
    tags = {"team": "x"}
    assert [(each.index, each.model, each.tags) for each in costs] == [(SLOTS, "b:2@2", tags), (0, "a:1@1", tags)]
    (listed,) = real.store.page("ann", 10).found
    assert [each.index for each in listed.clips] == [0, SLOTS]
    assert [each.index for each in listed.current] == [SLOTS]


def test_a_fallback_whose_answer_was_lost_happened_once(real: RealTable) -> None:
    """The transaction is repeated under its token."""
    before = refused_clip(real.store)
    both = superseded(before)
    real.stack.aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    saved = real.store.fall_over(before, *both, None)
    assert real.store.clips("ann", TASK_UUID) == [saved, both[1]]
    assert real.store.budget("ann", MONTH)[0] == 2 * PRICE


def test_a_page_leaves_out_a_slot_without_its_latest_clip(real: RealTable) -> None:
    """A task whose next clip cannot be read yet is not listed as failed."""
    before = refused_clip(real.store)
    both = superseded(before)
    real.store.save(before, both[0])
    assert real.store.page("ann", 10).found == ()


def test_clips_are_in_order(table: Table) -> None:
    """The clips of a task are ordered by index, whatever the order of their writes, without other tasks' clips."""
    clips = [clip(index=index, clip_uuid=uuid4(index + 1)) for index in (2, 10, 0, 3, 1)]
    put(table, *clips)
    put(table, clip(task_uuid=uuid4(7)))
    assert [found.index for found in table.clips("ann", TASK_UUID)] == [0, 1, 2, 3, 10]


# ----------------------------------------------------------------------------------------------------------------------
# due
# ----------------------------------------------------------------------------------------------------------------------


def test_due(table: Table) -> None:
    """Due open clips are listed oldest first over all shards, up to the limit."""
    moments = {7: 500, 1: 100, 5: 900, 2: 300, 9: 200, 4: 1000, 3: 1001}
    for number, moment in moments.items():
        # The first digits of a clip's UUID choose its shard.
        shard = f"{number:08x}-0000-4000-8000-000000000000"
        put(table, clip(task_uuid=uuid4(number), clip_uuid=shard, index=number, next_check_at=moment))
    oldest_first = [("ann", uuid4(number), number) for number in (1, 9, 2, 7, 5, 4)]
    assert table.due(1000, 100) == oldest_first
    assert table.due(1000, 2) == oldest_first[:2]
    assert table.due(99, 100) == []


def test_each_shard_is_read_up_to_the_limit(real: RealTable) -> None:
    """One page of each shard is read, even of a long index."""
    limits: list[int | None] = []

    def record_request(params: dict[str, Any], **_: Any) -> None:
        limits.append(params.get("Limit"))

    event = "provide-client-params.dynamodb.Query"
    real.client.meta.events.register(event, record_request)
    real.store.due(START, 7)
    real.client.meta.events.unregister(event, record_request)
    assert limits == [7] * SHARDS


@pytest.mark.parametrize(
    ("facts", "open_"),
    [
        ([], True),
        ([fact(Kind.ACCEPTED, "acknowledged")], True),
        ([fact(Kind.RENDERED, uuid4(1))], True),
        ([fact(Kind.FAILED, "taskFailed")], True),
        ([fact(Kind.STORED, "v1")], True),
        ([fact(Kind.REFUSED, "invalidModel")], False),
        ([fact(Kind.FAILED, "taskFailed"), fact(Kind.LAST_LOOK)], False),
        ([fact(Kind.STORED, "v1"), fact(Kind.RENDERED, uuid4(1))], False),
        ([fact(Kind.STORED, "v1"), fact(Kind.DETAILS_UNKNOWN)], False),
        ([fact(Kind.UNPROVEN)], False),
        ([fact(Kind.RENDERED, uuid4(1)), fact(Kind.UNSAVED)], False),
    ],
    ids=lambda value: "+".join(each.kind for each in value) or "nothing" if isinstance(value, list) else "",
)
def test_only_open_clips_are_due(table: Table, facts: list[Any], open_: bool) -> None:
    """A clip is due while its facts can still change; in review it is not, although it has a time."""
    fresh = clip(next_check_at=START)
    put(table, fresh)
    assert table.due(START, 9) == [("ann", TASK_UUID, 0)]
    refreshed = refresh_derived(merge_all(fresh, facts), START, TIMES)
    saved = table.save(fresh, refreshed) if facts else fresh
    assert saved.open is open_
    assert table.due(START + 10**9, 9) == ([("ann", TASK_UUID, 0)] if open_ else [])


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.UNSAVED])
def test_a_clip_with_a_deferred_amount_is_due(table: Table, kind: Kind) -> None:
    """A closed or reviewed clip is due like an open one until the budgets have its amount."""
    put(table, clip())
    renders = [fact(Kind.RENDERED, uuid4(1)), fact(Kind.RENDERED, uuid4(2))] if kind == Kind.UNSAVED else []
    later = table.save(clip(), defer_budget(clip(fact(kind), *renders), START, TIMES))
    assert not later.budget_is_current
    assert table.budget("ann", MONTH)[0] == PRICE
    assert table.due(START + TIMES.check - 1, 9) == []
    assert table.due(START + TIMES.check, 9) == [("ann", TASK_UUID, 0)]
    refreshed = table.save(later, refresh_derived(later, START, TIMES))
    assert table.due(START + 10**9, 9) == []
    assert table.budget("ann", MONTH)[0] == table.budget(ALL_CALLERS, MONTH)[0] == refreshed.budgeted


def test_a_late_fact_makes_a_clip_due(table: Table) -> None:
    """A late fact about a clip in review makes it due again."""
    put(table, clip())
    in_review = table.save(clip(), refresh_derived(clip(fact(Kind.UNPROVEN)), START, TIMES))
    assert table.due(START + 10**9, 9) == []
    table.save(in_review, refresh_derived(merge_all(in_review, [fact(Kind.RENDERED, uuid4(1))]), START, TIMES))
    assert table.due(START + 10**9, 9) == [("ann", TASK_UUID, 0)]


def test_a_question_makes_a_clip_due(table: Table) -> None:
    """An operator's question makes a clip in review due, until it is answered."""
    put(table, clip())
    in_review = refresh_derived(clip(fact(Kind.UNPROVEN), fact(Kind.ASKED, "a")), START, TIMES)
    questioned = table.save(clip(), in_review)
    assert table.due(START + 10**9, 9) == [("ann", TASK_UUID, 0)]
    table.save(questioned, refresh_derived(merge_all(questioned, [fact(Kind.ANSWERED, "a")]), START, TIMES))
    assert table.due(START + 10**9, 9) == []


def change_fact(real: RealTable, name: str, value: Any) -> None:
    """Writes one fact of the clip as another version of this service would."""
    real.client.update_item(
        TableName=real.stack.table_name,
        Key={"pk": {"S": f"task#ann#{TASK_UUID}"}, "sk": {"S": "clip#0"}},
        UpdateExpression="SET facts.#name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": attribute_values.wire(value)},
    )


def test_facts_of_a_later_version_survive_a_save(real: RealTable) -> None:
    """Facts of unknown kinds and sources are unchanged after a save by this version."""
    put(real.store, clip())
    change_fact(real, "cancelled:by:hand", {"seen": {"oracle": START}, "fields": {"cost": 9, "reason": "é"}})
    change_fact(real, "accepted", {"seen": {"oracle": START}})
    found = real.store.clip("ann", TASK_UUID, 0)
    assert found
    assert (found.status, found.has_unknown_kinds) == (Status.RUNNING, True)
    saved = real.store.save(found, refresh_derived(merge_all(found, [fact(Kind.ACCEPTED)]), START, TIMES))
    again = real.store.clip("ann", TASK_UUID, 0)
    assert again == saved
    assert again.facts["cancelled", "by:hand"] == FactRecord.of_all({"oracle": START}, {"cost": 9, "reason": "é"})
    assert again.facts[Kind.ACCEPTED, ""].seen == {"oracle": START, FactSource.POLL: START}


@pytest.mark.parametrize("value", [{"seen": {}}, {"seen": {"poll": 1}, "doubt": 1}, "text", {}])
def test_an_unreadable_clip_is_postponed(real: RealTable, value: Any) -> None:
    """A clip with an invalid fact is not read, since a save would lose it; it is postponed unchanged."""
    put(real.store, clip(next_check_at=START))
    change_fact(real, "accepted", value)
    with pytest.raises(UnreadableClipError):
        real.store.clip("ann", TASK_UUID, 0)
    name = ("ann", TASK_UUID, 0)
    real.store.postpone(name, START - 1, START + 9)  # not due: another version has moved it
    assert real.store.due(START, 9) == [name]
    real.store.postpone(name, START, START + 9)
    assert (real.store.due(START + 8, 9), real.store.due(START + 9, 9)) == ([], [name])
    assert real.store.snapshot().unrecognized_keys == [f"task#ann#{TASK_UUID} clip#0"]
    real.store.postpone(("ann", uuid4(9), 0), START, START + 9)
    assert real.store.clip("ann", uuid4(9), 0) is None


# ----------------------------------------------------------------------------------------------------------------------
# keys
# ----------------------------------------------------------------------------------------------------------------------


def test_a_key_has_its_caller(table: Table) -> None:
    """An added key belongs to its caller, with the limit; another hash has no caller."""
    table.add_key("a" * 64, Caller("ann", 12_500_000), "laptop", START)
    assert table.caller("a" * 64) == table.caller_named("ann") == Caller("ann", 12_500_000)
    assert table.caller("b" * 64) is None


def test_a_callers_limit_is_one_for_all_its_keys(table: Table) -> None:
    """The last limit and image sources apply to all keys of a caller."""
    table.add_key("a" * 64, Caller("ann", 12_500_000), "laptop", START)
    table.add_key("b" * 64, Caller("ann", 1), "server", START)
    table.set_caller(Caller("ann", 2, ("photos/ann/",)))
    assert table.caller("a" * 64) == table.caller("b" * 64) == Caller("ann", 2, ("photos/ann/",))


def test_a_disabled_caller(real: RealTable) -> None:
    """Disabling applies to every lookup of a caller, survives a new limit and a new key, and can be reversed."""
    store = real.store
    assert not store.disable_caller("ann")
    store.add_key("a" * 64, Caller("ann", 1, ("photos/ann/",)), "laptop", START)
    store.set_caller(Caller("bob", 2))
    assert store.disable_caller("ann")
    store.add_key("b" * 64, Caller("ann", 3, ("photos/ann/",)), "server", START)
    disabled = Caller("ann", 3, ("photos/ann/",), disabled=True)
    assert store.caller("a" * 64) == store.caller("b" * 64) == store.caller_named("ann") == disabled
    assert store.all_callers() == list(store.snapshot().callers.values()) == [disabled, Caller("bob", 2)]
    assert store.disable_caller("ann", False)
    assert store.caller_named("ann") == Caller("ann", 3, ("photos/ann/",))


def test_a_revoked_key(real: RealTable) -> None:
    """A revoked key has no caller and keeps its first time of revocation; the caller's other key stays valid."""
    for letter in "ab":
        real.store.add_key(letter * 64, Caller("ann", 1), "laptop", START)
    assert real.store.revoke_key("a" * 64, START + 5)
    assert real.store.revoke_key("a" * 64, START + 9)
    assert real.store.caller("a" * 64) is None
    assert real.store.caller("b" * 64) == Caller("ann", 1)
    assert [(key.key_hash, key.name, key.revoked_at) for key in real.store.keys("ann")] == [
        ("a" * 64, "laptop", START + 5),
        ("b" * 64, "laptop", None),
    ]
    assert not real.store.revoke_key("c" * 64, START)
    assert real.store.caller("c" * 64) is None


# ----------------------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------------------


def record_tasks(store: AdminTable, number: int, clips: int = 1, caller: str = "ann") -> list[str]:
    """Records tasks one second apart; returns their UUIDs, newest first."""
    for index in range(1, number + 1):
        name, at = uuid4(index), START + 1000 * index
        members = [
            clip(caller=caller, task_uuid=name, index=each, clip_uuid=uuid4(1000 * index + each), created_at=at)
            for each in range(clips)
        ]
        new = task(index, caller=caller, clips=clips, created_at=at)
        limits = (100 * number * PRICE,) * 2
        assert (
            store.record(new, members, [reserve(0, limits[0], ALL_CALLERS), reserve(0, limits[1], caller)])
            == Recorded()
        )
    return [uuid4(index) for index in range(number, 0, -1)]


def test_a_page_is_in_order_and_leads_to_the_next(real: RealTable) -> None:
    """Pages are newest first, with all clips of each task, and each task is on one page only."""
    names = record_tasks(real.store, 5, clips=2)
    first = real.store.page("ann", 2)
    assert [found.task.task_uuid for found in first.found] == names[:2]
    assert all([each.index for each in found.clips] == [0, 1] for found in first.found)
    assert first.end == first.found[-1].position
    second = real.store.page("ann", 2, after=first.end)
    third = real.store.page("ann", 2, after=second.end)
    assert [found.task.task_uuid for found in (*second.found, *third.found)] == names[2:]
    assert third.end is None
    assert real.store.page("ann", 2, after=first.found[0].position).found[0] == first.found[1]


@NEEDS_MOTO
def test_a_page_has_whole_tasks(real: RealTable, unkind: LaggingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reads of a page lag, a task with all its clips may be absent, and none is shown without one of them."""
    names = record_tasks(unkind, 5, clips=2)
    chance = random.Random(1)
    monkeypatch.setattr(Chance, "below", lambda _self, limit: chance.choice((0, 0, 0, limit)))
    pages = [unkind.page("ann", 5).found for _ in range(12)]
    assert real.stack.aws.effects["read lagged"]
    assert any(pages)
    assert all(len(found.clips) == 2 for page in pages for found in page)
    real.stack.aws.catch_up()
    assert [found.task.task_uuid for found in unkind.page("ann", 5).found] == names


def test_a_page_is_its_callers_own(real: RealTable) -> None:
    """A page has no other caller's tasks and no keys, also after another caller's position."""
    record_tasks(real.store, 2)
    real.store.add_key("a" * 64, Caller("bob", 1), "laptop", START)
    bobs = real.client.query(
        TableName=real.stack.table_name,
        IndexName="recent",
        KeyConditionExpression="caller = :caller",
        ExpressionAttributeValues={":caller": {"S": "bob"}},
    )
    assert bobs["Count"] == 0
    ends = real.store.page("ann", 1).end
    assert real.store.page("bob", 10).found == real.store.page("bob", 10, after=ends).found == ()


@pytest.mark.parametrize("day", ["2026-09-21", ""])
def test_a_page_of_a_day(real: RealTable, day: str) -> None:
    """A day selects its tasks; a position of another day is refused."""
    names = record_tasks(real.store, 3)
    page = real.store.page("ann", 2, day=day)
    assert [found.task.task_uuid for found in page.found] == names[:2]
    assert [found.task.task_uuid for found in real.store.page("ann", 2, day=day, after=page.end).found] == names[2:]
    assert real.store.page("ann", 2, day="2026-09-20").found == ()
    with pytest.raises(UnreadableError):
        real.store.page("ann", 2, day="2026-09-20", after=page.end)


def test_a_page_by_the_beginning_of_a_uuid(real: RealTable) -> None:
    """A prefix selects this caller's tasks, newest first, in pages that lead to the next one, also within a day."""
    names = record_tasks(real.store, 4)
    record_tasks(real.store, 1, caller="bob")
    prefix = names[0][:9]
    first = real.store.page("ann", 3, prefix=prefix)
    assert [found.task.task_uuid for found in first.found] == names[:3]
    rest = real.store.page("ann", 3, prefix=prefix, after=first.end, day="2026-09-21")
    assert [found.task.task_uuid for found in rest.found] == names[3:]
    assert rest.end is None
    assert [found.task.task_uuid for found in real.store.page("ann", 1, prefix=names[2]).found] == [names[2]]
    assert real.store.page("ann", 9, prefix="ffff").found == ()


@pytest.mark.parametrize("position", ["", "x", "2026-09-21T00:00:00.000Z", "2026-09-21T00:00:00.000Z#a#b", "#"])
def test_an_invalid_position(real: RealTable, position: str) -> None:
    """An invalid position is refused before the table is read."""
    with pytest.raises(UnreadableError):
        real.store.page("ann", 2, after=position)


def test_more_items_than_one_call_returns(real: RealTable) -> None:
    """A page of more clips than DynamoDB returns at once is complete."""
    names = record_tasks(real.store, 30, clips=4)
    page = real.store.page("ann", 30)
    assert [found.task.task_uuid for found in page.found] == names
    assert {len(found.clips) for found in page.found} == {4}


def test_unprocessed_keys_are_requested_again(real: RealTable) -> None:
    """Unprocessed keys are requested again after a pause; without progress `BusyError` is raised.

    The number of calls is not limited while each one returns an item.
    """
    record_tasks(real.store, 9)
    original, requested = real.client.batch_get_item, []

    def return_part(RequestItems: Any) -> Any:
        (table,) = RequestItems
        keys = RequestItems[table]["Keys"]
        requested.append(len(keys))
        count = 0 if stuck else 1
        answer = original(RequestItems={table: {"Keys": keys[:count]}}) if count else {"Responses": {}}
        left = {table: {"Keys": keys[count:]}} if keys[count:] else {}
        return {**answer, "UnprocessedKeys": left}

    stuck = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real.client, "batch_get_item", return_part)
        store = real.store
        assert [len(found.clips) for found in store.page("ann", 9).found] == [1] * 9
        assert requested == [*range(9, 0, -1)] * 2
        assert len(real.pauses) == 16
        stuck = True
        with pytest.raises(BusyError):
            store.page("ann", 9)
    assert len(requested) == 18 + 7


def test_a_task_with_its_clips(real: RealTable) -> None:
    """A task is read with its clips in one call, also after its request has expired; a missing one is None."""
    (name,) = record_tasks(real.store, 1, clips=3)
    found = real.store.get_task_with_clips("ann", name)
    assert found is not None
    assert (found.task.request["positivePrompt"], len(found.clips)) == ("a lighthouse at dusk", 3)
    key = {"pk": {"S": f"task#ann#{name}"}, "sk": {"S": "request"}}
    real.client.delete_item(TableName=real.stack.table_name, Key=key)
    expired = real.store.get_task_with_clips("ann", name)
    assert expired is not None
    assert (dict(expired.task.request), expired.clips, expired.position) == ({}, found.clips, found.position)
    assert real.store.get_task_with_clips("bob", name) is None
    assert real.store.page("ann", 5).found == ()


# ----------------------------------------------------------------------------------------------------------------------
# The real table alone: contention and errors
# ----------------------------------------------------------------------------------------------------------------------


def test_contention(real: RealTable) -> None:
    """Eight threads on one budget, with throttling, record as many tasks as fit, and the sum is exact."""
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException", times=6)  # fewer than the tries of one call
    room = 10

    def record(number: int) -> Any:
        return real.store.record(
            task(number), [clip(task_uuid=uuid4(number))], both(own=room * PRICE, all_callers=99 * PRICE)
        )

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(record, range(1, 25)))
    real.stack.aws.faults.clear()
    assert len(real.pauses) == 6
    assert outcomes.count(Recorded()) == room
    assert outcomes.count(OverBudget("ann", room * PRICE, room * PRICE)) == 24 - room
    assert real.store.budget("ann", MONTH) == (room * PRICE, room * PRICE)
    assert real.store.budget(ALL_CALLERS, MONTH)[0] == room * PRICE
    recorded = [real.store.clips("ann", uuid4(number)) for number in range(1, 25)]
    assert [bool(clips) for clips in recorded] == [outcome == Recorded() for outcome in outcomes]


@NEEDS_MOTO
@pytest.mark.usefixtures("unkind")
def test_contention_on_an_unkind_table(real: RealTable) -> None:
    """Under conflicts, throttling and lost answers, threads record as many tasks as fit, and the sum is exact."""
    real.stack.aws.faults.fail("dynamodb", "InternalServerError", times=8, fraction=0.2, after=True)
    store = AdminTable(real.client, real.stack.table_name)  # with real pauses, or each thread would soon give up
    room = 10

    def record(number: int) -> Any:
        wanted = both(own=room * PRICE, all_callers=99 * PRICE)
        return store.record(task(number), [clip(task_uuid=uuid4(number))], wanted, patience=20)

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(record, range(1, 17)))
    real.stack.aws.faults.clear()
    assert Counter(map(type, outcomes)) == {Recorded: room, OverBudget: 6}
    assert store.budget("ann", MONTH)[0] == store.budget(ALL_CALLERS, MONTH)[0] == room * PRICE
    recorded = [store.clips("ann", uuid4(number)) for number in range(1, 17)]
    assert [bool(clips) for clips in recorded] == [outcome == Recorded() for outcome in outcomes]
    assert real.stack.aws.effects["transaction in conflict"]


def test_concurrent_saves(real: RealTable) -> None:
    """Of eight concurrent saves over one version exactly one succeeds, and the budget changes once."""
    put(real.store, clip())

    def save(number: int) -> bool:
        try:
            real.store.save(clip(), clip(fact(Kind.FAILED, f"error {number}"), budgeted=0))
        except StaleError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(save, range(8))) == 1
    assert real.store.budget("ann", MONTH)[0] == 0


CALLS: dict[str, Callable[[AdminTable], object]] = {
    "record": lambda store: store.record(task(2), [clip(task_uuid=uuid4(2))], both(PRICE, 100 * PRICE, 100 * PRICE)),
    "save": lambda store: store.save(clip(), clip(fact(Kind.ACCEPTED, "acknowledged"))),
    "save with money": lambda store: store.save(clip(), clip(budgeted=0)),
    "clip": lambda store: store.clip("ann", TASK_UUID, 0),
    "clips": lambda store: store.clips("ann", TASK_UUID),
    "task": lambda store: store.task("ann", TASK_UUID),
    "due": lambda store: store.due(START, 1),
    "budget": lambda store: store.budget("ann", MONTH),
    "caller": lambda store: store.caller("a" * 64),
}


CODES = ("InternalServerError", "ThrottlingException", "ProvisionedThroughputExceededException")


@pytest.mark.parametrize("call", CALLS)
def test_passing_errors_are_retried(real: RealTable, call: str) -> None:
    """Throttling and server errors are retried with pauses until the call succeeds."""
    put(real.store, clip())
    code = CODES[list(CALLS).index(call) % len(CODES)]
    real.stack.aws.faults.fail("dynamodb", code, times=6)
    CALLS[call](real.store)
    assert len(real.pauses) == 6
    assert all(0 <= pause <= 0.02 * 2**number for number, pause in enumerate(real.pauses))


@pytest.mark.parametrize("call", CALLS)
def test_lasting_errors_raise_busy(real: RealTable, call: str) -> None:
    """After seven tries `BusyError` is raised, nothing is written, and the pauses add up to about a second."""
    put(real.store, clip())
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException")
    with pytest.raises(BusyError):
        CALLS[call](real.store)
    real.stack.aws.faults.clear()
    assert len(real.pauses) == 6
    assert sum(real.pauses) < 1.3
    assert real.store.clip("ann", TASK_UUID, 0) == clip()
    assert real.store.task("ann", uuid4(2)) is None
    assert real.store.budget("ann", MONTH)[0] == PRICE


def test_pauses_double(real: RealTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest possible pause doubles with each try."""
    monkeypatch.setattr(SystemRandom, "uniform", lambda _self, _shortest, longest: longest)
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException")
    with pytest.raises(BusyError):
        real.store.clip("ann", TASK_UUID, 0)
    real.stack.aws.faults.clear()
    assert real.pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64]


def test_retries_do_not_multiply(real: RealTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the functions' client a call is tried seven times in all, since a webhook has only five seconds."""
    pauses: list[float] = []
    store = AdminTable(real.stack.client("dynamodb", config=aws_config(tries=1)), real.stack.table_name, pauses.append)
    monkeypatch.setattr("botocore.endpoint.time.sleep", pauses.append)
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException")
    with pytest.raises(BusyError):
        store.clip("ann", TASK_UUID, 0)
    assert len(pauses) == 6


def test_an_unreachable_table() -> None:
    """An unreachable table raises `BusyError` after a second try, since each may take seconds."""
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    pauses: list[float] = []
    with pytest.raises(BusyError):
        AdminTable(client, "table", pauses.append).clip("ann", TASK_UUID, 0)
    assert len(pauses) == 1


def cancelled(*codes: str) -> dict[str, Any]:
    reasons = [{"Code": code, **({"Item": {}} if code == "ConditionalCheckFailed" else {})} for code in codes]
    return {"service_error_code": "TransactionCanceledException", "modeled_fields": {"CancellationReasons": reasons}}


def test_a_conflict_of_transactions(real: RealTable) -> None:
    """A transaction conflict is retried under the same token; moto has no such conflicts."""
    stub = Stubber(real.client)
    stub.add_client_error("transact_write_items", **cancelled("None", "TransactionConflict", "None", "ThrottlingError"))
    stub.add_client_error("transact_write_items", "TransactionInProgressException")
    stub.add_response("transact_write_items", {})
    with stub:
        assert real.store.record(task(), [clip()], both()) == Recorded()
        stub.assert_no_pending_responses()
    assert len(real.tokens) == 3
    assert len(set(real.tokens)) == 1


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("scope", [ALL_CALLERS, "ann"])
def test_no_refusal_while_the_task_itself_is_in_another_transaction(real: RealTable, position: int, scope: str) -> None:
    """A refusal beside a conflict on the request or a clip is retried, since the task may exist."""
    codes = ["None"] * 3 + ["ConditionalCheckFailed" if each == scope else "None" for each in (ALL_CALLERS, "ann")]
    codes[position] = "TransactionConflict"
    put(real.store, clip(), clip(index=1, clip_uuid=uuid4(9)))
    stub = Stubber(real.client)
    stub.add_client_error("transact_write_items", **cancelled(*codes))
    existing = cancelled("ConditionalCheckFailed", *codes[1:])
    item = real.client.get_item(
        TableName=real.stack.table_name, Key={"pk": {"S": f"task#ann#{TASK_UUID}"}, "sk": {"S": "request"}}
    )["Item"]
    existing["modeled_fields"]["CancellationReasons"][0]["Item"] = item
    stub.add_client_error("transact_write_items", **existing)
    with stub:
        outcome = real.store.record(task(clips=2), [clip(), clip(index=1, clip_uuid=uuid4(9))], both(2 * PRICE))
        stub.assert_no_pending_responses()
    assert outcome == Existing(task(clips=2))


def test_a_refusal_beside_a_conflict_on_the_other_budget_is_final(real: RealTable) -> None:
    """No item of the task conflicted, so no other process is recording it, and the budget's refusal is final."""
    put(real.store, clip())
    stub = Stubber(real.client)
    stub.add_client_error(
        "transact_write_items", **cancelled("None", "None", "TransactionConflict", "ConditionalCheckFailed")
    )
    shares = {"Items": real.client.query(**shares_of("ann", real))["Items"]}
    for _ in range(2):  # both budgets are read: the first has room
        stub.add_response("query", shares)
    with stub:
        refused = real.store.record(
            task(2), [clip(task_uuid=uuid4(2))], [reserve(scope=ALL_CALLERS), reserve(limit=PRICE)]
        )
    assert refused == OverBudget("ann", PRICE, PRICE)


def shares_of(scope: str, real: RealTable) -> dict[str, Any]:
    """The query for a budget's items."""
    values = {":pk": {"S": f"budget#{scope}"}}
    return {
        "TableName": real.stack.table_name,
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": values,
    }


def test_a_conflict_on_a_budget_uses_another_share(real: RealTable) -> None:
    """After a conflict on a share the amount goes to another share, under a new token."""
    put(real.store, clip())
    stub = Stubber(real.client)
    for _ in range(3):
        stub.add_client_error("transact_write_items", **cancelled("None", "None", "TransactionConflict", "None"))
    stub.add_response("transact_write_items", {})
    sent: list[str] = []
    record_request = lambda params, **_: sent.append(params["TransactItems"][2]["Update"]["Key"]["sk"]["S"])  # noqa: E731
    event = "provide-client-params.dynamodb.TransactWriteItems"
    real.client.meta.events.register(event, record_request)
    with stub:
        assert real.store.record(task(2), [clip(task_uuid=uuid4(2))], both()) == Recorded()
    real.client.meta.events.unregister(event, record_request)
    assert len(set(sent)) > 1
    assert all(re.fullmatch(rf"{MONTH}#\d\d", each) for each in sent)
    assert len(set(real.tokens[-4:])) == 4


@pytest.mark.parametrize("patience", [0, 3.0])
def test_the_patience_with_a_contended_budget(real: RealTable, patience: float) -> None:
    """A lasting conflict raises `BusyError` after seven attempts, or after `patience`, and nothing is recorded."""
    now = [0.0]

    def pause(seconds: float) -> None:
        real.pauses.append(seconds)
        now[0] += seconds + 0.05

    store = AdminTable(real.client, real.stack.table_name, pause, lambda: now[0])
    stub = Stubber(real.client)
    for _ in range(100):
        stub.add_client_error("transact_write_items", **cancelled("None", "None", "TransactionConflict", "None"))
    with stub, pytest.raises(BusyError) as raised:
        store.record(task(), [clip()], both(), patience=patience)
    assert not raised.value.possibly_written
    assert len(real.pauses) == 7 if not patience else now[0] >= patience
    assert now[0] < patience + 2


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerError"])
@pytest.mark.parametrize("after", [False, True])
def test_the_patience_with_errors(real: RealTable, code: str, after: bool) -> None:
    """Throttling and server errors are retried for as long as conflicts, also if only their answers are lost."""
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    store = AdminTable(real.client, real.stack.table_name, pause, lambda: now[0])
    put(store, clip(task_uuid=uuid4(2)))  # makes the budgets
    real.stack.aws.faults.fail("dynamodb", code, times=20, after=after)
    assert store.record(task(), [clip()], both(), patience=20) == Recorded()
    assert store.budget("ann", MONTH)[0] == 2 * PRICE


def test_a_lasting_conflict_on_the_task_raises_busy(real: RealTable) -> None:
    """A lasting conflict on the task gives neither `Existing` nor `OverBudget`."""
    stub = Stubber(real.client)
    for _ in range(7):
        stub.add_client_error(
            "transact_write_items", **cancelled("TransactionConflict", "None", "ConditionalCheckFailed", "None")
        )
    with stub, pytest.raises(BusyError) as raised:
        real.store.record(task(), [clip()], both())
    assert not raised.value.possibly_written


def test_a_conflict_beside_a_failed_condition(real: RealTable) -> None:
    """A failed condition is final, whatever conflicts the transaction also has."""
    stub = Stubber(real.client)
    stub.add_client_error("transact_write_items", **cancelled("ConditionalCheckFailed", "TransactionConflict", "None"))
    with stub, pytest.raises(StaleError):
        real.store.save(clip(), clip(budgeted=0))
    assert real.pauses == []


@pytest.mark.parametrize(("honored", "outcome"), [(True, Recorded()), (False, Existing(task()))])
def test_recorded_though_the_answer_was_lost(real: RealTable, honored: bool, outcome: Recorded | Existing) -> None:
    """A record with a lost answer is repeated under the same token and exists once, money included.

    DynamoDB answers such a repeat like the first call. After the token's ten minutes, and on moto, which ignores it,
    the repeat finds the task. Another server may do either.
    """
    remote = real.stack.remote_table is not None
    real.stack.aws.behave(AS_MOTO if remote else AwsBehavior(honors_tokens=honored))
    put(real.store, clip(task_uuid=uuid4(2)))
    real.tokens.clear()
    real.stack.aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    again = real.store.record(task(), [clip()], both(PRICE, 100 * PRICE, 100 * PRICE))
    real.stack.aws.behave(AS_MOTO)
    assert again == outcome or (remote and again in (Recorded(), Existing(task())))
    assert len(real.tokens) == 2
    assert real.tokens[0] == real.tokens[1] != ""
    assert real.store.clips("ann", TASK_UUID) == [clip()]
    assert real.store.budget("ann", MONTH)[0] == real.store.budget(ALL_CALLERS, MONTH)[0] == 2 * PRICE


def test_an_expired_request_is_not_bought_again(real: RealTable) -> None:
    """After the request has expired, its tombstone distinguishes a repeat from a conflict, and no money moves."""
    expiring = task(expires_at=START + 5_000)
    real.store.record(expiring, [clip()], both())
    assert real.store.task("ann", TASK_UUID) == expiring
    key = {"pk": {"S": f"task#ann#{TASK_UUID}"}, "sk": {"S": "request"}}
    dropped = real.client.delete_item(TableName=real.stack.table_name, Key=key, ReturnValues="ALL_OLD")
    assert dropped["Attributes"]["expiresAt"] == {"N": str((START + 5_000) // 1000)}
    assert real.store.task("ann", TASK_UUID) is None
    assert real.store.get_tombstone("ann", TASK_UUID) == task(request={})
    again = real.store.record(task(fingerprint="0" * 64), [clip(clip_uuid=uuid4(9))], both())
    assert again == Existing(task(request={}))
    assert real.store.clips("ann", TASK_UUID) == [clip()]
    assert real.store.budget("ann", MONTH)[0] == real.store.budget(ALL_CALLERS, MONTH)[0] == PRICE


@pytest.mark.parametrize("refused", [False, True], ids=["without money", "with money"])
def test_saved_though_the_answer_was_lost(real: RealTable, refused: bool) -> None:
    """A save with a lost answer exists once, with its money, and is counted like any other."""
    put(real.store, clip())
    new_fact = fact(Kind.REFUSED, "invalidModel") if refused else fact(Kind.ACCEPTED, "acknowledged")
    real.stack.aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    telemetry = FakeTelemetry()
    updated = update_clip(
        real.store,
        clip(),
        lambda current: merge_all(current, [new_fact]),
        now=START,
        times=TIMES,
        telemetry=telemetry,
    )
    assert telemetry.counted == ({} if refused else {Metric.CLIPS_BOUGHT: 1})
    assert updated.facts == clip(new_fact).facts
    assert real.store.clip("ann", TASK_UUID, 0) == updated
    assert updated.version == 2
    assert real.store.budget("ann", MONTH)[0] == (0 if refused else PRICE)


@pytest.mark.parametrize(("others", "recognised"), [(0, True), (3, True), (4, False)])
@pytest.mark.parametrize("amount", [PRICE, PRICE + 1], ids=["without money", "with money"])
def test_ones_own_save_is_recognised_under_those_of_others(
    real: RealTable, monkeypatch: pytest.MonkeyPatch, others: int, recognised: bool, amount: int
) -> None:
    """A save with a lost answer is recognized under up to three later saves by others."""
    put(real.store, clip())
    operation = "update_item" if amount == PRICE else "transact_write_items"
    original = getattr(real.client, operation)

    def lose_answer(**request: Any) -> Any:
        monkeypatch.undo()
        original(**request)
        for _ in range(others):
            current = real.store.clip("ann", TASK_UUID, 0)
            assert current
            real.store.save(current, current)
        raise ClientError({"Error": {"Code": "InternalServerError"}}, operation)

    monkeypatch.setattr(real.client, operation, lose_answer)
    if recognised:
        assert real.store.save(clip(), clip(budgeted=amount)) == clip(budgeted=amount, version=2)
    else:
        with pytest.raises(StaleError):
            real.store.save(clip(), clip(budgeted=amount))
    found = real.store.clip("ann", TASK_UUID, 0)
    assert found is not None
    assert found.version == 2 + others
    assert real.store.budget("ann", MONTH)[0] == real.store.budget(ALL_CALLERS, MONTH)[0] == amount


@pytest.mark.parametrize(
    ("error", "possibly_written"),
    [
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem"), False),
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "UpdateItem"), False),
        (ClientError({"Error": {"Code": "Unknown"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "UpdateItem"), True),
        (ClientError({"Error": {"Code": "TransactionInProgressException"}}, "UpdateItem"), True),
        (EndpointConnectionError(endpoint_url="https://dynamodb.example"), False),
        (ConnectTimeoutError(endpoint_url="https://dynamodb.example"), False),
        (ReadTimeoutError(endpoint_url="https://dynamodb.example"), True),
        (ConnectionClosedError(endpoint_url="https://dynamodb.example"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_busy_has_possibly_written(
    real: RealTable, monkeypatch: pytest.MonkeyPatch, error: Exception, possibly_written: bool
) -> None:
    """`possibly_written` is True if the answer of any try was lost, and False if every try was rejected."""
    put(real.store, clip())
    errors = iter([error])

    def fail(**_: Any) -> Any:
        raise next(errors, ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem"))

    monkeypatch.setattr(real.client, "update_item", fail)
    with pytest.raises(BusyError) as raised:
        real.store.save(clip(), clip())
    assert raised.value.possibly_written is possibly_written


def requested(real: RealTable, read: Callable[[AdminTable], object]) -> list[dict[str, Any]]:
    """The parameters of every request that `read` sends."""
    requests: list[dict[str, Any]] = []
    record_request = lambda params, **_: requests.append(params)  # noqa: E731
    real.client.meta.events.register("provide-client-params.dynamodb", record_request)
    read(real.store)
    real.client.meta.events.unregister("provide-client-params.dynamodb", record_request)
    return requests


READS: dict[str, Callable[[AdminTable], object]] = {
    "clip": lambda store: store.clip("ann", TASK_UUID, 0),
    "clips": lambda store: store.clips("ann", TASK_UUID),
    "task": lambda store: store.task("ann", TASK_UUID),
    "tombstone": lambda store: store.get_tombstone("ann", TASK_UUID),
    "task with clips": lambda store: store.get_task_with_clips("ann", TASK_UUID),
    "budget": lambda store: store.budget("ann", MONTH),
    "caller": lambda store: store.caller("a" * 64),
    "caller_named": lambda store: store.caller_named("ann"),
    "keys": lambda store: store.keys("ann"),
}


@pytest.mark.parametrize("read", READS)
def test_decisions_use_consistent_reads(real: RealTable, read: str) -> None:
    """Every read for a decision is consistent, checked in the request since moto has no replication lag."""
    real.store.add_key("a" * 64, Caller("ann", PRICE), "laptop", START)
    requests = requested(real, READS[read])
    assert requests
    assert all(request.get("ConsistentRead") is True for request in requests)


def test_every_shard_of_open_clips_is_swept(real: RealTable) -> None:
    """A clip is found whatever its UUID, so that no shard of the index is left out."""
    for number in range(18):
        one = clip(task_uuid=uuid4(number + 1), clip_uuid=f"{number:08x}-0000-4000-8000-000000000000", next_check_at=1)
        put(real.store, one)
    assert len(real.store.due(START, 100)) == 18


# ----------------------------------------------------------------------------------------------------------------------
# Amounts of clips
# ----------------------------------------------------------------------------------------------------------------------


def test_clips_that_fill_more_than_a_page(real: RealTable) -> None:
    """A task of more than one megabyte, DynamoDB's limit for a query, is read completely."""
    long_facts = [fact(Kind.RENDERED, str(number), videoURL="u" * 20_000) for number in range(15)]
    clips = [clip(*long_facts, index=index, clip_uuid=uuid4(index)) for index in range(4)]
    put(real.store, *clips)
    assert [each.index for each in real.store.clips("ann", TASK_UUID)] == [0, 1, 2, 3]
    found = real.store.get_task_with_clips("ann", TASK_UUID)
    assert found is not None
    assert [each.index for each in found.clips] == [0, 1, 2, 3]


def test_an_expired_request_can_be_forgotten(real: RealTable) -> None:
    """Forgetting a task with an expired request removes its tags and creates no request."""
    put(real.store, clip())
    key = {"pk": {"S": f"task#ann#{TASK_UUID}"}, "sk": {"S": "request"}}
    real.client.delete_item(TableName=real.stack.table_name, Key=key)
    real.store.forget("ann", TASK_UUID)
    assert real.store.task("ann", TASK_UUID) is None
    assert real.store.clips("ann", TASK_UUID) == [clip()]


def test_the_longest_answers_fit_into_an_item(real: RealTable) -> None:
    """The longest failures and renders can be saved; an item that is too large could never be closed."""
    text = "\N{CLAPPER BOARD}\x01" * 9_999
    error_fields = dict.fromkeys(
        ("parameter", "allowedValues", "type", "documentation", "min", "max", "multiplier", "responseContent"),
        [text] * 9,
    )
    names = ("message", "type", "documentation", "min", "max", "multiplier", "responseContent")
    errors: list[Any] = [
        {
            **error_fields,
            **dict.fromkeys(names, text),
            "code": f"{number}{text}",
            "status": "error",
            "taskUUID": CLIP_UUID,
        }
        for number in range(16)
    ]
    results = [
        {"taskUUID": CLIP_UUID, "videoUUID": f"{number}{text}", "videoURL": text, "seed": 2**63, "cost": 0.924}
        for number in range(16)
    ]
    response = read(json.dumps({"data": results, "errors": errors}, ensure_ascii=False)).about(CLIP_UUID)
    before = clip()
    put(real.store, before)
    facts = [*webhook_facts(response, START), *poll_facts(response, START)]
    refusals = [
        replace(each, kind=Kind.REFUSED, source=FactSource.SUBMISSION) for each in facts if each.kind == Kind.FAILED
    ]
    saved = real.store.save(before, refresh_derived(merge_all(before, [*facts, *refusals]), START, TIMES))
    assert real.store.clip("ann", TASK_UUID, 0) == saved
    kinds = (Kind.FAILED, Kind.RENDERED, Kind.REFUSED)
    assert [len(saved.of(kind)) for kind in kinds] == [4, 4, 4]
    assert all(len(record.claims) == 2 for record in saved.of(Kind.FAILED).values())


def test_facts_of_an_earlier_version_are_read() -> None:
    """The older format had the fields of all sources in one map, and `rescued` as a field of a copy."""
    facts: dict[str, Any] = {
        "rendered:v": {"seen": {"poll": 5, "webhook": 3}, "fields": {"cost": 7}},
        "stored:1": {"seen": {"bucket": 9}, "fields": {"rescued": True}},
        "lastLook": {"seen": {"clock": 9}},
    }
    record = read_facts(facts)
    assert record[Kind.RENDERED, "v"].claims == {"poll": Claim(5, {"cost": 7}), "webhook": Claim(3, {"cost": 7})}
    assert record[Kind.STORED, "1"].claims == {"rescue": Claim(9, {"rescued": True})}
    assert record[Kind.LAST_LOOK, ""].seen == {FactSource.CLOCK: 9}
    assert fact_value(record[Kind.STORED, "1"]) == facts["stored:1"]


def test_costs_follow_the_clips(real: RealTable) -> None:
    """Costs have a line for each clip of the caller in the period, with its current amount, newest first."""
    newest, middle, oldest = record_tasks(real.store, 3, clips=2)
    (first, second) = real.store.clips("ann", newest)
    real.store.save(first, replace(first, budgeted=1))
    found = real.store.costs("ann", START, START + 10_000, 10)
    assert found.end is None
    assert [cost.task_uuid for cost in found.found] == [newest, newest, middle, middle, oldest, oldest]
    assert {(cost.index, cost.budgeted) for cost in found.found[:2]} == {(0, 1), (1, second.budgeted)}
    assert {cost.created_at for cost in found.found[2:4]} == {START + 2000}
    edges = real.store.costs("ann", START + 2000, START + 2999, 10).found
    assert [cost.task_uuid for cost in edges] == [middle, middle]
    assert real.store.costs("bob", START, START + 10_000, 10).found == ()


def test_costs_in_pages(real: RealTable) -> None:
    """Each page continues after the previous one, and an invalid position is refused."""
    names = record_tasks(real.store, 3)
    first = real.store.costs("ann", START, START + 10_000, 2)
    rest = real.store.costs("ann", START, START + 10_000, 2, first.end)
    assert [cost.task_uuid for cost in (*first.found, *rest.found)] == names
    assert rest.end is None
    assert real.store.costs("bob", START, START + 10_000, 2, first.end).found == ()
    for position in ("", "x", f"{START}#{names[0]}", f"{START}#{names[0]}#0#", "2026-09-21T00:00:00.000Z#" + names[0]):
        with pytest.raises(UnreadableError):
            real.store.costs("ann", START, START + 10_000, 2, position)
    for since, until in ((START, START + 1999), (START + 2001, START + 10_000)):  # without START + 2000
        with pytest.raises(UnreadableError):
            real.store.costs("ann", since, until, 2, first.end)


def test_costs_lose_their_tags_when_a_task_is_forgotten(real: RealTable) -> None:
    """Each line has model and tags; the tags are the caller's own text and are removed with the request."""
    sent = {"model": "klingai:5@3", "tags": {"project": "fox", "für": "Ä"}}
    real.store.record(task(clips=2, request=sent), [clip(), clip(index=1, clip_uuid=uuid4(2))], [])
    costs = real.store.costs("ann", START, START, 10).found
    assert [(cost.model, cost.tags) for cost in costs] == [("klingai:5@3", sent["tags"])] * 2
    real.store.forget("ann", TASK_UUID)
    costs = real.store.costs("ann", START, START, 10).found
    assert [(cost.model, cost.tags, cost.budgeted) for cost in costs] == [("klingai:5@3", {}, PRICE)] * 2
    assert "fox" not in str(real.client.scan(TableName=real.stack.table_name)["Items"])


def test_the_costs_of_all_callers(real: RealTable) -> None:
    """An operator gets the clips of all callers in a period, each once."""
    record_tasks(real.store, 2)
    real.store.record(task(9, caller="bob"), [clip(caller="bob", task_uuid=uuid4(9), created_at=START + 1000)], [])
    found = [(cost.caller, cost.created_at) for cost in real.store.all_costs(START, START + 1999)]
    assert sorted(found) == [("ann", START + 1000), ("bob", START + 1000)]

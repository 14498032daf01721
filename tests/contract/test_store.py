"""The table, twice: the real one on moto and the fake of the simulation keep one contract.

Then what only the real one has to do: contention, trouble, lost answers, keys.
"""

import json
import re
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
    Claim,
    Clip,
    FactRecord,
    FactSource,
    Kind,
    Lease,
    Status,
    defer_budget,
    merge_all,
    refresh_derived,
)
from rushes.domain.task import Existing, Recorded, Task
from rushes.errors import BusyError, StaleError, UnreadableClipError, UnreadableError
from rushes.runware.facts import poll_facts, webhook_facts
from rushes.runware.response import read
from rushes.services.metric import Metric
from rushes.services.update_clip import update_clip
from rushes_local.stack import Stack
from tests.fakes.builders import CLIP_UUID, MONTH, PRICE, START, TASK_UUID, TIMES, clip, fact, uuid4
from tests.fakes.simulated import SimulatedTable
from tests.fakes.telemetry import FakeTelemetry
from tests.simulation.world import World


class Table(Protocol):
    """What both tables can do."""

    def record(
        self, task: Task, clips: Sequence[Clip], reservations: Sequence[Reservation], *, patience: float = 0
    ) -> Recorded | Existing | OverBudget: ...

    def save(self, before: Clip, after: Clip) -> Clip: ...

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
class Real:
    """A store on the stack's table, empty at first, with the pauses between its tries and the tokens it sent."""

    stack: Stack
    client: Any
    pauses: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def store(self) -> AdminTable:
        return AdminTable(self.client, self.stack.table_name, self.pauses.append)

    def note_token(self, params: dict[str, Any], **_: Any) -> None:
        self.tokens.append(params.get("ClientRequestToken", ""))


@cache
def tries_once(stack: Stack) -> Any:
    """A client without patience, so that what is seen is the store's own."""
    return stack.client("dynamodb", config=Config(retries={"total_max_attempts": 1}))


def check_expressions(params: dict[str, Any], **_: Any) -> None:
    """Fails as DynamoDB does, and moto does not, for a name or value that no expression of its call uses."""
    writes = [write for item in params.get("TransactItems", ()) for write in item.values()]
    for call in writes or [params]:
        given = {**call.get("ExpressionAttributeValues", {}), **call.get("ExpressionAttributeNames", {})}
        used = " ".join(text for name, text in call.items() if name.endswith("Expression"))
        assert given.keys() == set(re.findall(r"[:#]\w+", used)), call


@pytest.fixture
def real(stack: Stack) -> Iterator[Real]:
    """The real table."""
    real = Real(stack, tries_once(stack))
    handlers = {
        "provide-client-params.dynamodb.TransactWriteItems": real.note_token,
        "provide-client-params.dynamodb": check_expressions,
    }
    for event, handler in handlers.items():
        real.client.meta.events.register(event, handler)
    yield real
    for event, handler in handlers.items():
        real.client.meta.events.unregister(event, handler)


@pytest.fixture(params=["real", "fake"])
def table(request: pytest.FixtureRequest) -> Table:
    """Each of the two tables, empty."""
    if request.param == "fake":
        return SimulatedTable(World())
    store: AdminTable = request.getfixturevalue("real").store
    return store


def task(number: int = 0, **changes: Any) -> Task:
    """The task of `clip()`; with a number, another one."""
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


def both(amount: int = PRICE, mine: int = 10 * PRICE, all_callers: int = 10 * PRICE) -> list[Reservation]:
    """What `submit` reserves: from everybody's month and from the caller's own."""
    return [reserve(amount, all_callers, ALL_CALLERS), reserve(amount, mine)]


def put(table: Table, *clips: Clip) -> None:
    """Records clips of one task, with their money."""
    one = clips[0]
    new = task(caller=one.caller, task_uuid=one.task_uuid, clips=len(clips))
    assert table.record(new, clips, both(PRICE * len(clips), 100 * PRICE, 100 * PRICE)) == Recorded()


# ----------------------------------------------------------------------------------------------------------------------
# record
# ----------------------------------------------------------------------------------------------------------------------


def test_recorded(table: Table) -> None:
    """What is recorded can be read: task, clips and the money in both budgets, under the limits brought along."""
    clips = [clip(index=index, clip_uuid=uuid4(index + 1)) for index in range(2)]
    assert table.record(task(clips=2), clips, both(2 * PRICE, 7 * PRICE, 9 * PRICE)) == Recorded()
    assert table.task("ann", TASK_UUID) == task(clips=2)
    assert table.clips("ann", TASK_UUID) == clips
    assert table.clip("ann", TASK_UUID, 1) == clips[1]
    assert table.budget("ann", MONTH) == (2 * PRICE, 7 * PRICE)
    assert table.budget(ALL_CALLERS, MONTH) == (2 * PRICE, 9 * PRICE)


def test_nothing_there(table: Table) -> None:
    """What was never recorded is None, no clips, an empty budget without a limit, and nobody's key."""
    assert table.task("ann", TASK_UUID) is None
    assert table.get_tombstone("ann", TASK_UUID) is None
    assert table.clip("ann", TASK_UUID, 0) is None
    assert table.clips("ann", TASK_UUID) == []
    assert table.budget("ann", MONTH) == (0, None)
    assert table.caller("0" * 64) is None
    assert table.caller_named("ann") is None


@pytest.mark.parametrize("fingerprint", ["f" * 64, "0" * 64])
def test_recorded_already(table: Table, fingerprint: str) -> None:
    """A second record under the same UUID finds the first task, same request or not, and changes nothing."""
    put(table, clip())
    again = table.record(task(fingerprint=fingerprint, clips=1), [clip(clip_uuid=uuid4(9))], both())
    assert again == Existing(task())
    assert table.clips("ann", TASK_UUID) == [clip()]
    assert table.budget("ann", MONTH)[0] == table.budget(ALL_CALLERS, MONTH)[0] == PRICE


def test_a_known_task_has_its_fingerprint(table: Table) -> None:
    """Whoever asks whether a task is known hears enough to tell a repeat from a conflict, of the caller's own only."""
    put(table, clip())
    known = table.get_tombstone("ann", TASK_UUID)
    assert known is not None
    assert (known.caller, known.task_uuid, known.fingerprint) == ("ann", TASK_UUID, task().fingerprint)
    assert table.get_tombstone("bob", TASK_UUID) is None


def test_existence_wins_over_the_budget(table: Table) -> None:
    """A repeat is told that its task exists even when the budgets would refuse it or have another limit."""
    table.record(task(), [clip()], both(mine=PRICE))
    assert table.record(task(), [clip()], both(mine=PRICE)) == Existing(task())
    assert table.record(task(), [clip()], both(mine=2 * PRICE, all_callers=2 * PRICE)) == Existing(task())


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
    """A clip that reaches a limit is recorded; one that passes it by a micro-dollar is not, nor is anything of it."""
    enough = before + PRICE
    limits = {"mine": 100 * PRICE, "all_callers": 100 * PRICE}
    name = "mine" if scope == "ann" else "all_callers"
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
    """The budget that refuses is named with its limit and its sum, however many clips stand before it."""
    put(table, clip(task_uuid=uuid4(1)))
    clips = [clip(index=index) for index in range(4)]
    refused = table.record(task(clips=4), clips, both(4 * PRICE, mine=5 * PRICE - 1))
    assert refused == OverBudget("ann", 5 * PRICE - 1, PRICE)
    assert table.clips("ann", TASK_UUID) == []


def test_more_than_the_whole_limit(table: Table) -> None:
    """A task that costs more than a limit of any month is refused, a limit of nothing included."""
    assert table.record(task(), [clip()], [reserve(limit=PRICE - 1)]) == OverBudget("ann", PRICE - 1, 0)
    assert table.record(task(), [clip()], [reserve(limit=0)]) == OverBudget("ann", 0, 0)
    assert table.budget("ann", MONTH) == (0, None)


def test_the_first_budget_that_refuses_is_named(table: Table) -> None:
    """When both budgets are too small, everybody's is named."""
    assert table.record(task(), [clip()], both(mine=0, all_callers=1)) == OverBudget(ALL_CALLERS, 1, 0)


@pytest.mark.parametrize("scope", ["ann", ALL_CALLERS])
@pytest.mark.parametrize("new", [PRICE, 2 * PRICE, 12 * PRICE], ids=["used up", "lowered", "raised"])
def test_a_changed_limit(table: Table, scope: str, new: int) -> None:
    """Each reservation is held against its own limit, and the month records that of the last one that succeeded."""
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
    """A month that exists only through a correction has no limit yet: the first clip brings it."""
    put(table, clip(month="2026-08"))
    table.save(clip(month="2026-08"), clip(month="2026-08", budgeted=PRICE + 5))
    assert table.budget("ann", "2026-08") == (5, None)
    wanted = Reservation("ann", "2026-08", PRICE, 2 * PRICE)
    assert table.record(task(1), [clip(task_uuid=uuid4(1))], [wanted]) == Recorded()
    assert table.budget("ann", "2026-08") == (PRICE + 5, 2 * PRICE)


# ----------------------------------------------------------------------------------------------------------------------
# save
# ----------------------------------------------------------------------------------------------------------------------


def test_saved_over_its_version(table: Table) -> None:
    """A save writes the next version; one over an older version changes nothing and says so."""
    put(table, clip())
    running = table.save(clip(), clip(fact(Kind.ACCEPTED, "acknowledged")))
    assert running == clip(fact(Kind.ACCEPTED, "acknowledged"), version=2)
    with pytest.raises(StaleError):
        table.save(clip(), clip(fact(Kind.FAILED, "taskFailed"), budgeted=0))
    assert table.clip("ann", TASK_UUID, 0) == running
    assert table.budget("ann", MONTH)[0] == PRICE


@pytest.mark.parametrize("counted", [PRICE, 0], ids=["without money", "with money"])
def test_saving_what_is_not_there(table: Table, counted: int) -> None:
    """A clip that was never recorded cannot be saved, and its money does not move."""
    with pytest.raises(StaleError):
        table.save(clip(), clip(budgeted=counted))
    assert table.clip("ann", TASK_UUID, 0) is None
    assert table.budget("ann", MONTH) == (0, None)


@pytest.mark.parametrize("worth", [0, 900_000, 2 * PRICE])
def test_money_follows(table: Table, worth: int) -> None:
    """A save moves both budgets by what the clip's worth changed, over a limit if need be, and leaves the limit."""
    table.record(task(), [clip()], both(mine=PRICE))
    saved = table.save(clip(), clip(budgeted=worth))
    assert saved.budgeted == worth
    assert table.budget("ann", MONTH) == (worth, PRICE)
    assert table.budget(ALL_CALLERS, MONTH) == (worth, 10 * PRICE)


def test_money_stays(table: Table) -> None:
    """A save that changes no worth leaves the budgets as they are, even one that is not there."""
    table.record(task(), [clip()], [reserve()])
    table.save(clip(), clip(fact(Kind.ACCEPTED, "acknowledged")))
    assert table.budget("ann", MONTH) == (PRICE, 10 * PRICE)
    assert table.budget(ALL_CALLERS, MONTH) == (0, None)


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
        for (kind, key), known in clip.facts.items()
        for name, value in {**known.fields, "at": known.at}.items()
    }


def test_every_field_comes_back(table: Table) -> None:
    """A clip with every field and every kind of fact is read as it was saved, and again without what was taken away."""
    put(table, clip())
    full = merge_all(
        clip(
            possibly_sent_at=START + 7,
            possibly_sent_to="a1",
            lease=Lease("holder", START + 1, START + 60_001, "a1"),
            next_check_at=START + 60_001,
            budgeted=PRICE + 1,
        ),
        EVERYTHING,
    )
    empty = {each.name for each in fields(Clip) if not getattr(full, each.name)} - {"index"}
    assert not empty, "the test has to set every field"
    saved = table.save(clip(), full)
    found = table.clip("ann", TASK_UUID, 0)
    assert found == saved == replace(full, version=2)
    assert found is not None
    assert types_of(found) == types_of(full)  # since 0 equals False, and 1.0 equals 1
    bare = replace(saved, possibly_sent_at=None, possibly_sent_to="", lease=None, next_check_at=None, facts={})
    assert table.clip("ann", TASK_UUID, 0) == saved
    assert table.save(saved, bare) == table.clip("ann", TASK_UUID, 0) == replace(bare, version=3)


def test_a_recorded_clip_comes_back_whole(table: Table) -> None:
    """A clip may be recorded with its lease and facts, and a task with any JSON for a request."""
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


def test_clips_are_in_order(table: Table) -> None:
    """The clips of a task come by their number, however they were written, and only that task's."""
    clips = [clip(index=index, clip_uuid=uuid4(index + 1)) for index in (2, 10, 0, 3, 1)]
    put(table, *clips)
    put(table, clip(task_uuid=uuid4(7)))
    assert [found.index for found in table.clips("ann", TASK_UUID)] == [0, 1, 2, 3, 10]


# ----------------------------------------------------------------------------------------------------------------------
# due
# ----------------------------------------------------------------------------------------------------------------------


def test_due(table: Table) -> None:
    """Open clips whose time has come are named, oldest first over all shards, no more than asked for."""
    moments = {7: 500, 1: 100, 5: 900, 2: 300, 9: 200, 4: 1000, 3: 1001}
    for number, moment in moments.items():
        # The first digits of a clip's UUID choose its shard.
        shard = f"{number:08x}-0000-4000-8000-000000000000"
        put(table, clip(task_uuid=uuid4(number), clip_uuid=shard, index=number, next_check_at=moment))
    oldest_first = [("ann", uuid4(number), number) for number in (1, 9, 2, 7, 5, 4)]
    assert table.due(1000, 100) == oldest_first
    assert table.due(1000, 2) == oldest_first[:2]
    assert table.due(99, 100) == []


def test_no_shard_is_read_further_than_what_is_asked_for(real: Real) -> None:
    """Of a long index one page is enough."""
    limits: list[int | None] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        limits.append(params.get("Limit"))

    event = "provide-client-params.dynamodb.Query"
    real.client.meta.events.register(event, note)
    real.store.due(START, 7)
    real.client.meta.events.unregister(event, note)
    assert limits == [7] * SHARDS


@pytest.mark.parametrize(
    ("learned", "open_"),
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
def test_only_open_clips_are_due(table: Table, learned: list[Any], open_: bool) -> None:
    """A clip is looked for exactly while more can be learned about it; in review it is not, though it has a time."""
    fresh = clip(next_check_at=START)
    put(table, fresh)
    assert table.due(START, 9) == [("ann", TASK_UUID, 0)]
    settled = refresh_derived(merge_all(fresh, learned), START, TIMES)
    saved = table.save(fresh, settled) if learned else fresh
    assert saved.open is open_
    assert table.due(START + 10**9, 9) == ([("ann", TASK_UUID, 0)] if open_ else [])


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.UNSAVED])
def test_a_clip_whose_money_is_to_follow_is_due(table: Table, kind: Kind) -> None:
    """Closed or in review: until the budgets hold what it is worth it is looked for as an open clip is."""
    put(table, clip())
    renders = [fact(Kind.RENDERED, uuid4(1)), fact(Kind.RENDERED, uuid4(2))] if kind == Kind.UNSAVED else []
    later = table.save(clip(), defer_budget(clip(fact(kind), *renders), START, TIMES))
    assert not later.budget_is_current
    assert table.budget("ann", MONTH)[0] == PRICE
    assert table.due(START + TIMES.check - 1, 9) == []
    assert table.due(START + TIMES.check, 9) == [("ann", TASK_UUID, 0)]
    settled = table.save(later, refresh_derived(later, START, TIMES))
    assert table.due(START + 10**9, 9) == []
    assert table.budget("ann", MONTH)[0] == table.budget(ALL_CALLERS, MONTH)[0] == settled.budgeted


def test_due_again(table: Table) -> None:
    """Late truth about a clip in review brings it back to those that are due."""
    put(table, clip())
    parked = table.save(clip(), refresh_derived(clip(fact(Kind.UNPROVEN)), START, TIMES))
    assert table.due(START + 10**9, 9) == []
    table.save(parked, refresh_derived(merge_all(parked, [fact(Kind.RENDERED, uuid4(1))]), START, TIMES))
    assert table.due(START + 10**9, 9) == [("ann", TASK_UUID, 0)]


def test_due_again_for_a_person(table: Table) -> None:
    """A clip in review comes back to those that are due when a person asks for it, and leaves them with the answer."""
    put(table, clip())
    parked = refresh_derived(clip(fact(Kind.UNPROVEN), fact(Kind.ASKED, "a")), START, TIMES)
    asked = table.save(clip(), parked)
    assert table.due(START + 10**9, 9) == [("ann", TASK_UUID, 0)]
    table.save(asked, refresh_derived(merge_all(asked, [fact(Kind.ANSWERED, "a")]), START, TIMES))
    assert table.due(START + 10**9, 9) == []


def change_fact(real: Real, name: str, value: Any) -> None:
    """Writes one fact of the clip as another version of this service would."""
    real.client.update_item(
        TableName=real.stack.table_name,
        Key={"pk": {"S": f"task#ann#{TASK_UUID}"}, "sk": {"S": "clip#0"}},
        UpdateExpression="SET facts.#name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": attribute_values.wire(value)},
    )


def test_what_a_later_version_knows_is_carried_through_a_save(real: Real) -> None:
    """Facts of unknown kinds and witnesses come back from a save by this version as they were."""
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
def test_a_clip_that_cannot_be_read_is_postponed(real: Real, value: Any) -> None:
    """What does not have a fact's shape could not be kept: the clip is not read, and moves aside untouched."""
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
    """A key that was made known belongs to its caller, with the limit; another hash belongs to nobody."""
    table.add_key("a" * 64, Caller("ann", 12_500_000), "laptop", START)
    assert table.caller("a" * 64) == table.caller_named("ann") == Caller("ann", 12_500_000)
    assert table.caller("b" * 64) is None


def test_a_callers_limit_is_one_for_all_its_keys(table: Table) -> None:
    """Whatever door a caller comes in by, what was set last holds, its image sources included."""
    table.add_key("a" * 64, Caller("ann", 12_500_000), "laptop", START)
    table.add_key("b" * 64, Caller("ann", 1), "server", START)
    table.set_caller(Caller("ann", 2, ("photos/ann/",)))
    assert table.caller("a" * 64) == table.caller("b" * 64) == Caller("ann", 2, ("photos/ann/",))


def test_a_disabled_caller(real: Real) -> None:
    """Disabling shows by every way to a caller, lasts through a new limit and a new key, and can be taken back."""
    store = real.store
    assert not store.disable_caller("ann")
    store.add_key("a" * 64, Caller("ann", 1, ("photos/ann/",)), "laptop", START)
    store.set_caller(Caller("bob", 2))
    assert store.disable_caller("ann")
    store.add_key("b" * 64, Caller("ann", 3, ("photos/ann/",)), "server", START)
    closed = Caller("ann", 3, ("photos/ann/",), disabled=True)
    assert store.caller("a" * 64) == store.caller("b" * 64) == store.caller_named("ann") == closed
    assert store.all_callers() == list(store.snapshot().callers.values()) == [closed, Caller("bob", 2)]
    assert store.disable_caller("ann", False)
    assert store.caller_named("ann") == Caller("ann", 3, ("photos/ann/",))


def test_a_revoked_key(real: Real) -> None:
    """A key that was revoked has no caller any more, and stays revoked since the first time; its twin goes on."""
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


def listed(store: AdminTable, number: int, clips: int = 1, caller: str = "ann") -> list[str]:
    """Records that many tasks, each a second after the one before; their UUIDs, newest first."""
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


def test_a_page_is_in_order_and_leads_to_the_next(real: Real) -> None:
    """Newest first, with all clips of each, and every task on one page only."""
    names = listed(real.store, 5, clips=2)
    first = real.store.page("ann", 2)
    assert [found.task.task_uuid for found in first.found] == names[:2]
    assert all([each.index for each in found.clips] == [0, 1] for found in first.found)
    assert first.end == first.found[-1].position
    second = real.store.page("ann", 2, after=first.end)
    third = real.store.page("ann", 2, after=second.end)
    assert [found.task.task_uuid for found in (*second.found, *third.found)] == names[2:]
    assert third.end is None
    assert real.store.page("ann", 2, after=first.found[0].position).found[0] == first.found[1]


def test_a_page_is_its_callers_own(real: Real) -> None:
    """Neither another's tasks nor keys are on it, also from a position of another's."""
    listed(real.store, 2)
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
def test_a_page_of_a_day(real: Real, day: str) -> None:
    """The day narrows what is read; a position of another day is refused."""
    names = listed(real.store, 3)
    page = real.store.page("ann", 2, day=day)
    assert [found.task.task_uuid for found in page.found] == names[:2]
    assert [found.task.task_uuid for found in real.store.page("ann", 2, day=day, after=page.end).found] == names[2:]
    assert real.store.page("ann", 2, day="2026-09-20").found == ()
    with pytest.raises(UnreadableError):
        real.store.page("ann", 2, day="2026-09-20", after=page.end)


@pytest.mark.parametrize("position", ["", "x", "2026-09-21T00:00:00.000Z", "2026-09-21T00:00:00.000Z#a#b", "#"])
def test_a_position_that_is_none(real: Real, position: str) -> None:
    """What cannot stand in the list is refused before the table is asked."""
    with pytest.raises(UnreadableError):
        real.store.page("ann", 2, after=position)


def test_more_items_than_one_call_gives(real: Real) -> None:
    """A page of more clips than DynamoDB gives at once is whole."""
    names = listed(real.store, 30, clips=4)
    page = real.store.page("ann", 30)
    assert [found.task.task_uuid for found in page.found] == names
    assert {len(found.clips) for found in page.found} == {4}


def test_what_was_left_unprocessed_is_asked_for_again(real: Real) -> None:
    """A call may give a part; the rest is asked for after a pause, and what never comes is trouble, not an answer.

    As long as each call gives something, no number of them is too many.
    """
    listed(real.store, 9)
    genuine, asked = real.client.batch_get_item, []

    def partly(RequestItems: Any) -> Any:
        (table,) = RequestItems
        keys = RequestItems[table]["Keys"]
        asked.append(len(keys))
        give = 0 if stuck else 1
        answer = genuine(RequestItems={table: {"Keys": keys[:give]}}) if give else {"Responses": {}}
        left = {table: {"Keys": keys[give:]}} if keys[give:] else {}
        return {**answer, "UnprocessedKeys": left}

    stuck = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real.client, "batch_get_item", partly)
        store = real.store
        assert [len(found.clips) for found in store.page("ann", 9).found] == [1] * 9
        assert asked == [*range(9, 0, -1)] * 2
        assert len(real.pauses) == 16
        stuck = True
        with pytest.raises(BusyError):
            store.page("ann", 9)
    assert len(asked) == 18 + 7


def test_a_whole_task(real: Real) -> None:
    """A task and its clips in one read; also once its request has expired; and None for what never was."""
    (name,) = listed(real.store, 1, clips=3)
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
# Only the real one: contention and trouble
# ----------------------------------------------------------------------------------------------------------------------


def test_contention(real: Real) -> None:
    """Eight threads that record on one budget, some turned away at times: as many as fit, and the sum is theirs."""
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException", times=6)  # so that nobody can meet it seven times
    room = 10

    def record(number: int) -> Any:
        return real.store.record(
            task(number), [clip(task_uuid=uuid4(number))], both(mine=room * PRICE, all_callers=99 * PRICE)
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


def test_saving_at_once(real: Real) -> None:
    """Of eight threads that save over one version exactly one does, and the budget moves once."""
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
def test_trouble_is_sat_out(real: Real, call: str) -> None:
    """What throttling or an error of the table turned away is tried again, with pauses, and then succeeds."""
    put(real.store, clip())
    code = CODES[list(CALLS).index(call) % len(CODES)]
    real.stack.aws.faults.fail("dynamodb", code, times=6)
    CALLS[call](real.store)
    assert len(real.pauses) == 6
    assert all(0 <= pause <= 0.02 * 2**number for number, pause in enumerate(real.pauses))


@pytest.mark.parametrize("call", CALLS)
def test_trouble_that_stays(real: Real, call: str) -> None:
    """After bounded tries the table is busy, nothing is written, and all pauses together stay near a second."""
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


def test_pauses_double(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest that chance allows is twice the longest before it."""
    monkeypatch.setattr(SystemRandom, "uniform", lambda _self, _shortest, longest: longest)
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException")
    with pytest.raises(BusyError):
        real.store.clip("ann", TASK_UUID, 0)
    real.stack.aws.faults.clear()
    assert real.pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64]


def test_patience_does_not_multiply(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the client that the functions have a call is tried seven times in all: a webhook has only five seconds."""
    pauses: list[float] = []
    store = AdminTable(real.stack.client("dynamodb", config=aws_config(tries=1)), real.stack.table_name, pauses.append)
    monkeypatch.setattr("botocore.endpoint.time.sleep", pauses.append)
    real.stack.aws.faults.fail("dynamodb", "ThrottlingException")
    with pytest.raises(BusyError):
        store.clip("ann", TASK_UUID, 0)
    assert len(pauses) == 6


def test_a_table_that_is_away() -> None:
    """A table that cannot be reached is busy after a second try, since each may have taken seconds."""
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


def test_a_conflict_of_transactions(real: Real) -> None:
    """A transaction that met another one is tried again under the same token; moto knows no such conflict."""
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
def test_no_refusal_while_the_task_itself_is_in_another_transaction(real: Real, position: int, scope: str) -> None:
    """A budget that refuses beside a conflict on the request or a clip may hide that the task exists: try again."""
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


def test_a_refusal_beside_a_conflict_on_the_other_budget_is_final(real: Real) -> None:
    """No item of the task conflicted, so no other process is recording it, and the budget's refusal stands."""
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


def shares_of(scope: str, real: Real) -> dict[str, Any]:
    """The query for a budget's items."""
    values = {":pk": {"S": f"budget#{scope}"}}
    return {
        "TableName": real.stack.table_name,
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": values,
    }


def test_a_conflict_on_a_budget_takes_another_share(real: Real) -> None:
    """A share that is in another transaction is left to it: the amount goes to another one, under a new token."""
    put(real.store, clip())
    stub = Stubber(real.client)
    for _ in range(3):
        stub.add_client_error("transact_write_items", **cancelled("None", "None", "TransactionConflict", "None"))
    stub.add_response("transact_write_items", {})
    sent: list[str] = []
    note = lambda params, **_: sent.append(params["TransactItems"][2]["Update"]["Key"]["sk"]["S"])  # noqa: E731
    event = "provide-client-params.dynamodb.TransactWriteItems"
    real.client.meta.events.register(event, note)
    with stub:
        assert real.store.record(task(2), [clip(task_uuid=uuid4(2))], both()) == Recorded()
    real.client.meta.events.unregister(event, note)
    assert len(set(sent)) > 1
    assert all(re.fullmatch(rf"{MONTH}#\d\d", each) for each in sent)
    assert len(set(real.tokens[-4:])) == 4


@pytest.mark.parametrize("patience", [0, 3.0])
def test_the_patience_with_a_contended_budget(real: Real, patience: float) -> None:
    """A conflict that stays is busy after seven attempts, or when the caller's time is up, and nothing is recorded."""
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


def test_a_conflict_on_the_task_that_stays_is_busy(real: Real) -> None:
    """Without an end of the conflict nothing is claimed of the task, neither that it exists nor that it was refused."""
    stub = Stubber(real.client)
    for _ in range(7):
        stub.add_client_error(
            "transact_write_items", **cancelled("TransactionConflict", "None", "ConditionalCheckFailed", "None")
        )
    with stub, pytest.raises(BusyError) as raised:
        real.store.record(task(), [clip()], both())
    assert not raised.value.possibly_written


def test_a_conflict_beside_a_failed_condition(real: Real) -> None:
    """A condition that failed is final, whatever else the transaction met."""
    stub = Stubber(real.client)
    stub.add_client_error("transact_write_items", **cancelled("ConditionalCheckFailed", "TransactionConflict", "None"))
    with stub, pytest.raises(StaleError):
        real.store.save(clip(), clip(budgeted=0))
    assert real.pauses == []


def test_recorded_though_the_answer_was_lost(real: Real) -> None:
    """A record that took effect unheard is repeated under the same token and stands once, money included.

    DynamoDB answers such a repeat as the first call. moto ignores the token, so here the repeat finds the task there,
    and what remains to be shown is that nothing of it is there twice.
    """
    put(real.store, clip(task_uuid=uuid4(2)))
    real.tokens.clear()
    real.stack.aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    again = real.store.record(task(), [clip()], both(PRICE, 100 * PRICE, 100 * PRICE))
    assert again in (Recorded(), Existing(task()))
    assert len(real.tokens) == 2
    assert real.tokens[0] == real.tokens[1] != ""
    assert real.store.clips("ann", TASK_UUID) == [clip()]
    assert real.store.budget("ann", MONTH)[0] == real.store.budget(ALL_CALLERS, MONTH)[0] == 2 * PRICE


def test_an_expired_request_leaves_what_keeps_it_from_being_bought_again(real: Real) -> None:
    """Once the table has dropped the request, its UUID still tells a repeat from a conflict, and no money moves."""
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
def test_saved_though_the_answer_was_lost(real: Real, refused: bool) -> None:
    """A save that took effect unheard stands once, with its money, and is counted as any other."""
    put(real.store, clip())
    news = fact(Kind.REFUSED, "invalidModel") if refused else fact(Kind.ACCEPTED, "acknowledged")
    real.stack.aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    telemetry = FakeTelemetry()
    learned = update_clip(
        real.store,
        clip(),
        lambda current: merge_all(current, [news]),
        now=START,
        times=TIMES,
        telemetry=telemetry,
    )
    assert telemetry.counted == ({} if refused else {Metric.CLIPS_BOUGHT: 1})
    assert learned.facts == clip(news).facts
    assert real.store.clip("ann", TASK_UUID, 0) == learned
    assert learned.version == 2
    assert real.store.budget("ann", MONTH)[0] == (0 if refused else PRICE)


@pytest.mark.parametrize(("others", "recognised"), [(0, True), (3, True), (4, False)])
@pytest.mark.parametrize("worth", [PRICE, PRICE + 1], ids=["without money", "with money"])
def test_ones_own_save_is_recognised_under_those_of_others(
    real: Real, monkeypatch: pytest.MonkeyPatch, others: int, recognised: bool, worth: int
) -> None:
    """A save whose answer was lost is one's own though a few others have been saved over it since."""
    put(real.store, clip())
    operation = "update_item" if worth == PRICE else "transact_write_items"
    genuine = getattr(real.client, operation)

    def unheard(**request: Any) -> Any:
        monkeypatch.undo()
        genuine(**request)
        for _ in range(others):
            current = real.store.clip("ann", TASK_UUID, 0)
            assert current
            real.store.save(current, current)
        raise ClientError({"Error": {"Code": "InternalServerError"}}, operation)

    monkeypatch.setattr(real.client, operation, unheard)
    if recognised:
        assert real.store.save(clip(), clip(budgeted=worth)) == clip(budgeted=worth, version=2)
    else:
        with pytest.raises(StaleError):
            real.store.save(clip(), clip(budgeted=worth))
    found = real.store.clip("ann", TASK_UUID, 0)
    assert found is not None
    assert found.version == 2 + others
    assert real.store.budget("ann", MONTH)[0] == real.store.budget(ALL_CALLERS, MONTH)[0] == worth


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
def test_busy_says_whether_a_write_may_have_taken_effect(
    real: Real, monkeypatch: pytest.MonkeyPatch, error: Exception, possibly_written: bool
) -> None:
    """Where an answer was lost on any try, a write may stand; where each try was turned away, none does."""
    put(real.store, clip())
    errors = iter([error])

    def fail(**_: Any) -> Any:
        raise next(errors, ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem"))

    monkeypatch.setattr(real.client, "update_item", fail)
    with pytest.raises(BusyError) as raised:
        real.store.save(clip(), clip())
    assert raised.value.possibly_written is possibly_written


def asked(real: Real, read: Callable[[AdminTable], object]) -> list[dict[str, Any]]:
    """The parameters of every request that this makes."""
    requests: list[dict[str, Any]] = []
    note = lambda params, **_: requests.append(params)  # noqa: E731
    real.client.meta.events.register("provide-client-params.dynamodb", note)
    read(real.store)
    real.client.meta.events.unregister("provide-client-params.dynamodb", note)
    return requests


READS: dict[str, Callable[[AdminTable], object]] = {
    "clip": lambda store: store.clip("ann", TASK_UUID, 0),
    "clips": lambda store: store.clips("ann", TASK_UUID),
    "task": lambda store: store.task("ann", TASK_UUID),
    "known": lambda store: store.get_tombstone("ann", TASK_UUID),
    "whole": lambda store: store.get_task_with_clips("ann", TASK_UUID),
    "budget": lambda store: store.budget("ann", MONTH),
    "caller": lambda store: store.caller("a" * 64),
    "caller_named": lambda store: store.caller_named("ann"),
    "keys": lambda store: store.keys("ann"),
}


@pytest.mark.parametrize("read", READS)
def test_what_decides_is_read_as_of_now(real: Real, read: str) -> None:
    """No decision rests on a replica that lags: moto has none, so the requests themselves are looked at."""
    real.store.add_key("a" * 64, Caller("ann", PRICE), "laptop", START)
    requests = asked(real, READS[read])
    assert requests
    assert all(request.get("ConsistentRead") is True for request in requests)


def test_every_shard_of_open_clips_is_swept(real: Real) -> None:
    """A clip is found whatever its UUID: none may lie in a part of the index that no sweep looks at."""
    for number in range(18):
        one = clip(task_uuid=uuid4(number + 1), clip_uuid=f"{number:08x}-0000-4000-8000-000000000000", next_check_at=1)
        put(real.store, one)
    assert len(real.store.due(START, 100)) == 18


# ----------------------------------------------------------------------------------------------------------------------
# What clips count
# ----------------------------------------------------------------------------------------------------------------------


def test_clips_that_fill_more_than_a_page(real: Real) -> None:
    """A task is read whole, though a query of DynamoDB's ends at one megabyte."""
    wordy = [fact(Kind.RENDERED, str(number), videoURL="u" * 20_000) for number in range(15)]
    clips = [clip(*wordy, index=index, clip_uuid=uuid4(index)) for index in range(4)]
    put(real.store, *clips)
    assert [each.index for each in real.store.clips("ann", TASK_UUID)] == [0, 1, 2, 3]
    found = real.store.get_task_with_clips("ann", TASK_UUID)
    assert found is not None
    assert [each.index for each in found.clips] == [0, 1, 2, 3]


def test_an_expired_request_is_forgotten_already(real: Real) -> None:
    """To forget a task whose request the table has dropped takes out its tags, and makes no request up."""
    put(real.store, clip())
    key = {"pk": {"S": f"task#ann#{TASK_UUID}"}, "sk": {"S": "request"}}
    real.client.delete_item(TableName=real.stack.table_name, Key=key)
    real.store.forget("ann", TASK_UUID)
    assert real.store.task("ann", TASK_UUID) is None
    assert real.store.clips("ann", TASK_UUID) == [clip()]


def test_whatever_runware_says_fits_into_an_item(real: Real) -> None:
    """Failures and renders in the longest words are saved: an item that cannot grow could never be closed."""
    words = "\N{CLAPPER BOARD}\x01" * 9_999
    shown = dict.fromkeys(
        ("parameter", "allowedValues", "type", "documentation", "min", "max", "multiplier", "responseContent"),
        [words] * 9,
    )
    names = ("message", "type", "documentation", "min", "max", "multiplier", "responseContent")
    errors: list[Any] = [
        {**shown, **dict.fromkeys(names, words), "code": f"{number}{words}", "status": "error", "taskUUID": CLIP_UUID}
        for number in range(16)
    ]
    results = [
        {"taskUUID": CLIP_UUID, "videoUUID": f"{number}{words}", "videoURL": words, "seed": 2**63, "cost": 0.924}
        for number in range(16)
    ]
    said = read(json.dumps({"data": results, "errors": errors}, ensure_ascii=False)).about(CLIP_UUID)
    before = clip()
    put(real.store, before)
    facts = [*webhook_facts(said, START), *poll_facts(said, START)]
    refusals = [
        replace(each, kind=Kind.REFUSED, source=FactSource.SUBMISSION) for each in facts if each.kind == Kind.FAILED
    ]
    saved = real.store.save(before, refresh_derived(merge_all(before, [*facts, *refusals]), START, TIMES))
    assert real.store.clip("ann", TASK_UUID, 0) == saved
    kinds = (Kind.FAILED, Kind.RENDERED, Kind.REFUSED)
    assert [len(saved.of(kind)) for kind in kinds] == [4, 4, 4]
    assert all(len(known.claims) == 2 for known in saved.of(Kind.FAILED).values())


def test_facts_of_an_earlier_version_are_read() -> None:
    """Before, what all witnesses said lay together; a rescue was told by a field of its own."""
    facts: dict[str, Any] = {
        "rendered:v": {"seen": {"poll": 5, "webhook": 3}, "fields": {"cost": 7}},
        "stored:1": {"seen": {"bucket": 9}, "fields": {"rescued": True}},
        "lastLook": {"seen": {"clock": 9}},
    }
    known = read_facts(facts)
    assert known[Kind.RENDERED, "v"].claims == {"poll": Claim(5, {"cost": 7}), "webhook": Claim(3, {"cost": 7})}
    assert known[Kind.STORED, "1"].claims == {"rescue": Claim(9, {"rescued": True})}
    assert known[Kind.LAST_LOOK, ""].seen == {FactSource.CLOCK: 9}
    assert fact_value(known[Kind.STORED, "1"]) == facts["stored:1"]


def test_costs_follow_the_clips(real: Real) -> None:
    """A line a clip, with what it counts now, newest first; no other caller's, and only of the time asked for."""
    newest, middle, oldest = listed(real.store, 3, clips=2)
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


def test_costs_in_pages(real: Real) -> None:
    """Each page begins behind the one before; whoever gives a position out of thin air is told so."""
    names = listed(real.store, 3)
    first = real.store.costs("ann", START, START + 10_000, 2)
    rest = real.store.costs("ann", START, START + 10_000, 2, first.end)
    assert [cost.task_uuid for cost in (*first.found, *rest.found)] == names
    assert rest.end is None
    assert real.store.costs("bob", START, START + 10_000, 2, first.end).found == ()
    for position in ("", "x", f"{START}#{names[0]}", f"{START}#{names[0]}#0#", "2026-09-21T00:00:00.000Z#" + names[0]):
        with pytest.raises(UnreadableError):
            real.store.costs("ann", START, START + 10_000, 2, position)
    for since, until in ((START, START + 1999), (START + 2001, START + 10_000)):  # the position is at START + 2000
        with pytest.raises(UnreadableError):
            real.store.costs("ann", since, until, 2, first.end)


def test_costs_keep_what_they_are_summed_by_until_it_is_forgotten(real: Real) -> None:
    """Model and tags stand beside each clip's money; tags are the caller's own words and go with them."""
    sent = {"model": "klingai:5@3", "tags": {"project": "fox", "für": "Ä"}}
    real.store.record(task(clips=2, request=sent), [clip(), clip(index=1, clip_uuid=uuid4(2))], [])
    told = real.store.costs("ann", START, START, 10).found
    assert [(cost.model, cost.tags) for cost in told] == [("klingai:5@3", sent["tags"])] * 2
    real.store.forget("ann", TASK_UUID)
    told = real.store.costs("ann", START, START, 10).found
    assert [(cost.model, cost.tags, cost.budgeted) for cost in told] == [("klingai:5@3", {}, PRICE)] * 2
    assert "fox" not in str(real.client.scan(TableName=real.stack.table_name)["Items"])


def test_the_costs_of_all_callers(real: Real) -> None:
    """Whoever runs the service sees every caller's clips of a time, each once."""
    listed(real.store, 2)
    real.store.record(task(9, caller="bob"), [clip(caller="bob", task_uuid=uuid4(9), created_at=START + 1000)], [])
    found = [(cost.caller, cost.created_at) for cost in real.store.all_costs(START, START + 1999)]
    assert sorted(found) == [("ann", START + 1000), ("bob", START + 1000)]

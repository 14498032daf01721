"""DynamoDB's transaction conflicts in virtual time: the throughput of concurrent purchases and their waiting times.

A transaction holds its items for some time, by the rules of the local AWS; another write to one of them is rejected at
once. moto evaluates the conditions, and only processor time passes.
"""

import heapq
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

from rushes.adapters.dynamodb.table import DynamoDbTable
from rushes.domain.budget import ALL_CALLERS, Reservation
from rushes.domain.task import Recorded, Task
from rushes.errors import BusyError
from rushes_local.aws.transaction_conflicts import HeldItems, cancellation, transaction_keys
from rushes_local.aws.transactions import roll_back_by_item
from tests.fakes.builders import MONTH, PRICE, START, TASK_UUID, clip

ANSWER = 0.004  # seconds of a call, in addition to the time for which a transaction holds its items


class VirtualTime:
    """Threads take turns: one runs until it sleeps, then the one with the earliest next time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._numbers = count()
        self._turn = threading.Semaphore(0)

    def sleep(self, seconds: float) -> None:
        """Ends the turn of the calling thread; its next one begins `seconds` later."""
        self._wait(self.now + seconds, self._turn.release)

    def start(self, at: float, work: Callable[[], None]) -> None:
        """Starts `work` at a time, in a thread of its own."""

        def turn() -> None:
            event.wait()
            try:
                work()
            finally:
                self._turn.release()

        event = threading.Event()
        heapq.heappush(self._waiting, (at, next(self._numbers), event))
        threading.Thread(target=turn, daemon=True).start()

    def run(self) -> None:
        """Runs all threads and returns when none is left."""
        while self._waiting:
            self.now, _, event = heapq.heappop(self._waiting)
            event.set()
            self._turn.acquire()

    def _wait(self, until: float, end_turn: Callable[[], None]) -> None:
        event = threading.Event()
        heapq.heappush(self._waiting, (until, next(self._numbers), event))
        end_turn()
        event.wait()


class ContendedClient:
    """A DynamoDB client whose transactions hold their items for `hold` seconds."""

    def __init__(self, client: Any, time: VirtualTime, hold: float) -> None:
        self._client, self._time, self._hold = client, time, hold
        self._held = HeldItems()
        self.conflicts = 0
        self.calls = 0

    def transact_write_items(self, **request: Any) -> Any:
        keys = transaction_keys(request, lambda _: ("pk", "sk"))
        self._time.sleep(ANSWER)
        self.calls += 1
        conflicts = self._held.hold(keys)
        if any(conflicts):
            self.conflicts += 1
            error: Any = {"Error": {"Code": "TransactionCanceledException"}, **cancellation(conflicts)}
            raise ClientError(error, "TransactWriteItems")
        self._time.sleep(self._hold)
        self._held.release(keys)
        return self._client.transact_write_items(**request)

    def query(self, **request: Any) -> Any:
        self._time.sleep(ANSWER)
        self.calls += 1
        return self._client.query(**request)


@dataclass
class BurstResult:
    """The requests of one run: the number answered 503, and the seconds until each answer."""

    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    refused: int = 0
    conflicts: int = 0
    calls: int = 0

    def percentile(self, percent: int) -> float:
        """The number of seconds within which this share of the requests was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def run(
    arrivals: Sequence[float], tasks: int, hold: float, *, limit: int, patience: float, first: bool = False
) -> BurstResult:
    """Runs requests of `tasks` tasks each, recorded in sequence as by `submit`, that arrive at these times.

    `patience`: seconds that a request may spend on one task in addition to the usual tries. `first`: these are the
    first purchases of the month, so that the budgets do not exist yet.
    """
    random.seed(7)
    with mock_aws():
        roll_back_by_item()
        client = boto3.client("dynamodb", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        client.create_table(TableName="table", **_keys())
        time = VirtualTime()
        contended = ContendedClient(client, time, hold)
        table = DynamoDbTable(contended, "table", time.sleep, lambda: time.now)  # type: ignore[arg-type]
        result, numbers = BurstResult(), count(1)
        if not first:
            nothing = Task(caller="ann", task_uuid=TASK_UUID, request={}, fingerprint="f", clips=0, created_at=START)
            reservations = [Reservation(scope, MONTH, 0, limit) for scope in (ALL_CALLERS, "ann")]
            assert DynamoDbTable(client, "table").record(nothing, [], reservations) == Recorded()

        def request() -> None:
            began = time.now
            outcomes = []
            for _ in range(tasks):
                uuid = str(UUID(int=random.getrandbits(128), version=4))
                wanted = [Reservation(scope, MONTH, PRICE, limit) for scope in (ALL_CALLERS, "ann")]
                one = clip(task_uuid=uuid, clip_uuid=str(UUID(int=next(numbers), version=4)))
                try:
                    new = Task(caller="ann", task_uuid=uuid, request={}, fingerprint="f", clips=1, created_at=START)
                    outcomes.append(table.record(new, [one], wanted, patience=patience))
                except BusyError:
                    result.busy += 1
                    break
            result.refused += sum(not isinstance(each, Recorded) for each in outcomes)
            result.seconds.append(time.now - began)

        for arrival in arrivals:
            time.start(arrival, request)
        time.run()
        counted, _ = DynamoDbTable(client, "table").budget(ALL_CALLERS, MONTH)
        recorded = len(arrivals) * tasks - result.refused
        assert counted <= limit
        assert result.busy or counted == recorded * PRICE
        result.conflicts, result.calls = contended.conflicts, contended.calls
    return result


def _keys() -> dict[str, Any]:
    names = {"pk": "HASH", "sk": "RANGE"}
    return {
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in names.items()],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
        "BillingMode": "PAY_PER_REQUEST",
    }

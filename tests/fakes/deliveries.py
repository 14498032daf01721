"""The table of deliveries and their queue in memory, under the conditions of the real ones.

tests/contract runs one suite against the table here and the one on moto.
"""

from collections.abc import Iterator

from rushes.domain.delivery import Attempt, Delivery, SigningSecret
from rushes.errors import QueueError
from tests.fakes.table import FakeTable


class FakeDeliveriesTable(FakeTable):
    """A table with attempts, signing secrets and slots."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, list[SigningSecret]] = {}
        self.recorded: dict[Delivery, Attempt] = {}
        self.slots: dict[tuple[str, int], tuple[str, int]] = {}  # holder and end, by caller and number

    def signing_secrets(self, caller: str) -> list[SigningSecret]:
        return self.call("signing_secrets", lambda: self.secrets.get(caller, []))

    def attempt(self, delivery: Delivery) -> Attempt | None:
        return self.call("attempt", lambda: self.recorded.get(_key(delivery)))

    def put_attempt(self, attempt: Attempt, expires_at: int) -> None:
        self.call("put_attempt", lambda: self.recorded.update({_key(attempt.delivery): attempt}))

    def take_slot(self, caller: str, slots: int, holder: str, now: int, until: int) -> int | None:
        return self.call("take_slot", lambda: self._take_slot(caller, slots, holder, now, until))

    def free_slot(self, caller: str, slot: int, holder: str) -> None:
        self.call("free_slot", lambda: self._free_slot(caller, slot, holder))

    def attempts(self, caller: str, task_uuid: str) -> list[Attempt]:
        found = self.attempts_of_caller(caller, 0)
        return [each for each in found if each.delivery.task_uuid == task_uuid]

    def attempts_of_caller(self, caller: str, since: int) -> Iterator[Attempt]:
        found = [each for each in self.recorded.values() if each.delivery.caller == caller and each.at >= since]
        return iter(sorted(found, key=lambda each: (each.at, each.delivery)))

    def _take_slot(self, caller: str, slots: int, holder: str, now: int, until: int) -> int | None:
        for number in range(slots):
            taken = self.slots.get((caller, number))
            if taken is None or taken[1] < now or taken[0] == holder:
                self.slots[caller, number] = holder, until
                return number
        return None

    def _free_slot(self, caller: str, slot: int, holder: str) -> None:
        if self.slots.get((caller, slot), ("", 0))[0] == holder:
            del self.slots[caller, slot]


class FakeDeliveryQueue:
    """The queue: messages with their delays in milliseconds, oldest first. `down` makes SQS unavailable."""

    def __init__(self) -> None:
        self.messages: list[tuple[Delivery, int]] = []
        self.down = False

    def send(self, delivery: Delivery, delay: int = 0) -> None:
        if self.down:
            raise QueueError("ServiceUnavailable")
        self.messages.append((delivery, delay))


def _key(delivery: Delivery) -> Delivery:
    return delivery._replace(due_at=0, waits=0)

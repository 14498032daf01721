"""The records of the table's stream, which `publish` relies on: one for each change of an item, with both images."""

import uuid
from typing import Any

import pytest

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.domain.budget import OverBudget
from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, Kind, merge
from rushes.domain.task import Recorded, Task
from rushes.errors import StaleError
from rushes_local.stack import Stack
from tests.change_stream import ChangeStream
from tests.conftest import Json, client, whole_table
from tests.fakes.builders import MONTH, PRICE, START, TASK_UUID, clip, fact


class ChangedItems:
    """The items of a new caller, and the stream's records of them."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.store, self.caller = stack, stack.store, f"caller-{uuid.uuid4().hex[:12]}"
        self.stream = ChangeStream(stack, lambda key: self.caller in key[0])

    def clip(self, *facts: Any, **changes: Any) -> Clip:
        return clip(*facts, caller=self.caller, **changes)

    def record(self, clips: int = 1) -> Recorded | OverBudget | Any:
        """Records a task of so many clips, without money."""
        task = Task(
            caller=self.caller,
            task_uuid=TASK_UUID,
            request={"positivePrompt": "a lighthouse at dusk \N{CLAPPER BOARD}", "duration": 5, "tags": {"": None}},
            fingerprint="f" * 64,
            clips=clips,
            created_at=START,
        )
        return self.store.record(task, [self.clip(index=index) for index in range(clips)], [])

    def items(self) -> list[Json]:
        return [item for item in whole_table(self.stack) if self.caller in item["pk"]["S"]]

    def read(self) -> list[tuple[str, Json | None, Json | None]]:
        """Event name, old image and new image of the records since the last call."""
        images = [(record["eventName"], record["dynamodb"]) for record in self.stream.read()]
        return [(name, change.get("OldImage"), change.get("NewImage")) for name, change in images]


@pytest.fixture
def changed(stack: Stack) -> ChangedItems:
    return ChangedItems(stack)


def test_a_transaction_has_a_record_for_each_item(changed: ChangedItems) -> None:
    """Each item that a purchase creates has one record, with the item as its new image."""
    assert changed.record(clips=3) == Recorded()
    records = changed.read()
    assert [(name, old) for name, old, _ in records] == [("INSERT", None)] * 4
    assert sorted((new for _, _, new in records), key=lambda new: new["sk"]["S"] if new else "") == changed.items()


def test_saves_have_records_in_their_order(changed: ChangedItems) -> None:
    """Each save of a clip has one record, whose images are the clip before and after it."""
    changed.record()
    changed.read()
    versions = [changed.clip()]
    for number in range(3):
        accepted = merge(versions[-1], fact(Kind.ACCEPTED, str(number), at=START + number))
        versions.append(changed.store.save(versions[-1], accepted))
    records = changed.stream.read()
    assert [record["eventName"] for record in records] == ["MODIFY"] * 3
    images = [record["dynamodb"] for record in records]
    assert [clip_of_image(image["OldImage"]) for image in images] == versions[:-1]
    assert [clip_of_image(image["NewImage"]) for image in images] == versions[1:]
    numbers = [int(image["SequenceNumber"]) for image in images]
    assert numbers == sorted(set(numbers))


def test_a_record_has_the_fields_of_lambdas_event(changed: ChangedItems) -> None:
    """The fields that `publish` and its filter read, and the identification of a record."""
    changed.record()
    for record in changed.stream.read():
        change = record["dynamodb"]
        assert (record["eventSource"], record["eventSourceARN"]) == ("aws:dynamodb", changed.stream.arn)
        assert record["eventID"]
        assert change["Keys"] == {name: change["NewImage"][name] for name in ("pk", "sk")}
        assert change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
        assert change["SequenceNumber"].isdigit()
        assert change["ApproximateCreationDateTime"] > 0


def test_a_refused_write_has_no_record(changed: ChangedItems) -> None:
    """Neither a transaction with a failed condition nor a save over another version is in the stream."""
    changed.record()
    changed.read()
    changed.record()
    with pytest.raises(StaleError):
        changed.store.save(changed.clip(version=7), changed.clip(budgeted=0))
    changed.store.save(changed.clip(), changed.clip(fact(Kind.ACCEPTED, "acknowledged")))
    assert [name for name, _, _ in changed.read()] == ["MODIFY"]


def test_a_write_without_a_change_has_no_record(changed: ChangedItems) -> None:
    """An item that is replaced by an equal one is not in the stream."""
    changed.record()
    changed.read()
    for item in changed.items():
        client(changed.stack, "dynamodb").put_item(TableName=changed.stack.table_name, Item=item)
    changed.store.save(changed.clip(), changed.clip(fact(Kind.ACCEPTED, "acknowledged")))
    assert [name for name, _, _ in changed.read()] == ["MODIFY"]


def test_an_update_that_creates_its_item_has_one_record(changed: ChangedItems) -> None:
    """The record has the whole item, not the key alone."""
    changed.store.set_caller(Caller(changed.caller, 5 * PRICE))
    ((name, old, new),) = changed.read()
    assert (name, old) == ("INSERT", None)
    assert [new] == changed.items()


def test_a_removed_item_has_its_old_image_alone(changed: ChangedItems) -> None:
    """The record of a removal has the item as it was."""
    changed.store.set_caller(Caller(changed.caller, 5 * PRICE))
    (item,) = changed.items()
    changed.read()
    key = {name: item[name] for name in ("pk", "sk")}
    client(changed.stack, "dynamodb").delete_item(TableName=changed.stack.table_name, Key=key)
    assert changed.read() == [("REMOVE", item, None)]


def test_a_correction_of_money_is_in_the_stream_with_its_clip(changed: ChangedItems) -> None:
    """A save that corrects the budgets has one record of the clip and one of the caller's budget."""
    changed.record()
    changed.read()
    changed.store.save(changed.clip(), changed.clip(budgeted=0))
    kinds = sorted(new["pk"]["S"].partition("#")[0] for _, _, new in changed.read() if new)
    assert kinds == ["budget", "task"]
    assert changed.store.budget(changed.caller, MONTH)[0] == -PRICE

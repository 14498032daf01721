"""Batches, record by record."""

import pytest

from rushes.errors import BatchError
from rushes.lambda_events import Record, message_id, process_batch, sequence_number


def batch(*names: str) -> dict[str, list[Record]]:
    return {"Records": [{"messageId": name, "dynamodb": {"SequenceNumber": f"s{name}"}} for name in names]}


@pytest.mark.parametrize("bad", [[], ["1"], ["3"], ["1", "2"]], ids=str)
def test_failed_records_are_reported(bad: list[str]) -> None:
    """Every record is processed in order, whatever happens to another, and exactly the failed ones are reported."""
    seen = []

    def work(record: Record) -> None:
        seen.append(record["messageId"])
        if record["messageId"] in bad:
            raise KeyError("secret")

    assert process_batch(batch("1", "2", "3"), work, message_id) == {
        "batchItemFailures": [{"itemIdentifier": name} for name in bad]
    }
    assert seen == ["1", "2", "3"]


def test_a_stream_record_is_reported_by_its_sequence_number() -> None:
    """A record of the table's stream is reported by its sequence number."""

    def work(record: Record) -> None:
        if record["messageId"] == "2":
            raise ValueError

    assert process_batch(batch("1", "2"), work, sequence_number) == {"batchItemFailures": [{"itemIdentifier": "s2"}]}


def test_all_failed() -> None:
    """If every record failed the function raises with the types of the errors, unless `all_may_fail`."""

    def work(record: Record) -> None:
        raise KeyError("secret")

    with pytest.raises(BatchError, match=r"^all 2 records failed: KeyError$"):
        process_batch(batch("1", "2"), work, message_id)
    both = [{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]
    assert process_batch(batch("1", "2"), work, message_id, all_may_fail=True) == {"batchItemFailures": both}


def test_an_empty_batch() -> None:
    """An empty batch is not a failure."""
    assert process_batch({"Records": []}, lambda _: None, message_id) == {"batchItemFailures": []}

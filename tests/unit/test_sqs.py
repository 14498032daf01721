"""Sending to the inbox: full batches, partial failures, and giving up."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from rushes.adapters.sqs import MAX_MESSAGES, SqsQueue, batches
from rushes.domain.inbox_message import MAX_MESSAGE_BYTES
from rushes.errors import InboxError


class Queue:
    """SQS for sending. `refuse` returns a call's failing messages, with True if the sender is at fault."""

    def __init__(self, refuse: Callable[[int, list[str]], dict[str, bool]] = lambda _call, _texts: {}) -> None:
        self.refuse = refuse
        self.calls: list[list[str]] = []
        self.accepted: list[str] = []
        self.pauses: list[float] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
        assert QueueUrl == "url"
        assert len({entry["Id"] for entry in Entries}) == len(Entries)
        texts = [entry["MessageBody"] for entry in Entries]
        refused = self.refuse(len(self.calls), texts)
        self.calls.append(texts)
        self.accepted += [text for text in texts if text not in refused]
        failed = [
            {"Id": entry["Id"], "Code": "InternalError", "SenderFault": refused[entry["MessageBody"]]}
            for entry in Entries
            if entry["MessageBody"] in refused
        ]
        return {"Successful": [], **({"Failed": failed} if failed else {})}

    @property
    def inbox(self) -> SqsQueue:
        return SqsQueue(self, "url", self.pauses.append)  # type: ignore[arg-type]


def test_messages_go_in_batches_of_ten() -> None:
    """Every message is sent once and in order, in as few calls as SQS allows; without messages there is no call."""
    queue = Queue()
    queue.inbox.send(map(str, range(23)))
    assert [len(call) for call in queue.calls] == [10, 10, 3]
    assert queue.accepted == [str(number) for number in range(23)]
    queue.inbox.send([])
    assert len(queue.calls) == 3


@given(st.lists(st.integers(1, MAX_MESSAGE_BYTES), max_size=30))
def test_no_batch_is_larger_than_allowed(lengths: list[int]) -> None:
    """Each batch is within SQS's limits of messages and bytes, and together they have all messages in order."""
    texts = ["x" * length for length in lengths]
    batched = list(batches(texts))
    assert [text for batch in batched for text in batch] == texts
    assert all(1 <= len(batch) <= MAX_MESSAGES and sum(map(len, batch)) <= MAX_MESSAGE_BYTES for batch in batched)


def test_only_failed_messages_are_sent_again() -> None:
    """After a pause, only the failed messages of a batch are sent again."""
    queue = Queue(lambda call, _: {"b": False, "c": False} if call == 0 else {"c": False} if call == 1 else {})
    queue.inbox.send(["a", "b", "c"])
    assert queue.calls == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert queue.accepted == ["a", "b", "c"]
    assert queue.pauses == [0.1, 0.2]


@pytest.mark.parametrize(("sender_fault", "calls"), [(False, 4), (True, 1)])
def test_sending_gives_up(sender_fault: bool, calls: int) -> None:
    """Lasting failures raise after a few tries, and at once if the sender is at fault."""
    queue = Queue(lambda *_: {"b": sender_fault})
    with pytest.raises(InboxError, match="InternalError"):
        queue.inbox.send(["a", "b"])
    assert len(queue.calls) == calls


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SendMessageBatch"), "AccessDenied"),
        (EndpointConnectionError(endpoint_url="https://sqs.example"), "EndpointConnectionError"),
    ],
)
def test_an_unavailable_queue_raises_one_error(error: Exception, reason: str) -> None:
    """Any exception of boto3 becomes the one error, with its code and nothing else."""

    def fail(_call: int, _texts: list[str]) -> dict[str, bool]:
        raise error

    with pytest.raises(InboxError, match=f"^{reason}$"):
        Queue(fail).inbox.send(["a"])

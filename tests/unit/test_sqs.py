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
    """SQS as far as sending goes: `refuse` says which messages of a call fail, and whether the sender is to blame."""

    def __init__(self, refuse: Callable[[int, list[str]], dict[str, bool]] = lambda _call, _texts: {}) -> None:
        self.refuse = refuse
        self.calls: list[list[str]] = []
        self.taken: list[str] = []
        self.pauses: list[float] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
        assert QueueUrl == "url"
        assert len({entry["Id"] for entry in Entries}) == len(Entries)
        texts = [entry["MessageBody"] for entry in Entries]
        refused = self.refuse(len(self.calls), texts)
        self.calls.append(texts)
        self.taken += [text for text in texts if text not in refused]
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
    """Everything arrives once and in order, in as few calls as SQS allows; nothing to send is no call."""
    queue = Queue()
    queue.inbox.send(map(str, range(23)))
    assert [len(call) for call in queue.calls] == [10, 10, 3]
    assert queue.taken == [str(number) for number in range(23)]
    queue.inbox.send([])
    assert len(queue.calls) == 3


@given(st.lists(st.integers(1, MAX_MESSAGE_BYTES), max_size=30))
def test_no_batch_is_larger_than_allowed(lengths: list[int]) -> None:
    """Batches hold at most ten messages and the bytes that SQS takes, and together all messages in their order."""
    texts = ["x" * length for length in lengths]
    made = list(batches(texts))
    assert [text for batch in made for text in batch] == texts
    assert all(1 <= len(batch) <= MAX_MESSAGES and sum(map(len, batch)) <= MAX_MESSAGE_BYTES for batch in made)


def test_what_failed_is_sent_again_and_nothing_else() -> None:
    """A partial failure repeats its own messages only, after a pause."""
    queue = Queue(lambda call, _: {"b": False, "c": False} if call == 0 else {"c": False} if call == 1 else {})
    queue.inbox.send(["a", "b", "c"])
    assert queue.calls == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert queue.taken == ["a", "b", "c"]
    assert queue.pauses == [0.1, 0.2]


@pytest.mark.parametrize(("sender_fault", "calls"), [(False, 4), (True, 1)])
def test_sending_gives_up(sender_fault: bool, calls: int) -> None:
    """Failures that stay are an error after a few tries, at once if SQS says that the message is to blame."""
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
def test_a_queue_that_is_away_is_an_error(error: Exception, reason: str) -> None:
    """Whatever boto3 raises becomes the one error, with its code and nothing else."""

    def fail(_call: int, _texts: list[str]) -> dict[str, bool]:
        raise error

    with pytest.raises(InboxError, match=f"^{reason}$"):
        Queue(fail).inbox.send(["a"])

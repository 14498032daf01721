"""The messages of the inbox: one task each, with its caller and the key of its report.

`intake` writes messages and `submit` reads them. Bodies are ASCII, since SQS rejects some characters that JSON allows.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from rushes.domain.caller import is_name
from rushes.domain.formats import UUID4
from rushes.errors import UnreadableError

MAX_MESSAGE_BYTES = 256 * 1024  # bytes, of one message and of all messages of a batch


class Message(NamedTuple):
    """One task for `submit`. `report` is an S3 key; a later refusal is stored under a key that begins with it."""

    caller: str
    task: Mapping[str, Any]
    report: str

    @property
    def text(self) -> str:
        """The body of the SQS message, in JSON."""
        return json.dumps({"caller": self.caller, "task": self.task, "report": self.report}, separators=(",", ":"))

    @property
    def refusal(self) -> str:
        """The S3 key for a refusal of this task."""
        return f"{self.report}.{self.task['taskUUID'].lower()}.json"


def read(text: str) -> Message:
    """Returns the message of a body; raises `UnreadableError` for a body that `intake` would not send."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableError("The message must be JSON.") from None
    match content:
        case {"caller": str(caller), "task": {"taskUUID": str(task_uuid)} as task, "report": str(report)} if (
            is_name(caller)
            and UUID4.fullmatch(task_uuid.lower())
            and report.startswith(f"reports/{caller}/")
            and not {"", ".", ".."} & set(report.split("/"))
        ):
            return Message(caller, task, report)
    raise UnreadableError(
        "The message must have a caller, a task with a taskUUID of version 4, and a report under reports/<caller>/."
    )

"""What is in the inbox: one task a message, with its caller and the report that tells of its refusals.

`intake` writes messages and `submit` reads them. Texts are ASCII, since SQS refuses some characters that JSON allows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rushes.domain.caller import is_name
from rushes.domain.formats import UUID4
from rushes.errors import UnreadableError

MAX_MESSAGE_BYTES = 256 * 1024  # bytes, of one message and of all messages of a batch


@dataclass(frozen=True, slots=True)
class Message:
    """One task on its way to `submit`. `report` is the key beside which a refusal that comes later is put."""

    caller: str
    task: Mapping[str, Any]
    report: str

    @property
    def text(self) -> str:
        """The message's body."""
        return json.dumps({"caller": self.caller, "task": self.task, "report": self.report}, separators=(",", ":"))

    @property
    def refusal(self) -> str:
        """Where a refusal of this task is put."""
        return f"{self.report}.{self.task['taskUUID'].lower()}.json"


def read(text: str) -> Message:
    """The message in a body; raises `UnreadableError` for anything that `intake` would not have sent."""
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
    raise UnreadableError("The message must name a caller, a task with its UUID, and a report of that caller.")

"""Publishing to an EventBridge bus."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rushes.adapters.aws import aws_errors
from rushes.errors import BusError

if TYPE_CHECKING:
    from types_boto3_events import EventBridgeClient

SOURCE = "rushes"


class EventBridgeBus:
    """One bus, by its name or ARN."""

    def __init__(self, client: "EventBridgeClient", bus: str) -> None:
        self._client, self._bus = client, bus

    def publish(self, detail_type: str, detail: Mapping[str, Any]) -> None:
        """Puts one event on the bus; raises `BusError` unless the bus has accepted it."""
        text = json.dumps(detail, ensure_ascii=False)
        entry: Any = {"EventBusName": self._bus, "Source": SOURCE, "DetailType": detail_type, "Detail": text}
        with aws_errors(BusError):
            answer = self._client.put_events(Entries=[entry])
        if answer["FailedEntryCount"]:  # the status is 200 even if the event was refused
            raise BusError(answer["Entries"][0].get("ErrorCode", "unknown"))

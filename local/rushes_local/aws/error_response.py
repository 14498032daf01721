"""Error responses of AWS's services."""

import json
from collections.abc import Mapping
from typing import Any, Literal
from xml.sax.saxutils import escape

Service = Literal["dynamodb", "s3", "other"]


class AwsError(Exception):
    """An error response of an AWS service. `fields` are DynamoDB's additional ones; they replace its `message`."""

    def __init__(self, code: str, status: int, message: str, *, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.fields = fields

    def body(self, service: Service) -> tuple[str, bytes]:
        """The response's content type and body, in the format of the service."""
        if service == "dynamodb":
            content = {"__type": f"com.amazonaws.dynamodb.v20120810#{self.code}"}
            text = json.dumps({**content, **(self.fields or {"message": self.message})}, separators=(",", ":"))
            return "application/x-amz-json-1.0", text.encode()
        xml = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        return "application/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{xml}'.encode()

"""The smallest Python function on DynamoDB: one client, one update, by hand."""

import json
import os
from typing import Any

import boto3

client = boto3.client("dynamodb")


def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
    """Saves the event's body under one key."""
    client.update_item(
        TableName=os.environ["TABLE_NAME"],
        Key={"pk": {"S": "task"}, "sk": {"S": "clip"}},
        UpdateExpression="SET body = :body",
        ExpressionAttributeValues={":body": {"S": event.get("body") or ""}},
    )
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps({"message": "ok"})}

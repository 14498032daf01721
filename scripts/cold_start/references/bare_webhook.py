"""The calls of `webhook` to AWS for a finished clip, and nothing else: read the item, probe the object, save."""

import json
import os
import time
from typing import Any

import boto3

table = boto3.client("dynamodb")
bucket = boto3.client("s3")


def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
    """Verifies and merges nothing."""
    path, result = event["pathParameters"], json.loads(event["body"])
    key = {"pk": {"S": f"task#{path['caller']}#{path['taskUUID']}"}, "sk": {"S": f"clip#{path['clip']}"}}
    name = os.environ["TABLE_NAME"]
    item = table.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"]
    found = bucket.get_object(Bucket=os.environ["BUCKET_NAME"], Key=item["objectKey"]["S"], Range="bytes=0-63")
    found["Body"].read()
    now = {"N": str(time.time_ns() // 1_000_000)}
    rendered = {"videoURL": {"S": result["videoURL"]}, "seed": {"N": str(result["seed"])}}
    facts = {
        **item["facts"]["M"],
        f"rendered:{result['videoUUID']}": {"M": {"seen": {"M": {"webhook": now}}, "fields": {"M": rendered}}},
        f"stored:{found['VersionId']}": {"M": {"seen": {"M": {"bucket": now}}}},
    }
    table.update_item(
        TableName=name,
        Key=key,
        UpdateExpression="SET #facts = :facts, #version = :after REMOVE nextCheckAt, dueShard",
        ConditionExpression="#version = :before",
        ExpressionAttributeNames={"#facts": "facts", "#version": "version"},
        ExpressionAttributeValues={
            ":facts": {"M": facts},
            ":before": item["version"],
            ":after": {"N": str(int(item["version"]["N"]) + 1)},
        },
    )
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps({"message": "ok"})}

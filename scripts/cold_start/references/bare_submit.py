"""The calls of `submit` to AWS and Runware for one clip, and nothing else: record, sign, buy, save.

The caller's key is read once and cached, as in `submit`.
"""

import json
import os
import time
import uuid
from functools import cache
from typing import Any

import boto3
import httpx

table = boto3.client("dynamodb")
bucket = boto3.client("s3")
secrets = boto3.client("secretsmanager")
http = httpx.Client(timeout=10, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


@cache
def authenticate(authorization: str) -> bool:
    """Reads the key and the caller, as `submit` does; True if the table answered."""
    name = os.environ["TABLE_NAME"]
    item = table.get_item(TableName=name, Key={"pk": {"S": f"key#{authorization}"}, "sk": {"S": "key"}})
    table.get_item(TableName=name, Key={"pk": {"S": "caller#alice"}, "sk": {"S": "caller"}})
    return "ResponseMetadata" in item


@cache
def secret(arn: str) -> str:
    """A secret's text."""
    text: str = secrets.get_secret_value(SecretId=arn)["SecretString"]
    return text


def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
    """Validates nothing and handles no errors."""
    authenticate(event["headers"]["authorization"])
    (task,) = json.loads(event["body"])
    name, now = os.environ["TABLE_NAME"], {"N": str(time.time_ns() // 1_000_000)}
    clip_uuid, pk = str(uuid.uuid4()), {"S": f"task#alice#{task['taskUUID']}"}
    key = f"videos/alice/{task['taskUUID']}-0.mp4"
    new = "attribute_not_exists(pk)"
    request = {"pk": pk, "sk": {"S": "request"}, "request": {"S": json.dumps(task)}, "createdAt": now}
    clip = {"pk": pk, "sk": {"S": "clip#0"}, "clipUUID": {"S": clip_uuid}, "objectKey": {"S": key}, "createdAt": now}
    budgets: list[Any] = [
        {
            "Update": {
                "TableName": name,
                "Key": {"pk": {"S": f"budget#{scope}"}, "sk": {"S": "2026-11"}},
                "UpdateExpression": "ADD #counted :amount",
                "ConditionExpression": "attribute_not_exists(#counted) OR #counted <= :room",
                "ExpressionAttributeNames": {"#counted": "counted"},
                "ExpressionAttributeValues": {":amount": {"N": "924000"}, ":room": {"N": "49076000"}},
            }
        }
        for scope in ("all", "alice")
    ]
    puts: list[Any] = [
        {"Put": {"TableName": name, "Item": item, "ConditionExpression": new}} for item in (request, clip)
    ]
    table.transact_write_items(TransactItems=[*puts, *budgets], ClientRequestToken=str(uuid.uuid4()))
    link = bucket.generate_presigned_url("put_object", Params={"Bucket": os.environ["BUCKET_NAME"], "Key": key})
    order = task | {"taskUUID": clip_uuid, "deliveryMethod": "async", "uploadEndpoint": link}
    secret(os.environ["WEBHOOK_SECRET"])
    answer = http.post(
        os.environ["RUNWARE_BASE_URL"],
        json=[order],
        headers={"Authorization": f"Bearer {secret(os.environ['RUNWARE_SECRET'])}"},
    )
    table.update_item(
        TableName=name,
        Key={"pk": pk, "sk": {"S": "clip#0"}},
        UpdateExpression="SET #accepted = :accepted",
        ExpressionAttributeNames={"#accepted": "accepted"},
        ExpressionAttributeValues={":accepted": {"BOOL": answer.status_code == 200}},
    )
    body = {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}

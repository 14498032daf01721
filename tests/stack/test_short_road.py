"""The local DynamoDB answers as moto does by itself, whatever is cut short on the way.

Run as a program, this file answers the same requests from a process that has changed nothing in moto.
"""

import io
import json
import subprocess
import sys
from typing import Any

from rushes_local.aws import Aws

SIGNED = "AWS4-HMAC-SHA256 Credential=local-access-key/20261124/us-east-1/dynamodb/aws4_request, SignedHeaders=host"
TABLE = {"TableName": "t"}
# What boto3 reads of an answer beside its status and body, but for the request's id, which is random.
HEADERS = ("content-type", "content-length", "x-amz-crc32")


def key(name: str) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": name}}


def update(name: str, expression: str, values: dict[str, Any] | None = None, **more: Any) -> tuple[str, Any]:
    given = {"ExpressionAttributeValues": values} if values else {}
    return "UpdateItem", {**TABLE, "Key": key(name), "UpdateExpression": expression, **given, **more}


def number(value: int) -> dict[str, str]:
    return {"N": str(value)}


EVERY_TYPE = {
    "text": {"S": "ü"},
    "count": number(7),
    "blob": {"B": "AAEC/w=="},
    "yes": {"BOOL": True},
    "nothing": {"NULL": True},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2.5"]},
    "blobs": {"BS": ["AAE=", "Ag=="]},
    "list": {"L": [{"S": "x"}, {"M": {"deep": {"L": [{"B": "AAE="}, number(1)]}}}]},
    "map": {"M": {"in": {"M": {"set": {"SS": ["c"]}, "blob": {"B": "/w=="}}}, "n": number(1)}},
}

CREATE = {
    **TABLE,
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "shard")],
    "BillingMode": "PAY_PER_REQUEST",
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "due",
            "KeySchema": [{"AttributeName": "shard", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }
    ],
}

GOOD: list[tuple[str, Any]] = [
    ("PutItem", {**TABLE, "Item": {**key("every"), **EVERY_TYPE}}),
    ("GetItem", {**TABLE, "Key": key("every"), "ConsistentRead": True}),
    (
        "GetItem",
        {
            **TABLE,
            "Key": key("every"),
            "ProjectionExpression": "#m.n, list[1]",
            "ExpressionAttributeNames": {"#m": "map"},
        },
    ),
    ("GetItem", {**TABLE, "Key": key("nobody"), "ReturnConsumedCapacity": "TOTAL"}),
    # The same expressions about other items and with other names and values: nothing of the first may be kept.
    *[
        update(
            name,
            "SET #a = :one, #b.#c = :two, n = if_not_exists(n, :zero) + :step REMOVE gone, #d",
            {":one": one, ":two": {"S": name}, ":zero": number(0), ":step": number(step)},
            ExpressionAttributeNames={"#a": a, "#b": "map", "#c": "sub", "#d": "text"},
            ConditionExpression="attribute_exists(pk) AND (#a <> :one OR size(#d) > :zero)",
            ReturnValues=wanted,
        )
        for name, a, one, step, wanted in [
            ("every", "count", {"S": "now text"}, 5, "ALL_NEW"),
            ("every", "new", {"L": [{"M": {"k": {"SS": ["z"]}}}]}, -2, "UPDATED_NEW"),
            ("every", "count", {"BOOL": False}, 1, "UPDATED_OLD"),
            ("nobody", "count", number(1), 1, "ALL_OLD"),
        ]
    ],
    *[
        update(
            "made",
            "ADD n :n, texts :s DELETE gone :s SET #l = list_append(if_not_exists(#l, :none), :more)",
            values,
            ExpressionAttributeNames={"#l": "list"},
            ReturnValues="ALL_NEW",
        )
        for values in (
            {":n": number(n), ":s": {"SS": [f"s{n}"]}, ":none": {"L": []}, ":more": {"L": [number(n)]}}
            for n in (1, 2, 3)
        )
    ],
    update("made", "REMOVE #l[0], #l[2]", ExpressionAttributeNames={"#l": "list"}, ReturnValues="ALL_NEW"),
    update("every", "SET #l[1].deep[0] = :v", {":v": {"B": "AAEC"}}, ExpressionAttributeNames={"#l": "list"}),
    ("UpdateItem", {**TABLE, "Key": key("old"), "AttributeUpdates": {"a": {"Value": {"S": "x"}, "Action": "PUT"}}}),
    ("PutItem", {**TABLE, "Item": {**key("due"), "shard": {"S": "3"}}, "ReturnValues": "ALL_OLD"}),
    (
        "Query",
        {
            **TABLE,
            "KeyConditionExpression": "pk = :p AND begins_with(sk, :s)",
            "ExpressionAttributeValues": {":p": {"S": "p"}, ":s": {"S": "e"}},
        },
    ),
    (
        "Query",
        {
            **TABLE,
            "IndexName": "due",
            "KeyConditionExpression": "shard = :s",
            "ExpressionAttributeValues": {":s": {"S": "3"}},
        },
    ),
    ("BatchGetItem", {"RequestItems": {"t": {"Keys": [key("every"), key("nobody"), key("made")]}}}),
    (
        "TransactWriteItems",
        {
            "TransactItems": [
                {"Put": {**TABLE, "Item": key("both"), "ConditionExpression": "attribute_not_exists(pk)"}},
                {
                    "Update": {
                        **TABLE,
                        "Key": key("made"),
                        "UpdateExpression": "SET n = n + :n",
                        "ExpressionAttributeValues": {":n": number(9)},
                    }
                },
            ]
        },
    ),
    ("TransactGetItems", {"TransactItems": [{"Get": {**TABLE, "Key": key("made")}}]}),
    ("DeleteItem", {**TABLE, "Key": key("due"), "ReturnValues": "ALL_OLD"}),
]

ONE = {":v": number(1)}
BAD: list[tuple[str, Any]] = [
    update("every", "SET a = :v SET b = :v", ONE),
    update("every", "SET a = :v, a = :v", ONE),
    update("every", "SET a = :v, a.b = :v", ONE),
    update("every", "SET a = :missing", ONE),
    update("every", "SET a = :v, b = :w", ONE),
    update("every", "SET a = :v", {**ONE, ":unused": number(2)}),
    update("every", "SET a = :v", ONE, ExpressionAttributeNames={"#unused": "x"}),
    update("every", "SET #a = :v", ONE),
    update("every", "SET status = :v", ONE),
    update("every", "SET sk = :v", ONE),
    update("every", "SET none.deep = :v", ONE),
    update("every", "SET a = missing", ONE),
    update("every", "SET a = #t + :v", ONE, ExpressionAttributeNames={"#t": "texts"}),
    update("every", "ADD texts :v", ONE),
    update("every", "SET a = list_append(missing, :v)", ONE),
    update("every", "SET a = :v,", ONE),
    update("every", "SET a = ", ONE),
    update("every", "Set the a to :v", ONE),
    update("every", "SET a$ = :v", ONE),
    update("every", " "),
    update("every", "SET a = :v", {"v": number(1)}),
    update("every", "SET a = :v", {":v": {"NS": []}}),
    update("every", "SET a = :v", {":v": {"Q": "1"}}),
    update("every", "SET a = :v", {":v": {}}),
    update("every", "SET a = :v", {":v": {"S": None}}),
    update("every", "SET a = :v", {":v": {"S": "x", "N": "1"}}),
    update("every", "SET a = :v", {":v": {"S": "x" * 410_000}}),
    update("every", "SET a = :v", {":v": {"B": "no base64!"}}),
    update("every", "SET a = :v", ONE, ReturnValues="SOME"),
    *[
        update("every", "SET a = :v", ONE, ConditionExpression=condition, **more)
        for condition, more in [
            ("pk = :v", {}),
            ("pk = :v", {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}),
            ("pk == :v", {}),
            ("size(pk", {}),
            ("((pk = :v))", {}),
            ("pk = :other", {}),
            ("name = :v", {}),
            ("attribute_exists(pk, :v)", {}),
        ]
    ],
    ("PutItem", {**TABLE, "Item": {"pk": {"S": "p"}}}),
    ("PutItem", {**TABLE, "Item": {**key(""), "a": number(1)}}),
    ("PutItem", {**TABLE, "Item": {**key("big"), "a": {"S": "x" * 410_000}}}),
    ("PutItem", {**TABLE, "Item": {**key("a"), "a": {"SS": []}}}),
    ("PutItem", {**TABLE, "Item": key("every"), "ConditionExpression": "attribute_not_exists(pk)"}),
    ("GetItem", {"TableName": "another", "Key": key("a")}),
    ("GetItem", {**TABLE, "Key": {"pk": {"S": "p"}}}),
    ("GetItem", {**TABLE, "Key": key("every"), "ProjectionExpression": "status"}),
    ("Query", {**TABLE, "KeyConditionExpression": "sk = :v", "ExpressionAttributeValues": ONE}),
    (
        "TransactWriteItems",
        {
            "TransactItems": [
                {"Put": {**TABLE, "Item": key("half")}},
                {
                    "Update": {
                        **TABLE,
                        "Key": key("made"),
                        "UpdateExpression": "SET a = :v",
                        "ConditionExpression": "n = :v",
                        "ExpressionAttributeValues": ONE,
                    }
                },
            ]
        },
    ),
    ("MakeCoffee", {}),
    ("GetItem", "no object"),
    ("GetItem", {**TABLE, "Key": {"pk": "p", "sk": "s"}}),
    ("CreateTable", CREATE),
]

SCAN = ("Scan", {**TABLE, "FilterExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "p"}}})
REQUESTS = [("CreateTable", CREATE), *GOOD, SCAN, *BAD, *BAD, SCAN]


def answers(application: Any) -> list[Any]:
    """Status, headers that are read and body of each request's answer, or the exception instead of one."""
    return [answer(application, operation, json.dumps(body).encode()) for operation, body in REQUESTS]


def answer(application: Any, operation: str, body: bytes) -> Any:
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": SIGNED,
        "HTTP_X_AMZ_TARGET": f"DynamoDB_20120810.{operation}",
        "CONTENT_TYPE": "application/x-amz-json-1.0",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
    }
    started: list[Any] = []
    try:
        read = b"".join(application(environ, lambda *given: started.append(given))).decode()
    except Exception as error:
        return [type(error).__name__, str(error)]
    ((status, headers),) = started
    kept = {name.lower(): value for name, value in headers if name.lower() in HEADERS}
    return [status, kept, read]


def test_every_answer_is_motos() -> None:
    """Whatever DynamoDB is asked, well or badly, once or again, the local AWS answers what moto without it would."""
    bare = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    aws = Aws()
    aws.load()
    ours = json.loads(json.dumps(answers(aws)))
    theirs = json.loads(bare.communicate(timeout=60)[0])
    asked = list(zip(REQUESTS, ours, theirs, strict=True))[1:]  # a new table's description has its time and an id
    assert [(request, mine, its) for request, mine, its in asked if mine != its] == []
    assert sum(answer[0] == "200 OK" for answer in ours) >= len(GOOD)


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    print(json.dumps(answers(DomainDispatcherApplication(create_backend_app))))


if __name__ == "__main__":
    main()

"""The local AWS as unkind as AWS, over HTTP: each switch of `AwsBehavior` on and off."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rushes_local.aws.application import CREDENTIALS, Aws
from rushes_local.aws.behavior import AS_MOTO, AwsBehavior
from rushes_local.servers import Server

# moto's state is global to the process.
pytestmark = pytest.mark.usefixtures("no_shared_stack")

TABLE = "takes"
LAGGING = AwsBehavior(lag_seconds=10)


@dataclass
class Local:
    """A local AWS with a table, a clock that stands still, and pauses that run `meanwhile`."""

    now: float = 1_800_000_000.0
    meanwhile: Callable[[], None] = lambda: None
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.aws = Aws(clock=lambda: self.now, sleep=self.pause)
        self.aws.load()
        self.server = Server(self.aws, name="aws")
        self.dynamodb, self.sqs, self.s3, self.events = map(self.client, ("dynamodb", "sqs", "s3", "events"))
        keys = {"pk": "HASH", "sk": "RANGE"}
        self.dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in (*keys, "film")],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "films",
                    "KeySchema": [{"AttributeName": "film", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
        )

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.server.url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS.access_key,
            aws_secret_access_key=CREDENTIALS.secret_key,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()

    def behave(self, **switches: Any) -> None:
        self.aws.behave(AwsBehavior(**switches))

    def number(self, name: str, **parameters: Any) -> int | None:
        found = self.dynamodb.get_item(**key(name), **parameters).get("Item")
        return int(found["n"]["N"]) if found else None


@pytest.fixture
def local() -> Iterator[Local]:
    local = Local()
    yield local
    local.aws.behave(AS_MOTO)
    local.server.stop()


def key(name: str) -> dict[str, Any]:
    return {"TableName": TABLE, "Key": {"pk": {"S": name}, "sk": {"S": "0"}}}


def item(name: str, number: int, film: str = "fox") -> dict[str, Any]:
    return {"TableName": TABLE, "Item": {**key(name)["Key"], "n": {"N": str(number)}, "film": {"S": film}}}


def add_one(name: str) -> dict[str, Any]:
    values = {":one": {"N": "1"}, ":fox": {"S": "fox"}}
    return {**key(name), "UpdateExpression": "SET film = :fox ADD n :one", "ExpressionAttributeValues": values}


def code(call: Callable[..., Any], **request: Any) -> str:
    """The error code of a call; empty if it succeeds."""
    try:
        call(**request)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


# ----------------------------------------------------------------------------------------------------------------------
# Conflicts
# ----------------------------------------------------------------------------------------------------------------------


def test_a_transaction_holds_its_items(local: Local) -> None:
    """Meanwhile every other write and transactional read of them is rejected, and plain reads see the former state."""
    local.dynamodb.put_item(**item("b", 1))
    local.behave(hold_seconds=0.5)
    codes: dict[str, str] = {}
    reasons: list[str] = []

    def meddle() -> None:
        transact, table = local.dynamodb.transact_write_items, local.dynamodb
        with pytest.raises(table.exceptions.TransactionCanceledException) as caught:
            transact(TransactItems=[{"Update": add_one("c")}, {"Put": item("a", 9)}, {"Delete": key("d")}])
        reasons.extend(reason["Code"] for reason in caught.value.response["CancellationReasons"])
        codes["put"] = code(table.put_item, **item("a", 9))
        codes["update"] = code(table.update_item, **add_one("b"))
        codes["delete"] = code(table.delete_item, **key("b"))
        codes["check"] = code(
            transact, TransactItems=[{"ConditionCheck": {**key("b"), "ConditionExpression": "attribute_exists(pk)"}}]
        )
        codes["get"] = code(table.transact_get_items, TransactItems=[{"Get": key("b")}])
        codes["another item"] = code(table.update_item, **add_one("e"))
        assert local.number("b", ConsistentRead=True) == 1
        assert local.number("c") is None

    local.meanwhile = meddle
    local.dynamodb.transact_write_items(TransactItems=[{"Put": item("a", 1)}, {"Update": add_one("b")}])
    assert local.pauses == [0.5]
    assert reasons == ["None", "TransactionConflict", "None"]
    conflict, cancelled = "TransactionConflictException", "TransactionCanceledException"
    assert codes == {
        **dict.fromkeys(("put", "update", "delete"), conflict),
        **dict.fromkeys(("check", "get"), cancelled),
        "another item": "",
    }
    assert [local.number(name) for name in "abcde"] == [1, 2, None, None, 1]
    assert local.aws.effects == {"transaction in conflict": 3, "write in conflict": 3}


def test_reasons_of_both_kinds(local: Local) -> None:
    """A cancelled transaction has the conflicts of some items and the failed conditions of others, with their items."""
    local.dynamodb.put_item(**item("a", 1))
    local.behave(hold_seconds=0.5)
    absent = {"ConditionExpression": "attribute_not_exists(pk)"}
    old = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    reasons: list[Any] = []

    def meddle() -> None:
        writes = [
            {"Update": add_one("c")},
            {"Put": {**item("a", 2), **absent, **old}},
            {"Put": {**item("b", 2), **absent}},
            {"ConditionCheck": {**key("x"), "ConditionExpression": "attribute_exists(pk)", **old}},
        ]
        with pytest.raises(local.dynamodb.exceptions.TransactionCanceledException) as caught:
            local.dynamodb.transact_write_items(TransactItems=writes)
        reasons.extend(caught.value.response["CancellationReasons"])

    local.meanwhile = meddle
    local.dynamodb.transact_write_items(TransactItems=[{"Put": item("b", 1)}])
    codes = ["None", "ConditionalCheckFailed", "TransactionConflict", "ConditionalCheckFailed"]
    assert [reason["Code"] for reason in reasons] == codes
    assert [reason.get("Item") for reason in reasons] == [None, item("a", 1)["Item"], None, None]


def test_a_transaction_releases_its_items(local: Local) -> None:
    """After its end, also by a failed condition or an error of moto, its items are free."""
    local.behave(hold_seconds=0.5)
    impossible = {**add_one("a"), "ConditionExpression": "attribute_exists(pk)"}
    assert code(local.dynamodb.transact_write_items, TransactItems=[{"Update": impossible}])
    twice = [{"Update": add_one("a")}, {"Update": add_one("a")}]
    assert code(local.dynamodb.transact_write_items, TransactItems=twice) == "ValidationException"
    for _ in range(2):
        local.dynamodb.transact_write_items(TransactItems=[{"Update": add_one("a")}])
    local.dynamodb.update_item(**add_one("a"))
    assert local.number("a") == 3


# ----------------------------------------------------------------------------------------------------------------------
# Reads that lag
# ----------------------------------------------------------------------------------------------------------------------


def readings(local: Local, **parameters: Any) -> list[list[int]]:
    """The numbers of the items `a` and `b`, by each kind of read."""
    dynamodb = local.dynamodb
    keys = [key(name)["Key"] for name in "ab"]
    pk = {"KeyConditionExpression": "pk = :pk"}
    found = [
        [each for name in "ab" if (each := dynamodb.get_item(**key(name), **parameters).get("Item"))],
        [
            each
            for name in "ab"
            for each in dynamodb.query(
                TableName=TABLE, ExpressionAttributeValues={":pk": {"S": name}}, **pk, **parameters
            )["Items"]
        ],
        dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys, **parameters}})["Responses"][TABLE],
        dynamodb.scan(TableName=TABLE, **parameters)["Items"],
    ]
    return [sorted(int(each["n"]["N"]) for each in items) for items in found]


def by_film(local: Local) -> list[int]:
    found = local.dynamodb.query(
        TableName=TABLE,
        IndexName="films",
        KeyConditionExpression="film = :film",
        ExpressionAttributeValues={":film": {"S": "fox"}},
    )
    return sorted(int(each["n"]["N"]) for each in found["Items"])


def change(local: Local) -> None:
    """Replace, create and delete items by every kind of write, a while after their first state."""
    local.dynamodb.put_item(**item("a", 1))
    local.dynamodb.put_item(**item("gone", 5))
    local.now += 100
    local.dynamodb.update_item(**add_one("a"))
    local.dynamodb.transact_write_items(TransactItems=[{"Put": item("b", 7)}, {"Delete": key("gone")}])
    local.dynamodb.update_item(**add_one("a"))


def test_reads_lag(local: Local) -> None:
    """Reads and indexes show the state of some time ago, strongly consistent reads the current one."""
    local.aws.behave(LAGGING)
    change(local)
    assert readings(local) == [[1], [1], [1], [1, 5]]
    assert by_film(local) == [1, 5]
    assert local.aws.effects == {"read lagged": 7}
    assert readings(local, ConsistentRead=True) == [[3, 7]] * 4
    local.now += 10
    assert readings(local) == [[3, 7]] * 4
    assert by_film(local) == [3, 7]
    assert local.aws.effects == {"read lagged": 7}


def test_a_lag_is_random(local: Local) -> None:
    """During the longest lag, a read shows the former or the current state, and each partition has its own lag."""
    local.aws.behave(LAGGING)
    change(local)
    local.now += 5
    seen = {tuple(by_film(local)) for _ in range(200)}
    assert {(1, 5), (3, 7), (1, 5, 7), (1, 7), (3, 5)} <= seen
    assert all(set(each) & {1, 3} for each in seen)  # the state between two writes at the same time is never shown


def test_writes_without_effect_are_never_shown(local: Local) -> None:
    """A transaction that failed leaves no trace, and a request with a wrong key is moto's to refuse."""
    local.aws.behave(LAGGING)
    change(local)
    local.now += 100
    impossible = {"ConditionCheck": {**key("x"), "ConditionExpression": "attribute_exists(pk)"}}
    assert code(local.dynamodb.transact_write_items, TransactItems=[{"Update": add_one("a")}, impossible])
    assert readings(local) == readings(local, ConsistentRead=True) == [[3, 7]] * 4
    wrong = {"TableName": TABLE, "Key": {"pk": {"S": "a"}}}
    assert code(local.dynamodb.delete_item, **wrong) == "ValidationException"
    assert code(local.dynamodb.get_item, TableName="none", Key=wrong["Key"]) == "ResourceNotFoundException"


def test_reads_catch_up(local: Local) -> None:
    """A test can make every write visible, and without the switch every read is current."""
    local.aws.behave(LAGGING)
    change(local)
    local.aws.catch_up()
    assert by_film(local) == [3, 7]
    local.dynamodb.update_item(**add_one("a"))
    assert by_film(local) == [3, 7]
    local.aws.behave(AS_MOTO)
    assert by_film(local) == [4, 7]


# ----------------------------------------------------------------------------------------------------------------------
# Tokens
# ----------------------------------------------------------------------------------------------------------------------


def transact(local: Local, token: str, *names: str) -> str:
    writes = [{"Update": add_one(name)} for name in names]
    return code(local.dynamodb.transact_write_items, TransactItems=writes, ClientRequestToken=token)


def test_a_repeated_transaction_changes_nothing(local: Local) -> None:
    """The same transaction with the same token succeeds for ten minutes and is done once; another one is refused."""
    local.behave(honors_tokens=True)
    assert [transact(local, "first", "a", "b") for _ in range(3)] == ["", "", ""]
    assert (local.number("a"), local.number("b")) == (1, 1)
    assert transact(local, "first", "a") == "IdempotentParameterMismatchException"
    assert transact(local, "second", "a") == ""
    local.now += 600
    assert transact(local, "first", "a", "b") == ""
    assert (local.number("a"), local.number("b")) == (3, 2)


def test_a_transaction_in_progress(local: Local) -> None:
    """Its repeat is rejected while it is running, and succeeds afterwards."""
    local.behave(honors_tokens=True, hold_seconds=0.5)
    codes: list[str] = []
    local.meanwhile = lambda: codes.append(transact(local, "first", "a"))
    codes += [transact(local, "first", "a"), transact(local, "first", "a")]
    assert codes == ["TransactionInProgressException", "", ""]
    assert local.number("a") == 1


def test_a_lost_answer_and_a_cancelled_transaction(local: Local) -> None:
    """A transaction whose answer was lost is done; one that was cancelled is not."""
    local.behave(honors_tokens=True)
    local.aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    assert [transact(local, "lost", "a") for _ in range(2)] == ["InternalServerError", ""]
    assert local.number("a") == 1
    missing = {**add_one("c"), "ConditionExpression": "attribute_exists(pk)"}
    request = {"TransactItems": [{"Update": missing}], "ClientRequestToken": "cancelled"}
    assert code(local.dynamodb.transact_write_items, **request) == "TransactionCanceledException"
    local.dynamodb.put_item(**item("c", 1))
    assert code(local.dynamodb.transact_write_items, **request) == ""
    assert local.number("c") == 2


# ----------------------------------------------------------------------------------------------------------------------
# Throttling
# ----------------------------------------------------------------------------------------------------------------------


def test_requests_are_throttled(local: Local) -> None:
    """Requests of DynamoDB and S3 fail with their codes and without effect; those of other services do not."""
    local.s3.create_bucket(Bucket="films")
    local.behave(throttled=1.0)
    throttled = {code(local.dynamodb.put_item, **item("a", 1)) for _ in range(20)}
    assert throttled == {"ThrottlingException", "ProvisionedThroughputExceededException"}
    assert code(local.s3.put_object, Bucket="films", Key="a", Body=b"x") == "SlowDown"
    assert code(local.sqs.list_queues) == ""
    local.aws.behave(AS_MOTO)
    assert local.number("a") is None
    assert "Contents" not in local.s3.list_objects_v2(Bucket="films")


# ----------------------------------------------------------------------------------------------------------------------
# Events and messages
# ----------------------------------------------------------------------------------------------------------------------


def make_queue(local: Local) -> str:
    """A queue that receives the events of the default bus about films, from the bucket `films` or from callers."""
    url: str = local.sqs.create_queue(QueueName="queue")["QueueUrl"]
    arn = local.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    local.events.put_rule(Name="films", EventPattern=json.dumps({"detail-type": ["Object Created", "Film"]}))
    local.events.put_targets(Rule="films", Targets=[{"Id": "queue", "Arn": arn}])
    local.s3.create_bucket(Bucket="films")
    local.s3.put_bucket_notification_configuration(
        Bucket="films", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    return url


def receive(local: Local, url: str) -> list[dict[str, Any]]:
    found = local.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in found]


def put_events(local: Local, *names: str) -> None:
    entries = [{"Source": "test", "DetailType": "Film", "Detail": json.dumps({"name": name})} for name in names]
    local.events.put_events(Entries=entries)


def test_events_are_delivered_twice(local: Local) -> None:
    """Events of S3 and of the bus come twice, with the same id and content; without the switch once."""
    url = make_queue(local)
    local.behave(repeated_events=1.0)
    put_events(local, "a")
    local.s3.put_object(Bucket="films", Key="b", Body=b"x")
    first, again, uploaded, uploaded_again = receive(local, url)
    assert first == again
    assert first["detail"] == {"name": "a"}
    assert uploaded == uploaded_again
    assert uploaded["detail"]["object"]["key"] == "b"
    local.aws.behave(AS_MOTO)
    put_events(local, "c")
    assert [event["detail"] for event in receive(local, url)] == [{"name": "c"}]


def test_messages_are_late_and_out_of_order(local: Local) -> None:
    """Each message has a delay of its own, so that they become visible in another order."""
    from moto.sqs.models import sqs_backends

    url = make_queue(local)
    local.behave(late_seconds=600)
    put_events(local, *"abcdef")
    assert receive(local, url) == []
    attributes = local.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessagesDelayed"] == "6"
    times = [
        message.delayed_until for message in sqs_backends["123456789012"]["us-east-1"].get_queue("queue")._messages
    ]
    assert times != sorted(times)
    local.aws.behave(AS_MOTO)
    put_events(local, "g")
    assert [event["detail"] for event in receive(local, url)] == [{"name": "g"}]


def test_visibility_lapses(local: Local) -> None:
    """A received message is received again before it is deleted; without the switch it is not."""
    url = make_queue(local)
    put_events(local, "a")
    local.behave(lapsed_receipts=1.0)
    assert len(receive(local, url)) == len(receive(local, url)) == 1
    local.aws.behave(AS_MOTO)
    assert len(receive(local, url)) == 1
    assert receive(local, url) == []


def test_batches_are_repeated_at_their_fraction(local: Local) -> None:
    """By default no batch of a stream is repeated, and the effects of a behavior are counted."""
    assert not any(local.aws.repeats_batch() for _ in range(50))
    local.behave(repeated_batches=1.0)
    assert local.aws.repeats_batch()
    assert local.aws.effects == {"batch repeated": 1}

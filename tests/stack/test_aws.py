"""The corrections of moto: presigned URLs, unsigned requests, transactions, streams, queues; and injected faults."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.sqs.models import sqs_backends

from rushes_local.aws.application import CREDENTIALS, Aws
from rushes_local.event_sources import first_iterator
from rushes_local.lambda_runtime import ACCOUNT_ID, REGION
from rushes_local.servers import Server
from tests.object_keys import OBJECT_NAMES, longest

BUCKET = "clips-of-the-test"
KEY = "videos/ada/2026/11/23/a b+c~ü-0.mp4"

NAMES = [*OBJECT_NAMES.values(), longest("%20 ")]

# moto's state is global to the process.
pytestmark = pytest.mark.usefixtures("no_shared_stack")


class Clock:
    """The real time plus `ahead` seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        return datetime.now(UTC).timestamp() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aws(clock: Clock) -> Aws:
    aws = Aws(clock=clock)
    aws.load()
    return aws


@pytest.fixture
def url(aws: Aws) -> Iterator[str]:
    with Server(aws, name="aws") as server:
        yield server.url


def client(service: str, url: str, token: str | None = "a-session-token") -> Any:
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS.access_key,
        aws_secret_access_key=CREDENTIALS.secret_key,
        aws_session_token=token,
        config=Config(signature_version="s3v4" if service == "s3" else None, retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def s3(url: str) -> Any:
    """A client of S3 with a bucket."""
    s3 = client("s3", url)
    s3.create_bucket(Bucket=BUCKET)
    return s3


def presign(s3: Any, operation: str = "put_object", seconds: int = 60) -> str:
    signed: str = s3.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": KEY}, ExpiresIn=seconds)
    return signed


def error_code(response: httpx.Response) -> str | None:
    return ElementTree.fromstring(response.content).findtext("Code")


@pytest.mark.parametrize("token", [None, "a-session-token"])
def test_presigned_put_and_get(url: str, s3: Any, token: str | None) -> None:
    """boto3's presigned URLs work, with special characters in the key, with and without a session token."""
    signer = client("s3", url, token)
    assert httpx.put(presign(signer), content=b"film").status_code == 200
    assert httpx.get(presign(signer, "get_object")).content == b"film"


@pytest.mark.parametrize("name", NAMES, ids=[*OBJECT_NAMES, "1,024 bytes"])
def test_a_key_is_decoded_once(url: str, s3: Any, name: str) -> None:
    """Signed and presigned requests, listings and events have the same key."""
    sqs, events = client("sqs", url), client("events", url)
    queue = sqs.create_queue(QueueName="uploads")["QueueUrl"]
    events.put_rule(Name="uploads", EventPattern='{"detail-type": ["Object Created"]}')
    arn = "arn:aws:sqs:us-east-1:123456789012:uploads"
    events.put_targets(Rule="uploads", Targets=[{"Id": "uploads", "Arn": arn}])
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}})
    link = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": name})
    assert httpx.put(link, content=b"film").status_code == 200
    s3.put_object(Bucket=BUCKET, Key=name, Body=b"films")
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [json.loads(each["Body"])["detail"]["object"]["key"] for each in messages] == [name, name]
    (listed,) = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert (listed["Key"], listed["Size"]) == (name, 5)


def test_presigned_url_expires(s3: Any, clock: Clock) -> None:
    """A presigned URL works until its last second and not longer."""
    link = presign(s3, seconds=3600)
    clock.ahead = 3590
    assert httpx.put(link, content=b"film").status_code == 200
    clock.ahead = 3602
    response = httpx.put(link, content=b"other film")
    assert (response.status_code, error_code(response)) == (403, "AccessDenied")
    assert "Request has expired" in response.text
    assert s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].read() == b"film"


def test_an_empty_object(s3: Any) -> None:
    """An object without content is stored at once, although boto3 offers to wait before it sends the content."""
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"")
    assert s3.head_object(Bucket=BUCKET, Key=KEY)["ContentLength"] == 0


def test_presigned_url_of_the_future(s3: Any, clock: Clock) -> None:
    """A URL signed more than a quarter of an hour ahead of the clock is not valid yet."""
    clock.ahead = -1000
    response = httpx.put(presign(s3), content=b"film")
    assert (response.status_code, error_code(response)) == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("-0.mp4", "-1.mp4"),
        (BUCKET, BUCKET + "2"),
        ("X-Amz-Security-Token=a", "X-Amz-Security-Token=b"),
        ("?", "?versionId=null&"),
    ],
)
def test_forged_url(s3: Any, old: str, new: str) -> None:
    """A presigned URL with any change is refused and stores nothing."""
    link = presign(s3)
    assert old in link
    response = httpx.put(link.replace(old, new, 1), content=b"film")
    assert (response.status_code, error_code(response)) == (403, "SignatureDoesNotMatch")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_presigned_for_another_method(s3: Any) -> None:
    """A URL to put an object cannot be used to read it."""
    link = presign(s3)
    httpx.put(link, content=b"film")
    assert error_code(httpx.get(link)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("change", [("X-Amz-Expires=60", "X-Amz-Expires=999999"), ("X-Amz-Date=", "X-Amz-Dat=")])
def test_senseless_presigned_query(s3: Any, change: tuple[str, str]) -> None:
    """A presigned query that is incomplete, or valid for more than a week, is refused."""
    response = httpx.put(presign(s3).replace(*change), content=b"film")
    assert (response.status_code, error_code(response)) == (400, "AuthorizationQueryParametersError")


def test_anonymous_requests(url: str, s3: Any) -> None:
    """The bucket is private: unsigned requests cannot read or write."""
    s3.put_object(Bucket=BUCKET, Key="film", Body=b"x")
    for response in (httpx.get(f"{url}/{BUCKET}/film"), httpx.put(f"{url}/{BUCKET}/film"), httpx.get(f"{url}/")):
        assert (response.status_code, error_code(response)) == (403, "AccessDenied")


@pytest.fixture
def dynamodb(url: str) -> Any:
    """A client of DynamoDB with a table of counters."""
    dynamodb = client("dynamodb", url)
    dynamodb.create_table(
        TableName="counters",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )
    return dynamodb


def add_one(key: str) -> dict[str, Any]:
    return {
        "TableName": "counters",
        "Key": {"pk": {"S": key}},
        "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }


@pytest.fixture
def restless() -> Iterator[None]:
    """The shortest interval between switches of threads."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_transactions_are_atomic(dynamodb: Any) -> None:
    """The rollback of a transaction does not undo concurrent writes to the same item."""

    cancelled = dynamodb.exceptions.TransactionCanceledException  # made at first use, and not safely under threads

    def write(_: int) -> None:
        dynamodb.update_item(**add_one("counted"))

    def fail(_: int) -> None:
        impossible = {"ConditionExpression": "attribute_exists(pk)"}
        with pytest.raises(cancelled):
            dynamodb.transact_write_items(
                TransactItems=[{"Update": add_one("counted")}, {"Update": {**add_one("absent"), **impossible}}]
            )

    with ThreadPoolExecutor(8) as executor:
        work = [executor.submit(write if index % 2 else fail, index) for index in range(160)]
        for done in work:
            done.result(30)
    (item,) = dynamodb.scan(TableName="counters")["Items"]
    assert item["n"]["N"] == "80"


def test_failed_transaction_undoes_everything(url: str) -> None:
    """A transaction that fails at its end leaves new, changed, deleted and other items and the stream as before."""
    dynamodb, streams = client("dynamodb", url), client("dynamodbstreams", url)
    keys = [("pk", "HASH"), ("sk", "RANGE")]
    created = dynamodb.create_table(
        TableName="films",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )

    def place(name: str) -> dict[str, Any]:
        return {"TableName": "films", "Key": {"pk": {"S": "films"}, "sk": {"S": name}}}

    def rename(name: str, **condition: str) -> dict[str, Any]:
        values = {":new": {"S": "new"}}
        nested = "SET facts.title = :new"
        return {"Update": {**place(name), "UpdateExpression": nested, "ExpressionAttributeValues": values, **condition}}

    def whole() -> tuple[list[Any], list[Any]]:
        arn = created["TableDescription"]["LatestStreamArn"]
        (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = [record["dynamodb"] for record in streams.get_records(ShardIterator=iterator)["Records"]]
        return dynamodb.scan(TableName="films")["Items"], records

    for name in ("changed", "deleted", "other"):
        item = {**place(name)["Key"], "facts": {"M": {"title": {"S": "old"}}}}
        dynamodb.put_item(TableName="films", Item=item)
    before = whole()
    new = {"Put": {"TableName": "films", "Item": place("new")["Key"]}}
    writes = [new, rename("changed"), {"Delete": place("deleted")}]
    impossible = {"ConditionCheck": {**place("absent"), "ConditionExpression": "attribute_exists(pk)"}}
    with pytest.raises(dynamodb.exceptions.TransactionCanceledException):
        dynamodb.transact_write_items(TransactItems=[*writes, impossible])
    assert whole() == before
    dynamodb.transact_write_items(TransactItems=writes)
    items, records = whole()
    assert {item["sk"]["S"] for item in items} == {"changed", "other", "new"}
    assert len(records) == len(before[1]) + 3


def test_every_kind_of_value_is_answered_as_it_was_written(dynamodb: Any) -> None:
    """Values that moto does not convert, values that it encodes, and both within maps and lists."""
    kinds: dict[str, Any] = {
        "S": "text",
        "N": "1.5",
        "BOOL": False,
        "NULL": True,
        "B": b"\x00",
        "SS": ["a"],
        "NS": ["2"],
    }
    item = {f"of {kind}": {kind: value} for kind, value in kinds.items()}
    item |= {"map": {"M": dict(item)}, "list": {"L": list(item.values())}, "none": {"M": {}}, "pk": {"S": "all"}}
    dynamodb.put_item(TableName="counters", Item=item)
    assert dynamodb.get_item(TableName="counters", Key={"pk": {"S": "all"}})["Item"] == item
    assert dynamodb.scan(TableName="counters")["Items"] == [item]


def test_a_stream_has_one_record_for_each_change(url: str) -> None:
    """An update that creates its item writes one record with the whole item; one that changes nothing writes none."""
    dynamodb, streams = client("dynamodb", url), client("dynamodbstreams", url)
    created = dynamodb.create_table(
        TableName="takes",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )

    def take(number: str) -> dict[str, Any]:
        return {
            "TableName": "takes",
            "Key": {"pk": {"S": "a"}},
            "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": {":n": {"N": number}},
        }

    for number in ("1", "1", "2"):
        dynamodb.update_item(**take(number))
    dynamodb.transact_write_items(TransactItems=[{"Update": take("2")}])
    dynamodb.transact_write_items(TransactItems=[{"Update": take("3")}])
    place = first_iterator(streams, created["TableDescription"]["LatestStreamArn"])
    records = streams.get_records(ShardIterator=place)["Records"]
    changes = [(each["eventName"], each["dynamodb"].get("OldImage"), each["dynamodb"]["NewImage"]) for each in records]
    images = [{"pk": {"S": "a"}, "n": {"N": number}} for number in "123"]
    assert changes == [
        ("INSERT", None, images[0]),
        ("MODIFY", images[0], images[1]),
        ("MODIFY", images[1], images[2]),
    ]
    sequence = [int(each["dynamodb"]["SequenceNumber"]) for each in records]
    assert sequence == sorted(set(sequence))


def test_a_stream_does_not_keep_every_iterator(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest iterators are removed, because a poller gets several a second."""
    from moto.dynamodbstreams.models import dynamodbstreams_backends

    monkeypatch.setattr("rushes_local.aws.stream_records._MAX_ITERATORS", 3)
    dynamodb, streams = client("dynamodb", url), client("dynamodbstreams", url)
    created = dynamodb.create_table(
        TableName="reels",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    place = first_iterator(streams, created["TableDescription"]["LatestStreamArn"])
    for _ in range(6):
        place = streams.get_records(ShardIterator=place)["NextShardIterator"]
    assert len(dynamodbstreams_backends["123456789012"]["us-east-1"].shard_iterators) == 3


def test_streams_and_other_services_meet_no_fault_of_the_table(aws: Aws, url: str) -> None:
    """Faults of the table do not affect reads of its stream, which are Lambda's, and are not used up by them."""
    aws.faults.fail("dynamodb", "InternalServerError")
    assert client("dynamodbstreams", url).list_streams()["Streams"] == []


@pytest.mark.parametrize("code", ["InternalServerError", "ThrottlingException"])
def test_faults_a_number_of_times(aws: Aws, dynamodb: Any, code: str) -> None:
    """A fault occurs the given number of times, as an error of boto3, and the request has no effect."""
    aws.faults.fail("dynamodb", code, times=2)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            dynamodb.update_item(**add_one("x"))
        assert caught.value.response["Error"]["Code"] == code
    assert dynamodb.scan(TableName="counters")["Items"] == []


def test_fault_after_the_effect(aws: Aws, dynamodb: Any) -> None:
    """A fault can follow the effect of its request."""
    aws.faults.fail("dynamodb", "InternalServerError", times=1, after=True)
    with pytest.raises(ClientError):
        dynamodb.update_item(**add_one("x"))
    assert len(dynamodb.scan(TableName="counters")["Items"]) == 1


def test_faults_of_one_service(aws: Aws, s3: Any, dynamodb: Any) -> None:
    """A fault of S3 does not affect DynamoDB, and `clear` ends it."""
    aws.faults.fail("s3", "SlowDown")
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket=BUCKET)
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    dynamodb.update_item(**add_one("x"))
    aws.faults.clear()
    s3.list_objects_v2(Bucket=BUCKET)


def test_faults_by_fraction() -> None:
    """A fraction of the requests fail, the same ones for the same seed."""

    def chosen(seed: int) -> list[bool]:
        aws = Aws(fault_seed=seed)
        aws.faults.fail("s3", "SlowDown", fraction=0.3)
        return [aws.faults.take("s3") is not None for _ in range(1000)]

    assert 250 < sum(chosen(7)) < 350
    assert chosen(7) == chosen(7)
    assert chosen(7) != chosen(8)


def test_unknown_fault() -> None:
    """An unknown fault is refused, and the error lists the faults."""
    with pytest.raises(ValueError, match="use one of InternalServerError"):
        Aws().faults.fail("s3", "Explosion")


def test_quiet_groups_are_received_first(url: str) -> None:
    """In a standard queue, a group without messages in flight precedes the backlog of a group that has some."""
    sqs = client("sqs", url)
    queue = sqs.create_queue(QueueName="fair")["QueueUrl"]
    for number in range(3):
        sqs.send_message(QueueUrl=queue, MessageBody=f"noisy {number}", MessageGroupId="noisy")
    (first,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    sqs.send_message(QueueUrl=queue, MessageBody="quiet", MessageGroupId="quiet")
    rest = [sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] for _ in range(3)]
    assert (first["Body"], rest) == ("noisy 0", ["quiet", "noisy 1", "noisy 2"])


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("condition", [{}, {"IfNoneMatch": "*"}], ids=["unconditional", "conditional"])
def test_uploads_of_one_key_at_once(s3: Any, condition: dict[str, str]) -> None:
    """Each upload has a version of its own, and of those that need an absent key one succeeds."""
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})

    def put(number: int) -> int:
        try:
            s3.put_object(Bucket=BUCKET, Key=KEY, Body=str(number).encode(), **condition)
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    with ThreadPoolExecutor(8) as executor:
        statuses = list(executor.map(put, range(160)))
    versions = s3.list_object_versions(Bucket=BUCKET, Prefix=KEY)["Versions"]
    assert len(versions) == statuses.count(200) == (1 if condition else 160)


@pytest.mark.usefixtures("restless", "aws")
def test_queues_lose_no_message_under_threads() -> None:
    """Each message is received once and deleted, also while other messages are sent, received and deleted."""
    queues = sqs_backends[ACCOUNT_ID][REGION]
    queue = queues.create_queue("busy", None)
    for number in range(200):
        queues.send_message("busy", f"delayed {number}", delay_seconds=900)  # a longer list takes longer to copy
    sent, received = 400, []

    def send(number: int) -> None:
        queues.send_message("busy", str(number), delay_seconds=0)

    def take(_: int) -> None:
        for message in queues.receive_message("busy", 1, 0, 30):
            received.append(message.body)
            queue.delete_message(message.receipt_handle)

    with ThreadPoolExecutor(4) as executor:
        for done in [executor.submit(job, number) for number in range(sent) for job in (send, take)]:
            done.result(30)
    while len(queue._messages) > 200:
        take(0)
    assert sorted(map(int, received)) == list(range(sent))

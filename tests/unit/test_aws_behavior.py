"""The decisions of the local AWS where it is as unkind as AWS: conflicts, tokens, lags and chance, without moto."""

import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rushes_local.aws.application import Aws, AwsFaults
from rushes_local.aws.behavior import AwsBehavior, Chance
from rushes_local.aws.dynamodb_requests import DynamoDb
from rushes_local.aws.error_response import AwsError
from rushes_local.aws.message_delivery import leave_visible
from rushes_local.aws.read_lag import lagging_tables, written
from rushes_local.aws.request_tokens import VALIDITY, Repeat, RequestTokens
from rushes_local.aws.transaction_conflicts import HeldItems, cancellation, item_key, transaction_keys

NAMES = ("pk", "sk")
A, B, C = (("table", name) for name in "abc")
TRANSACTION: dict[str, Any] = {"TransactItems": [], "ClientRequestToken": "token"}


def item(name: str, **attributes: Any) -> dict[str, Any]:
    return {"TableName": "clips", "Item": {"pk": {"S": name}, "sk": {"S": "0"}, **attributes}}


def key(name: str, **parameters: Any) -> dict[str, Any]:
    return {"TableName": "clips", "Key": {"sk": {"S": "0"}, "pk": {"S": name}}, **parameters}


# ----------------------------------------------------------------------------------------------------------------------
# Conflicts
# ----------------------------------------------------------------------------------------------------------------------


def test_items_are_held_until_their_release() -> None:
    """A transaction holds all its items or none, and every other one that has one of them is in conflict."""
    held = HeldItems()
    assert held.hold([A, B]) == [False, False]
    assert held.hold([C, B]) == [False, True]
    assert held.conflicts([A, B, C]) == [True, True, False]
    held.release([A, B])
    assert held.hold([C, B]) == [False, False]


def test_keys_of_a_transaction() -> None:
    """Every kind of action has the key of its item, in the order of the request; other attributes do not count."""
    request = {
        "TransactItems": [
            {"Put": item("a", n={"N": "1"})},
            {"Update": key("b", UpdateExpression="SET n = :n")},
            {"ConditionCheck": key("a")},
            {"Get": key("c")},
        ]
    }
    keys = transaction_keys(request, lambda table: NAMES if table == "clips" else ())
    assert keys[0] == keys[2] == item_key(item("a"), lambda _: NAMES)
    assert len(set(keys)) == 3
    assert item_key({**key("a"), "TableName": "other"}, lambda _: NAMES) != keys[0]


def test_cancellation_reasons_have_the_order_of_the_items() -> None:
    """An item without a conflict has the code `None` and no message."""
    fields = cancellation([False, True, False])
    assert [reason["Code"] for reason in fields["CancellationReasons"]] == ["None", "TransactionConflict", "None"]
    assert ["Message" in reason for reason in fields["CancellationReasons"]] == [False, True, False]
    assert fields["Message"].endswith("[None, TransactionConflict, None]")


# ----------------------------------------------------------------------------------------------------------------------
# Tokens
# ----------------------------------------------------------------------------------------------------------------------


def test_a_repeat_of_a_successful_transaction() -> None:
    """It is done for ten minutes after its end; then the token is new."""
    tokens = RequestTokens()
    assert tokens.begin(TRANSACTION, 0) is Repeat.NONE
    assert tokens.begin(TRANSACTION, 1) is Repeat.IN_PROGRESS
    tokens.finish(TRANSACTION, 5, successful=True)
    assert tokens.begin(TRANSACTION, 6) is Repeat.DONE
    assert tokens.begin(TRANSACTION, 5 + VALIDITY - 1) is Repeat.DONE
    assert tokens.begin(TRANSACTION, 5 + VALIDITY) is Repeat.NONE


@pytest.mark.parametrize("successful", [True, False])
def test_a_token_with_other_parameters(successful: bool) -> None:
    """The same token for another transaction is an error, also after the first was cancelled."""
    tokens = RequestTokens()
    other = {**TRANSACTION, "TransactItems": [{"Put": item("a")}]}
    tokens.begin(TRANSACTION, 0)
    assert tokens.begin(other, 0) is Repeat.OTHER_PARAMETERS
    tokens.finish(TRANSACTION, 0, successful=successful)
    assert tokens.begin(other, 1) is Repeat.OTHER_PARAMETERS
    assert tokens.begin({**other, "ClientRequestToken": "another"}, 1) is Repeat.NONE


def test_a_repeat_of_a_cancelled_transaction() -> None:
    """It is a new try, which can succeed."""
    tokens = RequestTokens()
    tokens.begin(TRANSACTION, 0)
    tokens.finish(TRANSACTION, 0, successful=False)
    assert tokens.begin(TRANSACTION, 1) is Repeat.NONE
    tokens.finish(TRANSACTION, 1, successful=True)
    assert tokens.begin(TRANSACTION, 2) is Repeat.DONE


# ----------------------------------------------------------------------------------------------------------------------
# Reads and writes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "request_", "lagging"),
    [
        ("GetItem", key("a"), True),
        ("GetItem", key("a", ConsistentRead=True), False),
        ("Query", {"TableName": "clips", "ConsistentRead": False}, True),
        ("Query", {"TableName": "clips", "ConsistentRead": True}, False),
        ("Query", {"TableName": "clips", "IndexName": "due"}, True),
        ("Query", {"TableName": "clips", "IndexName": "due", "ConsistentRead": True}, True),
        ("Scan", {"TableName": "clips"}, True),
        ("Scan", {"TableName": "clips", "ConsistentRead": True}, False),
        ("BatchGetItem", {"RequestItems": {"clips": {"Keys": []}}}, True),
        ("BatchGetItem", {"RequestItems": {"clips": {"Keys": [], "ConsistentRead": True}}}, False),
        ("TransactGetItems", {"TransactItems": [{"Get": key("a")}]}, False),
        ("UpdateItem", key("a"), False),
        ("DescribeTable", {"TableName": "clips"}, False),
    ],
)
def test_reads_that_may_lag(operation: str, request_: dict[str, Any], lagging: bool) -> None:
    """Every read lags that is not strongly consistent, and every read of an index."""
    assert lagging_tables(operation, request_) == (["clips"] if lagging else [])


def test_written_items() -> None:
    """Every write of every operation, and no condition check or read."""
    put, update, check = {"Put": item("a")}, {"Update": key("b")}, {"ConditionCheck": key("c")}
    assert written("TransactWriteItems", {"TransactItems": [put, check, update]}) == [item("a"), key("b")]
    batch = {"RequestItems": {"clips": [{"PutRequest": {"Item": {}}}, {"DeleteRequest": {"Key": {}}}]}}
    assert written("BatchWriteItem", batch) == [{"TableName": "clips", "Item": {}}, {"TableName": "clips", "Key": {}}]
    for operation in ("PutItem", "UpdateItem", "DeleteItem"):
        assert written(operation, key("a")) == [key("a")]
    assert written("GetItem", key("a")) == written("Query", {"TableName": "clips"}) == []


def test_a_receipt_that_leaves_its_messages_visible() -> None:
    """The request is the same but for its visibility timeout."""
    assert leave_visible(b'{"QueueUrl": "q", "VisibilityTimeout": 30}') == b'{"QueueUrl": "q", "VisibilityTimeout": 0}'


# ----------------------------------------------------------------------------------------------------------------------
# Chance
# ----------------------------------------------------------------------------------------------------------------------


def test_chance_depends_on_its_seed() -> None:
    """The same seed takes the same decisions, and a fraction of 0 takes none of them."""

    def decisions(seed: int, *, idle: bool) -> list[bool]:
        chance = Chance(seed)
        return [chance.happens(0.3, "one") for _ in range(1000) if not (idle and chance.happens(0, "none"))]

    assert 250 < sum(decisions(1, idle=False)) < 350
    assert decisions(1, idle=True) == decisions(1, idle=False) != decisions(2, idle=False)
    assert all(0 <= Chance(seed).below(2) <= 2 for seed in range(50))


def test_throttling() -> None:
    """A fraction of the requests of DynamoDB and S3, with their own codes, and not while another fault is active."""
    faults = AwsFaults(7)
    faults.throttle(0.2)
    found = {service: [faults.take(service) for _ in range(1000)] for service in ("dynamodb", "s3", "other")}
    codes = {service: {fault.code for fault in taken if fault} for service, taken in found.items()}
    assert codes == {
        "dynamodb": {"ThrottlingException", "ProvisionedThroughputExceededException"},
        "s3": {"SlowDown"},
        "other": set(),
    }
    assert 150 < sum(fault is not None for fault in found["dynamodb"]) < 250
    faults.fail("s3", "InternalError")
    assert {fault.code for _ in range(50) if (fault := faults.take("s3"))} == {"InternalError"}
    faults.clear()
    faults.throttle(0)
    assert not any(faults.take("s3") for _ in range(100))


def test_no_throttling_changes_no_fault() -> None:
    """The faults of a seed are the same as without the switch."""

    def chosen(throttled: float | None) -> list[bool]:
        faults = AwsFaults(7)
        if throttled is not None:
            faults.throttle(throttled)
        taken = [faults.take("s3") for _ in range(20)]
        faults.fail("s3", "SlowDown", fraction=0.3)
        return [fault is not None for fault in (*taken, *(faults.take("s3") for _ in range(200)))]

    assert chosen(None) == chosen(0.0)


# ----------------------------------------------------------------------------------------------------------------------
# DynamoDB's requests, with a stand-in for moto
# ----------------------------------------------------------------------------------------------------------------------


class Application:
    """Answers every request by the same bytes, and records environ and body."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [("x-amzn-requestid", "1")])
        return [b'{"Item"', b": {}}"]


class Unread(io.BytesIO):
    """A request that must not be read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the request was read")


def ask(
    dynamodb: DynamoDb, application: Application, operation: str, body: io.BytesIO
) -> tuple[list[bytes], list[tuple[Any, ...]]]:
    started: list[tuple[Any, ...]] = []
    environ = {"HTTP_X_AMZ_TARGET": f"DynamoDB_20120810.{operation}", "wsgi.input": body}
    environ["CONTENT_LENGTH"] = str(len(body.getbuffer()))
    answer = list(dynamodb.answer(application, environ, lambda *given: started.append(given)))  # type: ignore[arg-type]
    return answer, started


@pytest.mark.parametrize("operation", ["TransactWriteItems", "GetItem", "Query", "UpdateItem", "CreateTable"])
def test_everything_off_passes_requests_on_unread(operation: str) -> None:
    """By default moto gets the very request and its answer is the answer, byte for byte."""
    application, body = Application(), Unread(b"{not even JSON")
    answer, started = ask(DynamoDb(lambda: 0.0, lambda _: None), application, operation, body)
    assert answer == [b'{"Item"', b": {}}"]
    assert started == [("200 OK", [("x-amzn-requestid", "1")])]
    (environ,) = application.environs
    assert environ["wsgi.input"] is body


@pytest.mark.parametrize(
    ("service", "target"),
    [
        ("sqs", "AmazonSQS.ReceiveMessage"),
        ("s3", ""),
        ("events", "AWSEvents.PutEvents"),
        ("dynamodb", "DynamoDB_20120810.TransactWriteItems"),
        ("dynamodb", "DynamoDBStreams_20120810.GetRecords"),
    ],
)
def test_everything_off_passes_requests_of_every_service_on(
    service: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default the whole local AWS gives moto the very request, and answers with moto's bytes."""
    aws, application, body = Aws(), Application(), Unread(b"{")
    monkeypatch.setattr(aws, "_application", application)
    started: list[tuple[Any, ...]] = []
    scope = f"AWS4-HMAC-SHA256 Credential=a/20261128/us-east-1/{service}/aws4_request, SignedHeaders=host"
    environ: dict[str, Any] = {"HTTP_AUTHORIZATION": scope, "HTTP_X_AMZ_TARGET": target, "wsgi.input": body}
    answer = list(aws({**environ, "REQUEST_METHOD": "POST"}, lambda *given: started.append(given)))  # type: ignore[arg-type,func-returns-value]
    assert answer == [b'{"Item"', b": {}}"]
    assert started == [("200 OK", [("x-amzn-requestid", "1")])]
    assert application.environs[0]["wsgi.input"] is body


def test_every_switch_is_off_by_default() -> None:
    """A behavior without arguments is moto's."""
    assert not any(vars(AwsBehavior()).values())


def test_errors_have_dynamodbs_format() -> None:
    """An error has its type and message, and a cancelled transaction its reasons."""
    plain = AwsError("ThrottlingException", 400, "Rate").body("dynamodb")[1]
    assert plain == b'{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"Rate"}'
    fields = AwsError("TransactionCanceledException", 400, "", fields={"CancellationReasons": []}).body("dynamodb")[1]
    assert (
        fields == b'{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","CancellationReasons":[]}'
    )

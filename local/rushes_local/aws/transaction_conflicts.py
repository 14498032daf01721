"""DynamoDB's transaction conflicts: a transaction holds its items, and other writes to them are rejected meanwhile.

moto completes each transaction at once. In DynamoDB (developer guide, "Transaction conflict handling in DynamoDB"):
"Transaction conflicts can occur in the following scenarios: A PutItem, UpdateItem, or DeleteItem request for an item
conflicts with an ongoing TransactWriteItems request that includes the same item. An item within a TransactWriteItems
request is part of another ongoing TransactWriteItems request. An item within a TransactGetItems request is part of an
ongoing TransactWriteItems, BatchWriteItem, PutItem, UpdateItem, or DeleteItem request." A single write fails with a
`TransactionConflictException`, a transaction with a `TransactionCanceledException`. Its reasons (API reference) "are
ordered in the order of requested items, if an item has no error it will have None code".
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Request = Mapping[str, Any]
KeyNames = Callable[[str], Sequence[str]]
"""The names of a table's key attributes."""

ItemKey = tuple[str, str]
"""The name of a table and an item's key as JSON."""

Reason = Mapping[str, Any]
"""A reason for the cancellation of a transaction by one of its items."""

NO_REASON: Reason = {"Code": "None"}
CONFLICT = "TransactionConflict"
_MESSAGE = "Transaction is ongoing for the item"


class HeldItems:
    """The items of the transactions in progress."""

    def __init__(self) -> None:
        self._held: set[ItemKey] = set()
        self._lock = threading.Lock()

    def conflicts(self, keys: Sequence[ItemKey]) -> list[bool]:
        """For each key: True if a transaction holds the item."""
        with self._lock:
            return [key in self._held for key in keys]

    def hold(self, keys: Sequence[ItemKey]) -> list[bool]:
        """Hold all items until `release`, or none if one of them is held. Returns the conflicts."""
        with self._lock:
            conflicts = [key in self._held for key in keys]
            if not any(conflicts):
                self._held.update(keys)
            return conflicts

    def release(self, keys: Sequence[ItemKey]) -> None:
        """End the transaction that holds these items."""
        with self._lock:
            self._held.difference_update(keys)


def transaction_keys(request: Request, key_names: KeyNames) -> list[ItemKey]:
    """The keys of a transaction's items, in the order of the request."""
    return [item_key(action, key_names) for item in request["TransactItems"] for action in item.values()]


def item_key(action: Request, key_names: KeyNames) -> ItemKey:
    """The key of the item of a write or a read: a whole request, or one action of a transaction."""
    table = action["TableName"]
    key = action.get("Key") or {name: action["Item"].get(name) for name in key_names(table)}
    return table, json.dumps(key, sort_keys=True)


def cancellation(conflicts: Sequence[bool], others: Sequence[Reason] | None = None) -> dict[str, Any]:
    """The fields of the error of a transaction with these conflicts; `others` are the reasons of its other items."""
    reasons = [
        {"Code": CONFLICT, "Message": _MESSAGE} if conflict else other
        for conflict, other in zip(conflicts, others or [NO_REASON] * len(conflicts), strict=True)
    ]
    codes = ", ".join(reason["Code"] for reason in reasons)
    text = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    return {"Message": text, "CancellationReasons": reasons}


def condition_reason(backend: Any, action: Request, key_names: KeyNames) -> Reason:
    """The reason of one action by its condition, as moto evaluates it. Imports moto; needs DynamoDB's lock."""
    from moto.dynamodb.comparisons import get_filter_expression
    from moto.dynamodb.models.utilities import dynamo_json_dump

    key = action.get("Key") or {name: action["Item"][name] for name in key_names(action["TableName"])}
    names, values = action.get("ExpressionAttributeNames"), action.get("ExpressionAttributeValues")
    item = backend.get_item(action["TableName"], key)
    if get_filter_expression(action.get("ConditionExpression"), names, values).expr(item):
        return NO_REASON
    reason = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    if item is None or action.get("ReturnValuesOnConditionCheckFailure") != "ALL_OLD":
        return reason
    return {**reason, "Item": json.loads(dynamo_json_dump(item.to_json()["Attributes"]))}

"""The table for `deliver`: the records of attempts, callers' signing secrets, and the slots of concurrent attempts."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from rushes.adapters.dynamodb import items
from rushes.adapters.dynamodb.table import DynamoDbTable, is_condition
from rushes.domain.delivery import Attempt, Delivery, SigningSecret
from rushes.domain.formats import iso


class DeliveriesTable(DynamoDbTable):
    """The table with the reads and writes of deliveries. Every call may raise `BusyError`."""

    def signing_secrets(self, caller: str) -> list[SigningSecret]:
        """A caller's secrets, including those whose time has ended."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.signing_key(caller), ConsistentRead=True)
        )
        return items.read_secrets(items.from_attributes(answer.get("Item", {})))

    def attempt(self, delivery: Delivery) -> Attempt | None:
        """The record of this attempt, or None if it has not been made."""
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.attempt_key(delivery), ConsistentRead=True)
        )
        return items.read_attempt(items.from_attributes(answer["Item"])) if "Item" in answer else None

    def put_attempt(self, attempt: Attempt, expires_at: int) -> None:
        """Records an attempt; `expires_at` is in milliseconds."""
        self._retried(
            lambda: self._client.put_item(TableName=self._table, Item=items.attempt_item(attempt, expires_at))
        )

    def take_slot(self, caller: str, slots: int, holder: str, now: int, until: int) -> int | None:
        """Takes one of a caller's slots until a time in milliseconds; None if all of them are taken.

        A slot that its holder did not free, because its function was stopped, is free again after that time.
        """
        for number in range(slots):
            try:
                self._put_slot(caller, number, holder, now, until)
            except ClientError as error:
                if not is_condition(error):
                    raise
            else:
                return number
        return None

    def free_slot(self, caller: str, slot: int, holder: str) -> None:
        """Frees a slot, unless its time has ended and another holder has it."""
        with suppress(ClientError):  # the failed condition
            self._retried(
                lambda: self._client.delete_item(
                    TableName=self._table,
                    Key=items.slot_key(caller, slot),
                    ConditionExpression="holder = :holder",
                    ExpressionAttributeValues=items.to_attributes({":holder": holder}),
                )
            )

    def attempts_of_caller(self, caller: str, since: int) -> Iterator[Attempt]:
        """A caller's recorded attempts since a time in milliseconds, oldest first. Eventually consistent."""
        pages = self._pages(
            "query",
            IndexName="recent",
            KeyConditionExpression="caller = :caller AND createdAt >= :since",
            ExpressionAttributeValues=items.to_attributes({":caller": items.attempts_of(caller), ":since": iso(since)}),
        )
        for page in pages:
            keys = [{name: item[name] for name in ("pk", "sk")} for item in page["Items"]]
            found = [items.read_attempt(item) for item in self._get_items(keys)]
            yield from sorted(found, key=lambda each: (each.at, each.delivery))

    def _put_slot(self, caller: str, number: int, holder: str, now: int, until: int) -> None:
        values: dict[str, Any] = {"holder": holder, "until": until, "expiresAt": until // 1000 + 86_400}
        self._retried(
            lambda: self._client.put_item(
                TableName=self._table,
                Item={**items.slot_key(caller, number), **items.to_attributes(values)},
                ConditionExpression="attribute_not_exists(pk) OR #until < :now OR holder = :holder",
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues=items.to_attributes({":now": now, ":holder": holder}),
            )
        )

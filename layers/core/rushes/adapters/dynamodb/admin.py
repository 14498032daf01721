"""The table for operators: callers and API keys, clips that need review, and reads of the whole table.

Not in the deployed layer, because no function uses it.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from rushes.adapters.dynamodb import items
from rushes.adapters.dynamodb.deliveries import DeliveriesTable
from rushes.adapters.dynamodb.items import Item
from rushes.adapters.dynamodb.table import is_condition
from rushes.domain.budget import Cost
from rushes.domain.caller import ApiKey, Caller
from rushes.domain.clip import Clip
from rushes.domain.delivery import SigningSecret
from rushes.domain.task import Task
from rushes.errors import UnreadableClipError


@dataclass(slots=True)
class TableSnapshot:
    """The content of the whole table, for consistency checks. Items may change during the read.

    `tombstones` are the tasks whose first clip has the attributes of a tombstone. Each API key has two items: `keys`
    has those by hash, `listed` those beside the caller. `unrecognized_keys` are the primary keys of all other items.
    """

    tasks: list[Task] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    budgets: dict[tuple[str, str], int] = field(default_factory=dict)
    callers: dict[str, Caller] = field(default_factory=dict)
    keys: dict[str, tuple[str, ApiKey]] = field(default_factory=dict)
    listed: dict[str, tuple[str, ApiKey]] = field(default_factory=dict)
    tombstones: set[tuple[str, str]] = field(default_factory=set)
    unrecognized_keys: list[str] = field(default_factory=list)


class AdminTable(DeliveriesTable):
    """The table with the reads and writes of operators."""

    def all_costs(self, since: int, until: int) -> Iterator[Cost]:
        """The costs of all callers' clips from `since` to `until`, in milliseconds, unordered. Scans the index."""
        pages = self._pages(
            "scan",
            IndexName="costs",
            FilterExpression="createdAtMs BETWEEN :since AND :until",
            ExpressionAttributeValues=items.to_attributes({":since": since, ":until": until}),
        )
        return (items.read_cost(items.from_attributes(item)) for page in pages for item in page["Items"])

    def set_caller(self, caller: Caller) -> None:
        """Sets a caller's monthly limit and the sources of its images; makes the caller if it does not exist.

        A disabled caller stays disabled.
        """
        self._client.update_item(
            TableName=self._table,
            Key=items.caller_key(caller.name),
            UpdateExpression="SET monthlyLimit = :limit, imageSources = :sources",
            ExpressionAttributeValues=items.to_attributes(
                {":limit": caller.monthly_limit, ":sources": list(caller.image_sources)}
            ),
        )

    def disable_caller(self, name: str, disabled: bool = True) -> bool:
        """Disables a caller for keys, files and events, or enables it again; False if it does not exist."""
        return self._change_caller(name, "disabled", True if disabled else None)

    def set_webhook_url(self, name: str, url: str) -> bool:
        """Sets a caller's default receiver, or removes it with an empty URL; False if the caller does not exist."""
        return self._change_caller(name, "webhookURL", url or None)

    def set_signing_secrets(self, name: str, secrets: Sequence[SigningSecret]) -> bool:
        """Replaces a caller's signing secrets; False if the caller does not exist.

        With a secret, the caller's orders may name a receiver.
        """
        writes: list[Any] = [
            {"Put": {"TableName": self._table, "Item": items.secrets_item(name, secrets)}},
            {"Update": {"TableName": self._table, **_change_of_caller(name, "signsWebhooks", bool(secrets) or None)}},
        ]
        try:
            self._retried(lambda: self._client.transact_write_items(TransactItems=writes))
        except ClientError as error:
            if is_condition(error):
                return False
            raise
        return True

    def _change_caller(self, name: str, attribute: str, value: object) -> bool:
        change = _change_of_caller(name, attribute, value)
        try:
            self._retried(lambda: self._client.update_item(TableName=self._table, **change))
        except ClientError as error:
            if is_condition(error):
                return False
            raise
        return True

    def all_callers(self) -> list[Caller]:
        """All callers that operators have made, by name. Scans the table."""
        pages = self._pages(
            "scan",
            FilterExpression="sk = :caller",
            ExpressionAttributeValues=items.to_attributes({":caller": "caller"}),
        )
        found = [items.from_attributes(item) for page in pages for item in page["Items"]]
        callers = (items.read_caller(item["pk"].removeprefix("caller#"), item) for item in found)
        return sorted(callers, key=lambda each: each.name)

    def add_key(self, key_hash: str, caller: Caller, name: str, now: int) -> None:
        """Sets the caller and adds an API key for it. `name` distinguishes the caller's keys for people."""
        self.set_caller(caller)
        # Without `caller` and `createdAt`, which would add the key to the index of recent tasks.
        item = items.to_attributes({"keyCaller": caller.name, "name": name, "madeAt": now})
        keys = (items.api_key(key_hash), items.listed_key(caller.name, key_hash))
        writes: list[Any] = [{"Put": {"TableName": self._table, "Item": {**key, **item}}} for key in keys]
        self._retried(lambda: self._client.transact_write_items(TransactItems=writes))

    def keys(self, caller: str) -> list[ApiKey]:
        """A caller's API keys, oldest first, including the revoked ones."""
        answer = self._retried(
            lambda: self._client.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :key)",
                ExpressionAttributeValues=items.to_attributes({":pk": f"caller#{caller}", ":key": "key#"}),
                ConsistentRead=True,
            )
        )
        return sorted(
            (items.read_api_key(items.from_attributes(item)) for item in answer["Items"]),
            key=lambda key: (key.made_at, key.key_hash),
        )

    def all_keys(self) -> list[tuple[str, ApiKey]]:
        """All API keys with their callers' names, by name and age. Scans the table."""
        pages = self._pages(
            "scan", FilterExpression="sk = :key", ExpressionAttributeValues=items.to_attributes({":key": "key"})
        )
        found = [items.from_attributes(item) for page in pages for item in page["Items"]]
        keys = [(str(item["keyCaller"]), items.read_api_key(item)) for item in found]
        return sorted(keys, key=lambda each: (each[0], each[1].made_at, each[1].key_hash))

    def revoke_key(self, key_hash: str, now: int) -> bool:
        """Revokes an API key permanently; functions may cache it for a minute. False if it does not exist.

        The time of an earlier revocation is kept.
        """
        answer = self._retried(
            lambda: self._client.get_item(TableName=self._table, Key=items.api_key(key_hash), ConsistentRead=True)
        )
        if "Item" not in answer:
            return False
        keys = (
            items.api_key(key_hash),
            items.listed_key(items.from_attributes(answer["Item"])["keyCaller"], key_hash),
        )
        writes: list[Any] = [self._revoke(key, now) for key in keys]
        self._retried(lambda: self._client.transact_write_items(TransactItems=writes))
        return True

    def in_review(self) -> list[tuple[str, str, int]]:
        """The keys of clips in review, longest waiting first: caller, task and clip. Eventually consistent."""
        pages = self._pages("query", IndexName="due", **_of_shard(items.REVIEW_SHARD))
        return [items.clip_name(items.from_attributes(item)) for page in pages for item in page["Items"]]

    def snapshot(self) -> TableSnapshot:
        """Reads the whole table, which is too slow for a function."""
        found = TableSnapshot()
        for page in self._pages("scan", ConsistentRead=True):
            for item in page["Items"]:
                _add_item(found, items.from_attributes(item))
        return found

    def forget(self, caller: str, task_uuid: str) -> None:
        """Erases the request, receiver and tags of a task. The tombstone stays, for repeats and costs."""
        for clip in self.clips(caller, task_uuid):
            key = items.clip_key(caller, task_uuid, clip.index)
            self._retried(
                partial(self._client.update_item, TableName=self._table, Key=key, UpdateExpression="REMOVE tags")
            )
        with suppress(ClientError):  # the failed condition: the request has expired
            self._retried(
                lambda: self._client.update_item(
                    TableName=self._table,
                    Key={"pk": {"S": items.task_pk(caller, task_uuid)}, "sk": {"S": "request"}},
                    UpdateExpression="SET #request = :nothing REMOVE webhookURL",
                    ConditionExpression="attribute_exists(pk)",
                    ExpressionAttributeNames={"#request": "request"},
                    ExpressionAttributeValues={":nothing": {"S": "{}"}},
                )
            )

    def _revoke(self, key: Item, now: int) -> Item:
        return {
            "Update": {
                "TableName": self._table,
                "Key": key,
                "UpdateExpression": "SET revokedAt = if_not_exists(revokedAt, :now)",
                "ExpressionAttributeValues": items.to_attributes({":now": now}),
            }
        }


def _change_of_caller(name: str, attribute: str, value: object) -> dict[str, Any]:
    """Sets an attribute of an existing caller; None removes it."""
    change: dict[str, Any] = {
        "Key": items.caller_key(name),
        "UpdateExpression": f"REMOVE {attribute}",
        "ConditionExpression": "attribute_exists(pk)",
    }
    if value is not None:
        change["UpdateExpression"] = f"SET {attribute} = :value"
        change["ExpressionAttributeValues"] = items.to_attributes({":value": value})
    return change


def _of_shard(shard: str) -> dict[str, Any]:
    return {
        "KeyConditionExpression": "dueShard = :shard",
        "ExpressionAttributeValues": items.to_attributes({":shard": shard}),
    }


def _add_item(snapshot: TableSnapshot, item: Item) -> None:
    """Adds an item to the snapshot, or its primary key to the unrecognized ones."""
    kind, _, name = item["pk"].partition("#")
    try:
        match kind, item["sk"]:
            case "task", "request":
                snapshot.tasks.append(items.read_task(item))
            case "task", _:
                _add_clip(snapshot, item)
            case "budget", _:
                month, (_, share) = item["sk"].partition("#")[0], items.read_share(item)
                snapshot.budgets[name, month] = snapshot.budgets.get((name, month), 0) + share.counted
            case "caller", "caller":
                snapshot.callers[name] = items.read_caller(name, item)
            case "caller" | "key", _:
                key = items.read_api_key(item)
                (snapshot.keys if kind == "key" else snapshot.listed)[key.key_hash] = (item["keyCaller"], key)
            case "delivery" | "signing" | "slots", _:
                pass  # has no part in a consistency check
            case _:
                raise ValueError(kind)
    except (KeyError, ValueError, TypeError, AttributeError, UnreadableClipError):
        snapshot.unrecognized_keys.append(f"{item['pk']} {item['sk']}")


def _add_clip(snapshot: TableSnapshot, item: Item) -> None:
    snapshot.clips.append(items.read_clip(item))
    if "fingerprint" in item:
        snapshot.tombstones.add((item["clipCaller"], item["taskUUID"]))

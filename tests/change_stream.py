"""A reader of the table's stream, on any server with DynamoDB's API: with several shards, and behind the table."""

import threading
import time
from collections.abc import Callable
from typing import Any

from rushes_local.event_sources import stream_event
from rushes_local.stack import Stack
from tests.conftest import PATIENCE, Json, client, whole_table

_PAUSE = 0.25  # seconds between two reads of a stream that is behind its table
Key = tuple[str, str]


class ChangeStream:
    """The records since this was created, as Lambda would deliver them, of the items that `wanted` selects by key."""

    def __init__(self, stack: Stack, wanted: Callable[[Key], bool]) -> None:
        self._stack, self._wanted = stack, wanted
        self._client = client(stack, "dynamodbstreams")
        self.arn = client(stack, "dynamodb").describe_table(TableName=stack.table_name)["Table"]["LatestStreamArn"]
        self._iterators = {shard: self._iterator(shard, "LATEST") for shard in self._shards()}
        self._images = self._items()

    def read(self) -> list[Json]:
        """The records since the last call. Waits until the stream has caught up with the table."""
        records: list[Json] = []
        items, end = self._items(), time.monotonic() + PATIENCE
        while True:
            new = self._read_shards()
            records += new
            for record in new:
                self._images[_key(record["dynamodb"]["Keys"])] = record["dynamodb"].get("NewImage")
            images = {key: image for key, image in self._images.items() if image is not None}
            if images == items:
                return records
            assert time.monotonic() < end, f"the stream's last images are {images}, and the table's items {items}"
            threading.Event().wait(_PAUSE)

    def _read_shards(self) -> list[Json]:
        for shard in self._shards():
            if shard not in self._iterators:
                self._iterators[shard] = self._iterator(shard, "TRIM_HORIZON")
        records: list[Json] = []
        for shard, iterator in self._iterators.items():
            if iterator is not None:
                answer = self._client.get_records(ShardIterator=iterator)
                self._iterators[shard] = answer.get("NextShardIterator")
                records += stream_event(answer["Records"], self.arn)["Records"]
        return [record for record in records if self._wanted(_key(record["dynamodb"]["Keys"]))]

    def _shards(self) -> list[str]:
        """The shards, each after its parent."""
        found: list[Any] = []
        last: Json = {}
        while True:
            described = self._client.describe_stream(StreamArn=self.arn, **last)["StreamDescription"]
            found += [shard["ShardId"] for shard in described["Shards"]]
            if "LastEvaluatedShardId" not in described:
                return found
            last = {"ExclusiveStartShardId": described["LastEvaluatedShardId"]}

    def _iterator(self, shard: str, kind: str) -> str | None:
        where = {"StreamArn": self.arn, "ShardId": shard, "ShardIteratorType": kind}
        iterator: str = self._client.get_shard_iterator(**where)["ShardIterator"]
        return iterator

    def _items(self) -> dict[Key, Json | None]:
        return {key: item for item in whole_table(self._stack) if self._wanted(key := _key(item))}


def _key(item: Json) -> Key:
    return item["pk"]["S"], item["sk"]["S"]

"""Corrections of moto: its differences from Kinesis and S3 that matter to the pipeline, and calls too slow for a busy stack.

Kinesis, as the service documents it:
- a closed shard keeps its records and takes no more, and its last GetRecords has no next iterator (moto moves the records to
  the children, so they would be read twice, and gives out iterators for ever);
- a GetRecords answer holds at most 10 MiB, and its cost depends on its size (moto reads the shard from its start,
  unbounded);
- the last hash key of a shard belongs to it (moto finds no shard for it).
S3: the cost of a listing depends on its size (moto sorts the whole bucket each time).
DynamoDB: an item is written as it is stored (moto walks the service model for every number in it, 20 ms an item).
"""

from bisect import bisect_left, bisect_right, insort
from hashlib import md5
from typing import Any, Final

from moto.core.serialize import BaseJSONSerializer
from moto.kinesis import models as kinesis
from moto.kinesis.exceptions import InvalidArgumentError
from moto.kinesis.utils import compose_shard_iterator, decompose_shard_iterator
from moto.s3 import models as s3
from moto.s3.utils import _VersionedKeyStore

READ_BYTES: Final = 10 * 1024 * 1024
"""Most bytes in one GetRecords answer. Source: Kinesis quotas."""


class ShardState(kinesis.Shard):
    """A shard whose sequence numbers run from 1 without a gap, so that a record is found by its number."""

    def get_records(self, last_sequence_id: str, limit: int | None) -> tuple[list[Any], int, int]:
        """At most `limit` records and 10 MiB behind a sequence number, the last one's number, milliseconds behind."""
        last, total_bytes = int(last_sequence_id), 0
        found: list[Any] = []
        while len(found) < (limit or 10_000) and (record := self.records.get(last + 1)) is not None:
            total_bytes += len(record.data) * 3 // 4
            if found and total_bytes > READ_BYTES:
                break
            found.append(record)
            last += 1
        following = self.records.get(last + 1)
        behind_s = self.records[len(self.records)].created_at - following.created_at if following else 0
        return found, last, max(1, int(behind_s * 1000)) if following else 0

    def get_max_sequence_number(self) -> int:
        """The last record's number; 0 if there is none."""
        return len(self.records)

    def get_min_sequence_number(self) -> int:
        """The first record's number; 0 if there is none."""
        return 1 if self.records else 0


class Stream(kinesis.Stream):
    """A stream whose closed shards stay as they were."""

    def get_shard_for_key(self, partition_key: str, explicit_hash_key: str) -> Any:
        """The open shard of a hash key."""
        key = int(explicit_hash_key) if explicit_hash_key else _md5_key(partition_key)
        if not 0 <= key < 2**128:
            raise InvalidArgumentError("explicit_hash_key")
        return next(s for s in self.shards.values() if s.is_open and s.starting_hash <= key <= s.ending_hash)

    def split_shard(self, shard_to_split: str, new_starting_hash_key: str) -> None:
        """Close a shard and open two children that share its range."""
        shard, middle = self.get_shard(shard_to_split), int(new_starting_hash_key)
        if not shard.is_open or not shard.starting_hash < middle < shard.ending_hash:
            raise InvalidArgumentError(f"{shard_to_split} cannot be split at {new_starting_hash_key}")
        shard.is_open = False
        self._open(shard.starting_hash, middle - 1, shard_to_split, None)
        self._open(middle, shard.ending_hash, shard_to_split, None)

    def merge_shards(self, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
        """Close two neighbours and open one child over both ranges."""
        one, other = self.get_shard(shard_to_merge), self.get_shard(adjacent_shard_to_merge)
        low, high = sorted((one, other), key=lambda shard: shard.starting_hash)
        if not (one.is_open and other.is_open and low.ending_hash + 1 == high.starting_hash):
            raise InvalidArgumentError(f"{shard_to_merge} and {adjacent_shard_to_merge} cannot be merged")
        one.is_open = other.is_open = False
        self._open(low.starting_hash, high.ending_hash, shard_to_merge, adjacent_shard_to_merge)

    def _open(self, first_key: int, last_key: int, parent: str, adjacent: str | None) -> None:
        number = max(shard._shard_id for shard in self.shards.values()) + 1
        child = ShardState(number, first_key, last_key, parent, adjacent)
        self.shards[child.shard_id] = child


_set_item: Any = _VersionedKeyStore.__setitem__
_set_list: Any = _VersionedKeyStore.setlist
_pop: Any = _VersionedKeyStore.pop
_serialize_other: Any = BaseJSONSerializer._serialize_type_structure
_list_with_delimiter: Any = s3.S3Backend.list_objects_v2


def _names_of(store: Any) -> list[str]:
    """The sorted keys of a bucket, kept beside moto's dict of them."""
    if "names" not in store.__dict__:
        store.names = sorted(store)
    names: list[str] = store.names
    return names


def _note(store: Any, key: str) -> None:
    names = _names_of(store)
    if key not in store:
        insort(names, key)


def _set_key(store: Any, key: str, value: Any) -> None:
    _note(store, key)
    _set_item(store, key, value)


def _set_versions(store: Any, key: str, versions: Any) -> None:
    _note(store, key)
    _set_list(store, key, versions)


def _pop_key(store: Any, key: str) -> None:
    names = _names_of(store)
    at = bisect_left(names, key)
    if at < len(names) and names[at] == key:
        del names[at]
    _pop(store, key)


def _list_objects_v2(self: Any, bucket: Any, prefix: str | None, delimiter: str | None, **page: Any) -> Any:
    """One page of keys, found by bisection; a listing by folders stays moto's."""
    if delimiter:
        return _list_with_delimiter(self, bucket, prefix, delimiter, **page)
    names, prefix, max_keys = _names_of(bucket.keys), prefix or "", page["max_keys"]
    token = page["continuation_token"]
    after = self._pagination_tokens.get(token) if token else page["start_after"]
    at = max(bisect_left(names, prefix), bisect_right(names, after or ""))
    found: list[Any] = []
    while at < len(names) and names[at].startswith(prefix) and len(found) <= max_keys:
        key = bucket.keys[names[at]]
        if not isinstance(key, s3.FakeDeleteMarker):
            found.append(key)
        at += 1
    return self._truncate_result(found, max_keys)


def _get_records(self: Any, stream_arn: str | None, shard_iterator: str, limit: int | None) -> Any:
    """The next records; no next iterator if the shard is closed and read to its end."""
    stream_name, shard_id, last_sequence_id = decompose_shard_iterator(shard_iterator)
    shard = self.describe_stream(stream_arn=stream_arn, stream_name=stream_name).get_shard(shard_id)
    records, last, behind_ms = shard.get_records(last_sequence_id, limit)
    at_end = not shard.is_open and last == shard.get_max_sequence_number()
    return None if at_end else compose_shard_iterator(stream_name, shard, last), records, behind_ms


def _serialize_structure(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    """An answer's structure; a DynamoDB attribute is in wire format already."""
    if shape.name == "AttributeValue" and key:
        self._default_serialize(serialized, _wire(value), shape, key)
    else:
        _serialize_other(self, serialized, value, shape, key)


def _wire(value: Any) -> dict[str, Any]:
    """The wire format of an attribute, which moto holds as a DynamoType or as a dict of them."""
    kind, inner = next(iter(value.items())) if isinstance(value, dict) else (value.type, value.value)
    if kind == "L":
        return {"L": [_wire(element) for element in inner]}
    if kind == "M":
        return {"M": {name: _wire(element) for name, element in inner.items()}}
    if kind in {"B", "BS"}:
        raise NotImplementedError("the stand-in keeps no binary attributes")
    return {kind: inner}


def bucket_names() -> list[str]:
    """All buckets."""
    accounts = list(s3.s3_backends.values())
    return sorted(name for regions in accounts for backend in list(regions.values()) for name in list(backend.buckets))


def install() -> None:
    """Install the corrections in this process."""
    backend: Any = kinesis.KinesisBackend
    backend.get_records = _get_records
    backend._send_stream_metrics = lambda *_, **__: None  # CloudWatch's metrics would grow for ever, and they are never read
    models: Any = kinesis
    models.Shard, models.Stream = ShardState, Stream
    keys: Any = _VersionedKeyStore
    keys.__setitem__, keys.setlist, keys.pop = _set_key, _set_versions, _pop_key
    storage: Any = s3.S3Backend
    storage.list_objects_v2 = _list_objects_v2
    serializer: Any = BaseJSONSerializer
    serializer._serialize_type_structure = _serialize_structure


def _md5_key(partition_key: str) -> int:
    return int(md5(partition_key.encode(), usedforsecurity=False).hexdigest(), 16)

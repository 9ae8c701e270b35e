"""One S3 bucket in memory."""

from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Sequence

from app.adapters.ports import ObjectInfo, PutResult
from app.clock import Clock, SystemClock
from app.errors import ObjectMissing
from app.testing.memory.hooks import Hooked


class MemoryObjectStore(Hooked):
    """A bucket whose objects are bytes in a dict; keys sort by their UTF-8 bytes, as in S3."""

    def __init__(self, clock: Clock | None = None, bucket: str = "memory") -> None:
        self._clock = clock or SystemClock()
        self._bucket = bucket
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._sorted: list[str] = []
        self.skew_ms: int | None = 0
        """The answer of `clock_skew_ms`; a test may set it."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def clock_skew_ms(self) -> int | None:
        """Zero, or a test's value."""
        return self.skew_ms

    async def put(self, key: str, body: bytes) -> None:
        """Store `body`, replacing what is there."""
        await self._enter("put", key)
        self._store(key, body)
        await self._leave("put", key)

    async def put_if_absent(self, key: str, body: bytes) -> PutResult:
        """Store `body` unless the key exists."""
        await self._enter("put_if_absent", key)
        found = key in self._objects
        if not found:
            self._store(key, body)
        await self._leave("put_if_absent", key)
        return PutResult.EXISTS if found else PutResult.CREATED

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        await self._enter("get", key)
        if key not in self._objects:
            raise ObjectMissing(f"get {key}")
        body = self._objects[key][0]
        await self._leave("get", key)
        return body

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Some of the object's bytes."""
        await self._enter("get_range", key)
        if key not in self._objects:
            raise ObjectMissing(f"get {key}")
        part = self._objects[key][0][start : start + max(0, length)]
        await self._leave("get_range", key)
        return part

    async def head(self, key: str) -> ObjectInfo | None:
        """The object's size and age, or None where there is none."""
        await self._enter("head", key)
        info = self._info(key) if key in self._objects else None
        await self._leave("head", key)
        return info

    async def copy(self, source: str, target: str) -> None:
        """Copy inside the bucket, replacing the target."""
        await self._enter("copy", source)
        if source not in self._objects:
            raise ObjectMissing(f"copy {source}")
        self._store(target, self._objects[source][0])
        await self._leave("copy", source)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects; a key that does not exist is no error."""
        await self._enter("delete", keys[0] if keys else "")
        for key in keys:
            if self._objects.pop(key, None) is not None:
                self._sorted.remove(key)
        await self._leave("delete", keys[0] if keys else "")

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts behind `start_after`, in key order."""
        await self._enter("list", prefix)
        last = max(start_after, prefix[:-1])
        given = 0
        while limit is None or given < limit:
            at = bisect_right(self._sorted, last)
            while at < len(self._sorted) and self._sorted[at] < prefix:
                at += 1
            if at == len(self._sorted) or not self._sorted[at].startswith(prefix):
                break
            last = self._sorted[at]
            given += 1
            yield self._info(last)
        await self._leave("list", prefix)

    def _store(self, key: str, body: bytes) -> None:
        if key not in self._objects:
            insort(self._sorted, key)
        self._objects[key] = (bytes(body), self._clock.now_ms())

    def _info(self, key: str) -> ObjectInfo:
        body, stored_ms = self._objects[key]
        return ObjectInfo(key, len(body), stored_ms)

"""A tombstone: the stored line in the place of one that was erased (rule R7).

It has the form of a malformed line, so every reader and every version can read it. It keeps the line's number, because the
file has as many lines as before; its time of receipt, because a block's time follows from its lines'; and its partition: its
payload is a number whose crc32 lies where the line's key lay. It says nothing of the event.
"""

from functools import lru_cache
from itertools import count
from typing import Final

import msgspec

from app.core.formats.batch import partition_of

REASON: Final = "erased"
"""The reason of a tombstone; every other malformed line has a reason `field: rule`."""


def tombstone(partition: int, partitions: int, received_at_ms: int) -> bytes:
    """The tombstone of a line.

    Args:
        partition: the partition of the line's block.
        partitions: the number of partitions of its epoch.
        received_at_ms: the line's.
    """
    return msgspec.json.encode({
        "malformed": REASON, "payload": _payload(partition, partitions), "received_at": received_at_ms,
    })  # fmt: skip


@lru_cache(maxsize=4096)
def _payload(partition: int, partitions: int) -> str:
    return next(str(n) for n in count() if partition_of(str(n).encode(), partitions) == partition)

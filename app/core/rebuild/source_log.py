"""The order in which blocks out of raw files go through the core again, and the stream time between them.

The blocks of a partition go in the order of their receipt. Stream time before a block is the receipt of the earliest block
that is still to come. So no block is late, and each first event meets every second event that was received in its window.

One decision depends on more than the times of receipt: of two lines with one event id, the first in the log counts, and the
log's order of two blocks that were received at almost the same time is chance. The ledger knows which line was dropped. So a
block with a duplicate waits until the block with the line that counted has gone. Blocks that are sent by this rule keep
stream time from passing them, so they are not late either. `order_blocks` needs no more than that: the log was one order of
whole blocks, so these rules cannot contradict each other, unless an id was forgotten and counted twice.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from app.core.formats.block import WatermarkMessage, encode_control
from app.core.formats.source import SourceMessage

SHARD: Final = "rebuild"
"""The only shard of a rebuild's watermark messages."""
AT_ANY_TIME_MS: Final = 2**62
"""The append time of a rebuild's messages: it holds no watermark back."""


class StoredBlock(NamedTuple):
    """A block out of a raw file; blocks sort by their receipt."""

    received_at_ms: int
    batch_id: str
    block: int


class Copies(NamedTuple):
    """The lines of a partition that the ledger calls duplicates."""

    before: Mapping[int, Collection[int]]
    """Position of a block with duplicates -> positions of the blocks with the lines that counted."""
    unmet: frozenset[str]
    """Event ids whose line that counted is in none of the blocks: it came before them."""


def order_blocks(blocks: Sequence[StoredBlock], before: Mapping[int, Collection[int]]) -> list[int]:
    """The positions of `blocks` in the order in which they go.

    Args:
        blocks: in any order.
        before: position of a block -> the blocks that go before it.

    Returns: the order of receipt, in which blocks wait for those before them; if blocks wait for each other, the earliest
        of them goes first.
    """
    followers: dict[int, list[int]] = {}
    waits = {block: len(set(others) - {block}) for block, others in before.items()}
    for block, others in before.items():
        for other in set(others) - {block}:
            followers.setdefault(other, []).append(block)
    free = [(place, n) for n, place in enumerate(blocks) if not waits.get(n)]
    held = sorted(((blocks[n], n) for n, count in waits.items() if count), reverse=True)
    heapify(free)
    order: list[int] = []
    gone = [False] * len(blocks)
    while len(order) < len(blocks):
        if not free:  # the blocks that are left wait for each other
            heappush(free, held.pop())
        _, n = heappop(free)
        if gone[n]:
            continue
        gone[n] = True
        order.append(n)
        for follower in followers.get(n, ()):
            waits[follower] -= 1
            if not waits[follower] and not gone[follower]:
                heappush(free, (blocks[follower], follower))
    return order


def stream_times_ms(received_ms: Sequence[int]) -> list[int]:
    """Stream time before each block: the earliest receipt among it and the blocks behind it."""
    return list(accumulate(reversed(received_ms), min))[::-1]


def messages_of(blocks: Iterable[tuple[int, bytes]], end_ms: int) -> Iterator[SourceMessage]:
    """The log of a partition: before each block its stream time, if that has moved, and `end_ms` behind the last one.

    Args:
        blocks: (stream time before it in ms, envelope), in order.
        end_ms: every event is closed at this time.
    """
    offset, now_ms = 0, -1
    for moment_ms, envelope in blocks:
        if moment_ms > now_ms:
            now_ms = moment_ms
            yield SourceMessage(offset, AT_ANY_TIME_MS, _time(now_ms))
            offset += 1
        yield SourceMessage(offset, AT_ANY_TIME_MS, envelope)
        offset += 1
    yield SourceMessage(offset, AT_ANY_TIME_MS, _time(max(end_ms, now_ms)))


def _time(moment_ms: int) -> bytes:
    return encode_control(WatermarkMessage({SHARD: moment_ms}, {SHARD: []}))


class _Named(msgspec.Struct):
    event_id: str | None = None
    malformed: str | None = None


_named: Final = msgspec.json.Decoder(_Named)


def event_ids(text: bytes) -> list[str | None]:
    """The event id of each line of a block's NDJSON; None for a line that state does not remember."""
    found: list[str | None] = []
    for line in text.split(b"\n")[:-1]:
        try:
            named = _named.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found.append(None)
        else:
            found.append(named.event_id if named.malformed is None else None)
    return found


def copies_of(dropped: Mapping[str, Collection[int]], counted: Mapping[str, int]) -> Copies:
    """The order that duplicates ask for.

    Args:
        dropped: event id -> positions of the blocks with lines that the ledger calls duplicates of it.
        counted: event id -> position of the block with the line that counted.
    """
    before: dict[int, set[int]] = {}
    for event_id, blocks in dropped.items():
        if (kept := counted.get(event_id)) is not None:
            for block in blocks:
                if block != kept:
                    before.setdefault(block, set()).add(kept)
    return Copies(before, frozenset(dropped.keys() - counted.keys()))

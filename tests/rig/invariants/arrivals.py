"""The real time of receipt of each event, and the events that came so late to Kinesis that the join may have missed them.

A client knows only an interval of its request's receipt. The raw files have the exact time, and Kinesis has the time of each
block: if a block comes later than the slack after its receipt, its page view may be decided already (rule J3).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import zstandard
from pyroaring import BitMap

from app.adapters.ports import BlockStream
from app.core.audit.reconcile import LedgerLines, read_lines
from app.core.formats.block import decode_header
from app.core.formats.flows import DUPLICATE
from app.core.formats.registry_item import RegistryItem
from app.errors import EnvelopeInvalid
from app.local.traffic.expect import ExpectedArrival

READ_LIMIT: Final = 1000
CLOCK_MS: Final = 2
"""Rounding of two readings of one clock."""
Reached = dict[tuple[str, int], int]
"""(batch, block number) -> the time when the first copy of the block reached Kinesis, ms."""


class Seen(NamedTuple):
    """The stream's times of blocks."""

    reached: Reached
    slack_ms: int
    """A block that reaches Kinesis within this time after its receipt is not late."""


class _Line(msgspec.Struct):
    received_at: int
    event_id: Any = None


_line: Final = msgspec.json.Decoder(_Line)


async def read_stream(stream: BlockStream) -> Reached:
    """The time when each block first reached Kinesis, from every record that the stream still has.

    Raises:
        ServiceUnavailable: Kinesis does not answer.
    """
    reached: Reached = {}
    for shard in await stream.shards():
        following: str | None = await stream.iterator(shard.shard_id, None)
        while following is not None:
            page = await stream.records(following, READ_LIMIT)
            for record in page.records:
                try:
                    header = decode_header(record.data)
                except EnvelopeInvalid:  # a foreign record
                    continue
                key = (header.batch_id, header.block)
                reached[key] = min(reached.get(key, record.arrival_ms), record.arrival_ms)
            following = page.next_iterator if page.records or page.behind_ms else None
    return reached


def arrivals(
    items: Iterable[RegistryItem], raw: Mapping[str, bytes], entries: Mapping[str, Sequence[LedgerLines]], seen: Seen
) -> dict[str, ExpectedArrival]:
    """Event id -> the time of receipt of the copy that counts, and whether it came to Kinesis later than the slack.

    The order on the partition decides which copy counts, and the ledger shows it: the copy that is no duplicate. An event
    without such a copy is left out.

    Args:
        items: every registered batch.
        raw: key -> content of the raw files; unreadable files are left out (I3 reports them).
        entries: batch -> its ledger.
        seen: the stream's times.
    """
    found: dict[str, ExpectedArrival] = {}
    for item in items:
        body = raw.get(item.raw_key, b"")
        duplicates = _duplicates(entries.get(item.batch_id, ()))
        for number, place in enumerate(item.blocks):
            frame = body[place.byte_start : place.byte_start + place.byte_len]
            at_ms = seen.reached.get((item.batch_id, number))
            for line_number, line in enumerate(_lines(frame), place.first_line):
                if not isinstance(line.event_id, str) or line_number in duplicates:
                    continue
                is_late = at_ms is None or at_ms > line.received_at + seen.slack_ms - CLOCK_MS
                known = found.get(line.event_id) or ExpectedArrival(line.received_at, line.received_at, is_late)
                found[line.event_id] = ExpectedArrival(
                    min(known.first_ms, line.received_at), max(known.last_ms, line.received_at), known.is_late or is_late
                )
    return found


def _duplicates(entries: Iterable[LedgerLines]) -> BitMap:
    """The lines that the ledger calls duplicates."""
    found = BitMap()
    for entry in entries:
        if entry.outcome == DUPLICATE:
            found |= read_lines(entry.line_set) or BitMap()
    return found


def _lines(frame: bytes) -> list[_Line]:
    try:
        return _line.decode_lines(zstandard.ZstdDecompressor().decompressobj().decompress(frame))
    except (zstandard.ZstdError, msgspec.DecodeError):
        return []

"""A batch: its id, its lines grouped into blocks, and the raw file that is their concatenation.

Lines are grouped by partition, in order of arrival inside each; a line's number is its place after that grouping. A block
is a contiguous range of lines of one partition, compressed into one zstd frame of NDJSON with LF after every line; the raw
file is the frames one after the other, itself a valid .zst file. `cut_again` makes the same blocks from the raw file.

Versions (rule E10): the registry item says how to cut the raw file, and it names the version of both. The reader of a line
judges its content (`app.core.etl.decode`); here only its received_at is read.
"""

import hashlib
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import zstandard

from app.core.formats.block import MAX_FRAME_BYTES, MAX_RAW_BYTES, BlockHeader, encode_block, open_frame
from app.core.formats.decoding import Moment, reading
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.core.formats.stored_line import StoredLine
from app.errors import FormatInvalid, FrameInvalid

MAX_BATCH_LINES: Final = 65_536
ZSTD_LEVEL: Final = 3
ID_RANDOM_BYTES: Final = 10
_ID_TIME_BITS: Final = 48
_RANDOM_A: Final = 0xFFF
_RANDOM_B: Final = (1 << 62) - 1


def new_batch_id(now_ms: int, random: bytes, previous: str = "") -> str:
    """A UUIDv7 (RFC 9562): 48 bits of time, then 74 random bits.

    Args:
        now_ms: ms since the epoch.
        random: at least 10 random bytes.
        previous: the id made before; if it has the same millisecond, the new id is greater.

    Guarantees: ids of one maker sort by time, and within a millisecond in the order of their making.
    """
    bits = int.from_bytes(random[:ID_RANDOM_BYTES])
    high, low = (bits >> 62) & _RANDOM_A, bits & _RANDOM_B
    made = _uuid7(now_ms, high, low)
    if previous and batch_time_ms(previous) == now_ms and made <= previous:
        last = uuid.UUID(previous).int
        following = (((last >> 64) & _RANDOM_A) << 62 | (last & _RANDOM_B)) + 1
        made = _uuid7(now_ms + (following >> 74), (following >> 62) & _RANDOM_A, following & _RANDOM_B)
    return made


def _uuid7(now_ms: int, high: int, low: int) -> str:
    value = (now_ms & ((1 << _ID_TIME_BITS) - 1)) << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    return str(uuid.UUID(int=value))


def first_id(time_ms: int) -> str:
    """The least text that a batch id of this time can be: ids of earlier times sort before it."""
    return str(uuid.UUID(int=time_ms << 80))


def batch_time_ms(batch_id: str) -> int:
    """The time in a batch's id, ms since the epoch."""
    return uuid.UUID(batch_id).int >> 80


def partition_of(key: bytes, partitions: int) -> int:
    """The partition where lines of this key meet: crc32 of the key, modulo."""
    return zlib.crc32(key) % partitions


class SealedBatch(NamedTuple):
    """A closed batch: nothing can be added."""

    batch_id: str
    raw: bytes
    """The raw file: every block's zstd frame, one after the other."""
    item: RegistryItem
    blocks: list[bytes]
    """Every block's envelope, attempt 0; `item.blocks` has the place of its frame."""


def seal(batch_id: str, epoch: int, partitions: int, lines: Sequence[StoredLine]) -> SealedBatch:
    """Group, cut and compress `lines` into the batch that is stored.

    Raises:
        ValueError: no line, more than `MAX_BATCH_LINES`, or a line too long for any block.

    Guarantees: each line is in exactly one block; the same arguments give the same bytes.
    """
    if not 0 < len(lines) <= MAX_BATCH_LINES:
        raise ValueError(f"a batch has 1 to {MAX_BATCH_LINES} lines, not {len(lines)}")
    groups: dict[int, list[StoredLine]] = {}
    for line in lines:
        groups.setdefault(partition_of(line.key, partitions), []).append(line)
    frames: list[bytes] = []
    places: list[BlockPlace] = []
    times: list[int] = []
    first_line = byte_start = 0
    for partition in sorted(groups):
        for part, frame in _cut(groups[partition]):
            frames.append(frame)
            times.append(min(line.received_at_ms for line in part))
            places.append(BlockPlace(partition, first_line, len(part), byte_start, len(frame)))
            first_line += len(part)
            byte_start += len(frame)
    raw = b"".join(frames)
    item = RegistryItem(
        batch_id=batch_id,
        epoch=epoch,
        line_count=len(lines),
        byte_count=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        raw_key=raw_key(batch_id, batch_time_ms(batch_id)),
        blocks=places,
        received_at_ms=min(times),
    )
    blocks = [
        encode_block(_header(item, number, 0, received_at_ms), frame)
        for number, (received_at_ms, frame) in enumerate(zip(times, frames, strict=True))
    ]
    return SealedBatch(batch_id, raw, item, blocks)


def _header(item: RegistryItem, number: int, attempt: int, received_at_ms: int) -> BlockHeader:
    place = item.blocks[number]
    return BlockHeader(
        epoch=item.epoch,
        batch_id=item.batch_id,
        block=number,
        blocks_in_batch=len(item.blocks),
        first_line=place.first_line,
        lines=place.lines,
        partition=place.partition,
        attempt=attempt,
        received_at_ms=received_at_ms,
    )


def _cut(lines: list[StoredLine]) -> Iterator[tuple[list[StoredLine], bytes]]:
    """Contiguous parts of `lines`, each with a frame within both limits."""
    part: list[StoredLine] = []
    size = 0
    for line in lines:
        added = len(line.data) + 1
        if part and size + added > MAX_RAW_BYTES:
            yield from _compress(part)
            part, size = [], 0
        part.append(line)
        size += added
    yield from _compress(part)


def _compress(part: list[StoredLine]) -> Iterator[tuple[list[StoredLine], bytes]]:
    """`part` as one frame, or as two halves if one frame would be too long."""
    text = b"".join(piece for line in part for piece in (line.data, b"\n"))
    frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(text)
    if len(frame) <= MAX_FRAME_BYTES and len(text) <= MAX_RAW_BYTES:
        yield part, frame
    elif len(part) == 1:
        raise ValueError(f"a line of {len(text)} bytes fits no block")
    else:
        yield from _compress(part[: len(part) // 2])
        yield from _compress(part[len(part) // 2 :])


class _Received(msgspec.Struct):
    received_at: Moment


_received: Final = msgspec.json.Decoder(_Received)


def cut_again(raw: bytes, item: RegistryItem, attempt: int) -> list[bytes]:
    """The batch's blocks from its raw file, as the audit puts them to Kinesis again (rule A1).

    Args:
        raw: the raw file of `item`.
        item: the batch in the registry.
        attempt: the number in every envelope; 0 gives the collector's own bytes.

    Raises:
        FormatInvalid: the file is not the registered one, or the registered ranges do not cover it.
        FrameInvalid: a range does not hold the frame or the lines that the registry says.
    """
    if len(raw) != item.byte_count or hashlib.sha256(raw).hexdigest() != item.sha256:
        raise FormatInvalid(f"{item.raw_key} is not the file that was registered: {len(raw)} bytes")
    blocks: list[bytes] = []
    next_line = next_byte = 0
    for number, place in enumerate(item.blocks):
        if (place.first_line, place.byte_start) != (next_line, next_byte):
            raise FormatInvalid(f"{item.batch_id} block {number} does not follow the one before it")
        next_line += place.lines
        next_byte += place.byte_len
        frame = raw[place.byte_start : next_byte]
        with reading(f"{item.batch_id} block {number} of the registry"):
            blocks.append(encode_block(_header(item, number, attempt, _earliest(frame, place.lines)), frame))
    if (next_line, next_byte) != (item.line_count, item.byte_count):
        raise FormatInvalid(f"{item.batch_id}: blocks cover {next_line} lines and {next_byte} bytes, not the whole file")
    return blocks


def _earliest(frame: bytes, lines: int) -> int:
    """The earliest received_at of a frame's stored lines."""
    text = open_frame(frame)
    if text.count(b"\n") != lines or not text.endswith(b"\n"):
        raise FrameInvalid(f"frame does not hold {lines} lines")
    with reading("frame with a line without received_at", FrameInvalid):
        return min(received.received_at for received in _received.decode_lines(text))

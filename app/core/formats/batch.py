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
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import zstandard

from app.core.formats.block import MAX_FRAME_BYTES, MAX_RAW_BYTES, BlockHeader, encode_block, open_frame
from app.core.formats.decoding import Moment, reading
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.core.formats.stored_line import Counts, LinePacker, PackedLines, StoredLine
from app.errors import FormatInvalid, FrameInvalid

MAX_BATCH_LINES: Final = 65_536
ZSTD_LEVEL: Final = 1
"""On varied events its frames are no longer than those of level 3, for two thirds of the CPU."""
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


Group: TypeAlias = Callable[[Sequence[PackedLines], Counts, Counts], memoryview]
"""Requests, int64[lines] with the partition of each line, int64[partitions] with the place of each partition's first byte ->
the lines in the order of their partitions, and as they came inside each."""


def group_plainly(requests: Sequence[PackedLines], partitions: Counts, places: Counts) -> memoryview:
    """A `Group` in plain Python."""
    groups: list[list[bytearray]] = [[] for _ in places]
    belongs = iter(partitions.tolist())
    for request in requests:
        at = 0
        for size in request.sizes.tolist():
            groups[next(belongs)].append(request.text[at : at + size])
            at += size
    return memoryview(b"".join(line for group in groups for line in group))


def seal(batch_id: str, epoch: int, partitions: int, lines: Sequence[StoredLine]) -> SealedBatch:
    """Group, cut and compress `lines` into the batch that is stored.

    Raises:
        ValueError: as `seal_packed`.

    Guarantees: as `seal_packed`.
    """
    requests: list[PackedLines] = []
    for received_at_ms, run in groupby(lines, key=attrgetter("received_at_ms")):
        packer = LinePacker()
        for line in run:
            packer.add(line)
        requests.append(packer.pack(received_at_ms))
    return seal_packed(batch_id, epoch, partitions, requests)


def seal_packed(
    batch_id: str, epoch: int, partitions: int, requests: Sequence[PackedLines], group: Group = group_plainly
) -> SealedBatch:
    """Group, cut and compress the lines of `requests` into the batch that is stored.

    Raises:
        ValueError: no line, more than `MAX_BATCH_LINES`, or a line too long for any block.

    Guarantees: each line is in exactly one block; the same arguments give the same bytes, whatever `group` is.
    """
    counts = [request.line_count for request in requests]
    if not 0 < sum(counts) <= MAX_BATCH_LINES:
        raise ValueError(f"a batch has 1 to {MAX_BATCH_LINES} lines, not {sum(counts)}")
    belongs = np.concatenate([request.crcs for request in requests]) % partitions
    sizes = np.concatenate([request.sizes for request in requests])
    received = np.repeat([request.received_at_ms for request in requests], counts)
    order = np.argsort(belongs, kind="stable")
    received = received[order]
    ends = np.cumsum(np.bincount(belongs, sizes, partitions).astype(np.int64))
    text = group(requests, belongs, np.concatenate([[0], ends[:-1]]))
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
    frames: list[bytes] = []
    places: list[BlockPlace] = []
    times: list[int] = []
    first_line = byte_start = text_start = 0
    lines_of = np.bincount(belongs, minlength=partitions)
    for partition in np.flatnonzero(lines_of).tolist():
        behind = first_line + int(lines_of[partition])
        own = sizes[order[first_line:behind]]
        for lines, frame in _cut(text[text_start : int(ends[partition])], own, compressor):
            frames.append(frame)
            times.append(int(received[first_line : first_line + lines].min()))
            places.append(BlockPlace(partition, first_line, lines, byte_start, len(frame)))
            first_line += lines
            byte_start += len(frame)
        text_start = int(ends[partition])
    raw = b"".join(frames)
    item = RegistryItem(
        batch_id=batch_id,
        epoch=epoch,
        line_count=sum(counts),
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


def _cut(text: memoryview, sizes: Counts, compressor: zstandard.ZstdCompressor) -> Iterator[tuple[int, bytes]]:
    """Contiguous parts of the lines in `text`: their number, and a frame within both limits."""
    ends = np.cumsum(sizes)
    first = start = 0
    while first < len(sizes):
        behind = max(first + 1, int(np.searchsorted(ends, start + MAX_RAW_BYTES, "right")))
        end = int(ends[behind - 1])
        yield from _compress(text[start:end], sizes[first:behind], compressor)
        first, start = behind, end


def _compress(text: memoryview, sizes: Counts, compressor: zstandard.ZstdCompressor) -> Iterator[tuple[int, bytes]]:
    """The lines of `text` as one frame, or as two halves if one frame would be too long."""
    frame = compressor.compress(text)
    if len(frame) <= MAX_FRAME_BYTES and len(text) <= MAX_RAW_BYTES:
        yield len(sizes), frame
    elif len(sizes) == 1:
        raise ValueError(f"a line of {len(text)} bytes fits no block")
    else:
        half = len(sizes) // 2
        end = int(sizes[:half].sum())
        yield from _compress(text[:end], sizes[:half], compressor)
        yield from _compress(text[end:], sizes[half:], compressor)


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

"""The messages on topic `blocks` and in Kinesis: block envelopes, and the control messages that carry time.

A block is the lines of one batch that belong to one partition: one Kinesis record, one Kafka message, one atomic unit.
Its envelope is the same bytes in both; the bridge copies it and reads only the header.

    byte    0        1      5        21     25              29          33     37         41       45           53
            version  epoch  batch_id block  blocks in batch first_line  lines  partition  attempt  received_at  zstd frame

Integers are big-endian and unsigned; batch_id is the UUID's 16 bytes; received_at is in ms since the epoch. A control
message has the version byte `CONTROL_VERSION` and a msgpack body.

A Kinesis record that is no block travels on as a refused record: a zero byte, its place and the reason as JSON, LF, and the
record. The ETL sets it aside as a dead letter (rule E8).

Versions (rule E10): a block's is its first byte, below 128. A later version keeps these 53 bytes as they are, and adds new
ones behind them, so that a reader can tell a newer block from a foreign message: a message is a newer block if all fields
but the version are those of a batch, with a UUIDv7. A control message's first byte is 128 + its version, and its body keeps
beginning with a tag. A field that a reader does not know makes the message a newer one, because half of a message must not
move stream time.
"""

import struct
import uuid
import zlib
from typing import Final

import msgspec
import zstandard

from app.core.formats.decoding import LATEST_MS, NO_MESSAGE, read, read_tagged, refuse_newer, tag_of
from app.errors import EnvelopeInvalid, FormatInvalid, FrameInvalid

BLOCK_VERSION: Final = 1
_CONTROL: Final = 128
"""Added to the version of a control message."""
CONTROL_VERSION: Final = _CONTROL + 1
MAX_FRAME_BYTES: Final = 512 * 1024
MAX_RAW_BYTES: Final = 1024 * 1024
_HEADER: Final = struct.Struct(">BI16sIIIIIIQ")
HEADER_BYTES: Final = _HEADER.size
_MOST_LINES: Final = 2**31
_UUID_VERSION: Final = 7
_UUID_VARIANT: Final = 0b10
_UNSTATED: Final = 2**64 - 1  # zstandard's value for a frame that does not state its size
_MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024  # as every zstd decoder must support (RFC 8878, 3.1.1.1.2)


class BlockHeader(msgspec.Struct, frozen=True):
    """The header of a block, before its lines."""

    epoch: int
    batch_id: str
    block: int
    """0-based number of the block in its batch."""
    blocks_in_batch: int
    first_line: int
    """0-based position in the batch of the block's first line."""
    lines: int
    partition: int
    attempt: int
    """0 for the collector's own put and its retries, n for the audit's n-th replay."""
    received_at_ms: int
    """The earliest received_at of the block's events."""

    @property
    def key(self) -> bytes:
        """20 bytes that name the block in state: the batch's UUID, then the block number."""
        return uuid.UUID(self.batch_id).bytes + struct.pack(">I", self.block)


def encode_block(header: BlockHeader, frame: bytes) -> bytes:
    """The envelope of `frame` (one zstd frame of NDJSON, `header.lines` lines)."""
    h = header
    packed = _HEADER.pack(
        BLOCK_VERSION, h.epoch, uuid.UUID(h.batch_id).bytes, h.block, h.blocks_in_batch,
        h.first_line, h.lines, h.partition, h.attempt, h.received_at_ms,
    )  # fmt: skip
    return packed + frame


def decode_header(message: bytes | None) -> BlockHeader:
    """The header of a block's envelope.

    Raises:
        EnvelopeInvalid: `message` is missing or too short, has no block's first bytes, or has fields that no batch can have.
        NewerFormat: it is a block of a newer version.
    """
    if message is None:
        raise EnvelopeInvalid(NO_MESSAGE)
    if len(message) < HEADER_BYTES or not _begins_block(message):
        raise EnvelopeInvalid(f"not a version {BLOCK_VERSION} block: {len(message)} bytes, starts {message[:4].hex()}")
    version, epoch, batch, block, blocks, first, lines, partition, attempt, received = _HEADER.unpack_from(message)
    if not lines or first + lines > _MOST_LINES or block >= blocks or received > LATEST_MS:
        raise EnvelopeInvalid(
            f"no batch has block {block} of {blocks} with lines {first} to {first + lines - 1}, received at {received}"
        )
    refuse_newer("block", version, BLOCK_VERSION)
    return BlockHeader(epoch, str(uuid.UUID(bytes=batch)), block, blocks, first, lines, partition, attempt, received)


def _begins_block(message: bytes) -> bool:
    """Whether a message of a header's length may be a block of this version or of a newer one."""
    version = message[0]
    if version > BLOCK_VERSION:
        return version < _CONTROL and message[11] >> 4 == _UUID_VERSION and message[13] >> 6 == _UUID_VARIANT
    return version > 0


class RefusedRecord(msgspec.Struct, frozen=True):
    """The place of a Kinesis record that is no block, and the reason."""

    shard: str
    sequence: str
    reason: str


_REFUSED: Final = b"\x00"
_MAX_PLACE_BYTES: Final = 4096
_refused_decoder: Final = msgspec.json.Decoder(RefusedRecord)


def encode_refused(refused: RefusedRecord, record: bytes) -> bytes:
    """A Kinesis record that is no block, as a message on `blocks`. No reader takes it for a block or a control message."""
    return _REFUSED + msgspec.json.encode(refused) + b"\n" + record


def decode_refused(message: bytes) -> RefusedRecord | None:
    """The place and the reason in a refused record; None for every other message."""
    if message[:1] != _REFUSED:
        return None
    place, newline, _ = message[1:_MAX_PLACE_BYTES].partition(b"\n")
    try:
        return read(_refused_decoder, place, "refused record") if newline else None
    except FormatInvalid:
        return None


def partition_of_refused(record: bytes, partitions: int) -> int:
    """The partition of `blocks` that gets a refused record."""
    return zlib.crc32(record) % partitions


def frame_of(message: bytes) -> bytes:
    """The zstd frame behind a block's header."""
    return message[HEADER_BYTES:]


def frame_reader() -> zstandard.ZstdDecompressor:
    """A reader of frames, for one thread at a time; making one costs more than reading a small frame."""
    return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)


def open_frame(frame: bytes, reader: zstandard.ZstdDecompressor | None = None) -> bytes:
    """The NDJSON text of a block's frame, LF after every line.

    Args:
        frame: the frame.
        reader: a `frame_reader`, for a caller that opens many frames.

    Guarantees: never holds more than `MAX_RAW_BYTES` of output, whatever the frame claims or contains.

    Raises:
        FrameInvalid: the frame cannot be decompressed, is not exactly one, or holds more than `MAX_RAW_BYTES`.
    """
    try:
        if (size := raw_bytes_of(frame)) is not None and size > MAX_RAW_BYTES:
            raise FrameInvalid(f"frame holds {size} bytes, more than {MAX_RAW_BYTES}")
        # Bounded either way: by the size that the frame states, which zstd enforces, or else by max_output_size.
        return (reader or frame_reader()).decompress(frame, max_output_size=MAX_RAW_BYTES, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise FrameInvalid(f"{len(frame)} bytes are not one zstd frame of at most {MAX_RAW_BYTES} bytes: {exc}") from exc


def raw_bytes_of(frame: bytes) -> int | None:
    """The number of bytes that a frame's head states; None if it states none.

    Raises:
        zstandard.ZstdError: `frame` does not start like a zstd frame.
    """
    size: int = zstandard.get_frame_parameters(frame).content_size
    return None if size == _UNSTATED else size


class WatermarkMessage(msgspec.Struct, frozen=True, tag="tick", array_like=True):
    """Watermarks of one bridge worker's shards, and every shard that it knows to be unfinished (rules T3, T4)."""

    watermarks: dict[str, int]
    """Shard id -> ms: everything that Kinesis took before this moment from this shard is in `blocks`."""
    open_shards: dict[str, list[str]]
    """Shard id -> ids of its parents, for every shard listed by Kinesis and not known to be finished."""
    finished: list[str] = []
    """Listed shards whose END every partition has acknowledged: repeated, because a partition may have lost it in a gap."""


class End(msgspec.Struct, frozen=True, tag="end", array_like=True):
    """A shard has been read to its end; it never reopens (rule T5)."""

    shard: str


Control = WatermarkMessage | End
"""The kinds of control messages."""
_control_decoder: Final[msgspec.msgpack.Decoder[WatermarkMessage | End]] = msgspec.msgpack.Decoder(WatermarkMessage | End)


def encode_control(control: Control) -> bytes:
    """The Kafka message of a watermark message or an END."""
    return bytes([CONTROL_VERSION]) + msgspec.msgpack.encode(control)


def is_control(message: bytes) -> bool:
    """Whether a message on `blocks` carries time instead of events, or begins as a newer version of such a message does."""
    return message[:1] >= bytes([_CONTROL])


def decode_control(message: bytes | None) -> Control:
    """The watermark message or END in `message`.

    Raises:
        EnvelopeInvalid: `message` is neither.
        NewerFormat: it is a control message of a newer version.
    """
    if message is None:
        raise EnvelopeInvalid(NO_MESSAGE)
    if not is_control(message) or message[0] == _CONTROL:
        raise EnvelopeInvalid(f"not a control message: starts {message[:4].hex()}")
    body = message[1:]
    if message[0] > CONTROL_VERSION:
        if tag_of(body) is None:
            raise EnvelopeInvalid(f"not a control message: starts {message[:4].hex()}")
        refuse_newer("control message", message[0] - _CONTROL, CONTROL_VERSION - _CONTROL)
    return read_tagged(_control_decoder, body, "control message", CONTROL_VERSION - _CONTROL, EnvelopeInvalid)

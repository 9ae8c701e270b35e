"""A batch made again: its registry item from its raw file, and its raw file from its blocks (rule R3).

The raw file is one zstd frame after another, and each frame is a block. So the file itself says where its blocks lie and
which lines they have; the lines say their partition and the time of their receipt. What it does not say is the epoch.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import zstandard

from app.core.formats.batch import batch_time_ms, cut_again, partition_of
from app.core.formats.block import decode_header, frame_of, open_frame, raw_bytes_of
from app.core.formats.decoding import reading
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.errors import FormatInvalid, FrameInvalid, RepairRefused

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def item_of(raw: bytes, batch_id: str, epoch: int, partitions: int) -> RegistryItem:
    """The registry item of a batch, open, from its raw file: the inverse of `cut_again`.

    Args:
        raw: the raw file.
        batch_id: the batch; the file does not name it.
        epoch: the epoch in which the batch was received.
        partitions: the number of partitions of that epoch.

    Raises:
        RepairRefused: the file is none that a collector wrote, whole.

    Guarantees: the item that the collector registered, less state and attempts.
    """
    places: list[BlockPlace] = []
    received: list[int] = []
    first_line = start = 0
    try:
        for frame in frames_of(raw):
            lines = open_frame(frame).split(b"\n")[:-1]
            fields = [_decoder.decode(line) for line in lines]
            received.append(min(int(each["received_at"]) for each in fields))
            places.append(BlockPlace(_partition(lines, fields, partitions), first_line, len(lines), start, len(frame)))
            first_line, start = first_line + len(lines), start + len(frame)
        if not places:
            raise FormatInvalid("no block")
        item = RegistryItem(
            batch_id=batch_id, epoch=epoch, line_count=first_line, byte_count=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(), raw_key=raw_key(batch_id, batch_time_ms(batch_id)), blocks=places,
            received_at_ms=min(received),
        )  # fmt: skip
        with reading(f"raw file of {batch_id}"):
            cut_again(raw, item, 0)
    except (FormatInvalid, msgspec.DecodeError, zstandard.ZstdError, KeyError, TypeError, ValueError) as exc:
        raise RepairRefused(f"the raw file of batch {batch_id} is not whole: {exc}") from exc
    return item


def frames_of(raw: bytes) -> list[bytes]:
    """The zstd frames that `raw` consists of.

    Raises:
        FrameInvalid: it does not consist of whole frames.
    """
    frames = []
    left = memoryview(raw)
    while left:
        try:
            raw_bytes_of(bytes(left[:18]))
            reader = zstandard.ZstdDecompressor().decompressobj()
            reader.decompress(left)
        except zstandard.ZstdError as exc:
            raise FrameInvalid(f"byte {len(raw) - len(left)}: no zstd frame: {exc}") from exc
        if not reader.eof:
            raise FrameInvalid(f"byte {len(raw) - len(left)}: the frame is cut off")
        length = len(left) - len(reader.unused_data)
        frames.append(bytes(left[:length]))
        left = left[length:]
    return frames


def _partition(lines: list[bytes], fields: list[dict[str, Any]], partitions: int) -> int:
    """The partition of a block. All its lines have one, but the key of a long malformed line may be cut."""
    votes = Counter(partition_of(_key(line, each), partitions) for line, each in zip(lines, fields, strict=True))
    whole = Counter(
        partition_of(_key(line, each), partitions)
        for line, each in zip(lines, fields, strict=True) if each.get("malformed") is None
    )  # fmt: skip
    if len(whole) > 1:
        raise FormatInvalid(f"a block has lines of partitions {sorted(whole)}: another number of partitions made it")
    return (whole or votes).most_common(1)[0][0]


def _key(line: bytes, fields: Mapping[str, Any]) -> bytes:
    """The key of a stored line, as the collector had it."""
    if fields.get("malformed") is not None:
        whole = fields.get("payload_b64")
        return base64.b64decode(whole) if whole else str(fields.get("payload", "")).encode()
    key = fields.get("page_view_id") or fields.get("event_id")
    return str(key).encode() if key else line


def raw_of(blocks: Mapping[int, bytes]) -> bytes:
    """The raw file of a batch from its blocks.

    Args:
        blocks: number -> envelope, of any attempt; the frames of all attempts are the same.

    Raises:
        RepairRefused: a block is missing, or the blocks do not follow each other.
    """
    headers = {number: decode_header(envelope) for number, envelope in blocks.items()}
    count = next(iter(headers.values())).blocks_in_batch if headers else 0
    if missing := [number for number in range(count) if number not in headers]:
        raise RepairRefused(f"topic blocks does not have blocks {missing} of {count} any more")
    next_line = 0
    for number in range(count):
        if headers[number].first_line != next_line:
            raise RepairRefused(f"block {number} begins at line {headers[number].first_line}, and {next_line} follows")
        next_line += headers[number].lines
    if not count:
        raise RepairRefused("topic blocks has no block of it any more")
    return b"".join(frame_of(blocks[number]) for number in range(count))

"""A raw file with tombstones in the place of some lines, and the registry item that follows from it (rule R7)."""

import hashlib
from typing import Any, Final

import msgspec
import zstandard
from pyroaring import BitMap

from app.core.formats import tombstone
from app.core.formats.batch import ZSTD_LEVEL
from app.core.formats.block import MAX_FRAME_BYTES, MAX_RAW_BYTES
from app.core.formats.raw_file import frames_in
from app.core.formats.raw_file import lines_in as texts_in
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.errors import FormatInvalid

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def erased_raw(raw: bytes, item: RegistryItem, lines: BitMap, partitions: int) -> tuple[bytes, RegistryItem]:
    """The raw file without some lines, and its item.

    Args:
        raw: the batch's raw file, whether or not lines of it were erased before.
        item: the batch; only the partitions and lines of its blocks count, so it may be the item of either file.
        lines: the lines to erase.
        partitions: the number of partitions of the batch's epoch.

    Raises:
        FormatInvalid: the file's blocks are not the item's.

    Guarantees: blocks, their lines' numbers and their times stay. Erasing lines again gives the same bytes.
    """
    frames, places = [], []
    found, start, first_line = list(frames_in(raw)), 0, 0
    if len(found) != len(item.blocks):
        raise FormatInvalid(f"the raw file of batch {item.batch_id} has {len(found)} blocks, its item {len(item.blocks)}")
    for frame, place in zip(found, item.blocks, strict=True):
        texts = texts_in(frame.text)
        if (len(texts), first_line) != (place.lines, place.first_line):
            raise FormatInvalid(f"the raw file of batch {item.batch_id} has other lines than its item says")
        own = lines & BitMap(range(first_line, first_line + place.lines))
        whole = raw[frame.byte_start : frame.byte_start + frame.byte_len]
        made = _frame([
            _erased(text, place.partition, partitions) if n in own else text for n, text in enumerate(texts, first_line)
        ], texts) if own else None  # fmt: skip
        frames.append(whole if made is None else made)
        places.append(BlockPlace(place.partition, first_line, place.lines, start, len(frames[-1])))
        first_line, start = first_line + place.lines, start + len(frames[-1])
    body = b"".join(frames)
    sha256 = hashlib.sha256(body).hexdigest()
    return body, msgspec.structs.replace(item, byte_count=len(body), sha256=sha256, blocks=places)


def _erased(text: bytes, partition: int, partitions: int) -> bytes:
    try:
        fields = _decoder.decode(text)
        if fields.get("malformed") == tombstone.REASON:
            return text
        return tombstone.tombstone(partition, partitions, int(fields["received_at"]))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as exc:
        raise FormatInvalid(f"a line without its time of receipt: {exc}") from exc


def _frame(texts: list[bytes], before: list[bytes]) -> bytes | None:
    """The lines as one frame; None if they are those from before."""
    if texts == before:
        return None
    body = b"".join(text + b"\n" for text in texts)
    frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(body)
    if len(body) > MAX_RAW_BYTES or len(frame) > MAX_FRAME_BYTES:
        raise FormatInvalid("tombstones make a block too long")
    return frame

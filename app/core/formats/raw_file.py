"""A raw file read without its registry item: the blocks' frames one after the other, and the lines in them."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import zstandard

from app.core.formats.block import MAX_RAW_BYTES, raw_bytes_of
from app.core.formats.decoding import read
from app.errors import FormatInvalid, FrameInvalid


class RawFrame(NamedTuple):
    """One frame of a raw file."""

    byte_start: int
    byte_len: int
    text: bytes
    """NDJSON, LF after every line."""


def frames_in(raw: bytes) -> Iterator[RawFrame]:
    """The frames of a raw file, in order.

    Raises:
        FrameInvalid: the bytes are no frames as `app.core.formats.batch.seal` writes them; raised at the first of them.
    """
    start, reader = 0, zstandard.ZstdDecompressor()
    while start < len(raw):
        rest = raw[start:]
        try:
            size = raw_bytes_of(rest)
            if size is None or size > MAX_RAW_BYTES:
                raise FrameInvalid(f"frame at byte {start} states {size} bytes, not at most {MAX_RAW_BYTES}")
            one = reader.decompressobj()
            text = one.decompress(rest)
        except zstandard.ZstdError as exc:
            raise FrameInvalid(f"no zstd frame begins at byte {start}: {exc}") from exc
        if not one.eof or not text.endswith(b"\n"):
            raise FrameInvalid(f"frame at byte {start} is cut, or its last line has no end")
        length = len(rest) - len(one.unused_data)
        yield RawFrame(start, length, text)
        start += length


class LineIds(msgspec.Struct):
    """The ids in a stored line; a malformed line keeps its event id only if that is valid."""

    event_id: str | None = None
    page_view_id: str | None = None


NO_IDS: Final = LineIds()
_ids: Final = msgspec.json.Decoder(LineIds)


def ids_in(text: bytes) -> list[LineIds]:
    """The ids of each line of an NDJSON text; none of a line that cannot be read."""
    try:
        found = _ids.decode_lines(text)
    except (ValueError, RecursionError):
        found = []
    if len(found) == text.count(b"\n"):  # an empty line, which nobody of ours writes, would be passed over
        return found
    return [_ids_of(line) for line in lines_in(text)]


def lines_in(text: bytes) -> list[bytes]:
    """The lines of an NDJSON text that ends with LF."""
    return text[:-1].split(b"\n")


def _ids_of(line: bytes) -> LineIds:
    try:
        return read(_ids, line, "stored line")
    except FormatInvalid:
        return NO_IDS

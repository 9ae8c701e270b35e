"""The lines of a request's content in their stored form, in one pass by kernels; what they doubt is left to `parse_line`."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from app.core.events.line_tables import LineTables, line_tables
from app.core.events.parse import DAY_MS, MAX_LINE_BYTES, Sender, encode_sender
from app.core.events.request_body import (
    BYTE_ORDER_MARK,
    COMMAS_PER_LINE,
    JSON_TYPE,
    NDJSON_TYPE,
    TEXT_TYPE,
    WHITESPACE,
    WORK_PER_LINE,
    count_values,
)
from app.core.formats.stored_line import Counts, LinePacker, PackedLines, StoredLine
from app.kernels.cells import PAD, Bytes
from app.kernels.client_lines import ADDED, TAIL_HEAD, TAIL_SIZE, store_lines
from app.kernels.cut import count_marks, cut_array, cut_lines
from app.kernels.json_text import DOUBT

CHUNK_BYTES: Final = 128 * 1024
"""Content that is read at once: a fraction of a millisecond."""
MOST_LINES: Final = 10_240
"""Most lines in so much content; content of more and shorter lines is not read here."""
_STORED_BYTES: Final = 384 * 1024
_MOST_TAIL_BYTES: Final = 16 * 1024
_LABEL_BYTES: Final = 256
"""More than a stored line's labels beside those of the client's fields."""


class Piece(NamedTuple):
    """A piece of a content, its lines stored or in doubt."""

    text: bytearray
    """The stored lines, each with its LF, without those in doubt."""
    sizes: Counts
    """int64[n]: the bytes of each stored line, or DOUBT."""
    crcs: Counts
    """int64[n]: the CRC-32 of each stored line's key."""
    doubts: list[bytes]
    """The client's lines that are in doubt, in order."""

    def add_to(self, packer: LinePacker, read: Callable[[bytes], StoredLine]) -> None:
        """Add all lines to `packer`; `read` reads those in doubt."""
        at = first = 0
        for place, line in zip(np.flatnonzero(self.sizes == DOUBT).tolist(), self.doubts, strict=True):
            end = at + int(self.sizes[first:place].sum())
            packer.add_text(memoryview(self.text)[at:end], self.sizes[first:place], self.crcs[first:place])
            packer.add(read(line))
            at, first = end, place + 1
        packer.add_text(memoryview(self.text)[at:], self.sizes[first:], self.crcs[first:])


class ReadLines(NamedTuple):
    """The lines of a request as the kernels leave them."""

    pieces: list[Piece]
    values: int | None
    """`count_values` of the content; None if the content was not read to its end, as it has too many lines or values."""

    @property
    def count(self) -> int:
        """The number of lines that were read."""
        return sum(len(piece.sizes) for piece in self.pieces)

    @property
    def doubts(self) -> list[bytes]:
        """The client's lines that are in doubt, in order."""
        return [line for piece in self.pieces for line in piece.doubts]

    def pack(self, received_at_ms: int, read: Callable[[bytes], StoredLine]) -> PackedLines:
        """All lines; `read` reads those in doubt. The pieces are given up one by one."""
        if len(self.pieces) == 1 and not self.pieces[0].doubts:
            piece = self.pieces[0]
            return PackedLines(piece.text, piece.sizes, piece.crcs, received_at_ms)
        packer = LinePacker()
        self.pieces.reverse()
        while self.pieces:
            self.pieces.pop().add_to(packer, read)
        return packer.pack(received_at_ms)


class LineReader:
    """Reads the content of one request after the other; for one thread. It keeps a megabyte."""

    def __init__(self) -> None:
        self._text = np.zeros(CHUNK_BYTES + MAX_LINE_BYTES + 2 * PAD, np.uint8)
        self._own = np.zeros(2 * MAX_LINE_BYTES + 2 * PAD, np.uint8)
        self._rest = np.zeros(3 * MAX_LINE_BYTES + 2 * PAD, np.uint8)
        self._stored = np.zeros(_STORED_BYTES, np.uint8)
        self._bounds = np.zeros((2, MOST_LINES), np.int64)

    def read(
        self, name: str, content: bytes, sender: Sender, max_lines: int, max_units: int, take: Callable[[int], None]
    ) -> ReadLines | None:
        """The lines of a content of media type `name`; None if only `split_body` can say what they are.

        Args:
            name: of `media_type`.
            content: the content.
            sender: its sender.
            max_lines: reading ends early once there are more lines.
            max_units: reading ends early once there is more work (`WorkLimit`).
            take: called with the bytes of the lines that each piece of the content has added; it may raise to stop.
        """
        content = content.removeprefix(BYTE_ORDER_MARK)
        tail = _Tail.of(sender)
        if tail is None:
            return None
        if name != NDJSON_TYPE and not (name == TEXT_TYPE and content.startswith(b"{")):
            return self._read_document(content, name, tail, max_lines, max_units, take)
        pieces: list[Piece] = []
        lines = values = at = 0
        while at < len(content):
            end = _end_of_piece(content, at)
            read = self._read_piece(content[at:end], tail)
            if read is None:
                return None
            take(len(read[0].text))
            pieces.append(read[0])
            lines += len(read[0].sizes)
            values += read[1]
            if lines > max_lines or values + WORK_PER_LINE * lines > max_units:
                return ReadLines(pieces, None)
            at = end
        if name == TEXT_TYPE and pieces[0].sizes[0] == DOUBT:
            return None  # its first line may be the start of a document
        return ReadLines(pieces, values)

    def _read_piece(self, text: bytes, tail: "_Tail") -> tuple[Piece, int] | None:
        """The lines of a piece of NDJSON, and its values."""
        if len(text) > CHUNK_BYTES:
            line = text.removesuffix(b"\n").removesuffix(b"\r")
            return Piece(bytearray(), np.array([DOUBT]), np.array([0]), [line]), count_values(text)
        if not self._take(text):
            return None
        count = cut_lines(self._text, len(text), *self._bounds)
        return None if count == DOUBT else (self._store(text, count, tail), count_marks(self._text, len(text)))

    def _read_document(
        self, content: bytes, name: str, tail: "_Tail", max_lines: int, max_units: int, take: Callable[[int], None]
    ) -> ReadLines | None:
        """The lines of an array, or of one object; None unless every one of them is stored: then all of it is JSON."""
        text = content.strip(WHITESPACE)
        if len(text) > CHUNK_BYTES or not self._take(text):
            return None
        values = count_marks(self._text, len(text))
        limit = min(max_lines, (max_units - values) // WORK_PER_LINE)
        if text.count(b",") > limit * COMMAS_PER_LINE:
            return None
        if text.startswith(b"{") and name == JSON_TYPE:
            self._bounds[:, 0] = 0, len(text)
            count = 1
        else:
            count = cut_array(self._text, len(text), *self._bounds)
        if not 0 < count <= limit:
            return None
        piece = self._store(text, count, tail)
        if piece.doubts:
            return None
        take(len(piece.text))
        return ReadLines([piece], values)

    def _take(self, text: bytes) -> bool:
        """Make `text` the one that the kernels read; False if it is not UTF-8."""
        if not text.isascii():
            try:
                text.decode()
            except UnicodeDecodeError:
                return False
        size = len(text)
        self._text[:size] = np.frombuffer(text, np.uint8)
        self._text[size : size + PAD] = 0
        return True

    def _store(self, text: bytes, count: int, tail: "_Tail") -> Piece:
        """Store the lines that were cut from `text`."""
        starts, ends = self._bounds[:, :count]
        sizes, crcs = np.empty((2, count), np.int64)
        stored, done = bytearray(), 0
        while done < count:
            behind = store_lines(
                self._text, starts, ends, done, len(text) + PAD, tail.latest_ms, *tail.tables, tail.text,
                self._own, self._rest, self._stored, sizes, crcs,
            )  # fmt: skip
            written = memoryview(self._stored)[: int(sizes[done:behind].clip(0).sum())]
            stored = stored + written if stored else bytearray(written)
            done = behind
        doubts = [text[starts[line] : ends[line]] for line in np.flatnonzero(sizes == DOUBT).tolist()]
        return Piece(stored, sizes, crcs, doubts)


class _Tail(NamedTuple):
    """The part of the kernels' arguments that a sender decides."""

    text: Bytes
    latest_ms: int
    tables: LineTables

    @classmethod
    def of(cls, sender: Sender) -> "_Tail | None":
        """The tail of a sender's lines; None if it is too long."""
        end = encode_sender(sender)
        if len(end) > _MOST_TAIL_BYTES:
            return None
        text = b",%s\n" % end[1:]
        tables = line_tables(sender.kind)
        layout = tables.layout.copy()
        layout[TAIL_HEAD], layout[TAIL_SIZE] = text.rindex(b',"key_kind":'), len(text)
        layout[ADDED] = _LABEL_BYTES + len(text)
        latest_ms = sender.received_at_ms + DAY_MS
        return cls(np.frombuffer(text + bytes(PAD), np.uint8).copy(), latest_ms, tables._replace(layout=layout))


def _end_of_piece(content: bytes, at: int) -> int:
    """The place behind the last line feed of the next `CHUNK_BYTES`; if they hold none, behind the next one."""
    if len(content) - at <= CHUNK_BYTES:
        return len(content)
    end = content.rfind(b"\n", at, at + CHUNK_BYTES) + 1
    if end == 0:
        end = content.find(b"\n", at + CHUNK_BYTES) + 1
    return end or len(content)

"""The lines of a request's content in their stored form, in one pass by kernels; what they doubt is left to `parse_line`."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

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
from app.core.formats.stored_line import Counts, PackedLines, StoredLine
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


class ReadLines(NamedTuple):
    """The lines of a request as the kernels leave them."""

    texts: list[bytearray]
    """The stored lines without those in doubt, cut anywhere between two of them."""
    sizes: Counts
    """int64[n]: the bytes of each stored line with its LF, or DOUBT."""
    crcs: Counts
    """int64[n]: the CRC-32 of each stored line's key."""
    doubts: list[bytes]
    """The client's lines that are in doubt, in order."""
    values: int | None
    """`count_values` of the content; None if the content was not read to its end, as it has too many lines or values."""

    def with_doubts(self, stored: Sequence[StoredLine], received_at_ms: int) -> PackedLines:
        """All lines, with `stored` in the places of `doubts`."""
        if not stored and len(self.texts) == 1:
            return PackedLines(self.texts[0], self.sizes, self.crcs, received_at_ms)
        text, sizes, crcs = bytearray().join(self.texts), self.sizes.copy(), self.crcs.copy()
        places = np.flatnonzero(sizes == DOUBT)
        starts = np.cumsum(sizes.clip(0))[places].tolist()
        pieces: list[bytes | bytearray | memoryview] = []
        at = 0
        for line, start in zip(stored, starts, strict=True):
            pieces += (memoryview(text)[at:start], line.data, b"\n")
            at = start
        pieces.append(memoryview(text)[at:])
        sizes[places] = [len(line.data) + 1 for line in stored]
        crcs[places] = [crc32(line.key) for line in stored]
        reasons = ((n, line.reason or "") for n, line in zip(places.tolist(), stored, strict=True) if not line.valid)
        return PackedLines(bytearray().join(pieces), sizes, crcs, received_at_ms, tuple(reasons))


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
        read, values, at = _Pieces(), 0, 0
        while at < len(content):
            end = _end_of_piece(content, at)
            piece = content[at:end]
            if len(piece) > CHUNK_BYTES:
                read.add_doubt(piece.removesuffix(b"\n").removesuffix(b"\r"))
                values += count_values(piece)
            elif self._take(piece):
                values += count_marks(self._text, len(piece))
                count = cut_lines(self._text, len(piece), *self._bounds)
                if count == DOUBT:
                    return None
                take(self._store(piece, count, tail, read))
            else:
                return None
            if read.count > max_lines or values + WORK_PER_LINE * read.count > max_units:
                return read.lines(None)
            at = end
        if name == TEXT_TYPE and read.begins_in_doubt:
            return None  # its first line may be the start of a document
        return read.lines(values)

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
        read = _Pieces()
        stored = self._store(text, count, tail, read)
        if read.doubts:
            return None
        take(stored)
        return read.lines(values)

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

    def _store(self, text: bytes, count: int, tail: "_Tail", read: "_Pieces") -> int:
        """Store the lines that were cut from `text`; the bytes of those that are not in doubt."""
        starts, ends = self._bounds[:, :count]
        sizes, crcs = np.empty((2, count), np.int64)
        room = len(text) + PAD
        done = 0
        while done < count:
            behind = store_lines(
                self._text, starts, ends, done, room, tail.latest_ms, *tail.tables, tail.text,
                self._own, self._rest, self._stored, sizes, crcs,
            )  # fmt: skip
            stored = int(sizes[done:behind].clip(0).sum())
            read.texts.append(bytearray(memoryview(self._stored)[:stored]))
            done = behind
        read.sizes.append(sizes)
        read.crcs.append(crcs)
        for line in np.flatnonzero(sizes == DOUBT).tolist():
            read.doubts.append(text[starts[line] : ends[line]])
        return int(sizes.clip(0).sum())


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


class _Pieces:
    """The lines that were read so far."""

    def __init__(self) -> None:
        self.texts: list[bytearray] = []
        self.sizes: list[Counts] = []
        self.crcs: list[Counts] = []
        self.doubts: list[bytes] = []

    @property
    def count(self) -> int:
        """The number of lines."""
        return sum(map(len, self.sizes))

    @property
    def begins_in_doubt(self) -> bool:
        """Whether the first line is in doubt."""
        return bool(self.count) and next(sizes[0] for sizes in self.sizes if len(sizes)) == DOUBT

    def add_doubt(self, line: bytes) -> None:
        """Add a line that no kernel has looked at."""
        self.sizes.append(np.array([DOUBT], np.int64))
        self.crcs.append(np.zeros(1, np.int64))
        self.doubts.append(line)

    def lines(self, values: int | None) -> ReadLines:
        """All of them."""
        if len(self.sizes) == 1:
            return ReadLines(self.texts, self.sizes[0], self.crcs[0], self.doubts, values)
        none = [np.zeros(0, np.int64)]
        return ReadLines(
            self.texts, np.concatenate(none + self.sizes), np.concatenate(none + self.crcs), self.doubts, values
        )


def _end_of_piece(content: bytes, at: int) -> int:
    """The place behind the last line feed of the next `CHUNK_BYTES`; if they hold none, behind the next one."""
    if len(content) - at <= CHUNK_BYTES:
        return len(content)
    end = content.rfind(b"\n", at, at + CHUNK_BYTES) + 1
    if end == 0:
        end = content.find(b"\n", at + CHUNK_BYTES) + 1
    return end or len(content)

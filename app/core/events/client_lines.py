"""The lines of a request's content in their stored form, in one pass by kernels; what they doubt is left to `parse_line`."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from app.core.events.addresses import sender_address
from app.core.events.canonical_json import decode, encode
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
    is_document,
    is_json,
)
from app.core.formats.stored_line import Counts, LinePacker, PackedLines, StoredLine
from app.kernels.cells import PAD, Bytes
from app.kernels.client_lines import ADDED, TAIL_HEAD, TAIL_SIZE, store_lines
from app.kernels.cut import count_marks, cut_array, cut_lines
from app.kernels.json_text import DOUBT
from app.kernels.json_values import COUNT, QUESTION_NUMBER, WRITTEN

CHUNK_BYTES: Final = 256 * 1024
"""Content that is read at once: a fraction of a millisecond."""
MOST_LINES: Final = 16_384
"""Most lines in so much content; content of more and shorter lines is not read here."""
LEAST_BYTES: Final = 2048
"""A few lines are read sooner one by one than the arrays of the kernels are made ready."""
_STORED_BYTES: Final = 384 * 1024
_MOST_QUESTIONS: Final = 1000
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
    def line_count(self) -> int:
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


class Bounds(NamedTuple):
    """The bounds of reading one content."""

    lines: int
    """Most lines."""
    units: int
    """Most work (`WorkLimit`)."""
    take: Callable[[int], None]
    """Called with the bytes of the lines that each piece of the content has added; it may raise to stop."""


class LineReader:
    """Reads the content of one request after the other; for one thread. It keeps a megabyte."""

    def __init__(self, least_bytes: int = LEAST_BYTES) -> None:
        """Make the reader.

        Args:
            least_bytes: shorter contents are left to `split_body`.
        """
        self._least_bytes = least_bytes
        self._text = np.zeros(CHUNK_BYTES + MAX_LINE_BYTES + 2 * PAD, np.uint8)
        self._own = np.zeros(2 * MAX_LINE_BYTES + 2 * PAD, np.uint8)
        self._rest = np.zeros(3 * MAX_LINE_BYTES + 2 * PAD, np.uint8)
        self._stored = np.zeros(_STORED_BYTES, np.uint8)
        self._bounds = np.zeros((2, MOST_LINES), np.int64)
        self._questions = np.zeros((_MOST_QUESTIONS + 1, 4), np.int64)

    def read(self, name: str, content: bytes, sender: Sender, bounds: Bounds) -> ReadLines | None:
        """The lines of a content of media type `name`; None if only `split_body` can say what they are.

        Args:
            name: of `media_type`.
            content: the content.
            sender: its sender.
            bounds: reading ends early beyond them.
        """
        if len(content) < self._least_bytes:
            return None
        content = content.removeprefix(BYTE_ORDER_MARK)
        tail = _Tail.of(sender)
        if name != NDJSON_TYPE and not (name == TEXT_TYPE and content.startswith(b"{")):
            return self._read_document(content, name, tail, bounds)
        pieces: list[Piece] = []
        lines = values = at = 0
        while at < len(content):
            end = _end_of_piece(content, at)
            read = self._read_piece(content[at:end], tail)
            if read is None:
                return None
            bounds.take(len(read[0].text))
            pieces.append(read[0])
            lines += len(read[0].sizes)
            values += read[1]
            if lines > bounds.lines or values + WORK_PER_LINE * lines > bounds.units:
                return ReadLines(pieces, None)
            at = end
        if name == TEXT_TYPE and pieces[0].sizes[0] == DOUBT and is_document(content):
            return None
        return ReadLines(pieces, values)

    def _read_piece(self, text: bytes, tail: "_Tail") -> tuple[Piece, int] | None:
        """The lines of a piece of NDJSON, and its values."""
        if len(text) > CHUNK_BYTES:
            line = text.removesuffix(b"\n").removesuffix(b"\r")
            return Piece(bytearray(), np.array([DOUBT]), np.array([0]), [line]), count_values(text)
        self._take(text)
        count = cut_lines(self._text, len(text), *self._bounds)
        return None if count == DOUBT else (self._store(text, count, tail), count_marks(self._text, len(text)))

    def _read_document(self, content: bytes, name: str, tail: "_Tail", bounds: Bounds) -> ReadLines | None:
        """The lines of an array, or of one object; None unless each of them is JSON: then all of it is."""
        text = content.strip(WHITESPACE)
        if len(text) > CHUNK_BYTES or not _is_utf8(text):
            return None
        self._take(text)
        values = count_marks(self._text, len(text))
        limit = min(bounds.lines, (bounds.units - values) // WORK_PER_LINE)
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
        if not all(map(is_json, piece.doubts)):
            return None
        bounds.take(len(piece.text))
        return ReadLines([piece], values)

    def _take(self, text: bytes) -> None:
        """Make `text` the one that the kernels read."""
        size = len(text)
        self._text[:size] = np.frombuffer(text, np.uint8)
        self._text[size : size + PAD] = 0

    def _store(self, text: bytes, count: int, tail: "_Tail") -> Piece:
        """Store the lines that were cut from `text`."""
        starts, ends = self._bounds[:, :count]
        foreign = [] if _is_utf8(text) else [n for n in range(count) if not _is_utf8(text[starts[n] : ends[n]])]
        sizes, crcs = np.empty((2, count), np.int64)
        stored, done = bytearray(), 0
        while done < count:
            behind = store_lines(
                self._text, starts, ends, done, len(text) + PAD, tail.latest_ms, *tail.tables, tail.text,
                self._own, self._rest, self._stored, sizes, crcs, self._questions,
            )  # fmt: skip
            written = self._stored.data[: int(self._questions[COUNT, WRITTEN])]
            for line in sorted(self._denied() | {line for line in foreign if done <= line < behind and sizes[line] > 0}):
                at = _bytes_of(sizes[done:line])
                written = memoryview(bytes(written[:at]) + bytes(written[at + int(sizes[line]) :]))
                sizes[line], crcs[line] = DOUBT, 0
            stored = stored + written if stored else bytearray(written)
            done = behind
        doubts = [text[starts[line] : ends[line]] for line in np.flatnonzero(sizes == DOUBT).tolist()]
        return Piece(stored, sizes, crcs, doubts)

    def _denied(self) -> set[int]:
        """The lines of which the kernel asked something that is not so."""
        denied: set[int] = set()
        for what, at, end, line in self._questions[1 : int(self._questions[COUNT, 0]) + 1].tolist():
            text = self._text[at:end].tobytes()
            if what == QUESTION_NUMBER:
                is_so = encode(decode(text)) == text
            else:
                is_so = sender_address(text.decode()) == text.decode()
            if not is_so:
                denied.add(line)
        return denied


class _Tail(NamedTuple):
    """The part of the kernels' arguments that a sender decides."""

    text: Bytes
    latest_ms: int
    tables: LineTables

    @classmethod
    def of(cls, sender: Sender) -> "_Tail":
        """The tail of a sender's lines: some kilobytes at most, as user agents are cut."""
        text = b",%s\n" % encode_sender(sender)[1:]
        tables = line_tables(sender.kind)
        layout = tables.layout.copy()
        layout[TAIL_HEAD], layout[TAIL_SIZE] = text.rindex(b',"key_kind":'), len(text)
        layout[ADDED] = _LABEL_BYTES + len(text)
        latest_ms = sender.received_at_ms + DAY_MS
        return cls(np.frombuffer(text + bytes(PAD), np.uint8).copy(), latest_ms, tables._replace(layout=layout))


def _bytes_of(sizes: Counts) -> int:
    """The bytes of the lines that are not in doubt."""
    return int(sizes[sizes > 0].sum())


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _end_of_piece(content: bytes, at: int) -> int:
    """The place behind the last line feed of the next `CHUNK_BYTES`; if they hold none, behind the next one."""
    if len(content) - at <= CHUNK_BYTES:
        return len(content)
    end = content.rfind(b"\n", at, at + CHUNK_BYTES) + 1
    if end == 0:
        end = content.find(b"\n", at + CHUNK_BYTES) + 1
    return end or len(content)
